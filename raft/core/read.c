/* Linearizable reads without a log entry (dissertation 6.4, 6.4.1). Thread: the core's.
 *
 * A read takes the commit index at the moment it is asked for, and is served once a quorum has
 * acknowledged, after that moment, that this replica leads. The acknowledgement is a round: a
 * number that rides on every heartbeat and append and is echoed. All reads asked for before the
 * next ready share one; a few rounds may be under way at once, and reads beyond those share the
 * next.
 *
 * Lease. Every round remembers the tick at which it was begun, which is before any message of it
 * was sent. Whoever echoed it elects nobody for an election timeout after it received it, so until
 *
 *     begun + lease,    lease = (election_ticks - 1) * 9/10
 *
 * nobody else can lead: one tick is lost because a follower's tick may follow right after its
 * receipt, the tenth is the assumed difference of clock rates, and our own tick count may lag by
 * one (the + 1 below). It assumes that the owner ticks for all the time that passed, also while the
 * process was stopped, before it asks for a read. A transfer gives the lease up for the rest of the
 * term: a TIMEOUT_NOW may arrive at any later time and elect its receiver at once.
 *
 * Invariants: rounds of waiting reads ascend; reads without a round stand at the end; confirmed <=
 * round; nothing waits in a replica that does not lead. */
#include "raft/core/core_internal.h"

#include <stdlib.h>
#include <string.h>

static void read_out(struct raft_core *core, uint64_t context, uint64_t index, int error)
{
    struct core_reads_out *out = &core->next.reads;
    if (out->count == out->capacity) {
        out->capacity = out->capacity == 0 ? 64 : out->capacity * 2;
        out->items = mem_realloc(out->items, out->capacity * sizeof(out->items[0]));
    }
    out->items[out->count++] =
        (struct raft_read_ready){.context = context, .index = index, .error = error};
}

static void read_push(struct core_reads *reads, struct core_read read)
{
    if (reads->head + reads->count == reads->capacity) {
        if (reads->head > reads->capacity / 2) {
            memmove(reads->items, reads->items + reads->head,
                    reads->count * sizeof(reads->items[0]));
        } else {
            size_t capacity = reads->capacity == 0 ? 64 : reads->capacity * 2;
            struct core_read *items = mem_alloc(capacity * sizeof(items[0]));
            if (reads->count > 0) {
                memcpy(items, reads->items + reads->head, reads->count * sizeof(items[0]));
            }
            free(reads->items);
            reads->items = items;
            reads->capacity = capacity;
        }
        reads->head = 0;
    }
    reads->items[reads->head + reads->count++] = read;
    reads->unassigned++;
}

void core__reads_deinit(struct raft_core *core)
{
    free(core->reads.items);
    core->reads = (struct core_reads){.items = NULL};
}

/* Rounds are numbered anew in every term: an echo of another term never gets this far. */
void core__reads_reset(struct raft_core *core)
{
    struct core_reads *reads = &core->reads;
    ASSERT_CMP(reads->count, ==, 0);
    reads->head = 0;
    reads->unassigned = 0;
    reads->round = 0;
    reads->confirmed = 0;
}

void core__reads_fail(struct raft_core *core)
{
    struct core_reads *reads = &core->reads;
    for (size_t i = 0; i < reads->count; i++) {
        read_out(core, reads->items[reads->head + i].context, 0, ERR_NOT_LEADER);
    }
    reads->count = 0;
    core__reads_reset(core);
}

bool core__lease_holds(const struct raft_core *core)
{
    const struct core_reads *reads = &core->reads;
    if (!core->options.lease_reads || core->lease_forfeited || core->transfer_target != 0 ||
        reads->confirmed == 0 || reads->round - reads->confirmed >= CORE_ROUND_RING) {
        return false;
    }
    uint64_t lease_ticks = (uint64_t)(core->options.election_ticks - 1) * 9 / 10;
    uint64_t begun = reads->sent_tick[reads->confirmed % CORE_ROUND_RING];
    return core->tick - begun + 1 <= lease_ticks;
}

int raft_core_read(struct raft_core *core, uint64_t context)
{
    if (core->state != RAFT_LEADER) {
        return ERR_NOT_LEADER;
    }
    if (!core__read_ready(core)) {
        return ERR_BUSY;
    }
    if (core__is_sole_voter(core) || core__lease_holds(core)) {
        read_out(core, context, core->commit, ERR_OK);
        return ERR_OK;
    }
    if (core->reads.count == CORE_READS_WAITING_MAX) {
        return ERR_BUSY;
    }
    read_push(&core->reads, (struct core_read){.context = context, .index = core->commit});
    return ERR_OK;
}

void core__read_round_start(struct raft_core *core)
{
    struct core_reads *reads = &core->reads;
    reads->round++;
    reads->sent_tick[reads->round % CORE_ROUND_RING] = core->tick;
    for (size_t i = reads->count - reads->unassigned; i < reads->count; i++) {
        reads->items[reads->head + i].round = reads->round;
    }
    reads->unassigned = 0;
    core__reads_confirm(core); /* a sole voter is a quorum by itself */
}

void core__reads_flush(struct raft_core *core)
{
    struct core_reads *reads = &core->reads;
    if (reads->unassigned == 0 || reads->round - reads->confirmed >= CORE_READ_ROUNDS_MAX) {
        return;
    }
    core__read_round_start(core);
    for (size_t i = 0; i < core->progress_count; i++) {
        struct core_progress *progress = &core->progress[i];
        if (progress->voter && progress->id != core->options.id) {
            progress->heartbeat_due = true;
        }
    }
}

void core__reads_confirm(struct raft_core *core)
{
    struct core_reads *reads = &core->reads;
    uint64_t round = core__quorum_round(core);
    if (round <= reads->confirmed) {
        return;
    }
    reads->confirmed = round;
    size_t served = 0;
    while (served < reads->count - reads->unassigned &&
           reads->items[reads->head + served].round <= round) {
        const struct core_read *read = &reads->items[reads->head + served];
        read_out(core, read->context, read->index, ERR_OK);
        served++;
    }
    reads->head += served;
    reads->count -= served;
    if (reads->count == 0) {
        reads->head = 0;
    }
}

void core__on_round(struct raft_core *core, struct core_progress *progress, uint64_t round)
{
    if (round <= progress->acked_round || round > core->reads.round) {
        return;
    }
    progress->acked_round = round;
    core__reads_confirm(core);
}
