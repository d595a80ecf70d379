/* Snapshots on their way out. Loop thread, with jobs of the background worker that make, read and
 * close them.
 *
 *   the core wants one             --> [make job]  --> unoffered --applied reaches it--> offered
 *   the core sends a chunk of it   --> [chunk job: read, encode, send]
 *   the core names it no longer, or the log was compacted beyond it --> [close job]
 *
 * At most one is being made. An older one lives on while the core is still sending it to somebody.
 * One that nobody asks for any more does not hold back compaction (replica_compact.c), so it goes
 * with the next one. */
#include "raft/node/replica_internal.h"

#include "base/assert.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    SNAPSHOT_RETRY_TICKS = 100, /* after one could not be made: the disk is full, most likely */
};

/* ---- closing --------------------------------------------------------------------------------- */

struct outgoing_job {
    struct replica_job base;
    struct outgoing_snapshot *out;
    int error;
};

static void outgoing_free(struct replica *replica, struct outgoing_snapshot *out)
{
    if (out->reader != NULL) {
        replica->sm.ops->snapshot_close(out->reader);
    }
    free(out->dir);
    free(out);
}

static void close_run(struct replica_job *base)
{
    struct replica *replica = base->replica;
    struct outgoing_snapshot *out = ((struct outgoing_job *)base)->out;
    if (out->reader != NULL) {
        replica->sm.ops->snapshot_close(out->reader);
        out->reader = NULL;
    }
    if (out->dir != NULL) {
        int error = snapshot_store_remove(replica->env.vfs, replica->snapshot_dir, out->dir);
        if (error != ERR_OK) { /* the next start tries again */
            log_event(LOG_WARN, "snapshot.remove_failed", "dir=%s error=%s", out->dir,
                      err_name(error));
        }
    }
}

static void close_done(struct replica_job *base)
{
    (void)base;
}

static void outgoing_release(struct replica_job *base)
{
    struct outgoing_job *job = (struct outgoing_job *)base;
    if (job->out != NULL) {
        outgoing_free(base->replica, job->out);
    }
    free(job);
}

static const struct replica_job_ops close_ops = {
    .run = close_run, .done = close_done, .release = outgoing_release};

/* takes */
static void outgoing_close(struct replica *replica, struct outgoing_snapshot *out)
{
    ASSERT_CMP(out->chunk_count, ==, 0);
    struct outgoing_job *job = mem_calloc(1, sizeof(*job));
    replica__job_init(&job->base, replica, REPLICA_BACKGROUND, "snapshot-close", &close_ops);
    job->out = out;
    replica__submit(replica, &job->base);
}

/* ---- making ---------------------------------------------------------------------------------- */

/* A state that does not read back as it was written is not led with: the others have a good one. */
static void stop_if_damaged(struct replica *replica, int error, const char *doing)
{
    if (error == ERR_CORRUPT) {
        replica__fatal(
            replica,
            "%s in %s: a part of the store fails its checksum; keep the directory for "
            "inspection, remove this replica from its group and add it again under a new "
            "id with an empty directory",
            doing, replica->dir);
    }
}

static void make_run(struct replica_job *base)
{
    struct outgoing_job *job = (struct outgoing_job *)base;
    struct outgoing_snapshot *out = job->out;
    struct replica *replica = base->replica;
    uint64_t size_bytes = 0;
    job->error = snapshot_store_make_out(replica->env.vfs, replica->snapshot_dir, out->snapshot.id,
                                         &out->dir);
    if (job->error == ERR_OK) {
        job->error = replica->sm.ops->snapshot_open(
            replica->sm.sm, out->dir, &out->snapshot.position, &size_bytes, &out->reader);
    }
    stop_if_damaged(replica, job->error, "making a snapshot of the state");
    out->snapshot.size_bytes = SNAPSHOT_HEADER_BYTES + size_bytes;
}

static void make_done(struct replica_job *base)
{
    struct outgoing_job *job = (struct outgoing_job *)base;
    struct replica *replica = base->replica;
    struct outgoing_snapshot *out = job->out;
    job->out = NULL;
    replica->snapshot_making = false;
    if (job->error != ERR_OK) { /* the follower stays behind; it is tried again, not at once */
        log_event(LOG_WARN, "snapshot.make_failed", "group=%" PRIu64 " error=%s",
                  replica->options.group_id, err_name(job->error));
        replica->snapshot_retry_at_tick = replica->tick_count + SNAPSHOT_RETRY_TICKS;
    }
    if (replica->stopping) {
        outgoing_free(replica, out);
        return;
    }
    if (job->error != ERR_OK) {
        outgoing_close(replica, out); /* what there is of it takes room on a disk that is full */
        return;
    }
    ASSERT(replica->snapshot_unoffered == NULL);
    replica->snapshot_unoffered = out;
}

