/* Kv.Scan: rows of one shard in key order, a piece a call.
 *
 * A call goes rpc thread -> ReadIndex -> apply thread (this replica holds everything acknowledged
 * before the call, and serves the shard) -> worker (reads the disk) -> answer. The piece is one
 * moment: an iterator is a consistent view. That the moment was this group's is checked afterwards:
 * a shard that is still serving under the same config number has not been frozen since, so nobody
 * else can have acknowledged anything for it meanwhile. */
#include "shardkv/kv_machine_internal.h"
#include "shardkv/service_internal.h"
#include "shardkv/store_failure.h"

#include "base/codec.h"
#include "proto/methods.h"

#include <stdlib.h>

struct scan {
    struct kv_service *service;
    struct rpc_call *call;
    struct msg_scan_request request; /* after_key points into `owner` */
    struct blob *owner;
    uint64_t number; /* of the shard's record when the read was served */
};

struct scan_rows {
    struct msg_scan_response response;
    struct buf bytes; /* keys and values, behind each other */
    size_t bytes_max;
    uint32_t rows_max;
};

/* ---- the answer
 * ---------------------------------------------------------------------------------------------- */

static void answer(struct kv_service *service, struct rpc_call *call, uint32_t shard, int error,
                   const char *text, struct msg_scan_response *response)
{
    struct buf bytes = {0};
    if (error != 0) {
        response->row_count = 0;
        response->end = false;
    }
    service__fill_header(service, shard, error, text, &response->header);
    msg_scan_response_encode(response, &bytes);
    rpc_call_reply(call, &bytes);
    buf_deinit(&bytes);
}

/* takes `scan` */
static void finish(struct scan *scan, int error, struct msg_scan_response *response)
{
    struct msg_scan_response *empty = response == NULL ? mem_calloc(1, sizeof *empty) : NULL;
    answer(scan->service, scan->call, scan->request.shard, error, NULL,
           response != NULL ? response : empty);
    free(empty);
    blob_unref(scan->owner);
    free(scan);
}

/* ---- reading, worker thread
 * ---------------------------------------------------------------------------------- */

/* Takes a row of the store in; false when it does not fit behind those that are there. */
static bool take_row(struct scan_rows *out, struct bytes key, struct bytes row, bool keys_only,
                     int *error)
{
    struct reader reader = reader_of(row);
    uint64_t version = get_varint(&reader);
    if (reader.failed) {
        *error = ERR_CORRUPT;
        return false;
    }
    struct bytes value = keys_only ? BYTES_EMPTY : get_bytes(&reader, reader_left(&reader));
    size_t more = key.size + value.size;
    uint32_t count = out->response.row_count;
    if (count == out->rows_max || (count > 0 && (out->bytes.size >= out->bytes_max ||
                                                 more > out->bytes_max - out->bytes.size))) {
        return false;
    }
    /* Sizes now, addresses when the buffer has stopped growing. */
    out->response.rows[count] = (struct msg_scan_row){
        .key = bytes_of(NULL, key.size), .version = version, .value = bytes_of(NULL, value.size)};
    buf_append_bytes(&out->bytes, key);
    buf_append_bytes(&out->bytes, value);
    out->response.row_count++;
    return true;
}

static void place_rows(struct scan_rows *out)
{
    const uint8_t *at = out->bytes.data;
    for (uint32_t i = 0; i < out->response.row_count; i++) {
        struct msg_scan_row *row = &out->response.rows[i];
        row->key.data = at;
        at += row->key.size;
        row->value.data = at;
        at += row->value.size;
    }
}

