/* How shards are spread over groups: pure, deterministic, with the fewest moves. */
#ifndef SHARDCTRLER_REBALANCE_H
#define SHARDCTRLER_REBALANCE_H

#include <stddef.h>
#include <stdint.h>

/* Rewrites owners[0 .. shard_count-1] so that every shard belongs to one of `groups` (ascending
 * ids) and the numbers of shards of two groups differ by at most one. Only shards whose owner is
 * not in `groups`, and as few others as that needs, change. A shard without an owner goes back to
 * the group in sources[] that still has its data, when that costs no other move. No groups: every
 * owner becomes 0. */
void rebalance(uint64_t *owners, const uint64_t *sources, uint32_t shard_count,
               const uint64_t *groups, size_t group_count);

#endif
