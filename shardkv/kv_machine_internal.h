/* What the files of kv_machine share. Nothing else includes it. */
#ifndef SHARDKV_KV_MACHINE_INTERNAL_H
#define SHARDKV_KV_MACHINE_INTERNAL_H

#include "shardkv/keys.h"
#include "shardkv/kv_command.h"
#include "shardkv/kv_machine.h"
#include "shardkv/overlay.h"
#include "shardkv/session_cache.h"

#include <pthread.h>
#include <stdatomic.h>

struct kv_machine {
    struct kv_machine_options options;
    struct store store;

    /* ---- apply thread only ---- */
    struct config_share *config; /* NULL: none yet */
    /* No shard is served before this config: the newest there was when the first one was taken. A
     * group goes through the configs in order, and those before tell of its past; one that had a
     * past, left, was wiped and joined again must not take the shards it owned then for its own. */
    uint64_t serves_from;
    uint32_t shard_count;
    struct shard_record *shards;
    bool *shard_dirty;      /* [shard_count] the record differs from the store's */
    uint32_t *dirty_shards; /* list of them */
    uint32_t dirty_shard_count;
    struct pending_drop *pending; /* by shard, then number */
    uint32_t pending_count;
    uint32_t pending_capacity;
    struct session_cache sessions;
    struct overlay overlay;
    struct store_batch *batch;
    bool batch_rows; /* rows were put into or deleted from `batch` directly: the store does not show
                        them yet */
    bool batch_meta; /* config or pending drops were put into `batch` */
    bool table_dirty;
    uint64_t partial_index; /* commands of entries below it, and the first partial_count of it, are
                               applied already */
    uint32_t partial_count;
    struct buf scratch;

    /* Held during every apply and restore. Who holds it sees the store at `applied` exactly. */
    pthread_mutex_t apply_mutex;
    /* Read-held by everyone off the apply thread who is inside the store; write-held while it is
     * replaced. */
    pthread_rwlock_t gate;
    atomic_bool replacing; /* long scans look at it and give up */

    pthread_mutex_t state_mutex; /* guards what is below */
    struct raft_position applied;
    struct raft_position durable;
    struct kv_table *table;
    uint32_t *reclaim; /* shards dropped since the last flush */
    uint32_t reclaim_count;
    uint32_t reclaim_capacity;
};

/* kv_machine.c */
struct shard_record *kv__shard(struct kv_machine *machine, uint32_t shard); /* NULL: out of range */
void kv__shard_touch(struct kv_machine *machine, uint32_t shard);
/* Writes everything unwritten now, with the note that `partial` commands of entry `index` are in.
 */
int kv__barrier(struct kv_machine *machine, uint64_t index, uint32_t count);
bool kv__is_unwritten(const struct kv_machine *machine);
int kv__load(struct kv_machine *machine, char *why, size_t why_size);
void kv__unload(struct kv_machine *machine);
void kv__publish(struct kv_machine *machine);
void kv__set_applied(struct kv_machine *machine, struct raft_position position);

/* kv_block.c: an error is the store's */
int kv__apply_block(struct kv_machine *machine, const struct sm_command *command);

/* 0, WRONG_GROUP or SHARD_MOVING, for a shard of this group's newest config. */
int kv__serves(const struct kv_machine *machine, const struct shard_record *record);

/* kv_lifecycle.c: *answer is the command's result; the return value is the store's error */
int kv__apply_config(struct kv_machine *machine, const struct kv_command *command, uint64_t time_ms,
                     int *answer);
int kv__apply_drop(struct kv_machine *machine, const struct kv_command *command, int *answer);
int kv__apply_step(struct kv_machine *machine, const struct kv_command *command, int *answer);
int kv__apply_drop_confirmed(struct kv_machine *machine, const struct kv_command *command,
                             int *answer);
int kv__apply_expire(struct kv_machine *machine, const struct kv_command *command, uint64_t time_ms,
                     int *answer);

/* kv_install.c */
int kv__apply_chunk(struct kv_machine *machine, const struct kv_command *command, uint64_t time_ms,
                    int *answer);
int kv__apply_install(struct kv_machine *machine, const struct kv_command *command, int *answer);

/* pending list, kv_machine.c; takes `source` */
void kv__pending_add(struct kv_machine *machine, uint32_t shard, uint64_t number,
                     struct blob *source);
bool kv__pending_remove(struct kv_machine *machine, uint32_t shard, uint64_t number);

/* The fence of every move verb at the source: see kv_move_check. `config_number` is the group's. */
int kv__source_check(const struct shard_record *record, uint64_t config_number, uint64_t number,
                     uint64_t to_group);

/* kv_flush.c */
void kv__reclaim_later(struct kv_machine *machine, uint32_t shard);
int kv__flush(void *sm);
int kv__hash(void *sm, uint64_t *hash, struct raft_position *position);

/* kv_snapshot.c */
int kv__snapshot_open(void *sm, const char *dir, struct raft_position *position,
                      uint64_t *size_bytes, struct sm_snapshot_reader **out);
int kv__snapshot_read(struct sm_snapshot_reader *reader, uint64_t offset, uint8_t *data,
                      size_t size);
void kv__snapshot_close(struct sm_snapshot_reader *reader);
int kv__receive_open(void *sm, const char *dir, struct sm_snapshot_writer **out);
int kv__receive_write(struct sm_snapshot_writer *writer, struct bytes bytes);
int kv__receive_finish(struct sm_snapshot_writer *writer);
void kv__receive_close(struct sm_snapshot_writer *writer);
int kv__restore(void *sm, const char *dir);

/* The gate for readers: ERR_BUSY while the store is being replaced; or waiting until it is done. */
void kv__gate_wait(struct kv_machine *machine);
int kv__gate_enter(struct kv_machine *machine);
void kv__gate_leave(struct kv_machine *machine);

#endif
