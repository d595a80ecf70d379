/* What the files of raft/core share. Nobody else includes this.
 *
 *   create.c              from what was durable, checked
 *   core.c                tick, step's dispatch, ready/accept, persisted, status
 *   log.c                 positions, term runs, the cache of entries, what is written and durable
 *   election.c            follower, pre-candidate, candidate, leader: the transitions
 *   progress.c            what the leader knows of each follower; quorums over it
 *   replicate_leader.c    appends, heartbeats, their answers, the commit index
 *   replicate_follower.c  the other side of them
 *   snapshot.c            streams of chunks, both sides
 *   read.c                rounds for linearizable reads, the lease
 *   membership.c          who belongs to the group at which index; changes
 *   transfer.c            handing leadership over
 *   check.c, trace.c      invariants; lines for tests
 *
 * What is sent to followers as leader (APPEND, HEARTBEAT, SNAPSHOT) is made when the owner asks for
 * a ready, not when an input arrives: many proposals become one append, and the pointers in it stay
 * good until the next input. */
#ifndef RAFT_CORE_CORE_INTERNAL_H
#define RAFT_CORE_CORE_INTERNAL_H

#include "base/assert.h"
#include "base/rng.h"
#include "raft/core/core.h"

enum {
    CORE_APPEND_ENTRIES_MAX = 16384, /* entries of one APPEND, whatever their bytes */
    CORE_INFLIGHT_MAX = 256,         /* the bound of options.inflight_count_max */
    CORE_READS_WAITING_MAX = 65536,
    /* unconfirmed rounds that reads may have started between two heartbeats */
    CORE_READ_ROUNDS_MAX = 4,
    CORE_ROUND_RING = 64, /* rounds whose send time is remembered, for the lease */
    CORE_ELECTION_TICKS_MAX = 10000,
    /* Entries that are kept, for the sake of a follower that just took a snapshot, beyond what the
     * owner wants to keep. */
    CORE_CATCH_UP_ENTRIES_MAX = 1 << 20,
};
/* A term is only ever raised by one, so a larger one is a broken message, and term + 1 never
 * overflows. */
#define CORE_TERM_MAX  (UINT64_MAX / 2)
#define CORE_INDEX_MAX (UINT64_MAX / 2)

/* --- log ---
 *
 *     start          cache_first        durable      unwritten      last
 *       |   (on disk)    |    in memory    |   being written   | not handed out |
 *
 * Invariants: start <= durable <= last; durable < unwritten <= last + 1; the cache is consecutive
 * and ends at last; everything from unwritten on is in the cache. */
struct core_log {
    struct raft_position start; /* the entry before the first one */
    struct raft_position last;
    /* {first index, term}, both strictly ascending; empty when the log is */
    struct raft_position *runs;
    size_t run_count;
    size_t run_capacity;
    struct raft_entry *slots; /* the cache is slots[head .. head + count) */
    size_t head;
    size_t count;
    size_t capacity;
    uint64_t cache_bytes;
    uint64_t unwritten;     /* first index that no write has carried yet */
    uint64_t truncate_from; /* to be told with the next write; 0: nothing */
    uint64_t durable;       /* last index durable under the current log */
};

void core__log_init(struct core_log *log, struct raft_position start);
void core__log_deinit(struct core_log *log);
uint64_t core__log_term_at(const struct core_log *log, uint64_t index);
/* First index of the run of equal terms that `index` (start < index <= last) is in. */
uint64_t core__log_run_first(const struct core_log *log, uint64_t index);
/* Last index <= at_most whose term is `term`; 0: none. */
uint64_t core__log_last_of_term(const struct core_log *log, uint64_t term, uint64_t at_most);
uint64_t core__log_cache_first(const struct core_log *log); /* last.index + 1 when empty */
/* Puts a run of terms that starts at `index` at the end, without entries; for recovery. */
void core__log_push_run(struct core_log *log, struct raft_position run);
/* References the entry's owner. */
void core__log_append(struct core_log *log, const struct raft_entry *entry);
/* References; for recovery: an entry that is on disk already. */
void core__log_cache(struct core_log *log, const struct raft_entry *entry);
void core__log_truncate(struct core_log *log, uint64_t from);
void core__log_reset(struct core_log *log, struct raft_position position);
void core__log_compact(struct core_log *log, uint64_t index);
void core__log_evict(struct core_log *log, uint64_t up_to, uint64_t bytes_max);
size_t core__log_slice(const struct core_log *log, uint64_t from, uint64_t bytes_max,
                       size_t count_max, const struct raft_entry **entries);

