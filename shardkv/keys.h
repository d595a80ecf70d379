/* Where everything lies in the store. Shards and keys in order, numbers big-endian so that they
 * sort as numbers.
 *
 *     m a                              what is applied (kv_machine.c)
 *     m c                              the config in force, as Config of shardkv.proto
 *     m p <shard u16> <number u64>     a drop to be confirmed by the source of an installed shard
 *     h <shard u16>                    shard record (shard_record.h); none: ABSENT
 *     s <shard u16> <client u64>       session (raft/node/session.h)
 *     d <shard u16> <key>              varint version, value
 *
 * A row of a move is a store key without its shard, so that the destination makes the same keys of
 * it:
 *
 *     d <key>          as stored
 *     s <client u64>   as stored, but with its age for its time: move_rows.h
 *     v                the shard's version counter
 *
 * Rows of one shard sort as their store keys do: data, then sessions, then the counter, which is
 * always the last. */
#ifndef SHARDKV_KEYS_H
#define SHARDKV_KEYS_H

#include "base/assert.h"
#include "base/bytes.h"
#include "proto/limits.h"

enum {
    KEY_PREFIX_BYTES = 3, /* space and shard */
    STORE_KEY_BYTES_MAX = KEY_PREFIX_BYTES + KEY_BYTES_MAX,
    SESSION_KEY_BYTES = KEY_PREFIX_BYTES + 8,
    PENDING_KEY_BYTES = 2 + 2 + 8,
};
static_assert(SHARD_COUNT_MAX <= 65536, "a shard fits the two bytes of a key");
static_assert((int)STORE_KEY_BYTES_MAX <= (int)MOVE_ROW_KEY_BYTES_MAX, "every row key may travel");

enum key_space {
    KEY_SPACE_DATA = 'd',
    KEY_SPACE_SHARD = 'h',
    KEY_SPACE_META = 'm',
    KEY_SPACE_SESSION = 's',
    ROW_SPACE_VERSION = 'v', /* rows of a move only */
};

/* A key built in place. */
struct store_key {
    uint8_t data[STORE_KEY_BYTES_MAX + 1]; /* and a byte that makes "just after this key" */
    size_t size;
};
static inline struct bytes store_key_view(const struct store_key *key)
{
    return bytes_of(key->data, key->size);
}

struct bytes key_applied(void); /* static storage */
struct bytes key_config(void);
struct bytes key_serves_from(void); /* u64: see kv_machine_internal.h */
void key_of_pending(uint32_t shard, uint64_t number, struct store_key *out);
void key_of_shard(uint32_t shard, struct store_key *out);
void key_of_session(uint32_t shard, uint64_t client_id, struct store_key *out);
void key_of_data(uint32_t shard, struct bytes key, struct store_key *out);

/* The keys of one space and shard are [from, to). META: pass shard 0; pending drops are [from, to)
 * of key_range_pending. */
void key_range(enum key_space space, uint32_t shard, struct store_key *from, struct store_key *to);
void key_range_pending(struct store_key *from, struct store_key *to);
void key_range_all_shards(struct store_key *from, struct store_key *to); /* of `h` */

/* The opposite direction; false when the bytes are not such a key. */
bool key_parse_shard(struct bytes key, uint32_t *shard);
bool key_parse_session(struct bytes key, uint32_t *shard, uint64_t *client_id);
bool key_parse_pending(struct bytes key, uint32_t *shard, uint64_t *number);

/* `d` or `s` row key -> store key. False for anything else, the counter's row too. */
bool key_of_row(uint32_t shard, struct bytes row_key, struct store_key *out);
/* Store key of space `d` or `s` -> row key. */
void row_key_of(struct bytes store_key, struct store_key *out);

#endif
