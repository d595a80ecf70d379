/* The server: methods, slots, listening, and going down.
 *
 * Slots. For every method and queue some requests for "the next call" are posted ahead; each comes
 * back once, with a call or, at shutdown, without. `live` counts slots, calls and streams until
 * their memory is freed, so `live == 0` after the core's own shutdown event means that no tag of
 * this server is out.
 *
 * Going down: stopping (what is accepted from now on is refused as surely not executed) -> the core
 * is told -> streams are ended after what they have queued -> grace -> the rest is cancelled ->
 * live == 0. */
#include "rpc/rpc_internal.h"
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SLOTS_MAX = 4096,
    CALLS_MAX = 1000 * 1000,
    HANDSHAKE_TIMEOUT_MS = 5000,
};

#define MIB (1024ull * 1024)

struct rpc_server_options rpc_server_options_default(const char *address)
{
    return (struct rpc_server_options){
        .address = address,
        .slots_per_method = 32,
        .calls_max = 4096,
        .streams_max = 1024,
        .stream_send_bytes_max = 32 * MIB,
        .answer_bytes_max = 256 * MIB,
        .core_bytes_max = 512 * MIB,
    };
}

static bool options_valid(const struct rpc_server_options *options)
{
    char host[256];
    char port[6];
    return options->address != NULL && rpc__address_split(options->address, host, port) &&
           options->slots_per_method >= 1 && options->slots_per_method <= SLOTS_MAX &&
           options->calls_max >= 1 && options->calls_max <= CALLS_MAX &&
           options->streams_max >= 1 && options->streams_max <= CALLS_MAX &&
           options->stream_send_bytes_max >= 1 && options->answer_bytes_max >= 1 &&
           options->core_bytes_max >= 2ull * RPC_MESSAGE_BYTES_MAX;
}

