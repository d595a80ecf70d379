/* rpc.h without gRPC: bidirectional streams, both sides. See sim_rpc.h.
 *
 *   what arrives --> inbox --(not paused, not inside `message`)--> callbacks
 *
 * The end is the last thing in the inbox. */
#include "sim/sim_rpc.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void inbox_clear(struct rpc_stream *stream)
{
    while (stream->inbox_first != NULL) {
        struct conn_message *message = stream->inbox_first;
        stream->inbox_first = message->next;
        conn_message_free(message);
    }
    stream->inbox_last = NULL;
}

struct rpc_stream *rpc_stream_ref(struct rpc_stream *stream)
{
    stream->references++;
    return stream;
}

void rpc_stream_unref(struct rpc_stream *stream)
{
    ASSERT_CMP(stream->references, >, 0);
    if (--stream->references == 0) {
        inbox_clear(stream);
        conn_unref(stream->conn);
        free(stream);
    }
}

static void stream_unlink(struct rpc_stream *stream)
{
    if (stream->link != NULL) {
        *stream->link = stream->next;
        if (stream->next != NULL) {
            stream->next->link = stream->link;
        }
        stream->link = NULL;
    }
}

static void stream_link(struct rpc_stream *stream, struct rpc_stream **list)
{
    stream->next = *list;
    stream->link = list;
    if (stream->next != NULL) {
        stream->next->link = &stream->next;
    }
    *list = stream;
}

/* The last callback. */
static void stream_end(struct rpc_stream *stream, int error, const char *text)
{
    if (stream->ended) {
        return;
    }
    stream->ended = true;
    conn_detach(stream->conn, stream->side);
    inbox_clear(stream);
    struct sim_host *former = sim_callback_enter(stream->host);
    stream->events.closed(stream->context, stream, error, text);
    sim_callback_leave(former);
    stream_unlink(stream);
    if (stream->side == CONN_CLIENT) {
        stream->rpc->active--;
    }
    rpc_stream_unref(stream);
}

/* ---- what arrives ---- */

static void take_data(struct rpc_stream *stream, const struct conn_message *message)
{
    stream->delivering = true;
    stream->resumed = false;
    struct sim_host *former = sim_callback_enter(stream->host);
    bool more = stream->events.message(stream->context, stream, blob_view(message->payload),
                                       message->payload);
    sim_callback_leave(former);
    stream->delivering = false;
    stream->paused = !more && !stream->resumed;
}

static void take_finish(struct rpc_stream *stream)
{
    if (stream->events.finished == NULL) {
        rpc_stream_finish(stream);
        return;
    }
    struct sim_host *former = sim_callback_enter(stream->host);
    stream->events.finished(stream->context, stream);
    sim_callback_leave(former);
}

static void take_one(struct rpc_stream *stream, const struct conn_message *message)
{
    switch (message->kind) {
    case CONN_DATA:
        take_data(stream, message);
        break;
    case CONN_FINISH:
        take_finish(stream);
        break;
    case CONN_CANCEL:
        stream_end(stream, ERR_CANCELED, "cancelled");
        break;
    case CONN_CLOSE:
    case CONN_BROKEN:
        stream_end(stream, message->error, message->text);
        break;
    case CONN_OPEN:
        UNREACHABLE();
    }
}

static void drain(struct rpc_stream *stream)
{
    rpc_stream_ref(stream);
    while (stream->inbox_first != NULL && !stream->paused && !stream->delivering &&
           !stream->ended) {
        struct conn_message *message = stream->inbox_first;
        stream->inbox_first = message->next;
        if (stream->inbox_first == NULL) {
            stream->inbox_last = NULL;
        }
        take_one(stream, message);
        conn_message_free(message);
    }
    rpc_stream_unref(stream);
}

static void stream_take(void *user, struct conn_message *message)
{
    struct rpc_stream *stream = user;
    if (stream->ended || stream->cancelled) {
        conn_message_free(message);
        return;
    }
    if (stream->inbox_last != NULL) {
        stream->inbox_last->next = message;
    } else {
        stream->inbox_first = message;
    }
    stream->inbox_last = message;
    drain(stream);
}

static void stream_left(void *user, size_t bytes)
{
    struct rpc_stream *stream = user;
    stream->queued_bytes -= bytes < stream->queued_bytes ? bytes : stream->queued_bytes;
    if (stream->refused && stream->queued_bytes < stream->send_bytes_max / 2 && !stream->ended) {
        stream->refused = false;
        if (stream->events.writable != NULL) {
            stream->events.writable(stream->context, stream);
        }
    }
}

/* ---- deferred: callbacks never run inside a call of rpc.h ---- */

static void stream_drop(void *context, void *payload)
{
    (void)payload;
    rpc_stream_unref(context);
}

static void resumed_run(void *context, void *payload)
{
    drain(context);
    stream_drop(context, payload);
}

static void cancelled_run(void *context, void *payload)
{
    stream_end(context, ERR_CANCELED, "cancelled");
    stream_drop(context, payload);
}

static void finished_run(void *context, void *payload)
{
    stream_end(context, ERR_OK, "");
    stream_drop(context, payload);
}

static void shut_down_run(void *context, void *payload)
{
    stream_end(context, ERR_SHUTDOWN, "the server is shutting down");
    stream_drop(context, payload);
}

static void later(struct rpc_stream *stream, sim_event_run_fn run)
{
    sim_after(stream->host, 0, run, stream_drop, rpc_stream_ref(stream), NULL);
}

