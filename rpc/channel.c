/* Channels: one connection to one address, made when it is first needed and again after it broke.
 *
 * A channel's struct lives until it was destroyed by its user and its last call or stream has
 * ended; the calls hold references. A request or stream is in the channel's list exactly while its
 * core call may be cancelled, so destroying the channel cancels what is listed, under the lock that
 * guards the list, and waits for nobody. */
#include "base/flags.h"
#include "rpc/rpc_internal.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum {
    CONNECT_TIMEOUT_MS =
        2000, /* one attempt; the core's name for it is the minimal reconnect backoff */
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 1000,
    RESOLVE_INTERVAL_MS = 1000,
};

void rpc__channel_ref(struct rpc_channel *channel)
{
    atomic_fetch_add_explicit(&channel->refs, 1, memory_order_relaxed);
}

void rpc__channel_unref(struct rpc_channel *channel)
{
    if (atomic_fetch_sub_explicit(&channel->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    struct rpc *rpc = channel->rpc;
    pthread_mutex_destroy(&channel->lock);
    free(channel->target);
    free(channel);
    pthread_mutex_lock(&rpc->lock);
    rpc->channels_live--;
    pthread_cond_signal(&rpc->idle);
    pthread_mutex_unlock(&rpc->lock);
}

bool rpc__channel_call_not_sent(const struct rpc_channel *channel, grpc_call *call,
                                const char *text)
{
    /* What the core says when it found no connection for the call. It says nothing else that would
     * prove it (a deadline that passes while it still connects does not tell), so only these words
     * count. */
    if (strncmp(text, "failed to connect to all addresses", 34) != 0 &&
        strncmp(text, "DNS resolution failed", 21) != 0) {
        return false;
    }
    /* And nobody else said it: once a server has answered, its name stands in place of the
     * channel's target. */
    char *peer = grpc_call_get_peer(call);
    bool unanswered = strcmp(peer, channel->target) == 0;
    gpr_free(peer);
    return unanswered;
}

/* Numeric addresses skip the resolver. The three slashes keep the target different from any peer's
 * name. */
static bool target_of_address(const char *address, char *target, size_t size)
{
    char host[256];
    char port[6];
    if (parse_address(address) != ERR_OK || !rpc__address_split(address, host, port)) {
        return false;
    }
    struct in6_addr binary;
    int written = 0;
    if (inet_pton(AF_INET, host, &binary) == 1) {
        written = snprintf(target, size, "ipv4:///%s:%s", host, port);
    } else if (inet_pton(AF_INET6, host, &binary) == 1) {
        written = snprintf(target, size, "ipv6:///%%5B%s%%5D:%s", host, port);
    } else {
        written = snprintf(target, size, "dns:///%s:%s", host, port);
    }
    return written > 0 && (size_t)written < size;
}

static grpc_channel *core_channel_create(struct rpc *rpc, const char *target)
{
    const struct {
        const char *key;
        int value;
    } settings[] = {
        {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MESSAGE_BYTES_MAX},
        {GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, RPC_MESSAGE_BYTES_MAX},
        {GRPC_ARG_MAX_METADATA_SIZE, RPC_METADATA_BYTES_MAX},
        {GRPC_ARG_ENABLE_RETRIES, 0}, /* a retry below the sessions would blur what is unknown */
        {GRPC_ARG_ENABLE_CHANNELZ, 0},
        /* Messages travel as they are: unpacking would make a small one as large as it likes. */
        {GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0},
        {GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0},
        {GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1},
        {GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1}, /* a channel is a connection */
        {GRPC_ARG_ENABLE_HTTP_PROXY, 0}, /* the environment does not decide where peers are */
        {GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1},
        {GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, RESOLVE_INTERVAL_MS},
        {GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, BACKOFF_FIRST_MS},
        {GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, BACKOFF_MAX_MS},
        {GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_TIMEOUT_MS},
        {GRPC_ARG_KEEPALIVE_TIME_MS, (int)(rpc->keepalive_ns / NS_PER_MS)},
        {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, rpc__keepalive_timeout_ms(rpc)},
        {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
        {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
    };
    grpc_arg list[sizeof(settings) / sizeof(settings[0])];
    grpc_channel_args arguments = {sizeof(list) / sizeof(list[0]), list};
    memset(list, 0, sizeof(list));
    for (size_t i = 0; i < arguments.num_args; i++) {
        list[i].type = GRPC_ARG_INTEGER;
        list[i].key = (char *)(uintptr_t)settings[i].key; /* the core only reads it */
        list[i].value.integer = settings[i].value;
    }
    return grpc_channel_create(target, rpc->channel_credentials, &arguments);
}

int rpc_channel_create(struct rpc *rpc, const char *address, struct rpc_channel **out)
{
    char target[300];
    if (!target_of_address(address, target, sizeof(target))) {
        return ERR_INVALID;
    }
    struct rpc_channel *channel = mem_calloc(1, sizeof(*channel));
    channel->rpc = rpc;
    channel->queue = rpc__queue_pick(rpc);
    channel->target = mem_strdup(target);
    channel->channel = core_channel_create(rpc, target);
    atomic_init(&channel->refs, 1);
    pthread_mutex_init(&channel->lock, NULL);
    rpc__list_init(&channel->requests);
    rpc__list_init(&channel->streams);
    pthread_mutex_lock(&rpc->lock);
    rpc->channels_open++;
    rpc->channels_live++;
    pthread_mutex_unlock(&rpc->lock);
    *out = channel;
    return ERR_OK;
}

void rpc_channel_destroy(struct rpc_channel *channel)
{
    if (channel == NULL) {
        return;
    }
    pthread_mutex_lock(&channel->lock);
    for (struct rpc__link *link = channel->requests.next; link != &channel->requests;
         link = link->next) {
        rpc__request_cancel_locked(link);
    }
    for (struct rpc__link *link = channel->streams.next; link != &channel->streams;
         link = link->next) {
        rpc_stream_cancel(RPC_CONTAINER_OF(link, struct rpc_stream, link));
    }
    pthread_mutex_unlock(&channel->lock);
    grpc_channel_destroy(channel->channel);
    channel->channel = NULL;
    pthread_mutex_lock(&channel->rpc->lock);
    channel->rpc->channels_open--;
    pthread_mutex_unlock(&channel->rpc->lock);
    rpc__channel_unref(channel);
}
