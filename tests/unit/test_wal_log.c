/* The log as its owner sees it: append, read, truncate, rotate, compact, reset, reopen, fail. */
#include "unit/wal_test.h"

#include <stdlib.h>
#include <string.h>

struct fixture {
    struct fake_vfs *fake;
    struct wal *wal;
    struct wal_recovery recovery;
    struct wal_model model;
    uint64_t opens;
};

static struct fixture fixture_open(void)
{
    struct fixture fixture = {.fake = wal_test_disk(1)};
    wal_model_init(&fixture.model);
    fixture.model.base_member = 7;
    fixture.wal = wal_test_open(fixture.fake, fixture.opens++, 0, &fixture.recovery);
    return fixture;
}

static void fixture_reopen(struct fixture *fixture, enum fake_crash how)
{
    wal_recovery_free(&fixture->recovery);
    wal_close(fixture->wal);
    fake_vfs_crash_as(fixture->fake, how, NULL);
    fixture->wal = wal_test_open(fixture->fake, fixture->opens++, 5000, &fixture->recovery);
}

static void fixture_close(struct fixture *fixture)
{
    wal_recovery_free(&fixture->recovery);
    wal_close(fixture->wal);
    fake_vfs_destroy(fixture->fake);
}

static void fixture_append(struct fixture *fixture, uint64_t truncate_from, size_t count,
                           uint64_t term)
{
    struct wal_model before = fixture->model;
    wal_model_append(&fixture->model, truncate_from, count, term);
    assert_int_equal(wal_test_write(fixture->wal, &before, &fixture->model, truncate_from), ERR_OK);
}

static void fixture_compact(struct fixture *fixture, uint64_t index, uint64_t member)
{
    wal_model_compact(&fixture->model, index, member);
    struct raft_membership membership = wal_test_membership(member);
    assert_int_equal(wal_compact(fixture->wal, fixture->model.base, &membership), ERR_OK);
}

static void fixture_sync(struct fixture *fixture)
{
    assert_int_equal(wal_sync(fixture->wal), ERR_OK);
}

static void fixture_expect_after(struct fixture *fixture, enum fake_crash how)
{
    fixture_reopen(fixture, how);
    wal_test_expect(fixture->wal, &fixture->recovery, &fixture->model);
}

static void test_open_empty_directory_is_fresh(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    assert_true(fixture.recovery.fresh);
    assert_int_equal(fixture.recovery.last.index, 0);
    assert_int_equal(fixture.recovery.membership.members[0].id, 7);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    assert_false(fixture.recovery.fresh);
    assert_int_equal(fixture.recovery.membership.members[0].id, 7);
    fixture_close(&fixture);
}

static void test_append_sync_reopen_gives_the_same(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    for (unsigned i = 0; i < 20; i++) {
        wal_model_hard_state(&fixture.model, i / 4 + 1, i + 1);
        struct wal_model before = fixture.model;
        before.hard_state.term = 0; /* so that it counts as changed */
        wal_model_append(&fixture.model, 0, i % 5, i / 4 + 1);
        assert_int_equal(wal_test_write(fixture.wal, &before, &fixture.model, 0), ERR_OK);
    }
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    assert_int_equal(fixture.recovery.torn_bytes_cut, 0);
    fixture_close(&fixture);
}

