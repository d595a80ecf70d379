/* Making a core from what was durable. Thread: the core's.
 *
 * The state comes from a disk, so it is checked, not trusted: what contradicts itself is
 * ERR_CORRUPT with the reason. A replica that started from a log that lost acknowledged entries
 * could elect a leader without them; it must not start at all. */
#include "raft/core/core_internal.h"

#include <stdlib.h>
#include <string.h>

struct raft_core_options raft_core_options_default(uint64_t id, uint64_t seed)
{
    return (struct raft_core_options){.id = id,
                                      .seed = seed,
                                      .election_ticks = 10,
                                      .heartbeat_ticks = 1,
                                      .append_bytes_max = 1024 * 1024,
                                      .inflight_bytes_max = 8 * 1024 * 1024,
                                      .inflight_count_max = 64,
                                      .cache_bytes_max = 8 * 1024 * 1024,
                                      .uncommitted_bytes_max = 64 * 1024 * 1024,
                                      .chunk_bytes_max = 1024 * 1024,
                                      .lease_reads = false};
}

static const char *options_fault(const struct raft_core_options *options)
{
    if (options->id == 0) {
        return "options: id must not be 0";
    }
    if (options->heartbeat_ticks == 0 || options->heartbeat_ticks >= options->election_ticks ||
        options->election_ticks > CORE_ELECTION_TICKS_MAX) {
        return "options: 0 < heartbeat_ticks < election_ticks <= 10000 must hold";
    }
    if (options->append_bytes_max == 0 || options->inflight_bytes_max < options->append_bytes_max ||
        options->inflight_count_max == 0 || options->inflight_count_max > CORE_INFLIGHT_MAX) {
        return "options: 0 < append_bytes_max <= inflight_bytes_max and 1 <= inflight_count_max <= "
               "256 must hold";
    }
    if (options->uncommitted_bytes_max <= RAFT_ENTRY_OVERHEAD_BYTES ||
        options->chunk_bytes_max == 0) {
        return "options: uncommitted_bytes_max and chunk_bytes_max must leave room for something";
    }
    return NULL;
}

static const char *runs_fault(const struct raft_core_state *state)
{
    struct raft_position start = state->log_start;
    struct raft_position last = state->log_last;
    if (last.index == start.index) {
        return last.term != start.term ? "log: empty, but its two ends differ in term" : NULL;
    }
    if (state->term_run_count == 0) {
        return "log: entries without terms";
    }
    struct raft_position previous = {0, start.term};
    for (size_t i = 0; i < state->term_run_count; i++) {
        struct raft_position run = state->term_runs[i];
        bool term_falls = i == 0 ? run.term < start.term : run.term <= previous.term;
        if (run.index <= previous.index || term_falls || run.index > last.index ||
            (i == 0 && run.index > start.index + 1) || (i == 1 && run.index <= start.index + 1)) {
            return "log: runs of terms are not in order";
        }
        previous = run;
    }
    return previous.term != last.term ? "log: the last entry's term is not the last run's" : NULL;
}

static const char *memberships_fault(const struct raft_core_state *state)
{
    uint64_t previous = 0;
    for (size_t i = 0; i < state->membership_count; i++) {
        const struct raft_membership *membership = &state->memberships[i];
        if (!core__membership_valid(membership) || membership->position.index <= previous ||
            membership->position.index > state->log_last.index) {
            return "log: memberships are not valid or not in order";
        }
        previous = membership->position.index;
    }
    if (!core__membership_valid(&state->snapshot.membership) ||
        state->snapshot.membership.position.index > state->snapshot.position.index) {
        return "snapshot: its membership is not valid";
    }
    return NULL;
}

static const char *tail_fault(const struct raft_core_state *state)
{
    for (size_t i = 0; i < state->tail_count; i++) {
        uint64_t expected = state->log_last.index - (state->tail_count - 1 - i);
        if (state->tail[i].position.index != expected || expected <= state->log_start.index) {
            return "log: its newest entries are not its end";
        }
    }
    if (state->tail_count > 0 &&
        !raft_position_equal(state->tail[state->tail_count - 1].position, state->log_last)) {
        return "log: its newest entries end with another term";
    }
    return NULL;
}

