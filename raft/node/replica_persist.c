/* The persist worker: what must be durable. Writes of the core, the identity file, compaction of
 * the log.
 *
 * Jobs that wait are run as one batch: every write goes to the log, then one sync makes them all
 * durable, then what was held for each is sent, in order, right from here: the loop need not wake
 * up first. A job that is not a plain write (an install, a compaction, the identity) first settles
 * what came before it.
 *
 * A failed write or sync is final: the process ends, nothing held is sent, nothing is retried
 * (after a failed fsync the kernel may have dropped the pages while calling them clean). */
#include "raft/node/replica_internal.h"

#include "base/assert.h"
#include "base/log.h"
#include "raft/node/log_entry.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    SMALL_BYTES_MAX = 1024, /* a command or a few: with more, more is on its way to listen to */
};

struct held_frame {
    uint64_t peer;
    struct buf frame;
};

enum persist_kind { PERSIST_WRITE, PERSIST_COMPACT, PERSIST_IDENTITY };

struct persist_job {
    struct replica_job base;
    enum persist_kind kind;

    /* PERSIST_WRITE: a private copy of the core's write */
    struct raft_write write; /* its pointers point below */
    struct raft_entry *entries;
    struct raft_snapshot *chunk_snapshot;
    struct raft_snapshot *install;
    struct held_frame *held;
    size_t held_count;
    char *ready_path;    /* of an install, once done */
    bool install_failed; /* its stream was not intact */

    /* PERSIST_COMPACT */
    struct raft_position compact_base;
    struct raft_membership compact_membership;

    uint64_t log_time_ms; /* PERSIST_COMPACT: in; install: out */
    uint32_t peer_count;  /* PERSIST_IDENTITY */
    struct identity_peer peers[IDENTITY_PEERS_MAX];
};

/* ---- loop: making jobs
 * ---------------------------------------------------------------------------------- */

static void persist_done(struct replica_job *base);
static void persist_release(struct replica_job *base);
static const struct replica_job_ops persist_ops = {
    .run = NULL, .done = persist_done, .release = persist_release};

static struct persist_job *job_create(struct replica *replica, enum persist_kind kind,
                                      const char *name)
{
    struct persist_job *job = mem_calloc(1, sizeof(*job));
    replica__job_init(&job->base, replica, REPLICA_PERSIST, name, &persist_ops);
    job->kind = kind;
    return job;
}

static void hold_frame(void *context, uint64_t peer, struct buf *frame)
{
    struct persist_job *job = context;
    struct held_frame *held = &job->held[job->held_count++];
    held->peer = peer;
    held->frame = *frame;
    buf_init(frame);
}

/* The messages are encoded now, while they are ours to look at, and sent by the worker. */
static void hold_messages(struct persist_job *job, const struct raft_ready *ready)
{
    struct replica *replica = job->base.replica;
    struct outbox outbox;
    if (ready->held_count == 0) {
        return;
    }
    outbox_init(&outbox);
    for (size_t i = 0; i < ready->held_count; i++) {
        outbox_add(&outbox, &ready->held[i]);
    }
    job->held = mem_calloc(outbox.count, sizeof(job->held[0]));
    outbox_flush(&outbox, &replica->sender, hold_frame, job);
    outbox_deinit(&outbox);
}

static void copy_write(struct persist_job *job, const struct raft_write *write)
{
    job->write = *write;
    if (write->entry_count > 0) {
        job->entries = mem_dup(write->entries, write->entry_count * sizeof(write->entries[0]));
        for (size_t i = 0; i < write->entry_count; i++) {
            blob_ref(job->entries[i].owner);
        }
    }
    job->write.entries = job->entries;
    if (write->chunk_snapshot != NULL) {
        job->chunk_snapshot = mem_dup(write->chunk_snapshot, sizeof(*write->chunk_snapshot));
        blob_ref(write->chunk_owner);
    }
    job->write.chunk_snapshot = job->chunk_snapshot;
    if (write->install != NULL) {
        job->install = mem_dup(write->install, sizeof(*write->install));
    }
    job->write.install = job->install;
}

static void learn_log_times(struct replica *replica, const struct raft_write *write)
{
    /* The newest command entry has the largest time: they never go back along the log. */
    for (size_t i = write->entry_count; i > 0; i--) {
        struct log_entry_reader entry;
        if (write->entries[i - 1].kind == RAFT_ENTRY_COMMAND &&
            log_entry_open(write->entries[i - 1].data, &entry) == ERR_OK) {
            /* A leader's entries carry its own reckoning, and only in whole milliseconds. */
            if (replica->status.state == RAFT_LEADER) {
                replica__log_time_seen(replica, entry.time_ms);
            } else {
                replica__log_time_follow(replica, entry.time_ms);
            }
            return;
        }
    }
}

