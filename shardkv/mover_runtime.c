/* The driver's thread. Everything that happens becomes an event in a list under one mutex; the
 * thread takes the whole list, feeds the pure driver, and carries out its actions. Events are
 * bounded by the driver's tasks: each has at most one answer under way. */
#include "shardkv/mover_runtime.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/thread.h"
#include "client/controller_client.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "shardkv/kv_command.h"
#include "shardkv/mover.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FETCH_TIMEOUT_NS (5 * NS_PER_S)

enum event_kind { EVENT_PROPOSED = 1, EVENT_REPLIED, EVENT_FETCHED, EVENT_UPDATED };

struct event {
    enum event_kind kind;
    struct mover_runtime *runtime;
    uint64_t id;
    int error;
    int answer;           /* PROPOSED */
    uint64_t number;      /* UPDATED */
    enum mover_verb verb; /* REPLIED */
    struct buf bytes;     /* REPLIED: the response; FETCHED: the config */
    struct event *next;
};

struct channel {
    char address[ADDRESS_BYTES_MAX]; /* "": free */
    struct rpc_channel *channel;
    uint64_t used; /* when last, as a count of calls */
};

struct mover_runtime {
    struct mover_runtime_options options;
    struct controller_client *controllers;
    struct node *node;
    struct kv_machine *machine;
    struct kv_service *service;
    struct mover *mover; /* the thread's own, as are the channels */
    struct channel channels[MOVER_CHANNELS_MAX];
    uint64_t call_count;
    pthread_t thread;
    bool started;

    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    struct event *first;
    struct event **last;
    uint32_t under_way; /* calls and proposals whose event has not come */
    bool table_changed;
    bool leader;
    bool lost_leadership;        /* since the thread last looked */
    struct config_share *newest; /* NULL: none yet */
    struct raft_membership members;
    bool stopping;
};

/* ---- events ---- */

/* For one thing that is begun; its end is event_post. */
static struct event *event_begin(struct mover_runtime *runtime, enum event_kind kind, uint64_t id)
{
    struct event *event = mem_calloc(1, sizeof *event);
    event->kind = kind;
    event->runtime = runtime;
    event->id = id;
    pthread_mutex_lock(&runtime->mutex);
    runtime->under_way++;
    pthread_mutex_unlock(&runtime->mutex);
    return event;
}

static void event_post(struct event *event)
{
    struct mover_runtime *runtime = event->runtime;
    pthread_mutex_lock(&runtime->mutex);
    ASSERT_CMP(runtime->under_way, >, 0);
    runtime->under_way--;
    *runtime->last = event;
    runtime->last = &event->next;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->mutex);
}

static void event_free(struct event *event)
{
    buf_deinit(&event->bytes);
    free(event);
}

void mover_runtime_table_changed(void *context)
{
    struct mover_runtime *runtime = context;
    pthread_mutex_lock(&runtime->mutex);
    runtime->table_changed = true;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->mutex);
}

void mover_runtime_role_changed(void *context, enum node_role role, uint64_t term,
                                uint64_t leader_id, const char *leader_address)
{
    (void)leader_address;
    struct mover_runtime *runtime = context;
    (void)term;
    (void)leader_id;
    pthread_mutex_lock(&runtime->mutex);
    runtime->leader = role == NODE_LEADER;
    runtime->lost_leadership = runtime->lost_leadership || !runtime->leader;
    runtime->table_changed = true;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->mutex);
}

void mover_runtime_members_committed(void *context, const struct raft_membership *membership)
{
    struct mover_runtime *runtime = context;
    pthread_mutex_lock(&runtime->mutex);
    runtime->members = *membership;
    runtime->table_changed = true;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->mutex);
}

static void config_changed(void *context, const struct config *config)
{
    struct mover_runtime *runtime = context;
    kv_service_learn_config(runtime->service, config);
    struct config_share *share = config_share_create(config_clone(config));
    pthread_mutex_lock(&runtime->mutex);
    struct config_share *old = runtime->newest;
    runtime->newest = share;
    runtime->table_changed = true;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->mutex);
    config_share_unref(old);
}

/* ---- carrying out
 * -------------------------------------------------------------------------------------------- */

static void propose_done(void *context, int error, struct raft_position position,
                         struct bytes result)
{
    (void)position;
    struct event *event = context;
    event->error = error;
    event->answer = error == 0 ? kv_command_result(result) : 0;
    event_post(event);
}

