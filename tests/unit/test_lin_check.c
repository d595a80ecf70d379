/* The checker on histories small enough to see the answer, its evidence, and its limits. */
#include "unit/base_test.h"

#include "lin/check.h"
#include "lin/generate.h"

#define OP(...) ((struct lin_op){.key = {(const uint8_t *)"k", 1}, __VA_ARGS__})
#define TEXT(text)                                                                                 \
    {                                                                                              \
        true,                                                                                      \
        {                                                                                          \
            (const uint8_t *)(text), sizeof(text) - 1                                              \
        }                                                                                          \
    }
#define AT(from, to)           .called_ns = from, .returned_ns = to
#define GET(from, to, text)    OP(.kind = LIN_GET, AT(from, to), .observed = TEXT(text))
#define MISS(from, to)         OP(.kind = LIN_GET, AT(from, to), .observed = LIN_ABSENT)
#define PUT(from, to, text)    OP(.kind = LIN_PUT, AT(from, to), .argument = TEXT(text))
#define APPEND(from, to, text) OP(.kind = LIN_APPEND, AT(from, to), .argument = TEXT(text))
#define DELETE(from, to)       OP(.kind = LIN_DELETE, AT(from, to))
#define CAS(from, to, old, new)                                                                    \
    OP(.kind = LIN_CAS, AT(from, to), .observed = TEXT(old), .argument = TEXT(new))

static struct lin_history *history;
static struct lin_result result;

static enum lin_verdict check_list(const struct lin_op *ops, size_t count)
{
    lin_result_deinit(&result);
    lin_history_destroy(history);
    history = lin_history_create();
    for (size_t i = 0; i < count; i++) {
        lin_history_add(history, &ops[i]);
    }
    return lin_check(history, &(struct lin_limits){.explain = true}, &result);
}
#define CHECK_OPS(...)                                                                             \
    check_list((const struct lin_op[]){__VA_ARGS__},                                               \
               sizeof((const struct lin_op[]){__VA_ARGS__}) / sizeof(struct lin_op))
#define assert_good(...)   assert_int_equal(CHECK_OPS(__VA_ARGS__), LIN_LINEARIZABLE)
#define assert_broken(...) assert_int_equal(CHECK_OPS(__VA_ARGS__), LIN_BROKEN)

static int end(void **state)
{
    (void)state;
    lin_result_deinit(&result);
    lin_history_destroy(history);
    history = NULL;
    return 0;
}

static void test_check_one_after_another_follows_the_values(void **state)
{
    (void)state;
    assert_good(MISS(1, 2), PUT(3, 4, "a"), APPEND(5, 6, "b"), GET(7, 8, "ab"),
                CAS(9, 10, "ab", "c"), GET(11, 12, "c"), DELETE(13, 14), MISS(15, 16));
    assert_broken(PUT(3, 4, "a"), APPEND(5, 6, "b"), GET(7, 8, "a"));
    assert_broken(PUT(3, 4, "a"), CAS(5, 6, "b", "c"));
    assert_broken(PUT(3, 4, "a"), DELETE(5, 6), GET(7, 8, "a"));
}

static void test_check_absent_is_not_empty(void **state)
{
    (void)state;
    assert_broken(GET(1, 2, ""));
    assert_broken(PUT(1, 2, ""), MISS(3, 4));
    assert_good(PUT(1, 2, ""), GET(3, 4, ""), DELETE(5, 6), MISS(7, 8));
    assert_good(APPEND(1, 2, ""), GET(3, 4, ""));
    assert_good(APPEND(1, 2, "a"), GET(3, 4, "a"));
}

static void test_check_overlapping_get_sees_either(void **state)
{
    (void)state;
    assert_good(PUT(1, 10, "a"), MISS(2, 3));
    assert_good(PUT(1, 10, "a"), GET(2, 3, "a"));
    assert_broken(PUT(1, 10, "a"), GET(2, 3, "a"), MISS(4, 5)); /* not back again */
}

