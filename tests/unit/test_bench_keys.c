/* Choice of keys: the zipfian sampler against the distribution's own formula, and the shape of the
 * others. */
#include "unit/base_test.h"

#include "bench/keys.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = 200000, RANKS = 50 };

static void check_zipf(double exponent)
{
    struct zipf zipf;
    struct rng rng;
    uint64_t seen[RANKS] = {0};
    rng_init(&rng, 7);
    zipf_init(&zipf, RANKS, exponent);
    for (uint32_t i = 0; i < DRAWS; i++) {
        uint64_t rank = zipf_next(&zipf, &rng);
        assert_in_range(rank, 0, RANKS - 1);
        seen[rank]++;
    }
    double sum = 0;
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        sum += pow(rank + 1.0, -exponent);
    }
    /* Chi-squared with 49 degrees of freedom: over 100 in fewer than one run of 10,000. */
    double chi_squared = 0;
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        double expected = DRAWS * pow(rank + 1.0, -exponent) / sum;
        chi_squared += ((double)seen[rank] - expected) * ((double)seen[rank] - expected) / expected;
    }
    assert_true(chi_squared < 100);
}

static void test_zipf_follows_its_formula(void **state)
{
    (void)state;
    check_zipf(0.5);
    check_zipf(0.99);
    check_zipf(1);
    check_zipf(1.5);
}

static void test_zipf_of_one_key_is_that_key(void **state)
{
    (void)state;
    struct zipf zipf;
    struct rng rng;
    rng_init(&rng, 1);
    zipf_init(&zipf, 1, 0.99);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(zipf_next(&zipf, &rng), 0);
    }
}

static void test_key_scatter_is_one_to_one(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1, 2, 10, 1000, 4096, 99991};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        uint8_t *seen = calloc(counts[c], 1);
        assert_non_null(seen);
        for (uint64_t rank = 0; rank < counts[c]; rank++) {
            uint64_t key = key_scatter(rank, counts[c]);
            assert_true(key < counts[c]);
            assert_int_equal(seen[key], 0);
            seen[key] = 1;
        }
        free(seen);
    }
}

static void test_key_choice_latest_writes_in_order_and_reads_behind(void **state)
{
    (void)state;
    struct key_choice choice;
    struct rng rng;
    rng_init(&rng, 3);
    key_choice_init(&choice, KEY_LATEST, 1000, 0.99);
    for (uint64_t i = 0; i < 1500; i++) {
        assert_int_equal(key_choice_next(&choice, &rng, true), i % 1000);
    }
    uint32_t newest = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        uint64_t key = key_choice_next(&choice, &rng, false);
        assert_true(key < 1000);
        newest += key == 499;
    }
    assert_in_range(newest, 1000, 1700); /* 1 / sum of k^-0.99 up to 1000: 13 % */
}

static void test_key_choice_uniform_reaches_every_key(void **state)
{
    (void)state;
    struct key_choice choice;
    struct rng rng;
    uint32_t seen[16] = {0};
    rng_init(&rng, 4);
    key_choice_init(&choice, KEY_UNIFORM, 16, 0.99);
    for (uint32_t i = 0; i < 16000; i++) {
        seen[key_choice_next(&choice, &rng, false)]++;
    }
    for (uint32_t i = 0; i < 16; i++) {
        assert_in_range(seen[i], 800, 1200);
    }
}

static void test_key_write_pads_with_zeroes(void **state)
{
    (void)state;
    char key[8];
    key_write(key, sizeof key, 1234);
    assert_memory_equal(key, "00001234", 8);
    assert_int_equal(key_bytes_min(1), 1);
    assert_int_equal(key_bytes_min(10), 1);
    assert_int_equal(key_bytes_min(11), 2);
    assert_int_equal(key_bytes_min(100000), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zipf_follows_its_formula),
        cmocka_unit_test(test_zipf_of_one_key_is_that_key),
        cmocka_unit_test(test_key_scatter_is_one_to_one),
        cmocka_unit_test(test_key_choice_latest_writes_in_order_and_reads_behind),
        cmocka_unit_test(test_key_choice_uniform_reaches_every_key),
        cmocka_unit_test(test_key_write_pads_with_zeroes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
