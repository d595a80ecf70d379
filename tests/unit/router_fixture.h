/* A router with a clock of the test's own, and the servers' side of the conversation: what was
 * sent, taken apart, and answers to it. Two groups of three replicas over eight shards unless the
 * test says otherwise. */
#ifndef TESTS_ROUTER_FIXTURE_H
#define TESTS_ROUTER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/router.h"
#include "proto/messages.h"
#include "proto/shard_hash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIXTURE_SHARDS = 8, FLIGHT_OPS_MAX = 256 };

#define MS NS_PER_MS

struct fixture {
    struct router *router;
    uint64_t now_ns;
    uint64_t tag; /* contexts count up from 1 */
};

/* A batch that left, taken apart. */
struct flight {
    struct router_batch batch;
    struct msg_batch_request request;
    struct block_header header;
    uint32_t count;
    struct op ops[FLIGHT_OPS_MAX]; /* views into batch.message */
};

static inline struct config *fixture_config(uint64_t number, const uint64_t owners[FIXTURE_SHARDS])
{
    struct config *config = config_create(number, FIXTURE_SHARDS);
    config->group_count = 2;
    config->groups = mem_calloc(2, sizeof(struct config_group));
    for (uint32_t g = 0; g < 2; g++) {
        config->groups[g].id = g + 1;
        config->groups[g].replica_count = 3;
        for (uint32_t r = 0; r < 3; r++) {
            config->groups[g].replicas[r].id = r + 1;
            (void)snprintf(config->groups[g].replicas[r].address, ADDRESS_BYTES_MAX, "127.0.0.1:%u",
                           1000 * (g + 1) + r + 1);
        }
    }
    for (uint32_t i = 0; i < FIXTURE_SHARDS; i++) {
        config->owners[i] = owners[i];
    }
    return config;
}

static inline void fixture_give_config(struct fixture *fixture, uint64_t number,
                                       const uint64_t owners[FIXTURE_SHARDS])
{
    struct config *config = fixture_config(number, owners);
    assert_int_equal(router_config(fixture->router, config, fixture->now_ns), 0);
    config_free(config);
    router_check(fixture->router);
}

/* Shards 0..3 are group 1's, 4..7 group 2's. */
static const uint64_t fixture_owners[FIXTURE_SHARDS] = {1, 1, 1, 1, 2, 2, 2, 2};

static inline struct fixture fixture_make_with(struct router_options options)
{
    struct fixture fixture = {.now_ns = 1000 * NS_PER_S};
    options.client_id = 77;
    options.cluster_id = 5;
    options.seed = 42;
    fixture.router = router_create(&options);
    fixture_give_config(&fixture, 1, fixture_owners);
    return fixture;
}

static inline struct fixture fixture_make(void)
{
    struct router_options options = router_options_default();
    options.batches_eager = 1; /* what waits while one is flying is easier to see */
    return fixture_make_with(options);
}

/* Ends the test's machine; nothing may be left that the test did not look at. */
static inline void fixture_end(struct fixture *fixture)
{
    struct router_completion completion;
    struct router_batch batch;
    router_check(fixture->router);
    assert_false(router_next_completion(fixture->router, &completion));
    assert_false(router_next_batch(fixture->router, fixture->now_ns, &batch));
    router_destroy(fixture->router);
}

/* The n-th key of a shard. */
static inline const char *key_of(uint32_t shard, uint32_t n)
{
    static char keys[8][32];
    static uint32_t turn;
    char *key = keys[turn++ % 8];
    for (uint32_t i = 0;; i++) {
        (void)snprintf(key, sizeof keys[0], "k%u", i);
        if (shard_of_key(bytes_of_string(key), FIXTURE_SHARDS) == shard && n-- == 0) {
            return key;
        }
    }
}

static inline int submit_for(struct fixture *fixture, enum op_kind kind, uint32_t shard,
                             const char *value, uint64_t timeout_ns)
{
    struct router_command command = {
        .kind = kind,
        .key = bytes_of_string(key_of(shard, 0)),
        .value = bytes_of_string(value),
        .deadline_ns = fixture->now_ns + timeout_ns,
        .context = (void *)(uintptr_t)++fixture->tag,
    };
    int error = router_submit(fixture->router, &command, fixture->now_ns);
    router_check(fixture->router);
    return error;
}

static inline void submit(struct fixture *fixture, enum op_kind kind, uint32_t shard)
{
    assert_int_equal(submit_for(fixture, kind, shard, "v", 5 * NS_PER_S), 0);
}

