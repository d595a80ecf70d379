/* Every message through to its handler and back: the services of a group (Kv, Status, ShardMove)
 * and of the controllers (Controller, Watch) over real state machines, with the network and
 * consensus taken away (service_host.h). First byte: who is asked, and in which state; then calls:
 *
 *   u8 method, u8 what to do with the bytes, u16 size, bytes
 *
 * Whatever comes, each call is answered once, with a message that decodes; a stream ends in order;
 * and nothing keeps what was ended. */
#include "fuzz/fuzz.h"

#include "fuzz/service_host.h"
#include "lib/fake_store.h"
#include "lib/fake_vfs.h"
#include "proto/command.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "shardctrler/service.h"
#include "shardkv/kv_command.h"
#include "shardkv/move_service.h"
#include "shardkv/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 4096;

enum { SHARDS = 8, GROUP = 1, OTHER = 2, CLUSTER = 99, CALLS_MAX = 24, FROZEN_SHARD = 3 };

enum start {
    START_LEADER,
    START_FOLLOWER,
    START_FULL,      /* the mailbox takes nothing */
    START_NO_CONFIG, /* the group has not heard of any */
    START_COUNT
};

/* ---- what is asked ---- */

struct house {
    struct fake_vfs *disk;
    struct node node;
    struct rpc_server server;
    /* of a group */
    struct fake_store *fake;
    struct store store;
    struct kv_machine *kv;
    struct kv_service *kv_service;
    struct move_service *move_service;
    /* of a controller */
    struct config_machine *configs;
    struct service *service;
};

static void apply(struct node *node, struct bytes payload)
{
    struct raft_position position = {.index = ++node->index, .term = 1};
    struct sm_command command = {.position = position, .time_ms = 1, .payload = payload};
    struct sm_batch batch = {.commands = &command, .count = 1, .last = position};
    int error = node->sm.ops->apply(node->sm.sm, &batch);
    ASSERT(error == 0);
}

static void apply_config(struct node *node, uint64_t number)
{
    struct config *config = config_create(number, SHARDS);
    config->group_count = 2;
    config->groups = mem_calloc(2, sizeof *config->groups);
    for (uint64_t i = 0; i < 2; i++) {
        struct config_group *group = &config->groups[i];
        group->id = i + 1;
        group->replica_count = 1;
        group->replicas[0].id = 1;
        snprintf(group->replicas[0].address, sizeof group->replicas[0].address, "h%u:1",
                 (unsigned)i);
    }
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        config->owners[shard] = number > 1 && shard == FROZEN_SHARD ? OTHER : GROUP;
        config->sources[shard] = number > 1 ? GROUP : 0;
    }
    struct buf bytes = {0};
    struct buf payload = {0};
    config_encode(config, &bytes);
    config_free(config);
    struct kv_command command = {
        .kind = KV_COMMAND_CONFIG, .number = number, .config = buf_view(&bytes)};
    kv_command_encode(&command, &payload);
    apply(node, buf_view(&payload));
    buf_deinit(&payload);
    buf_deinit(&bytes);
}

/* A key of each shard: "0", "1", ... hash wherever they do. */
static void apply_rows(struct node *node)
{
    for (uint32_t i = 0; i < 32; i++) {
        char key[12];
        int size = snprintf(key, sizeof key, "%u", (unsigned)i);
        struct bytes view = bytes_of(key, (size_t)size);
        struct buf payload = {0};
        block_put_header(&payload, &(struct block_header){.count = 1});
        block_put_op(&payload, &(struct op){.kind = OP_PUT,
                                            .shard = shard_of_key(view, SHARDS),
                                            .key = view,
                                            .value = view});
        apply(node, buf_view(&payload));
        buf_deinit(&payload);
    }
}

static void group_open(struct house *house, enum start start)
{
    char why[200] = "";
    house->fake = fake_store_create(fake_vfs_vfs(house->disk));
    house->store = fake_store_as_store(house->fake);
    struct kv_machine_options options = {
        .group_id = GROUP, .store = &house->store, .vfs = fake_vfs_vfs(house->disk)};
    int error = kv_machine_create(&options, &house->kv, why, sizeof why);
    ASSERT(error == 0);
    house->node.sm = kv_machine_ops(house->kv);
    if (start != START_NO_CONFIG) {
        apply_config(&house->node, 1);
        apply_rows(&house->node);
        apply_config(&house->node, 2);
    }
    house->kv_service = kv_service_create(&(struct kv_service_options){
        .cluster_id = CLUSTER, .version = "1", .node = &house->node, .machine = house->kv});
    house->move_service = move_service_create(&(struct move_service_options){
        .cluster_id = CLUSTER, .group_id = GROUP, .node = &house->node, .machine = house->kv});
    error = kv_service_add_methods(house->kv_service, &house->server);
    ASSERT(error == 0);
    error = move_service_add_methods(house->move_service, &house->server);
    ASSERT(error == 0);
}

