/* Where abuse happens: a cluster of three controllers and one group, two of whose processes are the
 * victims (the group's leader and the controllers' leader), a client that goes on working all the
 * time, and a watch on the victims' memory. The end of a scene asserts what must hold in each: the
 * same processes are up, their memory stayed within a bound and came back, every operation of the
 * other client succeeded in time. */
#ifndef TESTS_ABUSE_SCENE_H
#define TESTS_ABUSE_SCENE_H

#include "cluster/harness.h"

enum {
    /* What a victim may hold beyond what it held before, during and after the abuse. The first is
     * each test's to say; the second is what the allocators may keep of it. */
    SCENE_AFTER_BYTES = 128 * 1024 * 1024,
    /* The other client's slowest operation: it shares two cores with the abuse and the victims. */
    SCENE_SLOWEST_MS = 10000,
};

enum scene_victim { SCENE_GROUP, SCENE_CONTROLLER, SCENE_VICTIMS };

struct scene {
    struct cluster cluster;
    struct process *victims[SCENE_VICTIMS];
};
/* Starts all of it; waits until the cluster serves. There is one scene at a time. */
struct scene *scene_begin(const char *name);
/* `during_bytes`: what each victim's resident memory may have grown by at its highest. */
void scene_end(struct scene *scene, uint64_t during_bytes);
uint16_t scene_port(const struct scene *scene, enum scene_victim victim);
/* Of ABUSE_FACTOR (1 when it is not set): longer forms of the tests do more of the same. */
uint32_t scene_factor(void);
/* True once the victim answers Admin.Status. */
bool scene_answers(struct scene *scene, enum scene_victim victim);

#endif
