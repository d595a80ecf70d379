/* The machine itself: inputs come in, are sent to the file that knows them, and gather into one
 * output. Thread: one at a time, the owner's.
 *
 * Output. `next` gathers while inputs come; raft_core_ready() turns it into `out`, which the owner
 * looks at until accept. Held messages go with the write of the same ready: whatever they promise
 * was in memory when they were made, so it is in this write or an older one. With nothing to write
 * but older writes still under way an empty write carries them, and with nothing under way they go
 * out at once.
 *
 * Invariants: writes have ascending seq; a write's claim never exceeds the log it was made of, nor
 * what truncation left of it. */
#include "raft/core/core_internal.h"

#include <stdlib.h>
#include <string.h>

/* --- output --- */

static struct raft_message *message_push(struct core_messages *messages)
{
    if (messages->count == messages->capacity) {
        messages->capacity = messages->capacity == 0 ? 16 : messages->capacity * 2;
        messages->items =
            mem_realloc(messages->items, messages->capacity * sizeof(messages->items[0]));
    }
    struct raft_message *message = &messages->items[messages->count++];
    memset(message, 0, sizeof(*message));
    return message;
}

static struct raft_message *message_new(struct raft_core *core, struct core_messages *messages,
                                        enum raft_message_kind kind, uint64_t to)
{
    ASSERT(to != core->options.id);
    struct raft_message *message = message_push(messages);
    message->kind = kind;
    message->from = core->options.id;
    message->to = to;
    message->term = core->term;
    return message;
}

struct raft_message *core__send(struct raft_core *core, enum raft_message_kind kind, uint64_t to)
{
    return message_new(core, &core->next.messages, kind, to);
}

struct raft_message *core__hold(struct raft_core *core, enum raft_message_kind kind, uint64_t to)
{
    return message_new(core, &core->next.held, kind, to);
}

static void output_clear(struct core_output *output)
{
    output->messages.count = 0;
    output->held.count = 0;
    output->reads.count = 0;
    while (output->loaded != NULL) {
        struct core_loaded *loaded = output->loaded;
        output->loaded = loaded->next;
        for (size_t i = 0; i < loaded->count; i++) {
            blob_unref(loaded->entries[i].owner);
        }
        free(loaded);
    }
}

static void output_deinit(struct core_output *output)
{
    output_clear(output);
    free(output->messages.items);
    free(output->held.items);
    free(output->reads.items);
}

/* --- writes under way --- */

bool core__writes_pending(const struct raft_core *core)
{
    return core->writes.count > 0;
}

void core__writes_clamp(struct raft_core *core, uint64_t last)
{
    for (size_t i = 0; i < core->writes.count; i++) {
        struct core_write *write = &core->writes.items[core->writes.head + i];
        if (write->claims > last) {
            write->claims = last;
        }
    }
}

static struct core_write *writes_push(struct core_writes *writes)
{
    if (writes->head + writes->count == writes->capacity) {
        if (writes->head > 0) {
            memmove(writes->items, writes->items + writes->head,
                    writes->count * sizeof(writes->items[0]));
            writes->head = 0;
        }
        if (writes->count == writes->capacity) {
            writes->capacity = writes->capacity == 0 ? 16 : writes->capacity * 2;
            writes->items = mem_realloc(writes->items, writes->capacity * sizeof(writes->items[0]));
        }
    }
    return &writes->items[writes->head + writes->count++];
}

static bool vote_changed(const struct raft_core *core)
{
    return core->term != core->written.term || core->voted_for != core->written.voted_for;
}

static bool write_needed(const struct raft_core *core)
{
    return core->log.unwritten <= core->log.last.index || core->log.truncate_from != 0 ||
           vote_changed(core) || core->incoming.chunk_waits;
}

static void write_build(struct raft_core *core, struct raft_write *write)
{
    struct core_log *log = &core->log;
    bool log_changed = log->unwritten <= log->last.index || log->truncate_from != 0;
    write->truncate_from = log->truncate_from;
    if (log->unwritten <= log->last.index) {
        write->entry_count =
            core__log_slice(log, log->unwritten, UINT64_MAX, SIZE_MAX, &write->entries);
        ASSERT_CMP(write->entry_count, ==, log->last.index + 1 - log->unwritten);
    }
    write->hard_state = (struct raft_hard_state){core->term, core->voted_for, core->commit};
    /* The commit index is a hint for a faster start: it rides along, it does not cause a write. */
    write->hard_state_changed =
        vote_changed(core) || (write->entry_count > 0 && core->commit != core->written.commit);
    /* A chunk goes alone: its reset, if it is the last one, would come before entries of the log it
     * replaces. */
    if (core->incoming.chunk_waits && !log_changed) {
        core__snapshot_into_write(core, write);
    }
    write->must_sync = log_changed || vote_changed(core) || write->chunk_snapshot != NULL;
}

