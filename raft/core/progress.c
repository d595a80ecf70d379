/* What a leader knows of each member; the modes are drawn in core_internal.h. Thread: the core's.
 *
 * The array follows the newest membership, self included, so that a quorum is one rule over rows;
 * self counts for what is durable here, never for what is only in memory (dissertation 10.2.1). */
#include "raft/core/core_internal.h"

#include <stdlib.h>
#include <string.h>

static_assert((CORE_INFLIGHT_MAX & (CORE_INFLIGHT_MAX - 1)) == 0, "the ring's index is masked");

struct core_progress *core__progress_find(struct raft_core *core, uint64_t id)
{
    for (size_t i = 0; i < core->progress_count; i++) {
        if (core->progress[i].id == id) {
            return &core->progress[i];
        }
    }
    return NULL;
}

static void window_clear(struct core_progress *progress)
{
    progress->inflight_head = 0;
    progress->inflight_count = 0;
    progress->inflight_bytes = 0;
}

static void leave_mode(struct core_progress *progress)
{
    window_clear(progress);
    progress->paused = false;
    progress->probe_again = false;
    progress->append_due = false;
    progress->load_index = 0;
    progress->load_alone = false;
    progress->chunk_out = false;
    progress->chunk_ticks = 0;
    progress->chunk_offset = 0;
    core__snapshot_unref(progress->snapshot);
    progress->snapshot = NULL;
}

void core__progress_probe(struct core_progress *progress, uint64_t next)
{
    leave_mode(progress);
    progress->mode = RAFT_PROBE;
    progress->next = next > progress->match ? next : progress->match + 1;
}

void core__progress_replicate(struct core_progress *progress)
{
    leave_mode(progress);
    progress->mode = RAFT_REPLICATE;
    progress->next = progress->match + 1;
    progress->acked_since_heartbeat = true;
}

void core__progress_snapshot(struct core_progress *progress, struct core_snapshot *snapshot)
{
    leave_mode(progress);
    progress->mode = RAFT_SNAPSHOT;
    progress->snapshot = core__snapshot_ref(snapshot);
}

void core__progress_heard(struct core_progress *progress)
{
    progress->heard = true;
    progress->silence_ticks = 0;
}

static void progress_init(struct core_progress *progress, const struct raft_member *member,
                          uint64_t next)
{
    struct core_inflight *ring = progress->inflight; /* kept when the row changes hands */
    *progress = (struct core_progress){.id = member->id,
                                       .voter = member->role == RAFT_VOTER,
                                       .mode = RAFT_PROBE,
                                       .next = next,
                                       .inflight = ring};
}

void core__progress_clear(struct raft_core *core)
{
    for (size_t i = 0; i < core->progress_count; i++) {
        leave_mode(&core->progress[i]);
    }
    core->progress_count = 0;
}

void core__progress_reset(struct raft_core *core)
{
    core__progress_clear(core);
    const struct raft_membership *members = core__members(core);
    for (uint32_t i = 0; i < members->count; i++) {
        struct core_progress *progress = &core->progress[i];
        progress_init(progress, &members->members[i], core->log.last.index + 1);
        progress->append_due = members->members[i].id != core->options.id;
    }
    core->progress_count = members->count;
}

void core__progress_follow_members(struct raft_core *core)
{
    const struct raft_membership *members = core__members(core);
    struct core_progress old[RAFT_MEMBERS_MAX];
    bool kept[RAFT_MEMBERS_MAX] = {false};
    size_t old_count = core->progress_count;
    memcpy(old, core->progress, sizeof(old));
    memset(core->progress, 0, sizeof(core->progress));
    for (uint32_t i = 0; i < members->count; i++) {
        const struct raft_member *member = &members->members[i];
        size_t at = 0;
        while (at < old_count && old[at].id != member->id) {
            at++;
        }
        if (at < old_count) {
            core->progress[i] = old[at];
            core->progress[i].voter = member->role == RAFT_VOTER;
            kept[at] = true;
        } else {
            progress_init(&core->progress[i], member, core->log.last.index + 1);
            core->progress[i].append_due = member->id != core->options.id;
        }
    }
    core->progress_count = members->count;
    for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (i < old_count && !kept[i]) {
            leave_mode(&old[i]);
        }
        if (i >= old_count || !kept[i]) {
            free(old[i].inflight);
        }
    }
}

