/* Kv's unary methods. Each is a block of one operation and goes the way of all blocks. */
#include "shardkv/service_internal.h"
#include "shardkv/store_failure.h"

#include "base/assert.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"

#include <stdlib.h>
#include <string.h>

struct unary {
    struct kv_service *service;
    struct rpc_call *call;
    enum op_kind kind;
    uint32_t shard;
    struct blob *block; /* gets: what is to be read */
};

/* ---- answers ---- */

static void reply(struct kv_service *service, struct rpc_call *call, enum op_kind kind,
                  uint32_t shard, const struct op_result *result, const char *text)
{
    struct buf bytes = {0};
    if (kind == OP_GET) {
        struct msg_get_response *response = mem_calloc(1, sizeof *response);
        service__fill_header(service, shard, result->error, text, &response->header);
        response->value = result->value;
        response->version = result->version;
        msg_get_response_encode(response, &bytes);
        free(response);
    } else {
        struct msg_write_response *response = mem_calloc(1, sizeof *response);
        service__fill_header(service, shard, result->error, text, &response->header);
        response->version = result->version;
        msg_write_response_encode(response, &bytes);
        free(response);
    }
    rpc_call_reply(call, &bytes);
    buf_deinit(&bytes);
}

static void refuse(struct kv_service *service, struct rpc_call *call, enum op_kind kind,
                   uint32_t shard, int error, const char *text)
{
    struct op_result result = {.error = error};
    reply(service, call, kind, shard, &result, text);
}

/* takes `unary` */
static void finish(struct unary *unary, int error, struct bytes answer)
{
    struct op_result result = {.error = error};
    uint8_t flags = 0;
    uint32_t count = 0;
    struct bytes results;
    struct reader reader;
    if (error == 0) {
        bool right = service__split_result(answer, &flags, &results) &&
                     results_open(results, &reader, &count) == 0 && count == 1 &&
                     results_next(&reader, unary->kind, &result) == 0;
        if (!right) {
            result = (struct op_result){.error = ERR_PROTOCOL};
        }
    }
    reply(unary->service, unary->call, unary->kind, unary->shard, &result, NULL);
    blob_unref(unary->block);
    free(unary);
}

static void write_done(void *context, int error, struct raft_position position, struct bytes result)
{
    (void)position;
    finish(context, error, result);
}

/* Apply thread. */
static void read_serve(void *context, int error)
{
    struct unary *unary = context;
    struct buf answer = {0};
    if (error == 0) {
        error = store_failure_stop(
            kv_machine_read(unary->service->options.machine, blob_view(unary->block), &answer),
            "get");
    }
    finish(unary, error, buf_view(&answer));
    buf_deinit(&answer);
}

/* ---- requests ---- */

static int check_header(const struct kv_service *service, const struct msg_request_header *header,
                        enum op_kind kind, const char **text)
{
    int error = service__check_cluster(service, header->cluster_id);
    if (error != 0 || kind == OP_GET || header->client_id == 0) {
        return error;
    }
    if (header->sequence == 0) {
        *text = "a client_id needs a sequence from 1";
        return ERR_INVALID;
    }
    if (header->acked_below > header->sequence) {
        *text = "acked_below is above the sequence";
        return ERR_INVALID;
    }
    return header->age_ms > COMMAND_AGE_MS_MAX ? ERR_SESSION_EXPIRED : 0;
}

static struct blob *make_block(const struct msg_request_header *header, const struct op *op)
{
    bool counted = op->kind != OP_GET && header->client_id != 0;
    struct op stamped = *op;
    stamped.sequence = counted ? header->sequence : 0;
    struct buf block = {0};
    block_put_header(&block, &(struct block_header){
                                 .client_id = counted ? header->client_id : 0,
                                 .acked_below = counted ? header->acked_below : 0,
                                 .age_ms = header->age_ms,
                                 .count = 1,
                             });
    block_put_op(&block, &stamped);
    return blob_take_buf(&block);
}

