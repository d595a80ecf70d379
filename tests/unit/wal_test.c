#include "unit/wal_test.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void wal_model_init(struct wal_model *model)
{
    memset(model, 0, sizeof(*model));
}

void wal_model_append(struct wal_model *model, uint64_t truncate_from, size_t count, uint64_t term)
{
    if (truncate_from > 0) {
        ASSERT_CMP(truncate_from, >, model->base.index);
        for (uint64_t i = truncate_from; i <= model->last.index; i++) {
            model->terms[i] = 0;
        }
        if (truncate_from <= model->last.index) {
            uint64_t index = truncate_from - 1;
            uint64_t last_term =
                index == model->base.index ? model->base.term : model->terms[index];
            model->last = (struct raft_position){index, last_term};
        }
    }
    for (size_t i = 0; i < count; i++) {
        ASSERT_CMP(model->last.index + 1, <, WAL_TEST_MODEL_MAX);
        model->last = (struct raft_position){model->last.index + 1, term};
        model->terms[model->last.index] = term;
    }
}

void wal_model_hard_state(struct wal_model *model, uint64_t term, uint64_t voted_for)
{
    model->hard_state = (struct raft_hard_state){term, voted_for, model->last.index / 2};
}

void wal_model_compact(struct wal_model *model, uint64_t index, uint64_t member)
{
    uint64_t term = index == model->base.index ? model->base.term : model->terms[index];
    for (uint64_t i = model->base.index; i <= index; i++) {
        model->terms[i] = 0;
    }
    model->base = (struct raft_position){index, term};
    model->base_member = member;
}

void wal_model_reset(struct wal_model *model, struct raft_position position, uint64_t member)
{
    memset(model->terms, 0, sizeof(model->terms));
    model->base = position;
    model->last = position;
    model->base_member = member;
}

bool wal_model_equal(const struct wal_model *a, const struct wal_model *b)
{
    return raft_position_equal(a->base, b->base) && raft_position_equal(a->last, b->last) &&
           memcmp(a->terms, b->terms, sizeof(a->terms)) == 0 &&
           a->hard_state.term == b->hard_state.term &&
           a->hard_state.voted_for == b->hard_state.voted_for &&
           a->hard_state.commit == b->hard_state.commit && a->base_member == b->base_member;
}

struct raft_membership wal_test_membership(uint64_t member)
{
    struct raft_membership membership = {0};
    if (member > 0) {
        membership.count = 1;
        membership.members[0].id = member;
        membership.members[0].role = RAFT_VOTER;
        snprintf(membership.members[0].address, sizeof(membership.members[0].address),
                 "127.0.0.1:%u", (unsigned)(member % 60000));
    }
    return membership;
}

struct raft_entry wal_test_entry(struct raft_position position)
{
    struct raft_entry entry = {.position = position, .kind = RAFT_ENTRY_COMMAND};
    struct rng rng;
    rng_init(&rng, position.index * 1000003 + position.term);
    uint64_t kind = rng_below(&rng, 16);
    if (kind == 0) {
        entry.kind = RAFT_ENTRY_NOOP;
        return entry;
    }
    if (kind == 1) {
        struct raft_membership membership = wal_test_membership(position.index);
        struct buf bytes;
        buf_init(&bytes);
        raft_membership_encode(&membership, &bytes);
        entry.kind = RAFT_ENTRY_MEMBERSHIP;
        entry.owner = blob_take_buf(&bytes);
        entry.data = blob_view(entry.owner);
        return entry;
    }
    size_t size = (size_t)rng_below(&rng, kind < 6 ? 3000 : 200);
    uint8_t *data;
    entry.owner = blob_alloc(size, &data);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)rng_next(&rng);
    }
    entry.data = blob_view(entry.owner);
    return entry;
}

struct wal_options wal_test_options(uint64_t seed)
{
    return (struct wal_options){
        .segment_bytes = 64 * 1024,
        .spare_segments = 2,
        .recycled_max = 2,
        .entry_bytes_max = 1024 * 1024,
        .prewrite = false,
        .seed = seed + 1,
    };
}

int wal_test_write(struct wal *wal, const struct wal_model *before, const struct wal_model *after,
                   uint64_t truncate_from)
{
    uint64_t first = truncate_from > 0 && truncate_from <= before->last.index
                         ? truncate_from
                         : before->last.index + 1;
    size_t count = (size_t)(after->last.index + 1 - first);
    struct raft_entry *entries = mem_calloc(count + 1, sizeof(*entries));
    for (size_t i = 0; i < count; i++) {
        uint64_t index = first + i;
        entries[i] = wal_test_entry((struct raft_position){index, after->terms[index]});
    }
    bool hard_state_changed =
        memcmp(&before->hard_state, &after->hard_state, sizeof(before->hard_state)) != 0;
    struct wal_append append = {
        .truncate_from = truncate_from,
        .entries = entries,
        .entry_count = count,
        .hard_state = hard_state_changed ? &after->hard_state : NULL,
    };
    int error = wal_write(wal, &append);
    wal_entries_free(entries, count);
    return error;
}