/* --- the window --- */

/* An empty window takes one message of any size: an entry over the limit must not stop replication.
 */
bool core__window_open(const struct raft_core *core, const struct core_progress *progress,
                       uint64_t bytes)
{
    if (progress->inflight_count == 0) {
        return true;
    }
    return progress->inflight_count < core->options.inflight_count_max &&
           progress->inflight_bytes < core->options.inflight_bytes_max &&
           bytes <= core->options.inflight_bytes_max - progress->inflight_bytes;
}

void core__window_push(struct core_progress *progress, uint64_t last_index, uint64_t bytes)
{
    ASSERT_CMP(progress->inflight_count, <, CORE_INFLIGHT_MAX);
    if (progress->inflight == NULL) {
        progress->inflight = mem_calloc(CORE_INFLIGHT_MAX, sizeof(progress->inflight[0]));
    }
    uint32_t at = (progress->inflight_head + progress->inflight_count) & (CORE_INFLIGHT_MAX - 1);
    progress->inflight[at] = (struct core_inflight){last_index, bytes};
    progress->inflight_count++;
    progress->inflight_bytes += bytes;
}

void core__window_acked(struct core_progress *progress, uint64_t index)
{
    while (progress->inflight_count > 0) {
        const struct core_inflight *oldest = &progress->inflight[progress->inflight_head];
        if (oldest->last_index > index) {
            return;
        }
        progress->inflight_bytes -= oldest->bytes;
        progress->inflight_head = (progress->inflight_head + 1) & (CORE_INFLIGHT_MAX - 1);
        progress->inflight_count--;
    }
}

/* --- quorums --- */

/* The largest value that a majority of the voters has reached: sorted down, the one at the
 * majority's place. */
static uint64_t quorum_value(uint64_t values[RAFT_MEMBERS_MAX], size_t count)
{
    if (count == 0) {
        return 0;
    }
    for (size_t i = 1; i < count; i++) {
        uint64_t value = values[i];
        size_t at = i;
        while (at > 0 && values[at - 1] < value) {
            values[at] = values[at - 1];
            at--;
        }
        values[at] = value;
    }
    return values[count / 2];
}

uint64_t core__quorum_match(const struct raft_core *core)
{
    uint64_t values[RAFT_MEMBERS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < core->progress_count; i++) {
        const struct core_progress *progress = &core->progress[i];
        if (progress->voter) {
            values[count++] =
                progress->id == core->options.id ? core->log.durable : progress->match;
        }
    }
    return quorum_value(values, count);
}

uint64_t core__quorum_round(const struct raft_core *core)
{
    uint64_t values[RAFT_MEMBERS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < core->progress_count; i++) {
        const struct core_progress *progress = &core->progress[i];
        if (progress->voter) {
            values[count++] =
                progress->id == core->options.id ? core->reads.round : progress->acked_round;
        }
    }
    return quorum_value(values, count);
}

bool core__quorum_active(const struct raft_core *core)
{
    size_t voters = 0;
    size_t active = 0;
    for (size_t i = 0; i < core->progress_count; i++) {
        const struct core_progress *progress = &core->progress[i];
        if (progress->voter) {
            voters++;
            active += progress->id == core->options.id ||
                              progress->silence_ticks < core->options.election_ticks
                          ? 1
                          : 0;
        }
    }
    return active >= voters / 2 + 1;
}

size_t raft_core_progress(const struct raft_core *core, struct raft_progress out[RAFT_MEMBERS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < core->progress_count && core->state == RAFT_LEADER; i++) {
        const struct core_progress *progress = &core->progress[i];
        if (progress->id == core->options.id) {
            continue;
        }
        struct raft_progress *row = &out[count++];
        row->id = progress->id;
        row->match = progress->match;
        row->next = progress->next;
        row->mode = progress->mode;
        row->inflight_bytes = progress->inflight_bytes;
        row->active = progress->heard && progress->silence_ticks < core->options.election_ticks;
    }
    return count;
}
