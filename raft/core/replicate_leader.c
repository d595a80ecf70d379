/* The leader's side of replication (paper 5.3, 5.4; dissertation 10.2). Thread: the core's.
 *
 * Appends are made at ready, as many as the follower's window allows, and optimistically: `next`
 * runs ahead of `match` while the follower is in REPLICATE. What can go wrong, and what notices it:
 *   a gap or a conflict       the follower refuses, with a hint where the logs may agree -> PROBE
 *   from there an append or answer lost  a heartbeat is answered while the window does not move ->
 *   an empty append at next - 1, which the
 *                             follower refuses if it misses anything, and accepts at no cost if it
 *                             is only slow
 *   a probe lost              a heartbeat is answered -> an empty probe
 *   entries not in memory     they are asked from the disk (ready.loads), one request a follower
 *   entries gone              SNAPSHOT
 *
 * Invariants: match < next, match and commit never fall; an entry is committed by counting only if
 * it is of this term (figure 8); this replica counts only what is durable here. */
#include "raft/core/core_internal.h"

#include <stdlib.h>
#include <string.h>

/* --- own entries and the commit index --- */

void core__append_own(struct raft_core *core, enum raft_entry_kind kind, struct bytes data,
                      struct blob *owner)
{
    ASSERT(core->state == RAFT_LEADER);
    struct raft_entry entry = {.position = {core->log.last.index + 1, core->term},
                               .kind = kind,
                               .data = data,
                               .owner = owner};
    core__log_append(&core->log, &entry);
    core->uncommitted_bytes += raft_entry_bytes(&entry);
}

static void uncommitted_subtract(struct raft_core *core, uint64_t from, uint64_t to)
{
    const struct raft_entry *entries;
    uint64_t first = core__log_cache_first(&core->log);
    from = from > first ? from : first;
    if (from > to) {
        return;
    }
    size_t count = core__log_slice(&core->log, from, UINT64_MAX, (size_t)(to - from + 1), &entries);
    for (size_t i = 0; i < count; i++) {
        /* Entries of earlier terms were not proposed through us and not counted. */
        uint64_t bytes = entries[i].position.term == core->term ? raft_entry_bytes(&entries[i]) : 0;
        core->uncommitted_bytes -=
            bytes < core->uncommitted_bytes ? bytes : core->uncommitted_bytes;
    }
}

void core__commit_to(struct raft_core *core, uint64_t index)
{
    ASSERT_CMP(index, >=, core->commit);
    ASSERT_CMP(index, <=, core->log.last.index);
    if (index == core->commit) {
        return;
    }
    if (core->state == RAFT_LEADER) {
        uncommitted_subtract(core, core->commit + 1, index);
    }
    core->commit = index;
    TRACE(core, "commit index=%llu", (unsigned long long)index);
    if (core->state == RAFT_LEADER && core__members(core)->position.index <= index &&
        !core__is_voter(core, core->options.id)) {
        core__hand_off(core); /* our own removal is done (dissertation 4.2.2) */
    }
}

void core__maybe_commit(struct raft_core *core)
{
    uint64_t index = core__quorum_match(core);
    if (index > core->commit && core__log_term_at(&core->log, index) == core->term) {
        core__commit_to(core, index);
    }
}

/* --- sending --- */

/* An APPEND after `next - 1` whose entries are the caller's to set. */
static struct raft_message *append_new(struct raft_core *core, struct core_progress *progress)
{
    struct raft_message *message = core__send(core, RAFT_MSG_APPEND, progress->id);
    uint64_t previous = progress->next - 1;
    message->position = (struct raft_position){previous, core__log_term_at(&core->log, previous)};
    message->commit = core->commit;
    message->read_round = core->reads.round;
    progress->append_due = false;
    return message;
}

static uint64_t entries_bytes(const struct raft_entry *entries, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += raft_entry_bytes(&entries[i]);
    }
    return bytes;
}

