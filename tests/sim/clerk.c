/* See clerk.h. Thread: one. */
#include "sim/clerk.h"

#include "base/assert.h"
#include "proto/shard_hash.h"
#include "sim/sometimes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PADDING_KEYS = 8 }; /* of one loop */

void clerk_open(struct clerk *clerk, struct cluster *cluster, struct linear_history *history)
{
    *clerk = (struct clerk){.cluster = cluster, .history = history, .timeout_ms = CLERK_TIMEOUT_MS};
    clerk->host = cluster_client_host(cluster);
    clerk->client = cluster_client_open(cluster, clerk->host);
}

void clerk_close(struct clerk *clerk)
{
    struct skv_stats stats;
    skv_stats(clerk->client, &stats);
    sim_sometimes_add(S_CLIENT_RETRIED, stats.retries);
    sim_sometimes_add(S_CLIENT_REROUTED, stats.reroutes);
    cluster_client_close(clerk->host, clerk->client);
    ASSERT_CMP(clerk->in_flight, ==, 0);
}

/* ---- operations ---- */

struct operation {
    struct clerk *clerk;
    enum skv_op op;
    char key[SIM_NAME_BYTES_MAX];
    void *value;
    size_t size;
    struct lin_value from; /* of a compare-and-set: the value that had the version `expected` */
    uint64_t expected;
    uint64_t called_ns;
    clerk_done_fn done;
    void *context;
};

/* What stood in the way of a refused compare-and-set: a version, or that the key was absent. */
static void note_refused_cas(const struct skv_result *result, struct lin_op *op)
{
    op->kind = result->version == 0 ? LIN_GET : LIN_SEEN;
    op->argument = LIN_ABSENT;
    op->observed = LIN_ABSENT;
    op->expected = 0;
    op->version = result->version;
    sim_world()->counters.cas_refused++;
}

static void note(const struct operation *operation, const struct skv_result *result)
{
    struct linear_history *history = operation->clerk->history;
    bool mismatch = result->code == SKV_VERSION_MISMATCH;
    if (history == NULL || (result->outcome == SKV_NOT_DONE && !mismatch)) {
        return;
    }
    struct lin_value written = lin_value_of(operation->value, operation->size);
    struct lin_op op = {.process = operation->clerk->host->index,
                        .called_ns = operation->called_ns,
                        .returned_ns = result->outcome == SKV_UNKNOWN ? LIN_NEVER : sim_now_ns(),
                        .key = bytes_of_string(operation->key),
                        .version = result->outcome == SKV_DONE ? result->version : 0};
    switch (operation->op) {
    case SKV_GET:
        op.kind = LIN_GET;
        op.observed = result->code == SKV_NOT_FOUND
                          ? LIN_ABSENT
                          : lin_value_of(result->value, result->value_size);
        break;
    case SKV_PUT:
        op.kind = LIN_PUT;
        op.argument = written;
        break;
    case SKV_APPEND:
        op.kind = LIN_APPEND;
        op.argument = written;
        break;
    case SKV_DELETE:
        op.kind = LIN_DELETE;
        op.version = 0;
        break;
    case SKV_CAS:
        op.kind = LIN_CAS;
        op.argument = written;
        op.observed = operation->from;
        op.expected = operation->expected;
        if (mismatch) {
            note_refused_cas(result, &op);
        }
        break;
    }
    linear_add(history, &op);
}

static void count(const struct operation *operation, const struct skv_result *result)
{
    bool mismatch = result->code == SKV_VERSION_MISMATCH;
    sim_sometimes_add(S_CAS_MISMATCH, mismatch);
    sim_sometimes_add(S_CAS_DONE, operation->op == SKV_CAS && result->outcome == SKV_DONE &&
                                      result->code == SKV_OK);
    sim_sometimes_add(S_OUTCOME_UNKNOWN, result->outcome == SKV_UNKNOWN);
    sim_sometimes_add(S_OUTCOME_NOT_DONE, result->outcome == SKV_NOT_DONE && !mismatch);
}

static void operation_done(void *context, const struct skv_result *result)
{
    struct operation *operation = context;
    note(operation, result);
    count(operation, result);
    operation->clerk->in_flight--;
    if (sim_now_ns() - operation->called_ns > 1 * SIM_S) {
        sim_trace("operation %d of %s on key %s took %.3f s", (int)operation->op,
                  operation->clerk->host->address, operation->key,
                  (double)(sim_now_ns() - operation->called_ns) / 1e9);
    }
    sim_world()->counters.operations++;
    operation->done(operation->context, result);
    free((void *)operation->from.bytes.data);
    free(operation->value);
    free(operation);
}

