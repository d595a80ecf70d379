/* See direct.h. A reader has one call under way, with a short deadline: while its server is stopped
 * it calls again and again, so that at the moment when the server goes on there is a call that
 * began after what others have done meanwhile. */
#include "fault/direct.h"

#include "base/clock.h"
#include "base/rng.h"
#include "lib/suite.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "rpc/rpc.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { READERS_PER_SERVER = 2, CALL_MS = 250, PAUSE_MS = 15 };

struct reader_thread {
    struct direct *direct;
    pthread_t thread;
    struct rpc_channel *channel;
    struct rng rng;
    uint64_t process;
    struct lin_history *history;
};

struct direct {
    struct rpc *rpc;
    uint32_t keys;
    atomic_bool stop;
    uint32_t count;
    struct reader_thread *readers;
};

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

/* False when it was not answered with what the key holds. `reply` holds the value. */
static bool get(struct reader_thread *reader, struct bytes key, struct buf *reply,
                struct msg_get_response *response)
{
    struct msg_get_request message = {.key = key};
    struct buf request;
    buf_init(&request);
    msg_get_request_encode(&message, &request);
    int error = rpc_call_wait(reader->channel, METHOD_KV_GET, &request,
                              now_ns() + CALL_MS * NS_PER_MS, reply, NULL, 0);
    buf_deinit(&request);
    if (error != 0 || msg_get_response_decode(buf_view(reply), response) != 0) {
        return false;
    }
    return response->header.error == 0 || response->header.error == ERR_NOT_FOUND;
}

static void read_one(struct reader_thread *reader, struct msg_get_response *response)
{
    char key[32];
    int size = snprintf(key, sizeof key, "fault-%u",
                        (unsigned)rng_below(&reader->rng, reader->direct->keys));
    struct lin_op op = {.kind = LIN_GET,
                        .process = reader->process,
                        .key = bytes_of(key, (size_t)size),
                        .called_ns = now_ns()};
    struct buf reply;
    buf_init(&reply);
    if (get(reader, op.key, &reply, response)) {
        op.returned_ns = now_ns();
        op.observed = response->header.error == 0
                          ? lin_value_of(response->value.data, response->value.size)
                          : LIN_ABSENT;
        op.version = response->header.error == 0 ? response->version : 0;
        lin_history_add(reader->history, &op);
    }
    buf_deinit(&reply);
}

static void *run(void *context)
{
    struct reader_thread *reader = context;
    struct msg_get_response *response = mem_calloc(1, sizeof *response);
    const struct timespec pause = {0, PAUSE_MS * 1000000L};
    while (!atomic_load(&reader->direct->stop)) {
        read_one(reader, response);
        nanosleep(&pause, NULL);
    }
    free(response);
    return NULL;
}

struct direct *direct_start(const struct direct_options *options)
{
    struct direct *direct = mem_calloc(1, sizeof *direct);
    struct rpc_options rpc = rpc_options_default();
    CHECK_EQ(rpc_create(&rpc, &direct->rpc), 0);
    direct->keys = options->keys;
    direct->count = options->count * READERS_PER_SERVER;
    direct->readers = mem_calloc(direct->count, sizeof direct->readers[0]);
    for (uint32_t i = 0; i < direct->count; i++) {
        struct reader_thread *reader = &direct->readers[i];
        *reader = (struct reader_thread){.direct = direct,
                                         .process = options->first_process + i,
                                         .history = lin_history_create()};
        rng_init(&reader->rng, options->seed + i);
        CHECK_EQ(rpc_channel_create(direct->rpc, options->addresses[i / READERS_PER_SERVER],
                                    &reader->channel),
                 0);
        CHECK_EQ(pthread_create(&reader->thread, NULL, run, reader), 0);
    }
    return direct;
}

void direct_stop(struct direct *direct)
{
    atomic_store(&direct->stop, true);
    for (uint32_t i = 0; i < direct->count; i++) {
        pthread_join(direct->readers[i].thread, NULL);
        rpc_channel_destroy(direct->readers[i].channel);
    }
    rpc_destroy(direct->rpc);
}

uint64_t direct_take(struct direct *direct, struct lin_history *into)
{
    uint64_t answered = 0;
    for (uint32_t i = 0; i < direct->count; i++) {
        struct lin_history *history = direct->readers[i].history;
        const struct lin_op *ops = lin_history_sorted(history);
        size_t count = lin_history_count(history);
        for (size_t k = 0; k < count; k++) {
            lin_history_add(into, &ops[k]);
        }
        answered += count;
        lin_history_destroy(history);
    }
    free(direct->readers);
    free(direct);
    return answered;
}
