/* libshardkv: drives the router (client/router.h) over gRPC. Life of a client, and the rounds in
 * which everything the router wants is done.
 *
 * Threads. Commands enter on the user's threads; answers, lost connections, configs and timers on
 * rpc's. Whoever changed the router pumps afterwards on its own thread, so a command leaves without
 * a hand-over. `undelivered` counts from a command's acceptance to the return of its callback;
 * skv_close waits for zero. */
#include "client/client_internal.h"

#include "base/assert.h"
#include "base/rng.h"
#include "client/client_rpc.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert(SKV_KEY_BYTES_MAX == KEY_BYTES_MAX, "one limit, said twice");
static_assert(SKV_VALUE_BYTES_MAX == VALUE_BYTES_MAX, "one limit, said twice");
static_assert((int)SKV_DONE == (int)OUTCOME_DONE && (int)SKV_NOT_DONE == (int)OUTCOME_NOT_DONE &&
                  (int)SKV_UNKNOWN == (int)OUTCOME_UNKNOWN,
              "outcomes are passed through");
static_assert((int)SKV_GET == (int)OP_GET && (int)SKV_CAS == (int)OP_CAS,
              "operations are passed through");

enum { ROUND_BATCHES_MAX = 8, ROUND_COMPLETIONS_MAX = 128 };

/* What one round took out of the router, to be done without the mutex. */
struct round {
    struct router_batch batches[ROUND_BATCHES_MAX];
    struct rpc_stream *streams[ROUND_BATCHES_MAX];
    uint32_t batch_count;
    struct router_completion completions[ROUND_COMPLETIONS_MAX];
    uint32_t completion_count;
    bool query;
};

struct started {
    skv_done_fn done;
    void *context;
};

/* The client whose completions this thread is delivering: what its callbacks start is sent after
 * the round, as one block, by the pump that is under way. */
static _Thread_local struct skv_client *delivering;

int client__code(int error)
{
    switch (error) {
    case ERR_OK:
    case ERR_INVALID:
    case ERR_TOO_LARGE:
    case ERR_NOT_FOUND:
    case ERR_BUSY:
    case ERR_TIMEOUT:
    case ERR_CANCELED:
    case ERR_SHUTDOWN:
    case ERR_IO:
    case ERR_NO_SPACE:
    case ERR_UNSUPPORTED:
    case ERR_WRONG_CLUSTER:
    case ERR_SESSION_EXPIRED:
    case ERR_VERSION_MISMATCH:
        return -error;
    case ERR_PROTOCOL:
        return SKV_UNSUPPORTED;
    default:
        return SKV_UNAVAILABLE;
    }
}

/* ---- rounds ---- */

static void arm_timer(struct skv_client *client, bool deliver)
{
    if (client->closing && client->undelivered == 0) {
        return; /* the timer may be gone */
    }
    uint64_t wake_ns = router_wake_ns(client->router);
    if (!deliver && router_has_completion(client->router)) {
        wake_ns = 0; /* callbacks do not run inside skv_start: let the timer's thread deliver */
    }
    if (client->connections != NULL && client->idle_check_ns < wake_ns) {
        wake_ns = client->idle_check_ns;
    }
    /* Firing early is harmless and moving it at every command is not free: only sooner is worth it.
     */
    if (wake_ns < client->timer_ns) {
        client->timer_ns = wake_ns;
        rpc_timer_set(client->timer, wake_ns);
    }
}

/* Mutex held. True when there is something to do. */
static bool collect(struct skv_client *client, bool deliver, struct round *round)
{
    uint64_t now_ns = clock_now_ns(client->clock);
    uint64_t connection;
    round->batch_count = 0;
    round->completion_count = 0;
    round->query = false;
    while (round->batch_count < ROUND_BATCHES_MAX) {
        struct router_batch *batch = &round->batches[round->batch_count];
        if (!router_next_batch(client->router, now_ns, batch)) {
            break;
        }
        struct rpc_stream *stream = client__connection_stream(client, batch, now_ns);
        if (stream == NULL) {
            buf_deinit(&batch->message);
            router_batch_not_sent(client->router, batch->id, now_ns);
            continue;
        }
        round->streams[round->batch_count++] = stream;
    }
    while (router_next_reset(client->router, &connection)) {
        client__connection_cancel(client, connection);
    }
    while (deliver && round->completion_count < ROUND_COMPLETIONS_MAX &&
           router_next_completion(client->router, &round->completions[round->completion_count])) {
        round->completion_count++;
    }
    if (round->completion_count > 0 && client->room_waiters > 0) {
        pthread_cond_broadcast(&client->changed);
    }
    /* Taken even when it cannot be followed now; the router will want it again. */
    if (router_wants_config(client->router, now_ns) && !client->querying && !client->closing) {
        client->querying = true;
        client->query_starting = true;
        round->query = true;
    }
    arm_timer(client, deliver);
    return round->batch_count > 0 || round->completion_count > 0 || round->query;
}

