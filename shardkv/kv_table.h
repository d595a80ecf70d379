/* What other threads see of a group's shards: an immutable copy, shared by reference count,
 * replaced whenever it changes. The state machine checks again when it applies; this is for
 * routing, for status and for the driver of moves. */
#ifndef SHARDKV_KV_TABLE_H
#define SHARDKV_KV_TABLE_H

#include "proto/config.h"
#include "shardkv/shard_record.h"

struct kv_table {
    uint64_t group_id;
    struct config_share *config; /* NULL before the first */
    uint64_t config_number;      /* 0 before the first */
    uint64_t serves_from; /* no shard is served before this config; see kv_machine_internal.h */
    uint32_t shard_count; /* 0 before the first config */
    struct shard_record *shards;
    uint32_t pending_count; /* by shard, then number */
    struct pending_drop *pending;
};

/* Copies shards and pending (with references of their own); takes a reference to `config`. gives
 * one reference. */
struct kv_table *kv_table_create(uint64_t group_id, struct config_share *config,
                                 const struct shard_record *shards,
                                 const struct pending_drop *pending, uint32_t pending_count);
struct kv_table *kv_table_ref(struct kv_table *table);
void kv_table_unref(struct kv_table *table); /* NULL is fine */
/* 0, WRONG_GROUP or SHARD_MOVING; WRONG_GROUP for a shard out of range. */
int kv_table_serves(const struct kv_table *table, uint32_t shard);
/* Every shard is settled. */
bool kv_table_is_settled(const struct kv_table *table);

#endif