static int read_rows(struct kv_machine *machine, const struct msg_scan_request *request,
                     struct scan_rows *out)
{
    const struct store_ops *ops = machine->store.ops;
    int error = kv__gate_enter(machine);
    if (error != 0) {
        return error;
    }
    struct store_key from;
    struct store_key to;
    key_range(KEY_SPACE_DATA, request->shard, &from, &to);
    if (request->after_key.size > 0) {
        key_of_data(request->shard, request->after_key, &from);
        from.data[from.size++] = 0; /* the first key that sorts after it */
    }
    struct store_iterator *iterator = ops->iterator_create(
        machine->store.store, NULL, store_key_view(&from), store_key_view(&to));
    bool fits = true;
    while (fits && ops->iterator_valid(iterator)) {
        struct bytes key = ops->iterator_key(iterator);
        struct bytes user_key = bytes_of(key.data + KEY_PREFIX_BYTES, key.size - KEY_PREFIX_BYTES);
        fits = take_row(out, user_key, ops->iterator_value(iterator), request->keys_only, &error);
        if (fits) {
            ops->iterator_next(iterator);
        }
    }
    out->response.end = !ops->iterator_valid(iterator);
    if (error == 0) {
        error = ops->iterator_error(iterator);
    }
    ops->iterator_destroy(iterator);
    kv__gate_leave(machine);
    place_rows(out);
    return error;
}

/* 0 and the number under which the shard is served, or why it is not. */
static int served(struct kv_service *service, uint32_t shard, uint64_t *number)
{
    struct kv_table *table = kv_machine_table(service->options.machine);
    int error = kv_table_serves(table, shard);
    *number = error == 0 ? table->shards[shard].number : 0;
    kv_table_unref(table);
    return error;
}

static uint32_t limit(uint32_t wanted, uint32_t max)
{
    return wanted == 0 || wanted > max ? max : wanted;
}

static bool scan_job(void *context, bool stopping)
{
    struct scan *scan = context;
    if (stopping) {
        finish(scan, ERR_SHUTDOWN, NULL);
        return true;
    }
    struct scan_rows *rows = mem_calloc(1, sizeof *rows);
    rows->rows_max = limit(scan->request.rows_max, SCAN_ROWS_MAX);
    rows->bytes_max = limit(scan->request.bytes_max, SCAN_BYTES_MAX);
    rows->response.rows = mem_calloc(rows->rows_max, sizeof(struct msg_scan_row));
    int error =
        store_failure_stop(read_rows(scan->service->options.machine, &scan->request, rows), "scan");
    uint64_t number = 0;
    if (error == 0) {
        error = served(scan->service, scan->request.shard, &number);
    }
    if (error == 0 && number != scan->number) {
        error = ERR_SHARD_MOVING; /* it was away and came back meanwhile: read it again */
    }
    finish(scan, error, &rows->response);
    free(rows->response.rows);
    buf_deinit(&rows->bytes);
    free(rows);
    return true;
}

/* ---- requests ---- */

/* Apply thread. */
static void scan_serve(void *context, int error)
{
    struct scan *scan = context;
    if (error == 0) {
        error = served(scan->service, scan->request.shard, &scan->number);
    }
    if (error == 0) {
        error = worker_add(scan->service->options.worker, scan_job, scan);
    }
    if (error != 0) {
        finish(scan, error, NULL);
    }
}

static int check_request(const struct kv_service *service, const struct msg_scan_request *request,
                         const char **text)
{
    int error = service__check_cluster(service, request->header.cluster_id);
    if (error != 0) {
        return error;
    }
    if (!node_is_leader(service->options.node)) {
        return ERR_NOT_LEADER;
    }
    struct kv_table *table = kv_machine_table(service->options.machine);
    if (table->shard_count > 0 && request->shard >= table->shard_count) {
        *text = "there is no such shard";
        error = ERR_SHARD_RANGE;
    }
    kv_table_unref(table);
    return error;
}

static void handle_scan(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    struct kv_service *service = context;
    struct msg_scan_request message = {0};
    const char *text = NULL;
    int error = msg_scan_request_decode(request, &message);
    if (error == 0) {
        error = check_request(service, &message, &text);
    }
    if (error != 0) {
        struct msg_scan_response *response = mem_calloc(1, sizeof *response);
        answer(service, call, message.shard, error, text, response);
        free(response);
        return;
    }
    struct scan *scan = mem_alloc(sizeof *scan);
    *scan = (struct scan){
        .service = service, .call = call, .request = message, .owner = blob_ref(owner)};
    error = node_read(service->options.node, scan_serve, scan);
    if (error != 0) {
        finish(scan, error, NULL);
    }
}

int service__add_scan(struct kv_service *service, struct rpc_server *server)
{
    return rpc_server_add_unary(server, METHOD_KV_SCAN, handle_scan, service);
}
