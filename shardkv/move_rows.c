/* Packing of moved rows. Pure. */
#include "shardkv/move_rows.h"

#include "proto/limits.h"
#include "raft/node/session.h"

#include <xxhash.h>

void move_row_put(struct buf *out, struct bytes key, struct bytes value)
{
    put_sized(out, key);
    put_sized(out, value);
}

static size_t varint_bytes(uint64_t value)
{
    size_t size = 1;
    while (value >= 0x80) {
        value >>= 7;
        size++;
    }
    return size;
}

size_t move_row_bytes(struct bytes key, struct bytes value)
{
    return varint_bytes(key.size) + key.size + varint_bytes(value.size) + value.size;
}

int move_row_next(struct reader *reader, struct bytes *key, struct bytes *value)
{
    if (!reader->failed && reader_left(reader) == 0) {
        return ERR_NOT_FOUND;
    }
    *key = get_sized(reader, MOVE_ROW_KEY_BYTES_MAX);
    *value = get_sized(reader, MOVE_ROWS_BYTES_MAX);
    return reader->failed || key->size == 0 ? ERR_PROTOCOL : 0;
}

uint64_t move_row_hash(struct bytes key, struct bytes value)
{
    return XXH3_64bits_withSeed(value.data, value.size, XXH3_64bits(key.data, key.size));
}

/* Re-encodes a session with another time. A time and an age are each `now` less the other, and
 * neither goes below 0. */
static int rewrite(struct bytes from, uint64_t now_ms, struct buf *out)
{
    struct session session;
    session_init(&session);
    int error = session_decode(from, &session);
    if (error == 0) {
        session.last_active_ms =
            now_ms > session.last_active_ms ? now_ms - session.last_active_ms : 0;
        session_encode(&session, out);
    }
    session_deinit(&session);
    return error == 0 ? 0 : ERR_CORRUPT;
}

int move_session_pack(struct bytes stored, uint64_t frozen_ms, struct buf *out)
{
    return rewrite(stored, frozen_ms, out);
}

int move_session_unpack(struct bytes packed, uint64_t now_ms, struct buf *out)
{
    return rewrite(packed, now_ms, out);
}
