/* rpc.h without gRPC: processes, channels, unary calls, timers. See sim_rpc.h. */
#include "sim/sim_rpc.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rpc_options rpc_options_default(void)
{
    return (struct rpc_options){.queue_count = 1, .keepalive_ns = 10 * NS_PER_S};
}

int rpc_create(const struct rpc_options *options, struct rpc **out)
{
    (void)options;
    ASSERT(sim_world()->current != NULL);
    struct rpc *rpc = mem_calloc(1, sizeof *rpc);
    rpc->host = sim_world()->current;
    *out = rpc;
    return ERR_OK;
}

void rpc_destroy(struct rpc *rpc)
{
    ASSERT_CMP(rpc->servers, ==, 0);
    ASSERT_CMP(rpc->channels, ==, 0);
    ASSERT_CMP(rpc->timers, ==, 0);
    while (rpc->active > 0) {
        sim_step();
    }
    free(rpc);
}

/* Of raft/node's driver with threads only, which is linked but not run here: sim_node.c is. */
void rpc_set_turn_end(struct rpc *rpc, void (*turn_end)(void *context), void *context);
void rpc_set_turn_end(struct rpc *rpc, void (*turn_end)(void *context), void *context)
{
    (void)rpc;
    (void)turn_end;
    (void)context;
    UNREACHABLE();
}

bool rpc_turn_follows(const struct rpc *rpc);
bool rpc_turn_follows(const struct rpc *rpc)
{
    (void)rpc;
    UNREACHABLE();
}

/* ---- server ---- */

struct rpc_server_options rpc_server_options_default(const char *address)
{
    return (struct rpc_server_options){.address = address,
                                       .slots_per_method = 32,
                                       .calls_max = 4096,
                                       .streams_max = 1024,
                                       .stream_send_bytes_max = 32ull * 1024 * 1024};
}

int rpc_server_create(struct rpc *rpc, const struct rpc_server_options *options,
                      struct rpc_server **out)
{
    struct rpc_server *server = mem_calloc(1, sizeof *server);
    server->rpc = rpc;
    server->options = *options;
    (void)snprintf(server->address, sizeof server->address, "%s", options->address);
    rpc->servers++;
    *out = server;
    return ERR_OK;
}

static struct sim_method *method_add(struct rpc_server *server, const char *name)
{
    ASSERT(!server->started);
    ASSERT_CMP(server->method_count, <, SIM_METHODS_MAX);
    struct sim_method *method = &server->methods[server->method_count++];
    (void)snprintf(method->name, sizeof method->name, "%s", name);
    return method;
}

int rpc_server_add_unary(struct rpc_server *server, const char *method, rpc_unary_fn handler,
                         void *context)
{
    struct sim_method *added = method_add(server, method);
    added->handler = handler;
    added->context = context;
    return ERR_OK;
}

int rpc_server_add_stream(struct rpc_server *server, const char *method,
                          const struct rpc_stream_events *events, void *context)
{
    struct sim_method *added = method_add(server, method);
    added->is_stream = true;
    added->events = *events;
    added->context = context;
    return ERR_OK;
}

int rpc_server_start(struct rpc_server *server)
{
    struct sim_host *host = server->rpc->host;
    ASSERT(strcmp(server->address, host->address) == 0);
    ASSERT(host->listener == NULL);
    server->started = true;
    host->listener = server;
    return ERR_OK;
}

uint16_t rpc_server_port(const struct rpc_server *server)
{
    const char *colon = strrchr(server->address, ':');
    return colon == NULL ? 0 : (uint16_t)strtoul(colon + 1, NULL, 10);
}

void rpc_server_shutdown(struct rpc_server *server, uint64_t grace_ns)
{
    (void)grace_ns; /* every call is answered by its owner: waiting for that is enough */
    if (server->stopped) {
        return;
    }
    server->stopped = true;
    if (server->started) {
        server->rpc->host->listener = NULL;
    }
    rpc__streams_shut_down(server);
    while (server->call_count > 0 || server->streams != NULL) {
        sim_step();
    }
}

void rpc_server_destroy(struct rpc_server *server)
{
    rpc_server_shutdown(server, 0);
    server->rpc->servers--;
    free(server);
}

struct rpc_call {
    struct rpc_server *server;
    struct conn *conn;
    bool cancelled;
};

static void call_take(void *user, struct conn_message *message)
{
    struct rpc_call *call = user;
    if (message->kind == CONN_CANCEL || message->kind == CONN_BROKEN) {
        call->cancelled = true;
    }
    conn_message_free(message);
}

static void call_end(struct rpc_call *call, int error, const char *text, struct blob *reply)
{
    conn_send(call->conn, CONN_SERVER, CONN_CLOSE, error, text, reply);
    conn_detach(call->conn, CONN_SERVER);
    conn_unref(call->conn);
    ASSERT_CMP(call->server->call_count, >, 0);
    call->server->call_count--;
    free(call);
}

