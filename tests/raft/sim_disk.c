/* A disk that keeps exactly what was made durable, and holds the core to its contract. Thread: one.
 * Invariants: entries are base.index + 1 .. without gaps, terms never fall along them; a term never
 * falls and a vote is never changed within its term; nothing up to the durable commit is ever cut.
 */
#include "raft/sim_disk.h"

#include "base/assert.h"
#include "raft/sim_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { HARD_STATE_BYTES = 24, LOG_ENTRY_HEADER_BYTES = 20 };

struct sim_write *sim_write_copy(const struct raft_ready *ready)
{
    struct sim_write *copy = mem_calloc(1, sizeof *copy);
    copy->write = ready->write;
    if (copy->write.entry_count > 0) {
        copy->entries =
            mem_dup(ready->write.entries, copy->write.entry_count * sizeof copy->entries[0]);
        for (size_t i = 0; i < copy->write.entry_count; i++) {
            (void)blob_ref(copy->entries[i].owner);
        }
    }
    copy->write.entries = copy->entries;
    if (ready->write.chunk_snapshot != NULL) {
        copy->chunk_snapshot = *ready->write.chunk_snapshot;
        copy->write.chunk_snapshot = &copy->chunk_snapshot;
    }
    (void)blob_ref(copy->write.chunk_owner);
    if (ready->write.install != NULL) {
        copy->install = *ready->write.install;
        copy->write.install = &copy->install;
    }
    if (ready->held_count > 0) {
        copy->held = mem_calloc(ready->held_count, sizeof(struct sim_message *));
        for (; copy->held_count < ready->held_count; copy->held_count++) {
            copy->held[copy->held_count] = sim_message_copy(&ready->held[copy->held_count]);
        }
    }
    return copy;
}

void sim_write_free(struct sim_write *write)
{
    for (size_t i = 0; i < write->write.entry_count; i++) {
        blob_unref(write->entries[i].owner);
    }
    for (size_t i = 0; i < write->held_count; i++) {
        sim_message_free(write->held[i]);
    }
    blob_unref(write->write.chunk_owner);
    free(write->entries);
    free(write->held);
    free(write);
}

void sim_disk_init(struct sim_disk *disk, uint64_t id, const struct raft_membership *bootstrap)
{
    *disk = (struct sim_disk){.id = id, .base_membership = *bootstrap};
    disk->snapshot.membership = *bootstrap;
    buf_init(&disk->staged_bytes);
}

static void cut_from(struct sim_disk *disk, size_t place)
{
    for (size_t i = place; i < disk->count; i++) {
        blob_unref(disk->entries[i].owner);
    }
    disk->count = place;
}

void sim_disk_deinit(struct sim_disk *disk)
{
    cut_from(disk, 0);
    free(disk->entries);
    blob_unref(disk->snapshot_bytes);
    buf_deinit(&disk->staged_bytes);
    *disk = (struct sim_disk){0};
}

struct raft_position sim_disk_last(const struct sim_disk *disk)
{
    return disk->count == 0 ? disk->base : disk->entries[disk->count - 1].position;
}

const struct raft_entry *sim_disk_entry(const struct sim_disk *disk, uint64_t index)
{
    if (index <= disk->base.index || index - disk->base.index > disk->count) {
        return NULL;
    }
    return &disk->entries[index - disk->base.index - 1];
}

uint64_t sim_disk_term_at(const struct sim_disk *disk, uint64_t index)
{
    if (index == disk->base.index) {
        return disk->base.term;
    }
    const struct raft_entry *entry = sim_disk_entry(disk, index);
    return entry == NULL ? 0 : entry->position.term;
}

bool sim_disk_holds(const struct sim_disk *disk, struct raft_position position)
{
    return position.index < disk->base.index ||
           (position.index <= sim_disk_last(disk).index &&
            sim_disk_term_at(disk, position.index) == position.term);
}

uint64_t sim_disk_log_bytes(const struct sim_disk *disk)
{
    uint64_t bytes = HARD_STATE_BYTES;
    for (size_t i = 0; i < disk->count; i++) {
        bytes += LOG_ENTRY_HEADER_BYTES + disk->entries[i].data.size;
    }
    return bytes;
}

