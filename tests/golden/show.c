/* See show.h. */
#include "golden/show.h"

#define LLU(x) ((unsigned long long)(x))

const char *show_kind(enum raft_message_kind kind)
{
    static const char *const names[] = {
        [RAFT_MSG_PREVOTE] = "prevote",
        [RAFT_MSG_PREVOTE_REPLY] = "prevote_reply",
        [RAFT_MSG_VOTE] = "vote",
        [RAFT_MSG_VOTE_REPLY] = "vote_reply",
        [RAFT_MSG_APPEND] = "append",
        [RAFT_MSG_APPEND_REPLY] = "append_reply",
        [RAFT_MSG_HEARTBEAT] = "heartbeat",
        [RAFT_MSG_HEARTBEAT_REPLY] = "heartbeat_reply",
        [RAFT_MSG_SNAPSHOT] = "snapshot",
        [RAFT_MSG_SNAPSHOT_REPLY] = "snapshot_reply",
        [RAFT_MSG_TIMEOUT_NOW] = "timeout_now",
    };
    return names[kind];
}

static void show_position(struct buf *out, const char *name, struct raft_position position)
{
    buf_printf(out, " %s=%llu/%llu", name, LLU(position.index), LLU(position.term));
}

static void show_members(struct buf *out, const struct raft_membership *membership)
{
    for (uint32_t i = 0; i < membership->count; i++) {
        buf_printf(out, "%s%llu%s", i == 0 ? "" : ",", LLU(membership->members[i].id),
                   membership->members[i].role == RAFT_LEARNER ? "(learner)" : "");
    }
}

void show_entry(struct buf *out, const struct raft_entry *entry)
{
    buf_printf(out, "%llu/%llu", LLU(entry->position.index), LLU(entry->position.term));
    struct raft_membership membership;
    switch (entry->kind) {
    case RAFT_ENTRY_NOOP:
        buf_printf(out, " noop");
        break;
    case RAFT_ENTRY_COMMAND:
        if (entry->data.size > 40) {
            buf_printf(out, " (%zu bytes)", entry->data.size);
        } else if (entry->data.size > 0) {
            buf_printf(out, " \"%.*s\"", (int)entry->data.size, (const char *)entry->data.data);
        }
        break;
    case RAFT_ENTRY_MEMBERSHIP:
        assert_int_equal(raft_membership_decode(entry->data, &membership), ERR_OK);
        buf_printf(out, " members ");
        show_members(out, &membership);
        break;
    }
}

static void show_entries(struct buf *out, const struct raft_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        buf_printf(out, i == 0 ? " [" : "; ");
        show_entry(out, &entries[i]);
    }
    buf_printf(out, count > 0 ? "]" : "");
}

static void show_round(struct buf *out, const struct raft_message *message)
{
    if (message->read_round != 0) {
        buf_printf(out, " round=%llu", LLU(message->read_round));
    }
}

static void show_snapshot(struct buf *out, const struct raft_snapshot *snapshot)
{
    show_position(out, "at", snapshot->position);
    buf_printf(out, " id=%llu members=", LLU(snapshot->id));
    show_members(out, &snapshot->membership);
}

void show_message(struct buf *out, const struct raft_message *message)
{
    buf_printf(out, "%s term=%llu", show_kind(message->kind), LLU(message->term));
    buf_printf(out, message->reject ? " REFUSED" : "");
    switch (message->kind) {
    case RAFT_MSG_PREVOTE:
    case RAFT_MSG_VOTE:
        show_position(out, "last", message->position);
        buf_printf(out, message->leader_transfer ? " transfer" : "");
        break;
    case RAFT_MSG_APPEND:
        show_position(out, "prev", message->position);
        buf_printf(out, " commit=%llu", LLU(message->commit));
        show_entries(out, message->entries, message->entry_count);
        show_round(out, message);
        break;
    case RAFT_MSG_APPEND_REPLY:
        show_position(out, message->reject ? "prev" : "match", message->position);
        if (message->reject) {
            show_position(out, "hint", message->hint);
        }
        show_round(out, message);
        break;
    case RAFT_MSG_HEARTBEAT:
        buf_printf(out, " commit=%llu", LLU(message->commit));
        show_round(out, message);
        break;
    case RAFT_MSG_HEARTBEAT_REPLY:
        show_round(out, message);
        break;
    case RAFT_MSG_SNAPSHOT:
        show_snapshot(out, message->snapshot);
        buf_printf(out, " bytes %llu..%llu of %llu", LLU(message->chunk_offset),
                   LLU(message->chunk_offset + message->chunk.size),
                   LLU(message->snapshot->size_bytes));
        break;
    case RAFT_MSG_SNAPSHOT_REPLY:
        show_position(out, "at", message->position);
        buf_printf(out, " id=%llu wants byte %llu", LLU(message->snapshot_id),
                   LLU(message->chunk_offset));
        break;
    case RAFT_MSG_PREVOTE_REPLY:
    case RAFT_MSG_VOTE_REPLY:
    case RAFT_MSG_TIMEOUT_NOW:
        break;
    }
}

