/* Opening a log: what is there, is it whole, cut its torn tail, make it ready to be appended to.
 * Runs before any other thread knows the log.
 *
 * Nothing on disk is changed until the whole log was read and found good, so that a refused start
 * leaves the evidence as it was. Every segment is read once, through one bounded window. */
#include "raft/wal/wal_internal.h"

#include "base/assert.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAL_ADVICE                                                                                 \
    "Nothing was changed. Keep the directory for inspection, and replace this replica: remove it " \
    "from its group, then add it again under a new id with an empty directory."

struct wal_numbers {
    uint64_t *numbers;
    size_t count;
    size_t capacity;
};

struct wal_opening {
    struct wal *wal;
    struct wal_numbers segments; /* ascending, as the directory lists them in byte order */
    struct wal_numbers spares;
    struct wal_numbers makings;
    struct wal_stream stream;
    struct wal_replay replay;
    struct wal_segment *dropped; /* the last file, when it turns out not to be part of the log */
    bool header_repair[2];       /* per copy, of the last segment looked at */
    uint64_t torn_bytes;
    uint64_t witnessed; /* the last segment was synced up to here, as its groups and mark say */
    char *why;
    size_t why_size;
};

static void wal_numbers_push(struct wal_numbers *list, uint64_t number)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        list->numbers = mem_realloc(list->numbers, list->capacity * sizeof(list->numbers[0]));
    }
    list->numbers[list->count++] = number;
}

static int wal_refuse(struct wal_opening *opening, int error, const char *name, uint64_t offset,
                      const char *what)
{
    snprintf(opening->why, opening->why_size, "%s/%s, offset %" PRIu64 ": %s. %s",
             opening->wal->dir, name, offset, what,
             error == ERR_CORRUPT ? WAL_ADVICE : err_text(error));
    return error;
}

static int wal_refuse_segment(struct wal_opening *opening, int error, uint64_t sequence,
                              uint64_t offset, const char *what)
{
    char name[WAL_NAME_BYTES_MAX];
    wal__name(name, sequence, WAL_SEGMENT_SUFFIX);
    return wal_refuse(opening, error, name, offset, what);
}

/* ---- what is there
 * ------------------------------------------------------------------------------------ */

static void wal_opening_name(void *context, const char *name)
{
    struct wal_opening *opening = context;
    uint64_t number;
    if (strlen(name) < 16) {
        return;
    }
    if (wal__name_parse(name, WAL_SEGMENT_SUFFIX, &number)) {
        wal_numbers_push(&opening->segments, number);
    } else if (wal__name_parse(name, WAL_SPARE_SUFFIX, &number)) {
        wal_numbers_push(&opening->spares, number);
    } else if (wal__name_parse(name, WAL_MAKING_SUFFIX, &number)) {
        wal_numbers_push(&opening->makings, number);
    }
}

static int wal_opening_file(struct wal_opening *opening, uint64_t number, const char *suffix,
                            struct vfs_file **out)
{
    char name[WAL_NAME_BYTES_MAX];
    char path[VFS_PATH_BYTES_MAX];
    wal__name(name, number, suffix);
    int error = wal__path(opening->wal, name, path);
    if (error == ERR_OK) {
        error =
            opening->wal->vfs->open(opening->wal->vfs->context, path, VFS_READ | VFS_WRITE, out);
    }
    return error == ERR_OK ? ERR_OK : wal_refuse(opening, error, name, 0, "cannot be opened");
}

/* *found is false when there is no base file. */
static int wal_opening_base(struct wal_opening *opening, struct wal_base *base, bool *found)
{
    char path[VFS_PATH_BYTES_MAX];
    int error = wal__path(opening->wal, WAL_BASE_NAME, path);
    struct buf bytes;
    buf_init(&bytes);
    if (error == ERR_OK) {
        error = vfs_read_all(opening->wal->vfs, path, WAL_BASE_BYTES_MAX, &bytes);
    }
    *found = error != ERR_NOT_FOUND;
    if (error == ERR_NOT_FOUND) {
        error = ERR_OK;
    } else if (error == ERR_OK || error == ERR_TOO_LARGE) {
        error = error == ERR_OK ? wal_base_decode(buf_view(&bytes), base) : ERR_CORRUPT;
        if (error != ERR_OK) {
            error = wal_refuse(opening, error, WAL_BASE_NAME, 0, "the file fails its checks");
        }
    } else {
        error = wal_refuse(opening, error, WAL_BASE_NAME, 0, "cannot be read");
    }
    buf_deinit(&bytes);
    return error;
}