static void test_check_same_moment_overlaps(void **state)
{
    (void)state;
    assert_good(PUT(1, 5, "a"), MISS(5, 6));
    assert_broken(PUT(1, 4, "a"), MISS(5, 6));
}

static void test_check_unknown_outcome_comes_late_or_never(void **state)
{
    (void)state;
    assert_good(PUT(1, 2, "a"), APPEND(3, LIN_NEVER, "b"), GET(4, 5, "a"), GET(6, 7, "ab"));
    assert_good(PUT(1, 2, "a"), APPEND(3, LIN_NEVER, "b"), GET(4, 5, "a"));
    assert_broken(PUT(1, 2, "a"), APPEND(3, LIN_NEVER, "b"), GET(4, 5, "ab"), GET(6, 7, "a"));
    assert_broken(GET(1, 2, "b"), APPEND(3, LIN_NEVER, "b")); /* not before its call */
}

static void test_check_values_that_part_late_are_read_apart(void **state)
{
    (void)state;
    /* The two values are alike up to the middle of their last tokens. */
    assert_good(PUT(1, 2, "base;"), APPEND(3, 4, "12;"), GET(5, 6, "base;12;"), PUT(7, 8, "base;"),
                APPEND(9, 10, "13;"), GET(11, 12, "base;13;"));
}

static void test_check_tokens_inside_each_other_are_told_apart(void **state)
{
    (void)state;
    assert_good(APPEND(1, 20, "a"), APPEND(1, 20, "ab"), APPEND(1, 20, "b"), GET(21, 22, "abab"));
    assert_good(APPEND(1, 20, "a"), APPEND(1, 20, "ab"), APPEND(1, 20, "b"), GET(21, 22, "aabb"));
    assert_broken(APPEND(1, 20, "a"), APPEND(1, 20, "ab"), APPEND(1, 20, "b"), GET(21, 22, "bbaa"));
}

static void test_check_keys_are_independent(void **state)
{
    (void)state;
    struct lin_op other = GET(3, 4, "1");
    other.key = bytes_of_string("b");
    other.observed = LIN_ABSENT;
    assert_good(PUT(1, 2, "1"), GET(3, 4, "1"), other);
    assert_int_equal(result.keys, 2);
    other.observed = lin_value_of("1", 1);
    assert_broken(PUT(1, 2, "1"), GET(3, 4, "1"), other);
    assert_memory_equal(result.failure.key.data, "b", 1);
}

static void test_check_versions_order_what_values_do_not(void **state)
{
    (void)state;
    struct lin_op first = PUT(1, 10, "a");
    struct lin_op second = PUT(1, 10, "a");
    first.version = 7;
    second.version = 5;
    struct lin_op get = GET(11, 12, "a");
    get.version = 7;
    assert_good(first, second, get);
    get.version = 5; /* the last one made is 7 */
    assert_broken(first, second, get);
    get.version = 6; /* nobody made it */
    assert_broken(first, second, get);
    struct lin_op refused = OP(.kind = LIN_SEEN, AT(13, 14), .version = 9);
    assert_broken(first, second, refused);
    refused.version = 7;
    assert_good(first, second, refused);
}

static void test_check_cas_by_version_tells_equal_values_apart(void **state)
{
    (void)state;
    struct lin_op first = PUT(1, 2, "a");
    struct lin_op between = PUT(3, 4, "b");
    struct lin_op again = PUT(5, 6, "a");
    struct lin_op cas = CAS(7, 8, "a", "c");
    first.version = 1;
    again.version = 3;
    assert_good(first, between, again, cas);
    cas.expected = 3;
    assert_good(first, between, again, cas);
    cas.expected = 1;
    assert_broken(first, between, again, cas);
}

