/* See recorder.h. Each client keeps a list of its own; they are put together when all have ended.
 * An unknown outcome stays open for ever; a command that was surely not executed is left out. A
 * refused compare-and-set saw a version. */
#include "fault/recorder.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"
#include "client/shardkv.h"
#include "lib/suite.h"
#include "lin/history_json.h"
#include "lin/report.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK_TIME_NS   (120 * NS_PER_S)
#define OPEN_TIMEOUT_MS 30000u
#define PROCESSES_MAX   1000u /* of one history */

struct seen { /* what this client last read of a key: what a compare-and-set expects */
    bool known;
    bool present;
    uint64_t version;
    struct buf value;
};

struct client {
    struct recorder *recorder;
    pthread_t thread;
    uint32_t id;
    uint64_t counter;
    struct skv_client *skv;
    struct rng rng;
    struct seen *seen; /* by key */
    struct lin_history *history;
    struct recorder_report report;
};

struct recorder {
    struct recorder_options options;
    struct client *clients;
    struct direct *direct; /* NULL: none */
    atomic_bool stop;
    atomic_uint_fast64_t done;
};

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

static enum lin_kind draw_kind(struct client *client, uint32_t key)
{
    uint64_t draw = rng_below(&client->rng, 100);
    if (draw < 40) {
        return LIN_GET;
    }
    if (draw < 60) {
        return LIN_PUT;
    }
    if (draw < 80) {
        return LIN_APPEND;
    }
    if (draw < 88 || !client->seen[key].known) {
        return LIN_DELETE;
    }
    return LIN_CAS;
}

static enum skv_op skv_op_of(enum lin_kind kind)
{
    switch (kind) {
    case LIN_GET:
        return SKV_GET;
    case LIN_PUT:
        return SKV_PUT;
    case LIN_APPEND:
        return SKV_APPEND;
    case LIN_DELETE:
        return SKV_DELETE;
    case LIN_CAS:
        return SKV_CAS;
    case LIN_SEEN:
        break;
    }
    UNREACHABLE();
}

static int call(struct client *client, enum skv_op op, struct bytes key, struct bytes value,
                uint64_t expected, struct skv_result *result)
{
    uint32_t timeout_ms = client->recorder->options.timeout_ms;
    switch (op) {
    case SKV_GET:
        return skv_get(client->skv, key.data, key.size, timeout_ms, result);
    case SKV_PUT:
        return skv_put(client->skv, key.data, key.size, value.data, value.size, timeout_ms, result);
    case SKV_APPEND:
        return skv_append(client->skv, key.data, key.size, value.data, value.size, timeout_ms,
                          result);
    case SKV_DELETE:
        return skv_delete(client->skv, key.data, key.size, timeout_ms, result);
    case SKV_CAS:
        return skv_cas(client->skv, key.data, key.size, expected, value.data, value.size,
                       timeout_ms, result);
    }
    UNREACHABLE();
}

static void remember(struct seen *seen, const struct skv_result *result)
{
    seen->known = true;
    seen->present = result->code == SKV_OK;
    seen->version = seen->present ? result->version : 0;
    buf_clear(&seen->value);
    if (seen->present) {
        buf_append(&seen->value, result->value, result->value_size);
    }
}

/* Fills what the answer adds to the operation. False when it says nothing and is left out. */
static bool take_answer(struct client *client, struct lin_op *op, uint32_t key,
                        const struct skv_result *result)
{
    if (op->kind == LIN_GET) {
        if (result->outcome != SKV_DONE) {
            return false;
        }
        remember(&client->seen[key], result);
        op->observed =
            result->code == SKV_OK ? lin_value_of(result->value, result->value_size) : LIN_ABSENT;
        op->version = result->code == SKV_OK ? result->version : 0;
        return true;
    }
    if (result->outcome == SKV_UNKNOWN) {
        op->returned_ns = LIN_NEVER;
        return true;
    }
    if (result->outcome == SKV_DONE) {
        op->version = op->kind == LIN_DELETE ? 0 : result->version;
        return true;
    }
    if (op->kind != LIN_CAS || result->code != SKV_VERSION_MISMATCH) {
        return false;
    }
    bool absent = result->version == 0;
    op->kind = absent ? LIN_GET : LIN_SEEN;
    op->observed = LIN_ABSENT;
    op->expected = 0;
    op->version = result->version;
    return true;
}

static void count(struct client *client, const struct skv_result *result, bool is_get)
{
    switch (result->outcome) {
    case SKV_DONE:
        client->report.done++;
        client->report.reads += is_get;
        atomic_fetch_add(&client->recorder->done, 1);
        break;
    case SKV_NOT_DONE:
        client->report.not_done++;
        break;
    case SKV_UNKNOWN:
        client->report.unknown++;
        break;
    }
}

