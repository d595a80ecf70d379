/* The replicated state of one shard group: data, sessions, shard states, over a struct store.
 * Deterministic: everything in the store but the row `ma` follows from the commands of the log
 * alone, however they are grouped into batches.
 *
 * Threads. apply, restore and kv_machine_read on the apply thread; flush, snapshots and hash on the
 * background thread; kv_machine_table and the kv_move_... functions on any thread.
 *
 * Invariants.
 *   1. The store holds the effect of a prefix of the log: up to `applied`, and then perhaps the
 *      first commands of later entries (`partial`), which are skipped when they come again after a
 *      crash.
 *   2. Between two calls of apply, nothing is unwritten: overlay, dirty sessions and dirty records
 *      are empty.
 *   3. Data and session rows exist only for shards that are not ABSENT.
 *   4. A command changes data only while its shard is SERVING. */
#ifndef SHARDKV_KV_MACHINE_H
#define SHARDKV_KV_MACHINE_H

#include "base/vfs.h"
#include "raft/node/state_machine.h"
#include "shardkv/kv_table.h"
#include "shardkv/store.h"

struct kv_machine;

struct kv_machine_options {
    uint64_t group_id;
    const struct store *store;       /* copied; closed by its owner after the machine */
    const struct vfs *vfs;           /* for files of snapshots */
    uint64_t session_cache_bytes;    /* default 8 MiB */
    uint32_t sessions_per_shard_max; /* 0: KV_SESSIONS_PER_SHARD_MAX. Must be equal on all replicas;
                                        tests set it */
    /* The table changed. On the apply thread; must not block. May be NULL. */
    void (*changed)(void *context);
    void *context;
};

/* Loads the state. ERR_CORRUPT: `why` says which row. gives *out. */
int kv_machine_create(const struct kv_machine_options *options, struct kv_machine **out, char *why,
                      size_t why_size) MUST_USE;
void kv_machine_destroy(struct kv_machine *machine);
struct state_machine kv_machine_ops(struct kv_machine *machine);

/* The newest published table; gives a reference. */
struct kv_table *kv_machine_table(struct kv_machine *machine);

/* Answers a block of gets (checked before by block_check) as of now: appends what a
 * KV_COMMAND_BLOCK answers. Apply thread. An error is the store's and final. */
int kv_machine_read(struct kv_machine *machine, struct bytes block, struct buf *result) MUST_USE;

/* ---- the source's side of a move: any thread; a view of the store, never the apply thread's state
 * -------------- */

/* What the group's newest state says to a destination that asks for (shard, number): 0: it is
 * frozen under `number` for `to_group`; CONFIG_BEHIND; NOT_FOUND: dropped already; INVALID: this
 * config never took it from us. */
int kv_move_check(struct kv_machine *machine, uint32_t shard, uint64_t number,
                  uint64_t to_group) MUST_USE;

struct kv_move_rows {
    struct buf rows;     /* packed */
    struct buf last_row; /* key of the last of them */
    bool end;
};
/* Rows after `after_row` up to `bytes_max`, but at least one if there is any. Replaces what `out`
 * held. Errors of kv_move_check, ERR_INVALID for an `after_row` that is none, ERR_BUSY while the
 * store is being replaced. */
int kv_move_read(struct kv_machine *machine, uint32_t shard, uint64_t number, uint64_t to_group,
                 struct bytes after_row, size_t bytes_max, struct kv_move_rows *out) MUST_USE;

/* Counting all rows of a frozen shard, a slice at a time so that others get their turn. */
struct kv_move_scan {
    uint32_t shard;
    uint64_t number;
    uint64_t to_group;
    struct buf after_row;
    uint64_t rows;
    uint64_t bytes;
    uint64_t checksum;
    bool done;
};
void kv_move_scan_init(struct kv_move_scan *scan, uint32_t shard, uint64_t number,
                       uint64_t to_group);
void kv_move_scan_deinit(struct kv_move_scan *scan);
int kv_move_scan_step(struct kv_machine *machine, struct kv_move_scan *scan,
                      uint32_t rows_max) MUST_USE;

/* About how much a shard holds: counted up to `rows_max` rows or KV_SIZE_BYTES_COUNTED_MAX bytes,
 * estimated beyond. Any thread; may read the disk. */
enum { KV_SIZE_BYTES_COUNTED_MAX = 4 * 1024 * 1024 };
struct kv_shard_size {
    uint64_t keys;
    uint64_t bytes;
};
int kv_machine_shard_size(struct kv_machine *machine, uint32_t shard, uint32_t rows_max,
                          struct kv_shard_size *out) MUST_USE;

#endif