void rpc_call_reply(struct rpc_call *call, struct buf *reply)
{
    struct blob *blob = blob_take_buf(reply);
    call_end(call, ERR_OK, "", blob);
    blob_unref(blob);
}

void rpc_call_fail(struct rpc_call *call, int error, const char *text)
{
    call_end(call, error, text, NULL);
}

uint64_t rpc_call_deadline_ns(const struct rpc_call *call)
{
    return call->conn->deadline_ns;
}

bool rpc_call_is_cancelled(const struct rpc_call *call)
{
    return call->cancelled;
}

const char *rpc_call_peer(const struct rpc_call *call)
{
    return call->conn->ends[CONN_CLIENT].host->address;
}

static void call_accept(struct rpc_server *server, const struct sim_method *method,
                        struct conn *conn, struct conn_message *message)
{
    struct rpc_call *call = mem_calloc(1, sizeof *call);
    call->server = server;
    call->conn = conn_ref(conn);
    server->call_count++;
    struct conn_end *end = &conn->ends[CONN_SERVER];
    end->open = true;
    end->user = call;
    end->take = call_take;
    struct bytes request = message->payload == NULL ? BYTES_EMPTY : blob_view(message->payload);
    method->handler(method->context, call, request, message->payload);
}

bool rpc_server_accept(struct rpc_server *server, struct conn *conn, struct conn_message *message)
{
    const struct sim_method *method = NULL;
    for (uint32_t i = 0; i < server->method_count; i++) {
        if (strcmp(server->methods[i].name, conn->method) == 0) {
            method = &server->methods[i];
        }
    }
    if (method != NULL && method->is_stream) {
        rpc__stream_accept(server, method, conn);
    } else if (method != NULL) {
        call_accept(server, method, conn, message);
    }
    conn_message_free(message);
    return method != NULL;
}

/* ---- channels ---- */

int rpc_channel_create(struct rpc *rpc, const char *address, struct rpc_channel **out)
{
    if (strchr(address, ':') == NULL) {
        return ERR_INVALID;
    }
    struct rpc_channel *channel = mem_calloc(1, sizeof *channel);
    channel->rpc = rpc;
    (void)snprintf(channel->address, sizeof channel->address, "%s", address);
    rpc->channels++;
    *out = channel;
    return ERR_OK;
}

struct rpc_request {
    uint32_t references;
    struct rpc *rpc;
    struct conn *conn;
    rpc_done_fn done;
    void *context;
    bool ended;
    struct rpc_request *next, **link; /* of its channel; link NULL: the channel is gone */
};

static void request_unlink(struct rpc_request *request)
{
    if (request->link != NULL) {
        *request->link = request->next;
        if (request->next != NULL) {
            request->next->link = request->link;
        }
        request->link = NULL;
    }
}

void rpc_request_unref(struct rpc_request *request)
{
    ASSERT_CMP(request->references, >, 0);
    if (--request->references == 0) {
        conn_unref(request->conn);
        free(request);
    }
}

static void request_end(struct rpc_request *request, int error, bool not_sent, const char *text,
                        struct blob *reply)
{
    if (request->ended) {
        return;
    }
    request->ended = true;
    request_unlink(request);
    conn_detach(request->conn, CONN_CLIENT);
    struct rpc_result result = {.error = error,
                                .not_sent = not_sent,
                                .reply = reply == NULL ? BYTES_EMPTY : blob_view(reply),
                                .owner = reply,
                                .text = text};
    struct sim_host *former = sim_callback_enter(request->rpc->host);
    request->done(request->context, &result);
    sim_callback_leave(former);
    request->rpc->active--;
    rpc_request_unref(request);
}

static void request_take(void *user, struct conn_message *message)
{
    request_end(user, message->error, message->not_sent, message->text, message->payload);
    conn_message_free(message);
}

static void request_drop(void *context, void *payload)
{
    (void)payload;
    rpc_request_unref(context);
}

static void request_expired(void *context, void *payload)
{
    struct rpc_request *request = context;
    if (!request->ended) {
        conn_send(request->conn, CONN_CLIENT, CONN_CANCEL, ERR_TIMEOUT, "", NULL);
        request_end(request, ERR_TIMEOUT, false, "deadline exceeded", NULL);
    }
    request_drop(context, payload);
}

static void request_cancelled(void *context, void *payload)
{
    request_end(context, ERR_CANCELED, false, "cancelled", NULL);
    request_drop(context, payload);
}

