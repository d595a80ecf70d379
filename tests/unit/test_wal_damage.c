/* What a disk may do to a log at rest, and what recovery must make of it: everything, a prefix when
 * the tail was never acknowledged, or a refusal that names the file and the offset. Never wrong
 * entries. (test_wal_lost_writes.c has what it may do to writes.) */
#include "base/log.h"
#include "raft/wal/wal_format.h"
#include "unit/wal_written.h"

#include <string.h>

/* ---- cuts ---- */

/* A log cut anywhere holds a prefix, and goes on from there. */
static void test_file_cut_at_every_offset_recovers_a_prefix(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 6, 2, true);
    uint64_t end = segment_end(written.fake, FIRST_SEGMENT);
    size_t states_seen = 0;
    size_t last_behind = SIZE_MAX;
    for (uint64_t cut = 0; cut <= end + WAL_TAIL_BYTES; cut++) {
        struct fake_vfs *fake = fake_vfs_clone(written.fake);
        assert_true(fake_vfs_cut(fake, FIRST_SEGMENT, cut));
        struct wal *wal;
        struct wal_recovery recovery;
        int error = damaged_open(fake, "0000000000000001.wal", &wal, &recovery);
        if (cut <= 72) { /* its last byte that is not zero, of the flags */
            assert_int_equal(error, ERR_CORRUPT);
        } else {
            assert_int_equal(error, ERR_OK);
            size_t behind = written_states_behind(&written, wal, &recovery);
            states_seen += behind != last_behind;
            last_behind = behind;
            struct wal_model model = written.states[written.state_count - 1 - behind];
            struct wal_model before = model;
            wal_model_append(&model, 0, 2, 9);
            assert_int_equal(wal_test_write(wal, &before, &model, 0), ERR_OK);
            assert_int_equal(wal_sync(wal), ERR_OK);
            damaged_close(wal, &recovery);
            fake_vfs_crash_as(fake, FAKE_CRASH_LOSE, NULL);
            wal = wal_test_open(fake, 5, 0, &recovery);
            wal_test_expect(wal, &recovery, &model);
            damaged_close(wal, &recovery);
        }
        fake_vfs_destroy(fake);
    }
    assert_int_equal(last_behind, 0);
    assert_int_equal(states_seen, written.state_count);
    written_destroy(&written);
}

/* ---- flips ---- */

struct flip_counts {
    uint64_t whole;
    uint64_t prefix;
    uint64_t refused;
};

static void flip_one(const struct written *written, const char *path, const char *name,
                     uint64_t bit, struct flip_counts *counts)
{
    struct fake_vfs *fake = fake_vfs_clone(written->fake);
    assert_true(fake_vfs_flip_bit(fake, path, bit));
    struct wal *wal;
    struct wal_recovery recovery;
    if (damaged_open(fake, name, &wal, &recovery) == ERR_OK) {
        if (written_states_behind(written, wal, &recovery) == 0) {
            counts->whole++;
        } else {
            counts->prefix++;
        }
        damaged_close(wal, &recovery);
    } else {
        counts->refused++;
    }
    fake_vfs_destroy(fake);
}

/* After a sync the mark witnesses it: no flip at all may cost an acknowledged entry without being
 * told. */
static void test_flip_of_every_byte_in_a_synced_log_loses_nothing(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 6, 2, true);
    uint64_t end = segment_end(written.fake, FIRST_SEGMENT);
    struct flip_counts header = {0};
    struct flip_counts groups = {0};
    struct flip_counts behind = {0};
    for (uint64_t byte = 0; byte < end + 256; byte++) {
        struct flip_counts *counts = byte < WAL_SEGMENT_DATA_AT ? &header
                                     : byte < end               ? &groups
                                                                : &behind;
        flip_one(&written, FIRST_SEGMENT, "0000000000000001.wal", byte * 8 + byte % 8, counts);
    }
    /* Of the header there are two copies. Behind the end there is nothing to lose. */
    assert_int_equal(header.whole, WAL_SEGMENT_DATA_AT);
    assert_int_equal(groups.refused, end - WAL_SEGMENT_DATA_AT);
    assert_int_equal(behind.whole, 256);
    written_destroy(&written);
}

