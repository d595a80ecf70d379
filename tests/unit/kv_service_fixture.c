/* See kv_service_fixture.h. */
#include "unit/kv_service_fixture.h"

#include "proto/command.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "shardkv/kv_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

/* ---- waiting ---- */

void waiter_init(struct waiter *waiter)
{
    *waiter = (struct waiter){0};
    pthread_mutex_init(&waiter->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&waiter->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

void waiter_deinit(struct waiter *waiter)
{
    buf_deinit(&waiter->bytes);
    pthread_cond_destroy(&waiter->changed);
    pthread_mutex_destroy(&waiter->mutex);
}

void waiter_add(struct waiter *waiter, int error, struct bytes bytes)
{
    pthread_mutex_lock(&waiter->mutex);
    waiter->count++;
    waiter->error = error;
    put_sized(&waiter->bytes, bytes);
    pthread_cond_broadcast(&waiter->changed);
    pthread_mutex_unlock(&waiter->mutex);
}

void waiter_wait(struct waiter *waiter, uint32_t count)
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

void waiter_reset(struct waiter *waiter)
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
static int propose(struct service_fixture *fixture, const struct kv_command *command)
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

int service_take_config(struct service_fixture *fixture, uint64_t number)
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

static void start_services(struct service_fixture *fixture)
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

int service_set_up(void **state)
{
    struct service_fixture *fixture = mem_calloc(1, sizeof *fixture);
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
    assert_int_equal(service_take_config(fixture, 1), 0);
    *state = fixture;
    return 0;
}

int service_tear_down(void **state)
{
    struct service_fixture *fixture = *state;
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

void service_call(struct service_fixture *fixture, const char *method, struct buf *request,
                  struct buf *reply)
{
    char text[256] = "";
    int error = rpc_call_wait(fixture->channel, method, request, now_ns() + LIMIT_NS, reply, text,
                              sizeof text);
    assert_string_equal(text, "");
    assert_int_equal(error, 0);
}

const char *key_in(uint32_t shard)
{
    static char key[32];
    uint32_t i = 0;
    do {
        snprintf(key, sizeof key, "key%u", (unsigned)i++);
    } while (shard_of_key(bytes_of_string(key), SHARDS) != shard);
    return key;
}

struct msg_write_response service_write(struct service_fixture *fixture, const char *method,
                                        struct buf *request)
{
    struct buf reply = {0};
    struct msg_write_response response;
    service_call(fixture, method, request, &reply);
    assert_int_equal(msg_write_response_decode(buf_view(&reply), &response), 0);
    buf_deinit(&reply);
    return response;
}

struct msg_write_response service_put(struct service_fixture *fixture,
                                      const struct msg_request_header *header, const char *key,
                                      const char *value)
{
    struct buf request = {0};
    msg_put_request_encode(&(struct msg_put_request){.header = *header,
                                                     .key = bytes_of_string(key),
                                                     .value = bytes_of_string(value)},
                           &request);
    return service_write(fixture, METHOD_KV_PUT, &request);
}

struct msg_write_response service_append(struct service_fixture *fixture,
                                         const struct msg_request_header *header, const char *key,
                                         const char *value)
{
    struct buf request = {0};
    msg_append_request_encode(&(struct msg_append_request){.header = *header,
                                                           .key = bytes_of_string(key),
                                                           .value = bytes_of_string(value)},
                              &request);
    return service_write(fixture, METHOD_KV_APPEND, &request);
}

struct msg_get_response service_get_view(struct service_fixture *fixture, const char *key,
                                         struct buf *reply)
{
    struct buf request = {0};
    struct msg_get_response response;
    msg_get_request_encode(&(struct msg_get_request){.key = bytes_of_string(key)}, &request);
    service_call(fixture, METHOD_KV_GET, &request, reply);
    assert_int_equal(msg_get_response_decode(buf_view(reply), &response), 0);
    return response;
}

struct msg_get_response service_get(struct service_fixture *fixture, const char *key,
                                    char value[64])
{
    struct buf reply = {0};
    struct msg_get_response response = service_get_view(fixture, key, &reply);
    assert_true(response.value.size < 64);
    snprintf(value, 64, "%.*s", (int)response.value.size,
             response.value.size == 0 ? "" : (const char *)response.value.data);
    response.value = BYTES_EMPTY;
    buf_deinit(&reply);
    return response;
}