static uint64_t entries_bytes(const struct raft_write *write)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < write->entry_count && bytes <= SMALL_BYTES_MAX; i++) {
        bytes += write->entries[i].data.size;
    }
    return bytes;
}

void replica__write_submit(struct replica *replica, const struct raft_ready *ready)
{
    const struct raft_write *write = &ready->write;
    struct persist_job *job = job_create(replica, PERSIST_WRITE, "write");
    copy_write(job, write);
    hold_messages(job, ready);
    learn_log_times(replica, write);
    if (write->truncate_from != 0) {
        replica__compaction_truncated(replica, write->truncate_from);
    }
    replica__compaction_appended(replica, write->entries, write->entry_count);
    job->base.is_small = write->chunk_snapshot == NULL && write->install == NULL &&
                         entries_bytes(write) <= SMALL_BYTES_MAX;
    if (write->install != NULL) {
        ASSERT(!replica->install_pending);
        replica->install_pending = true;
        job->base.name = "install";
    }
    replica__submit(replica, &job->base);
}

void replica__compact_submit(struct replica *replica, struct raft_position base,
                             const struct raft_membership *membership)
{
    struct persist_job *job = job_create(replica, PERSIST_COMPACT, "compact");
    job->compact_base = base;
    job->compact_membership = *membership;
    job->log_time_ms = replica__log_time(replica); /* at least that of every entry so far */
    replica__submit(replica, &job->base);
}

void replica__identity_submit(struct replica *replica)
{
    struct persist_job *job = job_create(replica, PERSIST_IDENTITY, "identity");
    job->peer_count = replica->identity.peer_count;
    memcpy(job->peers, replica->identity.peers, sizeof(job->peers));
    replica__submit(replica, &job->base);
}

/* ---- worker ---------------------------------------------------------------------------------- */

static void fail(struct replica *replica, const char *what, int error)
{
    const char *advice = "look at the disk and the kernel's log before starting again";
    if (error == ERR_NO_SPACE) {
        advice = "make room on this disk and start again: nothing acknowledged is lost";
    }
    replica__fatal(replica, "%s in %s failed: %s; %s", what, replica->dir, err_text(error), advice);
}

static int run_chunk(struct persist_worker *worker, const struct raft_write *write)
{
    return snapshot_staging_write(&worker->staging, write->chunk_snapshot->id, write->chunk_offset,
                                  write->chunk);
}

/* Log time must survive the entries that carried it. */
static int store_log_time(struct replica *replica, uint64_t log_time_ms)
{
    struct persist_worker *worker = &replica->persist;
    if (log_time_ms <= worker->stored.log_time_ms) {
        return ERR_OK;
    }
    worker->stored.log_time_ms = log_time_ms;
    return identity_store(replica->env.vfs, replica->dir, &worker->stored);
}

static int run_install(struct replica *replica, struct persist_job *job)
{
    struct persist_worker *worker = &replica->persist;
    const struct raft_snapshot *snapshot = job->install;
    int error = snapshot_staging_finish(&worker->staging, snapshot, &job->ready_path);
    if (error == ERR_CORRUPT) {
        log_event(LOG_WARN, "snapshot.not_intact",
                  "group=%" PRIu64 " replica=%" PRIu64 " index=%" PRIu64
                  " advice=it_is_asked_for_anew",
                  replica->options.group_id, replica->options.replica_id, snapshot->position.index);
        job->install_failed = true;
        return ERR_OK;
    }
    if (error == ERR_OK) {
        job->log_time_ms = worker->staging.log_time_ms;
        error = store_log_time(replica, job->log_time_ms);
    }
    if (error == ERR_OK) {
        error = wal_reset(worker->wal, snapshot->position, &snapshot->membership, false);
        worker->unsynced = false; /* a reset is durable and nothing older is left */
    }
    return error;
}

static bool run_write(struct replica *replica, struct persist_job *job)
{
    struct persist_worker *worker = &replica->persist;
    const struct raft_write *write = &job->write;
    int error;
    if (job->chunk_snapshot != NULL) {
        error = run_chunk(worker, write);
        if (error != ERR_OK) {
            fail(replica, "writing a received snapshot", error);
            return false;
        }
    }
    if (job->install != NULL) {
        error = run_install(replica, job);
        if (error != ERR_OK) {
            fail(replica, "installing a received snapshot", error);
            return false;
        }
    }
    if (write->entry_count == 0 && write->truncate_from == 0 && !write->hard_state_changed) {
        return true;
    }
    struct wal_append append = {
        .truncate_from = write->truncate_from,
        .entries = write->entries,
        .entry_count = write->entry_count,
        .hard_state = write->hard_state_changed ? &write->hard_state : NULL,
    };
    error = wal_write(worker->wal, &append);
    if (error != ERR_OK) {
        fail(replica, "writing the log", error);
        return false;
    }
    worker->unsynced = true;
    return true;
}

