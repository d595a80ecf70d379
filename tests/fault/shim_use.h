/* The test's side of the shim (shim.h): one for each process of the harness that is to be under it.
 */
#ifndef TESTS_FAULT_SHIM_USE_H
#define TESTS_FAULT_SHIM_USE_H

#include "cluster/harness.h"
#include "fault/shim.h"

struct shim {
    struct shim_control *control;
    char preload[1200], block[400], root[400]; /* the process's environment points here */
};

/* Call it while the process is not running; it holds for all its starts. */
void shim_attach(struct shim *shim, const struct cluster *cluster, struct process *process);
void shim_detach(struct shim *shim, struct process *process);

#define SHIM_ANY        0xffffffffu
#define SHIM_BIT(value) (1u << (value))
#define SHIM_WAL_ALL                                                                               \
    (SHIM_BIT(SHIM_WAL_BASE) | SHIM_BIT(SHIM_WAL_SEGMENT) | SHIM_BIT(SHIM_WAL_SPARE) |             \
     SHIM_BIT(SHIM_WAL_DIR))
#define SHIM_SNAPSHOT_ALL                                                                          \
    (SHIM_BIT(SHIM_SNAPSHOT_IN) | SHIM_BIT(SHIM_SNAPSHOT_READY) | SHIM_BIT(SHIM_SNAPSHOT_OUT) |    \
     SHIM_BIT(SHIM_SNAPSHOT_DIR))
#define SHIM_STATE_ALL                                                                             \
    (SHIM_BIT(SHIM_STATE_TABLE) | SHIM_BIT(SHIM_STATE_MANIFEST) | SHIM_BIT(SHIM_STATE_OTHER) |     \
     SHIM_BIT(SHIM_STATE_DIR))

struct shim_order {
    uint32_t classes, kinds;
    enum shim_action action;
    int error;
    uint32_t delay_ms;
    int64_t nth; /* 1: the next one */
};
/* The rule `which` (below SHIM_RULES) holds from now on, instead of what it held before. */
void shim_arm(struct shim *shim, uint32_t which, const struct shim_order *order);
void shim_disarm(struct shim *shim, uint32_t which);
uint32_t shim_hits(const struct shim *shim, uint32_t which);
uint64_t shim_count(const struct shim *shim, enum shim_class class, enum shim_kind kind);
const char *shim_class_name(enum shim_class class);
const char *shim_kind_name(enum shim_kind kind);

/* The process's monotonic clock goes on from where it is, at this rate. */
void shim_clock_rate(struct shim *shim, double rate);

#endif
