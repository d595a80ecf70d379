/* The sessions the apply thread works with: a bounded cache over space `s` of the store. What a
 * batch changed stays here until it is written with the batch; what was written may be forgotten,
 * least recently used first. Nothing observable depends on what is cached. One thread: apply. */
#ifndef SHARDKV_SESSION_CACHE_H
#define SHARDKV_SESSION_CACHE_H

#include "raft/node/session.h"
#include "shardkv/store.h"

struct session_entry {
    uint32_t shard;
    uint64_t client_id;
    struct session session;
    bool dirty;
    uint32_t charged_bytes;
    struct session_entry *hash_next;
    struct session_entry *newer; /* of the LRU list */
    struct session_entry *older;
    struct session_entry *dirty_next;
};

struct session_cache {
    struct session_entry **buckets;
    uint32_t bucket_count; /* a power of two */
    uint32_t count;
    uint64_t bytes;
    uint64_t bytes_max;
    struct session_entry *newest;
    struct session_entry *oldest;
    struct session_entry *dirty;
};

void session_cache_init(struct session_cache *cache, uint64_t bytes_max);
void session_cache_deinit(struct session_cache *cache);
/* From memory or the store. ERR_NOT_FOUND: there is none; ERR_CORRUPT, ERR_IO. *out is good until
 * the entry is dropped. */
int session_cache_get(struct session_cache *cache, const struct store *store, uint32_t shard,
                      uint64_t client_id, struct session_entry **out) MUST_USE;
/* A new, empty one; there must be none, here or in the store. */
struct session_entry *session_cache_add(struct session_cache *cache, uint32_t shard,
                                        uint64_t client_id);
void session_cache_mark_dirty(struct session_cache *cache, struct session_entry *entry);
bool session_cache_has_dirty(const struct session_cache *cache);
/* Puts every dirty session into `batch` and calls them clean. `scratch` is cleared and used. */
void session_cache_write(struct session_cache *cache, const struct store *store,
                         struct store_batch *batch, struct buf *scratch);
/* Forgets clean ones until the bound holds. Entries given out before are no longer good. */
void session_cache_trim(struct session_cache *cache);
/* Forgets one client's session of a shard, or all of a shard; they must be clean. */
void session_cache_drop(struct session_cache *cache, uint32_t shard, uint64_t client_id);
void session_cache_drop_shard(struct session_cache *cache, uint32_t shard);
void session_cache_clear(struct session_cache *cache); /* all, dirty ones too */

#endif