int rpc_call_start(struct rpc_channel *channel, const char *method, struct buf *request_bytes,
                   uint64_t deadline_ns, rpc_done_fn done, void *context,
                   struct rpc_request **handle)
{
    struct rpc *rpc = channel->rpc;
    struct rpc_request *request = mem_calloc(1, sizeof *request);
    request->references = 1 + (handle != NULL);
    request->rpc = rpc;
    request->done = done;
    request->context = context;
    struct sim_host *former = sim_enter(rpc->host);
    request->conn =
        conn_open(channel->address, method, false, deadline_ns, request, request_take, NULL);
    sim_leave(former);
    request->next = channel->requests;
    request->link = &channel->requests;
    if (request->next != NULL) {
        request->next->link = &request->next;
    }
    channel->requests = request;
    rpc->active++;
    struct blob *payload = blob_take_buf(request_bytes);
    conn_send(request->conn, CONN_CLIENT, CONN_OPEN, 0, "", payload);
    blob_unref(payload);
    uint64_t now_ns = sim_now_ns();
    request->references++;
    sim_after(rpc->host, deadline_ns > now_ns ? deadline_ns - now_ns : 0, request_expired,
              request_drop, request, NULL);
    if (handle != NULL) {
        *handle = request;
    }
    return ERR_OK;
}

void rpc_request_cancel(struct rpc_request *request)
{
    if (!request->ended) {
        conn_send(request->conn, CONN_CLIENT, CONN_CANCEL, ERR_CANCELED, "", NULL);
        request->references++;
        sim_after(request->rpc->host, 0, request_cancelled, request_drop, request, NULL);
    }
}

void rpc_channel_destroy(struct rpc_channel *channel)
{
    while (channel->requests != NULL) {
        struct rpc_request *request = channel->requests;
        request_unlink(request);
        rpc_request_cancel(request);
    }
    rpc__streams_of_channel_cancel(channel);
    channel->rpc->channels--;
    free(channel);
}

struct call_waiter {
    bool done;
    int error;
    struct buf *reply;
    char *text;
    size_t text_size;
};

static void waiter_done(void *context, const struct rpc_result *result)
{
    struct call_waiter *waiter = context;
    waiter->done = true;
    waiter->error = result->error;
    buf_append_bytes(waiter->reply, result->reply);
    if (waiter->text != NULL && waiter->text_size > 0) {
        (void)snprintf(waiter->text, waiter->text_size, "%s", result->text);
    }
}

int rpc_call_wait(struct rpc_channel *channel, const char *method, struct buf *request,
                  uint64_t deadline_ns, struct buf *reply, char *text, size_t text_size)
{
    struct call_waiter waiter = {.reply = reply, .text = text, .text_size = text_size};
    int error = rpc_call_start(channel, method, request, deadline_ns, waiter_done, &waiter, NULL);
    while (error == 0 && !waiter.done) {
        sim_step();
    }
    return error != 0 ? error : waiter.error;
}

/* ---- timers ---- */

struct rpc_timer {
    uint32_t references; /* the owner's, and one an event */
    struct rpc *rpc;
    void (*fire)(void *context);
    void *context;
    uint64_t generation;
    bool destroyed;
};

struct timer_event {
    struct rpc_timer *timer;
    uint64_t generation;
};

struct rpc_timer *rpc_timer_create(struct rpc *rpc, void (*fire)(void *context), void *context)
{
    struct rpc_timer *timer = mem_calloc(1, sizeof *timer);
    timer->references = 1;
    timer->rpc = rpc;
    timer->fire = fire;
    timer->context = context;
    rpc->timers++;
    return timer;
}

static void timer_unref(struct rpc_timer *timer)
{
    if (--timer->references == 0) {
        free(timer);
    }
}

static void timer_event_drop(void *context, void *payload)
{
    (void)context;
    struct timer_event *event = payload;
    timer_unref(event->timer);
    free(event);
}

static void timer_event_run(void *context, void *payload)
{
    struct timer_event *event = payload;
    struct rpc_timer *timer = event->timer;
    if (!timer->destroyed && timer->generation == event->generation) {
        struct sim_host *former = sim_callback_enter(timer->rpc->host);
        timer->fire(timer->context);
        sim_callback_leave(former);
    }
    timer_event_drop(context, payload);
}

void rpc_timer_set(struct rpc_timer *timer, uint64_t deadline_ns)
{
    timer->generation++;
    if (deadline_ns == UINT64_MAX) {
        return;
    }
    uint64_t now_ns = sim_now_ns();
    struct timer_event *event = mem_alloc(sizeof *event);
    *event = (struct timer_event){.timer = timer, .generation = timer->generation};
    timer->references++;
    sim_after(timer->rpc->host, deadline_ns > now_ns ? deadline_ns - now_ns : 0, timer_event_run,
              timer_event_drop, NULL, event);
}

void rpc_timer_destroy(struct rpc_timer *timer)
{
    timer->destroyed = true;
    timer->rpc->timers--;
    timer_unref(timer);
}
