/* From a directory to a running replica: identity, log, staged snapshot, state machine, core.
 * Blocks on the disk; runs in replica_create, before any worker.
 *
 *     <dir>/identity       written last on the first start: where it is, the log was complete once
 *     <dir>/wal/           the log
 *     <dir>/snapshot/      see snapshot_store.h
 *
 * What can be found, and what is done:
 *
 *   no identity, log empty or absent       first start, or one that never finished: bootstrap,
 *                                          then identity
 *   no identity, log with something in it  damage: the identity was lost
 *   identity, no log                       damage: the log was lost, and with it votes and entries
 *                                          we promised
 *   ready snapshot after the log's base    the reset did not happen: do it (what follows the
 *                                          snapshot's position in the log, if it agrees there, is
 *                                          kept), then restore
 *   ready snapshot after what is applied   restore it
 *   ready snapshot otherwise               it was restored; delete it
 *   log begins after what is applied       damage: the state machine lost what it had made durable
 *   applied is after the log's end         damage: the log lost what was applied (we apply only
 *                                          what is durable in it)
 *   log and state machine of two terms     they do not belong together */
#include "raft/node/replica_internal.h"

#include "base/assert.h"
#include "base/log.h"
#include "raft/node/log_entry.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REPLACE_ADVICE                                                                             \
    "keep the directory for inspection, remove this replica from its group and add it again "      \
    "under "                                                                                       \
    "a new id with an empty directory"

struct recovery {
    struct replica *replica;
    struct raft_membership bootstrap;
    struct wal_options wal_options;
    struct wal_recovery log;
    bool log_open;
    bool identity_found;
    struct snapshot_ready ready;
    bool ready_found;
    char *why;
    size_t why_size;
};

static int complain(struct recovery *r, int error, const char *what, const char *advice)
{
    snprintf(r->why, r->why_size, "%s: %s: %s", r->replica->dir, what, advice);
    return error;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static int make_dirs(struct recovery *r)
{
    const struct vfs *vfs = r->replica->env.vfs;
    const char *dirs[] = {r->replica->dir, r->replica->wal_dir, r->replica->snapshot_dir};
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        int error = vfs_make_dirs(vfs, dirs[i]);
        if (error != ERR_OK) {
            snprintf(r->why, r->why_size, "cannot make the directory %s: %s", dirs[i],
                     err_text(error));
            return error;
        }
    }
    return ERR_OK;
}

static int make_bootstrap(struct recovery *r, const struct replica_options *options)
{
    struct raft_membership *membership = &r->bootstrap;
    memset(membership, 0, sizeof(*membership));
    for (size_t i = 0; i < options->member_count; i++) {
        const struct node_member *from = &options->members[i];
        if (from->id == 0 || strlen(from->address) >= RAFT_ADDRESS_BYTES_MAX ||
            raft_membership_find(membership, from->id) != NULL) {
            return complain(r, ERR_INVALID, "the members are not right",
                            "give each an id that is not 0 and not used twice, and an address");
        }
        uint32_t place = membership->count++;
        while (place > 0 && membership->members[place - 1].id > from->id) {
            membership->members[place] = membership->members[place - 1];
            place--;
        }
        struct raft_member *member = &membership->members[place];
        memset(member, 0, sizeof(*member));
        member->id = from->id;
        member->role = RAFT_VOTER;
        snprintf(member->address, sizeof(member->address), "%s", from->address);
    }
    return ERR_OK;
}

static int load_identity(struct recovery *r, const struct replica_options *options)
{
    struct replica *replica = r->replica;
    int error =
        identity_load(replica->env.vfs, replica->dir, &replica->identity, r->why, r->why_size);
    if (error == ERR_NOT_FOUND) {
        return ERR_OK;
    }
    r->identity_found = error == ERR_OK;
    if (error == ERR_OK) {
        error = identity_check(&replica->identity, options->cluster_id, options->group_id,
                               options->replica_id, r->why, r->why_size);
    }
    return error;
}

