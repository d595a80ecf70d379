/* Elections (paper 5.2, 5.4.1; dissertation 4.2.3, 6.4, 9.6). Thread: the core's.
 *
 *               timeout               a quorum would          a quorum did, own vote durable
 *   FOLLOWER ------------> PRE_CANDIDATE ---------> CANDIDATE ---------------------> LEADER
 *      ^  core__campaign        |    campaign_start     |          become_leader       |
 *      |                        |                       |                              |
 *      '-- higher term, a leader of this term, refused by a quorum: core__become_follower
 *                                            (a leader also: no quorum is heard from any more)
 *
 * Invariants:
 *   1. term never falls, and voted_for changes within a term only from nobody to somebody (a
 *      heartbeat does not clear it);
 *   2. a granted vote, and a request for votes, leave only when term and vote are durable: after a
 *      crash the replica neither votes twice in the term nor collects votes for a log it lost;
 *   3. a replica that heard a leader within the shortest election timeout refuses to elect another,
 *      unless that leader itself asked for it (transfer), or, in a group without leases, it saw its
 *      connection with the leader closed: neither a returning nor a removed server disturbs the
 *      group, and a lease holds;
 *   4. a pre-vote changes nothing at either side. A refusal carries the refuser's term if that is
 *      higher, so that a long log with a low term and a short log with a high term cannot block
 *      each other for ever. */
#include "raft/core/core_internal.h"

static void timer_reset(struct raft_core *core)
{
    uint32_t ticks = core->options.election_ticks;
    core->election_elapsed = 0;
    core->election_timeout = ticks + (uint32_t)rng_below(&core->rng, ticks);
}

void core__election_start(struct raft_core *core)
{
    timer_reset(core);
}

static void leave_leadership(struct raft_core *core)
{
    core__reads_fail(core);
    core__transfer_clear(core);
    core__progress_clear(core);
    core->lease_forfeited = false;
    core->uncommitted_bytes = 0;
}

void core__become_follower(struct raft_core *core, uint64_t term, uint64_t leader)
{
    ASSERT_CMP(term, >=, core->term);
    enum raft_state before = core->state;
    bool changed = term > core->term || before != RAFT_FOLLOWER;
    if (before == RAFT_LEADER) {
        leave_leadership(core);
    }
    if (term > core->term) {
        core->term = term;
        core->voted_for = 0;
        core->leader = 0;
    }
    core->state = RAFT_FOLLOWER;
    core->leader = leader;
    core->vote_count = 0;
    core->campaign_transfer = false;
    if (changed) {
        timer_reset(core);
        TRACE(core, "follower term=%llu leader=%llu was=%s", (unsigned long long)term,
              (unsigned long long)leader, core__state_name(before));
    }
}

/* A message of this term's leader: only now does the wait for an election begin anew. */
void core__leader_heard(struct raft_core *core, uint64_t leader)
{
    ASSERT(core->state != RAFT_LEADER);
    if (core->state != RAFT_FOLLOWER || core->leader != leader) {
        core__become_follower(core, core->term, leader);
    }
    core->election_elapsed = 0;
    core->leader_silence = 0;
    if (core->election_timeout < core->options.election_ticks) {
        timer_reset(core); /* it was cut short when a connection closed, and the leader lives */
    }
}

bool core__vote_refused_for_leader(const struct raft_core *core, const struct raft_message *message)
{
    if (message->leader_transfer) {
        return false;
    }
    return core->state == RAFT_LEADER || core->leader_silence < core->options.election_ticks;
}

/* --- asking --- */

static void become_leader(struct raft_core *core)
{
    core->state = RAFT_LEADER;
    core->leader = core->options.id;
    core->leader_silence = core->options.election_ticks; /* once deposed it may vote at once */
    core->heartbeat_elapsed = 0;
    core->vote_count = 0;
    core->lease_forfeited = false;
    core->uncommitted_bytes = 0;
    core__transfer_clear(core);
    core__reads_reset(core);
    core__progress_reset(core);
    TRACE(core, "leader term=%llu last=%llu", (unsigned long long)core->term,
          (unsigned long long)core->log.last.index);
    /* The entry that lets everything before it be committed (paper 5.4.2, 8). The first one of a
     * group says who it was begun with: a replica that is added later knows that from nowhere else,
     * and its snapshots must say it. */
    const struct raft_membership members = *core__members(core);
    if (members.position.index == 0) {
        core__append_membership(core, &members);
    } else {
        core__append_own(core, RAFT_ENTRY_NOOP, BYTES_EMPTY, NULL);
    }
}

