/* Segment files: their names, how one is begun, made ahead, retired and recycled.
 *
 *   (nothing) --wal_spare_make--> .making --> .spare --wal__segment_begin--> .wal, active
 *       ^  \                                   ^                              | next one begun
 *       |   `--wal__segment_begin, none ready--|-----------------> .wal       v
 *       |                                      +--wal__file_recycle--- .wal, sealed, retired
 *       +----------wal__file_recycle (enough spares, or an odd size)---------+
 *
 * Owner thread, but wal_prepare_spares: any one. The directory is synced where a name must be
 * durable (segment_begin); a spare's name need not be. */
#include "raft/wal/wal_internal.h"

#include "base/assert.h"
#include "base/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

METRIC(wal_segments_inline_count, COUNTER, "log segments made while a write waited")
METRIC(wal_segments_recycled_count, COUNTER, "log segments kept as spares")

static_assert(WAL_PREWRITE_SYNC_BYTES % WAL_WRITE_CHUNK_BYTES == 0, "synced between whole chunks");

void wal__name(char name[WAL_NAME_BYTES_MAX], uint64_t number, const char *suffix)
{
    int length = snprintf(name, WAL_NAME_BYTES_MAX, "%016" PRIx64 "%s", number, suffix);
    ASSERT(length > 0 && (unsigned)length < WAL_NAME_BYTES_MAX);
}

bool wal__name_parse(const char *name, const char *suffix, uint64_t *number)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 16; i++) {
        char c = name[i];
        unsigned digit;
        if (c >= '0' && c <= '9') {
            digit = (unsigned)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (unsigned)(c - 'a') + 10;
        } else {
            return false;
        }
        value = value << 4 | digit;
    }
    *number = value;
    return strcmp(name + 16, suffix) == 0;
}

int wal__path(const struct wal *wal, const char *name, char path[VFS_PATH_BYTES_MAX])
{
    return vfs_path(path, wal->dir, name);
}

struct wal_segment *wal__active(struct wal *wal)
{
    ASSERT_CMP(wal->segment_count, >, 0);
    return wal->segments[wal->segment_count - 1];
}

static void wal_segments_add(struct wal_segment ***array, size_t *count, size_t *capacity,
                             struct wal_segment *segment)
{
    if (*count == *capacity) {
        *capacity = *capacity == 0 ? 16 : 2 * *capacity;
        *array = mem_realloc(*array, *capacity * sizeof((*array)[0]));
    }
    (*array)[(*count)++] = segment;
}

void wal__segments_push(struct wal *wal, struct wal_segment *segment)
{
    if (wal->segment_count > 0) {
        ASSERT_CMP(wal__active(wal)->header.sequence + 1, ==, segment->header.sequence);
    }
    wal_segments_add(&wal->segments, &wal->segment_count, &wal->segment_capacity, segment);
}

void wal__segment_destroy(struct wal *wal, struct wal_segment *segment)
{
    if (segment == NULL) {
        return;
    }
    if (segment->file != NULL) {
        /* What mattered was synced; a close that fails has nothing left to tell. */
        (void)wal->vfs->close(wal->vfs->context, segment->file);
    }
    free(segment);
}

int wal__write_zeroes(const struct vfs *vfs, struct vfs_file *file, uint64_t from, uint64_t to,
                      uint64_t sync_every)
{
    int error = ERR_OK;
    uint64_t chunk_max = to - from < WAL_WRITE_CHUNK_BYTES ? to - from : WAL_WRITE_CHUNK_BYTES;
    uint8_t *zeroes = mem_calloc(1, (size_t)chunk_max + 1);
    uint64_t unsynced = 0;
    while (from < to && error == ERR_OK) {
        uint64_t chunk = to - from < chunk_max ? to - from : chunk_max;
        error = vfs->write_at(vfs->context, file, from, bytes_of(zeroes, (size_t)chunk));
        from += chunk;
        unsynced += chunk;
        if (error == ERR_OK && sync_every > 0 && unsynced >= sync_every) {
            error = vfs->sync(vfs->context, file);
            unsynced = 0;
        }
    }
    free(zeroes);
    return error;
}

/* A file of this size under `name`, its blocks there when prewriting, and synced. gives *out. */
static int wal_file_make(struct wal *wal, const char *name, uint64_t file_bytes, bool prewrite,
                         struct vfs_file **out)
{
    const struct vfs *vfs = wal->vfs;
    char path[VFS_PATH_BYTES_MAX];
    int error = wal__path(wal, name, path);
    if (error != ERR_OK) {
        return error;
    }
    struct vfs_file *file;
    error = vfs->open(vfs->context, path, VFS_READ | VFS_WRITE | VFS_CREATE | VFS_TRUNCATE, &file);
    if (error != ERR_OK) {
        return error;
    }
    if (prewrite) {
        error = wal__write_zeroes(vfs, file, 0, file_bytes, WAL_PREWRITE_SYNC_BYTES);
    } else {
        error = vfs->truncate(vfs->context, file, file_bytes);
    }
    if (error == ERR_OK && prewrite) {
        error = vfs->sync(vfs->context, file);
    }
    if (error != ERR_OK) {
        (void)vfs->close(vfs->context, file);
        (void)vfs->remove(vfs->context, path);
        return error;
    }
    *out = file;
    return ERR_OK;
}

