/* One operation as one unary call, and what its answer means: shardkv's own methods, and etcd's.
 * target_unary.c does the rest for both, so that a comparison of the two differs in the server
 * alone. */
#ifndef TESTS_BENCH_PROTOCOL_H
#define TESTS_BENCH_PROTOCOL_H

#include "bench/target.h"
#include "proto/messages.h"

struct protocol_answer {
    int error;
    uint64_t version;
    bool has_route; /* where to go instead */
    struct msg_route route;
};

struct protocol {
    /* Appends the request and returns the method's name. */
    const char *(*encode)(uint64_t cluster_id, const struct target_command *command,
                          struct buf *out);
    /* ERR_OK: *out is filled (its error says what the server said). Else the reply cannot be
     * understood. */
    int (*decode)(enum bench_kind kind, struct bytes reply, struct protocol_answer *out);
};

extern const struct protocol protocol_shardkv;
extern const struct protocol protocol_etcd;

#endif
