/* What the files of the torture share; see torture.c. */
#ifndef TESTS_RPC_TORTURE_H
#define TESTS_RPC_TORTURE_H

#include "base/rng.h"
#include "rpc/world.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SERVERS = 3,
    CLIENTS = 3,
    OPS_MAX = 8 * 1024 * 1024,
    CALLS_PER_CLIENT = 64,
    STREAMS_PER_CLIENT = 6,
    HELD_MAX = 4096,
    SERVER_STREAMS_MAX = 256,
    ERRORS = 64,
    HANG_S = 120,
};

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "torture: %s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct torture {
    uint64_t seed;
    uint64_t until_ns;
    struct rpc *server_rpc;
    struct rpc *client_rpc;
    _Atomic bool worker_stop;

    /* One byte an operation: how many final callbacks it had. */
    _Atomic uint8_t *callbacks;
    _Atomic uint64_t ops;
    _Atomic uint64_t unary_ended[ERRORS]; /* by the error's number */
    _Atomic uint64_t streams_ended[ERRORS];
    _Atomic uint64_t streams_accepted;
    _Atomic uint64_t streams_accepted_ended;
    _Atomic uint64_t messages;
    _Atomic uint64_t busy;
    _Atomic uint64_t writable;
    _Atomic uint64_t restarts;
    _Atomic uint64_t timers;

    struct server {
        char address[64];
        struct rpc_server *server;
    } servers[SERVERS];

    pthread_mutex_t lock;
    /* Under the lock: what waits for the worker. */
    struct rpc_call *held[HELD_MAX];
    size_t held_count;
    struct side *sides[SERVER_STREAMS_MAX];
    size_t side_count;
};

extern struct torture torture; /* one run a process */

struct side {
    _Atomic uint32_t refs; /* the callbacks' and the driver's */
    uint64_t op;
    bool is_server;
    struct rpc_stream *stream; /* referenced by the driver's part */
    pthread_mutex_t lock;
    uint64_t next_to_send;  /* under the lock, so that numbers go out in order */
    uint64_t next_expected; /* callbacks only */
    struct rng rng;         /* callbacks only */
    _Atomic bool closed;
};

extern const struct rpc_stream_events torture_server_events; /* no context */
extern const struct rpc_stream_events torture_client_events; /* context: the side */

/* Counts an operation; and its end, which must be its first. */
uint64_t op_start(void);
void op_end(uint64_t op);
void nap(struct rng *rng, uint64_t max_us);

struct side *side_create(uint64_t seed);
void side_release(struct side *side); /* the driver's part of it */
/* Something done to a stream by a thread that is not its queue's. */
void side_disturb(struct side *side, struct rng *rng);

#endif
