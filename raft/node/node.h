/* One replica of one group at run time.
 *
 *   any thread              node loop               persist, apply, background threads
 *   node_propose ---.
 *   node_read ------+--> [mailbox] --> replica --write----------> [log: write and sync]
 *   peer messages --'        ^         (core)  --commit, reads--> [state machine, replies]
 *                            |                 --the rest-------> [flush, snapshots, loads]
 *                            |                                            |
 *                            '------- completions of all of them ---------'
 *
 * The loop drains the whole mailbox, turns all waiting commands into ONE log entry, takes one
 * ready, and hands out the work. The single-threaded part of this, with no thread and no gRPC, is
 * raft/node/replica.h: the simulator drives the very same code over a fake clock, disk and network.
 * */
#ifndef RAFT_NODE_NODE_H
#define RAFT_NODE_NODE_H

#include "base/clock.h"
#include "base/error.h"
#include "base/vfs.h"
#include "raft/core/core.h"
#include "raft/node/state_machine.h"

struct node;
struct rpc;
struct rpc_server;
struct msg_status_response; /* proto/messages.h */

enum { NODE_COMMAND_BYTES_MAX = 12 * 1024 * 1024 }; /* one command; larger ones are ERR_TOO_LARGE */

struct node_member {
    uint64_t id;
    const char *address;
};

struct node_options {
    uint64_t cluster_id;
    uint64_t group_id;
    uint64_t replica_id;
    /* holds identity, wal/, snapshot/, and the state machine's own folder; locked while open */
    const char *dir;
    /* Members the group starts with; used only when `dir` is new. Empty: a replica that waits to be
     * added. */
    const struct node_member *members;
    size_t member_count;
    uint64_t tick_ns;         /* default 10 ms */
    uint32_t election_ticks;  /* default 30 (300 ms .. 600 ms) */
    uint32_t heartbeat_ticks; /* default 10 (100 ms): at most ten heartbeats a second */
    bool lease_reads;
    uint64_t mailbox_bytes_max; /* default 64 MiB */
    uint32_t mailbox_items_max; /* default 65,536 */
    /* one log entry made of many commands; default 1 MiB (a larger command goes alone) */
    uint64_t entry_bytes_max;
    /* flush the state machine and compact once the log is this long; default 64 MiB */
    uint64_t flush_log_bytes;
    uint64_t segment_bytes;   /* of the log; default 16 MiB */
    uint64_t cache_bytes_max; /* log entries in memory; default 8 MiB */
    const struct clock *clock;
    const struct vfs *vfs;
    uint64_t seed;
};
struct node_options node_options_default(void);

enum node_role { NODE_FOLLOWER = 1, NODE_CANDIDATE, NODE_LEADER, NODE_LEARNER };

/* Called on the loop thread; must not block. `term` and role as they are now; LEADER is told only
 * once the term has a commit (so that reads and proposals work). */
struct node_observer {
    void (*role_changed)(void *context, enum node_role role, uint64_t term, uint64_t leader_id,
                         const char *leader_address);
    /* The newest membership in the log, once it is committed: soon after the start, and after every
     * change. May be NULL. */
    void (*members_committed)(void *context, const struct raft_membership *membership);
    void *context;
};

/* Opens dir (ERR_BUSY: another process has it; ERR_WRONG_CLUSTER, ERR_WRONG_REPLICA: identity on
 * disk differs; ERR_CORRUPT), restores a staged snapshot if one is complete, and recovers. `sm`
 * must be open already: the node compares what it has applied with the log. `why` says what went
 * wrong and what would be right. gives *out; nothing runs yet. */
int node_create(const struct node_options *options, const struct state_machine *sm,
                const struct node_observer *observer, struct rpc *rpc, struct node **out, char *why,
                size_t why_size) MUST_USE;
/* Adds the Peer and Admin.Transfer/ChangeMember methods. Before rpc_server_start. The node must
 * outlive the server: the server is shut down after node_stop and before node_destroy. */
int node_add_methods(struct node *node, struct rpc_server *server) MUST_USE;
/* Starts the threads. After rpc_server_start, so that peers can answer. */
int node_start(struct node *node) MUST_USE;
/* Waits: hands leadership over if it has it (bounded by an election timeout), fails what waits with
 * ERR_SHUTDOWN or ERR_LEADER_LOST, joins the threads. */
void node_stop(struct node *node);
void node_destroy(struct node *node);

/* The answer to a command: `error` 0 with what the state machine put into the result and where it
 * stands in the log; ERR_NOT_LEADER, ERR_BUSY, ERR_TOO_LARGE, ERR_SHUTDOWN: surely not executed;
 * ERR_LEADER_LOST: unknown. Exactly once, on the apply or loop thread; must not block. */
typedef void (*node_done_fn)(void *context, int error, struct raft_position position,
                             struct bytes result);
/* References `payload`. `done` runs iff OK is returned. ERR_BUSY: mailbox full. Any thread. */
int node_propose(struct node *node, struct bytes payload, struct blob *owner, node_done_fn done,
                 void *context) MUST_USE;

/* Linearizable read: `serve(context, 0)` runs on the apply thread at a moment when the state
 * machine holds everything acknowledged before this call; or with ERR_NOT_LEADER, ERR_BUSY,
 * ERR_NO_QUORUM, ERR_SHUTDOWN. It may read the state machine and should be short. Any thread. */
typedef void (*node_read_fn)(void *context, int error);
int node_read(struct node *node, node_read_fn serve, void *context) MUST_USE;

/* How an administrative request ended; exactly once iff OK was returned, on the loop or apply
 * thread; must not block. */
typedef void (*node_change_fn)(void *context, int error);
/* 0: another member leads now. ERR_NOT_LEADER; ERR_TRANSFER_FAILED: given up, this replica leads
 * on; ERR_TIMEOUT: leadership was given up but no leader is known yet. */
int node_transfer(struct node *node, uint64_t target, node_change_fn done, void *context) MUST_USE;
/* 0: committed. Errors of raft_core_propose_change at once; ERR_LEADER_LOST: unknown. */
int node_change_member(struct node *node, const struct raft_change *change, node_change_fn done,
                       void *context) MUST_USE;

/* A checksum of the whole replicated state and the position it belongs to; scans everything, on the
 * background thread, where `done` runs too. One at a time: ERR_BUSY is told to `done`. */
typedef void (*node_hash_fn)(void *context, int error, uint64_t hash,
                             struct raft_position position);
int node_hash(struct node *node, node_hash_fn done, void *context) MUST_USE;

struct node_status {
    struct raft_status raft;
    enum node_role role;
    uint64_t log_bytes;
    char leader_address[RAFT_ADDRESS_BYTES_MAX]; /* "" when unknown */
    struct raft_progress progress[RAFT_MEMBERS_MAX];
    size_t progress_count;
};
/* A copy of the newest published status; any thread, no waiting. */
void node_status(struct node *node, struct node_status *out);
bool node_is_leader(struct node *node);
/* What this room knows of Admin.Status: everything but version, config_number, shards and
 * state_hash, which stay as they are. Any thread. */
void node_fill_status(struct node *node, struct msg_status_response *out);

#endif
