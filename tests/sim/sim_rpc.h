/* What the simulated rpc's files share: rpc.h over sim_net.h.
 *
 * Every callback comes from an event, never from inside a call of rpc.h, as with the real one's
 * completion queues; so nothing of the product's can notice that there is one thread. */
#ifndef TESTS_SIM_SIM_RPC_H
#define TESTS_SIM_SIM_RPC_H

#include "rpc/rpc.h"
#include "sim/sim_net.h"

struct rpc {
    struct sim_host *host;
    uint32_t
        active; /* requests and streams of its channels that have not had their last callback */
    uint32_t servers, channels, timers;
};

struct rpc_channel {
    struct rpc *rpc;
    char address[SIM_NAME_BYTES_MAX];
    struct rpc_request *requests;
    struct rpc_stream *streams;
};

struct sim_method {
    char name[64];
    bool is_stream;
    rpc_unary_fn handler;
    struct rpc_stream_events events;
    void *context;
};

enum { SIM_METHODS_MAX = 32 };

struct rpc_server {
    struct rpc *rpc;
    struct rpc_server_options options;
    char address[SIM_NAME_BYTES_MAX];
    struct sim_method methods[SIM_METHODS_MAX];
    uint32_t method_count;
    uint32_t call_count; /* accepted and unanswered */
    struct rpc_stream *streams;
    bool started;
    bool stopped;
};

struct rpc_stream {
    uint32_t references;
    struct sim_host *host;
    struct rpc *rpc;
    enum conn_side side;
    struct conn *conn;
    struct rpc_stream_events events;
    void *context;
    void *user;
    uint64_t send_bytes_max;
    uint64_t queued_bytes;
    bool refused; /* a send was: `writable` follows */
    bool finished;
    bool cancelled;
    bool paused;
    bool resumed;    /* while `message` runs */
    bool delivering; /* `message` runs */
    bool ended;      /* `closed` has run or will not */
    struct conn_message *inbox_first, *inbox_last;
    struct rpc_stream *next, **link; /* of its channel or server */
    char peer[SIM_NAME_BYTES_MAX];
};

/* sim_rpc_stream.c */
void rpc__stream_accept(struct rpc_server *server, const struct sim_method *method,
                        struct conn *conn);
void rpc__streams_shut_down(struct rpc_server *server);
void rpc__streams_of_channel_cancel(struct rpc_channel *channel);

#endif
