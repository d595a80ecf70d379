/* Calls to the controllers: endpoints, attempts, back-off.
 *
 * Thread: any; client->mutex guards everything and is never held while a callback of the user runs.
 *
 * A call is always in exactly one of: an attempt under way (under_way != NULL), waiting for its
 * timer, or ending (off the list, its `done` about to run). Each attempt ends in exactly one
 * attempt_done, which ends the call or arms the timer:
 *
 *   call_attempt --reply, final--> call_end          call_attempt --refused--> next endpoint
 * (call_attempt) ^                                                 |  all endpoints were tried
 *        '------------------- call_timer_fired <-----------'  (back-off, growing, jittered)
 *
 * Invariant: maybe_executed is never cleared except by a controller's answer under the same
 * sequence that ends the call. */
#include "client/controller_internal.h"

#include "base/assert.h"
#include "base/flags.h"
#include "client/client_rpc.h"
#include "proto/messages.h"
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add_endpoint(struct controller_client *client, const char *address, size_t size)
{
    char copy[ADDRESS_BYTES_MAX];
    if (size >= sizeof copy || client->endpoint_count == CONTROLLER_ENDPOINTS_MAX) {
        return ERR_TOO_LARGE;
    }
    memcpy(copy, address, size);
    copy[size] = '\0';
    if (parse_address(copy) != 0) {
        return ERR_INVALID;
    }
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        if (strcmp(client->endpoints[i].address, copy) == 0) {
            return 0;
        }
    }
    memcpy(client->endpoints[client->endpoint_count++].address, copy, size + 1);
    return 0;
}

static int parse_addresses(struct controller_client *client, const char *addresses, char *why,
                           size_t why_size)
{
    const char *at = addresses;
    for (;;) {
        size_t size = strcspn(at, ",");
        if (client->endpoint_count == CONTROLLER_ADDRESSES_MAX) {
            (void)snprintf(why, why_size, "more than %d controller addresses",
                           CONTROLLER_ADDRESSES_MAX);
            return ERR_INVALID;
        }
        if (size == 0 || add_endpoint(client, at, size) != 0) {
            (void)snprintf(why, why_size,
                           "controller address '%.*s' is not host:port (in '%.120s')",
                           (int)(size > 100 ? 100 : size), at, addresses);
            return ERR_INVALID;
        }
        if (at[size] == '\0') {
            return 0;
        }
        at += size + 1;
    }
}

int controller_client_create(struct rpc *rpc, const struct clock *clock, const char *addresses,
                             uint64_t cluster_id, uint64_t seed, struct controller_client **out,
                             char *why, size_t why_size)
{
    ASSERT(rpc != NULL);
    ASSERT(addresses != NULL);
    struct controller_client *client = mem_calloc(1, sizeof *client);
    client->rpc = rpc;
    client->clock = clock;
    client->cluster_id = cluster_id;
    rng_init(&client->rng, seed);
    do {
        client->client_id = rng_next(&client->rng);
    } while (client->client_id == 0);
    client->next_sequence = 1;
    int error = parse_addresses(client, addresses, why, why_size);
    if (error != 0) {
        free(client);
        return error;
    }
    client->target = (uint32_t)rng_below(&client->rng, client->endpoint_count);
    client->addresses = mem_strdup(addresses);
    ASSERT(pthread_mutex_init(&client->mutex, NULL) == 0);
    ASSERT(pthread_cond_init(&client->idle, NULL) == 0);
    *out = client;
    return 0;
}

void controller_client_next_ids(struct controller_client *client, uint64_t *client_id,
                                uint64_t *sequence)
{
    pthread_mutex_lock(&client->mutex);
    *client_id = client->client_id;
    *sequence = client->next_sequence++;
    pthread_mutex_unlock(&client->mutex);
}

int controller__channel(struct controller_client *client, uint32_t endpoint,
                        struct rpc_channel **out)
{
    struct controller_endpoint *at = &client->endpoints[endpoint];
    if (at->channel == NULL) {
        int error = rpc_channel_create(client->rpc, at->address, &at->channel);
        if (error != 0) {
            at->channel = NULL;
            return error;
        }
    }
    *out = at->channel;
    return 0;
}

