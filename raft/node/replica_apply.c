/* The apply worker: committed entries become batches of the state machine, in order; answers and
 * reads come out. It is also the log's only reader, so loads for slow followers run here.
 *
 *   committed AND durable here --> [apply job]   --> sm.apply, answers --> the core: applied
 *   a read's index is handed   --> [read job]    --> serve(0)
 *   a snapshot was installed   --> [restore job] --> sm.restore, its folder removed
 *
 * Entries come from the core's cache, referenced on the loop. What the core has no longer (after a
 * start) is read from the log by the job itself. Should an install cut the log away from under such
 * a job, it applies nothing and the restore behind it, which holds all of that, takes its place;
 * reads in between see that `applied` did not get there and are refused. */
#include "raft/node/replica_internal.h"

#include "base/assert.h"
#include "raft/node/log_entry.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOG_READ_ENTRIES_MAX = 4096,   /* entries of one apply job that reads the log */
    RESULT_BYTES_KEPT = 64 * 1024, /* of an answer's memory, for the next one */
    RESULTS_KEPT = 4096,
    SMALL_BYTES_MAX = 16 * 1024, /* applied in less time than another thread needs to wake up */
};

/* ---- worker: a batch ------------------------------------------------------------------------- */

struct apply_job {
    struct replica_job base;
    uint64_t from;
    uint64_t to;
    struct raft_entry *entries; /* [from, to] referenced; NULL: to be read from the log */
    size_t entry_count;
    struct entry_waiter *waiters; /* of positions in [from, to] */
    bool log_gone;
};

static void reserve_commands(struct apply_worker *worker, size_t count)
{
    if (count > worker->command_capacity) {
        size_t capacity = worker->command_capacity == 0 ? 256 : worker->command_capacity;
        while (capacity < count) {
            capacity *= 2;
        }
        worker->commands = mem_realloc(worker->commands, capacity * sizeof(worker->commands[0]));
        worker->results = mem_realloc(worker->results, capacity * sizeof(worker->results[0]));
        memset(worker->results + worker->result_capacity, 0,
               (capacity - worker->result_capacity) * sizeof(worker->results[0]));
        worker->command_capacity = capacity;
        worker->result_capacity = capacity;
    }
}

/* Keeps the memory of ordinary answers for the next batch and gives back what was out of the
 * ordinary. */
static void trim_results(struct apply_worker *worker, size_t used)
{
    for (size_t i = 0; i < used; i++) {
        if (worker->results[i].capacity > RESULT_BYTES_KEPT || i >= RESULTS_KEPT) {
            buf_deinit(&worker->results[i]);
        } else {
            buf_clear(&worker->results[i]);
        }
    }
}

/* How many entries, from the first, make one batch, and how many commands they hold. 0: an entry
 * cannot be read. */
static size_t batch_entries(const struct raft_entry *entries, size_t count, size_t *command_count)
{
    size_t bytes = 0;
    size_t taken = 0;
    *command_count = 0;
    while (taken < count) {
        struct log_entry_reader reader = {.count = 0};
        if (entries[taken].kind == RAFT_ENTRY_COMMAND &&
            log_entry_open(entries[taken].data, &reader) != ERR_OK) {
            return 0;
        }
        bytes += entries[taken].data.size;
        bool full = bytes > REPLICA_APPLY_BYTES_MAX ||
                    *command_count + reader.count > REPLICA_APPLY_COMMANDS_MAX;
        if (taken > 0 && full) {
            break;
        }
        *command_count += reader.count;
        taken++;
    }
    return taken;
}

/* Fills commands [at, ...) from one entry; gives how many, or -1 when its bytes are not right. */
static int fill_commands(struct apply_worker *worker, size_t at, const struct raft_entry *entry,
                         bool wanted)
{
    struct log_entry_reader reader;
    struct bytes payload;
    int count = 0;
    int error = log_entry_open(entry->data, &reader);
    while (error == ERR_OK && (error = log_entry_next(&reader, &payload)) == ERR_OK) {
        worker->commands[at] = (struct sm_command){
            .position = entry->position,
            .time_ms = reader.time_ms,
            .payload = payload,
            .result = wanted ? &worker->results[at] : NULL,
        };
        at++;
        count++;
    }
    return error == ERR_NOT_FOUND ? count : -1;
}

/* The waiter of this entry, if the front of the list is it. Those before it wait for nothing any
 * more. */
