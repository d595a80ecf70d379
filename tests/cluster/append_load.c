/* See append_load.h. A token is "<client>.<number>;", numbers ascending per client over all keys.
 * What a client did is a list of (key, outcome) by number, so that the values read back can be
 * walked against it. */
#include "cluster/append_load.h"

#include "base/bytes.h"
#include "base/rng.h"
#include "client/shardkv.h"
#include "cluster/harness.h"
#include "lib/suite.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_TIMEOUT_MS = 60000, KEY_TEXT_BYTES = 32 };

struct sent {
    uint32_t key;
    enum skv_outcome outcome;
    uint32_t seen;
};

struct appender {
    struct append_load *load;
    pthread_t thread;
    uint32_t id;
    struct skv_client *client;
    struct sent *sent; /* by token number */
    size_t count, capacity;
    double slowest_seconds;
};

struct append_load {
    struct append_load_options options;
    atomic_bool stop;
    struct appender *appenders;
};

static size_t key_text(uint32_t key, char out[KEY_TEXT_BYTES])
{
    return (size_t)snprintf(out, KEY_TEXT_BYTES, "append-%u", key);
}

static void append_one(struct appender *appender, uint32_t key)
{
    if (appender->count == appender->capacity) {
        appender->capacity = appender->capacity == 0 ? 1024 : appender->capacity * 2;
        appender->sent = mem_realloc(appender->sent, appender->capacity * sizeof *appender->sent);
    }
    char name[KEY_TEXT_BYTES], token[48];
    size_t name_size = key_text(key, name);
    int token_size = snprintf(token, sizeof token, "%u.%zu;", appender->id, appender->count);
    struct skv_result result;
    double start = now_seconds();
    (void)skv_append(appender->client, name, name_size, token, (size_t)token_size,
                     appender->load->options.timeout_ms, &result);
    double took = now_seconds() - start;
    appender->slowest_seconds = took > appender->slowest_seconds ? took : appender->slowest_seconds;
    appender->sent[appender->count++] = (struct sent){.key = key, .outcome = result.outcome};
    skv_result_free(&result);
}

static void *run_appender(void *context)
{
    struct appender *appender = context;
    struct rng rng;
    rng_init(&rng, appender->id + 1);
    while (!atomic_load(&appender->load->stop)) {
        append_one(appender, (uint32_t)rng_below(&rng, appender->load->options.keys));
    }
    return NULL;
}

struct append_load *append_load_start(const struct append_load_options *options)
{
    struct append_load *load = mem_calloc(1, sizeof *load);
    load->options = *options;
    load->appenders = mem_calloc(options->clients, sizeof *load->appenders);
    for (uint32_t i = 0; i < options->clients; i++) {
        struct appender *appender = &load->appenders[i];
        *appender = (struct appender){.load = load, .id = i};
        char why[SKV_ERROR_TEXT_BYTES] = "";
        struct skv_options client = {.controllers = options->controllers,
                                     .cluster = options->cluster,
                                     .open_timeout_ms = 30000};
        if (skv_open(&client, &appender->client, why, sizeof why) != 0) {
            FAIL("client %u: %s", i, why);
        }
        CHECK_EQ(pthread_create(&appender->thread, NULL, run_appender, appender), 0);
    }
    return load;
}

/* Walks one key's value. Numbers of one client must ascend: each token once and in order is the
 * same thing then. */
static void walk_value(struct append_load *load, uint32_t key, const char *value, size_t size,
                       struct append_load_report *report)
{
    int64_t *newest = mem_calloc(load->options.clients, sizeof *newest);
    for (uint32_t i = 0; i < load->options.clients; i++) {
        newest[i] = -1;
    }
    size_t at = 0;
    while (at < size && report->error[0] == '\0') {
        const char *end = memchr(value + at, ';', size - at);
        char token[64] = "";
        unsigned id = 0;
        unsigned long long number = 0;
        size_t length = end != NULL ? (size_t)(end - value) - at : size - at;
        memcpy(token, value + at, length < sizeof token ? length : sizeof token - 1);
        if (end == NULL || sscanf(token, "%u.%llu", &id, &number) != 2 ||
            id >= load->options.clients || number >= load->appenders[id].count ||
            load->appenders[id].sent[number].key != key) {
            snprintf(report->error, sizeof report->error,
                     "key %u holds '%.60s', which nobody sent there", key, token);
        } else if ((int64_t)number <= newest[id]) {
            snprintf(report->error, sizeof report->error,
                     "key %u holds %s after %u.%lld: doubled or out of order", key, token, id,
                     (long long)newest[id]);
        } else {
            newest[id] = (int64_t)number;
            load->appenders[id].sent[number].seen++;
        }
        at += length + 1;
    }
    free(newest);
}

static void read_back(struct append_load *load, struct append_load_report *report)
{
    for (uint32_t key = 0; key < load->options.keys && report->error[0] == '\0'; key++) {
        char name[KEY_TEXT_BYTES];
        size_t name_size = key_text(key, name);
        struct skv_result result;
        int code = skv_get(load->appenders[0].client, name, name_size, READ_TIMEOUT_MS, &result);
        if (code == SKV_OK) {
            walk_value(load, key, result.value, result.value_size, report);
        } else if (code != SKV_NOT_FOUND) {
            snprintf(report->error, sizeof report->error, "key %u cannot be read: %s", key,
                     skv_code_text(code));
        }
        skv_result_free(&result);
    }
}

static void judge(const struct appender *appender, struct append_load_report *report)
{
    for (size_t i = 0; i < appender->count; i++) {
        const struct sent *sent = &appender->sent[i];
        const char *wrong = NULL;
        switch (sent->outcome) {
        case SKV_DONE:
            report->acknowledged++;
            wrong = sent->seen != 1 ? "acknowledged and lost" : NULL;
            break;
        case SKV_NOT_DONE:
            report->not_done++;
            wrong = sent->seen != 0 ? "'not done' and there" : NULL;
            break;
        case SKV_UNKNOWN:
            report->unknown++;
            break;
        }
        if (wrong != NULL && report->error[0] == '\0') {
            snprintf(report->error, sizeof report->error, "token %u.%zu of key %u was %s",
                     appender->id, i, sent->key, wrong);
        }
    }
}

void append_load_stop(struct append_load *load, struct append_load_report *report)
{
    memset(report, 0, sizeof *report);
    atomic_store(&load->stop, true);
    for (uint32_t i = 0; i < load->options.clients; i++) {
        pthread_join(load->appenders[i].thread, NULL);
    }
    read_back(load, report);
    for (uint32_t i = 0; i < load->options.clients; i++) {
        struct appender *appender = &load->appenders[i];
        if (report->error[0] == '\0') {
            judge(appender, report);
        }
        if (appender->slowest_seconds > report->slowest_seconds) {
            report->slowest_seconds = appender->slowest_seconds;
        }
        skv_close(appender->client);
        free(appender->sent);
    }
    free(load->appenders);
    free(load);
}
