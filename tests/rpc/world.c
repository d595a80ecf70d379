/* The shared parts of rpc's tests; see world.h. */
#include "rpc/world.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

uint64_t soon_ns(void)
{
    return now_ns() + (uint64_t)WORLD_WAIT_S * NS_PER_S;
}

void gate_init(struct gate *gate)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    gate->count = 0;
}

void gate_deinit(struct gate *gate)
{
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

void gate_pass(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->count++;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

void gate_reset(struct gate *gate, uint64_t count)
{
    pthread_mutex_lock(&gate->lock);
    gate->count = count;
    pthread_mutex_unlock(&gate->lock);
}

uint64_t gate_count(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    uint64_t count = gate->count;
    pthread_mutex_unlock(&gate->lock);
    return count;
}

void gate_wait(struct gate *gate, uint64_t count)
{
    uint64_t until = soon_ns();
    struct timespec time = {.tv_sec = (time_t)(until / NS_PER_S),
                            .tv_nsec = (long)(until % NS_PER_S)};
    int failed = 0;
    pthread_mutex_lock(&gate->lock);
    while (gate->count < count && failed != ETIMEDOUT) {
        failed = pthread_cond_timedwait(&gate->changed, &gate->lock, &time);
    }
    uint64_t reached = gate->count;
    pthread_mutex_unlock(&gate->lock);
    assert_in_range(reached, count, UINT64_MAX);
}

void wait_for(bool (*condition)(void *context), void *context)
{
    uint64_t until = soon_ns();
    struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000 * 1000};
    while (!condition(context)) {
        assert_in_range(now_ns(), 0, until);
        nanosleep(&pause, NULL);
    }
}

void world_init(struct world *world, uint32_t queue_count, const struct rpc_tls *tls)
{
    struct rpc_options options = rpc_options_default();
    memset(world, 0, sizeof(*world));
    options.queue_count = queue_count;
    options.tls = tls;
    assert_int_equal(rpc_create(&options, &world->server_rpc), ERR_OK);
    assert_int_equal(rpc_create(&options, &world->client_rpc), ERR_OK);
    world->options = rpc_server_options_default("127.0.0.1:0");
}

void world_server(struct world *world)
{
    assert_int_equal(rpc_server_create(world->server_rpc, &world->options, &world->server), ERR_OK);
}

void world_start(struct world *world)
{
    assert_int_equal(rpc_server_start(world->server), ERR_OK);
    assert_int_not_equal(rpc_server_port(world->server), 0);
    snprintf(world->address, sizeof(world->address), "127.0.0.1:%u",
             (unsigned)rpc_server_port(world->server));
    assert_int_equal(rpc_channel_create(world->client_rpc, world->address, &world->channel),
                     ERR_OK);
}

void world_deinit(struct world *world)
{
    rpc_channel_destroy(world->channel);
    rpc_server_destroy(world->server);
    rpc_destroy(world->client_rpc);
    rpc_destroy(world->server_rpc);
}

void outcome_init(struct outcome *outcome)
{
    memset(outcome, 0, sizeof(*outcome));
    gate_init(&outcome->done);
    buf_init(&outcome->reply);
}

void outcome_deinit(struct outcome *outcome)
{
    gate_deinit(&outcome->done);
    buf_deinit(&outcome->reply);
}

void outcome_done(void *context, const struct rpc_result *result)
{
    struct outcome *outcome = context;
    pthread_mutex_lock(&outcome->done.lock);
    outcome->error = result->error;
    outcome->not_sent = result->not_sent;
    snprintf(outcome->text, sizeof(outcome->text), "%s", result->text);
    buf_clear(&outcome->reply);
    buf_append_bytes(&outcome->reply, result->reply);
    pthread_mutex_unlock(&outcome->done.lock);
    gate_pass(&outcome->done);
}

void call_start(struct rpc_channel *channel, const char *method, uint64_t deadline_ns,
                struct outcome *outcome)
{
    struct buf request;
    buf_of_text(&request, "x");
    assert_int_equal(
        rpc_call_start(channel, method, &request, deadline_ns, outcome_done, outcome, NULL),
        ERR_OK);
}

void buf_of_text(struct buf *buf, const char *text)
{
    buf_init(buf);
    buf_append(buf, text, strlen(text));
}

void buf_of_pattern(struct buf *buf, size_t size, uint8_t seed)
{
    buf_init(buf);
    uint8_t *data = size > 0 ? buf_reserve(buf, size) : NULL;
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(seed + i * 31 + (i >> 8));
    }
    buf->size = size;
}

bool is_pattern(struct bytes bytes, size_t size, uint8_t seed)
{
    if (bytes.size != size) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if (bytes.data[i] != (uint8_t)(seed + i * 31 + (i >> 8))) {
            return false;
        }
    }
    return true;
}

int call_text(struct rpc_channel *channel, const char *method, const char *request,
              struct buf *reply, char *text, size_t text_size)
{
    struct buf bytes;
    buf_of_text(&bytes, request);
    int error = rpc_call_wait(channel, method, &bytes, soon_ns(), reply, text, text_size);
    buf_deinit(&bytes);
    return error;
}

void call_pattern(struct rpc_channel *channel, size_t size)
{
    struct buf request;
    struct buf reply;
    buf_init(&reply);
    buf_of_pattern(&request, size, 7);
    assert_int_equal(rpc_call_wait(channel, "/t.T/Echo", &request, soon_ns(), &reply, NULL, 0),
                     ERR_OK);
    assert_null(request.data);
    assert_int_equal(reply.size, size);
    assert_true(is_pattern(buf_view(&reply), size, 7));
    buf_deinit(&reply);
}

void handle_echo(void *context, struct rpc_call *call, struct bytes request, struct blob *owner)
{
    (void)context;
    (void)owner;
    struct buf reply;
    buf_init(&reply);
    buf_append_bytes(&reply, request);
    rpc_call_reply(call, &reply);
}

int socket_listen(char address[64])
{
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t size = sizeof(name);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_in_range(fd, 0, INT32_MAX);
    assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &size), 0);
    snprintf(address, 64, "127.0.0.1:%u", (unsigned)ntohs(name.sin_port));
    return fd;
}

void address_unused(char address[64])
{
    int fd = socket_listen(address);
    close(fd);
}
