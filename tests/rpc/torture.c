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
#include "rpc/torture.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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
    options.calls_max = 12;
    options.streams_max = 10;
    options.slots_per_method = 1 + (uint32_t)rng_below(rng, 8);
    options.stream_send_bytes_max = 64 * 1024;
    struct rpc_server *made = NULL;
    CHECK(rpc_server_create(torture.server_rpc, &options, &made) == ERR_OK);
    CHECK(rpc_server_add_unary(made, "/t.T/Echo", handle_echo, NULL) == ERR_OK);
    CHECK(rpc_server_add_unary(made, "/t.T/Hold", handle_hold, NULL) == ERR_OK);
    CHECK(rpc_server_add_stream(made, "/t.T/Auto", &torture_server_events, NULL) == ERR_OK);
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
        side_release(side);
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
                              rng_chance(rng, 1, 30) ? "/t.T/None" : "/t.T/Auto",
                              &torture_client_events, side, 32 * 1024, &side->stream) == ERR_OK);
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

static void turn_ended(void *context)
{
    atomic_fetch_add((_Atomic uint64_t *)context, 1);
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
    /* On one side only: with turns reading goes other ways. */
    _Atomic uint64_t turns = 0;
    rpc_set_turn_end(torture.server_rpc, turn_ended, &turns);
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
    CHECK(atomic_load(&turns) > 0);
    rpc_set_turn_end(torture.server_rpc, NULL, NULL);
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
