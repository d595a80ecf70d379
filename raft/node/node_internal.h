/* The insides of a node, shared by node.c, node_threads.c and admin.c only.
 *
 * Threads and what each owns:
 *   whoever has the turn  `replica`'s machine and what stands under `turn`: one round of the loop
 *                  at a time, run by the loop's own thread, a worker or a queue's thread of rpc
 *   three workers  the jobs they are given, nothing else
 *   any            mailbox (a queue with its own lock), atomics, `published` under `lock` */
#ifndef RAFT_NODE_NODE_INTERNAL_H
#define RAFT_NODE_NODE_INTERNAL_H

#include "base/queue.h"
#include "raft/node/node.h"
#include "raft/node/replica.h"
#include "raft/node/transport.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    NODE_EVENTS_PER_ROUND = 1024,             /* taken from the mailbox at once */
    NODE_PERSIST_JOBS_PER_SYNC = 64,          /* writes that share one sync */
    NODE_FRAMES_BYTES_MAX = 64 * 1024 * 1024, /* received, not yet looked at; more are dropped */
    NODE_IDLE_TICKS_MAX = 3,                  /* ticks slept through when nothing happens */
    NODE_ADMIN_EVENTS_MAX = 64, /* transfers, changes and hashes waiting in the mailbox */
    /* Slower than this, and those to come are the worker's for so many times what it took. The one
     * that finds the disk slow keeps its thread, and who waits for that, as long as it takes. */
    NODE_PASSING_SLOW_NS = 3 * 1000 * 1000,
    NODE_PASSING_PAUSE = 16,
    NODE_EXIT_FATAL = 6, /* = SERVER_EXIT_DISK of server_main.h */
};

enum node_event_kind {
    EVENT_FRAME = 1,
    EVENT_JOB,
    EVENT_WAKE, /* some peer is unreachable */
    EVENT_STOP,
    EVENT_PROPOSE,
    EVENT_READ,
    EVENT_TRANSFER,
    EVENT_CHANGE,
    EVENT_HASH,
};

struct node_event {
    struct node_event *next; /* of jobs: those submitted, or waiting behind one in passing */
    enum node_event_kind kind;
    union {
        struct {
            struct blob *bytes;
            struct rpc_stream *stream; /* a reference */
        } frame;
        struct replica_job *job;
        struct {
            struct bytes payload;
            struct blob *owner;
            node_done_fn done;
            void *context;
        } propose;
        struct {
            node_read_fn serve;
            void *context;
        } read;
        struct {
            uint64_t target;
            struct raft_change change;
            char address[RAFT_ADDRESS_BYTES_MAX];
            node_change_fn done;
            void *context;
        } admin;
        struct {
            node_hash_fn done;
            void *context;
        } hash;
    } as;
};

struct worker {
    struct node *node;
    enum replica_worker kind;
    struct queue *jobs; /* of struct node_event with EVENT_JOB */
    pthread_t thread;
    bool running;
    uint32_t out; /* under turn: jobs submitted and not yet taken back */
};

/* A worker's jobs are run in the order of their submission. A small one may be run by the thread
 * that has just given up the turn; what is submitted behind it waits until it is back. */
struct in_passing {
    /* under turn */
    struct node_event *next; /* for the holder of the turn to run when he has given it up */
    bool running;
    struct node_event *behind; /* in order */
    struct node_event **behind_end;

    _Atomic uint64_t not_before_ns; /* one took long: the next ones are the worker's */
};

struct node {
    struct node_options options;
    struct node_observer observer;
    struct rpc *rpc;
    struct replica *replica;
    struct transport *transport;
    struct queue *mailbox;
    struct worker workers[REPLICA_WORKER_COUNT];
    pthread_t loop_thread;
    bool started;
    bool joined;

    pthread_mutex_t turn;
    /* under turn */
    uint64_t next_tick_ns;
    uint64_t stop_deadline_ns; /* 0: not stopping */
    bool handing_over;
    bool replica_stopped;
    bool ended;
    bool may_run_jobs;            /* the holder of the turn may run one when he has given it up */
    struct node_event *submitted; /* in this round, in order; routed when it has sent its frames */
    struct node_event **submitted_end;
    struct in_passing in_passing[REPLICA_WORKER_COUNT];
    void *items[NODE_EVENTS_PER_ROUND];

    pthread_mutex_t sleep_lock;
    pthread_cond_t woken_changed;
    bool woken; /* under sleep_lock: the loop's thread has to look */

    atomic_bool leader;
    _Atomic uint64_t frames_bytes;
    _Atomic uint32_t admin_count;

    pthread_mutex_t lock;
    /* under lock */
    struct node_status published;
};

/* node_threads.c */
void node__locks_init(struct node *node);
void node__locks_deinit(struct node *node);
/* After a push into the mailbox: somebody will look. */
void node__pushed(struct node *node);
/* One round, if nobody else is in one: whoever is looks once more. `may_run_jobs`: and runs small
 * jobs behind it. The caller holds no lock. */
void node__take_turn(struct node *node, bool may_run_jobs);
int node__threads_start(struct node *node) MUST_USE;
void node__threads_join(struct node *node);
void node__submit(void *context, struct replica_job *job);
void node__publish(struct node *node);
/* What an event that nobody will look at any more carries is answered ERR_SHUTDOWN. takes */
void node__event_refuse(struct node *node, struct node_event *event);

/* admin.c */
int node__admin_add_methods(struct node *node, struct rpc_server *server) MUST_USE;

#endif