static void stage_chunk(struct sim_disk *disk, const struct raft_write *write)
{
    const struct raft_snapshot *snapshot = write->chunk_snapshot;
    if (write->chunk_offset == 0) {
        disk->staging = true;
        disk->staged = *snapshot;
        buf_clear(&disk->staged_bytes);
    }
    if (!disk->staging || disk->staged.id != snapshot->id ||
        disk->staged_bytes.size != write->chunk_offset) {
        sim_fail("replica %" PRIu64 ": chunk at %" PRIu64 " of snapshot %" PRIu64
                 " does not follow what is staged (%zu of %" PRIu64 ")",
                 disk->id, write->chunk_offset, snapshot->id, disk->staged_bytes.size,
                 disk->staged.id);
    }
    if (write->chunk.size > snapshot->size_bytes - disk->staged_bytes.size) {
        sim_fail("replica %" PRIu64 ": staged snapshot is longer than announced", disk->id);
    }
    buf_append_bytes(&disk->staged_bytes, write->chunk);
}

static void drop_staged(struct sim_disk *disk)
{
    disk->staging = false;
    buf_clear(&disk->staged_bytes);
}

static void install(struct sim_disk *disk, const struct raft_snapshot *snapshot)
{
    if (!disk->staging || disk->staged.id != snapshot->id ||
        disk->staged_bytes.size != snapshot->size_bytes) {
        sim_fail("replica %" PRIu64 ": snapshot %" PRIu64 " to be installed is not staged whole",
                 disk->id, snapshot->id);
    }
    if (snapshot->position.index <= disk->snapshot.position.index) {
        sim_fail("replica %" PRIu64 ": snapshot at %" PRIu64 " installed over one at %" PRIu64,
                 disk->id, snapshot->position.index, disk->snapshot.position.index);
    }
    blob_unref(disk->snapshot_bytes);
    disk->snapshot_bytes = blob_take_buf(&disk->staged_bytes);
    disk->snapshot = *snapshot;
    disk->staging = false;
    cut_from(disk, 0);
    disk->base = snapshot->position;
    disk->base_membership = snapshot->membership;
    disk->counters.installs++;
}

static void truncate_from(struct sim_disk *disk, uint64_t from)
{
    struct raft_position last = sim_disk_last(disk);
    if (from <= disk->base.index || from <= disk->hard_state.commit) {
        sim_fail("replica %" PRIu64 ": truncation from %" PRIu64 ", base %" PRIu64
                 ", durable commit %" PRIu64,
                 disk->id, from, disk->base.index, disk->hard_state.commit);
    }
    if (from > last.index) {
        return; /* an earlier, newer truncation of what was never written */
    }
    disk->counters.truncations++;
    for (uint64_t index = from; index <= last.index; index++) {
        if (sim_disk_entry(disk, index)->kind == RAFT_ENTRY_MEMBERSHIP) {
            disk->counters.memberships_rolled_back++;
        }
    }
    cut_from(disk, from - disk->base.index - 1);
}

static void append(struct sim_disk *disk, const struct raft_entry *entry)
{
    struct raft_position last = sim_disk_last(disk);
    if (entry->position.index != last.index + 1 || entry->position.term < last.term ||
        entry->position.term == 0) {
        sim_fail("replica %" PRIu64 ": entry %" PRIu64 "/%" PRIu64 " written after %" PRIu64
                 "/%" PRIu64,
                 disk->id, entry->position.index, entry->position.term, last.index, last.term);
    }
    if (disk->count == disk->capacity) {
        disk->capacity = disk->capacity == 0 ? 64 : disk->capacity * 2;
        disk->entries = mem_realloc(disk->entries, disk->capacity * sizeof disk->entries[0]);
    }
    disk->entries[disk->count] = *entry;
    (void)blob_ref(entry->owner);
    disk->count++;
}

static void set_hard_state(struct sim_disk *disk, const struct raft_hard_state *next, bool synced)
{
    const struct raft_hard_state *now = &disk->hard_state;
    bool vote_kept =
        next->term > now->term || now->voted_for == 0 || next->voted_for == now->voted_for;
    if (next->term < now->term || !vote_kept || next->commit < now->commit) {
        sim_fail("replica %" PRIu64 ": hard state {%" PRIu64 " %" PRIu64 " %" PRIu64
                 "} after {%" PRIu64 " %" PRIu64 " %" PRIu64 "}",
                 disk->id, next->term, next->voted_for, next->commit, now->term, now->voted_for,
                 now->commit);
    }
    if (!synced && (next->term != now->term || next->voted_for != now->voted_for)) {
        sim_fail("replica %" PRIu64 ": a term or vote written without a sync", disk->id);
    }
    disk->hard_state = *next;
}

