/* The heart of a replica: events go into the core, and replica_poll acts on what comes out of it.
 * Loop thread only, but for replica_jobs_run.
 *
 * Order inside one poll (raft/core/core.h gives the rules it keeps):
 *   commands and reads -> core -> { messages to the outbox, write to the persist worker with what
 *   is held, reads, loads } until the core is quiet; then entries to the apply worker, the outbox
 *   to the peers, news to the observer. */
#include "raft/node/replica_internal.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct replica_options replica_options_default(void)
{
    struct node_options node = node_options_default();
    return (struct replica_options){
        .election_ticks = node.election_ticks,
        .heartbeat_ticks = node.heartbeat_ticks,
        .entry_bytes_max = node.entry_bytes_max,
        .flush_log_bytes = node.flush_log_bytes,
        .segment_bytes = node.segment_bytes,
        .cache_bytes_max = node.cache_bytes_max,
        .chunk_bytes_max = 1024 * 1024,
        .prewrite_segments = true,
    };
}

struct replica_options replica_options_of(const struct node_options *options)
{
    struct replica_options replica = replica_options_default();
    replica.cluster_id = options->cluster_id;
    replica.group_id = options->group_id;
    replica.replica_id = options->replica_id;
    replica.dir = options->dir;
    replica.members = options->members;
    replica.member_count = options->member_count;
    replica.election_ticks = options->election_ticks;
    replica.heartbeat_ticks = options->heartbeat_ticks;
    replica.lease_reads = options->lease_reads;
    replica.entry_bytes_max = options->entry_bytes_max;
    replica.flush_log_bytes = options->flush_log_bytes;
    replica.segment_bytes = options->segment_bytes;
    replica.cache_bytes_max = options->cache_bytes_max;
    replica.seed = options->seed;
    return replica;
}

/* ---- lifecycle
 * ------------------------------------------------------------------------------------------ */

static char *path_in(const char *dir, const char *name)
{
    char path[VFS_PATH_BYTES_MAX];
    return vfs_path(path, dir, name) == ERR_OK ? mem_strdup(path) : NULL;
}

static int check_options(const struct replica_options *options, char *why, size_t why_size)
{
    if (options->replica_id == 0 || options->cluster_id == 0) {
        snprintf(why, why_size, "cluster and replica ids must not be 0");
        return ERR_INVALID;
    }
    if (options->heartbeat_ticks == 0 || options->election_ticks <= options->heartbeat_ticks) {
        snprintf(why, why_size, "the election timeout must be longer than the heartbeat");
        return ERR_INVALID;
    }
    if (options->member_count > RAFT_MEMBERS_MAX) {
        snprintf(why, why_size, "%zu members: a group has at most %d", options->member_count,
                 RAFT_MEMBERS_MAX);
        return ERR_INVALID;
    }
    return ERR_OK;
}

int replica_create(const struct replica_options *options, const struct state_machine *sm,
                   const struct node_observer *observer, const struct replica_env *env,
                   struct replica **out, char *why, size_t why_size)
{
    int error = check_options(options, why, why_size);
    if (error != ERR_OK) {
        return error;
    }
    struct replica *replica = mem_calloc(1, sizeof(*replica));
    replica->options = *options;
    replica->options.members = NULL;
    replica->env = *env;
    replica->sm = *sm;
    if (observer != NULL) {
        replica->observer = *observer;
    }
    replica->dir = mem_strdup(options->dir);
    replica->options.dir = replica->dir;
    replica->wal_dir = path_in(options->dir, "wal");
    replica->snapshot_dir = path_in(options->dir, "snapshot");
    replica->role_told = NODE_FOLLOWER;
    rng_init(&replica->rng, options->seed);
    outbox_init(&replica->outbox);
    if (replica->wal_dir == NULL || replica->snapshot_dir == NULL) {
        snprintf(why, why_size, "the path of the directory is too long");
        error = ERR_INVALID;
    }
    if (error == ERR_OK) {
        error = replica__recover(replica, options, why, why_size);
    }
    if (error != ERR_OK) {
        replica_destroy(replica);
        return error;
    }
    *out = replica;
    return ERR_OK;
}

void replica_destroy(struct replica *replica)
{
    ASSERT_CMP(replica->jobs_out, ==, 0);
    replica->stopping = true;
    replica__waiting_fail_all(replica);
    replica__parked_drop(replica);
    replica__snapshots_deinit(replica);
    replica__compaction_deinit(replica);
    replica__apply_deinit(replica);
    snapshot_staging_deinit(&replica->persist.staging);
    if (replica->core != NULL) {
        raft_core_destroy(replica->core);
    }
    if (replica->persist.wal != NULL) {
        wal_close(replica->persist.wal);
    }
    outbox_deinit(&replica->outbox);
    free(replica->commands);
    free(replica->dir);
    free(replica->wal_dir);
    free(replica->snapshot_dir);
    free(replica);
}

