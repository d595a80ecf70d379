/* The parts of crash_points.c: the work that reaches the points, and the model that says what must
 * be there afterwards. One thread. */
#ifndef TESTS_FAULT_CRASH_POINTS_H
#define TESTS_FAULT_CRASH_POINTS_H

#include "base/rng.h"
#include "cluster/harness.h"
#include "fault/shim_use.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct skv_client;

/* ---- the model: one client, one command at a time, each tried until it is done, so that what must
 * be in the cluster is known exactly ---- */

enum { MODEL_KEYS = 40, MODEL_VALUE_BYTES = 60 * 1024 };

struct model {
    struct skv_client *client;
    uint64_t counters[MODEL_KEYS]; /* of the newest value put; 0: none */
    uint64_t next;
    uint64_t writes;
};

void model_open(struct model *model, const struct cluster *cluster);
void model_close(struct model *model);
void model_write(struct model *model, uint32_t count);
/* Reads every key and fails the program when one is not what was acknowledged. */
void model_check(struct model *model);

/* ---- the work ---- */

enum {
    POINTS_GROUPS = 2,  /* joined */
    POINTS_FOUNDED = 9, /* a group that is founded anew each time, never joined */
    POINTS_PROCESSES = 12,
    POINTS_SHARDS = 16,
};

struct points {
    struct cluster cluster;
    struct cluster founding; /* the group that is founded anew; of the same controllers */
    struct cluster *home;    /* of the two, the victim's */
    struct shim shims[POINTS_PROCESSES];          /* beside cluster.processes */
    struct shim founding_shims[POINTS_PROCESSES]; /* beside founding.processes */
    struct model model;
    struct rng rng;
    struct process *victim; /* of the work under way */
    struct process *helper; /* the other one it needs, down for a while */
    /* A replica of group 1 that is being replaced: what is to be done next. */
    enum {
        CHANGE_NONE,
        CHANGE_REMOVE,
        CHANGE_START,
        CHANGE_ADD,
        CHANGE_PROMOTE,
    } change;
    struct process *changing;
    uint32_t newest_id;
};

struct points_work {
    const char *name;
    void (*prepare)(struct points *points); /* chooses the victim; it may be down afterwards */
    void (*run)(struct points *points);     /* ends early when the victim is dead */
    bool slow;
};
extern const struct points_work points_works[]; /* ends with a NULL name */

void points_open(struct points *points, uint64_t seed);
void points_close(struct points *points);
struct shim *points_victim_shim(struct points *points);
bool points_is_dead(struct points *points); /* the victim was killed by its rule */
/* Everything runs again, serves, has settled and is equal, and all that was acknowledged is there.
 */
void points_recover(struct points *points, const struct points_work *work);

#endif
