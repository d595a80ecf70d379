/* All of Raft as a pure machine (Ongaro's dissertation; the paper "In Search of an Understandable
 * Consensus Algorithm", extended version, is cited as "paper").
 *
 * One thread at a time, deterministic, no I/O, no clock, no calls back. Inputs are functions below;
 * after any number of inputs the owner takes one `struct raft_ready`, acts on it, and accepts it.
 * The same inputs with the same seed give the same outputs, byte for byte.
 *
 *      tick / step / propose / ...          persisted / applied / snapshot_* / entries_loaded
 *                 \                                  /
 *                  v                                v
 *              +--------------- struct raft_core --------------+
 *              +------------------------+----------------------+
 *                                       v
 *                raft_core_ready() -> struct raft_ready -> raft_core_accept()
 *
 * Order of work an owner must keep:
 *   1. send `messages` at once, in order per peer, in any order with respect to the write;
 *   2. make `write` durable, writes in ascending `seq`, one or many with one sync; then call
 *      raft_core_persisted(seq) and send the `held` messages of every write up to seq;
 *   3. apply the entries (applied, committed] in order, then call raft_core_applied(index).
 * 'Reply only when durable' is thus in the structure: a vote, an append's acceptance and a leader's
 * own count exist only in `held` or behind raft_core_persisted().
 *
 * A write that fails is final: the owner stops the process. There is no input for it. */
#ifndef RAFT_CORE_CORE_H
#define RAFT_CORE_CORE_H

#include "base/error.h"
#include "raft/core/types.h"

struct raft_core;

struct raft_core_options {
    uint64_t id; /* this replica; nonzero */
    uint64_t seed;
    /* a follower waits election_ticks .. 2*election_ticks - 1 ticks, drawn anew each time */
    uint32_t election_ticks;
    uint32_t heartbeat_ticks; /* < election_ticks */
    /* payload of one APPEND; one entry larger than it travels alone */
    uint64_t append_bytes_max;
    uint64_t inflight_bytes_max; /* unacknowledged entries per follower; >= append_bytes_max */
    uint32_t inflight_count_max; /* unacknowledged APPENDs per follower, 1..256 */
    /* entries kept in memory once durable and applied; the rest is read back */
    uint64_t cache_bytes_max;
    uint64_t uncommitted_bytes_max; /* proposals are refused with ERR_BUSY over this */
    uint32_t chunk_bytes_max;       /* of a snapshot stream */
    /* Reads without a round while the lease holds. Assumes clocks whose rates differ by less than 1
     * part in 10 over an election timeout (dissertation 6.4.1), and an owner that calls tick for
     * all the time that passed, also while the process stood still, before it asks for a read. The
     * same on all replicas of a group: a voter that restarts honours the lease only if it knows of
     * it. */
    bool lease_reads;
};

/* Sensible values for everything but id and seed. election_ticks 10, heartbeat_ticks 1 ... */
struct raft_core_options raft_core_options_default(uint64_t id, uint64_t seed);

/* What was durable when the replica started. */
struct raft_core_state {
    struct raft_hard_state hard_state;
    /* position {0,0} if none: then `snapshot.membership` is the bootstrap one (count 0 for a
     * replica that waits to be added) */
    struct raft_snapshot snapshot;
    /* position of the entry before the first one the log still has; its index is <=
     * snapshot.position.index or <= applied: the log may keep entries older than the snapshot, and
     * never begins after what was applied */
    struct raft_position log_start;
    struct raft_position log_last; /* == log_start when the log is empty */
    /* Terms of the log by runs, ascending: each starts at `index` and lasts until the next. */
    const struct raft_position *term_runs;
    size_t term_run_count;
    /* Membership entries in the log, in order, decoded (those after the snapshot matter). */
    const struct raft_membership *memberships;
    size_t membership_count;
    /* what the state machine has applied durably; snapshot index <= applied <= log_last */
    uint64_t applied;
    /* The log's newest entries, consecutive, ending at log_last; may be empty. The core takes
     * references. */
    const struct raft_entry *tail;
    size_t tail_count;
};

/* gives *out. ERR_CORRUPT with a message in `why` (why_size bytes) when `state` contradicts itself.
 */
int raft_core_create(const struct raft_core_options *options, const struct raft_core_state *state,
                     struct raft_core **out, char *why, size_t why_size) MUST_USE;
void raft_core_destroy(struct raft_core *core);

/* --- inputs --- */

void raft_core_tick(struct raft_core *core);

