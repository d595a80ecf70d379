/* Admin.Status: the node's part, the shards' states, and on request the hash of the whole state.
 * Sizes of shards are read from the disk, by the worker, a shard at a time so that moves get their
 * turn between. */
#include "shardkv/service_internal.h"

#include "base/assert.h"
#include "proto/methods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS_COUNTED_MAX = 20000, /* a shard's rows are counted up to here, estimated beyond */
    SHARDS_SIZED_MAX = 1024,  /* of a group with more shards than this the others show size 0 */
};

struct status_call {
    struct kv_service *service;
    struct rpc_call *call;
    struct msg_status_response *response;
    bool with_hash;
    uint32_t next_shard;
    uint32_t sized;
};

static void status_finish(struct status_call *status, int error)
{
    struct buf bytes = {0};
    if (error != 0) {
        msg_response_header_set(&status->response->header, error, NULL);
    }
    msg_status_response_encode(status->response, &bytes);
    rpc_call_reply(status->call, &bytes);
    buf_deinit(&bytes);
    free(status->response->shards);
    free(status->response);
    free(status);
}

/* Background thread of the node. A hash that could not be made is not an error of the rest:
 * state_hash stays 0. */
static void hash_done(void *context, int error, uint64_t hash, struct raft_position position)
{
    struct status_call *status = context;
    if (error == 0) {
        status->response->state_hash = hash;
        status->response->state_hash_applied = position.index;
    }
    status_finish(status, error == ERR_SHUTDOWN ? error : 0);
}

static bool size_shards(void *context, bool stopping)
{
    struct status_call *status = context;
    struct msg_status_response *response = status->response;
    if (stopping) {
        status_finish(status, ERR_SHUTDOWN);
        return true;
    }
    while (status->next_shard < response->shard_count && status->sized < SHARDS_SIZED_MAX) {
        struct msg_shard_status *shard = &response->shards[status->next_shard];
        status->next_shard++;
        if (shard->state == SHARD_ABSENT) {
            continue;
        }
        struct kv_shard_size size;
        if (kv_machine_shard_size(status->service->options.machine, shard->shard, ROWS_COUNTED_MAX,
                                  &size) == 0) {
            shard->keys = size.keys;
            shard->bytes = size.bytes;
        }
        status->sized++;
        return false;
    }
    if (!status->with_hash || node_hash(status->service->options.node, hash_done, status) != 0) {
        status_finish(status, 0);
    }
    return true;
}

static void fill_shards(const struct kv_table *table, struct msg_status_response *response)
{
    response->config_number = table->config_number;
    response->shards = mem_calloc(table->shard_count + 1, sizeof *response->shards);
    for (uint32_t i = 0; i < table->shard_count; i++) {
        const struct shard_record *record = &table->shards[i];
        if (record->state == SHARD_ABSENT) {
            continue;
        }
        response->shards[response->shard_count] = (struct msg_shard_status){
            .shard = i,
            .state = record->state,
            .config_number = record->number,
            .moved_bytes = record->bytes,
        };
        response->shard_count++;
    }
}

static void handle_status(void *context, struct rpc_call *call, struct bytes request,
                          struct blob *owner)
{
    (void)owner;
    struct kv_service *service = context;
    struct msg_status_request message;
    int error = msg_status_request_decode(request, &message);
    struct status_call *status = mem_calloc(1, sizeof *status);
    status->service = service;
    status->call = call;
    status->response = mem_calloc(1, sizeof *status->response);
    if (error == 0) {
        error = service__check_cluster(service, message.cluster_id);
    }
    if (error != 0) {
        status_finish(status, error);
        return;
    }
    node_fill_status(service->options.node, status->response);
    snprintf(status->response->version, sizeof status->response->version, "%s",
             service->options.version);
    struct kv_table *table = kv_machine_table(service->options.machine);
    fill_shards(table, status->response);
    kv_table_unref(table);
    status->with_hash = message.with_hash;
    error = worker_add(service->options.worker, size_shards, status);
    if (error != 0) {
        status_finish(status, error);
    }
}

int service__add_admin(struct kv_service *service, struct rpc_server *server)
{
    return rpc_server_add_unary(server, METHOD_ADMIN_STATUS, handle_status, service);
}
