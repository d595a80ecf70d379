/* Every invariant that one replica alone can see. Tests call it after every input; it aborts with
 * the values. Thread: the core's. What must be monotone is compared with the previous call. */
#include "raft/core/core_internal.h"

#include <stdlib.h>

struct core_checked {
    uint64_t term;
    uint64_t voted_for; /* in that term */
    uint64_t commit;
    uint64_t commit_term;
    uint64_t applied;
    enum raft_state state;
    struct raft_position last;
    uint64_t confirmed;
};

struct core_checked *core__checked_create(void)
{
    return mem_calloc(1, sizeof(struct core_checked));
}

void core__checked_free(struct core_checked *checked)
{
    free(checked);
}

static void check_runs(const struct core_log *log)
{
    ASSERT((log->run_count == 0) == (log->last.index == log->start.index));
    uint64_t term = log->start.term;
    for (size_t i = 0; i < log->run_count; i++) {
        if (i == 0) {
            ASSERT_CMP(log->runs[i].index, ==, log->start.index + 1);
            ASSERT_CMP(log->runs[i].term, >=, term);
        } else {
            ASSERT_CMP(log->runs[i].index, >, log->runs[i - 1].index);
            ASSERT_CMP(log->runs[i].term, >, term);
        }
        term = log->runs[i].term;
    }
    ASSERT_CMP(log->last.term, ==, term);
}

static void check_log(const struct core_log *log)
{
    ASSERT_CMP(log->start.index, <=, log->durable);
    ASSERT_CMP(log->durable, <=, log->last.index);
    ASSERT_CMP(log->durable, <, log->unwritten);
    ASSERT_CMP(log->unwritten, <=, log->last.index + 1);
    ASSERT_CMP(core__log_cache_first(log), >, log->start.index);
    ASSERT_CMP(core__log_cache_first(log), <=, log->unwritten);
    ASSERT(log->truncate_from == 0 || log->truncate_from <= log->unwritten);
    check_runs(log);
    uint64_t bytes = 0;
    for (size_t i = 0; i < log->count; i++) {
        const struct raft_entry *entry = &log->slots[log->head + i];
        ASSERT_CMP(entry->position.index, ==, core__log_cache_first(log) + i);
        bytes += raft_entry_bytes(entry);
    }
    if (log->count > 0) {
        const struct raft_entry *first = &log->slots[log->head];
        const struct raft_entry *last = &log->slots[log->head + log->count - 1];
        ASSERT_CMP(first->position.term, ==, core__log_term_at(log, first->position.index));
        ASSERT_CMP(last->position.term, ==, log->last.term);
    }
    ASSERT_CMP(bytes, ==, log->cache_bytes);
}

static void check_writes(const struct raft_core *core)
{
    uint64_t seq = 0;
    uint64_t durable = core->log.durable;
    for (size_t i = 0; i < core->writes.count; i++) {
        const struct core_write *write = &core->writes.items[core->writes.head + i];
        ASSERT_CMP(write->seq, >, seq);
        ASSERT_CMP(write->claims, <, core->log.unwritten);
        ASSERT_CMP(write->term, <=, core->term);
        seq = write->seq;
        durable = write->claims > durable ? write->claims : durable;
    }
    ASSERT_CMP(seq, <=, core->writes.seq);
    /* Whatever was handed out is durable or claimed by a write under way. */
    ASSERT_CMP(durable, ==, core->log.unwritten - 1);
    ASSERT_CMP(core->durable_term, <=, core->written.term);
    ASSERT_CMP(core->written.term, <=, core->term);
}

static void check_members(const struct raft_core *core)
{
    const struct core_members *members = &core->members;
    ASSERT_CMP(members->count, >, 0);
    size_t uncommitted = 0;
    for (size_t i = 0; i < members->count; i++) {
        ASSERT(core__membership_valid(&members->items[i]));
        ASSERT_CMP(members->items[i].position.index, <=, core->log.last.index);
        ASSERT(i == 0 || members->items[i].position.index > members->items[i - 1].position.index);
        uncommitted += members->items[i].position.index > core->commit ? 1 : 0;
    }
    ASSERT(core->state != RAFT_LEADER || uncommitted <= 1 || !core__read_ready(core));
}