/* The key and the value's size were checked by the decoder. */
static void start(struct kv_service *service, struct rpc_call *call,
                  const struct msg_request_header *header, struct op *op)
{
    const char *text = NULL;
    int error = check_header(service, header, op->kind, &text);
    if (error == 0) {
        struct kv_table *table = kv_machine_table(service->options.machine);
        op->shard = table->shard_count == 0 ? 0 : shard_of_key(op->key, table->shard_count);
        error = kv_table_serves(table, op->shard);
        kv_table_unref(table);
    }
    /* A follower may be behind in configs: where the leader is helps more than what this one
     * believes of the shard. */
    if (error != ERR_WRONG_CLUSTER && error != ERR_INVALID &&
        !node_is_leader(service->options.node)) {
        error = ERR_NOT_LEADER;
    }
    if (error != 0) {
        refuse(service, call, op->kind, op->shard, error, text);
        return;
    }
    struct unary *unary = mem_alloc(sizeof *unary);
    *unary = (struct unary){.service = service, .call = call, .kind = op->kind, .shard = op->shard};
    unary->block = make_block(header, op);
    if (op->kind == OP_GET) {
        error = node_read(service->options.node, read_serve, unary);
    } else {
        error = node_propose(service->options.node, blob_view(unary->block), unary->block,
                             write_done, unary);
    }
    if (error != 0) {
        finish(unary, error, BYTES_EMPTY);
    }
}

static void handle_get(void *context, struct rpc_call *call, struct bytes request,
                       struct blob *owner)
{
    (void)owner;
    struct msg_get_request message;
    int error = msg_get_request_decode(request, &message);
    if (error != 0) {
        refuse(context, call, OP_GET, 0, error, NULL);
        return;
    }
    struct op op = {.kind = OP_GET, .key = message.key};
    start(context, call, &message.header, &op);
}

static void handle_put(void *context, struct rpc_call *call, struct bytes request,
                       struct blob *owner)
{
    (void)owner;
    struct msg_put_request message;
    int error = msg_put_request_decode(request, &message);
    if (error != 0) {
        refuse(context, call, OP_PUT, 0, error, NULL);
        return;
    }
    struct op op = {.kind = OP_PUT, .key = message.key, .value = message.value};
    start(context, call, &message.header, &op);
}

static void handle_append(void *context, struct rpc_call *call, struct bytes request,
                          struct blob *owner)
{
    (void)owner;
    struct msg_append_request message;
    int error = msg_append_request_decode(request, &message);
    if (error != 0) {
        refuse(context, call, OP_APPEND, 0, error, NULL);
        return;
    }
    struct op op = {.kind = OP_APPEND, .key = message.key, .value = message.value};
    start(context, call, &message.header, &op);
}

static void handle_delete(void *context, struct rpc_call *call, struct bytes request,
                          struct blob *owner)
{
    (void)owner;
    struct msg_delete_request message;
    int error = msg_delete_request_decode(request, &message);
    if (error != 0) {
        refuse(context, call, OP_DELETE, 0, error, NULL);
        return;
    }
    struct op op = {.kind = OP_DELETE, .key = message.key};
    start(context, call, &message.header, &op);
}

static void handle_cas(void *context, struct rpc_call *call, struct bytes request,
                       struct blob *owner)
{
    (void)owner;
    struct msg_compare_and_set_request message;
    int error = msg_compare_and_set_request_decode(request, &message);
    if (error != 0) {
        refuse(context, call, OP_CAS, 0, error, NULL);
        return;
    }
    struct op op = {
        .kind = OP_CAS,
        .key = message.key,
        .value = message.value,
        .expected_version = message.expected_version,
    };
    start(context, call, &message.header, &op);
}

int service__add_unary(struct kv_service *service, struct rpc_server *server)
{
    const struct {
        const char *name;
        rpc_unary_fn handler;
    } methods[] = {
        {METHOD_KV_GET, handle_get},
        {METHOD_KV_PUT, handle_put},
        {METHOD_KV_APPEND, handle_append},
        {METHOD_KV_DELETE, handle_delete},
        {METHOD_KV_COMPARE_AND_SET, handle_cas},
    };
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        int error = rpc_server_add_unary(server, methods[i].name, methods[i].handler, service);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}
