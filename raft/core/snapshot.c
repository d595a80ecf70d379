/* Snapshots for followers whose entries are gone (paper 7; dissertation 5). Thread: the core's.
 *
 * Leader. One chunk is under way per follower; the follower's answer names the next byte it wants,
 * so a stream resumes after a loss, and starts over when the follower lost its staging area. A
 * stream stays with the snapshot it began with, although newer ones may be offered; while it runs
 * the log is not compacted beyond that snapshot, and until the follower has caught up not beyond
 * what it has, or it would need another one each time, for ever.
 *
 * Follower.
 *       first chunk            last chunk                install durable
 *   IDLE ---------> RECEIVING ---------------> INSTALLING ---------------> IDLE, a new log
 *     ^                 |  another id: starts over  |
 *     '-----------------'---------------------------'  not needed any more; not intact
 *
 * Invariants:
 *   1. a snapshot at or below commit, or at an entry our log has, changes no log: the log is as
 *      good or better;
 *   2. any other one replaces the whole log: what follows a conflicting or missing entry conflicts
 *      as well;
 *   3. commit never falls; the log stands still while INSTALLING;
 *   4. the next byte wanted is told when all before it are durable. */
#include "raft/core/core_internal.h"

#include <stdlib.h>

/* --- counted snapshots --- */

struct core_snapshot *core__snapshot_ref(struct core_snapshot *snapshot)
{
    if (snapshot != NULL) {
        snapshot->references++;
    }
    return snapshot;
}

void core__snapshot_unref(struct core_snapshot *snapshot)
{
    if (snapshot == NULL) {
        return;
    }
    ASSERT_CMP(snapshot->references, >, 0);
    snapshot->references--;
    if (snapshot->references == 0) {
        free(snapshot);
    }
}

void raft_core_snapshot_made(struct raft_core *core, const struct raft_snapshot *snapshot)
{
    ASSERT_CMP(snapshot->position.index, <=, core->commit);
    ASSERT(snapshot->id != 0);
    ASSERT(core__membership_valid(&snapshot->membership));
    if (core->offered != NULL &&
        snapshot->position.index < core->offered->snapshot.position.index) {
        return;
    }
    core__snapshot_unref(core->offered);
    core->offered = mem_alloc(sizeof(*core->offered));
    core->offered->references = 1;
    core->offered->snapshot = *snapshot;
    TRACE(core, "snapshot.made index=%llu", (unsigned long long)snapshot->position.index);
}

bool raft_core_snapshot_in_use(const struct raft_core *core, uint64_t snapshot_id)
{
    if (core->offered != NULL && core->offered->snapshot.id == snapshot_id) {
        return true;
    }
    for (size_t i = 0; i < core->progress_count; i++) {
        const struct core_snapshot *snapshot = core->progress[i].snapshot;
        if (snapshot != NULL && snapshot->snapshot.id == snapshot_id) {
            return true;
        }
    }
    return false;
}

/* --- leader --- */

static bool is_active(const struct raft_core *core, const struct core_progress *progress)
{
    return progress->heard && progress->silence_ticks < core->options.election_ticks;
}

/* Our log must go on where the snapshot ends, and the follower must get further by it. */
static bool is_usable(const struct raft_core *core, const struct core_progress *progress,
                      const struct core_snapshot *snapshot)
{
    return snapshot != NULL && snapshot->snapshot.position.index >= core->log.start.index &&
           snapshot->snapshot.position.index > progress->match;
}

void core__snapshot_start(struct raft_core *core, struct core_progress *progress)
{
    bool usable = is_usable(core, progress, core->offered);
    core__progress_snapshot(progress, usable ? core->offered : NULL);
    TRACE(core, "snapshot.needed peer=%llu next=%llu have=%d", (unsigned long long)progress->id,
          (unsigned long long)progress->next, usable);
}

void core__snapshot_flush(struct raft_core *core, struct core_progress *progress)
{
    if (!is_usable(core, progress, progress->snapshot)) {
        if (!is_usable(core, progress, core->offered)) {
            if (progress->snapshot != NULL) {
                core__progress_snapshot(progress, NULL);
            }
            return; /* raft_status.snapshot_wanted asks for one */
        }
        core__progress_snapshot(progress, core->offered);
    }
    if (progress->chunk_out || progress->paused || !is_active(core, progress)) {
        return;
    }
    struct raft_message *message = core__send(core, RAFT_MSG_SNAPSHOT, progress->id);
    message->snapshot = &progress->snapshot->snapshot;
    message->chunk_offset = progress->chunk_offset;
    progress->chunk_out = true;
    progress->chunk_ticks = 0;
}

void core__snapshot_tick(struct raft_core *core, struct core_progress *progress)
{
    if (progress->mode != RAFT_SNAPSHOT || !progress->chunk_out) {
        return;
    }
    progress->chunk_ticks++;
    if (progress->chunk_ticks >= core->options.election_ticks) {
        progress->chunk_out = false; /* the chunk or its answer was lost */
    }
}

