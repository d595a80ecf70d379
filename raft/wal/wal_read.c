/* Reading entries back. One reader thread, beside the owner. The lock is held only to look up where
 * to read and to count the segment; the bytes behind a published end never change while the segment
 * is counted. */
#include "raft/wal/wal_internal.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Live entries that lie one after the other in one segment. */
struct wal_walk {
    struct wal_segment *segment; /* counted */
    uint64_t offset;             /* of the next record or group */
    uint64_t limit;              /* what was published */
    uint64_t until;              /* last entry to be found here */
};

struct wal_reading {
    struct wal *wal;
    struct wal_stream stream;
    uint64_t next; /* index wanted next */
    uint64_t to_max;
    uint64_t bytes_max;
    uint64_t bytes;
    struct raft_entry *entries;
    size_t count;
    size_t capacity;
    /* Payloads of entries [batch_from, count) lie in `batch` until they move to one shared blob. */
    struct buf batch;
    size_t batch_from;
};

static int wal_walk_begin(struct wal_reading *reading, struct wal_walk *walk)
{
    struct wal *wal = reading->wal;
    int error = ERR_OK;
    pthread_mutex_lock(&wal->lock);
    if (wal->failed != 0) {
        error = ERR_IO;
    } else if (reading->next <= wal->index.base.index || reading->next > wal->index.last.index) {
        error = ERR_NOT_FOUND;
    } else {
        struct wal_point point = wal_index_find(&wal->index, reading->next, &walk->until);
        uint64_t first = wal->segments[0]->header.sequence;
        ASSERT_CMP(point.sequence, >=, first);
        ASSERT_CMP(point.sequence - first, <, wal->segment_count);
        walk->segment = wal->segments[point.sequence - first];
        walk->segment->reader_count++;
        walk->offset = point.offset;
        walk->limit = walk->segment->end;
    }
    pthread_mutex_unlock(&wal->lock);
    return error;
}

static void wal_walk_end(struct wal *wal, struct wal_walk *walk)
{
    pthread_mutex_lock(&wal->lock);
    ASSERT_CMP(walk->segment->reader_count, >, 0);
    walk->segment->reader_count--;
    pthread_mutex_unlock(&wal->lock);
}

static int wal_read_corrupt(const struct wal_reading *reading, const struct wal_walk *walk,
                            const char *what)
{
    log_event(LOG_ERROR, "wal.read_corrupt",
              "dir=%s segment=%016" PRIx64 " offset=%" PRIu64 " index=%" PRIu64 " what=\"%s\"",
              reading->wal->dir, walk->segment->header.sequence, walk->offset, reading->next, what);
    return ERR_CORRUPT;
}

/* Moves the payloads gathered so far to one blob that their entries share. */
static void wal_batch_close(struct wal_reading *reading)
{
    if (reading->batch.size == 0) {
        reading->batch_from = reading->count;
        return;
    }
    struct blob *blob = blob_copy(buf_view(&reading->batch));
    const uint8_t *at = blob_view(blob).data;
    for (size_t i = reading->batch_from; i < reading->count; i++) {
        struct raft_entry *entry = &reading->entries[i];
        if (entry->data.size > 0) {
            entry->data.data = at;
            entry->owner = blob_ref(blob);
            at += entry->data.size;
        }
    }
    blob_unref(blob);
    buf_clear(&reading->batch);
    reading->batch_from = reading->count;
}

static struct raft_entry *wal_reading_push(struct wal_reading *reading)
{
    if (reading->count == reading->capacity) {
        reading->capacity = reading->capacity == 0 ? 64 : 2 * reading->capacity;
        reading->entries =
            mem_realloc(reading->entries, reading->capacity * sizeof(reading->entries[0]));
    }
    struct raft_entry *entry = &reading->entries[reading->count++];
    *entry = (struct raft_entry){0};
    return entry;
}

/* A payload that fits the window goes through the batch; a larger one is read into its own blob. */
static int wal_payload_small(struct wal_reading *reading, const struct wal_walk *walk,
                             const struct wal_record_header *header, uint32_t crc)
{
    size_t padded = (size_t)wal_align(header->payload_bytes);
    const uint8_t *bytes = NULL;
    if (padded > 0) {
        int error = wal__stream_view(&reading->stream, walk->offset + WAL_RECORD_HEADER_BYTES,
                                     padded, &bytes);
        if (error != ERR_OK) {
            return error;
        }
        crc = crc32c_extend(crc, bytes, padded);
    }
    if (crc != header->crc) {
        return wal_read_corrupt(reading, walk, "checksum");
    }
    struct raft_entry *entry = wal_reading_push(reading);
    if (header->payload_bytes > 0) {
        buf_append(&reading->batch, bytes, header->payload_bytes);
        entry->data.size = header->payload_bytes; /* data and owner: wal_batch_close */
    }
    return ERR_OK;
}

