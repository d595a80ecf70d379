/* Random runs: each seed draws a group, limits of the core, a subset of faults and a few seconds of
 * virtual time under them, with proposals, reads, membership changes and transfers. Safety is
 * checked at every step; then everything is healed and the group must make progress and converge in
 * bounded time. */
#ifndef TESTS_RAFT_SWARM_H
#define TESTS_RAFT_SWARM_H

#include "raft/sim_cluster.h"

struct swarm_features {
    bool loss;
    bool delay;
    bool duplicates;
    bool stragglers;
    bool partitions;
    bool one_way;
    bool links;
    bool crashes;
    bool slow_disks;
    bool stalls;
    bool membership;
    bool transfers;
    bool reads;
    bool snapshots;
    bool tight_limits; /* small windows, caches and bounds in the core */
    bool lease;
};

/* The drawn run. *rng is of the seed and goes on to drive it. */
void swarm_draw(struct rng *rng, uint64_t seed, enum sim_plant plant,
                struct swarm_features *features, struct sim_cluster_options *options);

struct swarm_result {
    struct sim_counters counters;
    uint64_t virtual_ns;
    uint64_t rpcs;
    uint64_t bytes;
    uint64_t commands;
    uint64_t events;
};
/* Adds to *sum. */
void swarm_run(uint64_t seed, enum sim_plant plant, struct swarm_result *sum);

extern const uint64_t swarm_regressions[]; /* seeds that once found a bug; ends with 0 */

#endif
