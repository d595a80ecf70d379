/* Keys to shards, cluster names to ids: XXH64 with seed 0, for ever.
 *
 * Thread: any; no state. */
#include "proto/shard_hash.h"

#include "base/assert.h"
#include <string.h>
#include <xxhash.h>

struct bytes shard_hash_tag(struct bytes key)
{
    if (key.size == 0) {
        return key;
    }
    const uint8_t *open = memchr(key.data, '{', key.size);
    if (open == NULL) {
        return key;
    }
    const uint8_t *tag = open + 1;
    size_t left = key.size - (size_t)(tag - key.data);
    const uint8_t *close = left == 0 ? NULL : memchr(tag, '}', left);
    if (close == NULL || close == tag) {
        return key;
    }
    return bytes_of(tag, (size_t)(close - tag));
}

uint32_t shard_of_key(struct bytes key, uint32_t shard_count)
{
    ASSERT(shard_count > 0);
    struct bytes hashed = shard_hash_tag(key);
    return (uint32_t)(XXH64(hashed.data, hashed.size, 0) % shard_count);
}

uint64_t cluster_id_of_name(const char *name)
{
    uint64_t id = XXH64(name, strlen(name), 0);
    return id == 0 ? 1 : id; /* 0 on the wire means "not checked" */
}