bool controller__redirect(struct controller_client *client, uint32_t from, const char *hint)
{
    if (client->target != from) {
        return false;
    }
    if (hint[0] != '\0' && strcmp(hint, client->endpoints[from].address) != 0) {
        /* A full table only loses the hint; the given addresses still go round. */
        if (add_endpoint(client, hint, strlen(hint)) == 0) {
            for (uint32_t i = 0; i < client->endpoint_count; i++) {
                if (strcmp(client->endpoints[i].address, hint) == 0) {
                    client->target = i;
                    return true;
                }
            }
        }
    }
    client->target = (from + 1) % client->endpoint_count;
    return false;
}

uint64_t controller__backoff_ns(struct controller_client *client, uint32_t count)
{
    uint64_t limit = CONTROLLER_BACKOFF_MIN_NS << (count > 5 ? 5 : count);
    if (limit > CONTROLLER_BACKOFF_MAX_NS) {
        limit = CONTROLLER_BACKOFF_MAX_NS;
    }
    return limit / 2 + rng_below(&client->rng, limit / 2 + 1);
}

/* ---- one call ---- */

static void call_unlink(struct controller_call *call)
{
    *call->link = call->next;
    if (call->next != NULL) {
        call->next->link = call->link;
    }
}

/* Without the mutex; the call is off the list and no attempt is under way. */
static void call_end(struct controller_call *call, int error, struct bytes reply)
{
    struct controller_client *client = call->client;
    call->done(call->context, error, call->text, reply);
    if (call->timer != NULL) {
        rpc_timer_destroy(call->timer);
    }
    buf_deinit(&call->request);
    free(call->method);
    free(call);
    pthread_mutex_lock(&client->mutex);
    client->call_count--;
    pthread_cond_broadcast(&client->idle);
    pthread_mutex_unlock(&client->mutex);
}

/* The error of a call whose deadline passed without a final answer, and a sentence about why. */
static int expired_error(struct controller_call *call)
{
    char last[RPC_ERROR_TEXT_BYTES_MAX];
    (void)snprintf(last, sizeof last, "%.160s", call->text);
    int error = call->maybe_executed ? ERR_TIMEOUT : call->last_error;
    if (error == 0) {
        error = ERR_TIMEOUT;
        (void)snprintf(last, sizeof last, "no answer");
    }
    const char *what = error == ERR_UNAVAILABLE ? "no server could be reached at"
                       : error == ERR_TIMEOUT   ? "no answer in time from"
                       : error == ERR_NOT_LEADER || error == ERR_NO_QUORUM
                           ? "nobody leads at"
                           : "nobody could take it at";
    (void)snprintf(call->text, sizeof call->text, "%s %.100s: %.100s", what,
                   call->client->addresses, last[0] != '\0' ? last : err_text(error));
    return error;
}

static void call_attempt(struct controller_call *call, uint64_t now_ns);

/* Mutex held; no attempt under way. True when the call is over and was unlinked: the caller ends it
 * after unlocking. */
static bool call_go_on(struct controller_call *call, bool at_once, int *error)
{
    struct controller_client *client = call->client;
    uint64_t now_ns = clock_now_ns(client->clock);
    if (client->closing) {
        *error = ERR_CANCELED;
        call_unlink(call);
        return true;
    }
    if (now_ns >= call->deadline_ns) {
        *error = expired_error(call);
        call_unlink(call);
        return true;
    }
    if (at_once && call->hops < client->endpoint_count + 1) {
        call->hops++;
        call_attempt(call, now_ns);
        if (call->under_way != NULL) {
            return false;
        }
    }
    uint64_t wake_ns = now_ns + controller__backoff_ns(client, call->backoffs++);
    call->hops = 0;
    rpc_timer_set(call->timer, wake_ns < call->deadline_ns ? wake_ns : call->deadline_ns);
    return false;
}

static void call_timer_fired(void *context)
{
    struct controller_call *call = context;
    struct controller_client *client = call->client;
    int error = 0;
    pthread_mutex_lock(&client->mutex);
    bool over = call->under_way == NULL && call_go_on(call, true, &error);
    pthread_mutex_unlock(&client->mutex);
    if (over) {
        call_end(call, error, BYTES_EMPTY);
    }
}

