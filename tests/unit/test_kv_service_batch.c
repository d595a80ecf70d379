/* The service's Batch streams over real calls: blocks of operations, many in flight, bad ones, and
 * readers that do not read. */
#include "unit/kv_service_fixture.h"

#include "proto/command.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool on_message(void *context, struct rpc_stream *stream, struct bytes message,
                       struct blob *owner)
{
    (void)stream;
    (void)owner;
    waiter_add(context, 0, message);
    return true;
}

static void on_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)stream;
    (void)error;
    (void)text;
    struct waiter *waiter = context;
    pthread_mutex_lock(&waiter->mutex);
    waiter->closed = true;
    pthread_cond_broadcast(&waiter->changed);
    pthread_mutex_unlock(&waiter->mutex);
}

static struct rpc_stream *open_batch(struct service_fixture *fixture, struct waiter *waiter)
{
    const struct rpc_stream_events events = {.message = on_message, .closed = on_closed};
    struct rpc_stream *stream = NULL;
    waiter_init(waiter);
    assert_int_equal(rpc_stream_open(fixture->channel, METHOD_KV_BATCH, &events, waiter,
                                     64 * 1024 * 1024, &stream),
                     0);
    return stream;
}

static void close_batch(struct rpc_stream *stream, struct waiter *waiter)
{
    rpc_stream_cancel(stream);
    pthread_mutex_lock(&waiter->mutex);
    while (
        !waiter
             ->closed) { /* promised by the stream; the test's own limit catches a broken promise */
        pthread_cond_wait(&waiter->changed, &waiter->mutex);
    }
    pthread_mutex_unlock(&waiter->mutex);
    rpc_stream_unref(stream);
    waiter_deinit(waiter);
}

static void send_block(struct rpc_stream *stream, uint64_t batch_id, bool reads,
                       const struct buf *block)
{
    struct buf bytes = {0};
    msg_batch_request_encode(&(struct msg_batch_request){.batch_id = batch_id,
                                                         .cluster_id = CLUSTER,
                                                         .reads = reads,
                                                         .operations = buf_view(block)},
                             &bytes);
    assert_int_equal(rpc_stream_send(stream, &bytes), 0);
    buf_deinit(&bytes);
}

/* The first answer kept by the waiter. */
static void first_answer(struct waiter *waiter, struct msg_batch_response *out)
{
    pthread_mutex_lock(&waiter->mutex);
    struct reader reader = reader_of(buf_view(&waiter->bytes));
    struct bytes bytes = get_sized(&reader, SIZE_MAX);
    pthread_mutex_unlock(&waiter->mutex);
    assert_int_equal(msg_batch_response_decode(bytes, out), 0);
}

static void put_op(struct buf *block, enum op_kind kind, uint64_t sequence, const char *key,
                   const char *value)
{
    struct op op = {.kind = kind,
                    .sequence = sequence,
                    .shard = shard_of_key(bytes_of_string(key), SHARDS),
                    .key = bytes_of_string(key),
                    .value = bytes_of_string(value)};
    block_put_op(block, &op);
}

static void test_kv_service_batch_answers_each_operation_and_routes_the_refused(void **state)
{
    struct service_fixture *fixture = *state;
    struct waiter waiter;
    struct rpc_stream *stream = open_batch(fixture, &waiter);
    struct buf block = {0};
    block_put_header(&block, &(struct block_header){.client_id = 4, .acked_below = 1, .count = 4});
    put_op(&block, OP_PUT, 1, key_in(2), "ours");
    put_op(&block, OP_PUT, 2, key_in(3), "not ours");
    put_op(&block, OP_PUT, 3, key_in(5), "not ours");
    put_op(&block, OP_PUT, 4, key_in(3), "not ours"); /* one route is enough */
    send_block(stream, 17, false, &block);
    waiter_wait(&waiter, 1);
    struct msg_batch_response response;
    first_answer(&waiter, &response);
    assert_int_equal(response.batch_id, 17);
    assert_int_equal(response.header.error, 0);
    struct reader reader;
    uint32_t count = 0;
    const int wanted[] = {0, ERR_WRONG_GROUP, ERR_WRONG_GROUP, ERR_WRONG_GROUP};
    assert_int_equal(results_open(response.results, &reader, &count), 0);
    assert_int_equal(count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        struct op_result result;
        assert_int_equal(results_next(&reader, OP_PUT, &result), 0);
        assert_int_equal(result.error, wanted[i]);
    }
    assert_int_equal(response.route_count, 2);
    assert_int_equal(response.routes[0].shard, 3);
    assert_int_equal(response.routes[0].group_id, OTHER);
    assert_int_equal(response.routes[1].shard, 5);
    msg_batch_response_deinit(&response);
    /* Reads: found, absent, not ours. */
    waiter_reset(&waiter);
    buf_clear(&block);
    block_put_header(&block, &(struct block_header){.count = 3});
    put_op(&block, OP_GET, 0, key_in(2), "");
    put_op(&block, OP_GET, 0, key_in(4), "");
    put_op(&block, OP_GET, 0, key_in(5), "");
    send_block(stream, 18, true, &block);
    waiter_wait(&waiter, 1);
    first_answer(&waiter, &response);
    struct op_result result;
    assert_int_equal(results_open(response.results, &reader, &count), 0);
    assert_int_equal(results_next(&reader, OP_GET, &result), 0);
    assert_int_equal(result.error, 0);
    assert_true(bytes_equal(result.value, bytes_of_string("ours")));
    assert_int_equal(results_next(&reader, OP_GET, &result), 0);
    assert_int_equal(result.error, ERR_NOT_FOUND);
    assert_int_equal(results_next(&reader, OP_GET, &result), 0);
    assert_int_equal(result.error, ERR_WRONG_GROUP);
    assert_int_equal(response.route_count, 1);
    msg_batch_response_deinit(&response);
    close_batch(stream, &waiter);
    buf_deinit(&block);
}