static const char *state_fault(const struct raft_core_state *state)
{
    if (state->log_start.index > state->log_last.index || state->log_last.index > CORE_INDEX_MAX ||
        state->hard_state.term > CORE_TERM_MAX) {
        return "log: it ends before it begins";
    }
    if (state->snapshot.position.index > state->applied || state->applied > state->log_last.index) {
        return "applied: not between the snapshot and the end of the log";
    }
    if (state->log_start.index > state->applied) {
        return "log: entries between what was applied and the log's start are missing";
    }
    if (state->hard_state.term < state->log_last.term) {
        return "hard state: its term is older than the log's last entry";
    }
    if (state->hard_state.commit > state->log_last.index) {
        return "log: entries known to be committed are missing at its end";
    }
    const char *fault = runs_fault(state);
    fault = fault != NULL ? fault : memberships_fault(state);
    return fault != NULL ? fault : tail_fault(state);
}

static void load_log(struct raft_core *core, const struct raft_core_state *state)
{
    struct core_log *log = &core->log;
    core__log_init(log, state->log_start);
    for (size_t i = 0; i < state->term_run_count && state->log_last.index > log->start.index; i++) {
        struct raft_position run = state->term_runs[i];
        if (run.index <= log->start.index) {
            run.index = log->start.index + 1; /* the run began before what is left of it */
        }
        core__log_push_run(log, run);
    }
    log->last = state->log_last;
    log->durable = state->log_last.index;
    log->unwritten = state->log_last.index + 1;
    for (size_t i = 0; i < state->tail_count; i++) {
        core__log_cache(log, &state->tail[i]);
    }
}

/* The snapshot's membership, and around it what the log says of the time before and after. */
static void load_members(struct raft_core *core, const struct raft_core_state *state)
{
    const struct raft_membership *base = &state->snapshot.membership;
    size_t i = 0;
    for (;
         i < state->membership_count && state->memberships[i].position.index < base->position.index;
         i++) {
        core__members_push(core, &state->memberships[i]);
    }
    core__members_push(core, base);
    for (; i < state->membership_count; i++) {
        if (state->memberships[i].position.index > base->position.index) {
            core__members_push(core, &state->memberships[i]);
        }
    }
}

static void explain(const char *fault, char *why, size_t why_size)
{
    if (why_size > 0) {
        size_t length = strlen(fault);
        length = length < why_size ? length : why_size - 1;
        memcpy(why, fault, length);
        why[length] = '\0';
    }
}

int raft_core_create(const struct raft_core_options *options, const struct raft_core_state *state,
                     struct raft_core **out, char *why, size_t why_size)
{
    const char *fault = options_fault(options);
    if (fault != NULL) {
        explain(fault, why, why_size);
        return ERR_INVALID;
    }
    fault = state_fault(state);
    if (fault != NULL) {
        explain(fault, why, why_size);
        return ERR_CORRUPT;
    }
    struct raft_core *core = mem_calloc(1, sizeof(*core));
    core->options = *options;
    rng_init(&core->rng, options->seed ^ options->id * 0x9e3779b97f4a7c15u);
    core->state = RAFT_FOLLOWER;
    core->term = state->hard_state.term;
    core->voted_for = state->hard_state.voted_for;
    core->written = state->hard_state;
    core->durable_term = core->term;
    core->durable_vote = core->voted_for;
    core->applied = state->applied;
    core->commit =
        state->hard_state.commit > state->applied ? state->hard_state.commit : state->applied;
    core->commit_told = state->applied;
    load_log(core, state);
    load_members(core, state);
    buf_init(&core->trace_line);
    core->checked = core__checked_create();
    /* Before the restart we may have told a leader with a lease that it is heard. A replica that
     * was never in any term cannot have. */
    bool may_be_held = options->lease_reads && core->term > 0;
    core->leader_silence = may_be_held ? 0 : options->election_ticks;
    core__election_start(core);
    core->told = (struct core_told){.state = RAFT_FOLLOWER};
    core__evict(core);
    *out = core;
    return ERR_OK;
}
