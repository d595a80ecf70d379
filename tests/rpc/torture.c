/* Torture: threads that start, stop, cancel and overflow servers, channels, calls and streams at
 * random, for a while.
 *
 *   torture [--seconds N] [--seed S]
 *
 * What must hold, whatever happens: every operation that was started has exactly one final
 * callback; nothing follows a stream's end; a stream's messages arrive in order, none twice, none
 * left out; every accepted call can be answered; and all of it can be taken down and leaves nothing
 * (the address sanitizer looks after that). The seed fixes each thread's choices, not how the
 * threads meet.
 *
 * Threads: three clients with a channel to each server; one that restarts the servers; one worker
 * that does to server-side calls and streams what an application's threads would; and those of the
 * room. */
#include "base/codec.h"
#include "base/rng.h"
#include "rpc/world.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SERVERS = 3,
    CLIENTS = 3,
    OPS_MAX = 8 * 1024 * 1024,
    CALLS_PER_CLIENT = 64,
    STREAMS_PER_CLIENT = 6,
    HELD_MAX = 4096,
    SERVER_STREAMS_MAX = 256,
    ERRORS = 64,
    HANG_S = 120,
};

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "torture: %s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct torture {
    uint64_t seed;
    uint64_t until_ns;
    struct rpc *server_rpc;
    struct rpc *client_rpc;
    _Atomic bool worker_stop;

    /* One byte an operation: how many final callbacks it had. */
    _Atomic uint8_t *callbacks;
    _Atomic uint64_t ops;
    _Atomic uint64_t unary_ended[ERRORS]; /* by the error's number */
    _Atomic uint64_t streams_ended[ERRORS];
    _Atomic uint64_t streams_accepted;
    _Atomic uint64_t streams_accepted_ended;
    _Atomic uint64_t messages;
    _Atomic uint64_t busy;
    _Atomic uint64_t writable;
    _Atomic uint64_t restarts;
    _Atomic uint64_t timers;

    struct server {
        char address[64];
        struct rpc_server *server;
    } servers[SERVERS];

    pthread_mutex_t lock;
    /* Under the lock: what waits for the worker. */
    struct rpc_call *held[HELD_MAX];
    size_t held_count;
    struct side *sides[SERVER_STREAMS_MAX];
    size_t side_count;
};

static struct torture torture;

static void nap(struct rng *rng, uint64_t max_us)
{
    struct timespec pause = {.tv_sec = 0, .tv_nsec = (long)(rng_below(rng, max_us + 1) * 1000)};
    nanosleep(&pause, NULL);
}

static uint64_t op_start(void)
{
    uint64_t op = atomic_fetch_add(&torture.ops, 1);
    CHECK(op < OPS_MAX);
    return op;
}

static void op_end(uint64_t op)
{
    CHECK(atomic_fetch_add(&torture.callbacks[op], 1) == 0);
}

/* --- one side of a stream --- */

struct side {
    _Atomic uint32_t refs; /* the callbacks' and the driver's */
    uint64_t op;
    bool is_server;
    struct rpc_stream *stream; /* referenced by the driver's part */
    pthread_mutex_t lock;
    uint64_t next_to_send;  /* under the lock, so that numbers go out in order */
    uint64_t next_expected; /* callbacks only */
    struct rng rng;         /* callbacks only */
    _Atomic bool closed;
};

static struct side *side_create(uint64_t seed)
{
    struct side *side = mem_calloc(1, sizeof(*side));
    atomic_init(&side->refs, 2);
    pthread_mutex_init(&side->lock, NULL);
    rng_init(&side->rng, seed);
    return side;
}

static void side_unref(struct side *side)
{
    if (atomic_fetch_sub(&side->refs, 1) == 1) {
        pthread_mutex_destroy(&side->lock);
        free(side);
    }
}

