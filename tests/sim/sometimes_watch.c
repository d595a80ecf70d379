/* See sometimes.h: where the evidence comes from. The functions of the product that are looked at
 * are wrapped at link time (tests/sim.cmake): each runs unchanged, and what it returned or changed
 * is counted. Thread: one at a time. */
#include "sim/sometimes.h"

#include "base/metrics.h"
#include "raft/core/core_internal.h"
#include "raft/node/session.h"
#include "shardkv/kv_machine_internal.h"
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

/* ---- lines ---- */

struct line_rule {
    const char *event; /* the word after the prefix */
    enum sometimes what;
};

static bool word_is(const char *text, const char *word)
{
    size_t size = strlen(word);
    return strncmp(text, word, size) == 0 && (text[size] == ' ' || text[size] == '\0');
}

static const struct line_rule trace_rules[] = {
    {"prevote.ignored", S_PREVOTE_REFUSED},
    {"vote.ignored", S_VOTE_REFUSED},
    {"quorum.lost", S_QUORUM_LOST},
    {"truncate", S_LOG_TRUNCATED},
    {"reject", S_APPEND_REJECTED},
    {"reject.stale", S_REJECTION_STALE},
    {"transfer", S_TRANSFER_STARTED},
    {"transfer.timeout_now", S_TRANSFER_TIMEOUT_NOW},
    {"transfer.abandoned", S_TRANSFER_ABANDONED},
    {"disk.stalled", S_DISK_HANDED_OVER},
    {"membership.rolled_back", S_MEMBER_ROLLED_BACK},
    {"removed.steps_down", S_REMOVED_LEADER_LEFT},
    {"snapshot.sent", S_SNAPSHOT_SENT},
    {"snapshot.installed", S_SNAPSHOT_INSTALLED},
    {"snapshot.needless", S_SNAPSHOT_NEEDLESS},
};

/* What must be remembered of a replica between two of its lines. */
static struct watched {
    bool receives;           /* a snapshot's stream */
    bool campaigns_by_order; /* its candidacy was a transfer's */
} watched[SIM_HOSTS_MAX];

void sim_sometimes_traced(uint32_t host, const char *line)
{
    const char *event = strchr(line, ' '); /* behind "id=N" */
    if (event == NULL) {
        return;
    }
    event++;
    struct watched *replica = &watched[host];
    if (word_is(event, "candidate")) {
        replica->campaigns_by_order = strstr(event, "transfer=1") != NULL;
    } else if (word_is(event, "leader")) {
        sim_sometimes(S_LEADER_ELECTED);
        sim_sometimes_add(S_TRANSFER_DONE, replica->campaigns_by_order);
        replica->campaigns_by_order = false;
    } else if (word_is(event, "snapshot.receiving")) {
        replica->receives = true;
    } else if (word_is(event, "snapshot.installed") || word_is(event, "snapshot.damaged") ||
               word_is(event, "snapshot.needless")) {
        replica->receives = false;
    }
    for (size_t i = 0; i < sizeof trace_rules / sizeof trace_rules[0]; i++) {
        if (word_is(event, trace_rules[i].event)) {
            sim_sometimes(trace_rules[i].what);
            return;
        }
    }
}

void sim_sometimes_ended(uint32_t host)
{
    sim_sometimes_add(S_INSTALL_CUT_OFF, watched[host].receives);
    watched[host] = (struct watched){0};
}

static const struct line_rule log_rules[] = {
    {"snapshot.made", S_SNAPSHOT_MADE},
    {"snapshot.restore", S_RESTORE_AT_START},
    {"snapshot.leftover_removed", S_LEFTOVER_REMOVED},
    {"log.compact", S_LOG_COMPACTED},
    {"wal.tail_cut", S_TORN_TAIL_CUT},
    {"wal.header_repaired", S_HEADER_REPAIRED},
    {"config.applied", S_CONFIG_APPLIED},
    {"members.told", S_MEMBERS_TOLD},
    {"shard.frozen", S_SHARD_FROZEN},
    {"shard.pulling", S_MOVE_STARTED},
    {"shard.installed", S_MOVE_SETTLED},
    {"shard.absent", S_SHARD_DROPPED},
    {"move.call_failed", S_MOVE_RETRIED},
};

