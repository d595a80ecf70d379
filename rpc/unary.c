/* The client's unary calls: one batch of all six operations, one tag, one callback.
 *
 * A request is linked in its channel's list from before its batch starts until its event; while it
 * is linked its core call is alive, so that is when it may be cancelled. Its memory lives as long
 * as the batch or a handle. */
#include "base/metrics.h"
#include "rpc/rpc_internal.h"
#include <stdio.h>

METRIC(rpc_client_call_count, COUNTER, "unary calls started")
METRIC(rpc_client_call_error_count, COUNTER, "unary calls that ended with an error")

struct rpc_request {
    _Atomic uint32_t refs; /* the batch's and the handle's */
    struct rpc_channel *channel;
    struct rpc__tag tag;
    grpc_call *call;
    rpc_done_fn done;
    void *context;
    grpc_byte_buffer *request;
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_byte_buffer *reply;
    grpc_status_code status;
    grpc_slice details;
    /* The channel's lock. */
    struct rpc__link link;
    bool linked;
    bool cancelled_here;
};

static void request_unref(struct rpc_request *request)
{
    if (atomic_fetch_sub_explicit(&request->refs, 1, memory_order_acq_rel) == 1) {
        rpc__channel_unref(request->channel);
        free(request);
    }
}

static bool request_unlink(struct rpc_request *request)
{
    pthread_mutex_lock(&request->channel->lock);
    ASSERT(request->linked);
    request->linked = false;
    rpc__list_remove(&request->link);
    bool cancelled_here = request->cancelled_here;
    pthread_mutex_unlock(&request->channel->lock);
    return cancelled_here;
}

static void request_run(struct rpc__tag *tag, bool ok)
{
    (void)ok; /* with a status in the batch it always succeeds; the status tells */
    struct rpc_request *request = RPC_CONTAINER_OF(tag, struct rpc_request, tag);
    bool cancelled_here = request_unlink(request);
    char text[RPC_ERROR_TEXT_BYTES_MAX];
    rpc__text_of_slice(request->details, text);
    struct rpc_result result = {.text = text};
    result.error =
        rpc__error_of_status(request->status, &request->trailing, request->details, cancelled_here);
    if (result.error == ERR_OK &&
        (request->reply == NULL || !rpc__buffer_is_plain(request->reply))) {
        result.error = ERR_IO;
        snprintf(text, sizeof(text), "the server's answer is missing or compressed");
    }
    if (result.error != ERR_OK) {
        result.not_sent = rpc__channel_call_not_sent(request->channel, request->call, text);
        metric_add(&rpc_client_call_error_count, 1);
    } else {
        result.owner = rpc__blob_of_buffer(request->reply);
        request->reply = NULL;
        result.reply = blob_view(result.owner);
    }
    request->done(request->context, &result);

    blob_unref(result.owner);
    grpc_byte_buffer_destroy(request->request);
    grpc_byte_buffer_destroy(request->reply); /* NULL is fine */
    grpc_metadata_array_destroy(&request->initial);
    grpc_metadata_array_destroy(&request->trailing);
    grpc_slice_unref(request->details);
    grpc_call_unref(request->call);
    request_unref(request);
}

static void request_start(struct rpc_request *request)
{
    grpc_op ops[6] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = request->request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &request->initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &request->reply;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &request->trailing;
    ops[5].data.recv_status_on_client.status = &request->status;
    ops[5].data.recv_status_on_client.status_details = &request->details;
    rpc__batch(request->call, ops, 6, &request->tag, request_run);
}

int rpc_call_start(struct rpc_channel *channel, const char *method, struct buf *request_bytes,
                   uint64_t deadline_ns, rpc_done_fn done, void *context,
                   struct rpc_request **handle)
{
    if (request_bytes->size > RPC_MESSAGE_BYTES_MAX) {
        return ERR_TOO_LARGE;
    }
    metric_add(&rpc_client_call_count, 1);
    struct rpc_request *request = mem_calloc(1, sizeof(*request));
    atomic_init(&request->refs, handle != NULL ? 2 : 1);
    request->channel = channel;
    rpc__channel_ref(channel);
    request->done = done;
    request->context = context;
    request->details = grpc_empty_slice();
    grpc_metadata_array_init(&request->initial);
    grpc_metadata_array_init(&request->trailing);
    request->request = rpc__buffer_of_buf(request_bytes);
    grpc_slice method_slice = grpc_slice_from_copied_string(method);
    request->call = grpc_channel_create_call(channel->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                             channel->queue->queue, method_slice, NULL,
                                             rpc__deadline_to_core(deadline_ns), NULL);
    grpc_slice_unref(method_slice);
    ASSERT(request->call != NULL);
    pthread_mutex_lock(&channel->lock);
    request->linked = true;
    rpc__list_add(&channel->requests, &request->link);
    pthread_mutex_unlock(&channel->lock);
    if (handle != NULL) {
        *handle = request; /* before the batch: `done` may run before this function returns */
    }
    request_start(request);
    return ERR_OK;
}

static void cancel_locked(struct rpc_request *request)
{
    request->cancelled_here = true;
    grpc_call_cancel(request->call, NULL);
}

void rpc__request_cancel_locked(struct rpc__link *link)
{
    cancel_locked(RPC_CONTAINER_OF(link, struct rpc_request, link));
}

void rpc_request_cancel(struct rpc_request *request)
{
    pthread_mutex_lock(&request->channel->lock);
    if (request->linked) {
        cancel_locked(request);
    }
    pthread_mutex_unlock(&request->channel->lock);
}

void rpc_request_unref(struct rpc_request *request)
{
    if (request != NULL) {
        request_unref(request);
    }
}

/* --- the blocking form --- */

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool finished;
    int error;
    struct buf *reply;
    char *text;
    size_t text_size;
};

static void waiter_done(void *context, const struct rpc_result *result)
{
    struct waiter *waiter = context;
    pthread_mutex_lock(&waiter->lock);
    waiter->error = result->error;
    if (result->error == ERR_OK) {
        buf_append_bytes(waiter->reply, result->reply);
    }
    if (waiter->text != NULL && waiter->text_size > 0) {
        snprintf(waiter->text, waiter->text_size, "%s", result->text);
    }
    waiter->finished = true;
    pthread_cond_signal(&waiter->changed);
    pthread_mutex_unlock(&waiter->lock);
}

int rpc_call_wait(struct rpc_channel *channel, const char *method, struct buf *request,
                  uint64_t deadline_ns, struct buf *reply, char *text, size_t text_size)
{
    ASSERT(!rpc__on_own_thread(channel->rpc));
    struct waiter waiter = {.reply = reply, .text = text, .text_size = text_size};
    if (text != NULL && text_size > 0) {
        text[0] = '\0';
    }
    pthread_mutex_init(&waiter.lock, NULL);
    pthread_cond_init(&waiter.changed, NULL);
    int error = rpc_call_start(channel, method, request, deadline_ns, waiter_done, &waiter, NULL);
    if (error == ERR_OK) {
        pthread_mutex_lock(&waiter.lock);
        while (!waiter.finished) {
            pthread_cond_wait(&waiter.changed, &waiter.lock);
        }
        pthread_mutex_unlock(&waiter.lock);
        error = waiter.error;
    }
    pthread_cond_destroy(&waiter.changed);
    pthread_mutex_destroy(&waiter.lock);
    return error;
}