static void do_propose(struct mover_runtime *runtime, struct mover_action *action)
{
    struct event *event = event_begin(runtime, EVENT_PROPOSED, action->id);
    struct blob *payload = blob_take_buf(&action->payload);
    int error = node_propose(runtime->node, blob_view(payload), payload, propose_done, event);
    blob_unref(payload);
    if (error != 0) {
        event->error = error;
        event_post(event);
    }
}

static void fetch_done(void *context, int error, const char *text, struct bytes reply)
{
    (void)text;
    struct event *event = context;
    struct msg_query_response response = {0};
    event->error = error;
    if (error == 0) {
        event->error = msg_query_response_decode(reply, &response);
    }
    if (event->error == 0) {
        event->error = response.header.error;
    }
    if (event->error == 0 && response.config == NULL) {
        event->error = ERR_PROTOCOL;
    }
    if (event->error == 0) {
        config_encode(response.config, &event->bytes);
    }
    msg_query_response_deinit(&response);
    event_post(event);
}

static void do_fetch(struct mover_runtime *runtime, const struct mover_action *action,
                     uint64_t now_ns)
{
    struct event *event = event_begin(runtime, EVENT_FETCHED, action->id);
    struct msg_query_request request = {.number = action->number};
    request.header.cluster_id = runtime->options.cluster_id;
    controller_client_next_ids(runtime->controllers, &request.header.client_id,
                               &request.header.sequence);
    request.header.acked_below = request.header.sequence;
    struct buf bytes = {0};
    msg_query_request_encode(&request, &bytes);
    int error = controller_client_call(runtime->controllers, METHOD_CONTROLLER_QUERY, &bytes,
                                       now_ns + FETCH_TIMEOUT_NS, fetch_done, event);
    if (error != 0) {
        buf_deinit(&bytes);
        event->error = error;
        event_post(event);
    }
}

static void update_done(void *context, int error, const char *text, struct bytes reply)
{
    struct event *event = context;
    struct msg_change_response response = {0};
    event->error = error;
    if (error == 0) {
        event->error = msg_change_response_decode(reply, &response);
        event->number = response.config_number;
    }
    if (event->error == 0) {
        event->error = response.header.error;
    }
    if (event->error == 0) {
        log_event(LOG_INFO, "members.told", "config=%" PRIu64, event->number);
    } else {
        log_event(LOG_INFO, "members.not_told", "error=%s text=\"%.200s\"", err_name(event->error),
                  text);
    }
    event_post(event);
}

/* Without a session: executed twice, or late, it is not newer than what is there. */
static void do_update(struct mover_runtime *runtime, const struct mover_action *action,
                      uint64_t now_ns)
{
    struct event *event = event_begin(runtime, EVENT_UPDATED, action->id);
    struct msg_update_members_request request = {
        .header = {.cluster_id = runtime->options.cluster_id}, .group = *action->members};
    struct buf bytes = {0};
    msg_update_members_request_encode(&request, &bytes);
    int error = controller_client_call(runtime->controllers, METHOD_CONTROLLER_UPDATE_MEMBERS,
                                       &bytes, now_ns + FETCH_TIMEOUT_NS, update_done, event);
    if (error != 0) {
        buf_deinit(&bytes);
        event->error = error;
        event_post(event);
    }
}

/* The channel to an address: kept, made, or in the place of the one unused for longest. */
static struct rpc_channel *channel_to(struct mover_runtime *runtime, const char *address)
{
    struct channel *place = &runtime->channels[0];
    runtime->call_count++;
    for (uint32_t i = 0; i < MOVER_CHANNELS_MAX; i++) {
        struct channel *channel = &runtime->channels[i];
        if (channel->channel != NULL && strcmp(channel->address, address) == 0) {
            channel->used = runtime->call_count;
            return channel->channel;
        }
        if (channel->used < place->used) {
            place = channel;
        }
    }
    if (place->channel != NULL) {
        rpc_channel_destroy(place->channel);
        *place = (struct channel){0};
    }
    if (rpc_channel_create(runtime->options.rpc, address, &place->channel) != 0) {
        place->channel = NULL;
        return NULL;
    }
    snprintf(place->address, sizeof place->address, "%s", address);
    place->used = runtime->call_count;
    return place->channel;
}

