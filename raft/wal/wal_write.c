/* Appending, syncing, compacting and resetting. Owner thread. The order of steps is what makes each
 * of them safe against a crash at any point; wal_format.md, "Writing", says why.
 *
 * Invariants, between calls:
 *   1. WAL_SEGMENT_DATA_AT <= durable_to <= active.end <= active.file_bytes - WAL_TAIL_BYTES;
 *   2. every segment but the active one is synced up to its end;
 *   3. the bytes at active.end are a mark or zeroes;
 *   4. `failed` is never cleared. */
#include "raft/wal/wal_internal.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/metrics.h"

#include <string.h>

METRIC(wal_sync_count, COUNTER, "syncs of the active log segment")
METRIC(wal_write_bytes, COUNTER, "bytes written to the log")

int wal__failed(struct wal *wal)
{
    pthread_mutex_lock(&wal->lock);
    bool failed = wal->failed != 0;
    pthread_mutex_unlock(&wal->lock);
    return failed ? ERR_IO : ERR_OK;
}

int wal__fail(struct wal *wal, int error)
{
    ASSERT(error != ERR_OK);
    pthread_mutex_lock(&wal->lock);
    if (wal->failed == 0) {
        wal->failed = error;
    }
    pthread_mutex_unlock(&wal->lock);
    log_event(LOG_ERROR, "wal.failed", "dir=%s error=%s", wal->dir, err_name(error));
    return error;
}

int wal__base_write(struct wal *wal, struct raft_position position, uint64_t first_sequence,
                    const struct raft_membership *membership)
{
    struct wal_base base = {
        .position = position,
        .first_sequence = first_sequence,
        .hard_state = wal->hard_state,
        .membership = *membership,
    };
    struct buf bytes;
    buf_init(&bytes);
    wal_base_encode(&base, &bytes);
    int error = vfs_write_atomic(wal->vfs, wal->dir, WAL_BASE_NAME, buf_view(&bytes));
    buf_deinit(&bytes);
    return error;
}

/* ---- one group ---- */

/* A group on its way into the active segment. */
struct wal_group_writer {
    struct wal *wal;
    struct vfs_file *file;
    uint64_t salt;
    uint64_t group_at;  /* in the file */
    uint64_t staged_at; /* where staging[0] goes */
    bool flushed;       /* part of it is in the file; its header is not */
    int error;
    struct wal_group_header header;
};

static uint64_t wal_writer_at(const struct wal_group_writer *writer)
{
    return writer->staged_at + writer->wal->staging.size;
}

static void wal_writer_flush(struct wal_group_writer *writer)
{
    struct buf *staging = &writer->wal->staging;
    if (writer->error == ERR_OK && staging->size > 0) {
        writer->error = writer->wal->vfs->write_at(writer->wal->vfs->context, writer->file,
                                                   writer->staged_at, buf_view(staging));
        metric_add(&wal_write_bytes, staging->size);
    }
    writer->staged_at += staging->size;
    buf_clear(staging);
}

/* The header of a group of several writes goes last, so its place is left out of the first one: a
 * crash before it then leaves the zeroes that end the log. */
static void wal_writer_flush_early(struct wal_group_writer *writer)
{
    if (!writer->flushed) {
        writer->flushed = true;
        struct buf *staging = &writer->wal->staging;
        staging->size -= WAL_GROUP_HEADER_BYTES;
        memmove(staging->data, staging->data + WAL_GROUP_HEADER_BYTES, staging->size);
        writer->staged_at += WAL_GROUP_HEADER_BYTES;
    }
    wal_writer_flush(writer);
}

static void wal_writer_bytes(struct wal_group_writer *writer, struct bytes bytes)
{
    while (bytes.size > 0) {
        size_t room = WAL_WRITE_CHUNK_BYTES - writer->wal->staging.size;
        size_t part = bytes.size < room ? bytes.size : room;
        buf_append(&writer->wal->staging, bytes.data, part);
        bytes = bytes_of(bytes.data + part, bytes.size - part);
        if (writer->wal->staging.size == WAL_WRITE_CHUNK_BYTES) {
            wal_writer_flush_early(writer);
        }
    }
}

