/* Every config there ever was, by number. Each is kept as its difference from the one before, a
 * whole one every HISTORY_FULL_INTERVAL, so that old configs cost the shards they moved, not the
 * shards there are. Not thread-safe. */
#ifndef SHARDCTRLER_HISTORY_H
#define SHARDCTRLER_HISTORY_H

#include "base/bytes.h"
#include "base/codec.h"
#include "base/error.h"
#include "proto/config.h"

enum {
    HISTORY_FULL_INTERVAL = 64,
    /* With 64 shards and 10 groups a config costs about 100 bytes: 6.5 MB for all; with 16,384
       shards about 24 KB. */
    HISTORY_CONFIGS_MAX = 65536,
};

struct history;

struct history *history_create(uint32_t shard_count); /* gives; holds config 0 */
void history_destroy(struct history *history);
const struct config *history_latest(const struct history *history); /* until the next append */
/* takes `config`, whose number is the latest's plus one. ERR_TABLE_FULL: nothing taken. */
int history_append(struct history *history, struct config *config) MUST_USE;
/* gives a copy; ERR_CONFIG_UNKNOWN. Costs at most HISTORY_FULL_INTERVAL differences. */
int history_get(const struct history *history, uint64_t number, struct config **out) MUST_USE;

void history_encode(const struct history *history, struct buf *out);
int history_decode(struct reader *reader, struct history **out) MUST_USE; /* gives; ERR_CORRUPT */

#endif
