/* A group of simulated replicas and the vocabulary of the course's tests: one(), checkOneLeader(),
 * nCommitted(), ... Everything runs in virtual time, from one seed, on one thread. Slots are
 * 0-based, replica ids slot + 1. */
#ifndef TESTS_RAFT_SIM_CLUSTER_H
#define TESTS_RAFT_SIM_CLUSTER_H

#include "raft/sim_checker.h"
#include "raft/sim_counters.h"
#include "raft/sim_replica.h"

#define SIM_TEST_LIMIT_NS (120 * SIM_S)

/* The course's RaftElectionTimeout: a span within which an election surely happens. */
#define COURSE_ELECTION_NS (1000 * SIM_MS)

struct sim_cluster_options {
    uint32_t servers; /* slots */
    uint32_t voters;  /* in the bootstrap membership: slots 0 .. voters - 1 */
    uint64_t seed;
    struct sim_net_options net;
    struct sim_replica_options replica;
    uint64_t limit_ns; /* virtual; beyond it the run fails */
    bool heartbeat_rate_checked;
};

/* As the course runs: all servers vote, ticks of 10 ms, heartbeats every 100 ms, elections after
 * 300 .. 600 ms. */
struct sim_cluster_options sim_cluster_options_course(uint32_t servers, uint64_t seed,
                                                      bool unreliable, bool snapshots);

struct sim_cluster {
    struct sim_cluster_options options;
    struct sim_clock clock;
    struct sim_net net;
    struct sim_checker checker;
    struct sim_counters counters;
    struct rng rng; /* of the test's own choices */
    struct sim_replica replicas[SIM_REPLICAS_MAX];
    uint64_t acknowledged;  /* newest index applied by the replica that had taken it */
    uint64_t read_contexts; /* given out */
    uint32_t leader_hint;   /* where one() asked last */
};

/* gives; nothing is connected or started. The clock must not move: create in place, on the heap. */
struct sim_cluster *sim_cluster_create(const struct sim_cluster_options *options);
void sim_cluster_destroy(struct sim_cluster *cluster);
/* Starts and connects every server of the bootstrap membership. */
void sim_cluster_start_all(struct sim_cluster *cluster);

void sim_cluster_run(struct sim_cluster *cluster, uint64_t duration_ns);
/* Runs until `done(context)`; false when `timeout_ns` passed first. */
typedef bool (*sim_condition_fn)(struct sim_cluster *cluster, const void *context);
bool sim_cluster_run_until(struct sim_cluster *cluster, uint64_t timeout_ns, sim_condition_fn done,
                           const void *context);

/* ---- the course's words ---- */

void sim_connect(struct sim_cluster *cluster, uint32_t slot);
void sim_disconnect(struct sim_cluster *cluster, uint32_t slot);
bool sim_connected(const struct sim_cluster *cluster, uint32_t slot);
void sim_crash(struct sim_cluster *cluster,
               uint32_t slot); /* crash1: nothing when it is down; disconnects */
void sim_start(struct sim_cluster *cluster,
               uint32_t slot); /* start1: crashes it first; not connected */
bool sim_is_up(const struct sim_cluster *cluster, uint32_t slot);
void sim_unreliable(struct sim_cluster *cluster, bool unreliable);
void sim_long_reordering(struct sim_cluster *cluster, bool on);

uint64_t sim_value(struct sim_cluster *cluster); /* a random command */
/* Start(): true when `slot` took the command as leader; *position may be NULL. */
bool sim_propose(struct sim_cluster *cluster, uint32_t slot, uint64_t value, size_t size,
                 struct raft_position *position);
/* How many have applied a command at this index. *value is theirs. */
uint32_t sim_committed_count(struct sim_cluster *cluster, uint64_t index, uint64_t *value);
uint64_t sim_one(struct sim_cluster *cluster, uint64_t value, uint32_t servers, bool retry);
uint64_t sim_one_sized(struct sim_cluster *cluster, uint64_t value, size_t size, uint32_t servers,
                       bool retry);
/* wait(): until `servers` have applied `index`. False: the term moved on from `term` (0: do not
 * look). */
bool sim_wait(struct sim_cluster *cluster, uint64_t index, uint32_t servers, uint64_t term,
              uint64_t *value);
uint32_t sim_check_one_leader(struct sim_cluster *cluster); /* its slot */
void sim_check_no_leader(struct sim_cluster *cluster);
uint64_t sim_check_terms(struct sim_cluster *cluster);
uint64_t sim_rpc_count(const struct sim_cluster *cluster, uint32_t slot);
uint64_t sim_log_bytes_max(const struct sim_cluster *cluster);
/* Every connected server's term and role. */
bool sim_leads(const struct sim_cluster *cluster, uint32_t slot, uint64_t *term);

/* one() that runs beside other things. Set the first four, zero the rest, begin; read the last two.
 */
struct sim_agreement {
    struct sim_cluster *cluster;
    uint64_t value;
    uint32_t servers;
    bool retry;
    size_t size;
    uint64_t deadline_ns;
    uint64_t index; /* where it was proposed; 0: nowhere yet */
    uint64_t asked_ns;
    uint32_t slot;
    bool done; /* `index` is where it is committed */
};
void sim_agreement_begin(struct sim_agreement *agreement);

#endif
