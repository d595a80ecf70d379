/* The checker against every order tried: small random histories, about half of them linearizable,
 * dense enough that every shortcut of the search is taken. Each seed is tried with and without the
 * shortcuts, and the evidence of a broken one must itself be broken. */
#include "unit/base_test.h"

#include "base/rng.h"
#include "lin/check.h"
#include "lin/report.h"
#include "unit/lin_brute.h"

#include <stdio.h>

enum {
    HISTORIES = 24000,
    OPS_MAX = 8,
    MOMENTS = 14,
};

static const char *const pool[] = {"", "a", "b", "ab", "ba", "aab", "c"};
enum { POOL_COUNT = sizeof pool / sizeof pool[0] };

/* What a family of histories is like. */
struct shape {
    unsigned values; /* of the pool */
    bool unique;     /* each write another value */
    bool versions;
    unsigned open_percent;
    unsigned appends_percent;
    unsigned spoils; /* at most */
};

struct sample {
    struct lin_op ops[OPS_MAX];
    size_t count;
    char text[OPS_MAX][8]; /* of unique values */
    char read[OPS_MAX][64];
    uint64_t effect_at[OPS_MAX];
};

static struct lin_value pooled(struct rng *rng, const struct shape *shape)
{
    const char *text = pool[rng_below(rng, shape->values)];
    return lin_value_of(text, strlen(text));
}

static struct lin_value written(struct rng *rng, const struct shape *shape, struct sample *sample,
                                size_t index)
{
    if (!shape->unique) {
        return pooled(rng, shape);
    }
    int size = snprintf(sample->text[index], sizeof sample->text[index], "%zu;", index);
    return lin_value_of(sample->text[index], (size_t)size);
}

static void draw_op(struct rng *rng, const struct shape *shape, struct sample *sample, size_t index)
{
    struct lin_op *op = &sample->ops[index];
    bool append = rng_chance(rng, shape->appends_percent, 100);
    static const enum lin_kind others[] = {LIN_GET, LIN_GET, LIN_GET,   LIN_PUT,
                                           LIN_PUT, LIN_CAS, LIN_DELETE};
    enum lin_kind kind = append ? LIN_APPEND : others[rng_below(rng, 7)];
    if (shape->versions && rng_chance(rng, 1, 10)) {
        kind = LIN_SEEN;
    }
    uint64_t from = rng_below(rng, MOMENTS);
    *op = (struct lin_op){.kind = kind,
                          .process = index,
                          .called_ns = from,
                          .returned_ns = from + rng_below(rng, 1 + rng_below(rng, MOMENTS)),
                          .key = bytes_of_string("k"),
                          .argument = LIN_ABSENT,
                          .observed = LIN_ABSENT};
    bool writes = kind == LIN_PUT || kind == LIN_APPEND || kind == LIN_CAS;
    if (writes) {
        op->argument = written(rng, shape, sample, index);
    }
    if (kind == LIN_CAS && rng_chance(rng, 1, 8)) {
        op->argument = LIN_ABSENT;
    }
    if ((writes || kind == LIN_DELETE) && rng_chance(rng, shape->open_percent, 100)) {
        op->returned_ns = LIN_NEVER;
    }
    uint64_t until = op->returned_ns == LIN_NEVER ? 2 * MOMENTS : op->returned_ns;
    sample->effect_at[index] = rng_between(rng, from, until);
}

/* Results as if each operation took effect at its moment. */
static void play(struct rng *rng, const struct shape *shape, struct sample *sample)
{
    bool present = false;
    char value[64] = "";
    uint64_t version = 0;
    uint64_t changes = 0;
    for (uint64_t moment = 0; moment <= 2 * MOMENTS; moment++) {
        for (size_t i = 0; i < sample->count; i++) {
            struct lin_op *op = &sample->ops[i];
            if (sample->effect_at[i] != moment) {
                continue;
            }
            struct lin_value now =
                present ? lin_value_of(sample->read[i], strlen(value)) : LIN_ABSENT;
            memcpy(sample->read[i], value, sizeof value);
            bool returned = op->returned_ns != LIN_NEVER;
            bool tells = shape->versions && returned && rng_chance(rng, 1, 2);
            bool change = false;
            switch (op->kind) {
            case LIN_SEEN:
                op->kind = present ? LIN_SEEN : LIN_GET;
                op->version = version;
                break;
            case LIN_GET:
                op->observed = now;
                op->version = tells ? version : 0;
                break;
            case LIN_CAS:
                op->observed = now;
                op->expected = shape->versions && rng_chance(rng, 1, 2) ? version : 0;
                value[0] = '\0';
                change = true;
                break;
            case LIN_PUT:
            case LIN_DELETE:
                value[0] = '\0';
                change = true;
                break;
            case LIN_APPEND:
                change = true;
                break;
            }
            if (!change) {
                continue;
            }
            present = op->argument.present;
            changes += rng_between(rng, 1, 2);
            version = present ? changes : 0;
            op->version = tells ? version : 0;
            if (op->argument.bytes.size > 0) {
                strncat(value, (const char *)op->argument.bytes.data, op->argument.bytes.size);
            }
        }
    }
}

/* Another result somewhere, or another moment: now and then what is left is linearizable all the
 * same. */
static void spoil(struct rng *rng, const struct shape *shape, struct sample *sample)
{
    struct lin_op *op = &sample->ops[rng_below(rng, sample->count)];
    const struct lin_op *other = &sample->ops[rng_below(rng, sample->count)];
    if (op->kind == LIN_GET || op->kind == LIN_CAS) {
        op->observed = rng_chance(rng, 1, 2) ? other->observed : pooled(rng, shape);
        op->version = op->observed.present ? op->version : 0;
        op->expected = op->observed.present ? op->expected : 0;
    } else if (op->version > 0 && rng_chance(rng, 1, 2)) {
        op->version = rng_between(rng, 1, 8);
    } else if (op->returned_ns != LIN_NEVER) {
        uint64_t length = op->returned_ns - op->called_ns;
        op->called_ns = rng_below(rng, MOMENTS);
        op->returned_ns = op->called_ns + length;
    }
}

