/* The published copy of a group's shard states. Immutable after create; any thread. */
#include "shardkv/kv_table.h"

#include "base/assert.h"

#include <stdatomic.h>
#include <stdlib.h>

struct counted_table {
    struct kv_table table; /* first: the public part is the whole's address */
    atomic_uint references;
};

static struct counted_table *counted(struct kv_table *table)
{
    return (struct counted_table *)table;
}

struct kv_table *kv_table_create(uint64_t group_id, struct config_share *config,
                                 const struct shard_record *shards,
                                 const struct pending_drop *pending, uint32_t pending_count)
{
    struct counted_table *made = mem_calloc(1, sizeof *made);
    struct kv_table *table = &made->table;
    atomic_init(&made->references, 1);
    table->group_id = group_id;
    if (config != NULL) {
        table->config = config_share_ref(config);
        table->config_number = config_share_get(config)->number;
        table->shard_count = config_share_get(config)->shard_count;
        table->shards = mem_alloc(table->shard_count * sizeof *table->shards);
    }
    for (uint32_t i = 0; i < table->shard_count; i++) {
        shard_record_copy(&table->shards[i], &shards[i]);
    }
    table->pending_count = pending_count;
    table->pending = mem_calloc(pending_count + 1, sizeof *table->pending);
    for (uint32_t i = 0; i < pending_count; i++) {
        table->pending[i] = pending[i];
        table->pending[i].source = blob_ref(pending[i].source);
    }
    return table;
}

struct kv_table *kv_table_ref(struct kv_table *table)
{
    atomic_fetch_add_explicit(&counted(table)->references, 1, memory_order_relaxed);
    return table;
}

void kv_table_unref(struct kv_table *table)
{
    if (table == NULL) {
        return;
    }
    unsigned before =
        atomic_fetch_sub_explicit(&counted(table)->references, 1, memory_order_acq_rel);
    ASSERT(before > 0);
    if (before > 1) {
        return;
    }
    for (uint32_t i = 0; i < table->shard_count; i++) {
        shard_record_clear(&table->shards[i]);
    }
    for (uint32_t i = 0; i < table->pending_count; i++) {
        blob_unref(table->pending[i].source);
    }
    free(table->pending);
    free(table->shards);
    config_share_unref(table->config);
    free(counted(table));
}

int kv_table_serves(const struct kv_table *table, uint32_t shard)
{
    if (shard >= table->shard_count) {
        return ERR_WRONG_GROUP;
    }
    int error = shard_record_serves(&table->shards[shard]);
    return error == 0 && table->config_number < table->serves_from ? ERR_SHARD_MOVING : error;
}

bool kv_table_is_settled(const struct kv_table *table)
{
    for (uint32_t i = 0; i < table->shard_count; i++) {
        if (!shard_record_is_settled(&table->shards[i])) {
            return false;
        }
    }
    return true;
}