static void append_sent(struct core_progress *progress, uint64_t count, uint64_t bytes)
{
    if (progress->mode == RAFT_PROBE) {
        progress->paused = true;
    } else if (count > 0) {
        progress->next += count;
        core__window_push(progress, progress->next - 1, bytes);
    }
}

static void ask_load(const struct raft_core *core, struct core_progress *progress)
{
    if (progress->load_index == progress->next) {
        return; /* asked already */
    }
    if (progress->load_alone && progress->inflight_count > 0) {
        return;
    }
    uint64_t room = core->options.inflight_bytes_max - progress->inflight_bytes;
    bool limited = progress->inflight_count > 0 && room < core->options.append_bytes_max;
    progress->load_index = progress->next;
    progress->load_bytes = limited ? room : core->options.append_bytes_max;
    progress->load_told = false;
}

/* One append from memory. False: the window is full, there is nothing, or it must come from the
 * disk. */
static bool append_from_cache(struct raft_core *core, struct core_progress *progress)
{
    if (progress->next > core->log.last.index ||
        (progress->mode == RAFT_REPLICATE && !core__window_open(core, progress, 1))) {
        return false;
    }
    if (progress->next < core__log_cache_first(&core->log)) {
        ask_load(core, progress);
        return false;
    }
    const struct raft_entry *entries;
    size_t count = core__log_slice(&core->log, progress->next, core->options.append_bytes_max,
                                   CORE_APPEND_ENTRIES_MAX, &entries);
    ASSERT_CMP(count, >, 0);
    uint64_t bytes = entries_bytes(entries, count);
    if (progress->mode == RAFT_REPLICATE && !core__window_open(core, progress, bytes)) {
        return false;
    }
    struct raft_message *message = append_new(core, progress);
    message->entries = entries;
    message->entry_count = count;
    append_sent(progress, count, bytes);
    return true;
}

static void flush_probe(struct raft_core *core, struct core_progress *progress)
{
    if (progress->paused) {
        return;
    }
    bool nothing_to_send = progress->probe_again || progress->next > core->log.last.index;
    if (nothing_to_send) {
        append_new(core, progress);
        append_sent(progress, 0, 0);
    } else {
        (void)append_from_cache(core, progress);
    }
}

static void flush_replicate(struct raft_core *core, struct core_progress *progress)
{
    while (append_from_cache(core, progress)) {
    }
    if (progress->append_due) {
        append_new(core, progress);
    }
}

static void flush_peer(struct raft_core *core, struct core_progress *progress)
{
    bool entries_gone = progress->next - 1 < core->log.start.index;
    if (progress->mode != RAFT_SNAPSHOT && entries_gone) {
        core__snapshot_start(core, progress);
    }
    switch (progress->mode) {
    case RAFT_PROBE:
        if (!entries_gone) {
            flush_probe(core, progress);
        }
        break;
    case RAFT_REPLICATE:
        flush_replicate(core, progress);
        break;
    case RAFT_SNAPSHOT:
        core__snapshot_flush(core, progress);
        break;
    }
    if (progress->heartbeat_due) {
        struct raft_message *message = core__send(core, RAFT_MSG_HEARTBEAT, progress->id);
        message->commit = core->commit < progress->match ? core->commit : progress->match;
        message->read_round = core->reads.round;
        progress->heartbeat_due = false;
    }
}

void core__leader_flush(struct raft_core *core)
{
    for (size_t i = 0; i < core->progress_count; i++) {
        if (core->progress[i].id != core->options.id) {
            flush_peer(core, &core->progress[i]);
        }
    }
}