/* A message from a peer, already authenticated as to cluster, group and sender. What does not make
 * sense is dropped with a trace line, never asserted. Borrowed for the call; entries' owners are
 * referenced. */
void raft_core_step(struct raft_core *core, const struct raft_message *message);

/* Appends one entry as leader. On OK *position is where it will be if it commits there: the
 * caller's waiter must match index AND term. ERR_NOT_LEADER; ERR_BUSY (uncommitted_bytes_max, or a
 * transfer is under way); ERR_TOO_LARGE. The blob is referenced. */
int raft_core_propose(struct raft_core *core, struct bytes data, struct blob *owner,
                      struct raft_position *position) MUST_USE;

enum raft_change_kind {
    RAFT_ADD_LEARNER = 1,
    RAFT_PROMOTE, /* learner to voter */
    RAFT_ADD_VOTER,
    RAFT_REMOVE,
};
struct raft_change {
    enum raft_change_kind kind;
    uint64_t id;
    const char *address; /* ADD_* */
};
/* One server at a time (dissertation 4.2), never before the leader's first commit in its term,
 * validated against the newest membership in the log. ERR_NOT_LEADER, ERR_MEMBERSHIP_BUSY,
 * ERR_MEMBERSHIP_BAD, ERR_BUSY (no commit in this term yet). */
int raft_core_propose_change(struct raft_core *core, const struct raft_change *change,
                             struct raft_position *position) MUST_USE;

/* Asks for leadership to go to `target` (0: the most up-to-date voter). Proposals are refused
 * meanwhile; given up after an election timeout. ERR_NOT_LEADER, ERR_TRANSFER_FAILED (target
 * unknown, learner, or self). */
int raft_core_transfer(struct raft_core *core, uint64_t target) MUST_USE;

/* A linearizable read: `context` comes back in ready.reads with the index to wait for. Many reads
 * asked for before the next ready share one round. ERR_NOT_LEADER; ERR_BUSY before the first commit
 * of the term (dissertation 6.4 step 1) or over the bound of reads in waiting. */
int raft_core_read(struct raft_core *core, uint64_t context) MUST_USE;

/* Write `write_seq` and all before it are durable. When it carried an install, the core's log now
 * begins at that snapshot. */
void raft_core_persisted(struct raft_core *core, uint64_t write_seq);
/* The staged snapshot that write `write_seq` was to install is not intact (a checksum of its
 * stream): nothing was replaced, the staging area is empty. Before raft_core_persisted(write_seq).
 * The leader is asked to send it anew. */
void raft_core_install_failed(struct raft_core *core, uint64_t write_seq);
void raft_core_applied(struct raft_core *core, uint64_t index);

/* The state machine holds a snapshot that can be streamed. May be offered at any time; only the
 * newest is kept. The node keeps its bytes readable until raft_core_snapshot_in_use() no longer
 * names it. */
void raft_core_snapshot_made(struct raft_core *core, const struct raft_snapshot *snapshot);
/* id of the snapshot offered or being sent to `any` follower; 0: none. */
bool raft_core_snapshot_in_use(const struct raft_core *core, uint64_t snapshot_id);

/* The log may forget entries up to `index` (the state machine has flushed them): index <= applied.
 * Followers that need them are sent a snapshot. What a live follower needs after the snapshot it is
 * being sent is kept: status.log_start says how far the log really went. */
void raft_core_compact(struct raft_core *core, uint64_t index);

/* The transport could not reach `peer`, or dropped something for it: leave pipelining, probe. */
void raft_core_unreachable(struct raft_core *core, uint64_t peer);

/* The connection with `peer` was closed from the other side, as happens at once when its process
 * ends: where that was the leader, and without leases, the wait for an election is cut short and
 * stickiness ends. A hint, which may be wrong: pre-votes go around first, and whoever still hears
 * the leader refuses. */
void raft_core_peer_closed(struct raft_core *core, uint64_t peer);

/* Answer to ready.loads: entries from disk, consecutive from the asked index (may be fewer than
 * asked; none and `compacted` when they are gone). Referenced, not kept after they are sent.
 * Answers that no longer fit are ignored. */
void raft_core_entries_loaded(struct raft_core *core, uint64_t peer,
                              const struct raft_entry *entries, size_t count);

/* --- output --- */

/* To be made durable as one unit, in this order: snapshot chunk or reset, truncation, entries, hard
 * state. */
