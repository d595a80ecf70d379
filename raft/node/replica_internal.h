/* The insides of a replica, shared by replica*.c only.
 *
 * Who owns what. The loop: everything in struct replica but `persist` and `apply`, which are
 * touched by jobs of that worker only (and by create and destroy, when no worker runs); the log
 * itself has rules of its own (wal.h). Constant after create, read by all: options, env, sm,
 * sender, paths. A job belongs to its worker between submit and done, else to the loop. */
#ifndef RAFT_NODE_REPLICA_INTERNAL_H
#define RAFT_NODE_REPLICA_INTERNAL_H

#include "base/rng.h"
#include "raft/node/identity.h"
#include "raft/node/outbox.h"
#include "raft/node/replica.h"
#include "raft/node/snapshot_store.h"
#include "raft/wal/wal.h"

struct replica_job_ops {
    /* worker; NULL for persist jobs, which run as a batch */
    void (*run)(struct replica_job *job);
    void (*done)(struct replica_job *job); /* loop */
    /* frees; answers what it still carries with ERR_LEADER_LOST */
    void (*release)(struct replica_job *job);
};

/* ---- waiting commands and reads ---- */

struct command {
    struct bytes payload;
    struct blob *owner;
    node_done_fn done;
    void *context;
};

struct command_waiter {
    node_done_fn done;
    void *context;
};

/* Who waits for one entry that this replica proposed. */
struct entry_waiter {
    struct entry_waiter *next; /* by ascending index */
    struct raft_position position;
    node_change_fn change_done; /* a membership change; then count is 0 */
    void *change_context;
    uint32_t count;
    struct command_waiter commands[];
};

struct read_waiter {
    node_read_fn serve;
    void *context;
};

/* Reads that share one confirmation. */
struct read_group {
    struct read_group *next;
    uint64_t context; /* as given to the core */
    uint64_t index;   /* once confirmed */
    uint32_t count;
    uint32_t capacity;
    struct read_waiter *reads;
};

struct transfer_waiter {
    struct transfer_waiter *next;
    node_change_fn done;
    void *context;
    uint32_t ticks_left;
};

/* ---- workers ---- */

struct persist_worker {
    struct wal *wal;
    bool unsynced; /* something was written since the last sync */
    struct snapshot_staging staging;
    struct identity stored; /* as it is on disk */
};

struct apply_worker {
    uint64_t applied; /* last index given to the state machine */
    struct sm_command *commands;
    size_t command_capacity;
    struct buf *results;
    size_t result_capacity;
};

/* A snapshot that can be sent. Loop: all but `reader`, which is the background worker's. `header`
 * is written by the loop before the first chunk is asked for. */
struct outgoing_snapshot {
    struct outgoing_snapshot *next;
    struct raft_snapshot snapshot;
    char *dir;
    struct sm_snapshot_reader *reader;
    uint8_t header[SNAPSHOT_HEADER_BYTES];
    uint32_t unused_ticks;
    uint64_t chunk_peers[RAFT_MEMBERS_MAX]; /* whose chunk is being read; 0: free place */
    uint32_t chunk_count;
};

/* Where the log was `bytes` long, for keeping some of it behind what was flushed. */
struct log_mark {
    uint64_t index;
    uint64_t bytes; /* appended up to and including index, since the start of this process */
};

struct compaction {
    struct log_mark *marks; /* ascending; about one every LOG_MARK_BYTES */
    size_t mark_count;
    size_t mark_capacity;
    uint64_t appended_bytes;      /* since start, plus what the log held then */
    uint64_t base_bytes;          /* of that, what was compacted away */
    uint64_t flush_at_bytes;      /* appended_bytes that start the next flush */
    struct raft_position durable; /* of the state machine, after the newest flush */
    bool flushing;
    bool compacting;
};

struct replica {
    struct replica_options options; /* dir is a private copy, members is not kept */
    struct replica_env env;
    struct state_machine sm;
    struct node_observer observer;
    struct outbox_sender sender;
    char *dir;
    char *wal_dir;
    char *snapshot_dir;

    struct raft_core *core;
    struct raft_status status; /* refreshed by every poll */
    struct rng rng;
    bool stopping;
    bool dead; /* env.fatal was called and returned: simulator only */
    bool polled_once;
    uint32_t jobs_out;
    struct outbox outbox;

    /* peers' identities */
    struct identity identity;
    bool identity_writing;
    bool identity_dirty;
    struct blob *parked[REPLICA_PARKED_FRAMES_MAX];
    uint32_t parked_count;
    uint64_t refused_logged_ns;
    uint64_t greeted_tick;         /* when all members were last sent something */
    uint64_t greetings_since_news; /* since the start, or since a peer became known */

    /* log time: what it was when it was last learnt, and the monotonic clock then */
    uint64_t log_time_ms;
    uint64_t log_time_at_ns;