static int side_send(struct side *side, size_t padding)
{
    struct buf message;
    buf_init(&message);
    pthread_mutex_lock(&side->lock);
    put_u64(&message, side->next_to_send);
    memset(buf_reserve(&message, padding + 1), 'x', padding);
    message.size += padding;
    int error = rpc_stream_send(side->stream, &message);
    if (error == ERR_OK) {
        side->next_to_send++;
    }
    pthread_mutex_unlock(&side->lock);
    CHECK(error == ERR_OK || error == ERR_BUSY || error == ERR_UNAVAILABLE);
    CHECK((error == ERR_OK) == (message.data == NULL));
    if (error == ERR_BUSY) {
        atomic_fetch_add(&torture.busy, 1);
    }
    buf_deinit(&message);
    return error;
}

static bool side_message(void *context, struct rpc_stream *stream, struct bytes message,
                         struct blob *owner)
{
    (void)context;
    (void)owner;
    struct side *side = rpc_stream_user(stream);
    struct reader reader = reader_of(message);
    CHECK(!atomic_load(&side->closed));
    CHECK(get_u64(&reader) == side->next_expected);
    CHECK(!reader.failed);
    side->next_expected++;
    atomic_fetch_add(&torture.messages, 1);
    if (side->is_server && rng_chance(&side->rng, 1, 2)) {
        (void)side_send(side, rng_below(&side->rng, 200));
    }
    if (rng_chance(&side->rng, 1, 2000)) {
        rpc_stream_cancel(stream);
    }
    if (rng_chance(&side->rng, 1, 50)) { /* paused; the driver resumes, or this did already */
        if (rng_chance(&side->rng, 1, 3)) {
            rpc_stream_resume(stream);
        }
        return false;
    }
    return true;
}

static void side_writable(void *context, struct rpc_stream *stream)
{
    (void)context;
    struct side *side = rpc_stream_user(stream);
    CHECK(!atomic_load(&side->closed));
    atomic_fetch_add(&torture.writable, 1);
    (void)side_send(side, 100);
}

static void side_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)context;
    (void)text;
    struct side *side = rpc_stream_user(stream);
    CHECK(!atomic_exchange(&side->closed, true));
    op_end(side->op);
    if (side->is_server) {
        atomic_fetch_add(&torture.streams_accepted_ended, 1);
    } else {
        CHECK(-error < ERRORS);
        atomic_fetch_add(&torture.streams_ended[-error], 1);
    }
    side_unref(side);
}

static int side_opened(void *context, struct rpc_stream *stream)
{
    (void)context;
    uint64_t op = op_start();
    struct side *side = side_create(torture.seed + op);
    side->op = op;
    side->is_server = true;
    side->stream = stream;
    if (rng_chance(&side->rng, 1, 20)) {
        op_end(op); /* refused: `closed` does not come */
        side_unref(side);
        side_unref(side);
        return ERR_BUSY;
    }
    pthread_mutex_lock(&torture.lock);
    bool room = torture.side_count < SERVER_STREAMS_MAX;
    if (room) {
        rpc_stream_ref(stream);
        torture.sides[torture.side_count] = side;
        torture.side_count++;
    }
    pthread_mutex_unlock(&torture.lock);
    if (!room) {
        op_end(op);
        side_unref(side);
        side_unref(side);
        return ERR_BUSY;
    }
    atomic_fetch_add(&torture.streams_accepted, 1);
    rpc_stream_set_user(stream, side);
    if (rng_chance(&side->rng, 1, 4)) {
        (void)side_send(side, 10);
    }
    if (rng_chance(&side->rng, 1, 50)) {
        rpc_stream_cancel(stream);
    }
    return ERR_OK;
}

static void side_finished(void *context, struct rpc_stream *stream)
{
    (void)context;
    struct side *side = rpc_stream_user(stream);
    CHECK(!atomic_load(&side->closed));
    (void)side_send(side, 10);
    rpc_stream_finish(stream);
}

static const struct rpc_stream_events server_events = {.opened = side_opened,
                                                       .message = side_message,
                                                       .writable = side_writable,
                                                       .closed = side_closed,
                                                       .finished = side_finished};

/* --- servers --- */

static void handle_hold(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    (void)context;
    (void)request;
    (void)owner;
    pthread_mutex_lock(&torture.lock);
    bool room = torture.held_count < HELD_MAX;
    if (room) {
        torture.held[torture.held_count] = call;
        torture.held_count++;
    }
    pthread_mutex_unlock(&torture.lock);
    if (!room) {
        rpc_call_fail(call, ERR_BUSY, NULL);
    }
}