static void wal_writer_record(struct wal_group_writer *writer, struct wal_record_header header,
                              struct bytes payload)
{
    static const uint8_t zeroes[WAL_ALIGN_BYTES] = {0};
    uint8_t bytes[WAL_RECORD_HEADER_BYTES];
    header.payload_bytes = (uint32_t)payload.size;
    wal_record_header_encode(&header, payload, writer->salt, wal_writer_at(writer), bytes);
    writer->header.body_crc = crc32c_extend(writer->header.body_crc, bytes, 4);
    writer->header.record_count++;
    wal_writer_bytes(writer, bytes_of(bytes, sizeof(bytes)));
    wal_writer_bytes(writer, payload);
    wal_writer_bytes(writer, bytes_of(zeroes, (size_t)(wal_align(payload.size) - payload.size)));
}

static void wal_writer_begin(struct wal_group_writer *writer, struct wal *wal)
{
    static const uint8_t header_place[WAL_GROUP_HEADER_BYTES] = {0};
    struct wal_segment *active = wal__active(wal);
    *writer = (struct wal_group_writer){
        .wal = wal,
        .file = active->file,
        .salt = active->header.salt,
        .group_at = active->end,
        .staged_at = active->end,
        .header = {.durable_to = wal->durable_to},
    };
    buf_clear(&wal->staging);
    buf_append(&wal->staging, header_place, sizeof(header_place));
}

/* Writes what is staged, the zeroes that end the log, and the header. */
static int wal_writer_finish(struct wal_group_writer *writer, uint64_t body_bytes)
{
    static const uint8_t zeroes[WAL_GROUP_HEADER_BYTES] = {0};
    struct buf *staging = &writer->wal->staging;
    ASSERT_CMP(wal_writer_at(writer), ==, writer->group_at + WAL_GROUP_HEADER_BYTES + body_bytes);
    uint8_t header[WAL_GROUP_HEADER_BYTES];
    writer->header.body_bytes = body_bytes;
    wal_group_header_encode(&writer->header, writer->salt, writer->group_at, header);
    buf_append(staging, zeroes, sizeof(zeroes));
    if (!writer->flushed) {
        memcpy(staging->data, header, sizeof(header));
        wal_writer_flush(writer);
        return writer->error;
    }
    wal_writer_flush(writer);
    writer->staged_at = writer->group_at;
    buf_append(staging, header, sizeof(header));
    wal_writer_flush(writer);
    return writer->error;
}

int wal__write_mark(struct wal *wal)
{
    const struct wal_segment *active = wal__active(wal);
    uint8_t bytes[WAL_TAIL_BYTES] = {0};
    struct wal_group_header mark = {.durable_to = active->end};
    wal_group_header_encode(&mark, active->header.salt, active->end, bytes);
    return wal->vfs->write_at(wal->vfs->context, active->file, active->end,
                              bytes_of(bytes, sizeof(bytes)));
}

/* ---- append ---- */

static int wal_append_validate(const struct wal *wal, const struct wal_append *append,
                               uint64_t *body_bytes)
{
    uint64_t body = 0;
    struct raft_position last = wal->index.last;
    if (append->truncate_from > 0) {
        ASSERT_CMP(append->truncate_from, >, wal->index.base.index);
        body += WAL_RECORD_HEADER_BYTES;
        if (append->truncate_from <= last.index) {
            last.index = append->truncate_from - 1;
            last.term = wal_index_term_at(&wal->index, last.index);
        }
    }
    for (size_t i = 0; i < append->entry_count; i++) {
        const struct raft_entry *entry = &append->entries[i];
        ASSERT_CMP(entry->position.index, ==, last.index + 1);
        ASSERT_CMP(entry->position.term, >=, last.term);
        ASSERT_CMP(entry->position.term, >, 0);
        ASSERT(entry->kind >= RAFT_ENTRY_NOOP && entry->kind <= RAFT_ENTRY_MEMBERSHIP);
        if (entry->data.size > wal->options.entry_bytes_max ||
            entry->data.size > UINT32_MAX - WAL_ALIGN_BYTES) {
            return ERR_TOO_LARGE;
        }
        last = entry->position;
        body += wal_record_bytes(entry->data.size);
    }
    if (append->hard_state != NULL) {
        ASSERT_CMP(append->hard_state->term, >=, wal->hard_state.term);
        body += wal_record_bytes(WAL_HARD_STATE_BYTES);
    }
    *body_bytes = body;
    return body > WAL_GROUP_BODY_BYTES_MAX ? ERR_TOO_LARGE : ERR_OK;
}

static int wal_active_sync(struct wal *wal)
{
    const struct wal_segment *active = wal__active(wal);
    int error = wal->vfs->sync(wal->vfs->context, active->file);
    if (error != ERR_OK) {
        return error;
    }
    metric_add(&wal_sync_count, 1);
    wal->durable_to = active->end;
    pthread_mutex_lock(&wal->lock);
    wal->sync_count++;
    pthread_mutex_unlock(&wal->lock);
    return ERR_OK;
}

