/* Where entries lie, sparsely, and which term each has. In memory, pure; the caller locks.
 *
 * Invariants:
 *   1. points ascend by index; a point's entry is live;
 *   2. from a point's offset up to the entry before the next point's (or `last`), live entries lie
 * in order in one segment with no dead entry between them;
 *   3. term_runs ascend by index and by term, and the first, when there is one, begins at
 * base.index + 1. */
#ifndef RAFT_WAL_WAL_INDEX_H
#define RAFT_WAL_WAL_INDEX_H

#include "raft/core/types.h"

#define WAL_INDEX_POINT_BYTES                                                                      \
    (64u * 1024u) /* at least one point for so many bytes of a segment                             \
                   */

struct wal_point {
    uint64_t index;
    uint64_t sequence;
    uint64_t offset; /* of the record's header */
};

struct wal_index {
    struct raft_position base;
    struct raft_position last; /* == base when empty */
    struct wal_point *points;
    size_t point_count;
    size_t point_capacity;
    struct raft_position *term_runs;
    size_t term_run_count;
    size_t term_run_capacity;
    bool point_wanted; /* invariant 2 would break without a point at the next entry */
};

void wal_index_init(struct wal_index *index, struct raft_position base);
void wal_index_deinit(struct wal_index *index);

/* The entry at index last + 1, or (while a log is replayed whose first entries are gone) any later
 * one. */
void wal_index_append(struct wal_index *index, struct raft_position position, uint64_t sequence,
                      uint64_t offset);
/* Entries from `from` on are gone; from > base.index. */
void wal_index_truncate(struct wal_index *index, uint64_t from);
/* Entries up to `base` are gone; base.index <= last.index. */
void wal_index_compact(struct wal_index *index, struct raft_position base);
/* Nothing is left; the log is empty after `base`. */
void wal_index_reset(struct wal_index *index, struct raft_position base);

/* 0 when it is outside [base, last]. */
uint64_t wal_index_term_at(const struct wal_index *index, uint64_t entry_index);

/* The place to walk from for an entry in (base, last], and in *until the last entry that the walk
 * finds. */
struct wal_point wal_index_find(const struct wal_index *index, uint64_t entry_index,
                                uint64_t *until);

#endif
