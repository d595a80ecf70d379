/* What the harness's files share. */
#ifndef TESTS_NODE_HARNESS_INTERNAL_H
#define TESTS_NODE_HARNESS_INTERNAL_H

#include "base/rng.h"
#include "node/harness.h"

enum { HARNESS_PERSIST_BATCH_MAX = 64 };

struct slot_worker {
    struct replica_job *first; /* waiting, in order of submission */
    struct replica_job *last;
    struct replica_job *running[HARNESS_PERSIST_BATCH_MAX];
    size_t running_count;
};

struct slot {
    struct harness *harness;
    uint32_t number;
    uint64_t epoch; /* events of an earlier life carry another */
    struct fake_vfs *disk;
    struct clock clock;
    struct replica *replica; /* NULL: down */
    struct state_machine machine;
    struct state_machine checked; /* what the replica sees: `machine`, watched */
    struct state_machine_ops watch_ops;
    struct raft_position applied; /* as the watcher saw it */
    uint64_t time_ms;             /* log time of the newest command */
    struct slot_worker workers[REPLICA_WORKER_COUNT];
    struct harness_latency latency[REPLICA_WORKER_COUNT];
    bool poll_planned;
    bool fatal;
    bool waiting; /* starts without members */
    bool connected;
    char why[1024];
};

/* What was applied at an index, by whoever came first. */
struct applied_entry {
    uint64_t term;
    uint32_t checksum; /* of its commands and their time */
    uint64_t time_ms;
    bool known;
};

struct harness {
    struct harness_options options;
    struct sim_clock clock;
    struct rng rng;
    struct rng net_rng;
    struct harness_net net;
    struct slot slots[HARNESS_SLOTS_MAX];
    bool cut[HARNESS_SLOTS_MAX][HARNESS_SLOTS_MAX];
    uint64_t newest_ns[HARNESS_SLOTS_MAX][HARNESS_SLOTS_MAX];
    struct applied_entry *applied; /* by index */
    size_t applied_capacity;
    uint64_t *leader_of_term; /* by term: replica id, 0: none seen */
    size_t term_capacity;
    struct harness_counters counters;
    char addresses[HARNESS_SLOTS_MAX][32];
};

/* harness.c */
void harness__plan_poll(struct slot *slot);

/* harness_net.c */
void harness__send(struct slot *from, uint64_t peer, struct buf *frame);

/* harness_check.c */
void harness__watch(struct slot *slot);
void harness__check_slot(struct slot *slot);
void harness__check_deinit(struct harness *harness);

#endif