/* Makes the writes in jobs[0..count) durable and sends what was held for them. */
static bool settle(struct replica *replica, struct replica_job *const *jobs, size_t count)
{
    struct persist_worker *worker = &replica->persist;
    bool must_sync = false;
    for (size_t i = 0; i < count; i++) {
        must_sync = must_sync || ((struct persist_job *)jobs[i])->write.must_sync;
    }
    if (must_sync && worker->unsynced) {
        int error = wal_make_durable(worker->wal);
        if (error != ERR_OK) {
            fail(replica, "syncing the log", error);
            return false;
        }
        worker->unsynced = false;
    }
    for (size_t i = 0; i < count; i++) {
        struct persist_job *job = (struct persist_job *)jobs[i];
        for (size_t h = 0; h < job->held_count; h++) {
            replica->env.send(replica->env.context, job->held[h].peer, &job->held[h].frame);
        }
    }
    /* The mark is not synced, so nobody need wait for it. */
    int error = wal_mark(worker->wal);
    if (error != ERR_OK) {
        fail(replica, "marking the log", error);
    }
    return error == ERR_OK;
}

static bool run_compact(struct replica *replica, struct persist_job *job)
{
    int error = store_log_time(replica, job->log_time_ms);
    if (error == ERR_OK) {
        error = wal_compact(replica->persist.wal, job->compact_base, &job->compact_membership);
    }
    if (error != ERR_OK) {
        fail(replica, "compacting the log", error);
    }
    return error == ERR_OK;
}

static bool run_identity(struct replica *replica, struct persist_job *job)
{
    struct identity *stored = &replica->persist.stored;
    stored->peer_count = job->peer_count;
    memcpy(stored->peers, job->peers, sizeof(stored->peers));
    int error = identity_store(replica->env.vfs, replica->dir, stored);
    if (error != ERR_OK) {
        fail(replica, "writing the identity file", error);
    }
    return error == ERR_OK;
}

void replica__persist_run(struct replica_job *const *jobs, size_t count)
{
    struct replica *replica = jobs[0]->replica;
    size_t settled = 0;
    for (size_t i = 0; i < count; i++) {
        ASSERT(jobs[i]->worker == REPLICA_PERSIST);
        struct persist_job *job = (struct persist_job *)jobs[i];
        bool plain = job->kind == PERSIST_WRITE && job->install == NULL;
        bool fine = !replica->dead;
        if (fine && !plain) {
            fine = settle(replica, jobs + settled, i - settled);
            settled = i;
        }
        if (fine) {
            switch (job->kind) {
            case PERSIST_WRITE:
                fine = run_write(replica, job);
                break;
            case PERSIST_COMPACT:
                fine = run_compact(replica, job);
                break;
            case PERSIST_IDENTITY:
                fine = run_identity(replica, job);
                break;
            }
        }
        if (!fine) {
            return;
        }
    }
    (void)settle(replica, jobs + settled, count - settled);
}

/* ---- loop: done ------------------------------------------------------------------------------ */

static void persist_done(struct replica_job *base)
{
    struct replica *replica = base->replica;
    struct persist_job *job = (struct persist_job *)base;
    switch (job->kind) {
    case PERSIST_WRITE:
        if (job->install_failed) {
            replica->install_pending = false;
            raft_core_install_failed(replica->core, job->write.seq);
        } else if (job->install != NULL) {
            replica->install_pending = false;
            replica__log_time_seen(replica, job->log_time_ms);
            replica__compaction_reset(replica);
            replica__restore_submit(replica, job->install, job->ready_path);
        }
        raft_core_persisted(replica->core, job->write.seq);
        break;
    case PERSIST_COMPACT:
        replica->compaction.compacting = false;
        break;
    case PERSIST_IDENTITY:
        replica__identity_stored(replica);
        break;
    }
}

static void persist_release(struct replica_job *base)
{
    struct persist_job *job = (struct persist_job *)base;
    for (size_t i = 0; i < job->write.entry_count; i++) {
        blob_unref(job->entries[i].owner);
    }
    free(job->entries);
    for (size_t i = 0; i < job->held_count; i++) {
        buf_deinit(&job->held[i].frame);
    }
    free(job->held);
    if (job->chunk_snapshot != NULL) {
        blob_unref(job->write.chunk_owner);
    }
    free(job->chunk_snapshot);
    free(job->install);
    free(job->ready_path);
    free(job);
}