static struct entry_waiter *waiter_for(struct entry_waiter *waiters, const struct raft_entry *entry)
{
    while (waiters != NULL && waiters->position.index < entry->position.index) {
        waiters = waiters->next;
    }
    return waiters != NULL && raft_position_equal(waiters->position, entry->position) ? waiters
                                                                                      : NULL;
}

/* Answers the waiters up to `last`. `entries` are those of the batch, whose commands lie in order.
 * */
static void answer(struct apply_job *job, const struct raft_entry *entries, size_t count)
{
    struct apply_worker *worker = &job->base.replica->apply;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const struct raft_entry *entry = &entries[i];
        struct log_entry_reader reader = {.count = 0};
        if (entry->kind == RAFT_ENTRY_COMMAND) {
            int error = log_entry_open(entry->data, &reader);
            ASSERT_CMP(error, ==, ERR_OK);
        }
        while (job->waiters != NULL && job->waiters->position.index <= entry->position.index) {
            struct entry_waiter *waiter = job->waiters;
            job->waiters = waiter->next;
            if (!raft_position_equal(waiter->position, entry->position)) {
                /* Another leader's entry stands in its place: it will never be. But what was said
                 * is 'unknown' as soon as it was in a log; nobody may build on more. */
                replica__waiter_fail(waiter, ERR_LEADER_LOST);
                continue;
            }
            ASSERT_CMP(waiter->count, ==, reader.count);
            for (uint32_t c = 0; c < waiter->count; c++) {
                waiter->commands[c].done(waiter->commands[c].context, ERR_OK, waiter->position,
                                         buf_view(&worker->results[at + c]));
            }
            if (waiter->change_done != NULL) {
                waiter->change_done(waiter->change_context, ERR_OK);
            }
            free(waiter);
        }
        at += reader.count;
    }
}

/* One call of the state machine. False: the process is ending. */
static bool apply_batch(struct apply_job *job, const struct raft_entry *entries, size_t count,
                        size_t command_count)
{
    struct replica *replica = job->base.replica;
    struct apply_worker *worker = &replica->apply;
    reserve_commands(worker, command_count);
    size_t filled = 0;
    for (size_t i = 0; i < count; i++) {
        if (entries[i].kind != RAFT_ENTRY_COMMAND) {
            continue;
        }
        bool wanted = waiter_for(job->waiters, &entries[i]) != NULL;
        int more = fill_commands(worker, filled, &entries[i], wanted);
        if (more < 0) {
            replica__fatal(replica, "entry %" PRIu64 " of the log in %s cannot be read as commands",
                           entries[i].position.index, replica->dir);
            return false;
        }
        filled += (size_t)more;
    }
    ASSERT_CMP(filled, ==, command_count);
    struct sm_batch batch = {
        .commands = worker->commands, .count = filled, .last = entries[count - 1].position};
    int error = replica->sm.ops->apply(replica->sm.sm, &batch);
    if (error != ERR_OK) {
        replica__fatal(replica, "applying entries up to %" PRIu64 " in %s failed: %s; %s",
                       batch.last.index, replica->dir, err_text(error),
                       error == ERR_NO_SPACE
                           ? "make room on this disk and start again: nothing acknowledged is lost"
                           : "look at the disk before starting again");
        return false;
    }
    worker->applied = batch.last.index;
    answer(job, entries, count);
    trim_results(worker, filled);
    return true;
}

static bool apply_entries(struct apply_job *job, const struct raft_entry *entries, size_t count)
{
    struct replica *replica = job->base.replica;
    while (count > 0) {
        ASSERT_CMP(entries[0].position.index, ==, replica->apply.applied + 1);
        size_t command_count;
        size_t taken = batch_entries(entries, count, &command_count);
        if (taken == 0) {
            replica__fatal(replica, "entry %" PRIu64 " of the log in %s is of no known version",
                           entries[0].position.index, replica->dir);
            return false;
        }
        if (!apply_batch(job, entries, taken, command_count)) {
            return false;
        }
        entries += taken;
        count -= taken;
    }
    return true;
}

static void apply_from_log(struct apply_job *job)
{
    struct replica *replica = job->base.replica;
    uint64_t next = job->from;
    bool fine = true;
    while (fine && next <= job->to) {
        struct raft_entry *entries;
        size_t count;
        int error = wal_read(replica->persist.wal, next, job->to, REPLICA_APPLY_BYTES_MAX, &entries,
                             &count);
        if (error == ERR_NOT_FOUND) {
            job->log_gone = true;
            return;
        }
        if (error != ERR_OK) {
            replica__fatal(replica, "reading entry %" PRIu64 " of the log in %s failed: %s", next,
                           replica->dir, err_text(error));
            return;
        }
        fine = apply_entries(job, entries, count);
        next += count;
        wal_entries_free(entries, count);
    }
}