/* `seen`: of a compare-and-set, NULL for the others. */
static void start(struct clerk *clerk, enum skv_op op, const char *key, struct bytes value,
                  const struct clerk_seen *seen, clerk_done_fn done, void *context)
{
    struct operation *operation = mem_calloc(1, sizeof *operation);
    operation->clerk = clerk;
    operation->op = op;
    (void)snprintf(operation->key, sizeof operation->key, "%s", key);
    operation->value = mem_dup(value.data, value.size);
    operation->size = value.size;
    if (seen != NULL) {
        operation->expected = seen->version;
        operation->from.present = seen->version != 0;
        operation->from.bytes =
            bytes_of(mem_dup(seen->value.data, seen->value.size), seen->value.size);
    }
    operation->called_ns = sim_now_ns();
    operation->done = done;
    operation->context = context;
    struct skv_command command = {.op = op,
                                  .key = key,
                                  .key_size = strlen(key),
                                  .value = value.data,
                                  .value_size = value.size,
                                  .expected = operation->expected,
                                  .timeout_ms = clerk->timeout_ms};
    clerk->in_flight++;
    struct sim_host *former = sim_enter(clerk->host);
    int code = skv_start(clerk->client, &command, operation_done, operation);
    sim_leave(former);
    if (code != SKV_OK) {
        SIM_FAIL("a command was refused: %s", skv_code_text(code));
    }
}

void clerk_start(struct clerk *clerk, enum skv_op op, const char *key, const void *value,
                 size_t size, clerk_done_fn done, void *context)
{
    ASSERT(op != SKV_CAS);
    start(clerk, op, key, bytes_of(value, size), NULL, done, context);
}

void clerk_start_cas(struct clerk *clerk, const char *key, const struct clerk_seen *seen,
                     struct bytes value, clerk_done_fn done, void *context)
{
    start(clerk, SKV_CAS, key, value, seen, done, context);
}

static void pending_done(void *context, const struct skv_result *result)
{
    struct clerk_pending *pending = context;
    pending->ended = true;
    pending->result = *result;
    pending->result.value = NULL;
    buf_append(&pending->value, result->value, result->value_size);
    pending->took_ns = sim_now_ns() - pending->took_ns;
}

void clerk_begin(struct clerk *clerk, enum skv_op op, const char *key, const char *value,
                 struct clerk_pending *pending)
{
    *pending = (struct clerk_pending){.host = clerk->host, .took_ns = sim_now_ns()};
    clerk_start(clerk, op, key, value == NULL ? "" : value, value == NULL ? 0 : strlen(value),
                pending_done, pending);
}

static bool pending_has_ended(void *context)
{
    const struct clerk_pending *pending = context;
    return pending->ended;
}

bool clerk_wait(struct clerk_pending *pending, uint64_t timeout_ns)
{
    return sim_run_until(timeout_ns, pending_has_ended, pending);
}

void clerk_pending_deinit(struct clerk_pending *pending)
{
    ASSERT(pending->ended);
    buf_deinit(&pending->value);
}

static void run(struct clerk *clerk, enum skv_op op, const char *key, const char *value,
                struct buf *out)
{
    struct clerk_pending pending;
    clerk_begin(clerk, op, key, value, &pending);
    bool ended = clerk_wait(&pending, SIM_TEST_LIMIT_NS);
    SIM_CHECK(ended);
    bool fine =
        pending.result.outcome == SKV_DONE &&
        (pending.result.code == SKV_OK || (op == SKV_GET && pending.result.code == SKV_NOT_FOUND));
    if (!fine) {
        SIM_FAIL("an operation on key %s ended with: %s", key, skv_code_text(pending.result.code));
    }
    if (out != NULL) {
        buf_clear(out);
        buf_append_bytes(out, buf_view(&pending.value));
    }
    clerk_pending_deinit(&pending);
}

void clerk_put(struct clerk *clerk, const char *key, const char *value)
{
    run(clerk, SKV_PUT, key, value, NULL);
}

void clerk_append(struct clerk *clerk, const char *key, const char *value)
{
    run(clerk, SKV_APPEND, key, value, NULL);
}

void clerk_get(struct clerk *clerk, const char *key, struct buf *out)
{
    run(clerk, SKV_GET, key, NULL, out);
}

