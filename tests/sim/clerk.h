/* Clients of a simulated cluster: libshardkv on a host of its own, every operation noted in a
 * history if one is wanted; and the loops of operations that the course's tests run beside faults.
 */
#ifndef TESTS_SIM_CLERK_H
#define TESTS_SIM_CLERK_H

#include "base/bytes.h"
#include "sim/cluster.h"
#include "sim/linear.h"

#define CLERK_TIMEOUT_MS                                                                           \
    100000u /* in effect for ever, as the course's clerks: the test ends first */

struct clerk {
    struct cluster *cluster;
    struct sim_host *host;
    struct skv_client *client;
    struct linear_history *history; /* NULL: none */
    uint32_t in_flight;
    bool forgiving;      /* its operations may end without success also when they had time */
    uint32_t timeout_ms; /* of its operations; where it is short they may end without success */
};

void clerk_open(struct clerk *clerk, struct cluster *cluster, struct linear_history *history);
void clerk_close(struct clerk *clerk);

/* `result` as libshardkv gives it. On the clerk's host; must not wait. */
typedef void (*clerk_done_fn)(void *context, const struct skv_result *result);
void clerk_start(struct clerk *clerk, enum skv_op op, const char *key, const void *value,
                 size_t size, clerk_done_fn done, void *context);

/* A key as a get showed it. */
struct clerk_seen {
    uint64_t version; /* 0: absent */
    struct buf value;
};
/* A compare-and-set of what was seen. */
void clerk_start_cas(struct clerk *clerk, const char *key, const struct clerk_seen *seen,
                     struct bytes value, clerk_done_fn done, void *context);

/* Blocking; an operation that does not end with success fails the test. An absent key is "". */
void clerk_put(struct clerk *clerk, const char *key, const char *value);
void clerk_append(struct clerk *clerk, const char *key, const char *value);
void clerk_get(struct clerk *clerk, const char *key,
               struct buf *out); /* replaces what `out` held */
void clerk_check(struct clerk *clerk, const char *key, const char *expected);

/* One operation that runs beside others. */
struct clerk_pending {
    struct sim_host *host;
    bool ended;
    struct skv_result result; /* without its value */
    struct buf value;
    uint64_t took_ns;
};
void clerk_begin(struct clerk *clerk, enum skv_op op, const char *key, const char *value,
                 struct clerk_pending *pending);
bool clerk_wait(struct clerk_pending *pending, uint64_t timeout_ns); /* false: not ended */
void clerk_pending_deinit(struct clerk_pending *pending);

/* Of key `i` below `count`, one in each shard when count == shards: the course's keys "0".."9". */
void clerk_key_in_shard(uint32_t shard, uint32_t shard_count, uint32_t variant,
                        char out[SIM_NAME_BYTES_MAX]);

/* ---- loops ---- */

struct loop_options {
    uint32_t number; /* of the client */
    const char *key; /* its own; NULL: a random one of `key_count` ("0", "1", ...) with puts too */
    uint32_t key_count;
    const char *only_key; /* of those random ones: then it is always this one */
    bool gets_only;
    bool appends_only;
    size_t padding_bytes; /* not 0: now and then a put of so many bytes to a key beside, so that the
                             log grows */
    uint32_t padding_one_in;
    bool deletes;          /* among the operations on random keys */
    bool cas;              /* the same: of what a get showed just before */
    uint64_t pause_min_ns; /* between two operations */
    uint64_t pause_max_ns;
};

/* Operations one after the other until it is told to stop. With a key of its own every answer is
 * compared with what must be there. */
struct loop {
    struct clerk *clerk;
    struct loop_options options;
    bool stopping;
    bool ended;
    bool begun;
    enum skv_op op;    /* under way, or the last */
    uint64_t issued;   /* operations */
    uint32_t appended; /* with success, to its own key */
    uint64_t slowest_ns;
    uint64_t started_ns;
    struct buf last; /* what its own key holds */
    struct buf next; /* what is being written */
    bool has_seen;   /* of `seen_key`, by the get before */
    struct clerk_seen seen;
    char seen_key[SIM_NAME_BYTES_MAX];
};
void loop_start(struct loop *loop, struct clerk *clerk, const struct loop_options *options);
void loop_stop(struct loop *loop); /* after the operation under way */
/* Fails the test when some have not ended in time. */
void loops_wait(struct loop *loops, uint32_t count, uint64_t timeout_ns);
void loop_deinit(struct loop *loop);
/* "x <number> <j> y" for each j below `appended`, each once, in order. */
void check_appends(struct bytes value, uint32_t number, uint32_t appended);

#endif
