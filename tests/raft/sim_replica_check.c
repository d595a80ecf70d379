/* What is checked of a replica after every input and before every message leaves. Thread: one.
 * Invariants: the core's own; watermarks in order and never falling; a leader has a durable term
 * and vote and every entry it owes; what a leader commits is of its own term and durable on a
 * majority; a vote or an acceptance leaves only when it is durable. */
#include "base/assert.h"
#include "raft/sim_cluster.h"
#include "raft/sim_report.h"

#include <inttypes.h>
#include <string.h>

enum { LEADER_ENTRIES_CHECKED = 64 };

static void check_leader(const struct sim_replica *replica)
{
    const struct raft_status *status = &replica->status;
    const struct raft_hard_state *durable = &replica->disk.hard_state;
    if (durable->term != status->term || durable->voted_for != replica->id) {
        sim_fail("replica %" PRIu64 " leads term %" PRIu64 "; on its disk: term %" PRIu64
                 ", vote for %" PRIu64,
                 replica->id, status->term, durable->term, durable->voted_for);
    }
    const struct sim_checker *checker = &replica->cluster->checker;
    uint64_t index = checker->commit_max;
    for (unsigned i = 0; i < LEADER_ENTRIES_CHECKED && index > status->log_start.index; i++) {
        uint64_t term = raft_core_term_at(replica->core, index);
        uint64_t owed = sim_checker_term_owed(checker, index, status->term);
        if (owed != 0 && term != owed) {
            sim_fail("replica %" PRIu64 " leads term %" PRIu64 " without committed entry %" PRIu64
                     "/%" PRIu64 " (has term %" PRIu64 ")",
                     replica->id, status->term, index, owed, term);
        }
        index--;
    }
}

static void check_quorum(const struct sim_replica *replica, struct raft_position position)
{
    const struct raft_membership *membership = &replica->status.membership;
    uint32_t voters = 0;
    uint32_t holders = 0;
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct raft_member *member = &membership->members[i];
        if (member->role == RAFT_VOTER) {
            ASSERT_CMP(member->id - 1, <, replica->cluster->options.servers);
            voters++;
            holders += sim_disk_holds(&replica->cluster->replicas[member->id - 1].disk, position);
        }
    }
    if (2 * holders <= voters) {
        sim_fail("replica %" PRIu64 " commits %" PRIu64 "/%" PRIu64 ", durable on %u of %u voters",
                 replica->id, position.index, position.term, holders, voters);
    }
}

static void check_commit(struct sim_replica *replica, const struct raft_status *old)
{
    const struct raft_status *status = &replica->status;
    struct sim_checker *checker = &replica->cluster->checker;
    /* A leader that commits its own removal is none any more when we look. */
    bool as_leader =
        status->state == RAFT_LEADER || (old->state == RAFT_LEADER && old->term == status->term);
    uint64_t leader_term = as_leader ? status->term : 0;
    for (uint64_t index = old->commit + 1; index <= status->commit; index++) {
        uint64_t term = raft_core_term_at(replica->core, index);
        if (term == 0) { /* inside a snapshot just installed */
            if (index > checker->commit_max || index > status->log_start.index) {
                sim_fail("replica %" PRIu64 " takes %" PRIu64 " for committed and has it not",
                         replica->id, index);
            }
            continue;
        }
        sim_checker_committed(checker, replica->id,
                              (struct raft_position){.index = index, .term = term}, leader_term);
    }
    if (as_leader) {
        uint64_t term = raft_core_term_at(replica->core, status->commit);
        if (term != leader_term) { /* paper 5.4.2, figure 8 */
            sim_fail("replica %" PRIu64 " leads term %" PRIu64 " and commits %" PRIu64
                     " of term %" PRIu64 " by counting",
                     replica->id, leader_term, status->commit, term);
        }
        check_quorum(replica, (struct raft_position){.index = status->commit, .term = term});
    }
}

