/* Outgoing streams of a group's member; see transport.h.
 *
 * One mutex guards the table of peers and what is in it; nothing of rpc is called under it but
 * opening a stream and taking references, which call nobody back. A peer's struct lives as long as
 * the table or a stream that is not closed names it.
 *
 * Invariant: a peer has at most one stream open or connecting; open_count is the number of streams
 * whose `closed` has not run. */
#include "raft/node/transport.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/rng.h"
#include "proto/methods.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

METRIC(peer_frames_sent_count, COUNTER, "frames given to peers' streams")
METRIC(peer_frames_dropped_count, COUNTER, "frames dropped: no stream, or its queue was full")

enum {
    BACKOFF_FIRST_MS = 20,
    BACKOFF_MAX_MS = 1000,
    STEADY_MS = 2000, /* a stream that lived this long was a good one: the back-off begins anew */
};

struct peer {
    struct transport *transport;
    uint64_t id;
    char address[RAFT_ADDRESS_BYTES_MAX]; /* "": not known, answered on `stream`, which it opened */
    struct rpc_channel *channel;
    struct rpc_stream *stream; /* a reference; NULL: none */
    uint64_t opened_at_ns;
    uint64_t retry_at_ns;
    uint32_t failures;
    uint32_t refs; /* the table's, and one an outgoing stream that is not closed */
    bool unreachable;
    const struct rpc_stream *heard_on; /* where its newest frame came; only compared */
    bool closed;                       /* that stream has ended */
};

struct transport {
    struct transport_options options;
    pthread_mutex_t lock;
    /* under lock */
    pthread_cond_t all_closed;
    struct peer *peers[TRANSPORT_PEERS_MAX];
    size_t peer_count;
    struct rng rng;
    uint32_t open_count;
    bool wake_sent;
    bool stopped;
};

static bool stream_message(void *context, struct rpc_stream *stream, struct bytes message,
                           struct blob *owner);
static void stream_closed(void *context, struct rpc_stream *stream, int error, const char *text);

static const struct rpc_stream_events stream_events = {.message = stream_message,
                                                       .closed = stream_closed};

/* ---- life ------------------------------------------------------------------------------------ */

struct transport *transport_create(const struct transport_options *options)
{
    struct transport *transport = mem_calloc(1, sizeof(*transport));
    transport->options = *options;
    rng_init(&transport->rng, options->seed);
    pthread_mutex_init(&transport->lock, NULL);
    pthread_cond_init(&transport->all_closed, NULL);
    return transport;
}

static void peer_unref(struct peer *peer)
{
    if (--peer->refs == 0) {
        ASSERT(peer->stream == NULL);
        free(peer);
    }
}

/* Takes the peer out of the table; what has to be done outside the lock is given to the caller. */
struct parting {
    struct rpc_channel *channel;
    struct rpc_stream *stream;
    bool ours; /* the stream was opened by us */
};

static struct parting peer_remove(struct transport *transport, size_t place)
{
    struct peer *peer = transport->peers[place];
    struct parting parting = {peer->channel, peer->stream, peer->address[0] != '\0'};
    peer->channel = NULL;
    peer->stream = NULL;
    transport->peers[place] = transport->peers[--transport->peer_count];
    peer_unref(peer);
    return parting;
}

static void part(struct parting *parting)
{
    if (parting->stream != NULL) {
        if (parting->ours) {
            rpc_stream_cancel(parting->stream);
        }
        rpc_stream_unref(parting->stream);
    }
    if (parting->channel != NULL) {
        rpc_channel_destroy(parting->channel);
    }
}

void transport_stop(struct transport *transport)
{
    struct parting partings[TRANSPORT_PEERS_MAX];
    size_t count = 0;
    pthread_mutex_lock(&transport->lock);
    transport->stopped = true;
    while (transport->peer_count > 0) {
        partings[count++] = peer_remove(transport, 0);
    }
    pthread_mutex_unlock(&transport->lock);
    for (size_t i = 0; i < count; i++) {
        part(&partings[i]);
    }
    pthread_mutex_lock(&transport->lock);
    while (transport->open_count > 0) {
        pthread_cond_wait(&transport->all_closed, &transport->lock);
    }
    pthread_mutex_unlock(&transport->lock);
}

void transport_destroy(struct transport *transport)
{
    if (transport == NULL) {
        return;
    }
    ASSERT_CMP(transport->peer_count, ==, 0);
    ASSERT_CMP(transport->open_count, ==, 0);
    pthread_cond_destroy(&transport->all_closed);
    pthread_mutex_destroy(&transport->lock);
    free(transport);
}

/* ---- members --------------------------------------------------------------------------------- */