static void draw(struct rng *rng, const struct shape *shape, struct sample *sample)
{
    sample->count = rng_between(rng, 1, OPS_MAX);
    for (size_t i = 0; i < sample->count; i++) {
        draw_op(rng, shape, sample, i);
    }
    play(rng, shape, sample);
    for (uint64_t spoils = rng_below(rng, shape->spoils + 1); spoils > 0; spoils--) {
        spoil(rng, shape, sample);
    }
}

_Noreturn static void fail_with(const struct sample *sample, uint64_t seed, const char *what)
{
    struct buf text;
    buf_init(&text);
    for (size_t i = 0; i < sample->count; i++) {
        const struct lin_op *op = &sample->ops[i];
        buf_printf(&text, "%llu .. %lld  ", (unsigned long long)op->called_ns,
                   (long long)op->returned_ns);
        lin_describe_op(op, &text);
        buf_printf(&text, "\n");
    }
    print_error("seed %llu: %s\n%.*s", (unsigned long long)seed, what, (int)text.size,
                (const char *)text.data);
    buf_deinit(&text);
    fail();
    abort();
}

static enum lin_verdict ask(struct lin_history *history, bool plain, struct lin_result *result)
{
    struct lin_limits limits = {.plain = plain, .explain = !plain, .steps_max = 10000000};
    return lin_check(history, &limits, result);
}

/* What was called before `end_ns`, nothing having returned at or after it. */
static bool linearizable_until(const struct sample *sample, uint64_t end_ns)
{
    struct lin_op ops[OPS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < sample->count; i++) {
        struct lin_op op = sample->ops[i];
        if (op.called_ns >= end_ns) {
            continue;
        }
        if (op.returned_ns >= end_ns) {
            if (op.kind == LIN_GET || op.kind == LIN_SEEN) {
                continue;
            }
            op.returned_ns = LIN_NEVER;
            op.version = 0;
        }
        ops[count++] = op;
    }
    return brute_linearizable(ops, count);
}

static bool try_seed(uint64_t seed, const struct shape *shape)
{
    struct rng rng;
    struct sample sample = {0};
    rng_init(&rng, seed);
    draw(&rng, shape, &sample);
    bool expected = brute_linearizable(sample.ops, sample.count);
    struct lin_history *history = lin_history_create();
    for (size_t i = 0; i < sample.count; i++) {
        lin_history_add(history, &sample.ops[i]);
    }
    struct lin_result result;
    enum lin_verdict verdict = expected ? LIN_LINEARIZABLE : LIN_BROKEN;
    if (ask(history, true, &result) != verdict) {
        fail_with(&sample, seed,
                  expected ? "the plain search finds no order" : "the plain search finds an order");
    }
    lin_result_deinit(&result);
    if (ask(history, false, &result) != verdict) {
        fail_with(&sample, seed,
                  expected ? "the search finds no order" : "the search finds an order");
    }
    if (!expected) {
        const struct lin_failure *failure = &result.failure;
        if (brute_linearizable(failure->core, failure->core_count)) {
            fail_with(&sample, seed, "the evidence is linearizable");
        }
        if (!failure->core_is_minimal || failure->culprit == NULL) {
            fail_with(&sample, seed, "the evidence of a small history is not minimal");
        }
        if (!linearizable_until(&sample, failure->culprit->returned_ns)) {
            fail_with(&sample, seed, "it was broken before the culprit returned");
        }
    }
    lin_result_deinit(&result);
    lin_history_destroy(history);
    return expected;
}

static void try_shape(const struct shape *shape, uint64_t seed)
{
    size_t good = 0;
    for (uint64_t i = 0; i < HISTORIES; i++) {
        good += try_seed(seed * 1000000 + i, shape);
    }
    /* A family that is nearly all of one kind would test little. */
    assert_in_range(good, HISTORIES / 5, HISTORIES * 4 / 5);
}

static void test_check_few_values_agrees_with_every_order(void **state)
{
    (void)state;
    try_shape(&(struct shape){.values = 3, .open_percent = 25, .spoils = 2}, 1);
}

static void test_check_appends_agree_with_every_order(void **state)
{
    (void)state;
    try_shape(
        &(struct shape){
            .values = POOL_COUNT, .open_percent = 25, .appends_percent = 45, .spoils = 6},
        2);
}

static void test_check_unique_values_agree_with_every_order(void **state)
{
    (void)state;
    try_shape(
        &(struct shape){
            .values = 2, .unique = true, .open_percent = 30, .appends_percent = 30, .spoils = 2},
        3);
}

static void test_check_versions_agree_with_every_order(void **state)
{
    (void)state;
    try_shape(
        &(struct shape){
            .values = 3, .versions = true, .open_percent = 20, .appends_percent = 20, .spoils = 2},
        4);
}

static void test_check_mostly_open_agrees_with_every_order(void **state)
{
    (void)state;
    try_shape(&(struct shape){.values = 4, .open_percent = 75, .appends_percent = 30, .spoils = 12},
              5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_few_values_agrees_with_every_order),
        cmocka_unit_test(test_check_appends_agree_with_every_order),
        cmocka_unit_test(test_check_unique_values_agree_with_every_order),
        cmocka_unit_test(test_check_versions_agree_with_every_order),
        cmocka_unit_test(test_check_mostly_open_agrees_with_every_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
