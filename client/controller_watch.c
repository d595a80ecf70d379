/* The config watch: one bidi stream to a controller, opened again wherever it breaks.
 *
 *   OFF --controller_client_watch--> WAITING --timer: open_stream--> OPEN --closed:
 * stream_closed--> WAITING ^                                                                |
 * timer: check_stream (still OPEN)
 *    '------------------ closing: watch_close, stream_closed ---------'
 *
 * Thread: rpc callbacks; client->mutex guards the watch. At most one stream is open at a time, and
 * its callbacks come one at a time, so `changed` is never run twice at once and numbers only grow.
 *
 * A controller that is cut off from its peers keeps a stream open and says nothing. So a silent
 * stream is checked: a linearizable query goes to the leader, and when it knows a newer config the
 * stream is cancelled and opened there. */
#include "client/controller_internal.h"

#include "base/assert.h"
#include "base/log.h"
#include "client/client_rpc.h"
#include "proto/messages.h"
#include "proto/methods.h"

static void wait_and_reopen(struct controller_client *client)
{
    struct controller_watch *watch = &client->watch;
    uint64_t now_ns = clock_now_ns(client->clock);
    /* The first breaks are most likely a leader that went: somebody else is there at once. */
    uint64_t delay_ns = watch->failures == 0 ? 0 : controller__backoff_ns(client, watch->failures);
    watch->state = WATCH_WAITING;
    rpc_timer_set(watch->timer, now_ns + delay_ns);
}

/* Takes note of a config; true when it is to be told. */
static bool accept_config(struct controller_client *client, const struct config *config)
{
    struct controller_watch *watch = &client->watch;
    bool wanted;
    pthread_mutex_lock(&client->mutex);
    if (watch->latest_only) {
        wanted = config->number >= watch->next;
    } else {
        wanted = config->number == watch->next;
    }
    wanted = wanted && !client->closing;
    if (wanted) {
        watch->next = config->number + 1;
        watch->progressed = true;
        watch->failures = 0;
    }
    pthread_mutex_unlock(&client->mutex);
    return wanted;
}

static bool stream_message(void *context, struct rpc_stream *stream, struct bytes message,
                           struct blob *owner)
{
    struct controller_client *client = context;
    struct controller_watch *watch = &client->watch;
    (void)owner;
    struct msg_watch_response response = {0};
    int error = msg_watch_response_decode(message, &response);
    pthread_mutex_lock(&client->mutex);
    watch->heard_ns = clock_now_ns(client->clock);
    bool skipped = error == 0 && response.config != NULL && !watch->latest_only &&
                   response.config->number > watch->next;
    watch->refusal = response.header.error;
    if (error == 0 && response.header.error != 0) {
        (void)controller__redirect(client, watch->endpoint, response.header.route.leader_address);
    }
    pthread_mutex_unlock(&client->mutex);
    if (error != 0 || response.header.error != 0 || skipped) {
        LOG_DBG("watch.refused", "error=%s", err_name(error != 0 ? error : response.header.error));
        rpc_stream_cancel(stream);
    } else if (response.config != NULL && accept_config(client, response.config)) {
        watch->changed(watch->context, response.config);
    }
    msg_watch_response_deinit(&response);
    return true;
}

/* Mutex held. Rarer and rarer, while it goes on; the first few are a leader that went. */
static void warn(const struct controller_client *client, int error, const char *text)
{
    const struct controller_watch *watch = &client->watch;
    bool due = watch->failures >= 8 && (watch->failures & (watch->failures - 1)) == 0;
    if (watch->warns && due && !client->closing) {
        log_event(LOG_WARN, "controllers.no_config",
                  "address=%s error=%s text=\"%.200s\" attempts=%u",
                  client->endpoints[watch->endpoint].address,
                  err_name(watch->refusal != 0 ? watch->refusal : error),
                  watch->refusal != 0 ? err_text(watch->refusal) : client__plain_text(text),
                  watch->failures);
    }
}

static void stream_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    struct controller_client *client = context;
    struct controller_watch *watch = &client->watch;
    pthread_mutex_lock(&client->mutex);
    ASSERT(watch->state == WATCH_OPEN);
    LOG_DBG("watch.closed", "address=%s error=%s text=\"%s\"",
            client->endpoints[watch->endpoint].address, err_name(error), text);
    watch->stream = NULL;
    if (!watch->progressed) {
        watch->failures++;
        warn(client, error, text);
    }
    (void)controller__redirect(client, watch->endpoint, "");
    if (client->closing) {
        watch->state = WATCH_OFF;
        pthread_cond_broadcast(&client->idle);
    } else {
        wait_and_reopen(client);
    }
    pthread_mutex_unlock(&client->mutex);
    rpc_stream_unref(stream);
}

static const struct rpc_stream_events watch_events = {
    .message = stream_message,
    .closed = stream_closed,
};