uint64_t core__snapshot_wanted(const struct raft_core *core)
{
    for (size_t i = 0; i < core->progress_count && core->state == RAFT_LEADER; i++) {
        const struct core_progress *progress = &core->progress[i];
        if (progress->mode == RAFT_SNAPSHOT && is_active(core, progress) &&
            !is_usable(core, progress, progress->snapshot) &&
            !is_usable(core, progress, core->offered)) {
            uint64_t start = core->log.start.index;
            return start > progress->match ? start : progress->match + 1;
        }
    }
    return 0;
}

uint64_t core__snapshot_holds_log(const struct raft_core *core)
{
    uint64_t limit = UINT64_MAX;
    for (size_t i = 0; i < core->progress_count; i++) {
        const struct core_progress *progress = &core->progress[i];
        uint64_t needs = UINT64_MAX;
        if (progress->snapshot != NULL) {
            needs = progress->snapshot->snapshot.position.index;
        } else if (progress->catching_up) {
            needs = progress->match;
        }
        if (needs < limit && is_active(core, progress) &&
            core->log.last.index - needs <= CORE_CATCH_UP_ENTRIES_MAX) {
            limit = needs;
        }
    }
    return limit;
}

static void stream_done(struct raft_core *core, struct core_progress *progress)
{
    uint64_t index = progress->snapshot->snapshot.position.index;
    TRACE(core, "snapshot.sent peer=%llu index=%llu", (unsigned long long)progress->id,
          (unsigned long long)index);
    core__progress_probe(progress, index + 1);
    progress->catching_up = true;
    core__match_reached(core, progress, index);
}

void core__on_snapshot_reply(struct raft_core *core, const struct raft_message *message)
{
    struct core_progress *progress = core__progress_find(core, message->from);
    if (core->state != RAFT_LEADER || progress == NULL) {
        return;
    }
    core__progress_heard(progress);
    if (progress->mode != RAFT_SNAPSHOT || progress->snapshot == NULL ||
        progress->snapshot->snapshot.id != message->snapshot_id) {
        return;
    }
    const struct raft_snapshot *snapshot = &progress->snapshot->snapshot;
    if (message->reject) {
        TRACE(core, "snapshot.refused peer=%llu", (unsigned long long)progress->id);
        progress->chunk_offset = 0;
        progress->chunk_out = false;
        /* until the next heartbeat is answered: no tight loop over a bad snapshot */
        progress->paused = true;
        return;
    }
    if (message->chunk_offset > snapshot->size_bytes) {
        return;
    }
    if (message->chunk_offset == snapshot->size_bytes) {
        stream_done(core, progress);
        return;
    }
    if (message->chunk_offset == progress->chunk_offset && progress->chunk_out) {
        return; /* repeated: that chunk is under way */
    }
    progress->chunk_offset = message->chunk_offset;
    progress->chunk_out = false;
}

/* --- follower --- */

void core__incoming_drop(struct raft_core *core)
{
    blob_unref(core->incoming.chunk_owner);
    core->incoming = (struct core_incoming){.active = false};
}

static const char *chunk_fault(const struct raft_message *message)
{
    const struct raft_snapshot *snapshot = message->snapshot;
    if (snapshot == NULL) {
        return "no snapshot";
    }
    if (snapshot->id == 0 || snapshot->position.index == 0 ||
        snapshot->position.index > CORE_INDEX_MAX || snapshot->position.term == 0 ||
        snapshot->position.term > message->term) {
        return "position";
    }
    if (!core__membership_valid(&snapshot->membership) || snapshot->membership.count == 0 ||
        snapshot->membership.position.index > snapshot->position.index) {
        return "membership";
    }
    if (message->chunk_offset > snapshot->size_bytes ||
        message->chunk.size > snapshot->size_bytes - message->chunk_offset ||
        (message->chunk.size == 0 && snapshot->size_bytes != 0)) {
        return "chunk";
    }
    return NULL;
}

/* What we have already makes the snapshot needless: says how far our log goes with the leader's. */
static bool have_it(struct raft_core *core, const struct raft_message *message)
{
    struct raft_position position = message->snapshot->position;
    if (position.index > core->commit) {
        if (core__log_term_at(&core->log, position.index) != position.term) {
            return false;
        }
        core__commit_to(core, position.index);
    }
    TRACE(core, "snapshot.needless index=%llu commit=%llu", (unsigned long long)position.index,
          (unsigned long long)core->commit);
    core__accept_up_to(core, message, core->commit);
    return true;
}

static void want_offset(struct raft_core *core, const struct raft_message *message, uint64_t offset)
{
    struct raft_message *reply = core__hold(core, RAFT_MSG_SNAPSHOT_REPLY, message->from);
    reply->snapshot_id = message->snapshot->id;
    reply->position = message->snapshot->position;
    reply->chunk_offset = offset;
}