static grpc_server *core_server_create(struct rpc *rpc, const struct rpc_server_options *options)
{
    int keepalive_ms = (int)(rpc->keepalive_ns / NS_PER_MS);
    const struct {
        const char *key;
        int value;
    } settings[] = {
        {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MESSAGE_BYTES_MAX},
        {GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, RPC_MESSAGE_BYTES_MAX},
        {GRPC_ARG_MAX_METADATA_SIZE, RPC_METADATA_BYTES_MAX},
        /* Twice what is answered, so that a greedy client is told BUSY instead of waiting without a
           word. */
        {GRPC_ARG_MAX_CONCURRENT_STREAMS, (int)(2 * (options->calls_max + options->streams_max))},
        {GRPC_ARG_ENABLE_CHANNELZ, 0},
        {GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0}, /* as for channels */
        {GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0},
        {GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1},
        {GRPC_ARG_ALLOW_REUSEPORT,
         0}, /* else a second process would share the port without a word */
        {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS},
        {GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms},
        {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, rpc__keepalive_timeout_ms(rpc)},
        {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
        {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, keepalive_ms / 2},
        {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
        {GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0}, /* peers may have other keepalive settings */
    };
    enum { SETTINGS = sizeof(settings) / sizeof(settings[0]) };
    grpc_arg list[SETTINGS + 1];
    grpc_channel_args arguments = {SETTINGS + 1, list};
    memset(list, 0, sizeof(list));
    for (size_t i = 0; i < SETTINGS; i++) {
        list[i].type = GRPC_ARG_INTEGER;
        list[i].key = (char *)(uintptr_t)settings[i].key; /* the core only reads it */
        list[i].value.integer = settings[i].value;
    }
    grpc_resource_quota *quota = grpc_resource_quota_create("rpc_server");
    grpc_resource_quota_resize(quota, (size_t)options->core_bytes_max);
    list[SETTINGS].type = GRPC_ARG_POINTER;
    list[SETTINGS].key = (char *)(uintptr_t)GRPC_ARG_RESOURCE_QUOTA;
    list[SETTINGS].value.pointer.p = quota;
    list[SETTINGS].value.pointer.vtable = grpc_resource_quota_arg_vtable();
    grpc_server *made = grpc_server_create(&arguments, NULL);
    grpc_resource_quota_unref(quota); /* the server has its own reference */
    return made;
}

int rpc_server_create(struct rpc *rpc, const struct rpc_server_options *options,
                      struct rpc_server **out)
{
    if (!options_valid(options)) {
        return ERR_INVALID;
    }
    struct rpc_server *server = mem_calloc(1, sizeof(*server));
    server->rpc = rpc;
    server->options = *options;
    server->address = mem_strdup(options->address);
    server->options.address = server->address;
    pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    rpc__list_init(&server->streams);
    rpc__list_init(&server->replies);
    server->server = core_server_create(rpc, &server->options);
    for (uint32_t i = 0; i < rpc->queue_count; i++) {
        grpc_server_register_completion_queue(server->server, rpc->queues[i].queue, NULL);
    }
    pthread_mutex_lock(&rpc->lock);
    rpc->servers++;
    pthread_mutex_unlock(&rpc->lock);
    *out = server;
    return ERR_OK;
}

static int method_add(struct rpc_server *server, const char *name, struct rpc__method **out)
{
    ASSERT(!server->registered);
    if (name[0] != '/' || strchr(name + 1, '/') == NULL) {
        return ERR_INVALID;
    }
    for (uint32_t i = 0; i < server->method_count; i++) {
        if (strcmp(server->methods[i].name, name) == 0) {
            return ERR_EXISTS;
        }
    }
    if (server->method_count == RPC_METHODS_MAX) {
        return ERR_TOO_LARGE;
    }
    struct rpc__method *method = &server->methods[server->method_count];
    server->method_count++;
    method->name = mem_strdup(name);
    *out = method;
    return ERR_OK;
}

int rpc_server_add_unary(struct rpc_server *server, const char *name, rpc_unary_fn handler,
                         void *context)
{
    ASSERT(handler != NULL);
    struct rpc__method *method = NULL;
    int error = method_add(server, name, &method);
    if (error == ERR_OK) {
        method->handler = handler;
        method->context = context;
    }
    return error;
}

int rpc_server_add_stream(struct rpc_server *server, const char *name,
                          const struct rpc_stream_events *events, void *context)
{
    ASSERT(events->message != NULL);
    ASSERT(events->closed != NULL);
    struct rpc__method *method = NULL;
    int error = method_add(server, name, &method);
    if (error == ERR_OK) {
        method->is_stream = true;
        method->events = *events;
        method->context = context;
    }
    return error;
}

/* The core says only that it could not listen. Trying the same by hand tells why. */
static int listen_error(const char *address)
{
    char host[256];
    char port[6];
    if (!rpc__address_split(address, host, port)) {
        return ERR_INVALID;
    }
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        return ERR_INVALID;
    }
    int error = ERR_INVALID; /* it can be bound: so the credentials were refused */
    int one = 1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        error = ERR_IO;
    } else if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
               bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1) != 0) {
        error = errno == EADDRINUSE ? ERR_EXISTS : errno == EADDRNOTAVAIL ? ERR_INVALID : ERR_IO;
    }
    if (fd >= 0) {
        close(fd);
    }
    freeaddrinfo(found);
    return error;
}

static void methods_register(struct rpc_server *server)
{
    for (uint32_t i = 0; i < server->method_count; i++) {
        struct rpc__method *method = &server->methods[i];
        method->handle = grpc_server_register_method(
            server->server, method->name, NULL,
            method->is_stream ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER,
            0);
        ASSERT(method->handle != NULL);
    }
    server->registered = true;
}

static void slots_post(struct rpc_server *server)
{
    for (uint32_t q = 0; q < server->rpc->queue_count; q++) {
        struct rpc__queue *queue = &server->rpc->queues[q];
        for (uint32_t m = 0; m < server->method_count; m++) {
            for (uint32_t i = 0; i < server->options.slots_per_method; i++) {
                if (server->methods[m].is_stream) {
                    rpc__stream_post(server, &server->methods[m], queue);
                } else {
                    rpc__call_post(server, &server->methods[m], queue);
                }
            }
        }
        for (uint32_t i = 0; i < RPC_UNKNOWN_SLOTS; i++) {
            rpc__unknown_post(server, queue);
        }
    }
}

