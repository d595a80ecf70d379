/* Assertions: what passes is silent, what fails says where and with which values, and ends the
 * process. */
#include "unit/base_test.h"

#include "base/assert.h"

static void fail_plain(void *context)
{
    const int *number = context;
    ASSERT(*number == 5);
}

static void fail_compared(void *context)
{
    const int *number = context;
    ASSERT_CMP(*number, <, 3);
}

static void reach_unreachable(void *context)
{
    (void)context;
    UNREACHABLE();
}

static void fail_long(void *context)
{
    assert_failed(context, "file.c", 1, "function");
}

static void test_assert_true_condition_goes_on(void **state)
{
    (void)state;
    int evaluated = 0;
    ASSERT(++evaluated == 1);
    ASSERT_CMP(++evaluated, ==, 2);
    assert_int_equal(evaluated, 2); /* each condition once */
}

static void test_assert_false_condition_aborts_with_place(void **state)
{
    (void)state;
    int number = 4;
    assert_aborts(fail_plain, &number, "fail_plain: assertion failed: *number == 5\n");
}

static void test_assert_cmp_false_shows_both_values(void **state)
{
    (void)state;
    int number = 4;
    assert_aborts(fail_compared, &number, "*number < 3 (4 against 3)\n");
}

static void test_unreachable_aborts(void **state)
{
    (void)state;
    assert_aborts(reach_unreachable, NULL, "unreachable");
}

static void test_assert_long_condition_is_cut_not_overrun(void **state)
{
    (void)state;
    char condition[5000];
    memset(condition, 'c', sizeof(condition) - 1);
    condition[sizeof(condition) - 1] = '\0';
    assert_aborts(fail_long, condition, "file.c:1: function: assertion failed: cccc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assert_true_condition_goes_on),
        cmocka_unit_test(test_assert_false_condition_aborts_with_place),
        cmocka_unit_test(test_assert_cmp_false_shows_both_values),
        cmocka_unit_test(test_unreachable_aborts),
        cmocka_unit_test(test_assert_long_condition_is_cut_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
