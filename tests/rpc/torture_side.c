/* The torture's streams: what both sides check in their callbacks, and how their drivers disturb
 * them. */
#include "base/codec.h"
#include "rpc/torture.h"
#include <string.h>
#include <time.h>

struct torture torture;

void nap(struct rng *rng, uint64_t max_us)
{
    struct timespec pause = {.tv_sec = 0, .tv_nsec = (long)(rng_below(rng, max_us + 1) * 1000)};
    nanosleep(&pause, NULL);
}

uint64_t op_start(void)
{
    uint64_t op = atomic_fetch_add(&torture.ops, 1);
    CHECK(op < OPS_MAX);
    return op;
}

void op_end(uint64_t op)
{
    CHECK(atomic_fetch_add(&torture.callbacks[op], 1) == 0);
}

/* --- one side of a stream --- */

struct side *side_create(uint64_t seed)
{
    struct side *side = mem_calloc(1, sizeof(*side));
    atomic_init(&side->refs, 2);
    pthread_mutex_init(&side->lock, NULL);
    rng_init(&side->rng, seed);
    return side;
}

static void side_unref(struct side *side)
{
    if (atomic_fetch_sub(&side->refs, 1) == 1) {
        pthread_mutex_destroy(&side->lock);
        free(side);
    }
}

static int side_send(struct side *side, size_t padding)
{
    struct buf message;
    buf_init(&message);
    pthread_mutex_lock(&side->lock);
    put_u64(&message, side->next_to_send);
    memset(buf_reserve(&message, padding + 1), 'x', padding);
    message.size += padding;
    int error = rpc_stream_send(side->stream, &message);
    if (error == ERR_OK) {
        side->next_to_send++;
    }
    pthread_mutex_unlock(&side->lock);
    CHECK(error == ERR_OK || error == ERR_BUSY || error == ERR_UNAVAILABLE);
    CHECK((error == ERR_OK) == (message.data == NULL));
    if (error == ERR_BUSY) {
        atomic_fetch_add(&torture.busy, 1);
    }
    buf_deinit(&message);
    return error;
}

static bool side_message(void *context, struct rpc_stream *stream, struct bytes message,
                         struct blob *owner)
{
    (void)context;
    (void)owner;
    struct side *side = rpc_stream_user(stream);
    struct reader reader = reader_of(message);
    CHECK(!atomic_load(&side->closed));
    CHECK(get_u64(&reader) == side->next_expected);
    CHECK(!reader.failed);
    side->next_expected++;
    atomic_fetch_add(&torture.messages, 1);
    if (side->is_server && rng_chance(&side->rng, 1, 2)) {
        (void)side_send(side, rng_below(&side->rng, 200));
    }
    if (rng_chance(&side->rng, 1, 2000)) {
        rpc_stream_cancel(stream);
    }
    if (rng_chance(&side->rng, 1, 50)) { /* paused; the driver resumes, or this did already */
        if (rng_chance(&side->rng, 1, 3)) {
            rpc_stream_resume(stream);
        }
        return false;
    }
    return true;
}

static void side_writable(void *context, struct rpc_stream *stream)
{
    (void)context;
    struct side *side = rpc_stream_user(stream);
    CHECK(!atomic_load(&side->closed));
    atomic_fetch_add(&torture.writable, 1);
    (void)side_send(side, 100);
}

static void side_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)context;
    (void)text;
    struct side *side = rpc_stream_user(stream);
    CHECK(!atomic_exchange(&side->closed, true));
    op_end(side->op);
    if (side->is_server) {
        atomic_fetch_add(&torture.streams_accepted_ended, 1);
    } else {
        CHECK(-error < ERRORS);
        atomic_fetch_add(&torture.streams_ended[-error], 1);
    }
    side_unref(side);
}

static int side_opened(void *context, struct rpc_stream *stream)
{
    (void)context;
    uint64_t op = op_start();
    struct side *side = side_create(torture.seed + op);
    side->op = op;
    side->is_server = true;
    side->stream = stream;
    if (rng_chance(&side->rng, 1, 20)) {
        op_end(op); /* refused: `closed` does not come */
        side_unref(side);
        side_unref(side);
        return ERR_BUSY;
    }
    pthread_mutex_lock(&torture.lock);
    bool room = torture.side_count < SERVER_STREAMS_MAX;
    if (room) {
        rpc_stream_ref(stream);
        torture.sides[torture.side_count] = side;
        torture.side_count++;
    }
    pthread_mutex_unlock(&torture.lock);
    if (!room) {
        op_end(op);
        side_unref(side);
        side_unref(side);
        return ERR_BUSY;
    }
    atomic_fetch_add(&torture.streams_accepted, 1);
    rpc_stream_set_user(stream, side);
    if (rng_chance(&side->rng, 1, 4)) {
        (void)side_send(side, 10);
    }
    if (rng_chance(&side->rng, 1, 50)) {
        rpc_stream_cancel(stream);
    }
    return ERR_OK;
}

static void side_finished(void *context, struct rpc_stream *stream)
{
    (void)context;
    struct side *side = rpc_stream_user(stream);
    CHECK(!atomic_load(&side->closed));
    (void)side_send(side, 10);
    rpc_stream_finish(stream);
}

const struct rpc_stream_events torture_server_events = {.opened = side_opened,
                                                        .message = side_message,
                                                        .writable = side_writable,
                                                        .closed = side_closed,
                                                        .finished = side_finished};

void side_disturb(struct side *side, struct rng *rng)
{
    switch (rng_below(rng, 40)) {
    case 0:
        rpc_stream_cancel(side->stream);
        break;
    case 1:
        rpc_stream_finish(side->stream);
        break;
    case 2:
    case 3:
    case 4:
        (void)side_send(side, rng_below(rng, 100 * 1000));
        break;
    case 5:
        for (int i = 0; i < 50 && side_send(side, 1000) == ERR_OK; i++) {
        }
        break;
    default:
        rpc_stream_resume(side->stream);
        break;
    }
}

void side_release(struct side *side)
{
    rpc_stream_unref(side->stream);
    side_unref(side);
}

/* The user pointer is set after the open returns, but a callback may come before: so clients find
 * their side by the context instead. */
static bool client_message(void *context, struct rpc_stream *stream, struct bytes message,
                           struct blob *owner)
{
    rpc_stream_set_user(stream, context);
    return side_message(context, stream, message, owner);
}

static void client_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    rpc_stream_set_user(stream, context);
    side_closed(context, stream, error, text);
}

static void client_writable(void *context, struct rpc_stream *stream)
{
    rpc_stream_set_user(stream, context);
    side_writable(context, stream);
}

const struct rpc_stream_events torture_client_events = {
    .message = client_message, .writable = client_writable, .closed = client_closed};