static int open_log(struct recovery *r)
{
    struct replica *replica = r->replica;
    int error = wal_open(replica->env.vfs, replica->wal_dir, &r->wal_options, &r->bootstrap,
                         replica->options.cache_bytes_max, &replica->persist.wal, &r->log, r->why,
                         r->why_size);
    r->log_open = error == ERR_OK;
    return error;
}

static void close_log(struct recovery *r)
{
    if (r->log_open) {
        wal_recovery_free(&r->log);
        r->log_open = false;
    }
}

/* The log is there if and only if the identity is. */
static int settle_identity(struct recovery *r, const struct replica_options *options)
{
    struct replica *replica = r->replica;
    struct identity *identity = &replica->identity;
    if (r->identity_found && r->log.fresh) {
        /* The one that was just made must not be found by the next start and taken for the real
         * one. */
        close_log(r);
        wal_close(replica->persist.wal);
        replica->persist.wal = NULL;
        (void)replica->env.vfs->remove_tree(replica->env.vfs->context, replica->wal_dir);
        return complain(r, ERR_CORRUPT, "the log is missing", REPLACE_ADVICE);
    }
    if (r->identity_found) {
        return ERR_OK;
    }
    if (r->log.last.index != 0 || r->log.hard_state.term != 0) {
        return complain(r, ERR_CORRUPT, "there is a log but no file `identity`", REPLACE_ADVICE);
    }
    memset(identity, 0, sizeof(*identity));
    identity->cluster_id = options->cluster_id;
    identity->group_id = options->group_id;
    identity->replica_id = options->replica_id;
    do {
        identity->incarnation = rng_next(&replica->rng);
    } while (identity->incarnation == 0);
    int error = identity_store(replica->env.vfs, replica->dir, identity);
    if (error != ERR_OK) {
        return complain(r, error, "cannot write the file `identity`", err_text(error));
    }
    log_event(LOG_INFO, "replica.new",
              "group=%" PRIu64 " replica=%" PRIu64 " members=%u incarnation=%016" PRIx64,
              options->group_id, options->replica_id, r->bootstrap.count, identity->incarnation);
    return ERR_OK;
}

/* The log must have been reset to the snapshot before anything else happens to either. */
static int reset_log(struct recovery *r)
{
    struct replica *replica = r->replica;
    const struct raft_snapshot *snapshot = &r->ready.snapshot;
    if (r->log.base.index >= snapshot->position.index) {
        return ERR_OK;
    }
    int error = ERR_OK;
    if (r->ready.log_time_ms > replica->identity.log_time_ms) {
        replica->identity.log_time_ms = r->ready.log_time_ms;
        error = identity_store(replica->env.vfs, replica->dir, &replica->identity);
    }
    if (error == ERR_OK) {
        error = wal_reset(replica->persist.wal, snapshot->position, &snapshot->membership, true);
    }
    if (error != ERR_OK) {
        return complain(r, error, "cannot begin the log after the staged snapshot",
                        err_text(error));
    }
    close_log(r);
    wal_close(replica->persist.wal);
    replica->persist.wal = NULL;
    return open_log(r);
}

static int settle_snapshot(struct recovery *r)
{
    struct replica *replica = r->replica;
    const struct state_machine *sm = &replica->sm;
    int error = snapshot_store_open(replica->env.vfs, replica->snapshot_dir, &r->ready, r->why,
                                    r->why_size);
    if (error == ERR_NOT_FOUND) {
        return ERR_OK;
    }
    if (error != ERR_OK) {
        return error;
    }
    error = reset_log(r);
    if (error != ERR_OK) {
        return error;
    }
    uint64_t index = r->ready.snapshot.position.index;
    if (index > sm->ops->applied(sm->sm).index) {
        log_event(LOG_INFO, "snapshot.restore",
                  "group=%" PRIu64 " replica=%" PRIu64 " index=%" PRIu64, replica->options.group_id,
                  replica->options.replica_id, index);
        error = snapshot_store_restore(sm, r->ready.path);
        if (error != ERR_OK) {
            return complain(r, error, "cannot restore the staged snapshot", err_text(error));
        }
    }
    error = snapshot_store_remove_ready(replica->env.vfs, replica->snapshot_dir, r->ready.path);
    return error == ERR_OK
               ? ERR_OK
               : complain(r, error, "cannot remove the restored snapshot", err_text(error));
}

