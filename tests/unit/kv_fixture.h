/* Shared by the tests of the shard state machine: a log, replicas that apply it over lossy stores,
 * and short words for commands. */
#ifndef TESTS_UNIT_KV_FIXTURE_H
#define TESTS_UNIT_KV_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "lib/fake_store.h"
#include "proto/command.h"
#include "shardkv/kv_command.h"
#include "shardkv/kv_machine.h"

/* A group's log in memory. A command belongs to an entry; an entry without commands is one of
 * Raft's own. */
struct log_command {
    uint64_t index;
    uint64_t time_ms;
    struct blob *payload;
};
struct kv_log {
    struct log_command *commands;
    size_t count;
    size_t capacity;
    uint64_t last_index;
    uint64_t time_ms;
};
void kv_log_deinit(struct kv_log *log);
/* Begins the next entry, `ms` later than the one before. */
void kv_log_entry(struct kv_log *log, uint64_t ms);
/* A command in the newest entry; takes the memory of `payload`. */
void kv_log_add(struct kv_log *log, struct buf *payload);

struct kv_replica {
    struct fake_store *fake;
    struct store store;
    struct kv_machine *machine;
    struct state_machine sm;
    uint64_t group_id;
    uint32_t sessions_max;
    uint64_t session_cache_bytes;
    size_t next; /* the first command of the log that is not applied; derived from the store after a
                    crash */
};
void kv_replica_open(struct kv_replica *replica,
                     uint64_t group_id); /* sessions_max may be set before */
void kv_replica_close(struct kv_replica *replica);
/* Power loss that keeps the first `keep` unflushed batches; then open again, as a new process. */
void kv_replica_crash(struct kv_replica *replica, size_t keep);
/* Applies the entries up to `index` as one batch; the results of its commands, in order, are
 * appended to `results` (may be NULL). */
void kv_replica_apply(struct kv_replica *replica, const struct kv_log *log, uint64_t index,
                      struct buf *results);
/* Everything that is left, cut into batches at random. */
void kv_replica_apply_random(struct kv_replica *replica, const struct kv_log *log, struct rng *rng);
uint64_t kv_replica_hash(struct kv_replica *replica);

/* One replica and its log, applying each command at once: for tests of single transitions. */
struct kv_single {
    struct kv_log log;
    struct kv_replica replica;
    struct buf result; /* of the last command */
};
void kv_single_open(struct kv_single *single, uint64_t group_id);
void kv_single_close(struct kv_single *single);
/* Applies a command as an entry of its own; the error it was answered with. */
int kv_single_run(struct kv_single *single, const struct kv_command *command);
/* The same for an operation; `client_id` 0: no session. */
struct op_result kv_single_op(struct kv_single *single, uint64_t client_id, const struct op *op);
/* The same with age and acked_below. */
struct op_result kv_single_block(struct kv_single *single, const struct block_header *header,
                                 const struct op *op);
struct op_result kv_single_put(struct kv_single *single, uint32_t shard, const char *key,
                               const char *value);
/* Reads; the value is copied into `value` (as a string). */
struct op_result kv_single_get(struct kv_single *single, uint32_t shard, const char *key,
                               struct buf *value);
enum shard_state kv_single_state(struct kv_single *single, uint32_t shard);

/* Configs: `owners` and `sources` by shard; every nonzero group in them is listed. gives. */
struct config *test_config(uint64_t number, uint32_t shard_count, const uint64_t *owners,
                           const uint64_t *sources);
int kv_single_config(struct kv_single *single, uint64_t number, uint32_t shard_count,
                     const uint64_t *owners, const uint64_t *sources);
/* Copies a frozen shard from one to the other by chunks of `bytes_max`, and installs it. The
 * destination's last answer. */
int kv_copy_shard(struct kv_single *from, struct kv_single *to, uint32_t shard, uint64_t number,
                  size_t bytes_max);

#define KEY(text) bytes_of_string(text)

#endif
