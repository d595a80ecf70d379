/* Routing, batching, retries and sessions of one client, as a pure machine: no thread, no I/O, no
 * clock (`now_ns` is passed in and never goes back), no callback. libshardkv drives it over gRPC,
 * the simulator over its own network.
 *
 *   in:  router_submit, router_config, router_reply, router_connection_lost, router_batch_not_sent,
 * router_tick out: router_next_batch, router_next_completion, router_next_reset,
 * router_wants_config, router_wake_ns
 *
 * After any input, take every output until there is none. One owner at a time; no function waits.
 *
 * What it promises. Every submitted command completes exactly once, by its deadline at the latest.
 * A write keeps one (client id, sequence) over all its attempts. SKV-style outcomes: DONE only by a
 * server's answer; NOT_DONE only when no attempt can have been executed, or a server answered so
 * under the same sequence; otherwise UNKNOWN.
 *
 * acked_below of a block is the lowest sequence still outstanding among the shards the block
 * touches. Sessions are kept per (shard, client) by the servers, so a command that hangs in one
 * shard does not pin the results of the others. */
#ifndef CLIENT_ROUTER_H
#define CLIENT_ROUTER_H

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "proto/command.h"
#include "proto/config.h"

struct router;

struct router_options {
    uint64_t client_id;             /* random, nonzero */
    uint64_t cluster_id;            /* 0: not checked by the servers */
    uint64_t seed;                  /* of jitter and of the first replica tried */
    uint32_t outstanding_max;       /* default 4096; at most SESSION_OUTSTANDING_MAX */
    uint64_t outstanding_bytes_max; /* keys and values; default 64 MiB; one command always fits */
    uint32_t batches_in_flight_max; /* per leader and kind (reads, writes); default 4 */
    uint32_t batches_eager;         /* of those, sent however small they are; default 1 */
    uint32_t batch_bytes_full;      /* a block of this size is full; default 256 KiB */
};
struct router_options router_options_default(void);

struct router *router_create(const struct router_options *options); /* gives */
void router_destroy(
    struct router *router); /* commands that are outstanding are dropped without completion */

struct router_command {
    enum op_kind kind;
    struct bytes key;   /* copied */
    struct bytes value; /* copied */
    uint64_t expected_version;
    uint64_t deadline_ns;
    void *context; /* comes back with the completion */
};
/* OK: completes later. ERR_INVALID, ERR_TOO_LARGE: never will be taken. ERR_BUSY: too much is
 * outstanding, in all or in this shard. ERR_UNAVAILABLE: before the first config. */
int router_submit(struct router *router, const struct router_command *command,
                  uint64_t now_ns) MUST_USE;

/* Older ones than it has are ignored. ERR_PROTOCOL: another shard count than before. Borrows. */
int router_config(struct router *router, const struct config *config, uint64_t now_ns) MUST_USE;

/* A message (BatchResponse) that came over `connection`. `owner` is referenced while completions
 * point into it. */
void router_reply(struct router *router, uint64_t connection, struct bytes message,
                  struct blob *owner, uint64_t now_ns);
/* What was sent over it and not answered may have been executed or not. Unknown connections are
 * ignored. */
void router_connection_lost(struct router *router, uint64_t connection, uint64_t now_ns);
/* A batch that surely never left this process. */
void router_batch_not_sent(struct router *router, uint64_t batch_id, uint64_t now_ns);
/* Whenever now_ns >= router_wake_ns(). Early or late is harmless. */
void router_tick(struct router *router, uint64_t now_ns);

struct router_batch {
    uint64_t id;
    /* A number for this use of the address: never used again after router_connection_lost or a
     * reset. Open a stream at `address` when it is new. */
    uint64_t connection;
    char address[ADDRESS_BYTES_MAX];
    bool reads;
    uint32_t count;     /* commands inside */
    struct buf message; /* BatchRequest; given: buf_deinit or pass on */
};
bool router_next_batch(struct router *router, uint64_t now_ns, struct router_batch *out);

struct router_completion {
    void *context;
    enum op_kind kind;
    enum err_outcome outcome;
    int error; /* enum err, 0 when all is well; of DONE: NOT_FOUND of a get only */
    uint64_t version;
    struct bytes value; /* of a get: lives as long as `owner` */
    struct blob *owner; /* given: blob_unref; may be NULL */
};
bool router_next_completion(struct router *router, struct router_completion *out);

bool router_has_completion(const struct router *router);

/* A connection that was given up (no answer in time, or nonsense): close it; it is lost already. */
bool router_next_reset(struct router *router, uint64_t *connection);

/* True when a newer config than its own would help: ask a controller once, now. Rate-limited
 * inside. */
bool router_wants_config(struct router *router, uint64_t now_ns);

/* When to call router_tick next; UINT64_MAX: no need. */
uint64_t router_wake_ns(const struct router *router);

struct router_stats {
    uint64_t commands;      /* taken */
    uint64_t batches;       /* sent */
    uint64_t retries;       /* commands sent again */
    uint64_t reroutes;      /* ... to another group or leader, told by a server */
    uint64_t config_number; /* newest config known in full */
    uint32_t outstanding;
};
void router_stats(const struct router *router, struct router_stats *out);
/* Every invariant of the machine; for tests, after any step. O(everything). */
void router_check(const struct router *router);

#endif
