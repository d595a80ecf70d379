/* The driver's inputs: answers to what it proposed, asked and fetched. An answer whose task is gone
 * is ignored: what it would have led to stands in the table, or will be done again. */
#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/metrics.h"
#include "shardkv/mover_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

METRIC(move_chunk_damaged_count, COUNTER, "chunks of a moving shard whose checksum was wrong");

/* The task that waits for `id`, which waits no longer. */
static struct task *take(struct mover *mover, uint64_t id)
{
    struct task *task = mover__task_waiting_for(mover, id);
    if (task != NULL) {
        task->waiting_id = 0;
    }
    return task;
}

void mover_fetched(struct mover *mover, uint64_t id, int error, struct bytes config,
                   uint64_t now_ns)
{
    struct task *task = take(mover, id);
    if (task == NULL) {
        return;
    }
    mover->next_poll_ns = now_ns + mover->options.poll_interval_ns;
    if (error == 0) {
        mover__propose(mover, task,
                       &(struct kv_command){.kind = KV_COMMAND_CONFIG,
                                            .number = mover->latest > task->number ? mover->latest
                                                                                   : task->number,
                                            .config = config});
    } else if (error == ERR_CONFIG_UNKNOWN && mover->latest < task->number) {
        task->failures = 0; /* there is none yet */
    } else {
        mover__task_back_off(mover, task, now_ns);
    }
}

void mover_proposed(struct mover *mover, uint64_t id, int error, int answer, uint64_t now_ns)
{
    struct task *task = take(mover, id);
    if (task == NULL) {
        return;
    }
    if (error != 0) {
        mover__task_back_off(mover, task, now_ns);
        return;
    }
    bool expected = answer == 0 || answer == ERR_EXISTS;
    if (!expected) {
        log_event(LOG_WARN, "mover.refused", "task=%d shard=%u config=%" PRIu64 " answer=%s",
                  (int)task->kind, (unsigned)task->shard, task->number, err_name(answer));
        mover__task_back_off(mover, task, now_ns);
        return;
    }
    task->failures = 0;
    task->not_before_ns = 0;
    if (task->kind == TASK_EXPIRE) {
        /* The table tells whether this shard's round is over. */
        const struct kv_table *table = mover->table;
        if (mover->expire_shard >= table->shard_count ||
            table->shards[mover->expire_shard].expire_from == 0) {
            mover->expire_shard++;
        }
        task->not_before_ns = now_ns + EXPIRE_PAUSE_MS * NS_PER_MS;
    }
}

/* ---- replies of source groups
 * -------------------------------------------------------------------------------- */

static void read_replied(struct mover *mover, struct task *task, const struct mover_reply *reply,
                         uint64_t now_ns)
{
    if (crc32c_extend(0, reply->rows.data, reply->rows.size) != reply->rows_crc32c ||
        reply->rows.size == 0) {
        metric_add(&move_chunk_damaged_count, 1);
        mover__task_back_off(mover, task, now_ns);
        return;
    }
    mover__propose(mover, task,
                   &(struct kv_command){
                       .kind = KV_COMMAND_CHUNK,
                       .shard = task->shard,
                       .number = task->number,
                       .generation = task->generation,
                       .after_row = buf_view(&task->after_row),
                       .last_row = reply->last_row,
                       .rows = reply->rows,
                       .end = reply->end,
                   });
}

static void freeze_replied(struct mover *mover, struct task *task, const struct mover_reply *reply)
{
    mover__propose(mover, task,
                   &(struct kv_command){
                       .kind = KV_COMMAND_INSTALL,
                       .shard = task->shard,
                       .number = task->number,
                       .generation = task->generation,
                       .row_count = reply->row_count,
                       .row_bytes = reply->row_bytes,
                       .checksum = reply->checksum,
                   });
}

static void succeeded(struct mover *mover, struct task *task, const struct mover_reply *reply,
                      uint64_t now_ns)
{
    task->failures = 0;
    task->not_before_ns = 0;
    switch (task->verb) {
    case MOVER_OPEN:
        task->opened = true;
        return;
    case MOVER_READ:
        read_replied(mover, task, reply, now_ns);
        return;
    case MOVER_FREEZE:
        freeze_replied(mover, task, reply);
        return;
    case MOVER_DROP:
        task->confirming = true;
        return;
    }
    UNREACHABLE();
}

/* A follower that knows its leader costs one more call, not a wait; when who was named by another
 * declines too, the group is electing, and the search goes on after a wait. Earlier failures do not
 * count: a leader that joined its group later is in no config, and is found by a hint only. */
static void redirected(struct mover *mover, struct peer *peer, const char *leader_address,
                       uint64_t now_ns)
{
    bool known = leader_address != NULL && leader_address[0] != '\0' &&
                 strcmp(peer->leader, leader_address) != 0 && !peer->hinted;
    if (!known) {
        mover__peer_failed(mover, peer, now_ns);
        return;
    }
    snprintf(peer->leader, sizeof peer->leader, "%s", leader_address);
    peer->attempt++;
    peer->hinted = true;
}

void mover_replied(struct mover *mover, uint64_t id, const struct mover_reply *reply,
                   uint64_t now_ns)
{
    struct task *task = take(mover, id);
    if (task == NULL) {
        return;
    }
    struct peer *peer = mover__peer_of(mover, task->source);
    if (reply->error == 0) {
        peer->failures = 0;
        peer->hinted = false;
        peer->not_before_ns = 0;
        succeeded(mover, task, reply, now_ns);
    } else if (task->attempt != peer->attempt) {
        task->not_before_ns = 0; /* another replica is being asked by now */
    } else if (reply->error == ERR_NOT_LEADER) {
        redirected(mover, peer, reply->leader_address, now_ns);
    } else if (reply->error == ERR_BUSY || reply->error == ERR_NOT_FOUND ||
               reply->error == ERR_INVALID) {
        /* It lives, and this shard is not ready, or not there: others of its shards may be. */
        peer->failures = 0;
        peer->hinted = false;
        mover__task_back_off(mover, task, now_ns);
        if (reply->error != ERR_BUSY) {
            log_event(LOG_WARN, "move.not_there",
                      "shard=%u config=%" PRIu64 " source=%" PRIu64 " error=%s",
                      (unsigned)task->shard, task->number, task->source, err_name(reply->error));
        }
    } else if (reply->error == ERR_CONFIG_BEHIND) {
        /* All of its shards that we want wait for the same config. */
        peer->attempt++;
        mover__peer_rest(mover, peer, now_ns);
    } else {
        log_event(LOG_INFO, "move.call_failed",
                  "shard=%u config=%" PRIu64 " source=%" PRIu64 " verb=%d error=%s",
                  (unsigned)task->shard, task->number, task->source, (int)task->verb,
                  err_name(reply->error));
        mover__peer_failed(mover, peer, now_ns);
    }
}