static void test_flip_of_every_byte_in_an_unsynced_tail_gives_a_prefix(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 3, 2, true);
    uint64_t synced_end = segment_end(written.fake, FIRST_SEGMENT);
    size_t synced = written.state_count - 1;
    written_fill(&written, 4, 2, false);
    uint64_t end = segment_end(written.fake, FIRST_SEGMENT);
    struct flip_counts acknowledged = {0};
    struct flip_counts tail = {0};
    for (uint64_t byte = WAL_SEGMENT_DATA_AT; byte < end; byte++) {
        flip_one(&written, FIRST_SEGMENT, "0000000000000001.wal", byte * 8 + byte % 8,
                 byte < synced_end ? &acknowledged : &tail);
    }
    assert_int_equal(acknowledged.refused, synced_end - WAL_SEGMENT_DATA_AT);
    assert_int_equal(tail.prefix, end - synced_end);
    assert_true(synced > 0);
    written_destroy(&written);
}

static void test_flip_in_a_sealed_segment_is_refused(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 20, 20, true);
    uint64_t end = segment_end(written.fake, FIRST_SEGMENT);
    struct flip_counts groups = {0};
    uint64_t flips = 0;
    for (uint64_t byte = WAL_SEGMENT_DATA_AT; byte < end; byte += 131) {
        flip_one(&written, FIRST_SEGMENT, "0000000000000001.wal", byte * 8 + byte % 8, &groups);
        flips++;
    }
    assert_int_equal(groups.refused, flips);
    struct flip_counts header = {0};
    for (uint64_t byte = 0; byte < WAL_SEGMENT_DATA_AT; byte += 3) {
        flip_one(&written, SECOND_SEGMENT, "0000000000000002.wal", byte * 8 + byte % 8, &header);
    }
    assert_int_equal(header.refused + header.prefix, 0);
    written_destroy(&written);
}

static void test_flip_of_every_byte_of_base_is_refused(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 4, 2, true);
    uint64_t size;
    assert_true(fake_vfs_file_size(written.fake, "/log/base", &size));
    struct flip_counts counts = {0};
    for (uint64_t byte = 0; byte < size; byte++) {
        flip_one(&written, "/log/base", "base", byte * 8 + byte % 8, &counts);
    }
    assert_int_equal(counts.refused, size);
    written_destroy(&written);
}

static void test_damaged_header_copy_is_written_again(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 4, 2, true);
    for (unsigned copy = 0; copy < 2; copy++) {
        uint64_t byte = copy * WAL_SEGMENT_HEADER_COPY_AT + 20;
        assert_true(fake_vfs_flip_bit(written.fake, FIRST_SEGMENT, byte * 8));
        struct wal_recovery recovery;
        struct wal *wal = written_open(&written, &recovery);
        damaged_close(wal, &recovery);
        fake_vfs_crash_as(written.fake, FAKE_CRASH_LOSE, NULL);
    }
    /* Each was repaired before the other one was hit. */
    struct wal_recovery recovery;
    struct wal *wal = written_open(&written, &recovery);
    wal_test_expect(wal, &recovery, written_now(&written));
    damaged_close(wal, &recovery);
    written_destroy(&written);
}

/* ---- files ---- */

static void remove_and_expect_refused(const struct written *written, const char *path,
                                      const char *named)
{
    struct fake_vfs *fake = fake_vfs_clone(written->fake);
    const struct vfs *vfs = fake_vfs_vfs(fake);
    assert_int_equal(vfs->remove(vfs->context, path), ERR_OK);
    struct wal *wal;
    struct wal_recovery recovery;
    assert_int_equal(damaged_open(fake, named, &wal, &recovery), ERR_CORRUPT);
    fake_vfs_destroy(fake);
}

