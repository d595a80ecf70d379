/* Handing leadership over (dissertation 3.10). Thread: the core's.
 *
 * The leader takes no new entries, brings the target up to date, and tells it to campaign at once;
 * voters let such a candidacy pass although they hear the leader. If nothing came of it within an
 * election timeout the leader goes on. TIMEOUT_NOW is sent again with each heartbeat meanwhile,
 * since it may be lost; a late one is harmless to safety, but may elect its receiver at any time,
 * so the lease stays given up for the term.
 *
 * A leader whose own disk has not answered for two election timeouts asks this of itself. */
#include "raft/core/core_internal.h"

void core__transfer_clear(struct raft_core *core)
{
    core->transfer_target = 0;
    core->transfer_elapsed = 0;
    core->transfer_sent = false;
}

/* The voter that has the most of the log among those heard from. */
static const struct core_progress *best_voter(const struct raft_core *core)
{
    const struct core_progress *best = NULL;
    for (size_t i = 0; i < core->progress_count; i++) {
        const struct core_progress *progress = &core->progress[i];
        bool fit = progress->voter && progress->id != core->options.id && progress->heard &&
                   progress->silence_ticks < core->options.election_ticks;
        if (fit && (best == NULL || progress->match > best->match)) {
            best = progress;
        }
    }
    return best;
}

static void timeout_now_send(struct raft_core *core, uint64_t target)
{
    core->lease_forfeited = true;
    core->transfer_sent = true;
    core__send(core, RAFT_MSG_TIMEOUT_NOW, target);
    TRACE(core, "transfer.timeout_now target=%llu", (unsigned long long)target);
}

int raft_core_transfer(struct raft_core *core, uint64_t target)
{
    if (core->state != RAFT_LEADER) {
        return ERR_NOT_LEADER;
    }
    if (target == 0) {
        const struct core_progress *best = best_voter(core);
        target = best == NULL ? 0 : best->id;
    }
    if (target == 0 || target == core->options.id || !core__is_voter(core, target)) {
        return ERR_TRANSFER_FAILED;
    }
    if (core->transfer_target == target) {
        return ERR_OK;
    }
    core->transfer_target = target;
    core->transfer_elapsed = 0;
    core->transfer_sent = false;
    TRACE(core, "transfer target=%llu", (unsigned long long)target);
    core__transfer_advance(core);
    return ERR_OK;
}

void core__transfer_advance(struct raft_core *core)
{
    if (core->transfer_target == 0 || core->transfer_sent) {
        return; /* again with the heartbeats, not with every answer */
    }
    const struct core_progress *target = core__progress_find(core, core->transfer_target);
    if (target != NULL && target->match == core->log.last.index) {
        timeout_now_send(core, target->id);
    }
}

/* A leader whose disk does not answer can commit only through the others, and soon not even that;
 * better one of them leads. Asked again only after a while: proposals are refused meanwhile. */
static void hand_over_when_stalled(struct raft_core *core)
{
    const struct core_writes *writes = &core->writes;
    uint64_t patience = 2 * (uint64_t)core->options.election_ticks;
    bool stalled = writes->count > 0 && core->tick - writes->items[writes->head].tick >= patience;
    bool asked_lately = core->stall_tick != 0 && core->tick - core->stall_tick < 2 * patience;
    if (!stalled || asked_lately || core->transfer_target != 0) {
        return;
    }
    core->stall_tick = core->tick;
    int error = raft_core_transfer(core, 0);
    TRACE(core, "disk.stalled seq=%llu to=%llu",
          (unsigned long long)writes->items[writes->head].seq,
          error == ERR_OK ? (unsigned long long)core->transfer_target : 0ULL);
}

void core__transfer_tick(struct raft_core *core)
{
    hand_over_when_stalled(core);
    if (core->transfer_target == 0) {
        return;
    }
    const struct core_progress *target = core__progress_find(core, core->transfer_target);
    core->transfer_elapsed++;
    if (target == NULL || !target->voter ||
        core->transfer_elapsed >= core->options.election_ticks) {
        TRACE(core, "transfer.abandoned target=%llu", (unsigned long long)core->transfer_target);
        core__transfer_clear(core);
        return;
    }
    bool due = core->heartbeat_elapsed + 1 >= core->options.heartbeat_ticks;
    if (due && target->match == core->log.last.index) {
        timeout_now_send(core, target->id);
    }
}

/* A leader that is no member any more: the best follower need not wait for a timeout. */
void core__hand_off(struct raft_core *core)
{
    const struct core_progress *best = best_voter(core);
    TRACE(core, "removed.steps_down to=%llu", best == NULL ? 0ULL : (unsigned long long)best->id);
    if (best != NULL) {
        timeout_now_send(core, best->id);
    }
    core__become_follower(core, core->term, 0);
}

void core__on_timeout_now(struct raft_core *core, const struct raft_message *message)
{
    TRACE(core, "timeout_now from=%llu", (unsigned long long)message->from);
    core__campaign(core, true);
}
