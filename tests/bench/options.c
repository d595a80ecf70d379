/* See options.h. */
#include "bench/options.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/flags.h"
#include "proto/limits.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *bench_kind_name(enum bench_kind kind)
{
    switch (kind) {
    case BENCH_GET:
        return "get";
    case BENCH_PUT:
        return "put";
    case BENCH_APPEND:
        return "append";
    case BENCH_CAS:
        return "cas";
    case BENCH_KINDS:
        break;
    }
    return "?";
}

const char *bench_target_name(enum bench_target target)
{
    switch (target) {
    case BENCH_LIBRARY:
        return "shardkv, library";
    case BENCH_UNARY:
        return "shardkv, unary";
    case BENCH_ETCD:
        return "etcd";
    }
    return "?";
}

static int mix_part(char *part, struct bench_mix *out)
{
    char *equals = strchr(part, '=');
    uint64_t percent;
    if (equals == NULL) {
        return ERR_INVALID;
    }
    *equals = '\0';
    if (parse_uint(equals + 1, &percent) != ERR_OK || percent == 0 || percent > 100) {
        return ERR_INVALID;
    }
    for (uint32_t kind = 0; kind < BENCH_KINDS; kind++) {
        if (strcmp(part, bench_kind_name((enum bench_kind)kind)) == 0 && out->percent[kind] == 0) {
            out->percent[kind] = (uint32_t)percent;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

int bench_mix_parse(const char *text, struct bench_mix *out)
{
    char copy[128];
    if (strlen(text) >= sizeof copy) {
        return ERR_INVALID;
    }
    memcpy(copy, text, strlen(text) + 1);
    *out = (struct bench_mix){{0}};
    uint32_t sum = 0;
    char *at = NULL;
    for (char *part = strtok_r(copy, ",", &at); part != NULL; part = strtok_r(NULL, ",", &at)) {
        int error = mix_part(part, out);
        if (error != ERR_OK) {
            return error;
        }
    }
    for (uint32_t kind = 0; kind < BENCH_KINDS; kind++) {
        sum += out->percent[kind];
    }
    return sum == 100 ? ERR_OK : ERR_INVALID;
}

static int parse_distribution(const char *text, enum key_distribution *out)
{
    static const char *const names[] = {
        [KEY_UNIFORM] = "uniform", [KEY_ZIPFIAN] = "zipfian", [KEY_LATEST] = "latest"};
    for (uint32_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum key_distribution)i;
            return ERR_OK;
        }
    }
    return ERR_INVALID;
}

struct words {
    const char *target, *mix, *distribution;
    bool unary;
};

__attribute__((format(printf, 3, 4))) static int complain(char *message, size_t size,
                                                          const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, size, format, arguments);
    va_end(arguments);
    return ERR_INVALID;
}

static int check_etcd(const struct bench_options *o, const struct words *words, char *message,
                      size_t size)
{
    if (words->unary) {
        return complain(message, size, "--unary: etcd has only unary calls; leave it out");
    }
    if (o->endpoints == NULL) {
        return complain(message, size, "--target=etcd needs --endpoints=ADDR,...");
    }
    if (o->mix.percent[BENCH_APPEND] + o->mix.percent[BENCH_CAS] > 0) {
        return complain(message, size, "--mix=%s: of etcd only get and put are measured",
                        words->mix);
    }
    return ERR_OK;
}