static void write_commit(struct raft_core *core, struct raft_write *write)
{
    struct core_writes *writes = &core->writes;
    write->seq = ++writes->seq;
    *writes_push(writes) = (struct core_write){.seq = write->seq,
                                               .claims = core->log.last.index,
                                               .term = core->term,
                                               .voted_for = core->voted_for,
                                               .tick = core->tick,
                                               .install = write->install != NULL};
    core->log.unwritten = core->log.last.index + 1;
    core->log.truncate_from = 0;
    if (write->hard_state_changed) {
        core->written = write->hard_state;
    }
}

/* Held messages that wait for nothing go out with the others. */
static void release_held(struct core_output *output)
{
    for (size_t i = 0; i < output->held.count; i++) {
        *message_push(&output->messages) = output->held.items[i];
    }
    output->held.count = 0;
}

static void told_now(const struct raft_core *core, struct core_told *told)
{
    *told = (struct core_told){.state = core->state,
                               .term = core->term,
                               .leader = core->leader,
                               .membership_index = core__members(core)->position.index,
                               .read_ready = core__read_ready(core),
                               .transfer_pending = core->transfer_target != 0};
}

static bool told_differs(const struct core_told *a, const struct core_told *b)
{
    return a->state != b->state || a->term != b->term || a->leader != b->leader ||
           a->membership_index != b->membership_index || a->read_ready != b->read_ready ||
           a->transfer_pending != b->transfer_pending;
}

/* Loads that followers need and that were not asked for yet. */
static void take_loads(struct raft_core *core)
{
    core->load_count = 0;
    for (size_t i = 0; i < core->progress_count; i++) {
        struct core_progress *progress = &core->progress[i];
        if (progress->load_index != 0 && !progress->load_told) {
            progress->load_told = true;
            core->loads[core->load_count++] = (struct raft_load){.peer = progress->id,
                                                                 .index = progress->load_index,
                                                                 .bytes_max = progress->load_bytes};
        }
    }
}

bool raft_core_ready(struct raft_core *core, struct raft_ready *out)
{
    ASSERT(!core->out_pending);
    memset(out, 0, sizeof(*out));
    if (core->state == RAFT_LEADER) {
        core__reads_flush(core);
        core__leader_flush(core);
    }
    take_loads(core);
    bool write = write_needed(core);
    if (write) {
        write_build(core, &out->write);
    }
    if (write || (core->next.held.count > 0 && core__writes_pending(core))) {
        write_commit(core, &out->write);
    } else {
        release_held(&core->next);
    }
    struct core_told now;
    told_now(core, &now);
    out->status_changed = told_differs(&now, &core->told);
    bool any = out->write.seq != 0 || core->next.messages.count > 0 || core->next.reads.count > 0 ||
               core->load_count > 0 || core->commit != core->commit_told || out->status_changed;
    if (!any) {
        return false;
    }
    core->told = now;
    core->commit_told = core->commit;
    struct core_output taken = core->next;
    core->next = core->out;
    core->out = taken;
    core->out_pending = true;
    out->messages = taken.messages.items;
    out->message_count = taken.messages.count;
    out->held = taken.held.items;
    out->held_count = taken.held.count;
    out->reads = taken.reads.items;
    out->read_count = taken.reads.count;
    out->loads = core->loads;
    out->load_count = core->load_count;
    out->commit = core->commit;
    return true;
}

void raft_core_accept(struct raft_core *core)
{
    ASSERT(core->out_pending);
    core->out_pending = false;
    output_clear(&core->out);
}

/* --- completions --- */

void core__evict(struct raft_core *core)
{
    uint64_t up_to = core->applied < core->log.durable ? core->applied : core->log.durable;
    core__log_evict(&core->log, up_to, core->options.cache_bytes_max);
}

void raft_core_persisted(struct raft_core *core, uint64_t write_seq)
{
    struct core_writes *writes = &core->writes;
    ASSERT_CMP(write_seq, <=, writes->seq);
    while (writes->count > 0 && writes->items[writes->head].seq <= write_seq) {
        struct core_write done = writes->items[writes->head];
        writes->head++;
        writes->count--;
        core->durable_term = done.term;
        core->durable_vote = done.voted_for;
        if (done.install) {
            core__snapshot_installed(core);
        } else if (done.claims > core->log.durable) {
            core->log.durable = done.claims;
        }
    }
    if (writes->count == 0) {
        writes->head = 0;
    }
    if (core->state == RAFT_CANDIDATE) {
        core__own_vote_durable(core);
    }
    if (core->state == RAFT_LEADER) {
        core__maybe_commit(core);
    }
    core__evict(core);
}

