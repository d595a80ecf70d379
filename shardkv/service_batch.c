/* Kv.Batch: blocks in, results out, many in flight on one stream.
 *
 * A block is answered in whatever order it finishes. Blocks without an answer are bounded by number
 * and bytes: over the bound the stream is not read (the client's sends stop at gRPC's window) until
 * half of them are answered. An answer that the stream's send queue has no room for waits here and
 * still counts as unanswered; when STREAM_BYTES_MAX of answers wait, reads are answered BUSY.
 *
 * A block counts from `message` until its answer was taken by the stream, or the stream is closed.
 */
#include "shardkv/service_internal.h"
#include "shardkv/store_failure.h"

#include "base/assert.h"
#include "base/log.h"
#include "proto/methods.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct waiting_answer {
    struct buf bytes;
    size_t charged_bytes;
    struct waiting_answer *next;
};

struct batch_stream {
    struct kv_service *service;
    struct rpc_stream *stream; /* one reference */
    atomic_uint references;    /* the stream's events, and every block under way */
    pthread_mutex_t mutex;     /* guards the rest */
    uint32_t blocks;
    size_t bytes;
    bool paused;
    bool closed;
    struct waiting_answer *waiting;
    struct waiting_answer **waiting_end;
    size_t waiting_bytes;
};

struct block_call {
    struct batch_stream *stream;
    uint64_t batch_id;
    bool reads;
    struct bytes block;
    struct blob *owner; /* of block */
};