enum verdict { VERDICT_FINAL, VERDICT_NEXT, VERDICT_BACK_OFF };

/* What a controller's own answer means for the call. */
static enum verdict judge_answer(struct controller_call *call, struct bytes reply)
{
    struct controller_client *client = call->client;
    struct msg_admin_response answer; /* every response has the header in the same place */
    int error = msg_admin_response_decode(reply, &answer);
    if (error != 0) {
        call->last_error = ERR_PROTOCOL;
        (void)snprintf(call->text, sizeof call->text, "malformed answer from %s",
                       client->endpoints[call->endpoint].address);
        call->maybe_executed = true;
        (void)controller__redirect(client, call->endpoint, "");
        return VERDICT_NEXT;
    }
    call->last_error = answer.header.error;
    (void)snprintf(call->text, sizeof call->text, "%s", answer.header.message);
    switch (answer.header.error) {
    case ERR_NOT_LEADER:
        (void)controller__redirect(client, call->endpoint, answer.header.route.leader_address);
        return VERDICT_NEXT;
    case ERR_LEADER_LOST:
    case ERR_TIMEOUT:
        call->maybe_executed = true;
        (void)controller__redirect(client, call->endpoint, answer.header.route.leader_address);
        return VERDICT_NEXT;
    case ERR_SHUTDOWN:
    case ERR_NO_QUORUM:
        (void)controller__redirect(client, call->endpoint, answer.header.route.leader_address);
        return VERDICT_NEXT;
    case ERR_BUSY:
    case ERR_SESSIONS_FULL:
        return VERDICT_BACK_OFF;
    default:
        return VERDICT_FINAL;
    }
}

/* What a failed transport means. */
static enum verdict judge_failure(struct controller_call *call, const struct rpc_result *result)
{
    struct controller_client *client = call->client;
    (void)snprintf(
        call->text, sizeof call->text, "%s: %.200s", client->endpoints[call->endpoint].address,
        result->text != NULL && result->text[0] != '\0' ? client__plain_text(result->text)
                                                        : err_text(result->error));
    call->last_error = result->error;
    if (result->error == ERR_UNSUPPORTED || result->error == ERR_TOO_LARGE ||
        result->error == ERR_INVALID) {
        return VERDICT_FINAL; /* refused as it is: the same everywhere */
    }
    if (result->error == ERR_BUSY) {
        return VERDICT_BACK_OFF;
    }
    if (!result->not_sent && result->error != ERR_SHUTDOWN) {
        call->maybe_executed = true;
    } else {
        call->last_error = ERR_UNAVAILABLE;
    }
    (void)controller__redirect(client, call->endpoint, "");
    return VERDICT_NEXT;
}

static void attempt_done(void *context, const struct rpc_result *result)
{
    struct controller_call *call = context;
    struct controller_client *client = call->client;
    pthread_mutex_lock(&client->mutex);
    ASSERT(call->under_way != NULL);
    rpc_request_unref(call->under_way);
    call->under_way = NULL;
    enum verdict verdict =
        result->error == 0 ? judge_answer(call, result->reply) : judge_failure(call, result);
    int error = call->last_error;
    bool over = true;
    if (verdict == VERDICT_FINAL) {
        call_unlink(call);
    } else {
        over = call_go_on(call, verdict == VERDICT_NEXT, &error);
    }
    pthread_mutex_unlock(&client->mutex);
    if (over) {
        call_end(call, error, verdict == VERDICT_FINAL ? result->reply : BYTES_EMPTY);
    }
}

/* Mutex held, so that attempt_done, which may already run on another thread, waits until under_way
 * is set. */