static const char *encode_call(const struct mover_runtime *runtime,
                               const struct mover_action *action, struct buf *out)
{
    struct msg_peer_move_request move = {
        .cluster_id = runtime->options.cluster_id,
        .shard = action->shard,
        .config_number = action->number,
        .from_group = action->from_group,
        .to_group = action->to_group,
    };
    switch (action->verb) {
    case MOVER_READ: {
        struct msg_peer_read_request read = {.move = move,
                                             .after_row = buf_view(&action->after_row),
                                             .bytes_max = action->bytes_max};
        msg_peer_read_request_encode(&read, out);
        return METHOD_SHARD_MOVE_READ;
    }
    case MOVER_OPEN:
        msg_peer_move_request_encode(&move, out);
        return METHOD_SHARD_MOVE_OPEN;
    case MOVER_FREEZE:
        msg_peer_move_request_encode(&move, out);
        return METHOD_SHARD_MOVE_FREEZE;
    case MOVER_DROP:
        msg_peer_move_request_encode(&move, out);
        return METHOD_SHARD_MOVE_DROP;
    }
    UNREACHABLE();
}

static void call_done(void *context, const struct rpc_result *result)
{
    struct event *event = context;
    event->error = result->error;
    if (result->error == 0) {
        buf_append_bytes(&event->bytes, result->reply);
    }
    event_post(event);
}

static void do_call(struct mover_runtime *runtime, const struct mover_action *action,
                    uint64_t now_ns)
{
    struct event *event = event_begin(runtime, EVENT_REPLIED, action->id);
    event->verb = action->verb;
    struct buf request = {0};
    const char *method = encode_call(runtime, action, &request);
    struct rpc_channel *channel = channel_to(runtime, action->address);
    int error = channel == NULL
                    ? ERR_INVALID
                    : rpc_call_start(channel, method, &request, now_ns + action->timeout_ns,
                                     call_done, event, NULL);
    if (error != 0) {
        buf_deinit(&request);
        event->error = error;
        event_post(event);
    }
}

static void carry_out(struct mover_runtime *runtime, uint64_t now_ns)
{
    struct mover_action action;
    while (mover_next(runtime->mover, &action)) {
        switch (action.kind) {
        case MOVER_PROPOSE:
            do_propose(runtime, &action);
            break;
        case MOVER_CALL:
            do_call(runtime, &action, now_ns);
            break;
        case MOVER_FETCH_CONFIG:
            do_fetch(runtime, &action, now_ns);
            break;
        case MOVER_UPDATE_MEMBERS:
            do_update(runtime, &action, now_ns);
            break;
        }
        mover_action_deinit(&action);
    }
}

/* ---- the thread
 * ---------------------------------------------------------------------------------------------- */

static void replied(struct mover_runtime *runtime, const struct event *event, uint64_t now_ns)
{
    struct mover_reply reply = {.error = event->error};
    struct msg_peer_read_response read;
    struct msg_peer_move_response move;
    if (event->error == 0 && event->verb == MOVER_READ) {
        reply.error = msg_peer_read_response_decode(buf_view(&event->bytes), &read);
        if (reply.error == 0) {
            reply = (struct mover_reply){
                .error = read.error,
                .leader_address = read.leader_address,
                .rows = read.rows,
                .rows_crc32c = read.rows_crc32c,
                .last_row = read.last_row,
                .end = read.end,
            };
        }
    } else if (event->error == 0) {
        reply.error = msg_peer_move_response_decode(buf_view(&event->bytes), &move);
        if (reply.error == 0) {
            reply = (struct mover_reply){
                .error = move.error,
                .leader_address = move.leader_address,
                .row_count = move.rows,
                .row_bytes = move.bytes,
                .checksum = move.checksum,
            };
        }
    }
    mover_replied(runtime->mover, event->id, &reply, now_ns);
}

static void feed(struct mover_runtime *runtime, struct event *event, uint64_t now_ns)
{
    while (event != NULL) {
        struct event *next = event->next;
        switch (event->kind) {
        case EVENT_PROPOSED:
            mover_proposed(runtime->mover, event->id, event->error, event->answer, now_ns);
            break;
        case EVENT_REPLIED:
            replied(runtime, event, now_ns);
            break;
        case EVENT_FETCHED:
            mover_fetched(runtime->mover, event->id, event->error, buf_view(&event->bytes), now_ns);
            break;
        case EVENT_UPDATED:
            mover_updated(runtime->mover, event->id, event->error, event->number, now_ns);
            break;
        }
        event_free(event);
        event = next;
    }
}

/* With the mutex held. Waits until there is something to do. */
static void wait(struct mover_runtime *runtime, uint64_t wake_ns)
{
    while (!runtime->stopping && runtime->first == NULL && !runtime->table_changed) {
        if (wake_ns == UINT64_MAX) {
            pthread_cond_wait(&runtime->changed, &runtime->mutex);
            continue;
        }
        struct timespec until = {.tv_sec = (time_t)(wake_ns / NS_PER_S),
                                 .tv_nsec = (long)(wake_ns % NS_PER_S)};
        if (pthread_cond_timedwait(&runtime->changed, &runtime->mutex, &until) != 0) {
            return;
        }
    }
}

