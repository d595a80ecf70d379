/* The verbs a destination calls. See move_service.h.
 *
 * Freeze counts all rows of the shard on its own, in slices on the worker, independent of what Read
 * sent: that is what the destination's sums are compared with. One count a (shard, config) runs at
 * a time; who asks meanwhile is told BUSY; what was counted is kept, because a frozen shard does
 * not change. */
#include "shardkv/move_service.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "shardkv/kv_command.h"
#include "shardkv/store_failure.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct totals {
    uint64_t number; /* 0: free */
    uint32_t shard;
    bool counting;
    uint64_t rows;
    uint64_t bytes;
    uint64_t checksum;
};

struct move_service {
    struct move_service_options options;
    pthread_mutex_t mutex; /* guards the two below */
    struct totals totals[MOVE_TOTALS_KEPT];
    uint32_t next_totals; /* the place that is given up next */
};

struct move_call {
    struct move_service *service;
    struct rpc_call *call;
    struct msg_peer_move_request request;
    struct buf after_row; /* Read */
    uint32_t bytes_max;
    struct kv_move_scan scan; /* Freeze */
};

struct move_service *move_service_create(const struct move_service_options *options)
{
    struct move_service *service = mem_calloc(1, sizeof *service);
    service->options = *options;
    pthread_mutex_init(&service->mutex, NULL);
    return service;
}

void move_service_destroy(struct move_service *service)
{
    if (service != NULL) {
        pthread_mutex_destroy(&service->mutex);
        free(service);
    }
}

/* ---- answers ---- */

static void leader_address(struct move_service *service, char out[ADDRESS_BYTES_MAX])
{
    struct node_status status;
    node_status(service->options.node, &status);
    snprintf(out, ADDRESS_BYTES_MAX, "%s", status.leader_address);
}

static void reply_move(struct move_service *service, struct rpc_call *call, int error,
                       const struct totals *totals)
{
    struct msg_peer_move_response response = {.error = error};
    if (error == ERR_NOT_LEADER) {
        leader_address(service, response.leader_address);
    }
    if (error != 0) {
        snprintf(response.message, sizeof response.message, "%s", err_text(error));
    } else if (totals != NULL) {
        response.rows = totals->rows;
        response.bytes = totals->bytes;
        response.checksum = totals->checksum;
    }
    struct buf bytes = {0};
    msg_peer_move_response_encode(&response, &bytes);
    rpc_call_reply(call, &bytes);
    buf_deinit(&bytes);
}

static void reply_read(struct move_service *service, struct rpc_call *call, int error,
                       const struct kv_move_rows *rows)
{
    struct msg_peer_read_response response = {.error = error};
    if (error == ERR_NOT_LEADER) {
        leader_address(service, response.leader_address);
    }
    if (error != 0) {
        snprintf(response.message, sizeof response.message, "%s", err_text(error));
    } else {
        response.rows = buf_view(&rows->rows);
        response.rows_crc32c = crc32c_extend(0, rows->rows.data, rows->rows.size);
        response.last_row = buf_view(&rows->last_row);
        response.end = rows->end;
    }
    struct buf bytes = {0};
    msg_peer_read_response_encode(&response, &bytes);
    rpc_call_reply(call, &bytes);
    buf_deinit(&bytes);
}

static void call_free(struct move_call *call)
{
    buf_deinit(&call->after_row);
    kv_move_scan_deinit(&call->scan);
    free(call);
}

/* ends the call: takes it */
static void finish(struct move_call *call, int error, const struct totals *totals)
{
    reply_move(call->service, call->call, error, totals);
    call_free(call);
}

static int check_request(const struct move_service *service,
                         const struct msg_peer_move_request *request)
{
    if (request->cluster_id != service->options.cluster_id) {
        return ERR_WRONG_CLUSTER;
    }
    if (request->from_group != service->options.group_id) {
        return ERR_WRONG_GROUP;
    }
    if (request->to_group == 0 || request->to_group == request->from_group ||
        request->config_number == 0) {
        return ERR_INVALID;
    }
    return node_is_leader(service->options.node) ? 0 : ERR_NOT_LEADER;
}

/* Decodes and checks; answers a bad one and gives NULL. */
static struct move_call *call_create(struct move_service *service, struct rpc_call *rpc_call,
                                     struct bytes request)
{
    struct move_call *call = mem_calloc(1, sizeof *call);
    call->service = service;
    call->call = rpc_call;
    int error = msg_peer_move_request_decode(request, &call->request);
    if (error == 0) {
        error = check_request(service, &call->request);
    }
    if (error != 0) {
        finish(call, error, NULL);
        return NULL;
    }
    return call;
}

static int check_shard(const struct move_call *call)
{
    return kv_move_check(call->service->options.machine, call->request.shard,
                         call->request.config_number, call->request.to_group);
}

/* ---- Open ---- */

static void open_serve(void *context, int error)
{
    struct move_call *call = context;
    finish(call, error != 0 ? error : check_shard(call), NULL);
}

static void handle_open(void *context, struct rpc_call *rpc_call, struct bytes request,
                        struct blob *owner)
{
    (void)owner;
    struct move_call *call = call_create(context, rpc_call, request);
    if (call == NULL) {
        return;
    }
    int error = node_read(call->service->options.node, open_serve, call);
    if (error != 0) {
        finish(call, error, NULL);
    }
}

/* ---- Read ---- */

static bool read_job(void *context, bool stopping)
{
    struct move_call *call = context;
    struct kv_move_rows rows = {0};
    int error = stopping ? ERR_SHUTDOWN
                         : kv_move_read(call->service->options.machine, call->request.shard,
                                        call->request.config_number, call->request.to_group,
                                        buf_view(&call->after_row), call->bytes_max, &rows);
    error = store_failure_stop(error, "move_read");
    reply_read(call->service, call->call, error, &rows);
    buf_deinit(&rows.rows);
    buf_deinit(&rows.last_row);
    call_free(call);
    return true;
}

