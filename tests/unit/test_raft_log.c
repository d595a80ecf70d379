/* The log in memory: raft/core/log.c, against a plain array. */
#include "unit/raft_pump.h"

#include "raft/core/core_internal.h"

static struct raft_entry entry_of(uint64_t index, uint64_t term)
{
    return pump_entry(index, term, "payload");
}

static void append(struct core_log *log, uint64_t index, uint64_t term)
{
    struct raft_entry entry = entry_of(index, term);
    core__log_append(log, &entry);
}

/* start {0,0}, terms 1 1 2 2 2 5 */
static void six(struct core_log *log)
{
    static const uint64_t terms[] = {1, 1, 2, 2, 2, 5};
    core__log_init(log, (struct raft_position){0, 0});
    for (uint64_t i = 0; i < 6; i++) {
        append(log, i + 1, terms[i]);
    }
}

static void test_terms_are_known_by_runs(void **state)
{
    (void)state;
    static const uint64_t expected[] = {0, 1, 1, 2, 2, 2, 5, 0, 0};
    struct core_log log;
    six(&log);
    for (uint64_t i = 0; i < 9; i++) {
        assert_int_equal(core__log_term_at(&log, i), expected[i]);
    }
    assert_int_equal(log.run_count, 3);
    assert_int_equal(core__log_run_first(&log, 2), 1);
    assert_int_equal(core__log_run_first(&log, 5), 3);
    assert_int_equal(core__log_run_first(&log, 6), 6);
    core__log_deinit(&log);
}

static void test_last_of_term_is_found_or_zero(void **state)
{
    (void)state;
    struct core_log log;
    six(&log);
    assert_int_equal(core__log_last_of_term(&log, 1, 99), 2);
    assert_int_equal(core__log_last_of_term(&log, 2, 99), 5);
    assert_int_equal(core__log_last_of_term(&log, 2, 4), 4);
    assert_int_equal(core__log_last_of_term(&log, 2, 2), 0);
    assert_int_equal(core__log_last_of_term(&log, 3, 99), 0);
    assert_int_equal(core__log_last_of_term(&log, 5, 99), 6);
    assert_int_equal(core__log_last_of_term(&log, 6, 99), 0);
    core__log_deinit(&log);
}

static void test_truncation_is_told_for_what_was_handed_out_only(void **state)
{
    (void)state;
    struct core_log log;
    six(&log);
    log.unwritten = 5; /* 1..4 were handed out, 1..2 are durable */
    log.durable = 2;
    core__log_truncate(&log, 6);
    assert_int_equal(log.truncate_from, 0);
    assert_int_equal(log.unwritten, 5);
    core__log_truncate(&log, 4);
    assert_int_equal(log.truncate_from, 4);
    assert_int_equal(log.unwritten, 4);
    assert_int_equal(log.durable, 2);
    assert_int_equal(log.last.index, 3);
    assert_int_equal(log.last.term, 2);
    append(&log, 4, 7);
    core__log_truncate(&log, 2);
    assert_int_equal(log.truncate_from, 2); /* the lowest counts */
    assert_int_equal(log.durable, 1);
    assert_int_equal(log.run_count, 1);
    core__log_deinit(&log);
}

static void test_compaction_keeps_the_run_it_cuts(void **state)
{
    (void)state;
    struct core_log log;
    six(&log);
    log.durable = 6;
    log.unwritten = 7;
    core__log_compact(&log, 4);
    assert_int_equal(log.start.index, 4);
    assert_int_equal(log.start.term, 2);
    assert_int_equal(core__log_term_at(&log, 3), 0);
    assert_int_equal(core__log_term_at(&log, 4), 2);
    assert_int_equal(core__log_term_at(&log, 5), 2);
    assert_int_equal(core__log_run_first(&log, 5), 5);
    assert_int_equal(core__log_cache_first(&log), 5);
    core__log_compact(&log, 6);
    assert_int_equal(log.run_count, 0);
    assert_int_equal(log.cache_bytes, 0);
    assert_int_equal(log.last.term, 5);
    append(&log, 7, 5);
    assert_int_equal(log.run_count, 1);
    assert_int_equal(core__log_term_at(&log, 7), 5);
    core__log_deinit(&log);
}

static void test_slice_respects_bytes_and_count_but_gives_one(void **state)
{
    (void)state;
    struct core_log log;
    const struct raft_entry *entries;
    six(&log);
    uint64_t size = 7 + RAFT_ENTRY_OVERHEAD_BYTES;
    assert_int_equal(core__log_slice(&log, 1, 3 * size, 99, &entries), 3);
    assert_int_equal(core__log_slice(&log, 1, 3 * size - 1, 99, &entries), 2);
    assert_int_equal(core__log_slice(&log, 2, 0, 99, &entries), 1);
    assert_int_equal(entries[0].position.index, 2);
    assert_int_equal(core__log_slice(&log, 2, UINT64_MAX, 2, &entries), 2);
    assert_int_equal(core__log_slice(&log, 7, UINT64_MAX, 99, &entries), 0);
    assert_int_equal(core__log_slice(&log, 0, UINT64_MAX, 99, &entries), 0);
    core__log_deinit(&log);
}