static int wal_payload_large(struct wal_reading *reading, const struct wal_walk *walk,
                             const struct wal_record_header *header, uint32_t crc)
{
    size_t padded = (size_t)wal_align(header->payload_bytes);
    uint8_t *data;
    struct blob *blob = blob_alloc(padded, &data);
    size_t count = 0;
    int error =
        reading->wal->vfs->read_at(reading->wal->vfs->context, walk->segment->file,
                                   walk->offset + WAL_RECORD_HEADER_BYTES, data, padded, &count);
    if (error == ERR_OK && (count != padded || crc32c_extend(crc, data, padded) != header->crc)) {
        error = wal_read_corrupt(reading, walk, "checksum");
    }
    if (error != ERR_OK) {
        blob_unref(blob);
        return error;
    }
    wal_batch_close(reading);
    struct raft_entry *entry = wal_reading_push(reading);
    entry->data = bytes_of(data, header->payload_bytes);
    entry->owner = blob;
    reading->batch_from = reading->count;
    return ERR_OK;
}

static bool wal_reading_full(const struct wal_reading *reading, uint64_t payload_bytes)
{
    uint64_t bytes = payload_bytes + RAFT_ENTRY_OVERHEAD_BYTES;
    return reading->count > 0 &&
           (reading->bytes >= reading->bytes_max || bytes > reading->bytes_max - reading->bytes);
}

/* The record at walk->offset. *index is its entry's index (0: not an entry). Sets *full when it
 * does not fit. */
static int wal_walk_record(struct wal_reading *reading, struct wal_walk *walk, uint64_t *index,
                           bool *full)
{
    const uint8_t *bytes;
    int error = wal__stream_view(&reading->stream, walk->offset, WAL_RECORD_HEADER_BYTES, &bytes);
    if (error != ERR_OK) {
        return error;
    }
    struct wal_group_header group;
    if (wal_group_header_decode(bytes, walk->segment->header.salt, walk->offset, &group)) {
        walk->offset += WAL_GROUP_HEADER_BYTES;
        *index = 0;
        return ERR_OK;
    }
    struct wal_record_header header;
    uint32_t crc = wal_record_crc_begin(bytes, walk->segment->header.salt, walk->offset);
    if (!wal_record_header_decode(bytes, &header) ||
        header.payload_bytes > reading->wal->options.entry_bytes_max + WAL_HARD_STATE_BYTES ||
        walk->limit - walk->offset < wal_record_bytes(header.payload_bytes)) {
        return wal_read_corrupt(reading, walk, "record header");
    }
    *index = header.type == WAL_RECORD_ENTRY ? header.index : 0;
    if (*index == reading->next) {
        if (wal_reading_full(reading, header.payload_bytes)) {
            *full = true;
            return ERR_OK;
        }
        error = wal_align(header.payload_bytes) <= WAL_READ_WINDOW_BYTES
                    ? wal_payload_small(reading, walk, &header, crc)
                    : wal_payload_large(reading, walk, &header, crc);
        if (error != ERR_OK) {
            return error;
        }
        struct raft_entry *entry = &reading->entries[reading->count - 1];
        entry->position = (struct raft_position){header.index, header.term};
        entry->kind = (enum raft_entry_kind)header.kind;
        reading->bytes += raft_entry_bytes(entry);
        reading->next++;
    } else if (*index > reading->next) {
        return wal_read_corrupt(reading, walk, "index out of order");
    }
    walk->offset += wal_record_bytes(header.payload_bytes);
    return ERR_OK;
}

/* Takes what is wanted from one walk. */
static int wal_walk_run(struct wal_reading *reading, struct wal_walk *walk, bool *full)
{
    wal__stream_seek(&reading->stream, walk->segment->file);
    uint64_t until = walk->until < reading->to_max ? walk->until : reading->to_max;
    int error = ERR_OK;
    while (error == ERR_OK && !*full && reading->next <= until) {
        if (walk->offset > walk->limit || walk->limit - walk->offset < WAL_RECORD_HEADER_BYTES) {
            return wal_read_corrupt(reading, walk, "entry missing");
        }
        uint64_t index;
        error = wal_walk_record(reading, walk, &index, full);
        if (reading->batch.size >= WAL_STREAM_BYTES) {
            wal_batch_close(reading);
        }
    }
    return error;
}

int wal_read(struct wal *wal, uint64_t from, uint64_t to_max, uint64_t bytes_max,
             struct raft_entry **entries, size_t *count)
{
    struct wal_reading reading = {
        .wal = wal, .next = from, .to_max = to_max, .bytes_max = bytes_max};
    *entries = NULL;
    *count = 0;
    if (from == 0 || from > to_max) {
        return ERR_NOT_FOUND;
    }
    wal__stream_init(&reading.stream, wal->vfs, WAL_READ_WINDOW_BYTES);
    buf_init(&reading.batch);
    int error = ERR_OK;
    bool full = false;
    while (error == ERR_OK && !full && reading.next <= to_max) {
        struct wal_walk walk;
        error = wal_walk_begin(&reading, &walk);
        if (error == ERR_OK) {
            error = wal_walk_run(&reading, &walk, &full);
            wal_walk_end(wal, &walk);
        }
    }
    wal_batch_close(&reading);
    buf_deinit(&reading.batch);
    wal__stream_deinit(&reading.stream);
    if (error == ERR_NOT_FOUND && reading.count > 0) {
        error = ERR_OK; /* the log ends, or was compacted or truncated meanwhile: what was read
                           stands */
    }
    if (error != ERR_OK) {
        wal_entries_free(reading.entries, reading.count);
        return error;
    }
    *entries = reading.entries;
    *count = reading.count;
    return ERR_OK;
}

void wal_entries_free(struct raft_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        blob_unref(entries[i].owner);
    }
    free(entries);
}