static void apply_run(struct replica_job *base)
{
    struct apply_job *job = (struct apply_job *)base;
    if (base->replica->apply.applied + 1 != job->from) {
        job->log_gone = true; /* the job before this one found the log gone */
    } else if (job->entries != NULL) {
        (void)apply_entries(job, job->entries, job->entry_count);
    } else {
        apply_from_log(job);
    }
}

/* ---- loop: handing entries over
 * -------------------------------------------------------------------------- */

static void apply_done(struct replica_job *base)
{
    struct replica *replica = base->replica;
    struct apply_job *job = (struct apply_job *)base;
    replica->apply_jobs--;
    if (!job->log_gone) {
        raft_core_applied(replica->core, job->to);
    } else if (!replica->install_pending && replica->restore_index < job->to) {
        replica__fatal(replica, "entries %" PRIu64 " to %" PRIu64 " are missing from the log in %s",
                       job->from, job->to, replica->dir);
    }
}

static void apply_release(struct replica_job *base)
{
    struct apply_job *job = (struct apply_job *)base;
    replica__waiters_fail(job->waiters, ERR_LEADER_LOST);
    for (size_t i = 0; i < job->entry_count; i++) {
        blob_unref(job->entries[i].owner);
    }
    free(job->entries);
    free(job);
}

static const struct replica_job_ops apply_ops = {
    .run = apply_run, .done = apply_done, .release = apply_release};

/* The next job's entries: as many as the core holds in memory, or a range to be read. */
static void choose_entries(struct replica *replica, struct apply_job *job, uint64_t limit)
{
    const struct raft_entry *entries;
    size_t count = raft_core_entries(replica->core, job->from, REPLICA_APPLY_BYTES_MAX, &entries);
    if (count > limit - job->from + 1) {
        count = (size_t)(limit - job->from + 1);
    }
    if (count == 0) {
        uint64_t most = LOG_READ_ENTRIES_MAX;
        job->to = limit - job->from < most ? limit : job->from + most - 1;
        return;
    }
    job->entries = mem_dup(entries, count * sizeof(entries[0]));
    job->entry_count = count;
    job->to = job->from + count - 1;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        blob_ref(job->entries[i].owner);
        bytes += entries[i].data.size;
    }
    job->base.is_small = bytes <= SMALL_BYTES_MAX;
}

static void hand_entries(struct replica *replica)
{
    uint64_t durable = replica->status.durable;
    uint64_t limit = replica->commit < durable ? replica->commit : durable;
    while (!replica->install_pending && replica->apply_jobs < REPLICA_APPLY_JOBS_MAX &&
           replica->handed < limit) {
        struct apply_job *job = mem_calloc(1, sizeof(*job));
        replica__job_init(&job->base, replica, REPLICA_APPLY, "apply", &apply_ops);
        job->from = replica->handed + 1;
        choose_entries(replica, job, limit);
        job->waiters = replica__waiters_take(replica, job->to);
        replica->handed = job->to;
        replica->apply_jobs++;
        replica__submit(replica, &job->base);
    }
}

/* ---- reads ----------------------------------------------------------------------------------- */

struct read_job {
    struct replica_job base;
    struct read_group *groups;
};

static void serve_groups(struct read_job *job, int error)
{
    /* On the apply worker when there is no error; refusals come from the loop too, which must not look at what it applied. */
    const struct replica *replica = job->base.replica;
    while (job->groups != NULL) {
        struct read_group *group = job->groups;
        job->groups = group->next;
        bool too_early = error == ERR_OK && replica->apply.applied < group->index;
        int verdict = too_early ? ERR_NOT_LEADER : error;
        replica__read_group_serve(group, verdict);
    }
}

static void read_run(struct replica_job *base)
{
    serve_groups((struct read_job *)base, ERR_OK);
}

static void read_done(struct replica_job *base)
{
    (void)base;
}

static void read_release(struct replica_job *base)
{
    serve_groups((struct read_job *)base, ERR_SHUTDOWN);
    free(base);
}