static void check_progress(const struct raft_core *core, const struct core_progress *progress)
{
    if (progress->id == core->options.id) {
        return;
    }
    ASSERT_CMP(progress->match, <, progress->next);
    ASSERT_CMP(progress->match, <=, core->log.last.index);
    ASSERT_CMP(progress->next, <=, core->log.last.index + 1);
    ASSERT_CMP(progress->acked_round, <=, core->reads.round);
    uint64_t bytes = 0;
    uint64_t index = progress->match;
    for (uint32_t i = 0; i < progress->inflight_count; i++) {
        const struct core_inflight *one =
            &progress->inflight[(progress->inflight_head + i) & (CORE_INFLIGHT_MAX - 1)];
        ASSERT_CMP(one->last_index, >, index);
        ASSERT_CMP(one->last_index, <, progress->next);
        index = one->last_index;
        bytes += one->bytes;
    }
    ASSERT_CMP(bytes, ==, progress->inflight_bytes);
    ASSERT_CMP(progress->inflight_count, <=, core->options.inflight_count_max);
    ASSERT(progress->inflight_count == 0 || progress->mode == RAFT_REPLICATE);
    ASSERT(progress->inflight_count <= 1 ||
           progress->inflight_bytes <= core->options.inflight_bytes_max);
    ASSERT(progress->snapshot == NULL || progress->mode == RAFT_SNAPSHOT);
    ASSERT(progress->snapshot == NULL ||
           progress->chunk_offset <= progress->snapshot->snapshot.size_bytes);
}

static void check_leader(const struct raft_core *core)
{
    const struct raft_membership *members = core__members(core);
    ASSERT_CMP(core->leader, ==, core->options.id);
    ASSERT_CMP(core->voted_for, ==, core->options.id);
    ASSERT_CMP(core->durable_term, ==, core->term);
    ASSERT_CMP(core->log.last.term, ==, core->term);
    ASSERT(!core->incoming.installing);
    ASSERT_CMP(core->progress_count, ==, members->count);
    for (uint32_t i = 0; i < members->count; i++) {
        const struct core_progress *progress = &core->progress[i];
        ASSERT_CMP(progress->id, ==, members->members[i].id);
        ASSERT(progress->voter == (members->members[i].role == RAFT_VOTER));
        check_progress(core, progress);
    }
}

static void check_reads(const struct raft_core *core)
{
    const struct core_reads *reads = &core->reads;
    ASSERT(core->state == RAFT_LEADER || reads->count == 0);
    ASSERT_CMP(reads->unassigned, <=, reads->count);
    ASSERT_CMP(reads->confirmed, <=, reads->round);
    uint64_t round = reads->confirmed;
    for (size_t i = 0; i < reads->count; i++) {
        const struct core_read *read = &reads->items[reads->head + i];
        ASSERT_CMP(read->index, <=, core->commit);
        if (i < reads->count - reads->unassigned) {
            ASSERT_CMP(read->round, >, reads->confirmed);
            ASSERT_CMP(read->round, >=, round);
            round = read->round;
        } else {
            ASSERT_CMP(read->round, ==, 0);
        }
    }
}

static void check_monotone(const struct raft_core *core)
{
    struct core_checked *before = core->checked;
    ASSERT_CMP(core->term, >=, before->term);
    ASSERT(core->term > before->term || before->voted_for == 0 ||
           core->voted_for == before->voted_for);
    ASSERT_CMP(core->commit, >=, before->commit);
    ASSERT_CMP(core->applied, >=, before->applied);
    /* What was committed still stands there, unless it was compacted since. */
    uint64_t term = core__log_term_at(&core->log, before->commit);
    ASSERT(term == 0 || before->commit == 0 || term == before->commit_term);
    if (before->state == RAFT_LEADER && core->state == RAFT_LEADER && before->term == core->term) {
        ASSERT_CMP(core->log.last.index, >=, before->last.index); /* a leader never truncates */
        ASSERT_CMP(core->reads.confirmed, >=, before->confirmed);
    }
    *before = (struct core_checked){.term = core->term,
                                    .voted_for = core->voted_for,
                                    .commit = core->commit,
                                    .commit_term = core__log_term_at(&core->log, core->commit),
                                    .applied = core->applied,
                                    .state = core->state,
                                    .last = core->log.last,
                                    .confirmed = core->reads.confirmed};
}

void raft_core_check(const struct raft_core *core)
{
    check_log(&core->log);
    check_writes(core);
    check_members(core);
    check_reads(core);
    ASSERT_CMP(core->applied, <=, core->commit);
    ASSERT_CMP(core->log.start.index, <=, core->commit);
    ASSERT_CMP(core->commit, <=, core->log.last.index);
    ASSERT_CMP(core->log.last.term, <=, core->term);
    if (core->state == RAFT_LEADER) {
        check_leader(core);
    } else {
        ASSERT_CMP(core->progress_count, ==, 0);
        ASSERT_CMP(core->transfer_target, ==, 0);
    }
    ASSERT(core->state != RAFT_CANDIDATE || core->voted_for == core->options.id);
    ASSERT(core->leader != core->options.id || core->state == RAFT_LEADER);
    ASSERT(!core->incoming.installing || core->incoming.active);
    ASSERT(!core->incoming.active || core->incoming.offset <= core->incoming.snapshot.size_bytes);
    check_monotone(core);
}
