/* Replaying checked groups into the index. One thread, no I/O but through the stream. The log after
 * its first segments were dropped begins in the middle of a story: entries may be named that are
 * gone, and entries may be there that a later truncation kills. `missing_until` and `base_term`
 * hold what is not known yet; the end must settle both. */
#include "raft/wal/wal_internal.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

void wal__replay_init(struct wal_replay *replay, const struct wal_base *base,
                      struct wal_index *index, uint64_t tail_bytes_max, struct raft_position start)
{
    *replay = (struct wal_replay){
        .base = *base,
        .index = index,
        .tail_bytes_max = tail_bytes_max,
        .last = start,
        .missing_until = start.index,
        .base_term = start.index == base->position.index ? start.term : base->position.term,
        .hard_state = base->hard_state,
    };
    wal_index_init(index, base->position);
}

void wal__replay_deinit(struct wal_replay *replay)
{
    free(replay->memberships);
    free(replay->tail_sizes);
    replay->memberships = NULL;
    replay->tail_sizes = NULL;
}

static int wal_replay_bad(struct wal_replay *replay, uint64_t at, const char *what)
{
    replay->bad_at = at;
    replay->what = what;
    return ERR_CORRUPT;
}

static uint64_t wal_tail_entry_bytes(uint32_t payload_bytes)
{
    return (uint64_t)payload_bytes + RAFT_ENTRY_OVERHEAD_BYTES;
}

static void wal_replay_tail_push(struct wal_replay *replay, uint32_t payload_bytes)
{
    if (replay->tail_end == replay->tail_capacity) {
        size_t count = replay->tail_end - replay->tail_head;
        if (replay->tail_head >= count && replay->tail_head > 0) {
            memmove(replay->tail_sizes, replay->tail_sizes + replay->tail_head,
                    count * sizeof(replay->tail_sizes[0]));
            replay->tail_head = 0;
            replay->tail_end = count;
        } else {
            replay->tail_capacity = replay->tail_capacity == 0 ? 256 : 2 * replay->tail_capacity;
            replay->tail_sizes = mem_realloc(replay->tail_sizes,
                                             replay->tail_capacity * sizeof(replay->tail_sizes[0]));
        }
    }
    replay->tail_sizes[replay->tail_end++] = payload_bytes;
    replay->tail_bytes += wal_tail_entry_bytes(payload_bytes);
    while (replay->tail_bytes > replay->tail_bytes_max) {
        replay->tail_bytes -= wal_tail_entry_bytes(replay->tail_sizes[replay->tail_head++]);
    }
}

/* `dropped` newest entries are gone. */
static void wal_replay_tail_truncate(struct wal_replay *replay, uint64_t dropped)
{
    while (dropped > 0 && replay->tail_end > replay->tail_head) {
        replay->tail_bytes -= wal_tail_entry_bytes(replay->tail_sizes[--replay->tail_end]);
        dropped--;
    }
}

static int wal_replay_truncate(struct wal_replay *replay, uint64_t from, uint64_t at)
{
    if (from > replay->last.index) {
        return wal_replay_bad(replay, at, "a truncation begins behind the last entry");
    }
    struct wal_index *index = replay->index;
    uint64_t base = replay->base.position.index;
    uint64_t live_from = from > base ? from : base + 1;
    if (live_from <= index->last.index) {
        wal_replay_tail_truncate(replay, index->last.index - live_from + 1);
        wal_index_truncate(index, live_from);
    }
    while (replay->membership_count > 0 &&
           replay->memberships[replay->membership_count - 1].position.index >= from) {
        replay->membership_count--;
    }
    if (replay->missing_until >= from) {
        replay->missing_until = from - 1;
    }
    if (from <= base) {
        replay->base_term = 0; /* until the entry comes again */
    }
    replay->last.index = from - 1;
    replay->last.term = from - 1 > base ? wal_index_term_at(index, from - 1) : 0;
    return ERR_OK;
}

