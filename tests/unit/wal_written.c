/* See wal_written.h. */
#include "unit/wal_written.h"

#include "raft/wal/wal_format.h"

#include <stdlib.h>
#include <string.h>

#define STATES_MAX 64u

struct wal_model *written_now(struct written *written)
{
    return &written->states[written->state_count - 1];
}

struct written written_create(void)
{
    struct written written = {.fake = wal_test_disk(1)};
    written.states = mem_calloc(STATES_MAX, sizeof(*written.states));
    wal_model_init(&written.states[0]);
    written.states[0].base_member = 7;
    written.state_count = 1;
    return written;
}

void written_destroy(struct written *written)
{
    fake_vfs_destroy(written->fake);
    free(written->states);
}

struct wal *written_open(struct written *written, struct wal_recovery *recovery)
{
    return wal_test_open(written->fake, 100 + written->opens++, 0, recovery);
}

void written_append(struct written *written, struct wal *wal, uint64_t truncate_from, size_t count,
                    uint64_t term)
{
    assert_true(written->state_count < STATES_MAX);
    struct wal_model *before = written_now(written);
    struct wal_model *after = &written->states[written->state_count++];
    *after = *before;
    wal_model_append(after, truncate_from, count, term);
    assert_int_equal(wal_test_write(wal, before, after, truncate_from), ERR_OK);
}

void written_fill(struct written *written, unsigned groups, size_t count, bool synced)
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

int damaged_open(struct fake_vfs *fake, const char *file, struct wal **wal,
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

size_t written_states_behind(const struct written *written, struct wal *wal,
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

void damaged_close(struct wal *wal, struct wal_recovery *recovery)
{
    wal_recovery_free(recovery);
    wal_close(wal);
}

uint64_t segment_end(struct fake_vfs *fake, const char *path)
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