static void server_start(struct server *server, struct rng *rng)
{
    struct rpc_server_options options =
        rpc_server_options_default(server->address[0] != '\0' ? server->address : "127.0.0.1:0");
    options.calls_max = 40;
    options.streams_max = 10;
    options.slots_per_method = 1 + (uint32_t)rng_below(rng, 8);
    options.stream_send_bytes_max = 64 * 1024;
    struct rpc_server *made = NULL;
    CHECK(rpc_server_create(torture.server_rpc, &options, &made) == ERR_OK);
    CHECK(rpc_server_add_unary(made, "/t.T/Echo", handle_echo, NULL) == ERR_OK);
    CHECK(rpc_server_add_unary(made, "/t.T/Hold", handle_hold, NULL) == ERR_OK);
    CHECK(rpc_server_add_stream(made, "/t.T/Auto", &server_events, NULL) == ERR_OK);
    int error = rpc_server_start(made);
    if (error != ERR_OK) { /* somebody's outgoing connection may have the port for a moment */
        CHECK(error == ERR_EXISTS);
        rpc_server_destroy(made);
        return;
    }
    if (server->address[0] == '\0') {
        snprintf(server->address, sizeof(server->address), "127.0.0.1:%u",
                 (unsigned)rpc_server_port(made));
    }
    server->server = made;
}

static void *restarter_main(void *argument)
{
    (void)argument;
    struct rng rng;
    rng_init(&rng, torture.seed * 31 + 1);
    while (now_ns() < torture.until_ns) {
        struct server *server = &torture.servers[rng_below(&rng, SERVERS)];
        nap(&rng, 200 * 1000);
        if (server->server != NULL) {
            if (rng_chance(&rng, 1, 2)) {
                rpc_server_shutdown(server->server, rng_below(&rng, 50) * NS_PER_MS);
            }
            rpc_server_destroy(server->server);
            server->server = NULL;
            atomic_fetch_add(&torture.restarts, 1);
        }
        nap(&rng, 50 * 1000);
        server_start(server, &rng);
    }
    return NULL;
}

static bool worker_answer(struct rng *rng)
{
    struct rpc_call *call = NULL;
    pthread_mutex_lock(&torture.lock);
    if (torture.held_count > 0) {
        size_t at = rng_below(rng, torture.held_count);
        call = torture.held[at];
        torture.held_count--;
        torture.held[at] = torture.held[torture.held_count];
    }
    pthread_mutex_unlock(&torture.lock);
    if (call == NULL) {
        return false;
    }
    CHECK(strncmp(rpc_call_peer(call), "ipv4:", 5) == 0);
    if (rpc_call_is_cancelled(call) || rng_chance(rng, 1, 4)) {
        rpc_call_fail(call, ERR_NOT_LEADER, "elsewhere");
    } else {
        struct buf reply;
        buf_of_pattern(&reply, rng_below(rng, 40000), 0);
        rpc_call_reply(call, &reply);
    }
    return true;
}

/* Something done to a stream by a thread that is not its queue's. */
static void side_disturb(struct side *side, struct rng *rng)
{
    switch (rng_below(rng, 40)) {
    case 0:
        rpc_stream_cancel(side->stream);
        break;
    case 1:
        rpc_stream_finish(side->stream);
        break;
    case 2:
    case 3:
    case 4:
        (void)side_send(side, rng_below(rng, 100 * 1000));
        break;
    case 5:
        for (int i = 0; i < 50 && side_send(side, 1000) == ERR_OK; i++) {
        }
        break;
    default:
        rpc_stream_resume(side->stream);
        break;
    }
}

static bool worker_stream(struct rng *rng)
{
    struct side *side = NULL;
    pthread_mutex_lock(&torture.lock);
    if (torture.side_count > 0) {
        size_t at = rng_below(rng, torture.side_count);
        side = torture.sides[at];
        torture.side_count--;
        torture.sides[at] = torture.sides[torture.side_count];
    }
    pthread_mutex_unlock(&torture.lock);
    if (side == NULL) {
        return false;
    }
    if (atomic_load(&side->closed)) {
        rpc_stream_unref(side->stream);
        side_unref(side);
        return true;
    }
    side_disturb(side, rng);
    pthread_mutex_lock(&torture.lock);
    CHECK(torture.side_count < SERVER_STREAMS_MAX);
    torture.sides[torture.side_count] = side;
    torture.side_count++;
    pthread_mutex_unlock(&torture.lock);
    return true;
}