static uint64_t term_at(const struct wal_recovery *log, uint64_t index)
{
    uint64_t term = index == log->base.index ? log->base.term : 0;
    for (size_t i = 0; i < log->term_run_count && log->term_runs[i].index <= index; i++) {
        term = log->term_runs[i].term;
    }
    return term;
}

static int compare_applied(struct recovery *r)
{
    struct raft_position applied = r->replica->sm.ops->applied(r->replica->sm.sm);
    char what[160];
    if (r->log.base.index > applied.index) {
        snprintf(what, sizeof(what),
                 "the log begins after entry %" PRIu64
                 " but the state machine holds only what is up to "
                 "entry %" PRIu64,
                 r->log.base.index, applied.index);
        return complain(r, ERR_CORRUPT, what, REPLACE_ADVICE);
    }
    if (applied.index > r->log.last.index) {
        snprintf(what, sizeof(what),
                 "the state machine holds entry %" PRIu64 " but the log ends with entry %" PRIu64,
                 applied.index, r->log.last.index);
        return complain(r, ERR_CORRUPT, what, REPLACE_ADVICE);
    }
    if (term_at(&r->log, applied.index) != applied.term) {
        snprintf(what, sizeof(what),
                 "entry %" PRIu64 " is of term %" PRIu64 " in the log, of term %" PRIu64
                 " in the state machine",
                 applied.index, term_at(&r->log, applied.index), applied.term);
        return complain(r, ERR_CORRUPT, what, REPLACE_ADVICE);
    }
    return ERR_OK;
}

/* ---- log time -------------------------------------------------------------------------------- */

/* Time of the newest command among `entries`; false when there is none. */
static bool newest_time(const struct raft_entry *entries, size_t count, uint64_t *time_ms)
{
    for (size_t i = count; i > 0; i--) {
        struct log_entry_reader reader;
        if (entries[i - 1].kind == RAFT_ENTRY_COMMAND &&
            log_entry_open(entries[i - 1].data, &reader) == ERR_OK) {
            *time_ms = reader.time_ms;
            return true;
        }
    }
    return false;
}

static int recover_log_time(struct recovery *r)
{
    struct replica *replica = r->replica;
    uint64_t time_ms = 0;
    bool found = newest_time(r->log.tail, r->log.tail_count, &time_ms);
    uint64_t tail_from = r->log.last.index + 1 - r->log.tail_count;
    /* Hardly ever: a log whose newest entries are all Raft's own. */
    for (uint64_t next = r->log.base.index + 1; !found && next < tail_from;) {
        struct raft_entry *entries;
        size_t count;
        int error = wal_read(replica->persist.wal, next, tail_from - 1, REPLICA_APPLY_BYTES_MAX,
                             &entries, &count);
        if (error != ERR_OK) {
            return complain(r, error, "cannot read the log", REPLACE_ADVICE);
        }
        (void)newest_time(entries, count, &time_ms);
        wal_entries_free(entries, count);
        next += count;
    }
    replica->log_time_ms = replica->identity.log_time_ms;
    replica->log_time_at_ns = clock_now_ns(replica->env.clock);
    replica__log_time_seen(replica, time_ms);
    return ERR_OK;
}

/* ---- core ------------------------------------------------------------------------------------ */

static struct raft_core_options core_options(struct replica *replica)
{
    const struct replica_options *options = &replica->options;
    struct raft_core_options core =
        raft_core_options_default(options->replica_id, rng_next(&replica->rng));
    core.election_ticks = options->election_ticks;
    core.heartbeat_ticks = options->heartbeat_ticks;
    core.cache_bytes_max = options->cache_bytes_max;
    core.chunk_bytes_max = options->chunk_bytes_max;
    core.lease_reads = options->lease_reads;
    return core;
}