static const struct replica_job_ops read_ops = {
    .run = read_run, .done = read_done, .release = read_release};

void replica__apply_hand(struct replica *replica)
{
    hand_entries(replica);
    struct read_group *groups = replica__reads_take(replica, replica->handed);
    if (groups != NULL) {
        struct read_job *job = mem_calloc(1, sizeof(*job));
        replica__job_init(&job->base, replica, REPLICA_APPLY, "read", &read_ops);
        job->groups = groups;
        replica__submit(replica, &job->base);
    }
}

/* ---- restore --------------------------------------------------------------------------------- */

struct restore_job {
    struct replica_job base;
    struct raft_position position;
    char *path;
};

static void restore_run(struct replica_job *base)
{
    struct restore_job *job = (struct restore_job *)base;
    struct replica *replica = base->replica;
    int error = snapshot_store_restore(&replica->sm, job->path);
    if (error == ERR_OK) {
        replica->apply.applied = job->position.index;
        error = snapshot_store_remove_ready(replica->env.vfs, replica->snapshot_dir, job->path);
    }
    if (error != ERR_OK) {
        replica__fatal(replica,
                       "restoring the snapshot %s failed: %s; it is tried again at the next start",
                       job->path, err_text(error));
    }
}

static void restore_done(struct replica_job *base)
{
    struct restore_job *job = (struct restore_job *)base;
    raft_core_applied(base->replica->core, job->position.index);
}

static void restore_release(struct replica_job *base)
{
    free(((struct restore_job *)base)->path);
    free(base);
}

static const struct replica_job_ops restore_ops = {
    .run = restore_run, .done = restore_done, .release = restore_release};

void replica__restore_submit(struct replica *replica, const struct raft_snapshot *snapshot,
                             const char *ready_path)
{
    struct restore_job *job = mem_calloc(1, sizeof(*job));
    replica__job_init(&job->base, replica, REPLICA_APPLY, "restore", &restore_ops);
    job->position = snapshot->position;
    job->path = mem_strdup(ready_path);
    ASSERT_CMP(snapshot->position.index, >, replica->handed);
    /* Whoever still waits for an entry that the snapshot swallowed cannot be told what became of
     * it. */
    replica__waiters_fail(replica__waiters_take(replica, snapshot->position.index),
                          ERR_LEADER_LOST);
    replica->handed = snapshot->position.index;
    replica->restore_index = snapshot->position.index;
    if (replica->commit < replica->handed) {
        replica->commit = replica->handed;
    }
    replica__submit(replica, &job->base);
}

/* ---- loads ----------------------------------------------------------------------------------- */

struct load_job {
    struct replica_job base;
    struct raft_load load;
    uint64_t to_max;
    struct raft_entry *entries;
    size_t count;
};

static void load_run(struct replica_job *base)
{
    struct load_job *job = (struct load_job *)base;
    struct replica *replica = base->replica;
    int error = wal_read(replica->persist.wal, job->load.index, job->to_max, job->load.bytes_max,
                         &job->entries, &job->count);
    if (error != ERR_OK) {
        job->entries = NULL;
        job->count = 0;
    }
    if (error != ERR_OK && error != ERR_NOT_FOUND) {
        replica__fatal(replica, "reading entry %" PRIu64 " of the log in %s failed: %s",
                       job->load.index, replica->dir, err_text(error));
    }
}

static void load_done(struct replica_job *base)
{
    struct load_job *job = (struct load_job *)base;
    raft_core_entries_loaded(base->replica->core, job->load.peer, job->entries, job->count);
}

static void load_release(struct replica_job *base)
{
    struct load_job *job = (struct load_job *)base;
    if (job->entries != NULL) {
        wal_entries_free(job->entries, job->count);
    }
    free(job);
}

static const struct replica_job_ops load_ops = {
    .run = load_run, .done = load_done, .release = load_release};

void replica__load_submit(struct replica *replica, const struct raft_load *load)
{
    struct load_job *job = mem_calloc(1, sizeof(*job));
    replica__job_init(&job->base, replica, REPLICA_APPLY, "load", &load_ops);
    job->load = *load;
    job->to_max = replica->status.durable;
    replica__submit(replica, &job->base);
}

void replica__apply_deinit(struct replica *replica)
{
    struct apply_worker *worker = &replica->apply;
    for (size_t i = 0; i < worker->result_capacity; i++) {
        buf_deinit(&worker->results[i]);
    }
    free(worker->results);
    free(worker->commands);
}