static void test_check_open_cas_of_other_version_is_another(void **state)
{
    (void)state;
    struct lin_op put = PUT(1, 2, "a");
    put.version = 5;
    struct lin_op first = CAS(3, LIN_NEVER, "a", "c");
    struct lin_op second = CAS(4, LIN_NEVER, "a", "c");
    first.expected = 3;
    second.expected = 5;
    assert_good(put, first, second, GET(5, 6, "c"));
    second.expected = 4;
    assert_broken(put, first, second, GET(5, 6, "c"));
}

static void test_check_evidence_is_what_contradicts(void **state)
{
    (void)state;
    assert_broken(PUT(1, 2, "x"), GET(3, 4, "x"), PUT(5, 6, "old"), GET(7, 8, "old"),
                  PUT(9, 10, "new"), APPEND(9, 12, "1"), GET(13, 14, "old"), PUT(15, 16, "y"),
                  GET(17, 18, "y"));
    const struct lin_failure *failure = &result.failure;
    assert_int_equal(failure->culprit->called_ns, 13);
    assert_int_equal(failure->prefix_ops, 7);
    assert_int_equal(failure->key_ops, 9);
    assert_true(failure->core_is_minimal);
    assert_int_equal(failure->core_count, 3); /* old, new, the get of old */
    assert_int_equal(failure->core[0].called_ns, 5);
    assert_int_equal(failure->core[1].called_ns, 9);
    assert_int_equal(failure->core[1].kind, LIN_PUT);
    assert_int_equal(failure->core[2].called_ns, 13);
}

static void test_check_value_nobody_wrote_is_evidence_alone(void **state)
{
    (void)state;
    assert_broken(PUT(1, 2, "x"), APPEND(3, 4, "y"), GET(5, 6, "xz"), PUT(7, 8, "xz"));
    assert_int_equal(result.failure.reason, LIN_NOT_WRITTEN);
    assert_int_equal(result.failure.core_count, 1);
    assert_int_equal(result.failure.core[0].called_ns, 5);
}

static void test_check_append_read_twice_names_it(void **state)
{
    (void)state;
    assert_broken(PUT(1, 2, "x;"), APPEND(3, 4, "1;"), APPEND(5, 6, "2;"), GET(7, 8, "x;1;2;1;"));
    assert_int_equal(result.failure.reason, LIN_TWICE_APPLIED);
    assert_int_equal(result.failure.core_count, 2);
    assert_int_equal(result.failure.core[0].called_ns, 3);
}

/* Compare-and-sets between few values, all at once: an order is a walk over all edges of a graph
 * that has none. Hard on purpose. */
static void make_hard(size_t ops)
{
    static const char *const values[] = {"0", "1", "2", "3", "4", "5", "6", "7"};
    lin_result_deinit(&result);
    lin_history_destroy(history);
    history = lin_history_create();
    struct rng rng;
    rng_init(&rng, 7);
    struct lin_op put = PUT(1, 2, "0");
    lin_history_add(history, &put);
    for (size_t i = 0; i < ops; i++) {
        struct lin_op cas = OP(.kind = LIN_CAS, AT(3, 1000));
        cas.observed = lin_value_of(values[rng_below(&rng, 8)], 1);
        cas.argument = lin_value_of(values[rng_below(&rng, 8)], 1);
        lin_history_add(history, &cas);
    }
}

static uint64_t fake_now_ns(void *context)
{
    uint64_t *now = context;
    *now += NS_PER_MS;
    return *now;
}