static inline void take_apart(struct flight *flight)
{
    struct block_reader block;
    assert_int_equal(msg_batch_request_decode(buf_view(&flight->batch.message), &flight->request),
                     0);
    assert_int_equal(block_check(flight->request.operations, flight->request.reads, FIXTURE_SHARDS,
                                 &flight->header),
                     0);
    assert_int_equal(block_open(flight->request.operations, &block), 0);
    flight->count = 0;
    struct op op;
    while (block_next(&block, &op) == 0) {
        assert_true(flight->count < FLIGHT_OPS_MAX);
        flight->ops[flight->count++] = op;
    }
    assert_int_equal(flight->count, flight->batch.count);
    assert_int_equal(flight->request.batch_id, flight->batch.id);
}

static inline void take(struct fixture *fixture, struct flight *flight)
{
    assert_true(router_next_batch(fixture->router, fixture->now_ns, &flight->batch));
    router_check(fixture->router);
    take_apart(flight);
}

static inline void take_none(struct fixture *fixture)
{
    struct router_batch batch;
    assert_false(router_next_batch(fixture->router, fixture->now_ns, &batch));
}

static inline void flight_end(struct flight *flight)
{
    buf_deinit(&flight->batch.message);
}

static inline void send_response(struct fixture *fixture, struct flight *flight,
                                 struct msg_batch_response *response)
{
    struct buf message;
    buf_init(&message);
    response->batch_id = flight->batch.id;
    msg_batch_response_encode(response, &message);
    struct blob *blob = blob_take_buf(&message);
    router_reply(fixture->router, flight->batch.connection, blob_view(blob), blob, fixture->now_ns);
    blob_unref(blob);
    router_check(fixture->router);
}

/* One result a command, all alike but for the code. */
static inline void answer_each(struct fixture *fixture, struct flight *flight, const int *errors,
                               struct msg_route *routes, uint32_t route_count)
{
    struct buf results;
    buf_init(&results);
    results_put_count(&results, flight->count);
    for (uint32_t i = 0; i < flight->count; i++) {
        struct op_result result = {.error = errors[i], .version = 10 + i};
        if (flight->ops[i].kind == OP_GET && errors[i] == 0) {
            result.value = flight->ops[i].key;
        }
        results_put(&results, flight->ops[i].kind, &result);
    }
    struct msg_batch_response response = {
        .results = buf_view(&results), .routes = routes, .route_count = route_count};
    send_response(fixture, flight, &response);
    buf_deinit(&results);
    flight_end(flight);
}

static inline void answer_all(struct fixture *fixture, struct flight *flight, int error)
{
    int errors[FLIGHT_OPS_MAX];
    for (uint32_t i = 0; i < flight->count; i++) {
        errors[i] = error;
    }
    answer_each(fixture, flight, errors, NULL, 0);
}

/* The whole batch refused; `leader` "" if unknown. */
static inline void refuse(struct fixture *fixture, struct flight *flight, int error,
                          const char *leader)
{
    struct msg_batch_response response = {0};
    msg_response_header_set(&response.header, error, NULL);
    response.header.has_route = true;
    (void)snprintf(response.header.route.leader_address, ADDRESS_BYTES_MAX, "%s", leader);
    send_response(fixture, flight, &response);
    flight_end(flight);
}

static inline struct msg_route route_to(uint64_t number, uint32_t shard, uint64_t group)
{
    struct msg_route route = {.config_number = number, .shard = shard, .group_id = group};
    if (group != 0) {
        route.address_count = 3;
        for (uint32_t r = 0; r < 3; r++) {
            (void)snprintf(route.addresses[r], ADDRESS_BYTES_MAX, "127.0.0.1:%u",
                           1000 * (uint32_t)group + r + 1);
        }
    }
    return route;
}

static inline void advance(struct fixture *fixture, uint64_t ns)
{
    fixture->now_ns += ns;
    router_tick(fixture->router, fixture->now_ns);
    router_check(fixture->router);
}

/* To the next wake-up, but no further than `limit_ns` from now; false when there is none before. */
static inline bool advance_to_wake(struct fixture *fixture, uint64_t limit_ns)
{
    (void)router_wants_config(fixture->router, fixture->now_ns); /* every output is taken */
    uint64_t wake_ns = router_wake_ns(fixture->router);
    if (wake_ns > fixture->now_ns + limit_ns) {
        return false;
    }
    advance(fixture, wake_ns > fixture->now_ns ? wake_ns - fixture->now_ns : 0);
    return true;
}

static inline void expect_completion(struct fixture *fixture, uint64_t tag,
                                     enum err_outcome outcome, int error)
{
    struct router_completion completion;
    assert_true(router_next_completion(fixture->router, &completion));
    assert_int_equal((uintptr_t)completion.context, tag);
    assert_int_equal(completion.outcome, outcome);
    assert_int_equal(completion.error, error);
    blob_unref(completion.owner);
}

static inline void expect_no_completion(struct fixture *fixture)
{
    struct router_completion completion;
    assert_false(router_next_completion(fixture->router, &completion));
}

#endif