struct wal *wal_test_open(struct fake_vfs *fake, uint64_t seed, uint64_t tail_bytes_max,
                          struct wal_recovery *recovery)
{
    struct wal_options options = wal_test_options(seed);
    struct raft_membership bootstrap = wal_test_membership(7);
    char why[WAL_TEST_WHY_BYTES];
    struct wal *wal;
    int error = wal_open(fake_vfs_vfs(fake), WAL_TEST_DIR, &options, &bootstrap, tail_bytes_max,
                         &wal, recovery, why, sizeof(why));
    if (error != ERR_OK) {
        fail_msg("wal_open (seed %llu): %s: %s", (unsigned long long)seed, err_name(error), why);
    }
    return wal;
}

static void wal_test_expect_entry(const struct raft_entry *entry, uint64_t index)
{
    assert_int_equal(entry->position.index, index);
    struct raft_entry expected = wal_test_entry(entry->position);
    assert_int_equal(entry->kind, expected.kind);
    assert_int_equal(entry->data.size, expected.data.size);
    assert_true(bytes_equal(entry->data, expected.data));
    blob_unref(expected.owner);
}

void wal_test_read_model(struct wal *wal, const struct wal_recovery *recovery,
                         struct wal_model *out)
{
    wal_model_init(out);
    out->base = recovery->base;
    out->last = recovery->last;
    out->hard_state = recovery->hard_state;
    out->base_member = recovery->membership.count == 0 ? 0 : recovery->membership.members[0].id;
    uint64_t next = recovery->base.index + 1;
    while (next <= recovery->last.index) {
        struct raft_entry *entries;
        size_t count;
        assert_int_equal(wal_read(wal, next, UINT64_MAX, 20000, &entries, &count), ERR_OK);
        assert_int_not_equal(count, 0);
        for (size_t i = 0; i < count; i++) {
            wal_test_expect_entry(&entries[i], next);
            out->terms[next] = entries[i].position.term;
            next++;
        }
        wal_entries_free(entries, count);
    }
    assert_int_equal(next, recovery->last.index + 1);
}

/* What recovery says besides the entries: runs, memberships, tail. */
static void wal_test_expect_recovery(const struct wal_recovery *recovery,
                                     const struct wal_model *model)
{
    size_t run = 0;
    size_t membership = 0;
    uint64_t term = 0;
    for (uint64_t i = model->base.index + 1; i <= model->last.index; i++) {
        if (model->terms[i] != term) {
            term = model->terms[i];
            assert_true(run < recovery->term_run_count);
            assert_int_equal(recovery->term_runs[run].index, i);
            assert_int_equal(recovery->term_runs[run].term, term);
            run++;
        }
        struct raft_entry entry = wal_test_entry((struct raft_position){i, term});
        if (entry.kind == RAFT_ENTRY_MEMBERSHIP) {
            assert_true(membership < recovery->membership_count);
            assert_int_equal(recovery->memberships[membership].position.index, i);
            assert_int_equal(recovery->memberships[membership].position.term, term);
            assert_int_equal(recovery->memberships[membership].members[0].id, i);
            membership++;
        }
        blob_unref(entry.owner);
    }
    assert_int_equal(run, recovery->term_run_count);
    assert_int_equal(membership, recovery->membership_count);
    for (size_t i = 0; i < recovery->tail_count; i++) {
        uint64_t index = model->last.index + 1 - recovery->tail_count + i;
        wal_test_expect_entry(&recovery->tail[i], index);
        assert_int_equal(recovery->tail[i].position.term, model->terms[index]);
    }
}

void wal_test_expect(struct wal *wal, const struct wal_recovery *recovery,
                     const struct wal_model *model)
{
    struct wal_model found;
    wal_test_read_model(wal, recovery, &found);
    assert_int_equal(found.base.index, model->base.index);
    assert_int_equal(found.base.term, model->base.term);
    assert_int_equal(found.last.index, model->last.index);
    assert_int_equal(found.last.term, model->last.term);
    assert_int_equal(found.hard_state.term, model->hard_state.term);
    assert_int_equal(found.hard_state.voted_for, model->hard_state.voted_for);
    assert_int_equal(found.base_member, model->base_member);
    assert_true(wal_model_equal(&found, model));
    wal_test_expect_recovery(recovery, model);
}

struct fake_vfs *wal_test_disk(uint64_t seed)
{
    struct fake_vfs *fake = fake_vfs_create(seed);
    const struct vfs *vfs = fake_vfs_vfs(fake);
    assert_int_equal(vfs->make_dir(vfs->context, WAL_TEST_DIR), ERR_OK);
    assert_int_equal(vfs->sync_dir(vfs->context, "/"), ERR_OK);
    return fake;
}