static int check(struct bench_options *o, const struct words *words, char *message, size_t size)
{
    if (bench_mix_parse(words->mix, &o->mix) != ERR_OK) {
        return complain(message, size,
                        "--mix=%s: write get=P,put=P,append=P,cas=P, percentages that give 100",
                        words->mix);
    }
    if (parse_distribution(words->distribution, &o->distribution) != ERR_OK) {
        return complain(message, size, "--distribution=%s: use uniform, zipfian or latest",
                        words->distribution);
    }
    if (o->key_bytes < key_bytes_min(o->keys)) {
        return complain(message, size, "--key-size=%llu: %llu keys need at least %zu bytes each",
                        (unsigned long long)o->key_bytes, (unsigned long long)o->keys,
                        key_bytes_min(o->keys));
    }
    if (o->clients > o->outstanding) {
        return complain(message, size, "--clients=%llu: not more than --outstanding=%llu",
                        (unsigned long long)o->clients, (unsigned long long)o->outstanding);
    }
    if (o->event != NULL && o->operations == 0 && o->event_at_ns >= o->duration_ns) {
        return complain(message, size, "--event-at must lie within --duration");
    }
    if (strcmp(words->target, "etcd") == 0) {
        o->target = BENCH_ETCD;
        return check_etcd(o, words, message, size);
    }
    if (strcmp(words->target, "shardkv") != 0) {
        return complain(message, size, "--target=%s: use shardkv or etcd", words->target);
    }
    o->target = words->unary ? BENCH_UNARY : BENCH_LIBRARY;
    if (o->controllers == NULL) {
        return complain(message, size, "--controllers=ADDR,... (or SHARDKV_CONTROLLERS) is needed");
    }
    return ERR_OK;
}

static const char details[] = "Closed loop: --outstanding operations are always under way, each "
                              "begun when another ends. Open loop (--rate): "
                              "operations begin at fixed moments whatever the server does, and "
                              "latency counts from the moment an operation was "
                              "meant to begin, so that a stall is not hidden; when --outstanding "
                              "are under way the next ones wait, and that "
                              "wait counts too.\n\n"
                              "Latencies are of the operations begun within the measured time, "
                              "also when they end after it; operations a second "
                              "are those that ended within it. What failed, and what has an "
                              "unknown outcome, is counted and shown by reason. "
                              "Quantiles are too high by at most 0.8 % and never too low.\n\n"
                              "The library and the unary client try again within --timeout; tries "
                              "after the first are counted. Exit code: 0, 1 "
                              "when nothing could be measured, 2 for a wrong command line, 4 when "
                              "it was measured but some operations failed or "
                              "have an unknown outcome.";

