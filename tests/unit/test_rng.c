/* The generator: pinned numbers (a seed must replay on every machine), bounds, and rough evenness.
 */
#include "unit/base_test.h"

#include "base/rng.h"

static void test_rng_init_seed_zero_gives_pinned_state(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 0); /* the first four numbers of the authors' splitmix64 from 0 */
    assert_int_equal(rng.state[0], 0xe220a8397b1dcdafull);
    assert_int_equal(rng.state[1], 0x6e789e6aa1b965f4ull);
    assert_int_equal(rng.state[2], 0x06c45d188009454full);
    assert_int_equal(rng.state[3], 0xf88bb8a8724c81ecull);
}

static void test_rng_next_gives_pinned_numbers(void **state)
{
    (void)state;
    struct rng rng = {{1, 2, 3, 4}}; /* the authors' xoshiro256++ from this state */
    static const uint64_t expected[] = {
        41943041ull,
        58720359ull,
        3588806011781223ull,
        3591011842654386ull,
        9228616714210784205ull,
        9973669472204895162ull,
        14011001112246962877ull,
        12406186145184390807ull,
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_int_equal(rng_next(&rng), expected[i]);
    }
}

static void test_rng_same_seed_same_numbers(void **state)
{
    (void)state;
    struct rng a;
    struct rng b;
    struct rng other;
    rng_init(&a, 7);
    rng_init(&b, 7);
    rng_init(&other, 8);
    unsigned different = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t number = rng_next(&a);
        assert_int_equal(rng_next(&b), number);
        different += rng_next(&other) != number;
    }
    assert_true(different > 990);
}

static void test_rng_below_stays_below_and_is_even(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 3);
    unsigned counts[6] = {0};
    for (int i = 0; i < 60000; i++) {
        uint64_t drawn = rng_below(&rng, 6);
        assert_true(drawn < 6);
        counts[drawn]++;
    }
    for (int i = 0; i < 6; i++) {
        assert_in_range(counts[i], 9500, 10500); /* 10000 expected, 91 the standard deviation */
    }
    assert_int_equal(rng_below(&rng, 1), 0);
}

static void test_rng_below_large_bound_is_not_biased(void **state)
{
    (void)state;
    /* With bound = 3/4 of 2^64 a plain remainder would give the lowest third twice as often. */
    uint64_t bound = 3ull << 62;
    struct rng rng;
    rng_init(&rng, 4);
    unsigned low = 0;
    for (int i = 0; i < 30000; i++) {
        low += rng_below(&rng, bound) < bound / 3;
    }
    assert_in_range(low, 9600, 10400);
}

static void test_rng_between_includes_both_ends(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 5);
    bool seen[3] = {false, false, false};
    for (int i = 0; i < 200; i++) {
        uint64_t drawn = rng_between(&rng, 10, 12);
        assert_in_range(drawn, 10, 12);
        seen[drawn - 10] = true;
    }
    assert_true(seen[0] && seen[1] && seen[2]);
    assert_int_equal(rng_between(&rng, 9, 9), 9);
    assert_int_equal(rng_between(&rng, UINT64_MAX, UINT64_MAX), UINT64_MAX);
    assert_int_not_equal(rng_between(&rng, 0, UINT64_MAX), rng_between(&rng, 0, UINT64_MAX));
}

static void test_rng_chance_follows_the_fraction(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 6);
    unsigned hits = 0;
    for (int i = 0; i < 10000; i++) {
        assert_false(rng_chance(&rng, 0, 10));
        assert_true(rng_chance(&rng, 10, 10));
        hits += rng_chance(&rng, 1, 4);
    }
    assert_in_range(hits, 2300, 2700);
}

static void draw_below_zero(void *context)
{
    rng_below(context, 0);
}

static void test_rng_below_zero_bound_is_a_callers_bug(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1);
    assert_aborts(draw_below_zero, &rng, "bound > 0");
}

static void test_rng_seed_from_system_differs(void **state)
{
    (void)state;
    assert_int_not_equal(rng_seed_from_system(), rng_seed_from_system());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rng_init_seed_zero_gives_pinned_state),
        cmocka_unit_test(test_rng_next_gives_pinned_numbers),
        cmocka_unit_test(test_rng_same_seed_same_numbers),
        cmocka_unit_test(test_rng_below_stays_below_and_is_even),
        cmocka_unit_test(test_rng_below_large_bound_is_not_biased),
        cmocka_unit_test(test_rng_between_includes_both_ends),
        cmocka_unit_test(test_rng_chance_follows_the_fraction),
        cmocka_unit_test(test_rng_below_zero_bound_is_a_callers_bug),
        cmocka_unit_test(test_rng_seed_from_system_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
