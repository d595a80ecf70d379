/* What the files of libshardkv share: client.c (life, driving the router), client_connection.c
 * (streams to leaders), client_blocking.c (the blocking functions).
 *
 * Locking. client->mutex guards the router and everything marked below. No callback of the user, no
 * send and nothing that waits happens under it: what the router wants done is taken out in rounds
 * (struct round) and done after unlocking. A stream is opened and cancelled under it, so that an
 * event of a stream always finds its connection listed. */
#ifndef CLIENT_CLIENT_INTERNAL_H
#define CLIENT_CLIENT_INTERNAL_H

#include "client/controller_client.h"
#include "client/router.h"
#include "client/shardkv.h"
#include "rpc/rpc.h"
#include <pthread.h>

#define CLIENT_IDLE_NS       (60 * NS_PER_S) /* an unused connection is closed */
#define CLIENT_IDLE_CHECK_NS (15 * NS_PER_S)
#define CLIENT_QUERY_NS      (3 * NS_PER_S) /* deadline of a question to the controllers */

struct connection {
    struct connection *next;
    struct skv_client *client;
    uint64_t id; /* the router's */
    uint64_t used_ns;
    struct rpc_channel *channel;
    struct rpc_stream *stream;
};

struct skv_client {
    const struct clock *clock;
    struct rpc *rpc;
    struct rpc_timer *timer;
    struct controller_client *controllers;
    uint64_t cluster_id;

    pthread_mutex_t mutex;  /* guards all below */
    pthread_cond_t changed; /* room for commands; undelivered or connections went down */
    struct router *router;
    struct connection *connections;
    uint64_t timer_ns; /* when the timer is set to fire */
    uint64_t idle_check_ns;
    uint64_t undelivered; /* commands taken whose `done` has not returned */
    uint32_t room_waiters;
    uint32_t users_inside; /* threads sending what they started */
    bool querying;
    bool query_starting;
    bool closing;
};

/* ---- client_connection.c ---- */
/* Mutex held. A reference to the stream for a batch, opened when it is the first on its connection;
 * NULL: it cannot be opened. */
struct rpc_stream *client__connection_stream(struct skv_client *client,
                                             const struct router_batch *batch, uint64_t now_ns);
/* Mutex held. Their `closed` takes them off the list. */
void client__connection_cancel(struct skv_client *client, uint64_t id);
void client__connections_cancel_all(struct skv_client *client);
void client__connections_close_idle(struct skv_client *client, uint64_t now_ns);

/* ---- client.c ---- */
/* Without the mutex: does everything the router wants done. */
void client__pump(struct skv_client *client);
/* The errors of the house in the words of shardkv.h. */
int client__code(int error);
/* skv_start, but told until when; ERR_BUSY waits for room when `wait` is set. */
int client__start(struct skv_client *client, const struct skv_command *command, bool wait,
                  skv_done_fn done, void *context);

#endif