/* Whether it was done. */
static bool run_one(struct client *client, uint32_t key_index, enum lin_kind kind)
{
    const struct seen *seen = &client->seen[key_index];
    char key[32], value[32];
    int key_size = snprintf(key, sizeof key, "fault-%u", key_index);
    int value_size = snprintf(value, sizeof value, "%u.%llu;", client->id,
                              (unsigned long long)client->counter++);
    struct lin_op op = {.kind = kind,
                        .process = client->id,
                        .key = bytes_of(key, (size_t)key_size),
                        .called_ns = now_ns()};
    if (kind == LIN_PUT || kind == LIN_APPEND || kind == LIN_CAS) {
        op.argument = lin_value_of(value, (size_t)value_size);
    }
    struct buf expected;
    buf_init(&expected);
    if (kind == LIN_CAS) {
        buf_append_bytes(&expected, buf_view(&seen->value));
        op.expected = seen->version;
        op.observed = seen->present ? lin_value_of(expected.data, expected.size) : LIN_ABSENT;
    }
    struct skv_result result;
    (void)call(client, skv_op_of(kind), op.key, op.argument.bytes, op.expected, &result);
    op.returned_ns = now_ns();
    count(client, &result, kind == LIN_GET);
    if (take_answer(client, &op, key_index, &result)) {
        lin_history_add(client->history, &op);
    }
    bool done = result.outcome == SKV_DONE;
    skv_result_free(&result);
    buf_deinit(&expected);
    return done;
}

static void *run_client(void *context)
{
    struct client *client = context;
    uint32_t pause_us = client->recorder->options.pause_us;
    struct timespec pause = {pause_us / 1000000, (long)(pause_us % 1000000) * 1000};
    while (!atomic_load(&client->recorder->stop)) {
        uint32_t key = (uint32_t)rng_below(&client->rng, client->recorder->options.keys);
        (void)run_one(client, key, draw_kind(client, key));
        nanosleep(&pause, NULL);
    }
    return NULL;
}

struct recorder *recorder_start(const struct recorder_options *options)
{
    struct recorder *recorder = mem_calloc(1, sizeof *recorder);
    recorder->options = *options;
    recorder->clients = mem_calloc(options->clients, sizeof *recorder->clients);
    for (uint32_t i = 0; i < options->clients; i++) {
        struct client *client = &recorder->clients[i];
        *client = (struct client){.recorder = recorder, .id = i, .history = lin_history_create()};
        client->seen = mem_calloc(options->keys, sizeof *client->seen);
        rng_init(&client->rng, options->seed + i);
        char why[SKV_ERROR_TEXT_BYTES] = "";
        struct skv_options skv = {.controllers = options->controllers,
                                  .cluster = options->cluster,
                                  .open_timeout_ms = OPEN_TIMEOUT_MS};
        if (skv_open(&skv, &client->skv, why, sizeof why) != 0) {
            FAIL("client %u: %s", i, why);
        }
        CHECK_EQ(pthread_create(&client->thread, NULL, run_client, client), 0);
    }
    if (options->direct_count > 0) {
        recorder->direct =
            direct_start(&(struct direct_options){.addresses = options->direct,
                                                  .count = options->direct_count,
                                                  .keys = options->keys,
                                                  .seed = ~options->seed,
                                                  .first_process = options->clients});
    }
    return recorder;
}

uint64_t recorder_done(const struct recorder *recorder)
{
    return atomic_load(&recorder->done);
}

static void merge(struct lin_history *all, struct client *client, struct recorder_report *report)
{
    const struct lin_op *ops = lin_history_sorted(client->history);
    size_t count = lin_history_count(client->history);
    for (size_t i = 0; i < count; i++) {
        lin_history_add(all, &ops[i]);
    }
    report->done += client->report.done;
    report->not_done += client->report.not_done;
    report->unknown += client->report.unknown;
    report->reads += client->report.reads;
}

static void end_client(struct client *client)
{
    skv_close(client->skv);
    lin_history_destroy(client->history);
    for (uint32_t key = 0; key < client->recorder->options.keys; key++) {
        buf_deinit(&client->seen[key].value);
    }
    free(client->seen);
}

