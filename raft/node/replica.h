/* One replica as a single-threaded machine without threads, gRPC or a clock of its own: it owns the
 * Raft core, what waits for answers, the batching of commands, the read queue, the snapshots'
 * bookkeeping and the policy of compaction. node.c drives it with real threads; the simulator
 * drives the very same code over a virtual clock, a fake disk and a fake network.
 *
 *      events (one thread, "the loop")              jobs (blocking; one thread a worker)
 *   replica_tick ----------.
 *   replica_receive -------|                  env.submit
 *   replica_propose/read --+-> struct replica ------------> replica_jobs_run, on its worker
 *   replica_unreachable ---|      |                            |
 *   replica_job_done <-----'      | env.send(frame)            | env.send(held frames), answers
 *        ^                        v                            v
 *        '---------- the driver posts each job back -----------'
 *
 * After any number of events the owner calls replica_poll() once: that is when commands become an
 * entry, the core's output is taken, jobs are submitted and frames leave.
 *
 * Workers. Jobs of one worker must run one after the other in the order they were submitted;
 * several that wait may be given to replica_jobs_run together (the persist worker then syncs once
 * for all: group commit). Then each is posted back to the loop in that order. What a worker owns is
 * listed in replica_internal.h; nothing is shared but through jobs.
 *     PERSIST     log writes and syncs, incoming snapshots, the identity file; sends what was held
 *                 for durability
 *     APPLY       the state machine: batches, reads, restore; answers clients; reads the log (its
 *                 only other reader)
 *     BACKGROUND  flushes, checkpoints, chunks of outgoing snapshots, spare segments, state hashes
 *
 * Invariants of this layer (the core has its own):
 *   1. entries are applied in order, once, and only when committed AND durable here: the state
 *      machine never runs ahead of this replica's own log;
 *   2. an answer is given exactly once; 0 only when the entry at the position the command was
 *      proposed at, with that term, was applied here;
 *   3. a read runs on the APPLY worker after everything up to its confirmed index;
 *   4. a frame from another cluster, group or incarnation never reaches the core;
 *   5. the log is never compacted beyond what the state machine has made durable. */
#ifndef RAFT_NODE_REPLICA_H
#define RAFT_NODE_REPLICA_H

#include "base/clock.h"
#include "base/vfs.h"
#include "raft/node/node.h"

enum {
    REPLICA_READS_WAITING_MAX = 65536, /* over it ERR_BUSY */
    /* one runs, one waits; more commits gather into the next */
    REPLICA_APPLY_JOBS_MAX = 2,
    REPLICA_APPLY_BYTES_MAX = 1024 * 1024, /* of entries given to the state machine as one batch */
    REPLICA_APPLY_COMMANDS_MAX = 65536,
    /* messages packed into one frame; a larger one goes alone */
    REPLICA_FRAME_BYTES_MAX = 4 * 1024 * 1024,
    REPLICA_LOG_RECYCLED_MAX = 8,   /* segments kept for the next entries */
    REPLICA_PARKED_FRAMES_MAX = 64, /* waiting for a peer's incarnation to be written down */
};

struct replica;

enum replica_worker {
    REPLICA_PERSIST = 0,
    REPLICA_APPLY,
    REPLICA_BACKGROUND,
    REPLICA_WORKER_COUNT,
};

/* A piece of blocking work. The driver may use `next` while it has the job, and reads `worker` and
 * `name`. */
struct replica_job {
    struct replica_job *next;
    enum replica_worker worker;
    const char *name; /* "write", "apply", ...: for traces and the simulator's latencies */
    bool is_small;    /* so little, and most likely all in memory, that a thread that has other
                         things to do may run it in passing */
    struct replica *replica;
    const struct replica_job_ops *ops;
};