/* ---- opening ---- */

static struct rpc_stream *stream_create(struct rpc *rpc, enum conn_side side,
                                        const struct rpc_stream_events *events, void *context,
                                        uint64_t send_bytes_max)
{
    struct rpc_stream *stream = mem_calloc(1, sizeof *stream);
    stream->references = 1;
    stream->host = rpc->host;
    stream->rpc = rpc;
    stream->side = side;
    stream->events = *events;
    stream->context = context;
    stream->send_bytes_max = send_bytes_max;
    return stream;
}

int rpc_stream_open(struct rpc_channel *channel, const char *method,
                    const struct rpc_stream_events *events, void *context, uint64_t send_bytes_max,
                    struct rpc_stream **out)
{
    struct rpc_stream *stream =
        stream_create(channel->rpc, CONN_CLIENT, events, context, send_bytes_max);
    struct sim_host *former = sim_enter(stream->host);
    stream->conn =
        conn_open(channel->address, method, true, UINT64_MAX, stream, stream_take, stream_left);
    sim_leave(former);
    (void)snprintf(stream->peer, sizeof stream->peer, "%s", channel->address);
    stream_link(stream, &channel->streams);
    channel->rpc->active++;
    conn_send(stream->conn, CONN_CLIENT, CONN_OPEN, 0, "", NULL);
    *out = rpc_stream_ref(stream);
    return ERR_OK;
}

void rpc__stream_accept(struct rpc_server *server, const struct sim_method *method,
                        struct conn *conn)
{
    struct rpc_stream *stream =
        stream_create(server->rpc, CONN_SERVER, &method->events, method->context,
                      server->options.stream_send_bytes_max);
    stream->conn = conn_ref(conn);
    (void)snprintf(stream->peer, sizeof stream->peer, "%s", conn->ends[CONN_CLIENT].host->address);
    struct conn_end *end = &conn->ends[CONN_SERVER];
    end->open = true;
    end->user = stream;
    end->take = stream_take;
    end->left = stream_left;
    int error =
        method->events.opened == NULL ? ERR_OK : method->events.opened(method->context, stream);
    if (error != ERR_OK) {
        conn_send(conn, CONN_SERVER, CONN_CLOSE, error, "refused", NULL);
        conn_detach(conn, CONN_SERVER);
        stream->ended = true;
        rpc_stream_unref(stream);
        return;
    }
    stream_link(stream, &server->streams);
}

/* ---- both sides ---- */

int rpc_stream_send(struct rpc_stream *stream, struct buf *message)
{
    if (stream->ended || stream->finished || stream->cancelled) {
        return ERR_UNAVAILABLE;
    }
    if (message->size > RPC_MESSAGE_BYTES_MAX) {
        return ERR_TOO_LARGE;
    }
    if (stream->queued_bytes > 0 && message->size > stream->send_bytes_max - stream->queued_bytes) {
        stream->refused = true;
        return ERR_BUSY;
    }
    stream->queued_bytes += message->size;
    struct blob *payload = blob_take_buf(message);
    conn_send(stream->conn, stream->side, CONN_DATA, 0, "", payload);
    blob_unref(payload);
    return ERR_OK;
}

void rpc_stream_finish(struct rpc_stream *stream)
{
    if (stream->ended || stream->finished || stream->cancelled) {
        return;
    }
    stream->finished = true;
    if (stream->side == CONN_CLIENT) {
        conn_send(stream->conn, CONN_CLIENT, CONN_FINISH, 0, "", NULL);
    } else {
        conn_send(stream->conn, CONN_SERVER, CONN_CLOSE, ERR_OK, "", NULL);
        later(stream, finished_run);
    }
}

void rpc_stream_cancel(struct rpc_stream *stream)
{
    if (stream->ended || stream->cancelled) {
        return;
    }
    stream->cancelled = true;
    inbox_clear(stream);
    conn_send(stream->conn, stream->side, stream->side == CONN_CLIENT ? CONN_CANCEL : CONN_CLOSE,
              ERR_CANCELED, "cancelled", NULL);
    later(stream, cancelled_run);
}

void rpc_stream_resume(struct rpc_stream *stream)
{
    stream->resumed = true;
    if (stream->paused) {
        stream->paused = false;
        later(stream, resumed_run);
    }
}

uint64_t rpc_stream_queued_bytes(const struct rpc_stream *stream)
{
    return stream->queued_bytes;
}

void rpc_stream_set_user(struct rpc_stream *stream, void *user)
{
    stream->user = user;
}

void *rpc_stream_user(const struct rpc_stream *stream)
{
    return stream->user;
}

const char *rpc_stream_peer(const struct rpc_stream *stream)
{
    return stream->peer;
}

void rpc__streams_shut_down(struct rpc_server *server)
{
    for (struct rpc_stream *stream = server->streams; stream != NULL; stream = stream->next) {
        if (!stream->finished && !stream->cancelled) {
            conn_send(stream->conn, CONN_SERVER, CONN_CLOSE, ERR_UNAVAILABLE, "shutting down",
                      NULL);
        }
        stream->finished = true;
        later(stream, shut_down_run);
    }
}

void rpc__streams_of_channel_cancel(struct rpc_channel *channel)
{
    while (channel->streams != NULL) {
        struct rpc_stream *stream = channel->streams;
        stream_unlink(stream);
        rpc_stream_cancel(stream);
    }
}