void replica__fatal(struct replica *replica, const char *format, ...)
{
    char what[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    replica->env.fatal(replica->env.context, what);
    replica->dead = true;
}

/* ---- jobs
 * -----------------------------------------------------------------------------------------------
 * */

void replica__job_init(struct replica_job *job, struct replica *replica, enum replica_worker worker,
                       const char *name, const struct replica_job_ops *ops)
{
    *job = (struct replica_job){
        .next = NULL, .worker = worker, .name = name, .replica = replica, .ops = ops};
}

void replica__submit(struct replica *replica, struct replica_job *job)
{
    replica->jobs_out++;
    replica->env.submit(replica->env.context, job);
}

void replica_jobs_run(struct replica_job *const *jobs, size_t count)
{
    ASSERT_CMP(count, >, 0);
    struct replica *replica = jobs[0]->replica;
    if (jobs[0]->worker == REPLICA_PERSIST) {
        replica__persist_run(jobs, count);
        return;
    }
    for (size_t i = 0; i < count && !replica->dead; i++) {
        ASSERT(jobs[i]->worker == jobs[0]->worker);
        jobs[i]->ops->run(jobs[i]);
    }
}

void replica_job_done(struct replica_job *job)
{
    struct replica *replica = job->replica;
    ASSERT_CMP(replica->jobs_out, >, 0);
    replica->jobs_out--;
    if (!replica->dead) {
        job->ops->done(job);
    }
    job->ops->release(job);
}

void replica_job_discard(struct replica_job *job)
{
    struct replica *replica = job->replica;
    ASSERT_CMP(replica->jobs_out, >, 0);
    replica->jobs_out--;
    job->ops->release(job);
}

bool replica_is_idle(const struct replica *replica)
{
    return replica->jobs_out == 0;
}

/* ---- events
 * --------------------------------------------------------------------------------------------- */

void replica_tick(struct replica *replica)
{
    if (replica->dead) {
        return;
    }
    replica->tick_count++;
    raft_core_tick(replica->core);
    replica__transfers_check(replica, true);
    if (!replica->stopping) {
        replica__greet_tick(replica);
        replica__snapshots_tick(replica);
        replica__compaction_tick(replica);
    }
}

void replica_peer_closed(struct replica *replica, uint64_t peer)
{
    if (!replica->dead) {
        raft_core_peer_closed(replica->core, peer);
    }
}

void replica_unreachable(struct replica *replica, uint64_t peer)
{
    if (!replica->dead) {
        raft_core_unreachable(replica->core, peer);
    }
}

void replica_stop(struct replica *replica)
{
    replica->stopping = true;
    replica__waiting_fail_all(replica);
}

/* ---- poll
 * -----------------------------------------------------------------------------------------------
 * */

static void take_messages(struct replica *replica, const struct raft_ready *ready)
{
    for (size_t i = 0; i < ready->message_count; i++) {
        const struct raft_message *message = &ready->messages[i];
        if (message->kind == RAFT_MSG_SNAPSHOT) {
            /* its bytes must be read from the disk first */
            replica__chunk_submit(replica, message);
        } else {
            outbox_add(&replica->outbox, message);
        }
    }
}

static void take_ready(struct replica *replica)
{
    struct raft_ready ready;
    while (raft_core_ready(replica->core, &ready)) {
        take_messages(replica, &ready);
        if (ready.write.seq != 0) {
            replica__write_submit(replica, &ready);
        } else {
            ASSERT_CMP(ready.held_count, ==, 0);
        }
        if (ready.commit > replica->commit) {
            replica->commit = ready.commit;
        }
        for (size_t i = 0; i < ready.read_count; i++) {
            replica__reads_confirmed(replica, &ready.reads[i]);
        }
        for (size_t i = 0; i < ready.load_count; i++) {
            replica__load_submit(replica, &ready.loads[i]);
        }
        replica->status_news = replica->status_news || ready.status_changed;
        raft_core_accept(replica->core);
    }
    raft_core_status(replica->core, &replica->status);
}

static void send_frame(void *context, uint64_t peer, struct buf *frame)
{
    struct replica *replica = context;
    replica->env.send(replica->env.context, peer, frame);
}

enum node_role replica_role(const struct replica *replica)
{
    const struct raft_status *status = &replica->status;
    switch (status->state) {
    case RAFT_LEADER:
        return status->read_ready ? NODE_LEADER : NODE_CANDIDATE;
    case RAFT_CANDIDATE:
    case RAFT_PRE_CANDIDATE:
        return NODE_CANDIDATE;
    case RAFT_FOLLOWER:
        break;
    }
    const struct raft_member *self = raft_membership_find(&status->membership, status->id);
    return self != NULL && self->role == RAFT_VOTER ? NODE_FOLLOWER : NODE_LEARNER;
}

static const char *role_name(enum node_role role)
{
    switch (role) {
    case NODE_FOLLOWER:
        return "follower";
    case NODE_CANDIDATE:
        return "candidate";
    case NODE_LEADER:
        return "leader";
    case NODE_LEARNER:
        return "learner";
    }
    UNREACHABLE();
}

static const char *address_of(const struct raft_membership *membership, uint64_t id)
{
    const struct raft_member *member = id == 0 ? NULL : raft_membership_find(membership, id);
    return member == NULL ? "" : member->address;
}

/* A leader that has nothing committed in its term yet is told as nobody's leader: it can neither
 * read nor, surely, write, and whoever asked it would have to wait. */
static void tell_role(struct replica *replica)
{
    const struct raft_status *status = &replica->status;
    enum node_role role = replica_role(replica);
    uint64_t leader = status->leader;
    if (leader == status->id && role != NODE_LEADER) {
        leader = 0;
    }
    if (replica->polled_once && role == replica->role_told && status->term == replica->term_told &&
        leader == replica->leader_told) {
        return;
    }
    replica->role_told = role;
    replica->term_told = status->term;
    replica->leader_told = leader;
    log_event(LOG_INFO, "raft.role",
              "group=%" PRIu64 " replica=%" PRIu64 " role=%s term=%" PRIu64 " leader=%" PRIu64
              " commit=%" PRIu64 " last=%" PRIu64,
              replica->options.group_id, status->id, role_name(role), status->term, leader,
              status->commit, status->last.index);
    if (replica->observer.role_changed != NULL) {
        replica->observer.role_changed(replica->observer.context, role, status->term, leader,
                                       address_of(&status->membership, leader));
    }
}

static void tell_members(struct replica *replica)
{
    const struct raft_membership *membership = &replica->status.membership;
    uint32_t sum = crc32c_extend(0, &membership->position.index, sizeof(uint64_t));
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct raft_member *member = &membership->members[i];
        uint32_t role = (uint32_t)member->role;
        sum = crc32c_extend(sum, &member->id, sizeof(member->id));
        sum = crc32c_extend(sum, &role, sizeof(role));
        sum = crc32c_extend(sum, member->address, strlen(member->address) + 1);
    }
    if (replica->polled_once && sum == replica->members_told) {
        return;
    }
    replica->members_told = sum;
    log_event(LOG_INFO, "raft.members",
              "group=%" PRIu64 " replica=%" PRIu64 " members=%u voters=%u",
              replica->options.group_id, replica->options.replica_id, membership->count,
              raft_membership_voter_count(membership));
    if (replica->env.members_changed != NULL) {
        replica->env.members_changed(replica->env.context, membership);
    }
    replica->members_unsettled = true;
}