static void *run(void *context)
{
    struct mover_runtime *runtime = context;
    pthread_mutex_lock(&runtime->mutex);
    while (!runtime->stopping) {
        struct event *events = runtime->first;
        runtime->first = NULL;
        runtime->last = &runtime->first;
        bool lost = runtime->lost_leadership;
        bool leader = runtime->leader;
        struct config_share *newest = config_share_ref(runtime->newest);
        struct raft_membership members = runtime->members;
        runtime->lost_leadership = false;
        runtime->table_changed = false;
        pthread_mutex_unlock(&runtime->mutex);

        uint64_t now_ns = clock_now_ns(runtime->options.clock);
        if (lost) {
            mover_set_leader(runtime->mover, false);
        }
        mover_set_leader(runtime->mover, leader);
        if (newest != NULL) {
            mover_set_newest(runtime->mover, newest);
            config_share_unref(newest);
        }
        mover_set_members(runtime->mover, &members);
        struct kv_table *table = kv_machine_table(runtime->machine);
        mover_set_table(runtime->mover, table);
        kv_table_unref(table);
        feed(runtime, events, now_ns);
        mover_tick(runtime->mover, now_ns);
        carry_out(runtime, now_ns);
        uint64_t wake_ns = mover_wake_ns(runtime->mover);

        pthread_mutex_lock(&runtime->mutex);
        wait(runtime, wake_ns);
    }
    pthread_mutex_unlock(&runtime->mutex);
    return NULL;
}

/* ---- life ---- */

int mover_runtime_create(const struct mover_runtime_options *options, struct mover_runtime **out,
                         char *why, size_t why_size)
{
    struct mover_runtime *runtime = mem_calloc(1, sizeof *runtime);
    runtime->options = *options;
    int error = controller_client_create(options->rpc, options->clock, options->controllers,
                                         options->cluster_id, options->seed, &runtime->controllers,
                                         why, why_size);
    if (error != 0) {
        free(runtime);
        return error;
    }
    struct mover_options mover_options = mover_options_default(options->group_id, options->seed);
    runtime->mover = mover_create(&mover_options);
    runtime->last = &runtime->first;
    pthread_mutex_init(&runtime->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes,
                              CLOCK_MONOTONIC); /* deadlines are the clock's monotonic time */
    pthread_cond_init(&runtime->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    *out = runtime;
    return 0;
}

int mover_runtime_start(struct mover_runtime *runtime, struct node *node,
                        struct kv_machine *machine, struct kv_service *service)
{
    runtime->node = node;
    runtime->machine = machine;
    runtime->service = service;
    int error = thread_start(&runtime->thread, "kv-mover", run, runtime);
    if (error != 0) {
        return error;
    }
    runtime->started = true;
    controller_client_warn(runtime->controllers);
    return controller_client_watch_latest(runtime->controllers, config_changed, runtime);
}

static void stop_thread(struct mover_runtime *runtime)
{
    pthread_mutex_lock(&runtime->mutex);
    runtime->stopping = true;
    pthread_cond_broadcast(&runtime->changed);
    pthread_mutex_unlock(&runtime->mutex);
    if (runtime->started) {
        int failed = pthread_join(runtime->thread, NULL);
        ASSERT(failed == 0);
    }
}

void mover_runtime_destroy(struct mover_runtime *runtime)
{
    if (runtime == NULL) {
        return;
    }
    stop_thread(runtime);
    controller_client_destroy(runtime->controllers);
    for (uint32_t i = 0; i < MOVER_CHANNELS_MAX; i++) {
        if (runtime->channels[i].channel != NULL) {
            rpc_channel_destroy(runtime->channels[i].channel);
        }
    }
    pthread_mutex_lock(&runtime->mutex);
    while (runtime->under_way > 0) {
        pthread_cond_wait(&runtime->changed, &runtime->mutex);
    }
    struct event *event = runtime->first;
    pthread_mutex_unlock(&runtime->mutex);
    while (event != NULL) {
        struct event *next = event->next;
        event_free(event);
        event = next;
    }
    mover_destroy(runtime->mover);
    config_share_unref(runtime->newest);
    pthread_cond_destroy(&runtime->changed);
    pthread_mutex_destroy(&runtime->mutex);
    free(runtime);
}
