/* What the files of the router share.
 *
 *   router.c        commands: submit, time, completion · configs and routes: which group owns a
 * shard router_group.c  groups: which replica leads, when to rest · blocks: what leaves next
 *   router_reply.c  answers, lost connections: what becomes of each command
 *
 * A command's life:
 *
 *   router_submit --> QUEUED (in its group's queue) --block built--> FLYING (in a batch)
 *                      ^  ^                                            |  |
 *                      |  '--- refused or lost: router__retry ---------'  '-- answered --> ended
 * --> completion
 *                      '-- timer --- HELD <-- refused: router__hold ---'
 *   and from any of the three by its deadline: router__expire.
 *
 * Invariants (router_check):
 *   1. a command is in exactly one place: one group's queue, the held list, one batch, or the ended
 * list
 *   2. a shard's list holds its outstanding writes by ascending sequence
 *   3. group->flying[kind] counts the batches sent to its present leader that are neither answered
 * nor lost
 *   4. maybe_executed of a write is set once an attempt ended without an answer, and never cleared
 */
#ifndef CLIENT_ROUTER_INTERNAL_H
#define CLIENT_ROUTER_INTERNAL_H

#include "base/rng.h"
#include "client/router.h"
#include "client/timers.h"
#include "proto/messages.h"

enum { ROUTER_WRITES = 0, ROUTER_READS = 1, ROUTER_KINDS = 2 };

enum {
    ROUTER_HOPS_MAX = 4, /* times a command is sent elsewhere at once before it has to wait */
    ROUTER_BATCH_BUCKETS = 256, /* of the table batch id -> batch; a power of two */
};

#define ROUTER_HOLD_MIN_NS                                                                         \
    (5 * NS_PER_MS) /* first wait of a command whose shard is moving: 5 .. 10 ms */
#define ROUTER_BACKOFF_MAX_NS (200 * NS_PER_MS)
/* A batch without an answer for so long goes elsewhere. Slow is not silent: a group is given a
 * multiple of what its answers take, and a command twice as long after each time that was too
 * short, lest an overload feeds itself. */
#define ROUTER_PATIENCE_MIN_NS (1500 * NS_PER_MS)
#define ROUTER_PATIENCE_MAX_NS (6 * NS_PER_S)
#define ROUTER_PATIENCE_FACTOR 4
#define ROUTER_QUERY_MIN_NS    (50 * NS_PER_MS) /* between two questions to the controllers */
#define ROUTER_QUERY_MAX_NS    (1 * NS_PER_S)
#define ROUTER_AGE_NS_MAX      ((COMMAND_AGE_MS_MAX - 60 * 1000) * NS_PER_MS)

enum { TIMER_COMMAND = 1, TIMER_BATCH, TIMER_GROUP };

enum command_state { COMMAND_QUEUED = 1, COMMAND_HELD, COMMAND_FLYING, COMMAND_ENDED };

struct command {
    struct command *next, *prev; /* in its queue, the held list or the ended list */
    struct command *shard_next, *shard_prev;
    struct timer_node timer; /* the deadline, or before it the end of a hold */
    enum command_state state;
    enum op_kind kind;
    uint32_t shard;
    uint32_t key_size;
    uint32_t value_size;
    uint64_t sequence; /* 0: a get */
    uint64_t ordinal;  /* how many writes its shard had before it */
    uint64_t expected_version;
    uint64_t deadline_ns;
    uint64_t wake_ns;       /* while HELD */
    uint64_t first_sent_ns; /* 0: never */
    void *context;
    struct group *group; /* while QUEUED */
    struct batch *batch; /* while FLYING */
    uint32_t batch_index;
    uint32_t hops;
    uint32_t holds;
    uint32_t timeouts; /* attempts that nothing ended but time: a connection that broke says nothing
                          about load */
    bool maybe_executed;
    int last_error;
    /* once ended */
    enum err_outcome outcome;
    int error;
    uint64_t version;
    struct bytes value;
    struct blob *owner;
    uint8_t bytes[]; /* key, value */
};

struct command_list {
    struct command *first, *last;
    uint32_t count;
    uint64_t bytes; /* packed */
};

struct batch {
    struct batch *next, *prev; /* of its endpoint */
    struct batch *bucket_next;
    struct timer_node timer;
    uint64_t id;
    struct group *group;
    struct endpoint *endpoint;
    uint64_t leader_epoch; /* of the group when it was sent */
    uint64_t sent_ns;
    uint32_t kind;
    uint32_t count;
    struct command *commands[]; /* NULL: expired meanwhile */
};

/* One address in use: as a group's believed leader, or with batches flying. */
struct endpoint {
    struct endpoint *next, *prev;
    uint64_t connection;
    struct batch *batches;
    uint32_t references; /* groups that believe in it, and batches */
    char address[ADDRESS_BYTES_MAX];
};

