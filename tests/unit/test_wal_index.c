/* The sparse index against a plain list of where every entry lies. */
#include "raft/wal/wal_index.h"
#include "unit/wal_test.h"

#include <string.h>

#define ENTRIES_MAX 3000u

struct place {
    uint64_t term;
    uint64_t sequence;
    uint64_t offset;
};

struct mirror {
    struct wal_index index;
    struct place places[ENTRIES_MAX]; /* by entry index */
    uint64_t sequence;
    uint64_t offset;
};

static void mirror_append(struct mirror *mirror, uint64_t term, uint64_t bytes)
{
    uint64_t index = mirror->index.last.index + 1;
    mirror->places[index] = (struct place){term, mirror->sequence, mirror->offset};
    wal_index_append(&mirror->index, (struct raft_position){index, term}, mirror->sequence,
                     mirror->offset);
    mirror->offset += bytes;
}

/* Walking forward from the point that find gives must meet nothing but live entries up to the one
 * asked for. */
static void mirror_check(const struct mirror *mirror)
{
    const struct wal_index *index = &mirror->index;
    for (uint64_t i = index->base.index + 1; i <= index->last.index; i++) {
        uint64_t until;
        struct wal_point point = wal_index_find(index, i, &until);
        assert_true(point.index <= i);
        assert_true(until >= i);
        for (uint64_t j = point.index > index->base.index ? point.index : index->base.index + 1;
             j <= until; j++) {
            assert_int_equal(mirror->places[j].sequence, point.sequence);
            assert_true(mirror->places[j].offset >= point.offset);
        }
        assert_int_equal(wal_index_term_at(index, i), mirror->places[i].term);
        assert_true(mirror->places[i].offset - point.offset < 2 * WAL_INDEX_POINT_BYTES);
    }
    assert_int_equal(wal_index_term_at(index, index->base.index), index->base.term);
    assert_int_equal(wal_index_term_at(index, index->last.index + 1), 0);
    if (index->term_run_count > 0) {
        assert_int_equal(index->term_runs[0].index, index->base.index + 1);
    }
}

static void test_random_operations_agree_with_a_list(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct mirror mirror = {.sequence = 1};
        struct rng rng;
        rng_init(&rng, seed);
        wal_index_init(&mirror.index, (struct raft_position){0, 0});
        uint64_t term = 1;
        for (unsigned step = 0; step < 300 && mirror.index.last.index < ENTRIES_MAX - 20; step++) {
            uint64_t live = mirror.index.last.index - mirror.index.base.index;
            uint64_t what = rng_below(&rng, 20);
            if (what < 14) {
                for (uint64_t i = rng_below(&rng, 10); i > 0; i--) {
                    mirror_append(&mirror, term, rng_below(&rng, 20000));
                }
            } else if (what == 14 && live > 0) {
                term++;
                wal_index_truncate(&mirror.index, mirror.index.last.index - rng_below(&rng, live));
            } else if (what == 15 && live > 0) {
                uint64_t base = mirror.index.base.index + 1 + rng_below(&rng, live);
                wal_index_compact(&mirror.index,
                                  (struct raft_position){base, mirror.places[base].term});
            } else if (what == 16) {
                mirror.sequence++;
                mirror.offset = 1024;
            } else if (what == 17) {
                mirror.offset += 5000; /* a group's header, a hard state, dead bytes */
            }
            mirror_check(&mirror);
        }
        wal_index_deinit(&mirror.index);
    }
}

static void test_points_are_as_sparse_as_promised(void **state)
{
    (void)state;
    struct wal_index index;
    wal_index_init(&index, (struct raft_position){0, 0});
    for (uint64_t i = 1; i <= 100000; i++) {
        wal_index_append(&index, (struct raft_position){i, 1}, 1, i * 100);
    }
    assert_true(index.point_count <= 100000 * 100 / WAL_INDEX_POINT_BYTES + 1);
    assert_int_equal(index.term_run_count, 1);
    wal_index_deinit(&index);
}

static void test_truncation_that_cuts_nothing_adds_no_point(void **state)
{
    (void)state;
    struct wal_index index;
    wal_index_init(&index, (struct raft_position){0, 0});
    for (uint64_t i = 1; i <= 100; i++) {
        wal_index_truncate(&index, i);
        wal_index_append(&index, (struct raft_position){i, 1}, 1, i * 100);
    }
    assert_int_equal(index.point_count, 1);
    wal_index_deinit(&index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations_agree_with_a_list),
        cmocka_unit_test(test_points_are_as_sparse_as_promised),
        cmocka_unit_test(test_truncation_that_cuts_nothing_adds_no_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