static void test_append_unsynced_lost_power_keeps_the_synced_prefix(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 10, 1);
    fixture_sync(&fixture);
    struct wal_model synced = fixture.model;
    fixture_append(&fixture, 0, 10, 1);
    fixture.model = synced;
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_append(&fixture, 0, 3, 2);
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_append_unsynced_process_killed_keeps_all(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 10, 1);
    fixture_expect_after(&fixture, FAKE_CRASH_KEEP);
    /* Opening told the caller that it is durable, so now it must be. */
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_truncate_then_append_overwrites(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 50, 1);
    fixture_append(&fixture, 20, 10, 2);
    fixture_append(&fixture, 25, 0, 0);
    fixture_append(&fixture, 0, 5, 3);
    fixture_append(&fixture, 1, 0, 0);
    fixture_append(&fixture, 0, 40, 4);
    fixture_append(&fixture, 41, 7, 5); /* cuts nothing */
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_append_many_rotates_and_reads_across_segments(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    for (unsigned i = 0; i < 60; i++) {
        fixture_append(&fixture, i % 7 == 6 ? fixture.model.last.index - 3 : 0, 20, i / 7 + 1);
    }
    fixture_sync(&fixture);
    struct wal_stats stats;
    wal_stats(fixture.wal, &stats);
    assert_true(stats.segment_count > 5);
    assert_int_equal(stats.last.index, fixture.model.last.index);
    fixture.recovery.last = fixture.model.last;
    struct wal_model found;
    wal_test_read_model(fixture.wal, &fixture.recovery, &found);
    assert_memory_equal(found.terms, fixture.model.terms, sizeof(found.terms));
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_append_larger_than_segment_gets_its_own(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 3, 1);
    size_t size = 300 * 1024 + 3;
    uint8_t *payload = mem_alloc(size);
    memset(payload, 0xa5, size);
    struct raft_entry entry = {
        .position = {4, 1}, .kind = RAFT_ENTRY_COMMAND, .data = bytes_of(payload, size)};
    struct wal_append append = {.entries = &entry, .entry_count = 1};
    assert_int_equal(wal_write(fixture.wal, &append), ERR_OK);
    fixture_sync(&fixture);
    fixture_reopen(&fixture, FAKE_CRASH_LOSE);
    assert_int_equal(fixture.recovery.last.index, 4);
    struct raft_entry *entries;
    size_t count;
    assert_int_equal(wal_read(fixture.wal, 1, 100, UINT64_MAX, &entries, &count), ERR_OK);
    assert_int_equal(count, 4);
    assert_int_equal(entries[3].data.size, size);
    assert_memory_equal(entries[3].data.data, payload, size);
    wal_entries_free(entries, count);
    free(payload);
    fixture_close(&fixture);
}

static void test_append_group_over_one_write_chunk_is_whole(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    enum { COUNT = 5, SIZE = 700 * 1024 + 5 };
    uint8_t *payload = mem_alloc(SIZE);
    struct raft_entry entries[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        entries[i] = (struct raft_entry){
            .position = {i + 1, 1}, .kind = RAFT_ENTRY_COMMAND, .data = bytes_of(payload, SIZE)};
    }
    for (unsigned i = 0; i < SIZE; i++) {
        payload[i] = (uint8_t)(i * 7);
    }
    struct wal_append append = {.entries = entries, .entry_count = COUNT};
    assert_int_equal(wal_write(fixture.wal, &append), ERR_OK);
    fixture_sync(&fixture);
    fixture_reopen(&fixture, FAKE_CRASH_LOSE);
    struct raft_entry *found;
    size_t count;
    assert_int_equal(wal_read(fixture.wal, 2, 5, UINT64_MAX, &found, &count), ERR_OK);
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(found[i].position.index, i + 2);
        assert_memory_equal(found[i].data.data, payload, SIZE);
    }
    wal_entries_free(found, count);
    free(payload);
    fixture_close(&fixture);
}