int bench_options_parse(int argc, char **argv, struct bench_options *out, FILE *help, char *message,
                        size_t message_size)
{
    *out = (struct bench_options){.zipf_hundredths = 99,
                                  .keys = 100000,
                                  .key_bytes = 16,
                                  .value_bytes = 128,
                                  .clients = 1,
                                  .outstanding = 64,
                                  .warm_up_ns = 2 * NS_PER_S,
                                  .duration_ns = 10 * NS_PER_S,
                                  .timeout_ns = 10 * NS_PER_S,
                                  .seed = 1,
                                  .preload = true,
                                  .event_at_ns = 3 * NS_PER_S,
                                  .progress = true};
    struct words words = {.target = "shardkv", .mix = "put=100", .distribution = "uniform"};
    struct bench_options *o = out;
    const struct flag flags[] = {
        {"target", FLAG_STRING, &words.target, 0, 0, false, NULL, "NAME", "shardkv or etcd"},
        {"controllers", FLAG_STRING, &o->controllers, 0, 0, false, "SHARDKV_CONTROLLERS",
         "ADDR,...", "the controllers of a shardkv cluster"},
        {"cluster", FLAG_STRING, &o->cluster, 0, 0, false, "SHARDKV_CLUSTER", "NAME",
         "name of the cluster, checked by every server"},
        {"unary", FLAG_BOOL, &words.unary, 0, 0, false, NULL, NULL,
         "one gRPC call an operation, as a client without the library makes them"},
        {"endpoints", FLAG_STRING, &o->endpoints, 0, 0, false, NULL, "ADDR,...",
         "the nodes of etcd"},
        {"mix", FLAG_STRING, &words.mix, 0, 0, false, NULL, "OP=P,...",
         "percentages of get, put, append and cas"},
        {"distribution", FLAG_STRING, &words.distribution, 0, 0, false, NULL, "NAME",
         "choice of keys: uniform, zipfian or latest"},
        {"zipf-hundredths", FLAG_UINT, &o->zipf_hundredths, 1, 1000, false, NULL, "N",
         "exponent of zipfian and latest, times 100"},
        {"keys", FLAG_UINT, &o->keys, 1, 1000000000, false, NULL, "N", "number of keys"},
        {"key-size", FLAG_BYTES, &o->key_bytes, 1, KEY_BYTES_MAX, false, NULL, "BYTES",
         "size of a key"},
        {"value-size", FLAG_BYTES, &o->value_bytes, 1, VALUE_BYTES_MAX, false, NULL, "BYTES",
         "size of a value"},
        {"clients", FLAG_UINT, &o->clients, 1, BENCH_CLIENTS_MAX, false, NULL, "N",
         "clients, each with its own connections"},
        {"outstanding", FLAG_UINT, &o->outstanding, 1, BENCH_OUTSTANDING_MAX, false, NULL, "N",
         "operations under way at a time, all clients together"},
        {"rate", FLAG_UINT, &o->rate, 0, 10000000, false, NULL, "N",
         "open loop with so many operations a second; 0: closed loop"},
        {"warm-up", FLAG_DURATION, &o->warm_up_ns, 0, 3600 * NS_PER_S, false, NULL, "TIME",
         "run before measuring"},
        {"duration", FLAG_DURATION, &o->duration_ns, NS_PER_MS, 86400 * NS_PER_S, false, NULL,
         "TIME", "how long to measure"},
        {"operations", FLAG_UINT, &o->operations, 0, 1000000000000, false, NULL, "N",
         "measure so many operations instead of a time; 0: by time"},
        {"timeout", FLAG_DURATION, &o->timeout_ns, 10 * NS_PER_MS, 600 * NS_PER_S, false, NULL,
         "TIME", "of one operation, all its tries"},
        {"seed", FLAG_UINT, &o->seed, 0, 0, false, NULL, "N", "of keys and kinds"},
        {"preload", FLAG_BOOL, &o->preload, 0, 0, false, NULL, NULL,
         "put every key once before anything else"},
        {"preload-only", FLAG_BOOL, &o->preload_only, 0, 0, false, NULL, NULL,
         "put every key once and end"},
        {"event", FLAG_STRING, &o->event, 0, 0, false, NULL, "COMMAND",
         "a shell command run while measuring: tells how long the next operation took to be done, "
         "and the longest gap"},
        {"event-at", FLAG_DURATION, &o->event_at_ns, 0, 86400 * NS_PER_S, false, NULL, "TIME",
         "when to run it, from the beginning of measuring"},
        {"label", FLAG_STRING, &o->label, 0, 0, false, NULL, "TEXT", "a name for the results"},
        {"svg", FLAG_STRING, &o->svg, 0, 0, false, NULL, "FILE",
         "draw operations a second over time and latencies by quantile"},
        {"json", FLAG_BOOL, &o->json, 0, 0, false, NULL, NULL, "results as JSON"},
        {"progress", FLAG_BOOL, &o->progress, 0, 0, false, NULL, NULL,
         "a line a second on standard error"},
    };
    const struct flag_set set = {.program = "shardkv-bench",
                                 .summary =
                                     "Measure a shardkv cluster, or etcd with the same client.",
                                 .usage = "",
                                 .details = details,
                                 .flags = flags,
                                 .count = sizeof flags / sizeof flags[0]};
    char **positional = mem_calloc((size_t)argc + 1, sizeof *positional);
    int count = 0;
    int error = flags_parse(&set, argc, argv, positional, &count, message, message_size);
    if (error == ERR_EXISTS) {
        flags_help(&set, help);
    } else if (error == ERR_OK && count > 0) {
        error =
            complain(message, message_size, "'%s' is no flag; --help lists them", positional[0]);
    } else if (error == ERR_OK) {
        error = check(o, &words, message, message_size);
    }
    free(positional);
    return error;
}
