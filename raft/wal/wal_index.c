/* The sparse index (see wal_index.h). Grows by doubling; shrinks only in use, so its memory is
 * bounded by the largest log it has seen: 24 bytes for 64 KiB of log, a segment, or a truncation.
 */
#include "raft/wal/wal_index.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

void wal_index_init(struct wal_index *index, struct raft_position base)
{
    *index = (struct wal_index){.base = base, .last = base};
}

void wal_index_deinit(struct wal_index *index)
{
    free(index->points);
    free(index->term_runs);
    *index = (struct wal_index){0};
}

static void wal_index_push_point(struct wal_index *index, struct wal_point point)
{
    if (index->point_count == index->point_capacity) {
        index->point_capacity = index->point_capacity == 0 ? 64 : 2 * index->point_capacity;
        index->points =
            mem_realloc(index->points, index->point_capacity * sizeof(index->points[0]));
    }
    index->points[index->point_count++] = point;
}

static void wal_index_push_term_run(struct wal_index *index, struct raft_position run)
{
    if (index->term_run_count == index->term_run_capacity) {
        index->term_run_capacity =
            index->term_run_capacity == 0 ? 16 : 2 * index->term_run_capacity;
        index->term_runs =
            mem_realloc(index->term_runs, index->term_run_capacity * sizeof(index->term_runs[0]));
    }
    index->term_runs[index->term_run_count++] = run;
}

static bool wal_index_needs_point(const struct wal_index *index, uint64_t sequence, uint64_t offset)
{
    if (index->point_wanted || index->point_count == 0) {
        return true;
    }
    const struct wal_point *newest = &index->points[index->point_count - 1];
    return newest->sequence != sequence || offset - newest->offset >= WAL_INDEX_POINT_BYTES;
}

void wal_index_append(struct wal_index *index, struct raft_position position, uint64_t sequence,
                      uint64_t offset)
{
    ASSERT_CMP(position.index, >, index->last.index);
    ASSERT_CMP(position.term, >=, index->last.term);
    if (wal_index_needs_point(index, sequence, offset)) {
        wal_index_push_point(index, (struct wal_point){position.index, sequence, offset});
        index->point_wanted = false;
    }
    if (index->term_run_count == 0 ||
        index->term_runs[index->term_run_count - 1].term != position.term) {
        wal_index_push_term_run(index, position);
    }
    index->last = position;
}

/* How many points have an index below `bound`. */
static size_t wal_index_points_below(const struct wal_index *index, uint64_t bound)
{
    size_t low = 0;
    size_t high = index->point_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (index->points[middle].index < bound) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static size_t wal_index_runs_below(const struct wal_index *index, uint64_t bound)
{
    size_t low = 0;
    size_t high = index->term_run_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (index->term_runs[middle].index < bound) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void wal_index_truncate(struct wal_index *index, uint64_t from)
{
    ASSERT_CMP(from, >, index->base.index);
    if (from > index->last.index) {
        return;
    }
    uint64_t term = wal_index_term_at(index, from - 1);
    index->point_count = wal_index_points_below(index, from);
    index->term_run_count = wal_index_runs_below(index, from);
    index->last = (struct raft_position){from - 1, term};
    index->point_wanted = true;
}

void wal_index_compact(struct wal_index *index, struct raft_position base)
{
    ASSERT_CMP(base.index, >=, index->base.index);
    ASSERT_CMP(base.index, <=, index->last.index);
    if (base.index == index->last.index) {
        wal_index_reset(index, base);
        return;
    }
    uint64_t first_term = wal_index_term_at(index, base.index + 1);

    /* The newest point at or before the first live entry stays: the walk to that entry begins
     * there. */
    size_t dropped = wal_index_points_below(index, base.index + 2);
    ASSERT_CMP(dropped, >, 0);
    dropped--;
    index->point_count -= dropped;
    memmove(index->points, index->points + dropped, index->point_count * sizeof(index->points[0]));

    size_t runs_dropped = wal_index_runs_below(index, base.index + 2);
    ASSERT_CMP(runs_dropped, >, 0);
    runs_dropped--;
    index->term_run_count -= runs_dropped;
    memmove(index->term_runs, index->term_runs + runs_dropped,
            index->term_run_count * sizeof(index->term_runs[0]));
    index->term_runs[0] = (struct raft_position){base.index + 1, first_term};
    index->base = base;
}

void wal_index_reset(struct wal_index *index, struct raft_position base)
{
    index->base = base;
    index->last = base;
    index->point_count = 0;
    index->term_run_count = 0;
    index->point_wanted = true;
}

uint64_t wal_index_term_at(const struct wal_index *index, uint64_t entry_index)
{
    if (entry_index == index->base.index) {
        return index->base.term;
    }
    if (entry_index < index->base.index || entry_index > index->last.index) {
        return 0;
    }
    size_t below = wal_index_runs_below(index, entry_index + 1);
    return below == 0 ? 0 : index->term_runs[below - 1].term;
}

struct wal_point wal_index_find(const struct wal_index *index, uint64_t entry_index,
                                uint64_t *until)
{
    ASSERT_CMP(entry_index, >, index->base.index);
    ASSERT_CMP(entry_index, <=, index->last.index);
    size_t below = wal_index_points_below(index, entry_index + 1);
    ASSERT_CMP(below, >, 0);
    *until = below < index->point_count ? index->points[below].index - 1 : index->last.index;
    return index->points[below - 1];
}
