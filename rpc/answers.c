/* What clients asked for and do not take. A client that asks and never reads costs its question,
 * and the server the answer; over many streams, calls and connections that is without bound. So a
 * server counts the bytes of its answers from the moment they are given until the core has sent
 * them, and when they are more than `answer_bytes_max`, somebody has to go: of the streams the one
 * that has the most waiting, or, when the answers of unary calls are the larger part, the oldest
 * of those. Who reads what they ask for has next to nothing waiting, and stays.
 *
 * Answers of unary calls below REPLY_BYTES_MIN are not counted one by one: there are at most as
 * many as calls, and calls themselves are held against the core's quota.
 *
 * Locks: the server's guards the list of replies, and `evicted` of streams and replies. What was
 * chosen is cancelled; its bytes are freed by its queue thread, and meanwhile not counted again. */
#include "base/log.h"
#include "base/metrics.h"
#include "rpc/rpc_internal.h"
#include <inttypes.h>

METRIC(rpc_answers_evicted_count, COUNTER,
       "streams and calls cancelled: their answers were not read")

enum { LOG_INTERVAL_S = 10 };

bool rpc__answers_add(struct rpc_server *server, uint64_t bytes)
{
    uint64_t before = atomic_fetch_add_explicit(&server->answer_bytes, bytes, memory_order_relaxed);
    return before + bytes > server->options.answer_bytes_max;
}

void rpc__answers_subtract(struct rpc_server *server, uint64_t bytes)
{
    uint64_t before = atomic_fetch_sub_explicit(&server->answer_bytes, bytes, memory_order_relaxed);
    ASSERT_CMP(before, >=, bytes);
}

/* What waits on streams, and the one with the most. */
static uint64_t streams_sum_locked(struct rpc_server *server, struct rpc_stream **most)
{
    uint64_t sum = 0;
    uint64_t most_bytes = 0;
    for (struct rpc__link *link = server->streams.next; link != &server->streams;
         link = link->next) {
        struct rpc_stream *stream = RPC_CONTAINER_OF(link, struct rpc_stream, link);
        if (stream->evicted) {
            continue;
        }
        uint64_t bytes = atomic_load_explicit(&stream->queued_bytes, memory_order_relaxed);
        sum += bytes;
        if (bytes > most_bytes) {
            most_bytes = bytes;
            *most = stream;
        }
    }
    return sum;
}

static uint64_t replies_sum_locked(struct rpc_server *server, struct rpc__reply **oldest)
{
    uint64_t sum = 0;
    for (struct rpc__link *link = server->replies.next; link != &server->replies;
         link = link->next) {
        struct rpc__reply *reply = RPC_CONTAINER_OF(link, struct rpc__reply, link);
        if (!reply->evicted) {
            sum += reply->bytes;
            *oldest = *oldest == NULL ? reply : *oldest;
        }
    }
    return sum;
}

static void evict_log_locked(struct rpc_server *server, const char *what, uint64_t bytes)
{
    metric_add(&rpc_answers_evicted_count, 1);
    if (log_rate_limit(&server->evicted_logged_ns, clock_now_ns(clock_system()),
                       LOG_INTERVAL_S * NS_PER_S)) {
        log_event(LOG_WARN, "rpc.answers_not_read",
                  "cancelled=%s unread_bytes=%" PRIu64 " bytes_max=%" PRIu64, what, bytes,
                  server->options.answer_bytes_max);
    }
}

void rpc__answers_relieve(struct rpc_server *server)
{
    struct rpc_stream *most = NULL;
    struct rpc__reply *oldest = NULL;
    pthread_mutex_lock(&server->lock);
    uint64_t streams = streams_sum_locked(server, &most);
    uint64_t replies = replies_sum_locked(server, &oldest);
    if (streams + replies <= server->options.answer_bytes_max) {
        most = NULL; /* who went already is enough */
    } else if (oldest != NULL && replies >= streams) {
        most = NULL;
        oldest->evicted = true;
        evict_log_locked(server, "call", streams + replies);
        grpc_call_cancel(oldest->call, NULL); /* linked: it is alive */
    } else if (most != NULL) {
        most->evicted = true;
        evict_log_locked(server, "stream", streams + replies);
        rpc_stream_ref(most);
    }
    pthread_mutex_unlock(&server->lock);
    if (most != NULL) {
        rpc_stream_cancel(most);
        rpc_stream_unref(most);
    }
}

void rpc__reply_link(struct rpc_server *server, struct rpc__reply *reply, grpc_call *call,
                     uint64_t bytes)
{
    if (bytes < RPC_REPLY_BYTES_MIN) {
        return;
    }
    reply->call = call;
    reply->bytes = bytes;
    bool crowded = rpc__answers_add(server, bytes);
    pthread_mutex_lock(&server->lock);
    rpc__list_add(&server->replies, &reply->link);
    pthread_mutex_unlock(&server->lock);
    if (crowded) {
        rpc__answers_relieve(server);
    }
}

void rpc__reply_unlink(struct rpc_server *server, struct rpc__reply *reply)
{
    if (reply->bytes == 0) {
        return;
    }
    pthread_mutex_lock(&server->lock);
    rpc__list_remove(&reply->link);
    pthread_mutex_unlock(&server->lock);
    rpc__answers_subtract(server, reply->bytes);
    reply->bytes = 0;
}
