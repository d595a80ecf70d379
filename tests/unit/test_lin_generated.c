/* The checker against histories of clients over a store that is linearizable by construction, and
 * against the same ones broken in ways that can be proved (lin/mutate.c). */
#include "unit/base_test.h"

#include "lin/generate.h"
#include "lin/report.h"

enum {
    SEEDS = 500, /* of each shape */
    EVIDENCE_OPS_MAX = 24,
};

static const struct lin_shape register_shape = {.ops = 120,
                                                .keys = 2,
                                                .clients = 5,
                                                .put_percent = 30,
                                                .delete_percent = 5,
                                                .cas_percent = 10,
                                                .info_per_mille = 60,
                                                .stall_per_mille = 10,
                                                .think_ns_max = NS_PER_MS};
static const struct lin_shape append_shape = {.ops = 150,
                                              .keys = 1,
                                              .clients = 8,
                                              .put_percent = 4,
                                              .append_percent = 46,
                                              .info_per_mille = 60,
                                              .stall_per_mille = 10,
                                              .think_ns_max = NS_PER_MS};
static const struct lin_shape mixed_shape = {.ops = 200,
                                             .keys = 3,
                                             .clients = 10,
                                             .put_percent = 15,
                                             .append_percent = 25,
                                             .delete_percent = 4,
                                             .cas_percent = 10,
                                             .info_per_mille = 40,
                                             .stall_per_mille = 10,
                                             .think_ns_max = 4 * NS_PER_MS};
static const struct lin_shape versions_shape = {.ops = 150,
                                                .keys = 2,
                                                .clients = 8,
                                                .put_percent = 15,
                                                .append_percent = 15,
                                                .delete_percent = 5,
                                                .cas_percent = 25,
                                                .info_per_mille = 40,
                                                .stall_per_mille = 10,
                                                .versions = true,
                                                .think_ns_max = NS_PER_MS};
/* Values come again and again: what a get read says little. */
static const struct lin_shape few_values_shape = {.ops = 200,
                                                  .keys = 2,
                                                  .clients = 8,
                                                  .put_percent = 35,
                                                  .delete_percent = 5,
                                                  .cas_percent = 10,
                                                  .info_per_mille = 40,
                                                  .stall_per_mille = 10,
                                                  .values = 5,
                                                  .think_ns_max = NS_PER_MS};
/* One key and no pause: as much at once as there are clients. */
static const struct lin_shape crowd_shape = {.ops = 600,
                                             .keys = 1,
                                             .clients = 50,
                                             .put_percent = 10,
                                             .append_percent = 30,
                                             .delete_percent = 2,
                                             .cas_percent = 8,
                                             .info_per_mille = 20,
                                             .stall_per_mille = 5};

struct made_check {
    struct lin_history *history;
    struct lin_result result;
};

static enum lin_verdict check(const struct lin_made *made, struct made_check *check)
{
    check->history = lin_history_create();
    lin_made_add_to(made, check->history);
    return lin_check(check->history, &(struct lin_limits){.explain = true, .steps_max = 20000000},
                     &check->result);
}

static void check_end(struct made_check *check)
{
    lin_result_deinit(&check->result);
    lin_history_destroy(check->history);
}

static void expect(const struct lin_made *made, enum lin_verdict expected, uint64_t seed,
                   const char *what)
{
    struct made_check made_check;
    enum lin_verdict verdict = check(made, &made_check);
    if (verdict != expected) {
        struct buf text;
        buf_init(&text);
        lin_report_text(&made_check.result, &text);
        print_error("seed %llu, %s: %.*s\n", (unsigned long long)seed, what, (int)text.size,
                    (const char *)text.data);
        buf_deinit(&text);
    }
    assert_int_equal(verdict, expected);
    if (expected == LIN_BROKEN) {
        const struct lin_failure *failure = &made_check.result.failure;
        struct lin_budget budget = {.memory_bytes_max = UINT64_MAX, .steps_max = 50000000};
        struct lin_search_info info;
        assert_true(failure->core_is_minimal);
        assert_in_range(failure->core_count, 1, EVIDENCE_OPS_MAX);
        /* What is shown is broken for whoever looks at it without our shortcuts. */
        assert_int_equal(lin_search(failure->core, failure->core_count, true, &budget, &info, NULL),
                         LIN_BROKEN);
    }
    check_end(&made_check);
}

