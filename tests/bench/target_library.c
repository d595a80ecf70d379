/* A shardkv cluster through libshardkv, by its asynchronous calls. */
#include "bench/target.h"

#include "base/clock.h"
#include "client/shardkv.h"
#include "proto/limits.h"
#include <stdio.h>
#include <stdlib.h>

struct library {
    struct target target;
    struct skv_client *client;
};

struct library_call {
    target_done_fn done;
    void *context;
};

static void on_done(void *context, const struct skv_result *result)
{
    struct library_call call = *(struct library_call *)context;
    free(context);
    /* Codes are the numbers of base/error.h. */
    struct target_answer answer = {
        .error = result->code == SKV_OK ? ERR_OK : err_from_wire((unsigned)result->code),
        .unknown = result->outcome == SKV_UNKNOWN,
        .version = result->version};
    call.done(call.context, &answer);
}

static enum skv_op op_of(enum bench_kind kind)
{
    switch (kind) {
    case BENCH_GET:
        return SKV_GET;
    case BENCH_PUT:
        return SKV_PUT;
    case BENCH_APPEND:
        return SKV_APPEND;
    case BENCH_CAS:
        return SKV_CAS;
    case BENCH_KINDS:
        break;
    }
    return SKV_GET;
}

static int library_start(struct target *target, const struct target_command *command,
                         target_done_fn done, void *context)
{
    struct library *library = (struct library *)target;
    uint64_t now_ns = clock_now_ns(clock_system());
    uint64_t left_ms =
        command->deadline_ns > now_ns ? (command->deadline_ns - now_ns) / NS_PER_MS : 0;
    struct library_call *call = mem_alloc(sizeof *call);
    *call = (struct library_call){done, context};
    struct skv_command skv = {.op = op_of(command->kind),
                              .key = command->key.data,
                              .key_size = command->key.size,
                              .value = command->value.data,
                              .value_size = command->value.size,
                              .expected = command->expected,
                              .timeout_ms = left_ms > 0 ? (uint32_t)left_ms : 1};
    int code = skv_start(library->client, &skv, on_done, call);
    if (code != SKV_OK) {
        free(call);
    }
    return code == SKV_OK ? ERR_OK : err_from_wire((unsigned)code);
}

static uint64_t library_retries(struct target *target)
{
    struct skv_stats stats;
    skv_stats(((struct library *)target)->client, &stats);
    return stats.retries;
}

static void library_destroy(struct target *target)
{
    struct library *library = (struct library *)target;
    if (library->client != NULL) {
        skv_close(library->client);
    }
    free(library);
}

static const struct target_table library_table = {library_start, library_retries, library_destroy};

int target_library_create(const struct bench_options *options, struct target **out, char *why,
                          size_t why_size)
{
    /* Twice what is under way, and enough for the loading of keys: the library's bounds are not
     * what is measured. */
    uint64_t commands = 2 * options->outstanding;
    commands = commands < 4096 ? 4096 : commands;
    commands = commands > SESSION_OUTSTANDING_MAX ? SESSION_OUTSTANDING_MAX : commands;
    uint64_t bytes = commands * (options->key_bytes + options->value_bytes + 256);
    uint64_t least = 64ull * 1024 * 1024;
    struct skv_options skv = {.controllers = options->controllers,
                              .cluster = options->cluster,
                              .outstanding_max = (uint32_t)commands,
                              .outstanding_bytes_max = bytes > least ? bytes : least};
    struct library *library = mem_calloc(1, sizeof *library);
    library->target.table = &library_table;
    int code = skv_open(&skv, &library->client, why, why_size);
    if (code != SKV_OK) {
        free(library);
        return err_from_wire((unsigned)code);
    }
    *out = &library->target;
    return ERR_OK;
}

int target_create(const struct bench_options *options, struct target **out, char *why,
                  size_t why_size)
{
    switch (options->target) {
    case BENCH_LIBRARY:
        return target_library_create(options, out, why, why_size);
    case BENCH_UNARY:
    case BENCH_ETCD:
        return target_unary_create(options, out, why, why_size);
    }
    snprintf(why, why_size, "no such target");
    return ERR_INVALID;
}
