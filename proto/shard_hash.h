/* key -> shard: XXH64 with seed 0 of the key, modulo the cluster's shard count. When the key holds
 * '{', and a '}' after it with at least one byte between, only the bytes between the first '{' and
 * the first '}' after it are hashed, so that keys with one tag share a shard (the rule of Redis
 * Cluster). Pinned by test vectors in tests/unit/test_shard_hash.c: it never changes. */
#ifndef PROTO_SHARD_HASH_H
#define PROTO_SHARD_HASH_H

#include "base/bytes.h"

struct bytes shard_hash_tag(struct bytes key);                 /* the part that is hashed */
uint32_t shard_of_key(struct bytes key, uint32_t shard_count); /* shard_count > 0 */

/* cluster name -> id on the wire: XXH64, seed 0, 0 replaced by 1. */
uint64_t cluster_id_of_name(const char *name);

#endif