static const struct replica_job_ops make_ops = {
    .run = make_run, .done = make_done, .release = outgoing_release};

static void start_making(struct replica *replica)
{
    struct outgoing_job *job = mem_calloc(1, sizeof(*job));
    replica__job_init(&job->base, replica, REPLICA_BACKGROUND, "snapshot-make", &make_ops);
    job->out = mem_calloc(1, sizeof(*job->out));
    do {
        job->out->snapshot.id = rng_next(&replica->rng);
    } while (job->out->snapshot.id == 0);
    replica->snapshot_making = true;
    replica__submit(replica, &job->base);
}

void replica__snapshots_offer(struct replica *replica)
{
    struct outgoing_snapshot *out = replica->snapshot_unoffered;
    struct raft_membership membership;
    if (out == NULL || replica->status.applied < out->snapshot.position.index) {
        return;
    }
    replica->snapshot_unoffered = NULL;
    uint64_t index = out->snapshot.position.index;
    bool known = index >= replica->status.log_start.index &&
                 raft_core_term_at(replica->core, index) == out->snapshot.position.term &&
                 raft_core_membership_at(replica->core, index, &membership);
    /* the log was compacted or replaced meanwhile: if it is still needed, another is made */
    if (!known) {
        outgoing_close(replica, out);
        return;
    }
    out->snapshot.membership = membership;
    snapshot_header_encode(replica__log_time(replica), out->header);
    out->next = replica->outgoing;
    replica->outgoing = out;
    raft_core_snapshot_made(replica->core, &out->snapshot);
    /* The next tick comes before the next look at the core, and must not find it wanted still. */
    raft_core_status(replica->core, &replica->status);
    log_event(LOG_INFO, "snapshot.made",
              "group=%" PRIu64 " replica=%" PRIu64 " index=%" PRIu64 " bytes=%" PRIu64
              " id=%016" PRIx64,
              replica->options.group_id, replica->options.replica_id, index,
              out->snapshot.size_bytes, out->snapshot.id);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

struct chunk_job {
    struct replica_job base;
    struct outgoing_snapshot *out;
    struct raft_message message; /* its snapshot points at `snapshot` */
    struct raft_snapshot snapshot;
};

static int read_stream(struct replica *replica, struct outgoing_snapshot *out, uint64_t offset,
                       uint8_t *data, size_t size)
{
    if (offset < SNAPSHOT_HEADER_BYTES) {
        size_t part = (size_t)(SNAPSHOT_HEADER_BYTES - offset);
        part = part < size ? part : size;
        memcpy(data, out->header + offset, part);
        data += part;
        size -= part;
        offset += part;
    }
    if (size == 0) {
        return ERR_OK;
    }
    return replica->sm.ops->snapshot_read(out->reader, offset - SNAPSHOT_HEADER_BYTES, data, size);
}

static void send_chunk(void *context, uint64_t peer, struct buf *frame)
{
    struct replica *replica = context;
    replica->env.send(replica->env.context, peer, frame);
}

static void chunk_run(struct replica_job *base)
{
    struct chunk_job *job = (struct chunk_job *)base;
    struct replica *replica = base->replica;
    uint64_t left = job->snapshot.size_bytes - job->message.chunk_offset;
    size_t size =
        left < replica->options.chunk_bytes_max ? (size_t)left : replica->options.chunk_bytes_max;
    uint8_t *data = mem_alloc(size);
    int error = read_stream(replica, job->out, job->message.chunk_offset, data, size);
    if (error != ERR_OK) { /* ours to serve, not ours to stop for: the follower is sent nothing */
        log_event(LOG_ERROR, "snapshot.read_failed",
                  "group=%" PRIu64 " offset=%" PRIu64 " error=%s", replica->options.group_id,
                  job->message.chunk_offset, err_name(error));
    } else {
        struct outbox outbox;
        outbox_init(&outbox);
        job->message.chunk = bytes_of(data, size);
        outbox_add(&outbox, &job->message);
        outbox_flush(&outbox, &replica->sender, send_chunk, replica);
        outbox_deinit(&outbox);
    }
    free(data);
}

static void chunk_done(struct replica_job *base)
{
    (void)base;
}

static void chunk_release(struct replica_job *base)
{
    struct chunk_job *job = (struct chunk_job *)base;
    for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (job->out->chunk_peers[i] == job->message.to) {
            job->out->chunk_peers[i] = 0;
        }
    }
    job->out->chunk_count--;
    free(job);
}