/* Mutex held, so that no event of the new stream is handled before it is all set. */
static void open_stream(struct controller_client *client)
{
    struct controller_watch *watch = &client->watch;
    struct rpc_channel *channel;
    watch->endpoint = client->target;
    watch->progressed = false;
    watch->refusal = 0;
    int error = controller__channel(client, watch->endpoint, &channel);
    if (error == 0) {
        error = rpc_stream_open(channel, METHOD_CONTROLLER_WATCH, &watch_events, client,
                                RPC_MESSAGE_BYTES_MAX, &watch->stream);
    }
    if (error != 0) {
        watch->stream = NULL;
        watch->failures++;
        (void)controller__redirect(client, watch->endpoint, "");
        wait_and_reopen(client);
        return;
    }
    watch->state = WATCH_OPEN;
    watch->heard_ns = clock_now_ns(client->clock);
    struct msg_watch_request request = {.cluster_id = client->cluster_id,
                                        .from_number = watch->next,
                                        .latest_only = watch->latest_only};
    struct buf message;
    buf_init(&message);
    msg_watch_request_encode(&request, &message);
    if (rpc_stream_send(watch->stream, &message) != 0) {
        rpc_stream_cancel(watch->stream); /* stream_closed opens the next */
    }
    buf_deinit(&message);
    rpc_timer_set(watch->timer, watch->heard_ns + CONTROLLER_WATCH_CHECK_NS);
}

static void check_done(void *context, int error, const char *text, struct bytes reply)
{
    struct controller_client *client = context;
    struct controller_watch *watch = &client->watch;
    (void)text;
    struct msg_query_response response = {0};
    if (error == 0) {
        error = msg_query_response_decode(reply, &response);
    }
    bool newer = error == 0 && response.config != NULL;
    pthread_mutex_lock(&client->mutex);
    watch->checking = false;
    newer = newer && response.config->number >= watch->next;
    if (watch->state == WATCH_OPEN && !client->closing) {
        if (newer && watch->endpoint != client->target) {
            rpc_stream_cancel(watch->stream);
        } else if (newer &&
                   clock_now_ns(client->clock) - watch->heard_ns >= 2 * CONTROLLER_WATCH_CHECK_NS) {
            rpc_stream_cancel(watch->stream); /* even the leader's stream may be stuck */
        } else {
            rpc_timer_set(watch->timer, clock_now_ns(client->clock) + CONTROLLER_WATCH_CHECK_NS);
        }
    }
    pthread_cond_broadcast(&client->idle);
    pthread_mutex_unlock(&client->mutex);
    msg_query_response_deinit(&response);
}

static void start_check(struct controller_client *client)
{
    struct controller_watch *watch = &client->watch;
    uint64_t now_ns = clock_now_ns(client->clock);
    struct msg_query_request query = {.header = {.cluster_id = client->cluster_id}, .latest = true};
    struct buf request;
    buf_init(&request);
    msg_query_request_encode(&query, &request);
    watch->checking = true;
    pthread_mutex_unlock(&client->mutex);
    int error = controller_client_call(client, METHOD_CONTROLLER_QUERY, &request,
                                       now_ns + CONTROLLER_WATCH_CHECK_NS, check_done, client);
    pthread_mutex_lock(&client->mutex);
    if (error != 0) {
        watch->checking = false;
        if (watch->state == WATCH_OPEN) {
            rpc_timer_set(watch->timer, now_ns + CONTROLLER_WATCH_CHECK_NS);
        }
        pthread_cond_broadcast(&client->idle);
        buf_deinit(&request);
    }
}

static void watch_timer_fired(void *context)
{
    struct controller_client *client = context;
    struct controller_watch *watch = &client->watch;
    pthread_mutex_lock(&client->mutex);
    if (watch->state == WATCH_WAITING) {
        if (client->closing) {
            watch->state = WATCH_OFF;
            pthread_cond_broadcast(&client->idle);
        } else {
            open_stream(client);
        }
    } else if (watch->state == WATCH_OPEN && !client->closing && !watch->checking) {
        uint64_t due_ns = watch->heard_ns + CONTROLLER_WATCH_CHECK_NS;
        if (clock_now_ns(client->clock) < due_ns) {
            rpc_timer_set(watch->timer, due_ns);
        } else {
            start_check(client);
        }
    }
    pthread_mutex_unlock(&client->mutex);
}

void controller__watch_close(struct controller_client *client)
{
    struct controller_watch *watch = &client->watch;
    switch (watch->state) {
    case WATCH_OFF:
        break;
    case WATCH_WAITING:
        rpc_timer_set(watch->timer, 0);
        break;
    case WATCH_OPEN:
        rpc_stream_cancel(watch->stream);
        break;
    }
}

void controller_client_warn(struct controller_client *client)
{
    pthread_mutex_lock(&client->mutex);
    client->watch.warns = true;
    pthread_mutex_unlock(&client->mutex);
}

static int start_watch(struct controller_client *client, bool latest_only, uint64_t from_number,
                       controller_config_fn changed, void *context)
{
    struct controller_watch *watch = &client->watch;
    struct rpc_timer *timer = rpc_timer_create(client->rpc, watch_timer_fired, client);
    pthread_mutex_lock(&client->mutex);
    int error = client->closing ? ERR_SHUTDOWN : watch->timer != NULL ? ERR_EXISTS : 0;
    if (error == 0) {
        watch->timer = timer;
        watch->latest_only = latest_only;
        watch->next = from_number;
        watch->changed = changed;
        watch->context = context;
        wait_and_reopen(client);
    }
    pthread_mutex_unlock(&client->mutex);
    if (error != 0) {
        rpc_timer_destroy(timer);
    }
    return error;
}

int controller_client_watch(struct controller_client *client, uint64_t from_number,
                            controller_config_fn changed, void *context)
{
    return start_watch(client, false, from_number, changed, context);
}

int controller_client_watch_latest(struct controller_client *client, controller_config_fn changed,
                                   void *context)
{
    return start_watch(client, true, 0, changed, context);
}