/* Before another segment is begun: invariant 2. */
static int wal_seal(struct wal *wal)
{
    return wal->durable_to < wal__active(wal)->end ? wal_active_sync(wal) : ERR_OK;
}

/* Seals the active segment and goes on in the next one. */
static int wal_rotate(struct wal *wal, uint64_t group_bytes)
{
    const struct wal_segment *active = wal__active(wal);
    int error = wal_seal(wal);
    struct wal_segment *segment = NULL;
    if (error == ERR_OK) {
        error = wal__segment_begin(wal, group_bytes, active->header.sequence + 1, 0,
                                   wal->index.last, &segment);
    }
    if (error != ERR_OK) {
        return error;
    }
    pthread_mutex_lock(&wal->lock);
    wal__segments_push(wal, segment);
    pthread_mutex_unlock(&wal->lock);
    wal->durable_to = WAL_SEGMENT_DATA_AT;
    return ERR_OK;
}

/* What was written becomes readable. */
static void wal_append_publish(struct wal *wal, const struct wal_append *append, uint64_t group_at,
                               uint64_t body_bytes)
{
    struct wal_segment *active = wal__active(wal);
    uint64_t at = group_at + WAL_GROUP_HEADER_BYTES;
    pthread_mutex_lock(&wal->lock);
    active->end = at + body_bytes;
    if (append->truncate_from > 0) {
        wal_index_truncate(&wal->index, append->truncate_from);
        at += WAL_RECORD_HEADER_BYTES;
    }
    for (size_t i = 0; i < append->entry_count; i++) {
        const struct raft_entry *entry = &append->entries[i];
        wal_index_append(&wal->index, entry->position, active->header.sequence, at);
        at += wal_record_bytes(entry->data.size);
    }
    pthread_mutex_unlock(&wal->lock);
    if (append->hard_state != NULL) {
        wal->hard_state = *append->hard_state;
    }
}

static int wal_append_write(struct wal *wal, const struct wal_append *append, uint64_t body_bytes)
{
    struct wal_segment *active = wal__active(wal);
    uint64_t group_bytes = WAL_GROUP_HEADER_BYTES + body_bytes;
    ASSERT_CMP(active->end, <=, active->header.file_bytes - WAL_TAIL_BYTES);
    if (group_bytes > active->header.file_bytes - WAL_TAIL_BYTES - active->end) {
        int error = wal_rotate(wal, group_bytes);
        if (error != ERR_OK) {
            return error;
        }
        active = wal__active(wal);
    }
    struct wal_group_writer writer;
    wal_writer_begin(&writer, wal);
    if (append->truncate_from > 0) {
        struct wal_record_header record = {.type = WAL_RECORD_TRUNCATE,
                                           .index = append->truncate_from};
        wal_writer_record(&writer, record, BYTES_EMPTY);
    }
    for (size_t i = 0; i < append->entry_count; i++) {
        const struct raft_entry *entry = &append->entries[i];
        struct wal_record_header record = {
            .type = WAL_RECORD_ENTRY,
            .kind = (uint8_t)entry->kind,
            .index = entry->position.index,
            .term = entry->position.term,
        };
        wal_writer_record(&writer, record, entry->data);
    }
    if (append->hard_state != NULL) {
        uint8_t bytes[WAL_HARD_STATE_BYTES];
        wal_hard_state_encode(append->hard_state, bytes);
        struct wal_record_header record = {.type = WAL_RECORD_HARD_STATE};
        wal_writer_record(&writer, record, bytes_of(bytes, sizeof(bytes)));
    }
    int error = wal_writer_finish(&writer, body_bytes);
    if (error == ERR_OK) {
        wal_append_publish(wal, append, writer.group_at, body_bytes);
    }
    return error;
}

int wal_write(struct wal *wal, const struct wal_append *append)
{
    int error = wal__failed(wal);
    if (error != ERR_OK) {
        return error;
    }
    struct wal_append group = *append;
    uint64_t body_bytes;
    if (group.truncate_from > wal->index.last.index) {
        group.truncate_from = 0; /* nothing to cut, so nothing to say */
    }
    error = wal_append_validate(wal, &group, &body_bytes);
    if (error != ERR_OK || body_bytes == 0) {
        return error;
    }
    error = wal_append_write(wal, &group, body_bytes);
    return error == ERR_OK ? ERR_OK : wal__fail(wal, error);
}

