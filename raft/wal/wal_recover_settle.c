/* Makes a log that was read and found good ready to be appended to: names durable, headers
 * repaired, torn tail cut, what was read written again where no witness says it was synced, files
 * that are not part of the log recycled. Each step may be cut short by a crash and is then done
 * again. */
#include "raft/wal/wal_opening.h"

#include "base/assert.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- make it ready ---- */

/* Header copies that a disk damaged are written again; the other copy was good. */
static int wal_opening_repair_header(struct wal_opening *opening, struct wal_segment *segment)
{
    struct wal_segment_header header;
    bool valid;
    wal__stream_seek(&opening->stream, segment->file);
    int error = wal__opening_header(opening, segment->header.sequence, &header, &valid);
    if (error != ERR_OK || (!opening->header_repair[0] && !opening->header_repair[1])) {
        return error;
    }
    ASSERT(valid);
    log_event(LOG_WARN, "wal.header_repaired", "dir=%s segment=%016" PRIx64, opening->wal->dir,
              segment->header.sequence);
    struct buf bytes;
    buf_init(&bytes);
    wal_segment_header_encode(&segment->header, &bytes);
    const struct vfs *vfs = opening->wal->vfs;
    error =
        vfs->write_at(vfs->context, segment->file, 0, bytes_of(bytes.data, WAL_SEGMENT_DATA_AT));
    buf_deinit(&bytes);
    return error == ERR_OK ? vfs->sync(vfs->context, segment->file) : error;
}

/* Writes again what was read and is not known to have been synced. After a sync that failed, the
 * kernel may show bytes that it will never write: only writing them makes the next sync mean
 * something. */
static int wal_opening_rewrite(struct wal_opening *opening, const struct wal_segment *active)
{
    const struct vfs *vfs = opening->wal->vfs;
    uint64_t at = opening->witnessed > WAL_SEGMENT_DATA_AT ? opening->witnessed : 0;
    wal__stream_seek(&opening->stream, active->file);
    while (at < active->end) {
        uint64_t left = active->end - at;
        size_t part = left < WAL_STREAM_BYTES ? (size_t)left : WAL_STREAM_BYTES;
        const uint8_t *bytes;
        int error = wal__stream_view(&opening->stream, at, part, &bytes);
        if (error == ERR_OK) {
            error = vfs->write_at(vfs->context, active->file, at, bytes_of(bytes, part));
        }
        if (error != ERR_OK) {
            return error;
        }
        at += part;
    }
    return ERR_OK;
}

/* Cuts the torn tail, brings the file back to its size, and makes durable what was read: it may
 * have been in the page cache only. */
static int wal_opening_settle_active(struct wal_opening *opening)
{
    struct wal *wal = opening->wal;
    const struct vfs *vfs = wal->vfs;
    struct wal_segment *active = wal__active(wal);
    uint64_t size;
    int error = vfs->size(vfs->context, active->file, &size);
    if (error == ERR_OK && size < active->header.file_bytes) {
        active->grows = true;
        error = vfs->truncate(vfs->context, active->file, active->header.file_bytes);
    }
    if (error == ERR_OK) {
        error = wal_opening_rewrite(opening, active);
    }
    if (error == ERR_OK && opening->torn_bytes > 0) {
        log_event(LOG_WARN, "wal.tail_cut",
                  "dir=%s segment=%016" PRIx64 " offset=%" PRIu64 " bytes=%" PRIu64, wal->dir,
                  active->header.sequence, active->end, opening->torn_bytes);
        error =
            wal__write_zeroes(vfs, active->file, active->end, active->end + opening->torn_bytes, 0);
    }
    if (error == ERR_OK) {
        error = vfs->sync(vfs->context, active->file);
    }
    if (error == ERR_OK) {
        wal->durable_to = active->end;
        error = wal__write_mark(wal);
    }
    return error;
}

static int wal_opening_spare(struct wal_opening *opening, uint64_t number)
{
    struct wal *wal = opening->wal;
    struct vfs_file *file;
    int error = wal__opening_file(opening, number, WAL_SPARE_SUFFIX, &file);
    if (error != ERR_OK) {
        return error;
    }
    uint64_t size = 0;
    error = wal->vfs->size(wal->vfs->context, file, &size);
    if (error == ERR_OK && size == wal->options.segment_bytes &&
        wal->spare_count < wal->options.recycled_max) {
        wal->spares[wal->spare_count++] = (struct wal_spare){number, file};
        return ERR_OK;
    }
    int close_error = wal->vfs->close(wal->vfs->context, file);
    return error == ERR_OK ? close_error : error;
}

