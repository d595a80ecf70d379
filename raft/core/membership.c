/* Who belongs to the group (dissertation 4.1 - 4.4). Thread: the core's.
 *
 * A membership takes effect the moment its entry is in the log, committed or not, and ceases to
 * when the entry is truncated: so the list below follows the log. One server is added or removed at
 * a time, so that any two successive majorities overlap; a leader changes nothing before it has
 * committed an entry of its own term, because only then does it know which change of its
 * predecessors counts (the fault in the first publication of 4.1).
 *
 * A leader that removed itself leads on, uncounted, until the removal is committed, and then hands
 * off; until then it also stands for election, since it may be the only one whose log can win
 * (4.2.2). A removed server is harmless: it stops hearing from the leader, but never campaigns if
 * it knows its removal to be committed, and else its pre-votes are refused by everyone who hears
 * the leader. */
#include "raft/core/core_internal.h"

#include <stdlib.h>
#include <string.h>

const struct raft_membership *core__members(const struct raft_core *core)
{
    return &core->members.items[core->members.count - 1];
}

bool core__is_voter(const struct raft_core *core, uint64_t id)
{
    const struct raft_member *member = raft_membership_find(core__members(core), id);
    return member != NULL && member->role == RAFT_VOTER;
}

/* A voter, or one whose removal is not committed yet. */
bool core__may_campaign(const struct raft_core *core)
{
    const struct core_members *members = &core->members;
    if (core__is_voter(core, core->options.id)) {
        return true;
    }
    if (members->count < 2 || core__members(core)->position.index <= core->commit) {
        return false;
    }
    const struct raft_member *member =
        raft_membership_find(&members->items[members->count - 2], core->options.id);
    return member != NULL && member->role == RAFT_VOTER;
}

bool core__is_sole_voter(const struct raft_core *core)
{
    return core__is_voter(core, core->options.id) &&
           raft_membership_voter_count(core__members(core)) == 1;
}

void core__members_push(struct raft_core *core, const struct raft_membership *membership)
{
    struct core_members *members = &core->members;
    if (members->count == members->capacity) {
        members->capacity = members->capacity == 0 ? 4 : members->capacity * 2;
        members->items = mem_realloc(members->items, members->capacity * sizeof(members->items[0]));
    }
    members->items[members->count++] = *membership;
}

bool core__members_truncate(struct raft_core *core, uint64_t from)
{
    struct core_members *members = &core->members;
    size_t before = members->count;
    while (members->count > 1 && members->items[members->count - 1].position.index >= from) {
        members->count--;
    }
    return members->count != before;
}

void core__members_compact(struct raft_core *core, uint64_t index)
{
    struct core_members *members = &core->members;
    size_t gone = 0;
    while (gone + 1 < members->count && members->items[gone + 1].position.index <= index) {
        gone++;
    }
    if (gone > 0) {
        memmove(members->items, members->items + gone,
                (members->count - gone) * sizeof(members->items[0]));
        members->count -= gone;
    }
}

void core__members_reset(struct raft_core *core, const struct raft_membership *membership)
{
    core->members.count = 0;
    core__members_push(core, membership);
}

bool raft_core_membership_at(const struct raft_core *core, uint64_t index,
                             struct raft_membership *out)
{
    if (index < core->log.start.index || index > core->log.last.index) {
        return false;
    }
    for (size_t i = core->members.count; i > 0; i--) {
        if (core->members.items[i - 1].position.index <= index) {
            *out = core->members.items[i - 1];
            return true;
        }
    }
    return false;
}

/* --- changes --- */

static bool address_valid(const char *address)
{
    return address != NULL && address[0] != '\0' && strlen(address) < RAFT_ADDRESS_BYTES_MAX;
}