static void test_append_entry_over_limit_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    size_t size = 1024 * 1024 + 1;
    uint8_t *payload = mem_calloc(1, size);
    struct raft_entry entry = {
        .position = {1, 1}, .kind = RAFT_ENTRY_COMMAND, .data = bytes_of(payload, size)};
    struct wal_append append = {.entries = &entry, .entry_count = 1};
    assert_int_equal(wal_write(fixture.wal, &append), ERR_TOO_LARGE);
    free(payload);
    fixture_append(&fixture, 0, 3, 1);
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_read_respects_bounds(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 100, 1);
    struct raft_entry *entries;
    size_t count;
    assert_int_equal(wal_read(fixture.wal, 101, 200, 1000, &entries, &count), ERR_NOT_FOUND);
    assert_int_equal(wal_read(fixture.wal, 0, 200, 1000, &entries, &count), ERR_NOT_FOUND);
    assert_int_equal(wal_read(fixture.wal, 10, 14, UINT64_MAX, &entries, &count), ERR_OK);
    assert_int_equal(count, 5);
    wal_entries_free(entries, count);
    assert_int_equal(wal_read(fixture.wal, 10, 100, 0, &entries, &count), ERR_OK);
    assert_int_equal(count, 1);
    wal_entries_free(entries, count);
    assert_int_equal(wal_read(fixture.wal, 1, 100, 4000, &entries, &count), ERR_OK);
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += raft_entry_bytes(&entries[i]);
    }
    assert_true(count > 1 && count < 100);
    assert_true(bytes <= 4000);
    wal_entries_free(entries, count);
    fixture_compact(&fixture, 30, 3);
    assert_int_equal(wal_read(fixture.wal, 30, 100, 1000, &entries, &count), ERR_NOT_FOUND);
    assert_int_equal(wal_read(fixture.wal, 31, 31, 1000, &entries, &count), ERR_OK);
    assert_int_equal(count, 1);
    wal_entries_free(entries, count);
    fixture_close(&fixture);
}

static void test_recovery_tail_is_bounded_and_newest(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 200, 1);
    fixture_append(&fixture, 190, 10, 2);
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    assert_true(fixture.recovery.tail_count > 0);
    size_t bytes = 0;
    for (size_t i = 0; i < fixture.recovery.tail_count; i++) {
        bytes += raft_entry_bytes(&fixture.recovery.tail[i]);
    }
    assert_true(bytes <= 5000);
    assert_int_equal(fixture.recovery.tail[fixture.recovery.tail_count - 1].position.index, 199);
    fixture_close(&fixture);
}

static void test_compact_at_every_index_keeps_the_rest(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    for (unsigned i = 0; i < 30; i++) {
        fixture_append(&fixture, i % 5 == 4 ? fixture.model.last.index - 8 : 0, 10, i + 1);
    }
    wal_model_hard_state(&fixture.model, 40, 3);
    struct wal_model before = fixture.model;
    before.hard_state.term = 0;
    assert_int_equal(wal_test_write(fixture.wal, &before, &fixture.model, 0), ERR_OK);
    for (uint64_t index = 1; index <= fixture.model.last.index; index++) {
        fixture_compact(&fixture, index, index);
        fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    }
    fixture_append(&fixture, 0, 10, 50);
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_compact_frees_segments_and_reuses_them(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < 15; i++) {
            fixture_append(&fixture, 0, 20, round + 1);
        }
        fixture_compact(&fixture, fixture.model.last.index - 5, round + 1);
        assert_int_equal(wal_prepare_spares(fixture.wal), ERR_OK);
        struct wal_stats stats;
        wal_stats(fixture.wal, &stats);
        assert_true(stats.segment_count <= 2);
        assert_int_equal(stats.spare_count, 2);
        assert_true(stats.log_bytes <= 2 * 64 * 1024);
        fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    }
    /* The old segments' bytes are still in the files; none of them may come back. */
    assert_true(fake_vfs_space_used(fixture.fake) <= 5 * 64 * 1024 + 4096);
    fixture_close(&fixture);
}

static void test_compact_truncated_history_below_base_is_accepted(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 60, 1);
    fixture_append(&fixture, 0, 60, 3);
    /* Everything live beyond 30 lies behind a truncation that the first segments know nothing of.
     */
    fixture_append(&fixture, 31, 100, 5);
    fixture_append(&fixture, 40, 100, 9);
    fixture_sync(&fixture);
    for (uint64_t index = 30; index <= 60; index++) {
        fixture_compact(&fixture, index, 2);
        fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    }
    fixture_close(&fixture);
}

