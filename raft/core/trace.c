/* Trace lines: one a transition, for golden tests and for people. Formatting happens only when
 * somebody listens. */
#include "raft/core/core_internal.h"

void raft_core_set_trace(struct raft_core *core, raft_trace_fn trace, void *context)
{
    core->trace = trace;
    core->trace_context = context;
}

void core__trace_begin(struct raft_core *core)
{
    buf_clear(&core->trace_line);
    buf_printf(&core->trace_line, "id=%llu ", (unsigned long long)core->options.id);
}

void core__trace_end(struct raft_core *core)
{
    core->trace(core->trace_context, (const char *)core->trace_line.data);
}

const char *core__state_name(enum raft_state state)
{
    switch (state) {
    case RAFT_FOLLOWER:
        return "follower";
    case RAFT_PRE_CANDIDATE:
        return "precandidate";
    case RAFT_CANDIDATE:
        return "candidate";
    case RAFT_LEADER:
        return "leader";
    }
    return "unknown";
}

const char *core__kind_name(enum raft_message_kind kind)
{
    switch (kind) {
    case RAFT_MSG_PREVOTE:
        return "prevote";
    case RAFT_MSG_PREVOTE_REPLY:
        return "prevote_reply";
    case RAFT_MSG_VOTE:
        return "vote";
    case RAFT_MSG_VOTE_REPLY:
        return "vote_reply";
    case RAFT_MSG_APPEND:
        return "append";
    case RAFT_MSG_APPEND_REPLY:
        return "append_reply";
    case RAFT_MSG_HEARTBEAT:
        return "heartbeat";
    case RAFT_MSG_HEARTBEAT_REPLY:
        return "heartbeat_reply";
    case RAFT_MSG_SNAPSHOT:
        return "snapshot";
    case RAFT_MSG_SNAPSHOT_REPLY:
        return "snapshot_reply";
    case RAFT_MSG_TIMEOUT_NOW:
        return "timeout_now";
    }
    return "unknown";
}
