/* The rpc room, the node and the worker as a fuzz target needs them: one thread, no network, no
 * consensus. The linker gives these functions to the services in place of the real ones (--wrap),
 * so what runs is the product's code from the bytes of a request to the bytes of its answer.
 *
 * What is proposed is applied, and what is asked is served, by service_host_run, never on the
 * caller's stack: as the real node promises. Every call must be answered exactly once; that is
 * asserted, and that every answer decodes. */
#ifndef TESTS_FUZZ_SERVICE_HOST_H
#define TESTS_FUZZ_SERVICE_HOST_H

#include "base/bytes.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"

enum { SERVICE_METHODS_MAX = 32 };

struct service_method {
    const char *name;
    rpc_unary_fn unary; /* NULL: a stream */
    struct rpc_stream_events events;
    void *context;
};

/* What the two stand for; opaque to the services. */
struct node {
    struct state_machine sm;
    uint64_t index;
    uint64_t time_ms;
    bool leads;
    bool full; /* proposals and reads are answered BUSY */
};
struct rpc_server {
    struct service_method methods[SERVICE_METHODS_MAX];
    uint32_t method_count;
};

/* Looks at an answer of the method; asserts that it is one. */
typedef void (*service_answer_fn)(const char *method, struct bytes answer);

/* One call through to its answer. */
void service_host_call(struct rpc_server *server, uint32_t method, struct bytes request,
                       service_answer_fn check);

/* A stream of the method; NULL when it was refused. */
struct rpc_stream *service_host_open(struct rpc_server *server, uint32_t method,
                                     service_answer_fn check);
/* False: it has ended, or does not want to be read. */
bool service_host_message(struct rpc_stream *stream, struct bytes message);
/* From now on it takes nothing (`full`), or takes again and says so. */
void service_host_set_full(struct rpc_stream *stream, bool full);
/* Ends it, if it has not ended, and frees it. */
void service_host_close(struct rpc_stream *stream);

/* All that waits: proposals, reads, jobs. */
void service_host_run(void);

#endif