struct replica_env {
    void *context;
    const struct clock *clock; /* loop only */
    const struct vfs *vfs;
    /* takes `frame`'s memory (left empty). Loop or any worker; must not block; may drop. */
    void (*send)(void *context, uint64_t peer, struct buf *frame);
    /* Loop only. */
    void (*submit)(void *context, struct replica_job *job);
    /* The newest membership in the log, at create and whenever it changed. Loop only. May be NULL.
     * */
    void (*members_changed)(void *context, const struct raft_membership *membership);
    /* The process must end now: `what` says why and what to do. Any worker. The real one does not
     * return; when the simulator's does, the replica does nothing any more and waits to be
     * destroyed. */
    void (*fatal)(void *context, const char *what);
};

struct replica_options {
    uint64_t cluster_id;
    uint64_t group_id;
    uint64_t replica_id;
    const char *dir;
    const struct node_member *members;
    size_t member_count;
    uint32_t election_ticks;
    uint32_t heartbeat_ticks;
    bool lease_reads;
    uint64_t entry_bytes_max;
    uint64_t flush_log_bytes;
    uint64_t segment_bytes;
    uint64_t cache_bytes_max;
    uint32_t chunk_bytes_max; /* of snapshot streams */
    uint64_t seed;            /* another one at every start */
    bool prewrite_segments;   /* false in the simulator */
};
struct replica_options replica_options_default(void);
/* What a node's options say of its replica; borrows what they point to. */
struct replica_options replica_options_of(const struct node_options *options);

/* Opens the directory (not locking it: that is the driver's) and recovers; blocks on the disk.
 * Submits nothing. gives *out. Errors as node_create. `observer` may be NULL. */
int replica_create(const struct replica_options *options, const struct state_machine *sm,
                   const struct node_observer *observer, const struct replica_env *env,
                   struct replica **out, char *why, size_t why_size) MUST_USE;
/* takes. No job may be running; jobs not posted back must have been discarded. What still waits is
 * answered ERR_LEADER_LOST or ERR_SHUTDOWN. */
void replica_destroy(struct replica *replica);

/* ---- events, loop only
 * ------------------------------------------------------------------------------------- */

void replica_tick(struct replica *replica);
/* A frame as `send` of a peer got it. References it. Gives the sender's id, 0 when it was refused.
 * */
uint64_t replica_receive(struct replica *replica, struct blob *frame);
void replica_unreachable(struct replica *replica, uint64_t peer);
/* The connection with it was closed from there. */
void replica_peer_closed(struct replica *replica, uint64_t peer);
/* As in node.h; what is refused is answered before this returns. */
void replica_propose(struct replica *replica, struct bytes payload, struct blob *owner,
                     node_done_fn done, void *context);
void replica_read(struct replica *replica, node_read_fn serve, void *context);
void replica_transfer(struct replica *replica, uint64_t target, node_change_fn done, void *context);
void replica_change_member(struct replica *replica, const struct raft_change *change,
                           node_change_fn done, void *context);
void replica_hash(struct replica *replica, node_hash_fn done, void *context);
/* A job that was run. takes. */
void replica_job_done(struct replica_job *job);
/* Refuses new work, answers what waits, submits nothing. It is not ticked nor polled any more; jobs
 * that are out still come back: wait for replica_is_idle. */
void replica_stop(struct replica *replica);

void replica_poll(struct replica *replica);

bool replica_is_idle(const struct replica *replica); /* no job is out */
void replica_status(struct replica *replica, struct node_status *out);
enum node_role replica_role(const struct replica *replica);
/* For tests: the core's transitions as lines (raft_core_set_trace). */
void replica_set_trace(struct replica *replica, raft_trace_fn trace, void *context);
/* For tests: the core's own invariants and this layer's. */
void replica_check(struct replica *replica);

/* ---- jobs ------------------------------------------------------------------------------------ */

/* Runs jobs of one worker, in this order. On that worker's thread. */
void replica_jobs_run(struct replica_job *const *jobs, size_t count);
/* Frees a job that will not be posted back (a crash in the simulator). takes */
void replica_job_discard(struct replica_job *job);

#endif