static int wal_rename(struct wal *wal, const char *from, const char *to)
{
    char from_path[VFS_PATH_BYTES_MAX];
    char to_path[VFS_PATH_BYTES_MAX];
    int error = wal__path(wal, from, from_path);
    if (error == ERR_OK) {
        error = wal__path(wal, to, to_path);
    }
    if (error == ERR_OK) {
        error = wal->vfs->rename(wal->vfs->context, from_path, to_path);
    }
    return error;
}

static bool wal_spare_pop(struct wal *wal, struct wal_spare *out)
{
    pthread_mutex_lock(&wal->lock);
    bool ready = wal->spare_count > 0;
    if (ready) {
        *out = wal->spares[--wal->spare_count];
    }
    pthread_mutex_unlock(&wal->lock);
    return ready;
}

/* The file for a new segment: a ready spare, else one made here. */
static int wal_segment_file(struct wal *wal, const char *name, uint64_t file_bytes,
                            struct wal_segment *segment)
{
    struct wal_spare spare;
    if (file_bytes == wal->options.segment_bytes && wal_spare_pop(wal, &spare)) {
        char spare_name[WAL_NAME_BYTES_MAX];
        wal__name(spare_name, spare.number, WAL_SPARE_SUFFIX);
        segment->file = spare.file;
        return wal_rename(wal, spare_name, name);
    }
    /* The first segment of a log is worth prewriting: nobody waits on a commit yet. */
    bool first = wal->segment_count == 0;
    segment->grows = !(first && wal->options.prewrite);
    metric_add(&wal_segments_inline_count, 1);
    pthread_mutex_lock(&wal->lock);
    wal->inline_segment_count++;
    pthread_mutex_unlock(&wal->lock);
    return wal_file_make(wal, name, file_bytes, !segment->grows, &segment->file);
}

int wal__segment_begin(struct wal *wal, uint64_t group_bytes, uint64_t sequence, uint32_t flags,
                       struct raft_position start, struct wal_segment **out)
{
    struct wal_segment *segment = mem_calloc(1, sizeof(*segment));
    uint64_t file_bytes = WAL_SEGMENT_DATA_AT + group_bytes + WAL_TAIL_BYTES;
    file_bytes = (file_bytes + WAL_FILE_ALIGN_BYTES - 1) & ~(uint64_t)(WAL_FILE_ALIGN_BYTES - 1);
    if (file_bytes < wal->options.segment_bytes) {
        file_bytes = wal->options.segment_bytes;
    }
    segment->header = (struct wal_segment_header){
        .sequence = sequence,
        .salt = rng_next(&wal->rng),
        .file_bytes = file_bytes,
        .start = start,
        .flags = flags,
    };
    if ((flags & WAL_SEGMENT_BEGINS_LOG) == 0) {
        const struct wal_segment *previous = wal__active(wal);
        segment->header.previous_salt = previous->header.salt;
        segment->header.previous_end = previous->end;
    }
    segment->end = WAL_SEGMENT_DATA_AT;

    char name[WAL_NAME_BYTES_MAX];
    wal__name(name, sequence, WAL_SEGMENT_SUFFIX);
    int error = wal_segment_file(wal, name, file_bytes, segment);
    if (error == ERR_OK) {
        error = wal->vfs->sync_dir(wal->vfs->context, wal->dir);
    }
    if (error == ERR_OK) {
        struct buf header;
        buf_init(&header);
        wal_segment_header_encode(&segment->header, &header);
        error = wal->vfs->write_at(wal->vfs->context, segment->file, 0, buf_view(&header));
        buf_deinit(&header);
    }
    if (error != ERR_OK) {
        wal__segment_destroy(wal, segment);
        return error;
    }
    *out = segment;
    return ERR_OK;
}

/* Room for one more spare, reserved; the caller gives it back with spares_in_making--. */
static bool wal_spare_reserve(struct wal *wal, uint32_t spares_max, uint64_t *number)
{
    pthread_mutex_lock(&wal->lock);
    bool room = wal->spare_count + wal->spares_in_making < spares_max;
    if (room) {
        wal->spares_in_making++;
        *number = wal->next_spare_number++;
    }
    pthread_mutex_unlock(&wal->lock);
    return room;
}

