/* Every message of proto/messages.h in one table, so that one test body runs over all of them. */
#ifndef TESTS_UNIT_MESSAGE_CASES_H
#define TESTS_UNIT_MESSAGE_CASES_H

#include "base/bytes.h"
#include "base/rng.h"

struct message_case {
    const char *name;  /* "put_request" */
    const char *type;  /* "shardkv.v1.PutRequest" */
    const char *proto; /* "shardkv.proto" */
    size_t size;       /* of its struct */
    /* Fills a zeroed struct with values drawn from `rng`, right by the decoder's rules. What it
     * points at lies in static storage or is owned by it. */
    void (*fill)(void *message, struct rng *rng);
    void (*release)(void *message); /* what fill made; may be NULL */
    void (*encode)(const void *message, struct buf *out);
    int (*decode)(struct bytes bytes, void *out);
    void (*deinit)(void *message); /* of a decoded one; may be NULL */
};

extern const struct message_case message_cases[];
extern const size_t message_case_count;

#endif