static void test_reset_forgets_all_but_the_hard_state(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 100, 2);
    struct wal_model before = fixture.model;
    wal_model_hard_state(&fixture.model, 4, 3);
    assert_int_equal(wal_test_write(fixture.wal, &before, &fixture.model, 0), ERR_OK);
    struct raft_position position = {500, 4};
    struct raft_membership membership = wal_test_membership(9);
    wal_model_reset(&fixture.model, position, 9);
    assert_int_equal(wal_reset(fixture.wal, position, &membership, true), ERR_OK);
    struct raft_entry *entries;
    size_t count;
    assert_int_equal(wal_read(fixture.wal, 50, 60, 1000, &entries, &count), ERR_NOT_FOUND);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_append(&fixture, 0, 10, 5);
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_reset_keeps_a_matching_suffix_only_when_asked(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 100, 2);
    struct raft_membership membership = wal_test_membership(9);
    wal_model_compact(&fixture.model, 40, 9);
    assert_int_equal(wal_reset(fixture.wal, (struct raft_position){40, 2}, &membership, true),
                     ERR_OK);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    /* Another term at the position: the suffix belongs to another history. */
    wal_model_reset(&fixture.model, (struct raft_position){60, 3}, 9);
    assert_int_equal(wal_reset(fixture.wal, (struct raft_position){60, 3}, &membership, true),
                     ERR_OK);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_append(&fixture, 0, 30, 4);
    wal_model_reset(&fixture.model, (struct raft_position){70, 4}, 9);
    assert_int_equal(wal_reset(fixture.wal, (struct raft_position){70, 4}, &membership, false),
                     ERR_OK);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static bool stop_at_base_rename(void *context, enum fake_op op, const char *path, uint64_t step)
{
    (void)context;
    (void)step;
    return op == FAKE_RENAME && strcmp(path, WAL_TEST_DIR "/base") == 0;
}

/* The segment before the reset's has a header that was never synced; until the base names the new
 * one it is still needed to be whole, or to be the last. */
