/* Rows of a move, packed as (sized key, sized value) ..., and what they look like inside. Row keys:
 * keys.h.
 *
 * A session travels with its age instead of its time, because log times of two groups have nothing
 * to do with each other. The age is counted up to the moment the shard froze: the time of the move
 * makes a session younger, never older. */
#ifndef SHARDKV_MOVE_ROWS_H
#define SHARDKV_MOVE_ROWS_H

#include "base/bytes.h"
#include "base/codec.h"
#include "base/error.h"

void move_row_put(struct buf *out, struct bytes key, struct bytes value);
size_t move_row_bytes(struct bytes key, struct bytes value); /* what move_row_put adds */
/* The next row; ERR_NOT_FOUND after the last, ERR_PROTOCOL when the bytes are not rows. */
int move_row_next(struct reader *reader, struct bytes *key, struct bytes *value) MUST_USE;
/* Rows are compared by the sum of these, in whatever order. */
uint64_t move_row_hash(struct bytes key, struct bytes value);

/* Stored session -> travelling form, and back. Append to `out`; ERR_CORRUPT. */
int move_session_pack(struct bytes stored, uint64_t frozen_ms, struct buf *out) MUST_USE;
int move_session_unpack(struct bytes packed, uint64_t now_ms, struct buf *out) MUST_USE;

#endif