void replica_poll(struct replica *replica)
{
    ASSERT(!replica->stopping); /* the core still knows reads that were answered */
    if (replica->dead) {
        return;
    }
    replica__commands_flush(replica);
    replica__reads_flush(replica);
    take_ready(replica);
    replica__waiters_fail_lost(replica);
    replica__transfers_check(replica, false);
    replica__snapshots_offer(replica);
    replica__apply_hand(replica);
    bool news = replica->status_news || !replica->polled_once;
    replica->status_news = false;
    if (news) {
        tell_members(replica); /* before frames go to those who are new */
    }
    outbox_flush(&replica->outbox, &replica->sender, send_frame, replica);
    if (news) {
        tell_role(replica);
    }
    if (replica->members_unsettled &&
        replica->commit >= replica->status.membership.position.index) {
        replica->members_unsettled = false;
        replica__identity_check_members(replica);
        if (replica->observer.members_committed != NULL) {
            replica->observer.members_committed(replica->observer.context,
                                                &replica->status.membership);
        }
    }
    replica->polled_once = true;
}

/* ---- looking in
 * ----------------------------------------------------------------------------------------- */

void replica_status(struct replica *replica, struct node_status *out)
{
    struct wal_stats stats;
    wal_stats(replica->persist.wal, &stats);
    raft_core_status(replica->core, &out->raft);
    out->role = replica_role(replica);
    out->log_bytes = stats.log_bytes;
    snprintf(out->leader_address, sizeof(out->leader_address), "%s",
             address_of(&out->raft.membership, out->raft.leader));
    out->progress_count = raft_core_progress(replica->core, out->progress);
}

void replica_set_trace(struct replica *replica, raft_trace_fn trace, void *context)
{
    raft_core_set_trace(replica->core, trace, context);
}

void replica_check(struct replica *replica)
{
    raft_core_check(replica->core);
    raft_core_status(replica->core, &replica->status);
    ASSERT_CMP(replica->handed, <=, replica->commit);
    ASSERT_CMP(replica->status.applied, <=, replica->handed);
    ASSERT_CMP(replica->apply_jobs, <=, REPLICA_APPLY_JOBS_MAX);
    uint64_t index = 0;
    for (const struct entry_waiter *waiter = replica->waiters; waiter != NULL;
         waiter = waiter->next) {
        ASSERT_CMP(waiter->position.index, >, index);
        index = waiter->position.index;
    }
}
