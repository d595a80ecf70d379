/* See watch.h. A watcher is in the list from its stream's opening to its end, under the hub's
 * mutex; sending under it is allowed, since no callback runs inside rpc_stream_send. A watcher that
 * does not keep up is refused by its stream's bound (ERR_BUSY) and goes on from `writable`: it
 * costs a number, not memory. */
#include "shardctrler/watch.h"

#include "base/assert.h"
#include "base/log.h"
#include "proto/messages.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct watcher {
    struct watcher *next;
    struct rpc_stream *stream;
    bool asked; /* its request came */
    bool latest_only;
    uint64_t next_number;
};

struct watch_hub {
    struct config_machine *machine;
    uint64_t cluster_id;

    pthread_mutex_t mutex; /* guards what follows */
    struct watcher *watchers;
    uint32_t count;
    bool leading;
    char leader_address[ADDRESS_BYTES_MAX];
};

struct watch_hub *watch_hub_create(struct config_machine *machine, uint64_t cluster_id)
{
    struct watch_hub *hub = mem_calloc(1, sizeof *hub);
    hub->machine = machine;
    hub->cluster_id = cluster_id;
    pthread_mutex_init(&hub->mutex, NULL);
    return hub;
}

void watch_hub_destroy(struct watch_hub *hub)
{
    if (hub == NULL) {
        return;
    }
    ASSERT(hub->watchers == NULL);
    pthread_mutex_destroy(&hub->mutex);
    free(hub);
}

static int send_response(struct watcher *watcher, const struct msg_watch_response *response)
{
    struct buf bytes;
    buf_init(&bytes);
    msg_watch_response_encode(response, &bytes);
    int error = rpc_stream_send(watcher->stream, &bytes);
    buf_deinit(&bytes);
    return error;
}

static void refuse(struct watch_hub *hub, struct watcher *watcher, int error, const char *why)
{
    struct msg_watch_response response = {0};
    msg_response_header_set(&response.header, error, why);
    if (error == ERR_NOT_LEADER) {
        response.header.has_route = true;
        snprintf(response.header.route.leader_address, sizeof response.header.route.leader_address,
                 "%s", hub->leader_address);
    }
    (void)!send_response(watcher, &response); /* it is ended either way */
    rpc_stream_finish(watcher->stream);
}

/* Sends what the watcher lacks, up to a turn. True when more is left and its stream has room. */
static bool advance(struct watch_hub *hub, struct watcher *watcher)
{
    uint64_t newest = config_machine_latest_number(hub->machine);
    if (watcher->latest_only && watcher->next_number < newest) {
        watcher->next_number = newest;
    }
    for (uint32_t sent = 0; watcher->next_number <= newest; sent++) {
        if (sent == WATCH_CONFIGS_PER_TURN) {
            return true;
        }
        struct config *config = NULL;
        if (config_machine_get(hub->machine, watcher->next_number, &config) != 0) {
            return false; /* not created yet: pushed when it is */
        }
        struct msg_watch_response response = {.config = config};
        int error = send_response(watcher, &response);
        config_free(config);
        if (error != 0) {
            return false;
        }
        watcher->next_number++;
    }
    return false;
}

static void advance_all(struct watch_hub *hub)
{
    for (bool more = true; more;) {
        more = false;
        for (struct watcher *watcher = hub->watchers; watcher != NULL; watcher = watcher->next) {
            if (watcher->asked) {
                more |= advance(hub, watcher);
            }
        }
    }
}

void watch_hub_push(struct watch_hub *hub)
{
    pthread_mutex_lock(&hub->mutex);
    if (hub->leading) {
        advance_all(hub);
    }
    pthread_mutex_unlock(&hub->mutex);
}

void watch_hub_set_leading(struct watch_hub *hub, bool leading, const char *leader_address)
{
    pthread_mutex_lock(&hub->mutex);
    hub->leading = leading;
    snprintf(hub->leader_address, sizeof hub->leader_address, "%s", leader_address);
    if (!leading) {
        for (struct watcher *watcher = hub->watchers; watcher != NULL; watcher = watcher->next) {
            if (watcher->asked) {
                watcher->asked = false;
                refuse(hub, watcher, ERR_NOT_LEADER, NULL);
            }
        }
    }
    pthread_mutex_unlock(&hub->mutex);
}

/* ---- stream events
 * ------------------------------------------------------------------------------------------ */

static int watch_opened(void *context, struct rpc_stream *stream)
{
    struct watch_hub *hub = context;
    struct watcher *watcher = mem_calloc(1, sizeof *watcher);
    watcher->stream = stream;
    pthread_mutex_lock(&hub->mutex);
    bool full = hub->count >= WATCHERS_MAX;
    if (!full) {
        rpc_stream_set_user(stream, watcher);
        watcher->next = hub->watchers;
        hub->watchers = watcher;
        hub->count++;
    }
    pthread_mutex_unlock(&hub->mutex);
    if (full) {
        free(watcher);
        return ERR_BUSY;
    }
    return 0;
}

static bool watch_message(void *context, struct rpc_stream *stream, struct bytes message,
                          struct blob *owner)
{
    (void)owner;
    struct watch_hub *hub = context;
    struct watcher *watcher = rpc_stream_user(stream);
    struct msg_watch_request request;
    int error = msg_watch_request_decode(message, &request);
    const char *why = NULL;
    pthread_mutex_lock(&hub->mutex);
    if (error == 0 && request.cluster_id != 0 && request.cluster_id != hub->cluster_id) {
        error = ERR_WRONG_CLUSTER;
    } else if (error == 0 && watcher->asked) {
        error = ERR_INVALID;
        why = "one watch a stream: the request came twice";
    } else if (error == 0 && !hub->leading) {
        error = ERR_NOT_LEADER;
    }
    if (error != 0) {
        watcher->asked = false;
        refuse(hub, watcher, error, why);
    } else {
        watcher->asked = true;
        watcher->latest_only = request.latest_only;
        watcher->next_number = request.from_number;
        while (advance(hub, watcher)) {
        }
    }
    pthread_mutex_unlock(&hub->mutex);
    return true;
}

static void watch_writable(void *context, struct rpc_stream *stream)
{
    struct watch_hub *hub = context;
    struct watcher *watcher = rpc_stream_user(stream);
    pthread_mutex_lock(&hub->mutex);
    if (hub->leading && watcher->asked) {
        while (advance(hub, watcher)) {
        }
    }
    pthread_mutex_unlock(&hub->mutex);
}

static void watch_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)error;
    (void)text;
    struct watch_hub *hub = context;
    struct watcher *watcher = rpc_stream_user(stream);
    if (watcher == NULL) {
        return; /* refused when it opened */
    }
    pthread_mutex_lock(&hub->mutex);
    struct watcher **link = &hub->watchers;
    while (*link != watcher) {
        link = &(*link)->next;
    }
    *link = watcher->next;
    hub->count--;
    pthread_mutex_unlock(&hub->mutex);
    free(watcher);
}

struct rpc_stream_events watch_hub_events(void)
{
    return (struct rpc_stream_events){.opened = watch_opened,
                                      .message = watch_message,
                                      .writable = watch_writable,
                                      .closed = watch_closed};
}