static void send_batches(struct skv_client *client, struct round *round)
{
    for (uint32_t i = 0; i < round->batch_count; i++) {
        struct router_batch *batch = &round->batches[i];
        if (rpc_stream_send(round->streams[i], &batch->message) != 0) {
            pthread_mutex_lock(&client->mutex);
            router_batch_not_sent(client->router, batch->id, clock_now_ns(client->clock));
            pthread_mutex_unlock(&client->mutex);
        }
        buf_deinit(&batch->message);
        rpc_stream_unref(round->streams[i]);
    }
}

static void deliver_completions(struct skv_client *client, struct round *round)
{
    if (round->completion_count == 0) {
        return;
    }
    delivering = client;
    for (uint32_t i = 0; i < round->completion_count; i++) {
        struct router_completion *completion = &round->completions[i];
        struct started *started = completion->context;
        struct skv_result result = {
            .outcome = (enum skv_outcome)completion->outcome,
            .code = client__code(completion->error),
            .version = completion->version,
            .value = completion->value.data,
            .value_size = completion->value.size,
        };
        started->done(started->context, &result);
        blob_unref(completion->owner);
        free(started);
    }
    delivering = NULL;
    pthread_mutex_lock(&client->mutex);
    client->undelivered -= round->completion_count;
    if (client->undelivered == 0) {
        pthread_cond_broadcast(&client->changed);
    }
    pthread_mutex_unlock(&client->mutex);
}

static void config_changed(void *context, const struct config *config)
{
    struct skv_client *client = context;
    pthread_mutex_lock(&client->mutex);
    /* A config with another number of shards is not of this cluster; what we have stays. */
    int ignored = router_config(client->router, config, clock_now_ns(client->clock));
    (void)ignored;
    pthread_mutex_unlock(&client->mutex);
    client__pump(client);
}

static void query_done(void *context, int error, const char *text, struct bytes reply)
{
    struct skv_client *client = context;
    struct msg_query_response response = {0};
    (void)text;
    if (error == 0 && msg_query_response_decode(reply, &response) == 0 && response.config != NULL) {
        config_changed(client, response.config);
    }
    msg_query_response_deinit(&response);
    pthread_mutex_lock(&client->mutex);
    client->querying = false;
    pthread_mutex_unlock(&client->mutex);
    client__pump(client);
}

static void encode_query(const struct skv_client *client, struct buf *request)
{
    struct msg_query_request query = {.header = {.cluster_id = client->cluster_id}, .latest = true};
    buf_init(request);
    msg_query_request_encode(&query, request);
}

static void query(struct skv_client *client)
{
    struct buf request;
    encode_query(client, &request);
    int error =
        controller_client_call(client->controllers, METHOD_CONTROLLER_QUERY, &request,
                               clock_now_ns(client->clock) + CLIENT_QUERY_NS, query_done, client);
    pthread_mutex_lock(&client->mutex);
    if (error != 0) {
        client->querying = false;
    }
    client->query_starting = false;
    if (client->closing) {
        pthread_cond_broadcast(&client->changed);
    }
    pthread_mutex_unlock(&client->mutex);
    buf_deinit(&request);
}

/* `user`: on a thread of the user's, inside skv_start; nothing is delivered, and skv_close waits
 * for it to leave. */
static void pump(struct skv_client *client, bool user)
{
    struct round round;
    for (;;) {
        pthread_mutex_lock(&client->mutex);
        bool any = collect(client, !user, &round);
        if (!any && user) {
            client->users_inside--;
            if (client->closing) {
                pthread_cond_broadcast(&client->changed);
            }
        }
        pthread_mutex_unlock(&client->mutex);
        if (!any) {
            return;
        }
        send_batches(client, &round);
        deliver_completions(client, &round);
        if (round.query) {
            query(client);
        }
    }
}

void client__pump(struct skv_client *client)
{
    pump(client, false);
}

static void timer_fired(void *context)
{
    struct skv_client *client = context;
    uint64_t now_ns = clock_now_ns(client->clock);
    pthread_mutex_lock(&client->mutex);
    client->timer_ns = UINT64_MAX;
    if (now_ns >= client->idle_check_ns) {
        client__connections_close_idle(client, now_ns);
        client->idle_check_ns = now_ns + CLIENT_IDLE_CHECK_NS;
    }
    router_tick(client->router, now_ns);
    pthread_mutex_unlock(&client->mutex);
    client__pump(client);
}