static void count_transition(struct sim_replica *replica, const struct raft_status *old)
{
    struct sim_counters *counters = &replica->cluster->counters;
    const struct raft_status *now = &replica->status;
    if (now->state == RAFT_LEADER && old->state != RAFT_LEADER) {
        counters->leaders++;
        counters->transfers_done += now->term == replica->timeout_now_term + 1;
    }
    if (old->state == RAFT_LEADER && now->state != RAFT_LEADER) {
        counters->step_downs += old->term == now->term;
        const struct raft_member *self = raft_membership_find(&now->membership, replica->id);
        counters->leader_removals += self == NULL;
    }
    if (old->transfer_pending && !now->transfer_pending && now->state == RAFT_LEADER) {
        counters->transfers_abandoned++;
    }
}

void sim_replica__observe(struct sim_replica *replica)
{
    raft_core_check(replica->core);
    struct raft_status old = replica->status;
    struct raft_status *now = &replica->status;
    raft_core_status(replica->core, now);
    if (now->term < old.term || now->commit < old.commit || now->applied > now->commit ||
        now->commit > now->last.index || now->durable > now->last.index ||
        now->applied > replica->sm.applied.index) {
        sim_fail("replica %" PRIu64 ": term %" PRIu64 " commit %" PRIu64 " applied %" PRIu64
                 " last %" PRIu64 " durable %" PRIu64 "; before: term %" PRIu64 " commit %" PRIu64,
                 replica->id, now->term, now->commit, now->applied, now->last.index, now->durable,
                 old.term, old.commit);
    }
    if (now->state == RAFT_LEADER) {
        sim_checker_leader(&replica->cluster->checker, replica->id, now->term);
        if (old.state != RAFT_LEADER || old.term != now->term) {
            check_leader(replica);
        }
    }
    if (now->commit > old.commit) {
        check_commit(replica, &old);
    }
    count_transition(replica, &old);
}

/* 'Reply only when durable', looked at from outside. */
void sim_replica__check_promise(const struct sim_replica *replica,
                                const struct raft_message *message)
{
    const struct sim_disk *disk = &replica->disk;
    bool kept = true;
    if (message->kind == RAFT_MSG_VOTE_REPLY && !message->reject) {
        kept = disk->hard_state.term > message->term || (disk->hard_state.term == message->term &&
                                                         disk->hard_state.voted_for == message->to);
    } else if (message->kind == RAFT_MSG_APPEND_REPLY && !message->reject) {
        kept = disk->hard_state.term >= message->term;
        if (disk->hard_state.term == message->term) { /* a later term may have cut it again */
            kept = message->position.index <= sim_disk_last(disk).index;
        }
    }
    if (!kept) {
        sim_fail("replica %" PRIu64 " sends kind %d of term %" PRIu64 " at %" PRIu64 "/%" PRIu64
                 " to %" PRIu64 "; on its disk: term %" PRIu64 " vote %" PRIu64 " last %" PRIu64,
                 replica->id, (int)message->kind, message->term, message->position.index,
                 message->position.term, message->to, disk->hard_state.term,
                 disk->hard_state.voted_for, sim_disk_last(disk).index);
    }
}

void sim_replica__check_heartbeat_rate(struct sim_replica *replica,
                                       const struct raft_message *message)
{
    if (replica->heartbeat_term != message->term) {
        replica->heartbeat_term = message->term;
        memset(replica->heartbeat_count, 0, sizeof replica->heartbeat_count);
    }
    uint64_t to = message->to - 1;
    uint32_t place = replica->heartbeat_count[to]++ % SIM_HEARTBEATS_PER_S_MAX;
    uint64_t *sent_ns = &replica->heartbeats_ns[to][place];
    uint64_t now_ns = replica->cluster->clock.now_ns;
    if (replica->heartbeat_count[to] > SIM_HEARTBEATS_PER_S_MAX &&
        now_ns - *sent_ns < SIM_S - SIM_MS) {
        sim_fail("replica %" PRIu64 ": more than %d heartbeats a second to %" PRIu64, replica->id,
                 SIM_HEARTBEATS_PER_S_MAX, message->to);
    }
    *sent_ns = now_ns;
}
