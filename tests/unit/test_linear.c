/* The linearizability checker must refuse what it exists to find. */
#include "unit/base_test.h"

#include "sim/linear.h"

#include <stdio.h>
#include <string.h>

struct line {
    enum linear_kind kind;
    const char *value;
    uint64_t from;
    uint64_t to;
};

static enum linear_verdict check(const struct line *lines, size_t count)
{
    struct linear_history *history = linear_create(false);
    char why[256] = "";
    for (size_t i = 0; i < count; i++) {
        linear_add(history, "k", lines[i].kind, lines[i].value, strlen(lines[i].value),
                   lines[i].from, lines[i].to);
    }
    enum linear_verdict verdict = linear_check(history, why, sizeof why);
    linear_destroy(history);
    return verdict;
}
#define CHECK_LINES(...)                                                                           \
    check((const struct line[]){__VA_ARGS__},                                                      \
          sizeof((const struct line[]){__VA_ARGS__}) / sizeof(struct line))

static void test_linear_sequence_in_order_is_accepted(void **state)
{
    (void)state;
    assert_int_equal(CHECK_LINES({LINEAR_GET, "", 1, 2}, {LINEAR_PUT, "a", 3, 4},
                                 {LINEAR_APPEND, "b", 5, 6}, {LINEAR_GET, "ab", 7, 8}),
                     LINEAR_OK);
}

static void test_linear_overlapping_get_may_see_either_value(void **state)
{
    (void)state;
    assert_int_equal(CHECK_LINES({LINEAR_PUT, "a", 1, 10}, {LINEAR_GET, "", 2, 3}), LINEAR_OK);
    assert_int_equal(CHECK_LINES({LINEAR_PUT, "a", 1, 10}, {LINEAR_GET, "a", 2, 3}), LINEAR_OK);
}

static void test_linear_stale_get_is_rejected(void **state)
{
    (void)state;
    assert_int_equal(
        CHECK_LINES({LINEAR_PUT, "a", 1, 2}, {LINEAR_PUT, "b", 3, 4}, {LINEAR_GET, "a", 5, 6}),
        LINEAR_BROKEN);
}

static void test_linear_gets_going_back_are_rejected(void **state)
{
    (void)state;
    assert_int_equal(
        CHECK_LINES({LINEAR_PUT, "a", 1, 20}, {LINEAR_GET, "a", 2, 3}, {LINEAR_GET, "", 4, 5}),
        LINEAR_BROKEN);
}

static void test_linear_lost_append_is_rejected(void **state)
{
    (void)state;
    assert_int_equal(CHECK_LINES({LINEAR_APPEND, "a", 1, 2}, {LINEAR_APPEND, "b", 3, 4},
                                 {LINEAR_GET, "b", 5, 6}),
                     LINEAR_BROKEN);
}

static void test_linear_doubled_append_is_rejected(void **state)
{
    (void)state;
    assert_int_equal(CHECK_LINES({LINEAR_APPEND, "a", 1, 2}, {LINEAR_GET, "aa", 3, 4}),
                     LINEAR_BROKEN);
}

static void test_linear_appends_out_of_order_are_rejected(void **state)
{
    (void)state;
    assert_int_equal(CHECK_LINES({LINEAR_APPEND, "a", 1, 2}, {LINEAR_APPEND, "b", 3, 4},
                                 {LINEAR_GET, "ba", 5, 6}),
                     LINEAR_BROKEN);
}