struct group {
    uint64_t id;
    uint64_t number; /* of the config its addresses are from */
    bool listed;     /* in the newest full config or a newer route */
    uint32_t address_count;
    char addresses[GROUP_REPLICAS_MAX][ADDRESS_BYTES_MAX];
    struct endpoint *leader; /* believed; NULL: take the next in turn */
    uint64_t leader_epoch;
    uint32_t turn;
    uint32_t hops;        /* leaders tried since one answered, or since the last rest */
    uint64_t patience_ns; /* for an answer */
    uint32_t rests;       /* in a row */
    bool resting;
    struct timer_node timer; /* ends the rest */
    uint32_t flying[ROUTER_KINDS];
    uint32_t reads_max;   /* gets in a block: what fitted in an answer */
    uint32_t batch_count; /* flying, to any endpoint */
    struct command_list queues[ROUTER_KINDS];
    struct group *ready_next;
    bool ready;
    bool stale; /* a shard left it: its queues may hold what belongs elsewhere */
};

struct shard {
    struct group *owner;          /* NULL: none */
    uint64_t number;              /* of the config or route that says so */
    struct command *first, *last; /* outstanding writes */
    uint64_t issued;
};

struct reset {
    struct reset *next;
    uint64_t connection;
};

struct router {
    struct router_options options;
    struct rng rng;
    struct timers timers;
    uint64_t config_number;
    uint32_t shard_count; /* 0: no config yet */
    struct shard *shards;
    struct group **groups; /* by ascending id */
    uint32_t group_count, group_capacity;
    struct endpoint *endpoints;
    struct batch *buckets[ROUTER_BATCH_BUCKETS];
    struct group *ready_first, *ready_last; /* may have a block to send */
    struct command_list held;
    struct command_list ended;
    struct reset *resets;
    uint64_t next_sequence, next_batch_id, next_connection;
    uint32_t outstanding;
    uint64_t outstanding_bytes;
    bool any_stale;
    bool wants_config;
    uint64_t query_after_ns;
    uint64_t query_delay_ns;
    struct router_stats stats;
    struct command **picked; /* scratch of the block being built */
    struct buf block;        /* scratch */
};

/* ---- router.c ---- */
void router__list_append(struct command_list *list, struct command *command);
void router__list_prepend(struct command_list *list, struct command *command);
void router__list_remove(struct command_list *list, struct command *command);
/* Ends a command that is in no list and no batch. */
void router__end(struct router *router, struct command *command, enum err_outcome outcome,
                 int error);
/* Puts a command that is in no list into its owner's queue (at the front when it is a retry), or
 * holds it. */
void router__route(struct router *router, struct command *command, bool retry, uint64_t now_ns);
/* Lets a command that is in no list wait; `jitter` in 512 .. 1024 is shared by the commands of one
 * answer, so that they leave together again. */
void router__hold(struct router *router, struct command *command, uint32_t jitter, uint64_t now_ns);
/* Believes a route when it is newer than what is known of its shard. Then, once for many,
 * router__rehome. */
void router__learn_route(struct router *router, const struct msg_route *route);
/* Moves what waits in the queue of a group that does not own its shard any more. */
void router__rehome(struct router *router, uint64_t now_ns);
void router__want_config(struct router *router);
uint32_t router__jitter(struct router *router);

/* ---- router_group.c ---- */
struct group *router__group_find(struct router *router, uint64_t id);
struct group *router__group_get(struct router *router, uint64_t id); /* made when missing */
void router__group_sweep(struct router *router); /* frees those that nothing needs */
void router__group_addresses(struct router *router, struct group *group, uint64_t number,
                             const char *const *addresses, uint32_t count);
void router__group_ready(struct router *router, struct group *group);
/* The leader of `epoch` did not do; `hint` ("" if none) may be better. Nothing happens when the
 * group has moved on. */
void router__group_declined(struct router *router, struct group *group, uint64_t epoch,
                            const char *hint, uint64_t now_ns);
void router__group_rest(struct router *router, struct group *group, uint64_t now_ns);
void router__group_rested(struct router *router, struct group *group);
void router__group_answered(struct group *group);
/* An answer, whatever it says. */
void router__group_heard(struct group *group, uint64_t latency_ns);
size_t router__command_bytes(const struct command *command);
struct op router__command_op(const struct command *command);

void router__endpoint_unref(struct router *router, struct endpoint *endpoint);
struct batch *router__batch_find(struct router *router, uint64_t id);
/* Takes the batch out of every table; its commands are the caller's to place. */
void router__batch_unlink(struct router *router, struct batch *batch);

/* ---- router_reply.c ---- */
void router__batch_timed_out(struct router *router, struct batch *batch, uint64_t now_ns);

#endif