static void try_valid(const struct lin_shape *base, uint64_t seeds)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct lin_shape shape = *base;
        shape.seed = seed;
        struct lin_made made;
        lin_made_init(&made, &shape);
        expect(&made, LIN_LINEARIZABLE, seed, "as made");
        lin_made_deinit(&made);
    }
}

/* `least`: of the seeds, how many must have had a place for the mutation. */
static void try_mutation(const struct lin_shape *base, enum lin_mutation mutation, uint64_t least)
{
    uint64_t mutated = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct lin_shape shape = *base;
        struct lin_made made;
        struct rng rng;
        shape.seed = seed;
        rng_init(&rng, seed);
        lin_made_init(&made, &shape);
        if (lin_made_mutate(&made, mutation, &rng)) {
            expect(&made, LIN_BROKEN, seed, lin_mutation_name(mutation));
            mutated++;
        }
        lin_made_deinit(&made);
    }
    assert_in_range(mutated, least, SEEDS);
}

static void test_generated_as_made_are_linearizable(void **state)
{
    (void)state;
    try_valid(&register_shape, SEEDS);
    try_valid(&append_shape, SEEDS);
    try_valid(&mixed_shape, SEEDS);
    try_valid(&versions_shape, SEEDS);
}

static void test_generated_few_values_are_linearizable(void **state)
{
    (void)state;
    try_valid(&few_values_shape, 200);
}

static void test_generated_crowd_on_one_key_is_linearizable(void **state)
{
    (void)state;
    try_valid(&crowd_shape, 40);
}

static void test_generated_dropped_write_is_found(void **state)
{
    (void)state;
    try_mutation(&register_shape, LIN_DROPPED_WRITE, SEEDS * 9 / 10);
    try_mutation(&append_shape, LIN_DROPPED_WRITE, SEEDS * 9 / 10);
}

static void test_generated_stale_read_is_found(void **state)
{
    (void)state;
    try_mutation(&register_shape, LIN_STALE_READ, SEEDS * 9 / 10);
    try_mutation(&mixed_shape, LIN_STALE_READ, SEEDS * 9 / 10);
}

static void test_generated_doubled_append_is_found(void **state)
{
    (void)state;
    try_mutation(&append_shape, LIN_DOUBLED_APPEND, SEEDS * 9 / 10);
    try_mutation(&mixed_shape, LIN_DOUBLED_APPEND, SEEDS * 9 / 10);
}

static void test_generated_swapped_reads_are_found(void **state)
{
    (void)state;
    try_mutation(&register_shape, LIN_SWAPPED_READS, SEEDS * 9 / 10);
    try_mutation(&mixed_shape, LIN_SWAPPED_READS, SEEDS / 2);
}

static void test_generated_early_read_is_found(void **state)
{
    (void)state;
    try_mutation(&register_shape, LIN_EARLY_READ, SEEDS * 9 / 10);
    try_mutation(&versions_shape, LIN_EARLY_READ, SEEDS * 9 / 10);
}

static void test_generated_lost_append_is_found(void **state)
{
    (void)state;
    try_mutation(&append_shape, LIN_LOST_APPEND, SEEDS / 2);
    try_mutation(&mixed_shape, LIN_LOST_APPEND, SEEDS / 4);
}

/* Two gets exchange what they read; often that is as good an answer. */
static void exchange_some(struct lin_made *made, struct rng *rng)
{
    for (uint64_t i = rng_below(rng, 8); i > 0; i--) {
        struct lin_made_op *a = &made->ops[rng_below(rng, made->count)];
        struct lin_made_op *b = &made->ops[rng_below(rng, made->count)];
        if (a->op.kind == LIN_GET && b->op.kind == LIN_GET) {
            struct lin_op kept = a->op;
            a->op.observed = b->op.observed;
            a->op.version = b->op.version;
            b->op.observed = kept.observed;
            b->op.version = kept.version;
        }
    }
}

