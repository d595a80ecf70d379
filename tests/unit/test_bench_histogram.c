/* The histogram's promise: never below what was recorded, above it by less than 1/128. */
#include "unit/base_test.h"

#include "base/bytes.h"
#include "base/rng.h"
#include "bench/histogram.h"
#include <stdlib.h>

static struct histogram *make(void)
{
    struct histogram *histogram = mem_alloc(sizeof *histogram);
    histogram_init(histogram);
    return histogram;
}

static void test_histogram_empty_gives_zeroes(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    assert_int_equal(histogram_quantile_ns(histogram, 50000), 0);
    assert_true(histogram_mean_ns(histogram) == 0);
    free(histogram);
}

static void test_histogram_one_value_is_exact(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    histogram_record(histogram, 123456789);
    /* The bucket's top is cut at the largest value. */
    assert_int_equal(histogram_quantile_ns(histogram, 0), 123456789);
    assert_int_equal(histogram_quantile_ns(histogram, 100000), 123456789);
    assert_int_equal(histogram->min_ns, 123456789);
    assert_int_equal(histogram->max_ns, 123456789);
    free(histogram);
}

static void test_histogram_small_values_are_exact(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    for (uint64_t ns = 1; ns <= 100; ns++) {
        histogram_record(histogram, ns);
    }
    assert_int_equal(histogram_quantile_ns(histogram, 1000), 1);
    assert_int_equal(histogram_quantile_ns(histogram, 50000), 50);
    assert_int_equal(histogram_quantile_ns(histogram, 99000), 99);
    assert_int_equal(histogram_quantile_ns(histogram, 99001), 100);
    assert_true(histogram_mean_ns(histogram) == 50.5);
    free(histogram);
}

/* Every power of two, its neighbours, and random values of every size. */
static void test_histogram_error_is_within_bound(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1);
    for (uint32_t bits = 0; bits < HISTOGRAM_VALUE_BITS; bits++) {
        for (uint32_t draw = 0; draw < 20; draw++) {
            uint64_t low = 1ull << bits;
            uint64_t value = draw == 0   ? low
                             : draw == 1 ? low - 1
                             : draw == 2 ? 2 * low - 1
                                         : rng_between(&rng, low, 2 * low - 1);
            struct histogram *histogram = make();
            histogram_record(histogram, value);
            histogram_record(histogram, HISTOGRAM_NS_MAX); /* so that the largest does not cut it */
            uint64_t got = histogram_quantile_ns(histogram, 50000);
            assert_true(got >= value);
            assert_true((got - value) * HISTOGRAM_SUB_BUCKETS <= value);
            free(histogram);
        }
    }
}

static void test_histogram_value_over_the_end_keeps_its_maximum(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    histogram_record(histogram, 1);
    histogram_record(histogram, UINT64_MAX / 4);
    assert_int_equal(histogram_quantile_ns(histogram, 100000), UINT64_MAX / 4);
    assert_int_equal(histogram_quantile_ns(histogram, 50000), 1);
    free(histogram);
}

static void test_histogram_add_is_as_if_recorded_in_one(void **state)
{
    (void)state;
    struct histogram *a = make(), *b = make(), *both = make();
    struct rng rng;
    rng_init(&rng, 2);
    for (uint32_t i = 0; i < 5000; i++) {
        uint64_t value = rng_below(&rng, 1ull << (i % 40 + 1));
        histogram_record(i % 3 == 0 ? a : b, value);
        histogram_record(both, value);
    }
    histogram_add(a, b);
    assert_memory_equal(a, both, sizeof *both);
    free(a);
    free(b);
    free(both);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram_empty_gives_zeroes),
        cmocka_unit_test(test_histogram_one_value_is_exact),
        cmocka_unit_test(test_histogram_small_values_are_exact),
        cmocka_unit_test(test_histogram_error_is_within_bound),
        cmocka_unit_test(test_histogram_value_over_the_end_keeps_its_maximum),
        cmocka_unit_test(test_histogram_add_is_as_if_recorded_in_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