static void test_missing_file_is_refused(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 30, 20, true);
    remove_and_expect_refused(&written, "/log/base", "base");
    remove_and_expect_refused(&written, FIRST_SEGMENT, "0000000000000001.wal");
    remove_and_expect_refused(&written, SECOND_SEGMENT, "0000000000000002.wal");
    written_destroy(&written);
}

/* The second segment's header as if it followed another first one. */
static void test_segment_that_does_not_follow_is_refused(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 30, 20, true);
    struct buf bytes;
    buf_init(&bytes);
    assert_true(fake_vfs_file_bytes(written.fake, SECOND_SEGMENT, &bytes));
    struct wal_segment_header good;
    assert_true(wal_segment_header_decode(bytes.data, 0, &good));
    for (unsigned i = 0; i < 5; i++) {
        struct wal_segment_header header = good;
        header.previous_salt += i == 0;
        header.previous_end -= i == 1 ? 8 : 0;
        header.previous_end += i == 2 ? 8 : 0;
        header.start.index += i == 3;
        header.start.term += i == 4;
        buf_clear(&bytes);
        wal_segment_header_encode(&header, &bytes);
        struct fake_vfs *fake = fake_vfs_clone(written.fake);
        assert_true(
            fake_vfs_poke(fake, SECOND_SEGMENT, 0, bytes_of(bytes.data, WAL_SEGMENT_DATA_AT)));
        struct wal *wal;
        struct wal_recovery recovery;
        assert_int_equal(damaged_open(fake, "", &wal, &recovery), ERR_CORRUPT);
        fake_vfs_destroy(fake);
    }
    buf_deinit(&bytes);
    written_destroy(&written);
}

static void test_older_base_is_refused(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 4, 2, true);
    struct buf base;
    buf_init(&base);
    assert_true(fake_vfs_file_bytes(written.fake, "/log/base", &base));
    struct wal_recovery recovery;
    struct wal *wal = written_open(&written, &recovery);
    struct raft_membership membership = wal_test_membership(3);
    assert_int_equal(wal_reset(wal, (struct raft_position){90, 9}, &membership, false), ERR_OK);
    wal_model_reset(written_now(&written), (struct raft_position){90, 9}, 3);
    written_append(&written, wal, 0, 5, 9);
    assert_int_equal(wal_sync(wal), ERR_OK);
    damaged_close(wal, &recovery);
    const struct vfs *vfs = fake_vfs_vfs(written.fake);
    assert_int_equal(vfs_write_atomic(vfs, WAL_TEST_DIR, "base", buf_view(&base)), ERR_OK);
    assert_int_equal(damaged_open(written.fake, "", &wal, &recovery), ERR_CORRUPT);
    buf_deinit(&base);
    written_destroy(&written);
}

/* ---- while it runs, or is opened ---- */

static void test_read_of_a_damaged_entry_is_corrupt(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 6, 5, true);
    uint64_t end = segment_end(written.fake, FIRST_SEGMENT);
    struct wal_recovery recovery;
    struct wal *wal = written_open(&written, &recovery);
    struct wal_model *model = written_now(&written);
    struct rng rng;
    rng_init(&rng, 8);
    unsigned corrupt = 0;
    for (unsigned i = 0; i < 300; i++) {
        uint64_t bit = rng_between(&rng, WAL_SEGMENT_DATA_AT * 8, end * 8 - 1);
        assert_true(fake_vfs_flip_bit(written.fake, FIRST_SEGMENT, bit));
        struct raft_entry *entries;
        size_t count;
        int error = wal_read(wal, 1, model->last.index, UINT64_MAX, &entries, &count);
        if (error == ERR_OK) {
            /* A dead entry, a group's header field that readers skip, or a truncation was hit. */
            for (size_t j = 0; j < count; j++) {
                struct raft_entry expected = wal_test_entry(entries[j].position);
                assert_int_equal(entries[j].position.term, model->terms[j + 1]);
                assert_true(bytes_equal(entries[j].data, expected.data));
                blob_unref(expected.owner);
            }
            assert_int_equal(count, model->last.index);
            wal_entries_free(entries, count);
        } else {
            assert_int_equal(error, ERR_CORRUPT);
            corrupt++;
        }
        assert_true(fake_vfs_flip_bit(written.fake, FIRST_SEGMENT, bit));
    }
    assert_true(corrupt > 100);
    damaged_close(wal, &recovery);
    written_destroy(&written);
}

