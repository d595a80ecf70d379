/* Bidirectional streams, the part both sides share: sending, receiving, ending.
 *
 * At most one send and one receive are out at a time; the core allows no more. Sends wait in a
 * queue bounded by bytes; while more wait behind the one being started it leaves with a buffer
 * hint, so a burst becomes few packets.
 *
 * Reading:  IDLE --resume--> ACTIVE --message--> CALLBACK --true--> ACTIVE
 *                                                   |--false--> IDLE (ACTIVE if resumed)
 *                              |--no more--> DONE
 *
 * End. `end` is the core's last word (the status on the client, the close on the server); it can
 * come before the send or receive that are out come back. `closed` is called when all three are
 * back, so nothing follows it. All of this happens on the stream's queue thread; other threads only
 * put into the queue, resume, finish and cancel, under the lock, while `call` is not NULL. */
#include "base/metrics.h"
#include "rpc/rpc_internal.h"

METRIC(rpc_stream_sent_count, COUNTER, "stream messages handed to the core")
METRIC(rpc_stream_received_count, COUNTER, "stream messages received")
METRIC(rpc_stream_busy_count, COUNTER, "stream messages refused because the send queue was full")

/* --- life --- */

struct rpc_stream *rpc__stream_new(struct rpc__queue *queue)
{
    struct rpc_stream *stream = mem_calloc(1, sizeof(*stream));
    atomic_init(&stream->refs, 1);
    stream->queue = queue;
    stream->details = grpc_empty_slice();
    grpc_metadata_array_init(&stream->initial);
    grpc_metadata_array_init(&stream->trailing);
    pthread_mutex_init(&stream->lock, NULL);
    return stream;
}

struct rpc_stream *rpc_stream_ref(struct rpc_stream *stream)
{
    atomic_fetch_add_explicit(&stream->refs, 1, memory_order_relaxed);
    return stream;
}