void sim_sometimes_logged(const char *line)
{
    for (size_t i = 0; i < sizeof log_rules / sizeof log_rules[0]; i++) {
        const char *found = strstr(line, log_rules[i].event);
        if (found != NULL && found > line && found[-1] == ' ' &&
            word_is(found, log_rules[i].event)) {
            sim_sometimes(log_rules[i].what);
            return;
        }
    }
    sim_sometimes_add(S_FRAME_REFUSED, strstr(line, " peer.refused ") != NULL &&
                                           strstr(line, " reason=CORRUPT ") != NULL);
}

/* ---- metrics ---- */

static uint64_t metric_of(const char *text, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = strstr(text, name); at != NULL; at = strstr(at + 1, name)) {
        if (at > text && at[-1] == '\n' && at[size] == ' ') {
            return strtoull(at + size, NULL, 10);
        }
    }
    SIM_FAIL("there is no metric %s", name);
}

void sim_sometimes_read_metrics(void)
{
    static struct {
        const char *name;
        enum sometimes what;
        uint64_t seen;
    } metrics[] = {
        {"shardkv_session_expired_count", S_SESSION_EXPIRED, 0},
        {"shardkv_wal_segments_recycled_count", S_SEGMENT_RECYCLED, 0},
    };
    struct buf text = {0};
    metrics_text(&text);
    buf_append(&text, "", 1);
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        uint64_t value = metric_of((const char *)text.data, metrics[i].name);
        sim_sometimes_add(metrics[i].what, value - metrics[i].seen);
        metrics[i].seen = value;
    }
    buf_deinit(&text);
}

/* ---- reads ---- */

int __real_raft_core_read(struct raft_core *core, uint64_t context);
int __wrap_raft_core_read(struct raft_core *core, uint64_t context);
int __wrap_raft_core_read(struct raft_core *core, uint64_t context)
{
    size_t waiting = core->reads.count;
    int error = __real_raft_core_read(core, context);
    /* Answered at once, and not because nobody else has a vote. */
    bool by_lease = error == 0 && core->reads.count == waiting && core__lease_holds(core);
    sim_sometimes_add(S_LEASE_READ, by_lease);
    return error;
}

void __real_core__on_round(struct raft_core *core, struct core_progress *progress, uint64_t round);
void __wrap_core__on_round(struct raft_core *core, struct core_progress *progress, uint64_t round);
void __wrap_core__on_round(struct raft_core *core, struct core_progress *progress, uint64_t round)
{
    size_t waiting = core->reads.count;
    __real_core__on_round(core, progress, round);
    sim_sometimes_add(S_READ_ROUND, waiting - core->reads.count);
}

/* ---- snapshots' streams ---- */

void __real_core__on_snapshot(struct raft_core *core, const struct raft_message *message);
void __wrap_core__on_snapshot(struct raft_core *core, const struct raft_message *message);
void __wrap_core__on_snapshot(struct raft_core *core, const struct raft_message *message)
{
    const struct core_incoming *incoming = &core->incoming;
    bool active = incoming->active && !incoming->installing && !incoming->chunk_waits;
    uint64_t id = incoming->snapshot.id;
    uint64_t offset = incoming->offset;
    __real_core__on_snapshot(core, message);
    if (!active || message->snapshot == NULL || !incoming->active) {
        return;
    }
    if (incoming->snapshot.id != id) {
        sim_sometimes(S_INSTALL_REPLACED);
    } else if (message->snapshot->id == id && message->chunk_offset < offset &&
               incoming->offset == offset) {
        sim_sometimes(S_INSTALL_RESUMED);
    }
}

/* ---- a shard's life ---- */

int __real_kv__apply_config(struct kv_machine *machine, const struct kv_command *command,
                            uint64_t time_ms, int *answer);
int __wrap_kv__apply_config(struct kv_machine *machine, const struct kv_command *command,
                            uint64_t time_ms, int *answer);
int __wrap_kv__apply_config(struct kv_machine *machine, const struct kv_command *command,
                            uint64_t time_ms, int *answer)
{
    uint32_t frozen[64];
    uint32_t frozen_count = 0;
    for (uint32_t i = 0; i < machine->shard_count && frozen_count < 64; i++) {
        if (machine->shards[i].state == SHARD_FROZEN) {
            frozen[frozen_count++] = i;
        }
    }
    int error = __real_kv__apply_config(machine, command, time_ms, answer);
    sim_sometimes_add(S_CONFIG_LATE, error == 0 && *answer == ERR_EXISTS);
    for (uint32_t i = 0; i < frozen_count; i++) {
        sim_sometimes_add(S_SHARD_UNFROZEN, machine->shards[frozen[i]].state == SHARD_SERVING);
    }
    return error;
}

