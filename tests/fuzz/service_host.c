/* See service_host.h. */
#include "fuzz/service_host.h"

#include "base/assert.h"
#include "proto/messages.h"
#include "shardkv/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum waiting_kind { WAITING_COMMAND, WAITING_READ, WAITING_JOB, WAITING_HASH };

struct waiting {
    struct waiting *next;
    enum waiting_kind kind;
    struct node *node;
    struct blob *owner;
    struct bytes payload;
    node_done_fn done;
    node_read_fn serve;
    node_hash_fn hashed;
    worker_job_fn job;
    void *context;
};

static struct waiting *first;
static struct waiting **last = &first;

static void wait_add(struct waiting waiting)
{
    struct waiting *copy = mem_dup(&waiting, sizeof waiting);
    copy->next = NULL;
    *last = copy;
    last = &copy->next;
}

static void run_command(struct waiting *waiting)
{
    struct node *node = waiting->node;
    struct buf result = {0};
    struct raft_position position = {.index = ++node->index, .term = 1};
    node->time_ms++;
    struct sm_command command = {.position = position,
                                 .time_ms = node->time_ms,
                                 .payload = waiting->payload,
                                 .result = &result};
    struct sm_batch batch = {.commands = &command, .count = 1, .last = position};
    int error = node->sm.ops->apply(node->sm.sm, &batch);
    ASSERT(error == 0);
    waiting->done(waiting->context, 0, position, buf_view(&result));
    buf_deinit(&result);
    blob_unref(waiting->owner);
}

static void run_hash(struct waiting *waiting)
{
    uint64_t hash = 0;
    struct raft_position position = {0};
    int error = waiting->node->sm.ops->hash(waiting->node->sm.sm, &hash, &position);
    waiting->hashed(waiting->context, error, hash, position);
}

void service_host_run(void)
{
    while (first != NULL) {
        struct waiting *waiting = first;
        first = waiting->next;
        last = first == NULL ? &first : last;
        bool ended = true;
        switch (waiting->kind) {
        case WAITING_COMMAND:
            run_command(waiting);
            break;
        case WAITING_READ:
            waiting->serve(waiting->context, 0);
            break;
        case WAITING_HASH:
            run_hash(waiting);
            break;
        case WAITING_JOB:
            ended = waiting->job(waiting->context, false);
            break;
        }
        if (!ended) {
            wait_add(*waiting);
        }
        free(waiting);
    }
}

/* ---- node.h ---- */

int __wrap_node_propose(struct node *node, struct bytes payload, struct blob *owner,
                        node_done_fn done, void *context);
int __wrap_node_propose(struct node *node, struct bytes payload, struct blob *owner,
                        node_done_fn done, void *context)
{
    if (node->full) {
        return ERR_BUSY;
    }
    wait_add((struct waiting){.kind = WAITING_COMMAND,
                              .node = node,
                              .payload = payload,
                              .owner = blob_ref(owner),
                              .done = done,
                              .context = context});
    return ERR_OK;
}

int __wrap_node_read(struct node *node, node_read_fn serve, void *context);
int __wrap_node_read(struct node *node, node_read_fn serve, void *context)
{
    if (node->full) {
        return ERR_BUSY;
    }
    wait_add(
        (struct waiting){.kind = WAITING_READ, .node = node, .serve = serve, .context = context});
    return ERR_OK;
}

int __wrap_node_hash(struct node *node, node_hash_fn done, void *context);
int __wrap_node_hash(struct node *node, node_hash_fn done, void *context)
{
    wait_add(
        (struct waiting){.kind = WAITING_HASH, .node = node, .hashed = done, .context = context});
    return ERR_OK;
}

bool __wrap_node_is_leader(struct node *node);
bool __wrap_node_is_leader(struct node *node)
{
    return node->leads;
}

void __wrap_node_status(struct node *node, struct node_status *out);
void __wrap_node_status(struct node *node, struct node_status *out)
{
    memset(out, 0, sizeof *out);
    out->role = node->leads ? NODE_LEADER : NODE_FOLLOWER;
    (void)snprintf(out->leader_address, sizeof out->leader_address, "leader:1");
}

void __wrap_node_fill_status(struct node *node, struct msg_status_response *out);
void __wrap_node_fill_status(struct node *node, struct msg_status_response *out)
{
    out->term = 1;
    out->commit = node->index;
    out->applied = node->index;
    (void)snprintf(out->role, sizeof out->role, "%s", node->leads ? "leader" : "follower");
}

/* ---- worker.h ---- */

int __wrap_worker_add(struct worker *worker, worker_job_fn job, void *context);
int __wrap_worker_add(struct worker *worker, worker_job_fn job, void *context)
{
    (void)worker;
    wait_add((struct waiting){.kind = WAITING_JOB, .job = job, .context = context});
    return ERR_OK;
}

/* ---- rpc.h: methods and unary calls ---- */

struct rpc_call {
    const char *method;
    service_answer_fn check;
    bool answered;
};

static struct service_method *add_method(struct rpc_server *server, const char *name, void *context)
{
    ASSERT_CMP(server->method_count, <, SERVICE_METHODS_MAX);
    struct service_method *method = &server->methods[server->method_count++];
    *method = (struct service_method){.name = name, .context = context};
    return method;
}

int __wrap_rpc_server_add_unary(struct rpc_server *server, const char *name, rpc_unary_fn handler,
                                void *context);
int __wrap_rpc_server_add_unary(struct rpc_server *server, const char *name, rpc_unary_fn handler,
                                void *context)
{
    add_method(server, name, context)->unary = handler;
    return ERR_OK;
}

int __wrap_rpc_server_add_stream(struct rpc_server *server, const char *name,
                                 const struct rpc_stream_events *events, void *context);
