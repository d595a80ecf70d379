/* Writes that a disk lost though it said OK, put elsewhere, or brought only half, and older bytes
 * that stand where they should be: recovery takes none of them for the log, and refuses a log that
 * lacks what was acknowledged. */
#include "base/log.h"
#include "raft/wal/wal_format.h"
#include "unit/wal_written.h"

#include <string.h>

/* ---- writes that lie ---- */

/* The disk says OK to the group with a vote and to the mark behind it, and keeps neither. The base,
 * written after them, knows of the vote: a log without it must not vote again. */
static void test_lost_vote_that_the_base_knows_of_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct written written = written_create();
        written_fill(&written, 2, 2, true);
        struct wal_recovery recovery;
        struct wal *wal = written_open(&written, &recovery);
        struct raft_hard_state vote = {.term = 5};
        struct wal_append append = {.hard_state = &vote};
        assert_int_equal(wal_write(wal, &append), ERR_OK);
        assert_int_equal(wal_sync(wal), ERR_OK);
        struct buf before;
        buf_init(&before);
        assert_true(fake_vfs_file_bytes(written.fake, FIRST_SEGMENT, &before));
        /* A term, a vote in a term that the log knows, and a commit hint: that one is no promise.
         */
        static const struct raft_hard_state lost[] = {
            {.term = 6}, {.term = 5, .voted_for = 2}, {.term = 5, .commit = 1}};
        vote = lost[i];
        assert_int_equal(wal_write(wal, &append), ERR_OK);
        assert_int_equal(wal_sync(wal), ERR_OK);
        struct raft_membership membership = wal_test_membership(3);
        assert_int_equal(wal_compact(wal, (struct raft_position){1, 1}, &membership), ERR_OK);
        damaged_close(wal, &recovery);
        assert_true(fake_vfs_poke(written.fake, FIRST_SEGMENT, 0, buf_view(&before)));
        int expected = i == 2 ? ERR_OK : ERR_CORRUPT;
        assert_int_equal(damaged_open(written.fake, "", &wal, &recovery), expected);
        if (expected == ERR_OK) {
            damaged_close(wal, &recovery);
        }
        buf_deinit(&before);
        written_destroy(&written);
    }
}

/* What is durable but not marked yet looks like a torn tail when it is damaged; once it is marked,
 * it is missed. A mark that comes after another write must not speak for that one. */
static void test_mark_speaks_for_what_was_synced_and_no_more(void **state)
{
    (void)state;
    static const struct {
        bool mark;
        bool write_first; /* another group, between the sync and the mark */
        int expected;
    } cases[] = {{false, false, ERR_OK}, {true, false, ERR_CORRUPT}, {true, true, ERR_OK}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct written written = written_create();
        written_fill(&written, 2, 2, true);
        struct wal_recovery recovery;
        struct wal *wal = written_open(&written, &recovery);
        written_append(&written, wal, 0, 2, 5);
        assert_int_equal(wal_make_durable(wal), ERR_OK);
        if (cases[i].write_first) {
            written_append(&written, wal, 0, 2, 5);
        }
        if (cases[i].mark) {
            assert_int_equal(wal_mark(wal), ERR_OK);
        }
        damaged_close(wal, &recovery);
        uint64_t end = segment_end(written.fake, FIRST_SEGMENT);
        assert_true(fake_vfs_flip_bit(written.fake, FIRST_SEGMENT, (end - 1) * 8));
        assert_int_equal(damaged_open(written.fake, "", &wal, &recovery), cases[i].expected);
        if (cases[i].expected == ERR_OK) {
            damaged_close(wal, &recovery);
        }
        written_destroy(&written);
    }
}

static void test_lost_write_before_synced_ones_is_refused(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 2, 2, true);
    struct wal_recovery recovery;
    struct wal *wal = written_open(&written, &recovery);
    fake_vfs_lie(written.fake, FAKE_WRITE, 1);
    for (unsigned i = 0; i < 3; i++) {
        written_append(&written, wal, 0, 3, 5);
        assert_int_equal(wal_sync(wal), ERR_OK);
    }
    assert_int_equal(fake_vfs_fault_count(written.fake), 1);
    damaged_close(wal, &recovery);
    fake_vfs_crash_as(written.fake, FAKE_CRASH_LOSE, NULL);
    assert_int_equal(damaged_open(written.fake, "0000000000000001.wal", &wal, &recovery),
                     ERR_CORRUPT);
    written_destroy(&written);
}

