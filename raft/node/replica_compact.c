/* When to flush the state machine and how much of the log to let go. Loop thread only; the flush
 * itself and the making of spare segments are jobs of the background worker.
 *
 *   log grew by flush_log_bytes --> [flush job] --> durable position D
 *      --> core and log compacted up to C <= D
 *
 * C stays behind D, so that a follower which was away for a moment is served from the log and not
 * by a snapshot:
 *   - by a quarter of flush_log_bytes, always;
 *   - by what followers that answer still need, and by a snapshot that is being sent (its receiver
 *     will need what comes after it), as long as the log is shorter than LOG_HELD_FACTOR x
 *     flush_log_bytes. Beyond that the disk matters more. */
#include "raft/node/replica_internal.h"

#include "base/assert.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    LOG_MARKS_PER_FLUSH = 64, /* resolution of 'how long is the log from here on' */
    LOG_HELD_FACTOR = 8,
    COMPACT_CHECK_TICKS = 50, /* who held the log back may have caught up, or gone */
    SPARES_CHECK_TICKS = 10,
    SPARES_RETRY_TICKS = 1000,    /* after a failure: the disk is full, most likely */
    SNAPSHOT_UNUSED_TICKS = 3000, /* since any of it was asked for */
    MARKS_MAX = 65536,
};

static uint64_t mark_bytes(const struct replica *replica)
{
    uint64_t bytes = replica->options.flush_log_bytes / LOG_MARKS_PER_FLUSH;
    return bytes == 0 ? 1 : bytes;
}

/* ---- the length of the log
 * ------------------------------------------------------------------------------- */

static void mark_push(struct compaction *compaction, uint64_t index, uint64_t bytes)
{
    if (compaction->mark_count == compaction->mark_capacity) {
        size_t capacity = compaction->mark_capacity == 0 ? 64 : compaction->mark_capacity * 2;
        compaction->marks = mem_realloc(compaction->marks, capacity * sizeof(struct log_mark));
        compaction->mark_capacity = capacity;
    }
    compaction->marks[compaction->mark_count++] = (struct log_mark){index, bytes};
}

/* The log begins after `index` now. */
static void marks_drop_to(struct compaction *compaction, uint64_t index)
{
    size_t gone = 0;
    while (gone < compaction->mark_count && compaction->marks[gone].index <= index) {
        compaction->base_bytes = compaction->marks[gone].bytes;
        gone++;
    }
    compaction->mark_count -= gone;
    for (size_t i = 0; i < compaction->mark_count; i++) {
        compaction->marks[i] = compaction->marks[i + gone];
    }
}

void replica__compaction_init(struct replica *replica)
{
    struct compaction *compaction = &replica->compaction;
    struct wal_stats stats;
    wal_stats(replica->persist.wal, &stats);
    uint64_t held = stats.last.index > stats.base.index ? stats.log_bytes : 0;
    compaction->appended_bytes = held;
    compaction->base_bytes = 0;
    compaction->durable = replica->sm.ops->durable(replica->sm.sm);
    compaction->flush_at_bytes = replica->options.flush_log_bytes;
    mark_push(compaction, stats.last.index, held);
}

void replica__compaction_appended(struct replica *replica, const struct raft_entry *entries,
                                  size_t count)
{
    struct compaction *compaction = &replica->compaction;
    for (size_t i = 0; i < count; i++) {
        compaction->appended_bytes += raft_entry_bytes(&entries[i]);
        size_t marks = compaction->mark_count;
        uint64_t before = marks == 0 ? compaction->base_bytes : compaction->marks[marks - 1].bytes;
        if (compaction->appended_bytes - before >= mark_bytes(replica) && marks < MARKS_MAX) {
            mark_push(compaction, entries[i].position.index, compaction->appended_bytes);
        }
    }
}

void replica__compaction_truncated(struct replica *replica, uint64_t from)
{
    struct compaction *compaction = &replica->compaction;
    while (compaction->mark_count > 0 &&
           compaction->marks[compaction->mark_count - 1].index >= from) {
        compaction->mark_count--;
    }
}

/* The log was begun anew after a snapshot. */
void replica__compaction_reset(struct replica *replica)
{
    struct compaction *compaction = &replica->compaction;
    compaction->mark_count = 0;
    compaction->base_bytes = compaction->appended_bytes;
    compaction->flush_at_bytes = compaction->appended_bytes + replica->options.flush_log_bytes;
}

/* The newest mark that leaves at least `bytes` of log behind it and is not after `index`; NULL:
 * none. */
static const struct log_mark *mark_behind(const struct compaction *compaction, uint64_t bytes,
                                          uint64_t index)
{
    for (size_t i = compaction->mark_count; i > 0; i--) {
        const struct log_mark *mark = &compaction->marks[i - 1];
        if (mark->index <= index && compaction->appended_bytes - mark->bytes >= bytes) {
            return mark;
        }
    }
    return NULL;
}

/* ---- how far --------------------------------------------------------------------------------- */

/* What others still need: followers that answer, and receivers of a snapshot. */
static uint64_t needed_after(struct replica *replica)
{
    struct raft_progress progress[RAFT_MEMBERS_MAX];
    size_t count = raft_core_progress(replica->core, progress);
    uint64_t needed = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        bool self = progress[i].id == replica->options.replica_id;
        if (!self && progress[i].active && progress[i].mode != RAFT_SNAPSHOT &&
            progress[i].match < needed) {
            needed = progress[i].match;
        }
    }
    for (const struct outgoing_snapshot *out = replica->outgoing; out != NULL; out = out->next) {
        if (out->unused_ticks < SNAPSHOT_UNUSED_TICKS && out->snapshot.position.index < needed) {
            needed = out->snapshot.position.index;
        }
    }
    return needed;
}