/* Reads the header at the stream's file. *valid when one copy at least is good and names this
 * sequence. */
static int wal_opening_header(struct wal_opening *opening, uint64_t sequence,
                              struct wal_segment_header *out, bool *valid)
{
    const uint8_t *bytes;
    int error = wal__stream_view(&opening->stream, 0, WAL_SEGMENT_DATA_AT, &bytes);
    if (error != ERR_OK) {
        return wal_refuse_segment(opening, error, sequence, 0, "cannot be read");
    }
    *valid = false;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t at = i * WAL_SEGMENT_HEADER_COPY_AT;
        struct wal_segment_header header;
        bool good =
            wal_segment_header_decode(bytes + at, at, &header) && header.sequence == sequence;
        opening->header_repair[i] = !good;
        if (good && !*valid) {
            *out = header;
            *valid = true;
        }
    }
    return ERR_OK;
}

/* Opens segment `sequence` and appends it to the table; to opening->dropped when it has no valid
 * header. */
static int wal_opening_segment(struct wal_opening *opening, uint64_t sequence, bool *valid)
{
    struct wal *wal = opening->wal;
    struct wal_segment *segment = mem_calloc(1, sizeof(*segment));
    int error = wal_opening_file(opening, sequence, WAL_SEGMENT_SUFFIX, &segment->file);
    if (error != ERR_OK) {
        free(segment);
        return error;
    }
    wal__stream_seek(&opening->stream, segment->file);
    error = wal_opening_header(opening, sequence, &segment->header, valid);
    if (error != ERR_OK) {
        wal__segment_destroy(wal, segment);
        return error;
    }
    if (*valid) {
        segment->end = WAL_SEGMENT_DATA_AT;
        wal__segments_push(wal, segment);
    } else {
        segment->header.sequence = sequence;
        opening->dropped = segment;
    }
    return ERR_OK;
}

static bool wal_segment_begins(const struct wal_segment *segment)
{
    return (segment->header.flags & WAL_SEGMENT_BEGINS_LOG) != 0;
}

static int wal_opening_check(struct wal_opening *opening, const struct wal_segment *segment,
                             uint64_t offset, struct wal_group_check *check)
{
    int error = wal__stream_check_group(&opening->stream, &segment->header, offset,
                                        opening->wal->options.entry_bytes_max, check);
    return error == ERR_OK ? ERR_OK
                           : wal_refuse_segment(opening, error, segment->header.sequence, offset,
                                                "cannot be read");
}

/* A last segment that begins a log no base names is a reset that did not happen. */
static int wal_opening_unfinished_reset(struct wal_opening *opening)
{
    struct wal *wal = opening->wal;
    struct wal_segment *segment = wal__active(wal);
    struct wal_group_check check;
    int error = wal_opening_check(opening, segment, WAL_SEGMENT_DATA_AT, &check);
    if (error != ERR_OK) {
        return error;
    }
    if (check.valid && !wal_group_is_mark(&check.header)) {
        return wal_refuse(opening, ERR_CORRUPT, WAL_BASE_NAME, 0,
                          "the file is older than the segments beside it");
    }
    wal->segment_count--;
    opening->dropped = segment;
    return ERR_OK;
}

/* Opens every segment of the log, in order, and checks that they are consecutive and begin as they
 * should. */
static int wal_opening_segments(struct wal_opening *opening, uint64_t first_sequence)
{
    uint64_t expected = first_sequence;
    for (size_t i = 0; i < opening->segments.count; i++) {
        uint64_t sequence = opening->segments.numbers[i];
        bool is_last = i + 1 == opening->segments.count;
        if (sequence < first_sequence) {
            continue;
        }
        if (sequence != expected) {
            break;
        }
        bool valid;
        int error = wal_opening_segment(opening, sequence, &valid);
        if (error != ERR_OK) {
            return error;
        }
        if (!valid && (!is_last || sequence == first_sequence)) {
            return wal_refuse_segment(opening, ERR_CORRUPT, sequence, 0,
                                      "both copies of the segment's header fail their checksums");
        }
        if (valid && sequence > first_sequence && wal_segment_begins(wal__active(opening->wal))) {
            if (!is_last) {
                return wal_refuse(opening, ERR_CORRUPT, WAL_BASE_NAME, 0,
                                  "the file is older than the segments beside it");
            }
            return wal_opening_unfinished_reset(opening);
        }
        expected++;
    }
    size_t count = opening->segments.count;
    if (count == 0 || opening->segments.numbers[count - 1] < first_sequence ||
        opening->segments.numbers[count - 1] >= expected) {
        return wal_refuse_segment(opening, ERR_CORRUPT, expected, 0, "the segment is missing");
    }
    return ERR_OK;
}