static void test_eviction_stops_at_the_bound_and_at_what_may_go(void **state)
{
    (void)state;
    struct core_log log;
    const struct raft_entry *entries;
    six(&log);
    uint64_t size = 7 + RAFT_ENTRY_OVERHEAD_BYTES;
    core__log_evict(&log, 6, 4 * size);
    assert_int_equal(core__log_cache_first(&log), 3);
    core__log_evict(&log, 3, 0);
    assert_int_equal(core__log_cache_first(&log), 4);
    assert_int_equal(core__log_slice(&log, 3, UINT64_MAX, 99, &entries), 0);
    assert_int_equal(core__log_term_at(&log, 1), 1); /* terms stay known */
    core__log_evict(&log, 6, 0);
    assert_int_equal(core__log_cache_first(&log), 7);
    append(&log, 7, 5);
    assert_int_equal(core__log_slice(&log, 7, UINT64_MAX, 99, &entries), 1);
    core__log_deinit(&log);
}

static void test_blobs_are_released_with_their_entries(void **state)
{
    (void)state;
    struct core_log log;
    core__log_init(&log, (struct raft_position){0, 0});
    for (uint64_t i = 1; i <= 300; i++) {
        struct blob *owner = blob_copy(bytes_of_string("counted"));
        struct raft_entry entry = {.position = {i, 1},
                                   .kind = RAFT_ENTRY_COMMAND,
                                   .data = blob_view(owner),
                                   .owner = owner};
        core__log_append(&log, &entry);
        blob_unref(owner);
    }
    core__log_truncate(&log, 200);
    core__log_evict(&log, 50, 0);
    core__log_reset(&log, (struct raft_position){500, 3});
    assert_int_equal(log.cache_bytes, 0);
    core__log_deinit(&log); /* what leaks is found by the sanitizer */
}

/* The same random operations on the log and on an array of terms. */
static void test_random_operations_agree_with_an_array(void **state)
{
    (void)state;
    enum { MOST = 4000 };
    static uint64_t terms[MOST + 1];
    struct core_log log;
    struct rng rng;
    rng_init(&rng, 11);
    core__log_init(&log, (struct raft_position){0, 0});
    uint64_t term = 1;
    for (int step = 0; step < 20000; step++) {
        uint64_t last = log.last.index;
        switch (rng_below(&rng, 8)) {
        case 0:
            term += rng_below(&rng, 2);
            break;
        case 1:
            if (last > log.start.index && rng_chance(&rng, 1, 4)) {
                core__log_truncate(&log, rng_between(&rng, log.start.index + 1, last));
            }
            break;
        case 2:
            if (rng_chance(&rng, 1, 10) && last > log.start.index) {
                log.durable = last;
                log.unwritten = last + 1;
                core__log_compact(&log, rng_between(&rng, log.start.index + 1, last));
            }
            break;
        case 3:
            core__log_evict(&log, last, rng_below(&rng, 3000));
            break;
        default:
            if (last < MOST) {
                terms[last + 1] = term;
                append(&log, last + 1, term);
            }
            break;
        }
        uint64_t at = rng_between(&rng, log.start.index, log.last.index);
        assert_int_equal(core__log_term_at(&log, at), at == 0 ? 0 : terms[at]);
        const struct raft_entry *entries;
        if (core__log_slice(&log, at, 0, 1, &entries) == 1) {
            assert_int_equal(entries[0].position.index, at);
            assert_int_equal(entries[0].position.term, terms[at]);
        }
        if (at > log.start.index) {
            uint64_t first = core__log_run_first(&log, at);
            assert_int_equal(terms[first], terms[at]);
            assert_true(first == log.start.index + 1 || terms[first - 1] != terms[at]);
        }
    }
    core__log_deinit(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_terms_are_known_by_runs),
        cmocka_unit_test(test_last_of_term_is_found_or_zero),
        cmocka_unit_test(test_truncation_is_told_for_what_was_handed_out_only),
        cmocka_unit_test(test_compaction_keeps_the_run_it_cuts),
        cmocka_unit_test(test_slice_respects_bytes_and_count_but_gives_one),
        cmocka_unit_test(test_eviction_stops_at_the_bound_and_at_what_may_go),
        cmocka_unit_test(test_blobs_are_released_with_their_entries),
        cmocka_unit_test(test_random_operations_agree_with_an_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