static void handle_read(void *context, struct rpc_call *rpc_call, struct bytes request,
                        struct blob *owner)
{
    (void)owner;
    struct move_service *service = context;
    struct msg_peer_read_request message;
    int error = msg_peer_read_request_decode(request, &message);
    error = error != 0 ? error : check_request(service, &message.move);
    if (error != 0) {
        reply_read(service, rpc_call, error, NULL);
        return;
    }
    struct move_call *call = mem_calloc(1, sizeof *call);
    call->service = service;
    call->call = rpc_call;
    call->request = message.move;
    buf_append_bytes(&call->after_row, message.after_row);
    call->bytes_max = message.bytes_max < MOVE_CHUNK_BYTES ? message.bytes_max : MOVE_CHUNK_BYTES;
    error = worker_add(service->options.worker, read_job, call);
    if (error != 0) {
        reply_read(service, rpc_call, error, NULL);
        call_free(call);
    }
}

/* ---- Freeze ---- */

/* The place of (shard, number), made when there is none. With the mutex held. */
static struct totals *totals_of(struct move_service *service, uint32_t shard, uint64_t number,
                                bool *found)
{
    for (uint32_t i = 0; i < MOVE_TOTALS_KEPT; i++) {
        struct totals *totals = &service->totals[i];
        if (totals->number == number && totals->shard == shard) {
            *found = true;
            return totals;
        }
    }
    struct totals *totals = &service->totals[service->next_totals];
    service->next_totals = (service->next_totals + 1) % MOVE_TOTALS_KEPT;
    *found = false;
    *totals = (struct totals){.number = number, .shard = shard, .counting = true};
    return totals;
}

static void totals_set(struct move_service *service, const struct kv_move_scan *scan, int error,
                       struct totals *out)
{
    bool found = false;
    pthread_mutex_lock(&service->mutex);
    struct totals *totals = totals_of(service, scan->shard, scan->number, &found);
    if (error != 0) {
        *totals = (struct totals){0};
    } else {
        totals->counting = false;
        totals->rows = scan->rows;
        totals->bytes = scan->bytes;
        totals->checksum = scan->checksum;
    }
    *out = *totals;
    pthread_mutex_unlock(&service->mutex);
}

static bool freeze_job(void *context, bool stopping)
{
    struct move_call *call = context;
    struct totals totals;
    int error =
        stopping ? ERR_SHUTDOWN
                 : kv_move_scan_step(call->service->options.machine, &call->scan, MOVE_SCAN_ROWS);
    error = store_failure_stop(error, "move_totals");
    if (error == 0 && !call->scan.done) {
        return false;
    }
    totals_set(call->service, &call->scan, error, &totals);
    finish(call, error, &totals);
    return true;
}

/* Apply thread. */
static void freeze_serve(void *context, int error)
{
    struct move_call *call = context;
    struct move_service *service = call->service;
    error = error != 0 ? error : check_shard(call);
    if (error != 0) {
        finish(call, error, NULL);
        return;
    }
    bool found = false;
    pthread_mutex_lock(&service->mutex);
    struct totals totals =
        *totals_of(service, call->request.shard, call->request.config_number, &found);
    pthread_mutex_unlock(&service->mutex);
    if (found) {
        finish(call, totals.counting ? ERR_BUSY : 0, &totals);
        return;
    }
    kv_move_scan_init(&call->scan, call->request.shard, call->request.config_number,
                      call->request.to_group);
    error = worker_add(service->options.worker, freeze_job, call);
    if (error != 0) {
        totals_set(service, &call->scan, error, &totals);
        finish(call, error, NULL);
    }
}

static void handle_freeze(void *context, struct rpc_call *rpc_call, struct bytes request,
                          struct blob *owner)
{
    (void)owner;
    struct move_call *call = call_create(context, rpc_call, request);
    if (call == NULL) {
        return;
    }
    int error = node_read(call->service->options.node, freeze_serve, call);
    if (error != 0) {
        finish(call, error, NULL);
    }
}

/* ---- Drop ---- */

static void drop_done(void *context, int error, struct raft_position position, struct bytes result)
{
    (void)position;
    struct move_call *call = context;
    finish(call, error != 0 ? error : kv_command_result(result), NULL);
}

static void handle_drop(void *context, struct rpc_call *rpc_call, struct bytes request,
                        struct blob *owner)
{
    (void)owner;
    struct move_call *call = call_create(context, rpc_call, request);
    if (call == NULL) {
        return;
    }
    struct buf payload = {0};
    kv_command_encode(&(struct kv_command){.kind = KV_COMMAND_DROP,
                                           .shard = call->request.shard,
                                           .number = call->request.config_number,
                                           .group = call->request.to_group},
                      &payload);
    struct blob *blob = blob_take_buf(&payload);
    int error = node_propose(call->service->options.node, blob_view(blob), blob, drop_done, call);
    blob_unref(blob);
    if (error != 0) {
        finish(call, error, NULL);
    }
}

int move_service_add_methods(struct move_service *service, struct rpc_server *server)
{
    int error = rpc_server_add_unary(server, METHOD_SHARD_MOVE_OPEN, handle_open, service);
    error = error != 0 ? error
                       : rpc_server_add_unary(server, METHOD_SHARD_MOVE_READ, handle_read, service);
    error = error != 0
                ? error
                : rpc_server_add_unary(server, METHOD_SHARD_MOVE_FREEZE, handle_freeze, service);
    return error != 0 ? error
                      : rpc_server_add_unary(server, METHOD_SHARD_MOVE_DROP, handle_drop, service);
}