static void call_attempt(struct controller_call *call, uint64_t now_ns)
{
    struct controller_client *client = call->client;
    struct rpc_channel *channel;
    call->endpoint = client->target;
    int error = controller__channel(client, call->endpoint, &channel);
    if (error == 0) {
        uint64_t attempt_ns = now_ns + CONTROLLER_ATTEMPT_NS;
        struct buf copy;
        buf_init(&copy);
        buf_append_bytes(&copy, buf_view(&call->request));
        error = rpc_call_start(channel, call->method, &copy,
                               attempt_ns < call->deadline_ns ? attempt_ns : call->deadline_ns,
                               attempt_done, call, &call->under_way);
        if (error != 0) {
            call->under_way = NULL;
            buf_deinit(&copy);
        }
    }
    if (error != 0) {
        call->last_error = ERR_UNAVAILABLE;
        (void)snprintf(call->text, sizeof call->text, "%s: %s",
                       client->endpoints[call->endpoint].address, err_text(error));
        (void)controller__redirect(client, call->endpoint, "");
    }
}

int controller_client_call(struct controller_client *client, const char *method,
                           struct buf *request, uint64_t deadline_ns, controller_done_fn done,
                           void *context)
{
    struct controller_call *call = mem_calloc(1, sizeof *call);
    call->client = client;
    call->method = mem_strdup(method);
    call->deadline_ns = deadline_ns;
    call->done = done;
    call->context = context;
    call->timer = rpc_timer_create(client->rpc, call_timer_fired, call);
    pthread_mutex_lock(&client->mutex);
    int error = client->closing                              ? ERR_SHUTDOWN
                : client->call_count >= CONTROLLER_CALLS_MAX ? ERR_BUSY
                                                             : 0;
    if (error == 0) {
        call->request = *request;
        *request = (struct buf){0};
        call->next = client->calls;
        call->link = &client->calls;
        if (call->next != NULL) {
            call->next->link = &call->next;
        }
        client->calls = call;
        client->call_count++;
        call->hops = 1;
        call_attempt(call, clock_now_ns(client->clock));
        if (call->under_way == NULL) {
            rpc_timer_set(call->timer, 0); /* `done` never runs inside this function */
        }
    }
    pthread_mutex_unlock(&client->mutex);
    if (error != 0) {
        rpc_timer_destroy(call->timer);
        free(call->method);
        free(call);
    }
    return error;
}

struct call_waiter {
    sem_t done;
    int error;
    struct buf *reply;
    char *text;
    size_t text_size;
};

static void waiter_done(void *context, int error, const char *text, struct bytes reply)
{
    struct call_waiter *waiter = context;
    waiter->error = error;
    buf_append_bytes(waiter->reply, reply);
    if (waiter->text != NULL && waiter->text_size > 0) {
        (void)snprintf(waiter->text, waiter->text_size, "%s", text);
    }
    (void)sem_post(&waiter->done);
}

int controller_client_call_wait(struct controller_client *client, const char *method,
                                struct buf *request, uint64_t deadline_ns, struct buf *reply,
                                char *text, size_t text_size)
{
    struct call_waiter waiter = {.reply = reply, .text = text, .text_size = text_size};
    ASSERT(sem_init(&waiter.done, 0, 0) == 0);
    int error = controller_client_call(client, method, request, deadline_ns, waiter_done, &waiter);
    if (error == 0) {
        while (sem_wait(&waiter.done) != 0) {
            /* EINTR: a signal; the call still ends by its deadline. */
        }
        error = waiter.error;
    }
    (void)sem_destroy(&waiter.done);
    return error;
}

void controller_client_destroy(struct controller_client *client)
{
    if (client == NULL) {
        return;
    }
    pthread_mutex_lock(&client->mutex);
    client->closing = true;
    for (struct controller_call *call = client->calls; call != NULL; call = call->next) {
        if (call->under_way != NULL) {
            rpc_request_cancel(call->under_way);
        } else {
            rpc_timer_set(call->timer, 0);
        }
    }
    controller__watch_close(client);
    while (client->call_count > 0 || client->watch.state != WATCH_OFF || client->watch.checking) {
        pthread_cond_wait(&client->idle, &client->mutex);
    }
    pthread_mutex_unlock(&client->mutex);
    if (client->watch.timer != NULL) {
        rpc_timer_destroy(client->watch.timer);
    }
    for (uint32_t i = 0; i < client->endpoint_count; i++) {
        if (client->endpoints[i].channel != NULL) {
            rpc_channel_destroy(client->endpoints[i].channel);
        }
    }
    pthread_cond_destroy(&client->idle);
    pthread_mutex_destroy(&client->mutex);
    free(client->addresses);
    free(client);
}