/* --- writes handed out and not yet durable --- */

struct core_write {
    uint64_t seq;
    /* when durable, the log is durable up to here; lowered by truncation, so that a write of
     * entries that were cut since never claims their successors (ABA) */
    uint64_t claims;
    uint64_t term;
    uint64_t voted_for;
    uint64_t tick; /* when it was handed out */
    bool install;
};

struct core_writes {
    struct core_write *items; /* items[head .. head + count), ascending seq */
    size_t head;
    size_t count;
    size_t capacity;
    uint64_t seq; /* of the newest */
};

/* --- output --- */

struct core_messages {
    struct raft_message *items;
    size_t count;
    size_t capacity;
};

/* Entries read back from disk, owned until the message that carries them was sent. */
struct core_loaded {
    struct core_loaded *next;
    size_t count;
    struct raft_entry entries[];
};

struct core_reads_out {
    struct raft_read_ready *items;
    size_t count;
    size_t capacity;
};

struct core_output {
    struct core_messages messages;
    struct core_messages held;
    struct core_reads_out reads;
    struct core_loaded *loaded;
};

/* --- the leader's view --- */

struct core_snapshot {
    uint32_t references;
    struct raft_snapshot snapshot;
};

struct core_inflight {
    uint64_t last_index;
    uint64_t bytes;
};

/*              reject (conflict, loss), unreachable
 *      .-----------------------------------------------.
 *      v                                               |
 *   PROBE --accepted--> REPLICATE ---------------------'
 *      | ^                   |
 *      | '--snapshot failed  | needs entries that are gone
 *      v                     v
 *     SNAPSHOT <-------------'     --match reaches the log--> REPLICATE
 *
 * Invariants: match < next; in PROBE next == match + 1 or walks back towards it; the window's bytes
 * are the sum of its items; SNAPSHOT's reference is only held in that mode. */
struct core_progress {
    uint64_t id;
    bool voter;
    enum raft_progress_mode mode;
    uint64_t match;
    uint64_t next;
    /* PROBE: one message is out; nothing more until it is answered or the peer shows life */
    bool paused;
    /* PROBE: the last one went unanswered; the next asks only where the logs agree */
    bool probe_again;
    bool heard;             /* anything at all, this term */
    uint32_t silence_ticks; /* since it was last heard; 0 at the start of the term (grace) */
    bool heartbeat_due;
    bool append_due; /* an append is owed even if it is empty */
    bool acked_since_heartbeat;
    uint64_t acked_round;
    struct core_inflight *inflight; /* ring of CORE_INFLIGHT_MAX, made when first used */
    uint32_t inflight_head;
    uint32_t inflight_count;
    uint64_t inflight_bytes;
    uint64_t load_index; /* asked from disk and not answered; 0: none */
    bool load_told;      /* the question was handed out */
    /* what was read did not fit behind what is out: read again when the window is empty */
    bool load_alone;
    uint64_t load_bytes;
    struct core_snapshot *snapshot;
    uint64_t chunk_offset; /* next wanted by the follower */
    bool chunk_out;        /* sent, not answered */
    uint32_t chunk_ticks;  /* since it was sent */
    bool catching_up;      /* from the end of a snapshot until it has all that is committed */
};

struct core_vote {
    uint64_t id;
    bool granted;
};

struct core_read {
    uint64_t context;
    uint64_t index;
    uint64_t round; /* 0: none started for it yet */
};

struct core_reads {
    /* ring buffer without wrap: items[head .. head + count), rounds ascending */
    struct core_read *items;
    size_t head;
    size_t count;
    size_t capacity;
    size_t unassigned;  /* of them, at the end, without a round */
    uint64_t round;     /* newest started */
    uint64_t confirmed; /* newest that a quorum echoed */
    /* [round % CORE_ROUND_RING]: when the round was started, before it was sent */
    uint64_t sent_tick[CORE_ROUND_RING];
};

/* Memberships of the log in order of their position; the first is the one in force at the log's
 * start if that is known. Never empty. */
struct core_members {
    struct raft_membership *items;
    size_t count;
    size_t capacity;
};