static void stream_unref(struct batch_stream *stream)
{
    if (atomic_fetch_sub_explicit(&stream->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    ASSERT(stream->waiting == NULL);
    rpc_stream_unref(stream->stream);
    pthread_mutex_destroy(&stream->mutex);
    free(stream);
}

/* ---- answers ---- */

/* With the mutex held. True: reading goes on, the caller resumes without the mutex. */
static bool uncount(struct batch_stream *stream, size_t bytes)
{
    ASSERT_CMP(stream->blocks, >, 0);
    ASSERT_CMP(stream->bytes, >=, bytes);
    stream->blocks--;
    stream->bytes -= bytes;
    if (stream->paused && stream->blocks <= STREAM_BLOCKS_MAX / 2 &&
        stream->bytes <= STREAM_BYTES_MAX / 2) {
        stream->paused = false;
        return !stream->closed;
    }
    return false;
}

/* Sends, or keeps until the stream is writable. Takes the memory of `bytes`. */
static void answer_send(struct batch_stream *stream, struct buf *bytes, size_t charged_bytes)
{
    bool resume = false;
    pthread_mutex_lock(&stream->mutex);
    int error = stream->waiting != NULL ? ERR_BUSY : rpc_stream_send(stream->stream, bytes);
    if (error == ERR_BUSY && !stream->closed) {
        struct waiting_answer *answer = mem_alloc(sizeof *answer);
        *answer = (struct waiting_answer){.bytes = *bytes, .charged_bytes = charged_bytes};
        *bytes = (struct buf){0};
        stream->waiting_bytes += answer->bytes.size;
        *stream->waiting_end = answer;
        stream->waiting_end = &answer->next;
    } else {
        resume = uncount(stream, charged_bytes);
    }
    pthread_mutex_unlock(&stream->mutex);
    buf_deinit(bytes); /* a closed stream takes nothing */
    if (resume) {
        rpc_stream_resume(stream->stream);
    }
}

static void stream_writable(void *context, struct rpc_stream *handle)
{
    (void)context;
    struct batch_stream *stream = rpc_stream_user(handle);
    bool resume = false;
    pthread_mutex_lock(&stream->mutex);
    while (stream->waiting != NULL) {
        struct waiting_answer *answer = stream->waiting;
        size_t size = answer->bytes.size; /* the send takes them */
        if (rpc_stream_send(stream->stream, &answer->bytes) == ERR_BUSY) {
            break; /* writable comes again */
        }
        stream->waiting_bytes -= size;
        stream->waiting = answer->next;
        if (stream->waiting == NULL) {
            stream->waiting_end = &stream->waiting;
        }
        resume = uncount(stream, answer->charged_bytes) || resume;
        buf_deinit(&answer->bytes);
        free(answer);
    }
    pthread_mutex_unlock(&stream->mutex);
    if (resume) {
        rpc_stream_resume(stream->stream);
    }
}

/* Routes for the shards that were refused, each once, up to BATCH_ROUTES_MAX. */
static void add_routes(struct kv_service *service, const struct block_call *call,
                       struct bytes results, struct msg_batch_response *response)
{
    struct block_reader block;
    struct reader reader;
    uint32_t count = 0;
    if (block_open(call->block, &block) != 0 || results_open(results, &reader, &count) != 0) {
        return;
    }
    struct kv_table *table = kv_machine_table(service->options.machine);
    for (uint32_t i = 0; i < count && response->route_count < BATCH_ROUTES_MAX; i++) {
        struct op op;
        struct op_result result;
        if (block_next(&block, &op) != 0 || results_next(&reader, op.kind, &result) != 0) {
            break;
        }
        bool refused = result.error == ERR_WRONG_GROUP || result.error == ERR_SHARD_MOVING;
        for (uint32_t j = 0; j < response->route_count && refused; j++) {
            refused = response->routes[j].shard != op.shard;
        }
        if (refused) {
            response->routes = mem_realloc(response->routes,
                                           (response->route_count + 1) * sizeof(struct msg_route));
            service__fill_route(service, table, op.shard, false,
                                &response->routes[response->route_count]);
            response->route_count++;
        }
    }
    kv_table_unref(table);
}

static uint32_t first_shard(struct bytes block)
{
    struct block_reader reader;
    struct op op;
    return block_open(block, &reader) == 0 && block_next(&reader, &op) == 0 ? op.shard : 0;
}

/* Ends the call: takes `call`, sends the answer. */
static void call_finish(struct block_call *call, int error, struct bytes answer)
{
    struct batch_stream *stream = call->stream;
    struct kv_service *service = stream->service;
    struct msg_batch_response *response = mem_calloc(1, sizeof *response);
    uint8_t flags = 0;
    response->batch_id = call->batch_id;
    if (error == 0 && !service__split_result(answer, &flags, &response->results)) {
        error = ERR_PROTOCOL;
    }
    if (error != 0) {
        service__fill_header(service, first_shard(call->block), error, NULL, &response->header);
    } else if ((flags & KV_RESULT_REFUSED) != 0) {
        add_routes(service, call, response->results, response);
    }
    struct buf bytes = {0};
    msg_batch_response_encode(response, &bytes);
    free(response->routes);
    free(response);
    size_t charged_bytes = call->block.size;
    blob_unref(call->owner);
    free(call);
    answer_send(stream, &bytes, charged_bytes);
    stream_unref(stream);
}

static void write_done(void *context, int error, struct raft_position position, struct bytes result)
{
    (void)position;
    call_finish(context, error, result);
}

/* A small question may have a large answer, so a client that asks and does not read is told BUSY;
 * and what was asked over a stream that has ended is not looked up, so that others need not wait
 * for it. */
static int check_answers_read(struct batch_stream *stream)
{
    pthread_mutex_lock(&stream->mutex);
    size_t bytes = stream->waiting_bytes;
    bool closed = stream->closed;
    pthread_mutex_unlock(&stream->mutex);
    return closed ? ERR_CANCELED : bytes < STREAM_BYTES_MAX ? 0 : ERR_BUSY;
}

/* Apply thread. */
static void read_serve(void *context, int error)
{
    struct block_call *call = context;
    struct buf answer = {0};
    if (error == 0) {
        error = check_answers_read(call->stream);
    }
    if (error == 0) {
        error = store_failure_stop(
            kv_machine_read(call->stream->service->options.machine, call->block, &answer), "get");
    }
    call_finish(call, error, buf_view(&answer));
    buf_deinit(&answer);
}

/* ---- blocks ---- */

/* True when this group serves at least one of the block's shards. Otherwise `answer` becomes what
 * every operation is refused with, and nothing goes into the log. */
static bool serves_any(const struct kv_table *table, struct bytes block, struct buf *answer)
{
    struct block_reader reader;
    struct op op;
    int error = block_open(block, &reader);
    ASSERT(error == 0); /* block_check passed */
    put_u8(answer, KV_RESULT_REFUSED);
    results_put_count(answer, reader.header.count);
    while (block_next(&reader, &op) == 0) {
        struct op_result result = {.error = kv_table_serves(table, op.shard)};
        if (result.error == 0) {
            return true;
        }
        results_put(answer, op.kind, &result);
    }
    return false;
}

static int check_block(struct kv_service *service, const struct kv_table *table,
                       const struct msg_batch_request *request)
{
    struct block_header header;
    int error = service__check_cluster(service, request->cluster_id);
    if (error != 0) {
        return error;
    }
    if (!node_is_leader(service->options.node)) {
        return ERR_NOT_LEADER;
    }
    if (table->shard_count == 0) {
        return ERR_WRONG_GROUP; /* no config yet: nothing is ours */
    }
    error = block_check(request->operations, request->reads, table->shard_count, &header);
    if (error == 0 && !request->reads && header.client_id != 0 &&
        header.age_ms > COMMAND_AGE_MS_MAX) {
        error = ERR_SESSION_EXPIRED;
    }
    return error;
}

static void call_start(struct block_call *call, const struct msg_batch_request *request)
{
    struct kv_service *service = call->stream->service;
    struct kv_table *table = kv_machine_table(service->options.machine);
    struct buf refusal = {0};
    int error = check_block(service, table, request);
    if (error == 0 && !serves_any(table, call->block, &refusal)) {
        call_finish(call, 0, buf_view(&refusal));
    } else {
        if (error == 0) {
            error = call->reads ? node_read(service->options.node, read_serve, call)
                                : node_propose(service->options.node, call->block, call->owner,
                                               write_done, call);
        }
        if (error != 0) {
            call_finish(call, error, BYTES_EMPTY);
        }
    }
    buf_deinit(&refusal);
    kv_table_unref(table);
}

/* ---- the stream's events
 * ------------------------------------------------------------------------------------- */

static int stream_opened(void *context, struct rpc_stream *handle)
{
    struct batch_stream *stream = mem_calloc(1, sizeof *stream);
    stream->service = context;
    stream->stream = rpc_stream_ref(handle);
    atomic_init(&stream->references, 1);
    pthread_mutex_init(&stream->mutex, NULL);
    stream->waiting_end = &stream->waiting;
    rpc_stream_set_user(handle, stream);
    return 0;
}

static bool stream_message(void *context, struct rpc_stream *handle, struct bytes message,
                           struct blob *owner)
{
    (void)context;
    struct batch_stream *stream = rpc_stream_user(handle);
    struct msg_batch_request request;
    int error = msg_batch_request_decode(message, &request);
    if (error != 0) {
        LOG_DBG("batch.malformed", "peer=%s error=%s", rpc_stream_peer(handle), err_name(error));
        rpc_stream_cancel(handle); /* there is not even an id to answer to */
        return true;
    }
    pthread_mutex_lock(&stream->mutex);
    stream->blocks++;
    stream->bytes += request.operations.size;
    bool pause = stream->blocks >= STREAM_BLOCKS_MAX || stream->bytes >= STREAM_BYTES_MAX;
    stream->paused = pause;
    pthread_mutex_unlock(&stream->mutex);

    struct block_call *call = mem_alloc(sizeof *call);
    *call = (struct block_call){
        .stream = stream,
        .batch_id = request.batch_id,
        .reads = request.reads,
        .block = request.operations,
        .owner = blob_ref(owner),
    };
    atomic_fetch_add_explicit(&stream->references, 1, memory_order_relaxed);
    call_start(call, &request);
    return !pause;
}

static void stream_closed(void *context, struct rpc_stream *handle, int error, const char *text)
{
    (void)context;
    (void)error;
    (void)text;
    struct batch_stream *stream = rpc_stream_user(handle);
    pthread_mutex_lock(&stream->mutex);
    stream->closed = true;
    while (stream->waiting != NULL) {
        struct waiting_answer *answer = stream->waiting;
        stream->waiting = answer->next;
        (void)uncount(stream, answer->charged_bytes);
        buf_deinit(&answer->bytes);
        free(answer);
    }
    stream->waiting_end = &stream->waiting;
    stream->waiting_bytes = 0;
    pthread_mutex_unlock(&stream->mutex);
    stream_unref(stream);
}

int service__add_batch(struct kv_service *service, struct rpc_server *server)
{
    const struct rpc_stream_events events = {
        .opened = stream_opened,
        .message = stream_message,
        .writable = stream_writable,
        .closed = stream_closed,
    };
    return rpc_server_add_stream(server, METHOD_KV_BATCH, &events, service);
}
