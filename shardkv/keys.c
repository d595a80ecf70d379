/* Builds and takes apart the keys of the store. Pure. */
#include "shardkv/keys.h"

#include "base/codec.h"

#include <string.h>

struct bytes key_applied(void)
{
    return bytes_of("ma", 2);
}

struct bytes key_serves_from(void)
{
    return bytes_of("mf", 2);
}

struct bytes key_config(void)
{
    return bytes_of("mc", 2);
}

static void put_prefix(uint8_t space, uint32_t shard, struct store_key *out)
{
    ASSERT(shard < SHARD_COUNT_MAX);
    out->data[0] = space;
    store_u16_be(out->data + 1, (uint16_t)shard);
    out->size = KEY_PREFIX_BYTES;
}

void key_of_pending(uint32_t shard, uint64_t number, struct store_key *out)
{
    ASSERT(shard < SHARD_COUNT_MAX);
    out->data[0] = KEY_SPACE_META;
    out->data[1] = 'p';
    store_u16_be(out->data + 2, (uint16_t)shard);
    store_u64_be(out->data + 4, number);
    out->size = PENDING_KEY_BYTES;
}

void key_of_shard(uint32_t shard, struct store_key *out)
{
    put_prefix(KEY_SPACE_SHARD, shard, out);
}

void key_of_session(uint32_t shard, uint64_t client_id, struct store_key *out)
{
    put_prefix(KEY_SPACE_SESSION, shard, out);
    store_u64_be(out->data + KEY_PREFIX_BYTES, client_id);
    out->size = SESSION_KEY_BYTES;
}

void key_of_data(uint32_t shard, struct bytes key, struct store_key *out)
{
    ASSERT_CMP(key.size, <=, KEY_BYTES_MAX);
    ASSERT_CMP(key.size, >, 0);
    put_prefix(KEY_SPACE_DATA, shard, out);
    memcpy(out->data + KEY_PREFIX_BYTES, key.data, key.size);
    out->size = KEY_PREFIX_BYTES + key.size;
}

void key_range(enum key_space space, uint32_t shard, struct store_key *from, struct store_key *to)
{
    put_prefix((uint8_t)space, shard, from);
    if (shard < 0xffff) {
        to->data[0] = (uint8_t)space;
        store_u16_be(to->data + 1, (uint16_t)(shard + 1));
        to->size = KEY_PREFIX_BYTES;
    } else {
        to->data[0] = (uint8_t)space + 1;
        to->size = 1;
    }
}

static void prefix_range(const char *prefix, struct store_key *from, struct store_key *to)
{
    size_t size = strlen(prefix);
    memcpy(from->data, prefix, size);
    from->size = size;
    memcpy(to->data, prefix, size);
    to->data[size - 1]++;
    to->size = size;
}

void key_range_pending(struct store_key *from, struct store_key *to)
{
    prefix_range("mp", from, to);
}

void key_range_all_shards(struct store_key *from, struct store_key *to)
{
    prefix_range("h", from, to);
}

bool key_parse_shard(struct bytes key, uint32_t *shard)
{
    if (key.size != KEY_PREFIX_BYTES || key.data[0] != KEY_SPACE_SHARD) {
        return false;
    }
    *shard = load_u16_be(key.data + 1);
    return *shard < SHARD_COUNT_MAX;
}

bool key_parse_session(struct bytes key, uint32_t *shard, uint64_t *client_id)
{
    if (key.size != SESSION_KEY_BYTES || key.data[0] != KEY_SPACE_SESSION) {
        return false;
    }
    *shard = load_u16_be(key.data + 1);
    *client_id = load_u64_be(key.data + KEY_PREFIX_BYTES);
    return *shard < SHARD_COUNT_MAX;
}

bool key_parse_pending(struct bytes key, uint32_t *shard, uint64_t *number)
{
    if (key.size != PENDING_KEY_BYTES || key.data[0] != KEY_SPACE_META || key.data[1] != 'p') {
        return false;
    }
    *shard = load_u16_be(key.data + 2);
    *number = load_u64_be(key.data + 4);
    return *shard < SHARD_COUNT_MAX;
}

bool key_of_row(uint32_t shard, struct bytes row_key, struct store_key *out)
{
    if (row_key.size < 2) {
        return false;
    }
    size_t rest = row_key.size - 1;
    bool data = row_key.data[0] == KEY_SPACE_DATA && rest <= KEY_BYTES_MAX;
    bool session = row_key.data[0] == KEY_SPACE_SESSION && rest == 8;
    if (!data && !session) {
        return false;
    }
    put_prefix(row_key.data[0], shard, out);
    memcpy(out->data + KEY_PREFIX_BYTES, row_key.data + 1, rest);
    out->size = KEY_PREFIX_BYTES + rest;
    return true;
}

void row_key_of(struct bytes store_key, struct store_key *out)
{
    ASSERT_CMP(store_key.size, >, KEY_PREFIX_BYTES);
    out->data[0] = store_key.data[0];
    memcpy(out->data + 1, store_key.data + KEY_PREFIX_BYTES, store_key.size - KEY_PREFIX_BYTES);
    out->size = store_key.size - KEY_PREFIX_BYTES + 1;
}