static void test_linear_unknown_write_may_come_late_or_never(void **state)
{
    (void)state;
    assert_int_equal(CHECK_LINES({LINEAR_PUT, "a", 1, 2}, {LINEAR_APPEND, "b", 3, LINEAR_NEVER},
                                 {LINEAR_GET, "a", 4, 5}, {LINEAR_GET, "ab", 6, 7}),
                     LINEAR_OK);
    assert_int_equal(CHECK_LINES({LINEAR_PUT, "a", 1, 2}, {LINEAR_APPEND, "b", 3, LINEAR_NEVER},
                                 {LINEAR_GET, "a", 4, 5}),
                     LINEAR_OK);
    assert_int_equal(CHECK_LINES({LINEAR_PUT, "a", 1, 2}, {LINEAR_APPEND, "b", 3, LINEAR_NEVER},
                                 {LINEAR_GET, "ab", 4, 5}, {LINEAR_GET, "a", 6, 7}),
                     LINEAR_BROKEN);
}

static void test_linear_keys_are_independent(void **state)
{
    (void)state;
    struct linear_history *history = linear_create(false);
    char why[256] = "";
    linear_add(history, "a", LINEAR_PUT, "1", 1, 1, 2);
    linear_add(history, "b", LINEAR_GET, "", 0, 3, 4);
    linear_add(history, "a", LINEAR_GET, "1", 1, 3, 4);
    assert_int_equal(linear_check(history, why, sizeof why), LINEAR_OK);
    linear_add(history, "b", LINEAR_GET, "1", 1, 5, 6);
    assert_int_equal(linear_check(history, why, sizeof why), LINEAR_BROKEN);
    assert_non_null(strstr(why, "key b"));
    linear_destroy(history);
}

static void test_linear_many_concurrent_appends_end(void **state)
{
    (void)state;
    struct linear_history *history = linear_create(false);
    char why[256] = "";
    char all[64];
    for (uint64_t i = 0; i < 6; i++) { /* all at once, seen in the reverse of their numbers */
        char one[2] = {(char)('a' + i), '\0'};
        linear_add(history, "k", LINEAR_APPEND, one, 1, 1, 100);
        all[5 - i] = one[0];
    }
    linear_add(history, "k", LINEAR_GET, all, 6, 101, 102);
    assert_int_equal(linear_check(history, why, sizeof why), LINEAR_OK);
    all[0] = all[1];
    linear_add(history, "k", LINEAR_GET, all, 6, 103, 104);
    assert_int_equal(linear_check(history, why, sizeof why), LINEAR_BROKEN);
    linear_destroy(history);
}

static void test_linear_distinct_unknown_writes_are_settled_by_what_gets_show(void **state)
{
    (void)state;
    struct linear_history *history = linear_create(true);
    char why[256] = "";
    char text[32];
    for (uint64_t i = 0; i < 60; i++) { /* of these only one is ever seen */
        (void)snprintf(text, sizeof text, "<lost %u>", (unsigned)i);
        linear_add(history, "k", LINEAR_APPEND, text, strlen(text), i, LINEAR_NEVER);
    }
    linear_add(history, "k", LINEAR_APPEND, "<known>", 7, 100, 101);
    linear_add(history, "k", LINEAR_GET, "<lost 7><known>", 15, 102, 103);
    assert_int_equal(linear_check(history, why, sizeof why), LINEAR_OK);
    linear_add(history, "k", LINEAR_GET, "<known><lost 7>", 15, 104, 105);
    assert_int_equal(linear_check(history, why, sizeof why), LINEAR_BROKEN);
    linear_destroy(history);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_sequence_in_order_is_accepted),
        cmocka_unit_test(test_linear_overlapping_get_may_see_either_value),
        cmocka_unit_test(test_linear_stale_get_is_rejected),
        cmocka_unit_test(test_linear_gets_going_back_are_rejected),
        cmocka_unit_test(test_linear_lost_append_is_rejected),
        cmocka_unit_test(test_linear_doubled_append_is_rejected),
        cmocka_unit_test(test_linear_appends_out_of_order_are_rejected),
        cmocka_unit_test(test_linear_unknown_write_may_come_late_or_never),
        cmocka_unit_test(test_linear_keys_are_independent),
        cmocka_unit_test(test_linear_many_concurrent_appends_end),
        cmocka_unit_test(test_linear_distinct_unknown_writes_are_settled_by_what_gets_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