void core__leader_tick(struct raft_core *core)
{
    for (size_t i = 0; i < core->progress_count; i++) {
        struct core_progress *progress = &core->progress[i];
        if (progress->silence_ticks < CORE_ELECTION_TICKS_MAX) {
            progress->silence_ticks++;
        }
        core__snapshot_tick(core, progress);
    }
    if (!core__quorum_active(core)) {
        /* Somebody else may lead by now, and nobody can be served here (dissertation 6.2). */
        TRACE(core, "quorum.lost term=%llu", (unsigned long long)core->term);
        core__become_follower(core, core->term, 0);
        return;
    }
    core__transfer_tick(core);
    core->heartbeat_elapsed++;
    if (core->heartbeat_elapsed < core->options.heartbeat_ticks) {
        return;
    }
    core->heartbeat_elapsed = 0;
    if (core->options.lease_reads || core->reads.unassigned > 0) {
        core__read_round_start(core);
    }
    for (size_t i = 0; i < core->progress_count; i++) {
        core->progress[i].heartbeat_due = core->progress[i].id != core->options.id;
    }
}

/* --- entries from the disk --- */

/* How many of the loaded entries are what our log says stands there; 0: none. */
static size_t loaded_fit(const struct raft_core *core, uint64_t from,
                         const struct raft_entry *entries, size_t count)
{
    size_t fit = 0;
    while (fit < count && fit < CORE_APPEND_ENTRIES_MAX) {
        struct raft_position position = entries[fit].position;
        if (position.index != from + fit || position.index > core->log.last.index ||
            position.term != core__log_term_at(&core->log, position.index)) {
            break;
        }
        fit++;
    }
    return fit;
}

static struct core_loaded *loaded_keep(struct raft_core *core, const struct raft_entry *entries,
                                       size_t count)
{
    struct core_loaded *loaded = mem_alloc(sizeof(*loaded) + count * sizeof(loaded->entries[0]));
    loaded->count = count;
    memcpy(loaded->entries, entries, count * sizeof(entries[0]));
    for (size_t i = 0; i < count; i++) {
        blob_ref(entries[i].owner);
    }
    loaded->next = core->next.loaded;
    core->next.loaded = loaded;
    return loaded;
}

void raft_core_entries_loaded(struct raft_core *core, uint64_t peer,
                              const struct raft_entry *entries, size_t count)
{
    struct core_progress *progress = core__progress_find(core, peer);
    if (core->state != RAFT_LEADER || progress == NULL || progress->load_index == 0 ||
        !progress->load_told) {
        return;
    }
    bool fits = progress->load_index == progress->next && progress->mode != RAFT_SNAPSHOT &&
                progress->next - 1 >= core->log.start.index;
    progress->load_index = 0;
    if (!fits) {
        return;
    }
    if (count == 0) {
        core__snapshot_start(core, progress);
        return;
    }
    size_t fit = loaded_fit(core, progress->next, entries, count);
    if (fit == 0 || (progress->mode == RAFT_PROBE && progress->paused)) {
        return;
    }
    /* The disk gives one entry at least and need not know our bound: no more than the window has
     * room for. */
    while (fit > 1 && !core__window_open(core, progress, entries_bytes(entries, fit))) {
        fit--;
    }
    progress->load_alone = !core__window_open(core, progress, entries_bytes(entries, fit));
    if (progress->load_alone) {
        return;
    }
    struct core_loaded *loaded = loaded_keep(core, entries, fit);
    struct raft_message *message = append_new(core, progress);
    message->entries = loaded->entries;
    message->entry_count = fit;
    append_sent(progress, fit, entries_bytes(entries, fit));
}

/* --- answers --- */

void core__match_reached(struct raft_core *core, struct core_progress *progress, uint64_t index)
{
    ASSERT_CMP(index, <=, core->log.last.index);
    if (index > progress->match) {
        progress->match = index;
    }
    progress->acked_since_heartbeat = true;
    switch (progress->mode) {
    case RAFT_PROBE:
        core__progress_replicate(progress);
        break;
    case RAFT_REPLICATE:
        core__window_acked(progress, index);
        if (progress->next <= progress->match) {
            progress->next = progress->match + 1;
        }
        break;
    case RAFT_SNAPSHOT:
        if (progress->match >= core->log.start.index) {
            TRACE(core, "snapshot.over peer=%llu match=%llu", (unsigned long long)progress->id,
                  (unsigned long long)progress->match);
            core__progress_replicate(progress);
        } else if (progress->next <= progress->match) {
            /* still before what our log has: the stream goes on */
            progress->next = progress->match + 1;
        }
        break;
    }
    core__maybe_commit(core);
    if (core->state != RAFT_LEADER) {
        return;
    }
    progress->catching_up = progress->catching_up && progress->match < core->commit;
    core__transfer_advance(core);
}