static const struct replica_job_ops chunk_ops = {
    .run = chunk_run, .done = chunk_done, .release = chunk_release};

/* A place for `peer` among those being served; NULL when a chunk for it is being read already. */
static uint64_t *chunk_place(struct outgoing_snapshot *out, uint64_t peer)
{
    uint64_t *place = NULL;
    for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (out->chunk_peers[i] == peer) {
            return NULL;
        }
        if (out->chunk_peers[i] == 0 && place == NULL) {
            place = &out->chunk_peers[i];
        }
    }
    return place;
}

void replica__chunk_submit(struct replica *replica, const struct raft_message *message)
{
    struct outgoing_snapshot *out = replica->outgoing;
    while (out != NULL && out->snapshot.id != message->snapshot->id) {
        out = out->next;
    }
    if (out == NULL) { /* compacted away between two ticks: the core will ask for another */
        return;
    }
    if (message->chunk_offset >= out->snapshot.size_bytes) {
        return;
    }
    out->unused_ticks = 0;
    uint64_t *place = chunk_place(out, message->to);
    if (place == NULL) {
        return; /* asked again before the first was read: one is enough */
    }
    *place = message->to;
    out->chunk_count++;
    struct chunk_job *job = mem_calloc(1, sizeof(*job));
    replica__job_init(&job->base, replica, REPLICA_BACKGROUND, "snapshot-chunk", &chunk_ops);
    job->out = out;
    job->message = *message;
    job->snapshot = *message->snapshot;
    job->message.snapshot = &job->snapshot;
    replica__submit(replica, &job->base);
}

/* ---- policy ---------------------------------------------------------------------------------- */

void replica__snapshots_tick(struct replica *replica)
{
    if (replica->status.snapshot_wanted != 0 && !replica->snapshot_making &&
        replica->snapshot_unoffered == NULL &&
        replica->tick_count >= replica->snapshot_retry_at_tick) {
        start_making(replica);
    }
    struct outgoing_snapshot **link = &replica->outgoing;
    while (*link != NULL) {
        struct outgoing_snapshot *out = *link;
        out->unused_ticks++;
        /* As long as the log goes on where it ends, the core may send it to anybody at any time. */
        bool wanted = raft_core_snapshot_in_use(replica->core, out->snapshot.id) &&
                      out->snapshot.position.index >= replica->status.log_start.index;
        if (out->chunk_count == 0 && !wanted) {
            *link = out->next;
            outgoing_close(replica, out);
        } else {
            link = &out->next;
        }
    }
}

void replica__snapshots_deinit(struct replica *replica)
{
    while (replica->outgoing != NULL) {
        struct outgoing_snapshot *out = replica->outgoing;
        replica->outgoing = out->next;
        outgoing_free(replica, out);
    }
    if (replica->snapshot_unoffered != NULL) {
        outgoing_free(replica, replica->snapshot_unoffered);
        replica->snapshot_unoffered = NULL;
    }
}

/* ---- hash: the other long look at the state machine
 * --------------------------------------------------------- */

struct hash_job {
    struct replica_job base;
    node_hash_fn done;
    void *context;
};

static void hash_run(struct replica_job *base)
{
    struct hash_job *job = (struct hash_job *)base;
    struct replica *replica = base->replica;
    struct raft_position position = {0, 0};
    uint64_t hash = 0;
    int error = replica->sm.ops->hash(replica->sm.sm, &hash, &position);
    stop_if_damaged(replica, error, "hashing the state");
    job->done(job->context, error, hash, position);
    job->done = NULL;
}

static void hash_done(struct replica_job *base)
{
    base->replica->hashing = false;
}

static void hash_release(struct replica_job *base)
{
    struct hash_job *job = (struct hash_job *)base;
    if (job->done != NULL) {
        job->done(job->context, ERR_SHUTDOWN, 0, (struct raft_position){0, 0});
    }
    free(job);
}

static const struct replica_job_ops hash_ops = {
    .run = hash_run, .done = hash_done, .release = hash_release};

void replica_hash(struct replica *replica, node_hash_fn done, void *context)
{
    if (replica->stopping || replica->dead || replica->hashing) {
        done(context, replica->hashing ? ERR_BUSY : ERR_SHUTDOWN, 0, (struct raft_position){0, 0});
        return;
    }
    struct hash_job *job = mem_calloc(1, sizeof(*job));
    replica__job_init(&job->base, replica, REPLICA_BACKGROUND, "hash", &hash_ops);
    job->done = done;
    job->context = context;
    replica->hashing = true;
    replica__submit(replica, &job->base);
}
