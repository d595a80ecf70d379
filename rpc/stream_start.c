/* How a stream begins: opened by a client, accepted by a server. Between the call's arrival and
 * `opened`'s return nothing is started, so what the handler sends meanwhile waits in the queue. */
#include "rpc/rpc_internal.h"

/* --- client --- */

int rpc_stream_open(struct rpc_channel *channel, const char *method,
                    const struct rpc_stream_events *events, void *context, uint64_t send_bytes_max,
                    struct rpc_stream **out)
{
    ASSERT(events->message != NULL);
    ASSERT(events->closed != NULL);
    struct rpc_stream *stream = rpc__stream_new(channel->queue);
    stream->channel = channel;
    rpc__channel_ref(channel);
    stream->events = *events;
    stream->context = context;
    stream->send_bytes_max = send_bytes_max;
    stream->peer = mem_strdup(channel->target);
    grpc_slice method_slice = grpc_slice_from_copied_string(method);
    grpc_call *call = grpc_channel_create_call(channel->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                               channel->queue->queue, method_slice, NULL,
                                               gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_slice_unref(method_slice);
    ASSERT(call != NULL);
    pthread_mutex_lock(&channel->lock);
    rpc__list_add(&channel->streams, &stream->link);
    pthread_mutex_unlock(&channel->lock);
    rpc_stream_ref(stream); /* the caller's */
    *out = stream;          /* before anything can call back */

    grpc_op ops[3] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &stream->initial;
    ops[2].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[2].data.recv_status_on_client.trailing_metadata = &stream->trailing;
    ops[2].data.recv_status_on_client.status = &stream->status;
    ops[2].data.recv_status_on_client.status_details = &stream->details;
    pthread_mutex_lock(&stream->lock);
    stream->call = call;
    stream->started = true;
    rpc__batch(call, ops, 3, &stream->end, rpc__stream_end_run);
    rpc__stream_receive_locked(stream);
    pthread_mutex_unlock(&stream->lock);
    return ERR_OK;
}

/* --- server --- */

static void accept_refuse(struct rpc_stream *stream, int error, const char *text)
{
    grpc_op ops[3] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[2].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[2].data.recv_close_on_server.cancelled = &stream->cancelled;
    pthread_mutex_lock(&stream->lock);
    stream->refused = true;
    stream->send_broken = true;
    stream->finishing = true;
    if (stream->failure_set) { /* the server's shutdown came in between */
        rpc__failure_deinit(&stream->failure);
    }
    rpc__failure_init(&stream->failure, error, text);
    stream->failure_set = true;
    rpc__status_op(&ops[1], rpc__status_of_error(error), &stream->failure);
    rpc__batch(stream->call, ops, 3, &stream->end, rpc__stream_end_run);
    pthread_mutex_unlock(&stream->lock);
}

static void accept_start(struct rpc_stream *stream)
{
    grpc_op ops[2] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[1].data.recv_close_on_server.cancelled = &stream->cancelled;
    pthread_mutex_lock(&stream->lock);
    stream->started = true;
    rpc__batch(stream->call, ops, 2, &stream->end, rpc__stream_end_run);
    rpc__stream_receive_locked(stream);
    rpc__stream_send_next_locked(stream);
    pthread_mutex_unlock(&stream->lock);
}

/* Into the server's list, unless it stops or has too many: then an error. */
static int accept_count(struct rpc_stream *stream)
{
    struct rpc_server *server = stream->server;
    int error = ERR_OK;
    pthread_mutex_lock(&server->lock);
    if (atomic_load(&server->stopping)) {
        error = ERR_SHUTDOWN;
    } else if (stream->method->stream_count >= server->options.streams_max) {
        error = ERR_BUSY;
    } else {
        server->stream_count++;
        stream->method->stream_count++;
        rpc__list_add(&server->streams, &stream->link);
        stream->counted = true;
    }
    pthread_mutex_unlock(&server->lock);
    return error;
}

static void accept_run(struct rpc__tag *tag, bool ok)
{
    struct rpc_stream *stream = RPC_CONTAINER_OF(tag, struct rpc_stream, begin);
    struct rpc_server *server = stream->server;
    if (!ok) {
        rpc__stream_free_unstarted(stream);
        rpc__server_release(server);
        return;
    }
    if (!atomic_load(&server->stopping)) {
        rpc__stream_post(server, stream->method, stream->queue);
    }
    char *peer = grpc_call_get_peer(stream->call);
    stream->peer = mem_strdup(peer);
    gpr_free(peer);
    int error = accept_count(stream);
    if (error == ERR_OK && stream->events.opened != NULL) {
        error = stream->events.opened(stream->context, stream);
    }
    if (error != ERR_OK) {
        accept_refuse(stream, error, NULL);
    } else {
        accept_start(stream);
    }
}

void rpc__stream_post(struct rpc_server *server, struct rpc__method *method,
                      struct rpc__queue *queue)
{
    struct rpc_stream *stream = rpc__stream_new(queue);
    rpc__server_hold(server);
    stream->server = server;
    stream->method = method;
    stream->events = method->events;
    stream->context = method->context;
    stream->send_bytes_max = server->options.stream_send_bytes_max;
    rpc__tag_arm(&stream->begin, accept_run);
    grpc_call_error refused = grpc_server_request_registered_call(
        server->server, method->handle, &stream->call, &stream->deadline, &stream->initial, NULL,
        queue->queue, queue->queue, &stream->begin);
    ASSERT_CMP(refused, ==, GRPC_CALL_OK);
}