/* ---- commands ---- */

/* Mutex held. Waits for room, until the deadline. */
static int submit_waiting(struct skv_client *client, const struct router_command *command,
                          bool wait)
{
    for (;;) {
        if (client->closing) {
            return ERR_SHUTDOWN;
        }
        uint64_t now_ns = clock_now_ns(client->clock);
        int error = router_submit(client->router, command, now_ns);
        if (error != ERR_BUSY || !wait || now_ns >= command->deadline_ns) {
            return error;
        }
        struct timespec until = {.tv_sec = (time_t)(command->deadline_ns / NS_PER_S),
                                 .tv_nsec = (long)(command->deadline_ns % NS_PER_S)};
        client->room_waiters++;
        (void)pthread_cond_timedwait(&client->changed, &client->mutex, &until);
        client->room_waiters--;
        if (client->closing) {
            pthread_cond_broadcast(&client->changed);
        }
    }
}

int client__start(struct skv_client *client, const struct skv_command *command, bool wait,
                  skv_done_fn done, void *context)
{
    if (command->key == NULL || (command->value == NULL && command->value_size > 0)) {
        return ERR_INVALID;
    }
    struct started *started = mem_alloc(sizeof *started);
    *started = (struct started){.done = done, .context = context};
    struct router_command routed = {
        .kind = (enum op_kind)command->op,
        .key = bytes_of(command->key, command->key_size),
        .value = bytes_of(command->value, command->value_size),
        .expected_version = command->expected,
        .deadline_ns = clock_now_ns(client->clock) + command->timeout_ms * NS_PER_MS,
        .context = started,
    };
    if (command->op == SKV_GET || command->op == SKV_DELETE) {
        routed.value = BYTES_EMPTY;
    }
    pthread_mutex_lock(&client->mutex);
    int error = submit_waiting(client, &routed, wait);
    bool corked = delivering == client;
    if (error == 0) {
        client->undelivered++;
        client->users_inside += !corked;
    }
    pthread_mutex_unlock(&client->mutex);
    if (error != 0) {
        free(started);
        return error;
    }
    if (!corked) {
        pump(client, true);
    }
    return 0;
}

int skv_start(struct skv_client *client, const struct skv_command *command, skv_done_fn done,
              void *context)
{
    return client__code(client__start(client, command, false, done, context));
}

void skv_stats(struct skv_client *client, struct skv_stats *out)
{
    struct router_stats stats;
    pthread_mutex_lock(&client->mutex);
    router_stats(client->router, &stats);
    pthread_mutex_unlock(&client->mutex);
    *out = (struct skv_stats){.commands = stats.commands,
                              .batches = stats.batches,
                              .retries = stats.retries,
                              .reroutes = stats.reroutes,
                              .config_number = stats.config_number};
}

const char *skv_version(void)
{
    return SHARDKV_VERSION;
}

const char *skv_code_text(int code)
{
    switch (code) {
    case SKV_OK:
        return "done";
    case SKV_NOT_FOUND:
        return "key not found";
    case SKV_BUSY:
        return "too much in flight";
    case SKV_TIMEOUT:
        return "deadline passed";
    case SKV_CANCELED:
        return "cancelled";
    case SKV_UNAVAILABLE:
        return "no leader could be reached";
    case SKV_SHUTDOWN:
        return "the client is closing";
    case SKV_SESSION_EXPIRED:
        return "client session expired";
    default:
        return err_text(-code);
    }
}

/* ---- open and close ---- */

static int make_router(const struct skv_options *options, struct skv_client *client, char *why,
                       size_t why_size)
{
    struct router_options router_options = router_options_default();
    router_options.seed = rng_seed_from_system();
    do {
        router_options.client_id = rng_seed_from_system();
    } while (router_options.client_id == 0);
    router_options.cluster_id = client->cluster_id;
    if (options->outstanding_max != 0) {
        router_options.outstanding_max = options->outstanding_max;
    }
    if (options->outstanding_bytes_max != 0) {
        router_options.outstanding_bytes_max = options->outstanding_bytes_max;
    }
    if (router_options.outstanding_max > SESSION_OUTSTANDING_MAX) {
        (void)snprintf(why, why_size, "outstanding_max is %u, at most %d is possible",
                       router_options.outstanding_max, SESSION_OUTSTANDING_MAX);
        return ERR_INVALID;
    }
    client->router = router_create(&router_options);
    return 0;
}