/* Longer than every order could be tried for: against the search without its shortcuts, which
 * itself is held against every order in test_lin_random.c. */
static void test_generated_shortcuts_change_no_verdict(void **state)
{
    (void)state;
    uint64_t answered = 0;
    uint64_t good = 0;
    for (uint64_t seed = 1; seed <= 4000; seed++) {
        struct rng rng;
        rng_init(&rng, seed);
        struct lin_shape shape = {.seed = seed,
                                  .ops = rng_between(&rng, 10, 40),
                                  .keys = 1,
                                  .clients = (uint32_t)rng_between(&rng, 2, 6),
                                  .put_percent = (uint32_t)rng_between(&rng, 5, 30),
                                  .append_percent = (uint32_t)rng_below(&rng, 25),
                                  .delete_percent = (uint32_t)rng_below(&rng, 10),
                                  .cas_percent = (uint32_t)rng_below(&rng, 20),
                                  .info_per_mille = (uint32_t)rng_below(&rng, 200),
                                  .stall_per_mille = 20,
                                  .values = (uint32_t)rng_below(&rng, 4),
                                  .versions = rng_chance(&rng, 1, 4),
                                  .think_ns_max = NS_PER_MS};
        struct lin_made made;
        lin_made_init(&made, &shape);
        exchange_some(&made, &rng);
        struct lin_history *history = lin_history_create();
        lin_made_add_to(&made, history);
        struct lin_result plain;
        struct lin_result quick;
        (void)lin_check(history, &(struct lin_limits){.plain = true, .steps_max = 300000}, &plain);
        (void)lin_check(history, &(struct lin_limits){.steps_max = 300000}, &quick);
        if (plain.verdict != LIN_UNKNOWN) {
            if (plain.verdict != quick.verdict) {
                print_error("seed %llu\n", (unsigned long long)seed);
            }
            assert_int_equal(quick.verdict, plain.verdict);
            answered++;
            good += plain.verdict == LIN_LINEARIZABLE;
        }
        lin_result_deinit(&plain);
        lin_result_deinit(&quick);
        lin_history_destroy(history);
        lin_made_deinit(&made);
    }
    assert_in_range(answered, 3900, 4000);
    assert_in_range(good, 1000, 3000);
}

static void test_generated_crowd_mutants_are_found(void **state)
{
    (void)state;
    for (int mutation = 0; mutation < LIN_MUTATIONS; mutation++) {
        uint64_t mutated = 0;
        for (uint64_t seed = 1; seed <= 8; seed++) {
            struct lin_shape shape = crowd_shape;
            struct lin_made made;
            struct rng rng;
            shape.seed = seed;
            rng_init(&rng, seed);
            lin_made_init(&made, &shape);
            if (lin_made_mutate(&made, (enum lin_mutation)mutation, &rng)) {
                expect(&made, LIN_BROKEN, seed, lin_mutation_name((enum lin_mutation)mutation));
                mutated++;
            }
            lin_made_deinit(&made);
        }
        assert_in_range(mutated, 1, 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generated_as_made_are_linearizable),
        cmocka_unit_test(test_generated_few_values_are_linearizable),
        cmocka_unit_test(test_generated_crowd_on_one_key_is_linearizable),
        cmocka_unit_test(test_generated_dropped_write_is_found),
        cmocka_unit_test(test_generated_stale_read_is_found),
        cmocka_unit_test(test_generated_doubled_append_is_found),
        cmocka_unit_test(test_generated_swapped_reads_are_found),
        cmocka_unit_test(test_generated_early_read_is_found),
        cmocka_unit_test(test_generated_lost_append_is_found),
        cmocka_unit_test(test_generated_shortcuts_change_no_verdict),
        cmocka_unit_test(test_generated_crowd_mutants_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