static void test_reset_cut_short_over_an_unsynced_segment_recovers(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    struct wal_stats stats;
    do {
        fixture_append(&fixture, 0, 10, 1);
        wal_stats(fixture.wal, &stats);
    } while (stats.segment_count < 2);
    fake_vfs_set_crash_point(fixture.fake, stop_at_base_rename, NULL);
    struct raft_membership membership = wal_test_membership(9);
    assert_int_equal(wal_reset(fixture.wal, (struct raft_position){5000, 4}, &membership, false),
                     ERR_IO);
    fake_vfs_set_crash_point(fixture.fake, NULL, NULL);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

/* What the owner does while a read of the first segment is under way: compacts it away and writes
 * on until its file would be in use again. */
struct intruder {
    struct fixture *fixture;
    bool done;
    int (*read_at)(void *context, struct vfs_file *file, uint64_t offset, uint8_t *data,
                   size_t size, size_t *count);
};

static struct intruder intruder; /* the vtable has no place for it; one test, one thread */

static int intruder_read_at(void *context, struct vfs_file *file, uint64_t offset, uint8_t *data,
                            size_t size, size_t *count)
{
    if (!intruder.done) {
        intruder.done = true;
        struct fixture *fixture = intruder.fixture;
        fixture_compact(fixture, fixture->model.last.index, 3);
        assert_int_equal(wal_prepare_spares(fixture->wal), ERR_OK);
        struct wal_stats stats;
        do {
            fixture_append(fixture, 0, 20, 9);
            wal_stats(fixture->wal, &stats);
        } while (stats.segment_count < 6);
    }
    return intruder.read_at(context, file, offset, data, size, count);
}

static void test_read_holds_its_segment_against_recycling(void **state)
{
    (void)state;
    struct fixture fixture = {.fake = wal_test_disk(1)};
    wal_model_init(&fixture.model);
    struct vfs vfs = *fake_vfs_vfs(fixture.fake);
    intruder = (struct intruder){.fixture = &fixture, .done = true, .read_at = vfs.read_at};
    vfs.read_at = intruder_read_at;
    struct wal_options options = wal_test_options(1);
    char why[WAL_TEST_WHY_BYTES];
    assert_int_equal(wal_open(&vfs, WAL_TEST_DIR, &options, NULL, 0, &fixture.wal,
                              &fixture.recovery, why, sizeof(why)),
                     ERR_OK);
    struct wal_stats stats;
    do {
        fixture_append(&fixture, 0, 20, 1);
        wal_stats(fixture.wal, &stats);
    } while (stats.segment_count < 3);
    intruder.done = false;
    struct raft_entry *entries;
    size_t count;
    assert_int_equal(wal_read(fixture.wal, 1, 40, UINT64_MAX, &entries, &count), ERR_OK);
    assert_true(intruder.done);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        struct raft_entry expected = wal_test_entry((struct raft_position){i + 1, 1});
        assert_int_equal(entries[i].position.index, i + 1);
        assert_int_equal(entries[i].position.term, 1);
        assert_true(bytes_equal(entries[i].data, expected.data));
        blob_unref(expected.owner);
    }
    wal_entries_free(entries, count);
    /* Now that nobody reads it, it goes. */
    bool exists;
    assert_int_equal(vfs.exists(vfs.context, WAL_TEST_DIR "/0000000000000001.wal", &exists),
                     ERR_OK);
    assert_true(exists);
    assert_int_equal(wal_prepare_spares(fixture.wal), ERR_OK);
    assert_int_equal(vfs.exists(vfs.context, WAL_TEST_DIR "/0000000000000001.wal", &exists),
                     ERR_OK);
    assert_false(exists);
    fixture_close(&fixture);
}

static void test_failed_write_is_final(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 10, 1);
    fixture_sync(&fixture);
    struct wal_model synced = fixture.model;
    fake_vfs_fail(fixture.fake, FAKE_WRITE, 1, ERR_IO);
    wal_model_append(&fixture.model, 0, 5, 1);
    assert_int_equal(wal_test_write(fixture.wal, &synced, &fixture.model, 0), ERR_IO);
    uint64_t writes = fake_vfs_count(fixture.fake, FAKE_WRITE);
    assert_int_equal(wal_test_write(fixture.wal, &synced, &fixture.model, 0), ERR_IO);
    assert_int_equal(wal_sync(fixture.wal), ERR_IO);
    struct raft_membership membership = wal_test_membership(1);
    assert_int_equal(wal_compact(fixture.wal, (struct raft_position){5, 1}, &membership), ERR_IO);
    assert_int_equal(wal_reset(fixture.wal, (struct raft_position){90, 2}, &membership, false),
                     ERR_IO);
    assert_int_equal(wal_prepare_spares(fixture.wal), ERR_IO);
    assert_int_equal(fake_vfs_count(fixture.fake, FAKE_WRITE), writes);
    fixture.model = synced;
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_failed_sync_is_final_and_never_retried(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 10, 1);
    fake_vfs_fail(fixture.fake, FAKE_SYNC, 1, ERR_IO);
    assert_int_equal(wal_sync(fixture.wal), ERR_IO);
    uint64_t syncs = fake_vfs_count(fixture.fake, FAKE_SYNC);
    assert_int_equal(wal_sync(fixture.wal), ERR_IO);
    assert_int_equal(fake_vfs_count(fixture.fake, FAKE_SYNC), syncs);
    wal_recovery_free(&fixture.recovery);
    wal_close(fixture.wal);
    fake_vfs_crash_as(fixture.fake, FAKE_CRASH_LOSE, NULL);
    fixture.wal = wal_test_open(fixture.fake, fixture.opens++, 0, &fixture.recovery);
    assert_true(fixture.recovery.last.index == 0 || fixture.recovery.last.index == 10);
    fixture_close(&fixture);
}