static void controller_open(struct house *house, enum start start)
{
    char why[200] = "";
    int error =
        config_machine_open(fake_vfs_vfs(house->disk), "/config", &house->configs, why, sizeof why);
    ASSERT(error == 0);
    house->node.sm = config_machine_interface(house->configs);
    house->service = service_create(
        &(struct service_options){.cluster_id = CLUSTER, .shard_count = SHARDS}, house->configs);
    error = service_attach(house->service, &house->node, &house->server);
    ASSERT(error == 0);
    if (start != START_NO_CONFIG) {
        struct node_observer observer = service_observer(house->service);
        observer.role_changed(observer.context, house->node.leads ? NODE_LEADER : NODE_FOLLOWER, 1,
                              1, "leader:1");
        service_host_run();
    }
}

static void house_open(struct house *house, bool controller, enum start start)
{
    memset(house, 0, sizeof *house);
    house->disk = fake_vfs_create(1);
    house->node.leads = start != START_FOLLOWER;
    if (controller) {
        controller_open(house, start);
    } else {
        group_open(house, start);
    }
    house->node.full = start == START_FULL;
}

static void house_close(struct house *house)
{
    kv_service_destroy(house->kv_service);
    move_service_destroy(house->move_service);
    if (house->configs != NULL) {
        service_destroy(house->service);
        config_machine_close(house->configs);
    } else {
        kv_machine_destroy(house->kv);
        fake_store_destroy(house->fake);
    }
    fake_vfs_destroy(house->disk);
}

/* ---- what is answered ---- */

#define IS(name) (strcmp(method, name) == 0)
/* Decodes into a struct of the heap: some are large. */
#define CHECK_ANSWER(type)                                                                         \
    do {                                                                                           \
        struct msg_##type *message = mem_calloc(1, sizeof *message);                               \
        error = msg_##type##_decode(answer, message);                                              \
        free(message);                                                                             \
    } while (0)
#define CHECK_ANSWER_DEINIT(type)                                                                  \
    do {                                                                                           \
        struct msg_##type *message = mem_calloc(1, sizeof *message);                               \
        error = msg_##type##_decode(answer, message);                                              \
        if (error == 0) {                                                                          \
            msg_##type##_deinit(message);                                                          \
        }                                                                                          \
        free(message);                                                                             \
    } while (0)

static void check_answer(const char *method, struct bytes answer)
{
    int error = ERR_INVALID;
    if (IS(METHOD_KV_GET)) {
        CHECK_ANSWER(get_response);
    } else if (IS(METHOD_KV_SCAN)) {
        CHECK_ANSWER_DEINIT(scan_response);
    } else if (IS(METHOD_KV_BATCH)) {
        CHECK_ANSWER_DEINIT(batch_response);
    } else if (strncmp(method, "/shardkv.v1.Kv/", 15) == 0) {
        CHECK_ANSWER(write_response);
    } else if (IS(METHOD_ADMIN_STATUS)) {
        CHECK_ANSWER_DEINIT(status_response);
    } else if (IS(METHOD_SHARD_MOVE_READ)) {
        CHECK_ANSWER(peer_read_response);
    } else if (strncmp(method, "/shardkv.peer.v1.ShardMove/", 27) == 0) {
        CHECK_ANSWER(peer_move_response);
    } else if (IS(METHOD_CONTROLLER_QUERY)) {
        CHECK_ANSWER_DEINIT(query_response);
    } else if (IS(METHOD_CONTROLLER_WATCH)) {
        CHECK_ANSWER_DEINIT(watch_response);
    } else {
        CHECK_ANSWER(change_response);
    }
    ASSERT(error == 0);
}

/* ---- one input ---- */

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    struct house house;
    uint8_t head = get_u8(&reader);
    house_open(&house, head % 2 == 1, (enum start)(head / 2 % START_COUNT));
    struct rpc_stream *stream = NULL;
    uint32_t stream_method = 0;
    for (int i = 0; i < CALLS_MAX && reader_left(&reader) > 0; i++) {
        uint32_t method = fuzz_choice(&reader, house.server.method_count);
        uint8_t how = get_u8(&reader);
        uint16_t size = get_u16(&reader);
        struct bytes request = fuzz_take(&reader, size);
        if (house.server.methods[method].unary != NULL) {
            service_host_call(&house.server, method, request, check_answer);
            continue;
        }
        if (stream != NULL && (stream_method != method || how % 8 == 0)) {
            service_host_close(stream);
            stream = NULL;
        }
        if (stream == NULL) {
            stream = service_host_open(&house.server, method, check_answer);
            stream_method = method;
        }
        if (stream != NULL) {
            service_host_set_full(stream, how % 8 == 1);
            (void)service_host_message(stream, request);
        }
    }
    if (stream != NULL) {
        service_host_close(stream);
    }
    house_close(&house);
}

/* ---- seeds: one right request of each method ---- */

static void seed_block(struct buf *out, enum op_kind kind, const char *key)
{
    struct bytes view = bytes_of_string(key);
    block_put_header(out, &(struct block_header){.client_id = kind == OP_GET ? 0 : 7, .count = 1});
    block_put_op(out, &(struct op){.kind = kind,
                                   .sequence = kind == OP_GET ? 0 : 1,
                                   .shard = shard_of_key(view, SHARDS),
                                   .key = view,
                                   .value = kind == OP_GET ? BYTES_EMPTY : view});
}