void raft_core_applied(struct raft_core *core, uint64_t index)
{
    ASSERT_CMP(index, <=, core->commit);
    if (index > core->applied) {
        core->applied = index;
        core__evict(core);
    }
}

void raft_core_compact(struct raft_core *core, uint64_t index)
{
    ASSERT_CMP(index, <=, core->applied);
    /* A follower that is being sent a snapshot needs the entries after it: else it would need
     * another one, for ever. */
    uint64_t limit = core__snapshot_holds_log(core);
    limit = limit < core->log.durable ? limit : core->log.durable;
    limit = limit < index ? limit : index;
    if (limit <= core->log.start.index) {
        return;
    }
    core__log_compact(&core->log, limit);
    core__members_compact(core, limit);
    TRACE(core, "compact start=%llu", (unsigned long long)limit);
}

/* --- inputs --- */

void raft_core_tick(struct raft_core *core)
{
    core->tick++;
    if (core->state == RAFT_LEADER) {
        core__leader_tick(core);
    } else {
        core__election_tick(core);
    }
}

static bool is_reply(enum raft_message_kind kind)
{
    return kind == RAFT_MSG_PREVOTE_REPLY || kind == RAFT_MSG_VOTE_REPLY ||
           kind == RAFT_MSG_APPEND_REPLY || kind == RAFT_MSG_HEARTBEAT_REPLY ||
           kind == RAFT_MSG_SNAPSHOT_REPLY;
}

static bool is_from_leader(enum raft_message_kind kind)
{
    return kind == RAFT_MSG_APPEND || kind == RAFT_MSG_HEARTBEAT || kind == RAFT_MSG_SNAPSHOT ||
           kind == RAFT_MSG_TIMEOUT_NOW;
}

/* What is wrong with a message in itself; NULL: nothing. */
static const char *message_fault(const struct raft_core *core, const struct raft_message *message)
{
    if (message->kind < RAFT_MSG_PREVOTE || message->kind > RAFT_MSG_TIMEOUT_NOW) {
        return "kind";
    }
    if (message->to != core->options.id) {
        return "to another";
    }
    if (message->from == 0 || message->from == core->options.id) {
        return "from nobody";
    }
    if (message->term == 0 || message->term > CORE_TERM_MAX) {
        return "term";
    }
    if (message->position.index > CORE_INDEX_MAX || message->position.term > CORE_TERM_MAX ||
        message->hint.index > CORE_INDEX_MAX) {
        return "position";
    }
    if (is_reply(message->kind) &&
        raft_membership_find(core__members(core), message->from) == NULL) {
        return "answer of a stranger"; /* a removed server must not raise our term */
    }
    return NULL;
}

/* A sender that lives in an old term is told of ours, so that it steps down or asks again with a
 * term that counts. */
static void answer_old_term(struct raft_core *core, const struct raft_message *message)
{
    struct raft_message *reply = NULL;
    switch (message->kind) {
    case RAFT_MSG_VOTE:
        reply = core__send(core, RAFT_MSG_VOTE_REPLY, message->from);
        break;
    case RAFT_MSG_APPEND:
        reply = core__send(core, RAFT_MSG_APPEND_REPLY, message->from);
        reply->position = message->position;
        break;
    case RAFT_MSG_SNAPSHOT:
        reply = core__send(core, RAFT_MSG_SNAPSHOT_REPLY, message->from);
        reply->snapshot_id = message->snapshot == NULL ? 0 : message->snapshot->id;
        break;
    case RAFT_MSG_HEARTBEAT:
        reply = core__send(core, RAFT_MSG_HEARTBEAT_REPLY, message->from);
        break;
    case RAFT_MSG_PREVOTE: /* answered by its own rule */
    case RAFT_MSG_PREVOTE_REPLY:
    case RAFT_MSG_VOTE_REPLY:
    case RAFT_MSG_APPEND_REPLY:
    case RAFT_MSG_HEARTBEAT_REPLY:
    case RAFT_MSG_SNAPSHOT_REPLY:
    case RAFT_MSG_TIMEOUT_NOW:
        return;
    }
    ASSERT(reply != NULL);
    reply->reject = true;
}

/* Brings our term up to the message's. False: the message goes no further. */
static bool settle_term(struct raft_core *core, const struct raft_message *message)
{
    enum raft_message_kind kind = message->kind;
    if (kind == RAFT_MSG_PREVOTE) {
        return true; /* never changes a term, that is its point */
    }
    if (kind == RAFT_MSG_PREVOTE_REPLY && !message->reject) {
        return true; /* speaks of a term that nobody has begun yet */
    }
    if (message->term < core->term) {
        answer_old_term(core, message);
        return false;
    }
    if (message->term > core->term) {
        if (kind == RAFT_MSG_VOTE && core__vote_refused_for_leader(core, message)) {
            TRACE(core, "vote.ignored from=%llu", (unsigned long long)message->from);
            return false;
        }
        core__become_follower(core, message->term, is_from_leader(kind) ? message->from : 0);
    }
    if (is_from_leader(kind)) {
        if (core->state == RAFT_LEADER || (core->leader != 0 && core->leader != message->from)) {
            TRACE(core, "drop kind=%s from=%llu why=two leaders in a term", core__kind_name(kind),
                  (unsigned long long)message->from);
            return false;
        }
        if (kind != RAFT_MSG_TIMEOUT_NOW) {
            core__leader_heard(core, message->from);
        }
    }
    return true;
}