static void write_op(FILE *file, const struct lin_op *op, struct buf *line)
{
    /* What was seen of a refused compare-and-set is told as one. */
    bool refused = op->kind == LIN_SEEN;
    struct lin_event event = {.process = op->process,
                              .type = LIN_INVOKE,
                              .kind = refused ? LIN_CAS : op->kind,
                              .key = op->key,
                              .value = op->argument,
                              .time_ns = op->called_ns};
    if (event.kind == LIN_CAS) {
        event.from = op->observed;
        event.has_expected = op->expected != 0;
        event.expected = op->expected;
    }
    buf_clear(line);
    lin_event_write(&event, line);
    struct lin_event answer = {.process = op->process,
                               .type = refused                        ? LIN_FAIL
                                       : op->returned_ns == LIN_NEVER ? LIN_INFO
                                                                      : LIN_OK,
                               .kind = event.kind,
                               .key = op->key,
                               .has_version = op->version != 0,
                               .version = op->version,
                               .time_ns = op->returned_ns};
    if (op->kind == LIN_GET) {
        answer.value = op->observed;
        answer.has_version = true;
    }
    if (answer.type != LIN_INFO) { /* one that never returned has no time either */
        lin_event_write(&answer, line);
    }
    fwrite(line->data, 1, line->size, file);
}

/* In a file a process has one operation open at a time, in order. These are sorted by key, and some
 * never returned, so each gets a process of its own; modulo PROCESSES_MAX it is the client. */
static void write_history(struct lin_history *history, const char *path)
{
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        fprintf(stderr, "cannot write the history to %s\n", path);
        return;
    }
    const struct lin_op *ops = lin_history_sorted(history);
    size_t count = lin_history_count(history);
    struct buf line;
    buf_init(&line);
    for (size_t i = 0; i < count; i++) {
        struct lin_op op = ops[i];
        op.process += PROCESSES_MAX * i;
        write_op(file, &op, &line);
    }
    buf_deinit(&line);
    fclose(file);
}

static void judge(struct lin_history *history, const char *path)
{
    struct lin_limits limits = {.clock = clock_system(), .time_ns = CHECK_TIME_NS, .explain = true};
    struct lin_result result;
    if (lin_check(history, &limits, &result) != LIN_LINEARIZABLE) {
        write_history(history, path);
        struct buf text;
        buf_init(&text);
        lin_report_text(&result, &text);
        FAIL("%.*s\nevidence: %s", (int)text.size, (const char *)text.data, path);
    }
    lin_result_deinit(&result);
}

/* Reads every key once more, so that nothing acknowledged can be lost unseen. How many could not be
 * read. All is healed, but a connection that lost its packets in a cut may take its keepalive's
 * time to be given up: as long as for the last write. */
static uint32_t read_all(struct recorder *recorder)
{
    enum { LAST_READ_MS = 30 * 1000 };
    uint32_t unread = 0;
    recorder->options.timeout_ms = LAST_READ_MS;
    for (uint32_t key = 0; key < recorder->options.keys; key++) {
        unread += !run_one(&recorder->clients[0], key, LIN_GET);
    }
    return unread;
}

static struct lin_history *collect(struct recorder *recorder, struct recorder_report *report)
{
    memset(report, 0, sizeof *report);
    struct lin_history *history = lin_history_create();
    for (uint32_t i = 0; i < recorder->options.clients; i++) {
        merge(history, &recorder->clients[i], report);
        end_client(&recorder->clients[i]);
    }
    if (recorder->direct != NULL) {
        report->direct = direct_take(recorder->direct, history);
    }
    return history;
}

static void stop_clients(struct recorder *recorder)
{
    atomic_store(&recorder->stop, true);
    for (uint32_t i = 0; i < recorder->options.clients; i++) {
        pthread_join(recorder->clients[i].thread, NULL);
    }
    if (recorder->direct != NULL) {
        direct_stop(recorder->direct);
    }
}

static void recorder_destroy(struct recorder *recorder, struct lin_history *history)
{
    lin_history_destroy(history);
    free(recorder->clients);
    free(recorder);
}

void recorder_stop(struct recorder *recorder, const char *path, struct recorder_report *report)
{
    stop_clients(recorder);
    uint32_t unread = read_all(recorder);
    struct lin_history *history = collect(recorder, report);
    judge(history, path);
    if (unread > 0 || report->done == 0 || report->reads == 0) {
        write_history(history, path);
        FAIL("%u of %u keys cannot be read in the end; %llu commands were done\nevidence: %s",
             unread, recorder->options.keys, (unsigned long long)report->done, path);
    }
    recorder_destroy(recorder, history);
}

void recorder_keep(struct recorder *recorder, const char *path)
{
    struct recorder_report report;
    stop_clients(recorder);
    struct lin_history *history = collect(recorder, &report);
    write_history(history, path);
    recorder_destroy(recorder, history);
}
