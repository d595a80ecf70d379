/* The process's part: completion queues, their threads, credentials, and the order of going down.
 *
 * Each queue has one thread that is always inside grpc_completion_queue_next, for ever, so an idle
 * process costs nothing and a channel's connection always has someone who moves it. The thread runs
 * one tag at a time.
 *
 * Going down: servers and channels first (their users do that), then the last calls of the
 * channels, then the queues, the threads, the core. Nothing may be started on a queue that was shut
 * down, and nothing can be: whoever starts something holds a server or a channel. */
#include "base/log.h"
#include "base/thread.h"
#include "rpc/rpc_internal.h"
#include <grpc/support/log.h>
#include <string.h>

void rpc__batch(grpc_call *call, const grpc_op *ops, size_t count, struct rpc__tag *tag,
                void (*run)(struct rpc__tag *tag, bool ok))
{
    rpc__tag_arm(tag, run);
    grpc_call_error refused = grpc_call_start_batch(call, ops, count, tag, NULL);
    ASSERT_CMP(refused, ==, GRPC_CALL_OK);
}

struct rpc__queue *rpc__queue_pick(struct rpc *rpc)
{
    uint32_t number = atomic_fetch_add_explicit(&rpc->queue_next, 1, memory_order_relaxed);
    return &rpc->queues[number % rpc->queue_count];
}

bool rpc__on_own_thread(const struct rpc *rpc)
{
    for (uint32_t i = 0; i < rpc->queue_count; i++) {
        if (pthread_equal(pthread_self(), rpc->queues[i].thread)) {
            return true;
        }
    }
    return false;
}

/* The process's part this thread runs callbacks for and whose turn_end it will call after them. */
static _Thread_local const struct rpc *turn_of;

bool rpc_turn_follows(const struct rpc *rpc)
{
    return turn_of == rpc;
}

static void tag_run(const grpc_event *event)
{
    struct rpc__tag *tag = event->tag;
    uint32_t armed = atomic_load_explicit(&tag->armed, memory_order_acquire);
    ASSERT_CMP(armed, ==, 1);
    tag->run(tag, event->success != 0);
}

