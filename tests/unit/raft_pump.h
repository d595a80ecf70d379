/* A handful of cores joined by a list of messages and pretend disks: enough to bring the core into
 * any state by hand. Nothing moves unless a test says so: ticks, deliveries and syncs are calls.
 * (The simulator with faults and time is elsewhere.)
 *
 * After every input the core's own invariants are checked, and everything applied is compared with
 * what any other replica applied at that index. Thread: one. */
#ifndef UNIT_RAFT_PUMP_H
#define UNIT_RAFT_PUMP_H

#include "unit/base_test.h"

#include "raft/core/core.h"

#include "base/rng.h"

enum { PUMP_NODES_MAX = 8, PUMP_READS_MAX = 64, PUMP_INDEX_MAX = 100000 };

/* A message on its way, with everything it points to. */
struct pump_message {
    struct raft_message message;
    struct raft_entry *entries;
    struct raft_snapshot *snapshot;
};

struct pump_messages {
    struct pump_message *items;
    size_t count;
    size_t capacity;
};

struct pump_write {
    struct raft_write write;
    struct raft_entry *entries;
    struct raft_snapshot *chunk_snapshot;
    struct raft_snapshot *install;
    struct pump_messages held;
};

struct pump_node {
    struct raft_core *core; /* NULL: crashed or not a member */
    struct raft_core_options options;
    bool disk_waits;           /* writes stay unsynced until pump_sync */
    uint32_t installs_damaged; /* so many next ones are found not to be intact */
    bool log_gone; /* entries asked from this disk are gone, though the core does not know */
    struct pump_write *writes;
    size_t write_count;
    size_t write_capacity;
    /* durable */
    struct raft_hard_state hard_state;
    struct raft_snapshot snapshot; /* what the log is based on */
    struct raft_entry *log;        /* log[0] is at snapshot.position.index + 1 */
    size_t log_count;
    size_t log_capacity;
    size_t staged_bytes;
    uint64_t staged_id;
    uint64_t applied;
    /* seen */
    struct raft_read_ready reads[PUMP_READS_MAX];
    size_t read_count;
    struct raft_snapshot offered;
    uint64_t commit_seen;
};

struct pump {
    struct pump_node nodes[PUMP_NODES_MAX + 1]; /* by id, from 1 */
    struct raft_membership bootstrap;
    struct pump_messages wire;
    bool cut[PUMP_NODES_MAX + 1][PUMP_NODES_MAX + 1]; /* [from][to] */
    uint64_t sent_count;                              /* messages put on the wire, ever */
    uint64_t sent_of_kind[RAFT_MSG_TIMEOUT_NOW + 1];
    uint64_t sent_entry_bytes;
    /* what was applied at an index, by whoever came first */
    struct raft_position truth[PUMP_INDEX_MAX];
    uint64_t truth_hash[PUMP_INDEX_MAX];
    uint64_t truth_last;
    uint64_t seed;
    char trace[65536];
    size_t trace_size;
    uint64_t traced;                    /* whose trace is kept */
    void (*on_trace)(const char *line); /* may be NULL */
};

/* Cores 1..voters, followers in term 0, with raft_core_options_default but for `change`, which may
 * be NULL. */
struct pump *pump_create(size_t voters, void (*change)(struct raft_core_options *options));
void pump_destroy(struct pump *pump);

/* Starts a replica that is not in the bootstrap membership and waits to be added. */
void pump_add_blank(struct pump *pump, uint64_t id);

/* Takes what the core has to say: messages go to the wire, writes to the disk (which may wait). */
void pump_collect(struct pump *pump, uint64_t id);
/* Makes the first `count` waiting writes durable. */
void pump_sync(struct pump *pump, uint64_t id, size_t count);
/* Delivers the oldest message on the wire. */
void pump_deliver_one(struct pump *pump);
/* Everything, until nothing moves. */
void pump_settle(struct pump *pump);
void pump_tick(struct pump *pump, uint64_t id); /* collects, delivers nothing */
/* all, each tick followed by pump_settle */
void pump_tick_all(struct pump *pump, size_t ticks);
/* as if it had arrived; collects */
void pump_step(struct pump *pump, const struct raft_message *message);

/* Ticks `id` alone until it leads, settling. */
void pump_elect(struct pump *pump, uint64_t id);
/* Ticks all until a leader is known to a majority; gives it. */
uint64_t pump_wait_leader(struct pump *pump);
void pump_crash(struct pump *pump, uint64_t id); /* what was not synced is gone */
void pump_restart(struct pump *pump, uint64_t id);
void pump_isolate(struct pump *pump, uint64_t id, bool cut);
void pump_drop_wire(struct pump *pump); /* every message under way is lost */
/* The newest message of that kind on the wire to `to` (0: anyone), or NULL. Good until the wire
 * changes. */
struct pump_message *pump_find(struct pump *pump, enum raft_message_kind kind, uint64_t to);
void pump_drop_kind(struct pump *pump, enum raft_message_kind kind);

/* asserts OK; collects */
struct raft_position pump_propose(struct pump *pump, uint64_t id, const char *text);
/* Proposes and settles; asserts that it was applied at the leader. */
struct raft_position pump_commit(struct pump *pump, uint64_t id, const char *text);
struct raft_status pump_status(const struct pump *pump, uint64_t id);
/* in the newest membership `id` knows */
size_t pump_voter_count(const struct pump *pump, uint64_t id);
struct raft_progress pump_progress(const struct pump *pump, uint64_t leader, uint64_t id);
/* Offers a snapshot of what `id` has applied, `size` bytes. */
struct raft_snapshot pump_snapshot(struct pump *pump, uint64_t id, uint64_t snapshot_id,
                                   uint64_t size);
/* Compacts log and core. */
void pump_compact(struct pump *pump, uint64_t id, uint64_t index);

/* Messages made by hand; `from` is in `term`. */
struct raft_message pump_message(enum raft_message_kind kind, uint64_t from, uint64_t to,
                                 uint64_t term);
struct raft_entry pump_entry(uint64_t index, uint64_t term, const char *text);

#endif