void clerk_check(struct clerk *clerk, const char *key, const char *expected)
{
    struct buf value = {0};
    clerk_get(clerk, key, &value);
    if (!bytes_equal(buf_view(&value), bytes_of_string(expected))) {
        SIM_FAIL("key %s holds '%.*s', not '%s'", key, (int)value.size, (const char *)value.data,
                 expected);
    }
    buf_deinit(&value);
}

void clerk_key_in_shard(uint32_t shard, uint32_t shard_count, uint32_t variant,
                        char out[SIM_NAME_BYTES_MAX])
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        (void)snprintf(out, SIM_NAME_BYTES_MAX, "k%u", i);
        if (shard_of_key(bytes_of_string(out), shard_count) == shard && found++ == variant) {
            return;
        }
    }
    SIM_FAIL("no key found for shard %u", shard);
}

/* ---- loops ---- */

static void loop_next(struct loop *loop);

static void loop_paused(void *context, void *payload)
{
    (void)payload;
    loop_next(context);
}

static bool loop_is_own(const struct loop *loop)
{
    return loop->options.key != NULL;
}

static void loop_pause(struct loop *loop)
{
    uint64_t pause_ns = sim_between(loop->options.pause_min_ns, loop->options.pause_max_ns);
    sim_after(loop->clerk->host, pause_ns, loop_paused, NULL, loop, NULL);
}

/* True when it succeeded. Where operations have time for it, anything else fails the test. */
static bool loop_judge(struct loop *loop, const struct skv_result *result)
{
    bool fine =
        (result->outcome == SKV_DONE &&
         (result->code == SKV_OK || (loop->op == SKV_GET && result->code == SKV_NOT_FOUND))) ||
        (loop->op == SKV_CAS && result->code == SKV_VERSION_MISMATCH);
    if (!fine && loop->clerk->timeout_ms >= CLERK_TIMEOUT_MS && !loop->clerk->forgiving) {
        SIM_FAIL("an operation of client %u ended with: %s", loop->options.number,
                 skv_code_text(result->code));
    }
    uint64_t took_ns = sim_now_ns() - loop->started_ns;
    loop->slowest_ns = took_ns > loop->slowest_ns ? took_ns : loop->slowest_ns;
    return fine;
}

static void pad_done(void *context, const struct skv_result *result)
{
    (void)loop_judge(context, result);
    loop_pause(context);
}

static void loop_pad(struct loop *loop)
{
    char key[SIM_NAME_BYTES_MAX];
    (void)snprintf(key, sizeof key, "pad%u-%" PRIu64, loop->options.number,
                   sim_between(0, PADDING_KEYS - 1));
    void *value = mem_calloc(1, loop->options.padding_bytes);
    loop->op = SKV_PUT;
    clerk_start(loop->clerk, loop->op, key, value, loop->options.padding_bytes, pad_done, loop);
    free(value);
}

/* What it knows of a key that only it writes. */
static void loop_learn(struct loop *loop, const struct skv_result *result)
{
    if (loop->op != SKV_GET) {
        loop->appended += loop->op == SKV_APPEND;
        buf_append_bytes(&loop->last, buf_view(&loop->next));
    } else if (!bytes_equal(bytes_of(result->value, result->value_size), buf_view(&loop->last))) {
        SIM_FAIL("client %u: key %s holds %zu bytes, not the %zu that it wrote",
                 loop->options.number, loop->options.key, result->value_size, loop->last.size);
    }
}

/* What a compare-and-set may build on. */
static void loop_see(struct loop *loop, const struct skv_result *result)
{
    loop->seen.version = result->version;
    buf_clear(&loop->seen.value);
    buf_append(&loop->seen.value, result->value, result->value_size);
    loop->has_seen = true;
}

static void loop_done(void *context, const struct skv_result *result)
{
    struct loop *loop = context;
    if (loop_judge(loop, result)) {
        if (loop_is_own(loop)) {
            loop_learn(loop, result);
        } else if (loop->op == SKV_GET) {
            loop_see(loop, result);
        }
    }
    loop->begun = true;
    loop_pause(loop);
}

static enum skv_op choose_own(const struct loop *loop)
{
    if (loop->options.appends_only) {
        return SKV_APPEND;
    }
    if (!loop->begun) {
        return SKV_PUT; /* the course's clients begin with an empty value */
    }
    return sim_between(0, 1) == 0 ? SKV_APPEND : SKV_GET;
}