static size_t find_locked(const struct transport *transport, uint64_t id)
{
    size_t place = 0;
    while (place < transport->peer_count && transport->peers[place]->id != id) {
        place++;
    }
    return place; /* peer_count: not there */
}

static struct peer *add_locked(struct transport *transport, uint64_t id)
{
    struct peer *peer = mem_calloc(1, sizeof(*peer));
    peer->transport = transport;
    peer->id = id;
    peer->refs = 1;
    transport->peers[transport->peer_count++] = peer;
    return peer;
}

static void add_member(struct transport *transport, const struct raft_member *member)
{
    struct rpc_channel *channel;
    int error = rpc_channel_create(transport->options.rpc, member->address, &channel);
    if (error != ERR_OK) {
        log_event(LOG_ERROR, "peer.bad_address", "peer=%" PRIu64 " address=%s error=%s", member->id,
                  member->address, err_name(error));
        return;
    }
    pthread_mutex_lock(&transport->lock);
    bool fits = !transport->stopped && transport->peer_count < TRANSPORT_PEERS_MAX;
    if (fits) {
        struct peer *peer = add_locked(transport, member->id);
        snprintf(peer->address, sizeof(peer->address), "%s", member->address);
        peer->channel = channel;
    }
    pthread_mutex_unlock(&transport->lock);
    if (!fits) {
        rpc_channel_destroy(channel);
    }
}

void transport_set_members(struct transport *transport, const struct raft_membership *membership)
{
    struct parting partings[TRANSPORT_PEERS_MAX];
    bool known[RAFT_MEMBERS_MAX] = {false};
    size_t parting_count = 0;
    pthread_mutex_lock(&transport->lock);
    for (size_t place = transport->peer_count; place > 0; place--) {
        struct peer *peer = transport->peers[place - 1];
        const struct raft_member *member = raft_membership_find(membership, peer->id);
        if (member != NULL && strcmp(member->address, peer->address) == 0) {
            known[member - membership->members] = true;
        } else if (member != NULL || peer->address[0] != '\0') {
            partings[parting_count++] = peer_remove(transport, place - 1);
        }
    }
    pthread_mutex_unlock(&transport->lock);
    for (size_t i = 0; i < parting_count; i++) {
        part(&partings[i]);
    }
    for (uint32_t i = 0; i < membership->count; i++) {
        if (!known[i] && membership->members[i].id != transport->options.self) {
            add_member(transport, &membership->members[i]);
        }
    }
}

/* True when somebody has to be woken: once for all that is noted until it is asked for. */
static bool note_loss_locked(struct transport *transport)
{
    bool wake = !transport->wake_sent && !transport->stopped;
    transport->wake_sent = transport->wake_sent || wake;
    return wake;
}

void transport_learn(struct transport *transport, uint64_t from, struct rpc_stream *stream)
{
    struct rpc_stream *former = NULL;
    pthread_mutex_lock(&transport->lock);
    size_t place = find_locked(transport, from);
    struct peer *peer = place < transport->peer_count ? transport->peers[place] : NULL;
    if (peer == NULL && !transport->stopped && transport->peer_count < TRANSPORT_PEERS_MAX) {
        peer = add_locked(transport, from);
    }
    if (peer != NULL) {
        peer->heard_on = stream;
    }
    if (peer != NULL && peer->address[0] == '\0' && peer->stream != stream) {
        former = peer->stream;
        peer->stream = rpc_stream_ref(stream);
    }
    pthread_mutex_unlock(&transport->lock);
    rpc_stream_unref(former);
}

void transport_forget(struct transport *transport, struct rpc_stream *stream)
{
    struct parting parting = {NULL, NULL, false};
    bool wake = false;
    pthread_mutex_lock(&transport->lock);
    for (size_t i = 0; i < transport->peer_count; i++) {
        struct peer *peer = transport->peers[i];
        if (peer->heard_on == stream) {
            peer->heard_on = NULL;
            peer->closed = true;
            wake = note_loss_locked(transport) || wake;
        }
    }
    for (size_t place = transport->peer_count; place > 0; place--) {
        struct peer *peer = transport->peers[place - 1];
        if (peer->address[0] == '\0' && peer->stream == stream) {
            parting = peer_remove(transport, place - 1);
            break;
        }
    }
    pthread_mutex_unlock(&transport->lock);
    part(&parting);
    if (wake) {
        transport->options.wake(transport->options.context);
    }
}

/* ---- sending --------------------------------------------------------------------------------- */