/* A snapshot that is being received. */
struct core_incoming {
    bool active;
    /* the last chunk was taken: the log stands still until the install is durable */
    bool installing;
    bool chunk_waits; /* `chunk` is to go into the next write */
    uint64_t term;    /* of the leader that began it */
    struct raft_snapshot snapshot;
    uint64_t offset; /* next byte wanted; counts a chunk that waits or is being written */
    uint64_t chunk_offset;
    struct bytes chunk;
    struct blob *chunk_owner;
};

struct core_told { /* what the owner was told of the status last */
    enum raft_state state;
    uint64_t term;
    uint64_t leader;
    uint64_t membership_index;
    bool read_ready;
    bool transfer_pending;
};

struct core_checked; /* check.c: what the last check saw, for what must be monotone */

struct raft_core {
    struct raft_core_options options;
    struct rng rng;

    enum raft_state state;
    uint64_t term;
    uint64_t voted_for;
    uint64_t leader;
    uint64_t commit;
    uint64_t applied;
    uint64_t tick; /* ticks since create */

    struct core_log log;
    struct core_members members;
    struct core_writes writes;
    struct raft_hard_state written; /* as in the newest write handed out */
    uint64_t durable_term;          /* as in the newest write that is durable */
    uint64_t durable_vote;

    uint32_t election_elapsed;
    uint32_t election_timeout;
    /* ticks since the leader was heard; election_ticks and more: no stickiness */
    uint32_t leader_silence;
    bool campaign_transfer; /* this candidacy comes from TIMEOUT_NOW */
    struct core_vote votes[RAFT_MEMBERS_MAX];
    size_t vote_count;

    /* as leader: one a member, self included, in the members' order */
    struct core_progress progress[RAFT_MEMBERS_MAX];
    size_t progress_count;
    uint32_t heartbeat_elapsed;
    uint64_t uncommitted_bytes;
    struct core_reads reads;

    uint64_t transfer_target;
    uint32_t transfer_elapsed;
    bool transfer_sent;
    uint64_t stall_tick; /* when leadership was last offered because of a stalled disk; 0: never */
    /* a TIMEOUT_NOW left in this term: whoever got it may be elected at any time */
    bool lease_forfeited;

    struct core_snapshot *offered;
    struct core_incoming incoming;

    struct core_output next; /* gathers */
    struct core_output out;  /* handed out, until accept */
    bool out_pending;
    struct raft_load loads[RAFT_MEMBERS_MAX];
    size_t load_count;
    uint64_t commit_told;
    struct core_told told;

    raft_trace_fn trace;
    void *trace_context;
    struct buf trace_line;
    struct core_checked *checked;
};

/* core.c */
struct raft_message *core__send(struct raft_core *core, enum raft_message_kind kind, uint64_t to);
struct raft_message *core__hold(struct raft_core *core, enum raft_message_kind kind, uint64_t to);
bool core__writes_pending(const struct raft_core *core);
void core__writes_clamp(struct raft_core *core, uint64_t last);
void core__evict(struct raft_core *core);
bool core__read_ready(const struct raft_core *core);

/* election.c */
void core__election_start(struct raft_core *core);
void core__election_tick(struct raft_core *core);
void core__become_follower(struct raft_core *core, uint64_t term, uint64_t leader);
void core__leader_heard(struct raft_core *core, uint64_t leader);
void core__campaign(struct raft_core *core, bool transfer);
void core__on_prevote(struct raft_core *core, const struct raft_message *message);
void core__on_prevote_reply(struct raft_core *core, const struct raft_message *message);
void core__on_vote(struct raft_core *core, const struct raft_message *message);
void core__on_vote_reply(struct raft_core *core, const struct raft_message *message);
void core__own_vote_durable(struct raft_core *core);
bool core__vote_refused_for_leader(const struct raft_core *core,
                                   const struct raft_message *message);

/* progress.c */
struct core_progress *core__progress_find(struct raft_core *core, uint64_t id);
void core__progress_reset(struct raft_core *core);          /* a new leader's */
void core__progress_follow_members(struct raft_core *core); /* after the membership changed */
void core__progress_clear(struct raft_core *core);
void core__progress_heard(struct core_progress *progress);
void core__progress_probe(struct core_progress *progress, uint64_t next);
void core__progress_replicate(struct core_progress *progress);
void core__progress_snapshot(struct core_progress *progress, struct core_snapshot *snapshot);
bool core__window_open(const struct raft_core *core, const struct core_progress *progress,
                       uint64_t bytes);