static void compact_behind(struct replica *replica)
{
    struct compaction *compaction = &replica->compaction;
    struct raft_position durable = compaction->durable;
    struct raft_membership membership;
    raft_core_status(replica->core, &replica->status);
    uint64_t limit = durable.index;
    if (replica->status.applied < limit) {
        limit = replica->status.applied;
    }
    uint64_t held_max = LOG_HELD_FACTOR * replica->options.flush_log_bytes;
    if (compaction->appended_bytes - compaction->base_bytes < held_max) {
        uint64_t needed = needed_after(replica);
        limit = needed < limit ? needed : limit;
    }
    const struct log_mark *mark =
        mark_behind(compaction, replica->options.flush_log_bytes / 4, limit);
    if (mark == NULL || replica->install_pending || compaction->compacting || replica->stopping) {
        return;
    }
    uint64_t start = replica->status.log_start.index;
    raft_core_compact(replica->core, mark->index);
    raft_core_status(replica->core, &replica->status);
    struct raft_position base = replica->status.log_start; /* the core may have kept more */
    if (base.index == start) {
        return;
    }
    bool known = raft_core_membership_at(replica->core, base.index, &membership);
    ASSERT(known);
    marks_drop_to(compaction, base.index);
    compaction->compacting = true;
    replica__compact_submit(replica, base, &membership);
    log_event(LOG_INFO, "log.compact",
              "group=%" PRIu64 " replica=%" PRIu64 " base=%" PRIu64 " durable=%" PRIu64
              " kept_bytes=%" PRIu64,
              replica->options.group_id, replica->options.replica_id, base.index, durable.index,
              compaction->appended_bytes - compaction->base_bytes);
}

/* ---- jobs ------------------------------------------------------------------------------------ */

struct flush_job {
    struct replica_job base;
    struct raft_position durable;
};

static void flush_run(struct replica_job *base)
{
    struct flush_job *job = (struct flush_job *)base;
    struct replica *replica = base->replica;
    int error = replica->sm.ops->flush(replica->sm.sm);
    if (error != ERR_OK) {
        replica__fatal(replica, "flushing the state machine in %s failed: %s; %s", replica->dir,
                       err_text(error),
                       error == ERR_NO_SPACE
                           ? "make room on this disk and start again: nothing acknowledged is lost"
                           : "look at the disk before starting again");
        return;
    }
    job->durable = replica->sm.ops->durable(replica->sm.sm);
}

static void flush_done(struct replica_job *base)
{
    struct flush_job *job = (struct flush_job *)base;
    struct replica *replica = base->replica;
    replica->compaction.flushing = false;
    replica->compaction.durable = job->durable;
    compact_behind(replica);
}

static void job_free(struct replica_job *base)
{
    free(base);
}

static const struct replica_job_ops flush_ops = {
    .run = flush_run, .done = flush_done, .release = job_free};

struct spares_job {
    struct replica_job base;
    int error;
};

static void spares_run(struct replica_job *base)
{
    ((struct spares_job *)base)->error = wal_prepare_spares(base->replica->persist.wal);
}

static void spares_done(struct replica_job *base)
{
    struct replica *replica = base->replica;
    int error = ((struct spares_job *)base)->error;
    replica->spares_making = false;
    replica->spares_at_tick = replica->tick_count + SPARES_CHECK_TICKS;
    if (error != ERR_OK) { /* the log itself is untouched */
        log_event(LOG_WARN, "log.spares_failed", "group=%" PRIu64 " replica=%" PRIu64 " error=%s",
                  replica->options.group_id, replica->options.replica_id, err_name(error));
        replica->spares_at_tick = replica->tick_count + SPARES_RETRY_TICKS;
    }
}

static const struct replica_job_ops spares_ops = {
    .run = spares_run, .done = spares_done, .release = job_free};

static void start_flush(struct replica *replica)
{
    struct compaction *compaction = &replica->compaction;
    compaction->flushing = true;
    compaction->flush_at_bytes = compaction->appended_bytes + replica->options.flush_log_bytes;
    struct flush_job *job = mem_calloc(1, sizeof(*job));
    replica__job_init(&job->base, replica, REPLICA_BACKGROUND, "flush", &flush_ops);
    replica__submit(replica, &job->base);
}

static void check_spares(struct replica *replica)
{
    struct wal_stats stats;
    if (replica->spares_making || replica->tick_count < replica->spares_at_tick) {
        return;
    }
    replica->spares_at_tick = replica->tick_count + SPARES_CHECK_TICKS;
    wal_stats(replica->persist.wal, &stats);
    if (stats.spare_count < replica->spare_segments) {
        struct spares_job *job = mem_calloc(1, sizeof(*job));
        replica__job_init(&job->base, replica, REPLICA_BACKGROUND, "spares", &spares_ops);
        replica->spares_making = true;
        replica__submit(replica, &job->base);
    }
}

void replica__compaction_tick(struct replica *replica)
{
    struct compaction *compaction = &replica->compaction;
    check_spares(replica);
    if (!compaction->flushing && !compaction->compacting && !replica->install_pending &&
        compaction->appended_bytes >= compaction->flush_at_bytes) {
        start_flush(replica);
    } else if (replica->tick_count % COMPACT_CHECK_TICKS == 0 &&
               compaction->appended_bytes - compaction->base_bytes >=
                   replica->options.flush_log_bytes) {
        compact_behind(replica);
    }
}

void replica__compaction_deinit(struct replica *replica)
{
    free(replica->compaction.marks);
    replica->compaction.marks = NULL;
}