static void test_no_space_is_final_and_a_restart_recovers(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fixture_append(&fixture, 0, 20, 1);
    fixture_sync(&fixture);
    fake_vfs_set_space(fixture.fake, fake_vfs_space_used(fixture.fake));
    int error = ERR_OK;
    struct wal_model synced = fixture.model;
    for (unsigned i = 0; i < 50 && error == ERR_OK; i++) {
        synced = fixture.model;
        wal_model_append(&fixture.model, 0, 10, 1);
        error = wal_test_write(fixture.wal, &synced, &fixture.model, 0);
        if (error == ERR_OK) {
            assert_int_equal(wal_sync(fixture.wal), ERR_OK);
        }
    }
    assert_int_equal(error, ERR_NO_SPACE);
    assert_int_equal(wal_sync(fixture.wal), ERR_IO);
    fixture.model = synced;
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE); /* the disk is still full */
    fake_vfs_set_space(fixture.fake, UINT64_MAX);
    fixture_append(&fixture, 0, 100, 2);
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_no_space_for_spares_does_not_harm_the_log(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    fake_vfs_set_space(fixture.fake, fake_vfs_space_used(fixture.fake) + 1000);
    assert_int_equal(wal_prepare_spares(fixture.wal), ERR_NO_SPACE);
    fixture_append(&fixture, 0, 10, 1);
    fixture_sync(&fixture);
    struct wal_stats stats;
    wal_stats(fixture.wal, &stats);
    assert_int_equal(stats.spare_count, 0);
    fake_vfs_set_space(fixture.fake, UINT64_MAX);
    assert_int_equal(wal_prepare_spares(fixture.wal), ERR_OK);
    wal_stats(fixture.wal, &stats);
    assert_int_equal(stats.spare_count, 2);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_spare_ready_is_taken_without_making_one(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    struct wal_stats before;
    struct wal_stats after;
    assert_int_equal(wal_prepare_spares(fixture.wal), ERR_OK);
    wal_stats(fixture.wal, &before);
    assert_int_equal(before.spare_count, 2);
    uint64_t creates = fake_vfs_count(fixture.fake, FAKE_CREATE);
    do {
        fixture_append(&fixture, 0, 20, 1);
        wal_stats(fixture.wal, &after);
    } while (after.segment_count < 3);
    assert_int_equal(after.spare_count, 0);
    assert_int_equal(after.inline_segment_count, before.inline_segment_count);
    assert_int_equal(fake_vfs_count(fixture.fake, FAKE_CREATE), creates);
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

/* As many segments as fall free at once are kept: a log that is compacted by several segments at a
 * time would otherwise write each new one twice, the first time with zeroes. */
static void test_segments_that_fall_free_at_once_are_all_used_again(void **state)
{
    (void)state;
    struct fixture fixture = fixture_open();
    wal_recovery_free(&fixture.recovery);
    wal_close(fixture.wal);
    struct wal_options options = wal_test_options(fixture.opens++);
    options.recycled_max = 6;
    struct raft_membership membership = wal_test_membership(7);
    char why[WAL_TEST_WHY_BYTES];
    assert_int_equal(wal_open(fake_vfs_vfs(fixture.fake), WAL_TEST_DIR, &options, &membership, 0,
                              &fixture.wal, &fixture.recovery, why, sizeof why),
                     ERR_OK);
    struct wal_stats stats;
    do {
        fixture_append(&fixture, 0, 20, 1);
        wal_stats(fixture.wal, &stats);
    } while (stats.segment_count < 6);
    fixture_compact(&fixture, fixture.model.last.index, 8);
    wal_stats(fixture.wal, &stats);
    assert_int_equal(stats.segment_count, 1);
    assert_int_equal(stats.spare_count, 5);
    uint64_t creates = fake_vfs_count(fixture.fake, FAKE_CREATE);
    do {
        fixture_append(&fixture, 0, 20, 2);
        wal_stats(fixture.wal, &stats);
    } while (stats.segment_count < 6);
    assert_int_equal(fake_vfs_count(fixture.fake, FAKE_CREATE), creates);
    fixture_sync(&fixture);
    fixture_expect_after(&fixture, FAKE_CRASH_LOSE);
    fixture_close(&fixture);
}

static void test_prewritten_spares_are_zeroes_to_recovery(void **state)
{
    (void)state;
    struct fake_vfs *fake = wal_test_disk(3);
    struct wal_options options = wal_test_options(5);
    options.prewrite = true;
    struct wal *wal;
    struct wal_recovery recovery;
    char why[WAL_TEST_WHY_BYTES];
    assert_int_equal(wal_open(fake_vfs_vfs(fake), WAL_TEST_DIR, &options, NULL, 0, &wal, &recovery,
                              why, sizeof(why)),
                     ERR_OK);
    assert_int_equal(wal_prepare_spares(wal), ERR_OK);
    struct wal_model model;
    wal_model_init(&model);
    for (unsigned i = 0; i < 20; i++) {
        struct wal_model before = model;
        wal_model_append(&model, 0, 20, 1);
        assert_int_equal(wal_test_write(wal, &before, &model, 0), ERR_OK);
    }
    assert_int_equal(wal_sync(wal), ERR_OK);
    wal_recovery_free(&recovery);
    wal_close(wal);
    fake_vfs_crash_as(fake, FAKE_CRASH_LOSE, NULL);
    wal = wal_test_open(fake, 9, 0, &recovery);
    assert_int_equal(recovery.torn_bytes_cut, 0);
    wal_test_expect(wal, &recovery, &model);
    wal_recovery_free(&recovery);
    wal_close(wal);
    fake_vfs_destroy(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_empty_directory_is_fresh),
        cmocka_unit_test(test_append_sync_reopen_gives_the_same),
        cmocka_unit_test(test_append_unsynced_lost_power_keeps_the_synced_prefix),
        cmocka_unit_test(test_append_unsynced_process_killed_keeps_all),
        cmocka_unit_test(test_truncate_then_append_overwrites),
        cmocka_unit_test(test_append_many_rotates_and_reads_across_segments),
        cmocka_unit_test(test_append_larger_than_segment_gets_its_own),
        cmocka_unit_test(test_append_group_over_one_write_chunk_is_whole),
        cmocka_unit_test(test_append_entry_over_limit_is_refused_and_changes_nothing),
        cmocka_unit_test(test_read_respects_bounds),
        cmocka_unit_test(test_recovery_tail_is_bounded_and_newest),
        cmocka_unit_test(test_compact_at_every_index_keeps_the_rest),
        cmocka_unit_test(test_compact_frees_segments_and_reuses_them),
        cmocka_unit_test(test_compact_truncated_history_below_base_is_accepted),
        cmocka_unit_test(test_reset_forgets_all_but_the_hard_state),
        cmocka_unit_test(test_reset_keeps_a_matching_suffix_only_when_asked),
        cmocka_unit_test(test_reset_cut_short_over_an_unsynced_segment_recovers),
        cmocka_unit_test(test_read_holds_its_segment_against_recycling),
        cmocka_unit_test(test_failed_write_is_final),
        cmocka_unit_test(test_failed_sync_is_final_and_never_retried),
        cmocka_unit_test(test_no_space_is_final_and_a_restart_recovers),
        cmocka_unit_test(test_no_space_for_spares_does_not_harm_the_log),
        cmocka_unit_test(test_spare_ready_is_taken_without_making_one),
        cmocka_unit_test(test_segments_that_fall_free_at_once_are_all_used_again),
        cmocka_unit_test(test_prewritten_spares_are_zeroes_to_recovery),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