static void *worker_main(void *argument)
{
    (void)argument;
    struct rng rng;
    rng_init(&rng, torture.seed * 31 + 2);
    for (;;) {
        bool stopping = atomic_load(&torture.worker_stop);
        bool did = worker_answer(&rng);
        for (int i = 0; i < 4; i++) {
            did = worker_stream(&rng) || did;
        }
        if (stopping && !did) {
            return NULL;
        }
        nap(&rng, 300);
    }
}

/* --- clients --- */

struct unary {
    uint64_t op;
    struct client *client;
};

struct client {
    struct rng rng;
    struct rpc_channel *channels[SERVERS];
    struct rpc_request *handles[CALLS_PER_CLIENT];
    size_t handle_count;
    _Atomic uint64_t outstanding;
    struct side *sides[STREAMS_PER_CLIENT];
    struct rpc_timer *timer;
    pthread_t thread;
};

static void unary_done(void *context, const struct rpc_result *result)
{
    struct unary *unary = context;
    CHECK(-result->error < ERRORS);
    CHECK(result->text != NULL);
    CHECK((result->error == ERR_OK) == (result->owner != NULL));
    op_end(unary->op);
    atomic_fetch_add(&torture.unary_ended[-result->error], 1);
    atomic_fetch_sub(&unary->client->outstanding, 1);
    free(unary);
}

static void client_call(struct client *client)
{
    static const char *const methods[] = {"/t.T/Echo", "/t.T/Echo", "/t.T/Hold", "/t.T/Hold",
                                          "/t.T/None"};
    struct rng *rng = &client->rng;
    if (atomic_load(&client->outstanding) >= CALLS_PER_CLIENT) {
        return;
    }
    struct unary *unary = mem_calloc(1, sizeof(*unary));
    struct buf request;
    struct rpc_request *handle = NULL;
    unary->op = op_start();
    unary->client = client;
    atomic_fetch_add(&client->outstanding, 1);
    buf_of_pattern(&request, rng_below(rng, rng_chance(rng, 1, 100) ? 3u << 20 : 2000), 1);
    uint64_t deadline = now_ns() + rng_below(rng, rng_chance(rng, 1, 5) ? 5 : 2000) * NS_PER_MS;
    struct rpc_channel *channel = client->channels[rng_below(rng, SERVERS)];
    bool wanted = client->handle_count < CALLS_PER_CLIENT && rng_chance(rng, 1, 2);
    CHECK(rpc_call_start(channel, methods[rng_below(rng, 5)], &request, deadline, unary_done, unary,
                         wanted ? &handle : NULL) == ERR_OK);
    CHECK(request.data == NULL);
    if (wanted) {
        client->handles[client->handle_count] = handle;
        client->handle_count++;
    }
}

static void client_handle_drop(struct client *client, bool cancel)
{
    if (client->handle_count == 0) {
        return;
    }
    size_t at = rng_below(&client->rng, client->handle_count);
    struct rpc_request *handle = client->handles[at];
    client->handle_count--;
    client->handles[at] = client->handles[client->handle_count];
    if (cancel) {
        rpc_request_cancel(handle);
    }
    rpc_request_unref(handle);
}

static void side_release(struct side *side)
{
    rpc_stream_unref(side->stream);
    side_unref(side);
}

/* The user pointer is set after the open returns, but a callback may come before: so clients find
 * their side by the context instead. */
static bool client_message(void *context, struct rpc_stream *stream, struct bytes message,
                           struct blob *owner)
{
    rpc_stream_set_user(stream, context);
    return side_message(context, stream, message, owner);
}

static void client_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    rpc_stream_set_user(stream, context);
    side_closed(context, stream, error, text);
}

static void client_writable(void *context, struct rpc_stream *stream)
{
    rpc_stream_set_user(stream, context);
    side_writable(context, stream);
}