/* A group's own bytes, elsewhere in its own segment: valid in all but place. */
static void test_misdirected_group_is_not_taken(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 3, 2, false);
    uint64_t end = segment_end(written.fake, FIRST_SEGMENT);
    struct buf bytes;
    buf_init(&bytes);
    assert_true(fake_vfs_file_bytes(written.fake, FIRST_SEGMENT, &bytes));
    struct bytes groups = bytes_of(bytes.data + WAL_SEGMENT_DATA_AT, end - WAL_SEGMENT_DATA_AT);
    assert_true(fake_vfs_poke(written.fake, FIRST_SEGMENT, end, groups));
    struct wal_recovery recovery;
    struct wal *wal = written_open(&written, &recovery);
    assert_true(recovery.torn_bytes_cut > 0);
    wal_test_expect(wal, &recovery, written_now(&written));
    damaged_close(wal, &recovery);
    buf_deinit(&bytes);
    written_destroy(&written);
}

/* ---- tails that could rise again ---- */

static struct raft_entry fixed_entry(uint64_t index, uint64_t term, const uint8_t *payload,
                                     size_t size)
{
    return (struct raft_entry){
        .position = {index, term}, .kind = RAFT_ENTRY_COMMAND, .data = bytes_of(payload, size)};
}

/* B and C, not synced. B is torn, so both are cut. A new B of the same size is written, and the
 * sector behind it, with the zeroes that end the log, does not reach the disk: had C not been
 * zeroed, it would be there again. */
static void test_cut_group_does_not_follow_a_new_one(void **state)
{
    (void)state;
    enum { SIZE = 960, END = WAL_SEGMENT_DATA_AT + 64 + SIZE };
    static_assert(END % FAKE_SECTOR_BYTES == 0, "the group ends with a sector");
    struct written written = written_create();
    struct wal_recovery recovery;
    struct wal *wal = written_open(&written, &recovery);
    uint8_t payload[SIZE];
    memset(payload, 'o', SIZE);
    for (uint64_t index = 1; index <= 2; index++) {
        struct raft_entry entry = fixed_entry(index, 1, payload, SIZE);
        struct wal_append append = {.entries = &entry, .entry_count = 1};
        assert_int_equal(wal_write(wal, &append), ERR_OK);
    }
    damaged_close(wal, &recovery);
    fake_vfs_crash_as(written.fake, FAKE_CRASH_KEEP, NULL);
    assert_true(fake_vfs_flip_bit(written.fake, FIRST_SEGMENT, (END - 100) * 8));
    wal = written_open(&written, &recovery);
    assert_int_equal(recovery.last.index, 0);
    assert_int_equal(recovery.torn_bytes_cut, END + 64 + SIZE - WAL_SEGMENT_DATA_AT);
    struct buf cut;
    buf_init(&cut);
    assert_true(fake_vfs_file_bytes(written.fake, FIRST_SEGMENT, &cut));
    memset(payload, 'n', SIZE);
    struct raft_entry entry = fixed_entry(1, 1, payload, SIZE);
    struct wal_append append = {.entries = &entry, .entry_count = 1};
    assert_int_equal(wal_write(wal, &append), ERR_OK);
    damaged_close(wal, &recovery);
    fake_vfs_crash_as(written.fake, FAKE_CRASH_KEEP, NULL);
    assert_true(fake_vfs_poke(written.fake, FIRST_SEGMENT, END,
                              bytes_of(cut.data + END, FAKE_SECTOR_BYTES)));
    wal = written_open(&written, &recovery);
    assert_int_equal(recovery.last.index, 1);
    damaged_close(wal, &recovery);
    buf_deinit(&cut);
    written_destroy(&written);
}