/* True: `incoming` is the message's snapshot. */
static bool settle_stream(struct raft_core *core, const struct raft_message *message)
{
    struct core_incoming *incoming = &core->incoming;
    const struct raft_snapshot *snapshot = message->snapshot;
    if (incoming->active && incoming->snapshot.id == snapshot->id &&
        incoming->snapshot.size_bytes == snapshot->size_bytes &&
        raft_position_equal(incoming->snapshot.position, snapshot->position)) {
        incoming->term = message->term;
        return true;
    }
    if (incoming->active && incoming->term == message->term &&
        snapshot->position.index < incoming->snapshot.position.index) {
        return false; /* a leader goes on to newer snapshots only: this chunk was delayed */
    }
    if (message->chunk_offset != 0) {
        want_offset(core, message, 0);
        return false;
    }
    core__incoming_drop(core);
    incoming->active = true;
    incoming->snapshot = *snapshot;
    incoming->term = message->term;
    TRACE(core, "snapshot.receiving index=%llu bytes=%llu",
          (unsigned long long)snapshot->position.index, (unsigned long long)snapshot->size_bytes);
    return true;
}

void core__on_snapshot(struct raft_core *core, const struct raft_message *message)
{
    struct core_incoming *incoming = &core->incoming;
    const char *fault = chunk_fault(message);
    if (fault != NULL) {
        TRACE(core, "drop kind=snapshot from=%llu why=%s", (unsigned long long)message->from,
              fault);
        return;
    }
    if (incoming->installing || incoming->chunk_waits) {
        return; /* answered when that is done; the leader asks again if it must */
    }
    if (have_it(core, message)) {
        core__incoming_drop(core);
        return;
    }
    if (!settle_stream(core, message)) {
        return;
    }
    if (message->chunk_offset != incoming->offset) {
        want_offset(core, message, incoming->offset);
        return;
    }
    blob_unref(incoming->chunk_owner);
    incoming->chunk_owner = blob_ref(message->chunk_owner);
    incoming->chunk = message->chunk;
    incoming->chunk_offset = message->chunk_offset;
    incoming->chunk_waits = true;
    incoming->offset += message->chunk.size;
    incoming->installing = incoming->offset == incoming->snapshot.size_bytes;
}

/* The owner of the write borrows from `incoming`, which the next input may change, as it may
 * everything borrowed. */
void core__snapshot_into_write(struct raft_core *core, struct raft_write *write)
{
    struct core_incoming *incoming = &core->incoming;
    write->chunk_snapshot = &incoming->snapshot;
    write->chunk_offset = incoming->chunk_offset;
    write->chunk = incoming->chunk;
    write->chunk_owner = incoming->chunk_owner;
    incoming->chunk_waits = false;
    if (incoming->installing) {
        /* answered when it is durable: it may yet prove damaged */
        write->install = &incoming->snapshot;
    } else if (core->leader != 0) {
        struct raft_message *reply = core__hold(core, RAFT_MSG_SNAPSHOT_REPLY, core->leader);
        reply->snapshot_id = incoming->snapshot.id;
        reply->position = incoming->snapshot.position;
        reply->chunk_offset = incoming->offset;
    }
}

static void answer_install(struct raft_core *core, bool installed)
{
    const struct raft_snapshot *snapshot = &core->incoming.snapshot;
    if (core->leader == 0) {
        return;
    }
    struct raft_message *reply = core__hold(core, RAFT_MSG_SNAPSHOT_REPLY, core->leader);
    reply->snapshot_id = snapshot->id;
    reply->position = snapshot->position;
    reply->chunk_offset = installed ? snapshot->size_bytes : 0;
    reply->reject = !installed;
}

void core__snapshot_installed(struct raft_core *core)
{
    struct core_incoming *incoming = &core->incoming;
    struct raft_position position = incoming->snapshot.position;
    ASSERT(incoming->installing);
    ASSERT_CMP(position.index, >, core->commit);
    core__log_reset(&core->log, position);
    core__writes_clamp(core, position.index);
    core__members_reset(core, &incoming->snapshot.membership);
    core->commit = position.index;
    TRACE(core, "snapshot.installed index=%llu", (unsigned long long)position.index);
    answer_install(core, true);
    core__incoming_drop(core);
}

void raft_core_install_failed(struct raft_core *core, uint64_t write_seq)
{
    struct core_writes *writes = &core->writes;
    for (size_t i = 0; i < writes->count; i++) {
        struct core_write *write = &writes->items[writes->head + i];
        if (write->seq == write_seq && write->install) {
            write->install = false;
            TRACE(core, "snapshot.damaged index=%llu",
                  (unsigned long long)core->incoming.snapshot.position.index);
            answer_install(core, false);
            core__incoming_drop(core);
            return;
        }
    }
    UNREACHABLE(); /* the owner speaks of a write that carried no install */
}