static const struct rpc_stream_events client_events = {
    .message = client_message, .writable = client_writable, .closed = client_closed};

static void client_stream(struct client *client)
{
    struct rng *rng = &client->rng;
    size_t at = rng_below(rng, STREAMS_PER_CLIENT);
    struct side *side = client->sides[at];
    if (side == NULL) {
        uint64_t op = op_start();
        side = side_create(torture.seed + op);
        side->op = op;
        client->sides[at] = side;
        CHECK(rpc_stream_open(client->channels[rng_below(rng, SERVERS)],
                              rng_chance(rng, 1, 30) ? "/t.T/None" : "/t.T/Auto", &client_events,
                              side, 32 * 1024, &side->stream) == ERR_OK);
    } else if (atomic_load(&side->closed)) {
        client->sides[at] = NULL;
        side_release(side);
    } else {
        side_disturb(side, rng);
    }
}

static void client_fire(void *context)
{
    (void)context;
    atomic_fetch_add(&torture.timers, 1);
}

static void client_step(struct client *client)
{
    struct rng *rng = &client->rng;
    uint64_t dice = rng_below(rng, 1000);
    if (dice < 500) {
        client_call(client);
    } else if (dice < 600) {
        client_handle_drop(client, rng_chance(rng, 1, 3));
    } else if (dice < 990) {
        client_stream(client);
    } else if (dice < 996) {
        rpc_timer_set(client->timer, now_ns() + rng_below(rng, 3 * NS_PER_MS));
    } else if (dice < 998) {
        rpc_timer_destroy(client->timer);
        client->timer = rpc_timer_create(torture.client_rpc, client_fire, NULL);
    } else if (rng_chance(rng, 1, 10)) {
        size_t at = rng_below(rng, SERVERS);
        rpc_channel_destroy(client->channels[at]);
        CHECK(rpc_channel_create(torture.client_rpc, torture.servers[at].address,
                                 &client->channels[at]) == ERR_OK);
    }
}

static void *client_main(void *argument)
{
    struct client *client = argument;
    client->timer = rpc_timer_create(torture.client_rpc, client_fire, NULL);
    for (size_t i = 0; i < SERVERS; i++) {
        CHECK(rpc_channel_create(torture.client_rpc, torture.servers[i].address,
                                 &client->channels[i]) == ERR_OK);
    }
    while (now_ns() < torture.until_ns && atomic_load(&torture.ops) < OPS_MAX - 1024) {
        client_step(client);
        if (rng_chance(&client->rng, 1, 10)) {
            nap(&client->rng, 500);
        }
    }
    for (size_t i = 0; i < SERVERS; i++) {
        rpc_channel_destroy(client->channels[i]);
    }
    while (client->handle_count > 0) {
        client_handle_drop(client, false);
    }
    for (size_t i = 0; i < STREAMS_PER_CLIENT; i++) {
        if (client->sides[i] != NULL) {
            side_release(client->sides[i]);
        }
    }
    rpc_timer_destroy(client->timer);
    return NULL;
}

/* --- the whole --- */

static void counts_print(const char *what, _Atomic uint64_t counts[ERRORS])
{
    printf("%s:", what);
    for (int i = 0; i < ERRORS; i++) {
        uint64_t count = atomic_load(&counts[i]);
        if (count > 0) {
            printf(" %s %" PRIu64, err_name(-i), count);
        }
    }
    printf("\n");
}

/* A run that never reached a case did not test it. */
static void coverage_check(void)
{
    static const int wanted[] = {ERR_OK,          ERR_BUSY,        ERR_TIMEOUT,   ERR_CANCELED,
                                 ERR_UNAVAILABLE, ERR_UNSUPPORTED, ERR_NOT_LEADER};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (atomic_load(&torture.unary_ended[-wanted[i]]) == 0) {
            fprintf(stderr, "torture: no call ended with %s\n", err_name(wanted[i]));
            abort();
        }
    }
    CHECK(atomic_load(&torture.streams_ended[-ERR_OK]) > 0);
    CHECK(atomic_load(&torture.streams_ended[-ERR_CANCELED]) > 0);
    CHECK(atomic_load(&torture.streams_ended[-ERR_UNAVAILABLE]) > 0);
    CHECK(atomic_load(&torture.busy) > 0);
    CHECK(atomic_load(&torture.writable) > 0);
    CHECK(atomic_load(&torture.messages) > 0);
    CHECK(atomic_load(&torture.restarts) > 0);
    CHECK(atomic_load(&torture.timers) > 0);
}