void show_write(struct buf *out, const struct pump_write *kept)
{
    const struct raft_write *write = &kept->write;
    buf_printf(out, "#%llu %s", LLU(write->seq), write->must_sync ? "sync" : "nosync");
    if (kept->chunk_snapshot != NULL) {
        buf_printf(out, " stage(bytes %llu..%llu of snapshot %llu)", LLU(write->chunk_offset),
                   LLU(write->chunk_offset + write->chunk.size), LLU(kept->chunk_snapshot->id));
    }
    if (kept->install != NULL) {
        buf_printf(out, " install(snapshot %llu", LLU(kept->install->id));
        show_position(out, "at", kept->install->position);
        buf_printf(out, ")");
    }
    if (write->truncate_from != 0) {
        buf_printf(out, " cut(from %llu)", LLU(write->truncate_from));
    }
    show_entries(out, kept->entries, write->entry_count);
    if (write->hard_state_changed) {
        buf_printf(out, " state(term=%llu vote=%llu commit=%llu)", LLU(write->hard_state.term),
                   LLU(write->hard_state.voted_for), LLU(write->hard_state.commit));
    }
    for (size_t i = 0; i < kept->held.count; i++) {
        const struct raft_message *held = &kept->held.items[i].message;
        buf_printf(out, "%s%s->%llu", i == 0 ? " holds(" : ", ", show_kind(held->kind),
                   LLU(held->to));
    }
    buf_printf(out, kept->held.count > 0 ? ")" : "");
}

static void show_progress(struct buf *out, const struct pump *pump, uint64_t id)
{
    static const char *const modes[] = {
        [RAFT_PROBE] = "probe", [RAFT_REPLICATE] = "replicate", [RAFT_SNAPSHOT] = "snapshot"};
    struct raft_progress rows[RAFT_MEMBERS_MAX];
    size_t count = raft_core_progress(pump->nodes[id].core, rows);
    for (size_t i = 0; i < count; i++) {
        buf_printf(out, "    %llu sees %llu: match=%llu next=%llu %s%s\n", LLU(id), LLU(rows[i].id),
                   LLU(rows[i].match), LLU(rows[i].next), modes[rows[i].mode],
                   rows[i].active ? "" : " silent");
    }
}

void show_status(struct buf *out, const struct pump *pump, uint64_t id)
{
    static const char *const states[] = {[RAFT_FOLLOWER] = "follower",
                                         [RAFT_PRE_CANDIDATE] = "precandidate",
                                         [RAFT_CANDIDATE] = "candidate",
                                         [RAFT_LEADER] = "leader"};
    if (pump->nodes[id].core == NULL) {
        buf_printf(out, "    %llu is down\n", LLU(id));
        return;
    }
    struct raft_status status = pump_status(pump, id);
    buf_printf(out, "    %llu is %s term=%llu leader=%llu", LLU(id), states[status.state],
               LLU(status.term), LLU(status.leader));
    show_position(out, "last", status.last);
    buf_printf(out, " durable=%llu commit=%llu applied=%llu members=", LLU(status.durable),
               LLU(status.commit), LLU(status.applied));
    show_members(out, &status.membership);
    if (status.log_start.index > 0) {
        show_position(out, "log_after", status.log_start);
    }
    buf_printf(out, "%s%s", status.read_ready ? " read_ready" : "",
               status.transfer_pending ? " transfer_pending" : "");
    if (status.snapshot_wanted != 0) {
        buf_printf(out, " snapshot_wanted=%llu", LLU(status.snapshot_wanted));
    }
    buf_printf(out, "\n");
    show_progress(out, pump, id);
}

void show_log(struct buf *out, const struct pump *pump, uint64_t id)
{
    const struct pump_node *node = &pump->nodes[id];
    if (node->core != NULL) {
        struct raft_status status = pump_status(pump, id);
        buf_printf(out, "    %llu memory: after %llu/%llu:", LLU(id), LLU(status.log_start.index),
                   LLU(status.log_start.term));
        for (uint64_t i = status.log_start.index + 1; i <= status.last.index; i++) {
            buf_printf(out, " %llu/%llu%s", LLU(i), LLU(raft_core_term_at(node->core, i)),
                       i == status.durable ? " |" : "");
        }
        buf_printf(out, "\n");
    }
    buf_printf(out, "    %llu disk: term=%llu vote=%llu, after %llu/%llu:", LLU(id),
               LLU(node->hard_state.term), LLU(node->hard_state.voted_for),
               LLU(node->snapshot.position.index), LLU(node->snapshot.position.term));
    show_entries(out, node->log, node->log_count);
    buf_printf(out, "\n");
}
