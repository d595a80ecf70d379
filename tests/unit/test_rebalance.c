#include "config_test.h"

#include "base/rng.h"
#include "shardctrler/rebalance.h"
#include <string.h>

enum { SHARDS_MAX = 64, GROUPS_TRIED_MAX = 12 };

static uint32_t count_of(const uint64_t *owners, uint32_t shards, uint64_t group)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < shards; i++) {
        count += owners[i] == group;
    }
    return count;
}

/* The least number of shards any balanced result must change: those without a valid owner, and for
 * each group what it has over its target, with the larger targets given to the groups that have
 * most. */
static uint32_t least_moves(const uint64_t *owners, uint32_t shards, const uint64_t *groups,
                            size_t count)
{
    uint32_t have[GROUPS_TRIED_MAX];
    uint32_t valid = 0;
    for (size_t i = 0; i < count; i++) {
        have[i] = count_of(owners, shards, groups[i]);
        valid += have[i];
    }
    uint32_t moves = shards - valid;
    uint32_t larger = shards % (uint32_t)count;
    for (size_t i = 0; i < count; i++) { /* descending */
        for (size_t j = i + 1; j < count; j++) {
            if (have[j] > have[i]) {
                uint32_t swap = have[i];
                have[i] = have[j];
                have[j] = swap;
            }
        }
        uint32_t target = shards / (uint32_t)count + (i < larger ? 1 : 0);
        moves += have[i] > target ? have[i] - target : 0;
    }
    return moves;
}

static void test_rebalance_random_owners_is_balanced_with_fewest_moves(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 1);
    for (int round = 0; round < 20000; round++) {
        uint32_t shards = (uint32_t)rng_between(&rng, 1, SHARDS_MAX);
        size_t count = (size_t)rng_between(&rng, 1, GROUPS_TRIED_MAX);
        uint64_t groups[GROUPS_TRIED_MAX], before[SHARDS_MAX], after[SHARDS_MAX],
            sources[SHARDS_MAX];
        uint64_t id = 0;
        for (size_t i = 0; i < count; i++) {
            groups[i] = id += rng_between(&rng, 1, 3);
        }
        for (uint32_t i = 0; i < shards; i++) {
            before[i] = after[i] = rng_below(&rng, id + 2); /* 0, members, strangers */
            sources[i] = rng_below(&rng, id + 2);
        }
        rebalance(after, sources, shards, groups, count);

        uint32_t least = UINT32_MAX, most = 0, moved = 0, sum = 0;
        for (size_t i = 0; i < count; i++) {
            uint32_t owned = count_of(after, shards, groups[i]);
            least = owned < least ? owned : least;
            most = owned > most ? owned : most;
            sum += owned;
        }
        for (uint32_t i = 0; i < shards; i++) {
            moved += before[i] != after[i];
        }
        assert_int_equal(sum, shards);
        assert_in_range(most - least, 0, 1);
        assert_int_equal(moved, least_moves(before, shards, groups, count));
    }
}

static void test_rebalance_same_input_gives_same_output(void **state)
{
    (void)state;
    const uint64_t groups[] = {3, 5, 9};
    uint64_t a[10] = {5, 5, 5, 5, 5, 5, 0, 7, 3, 9};
    uint64_t b[10];
    const uint64_t none[10] = {0};
    memcpy(b, a, sizeof b);
    rebalance(a, none, 10, groups, 3);
    rebalance(b, none, 10, groups, 3);
    assert_memory_equal(a, b, sizeof a);
    /* Pinned: replicas of two versions must agree. */
    const uint64_t expected[10] = {5, 5, 5, 5, 3, 3, 9, 9, 3, 9};
    assert_memory_equal(a, expected, sizeof a);
}

static void test_rebalance_without_groups_owns_nothing(void **state)
{
    (void)state;
    uint64_t owners[3] = {1, 2, 0};
    const uint64_t none[3] = {0};
    rebalance(owners, none, 3, NULL, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(owners[i], 0);
    }
}

static void test_rebalance_unowned_shard_goes_back_to_its_data(void **state)
{
    (void)state;
    const uint64_t groups[] = {1, 2};
    uint64_t owners[4] = {0, 0, 0, 0};
    const uint64_t sources[4] = {2, 1, 2, 1};
    rebalance(owners, sources, 4, groups, 2);
    assert_memory_equal(owners, sources, sizeof owners);
}

static void test_rebalance_more_groups_than_shards_leaves_some_empty(void **state)
{
    (void)state;
    const uint64_t groups[] = {1, 2, 3, 4};
    uint64_t owners[2] = {4, 4};
    const uint64_t none[2] = {0};
    rebalance(owners, none, 2, groups, 4);
    assert_int_equal(owners[0], 4);
    assert_int_equal(owners[1], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rebalance_random_owners_is_balanced_with_fewest_moves),
        cmocka_unit_test(test_rebalance_same_input_gives_same_output),
        cmocka_unit_test(test_rebalance_without_groups_owns_nothing),
        cmocka_unit_test(test_rebalance_unowned_shard_goes_back_to_its_data),
        cmocka_unit_test(test_rebalance_more_groups_than_shards_leaves_some_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