/* Asks for the config, so that a bad address or a wrong cluster is said now and in words. */
static int learn_config(struct skv_client *client, uint64_t deadline_ns, char *why, size_t why_size)
{
    struct buf request;
    struct buf reply;
    struct msg_query_response response = {0};
    encode_query(client, &request);
    buf_init(&reply);
    int error = controller_client_call_wait(client->controllers, METHOD_CONTROLLER_QUERY, &request,
                                            deadline_ns, &reply, why, why_size);
    if (error == 0) {
        error = msg_query_response_decode(buf_view(&reply), &response);
        if (error == 0 && response.config == NULL) {
            error = ERR_PROTOCOL;
        }
        if (error == 0) {
            pthread_mutex_lock(&client->mutex);
            error = router_config(client->router, response.config, clock_now_ns(client->clock));
            pthread_mutex_unlock(&client->mutex);
        }
        if (error != 0) {
            (void)snprintf(why, why_size, "the controllers' config cannot be read: %s",
                           err_text(error));
        }
    } else if (why_size > 0 && why[0] == '\0') {
        (void)snprintf(why, why_size, "%s", err_text(error));
    }
    msg_query_response_deinit(&response);
    buf_deinit(&request);
    buf_deinit(&reply);
    return error;
}

static void destroy(struct skv_client *client)
{
    pthread_mutex_lock(&client->mutex);
    client->closing = true;
    pthread_cond_broadcast(&client->changed); /* whoever waits for room gives up */
    while (client->undelivered > 0 || client->room_waiters > 0 || client->users_inside > 0 ||
           client->query_starting) {
        pthread_cond_wait(&client->changed, &client->mutex);
    }
    pthread_mutex_unlock(&client->mutex);
    controller_client_destroy(client->controllers);
    pthread_mutex_lock(&client->mutex);
    client__connections_cancel_all(client);
    while (client->connections != NULL) {
        pthread_cond_wait(&client->changed, &client->mutex);
    }
    pthread_mutex_unlock(&client->mutex);
    if (client->timer != NULL) {
        rpc_timer_destroy(client->timer);
    }
    if (client->rpc != NULL) {
        rpc_destroy(client->rpc); /* joins the threads: nobody is inside any more */
    }
    router_destroy(client->router);
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->mutex);
    free(client);
}

static struct skv_client *make_client(const struct skv_options *options)
{
    struct skv_client *client = mem_calloc(1, sizeof *client);
    pthread_condattr_t attributes;
    client->clock = clock_system();
    client->timer_ns = UINT64_MAX;
    client->idle_check_ns = clock_now_ns(client->clock) + CLIENT_IDLE_CHECK_NS;
    client->cluster_id = options->cluster != NULL ? cluster_id_of_name(options->cluster) : 0;
    ASSERT(pthread_mutex_init(&client->mutex, NULL) == 0);
    ASSERT(pthread_condattr_init(&attributes) == 0);
    ASSERT(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    ASSERT(pthread_cond_init(&client->changed, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
    return client;
}

int skv_open(const struct skv_options *options, struct skv_client **out, char *why, size_t why_size)
{
    const struct skv_options none = {0};
    char unused[SKV_ERROR_TEXT_BYTES];
    options = options != NULL ? options : &none;
    if (why == NULL || why_size == 0) {
        why = unused;
        why_size = sizeof unused;
    }
    why[0] = '\0';
    const char *addresses =
        options->controllers != NULL ? options->controllers : getenv("SHARDKV_CONTROLLERS");
    if (addresses == NULL || addresses[0] == '\0') {
        (void)snprintf(why, why_size,
                       "no controllers given, and SHARDKV_CONTROLLERS is not set; want "
                       "\"host:port,host:port\"");
        return SKV_INVALID;
    }
    struct skv_client *client = make_client(options);
    uint64_t timeout_ms = options->open_timeout_ms != 0 ? options->open_timeout_ms : 5000;
    uint64_t deadline_ns = clock_now_ns(client->clock) + timeout_ms * NS_PER_MS;
    int error = make_router(options, client, why, why_size);
    if (error == 0) {
        struct client_tls_files files = {options->tls_ca_file, options->tls_certificate_file,
                                         options->tls_key_file};
        error = client__rpc_create(&files, &client->rpc, why, why_size);
    }
    if (error == 0) {
        client->timer = rpc_timer_create(client->rpc, timer_fired, client);
        error =
            controller_client_create(client->rpc, client->clock, addresses, client->cluster_id,
                                     rng_seed_from_system(), &client->controllers, why, why_size);
    }
    if (error == 0) {
        error = learn_config(client, deadline_ns, why, why_size);
    }
    if (error == 0) {
        error = controller_client_watch_latest(client->controllers, config_changed, client);
    }
    if (error != 0) {
        destroy(client);
        return client__code(error);
    }
    *out = client;
    return 0;
}

void skv_close(struct skv_client *client)
{
    if (client != NULL) {
        destroy(client);
    }
}