static bool vote_record(struct raft_core *core, uint64_t id, bool granted)
{
    for (size_t i = 0; i < core->vote_count; i++) {
        if (core->votes[i].id == id) {
            return false;
        }
    }
    ASSERT_CMP(core->vote_count, <, RAFT_MEMBERS_MAX);
    core->votes[core->vote_count++] = (struct core_vote){id, granted};
    return true;
}

enum vote_result { VOTE_OPEN, VOTE_WON, VOTE_LOST };

static enum vote_result vote_result(const struct raft_core *core)
{
    uint32_t quorum = raft_membership_voter_count(core__members(core)) / 2 + 1;
    uint32_t granted = 0;
    uint32_t refused = 0;
    for (size_t i = 0; i < core->vote_count; i++) {
        if (core__is_voter(core, core->votes[i].id)) {
            granted += core->votes[i].granted ? 1 : 0;
            refused += core->votes[i].granted ? 0 : 1;
        }
    }
    if (granted >= quorum) {
        return VOTE_WON;
    }
    uint32_t voters = raft_membership_voter_count(core__members(core));
    return refused > voters - quorum ? VOTE_LOST : VOTE_OPEN;
}

static void ask_voters(struct raft_core *core, enum raft_message_kind kind, uint64_t term)
{
    const struct raft_membership *members = core__members(core);
    for (uint32_t i = 0; i < members->count; i++) {
        const struct raft_member *member = &members->members[i];
        if (member->role != RAFT_VOTER || member->id == core->options.id) {
            continue;
        }
        struct raft_message *message = kind == RAFT_MSG_VOTE ? core__hold(core, kind, member->id)
                                                             : core__send(core, kind, member->id);
        message->term = term;
        message->position = core->log.last;
        message->leader_transfer = core->campaign_transfer;
    }
}

static void campaign_start(struct raft_core *core)
{
    core->state = RAFT_CANDIDATE;
    core->term++;
    core->voted_for = core->options.id;
    core->leader = 0;
    core->vote_count = 0;
    timer_reset(core);
    TRACE(core, "candidate term=%llu transfer=%d", (unsigned long long)core->term,
          core->campaign_transfer);
    ask_voters(core, RAFT_MSG_VOTE, core->term);
}

static void precampaign_start(struct raft_core *core)
{
    core->state = RAFT_PRE_CANDIDATE;
    core->leader = 0;
    core->vote_count = 0;
    timer_reset(core);
    TRACE(core, "precandidate term=%llu", (unsigned long long)core->term);
    vote_record(core, core->options.id, true);
    ask_voters(core, RAFT_MSG_PREVOTE, core->term + 1);
}

void core__campaign(struct raft_core *core, bool transfer)
{
    /* While a snapshot is being installed the log to stand for is neither the old nor the new one.
     */
    if (!core__may_campaign(core) || core->incoming.installing || core->term >= CORE_TERM_MAX) {
        return;
    }
    core->campaign_transfer = transfer;
    if (transfer || core__is_sole_voter(core)) {
        campaign_start(core);
    } else {
        precampaign_start(core);
    }
}

void core__election_tick(struct raft_core *core)
{
    if (core->leader_silence < CORE_ELECTION_TICKS_MAX) {
        core->leader_silence++;
    }
    core->election_elapsed++;
    if (!core__may_campaign(core)) {
        if (core->state != RAFT_FOLLOWER) {
            core__become_follower(core, core->term, 0);
        }
        core->election_elapsed = 0;
        return;
    }
    if (core->state == RAFT_CANDIDATE && core->durable_term != core->term) {
        /* our own disk is what we wait for: another term would only queue up behind this one */
        return;
    }
    /* Nobody to wait for, but a leader that is removing itself may still serve reads by its lease.
     */
    bool alone = core__is_sole_voter(core) && core->state == RAFT_FOLLOWER &&
                 core->leader_silence >= core->options.election_ticks;
    if (alone || core->election_elapsed >= core->election_timeout) {
        timer_reset(core);
        core__campaign(core, false);
    }
}

