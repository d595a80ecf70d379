/* The follower's side of replication (paper 5.3). Thread: the core's.
 *
 * Appends may be lost, repeated and reordered. What keeps that harmless:
 *   1. everything up to `commit` is identical to the leader's log, so the part of an append that
 *      lies there is skipped unread, and nothing at or below `commit` is ever cut;
 *   2. an entry is cut only when the append holds another term at its index: an append that ends
 *      earlier than our log says nothing about the rest;
 *   3. what an append lets us commit ends with its own last entry, whatever the leader's commit
 *      index: only up to there do we know the logs to be equal;
 *   4. an acceptance names exactly that last entry and leaves when it is durable. */
#include "raft/core/core_internal.h"

/* The message's entries are a piece of a log: consecutive, terms in order, none from the future,
 * readable. */
static bool entries_valid(const struct raft_message *message)
{
    struct raft_position previous = message->position;
    if (previous.term > message->term) {
        return false;
    }
    for (size_t i = 0; i < message->entry_count; i++) {
        const struct raft_entry *entry = &message->entries[i];
        if (entry->position.index != previous.index + 1 || entry->position.term < previous.term ||
            entry->position.term > message->term || entry->position.term == 0) {
            return false;
        }
        if (entry->kind < RAFT_ENTRY_NOOP || entry->kind > RAFT_ENTRY_MEMBERSHIP) {
            return false;
        }
        if (entry->kind == RAFT_ENTRY_MEMBERSHIP) {
            struct raft_membership membership;
            if (raft_membership_decode(entry->data, &membership) != ERR_OK) {
                return false;
            }
        }
        previous = entry->position;
    }
    return true;
}

static void append_entry(struct raft_core *core, const struct raft_entry *entry)
{
    core__log_append(&core->log, entry);
    if (entry->kind == RAFT_ENTRY_MEMBERSHIP) {
        struct raft_membership membership;
        int error = raft_membership_decode(entry->data, &membership);
        ASSERT(error == ERR_OK);
        membership.position = entry->position;
        core__members_push(core, &membership);
        TRACE(core, "membership index=%llu members=%u", (unsigned long long)entry->position.index,
              membership.count);
    }
}

static void truncate(struct raft_core *core, uint64_t from)
{
    ASSERT_CMP(from, >, core->commit);
    TRACE(core, "truncate from=%llu last=%llu", (unsigned long long)from,
          (unsigned long long)core->log.last.index);
    core__log_truncate(&core->log, from);
    core__writes_clamp(core, from - 1);
    if (core__members_truncate(core, from)) {
        TRACE(core, "membership.rolled_back index=%llu",
              (unsigned long long)core__members(core)->position.index);
    }
}

/* Refuses with where the logs may agree: before our whole run of the conflicting term. */
static void refuse(struct raft_core *core, const struct raft_message *message)
{
    struct raft_message *reply = core__send(core, RAFT_MSG_APPEND_REPLY, message->from);
    uint64_t previous = message->position.index;
    reply->reject = true;
    reply->position = message->position;
    reply->read_round = message->read_round;
    if (previous > core->log.last.index) {
        reply->hint = (struct raft_position){core->log.last.index + 1, 0};
        return;
    }
    uint64_t first = core__log_run_first(&core->log, previous);
    if (first <= core->commit) {
        first = core->commit + 1; /* committed entries match */
    }
    reply->hint = (struct raft_position){first, core__log_term_at(&core->log, previous)};
}

void core__accept_up_to(struct raft_core *core, const struct raft_message *message, uint64_t index)
{
    struct raft_message *reply = core__hold(core, RAFT_MSG_APPEND_REPLY, message->from);
    reply->position = (struct raft_position){index, core__log_term_at(&core->log, index)};
    reply->read_round = message->read_round;
}

/* False: the entries contradict what is committed here; nothing was changed. */
static bool take_entries(struct raft_core *core, const struct raft_message *message)
{
    size_t first_new = 0;
    while (first_new < message->entry_count) {
        struct raft_position position = message->entries[first_new].position;
        if (position.index > core->commit &&
            core__log_term_at(&core->log, position.index) != position.term) {
            break;
        }
        first_new++;
    }
    if (first_new == message->entry_count) {
        return true;
    }
    uint64_t from = message->entries[first_new].position.index;
    if (message->entries[first_new].position.term < core__log_term_at(&core->log, from - 1)) {
        /* terms along a log never fall: the entries before these were skipped unread */
        return false;
    }
    if (from <= core->log.last.index) {
        truncate(core, from);
    }
    for (size_t i = first_new; i < message->entry_count; i++) {
        append_entry(core, &message->entries[i]);
    }
    return true;
}

void core__on_append(struct raft_core *core, const struct raft_message *message)
{
    if (!entries_valid(message)) {
        TRACE(core, "drop kind=append from=%llu why=not a log", (unsigned long long)message->from);
        return;
    }
    if (core->incoming.installing) {
        return; /* the log is about to be replaced; the leader asks again */
    }
    uint64_t previous = message->position.index;
    uint64_t end = previous + message->entry_count;
    if (end <= core->commit) {
        core__accept_up_to(core, message, core->commit);
        return;
    }
    if (previous > core->commit &&
        (previous > core->log.last.index ||
         core__log_term_at(&core->log, previous) != message->position.term)) {
        refuse(core, message);
        return;
    }
    if (!take_entries(core, message)) {
        TRACE(core, "drop kind=append from=%llu why=against what is committed",
              (unsigned long long)message->from);
        return;
    }
    uint64_t commit = message->commit < end ? message->commit : end;
    if (commit > core->commit) {
        core__commit_to(core, commit);
    }
    core__accept_up_to(core, message, end);
}

void core__on_heartbeat(struct raft_core *core, const struct raft_message *message)
{
    /* The leader clamps its commit index to what it knows us to hold; more than we have is a broken
     * message. */
    if (message->commit > core->log.last.index) {
        TRACE(core, "heartbeat.commit from=%llu commit=%llu why=beyond our log",
              (unsigned long long)message->from, (unsigned long long)message->commit);
    } else if (message->commit > core->commit) {
        core__commit_to(core, message->commit);
    }
    struct raft_message *reply = core__send(core, RAFT_MSG_HEARTBEAT_REPLY, message->from);
    reply->read_round = message->read_round;
}