/* Where to try next: past the follower's conflicting term, or past our own last entry of that term
 * (paper 5.3). */
static uint64_t next_after_reject(const struct raft_core *core, const struct raft_message *message)
{
    uint64_t rejected = message->position.index;
    uint64_t next = message->hint.index;
    if (message->hint.term != 0) {
        uint64_t last = core__log_last_of_term(&core->log, message->hint.term, rejected - 1);
        next = last != 0 ? last + 1 : next;
    }
    if (next > rejected) {
        next = rejected; /* `rejected` itself is known not to match */
    }
    return next > 0 ? next : 1;
}

static void on_reject(struct raft_core *core, struct core_progress *progress,
                      const struct raft_message *message)
{
    uint64_t rejected = message->position.index;
    bool stale = rejected <= progress->match || rejected >= progress->next ||
                 progress->mode == RAFT_SNAPSHOT ||
                 (progress->mode == RAFT_PROBE && rejected != progress->next - 1);
    uint64_t term = core__log_term_at(&core->log, rejected);
    if (stale || (term != 0 && term != message->position.term)) {
        TRACE(core, "reject.stale peer=%llu at=%llu", (unsigned long long)progress->id,
              (unsigned long long)rejected);
        return;
    }
    core__progress_probe(progress, next_after_reject(core, message));
    TRACE(core, "reject peer=%llu at=%llu next=%llu", (unsigned long long)progress->id,
          (unsigned long long)rejected, (unsigned long long)progress->next);
}

void core__on_append_reply(struct raft_core *core, const struct raft_message *message)
{
    struct core_progress *progress = core__progress_find(core, message->from);
    if (core->state != RAFT_LEADER || progress == NULL) {
        return;
    }
    core__progress_heard(progress);
    core__on_round(core, progress, message->read_round);
    if (message->reject) {
        on_reject(core, progress, message);
        return;
    }
    struct raft_position position = message->position;
    if (position.index > core->log.last.index ||
        (position.index >= core->log.start.index &&
         core__log_term_at(&core->log, position.index) != position.term)) {
        TRACE(core, "drop kind=append_reply from=%llu why=not our log",
              (unsigned long long)message->from);
        return;
    }
    core__match_reached(core, progress, position.index);
}

void core__on_heartbeat_reply(struct raft_core *core, const struct raft_message *message)
{
    struct core_progress *progress = core__progress_find(core, message->from);
    if (core->state != RAFT_LEADER || progress == NULL) {
        return;
    }
    core__progress_heard(progress);
    core__on_round(core, progress, message->read_round);
    switch (progress->mode) {
    case RAFT_PROBE:
        progress->probe_again = progress->paused;
        progress->paused = false;
        break;
    case RAFT_REPLICATE:
        progress->append_due = progress->inflight_count > 0 && !progress->acked_since_heartbeat;
        progress->acked_since_heartbeat = false;
        break;
    case RAFT_SNAPSHOT:
        progress->paused = false;
        break;
    }
}

void raft_core_unreachable(struct raft_core *core, uint64_t peer)
{
    struct core_progress *progress = core__progress_find(core, peer);
    if (core->state != RAFT_LEADER || progress == NULL || peer == core->options.id) {
        return;
    }
    if (progress->mode == RAFT_REPLICATE) {
        core__progress_probe(progress, progress->match + 1);
    }
    progress->chunk_out = false;
    progress->paused = true; /* until it shows life: what is sent now would be lost as well */
}