int rpc_server_start(struct rpc_server *server)
{
    ASSERT(!server->started);
    if (!server->registered) {
        methods_register(server);
    }
    int port = grpc_server_add_http2_port(server->server, server->address,
                                          server->rpc->server_credentials);
    if (port == 0) {
        return listen_error(server->address);
    }
    ASSERT_CMP(port, <=, UINT16_MAX);
    server->port = (uint16_t)port;
    server->started = true;
    grpc_server_start(server->server);
    slots_post(server);
    return ERR_OK;
}

uint16_t rpc_server_port(const struct rpc_server *server)
{
    return server->port;
}

/* --- going down --- */

void rpc__server_hold(struct rpc_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->live++;
    pthread_mutex_unlock(&server->lock);
}

void rpc__server_release(struct rpc_server *server)
{
    pthread_mutex_lock(&server->lock);
    ASSERT_CMP(server->live, >, 0);
    server->live--;
    if (server->live == 0) {
        pthread_cond_broadcast(&server->changed);
    }
    pthread_mutex_unlock(&server->lock);
}

static void shutdown_run(struct rpc__tag *tag, bool ok)
{
    (void)ok;
    struct rpc_server *server = RPC_CONTAINER_OF(tag, struct rpc_server, shutdown);
    pthread_mutex_lock(&server->lock);
    server->shutdown_done = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static void streams_end(struct rpc_server *server)
{
    pthread_mutex_lock(&server->lock);
    size_t count = 0;
    struct rpc_stream **streams = mem_calloc((size_t)server->stream_count + 1, sizeof(*streams));
    for (struct rpc__link *link = server->streams.next; link != &server->streams;
         link = link->next) {
        ASSERT_CMP(count, <, server->stream_count);
        streams[count] = rpc_stream_ref(RPC_CONTAINER_OF(link, struct rpc_stream, link));
        count++;
    }
    pthread_mutex_unlock(&server->lock);
    for (size_t i = 0; i < count; i++) {
        /* Not SHUTDOWN: what went over the stream before may have been executed. */
        rpc__stream_end_by_server(streams[i], ERR_UNAVAILABLE, "the server is shutting down");
        rpc_stream_unref(streams[i]);
    }
    free(streams);
}

static void wait_grace_locked(struct rpc_server *server, uint64_t grace_ns)
{
    uint64_t now = clock_now_ns(clock_system());
    uint64_t until = grace_ns > UINT64_MAX / 2 - now ? UINT64_MAX / 2 : now + grace_ns;
    struct timespec time;
    time.tv_sec = (time_t)(until / NS_PER_S);
    time.tv_nsec = (long)(until % NS_PER_S);
    while (!server->shutdown_done &&
           pthread_cond_timedwait(&server->changed, &server->lock, &time) != ETIMEDOUT) {
    }
}

void rpc_server_shutdown(struct rpc_server *server, uint64_t grace_ns)
{
    ASSERT(!rpc__on_own_thread(server->rpc));
    pthread_mutex_lock(&server->lock);
    bool first = !atomic_load(&server->stopping);
    atomic_store(&server->stopping, true);
    pthread_mutex_unlock(&server->lock);
    if (first) {
        rpc__tag_arm(&server->shutdown, shutdown_run);
        grpc_server_shutdown_and_notify(server->server, server->rpc->queues[0].queue,
                                        &server->shutdown);
        streams_end(server);
    }
    pthread_mutex_lock(&server->lock);
    if (grace_ns > 0) {
        wait_grace_locked(server, grace_ns);
    }
    if (!server->shutdown_done) {
        pthread_mutex_unlock(&server->lock);
        grpc_server_cancel_all_calls(server->server);
        pthread_mutex_lock(&server->lock);
    }
    while (!server->shutdown_done || server->live > 0) {
        pthread_cond_wait(&server->changed, &server->lock);
    }
    pthread_mutex_unlock(&server->lock);
}

void rpc_server_destroy(struct rpc_server *server)
{
    if (server == NULL) {
        return;
    }
    rpc_server_shutdown(server, 0);
    grpc_server_destroy(server->server);
    struct rpc *rpc = server->rpc;
    pthread_mutex_lock(&rpc->lock);
    rpc->servers--;
    pthread_mutex_unlock(&rpc->lock);
    for (uint32_t i = 0; i < server->method_count; i++) {
        free(server->methods[i].name);
    }
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    free(server->address);
    free(server);
}
