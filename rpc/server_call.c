/* Unary calls on the server side.
 *
 *   posted --(begin: a call)--> accepted --(reply or fail, any thread)--> answering --(both tags
 * back)--> freed
 *      \--(begin: shutdown)--> freed
 *
 * An accepted call has two tags out in the end: `close`, started at once, by which a caller that
 * has gone is seen, and `answer`. Both come back on the call's queue thread, so the count needs no
 * lock. Until it is answered the call belongs to the handler's owner, who answers exactly once. */
#include "base/metrics.h"
#include "rpc/rpc_internal.h"

METRIC(rpc_server_call_count, COUNTER, "unary calls accepted")
METRIC(rpc_server_call_refused_count, COUNTER, "unary calls refused: too many, or shutting down")
METRIC(rpc_server_unknown_method_count, COUNTER, "calls to methods that are not there")

struct rpc_call {
    struct rpc_server *server;
    struct rpc__method *method;
    struct rpc__queue *queue;
    grpc_call *call;
    struct rpc__tag begin;
    struct rpc__tag close;
    struct rpc__tag answer;
    gpr_timespec deadline;
    grpc_metadata_array initial;
    grpc_byte_buffer *request;
    grpc_byte_buffer *reply;
    struct rpc__reply reply_link; /* while `reply` is large and on its way */
    struct rpc__failure failure;
    bool failure_set;
    bool admitted; /* counted in calls_unanswered until it is answered */
    int close_cancelled;
    unsigned tags_out; /* queue thread */
    _Atomic bool cancelled;
    _Atomic(char *) peer;
};

static void call_free(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    rpc__reply_unlink(server, &call->reply_link);
    grpc_metadata_array_destroy(&call->initial);
    grpc_byte_buffer_destroy(call->request); /* NULL is fine */
    grpc_byte_buffer_destroy(call->reply);
    if (call->failure_set) {
        rpc__failure_deinit(&call->failure);
    }
    if (call->call != NULL) {
        grpc_call_unref(call->call);
    }
    char *peer = atomic_load_explicit(&call->peer, memory_order_acquire);
    if (peer != NULL) {
        gpr_free(peer);
    }
    free(call);
    rpc__server_release(server);
}

static void call_tag_back(struct rpc_call *call)
{
    ASSERT_CMP(call->tags_out, >, 0);
    call->tags_out--;
    if (call->tags_out == 0) {
        call_free(call);
    }
}

static void close_run(struct rpc__tag *tag, bool ok)
{
    (void)ok;
    struct rpc_call *call = RPC_CONTAINER_OF(tag, struct rpc_call, close);
    if (call->close_cancelled != 0) {
        atomic_store_explicit(&call->cancelled, true, memory_order_relaxed);
    }
    call_tag_back(call);
}

static void answer_run(struct rpc__tag *tag, bool ok)
{
    (void)ok; /* a caller that has gone hears nothing; it knows the outcome is unknown */
    call_tag_back(RPC_CONTAINER_OF(tag, struct rpc_call, answer));
}

static void answer_uncount(struct rpc_call *call)
{
    if (call->admitted) {
        call->admitted = false;
        atomic_fetch_sub_explicit(&call->server->calls_unanswered, 1, memory_order_relaxed);
    }
}

void rpc_call_reply(struct rpc_call *call, struct buf *reply)
{
    if (reply->size > RPC_MESSAGE_BYTES_MAX) {
        buf_deinit(reply);
        rpc_call_fail(call, ERR_IO, "the answer is larger than a message may be");
        return;
    }
    answer_uncount(call);
    rpc__reply_link(call->server, &call->reply_link, call->call, reply->size);
    call->reply = rpc__buffer_of_buf(reply);
    grpc_op ops[3] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = call->reply;
    rpc__status_op(&ops[2], GRPC_STATUS_OK, NULL);
    rpc__batch(call->call, ops, 3, &call->answer, answer_run);
}

void rpc_call_fail(struct rpc_call *call, int error, const char *text)
{
    ASSERT(error != ERR_OK);
    answer_uncount(call);
    rpc__failure_init(&call->failure, error, text);
    call->failure_set = true;
    grpc_op ops[2] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    rpc__status_op(&ops[1], rpc__status_of_error(error), &call->failure);
    rpc__batch(call->call, ops, 2, &call->answer, answer_run);
}

static void call_watch(struct rpc_call *call)
{
    grpc_op op = {0};
    op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    op.data.recv_close_on_server.cancelled = &call->close_cancelled;
    call->tags_out = 2; /* this, and the answer that will come */
    rpc__batch(call->call, &op, 1, &call->close, close_run);
}

static bool call_admit(struct rpc_call *call)
{
    struct rpc_server *server = call->server;
    uint32_t before = atomic_fetch_add_explicit(&server->calls_unanswered, 1, memory_order_relaxed);
    call->admitted = true;
    return before < server->options.calls_max;
}