static bool wal_spare_known(const struct wal *wal, uint64_t number)
{
    for (uint32_t i = 0; i < wal->spare_count; i++) {
        if (wal->spares[i].number == number) {
            return true;
        }
    }
    return false;
}

static int wal_opening_remove(struct wal_opening *opening, uint64_t number, const char *suffix)
{
    char name[WAL_NAME_BYTES_MAX];
    char path[VFS_PATH_BYTES_MAX];
    wal__name(name, number, suffix);
    int error = wal__path(opening->wal, name, path);
    return error == ERR_OK ? opening->wal->vfs->remove(opening->wal->vfs->context, path) : error;
}

/* Spares that fit are kept; other spares and unfinished ones go. */
int wal__opening_spares(struct wal_opening *opening)
{
    struct wal *wal = opening->wal;
    for (size_t i = 0; i < opening->makings.count; i++) {
        int error = wal_opening_remove(opening, opening->makings.numbers[i], WAL_MAKING_SUFFIX);
        if (error != ERR_OK) {
            return error;
        }
    }
    for (size_t i = 0; i < opening->spares.count; i++) {
        uint64_t number = opening->spares.numbers[i];
        wal->next_spare_number =
            number >= wal->next_spare_number ? number + 1 : wal->next_spare_number;
        int error = wal_opening_spare(opening, number);
        if (error == ERR_OK && !wal_spare_known(wal, number)) {
            error = wal_opening_remove(opening, number, WAL_SPARE_SUFFIX);
        }
        if (error != ERR_OK) {
            return error;
        }
    }
    return ERR_OK;
}

/* Files that are not part of the log any more: below first_sequence, or a last one that was
 * dropped. */
static int wal_opening_recycle(struct wal_opening *opening, uint64_t number, struct vfs_file *file)
{
    struct wal *wal = opening->wal;
    uint64_t size = 0;
    int error = wal->vfs->size(wal->vfs->context, file, &size);
    if (error != ERR_OK) {
        (void)wal->vfs->close(wal->vfs->context, file);
        return error;
    }
    char name[WAL_NAME_BYTES_MAX];
    wal__name(name, number, WAL_SEGMENT_SUFFIX);
    return wal__file_recycle(wal, name, file, size, true);
}

static int wal_opening_leftovers(struct wal_opening *opening, uint64_t first_sequence)
{
    int error = ERR_OK;
    for (size_t i = 0; i < opening->segments.count && error == ERR_OK; i++) {
        uint64_t number = opening->segments.numbers[i];
        if (number < first_sequence) {
            struct vfs_file *file;
            error = wal__opening_file(opening, number, WAL_SEGMENT_SUFFIX, &file);
            if (error == ERR_OK) {
                error = wal_opening_recycle(opening, number, file);
            }
        }
    }
    if (error == ERR_OK && opening->dropped != NULL) {
        struct wal_segment *dropped = opening->dropped;
        opening->dropped = NULL;
        error = wal_opening_recycle(opening, dropped->header.sequence, dropped->file);
        free(dropped);
    }
    return error;
}

/* The log was read and is good; now the directory may be changed. */
int wal__opening_settle(struct wal_opening *opening, uint64_t first_sequence)
{
    struct wal *wal = opening->wal;
    /* The base and the segments may have been read under names that a power loss would still take
     * back. */
    int error = wal->vfs->sync_dir(wal->vfs->context, wal->dir);
    for (size_t i = 0; i < wal->segment_count && error == ERR_OK; i++) {
        error = wal_opening_repair_header(opening, wal->segments[i]);
    }
    if (error == ERR_OK) {
        error = wal_opening_settle_active(opening);
    }
    if (error == ERR_OK) {
        error = wal__opening_spares(opening);
    }
    if (error == ERR_OK) {
        error = wal_opening_leftovers(opening, first_sequence);
    }
    if (error != ERR_OK && opening->why[0] == '\0') {
        snprintf(opening->why, opening->why_size, "%s: the log is whole but cannot be written: %s",
                 wal->dir, err_text(error));
    }
    return error;
}