/* What has arrived without waiting for more, after the first. False: the queue is shut down. */
static bool take_the_rest(struct rpc__queue *queue)
{
    for (uint32_t i = 1; i < RPC__TAGS_A_TURN; i++) {
        grpc_event event =
            grpc_completion_queue_next(queue->queue, gpr_time_0(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type != GRPC_OP_COMPLETE) {
            return event.type != GRPC_QUEUE_SHUTDOWN;
        }
        tag_run(&event);
    }
    return true;
}

static void end_turn(struct rpc__queue *queue)
{
    turn_of = NULL;
    pthread_mutex_lock(&queue->turn_lock);
    if (queue->turn_end != NULL) {
        queue->turn_end(queue->turn_context);
    }
    pthread_mutex_unlock(&queue->turn_lock);
}

/* To ask for a stream's next message when none has come makes the core tell the sender of its new
 * window at once: a write here and a wake-up there, as dear as the message itself. Behind the turn
 * it is out of the way of what the message asked for, and rides along with an answer on the same
 * stream. But a queue that finds more to do without having slept is busy: then the next message is
 * most likely here, and is asked for at once, so that a turn takes many. */
static void read_on(struct rpc__queue *queue)
{
    for (uint32_t i = 0; i < queue->waiting_count; i++) {
        rpc_stream_resume(queue->waiting[i]);
        rpc_stream_unref(queue->waiting[i]);
    }
    queue->waiting_count = 0;
}

static grpc_event next_event(struct rpc__queue *queue)
{
    grpc_event event =
        grpc_completion_queue_next(queue->queue, gpr_time_0(GPR_CLOCK_MONOTONIC), NULL);
    queue->reads_wait = event.type == GRPC_QUEUE_TIMEOUT;
    return event.type != GRPC_QUEUE_TIMEOUT
               ? event
               : grpc_completion_queue_next(queue->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
}

static void *queue_main(void *argument)
{
    struct rpc__queue *queue = argument;
    bool open = true;
    while (open) {
        grpc_event event = next_event(queue);
        if (event.type != GRPC_OP_COMPLETE) {
            open = event.type != GRPC_QUEUE_SHUTDOWN;
            continue;
        }
        bool turns = atomic_load_explicit(&queue->turns, memory_order_relaxed);
        turn_of = turns ? queue->rpc : NULL;
        queue->reads_wait = queue->reads_wait && turns;
        tag_run(&event);
        if (turns) {
            open = take_the_rest(queue);
            end_turn(queue);
            read_on(queue);
        }
    }
    return NULL;
}

void rpc_set_turn_end(struct rpc *rpc, rpc_turn_fn turn_end, void *context)
{
    for (uint32_t i = 0; i < rpc->queue_count; i++) {
        struct rpc__queue *queue = &rpc->queues[i];
        ASSERT(!pthread_equal(pthread_self(), queue->thread));
        pthread_mutex_lock(&queue->turn_lock);
        ASSERT(turn_end == NULL || queue->turn_end == NULL);
        queue->turn_end = turn_end;
        queue->turn_context = context;
        atomic_store_explicit(&queue->turns, turn_end != NULL, memory_order_relaxed);
        pthread_mutex_unlock(&queue->turn_lock);
    }
}

/* The core writes to standard error in its own format; its complaints go through this house's log
 * instead. */
static void core_log(gpr_log_func_args *arguments)
{
    enum log_level level = LOG_DEBUG;
    if (arguments->severity == GPR_LOG_SEVERITY_ERROR) {
        level = LOG_WARN;
    }
    if (!log_enabled(level)) {
        return;
    }
    char message[512];
    size_t size = strnlen(arguments->message, sizeof(message) - 1);
    for (size_t i = 0; i < size; i++) {
        char letter = arguments->message[i];
        message[i] = letter == '"' ? '\'' : letter == '\n' ? ' ' : letter;
    }
    message[size] = '\0';
    log_event(level, "grpc", "message=\"%s\"", message);
}

static void core_log_install(void)
{
    gpr_set_log_function(core_log);
    gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
}

struct rpc_options rpc_options_default(void)
{
    return (struct rpc_options){.queue_count = 1, .tls = NULL, .keepalive_ns = 10 * NS_PER_S};
}

static int credentials_create(struct rpc *rpc, const struct rpc_tls *tls)
{
    if (tls == NULL) {
        rpc->channel_credentials = grpc_insecure_credentials_create();
        rpc->server_credentials = grpc_insecure_server_credentials_create();
        return ERR_OK;
    }
    if (tls->ca_pem == NULL || tls->certificate_pem == NULL || tls->key_pem == NULL) {
        return ERR_INVALID;
    }
    grpc_ssl_pem_key_cert_pair pair = {tls->key_pem, tls->certificate_pem};
    rpc->channel_credentials = grpc_ssl_credentials_create_ex(tls->ca_pem, &pair, NULL, NULL);
    rpc->server_credentials = grpc_ssl_server_credentials_create_ex(
        tls->ca_pem, &pair, 1, GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY, NULL);
    if (rpc->channel_credentials == NULL || rpc->server_credentials == NULL) {
        return ERR_INVALID;
    }
    return ERR_OK;
}

static void credentials_destroy(struct rpc *rpc)
{
    if (rpc->channel_credentials != NULL) {
        grpc_channel_credentials_release(rpc->channel_credentials);
    }
    if (rpc->server_credentials != NULL) {
        grpc_server_credentials_release(rpc->server_credentials);
    }
}

int rpc_create(const struct rpc_options *options, struct rpc **out)
{
    static pthread_once_t log_once = PTHREAD_ONCE_INIT;
    if (options->queue_count < 1 || options->queue_count > RPC_QUEUES_MAX ||
        options->keepalive_ns < 100 * NS_PER_MS || options->keepalive_ns > 3600 * NS_PER_S) {
        return ERR_INVALID;
    }
    pthread_once(&log_once, core_log_install);
    grpc_init();
    struct rpc *rpc = mem_calloc(1, sizeof(*rpc));
    int error = credentials_create(rpc, options->tls);
    if (error != ERR_OK) {
        credentials_destroy(rpc);
        free(rpc);
        grpc_shutdown();
        return error;
    }
    rpc->keepalive_ns = options->keepalive_ns;
    pthread_mutex_init(&rpc->lock, NULL);
    pthread_cond_init(&rpc->idle, NULL);
    rpc->timers = rpc__timers_create();
    rpc->queue_count = options->queue_count;
    for (uint32_t i = 0; i < rpc->queue_count; i++) {
        struct rpc__queue *queue = &rpc->queues[i];
        queue->rpc = rpc;
        queue->queue = grpc_completion_queue_create_for_next(NULL);
        pthread_mutex_init(&queue->turn_lock, NULL);
        error = thread_start(&queue->thread, "rpc-queue", queue_main, queue);
        ASSERT_CMP(error, ==, ERR_OK); /* like memory: a process that cannot have its few threads
                                          cannot run */
    }
    *out = rpc;
    return ERR_OK;
}

void rpc_destroy(struct rpc *rpc)
{
    ASSERT(!rpc__on_own_thread(rpc));
    pthread_mutex_lock(&rpc->lock);
    ASSERT_CMP(rpc->servers, ==, 0);
    ASSERT_CMP(rpc->channels_open, ==, 0);
    while (rpc->channels_live > 0) {
        pthread_cond_wait(&rpc->idle, &rpc->lock);
    }
    pthread_mutex_unlock(&rpc->lock);
    for (uint32_t i = 0; i < rpc->queue_count; i++) {
        grpc_completion_queue_shutdown(rpc->queues[i].queue);
    }
    for (uint32_t i = 0; i < rpc->queue_count; i++) {
        pthread_join(rpc->queues[i].thread, NULL);
        grpc_completion_queue_destroy(rpc->queues[i].queue);
        pthread_mutex_destroy(&rpc->queues[i].turn_lock);
    }
    rpc__timers_destroy(rpc->timers);
    credentials_destroy(rpc);
    pthread_cond_destroy(&rpc->idle);
    pthread_mutex_destroy(&rpc->lock);
    free(rpc);
    grpc_shutdown();
}
