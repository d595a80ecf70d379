/* What a disk may do to a log at rest, and what recovery must make of it: everything, a prefix when
 * the tail was never acknowledged, or a refusal that names the file and the offset. Never wrong
 * entries. */
#include "base/log.h"
#include "raft/wal/wal_format.h"
#include "unit/wal_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SEGMENT  "/log/0000000000000001.wal"
#define SECOND_SEGMENT "/log/0000000000000002.wal"
#define STATES_MAX     64u

/* A log on a disk, closed, with every state it went through. */
struct written {
    struct fake_vfs *fake;
    struct wal_model *states;
    size_t state_count;
    uint64_t opens;
};

static struct wal_model *written_now(struct written *written)
{
    return &written->states[written->state_count - 1];
}

static struct written written_create(void)
{
    struct written written = {.fake = wal_test_disk(1)};
    written.states = mem_calloc(STATES_MAX, sizeof(*written.states));
    wal_model_init(&written.states[0]);
    written.states[0].base_member = 7;
    written.state_count = 1;
    return written;
}

static void written_destroy(struct written *written)
{
    fake_vfs_destroy(written->fake);
    free(written->states);
}

static struct wal *written_open(struct written *written, struct wal_recovery *recovery)
{
    return wal_test_open(written->fake, 100 + written->opens++, 0, recovery);
}

static void written_append(struct written *written, struct wal *wal, uint64_t truncate_from,
                           size_t count, uint64_t term)
{
    assert_true(written->state_count < STATES_MAX);
    struct wal_model *before = written_now(written);
    struct wal_model *after = &written->states[written->state_count++];
    *after = *before;
    wal_model_append(after, truncate_from, count, term);
    assert_int_equal(wal_test_write(wal, before, after, truncate_from), ERR_OK);
}

/* Groups of a few entries, one of them a truncation, each synced when `synced`. */
static void written_fill(struct written *written, unsigned groups, size_t count, bool synced)
{
    struct wal_recovery recovery;
    struct wal *wal = written_open(written, &recovery);
    for (unsigned i = 0; i < groups; i++) {
        uint64_t last = written_now(written)->last.index;
        written_append(written, wal, i % 4 == 3 ? last - 1 : 0, count, (i + 1) / 4 + 1);
        if (synced) {
            assert_int_equal(wal_sync(wal), ERR_OK);
        }
    }
    wal_recovery_free(&recovery);
    wal_close(wal);
}

/* Opens a disk that may be damaged. ERR_CORRUPT: `why` names `file`, and nothing was changed. */
static int damaged_open(struct fake_vfs *fake, const char *file, struct wal **wal,
                        struct wal_recovery *recovery)
{
    struct wal_options options = wal_test_options(77);
    char why[WAL_TEST_WHY_BYTES];
    uint64_t steps = fake_vfs_step_count(fake);
    int error = wal_open(fake_vfs_vfs(fake), WAL_TEST_DIR, &options, NULL, 3000, wal, recovery, why,
                         sizeof(why));
    if (error != ERR_OK) {
        assert_int_equal(error, ERR_CORRUPT);
        assert_int_equal(fake_vfs_step_count(fake), steps);
        assert_non_null(strstr(why, ", offset "));
        assert_non_null(strstr(why, "replace this replica"));
        if (strstr(why, file) == NULL) {
            fail_msg("%s is not named: %s", file, why);
        }
    }
    return error;
}

/* Which of the states it is, counted back from the newest (0); fails the test when it is none. */
static size_t written_states_behind(const struct written *written, struct wal *wal,
                                    const struct wal_recovery *recovery)
{
    struct wal_model found;
    wal_test_read_model(wal, recovery, &found);
    for (size_t i = written->state_count; i-- > 0;) {
        if (wal_model_equal(&found, &written->states[i])) {
            return written->state_count - 1 - i;
        }
    }
    fail_msg("the log holds what was never written: last %llu.%llu",
             (unsigned long long)found.last.index, (unsigned long long)found.last.term);
    return 0;
}

static void damaged_close(struct wal *wal, struct wal_recovery *recovery)
{
    wal_recovery_free(recovery);
    wal_close(wal);
}

/* Where the groups of a segment end, as its bytes say. */
static uint64_t segment_end(struct fake_vfs *fake, const char *path)
{
    struct buf bytes;
    buf_init(&bytes);
    assert_true(fake_vfs_file_bytes(fake, path, &bytes));
    struct wal_segment_header header;
    assert_true(wal_segment_header_decode(bytes.data, 0, &header));
    uint64_t at = WAL_SEGMENT_DATA_AT;
    struct wal_group_header group;
    while (wal_group_header_decode(bytes.data + at, header.salt, at, &group) &&
           !wal_group_is_mark(&group)) {
        at += WAL_GROUP_HEADER_BYTES + group.body_bytes;
    }
    buf_deinit(&bytes);
    return at;
}

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

/* ---- while it runs ---- */

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
        cmocka_unit_test(test_lost_vote_that_the_base_knows_of_is_refused),
        cmocka_unit_test(test_mark_speaks_for_what_was_synced_and_no_more),
        cmocka_unit_test(test_lost_write_before_synced_ones_is_refused),
        cmocka_unit_test(test_misdirected_group_is_not_taken),
        cmocka_unit_test(test_cut_group_does_not_follow_a_new_one),
        cmocka_unit_test(test_new_header_over_old_records_is_torn),
        cmocka_unit_test(test_recycled_segment_old_bytes_are_no_tail),
        cmocka_unit_test(test_read_of_a_damaged_entry_is_corrupt),
        cmocka_unit_test(test_entry_over_limit_on_disk_is_damage),
        cmocka_unit_test(test_failed_call_while_opening_is_told),
    };
    log_set_level((enum log_level)(LOG_ERROR + 1)); /* every flip would be a line */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