struct raft_write {
    uint64_t seq;   /* monotone from 1; 0: no write */
    bool must_sync; /* false only when nothing but hard_state.commit changed */
    bool hard_state_changed;
    struct raft_hard_state hard_state;
    /* 0: nothing; else entries with index >= this are gone before `entries` */
    uint64_t truncate_from;
    const struct raft_entry *entries;
    size_t entry_count;
    /* A chunk of an incoming snapshot for the staging area (offset 0 starts a new one and drops any
     * other). */
    const struct raft_snapshot *chunk_snapshot; /* NULL: none */
    uint64_t chunk_offset;
    struct bytes chunk;
    struct blob *chunk_owner;
    /* The staged snapshot is complete and replaces log and state: check it, make it the one to
     * restore, and start the log anew after its position. The apply order is: everything before,
     * restore, everything after. */
    const struct raft_snapshot *install; /* NULL: none */
};

struct raft_read_ready {
    uint64_t context;
    uint64_t index; /* serve once applied >= index; ignored when error */
    int error;      /* 0; ERR_NOT_LEADER: not served, ask elsewhere */
};

struct raft_load {
    uint64_t peer;  /* whom it is for */
    uint64_t index; /* first entry wanted */
    uint64_t bytes_max;
};

enum raft_state { RAFT_FOLLOWER = 1, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

struct raft_status {
    uint64_t id;
    enum raft_state state;
    uint64_t term;
    uint64_t leader; /* 0: unknown */
    uint64_t commit;
    uint64_t applied;
    struct raft_position last;
    uint64_t durable; /* last index known durable here under the current log */
    struct raft_position log_start;
    struct raft_membership membership; /* newest in the log, committed or not */
    bool transfer_pending;
    bool read_ready; /* leader with a commit in its term */
    /* leader: a follower waits for a snapshot at this index or later, and none was offered; 0: no
     */
    uint64_t snapshot_wanted;
};

/* Borrowed from the core until raft_core_accept() or the next input, whichever is first. */
struct raft_ready {
    const struct raft_message *messages; /* send now */
    size_t message_count;
    struct raft_write write;         /* seq 0: none */
    const struct raft_message *held; /* send when write.seq is durable */
    size_t held_count;
    /* apply up to here; entries by raft_core_entries() or from the log on disk */
    uint64_t commit;
    const struct raft_read_ready *reads;
    size_t read_count;
    const struct raft_load *loads; /* entries to be read from disk */
    size_t load_count;
    /* state, term, leader, membership, read_ready or transfer_pending */
    bool status_changed;
};

/* False when there is nothing to do. Every true must be followed by accept before the next ready.
 */
bool raft_core_ready(struct raft_core *core, struct raft_ready *out);
void raft_core_accept(struct raft_core *core);

void raft_core_status(const struct raft_core *core, struct raft_status *out);

struct raft_progress {
    uint64_t id;
    uint64_t match;
    uint64_t next;
    enum raft_progress_mode { RAFT_PROBE = 1, RAFT_REPLICATE, RAFT_SNAPSHOT } mode;
    uint64_t inflight_bytes;
    bool active; /* heard from within an election timeout */
};
/* Followers' progress as leader; returns how many (0 when not leader). */
size_t raft_core_progress(const struct raft_core *core, struct raft_progress out[RAFT_MEMBERS_MAX]);

/* Entries [from, ...) held in memory, up to `bytes_max` but at least one; *entries is good until
 * the next input. 0 when `from` is not in memory. */
size_t raft_core_entries(const struct raft_core *core, uint64_t from, uint64_t bytes_max,
                         const struct raft_entry **entries);

/* Term of an index between log_start and last, 0 when it is not known any more. */
uint64_t raft_core_term_at(const struct raft_core *core, uint64_t index);

/* The membership in force at `index` (log_start <= index <= last): for the maker of a snapshot and
 * for the log's base record when it is compacted. False when the index is outside. */
bool raft_core_membership_at(const struct raft_core *core, uint64_t index,
                             struct raft_membership *out);

/* Checks every invariant (watermarks in order, terms monotone along the log, one vote a term, match
 * < next, window sums, leader never truncates, ...). Aborts with the values on a violation. Tests
 * call it after every input. */
void raft_core_check(const struct raft_core *core);

/* Trace lines for golden tests and debugging: one per transition, without newline. NULL turns it
 * off. */
typedef void (*raft_trace_fn)(void *context, const char *line);
void raft_core_set_trace(struct raft_core *core, raft_trace_fn trace, void *context);

#endif
