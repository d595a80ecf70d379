/* The machine's clocks. */
#include "unit/base_test.h"

#include "base/clock.h"

#include <time.h>

static void test_clock_monotonic_never_goes_back(void **state)
{
    (void)state;
    const struct clock *clock = clock_system();
    uint64_t before = clock_now_ns(clock);
    assert_true(before > 0);
    for (int i = 0; i < 10000; i++) {
        uint64_t now = clock_now_ns(clock);
        assert_true(now >= before);
        before = now;
    }
}

static void test_clock_wall_agrees_with_time(void **state)
{
    (void)state;
    uint64_t before_s = (uint64_t)time(NULL);
    uint64_t wall_s = clock_wall_ns(clock_system()) / NS_PER_S;
    /* time() may lag by one tick of the kernel, so a second of slack. */
    assert_in_range(wall_s, before_s - 1, before_s + 30);
}

static uint64_t read_fake(void *context)
{
    return *(const uint64_t *)context;
}

static void test_clock_injected_is_the_one_read(void **state)
{
    (void)state;
    uint64_t now_ns = 42;
    const struct clock clock = {read_fake, read_fake, &now_ns};
    assert_int_equal(clock_now_ns(&clock), 42);
    now_ns = 43;
    assert_int_equal(clock_wall_ns(&clock), 43);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock_monotonic_never_goes_back),
        cmocka_unit_test(test_clock_wall_agrees_with_time),
        cmocka_unit_test(test_clock_injected_is_the_one_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