static void test_check_limits_say_unknown(void **state)
{
    (void)state;
    make_hard(60);
    assert_int_equal(lin_check(history, &(struct lin_limits){.steps_max = 5000}, &result),
                     LIN_UNKNOWN);
    assert_int_equal(result.spent, LIN_SPENT_STEPS);
    assert_in_range(result.steps, 5000, 5001);
    lin_result_deinit(&result);
    assert_int_equal(lin_check(history, &(struct lin_limits){.memory_bytes = 4 << 20}, &result),
                     LIN_UNKNOWN);
    assert_int_equal(result.spent, LIN_SPENT_MEMORY);
    assert_in_range(result.memory_bytes_peak, 1 << 20, 5 << 20);
    lin_result_deinit(&result);
    uint64_t now = 0;
    struct clock clock = {.monotonic_ns = fake_now_ns, .context = &now};
    struct lin_limits limits = {.clock = &clock, .time_ns = 10 * NS_PER_MS};
    assert_int_equal(lin_check(history, &limits, &result), LIN_UNKNOWN);
    assert_int_equal(result.spent, LIN_SPENT_TIME);
    assert_in_range(now, 10 * NS_PER_MS, 13 * NS_PER_MS);
    lin_result_deinit(&result);
    limits = (struct lin_limits){.memory_bytes = 1024};
    assert_int_equal(lin_check(history, &limits, &result), LIN_UNKNOWN);
    assert_int_equal(result.spent, LIN_SPENT_MEMORY);
    assert_int_equal(result.keys_checked, 0);
}

/* A key that gives up must not hide one that is broken. */
static void test_check_broken_key_beats_an_unknown_one(void **state)
{
    (void)state;
    make_hard(60);
    struct lin_op get = GET(1, 2, "never written");
    get.key = bytes_of_string("other");
    for (int i = 0; i < 70; i++) { /* larger, so that it is looked at later */
        lin_history_add(history, &get);
    }
    struct lin_limits limits = {.memory_bytes = 4 << 20};
    assert_int_equal(lin_check(history, &limits, &result), LIN_BROKEN);
    assert_int_equal(result.keys_checked, 2);
    assert_memory_equal(result.failure.key.data, "other", 5);
}

static void test_check_fifty_appends_at_once_take_the_order_read(void **state)
{
    (void)state;
    static char all[50 * 3];
    struct lin_op ops[51];
    char tokens[50][4];
    for (int i = 0; i < 50; i++) {
        (void)snprintf(tokens[i], sizeof tokens[i], "%02d;", i);
        ops[i] = OP(.kind = LIN_APPEND, AT(1, 100), .argument = lin_value_of(tokens[i], 3));
        memcpy(all + (49 - i) * 3, tokens[i], 3);
    }
    ops[50] = OP(.kind = LIN_GET, AT(101, 102), .observed = lin_value_of(all, sizeof all));
    assert_int_equal(check_list(ops, 51), LIN_LINEARIZABLE);
    assert_in_range(result.configurations, 1, 200);
    all[1] = all[4]; /* one token twice, another not at all */
    assert_int_equal(check_list(ops, 51), LIN_BROKEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_check_one_after_another_follows_the_values, end),
        cmocka_unit_test_teardown(test_check_absent_is_not_empty, end),
        cmocka_unit_test_teardown(test_check_overlapping_get_sees_either, end),
        cmocka_unit_test_teardown(test_check_same_moment_overlaps, end),
        cmocka_unit_test_teardown(test_check_unknown_outcome_comes_late_or_never, end),
        cmocka_unit_test_teardown(test_check_values_that_part_late_are_read_apart, end),
        cmocka_unit_test_teardown(test_check_tokens_inside_each_other_are_told_apart, end),
        cmocka_unit_test_teardown(test_check_keys_are_independent, end),
        cmocka_unit_test_teardown(test_check_versions_order_what_values_do_not, end),
        cmocka_unit_test_teardown(test_check_cas_by_version_tells_equal_values_apart, end),
        cmocka_unit_test_teardown(test_check_open_cas_of_other_version_is_another, end),
        cmocka_unit_test_teardown(test_check_evidence_is_what_contradicts, end),
        cmocka_unit_test_teardown(test_check_value_nobody_wrote_is_evidence_alone, end),
        cmocka_unit_test_teardown(test_check_append_read_twice_names_it, end),
        cmocka_unit_test_teardown(test_check_limits_say_unknown, end),
        cmocka_unit_test_teardown(test_check_broken_key_beats_an_unknown_one, end),
        cmocka_unit_test_teardown(test_check_fifty_appends_at_once_take_the_order_read, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