static int start_core(struct recovery *r)
{
    struct replica *replica = r->replica;
    struct raft_core_options options = core_options(replica);
    struct raft_core_state *state = &(struct raft_core_state){
        .hard_state = r->log.hard_state,
        .snapshot = {.position = r->log.base, .membership = r->log.membership},
        .log_start = r->log.base,
        .log_last = r->log.last,
        .term_runs = r->log.term_runs,
        .term_run_count = r->log.term_run_count,
        .memberships = r->log.memberships,
        .membership_count = r->log.membership_count,
        .applied = replica->sm.ops->applied(replica->sm.sm).index,
        .tail = r->log.tail,
        .tail_count = r->log.tail_count,
    };
    if (state->hard_state.commit < state->applied) {
        state->hard_state.commit = state->applied; /* what was applied was committed */
    }
    char core_why[256] = "";
    int error = raft_core_create(&options, state, &replica->core, core_why, sizeof(core_why));
    if (error != ERR_OK) {
        return complain(r, error, core_why, REPLACE_ADVICE);
    }
    replica->handed = state->applied;
    replica->commit = state->applied;
    replica->restore_index = state->applied;
    replica->apply.applied = state->applied;
    raft_core_status(replica->core, &replica->status);
    return ERR_OK;
}

static void start_workers(struct recovery *r)
{
    struct replica *replica = r->replica;
    replica->spare_segments = r->wal_options.prewrite ? r->wal_options.spare_segments : 0;
    replica->persist.stored = replica->identity;
    snapshot_staging_init(&replica->persist.staging, replica->env.vfs, &replica->sm,
                          replica->snapshot_dir);
    replica->sender = (struct outbox_sender){
        .cluster_id = replica->options.cluster_id,
        .group_id = replica->options.group_id,
        .replica_id = replica->options.replica_id,
        .incarnation = replica->identity.incarnation,
    };
    replica__compaction_init(replica);
}

int replica__recover(struct replica *replica, const struct replica_options *options, char *why,
                     size_t why_size)
{
    struct recovery recovery = {.replica = replica, .why = why, .why_size = why_size};
    struct recovery *r = &recovery;
    r->wal_options = wal_options_default();
    r->wal_options.segment_bytes = options->segment_bytes;
    r->wal_options.prewrite = options->prewrite_segments;
    uint64_t free_at_once = options->flush_log_bytes / options->segment_bytes + 1;
    r->wal_options.recycled_max = free_at_once > REPLICA_LOG_RECYCLED_MAX ? REPLICA_LOG_RECYCLED_MAX
                                  : free_at_once < r->wal_options.spare_segments
                                      ? r->wal_options.spare_segments
                                      : (uint32_t)free_at_once;
    do {
        r->wal_options.seed = rng_next(&replica->rng);
    } while (r->wal_options.seed == 0);
    /* An entry holds one command of the largest size, or many within entry_bytes_max. */
    r->wal_options.entry_bytes_max =
        NODE_COMMAND_BYTES_MAX + LOG_ENTRY_HEADER_BYTES_MAX + LOG_ENTRY_COMMAND_OVERHEAD_BYTES_MAX;

    int error = make_bootstrap(r, options);
    error = error != ERR_OK ? error : make_dirs(r);
    error = error != ERR_OK ? error : load_identity(r, options);
    error = error != ERR_OK ? error : open_log(r);
    error = error != ERR_OK ? error : settle_identity(r, options);
    error = error != ERR_OK ? error : settle_snapshot(r);
    error = error != ERR_OK ? error : compare_applied(r);
    error = error != ERR_OK ? error : recover_log_time(r);
    error = error != ERR_OK ? error : start_core(r);
    if (error == ERR_OK) {
        start_workers(r);
        log_event(LOG_INFO, "replica.recovered",
                  "group=%" PRIu64 " replica=%" PRIu64 " term=%" PRIu64 " log_first=%" PRIu64
                  " log_last=%" PRIu64 " applied=%" PRIu64 " torn_bytes_cut=%" PRIu64,
                  options->group_id, options->replica_id, r->log.hard_state.term,
                  r->log.base.index + 1, r->log.last.index, replica->handed, r->log.torn_bytes_cut);
    }
    close_log(r);
    return error;
}