    struct command *commands; /* proposed since the last poll */
    size_t command_count;
    size_t command_capacity;
    struct entry_waiter *waiters; /* proposed, not yet given to the apply worker */
    struct entry_waiter *waiters_last;
    struct transfer_waiter *transfers;

    struct read_group *reads_new;   /* since the last poll; one group or NULL */
    struct read_group *reads_asked; /* given to the core, oldest first */
    struct read_group *reads_asked_last;
    struct read_group *reads_confirmed; /* by the core; waiting for `handed` to reach their index */
    uint64_t read_context;
    uint32_t reads_waiting;

    uint64_t commit;
    uint64_t handed; /* entries up to here were given to the apply worker */
    uint32_t apply_jobs;
    /* an install is with the persist worker: nothing more is handed until it is done */
    bool install_pending;
    uint64_t restore_index; /* newest snapshot given to the apply worker */

    struct outgoing_snapshot *outgoing; /* offered to the core; newest first */
    bool snapshot_making;
    uint64_t snapshot_retry_at_tick; /* not before: the last one could not be made */
    /* made, but ahead of what the core knows to be applied */
    struct outgoing_snapshot *snapshot_unoffered;
    struct compaction compaction;
    bool spares_making;
    uint64_t spares_at_tick; /* when to look again */
    uint32_t spare_segments; /* as the log wants them */
    bool hashing;
    uint64_t tick_count;

    enum node_role role_told;
    uint64_t term_told;
    uint64_t leader_told;
    bool status_news;       /* the core said that state, term, leader or membership changed */
    bool members_unsettled; /* the newest membership was not committed yet */
    uint32_t members_told; /* checksum of the membership last told */

    struct persist_worker persist;
    struct apply_worker apply;
};

/* replica.c */
void replica__submit(struct replica *replica, struct replica_job *job);
void replica__job_init(struct replica_job *job, struct replica *replica, enum replica_worker worker,
                       const char *name, const struct replica_job_ops *ops);
__attribute__((format(printf, 2, 3))) void replica__fatal(struct replica *replica,
                                                          const char *format, ...);

/* replica_recover.c */
int replica__recover(struct replica *replica, const struct replica_options *options, char *why,
                     size_t why_size);

/* replica_peers.c */
void replica__identity_check_members(struct replica *replica);
void replica__identity_stored(struct replica *replica);
void replica__parked_drop(struct replica *replica);
void replica__greet_tick(struct replica *replica);

/* replica_commands.c */
uint64_t replica__log_time(const struct replica *replica);
/* There is, or was, an entry with this time: our reckoning is not behind it. */
void replica__log_time_seen(struct replica *replica, uint64_t time_ms);
/* The newest entry of the log, another's, carries it: log time goes on from there. */
void replica__log_time_follow(struct replica *replica, uint64_t time_ms);
void replica__commands_flush(struct replica *replica);
void replica__reads_flush(struct replica *replica);
void replica__reads_confirmed(struct replica *replica, const struct raft_read_ready *ready);
/* Takes the waiters of positions up to `index` off the queue. */
struct entry_waiter *replica__waiters_take(struct replica *replica, uint64_t index);
/* Takes the reads that may run once `index` is applied. */
struct read_group *replica__reads_take(struct replica *replica, uint64_t index);
void replica__waiters_fail_lost(struct replica *replica);
void replica__transfers_check(struct replica *replica, bool ticked);
void replica__waiting_fail_all(struct replica *replica);
void replica__waiter_fail(struct entry_waiter *waiter, int error);   /* takes one */
void replica__waiters_fail(struct entry_waiter *waiters, int error); /* takes the list */
void replica__read_group_serve(struct read_group *group, int error); /* takes one */

/* replica_persist.c */
void replica__write_submit(struct replica *replica, const struct raft_ready *ready);
void replica__compact_submit(struct replica *replica, struct raft_position base,
                             const struct raft_membership *membership);
void replica__identity_submit(struct replica *replica);
void replica__persist_run(struct replica_job *const *jobs, size_t count);

/* replica_apply.c */
void replica__apply_hand(struct replica *replica);
void replica__restore_submit(struct replica *replica, const struct raft_snapshot *snapshot,
                             const char *ready_path);
void replica__load_submit(struct replica *replica, const struct raft_load *load);
void replica__apply_deinit(struct replica *replica);

/* replica_snapshot.c */
void replica__chunk_submit(struct replica *replica, const struct raft_message *message);
void replica__snapshots_tick(struct replica *replica);
void replica__snapshots_offer(struct replica *replica);
void replica__snapshots_deinit(struct replica *replica);

/* replica_compact.c */
void replica__compaction_init(struct replica *replica);
void replica__compaction_appended(struct replica *replica, const struct raft_entry *entries,
                                  size_t count);
void replica__compaction_truncated(struct replica *replica, uint64_t from);
void replica__compaction_reset(struct replica *replica);
void replica__compaction_tick(struct replica *replica);
void replica__compaction_deinit(struct replica *replica);

#endif
