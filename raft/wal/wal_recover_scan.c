/* Is the log whole? Opens its segments and streams each once through one bounded window: sealed
 * ones must be whole up to the end the next one names; the last one ends where no valid group
 * begins, and what lies behind says whether that is a torn tail or damage (wal_format.md,
 * "Recovery"). Changes nothing on disk. */
#include "raft/wal/wal_opening.h"

#include "base/assert.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads the header at the stream's file. *valid when one copy at least is good and names this
 * sequence. */
int wal__opening_header(struct wal_opening *opening, uint64_t sequence,
                        struct wal_segment_header *out, bool *valid)
{
    const uint8_t *bytes;
    int error = wal__stream_view(&opening->stream, 0, WAL_SEGMENT_DATA_AT, &bytes);
    if (error != ERR_OK) {
        return wal__refuse_segment(opening, error, sequence, 0, "cannot be read");
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
int wal__opening_segment(struct wal_opening *opening, uint64_t sequence, bool *valid)
{
    struct wal *wal = opening->wal;
    struct wal_segment *segment = mem_calloc(1, sizeof(*segment));
    int error = wal__opening_file(opening, sequence, WAL_SEGMENT_SUFFIX, &segment->file);
    if (error != ERR_OK) {
        free(segment);
        return error;
    }
    wal__stream_seek(&opening->stream, segment->file);
    error = wal__opening_header(opening, sequence, &segment->header, valid);
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

bool wal__segment_begins(const struct wal_segment *segment)
{
    return (segment->header.flags & WAL_SEGMENT_BEGINS_LOG) != 0;
}

int wal__opening_check(struct wal_opening *opening, const struct wal_segment *segment,
                       uint64_t offset, struct wal_group_check *check)
{
    int error = wal__stream_check_group(&opening->stream, &segment->header, offset,
                                        opening->wal->options.entry_bytes_max, check);
    return error == ERR_OK ? ERR_OK
                           : wal__refuse_segment(opening, error, segment->header.sequence, offset,
                                                 "cannot be read");
}

/* A last segment that begins a log no base names is a reset that did not happen. */
static int wal_opening_unfinished_reset(struct wal_opening *opening)
{
    struct wal *wal = opening->wal;
    struct wal_segment *segment = wal__active(wal);
    struct wal_group_check check;
    int error = wal__opening_check(opening, segment, WAL_SEGMENT_DATA_AT, &check);
    if (error != ERR_OK) {
        return error;
    }
    if (check.valid && !wal_group_is_mark(&check.header)) {
        return wal__refuse(opening, ERR_CORRUPT, WAL_BASE_NAME, 0,
                           "the file is older than the segments beside it");
    }
    wal->segment_count--;
    opening->dropped = segment;
    return ERR_OK;
}

/* Opens every segment of the log, in order, and checks that they are consecutive and begin as they
 * should. */
int wal__opening_segments(struct wal_opening *opening, uint64_t first_sequence)
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
        int error = wal__opening_segment(opening, sequence, &valid);
        if (error != ERR_OK) {
            return error;
        }
        if (!valid && (!is_last || sequence == first_sequence)) {
            return wal__refuse_segment(opening, ERR_CORRUPT, sequence, 0,
                                       "both copies of the segment's header fail their checksums");
        }
        if (valid && sequence > first_sequence && wal__segment_begins(wal__active(opening->wal))) {
            if (!is_last) {
                return wal__refuse(opening, ERR_CORRUPT, WAL_BASE_NAME, 0,
                                   "the file is older than the segments beside it");
            }
            return wal_opening_unfinished_reset(opening);
        }
        expected++;
    }
    size_t count = opening->segments.count;
    if (count == 0 || opening->segments.numbers[count - 1] < first_sequence ||
        opening->segments.numbers[count - 1] >= expected) {
        return wal__refuse_segment(opening, ERR_CORRUPT, expected, 0, "the segment is missing");
    }
    return ERR_OK;
}

/* ---- is it whole ---- */

static int wal_opening_replay(struct wal_opening *opening, struct wal_segment *segment,
                              const struct wal_group_check *check)
{
    int error = wal__replay_group(&opening->replay, &opening->stream, &segment->header,
                                  segment->end, &check->header);
    if (error == ERR_CORRUPT) {
        return wal__refuse_segment(opening, error, segment->header.sequence, opening->replay.bad_at,
                                   opening->replay.what);
    }
    if (error != ERR_OK) {
        return wal__refuse_segment(opening, error, segment->header.sequence, segment->end,
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
        return wal__refuse_segment(opening, ERR_CORRUPT, next->sequence, 0,
                                   "the segment does not follow the one before it");
    }
    wal__stream_seek(&opening->stream, segment->file);
    while (segment->end < next->previous_end) {
        struct wal_group_check check;
        int error = wal__opening_check(opening, segment, segment->end, &check);
        if (error != ERR_OK) {
            return error;
        }
        if (!check.valid) {
            return wal__refuse_segment(opening, ERR_CORRUPT, sequence, check.bad_at, check.what);
        }
        if (wal_group_is_mark(&check.header)) {
            return wal__refuse_segment(opening, ERR_CORRUPT, sequence, segment->end,
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
        return wal__refuse_segment(opening, ERR_CORRUPT, next->sequence, 0,
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
        return wal__refuse_segment(opening, error, segment->header.sequence, 0, "cannot be read");
    }
    limit = limit < segment->header.file_bytes ? limit : segment->header.file_bytes;
    uint64_t at = from;
    while (at < limit && limit - at >= WAL_GROUP_HEADER_BYTES) {
        size_t size = limit - at < WAL_STREAM_BYTES ? (size_t)(limit - at) : WAL_STREAM_BYTES;
        const uint8_t *bytes;
        error = wal__stream_view(&opening->stream, at, size, &bytes);
        if (error != ERR_OK) {
            return wal__refuse_segment(opening, error, segment->header.sequence, at,
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
            return wal__refuse_segment(opening, error, segment->header.sequence, segment->end,
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
        int error = wal__opening_check(opening, segment, segment->end, &check);
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
        return wal__refuse_segment(opening, ERR_CORRUPT, segment->header.sequence, bad_at, what);
    }
    return wal_opening_torn_bytes(opening, segment, check.valid, &search);
}

int wal__opening_log(struct wal_opening *opening, const struct wal_base *base,
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
        return wal__refuse_segment(opening, error, wal__active(wal)->header.sequence,
                                   wal__active(wal)->end, opening->replay.what);
    }
    wal->hard_state = opening->replay.hard_state;
    wal->membership = base->membership;
    return ERR_OK;
}