/* ---- is it whole
 * -------------------------------------------------------------------------------------- */

static int wal_opening_replay(struct wal_opening *opening, struct wal_segment *segment,
                              const struct wal_group_check *check)
{
    int error = wal__replay_group(&opening->replay, &opening->stream, &segment->header,
                                  segment->end, &check->header);
    if (error == ERR_CORRUPT) {
        return wal_refuse_segment(opening, error, segment->header.sequence, opening->replay.bad_at,
                                  opening->replay.what);
    }
    if (error != ERR_OK) {
        return wal_refuse_segment(opening, error, segment->header.sequence, segment->end,
                                  "cannot be read");
    }
    segment->end += WAL_GROUP_HEADER_BYTES + check->header.body_bytes;
    return ERR_OK;
}

/* A segment that has one behind it must be whole up to the end that one names. */
static int wal_opening_sealed(struct wal_opening *opening, struct wal_segment *segment,
                              const struct wal_segment_header *next)
{
    uint64_t sequence = segment->header.sequence;
    if (next->previous_salt != segment->header.salt) {
        return wal_refuse_segment(opening, ERR_CORRUPT, next->sequence, 0,
                                  "the segment does not follow the one before it");
    }
    wal__stream_seek(&opening->stream, segment->file);
    while (segment->end < next->previous_end) {
        struct wal_group_check check;
        int error = wal_opening_check(opening, segment, segment->end, &check);
        if (error != ERR_OK) {
            return error;
        }
        if (!check.valid) {
            return wal_refuse_segment(opening, ERR_CORRUPT, sequence, check.bad_at, check.what);
        }
        if (wal_group_is_mark(&check.header)) {
            return wal_refuse_segment(opening, ERR_CORRUPT, sequence, segment->end,
                                      "a group that was synced is missing");
        }
        error = wal_opening_replay(opening, segment, &check);
        if (error != ERR_OK) {
            return error;
        }
    }
    struct raft_position last = opening->replay.last;
    if (segment->end != next->previous_end || next->start.index != last.index ||
        (last.term != 0 && next->start.term != last.term)) {
        return wal_refuse_segment(opening, ERR_CORRUPT, next->sequence, 0,
                                  "the segment does not begin where the one before it ends");
    }
    return ERR_OK;
}

/* What lies behind the first place without a valid group. */
struct wal_tail_search {
    uint64_t found_end;  /* of the last group header found; 0: none */
    uint64_t durable_to; /* the greatest any of them names */
};

static int wal_opening_search(struct wal_opening *opening, const struct wal_segment *segment,
                              uint64_t from, struct wal_tail_search *out)
{
    *out = (struct wal_tail_search){0};
    uint64_t limit;
    int error = opening->wal->vfs->size(opening->wal->vfs->context, segment->file, &limit);
    if (error != ERR_OK) {
        return wal_refuse_segment(opening, error, segment->header.sequence, 0, "cannot be read");
    }
    limit = limit < segment->header.file_bytes ? limit : segment->header.file_bytes;
    uint64_t at = from;
    while (at < limit && limit - at >= WAL_GROUP_HEADER_BYTES) {
        size_t size = limit - at < WAL_STREAM_BYTES ? (size_t)(limit - at) : WAL_STREAM_BYTES;
        const uint8_t *bytes;
        error = wal__stream_view(&opening->stream, at, size, &bytes);
        if (error != ERR_OK) {
            return wal_refuse_segment(opening, error, segment->header.sequence, at,
                                      "cannot be read");
        }
        size_t i = 0;
        for (; size - i >= WAL_GROUP_HEADER_BYTES; i += WAL_ALIGN_BYTES) {
            struct wal_group_header header;
            if (!wal_group_header_maybe(bytes + i) ||
                !wal_group_header_decode(bytes + i, segment->header.salt, at + i, &header)) {
                continue;
            }
            uint64_t end = at + i + WAL_GROUP_HEADER_BYTES + header.body_bytes;
            out->found_end = end > out->found_end ? end : out->found_end;
            if (header.durable_to > out->durable_to) {
                out->durable_to = header.durable_to;
            }
        }
        at += i;
    }
    return ERR_OK;
}