int wal_make_durable(struct wal *wal)
{
    int error = wal__failed(wal);
    if (error != ERR_OK || wal->durable_to == wal__active(wal)->end) {
        return error;
    }
    error = wal_active_sync(wal);
    wal->mark_owed = error == ERR_OK;
    return error == ERR_OK ? ERR_OK : wal__fail(wal, error);
}

int wal_mark(struct wal *wal)
{
    int error = wal__failed(wal);
    /* Behind something newer it would be a lie. */
    bool owed = wal->mark_owed && wal->durable_to == wal__active(wal)->end;
    wal->mark_owed = false;
    if (error != ERR_OK || !owed) {
        return error;
    }
    error = wal__write_mark(wal);
    return error == ERR_OK ? ERR_OK : wal__fail(wal, error);
}

int wal_sync(struct wal *wal)
{
    int error = wal_make_durable(wal);
    return error == ERR_OK ? wal_mark(wal) : error;
}

/* ---- compact, reset ---- */

int wal_compact(struct wal *wal, struct raft_position base,
                const struct raft_membership *membership)
{
    int error = wal__failed(wal);
    if (error != ERR_OK || base.index <= wal->index.base.index) {
        return error;
    }
    ASSERT_CMP(base.index, <=, wal->index.last.index);
    ASSERT_CMP(base.term, ==, wal_index_term_at(&wal->index, base.index));

    /* The base must never name an entry, nor repeat a hard state, that a crash could still take
     * back. */
    error = wal_sync(wal);
    if (error != ERR_OK) {
        return error;
    }
    uint64_t first_sequence = wal__active(wal)->header.sequence;
    if (base.index < wal->index.last.index) {
        uint64_t until;
        first_sequence = wal_index_find(&wal->index, base.index + 1, &until).sequence;
    }
    error = wal__base_write(wal, base, first_sequence, membership);
    if (error == ERR_OK) {
        pthread_mutex_lock(&wal->lock);
        wal_index_compact(&wal->index, base);
        pthread_mutex_unlock(&wal->lock);
        wal->membership = *membership;
        error = wal__segments_retire(wal, first_sequence);
    }
    return error == ERR_OK ? ERR_OK : wal__fail(wal, error);
}

static int wal_reset_all(struct wal *wal, struct raft_position position,
                         const struct raft_membership *membership)
{
    uint64_t sequence = wal__active(wal)->header.sequence + 1;
    struct wal_segment *segment = NULL;
    /* The old log may be gone after this, but until the base says so a crash must find it whole: a
     * last segment whose header was never synced is dropped only when it is the last. */
    int error = wal_seal(wal);
    if (error == ERR_OK) {
        error = wal__segment_begin(wal, 0, sequence, WAL_SEGMENT_BEGINS_LOG, position, &segment);
    }
    if (error == ERR_OK) {
        error = wal->vfs->sync(wal->vfs->context, segment->file);
    }
    if (error == ERR_OK) {
        error = wal__base_write(wal, position, sequence, membership);
    }
    if (error != ERR_OK) {
        wal__segment_destroy(wal, segment);
        return error;
    }
    pthread_mutex_lock(&wal->lock);
    wal__segments_push(wal, segment);
    wal_index_reset(&wal->index, position);
    pthread_mutex_unlock(&wal->lock);
    wal->membership = *membership;
    wal->durable_to = WAL_SEGMENT_DATA_AT;
    return wal__segments_retire(wal, sequence);
}

int wal_reset(struct wal *wal, struct raft_position position,
              const struct raft_membership *membership, bool keep_suffix)
{
    int error = wal__failed(wal);
    if (error != ERR_OK) {
        return error;
    }
    bool held = wal_index_term_at(&wal->index, position.index) == position.term &&
                position.index >= wal->index.base.index && position.index <= wal->index.last.index;
    if (keep_suffix && held) {
        return wal_compact(wal, position, membership);
    }
    error = wal_reset_all(wal, position, membership);
    return error == ERR_OK ? ERR_OK : wal__fail(wal, error);
}

void wal_stats(struct wal *wal, struct wal_stats *out)
{
    *out = (struct wal_stats){0};
    pthread_mutex_lock(&wal->lock);
    out->base = wal->index.base;
    out->last = wal->index.last;
    out->segment_count = (uint32_t)wal->segment_count;
    for (size_t i = 0; i < wal->segment_count; i++) {
        out->log_bytes += wal->segments[i]->header.file_bytes;
    }
    out->sync_count = wal->sync_count;
    out->spare_count = wal->spare_count;
    out->inline_segment_count = wal->inline_segment_count;
    pthread_mutex_unlock(&wal->lock);
}