void rpc_stream_unref(struct rpc_stream *stream)
{
    if (stream == NULL || atomic_fetch_sub_explicit(&stream->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    ASSERT(stream->call == NULL);
    ASSERT(stream->queue_head == NULL);
    pthread_mutex_destroy(&stream->lock);
    free(stream->peer);
    free(stream);
}

static void messages_free(struct rpc__message *head)
{
    while (head != NULL) {
        struct rpc__message *next = head->next;
        grpc_byte_buffer_destroy(head->buffer);
        free(head);
        head = next;
    }
}

static void queued_subtract(struct rpc_stream *stream, uint64_t bytes)
{
    uint64_t before = atomic_fetch_sub_explicit(&stream->queued_bytes, bytes, memory_order_relaxed);
    ASSERT_CMP(before, >=, bytes);
    if (stream->server != NULL) {
        rpc__answers_subtract(stream->server, bytes);
    }
}

/* Takes all that waits out of the queue; the caller frees it without the lock. */
static struct rpc__message *queue_take_locked(struct rpc_stream *stream)
{
    struct rpc__message *head = stream->queue_head;
    for (struct rpc__message *at = head; at != NULL; at = at->next) {
        queued_subtract(stream, at->bytes);
    }
    stream->queue_head = NULL;
    stream->queue_tail = NULL;
    return head;
}

/* What the core lent or wrote; the last user of it is gone. */
static void core_parts_free(struct rpc_stream *stream)
{
    grpc_metadata_array_destroy(&stream->initial);
    grpc_metadata_array_destroy(&stream->trailing);
    grpc_byte_buffer_destroy(stream->received); /* NULL is fine */
    stream->received = NULL;
    grpc_slice_unref(stream->details);
    stream->details = grpc_empty_slice();
    if (stream->failure_set) {
        rpc__failure_deinit(&stream->failure);
        stream->failure_set = false;
    }
}

void rpc__stream_free_unstarted(struct rpc_stream *stream)
{
    core_parts_free(stream);
    rpc_stream_unref(stream);
}

static int closed_error(struct rpc_stream *stream, char text[RPC_ERROR_TEXT_BYTES_MAX])
{
    text[0] = '\0';
    if (stream->channel != NULL) {
        rpc__text_of_slice(stream->details, text);
        return rpc__error_of_status(stream->status, &stream->trailing, stream->details,
                                    stream->cancelled_here);
    }
    if (stream->cancelled != 0 || stream->cancelled_here) {
        return ERR_CANCELED; /* by whom, or by a broken connection, the core does not say */
    }
    return stream->finish_error;
}

static void unlink_from_owner(struct rpc_stream *stream)
{
    if (stream->channel != NULL) {
        pthread_mutex_lock(&stream->channel->lock);
        rpc__list_remove(&stream->link);
        pthread_mutex_unlock(&stream->channel->lock);
    } else if (stream->counted) {
        pthread_mutex_lock(&stream->server->lock);
        rpc__list_remove(&stream->link);
        stream->server->stream_count--;
        stream->method->stream_count--;
        pthread_mutex_unlock(&stream->server->lock);
    }
}

/* Queue thread. Closes once the end has come and nothing else is out. */
static void close_if_over(struct rpc_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    bool over = stream->ended && !stream->send_active && stream->read != RPC__READ_ACTIVE;
    grpc_call *call = stream->call;
    struct rpc__message *unsent = NULL;
    if (over) {
        ASSERT(!stream->released);
        stream->released = true;
        stream->call = NULL;
        stream->send_broken = true;
        unsent = queue_take_locked(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    if (!over) {
        return;
    }
    unlink_from_owner(stream);
    messages_free(unsent);
    if (!stream->refused) {
        char text[RPC_ERROR_TEXT_BYTES_MAX];
        int error = closed_error(stream, text);
        stream->events.closed(stream->context, stream, error, text);
    }
    core_parts_free(stream);
    grpc_call_unref(call);
    struct rpc_channel *channel = stream->channel;
    struct rpc_server *server = stream->server;
    rpc_stream_unref(stream);
    if (channel != NULL) {
        rpc__channel_unref(channel);
    } else {
        rpc__server_release(server);
    }
}

void rpc__stream_end_run(struct rpc__tag *tag, bool ok)
{
    (void)ok; /* always succeeds; the status or the cancelled flag tells */
    struct rpc_stream *stream = RPC_CONTAINER_OF(tag, struct rpc_stream, end);
    pthread_mutex_lock(&stream->lock);
    stream->ended = true;
    pthread_mutex_unlock(&stream->lock);
    close_if_over(stream);
}

/* --- sending --- */

static void send_run(struct rpc__tag *tag, bool ok);

static void finish_locked(struct rpc_stream *stream)
{
    grpc_op op = {0};
    stream->finish_started = true;
    stream->send_active = true;
    if (stream->channel != NULL) {
        op.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    } else {
        /* Always OK: with any other status the client's core drops the messages it has not yet
         * delivered. What is wrong, if anything, travels beside it. */
        rpc__status_op(&op, GRPC_STATUS_OK, stream->failure_set ? &stream->failure : NULL);
    }
    rpc__batch(stream->call, &op, 1, &stream->send, send_run);
}

void rpc__stream_send_next_locked(struct rpc_stream *stream)
{
    if (!stream->started || stream->ended || stream->send_active || stream->send_broken) {
        return;
    }
    struct rpc__message *message = stream->queue_head;
    if (message == NULL) {
        if (stream->finishing && !stream->finish_started) {
            finish_locked(stream);
        }
        return;
    }
    stream->queue_head = message->next;
    if (stream->queue_head == NULL) {
        stream->queue_tail = NULL;
    }
    message->next = NULL;
    stream->sending = message;
    stream->send_active = true;
    grpc_op op = {0};
    op.op = GRPC_OP_SEND_MESSAGE;
    op.flags = stream->queue_head != NULL ? GRPC_WRITE_BUFFER_HINT : 0;
    op.data.send_message.send_message = message->buffer;
    rpc__batch(stream->call, &op, 1, &stream->send, send_run);
}

static void send_run(struct rpc__tag *tag, bool ok)
{
    struct rpc_stream *stream = RPC_CONTAINER_OF(tag, struct rpc_stream, send);
    struct rpc__message *unsent = NULL;
    pthread_mutex_lock(&stream->lock);
    stream->send_active = false;
    struct rpc__message *sent = stream->sending;
    stream->sending = NULL;
    if (sent != NULL) {
        queued_subtract(stream, sent->bytes);
    }
    if (ok) {
        rpc__stream_send_next_locked(stream);
    } else {
        stream->send_broken = true; /* the end follows */
        unsent = queue_take_locked(stream);
    }
    bool writable = stream->writable_owed && !stream->send_broken && !stream->finishing &&
                    !stream->ended &&
                    atomic_load_explicit(&stream->queued_bytes, memory_order_relaxed) <=
                        stream->send_bytes_max / 2;
    if (writable) {
        stream->writable_owed = false;
    }
    pthread_mutex_unlock(&stream->lock);
    messages_free(sent);
    messages_free(unsent);
    if (writable && stream->events.writable != NULL) {
        stream->events.writable(stream->context, stream);
    }
    close_if_over(stream);
}

int rpc_stream_send(struct rpc_stream *stream, struct buf *bytes)
{
    if (bytes->size > RPC_MESSAGE_BYTES_MAX) {
        return ERR_TOO_LARGE;
    }
    uint64_t size = (uint64_t)bytes->size + RPC_MESSAGE_OVERHEAD_BYTES;
    struct rpc_server *crowded = NULL;
    int error = ERR_OK;
    pthread_mutex_lock(&stream->lock);
    uint64_t queued = atomic_load_explicit(&stream->queued_bytes, memory_order_relaxed);
    if (stream->call == NULL || stream->ended || stream->send_broken || stream->finishing ||
        stream->cancelled_here) {
        error = ERR_UNAVAILABLE;
    } else if (queued > 0 &&
               (queued >= stream->send_bytes_max || size > stream->send_bytes_max - queued)) {
        error = ERR_BUSY; /* one larger than the bound still fits an empty queue */
        stream->writable_owed = true;
        metric_add(&rpc_stream_busy_count, 1);
    } else {
        struct rpc__message *message = mem_calloc(1, sizeof(*message));
        message->buffer = rpc__buffer_of_buf(bytes);
        message->bytes = size;
        atomic_fetch_add_explicit(&stream->queued_bytes, size, memory_order_relaxed);
        if (stream->server != NULL && rpc__answers_add(stream->server, size)) {
            crowded = stream->server;
            rpc__server_hold(crowded); /* without the lock this stream may end, and it with it */
        }
        if (stream->queue_tail != NULL) {
            stream->queue_tail->next = message;
        } else {
            stream->queue_head = message;
        }
        stream->queue_tail = message;
        metric_add(&rpc_stream_sent_count, 1);
        rpc__stream_send_next_locked(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    if (crowded != NULL) {
        rpc__answers_relieve(crowded);
        rpc__server_release(crowded);
    }
    return error;
}

void rpc_stream_finish(struct rpc_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    if (stream->call != NULL && !stream->finishing) {
        stream->finishing = true;
        rpc__stream_send_next_locked(stream);
    }
    pthread_mutex_unlock(&stream->lock);
}

void rpc__stream_end_by_server(struct rpc_stream *stream, int error, const char *text)
{
    pthread_mutex_lock(&stream->lock);
    if (stream->call != NULL && !stream->finishing) {
        stream->finishing = true;
        stream->finish_error = error;
        rpc__failure_init(&stream->failure, error, text);
        stream->failure_set = true;
        rpc__stream_send_next_locked(stream);
    }
    pthread_mutex_unlock(&stream->lock);
}

void rpc_stream_cancel(struct rpc_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    if (stream->call != NULL && !stream->ended) {
        stream->cancelled_here = true;
        grpc_call_cancel(stream->call, NULL);
    }
    pthread_mutex_unlock(&stream->lock);
}

uint64_t rpc_stream_queued_bytes(const struct rpc_stream *stream)
{
    return atomic_load_explicit(&stream->queued_bytes, memory_order_relaxed);
}

/* --- receiving --- */

static void receive_end(struct rpc_stream *stream, bool in_order)
{
    pthread_mutex_lock(&stream->lock);
    stream->read = RPC__READ_DONE;
    bool tell = in_order && !stream->ended && stream->server != NULL && !stream->cancelled_here;
    pthread_mutex_unlock(&stream->lock);
    if (tell && stream->events.finished != NULL) {
        stream->events.finished(stream->context, stream);
    } else if (tell) {
        rpc_stream_finish(stream);
    }
    close_if_over(stream);
}

static void receive_run(struct rpc__tag *tag, bool ok)
{
    struct rpc_stream *stream = RPC_CONTAINER_OF(tag, struct rpc_stream, receive);
    grpc_byte_buffer *received = stream->received;
    stream->received = NULL;
    if (!ok || received == NULL) {
        grpc_byte_buffer_destroy(received);
        receive_end(stream, ok && grpc_call_failed_before_recv_message(stream->call) == 0);
        return;
    }
    if (!rpc__buffer_is_plain(received)) {
        grpc_byte_buffer_destroy(received);
        rpc_stream_cancel(stream);
        receive_end(stream, false);
        return;
    }
    pthread_mutex_lock(&stream->lock);
    stream->read = RPC__READ_CALLBACK;
    pthread_mutex_unlock(&stream->lock);
    metric_add(&rpc_stream_received_count, 1);

    struct blob *owner = rpc__blob_of_buffer(received);
    bool more = stream->events.message(stream->context, stream, blob_view(owner), owner);
    blob_unref(owner);

    pthread_mutex_lock(&stream->lock);
    more = more || stream->read == RPC__READ_CALLBACK_RESUMED;
    stream->read = RPC__READ_IDLE;
    struct rpc__queue *queue = stream->queue;
    if (more && queue->reads_wait) {
        queue->waiting[queue->waiting_count++] = rpc_stream_ref(stream);
    } else if (more) {
        rpc__stream_receive_locked(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    close_if_over(stream);
}

void rpc__stream_receive_locked(struct rpc_stream *stream)
{
    ASSERT_CMP(stream->read, ==, RPC__READ_IDLE);
    if (!stream->started || stream->ended) {
        return;
    }
    stream->read = RPC__READ_ACTIVE;
    grpc_op op = {0};
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &stream->received;
    rpc__batch(stream->call, &op, 1, &stream->receive, receive_run);
}

void rpc_stream_resume(struct rpc_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    if (stream->read == RPC__READ_IDLE) {
        rpc__stream_receive_locked(stream);
    } else if (stream->read == RPC__READ_CALLBACK) {
        stream->read = RPC__READ_CALLBACK_RESUMED;
    }
    pthread_mutex_unlock(&stream->lock);
}

/* --- small things --- */

void rpc_stream_set_user(struct rpc_stream *stream, void *user)
{
    atomic_store_explicit(&stream->user, user, memory_order_release);
}

void *rpc_stream_user(const struct rpc_stream *stream)
{
    return atomic_load_explicit(&stream->user, memory_order_acquire);
}

const char *rpc_stream_peer(const struct rpc_stream *stream)
{
    return stream->peer;
}