static void begin_run(struct rpc__tag *tag, bool ok)
{
    struct rpc_call *call = RPC_CONTAINER_OF(tag, struct rpc_call, begin);
    struct rpc_server *server = call->server;
    if (!ok) {
        call_free(call);
        return;
    }
    if (!atomic_load(&server->stopping)) {
        rpc__call_post(server, call->method, call->queue);
    }
    metric_add(&rpc_server_call_count, 1);
    call_watch(call);
    if (atomic_load(&server->stopping)) {
        metric_add(&rpc_server_call_refused_count, 1);
        rpc_call_fail(call, ERR_SHUTDOWN, NULL);
        return;
    }
    if (call->request == NULL) {
        rpc_call_fail(call, ERR_PROTOCOL, "the call carries no request, or one that is too large");
        return;
    }
    if (!rpc__buffer_is_plain(call->request)) {
        rpc_call_fail(call, ERR_UNSUPPORTED, "compressed messages are not taken");
        return;
    }
    if (!call_admit(call)) {
        metric_add(&rpc_server_call_refused_count, 1);
        rpc_call_fail(call, ERR_BUSY, "too many calls at once: not executed, try again");
        return;
    }
    struct blob *owner = rpc__blob_of_buffer(call->request);
    call->request = NULL;
    call->method->handler(call->method->context, call, blob_view(owner), owner);
    blob_unref(owner);
}

void rpc__call_post(struct rpc_server *server, struct rpc__method *method, struct rpc__queue *queue)
{
    struct rpc_call *call = mem_calloc(1, sizeof(*call));
    rpc__server_hold(server);
    call->server = server;
    call->method = method;
    call->queue = queue;
    grpc_metadata_array_init(&call->initial);
    rpc__tag_arm(&call->begin, begin_run);
    grpc_call_error refused = grpc_server_request_registered_call(
        server->server, method->handle, &call->call, &call->deadline, &call->initial,
        &call->request, queue->queue, queue->queue, &call->begin);
    ASSERT_CMP(refused, ==, GRPC_CALL_OK);
}

uint64_t rpc_call_deadline_ns(const struct rpc_call *call)
{
    return rpc__deadline_of_core(call->deadline);
}

bool rpc_call_is_cancelled(const struct rpc_call *call)
{
    return atomic_load_explicit(&call->cancelled, memory_order_relaxed);
}

const char *rpc_call_peer(const struct rpc_call *call)
{
    /* Asked for seldom, so made when asked for; the field is a cache, not state. */
    struct rpc_call *cache = (struct rpc_call *)(uintptr_t)call;
    char *peer = atomic_load_explicit(&cache->peer, memory_order_acquire);
    if (peer != NULL) {
        return peer;
    }
    char *made = grpc_call_get_peer(cache->call);
    if (atomic_compare_exchange_strong(&cache->peer, &peer, made)) {
        return made;
    }
    gpr_free(made);
    return peer;
}

/* --- calls to methods that are not there --- */

struct unknown_call {
    struct rpc_server *server;
    struct rpc__queue *queue;
    grpc_call *call;
    struct rpc__tag begin;
    struct rpc__tag end;
    grpc_call_details details;
    grpc_metadata_array initial;
    struct rpc__failure failure;
    int cancelled;
};

static void unknown_free(struct unknown_call *unknown)
{
    struct rpc_server *server = unknown->server;
    grpc_call_details_destroy(&unknown->details);
    grpc_metadata_array_destroy(&unknown->initial);
    if (unknown->call != NULL) {
        grpc_call_unref(unknown->call);
    }
    free(unknown);
    rpc__server_release(server);
}

static void unknown_end_run(struct rpc__tag *tag, bool ok)
{
    (void)ok;
    struct unknown_call *unknown = RPC_CONTAINER_OF(tag, struct unknown_call, end);
    rpc__failure_deinit(&unknown->failure);
    unknown_free(unknown);
}

static void unknown_begin_run(struct rpc__tag *tag, bool ok)
{
    struct unknown_call *unknown = RPC_CONTAINER_OF(tag, struct unknown_call, begin);
    if (!ok) {
        unknown_free(unknown);
        return;
    }
    if (!atomic_load(&unknown->server->stopping)) {
        rpc__unknown_post(unknown->server, unknown->queue);
    }
    metric_add(&rpc_server_unknown_method_count, 1);
    rpc__failure_init(&unknown->failure, ERR_UNSUPPORTED, "no such method");
    grpc_op ops[3] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    rpc__status_op(&ops[1], GRPC_STATUS_UNIMPLEMENTED, &unknown->failure);
    ops[2].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[2].data.recv_close_on_server.cancelled = &unknown->cancelled;
    rpc__batch(unknown->call, ops, 3, &unknown->end, unknown_end_run);
}

void rpc__unknown_post(struct rpc_server *server, struct rpc__queue *queue)
{
    struct unknown_call *unknown = mem_calloc(1, sizeof(*unknown));
    rpc__server_hold(server);
    unknown->server = server;
    unknown->queue = queue;
    grpc_call_details_init(&unknown->details);
    grpc_metadata_array_init(&unknown->initial);
    rpc__tag_arm(&unknown->begin, unknown_begin_run);
    grpc_call_error refused =
        grpc_server_request_call(server->server, &unknown->call, &unknown->details,
                                 &unknown->initial, queue->queue, queue->queue, &unknown->begin);
    ASSERT_CMP(refused, ==, GRPC_CALL_OK);
}