static enum skv_op choose_any(const struct loop *loop)
{
    uint64_t dice = sim_between(0, 999);
    return dice < 500                            ? SKV_APPEND
           : dice < 600                          ? SKV_PUT
           : dice < 650 && loop->options.deletes ? SKV_DELETE
                                                 : SKV_GET;
}

/* What was read last becomes something else, if it still is what it was. */
static bool loop_cas(struct loop *loop)
{
    if (!loop->has_seen || !loop->options.cas || sim_between(0, 1) == 0) {
        return false;
    }
    loop->has_seen = false;
    loop->op = SKV_CAS;
    buf_printf(&loop->next, "c %u %" PRIu64 " y", loop->options.number, loop->issued);
    loop->issued++;
    clerk_start_cas(loop->clerk, loop->seen_key, &loop->seen, buf_view(&loop->next), loop_done,
                    loop);
    return true;
}

static void loop_next(struct loop *loop)
{
    const struct loop_options *options = &loop->options;
    char key[SIM_NAME_BYTES_MAX];
    loop->started_ns = sim_now_ns();
    if (loop->stopping) {
        loop->ended = true;
        return;
    }
    if (options->padding_bytes > 0 && loop->begun && sim_between(1, options->padding_one_in) == 1) {
        loop_pad(loop);
        return;
    }
    buf_clear(&loop->next);
    if (loop_is_own(loop)) {
        (void)snprintf(key, sizeof key, "%s", options->key);
        loop->op = choose_own(loop);
        if (loop->op == SKV_APPEND) {
            buf_printf(&loop->next, "x %u %u y", options->number, loop->appended);
        }
    } else {
        if (loop_cas(loop)) {
            return;
        }
        (void)snprintf(key, sizeof key, "%" PRIu64, sim_between(0, options->key_count - 1));
        if (options->only_key != NULL) {
            (void)snprintf(key, sizeof key, "%s", options->only_key);
        }
        loop->op = options->gets_only ? SKV_GET : choose_any(loop);
        loop->has_seen = false;
        (void)snprintf(loop->seen_key, sizeof loop->seen_key, "%s", key);
        if (loop->op == SKV_APPEND || loop->op == SKV_PUT) {
            buf_printf(&loop->next, "x %u %" PRIu64 " y", options->number, loop->issued);
        }
    }
    loop->issued++;
    clerk_start(loop->clerk, loop->op, key, loop->next.data, loop->next.size, loop_done, loop);
}

void loop_start(struct loop *loop, struct clerk *clerk, const struct loop_options *options)
{
    *loop = (struct loop){.clerk = clerk, .options = *options};
    loop_next(loop);
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}

struct loops {
    struct loop *loops;
    uint32_t count;
};

static bool all_ended(void *context)
{
    const struct loops *loops = context;
    for (uint32_t i = 0; i < loops->count; i++) {
        if (!loops->loops[i].ended) {
            return false;
        }
    }
    return true;
}

void loops_wait(struct loop *loops, uint32_t count, uint64_t timeout_ns)
{
    struct loops all = {loops, count};
    if (!sim_run_until(timeout_ns, all_ended, &all)) {
        for (uint32_t i = 0; i < count; i++) {
            if (!loops[i].ended) {
                SIM_FAIL("client %u has had no answer for %.1f s", loops[i].options.number,
                         (double)(sim_now_ns() - loops[i].started_ns) / 1e9);
            }
        }
    }
}

void loop_deinit(struct loop *loop)
{
    ASSERT(loop->ended);
    buf_deinit(&loop->last);
    buf_deinit(&loop->next);
    buf_deinit(&loop->seen.value);
}

void check_appends(struct bytes value, uint32_t number, uint32_t appended)
{
    struct buf copy = {0};
    buf_append_bytes(&copy, value);
    buf_append(&copy, "", 1);
    const char *text = (const char *)copy.data;
    size_t at = 0;
    for (uint32_t j = 0; j < appended; j++) {
        char wanted[64];
        (void)snprintf(wanted, sizeof wanted, "x %u %u y", number, j);
        const char *found = strstr(text, wanted);
        if (found == NULL) {
            SIM_FAIL("append %u of client %u is missing", j, number);
        }
        size_t place = (size_t)(found - text);
        if (strstr(found + 1, wanted) != NULL) {
            SIM_FAIL("append %u of client %u is there twice", j, number);
        }
        if (place < at) {
            SIM_FAIL("append %u of client %u is before the one it follows", j, number);
        }
        at = place;
    }
    buf_deinit(&copy);
}