static int wal_replay_membership(struct wal_replay *replay, struct wal_stream *stream,
                                 const struct wal_record_header *header, uint64_t at)
{
    if (header->payload_bytes > WAL_MEMBERSHIP_BYTES_MAX) {
        return wal_replay_bad(replay, at, "a membership entry is too large");
    }
    const uint8_t *bytes;
    int error =
        wal__stream_view(stream, at + WAL_RECORD_HEADER_BYTES, header->payload_bytes, &bytes);
    if (error != ERR_OK) {
        return error;
    }
    if (replay->membership_count == replay->membership_capacity) {
        replay->membership_capacity =
            replay->membership_capacity == 0 ? 4 : 2 * replay->membership_capacity;
        replay->memberships = mem_realloc(replay->memberships, replay->membership_capacity *
                                                                   sizeof(replay->memberships[0]));
    }
    struct raft_membership *membership = &replay->memberships[replay->membership_count];
    if (raft_membership_decode(bytes_of(bytes, header->payload_bytes), membership) != ERR_OK) {
        return wal_replay_bad(replay, at, "a membership entry does not decode");
    }
    membership->position = (struct raft_position){header->index, header->term};
    replay->membership_count++;
    return ERR_OK;
}

static int wal_replay_entry(struct wal_replay *replay, struct wal_stream *stream,
                            const struct wal_record_header *header, uint64_t sequence, uint64_t at)
{
    if (header->index != replay->last.index + 1) {
        return wal_replay_bad(replay, at, "an entry's index is not the next one");
    }
    if (header->term < replay->last.term) {
        return wal_replay_bad(replay, at, "an entry's term is lower than the one before it");
    }
    struct raft_position base = replay->base.position;
    struct raft_position position = {header->index, header->term};
    replay->last = position;
    if (position.index <= base.index) {
        if (position.index == base.index) {
            replay->base_term = position.term;
        }
        return ERR_OK;
    }
    bool follows_base = replay->base_term == base.term && position.term >= base.term;
    if (!follows_base) {
        replay->missing_until =
            position.index; /* dead: a truncation must come that reaches the base */
    }
    if (replay->missing_until > base.index) {
        return ERR_OK;
    }
    if (header->kind == RAFT_ENTRY_MEMBERSHIP) {
        int error = wal_replay_membership(replay, stream, header, at);
        if (error != ERR_OK) {
            return error;
        }
    }
    wal_index_append(replay->index, position, sequence, at);
    wal_replay_tail_push(replay, header->payload_bytes);
    return ERR_OK;
}

int wal__replay_group(struct wal_replay *replay, struct wal_stream *stream,
                      const struct wal_segment_header *segment, uint64_t offset,
                      const struct wal_group_header *group)
{
    uint64_t at = offset + WAL_GROUP_HEADER_BYTES;
    int error = ERR_OK;
    for (uint32_t i = 0; i < group->record_count && error == ERR_OK; i++) {
        const uint8_t *bytes;
        error = wal__stream_view(stream, at, WAL_RECORD_HEADER_BYTES, &bytes);
        if (error != ERR_OK) {
            return error;
        }
        struct wal_record_header header;
        if (!wal_record_header_decode(bytes, &header)) {
            /* It was checked a moment ago. */
            return wal_replay_bad(replay, at, "a record changed while it was read");
        }
        switch (header.type) {
        case WAL_RECORD_ENTRY:
            error = wal_replay_entry(replay, stream, &header, segment->sequence, at);
            break;
        case WAL_RECORD_TRUNCATE:
            error = wal_replay_truncate(replay, header.index, at);
            break;
        case WAL_RECORD_HARD_STATE:
            error = wal__stream_view(stream, at + WAL_RECORD_HEADER_BYTES, WAL_HARD_STATE_BYTES,
                                     &bytes);
            if (error == ERR_OK) {
                wal_hard_state_decode(bytes, &replay->hard_state);
            }
            break;
        }
        at += wal_record_bytes(header.payload_bytes);
    }
    return error;
}

int wal__replay_finish(struct wal_replay *replay)
{
    struct raft_position base = replay->base.position;
    const struct raft_hard_state *promised = &replay->base.hard_state;
    const struct raft_hard_state *found = &replay->hard_state;
    if (replay->last.index < base.index) {
        return wal_replay_bad(replay, 0, "the log ends before its base");
    }
    if (replay->missing_until > base.index || replay->base_term != base.term) {
        return wal_replay_bad(replay, 0, "the log does not hold the entries after its base");
    }
    if (found->term < promised->term ||
        (found->term == promised->term && promised->voted_for != 0 &&
         found->voted_for != promised->voted_for)) {
        return wal_replay_bad(replay, 0, "the log's hard state is older than its base's");
    }
    ASSERT_CMP(replay->index->last.index, ==, replay->last.index);
    return ERR_OK;
}