void raft_core_peer_closed(struct raft_core *core, uint64_t peer)
{
    if (core->state != RAFT_FOLLOWER || core->leader != peer || core->options.lease_reads) {
        return;
    }
    core->leader_silence = core->options.election_ticks;
    /* Drawn anew: the others have seen the same at the same moment. */
    uint64_t wait = 1 + rng_below(&core->rng, core->options.heartbeat_ticks);
    if (core->election_elapsed + wait < core->election_timeout) {
        core->election_timeout = core->election_elapsed + (uint32_t)wait;
    }
    TRACE(core, "leader.closed leader=%llu", (unsigned long long)peer);
}

/* --- counting --- */

static void count_votes(struct raft_core *core)
{
    switch (vote_result(core)) {
    case VOTE_OPEN:
        break;
    case VOTE_WON:
        if (core->state == RAFT_PRE_CANDIDATE) {
            campaign_start(core);
        } else {
            become_leader(core);
        }
        break;
    case VOTE_LOST:
        core__become_follower(core, core->term, 0);
        break;
    }
}

void core__own_vote_durable(struct raft_core *core)
{
    ASSERT(core->state == RAFT_CANDIDATE);
    if (core->durable_term == core->term && core->durable_vote == core->options.id &&
        vote_record(core, core->options.id, true)) {
        count_votes(core);
    }
}

void core__on_prevote_reply(struct raft_core *core, const struct raft_message *message)
{
    bool fits = core->state == RAFT_PRE_CANDIDATE &&
                (message->reject ? message->term == core->term : message->term == core->term + 1);
    if (fits && vote_record(core, message->from, !message->reject)) {
        count_votes(core);
    }
}

void core__on_vote_reply(struct raft_core *core, const struct raft_message *message)
{
    bool fits = core->state == RAFT_CANDIDATE && message->term == core->term;
    /* Nobody was asked before our own vote is durable: whatever comes earlier waits for it. */
    if (fits && vote_record(core, message->from, !message->reject) &&
        core->durable_term == core->term) {
        count_votes(core);
    }
}

/* --- answering --- */

static bool log_up_to_date(const struct raft_core *core, struct raft_position candidate)
{
    struct raft_position last = core->log.last;
    return candidate.term > last.term ||
           (candidate.term == last.term && candidate.index >= last.index);
}

void core__on_prevote(struct raft_core *core, const struct raft_message *message)
{
    if (message->term > core->term && core__vote_refused_for_leader(core, message)) {
        TRACE(core, "prevote.ignored from=%llu", (unsigned long long)message->from);
        return;
    }
    bool granted = message->term > core->term && log_up_to_date(core, message->position);
    struct raft_message *reply = core__send(core, RAFT_MSG_PREVOTE_REPLY, message->from);
    reply->term = granted ? message->term : core->term;
    reply->reject = !granted;
}

void core__on_vote(struct raft_core *core, const struct raft_message *message)
{
    ASSERT_CMP(message->term, ==, core->term);
    bool again = core->voted_for == message->from;
    if (!again && core__vote_refused_for_leader(core, message)) {
        TRACE(core, "vote.ignored from=%llu", (unsigned long long)message->from);
        return;
    }
    bool free_to_vote = again || (core->voted_for == 0 && core->leader == 0);
    if (!free_to_vote || !log_up_to_date(core, message->position)) {
        core__send(core, RAFT_MSG_VOTE_REPLY, message->from)->reject = true;
        return;
    }
    ASSERT(core->state != RAFT_LEADER); /* it voted for itself in this term */
    if (core->state != RAFT_FOLLOWER) {
        core__become_follower(core, core->term, 0);
    }
    core->voted_for = message->from;
    timer_reset(core);
    TRACE(core, "vote term=%llu for=%llu", (unsigned long long)core->term,
          (unsigned long long)message->from);
    core__hold(core, RAFT_MSG_VOTE_REPLY, message->from);
}