static int answer_to(struct service_fixture *fixture, struct rpc_stream *stream,
                     struct waiter *waiter, bool reads, const struct buf *block)
{
    (void)fixture;
    struct msg_batch_response response;
    waiter_reset(waiter);
    send_block(stream, 1, reads, block);
    waiter_wait(waiter, 1);
    first_answer(waiter, &response);
    int error = response.header.error;
    assert_true(error == 0 || response.results.size == 0);
    msg_batch_response_deinit(&response);
    return error;
}

static void test_kv_service_batch_bad_blocks_are_refused_whole(void **state)
{
    struct service_fixture *fixture = *state;
    struct waiter waiter;
    struct rpc_stream *stream = open_batch(fixture, &waiter);
    struct buf block = {0};
    buf_append(&block, "nonsense", 8);
    assert_int_equal(answer_to(fixture, stream, &waiter, false, &block), ERR_UNSUPPORTED);
    buf_clear(&block);
    block_put_header(&block, &(struct block_header){.count = 1});
    put_op(&block, OP_PUT, 0, key_in(2), "v");
    assert_int_equal(answer_to(fixture, stream, &waiter, true, &block),
                     ERR_PROTOCOL); /* not a read */
    block.size--;
    assert_int_equal(answer_to(fixture, stream, &waiter, false, &block), ERR_PROTOCOL);
    buf_clear(&block);
    block_put_header(&block, &(struct block_header){.count = 1});
    struct op op = {
        .kind = OP_PUT, .shard = 4, .key = bytes_of_string(key_in(2))}; /* not the key's shard */
    block_put_op(&block, &op);
    assert_int_equal(answer_to(fixture, stream, &waiter, false, &block), ERR_PROTOCOL);
    buf_clear(&block);
    block_put_header(&block, &(struct block_header){.client_id = 3,
                                                    .age_ms = COMMAND_AGE_MS_MAX + 1,
                                                    .acked_below = 1,
                                                    .count = 1});
    put_op(&block, OP_PUT, 1, key_in(2), "v");
    assert_int_equal(answer_to(fixture, stream, &waiter, false, &block), ERR_SESSION_EXPIRED);
    buf_clear(&block);
    block_put_header(&block, &(struct block_header){.count = 1});
    put_op(&block, OP_PUT, 0, key_in(2), "v");
    assert_int_equal(answer_to(fixture, stream, &waiter, false, &block),
                     0); /* the stream still works */
    close_batch(stream, &waiter);
    buf_deinit(&block);
}

static void test_kv_service_batch_many_in_flight_are_all_answered_once(void **state)
{
    struct service_fixture *fixture = *state;
    enum { BLOCKS = STREAM_BLOCKS_MAX * 4 }; /* far more than are taken at once */
    struct waiter waiter;
    struct rpc_stream *stream = open_batch(fixture, &waiter);
    struct buf block = {0};
    const char *key = key_in(2);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        buf_clear(&block);
        bool reads = i % 4 == 3;
        block_put_header(&block, &(struct block_header){
                                     .client_id = reads ? 0 : 8, .acked_below = 1, .count = 1});
        put_op(&block, reads ? OP_GET : OP_APPEND, reads ? 0 : i + 1, key, "x");
        send_block(stream, i, reads, &block);
    }
    waiter_wait(&waiter, BLOCKS);
    uint8_t *seen = mem_calloc(BLOCKS, 1);
    struct reader reader = reader_of(buf_view(&waiter.bytes));
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct msg_batch_response response;
        assert_int_equal(msg_batch_response_decode(get_sized(&reader, SIZE_MAX), &response), 0);
        assert_int_equal(response.header.error, 0);
        assert_true(response.batch_id < BLOCKS);
        assert_int_equal(seen[response.batch_id], 0);
        seen[response.batch_id] = 1;
        msg_batch_response_deinit(&response);
    }
    free(seen);
    close_batch(stream, &waiter);
    /* Every append ran once. */
    struct buf reply = {0};
    assert_int_equal(service_get_view(fixture, key, &reply).value.size, BLOCKS / 4 * 3);
    buf_deinit(&reply);
    buf_deinit(&block);
}