void raft_core_step(struct raft_core *core, const struct raft_message *message)
{
    const char *fault = message_fault(core, message);
    if (fault != NULL) {
        TRACE(core, "drop kind=%s from=%llu why=%s", core__kind_name(message->kind),
              (unsigned long long)message->from, fault);
        return;
    }
    if (!settle_term(core, message)) {
        return;
    }
    switch (message->kind) {
    case RAFT_MSG_PREVOTE:
        core__on_prevote(core, message);
        break;
    case RAFT_MSG_PREVOTE_REPLY:
        core__on_prevote_reply(core, message);
        break;
    case RAFT_MSG_VOTE:
        core__on_vote(core, message);
        break;
    case RAFT_MSG_VOTE_REPLY:
        core__on_vote_reply(core, message);
        break;
    case RAFT_MSG_APPEND:
        core__on_append(core, message);
        break;
    case RAFT_MSG_APPEND_REPLY:
        core__on_append_reply(core, message);
        break;
    case RAFT_MSG_HEARTBEAT:
        core__on_heartbeat(core, message);
        break;
    case RAFT_MSG_HEARTBEAT_REPLY:
        core__on_heartbeat_reply(core, message);
        break;
    case RAFT_MSG_SNAPSHOT:
        core__on_snapshot(core, message);
        break;
    case RAFT_MSG_SNAPSHOT_REPLY:
        core__on_snapshot_reply(core, message);
        break;
    case RAFT_MSG_TIMEOUT_NOW:
        core__on_timeout_now(core, message);
        break;
    }
}

int raft_core_propose(struct raft_core *core, struct bytes data, struct blob *owner,
                      struct raft_position *position)
{
    if (core->state != RAFT_LEADER) {
        return ERR_NOT_LEADER;
    }
    uint64_t bytes = data.size + RAFT_ENTRY_OVERHEAD_BYTES;
    uint64_t bytes_max = core->options.uncommitted_bytes_max;
    if (bytes > bytes_max) {
        return ERR_TOO_LARGE;
    }
    if (core->transfer_target != 0 || core->uncommitted_bytes > bytes_max - bytes) {
        return ERR_BUSY;
    }
    core__append_own(core, RAFT_ENTRY_COMMAND, data, owner);
    *position = core->log.last;
    return ERR_OK;
}

/* --- questions --- */

/* Until an entry of its own term is committed a leader does not know what its predecessors
 * committed. */
bool core__read_ready(const struct raft_core *core)
{
    return core->state == RAFT_LEADER && core__log_term_at(&core->log, core->commit) == core->term;
}

void raft_core_status(const struct raft_core *core, struct raft_status *out)
{
    /* Field by field: a compound literal would be built aside and copied, a membership and all. */
    out->id = core->options.id;
    out->state = core->state;
    out->term = core->term;
    out->leader = core->leader;
    out->commit = core->commit;
    out->applied = core->applied;
    out->last = core->log.last;
    out->durable = core->log.durable;
    out->log_start = core->log.start;
    out->membership = *core__members(core);
    out->transfer_pending = core->transfer_target != 0;
    out->read_ready = core__read_ready(core);
    out->snapshot_wanted = core__snapshot_wanted(core);
}

size_t raft_core_entries(const struct raft_core *core, uint64_t from, uint64_t bytes_max,
                         const struct raft_entry **entries)
{
    return core__log_slice(&core->log, from, bytes_max, SIZE_MAX, entries);
}

uint64_t raft_core_term_at(const struct raft_core *core, uint64_t index)
{
    return core__log_term_at(&core->log, index);
}

/* --- end of life; its beginning is in create.c --- */

void raft_core_destroy(struct raft_core *core)
{
    if (core == NULL) {
        return;
    }
    core__progress_clear(core);
    for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        free(core->progress[i].inflight);
    }
    core__snapshot_unref(core->offered);
    core__incoming_drop(core);
    core__reads_deinit(core);
    output_deinit(&core->next);
    output_deinit(&core->out);
    core__log_deinit(&core->log);
    free(core->members.items);
    free(core->writes.items);
    buf_deinit(&core->trace_line);
    core__checked_free(core->checked);
    free(core);
}