void sim_disk_write(struct sim_disk *disk, const struct sim_write *copy)
{
    const struct raft_write *write = &copy->write;
    if (!write->must_sync && (write->truncate_from != 0 || write->entry_count > 0 ||
                              write->chunk_snapshot != NULL || write->install != NULL)) {
        sim_fail("replica %" PRIu64 ": write %" PRIu64 " needs a sync but does not ask for one",
                 disk->id, write->seq);
    }
    if (write->chunk_snapshot != NULL) {
        stage_chunk(disk, write);
    }
    if (write->install != NULL && copy->damaged) {
        drop_staged(disk);
    } else if (write->install != NULL) {
        install(disk, write->install);
    }
    if (write->truncate_from != 0) {
        truncate_from(disk, write->truncate_from);
    }
    for (size_t i = 0; i < write->entry_count; i++) {
        append(disk, &write->entries[i]);
    }
    if (write->hard_state_changed) {
        set_hard_state(disk, &write->hard_state, write->must_sync);
    }
    if (write->must_sync) {
        disk->synced = disk->hard_state;
    }
}

void sim_disk_crash(struct sim_disk *disk, bool keep_unsynced)
{
    if (keep_unsynced) {
        disk->synced = disk->hard_state;
    } else {
        disk->hard_state = disk->synced;
    }
    drop_staged(disk);
}

void sim_disk_membership_at(const struct sim_disk *disk, uint64_t index,
                            struct raft_membership *out)
{
    ASSERT_CMP(index, >=, disk->base.index);
    ASSERT_CMP(index, <=, sim_disk_last(disk).index);
    *out = disk->base_membership;
    for (size_t i = 0; i < index - disk->base.index; i++) {
        const struct raft_entry *entry = &disk->entries[i];
        if (entry->kind == RAFT_ENTRY_MEMBERSHIP) {
            int error = raft_membership_decode(entry->data, out);
            ASSERT(error == 0);
            out->position = entry->position;
        }
    }
}

void sim_disk_compact(struct sim_disk *disk, uint64_t index)
{
    if (index <= disk->base.index) {
        return;
    }
    struct raft_membership membership;
    sim_disk_membership_at(disk, index, &membership);
    const struct raft_entry *entry = sim_disk_entry(disk, index);
    ASSERT(entry != NULL);
    struct raft_position base = entry->position;
    size_t gone = index - disk->base.index;
    for (size_t i = 0; i < gone; i++) {
        blob_unref(disk->entries[i].owner);
    }
    memmove(disk->entries, disk->entries + gone, (disk->count - gone) * sizeof disk->entries[0]);
    disk->count -= gone;
    disk->base = base;
    disk->base_membership = membership;
}

void sim_disk_save(struct sim_disk *disk, const struct raft_snapshot *snapshot, struct blob *bytes)
{
    ASSERT_CMP(snapshot->position.index, >, disk->snapshot.position.index);
    ASSERT_CMP(snapshot->position.index, <=, sim_disk_last(disk).index);
    blob_unref(disk->snapshot_bytes);
    disk->snapshot = *snapshot;
    disk->snapshot_bytes = blob_ref(bytes);
}

void sim_disk_recover(const struct sim_disk *disk, size_t tail_max, bool base_form,
                      struct sim_recovery *out)
{
    *out = (struct sim_recovery){0};
    struct raft_core_state *state = &out->state;
    state->hard_state = disk->hard_state;
    state->snapshot = disk->snapshot;
    if (base_form) {
        state->snapshot =
            (struct raft_snapshot){.position = disk->base, .membership = disk->base_membership};
    }
    state->log_start = disk->base;
    state->log_last = sim_disk_last(disk);
    state->applied = disk->snapshot.position.index;
    out->runs = mem_calloc(disk->count + 1, sizeof out->runs[0]);
    out->memberships = mem_calloc(disk->count + 1, sizeof out->memberships[0]);
    uint64_t term = 0;
    for (size_t i = 0; i < disk->count; i++) {
        const struct raft_entry *entry = &disk->entries[i];
        if (entry->position.term != term) {
            term = entry->position.term;
            out->runs[state->term_run_count++] = entry->position;
        }
        if (entry->kind == RAFT_ENTRY_MEMBERSHIP) {
            struct raft_membership *membership = &out->memberships[state->membership_count++];
            int error = raft_membership_decode(entry->data, membership);
            ASSERT(error == 0);
            membership->position = entry->position;
        }
    }
    state->term_runs = out->runs;
    state->memberships = out->memberships;
    state->tail_count = tail_max < disk->count ? tail_max : disk->count;
    state->tail = disk->entries + (disk->count - state->tail_count);
}

void sim_recovery_free(struct sim_recovery *recovery)
{
    free(recovery->runs);
    free(recovery->memberships);
}