/* How much must be zeroed from segment->end on; 0 when the log ends there as a log does. */
static int wal_opening_torn_bytes(struct wal_opening *opening, const struct wal_segment *segment,
                                  bool is_mark, const struct wal_tail_search *search)
{
    uint64_t clean_end = segment->end + (is_mark ? WAL_GROUP_HEADER_BYTES : 0);
    uint64_t torn_end = search->found_end > clean_end ? search->found_end : 0;
    if (!is_mark && torn_end == 0) {
        static const uint8_t zeroes[WAL_GROUP_HEADER_BYTES] = {0};
        const uint8_t *bytes;
        int error =
            wal__stream_view(&opening->stream, segment->end, WAL_GROUP_HEADER_BYTES, &bytes);
        if (error != ERR_OK) {
            return wal_refuse_segment(opening, error, segment->header.sequence, segment->end,
                                      "cannot be read");
        }
        if (memcmp(bytes, zeroes, sizeof(zeroes)) != 0) {
            torn_end = segment->end + WAL_GROUP_HEADER_BYTES;
        }
    }
    if (torn_end > segment->header.file_bytes) {
        torn_end = segment->header.file_bytes;
    }
    opening->torn_bytes = torn_end > segment->end ? torn_end - segment->end : 0;
    return ERR_OK;
}

static int wal_opening_last(struct wal_opening *opening, struct wal_segment *segment)
{
    wal__stream_seek(&opening->stream, segment->file);
    struct wal_group_check check;
    for (;;) {
        int error = wal_opening_check(opening, segment, segment->end, &check);
        if (error != ERR_OK) {
            return error;
        }
        if (check.valid && check.header.durable_to > opening->witnessed) {
            opening->witnessed = check.header.durable_to;
        }
        if (!check.valid || wal_group_is_mark(&check.header)) {
            break;
        }
        error = wal_opening_replay(opening, segment, &check);
        if (error != ERR_OK) {
            return error;
        }
    }
    struct wal_tail_search search;
    int error = wal_opening_search(opening, segment, segment->end, &search);
    if (error != ERR_OK) {
        return error;
    }
    if (search.durable_to > segment->end) {
        uint64_t bad_at = check.valid ? segment->end : check.bad_at;
        const char *what = check.valid ? "a group that was synced is missing" : check.what;
        return wal_refuse_segment(opening, ERR_CORRUPT, segment->header.sequence, bad_at, what);
    }
    return wal_opening_torn_bytes(opening, segment, check.valid, &search);
}

static int wal_opening_log(struct wal_opening *opening, const struct wal_base *base,
                           uint64_t tail_bytes_max)
{
    struct wal *wal = opening->wal;
    wal__replay_init(&opening->replay, base, &wal->index, tail_bytes_max,
                     wal->segments[0]->header.start);
    for (size_t i = 0; i < wal->segment_count; i++) {
        struct wal_segment *segment = wal->segments[i];
        int error = i + 1 < wal->segment_count
                        ? wal_opening_sealed(opening, segment, &wal->segments[i + 1]->header)
                        : wal_opening_last(opening, segment);
        if (error != ERR_OK) {
            return error;
        }
    }
    int error = wal__replay_finish(&opening->replay);
    if (error != ERR_OK) {
        return wal_refuse_segment(opening, error, wal__active(wal)->header.sequence,
                                  wal__active(wal)->end, opening->replay.what);
    }
    wal->hard_state = opening->replay.hard_state;
    wal->membership = base->membership;
    return ERR_OK;
}

/* ---- make it ready
 * ------------------------------------------------------------------------------------ */