static void set_back_off_locked(struct peer *peer)
{
    struct transport *transport = peer->transport;
    uint64_t now_ns = clock_now_ns(transport->options.clock);
    if (peer->opened_at_ns != 0 && now_ns - peer->opened_at_ns > STEADY_MS * NS_PER_MS) {
        peer->failures = 0;
    }
    uint64_t delay_ms = BACKOFF_MAX_MS;
    if (peer->failures < 6) {
        delay_ms = (uint64_t)BACKOFF_FIRST_MS << peer->failures;
        peer->failures++;
    }
    delay_ms = delay_ms < BACKOFF_MAX_MS ? delay_ms : BACKOFF_MAX_MS;
    uint64_t delay_ns = delay_ms * NS_PER_MS;
    peer->retry_at_ns = now_ns + rng_between(&transport->rng, delay_ns / 2, delay_ns);
}

static void open_locked(struct peer *peer)
{
    struct transport *transport = peer->transport;
    uint64_t now_ns = clock_now_ns(transport->options.clock);
    if (peer->channel == NULL || now_ns < peer->retry_at_ns) {
        return;
    }
    int error = rpc_stream_open(peer->channel, METHOD_PEER_MESSAGES, &stream_events, peer,
                                TRANSPORT_QUEUE_BYTES_MAX, &peer->stream);
    if (error != ERR_OK) {
        peer->stream = NULL;
        set_back_off_locked(peer);
        return;
    }
    peer->opened_at_ns = now_ns;
    peer->refs++;
    transport->open_count++;
}

static bool note_unreachable_locked(struct transport *transport, struct peer *peer)
{
    peer->unreachable = true;
    return note_loss_locked(transport);
}

void transport_send(struct transport *transport, uint64_t id, struct buf *frame)
{
    struct rpc_stream *stream = NULL;
    pthread_mutex_lock(&transport->lock);
    size_t place = find_locked(transport, id);
    struct peer *peer = place < transport->peer_count ? transport->peers[place] : NULL;
    if (peer != NULL && peer->stream == NULL && !transport->stopped) {
        open_locked(peer);
    }
    if (peer != NULL && peer->stream != NULL) {
        stream = rpc_stream_ref(peer->stream);
    }
    pthread_mutex_unlock(&transport->lock);

    int error = stream == NULL ? ERR_UNAVAILABLE : rpc_stream_send(stream, frame);
    rpc_stream_unref(stream);
    metric_add(error == ERR_OK ? &peer_frames_sent_count : &peer_frames_dropped_count, 1);
    if (error == ERR_OK) {
        return;
    }
    buf_deinit(frame);
    pthread_mutex_lock(&transport->lock);
    place = find_locked(transport, id);
    bool wake = place < transport->peer_count &&
                note_unreachable_locked(transport, transport->peers[place]);
    pthread_mutex_unlock(&transport->lock);
    if (wake) {
        transport->options.wake(transport->options.context);
    }
}

size_t transport_losses(struct transport *transport, struct transport_loss out[TRANSPORT_PEERS_MAX])
{
    size_t count = 0;
    pthread_mutex_lock(&transport->lock);
    transport->wake_sent = false;
    for (size_t i = 0; i < transport->peer_count; i++) {
        struct peer *peer = transport->peers[i];
        if (peer->unreachable || peer->closed) {
            out[count++] = (struct transport_loss){
                .peer = peer->id, .unreachable = peer->unreachable, .closed = peer->closed};
            peer->unreachable = false;
            peer->closed = false;
        }
    }
    pthread_mutex_unlock(&transport->lock);
    return count;
}

/* ---- rpc's callbacks ------------------------------------------------------------------------- */

static bool stream_message(void *context, struct rpc_stream *stream, struct bytes message,
                           struct blob *owner)
{
    struct transport *transport = ((struct peer *)context)->transport;
    transport->options.received(transport->options.context, stream, message, owner);
    return true;
}

static void stream_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    struct peer *peer = context;
    struct transport *transport = peer->transport;
    struct rpc_stream *former = NULL;
    bool wake = false;
    LOG_DBG("peer.stream_closed", "peer=%" PRIu64 " error=%s text=%s", peer->id, err_name(error),
            text);
    pthread_mutex_lock(&transport->lock);
    if (peer->stream == stream) {
        former = peer->stream;
        peer->stream = NULL;
        set_back_off_locked(peer);
        wake = note_unreachable_locked(transport, peer);
    }
    peer_unref(peer);
    pthread_mutex_unlock(&transport->lock);
    rpc_stream_unref(former);
    if (wake) {
        transport->options.wake(transport->options.context);
    }
    /* Last: after this the transport may be gone. */
    pthread_mutex_lock(&transport->lock);
    transport->open_count--;
    if (transport->open_count == 0) {
        pthread_cond_broadcast(&transport->all_closed);
    }
    pthread_mutex_unlock(&transport->lock);
}
