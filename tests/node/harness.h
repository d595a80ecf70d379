/* N replicas of the real raft/node/replica over virtual time, fake disks and a simulated network,
 * in one thread and from one seed. Only time, disk and network are fake; the machine that runs here
 * is the one node.c drives.
 *
 *   events of the clock: tick, frame arrives, job ends, something was asked  -->  replica_*()  -->
 *   replica_poll() jobs: queued per worker, "run" when their time is over (that is when bytes
 *   become durable and held frames leave)
 *
 * Replica ids are slot + 1. A slot is up, or down: crashed (its disk lost or tore what was not
 * synced), stopped in order, or ended by itself (env.fatal). harness_start brings it back from what
 * its disk holds.
 *
 * Checked all the time, for any state machine: entries are applied in order, without gaps, the same
 * on every replica, with log times that never go back; every core's own invariants; at most one
 * leader a term. A violation ends the program. */
#ifndef TESTS_NODE_HARNESS_H
#define TESTS_NODE_HARNESS_H

#include "lib/fake_vfs.h"
#include "raft/node/replica.h"
#include "raft/sim_clock.h"

enum { HARNESS_SLOTS_MAX = 9 };

/* Makes and unmakes the state machine of a slot. `close` must not make anything durable: it also
 * stands for a crash. */
struct harness_machine {
    int (*open)(void *context, uint32_t slot, const struct vfs *vfs, const char *dir,
                struct state_machine *out);
    void (*close)(void *context, uint32_t slot, struct state_machine *sm);
    void *context;
};

struct harness_net {
    uint64_t delay_min_ns;
    uint64_t delay_max_ns;
    bool fifo; /* a link keeps its order, as one stream does */
    uint32_t loss_permille;
    uint32_t duplicate_permille;
    uint32_t straggler_permille; /* arrives up to straggler_max_ns late, out of order */
    uint64_t straggler_max_ns;
    bool report_losses; /* the sender's transport notices what did not arrive */
};
struct harness_net harness_net_reliable(void);
struct harness_net harness_net_unreliable(void);

struct harness_latency {
    uint64_t min_ns;
    uint64_t max_ns;
};

struct harness_options {
    uint64_t seed;
    uint32_t slot_count;   /* disks and addresses that exist */
    uint32_t member_count; /* the first of them are the group's first members */
    struct harness_net net;
    struct harness_latency latency[REPLICA_WORKER_COUNT]; /* of one run of jobs */
    struct harness_machine machine;
    uint64_t tick_ns;
    struct replica_options replica; /* ids, dir, members and seed are filled in for each start */
};
/* Three members, a reliable network, small segments and caches; the machine is still to be named.
 * */
struct harness_options harness_options_default(uint64_t seed);

struct harness_counters {
    uint64_t frames_sent;
    uint64_t frames_delivered;
    uint64_t bytes_sent;
    uint64_t entries_applied; /* by anybody */
    uint64_t restores;
    uint64_t starts;
    uint64_t fatals;
};

struct harness;

/* gives; all slots are down */
struct harness *harness_create(const struct harness_options *options);
void harness_destroy(struct harness *harness);
uint64_t harness_now_ns(const struct harness *harness);
struct rng *harness_rng(struct harness *harness); /* for the test's own choices */
const struct harness_counters *harness_counters(const struct harness *harness);

/* ---- life and death ---- */

/* 0, or what replica_create said; harness_why() tells more. */
int harness_start(struct harness *harness, uint32_t slot) MUST_USE;
/* those that are down, of the first members; must succeed */
void harness_start_all(struct harness *harness);
/* of the last failed start, or env.fatal's text */
const char *harness_why(const struct harness *harness, uint32_t slot);
bool harness_is_up(const struct harness *harness, uint32_t slot);
void harness_crash(struct harness *harness, uint32_t slot, enum fake_crash how);
/* In order: runs the clock until every job is back. */
void harness_stop(struct harness *harness, uint32_t slot);
/* A new, empty disk under a slot that is down. */
void harness_wipe(struct harness *harness, uint32_t slot);
/* How long one run of jobs of this slot's worker takes from now on; a slow or stalled disk. */
void harness_set_latency(struct harness *harness, uint32_t slot, enum replica_worker worker,
                         struct harness_latency latency);
/* Another disk under a slot that is down; takes it. */
void harness_swap_disk(struct harness *harness, uint32_t slot, struct fake_vfs *disk);
/* NULL while the slot is down. */
struct replica *harness_replica(struct harness *harness, uint32_t slot);
struct state_machine *harness_machine_of(struct harness *harness, uint32_t slot);
struct fake_vfs *harness_disk(struct harness *harness, uint32_t slot);
/* A membership as replica_options.members wants it for later starts of this slot: none (waits to be
 * added) or the first members. */
void harness_set_waiting(struct harness *harness, uint32_t slot, bool waiting);

/* ---- time ---- */

void harness_run_for(struct harness *harness, uint64_t duration_ns);
/* Runs until `condition` holds; false when `limit_ns` passed first. */
typedef bool (*harness_condition_fn)(struct harness *harness, void *context);
bool harness_run_until(struct harness *harness, harness_condition_fn condition, void *context,
                       uint64_t limit_ns);
/* Calls `run(context)` at that moment. */
void harness_at(struct harness *harness, uint64_t at_ns, void (*run)(void *context), void *context);

/* ---- network ---- */

void harness_set_net(struct harness *harness, const struct harness_net *net);
/* the course's switch: both ways, all peers */
void harness_connect(struct harness *harness, uint32_t slot, bool connected);
void harness_cut(struct harness *harness, uint32_t from, uint32_t to, bool cut); /* one way */
/* `side` is a bit mask of slots: links across it are cut, all others are whole. */
void harness_partition(struct harness *harness, uint32_t side);
void harness_heal(struct harness *harness);

/* ---- asking ---- */

/* The slot that can serve (NODE_LEADER) with the highest term; -1: none. */
int harness_leader(struct harness *harness);
/* Waits for one; -1 after limit_ns. */
int harness_wait_leader(struct harness *harness, uint64_t limit_ns);
/* As replica_propose and replica_read, from outside: the call itself takes a moment and answers
 * later. A slot that is down answers ERR_UNAVAILABLE. */
void harness_propose(struct harness *harness, uint32_t slot, struct bytes payload,
                     node_done_fn done, void *context);
void harness_read(struct harness *harness, uint32_t slot, node_read_fn serve, void *context);
void harness_change_member(struct harness *harness, uint32_t slot, enum raft_change_kind kind,
                           uint64_t id, node_change_fn done, void *context);
void harness_transfer(struct harness *harness, uint32_t slot, uint64_t target, node_change_fn done,
                      void *context);
/* 0 when the slot is down. */
uint64_t harness_applied(struct harness *harness, uint32_t slot);
/* Log time of the newest command this slot applied since it started. */
uint64_t harness_log_time_ms(struct harness *harness, uint32_t slot);
/* All members that are up have applied up to the same index, which is at least `index`. */
bool harness_wait_applied(struct harness *harness, uint64_t index, uint64_t limit_ns);

#endif