/* A client that asks and does not read. */
struct slow_reader {
    struct waiter waiter; /* first: on_closed takes it */
    atomic_bool reading;
    uint32_t ok;
    uint32_t busy;
};

static bool slow_message(void *context, struct rpc_stream *stream, struct bytes message,
                         struct blob *owner)
{
    (void)stream;
    (void)owner;
    struct slow_reader *reader = context;
    struct msg_batch_response response;
    assert_int_equal(msg_batch_response_decode(message, &response), 0);
    reader->ok += response.header.error == 0;
    reader->busy += response.header.error == ERR_BUSY;
    msg_batch_response_deinit(&response);
    waiter_add(&reader->waiter, 0, BYTES_EMPTY);
    return atomic_load(&reader->reading);
}

static void test_kv_service_batch_answers_nobody_reads_are_bounded(void **state)
{
    struct service_fixture *fixture = *state;
    enum { BLOCKS = STREAM_BLOCKS_MAX - 1, VALUE_SIZE = 1024 * 1024 };
    const char *key = key_in(2);
    char *value = mem_alloc(VALUE_SIZE + 1);
    memset(value, 'v', VALUE_SIZE);
    value[VALUE_SIZE] = '\0';
    const struct msg_request_header header = {.cluster_id = CLUSTER};
    assert_int_equal(service_put(fixture, &header, key, value).header.error, 0);
    free(value);
    struct slow_reader reader = {0};
    const struct rpc_stream_events events = {.message = slow_message, .closed = on_closed};
    struct rpc_stream *stream = NULL;
    waiter_init(&reader.waiter);
    atomic_init(&reader.reading, false);
    assert_int_equal(rpc_stream_open(fixture->channel, METHOD_KV_BATCH, &events, &reader,
                                     64 * 1024 * 1024, &stream),
                     0);
    struct buf block = {0};
    for (uint32_t i = 0; i < BLOCKS; i++) {
        buf_clear(&block);
        block_put_header(&block, &(struct block_header){.count = 1});
        put_op(&block, OP_GET, 0, key, "");
        send_block(stream, i, true, &block);
    }
    /* The last block is a delete, which is applied after all the reads were served. */
    buf_clear(&block);
    block_put_header(&block, &(struct block_header){.count = 1});
    put_op(&block, OP_DELETE, 0, key, "");
    send_block(stream, BLOCKS, false, &block);
    buf_deinit(&block);
    uint64_t end_ns = now_ns() + LIMIT_NS;
    bool gone = false;
    while (!gone) {
        struct buf reply = {0};
        gone = service_get_view(fixture, key, &reply).header.error == ERR_NOT_FOUND;
        buf_deinit(&reply);
        assert_true(now_ns() < end_ns);
    }
    atomic_store(&reader.reading, true);
    rpc_stream_resume(stream);
    waiter_wait(&reader.waiter, BLOCKS + 1);
    assert_int_equal(reader.ok + reader.busy, BLOCKS + 1);
    /* What the stream queues, what waits behind it, and what gRPC took. */
    assert_in_range(reader.ok, 2, (32 + 32 + 16) * 1024 * 1024 / VALUE_SIZE);
    close_batch(stream, &reader.waiter);
}

static void test_kv_service_batch_closed_with_blocks_under_way_leaves_nothing(void **state)
{
    struct service_fixture *fixture = *state;
    for (uint32_t round = 0; round < 20; round++) {
        struct waiter waiter;
        struct rpc_stream *stream = open_batch(fixture, &waiter);
        struct buf block = {0};
        for (uint32_t i = 0; i < 20; i++) {
            buf_clear(&block);
            block_put_header(&block, &(struct block_header){.count = 1});
            put_op(&block, i % 2 == 0 ? OP_PUT : OP_GET, 0, key_in(2), "x");
            send_block(stream, i, i % 2 == 1, &block);
        }
        if (round % 2 == 0) {
            waiter_wait(&waiter, 1);
        }
        close_batch(stream, &waiter); /* the sanitizers see what is left */
        buf_deinit(&block);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(test_kv_service_batch_answers_each_operation_and_routes_the_refused),
        SERVICE_TEST(test_kv_service_batch_bad_blocks_are_refused_whole),
        SERVICE_TEST(test_kv_service_batch_many_in_flight_are_all_answered_once),
        SERVICE_TEST(test_kv_service_batch_answers_nobody_reads_are_bounded),
        SERVICE_TEST(test_kv_service_batch_closed_with_blocks_under_way_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
