/* Raft messages as bytes: one element of Frame.messages (proto/peer.proto). By hand, because an
 * APPEND of many entries costs nothing this way, and its entries point into the received frame
 * instead of being copied.
 *
 *     u8     version = 1
 *     u8     kind        enum raft_message_kind
 *     u16    fields      which of the optional ones follow; unknown bits are refused
 *     varint term
 *     bit 0  POSITION    varint index, varint term
 *     bit 1  COMMIT      varint
 *     bit 2  REJECT      (no bytes)
 *     bit 3  TRANSFER    (no bytes)
 *     bit 4  HINT        varint index, varint term
 *     bit 5  READ_ROUND  varint
 *     bit 6  ENTRIES     varint count > 0, count x { u8 kind, varint term, sized payload };
 *                        the first one's index is position.index + 1
 *     bit 7  SNAPSHOT    varint index, varint term, varint size_bytes, u64 id,
 *                        varint index, varint term (of the membership), sized membership
 *     bit 8  SNAPSHOT_ID u64
 *     bit 9  OFFSET      varint
 *     bit 10 CHUNK       sized
 *     u32    crc32c of everything before it
 *
 * A field that is zero is left out, so a message has one encoding. Who sends to whom is in the
 * frame. The checksum is there because TCP's is too weak for what is about to be written to three
 * disks. Pure functions, any thread. */
#ifndef RAFT_NODE_MESSAGE_CODEC_H
#define RAFT_NODE_MESSAGE_CODEC_H

#include "base/error.h"
#include "raft/core/types.h"

enum { MESSAGE_ENTRIES_MAX = 65536 };

/* Appends. Borrows everything. */
void message_encode(const struct raft_message *message, struct buf *out);
/* At least the bytes message_encode will append: for packing frames up to a limit. */
size_t message_bytes_max(const struct raft_message *message);

/* A decoded message and what its pointers point at. Entries and chunk are views into the input and
 * carry `owner` without a reference of their own: who keeps them references it, as raft_core_step
 * does. Must not be copied. */
struct message_decoded {
    struct raft_message message;
    struct raft_entry *entries;
    struct raft_snapshot snapshot;
};
/* ERR_PROTOCOL, ERR_CORRUPT (checksum), ERR_UNSUPPORTED (version): nothing to free. from and to of
 * the message are what the frame says. */
int message_decode(struct bytes bytes, struct blob *owner, uint64_t from, uint64_t to,
                   struct message_decoded *out) MUST_USE;
void message_decoded_deinit(struct message_decoded *decoded);

#endif