static void run(void)
{
    struct rpc_options options = rpc_options_default();
    struct client *clients = mem_calloc(CLIENTS, sizeof(*clients));
    struct rng rng;
    pthread_t restarter;
    pthread_t worker;
    rng_init(&rng, torture.seed);
    options.queue_count = 2;
    CHECK(rpc_create(&options, &torture.server_rpc) == ERR_OK);
    CHECK(rpc_create(&options, &torture.client_rpc) == ERR_OK);
    for (size_t i = 0; i < SERVERS; i++) {
        server_start(&torture.servers[i], &rng);
        CHECK(torture.servers[i].server != NULL);
    }
    CHECK(pthread_create(&worker, NULL, worker_main, NULL) == 0);
    CHECK(pthread_create(&restarter, NULL, restarter_main, NULL) == 0);
    for (size_t i = 0; i < CLIENTS; i++) {
        rng_init(&clients[i].rng, torture.seed * 31 + 3 + i);
        CHECK(pthread_create(&clients[i].thread, NULL, client_main, &clients[i]) == 0);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
    }
    pthread_join(restarter, NULL);
    rpc_destroy(torture.client_rpc); /* waits for every client-side callback */
    for (size_t i = 0; i < CLIENTS; i++) {
        CHECK(atomic_load(&clients[i].outstanding) == 0);
    }
    for (size_t i = 0; i < SERVERS; i++) {
        rpc_server_destroy(torture.servers[i].server);
    }
    atomic_store(&torture.worker_stop, true);
    pthread_join(worker, NULL);
    CHECK(torture.held_count == 0);
    CHECK(torture.side_count == 0);
    rpc_destroy(torture.server_rpc);
    free(clients);
}

int main(int argc, char **argv)
{
    static const struct option flags[] = {{"seconds", required_argument, NULL, 's'},
                                          {"seed", required_argument, NULL, 'r'},
                                          {NULL, 0, NULL, 0}};
    unsigned seconds = 20;
    int flag = 0;
    torture.seed = rng_seed_from_system() % 1000000;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == 's') {
            seconds = (unsigned)strtoul(optarg, NULL, 10);
        } else if (flag == 'r') {
            torture.seed = strtoull(optarg, NULL, 10);
        } else {
            fprintf(stderr, "torture [--seconds N] [--seed S]\n");
            return 2;
        }
    }
    printf("torture: --seconds %u --seed %" PRIu64 "\n", seconds, torture.seed);
    fflush(stdout);
    alarm(seconds + HANG_S); /* a hang is a failure too */
    torture.until_ns = now_ns() + seconds * NS_PER_S;
    torture.callbacks = mem_calloc(OPS_MAX, sizeof(torture.callbacks[0]));
    pthread_mutex_init(&torture.lock, NULL);
    run();
    uint64_t ops = atomic_load(&torture.ops);
    for (uint64_t i = 0; i < ops; i++) {
        CHECK(atomic_load(&torture.callbacks[i]) == 1);
    }
    counts_print("calls", torture.unary_ended);
    counts_print("streams", torture.streams_ended);
    printf("operations %" PRIu64 ", accepted streams %" PRIu64 ", messages %" PRIu64
           ", busy %" PRIu64 ", writable %" PRIu64 ", restarts %" PRIu64 ", timers %" PRIu64 "\n",
           ops, atomic_load(&torture.streams_accepted), atomic_load(&torture.messages),
           atomic_load(&torture.busy), atomic_load(&torture.writable),
           atomic_load(&torture.restarts), atomic_load(&torture.timers));
    CHECK(atomic_load(&torture.streams_accepted) == atomic_load(&torture.streams_accepted_ended));
    if (seconds >= 10) {
        coverage_check();
    }
    pthread_mutex_destroy(&torture.lock);
    free(torture.callbacks);
    return 0;
}