/* Ends a reservation; takes `file` when there is one. */
static void wal_spare_settle(struct wal *wal, uint64_t number, struct vfs_file *file)
{
    pthread_mutex_lock(&wal->lock);
    ASSERT_CMP(wal->spares_in_making, >, 0);
    wal->spares_in_making--;
    if (file != NULL) {
        ASSERT_CMP(wal->spare_count, <, WAL_SPARES_MAX);
        wal->spares[wal->spare_count++] = (struct wal_spare){number, file};
    }
    pthread_mutex_unlock(&wal->lock);
}

int wal__file_recycle(struct wal *wal, const char *name, struct vfs_file *file, uint64_t file_bytes,
                      bool whole)
{
    char path[VFS_PATH_BYTES_MAX];
    int error = wal__path(wal, name, path);
    uint64_t number;
    if (error == ERR_OK && file != NULL && whole && file_bytes == wal->options.segment_bytes &&
        wal_spare_reserve(wal, wal->options.recycled_max, &number)) {
        char spare_name[WAL_NAME_BYTES_MAX];
        wal__name(spare_name, number, WAL_SPARE_SUFFIX);
        error = wal_rename(wal, name, spare_name);
        wal_spare_settle(wal, number, error == ERR_OK ? file : NULL);
        if (error == ERR_OK) {
            metric_add(&wal_segments_recycled_count, 1);
            return ERR_OK;
        }
    }
    if (file != NULL) {
        int close_error = wal->vfs->close(wal->vfs->context, file);
        error = error == ERR_OK ? close_error : error;
    }
    return error == ERR_OK ? wal->vfs->remove(wal->vfs->context, path) : error;
}

/* takes `segment`. A file that grew as it was written is worth keeping only when it was nearly
 * filled. */
static int wal_segment_recycle(struct wal *wal, struct wal_segment *segment)
{
    char name[WAL_NAME_BYTES_MAX];
    wal__name(name, segment->header.sequence, WAL_SEGMENT_SUFFIX);
    uint64_t file_bytes = segment->header.file_bytes;
    bool whole =
        !segment->grows || !wal->options.prewrite || segment->end >= file_bytes - file_bytes / 8;
    int error = wal__file_recycle(wal, name, segment->file, file_bytes, whole);
    free(segment);
    return error;
}

/* Recycles what no reader holds any more. */
static int wal_retired_recycle(struct wal *wal)
{
    for (;;) {
        struct wal_segment *segment = NULL;
        pthread_mutex_lock(&wal->lock);
        for (size_t i = 0; i < wal->retired_count; i++) {
            if (wal->retired[i]->reader_count == 0) {
                segment = wal->retired[i];
                wal->retired[i] = wal->retired[--wal->retired_count];
                break;
            }
        }
        pthread_mutex_unlock(&wal->lock);
        if (segment == NULL) {
            return ERR_OK;
        }
        int error = wal_segment_recycle(wal, segment);
        if (error != ERR_OK) {
            return error;
        }
    }
}

int wal__segments_retire(struct wal *wal, uint64_t sequence)
{
    pthread_mutex_lock(&wal->lock);
    size_t count = 0;
    while (count < wal->segment_count && wal->segments[count]->header.sequence < sequence) {
        wal_segments_add(&wal->retired, &wal->retired_count, &wal->retired_capacity,
                         wal->segments[count]);
        count++;
    }
    wal->segment_count -= count;
    memmove(wal->segments, wal->segments + count, wal->segment_count * sizeof(wal->segments[0]));
    pthread_mutex_unlock(&wal->lock);
    return wal_retired_recycle(wal);
}

/* Makes one spare for a reservation. */
static int wal_spare_make(struct wal *wal, uint64_t number)
{
    char making[WAL_NAME_BYTES_MAX];
    char ready[WAL_NAME_BYTES_MAX];
    wal__name(making, number, WAL_MAKING_SUFFIX);
    wal__name(ready, number, WAL_SPARE_SUFFIX);
    struct vfs_file *file = NULL;
    int error =
        wal_file_make(wal, making, wal->options.segment_bytes, wal->options.prewrite, &file);
    if (error == ERR_OK) {
        error = wal_rename(wal, making, ready);
        if (error != ERR_OK) {
            (void)wal->vfs->close(wal->vfs->context, file);
            file = NULL;
        }
    }
    wal_spare_settle(wal, number, file);
    return error;
}

int wal_prepare_spares(struct wal *wal)
{
    int error = wal__failed(wal);
    if (error == ERR_OK) {
        error = wal_retired_recycle(wal);
    }
    uint64_t number;
    while (error == ERR_OK && wal_spare_reserve(wal, wal->options.spare_segments, &number)) {
        error = wal_spare_make(wal, number);
    }
    return error;
}
