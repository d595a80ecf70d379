/* What controller_client.c (addresses, calls) and controller_watch.c (the config watch) share. */
#ifndef CLIENT_CONTROLLER_INTERNAL_H
#define CLIENT_CONTROLLER_INTERNAL_H

#include "base/bytes.h"
#include "base/rng.h"
#include "client/controller_client.h"
#include "rpc/rpc.h"
#include <pthread.h>

enum {
    CONTROLLER_ADDRESSES_MAX = 32, /* given ones */
    CONTROLLER_ENDPOINTS_MAX = 48, /* and those that controllers hint at: members added since */
};

/* One attempt may not eat the whole deadline: a stopped leader answers nothing, its successor
 * stands ready. */
#define CONTROLLER_ATTEMPT_NS     (1500 * NS_PER_MS)
#define CONTROLLER_BACKOFF_MIN_NS (20 * NS_PER_MS)
#define CONTROLLER_BACKOFF_MAX_NS (500 * NS_PER_MS)
/* A watch that says nothing for so long is checked by a query: its server may be cut off from the
 * others. */
#define CONTROLLER_WATCH_CHECK_NS (3 * NS_PER_S)

struct controller_endpoint {
    char address[ADDRESS_BYTES_MAX];
    struct rpc_channel *channel; /* made when first used */
};

enum watch_state {
    WATCH_OFF,     /* never asked for, or ended */
    WATCH_WAITING, /* the timer will open a stream */
    WATCH_OPEN,    /* a stream is open; the timer will check it */
};

struct controller_watch {
    enum watch_state state;
    bool latest_only;
    bool checking;     /* a check query is under way */
    uint64_t next;     /* the lowest number still wanted */
    uint64_t heard_ns; /* when the stream last said something */
    uint32_t endpoint;
    uint32_t failures; /* streams in a row that ended without a config */
    bool progressed;   /* this stream gave a config */
    bool warns;        /* logs failures that last */
    int refusal;       /* what this stream's controller answered instead of a config; 0: nothing */
    struct rpc_stream *stream;
    struct rpc_timer *timer;
    controller_config_fn changed;
    void *context;
};

struct controller_call {
    struct controller_client *client;
    struct controller_call *next, **link; /* in client->calls */
    char *method;
    struct buf request;
    uint64_t deadline_ns;
    controller_done_fn done;
    void *context;
    struct rpc_request *under_way; /* NULL while waiting for the timer */
    struct rpc_timer *timer;       /* made when first needed */
    uint32_t endpoint;             /* of the attempt under way */
    uint32_t hops;                 /* attempts since the last back-off */
    uint32_t backoffs;
    bool maybe_executed;
    int last_error;
    char text[RPC_ERROR_TEXT_BYTES_MAX];
};

struct controller_client {
    struct rpc *rpc;
    const struct clock *clock;
    uint64_t cluster_id;
    uint64_t client_id;
    char *addresses; /* as given, for messages */

    pthread_mutex_t mutex; /* guards all below, and the fields of calls and the watch; never held in
                              a callback */
    pthread_cond_t idle;
    struct rng rng;
    uint64_t next_sequence;
    struct controller_endpoint endpoints[CONTROLLER_ENDPOINTS_MAX];
    uint32_t endpoint_count;
    uint32_t target; /* the endpoint believed to lead */
    struct controller_call *calls;
    uint32_t call_count; /* until their `done` has returned */
    bool closing;
    struct controller_watch watch;
};

/* All with client->mutex held. */
int controller__channel(struct controller_client *client, uint32_t endpoint,
                        struct rpc_channel **out) MUST_USE;
/* Believes `hint` (may be "") to lead after `from` declined; without a hint, takes the next in
 * turn. Does nothing when somebody else has moved on from `from` already. True when the new target
 * came from the hint. */
bool controller__redirect(struct controller_client *client, uint32_t from, const char *hint);
uint64_t controller__backoff_ns(struct controller_client *client, uint32_t count);
/* Ends the watch if it is idle, or makes it end soon. */
void controller__watch_close(struct controller_client *client);

#endif