int __wrap_rpc_server_add_stream(struct rpc_server *server, const char *name,
                                 const struct rpc_stream_events *events, void *context)
{
    add_method(server, name, context)->events = *events;
    return ERR_OK;
}

void __wrap_rpc_call_reply(struct rpc_call *call, struct buf *reply);
void __wrap_rpc_call_reply(struct rpc_call *call, struct buf *reply)
{
    ASSERT(!call->answered);
    call->answered = true;
    call->check(call->method, buf_view(reply));
    buf_deinit(reply);
}

void __wrap_rpc_call_fail(struct rpc_call *call, int error, const char *text);
void __wrap_rpc_call_fail(struct rpc_call *call, int error, const char *text)
{
    (void)text;
    ASSERT(error != 0);
    ASSERT(!call->answered);
    call->answered = true;
}

const char *__wrap_rpc_call_peer(const struct rpc_call *call);
const char *__wrap_rpc_call_peer(const struct rpc_call *call)
{
    (void)call;
    return "fuzz";
}

void service_host_call(struct rpc_server *server, uint32_t method, struct bytes request,
                       service_answer_fn check)
{
    struct service_method *at = &server->methods[method];
    struct rpc_call call = {.method = at->name, .check = check};
    struct blob *owner = blob_copy(request);
    at->unary(at->context, &call, blob_view(owner), owner);
    blob_unref(owner); /* whoever needs the bytes longer has said so */
    service_host_run();
    ASSERT(call.answered);
}

/* ---- rpc.h: streams ---- */

struct rpc_stream {
    struct service_method *method;
    service_answer_fn check;
    void *user;
    uint32_t references;
    bool full;
    bool writable_owed;
    bool paused;
    bool ending; /* finished or cancelled from the service's side */
    bool closed;
};

static void stream_end(struct rpc_stream *stream)
{
    if (!stream->closed) {
        stream->closed = true;
        stream->method->events.closed(stream->method->context, stream, ERR_CANCELED, "");
    }
}

struct rpc_stream *service_host_open(struct rpc_server *server, uint32_t method,
                                     service_answer_fn check)
{
    struct rpc_stream *stream = mem_calloc(1, sizeof *stream);
    stream->method = &server->methods[method];
    stream->check = check;
    stream->references = 1;
    const struct rpc_stream_events *events = &stream->method->events;
    if (events->opened != NULL && events->opened(stream->method->context, stream) != 0) {
        ASSERT_CMP(stream->references, ==, 1);
        free(stream);
        return NULL;
    }
    service_host_run();
    return stream;
}

bool service_host_message(struct rpc_stream *stream, struct bytes message)
{
    if (stream->closed || stream->ending || stream->paused) {
        return false;
    }
    struct blob *owner = blob_copy(message);
    const struct service_method *method = stream->method;
    stream->paused = !method->events.message(method->context, stream, blob_view(owner), owner);
    blob_unref(owner);
    service_host_run();
    if (stream->ending) {
        stream_end(stream);
    }
    return true;
}

void service_host_set_full(struct rpc_stream *stream, bool full)
{
    bool tell = stream->full && !full && stream->writable_owed && !stream->closed;
    stream->full = full;
    if (tell && stream->method->events.writable != NULL) {
        stream->writable_owed = false;
        stream->method->events.writable(stream->method->context, stream);
        service_host_run();
    }
}

void service_host_close(struct rpc_stream *stream)
{
    stream_end(stream);
    service_host_run();
    ASSERT_CMP(stream->references, ==, 1); /* ours: nobody keeps what has ended */
    free(stream);
}

int __wrap_rpc_stream_send(struct rpc_stream *stream, struct buf *message);
int __wrap_rpc_stream_send(struct rpc_stream *stream, struct buf *message)
{
    if (stream->closed || stream->ending) {
        return ERR_UNAVAILABLE;
    }
    if (stream->full) {
        stream->writable_owed = true;
        return ERR_BUSY;
    }
    stream->check(stream->method->name, buf_view(message));
    buf_deinit(message);
    return ERR_OK;
}

void __wrap_rpc_stream_finish(struct rpc_stream *stream);
void __wrap_rpc_stream_finish(struct rpc_stream *stream)
{
    stream->ending = true;
}

void __wrap_rpc_stream_cancel(struct rpc_stream *stream);
void __wrap_rpc_stream_cancel(struct rpc_stream *stream)
{
    stream->ending = true;
}

void __wrap_rpc_stream_resume(struct rpc_stream *stream);
void __wrap_rpc_stream_resume(struct rpc_stream *stream)
{
    stream->paused = false;
}

struct rpc_stream *__wrap_rpc_stream_ref(struct rpc_stream *stream);
struct rpc_stream *__wrap_rpc_stream_ref(struct rpc_stream *stream)
{
    stream->references++;
    return stream;
}

void __wrap_rpc_stream_unref(struct rpc_stream *stream);
void __wrap_rpc_stream_unref(struct rpc_stream *stream)
{
    if (stream != NULL) {
        ASSERT_CMP(stream->references, >, 1);
        stream->references--;
    }
}

void __wrap_rpc_stream_set_user(struct rpc_stream *stream, void *user);
void __wrap_rpc_stream_set_user(struct rpc_stream *stream, void *user)
{
    stream->user = user;
}

void *__wrap_rpc_stream_user(const struct rpc_stream *stream);
void *__wrap_rpc_stream_user(const struct rpc_stream *stream)
{
    return stream->user;
}

const char *__wrap_rpc_stream_peer(const struct rpc_stream *stream);
const char *__wrap_rpc_stream_peer(const struct rpc_stream *stream)
{
    (void)stream;
    return "fuzz";
}
