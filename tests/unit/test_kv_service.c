/* The service over real calls: one replica that is a group of its own, a client beside it, both
 * over loopback. What a client sends and what it is told: results, refusals with routes, limits,
 * retries, many blocks in flight; and the source's side of moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "proto/command.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "shardkv/kv_command.h"
#include "shardkv/kv_machine.h"
#include "shardkv/move_service.h"
#include "shardkv/service.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SHARDS = 8, GROUP = 1, OTHER = 2, CLUSTER = 99 };
#define LIMIT_NS (20 * NS_PER_S)

/* Answers to things that were started; counted, waited for with a deadline. */
struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t count;
    bool closed; /* the stream it waits for */
    int error;   /* of the last */
    struct buf bytes;
};

struct fixture {
    char dir[96];
    char state_dir[128];
    char node_dir[128];
    struct store store;
    struct kv_machine *machine;
    struct rpc *rpc;
    struct rpc_server *server;
    struct node *node;
    struct worker *worker;
    struct kv_service *service;
    struct move_service *moves;
    struct rpc *client_rpc;
    struct rpc_channel *channel;
    struct waiter waiter;
    struct node_member member;
    char address[64];
};

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

/* ---- waiting ---- */

static void waiter_init(struct waiter *waiter)
{
    *waiter = (struct waiter){0};
    pthread_mutex_init(&waiter->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&waiter->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void waiter_deinit(struct waiter *waiter)
{
    buf_deinit(&waiter->bytes);
    pthread_cond_destroy(&waiter->changed);
    pthread_mutex_destroy(&waiter->mutex);
}

static void waiter_add(struct waiter *waiter, int error, struct bytes bytes)
{
    pthread_mutex_lock(&waiter->mutex);
    waiter->count++;
    waiter->error = error;
    put_sized(&waiter->bytes, bytes);
    pthread_cond_broadcast(&waiter->changed);
    pthread_mutex_unlock(&waiter->mutex);
}

static void waiter_wait(struct waiter *waiter, uint32_t count)
{
    uint64_t end_ns = now_ns() + LIMIT_NS;
    struct timespec until = {(time_t)(end_ns / NS_PER_S), (long)(end_ns % NS_PER_S)};
    pthread_mutex_lock(&waiter->mutex);
    while (waiter->count < count) {
        if (pthread_cond_timedwait(&waiter->changed, &waiter->mutex, &until) != 0) {
            fail_msg("%u of %u answers after the limit", (unsigned)waiter->count, (unsigned)count);
        }
    }
    pthread_mutex_unlock(&waiter->mutex);
}

static void waiter_reset(struct waiter *waiter)
{
    pthread_mutex_lock(&waiter->mutex);
    waiter->count = 0;
    buf_clear(&waiter->bytes);
    pthread_mutex_unlock(&waiter->mutex);
}

/* ---- the replica ---- */

static void propose_done(void *context, int error, struct raft_position position,
                         struct bytes result)
{
    (void)position;
    waiter_add(context, error != 0 ? error : kv_command_result(result), BYTES_EMPTY);
}

/* Puts a command into the log, past the service; its answer. */
static int propose(struct fixture *fixture, const struct kv_command *command)
{
    struct buf payload = {0};
    kv_command_encode(command, &payload);
    struct blob *blob = blob_take_buf(&payload);
    uint64_t end_ns = now_ns() + LIMIT_NS;
    int error = ERR_NOT_LEADER;
    while (error == ERR_NOT_LEADER && now_ns() < end_ns) {
        waiter_reset(&fixture->waiter);
        error = node_propose(fixture->node, blob_view(blob), blob, propose_done, &fixture->waiter);
        if (error == 0) {
            waiter_wait(&fixture->waiter, 1);
            error = fixture->waiter.error;
        }
        if (error == ERR_NOT_LEADER) {
            nanosleep(&(struct timespec){0, 2000000},
                      NULL); /* between looks at a condition with a deadline */
        }
    }
    blob_unref(blob);
    return error;
}

/* Even shards are ours, odd ones the other group's; `number` 2 gives shard 0 away too. */
static int take_config(struct fixture *fixture, uint64_t number)
{
    struct config *config = config_create(number, SHARDS);
    config->groups = mem_calloc(2, sizeof *config->groups);
    config->group_count = 2;
    for (uint32_t g = 0; g < 2; g++) {
        config->groups[g] = (struct config_group){.id = g + 1, .replica_count = 1};
        config->groups[g].replicas[0].id = 1;
        snprintf(config->groups[g].replicas[0].address, ADDRESS_BYTES_MAX, "group%u:1",
                 (unsigned)g + 1);
    }
    for (uint32_t s = 0; s < SHARDS; s++) {
        config->owners[s] = s % 2 == 0 && (number < 2 || s != 0) ? GROUP : OTHER;
        config->sources[s] = number < 2 ? 0 : s % 2 == 0 ? GROUP : OTHER;
    }
    struct buf bytes = {0};
    config_encode(config, &bytes);
    config_free(config);
    int error = propose(
        fixture, &(struct kv_command){.kind = KV_COMMAND_CONFIG, .config = buf_view(&bytes)});
    buf_deinit(&bytes);
    return error;
}

static void role_changed(void *context, enum node_role role, uint64_t term, uint64_t leader_id,
                         const char *leader_address)
{
    (void)context;
    (void)role;
    (void)term;
    (void)leader_id;
    (void)leader_address;
}

static void start_services(struct fixture *fixture)
{
    assert_int_equal(worker_create(&fixture->worker), 0);
    fixture->service = kv_service_create(&(struct kv_service_options){.cluster_id = CLUSTER,
                                                                      .version = "test",
                                                                      .node = fixture->node,
                                                                      .machine = fixture->machine,
                                                                      .worker = fixture->worker});
    fixture->moves = move_service_create(&(struct move_service_options){.cluster_id = CLUSTER,
                                                                        .group_id = GROUP,
                                                                        .node = fixture->node,
                                                                        .machine = fixture->machine,
                                                                        .worker = fixture->worker});
    assert_int_equal(node_add_methods(fixture->node, fixture->server), 0);
    assert_int_equal(kv_service_add_methods(fixture->service, fixture->server), 0);
    assert_int_equal(move_service_add_methods(fixture->moves, fixture->server), 0);
    assert_int_equal(rpc_server_start(fixture->server), 0);
    assert_int_equal(node_start(fixture->node), 0);
}

static int set_up(void **state)
{
    struct fixture *fixture = mem_calloc(1, sizeof *fixture);
    char why[512] = "";
    const char *base = getenv("TMPDIR");
    snprintf(fixture->dir, sizeof fixture->dir, "%s/shardkv-service-XXXXXX",
             base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(fixture->dir));
    snprintf(fixture->state_dir, sizeof fixture->state_dir, "%s/state", fixture->dir);
    snprintf(fixture->node_dir, sizeof fixture->node_dir, "%s/node", fixture->dir);
    waiter_init(&fixture->waiter);
    assert_int_equal(store_rocksdb_open(fixture->state_dir, NULL, &fixture->store, why, sizeof why),
                     0);
    struct kv_machine_options machine = {
        .group_id = GROUP, .store = &fixture->store, .vfs = vfs_system()};
    assert_int_equal(kv_machine_create(&machine, &fixture->machine, why, sizeof why), 0);
    struct rpc_options rpc_options = rpc_options_default();
    assert_int_equal(rpc_create(&rpc_options, &fixture->rpc), 0);
    struct rpc_server_options server_options = rpc_server_options_default("127.0.0.1:0");
    assert_int_equal(rpc_server_create(fixture->rpc, &server_options, &fixture->server), 0);
    fixture->member = (struct node_member){.id = 1, .address = "127.0.0.1:1"}; /* nobody calls it */
    struct node_options node = node_options_default();
    node.cluster_id = CLUSTER;
    node.group_id = GROUP;
    node.replica_id = 1;
    node.dir = fixture->node_dir;
    node.members = &fixture->member;
    node.member_count = 1;
    node.election_ticks = 5;
    node.heartbeat_ticks = 2;
    node.segment_bytes = 1024 * 1024;
    node.clock = clock_system();
    node.vfs = vfs_system();
    node.seed = 1;
    struct state_machine sm = kv_machine_ops(fixture->machine);
    struct node_observer observer = {.role_changed = role_changed};
    int error = node_create(&node, &sm, &observer, fixture->rpc, &fixture->node, why, sizeof why);
    assert_string_equal(why, "");
    assert_int_equal(error, 0);
    start_services(fixture);
    assert_int_equal(rpc_create(&rpc_options, &fixture->client_rpc), 0);
    snprintf(fixture->address, sizeof fixture->address, "127.0.0.1:%u",
             (unsigned)rpc_server_port(fixture->server));
    assert_int_equal(rpc_channel_create(fixture->client_rpc, fixture->address, &fixture->channel),
                     0);
    assert_int_equal(take_config(fixture, 1), 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    rpc_channel_destroy(fixture->channel);
    rpc_destroy(fixture->client_rpc);
    node_stop(fixture->node);
    rpc_server_shutdown(fixture->server, NS_PER_S);
    worker_destroy(fixture->worker);
    kv_service_destroy(fixture->service);
    move_service_destroy(fixture->moves);
    node_destroy(fixture->node);
    rpc_server_destroy(fixture->server);
    rpc_destroy(fixture->rpc);
    kv_machine_destroy(fixture->machine);
    store_rocksdb_close(&fixture->store);
    waiter_deinit(&fixture->waiter);
    assert_int_equal(vfs_system()->remove_tree(vfs_system()->context, fixture->dir), 0);
    free(fixture);
    return 0;
}

/* ---- unary calls ---- */

static void call(struct fixture *fixture, const char *method, struct buf *request,
                 struct buf *reply)
{
    char text[256] = "";
    int error = rpc_call_wait(fixture->channel, method, request, now_ns() + LIMIT_NS, reply, text,
                              sizeof text);
    assert_string_equal(text, "");
    assert_int_equal(error, 0);
}

/* A key of a shard that is ours (`shard` even) or not. */
static const char *key_in(uint32_t shard)
{
    static char key[32];
    uint32_t i = 0;
    do {
        snprintf(key, sizeof key, "key%u", (unsigned)i++);
    } while (shard_of_key(bytes_of_string(key), SHARDS) != shard);
    return key;
}

static struct msg_write_response write_call(struct fixture *fixture, const char *method,
                                            struct buf *request)
{
    struct buf reply = {0};
    struct msg_write_response response;
    call(fixture, method, request, &reply);
    assert_int_equal(msg_write_response_decode(buf_view(&reply), &response), 0);
    buf_deinit(&reply);
    return response;
}

static struct msg_write_response put(struct fixture *fixture,
                                     const struct msg_request_header *header, const char *key,
                                     const char *value)
{
    struct buf request = {0};
    msg_put_request_encode(&(struct msg_put_request){.header = *header,
                                                     .key = bytes_of_string(key),
                                                     .value = bytes_of_string(value)},
                           &request);
    return write_call(fixture, METHOD_KV_PUT, &request);
}

static struct msg_write_response append(struct fixture *fixture,
                                        const struct msg_request_header *header, const char *key,
                                        const char *value)
{
    struct buf request = {0};
    msg_append_request_encode(&(struct msg_append_request){.header = *header,
                                                           .key = bytes_of_string(key),
                                                           .value = bytes_of_string(value)},
                              &request);
    return write_call(fixture, METHOD_KV_APPEND, &request);
}

/* The value as a string in `value`. */
static struct msg_get_response get(struct fixture *fixture, const char *key, char value[64])
{
    struct buf request = {0};
    struct buf reply = {0};
    struct msg_get_response response;
    msg_get_request_encode(&(struct msg_get_request){.key = bytes_of_string(key)}, &request);
    call(fixture, METHOD_KV_GET, &request, &reply);
    assert_int_equal(msg_get_response_decode(buf_view(&reply), &response), 0);
    assert_true(response.value.size < 64);
    snprintf(value, 64, "%.*s", (int)response.value.size,
             response.value.size == 0 ? "" : (const char *)response.value.data);
    response.value = BYTES_EMPTY;
    buf_deinit(&reply);
    return response;
}

static void test_kv_service_unary_methods_do_what_they_say(void **state)
{
    struct fixture *fixture = *state;
    const struct msg_request_header header = {.cluster_id = CLUSTER};
    const char *key = key_in(2);
    char value[64];
    assert_int_equal(get(fixture, key, value).header.error, ERR_NOT_FOUND);
    assert_int_equal(put(fixture, &header, key, "a").header.error, 0);
    uint64_t version = append(fixture, &header, key, "b").version;
    struct msg_get_response got = get(fixture, key, value);
    assert_int_equal(got.header.error, 0);
    assert_string_equal(value, "ab");
    assert_int_equal(got.version, version);
    struct msg_compare_and_set_request cas = {.key = bytes_of_string(key),
                                              .expected_version = version + 1,
                                              .value = bytes_of_string("c")};
    struct buf request = {0};
    msg_compare_and_set_request_encode(&cas, &request);
    struct msg_write_response response = write_call(fixture, METHOD_KV_COMPARE_AND_SET, &request);
    assert_int_equal(response.header.error, ERR_VERSION_MISMATCH);
    assert_int_equal(response.version, version);
    cas.expected_version = version;
    msg_compare_and_set_request_encode(&cas, &request);
    assert_int_equal(write_call(fixture, METHOD_KV_COMPARE_AND_SET, &request).header.error, 0);
    msg_delete_request_encode(&(struct msg_delete_request){.key = bytes_of_string(key)}, &request);
    assert_int_equal(write_call(fixture, METHOD_KV_DELETE, &request).header.error, 0);
    assert_int_equal(get(fixture, key, value).header.error, ERR_NOT_FOUND);
}

static void test_kv_service_repeated_command_is_executed_once(void **state)
{
    struct fixture *fixture = *state;
    struct msg_request_header header = {.client_id = 5, .sequence = 1, .acked_below = 1};
    const char *key = key_in(2);
    char value[64];
    uint64_t version = append(fixture, &header, key, "x").version;
    assert_int_equal(append(fixture, &header, key, "x").version, version);
    assert_int_equal(append(fixture, &header, key, "y").header.error, ERR_SEQUENCE_REUSED);
    get(fixture, key, value);
    assert_string_equal(value, "x");
    header.age_ms = COMMAND_AGE_MS_MAX + 1;
    assert_int_equal(append(fixture, &header, key, "x").header.error, ERR_SESSION_EXPIRED);
    header = (struct msg_request_header){.client_id = 5};
    assert_int_equal(append(fixture, &header, key, "x").header.error,
                     ERR_INVALID); /* no sequence */
    header = (struct msg_request_header){.client_id = 5, .sequence = 2, .acked_below = 3};
    assert_int_equal(append(fixture, &header, key, "x").header.error, ERR_INVALID);
}

static void test_kv_service_wrong_group_is_answered_with_the_route(void **state)
{
    struct fixture *fixture = *state;
    struct msg_request_header header = {.cluster_id = CLUSTER + 1};
    const char *key = key_in(3);
    assert_int_equal(put(fixture, &header, key, "a").header.error, ERR_WRONG_CLUSTER);
    header.cluster_id = 0;
    struct msg_write_response response = put(fixture, &header, key, "a");
    assert_int_equal(response.header.error, ERR_WRONG_GROUP);
    assert_true(response.header.has_route);
    assert_int_equal(response.header.route.config_number, 1);
    assert_int_equal(response.header.route.shard, 3);
    assert_int_equal(response.header.route.group_id, OTHER);
    assert_int_equal(response.header.route.address_count, 1);
    assert_string_equal(response.header.route.addresses[0], "group2:1");
    char value[64];
    assert_int_equal(get(fixture, key, value).header.error, ERR_WRONG_GROUP);
    /* A newer config that the group itself has not taken: the route is the newest known. */
    struct config *config = config_create(7, SHARDS);
    config->groups = mem_calloc(1, sizeof *config->groups);
    config->group_count = 1;
    config->groups[0] = (struct config_group){.id = 9, .replica_count = 1};
    config->groups[0].replicas[0].id = 1;
    snprintf(config->groups[0].replicas[0].address, ADDRESS_BYTES_MAX, "nine:9");
    config->owners[3] = 9;
    kv_service_learn_config(fixture->service, config);
    config_free(config);
    response = put(fixture, &header, key, "a");
    assert_int_equal(response.header.route.config_number, 7);
    assert_int_equal(response.header.route.group_id, 9);
    assert_string_equal(response.header.route.addresses[0], "nine:9");
}

static void test_kv_service_limits_and_garbage_are_answered(void **state)
{
    struct fixture *fixture = *state;
    char *large = mem_calloc(1, KEY_BYTES_MAX + 2);
    memset(large, 'k', KEY_BYTES_MAX + 1);
    struct buf request = {0};
    struct buf reply = {0};
    /* The encoder would refuse such a key, so the bytes are made by hand: field 2, that many bytes.
     */
    put_u8(&request, 0x12);
    put_sized(&request, bytes_of(large, KEY_BYTES_MAX + 1));
    struct msg_write_response response = write_call(fixture, METHOD_KV_PUT, &request);
    assert_int_equal(response.header.error, ERR_TOO_LARGE);
    const char *methods[] = {METHOD_KV_GET,
                             METHOD_KV_PUT,
                             METHOD_KV_APPEND,
                             METHOD_KV_DELETE,
                             METHOD_KV_COMPARE_AND_SET,
                             METHOD_ADMIN_STATUS,
                             METHOD_SHARD_MOVE_OPEN,
                             METHOD_SHARD_MOVE_READ,
                             METHOD_SHARD_MOVE_FREEZE,
                             METHOD_SHARD_MOVE_DROP};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        buf_append(&request, "\xff\xff\xff", 3);
        buf_clear(&reply);
        call(fixture, methods[i], &request, &reply);
        assert_true(reply.size > 0);
    }
    free(large);
    buf_deinit(&request);
    buf_deinit(&reply);
}

static void test_kv_service_status_shows_shards_and_hash(void **state)
{
    struct fixture *fixture = *state;
    const struct msg_request_header header = {0};
    assert_int_equal(put(fixture, &header, key_in(2), "a").header.error, 0);
    struct buf request = {0};
    struct buf reply = {0};
    struct msg_status_response response;
    msg_status_request_encode(&(struct msg_status_request){.with_hash = true}, &request);
    call(fixture, METHOD_ADMIN_STATUS, &request, &reply);
    assert_int_equal(msg_status_response_decode(buf_view(&reply), &response), 0);
    assert_int_equal(response.header.error, 0);
    assert_string_equal(response.version, "test");
    assert_string_equal(response.role, "leader");
    assert_int_equal(response.config_number, 1);
    assert_int_equal(response.shard_count, SHARDS / 2);
    assert_int_equal(response.shards[1].shard, 2);
    assert_int_equal(response.shards[1].state, SHARD_SERVING);
    assert_int_equal(response.shards[1].keys, 1);
    assert_true(response.state_hash != 0);
    assert_true(response.state_hash_applied >= 3);
    msg_status_response_deinit(&response);
    msg_status_request_encode(&(struct msg_status_request){.cluster_id = CLUSTER + 1}, &request);
    buf_clear(&reply);
    call(fixture, METHOD_ADMIN_STATUS, &request, &reply);
    assert_int_equal(msg_status_response_decode(buf_view(&reply), &response), 0);
    assert_int_equal(response.header.error, ERR_WRONG_CLUSTER);
    msg_status_response_deinit(&response);
    buf_deinit(&reply);
}

/* ---- Batch ---- */

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

static struct rpc_stream *open_batch(struct fixture *fixture, struct waiter *waiter)
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
    struct fixture *fixture = *state;
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

static int answer_to(struct fixture *fixture, struct rpc_stream *stream, struct waiter *waiter,
                     bool reads, const struct buf *block)
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
    struct fixture *fixture = *state;
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
    struct fixture *fixture = *state;
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
    struct buf request = {0};
    struct buf reply = {0};
    struct msg_get_response got;
    msg_get_request_encode(&(struct msg_get_request){.key = bytes_of_string(key)}, &request);
    call(fixture, METHOD_KV_GET, &request, &reply);
    assert_int_equal(msg_get_response_decode(buf_view(&reply), &got), 0);
    assert_int_equal(got.value.size, BLOCKS / 4 * 3);
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
    struct fixture *fixture = *state;
    enum { BLOCKS = STREAM_BLOCKS_MAX - 1, VALUE_SIZE = 1024 * 1024 };
    const char *key = key_in(2);
    char *value = mem_alloc(VALUE_SIZE + 1);
    memset(value, 'v', VALUE_SIZE);
    value[VALUE_SIZE] = '\0';
    const struct msg_request_header header = {.cluster_id = CLUSTER};
    assert_int_equal(put(fixture, &header, key, value).header.error, 0);
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
        struct buf request = {0};
        struct buf reply = {0};
        struct msg_get_response got;
        msg_get_request_encode(&(struct msg_get_request){.key = bytes_of_string(key)}, &request);
        call(fixture, METHOD_KV_GET, &request, &reply);
        assert_int_equal(msg_get_response_decode(buf_view(&reply), &got), 0);
        gone = got.header.error == ERR_NOT_FOUND;
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
    struct fixture *fixture = *state;
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

/* ---- the source's side of moves ---- */

static struct msg_peer_move_response move_call(struct fixture *fixture, const char *method,
                                               const struct msg_peer_move_request *request)
{
    struct buf bytes = {0};
    struct buf reply = {0};
    struct msg_peer_move_response response;
    msg_peer_move_request_encode(request, &bytes);
    call(fixture, method, &bytes, &reply);
    assert_int_equal(msg_peer_move_response_decode(buf_view(&reply), &response), 0);
    buf_deinit(&reply);
    return response;
}

static void test_kv_service_move_verbs_are_fenced_and_answered(void **state)
{
    struct fixture *fixture = *state;
    const struct msg_request_header header = {.client_id = 6, .sequence = 1, .acked_below = 1};
    assert_int_equal(put(fixture, &header, key_in(0), "moving").header.error, 0);
    struct msg_peer_move_request move = {.cluster_id = CLUSTER,
                                         .shard = 0,
                                         .config_number = 2,
                                         .from_group = GROUP,
                                         .to_group = OTHER};
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_OPEN, &move).error, ERR_CONFIG_BEHIND);
    assert_int_equal(take_config(fixture, 2), 0);
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_OPEN, &move).error, 0);
    move.cluster_id++;
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_OPEN, &move).error, ERR_WRONG_CLUSTER);
    move.cluster_id--;
    move.from_group = 5;
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_DROP, &move).error, ERR_WRONG_GROUP);
    move.from_group = GROUP;
    move.to_group = 5;
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_DROP, &move).error, ERR_INVALID);
    move.to_group = OTHER;
    char value[64];
    assert_int_equal(get(fixture, key_in(0), value).header.error, ERR_WRONG_GROUP);
    /* Read: the row, its client's session, the counter. */
    struct buf bytes = {0};
    struct buf reply = {0};
    struct msg_peer_read_response read;
    msg_peer_read_request_encode(
        &(struct msg_peer_read_request){.move = move, .bytes_max = 1 << 20}, &bytes);
    call(fixture, METHOD_SHARD_MOVE_READ, &bytes, &reply);
    assert_int_equal(msg_peer_read_response_decode(buf_view(&reply), &read), 0);
    assert_int_equal(read.error, 0);
    assert_true(read.end);
    assert_true(bytes_equal(read.last_row, bytes_of_string("v")));
    assert_int_equal(read.rows_crc32c, crc32c_extend(0, read.rows.data, read.rows.size));
    buf_deinit(&reply);
    struct msg_peer_move_response totals = move_call(fixture, METHOD_SHARD_MOVE_FREEZE, &move);
    assert_int_equal(totals.error, 0);
    assert_int_equal(totals.rows, 3);
    struct msg_peer_move_response again = move_call(fixture, METHOD_SHARD_MOVE_FREEZE, &move);
    assert_int_equal(again.rows, 3);
    assert_int_equal(again.checksum, totals.checksum);
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_DROP, &move).error, 0);
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_DROP, &move).error, 0);
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_OPEN, &move).error, ERR_NOT_FOUND);
    buf_deinit(&bytes);
}

int main(void)
{
#define SERVICE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(test_kv_service_unary_methods_do_what_they_say),
        SERVICE_TEST(test_kv_service_repeated_command_is_executed_once),
        SERVICE_TEST(test_kv_service_wrong_group_is_answered_with_the_route),
        SERVICE_TEST(test_kv_service_limits_and_garbage_are_answered),
        SERVICE_TEST(test_kv_service_status_shows_shards_and_hash),
        SERVICE_TEST(test_kv_service_batch_answers_each_operation_and_routes_the_refused),
        SERVICE_TEST(test_kv_service_batch_bad_blocks_are_refused_whole),
        SERVICE_TEST(test_kv_service_batch_many_in_flight_are_all_answered_once),
        SERVICE_TEST(test_kv_service_batch_answers_nobody_reads_are_bounded),
        SERVICE_TEST(test_kv_service_batch_closed_with_blocks_under_way_leaves_nothing),
        SERVICE_TEST(test_kv_service_move_verbs_are_fenced_and_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