static void seed_kv(const char *method, struct buf *out)
{
    struct msg_request_header header = {.cluster_id = CLUSTER, .client_id = 5, .sequence = 1};
    struct bytes key = bytes_of_string("7");
    if (IS(METHOD_KV_GET)) {
        msg_get_request_encode(&(struct msg_get_request){header, key}, out);
    } else if (IS(METHOD_KV_PUT)) {
        msg_put_request_encode(&(struct msg_put_request){header, key, key}, out);
    } else if (IS(METHOD_KV_APPEND)) {
        msg_append_request_encode(&(struct msg_append_request){header, key, key}, out);
    } else if (IS(METHOD_KV_DELETE)) {
        msg_delete_request_encode(&(struct msg_delete_request){header, key}, out);
    } else if (IS(METHOD_KV_COMPARE_AND_SET)) {
        msg_compare_and_set_request_encode(
            &(struct msg_compare_and_set_request){header, key, 1, key}, out);
    } else if (IS(METHOD_KV_SCAN)) {
        msg_scan_request_encode(&(struct msg_scan_request){.header = header, .shard = 1}, out);
    } else if (IS(METHOD_KV_BATCH)) {
        struct buf block = {0};
        seed_block(&block, out->size % 2 == 0 ? OP_GET : OP_PUT, "7");
        msg_batch_request_encode(&(struct msg_batch_request){.batch_id = 1,
                                                             .cluster_id = CLUSTER,
                                                             .reads = out->size % 2 == 0,
                                                             .operations = buf_view(&block)},
                                 out);
        buf_deinit(&block);
    }
}

static void seed_rest(const char *method, struct buf *out)
{
    struct msg_request_header header = {.cluster_id = CLUSTER, .client_id = 5, .sequence = 1};
    struct msg_peer_move_request move = {CLUSTER, FROZEN_SHARD, 2, GROUP, OTHER};
    if (IS(METHOD_ADMIN_STATUS)) {
        msg_status_request_encode(&(struct msg_status_request){CLUSTER, true}, out);
    } else if (IS(METHOD_SHARD_MOVE_READ)) {
        msg_peer_read_request_encode(
            &(struct msg_peer_read_request){.move = move, .bytes_max = 1000}, out);
    } else if (strncmp(method, "/shardkv.peer.v1.ShardMove/", 27) == 0) {
        msg_peer_move_request_encode(&move, out);
    } else if (IS(METHOD_CONTROLLER_JOIN)) {
        struct config_group group = {.id = 4, .replica_count = 1};
        group.replicas[0].id = 1;
        snprintf(group.replicas[0].address, sizeof group.replicas[0].address, "h:1");
        msg_join_request_encode(&(struct msg_join_request){header, 1, &group}, out);
    } else if (IS(METHOD_CONTROLLER_LEAVE)) {
        struct msg_leave_request *leave = mem_calloc(1, sizeof *leave);
        leave->header = header;
        leave->header.sequence = 2;
        leave->force = true;
        leave->group_count = 1;
        leave->group_ids[0] = 4;
        msg_leave_request_encode(leave, out);
        free(leave);
    } else if (IS(METHOD_CONTROLLER_MOVE)) {
        header.sequence = 3;
        msg_move_request_encode(&(struct msg_move_request){header, 1, 4}, out);
    } else if (IS(METHOD_CONTROLLER_UPDATE_MEMBERS)) {
        struct msg_update_members_request update = {.header = header};
        update.header.sequence = 4;
        update.group = (struct config_group){.id = 4, .members_index = 2, .replica_count = 1};
        update.group.replicas[0].id = 2;
        snprintf(update.group.replicas[0].address, sizeof update.group.replicas[0].address, "h:2");
        msg_update_members_request_encode(&update, out);
    } else if (IS(METHOD_CONTROLLER_QUERY)) {
        msg_query_request_encode(&(struct msg_query_request){.header = header, .latest = true},
                                 out);
    } else if (IS(METHOD_CONTROLLER_WATCH)) {
        msg_watch_request_encode(&(struct msg_watch_request){.cluster_id = CLUSTER}, out);
    }
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    struct house house;
    house_open(&house, index % 2 == 1, START_LEADER);
    put_u8(out, (uint8_t)(index % (2 * START_COUNT)));
    for (uint32_t i = 0; i < house.server.method_count; i++) {
        uint32_t method = (i + index) % house.server.method_count;
        struct buf request = {0};
        seed_kv(house.server.methods[method].name, &request);
        seed_rest(house.server.methods[method].name, &request);
        put_u8(out, (uint8_t)method);
        put_u8(out, (uint8_t)(index + i));
        put_u16(out, (uint16_t)request.size);
        buf_append_bytes(out, buf_view(&request));
        buf_deinit(&request);
    }
    house_close(&house);
    return index < 4 * START_COUNT;
}