/* Header copies that a disk damaged are written again; the other copy was good. */
static int wal_opening_repair_header(struct wal_opening *opening, struct wal_segment *segment)
{
    struct wal_segment_header header;
    bool valid;
    wal__stream_seek(&opening->stream, segment->file);
    int error = wal_opening_header(opening, segment->header.sequence, &header, &valid);
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
    int error = wal_opening_file(opening, number, WAL_SPARE_SUFFIX, &file);
    if (error != ERR_OK) {
        return error;
    }
    uint64_t size = 0;
    error = wal->vfs->size(wal->vfs->context, file, &size);
    if (error == ERR_OK && size == wal->options.segment_bytes &&
        wal->spare_count < wal->options.spare_segments) {
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
static int wal_opening_spares(struct wal_opening *opening)
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
            error = wal_opening_file(opening, number, WAL_SEGMENT_SUFFIX, &file);
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
static int wal_opening_settle(struct wal_opening *opening, uint64_t first_sequence)
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
        error = wal_opening_spares(opening);
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

/* ---- first start
 * -------------------------------------------------------------------------------------- */

/* Without a base only a log that was never finished is taken for a fresh one. */
static int wal_opening_fresh_check(struct wal_opening *opening)
{
    if (opening->segments.count == 0) {
        return ERR_OK;
    }
    bool never_finished = opening->segments.count == 1 && opening->segments.numbers[0] == 1;
    if (never_finished) {
        bool valid;
        int error = wal_opening_segment(opening, 1, &valid);
        if (error != ERR_OK) {
            return error;
        }
        if (valid) {
            struct wal_group_check check;
            const struct wal_segment *segment = wal__active(opening->wal);
            error = wal_opening_check(opening, segment, WAL_SEGMENT_DATA_AT, &check);
            if (error != ERR_OK) {
                return error;
            }
            never_finished =
                wal_segment_begins(segment) && (!check.valid || wal_group_is_mark(&check.header));
            opening->dropped = wal__active(opening->wal);
            opening->wal->segment_count = 0;
        }
    }
    return never_finished ? ERR_OK
                          : wal_refuse(opening, ERR_CORRUPT, WAL_BASE_NAME, 0,
                                       "the file is missing, but there are segments");
}

static int wal_opening_fresh(struct wal_opening *opening, const struct raft_membership *bootstrap)
{
    struct wal *wal = opening->wal;
    int error = wal_opening_fresh_check(opening);
    if (error != ERR_OK) {
        return error;
    }
    wal__segment_destroy(wal, opening->dropped);
    opening->dropped = NULL;
    struct raft_position origin = {0, 0};
    if (bootstrap != NULL) {
        wal->membership = *bootstrap;
    }
    wal->membership.position = origin;
    wal_index_init(&wal->index, origin);
    error = wal_opening_spares(opening);
    struct wal_segment *segment = NULL;
    if (error == ERR_OK) {
        error = wal__segment_begin(wal, 0, 1, WAL_SEGMENT_BEGINS_LOG, origin, &segment);
    }
    if (error == ERR_OK) {
        wal__segments_push(wal, segment);
        wal->durable_to = WAL_SEGMENT_DATA_AT;
        error = wal->vfs->sync(wal->vfs->context, segment->file);
    }
    if (error == ERR_OK) {
        error = wal__base_write(wal, origin, 1, &wal->membership);
    }
    if (error != ERR_OK && opening->why[0] == '\0') {
        snprintf(opening->why, opening->why_size, "%s: the log cannot be created: %s", wal->dir,
                 err_text(error));
    }
    return error;
}

/* ---- open, close
 * -------------------------------------------------------------------------------------- */

struct wal_options wal_options_default(void)
{
    return (struct wal_options){
        .segment_bytes = 64ull * 1024 * 1024,
        .spare_segments = 2,
        .entry_bytes_max = 20ull * 1024 * 1024,
        .prewrite = true,
    };
}

static struct wal *wal_create(const struct vfs *vfs, const char *dir,
                              const struct wal_options *options)
{
    ASSERT_CMP(options->segment_bytes, >=, WAL_SEGMENT_BYTES_MIN);
    ASSERT(options->spare_segments >= 1 && options->spare_segments <= WAL_SPARES_MAX);
    ASSERT_CMP(options->entry_bytes_max, <, WAL_GROUP_BODY_BYTES_MAX);
    struct wal *wal = mem_calloc(1, sizeof(*wal));
    wal->vfs = vfs;
    wal->dir = mem_strdup(dir);
    wal->options = *options;
    wal->options.segment_bytes =
        (options->segment_bytes + WAL_FILE_ALIGN_BYTES - 1) & ~(uint64_t)(WAL_FILE_ALIGN_BYTES - 1);
    wal->next_spare_number = 1;
    rng_init(&wal->rng, options->seed != 0 ? options->seed : rng_seed_from_system());
    pthread_mutex_init(&wal->lock, NULL);
    return wal;
}

void wal_close(struct wal *wal)
{
    if (wal == NULL) {
        return;
    }
    for (size_t i = 0; i < wal->segment_count; i++) {
        wal__segment_destroy(wal, wal->segments[i]);
    }
    for (size_t i = 0; i < wal->retired_count; i++) {
        wal__segment_destroy(wal, wal->retired[i]);
    }
    for (uint32_t i = 0; i < wal->spare_count; i++) {
        (void)wal->vfs->close(wal->vfs->context, wal->spares[i].file);
    }
    wal_index_deinit(&wal->index);
    buf_deinit(&wal->staging);
    pthread_mutex_destroy(&wal->lock);
    free(wal->segments);
    free(wal->retired);
    free(wal->dir);
    free(wal);
}

/* What raft_core_create needs; the tail is read back through the index just built. */
static int wal_opening_tell(struct wal_opening *opening, bool fresh, struct wal_recovery *out)
{
    struct wal *wal = opening->wal;
    struct wal_replay *replay = &opening->replay;
    out->fresh = fresh;
    out->hard_state = wal->hard_state;
    out->base = wal->index.base;
    out->membership = wal->membership;
    out->last = wal->index.last;
    out->torn_bytes_cut = opening->torn_bytes;
    out->term_run_count = wal->index.term_run_count;
    if (out->term_run_count > 0) {
        out->term_runs =
            mem_dup(wal->index.term_runs, out->term_run_count * sizeof(out->term_runs[0]));
    }
    out->memberships = replay->memberships;
    out->membership_count = replay->membership_count;
    replay->memberships = NULL;
    size_t tail_count = replay->tail_end - replay->tail_head;
    if (tail_count == 0) {
        return ERR_OK;
    }
    int error = wal_read(wal, out->last.index - tail_count + 1, out->last.index, UINT64_MAX,
                         &out->tail, &out->tail_count);
    if (error != ERR_OK) {
        snprintf(opening->why, opening->why_size, "%s: the newest entries cannot be read: %s",
                 wal->dir, err_text(error));
    }
    return error;
}

static int wal_opening_run(struct wal_opening *opening, const struct raft_membership *bootstrap,
                           uint64_t tail_bytes_max, struct wal_recovery *recovery)
{
    struct wal *wal = opening->wal;
    int error = wal->vfs->list(wal->vfs->context, wal->dir, wal_opening_name, opening);
    if (error != ERR_OK) {
        return wal_refuse(opening, error, "", 0, "the directory cannot be listed");
    }
    struct wal_base base;
    bool found;
    error = wal_opening_base(opening, &base, &found);
    if (error != ERR_OK) {
        return error;
    }
    if (!found) {
        error = wal_opening_fresh(opening, bootstrap);
    } else {
        error = wal_opening_segments(opening, base.first_sequence);
        if (error == ERR_OK) {
            error = wal_opening_log(opening, &base, tail_bytes_max);
        }
        if (error == ERR_OK) {
            error = wal_opening_settle(opening, base.first_sequence);
        }
    }
    return error == ERR_OK ? wal_opening_tell(opening, !found, recovery) : error;
}

int wal_open(const struct vfs *vfs, const char *dir, const struct wal_options *options,
             const struct raft_membership *bootstrap, uint64_t tail_bytes_max, struct wal **out,
             struct wal_recovery *recovery, char *why, size_t why_size)
{
    ASSERT_CMP(why_size, >, 0);
    why[0] = '\0';
    *out = NULL;
    *recovery = (struct wal_recovery){0};
    struct wal_opening opening = {
        .wal = wal_create(vfs, dir, options), .why = why, .why_size = why_size};
    wal__stream_init(&opening.stream, vfs, WAL_STREAM_BYTES);
    int error = wal_opening_run(&opening, bootstrap, tail_bytes_max, recovery);
    wal__stream_deinit(&opening.stream);
    wal__replay_deinit(&opening.replay);
    wal__segment_destroy(opening.wal, opening.dropped);
    free(opening.segments.numbers);
    free(opening.spares.numbers);
    free(opening.makings.numbers);
    if (error != ERR_OK) {
        wal_recovery_free(recovery);
        wal_close(opening.wal);
        return error;
    }
    LOG_DBG("wal.opened", "dir=%s base=%" PRIu64 " last=%" PRIu64 " segments=%zu", dir,
            recovery->base.index, recovery->last.index, opening.wal->segment_count);
    *out = opening.wal;
    return ERR_OK;
}

void wal_recovery_free(struct wal_recovery *recovery)
{
    free(recovery->term_runs);
    free(recovery->memberships);
    wal_entries_free(recovery->tail, recovery->tail_count);
    *recovery = (struct wal_recovery){0};
}