void core__window_push(struct core_progress *progress, uint64_t last_index, uint64_t bytes);
void core__window_acked(struct core_progress *progress, uint64_t index);
uint64_t core__quorum_match(const struct raft_core *core);
uint64_t core__quorum_round(const struct raft_core *core);
bool core__quorum_active(const struct raft_core *core);

/* replicate_leader.c */
void core__leader_tick(struct raft_core *core);
void core__leader_flush(struct raft_core *core); /* makes what is due to followers; at ready */
void core__append_own(struct raft_core *core, enum raft_entry_kind kind, struct bytes data,
                      struct blob *owner);
void core__maybe_commit(struct raft_core *core);
void core__commit_to(struct raft_core *core, uint64_t index);
void core__on_append_reply(struct raft_core *core, const struct raft_message *message);
void core__on_heartbeat_reply(struct raft_core *core, const struct raft_message *message);
void core__match_reached(struct raft_core *core, struct core_progress *progress, uint64_t index);

/* replicate_follower.c */
void core__on_append(struct raft_core *core, const struct raft_message *message);
void core__on_heartbeat(struct raft_core *core, const struct raft_message *message);
void core__accept_up_to(struct raft_core *core, const struct raft_message *message, uint64_t index);

/* snapshot.c */
void core__snapshot_unref(struct core_snapshot *snapshot); /* takes; NULL is fine */
struct core_snapshot *core__snapshot_ref(struct core_snapshot *snapshot);
void core__snapshot_start(struct raft_core *core, struct core_progress *progress);
void core__snapshot_flush(struct raft_core *core, struct core_progress *progress);
void core__snapshot_tick(struct raft_core *core, struct core_progress *progress);
uint64_t core__snapshot_wanted(const struct raft_core *core);
uint64_t core__snapshot_holds_log(const struct raft_core *core);
void core__on_snapshot(struct raft_core *core, const struct raft_message *message);
void core__on_snapshot_reply(struct raft_core *core, const struct raft_message *message);
void core__snapshot_into_write(struct raft_core *core, struct raft_write *write);
void core__snapshot_installed(struct raft_core *core);
void core__incoming_drop(struct raft_core *core);

/* read.c */
void core__reads_deinit(struct raft_core *core);
void core__reads_fail(struct raft_core *core);
void core__reads_reset(struct raft_core *core);
void core__reads_flush(struct raft_core *core); /* starts a round if reads wait for one */
void core__read_round_start(struct raft_core *core);
void core__on_round(struct raft_core *core, struct core_progress *progress, uint64_t round);
void core__reads_confirm(struct raft_core *core);
bool core__lease_holds(const struct raft_core *core);

/* membership.c */
/* the newest, committed or not */
const struct raft_membership *core__members(const struct raft_core *core);
bool core__is_voter(const struct raft_core *core, uint64_t id);
bool core__may_campaign(const struct raft_core *core);
/* As leader, one that is in force from its own entry on. */
void core__append_membership(struct raft_core *core, const struct raft_membership *membership);
bool core__is_sole_voter(const struct raft_core *core);
void core__members_push(struct raft_core *core, const struct raft_membership *membership);
bool core__members_truncate(struct raft_core *core, uint64_t from); /* true: the newest changed */
void core__members_compact(struct raft_core *core, uint64_t index);
void core__members_reset(struct raft_core *core, const struct raft_membership *membership);
bool core__membership_valid(const struct raft_membership *membership);

/* transfer.c */
void core__transfer_tick(struct raft_core *core);
/* sends TIMEOUT_NOW once the target has everything */
void core__transfer_advance(struct raft_core *core);
void core__transfer_clear(struct raft_core *core);
void core__hand_off(struct raft_core *core);
void core__on_timeout_now(struct raft_core *core, const struct raft_message *message);

/* check.c */
void core__checked_free(struct core_checked *checked);
struct core_checked *core__checked_create(void);

/* trace.c; the macro keeps formatting off the path when nobody listens. */
void core__trace_begin(struct raft_core *core);
void core__trace_end(struct raft_core *core);
#define TRACE(core, ...)                                                                           \
    do {                                                                                           \
        if ((core)->trace != NULL) {                                                               \
            core__trace_begin(core);                                                               \
            buf_printf(&(core)->trace_line, __VA_ARGS__);                                          \
            core__trace_end(core);                                                                 \
        }                                                                                          \
    } while (0)
const char *core__state_name(enum raft_state state);
const char *core__kind_name(enum raft_message_kind kind);

#endif
