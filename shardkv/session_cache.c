/* Sessions in memory: a chained hash table, an LRU list, and a list of the dirty ones. See
 * session_cache.h. */
#include "shardkv/session_cache.h"

#include "base/assert.h"
#include "shardkv/keys.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS_MIN = 256 };

void session_cache_init(struct session_cache *cache, uint64_t bytes_max)
{
    *cache = (struct session_cache){.bucket_count = BUCKETS_MIN, .bytes_max = bytes_max};
    cache->buckets = mem_calloc(BUCKETS_MIN, sizeof *cache->buckets);
}

void session_cache_deinit(struct session_cache *cache)
{
    session_cache_clear(cache);
    free(cache->buckets);
    *cache = (struct session_cache){0};
}

static struct session_entry **bucket_of(struct session_cache *cache, uint32_t shard,
                                        uint64_t client_id)
{
    /* The finalizer of splitmix64: one client is in many shards, one shard has many clients, and
     * both have to spread. */
    uint64_t mixed = client_id + shard * 0x9e3779b97f4a7c15ull;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebull;
    return &cache->buckets[(mixed ^ mixed >> 31) & (cache->bucket_count - 1)];
}

static void grow(struct session_cache *cache)
{
    free(cache->buckets);
    cache->bucket_count *= 2;
    cache->buckets = mem_calloc(cache->bucket_count, sizeof *cache->buckets);
    for (struct session_entry *entry = cache->oldest; entry != NULL; entry = entry->newer) {
        struct session_entry **bucket = bucket_of(cache, entry->shard, entry->client_id);
        entry->hash_next = *bucket;
        *bucket = entry;
    }
}

/* ---- lists ---- */

static void lru_remove(struct session_cache *cache, struct session_entry *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &cache->oldest) = entry->newer;
    entry->newer = NULL;
    entry->older = NULL;
}

static void lru_add(struct session_cache *cache, struct session_entry *entry)
{
    entry->older = cache->newest;
    if (cache->newest != NULL) {
        cache->newest->newer = entry;
    } else {
        cache->oldest = entry;
    }
    cache->newest = entry;
}

static void charge(struct session_cache *cache, struct session_entry *entry)
{
    uint32_t bytes =
        (uint32_t)(sizeof *entry + entry->session.capacity * sizeof entry->session.results[0]);
    cache->bytes = cache->bytes - entry->charged_bytes + bytes;
    entry->charged_bytes = bytes;
}

static void forget(struct session_cache *cache, struct session_entry *entry)
{
    struct session_entry **at = bucket_of(cache, entry->shard, entry->client_id);
    while (*at != entry) {
        at = &(*at)->hash_next;
    }
    *at = entry->hash_next;
    lru_remove(cache, entry);
    ASSERT_CMP(cache->bytes, >=, entry->charged_bytes);
    cache->bytes -= entry->charged_bytes;
    cache->count--;
    session_deinit(&entry->session);
    free(entry);
}

/* ---- lookup ---- */

static struct session_entry *find(struct session_cache *cache, uint32_t shard, uint64_t client_id)
{
    struct session_entry *entry = *bucket_of(cache, shard, client_id);
    while (entry != NULL && (entry->client_id != client_id || entry->shard != shard)) {
        entry = entry->hash_next;
    }
    return entry;
}

static struct session_entry *insert(struct session_cache *cache, uint32_t shard, uint64_t client_id)
{
    if (cache->count == cache->bucket_count) {
        grow(cache);
    }
    struct session_entry *entry = mem_calloc(1, sizeof *entry);
    entry->shard = shard;
    entry->client_id = client_id;
    session_init(&entry->session);
    struct session_entry **bucket = bucket_of(cache, shard, client_id);
    entry->hash_next = *bucket;
    *bucket = entry;
    lru_add(cache, entry);
    cache->count++;
    charge(cache, entry);
    return entry;
}

int session_cache_get(struct session_cache *cache, const struct store *store, uint32_t shard,
                      uint64_t client_id, struct session_entry **out)
{
    struct session_entry *entry = find(cache, shard, client_id);
    if (entry != NULL) {
        if (cache->newest != entry) {
            lru_remove(cache, entry);
            lru_add(cache, entry);
        }
        *out = entry;
        return 0;
    }
    struct store_key key;
    key_of_session(shard, client_id, &key);
    struct store_value value;
    int error = store->ops->get(store->store, NULL, store_key_view(&key), &value);
    if (error != 0) {
        return error;
    }
    entry = insert(cache, shard, client_id);
    error = session_decode(value.bytes, &entry->session);
    store->ops->value_release(store->store, &value);
    if (error != 0) {
        forget(cache, entry);
        return ERR_CORRUPT;
    }
    charge(cache, entry);
    *out = entry;
    return 0;
}

struct session_entry *session_cache_add(struct session_cache *cache, uint32_t shard,
                                        uint64_t client_id)
{
    ASSERT(find(cache, shard, client_id) == NULL);
    return insert(cache, shard, client_id);
}

void session_cache_mark_dirty(struct session_cache *cache, struct session_entry *entry)
{
    if (!entry->dirty) {
        entry->dirty = true;
        entry->dirty_next = cache->dirty;
        cache->dirty = entry;
    }
}

bool session_cache_has_dirty(const struct session_cache *cache)
{
    return cache->dirty != NULL;
}

void session_cache_write(struct session_cache *cache, const struct store *store,
                         struct store_batch *batch, struct buf *scratch)
{
    while (cache->dirty != NULL) {
        struct session_entry *entry = cache->dirty;
        cache->dirty = entry->dirty_next;
        entry->dirty_next = NULL;
        entry->dirty = false;
        struct store_key key;
        key_of_session(entry->shard, entry->client_id, &key);
        buf_clear(scratch);
        session_encode(&entry->session, scratch);
        store->ops->batch_put(batch, store_key_view(&key), buf_view(scratch));
        charge(cache, entry);
    }
}

void session_cache_trim(struct session_cache *cache)
{
    ASSERT(cache->dirty == NULL);
    while (cache->bytes > cache->bytes_max && cache->oldest != NULL) {
        forget(cache, cache->oldest);
    }
}

void session_cache_drop(struct session_cache *cache, uint32_t shard, uint64_t client_id)
{
    struct session_entry *entry = find(cache, shard, client_id);
    if (entry != NULL) {
        ASSERT(!entry->dirty);
        forget(cache, entry);
    }
}

void session_cache_drop_shard(struct session_cache *cache, uint32_t shard)
{
    struct session_entry *next = NULL;
    for (struct session_entry *entry = cache->oldest; entry != NULL; entry = next) {
        next = entry->newer;
        if (entry->shard == shard) {
            ASSERT(!entry->dirty);
            forget(cache, entry);
        }
    }
}

void session_cache_clear(struct session_cache *cache)
{
    cache->dirty = NULL;
    while (cache->oldest != NULL) {
        forget(cache, cache->oldest);
    }
}