static void test_entry_over_limit_on_disk_is_damage(void **state)
{
    (void)state;
    struct written written = written_create();
    written_fill(&written, 6, 5, true);
    struct wal_options options = wal_test_options(3);
    options.entry_bytes_max = 100;
    struct wal *wal;
    struct wal_recovery recovery;
    char why[WAL_TEST_WHY_BYTES];
    assert_int_equal(wal_open(fake_vfs_vfs(written.fake), WAL_TEST_DIR, &options, NULL, 0, &wal,
                              &recovery, why, sizeof(why)),
                     ERR_CORRUPT);
    assert_non_null(strstr(why, "entry_bytes_max"));
    written_destroy(&written);
}

/* Every call that looks at the disk while a log is opened, failed once each: it is said where,
 * nothing is taken for what it is not, and the same log opens when the disk works again. */
static void test_failed_call_while_opening_is_told(void **state)
{
    (void)state;
    static const enum fake_op calls[] = {FAKE_OPEN, FAKE_READ};
    struct written written = written_create();
    written_fill(&written, 40, 3, true);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        uint64_t failures = 0;
        for (uint64_t nth = 1;; nth++) {
            struct fake_vfs *fake = fake_vfs_clone(written.fake);
            struct wal_options options = wal_test_options(77);
            struct wal_recovery recovery;
            struct wal *wal = NULL;
            char why[WAL_TEST_WHY_BYTES] = "";
            fake_vfs_fail(fake, calls[i], nth, ERR_IO);
            int error = wal_open(fake_vfs_vfs(fake), WAL_TEST_DIR, &options, NULL, 3000, &wal,
                                 &recovery, why, sizeof(why));
            bool struck = fake_vfs_fault_count(fake) > 0;
            fake_vfs_fail(fake, calls[i], 0, ERR_OK);
            if (error == ERR_OK) {
                wal_test_expect(wal, &recovery, written_now(&written));
                wal_recovery_free(&recovery);
                wal_close(wal);
            } else {
                assert_int_equal(error, ERR_IO);
                assert_non_null(strstr(why, WAL_TEST_DIR));
                failures++;
                assert_int_equal(wal_open(fake_vfs_vfs(fake), WAL_TEST_DIR, &options, NULL, 3000,
                                          &wal, &recovery, why, sizeof(why)),
                                 ERR_OK);
                wal_test_expect(wal, &recovery, written_now(&written));
                wal_recovery_free(&recovery);
                wal_close(wal);
            }
            fake_vfs_destroy(fake);
            if (!struck) {
                break; /* there were not so many */
            }
        }
        assert_true(failures > 0);
    }
    written_destroy(&written);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_cut_at_every_offset_recovers_a_prefix),
        cmocka_unit_test(test_flip_of_every_byte_in_a_synced_log_loses_nothing),
        cmocka_unit_test(test_flip_of_every_byte_in_an_unsynced_tail_gives_a_prefix),
        cmocka_unit_test(test_flip_in_a_sealed_segment_is_refused),
        cmocka_unit_test(test_flip_of_every_byte_of_base_is_refused),
        cmocka_unit_test(test_damaged_header_copy_is_written_again),
        cmocka_unit_test(test_missing_file_is_refused),
        cmocka_unit_test(test_segment_that_does_not_follow_is_refused),
        cmocka_unit_test(test_older_base_is_refused),
        cmocka_unit_test(test_read_of_a_damaged_entry_is_corrupt),
        cmocka_unit_test(test_entry_over_limit_on_disk_is_damage),
        cmocka_unit_test(test_failed_call_while_opening_is_told),
    };
    log_set_level((enum log_level)(LOG_ERROR + 1)); /* every flip would be a line */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