int __real_kv__apply_chunk(struct kv_machine *machine, const struct kv_command *command,
                           uint64_t time_ms, int *answer);
int __wrap_kv__apply_chunk(struct kv_machine *machine, const struct kv_command *command,
                           uint64_t time_ms, int *answer);
int __wrap_kv__apply_chunk(struct kv_machine *machine, const struct kv_command *command,
                           uint64_t time_ms, int *answer)
{
    int error = __real_kv__apply_chunk(machine, command, time_ms, answer);
    if (error != 0 || command->shard >= machine->shard_count) {
        return error;
    }
    const struct shard_record *record = &machine->shards[command->shard];
    if (*answer == 0) {
        sim_sometimes_add(S_MOVE_MANY_CHUNKS, command->after_row.size > 0);
        sim_sometimes_add(S_SESSION_MOVED, record->complete ? record->session_count : 0);
    }
    return 0;
}

int __real_kv__apply_drop(struct kv_machine *machine, const struct kv_command *command,
                          int *answer);
int __wrap_kv__apply_drop(struct kv_machine *machine, const struct kv_command *command,
                          int *answer);
int __wrap_kv__apply_drop(struct kv_machine *machine, const struct kv_command *command, int *answer)
{
    bool there = command->shard < machine->shard_count;
    enum shard_state before = there ? machine->shards[command->shard].state : SHARD_ABSENT;
    int error = __real_kv__apply_drop(machine, command, answer);
    bool nothing_changed = there && machine->shards[command->shard].state == before;
    sim_sometimes_add(S_DROP_LATE, error == 0 && *answer == 0 && nothing_changed);
    return error;
}

int __real_kv__apply_block(struct kv_machine *machine, const struct sm_command *command);
int __wrap_kv__apply_block(struct kv_machine *machine, const struct sm_command *command);
int __wrap_kv__apply_block(struct kv_machine *machine, const struct sm_command *command)
{
    size_t at = command->result == NULL ? 0 : command->result->size;
    int error = __real_kv__apply_block(machine, command);
    /* Only where somebody waits for the answer: once a command. */
    bool answered = error == 0 && command->result != NULL && command->result->size > at;
    bool refused = answered && (command->result->data[at] & KV_RESULT_REFUSED) != 0;
    sim_sometimes_add(S_WRITE_REFUSED_IN_LOG, refused);
    return error;
}

int __real_kv_machine_read(struct kv_machine *machine, struct bytes bytes, struct buf *out);
int __wrap_kv_machine_read(struct kv_machine *machine, struct bytes bytes, struct buf *out);
int __wrap_kv_machine_read(struct kv_machine *machine, struct bytes bytes, struct buf *out)
{
    size_t at = out->size;
    int error = __real_kv_machine_read(machine, bytes, out);
    bool refused = error == 0 && out->size > at && (out->data[at] & KV_RESULT_REFUSED) != 0;
    sim_sometimes_add(S_READ_REFUSED_LATE, refused);
    return error;
}

enum session_verdict __real_session_check(struct session *session, uint64_t acked_below,
                                          uint64_t sequence, uint32_t fingerprint, uint64_t now_ms,
                                          const struct session_result **result);
enum session_verdict __wrap_session_check(struct session *session, uint64_t acked_below,
                                          uint64_t sequence, uint32_t fingerprint, uint64_t now_ms,
                                          const struct session_result **result);
enum session_verdict __wrap_session_check(struct session *session, uint64_t acked_below,
                                          uint64_t sequence, uint32_t fingerprint, uint64_t now_ms,
                                          const struct session_result **result)
{
    enum session_verdict verdict =
        __real_session_check(session, acked_below, sequence, fingerprint, now_ms, result);
    sim_sometimes_add(S_SESSION_REPEATED, verdict == SESSION_REPEAT);
    sim_sometimes_add(S_SESSION_STALE, verdict == SESSION_STALE);
    return verdict;
}