/* The records of an older group of the same shape, at the same offsets, under a new group's header.
 */
static void test_new_header_over_old_records_is_torn(void **state)
{
    (void)state;
    enum { SIZE = 1000 };
    struct written written = written_create();
    struct wal_recovery recovery;
    struct wal *wal = written_open(&written, &recovery);
    uint8_t old_payload[SIZE];
    uint8_t new_payload[SIZE];
    memset(old_payload, 'o', SIZE);
    memset(new_payload, 'n', SIZE);
    struct raft_entry entry = fixed_entry(1, 1, old_payload, SIZE);
    struct wal_append append = {.entries = &entry, .entry_count = 1};
    assert_int_equal(wal_write(wal, &append), ERR_OK);
    damaged_close(wal, &recovery);
    fake_vfs_crash_as(written.fake, FAKE_CRASH_KEEP, NULL);
    struct buf old;
    buf_init(&old);
    assert_true(fake_vfs_file_bytes(written.fake, FIRST_SEGMENT, &old));
    /* The group's header did not reach the disk, its record did. */
    uint8_t zeroes[WAL_GROUP_HEADER_BYTES] = {0};
    uint64_t record_at = WAL_SEGMENT_DATA_AT + WAL_GROUP_HEADER_BYTES;
    assert_true(fake_vfs_poke(written.fake, FIRST_SEGMENT, WAL_SEGMENT_DATA_AT,
                              bytes_of(zeroes, sizeof(zeroes))));
    wal = written_open(&written, &recovery);
    assert_int_equal(recovery.last.index, 0);
    entry = fixed_entry(1, 2, new_payload, SIZE);
    assert_int_equal(wal_write(wal, &append), ERR_OK);
    damaged_close(wal, &recovery);
    fake_vfs_crash_as(written.fake, FAKE_CRASH_KEEP, NULL);
    /* Now the header did, and the record did not. */
    struct bytes record = bytes_of(old.data + record_at, (size_t)wal_record_bytes(SIZE));
    assert_true(fake_vfs_poke(written.fake, FIRST_SEGMENT, record_at, record));
    wal = written_open(&written, &recovery);
    assert_int_equal(recovery.last.index, 0);
    assert_true(recovery.torn_bytes_cut > 0);
    damaged_close(wal, &recovery);
    buf_deinit(&old);
    written_destroy(&written);
}

static void test_recycled_segment_old_bytes_are_no_tail(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 12, 20, true);
    struct wal_recovery recovery;
    struct wal *wal = written_open(&written, &recovery);
    uint64_t last = written_now(&written)->last.index;
    wal_model_compact(written_now(&written), last, 4);
    struct raft_membership membership = wal_test_membership(4);
    assert_int_equal(wal_compact(wal, written_now(&written)->base, &membership), ERR_OK);
    struct wal_stats stats;
    wal_stats(wal, &stats);
    assert_true(stats.spare_count > 0);
    do {
        written_append(&written, wal, 0, 5, 9);
        wal_stats(wal, &stats);
    } while (stats.segment_count < 2);
    damaged_close(wal, &recovery);
    fake_vfs_crash_as(written.fake, FAKE_CRASH_KEEP, NULL);
    wal = written_open(&written, &recovery);
    assert_int_equal(recovery.torn_bytes_cut, 0);
    wal_test_expect(wal, &recovery, written_now(&written));
    damaged_close(wal, &recovery);
    written_destroy(&written);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_vote_that_the_base_knows_of_is_refused),
        cmocka_unit_test(test_mark_speaks_for_what_was_synced_and_no_more),
        cmocka_unit_test(test_lost_write_before_synced_ones_is_refused),
        cmocka_unit_test(test_misdirected_group_is_not_taken),
        cmocka_unit_test(test_cut_group_does_not_follow_a_new_one),
        cmocka_unit_test(test_new_header_over_old_records_is_torn),
        cmocka_unit_test(test_recycled_segment_old_bytes_are_no_tail),
    };
    log_set_level((enum log_level)(LOG_ERROR + 1)); /* each refusal would be a line */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