static int add_member(struct raft_membership *membership, const struct raft_change *change)
{
    if (change->id == 0 || !address_valid(change->address) ||
        membership->count == RAFT_MEMBERS_MAX ||
        raft_membership_find(membership, change->id) != NULL) {
        return ERR_MEMBERSHIP_BAD;
    }
    uint32_t at = 0;
    while (at < membership->count && membership->members[at].id < change->id) {
        at++;
    }
    memmove(&membership->members[at + 1], &membership->members[at],
            (membership->count - at) * sizeof(membership->members[0]));
    struct raft_member *member = &membership->members[at];
    memset(member, 0, sizeof(*member));
    member->id = change->id;
    member->role = change->kind == RAFT_ADD_LEARNER ? RAFT_LEARNER : RAFT_VOTER;
    memcpy(member->address, change->address, strlen(change->address) + 1);
    membership->count++;
    return ERR_OK;
}

static int remove_member(struct raft_membership *membership, uint64_t id)
{
    const struct raft_member *member = raft_membership_find(membership, id);
    if (member == NULL ||
        (member->role == RAFT_VOTER && raft_membership_voter_count(membership) == 1)) {
        return ERR_MEMBERSHIP_BAD; /* a group without voters could never decide anything again */
    }
    size_t at = (size_t)(member - membership->members);
    membership->count--;
    memmove(&membership->members[at], &membership->members[at + 1],
            (membership->count - at) * sizeof(membership->members[0]));
    memset(&membership->members[membership->count], 0, sizeof(membership->members[0]));
    return ERR_OK;
}

/* A learner that has not caught up would, as a voter, be missing from quorums it is counted in
 * (4.2.1). */
static int promote_member(struct raft_core *core, struct raft_membership *membership, uint64_t id)
{
    const struct raft_member *member = raft_membership_find(membership, id);
    if (member == NULL || member->role != RAFT_LEARNER) {
        return ERR_MEMBERSHIP_BAD;
    }
    const struct core_progress *progress = core__progress_find(core, id);
    ASSERT(progress != NULL);
    bool caught_up = progress->mode == RAFT_REPLICATE &&
                     progress->silence_ticks < core->options.election_ticks &&
                     progress->match >= core->log.start.index;
    if (!caught_up) {
        return ERR_BUSY;
    }
    membership->members[member - membership->members].role = RAFT_VOTER;
    return ERR_OK;
}

static int changed_membership(struct raft_core *core, const struct raft_change *change,
                              struct raft_membership *out)
{
    *out = *core__members(core);
    switch (change->kind) {
    case RAFT_ADD_LEARNER:
    case RAFT_ADD_VOTER:
        return add_member(out, change);
    case RAFT_PROMOTE:
        return promote_member(core, out, change->id);
    case RAFT_REMOVE:
        return remove_member(out, change->id);
    }
    return ERR_MEMBERSHIP_BAD;
}

void core__append_membership(struct raft_core *core, const struct raft_membership *membership)
{
    struct raft_membership next = *membership;
    next.position = (struct raft_position){core->log.last.index + 1, core->term};
    struct buf payload;
    buf_init(&payload);
    raft_membership_encode(&next, &payload);
    struct blob *owner = blob_take_buf(&payload);
    core__members_push(core, &next);
    core__progress_follow_members(core);
    core__append_own(core, RAFT_ENTRY_MEMBERSHIP, blob_view(owner), owner);
    blob_unref(owner);
    /* those who answered may be a quorum now, and nobody else may ever answer */
    core__reads_confirm(core);
}

int raft_core_propose_change(struct raft_core *core, const struct raft_change *change,
                             struct raft_position *position)
{
    if (core->state != RAFT_LEADER) {
        return ERR_NOT_LEADER;
    }
    if (!core__read_ready(core) || core->transfer_target != 0) {
        return ERR_BUSY;
    }
    if (core__members(core)->position.index > core->commit) {
        return ERR_MEMBERSHIP_BUSY;
    }
    struct raft_membership membership;
    int error = changed_membership(core, change, &membership);
    if (error != ERR_OK) {
        return error;
    }
    core__append_membership(core, &membership);
    *position = core->log.last;
    TRACE(core, "membership index=%llu members=%u", (unsigned long long)position->index,
          membership.count);
    return ERR_OK;
}
