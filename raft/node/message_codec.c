/* Raft messages as bytes; the format is in message_codec.h. */
#include "raft/node/message_codec.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

enum {
    MESSAGE_VERSION = 1,
    CHECKSUM_BYTES = 4,
    VARINT_BYTES_MAX = 10,
    ENTRY_BYTES_MIN = 1 + 1 + 1,
    /* version, kind, fields, and the fixed and varint fields at their longest; entries, membership
     * and chunk are counted by their own size. */
    HEAD_BYTES_MAX = 4 + VARINT_BYTES_MAX * 18 + 8 * 2 + CHECKSUM_BYTES,
};

enum message_field {
    FIELD_POSITION = 1 << 0,
    FIELD_COMMIT = 1 << 1,
    FIELD_REJECT = 1 << 2,
    FIELD_TRANSFER = 1 << 3,
    FIELD_HINT = 1 << 4,
    FIELD_READ_ROUND = 1 << 5,
    FIELD_ENTRIES = 1 << 6,
    FIELD_SNAPSHOT = 1 << 7,
    FIELD_SNAPSHOT_ID = 1 << 8,
    FIELD_OFFSET = 1 << 9,
    FIELD_CHUNK = 1 << 10,
    FIELDS_ALL = (1 << 11) - 1,
};

static bool is_zero(struct raft_position position)
{
    return position.index == 0 && position.term == 0;
}

static uint16_t fields_of(const struct raft_message *message)
{
    int fields = 0;
    fields |= is_zero(message->position) ? 0 : FIELD_POSITION;
    fields |= message->commit == 0 ? 0 : FIELD_COMMIT;
    fields |= message->reject ? FIELD_REJECT : 0;
    fields |= message->leader_transfer ? FIELD_TRANSFER : 0;
    fields |= is_zero(message->hint) ? 0 : FIELD_HINT;
    fields |= message->read_round == 0 ? 0 : FIELD_READ_ROUND;
    fields |= message->entry_count == 0 ? 0 : FIELD_ENTRIES;
    fields |= message->snapshot == NULL ? 0 : FIELD_SNAPSHOT;
    fields |= message->snapshot_id == 0 ? 0 : FIELD_SNAPSHOT_ID;
    fields |= message->chunk_offset == 0 ? 0 : FIELD_OFFSET;
    fields |= message->chunk.size == 0 ? 0 : FIELD_CHUNK;
    return (uint16_t)fields;
}

size_t message_bytes_max(const struct raft_message *message)
{
    size_t bytes = HEAD_BYTES_MAX + message->chunk.size;
    for (size_t i = 0; i < message->entry_count; i++) {
        bytes += raft_entry_bytes(&message->entries[i]);
    }
    if (message->snapshot != NULL) {
        bytes += sizeof(struct raft_membership) + VARINT_BYTES_MAX;
    }
    return bytes;
}

static void put_position(struct buf *out, struct raft_position position)
{
    put_varint(out, position.index);
    put_varint(out, position.term);
}

static void put_entries(struct buf *out, const struct raft_message *message)
{
    ASSERT_CMP(message->entry_count, <=, MESSAGE_ENTRIES_MAX);
    put_varint(out, message->entry_count);
    for (size_t i = 0; i < message->entry_count; i++) {
        const struct raft_entry *entry = &message->entries[i];
        ASSERT_CMP(entry->position.index, ==, message->position.index + 1 + i);
        put_u8(out, (uint8_t)entry->kind);
        put_varint(out, entry->position.term);
        put_sized(out, entry->data);
    }
}

static void put_snapshot(struct buf *out, const struct raft_snapshot *snapshot)
{
    put_position(out, snapshot->position);
    put_varint(out, snapshot->size_bytes);
    put_u64(out, snapshot->id);
    put_position(out, snapshot->membership.position);
    struct buf membership;
    buf_init(&membership);
    raft_membership_encode(&snapshot->membership, &membership);
    put_sized(out, buf_view(&membership));
    buf_deinit(&membership);
}

void message_encode(const struct raft_message *message, struct buf *out)
{
    size_t start = out->size;
    uint16_t fields = fields_of(message);
    buf_reserve(out, message_bytes_max(message));
    put_u8(out, MESSAGE_VERSION);
    put_u8(out, (uint8_t)message->kind);
    put_u16(out, fields);
    put_varint(out, message->term);
    if (fields & FIELD_POSITION) {
        put_position(out, message->position);
    }
    if (fields & FIELD_COMMIT) {
        put_varint(out, message->commit);
    }
    if (fields & FIELD_HINT) {
        put_position(out, message->hint);
    }
    if (fields & FIELD_READ_ROUND) {
        put_varint(out, message->read_round);
    }
    if (fields & FIELD_ENTRIES) {
        put_entries(out, message);
    }
    if (fields & FIELD_SNAPSHOT) {
        put_snapshot(out, message->snapshot);
    }
    if (fields & FIELD_SNAPSHOT_ID) {
        put_u64(out, message->snapshot_id);
    }
    if (fields & FIELD_OFFSET) {
        put_varint(out, message->chunk_offset);
    }
    if (fields & FIELD_CHUNK) {
        put_sized(out, message->chunk);
    }
    put_u32(out, crc32c_extend(0, out->data + start, out->size - start));
}

static struct raft_position get_position(struct reader *reader)
{
    struct raft_position position;
    position.index = get_varint(reader);
    position.term = get_varint(reader);
    return position;
}

static int get_entries(struct reader *reader, struct blob *owner, struct message_decoded *out)
{
    uint64_t count = get_varint(reader);
    uint64_t previous = out->message.position.index;
    /* The second bound: a lying count must not make us allocate for bytes that are not there. */
    if (reader->failed || count == 0 || count > MESSAGE_ENTRIES_MAX ||
        count > reader_left(reader) / ENTRY_BYTES_MIN || previous > UINT64_MAX - count) {
        return ERR_PROTOCOL;
    }
    out->entries = mem_calloc((size_t)count, sizeof(out->entries[0]));
    for (size_t i = 0; i < count; i++) {
        struct raft_entry *entry = &out->entries[i];
        uint8_t kind = get_u8(reader);
        entry->position.index = previous + 1 + i;
        entry->position.term = get_varint(reader);
        entry->data = get_sized(reader, reader_left(reader));
        entry->owner = owner;
        entry->kind = (enum raft_entry_kind)kind;
        if (reader->failed || kind < RAFT_ENTRY_NOOP || kind > RAFT_ENTRY_MEMBERSHIP) {
            return ERR_PROTOCOL;
        }
    }
    out->message.entries = out->entries;
    out->message.entry_count = (size_t)count;
    return ERR_OK;
}

static int get_snapshot(struct reader *reader, struct message_decoded *out)
{
    struct raft_snapshot *snapshot = &out->snapshot;
    struct raft_position position = get_position(reader);
    uint64_t size_bytes = get_varint(reader);
    uint64_t id = get_u64(reader);
    struct raft_position membership_position = get_position(reader);
    struct bytes membership = get_sized(reader, reader_left(reader));
    if (reader->failed || raft_membership_decode(membership, &snapshot->membership) != ERR_OK) {
        return ERR_PROTOCOL;
    }
    snapshot->position = position;
    snapshot->size_bytes = size_bytes;
    snapshot->id = id;
    snapshot->membership.position = membership_position;
    out->message.snapshot = snapshot;
    return ERR_OK;
}

static int get_fields(struct reader *reader, unsigned fields, struct blob *owner,
                      struct message_decoded *out)
{
    struct raft_message *message = &out->message;
    int error = ERR_OK;
    message->term = get_varint(reader);
    if (fields & FIELD_POSITION) {
        message->position = get_position(reader);
    }
    if (fields & FIELD_COMMIT) {
        message->commit = get_varint(reader);
    }
    message->reject = (fields & FIELD_REJECT) != 0;
    message->leader_transfer = (fields & FIELD_TRANSFER) != 0;
    if (fields & FIELD_HINT) {
        message->hint = get_position(reader);
    }
    if (fields & FIELD_READ_ROUND) {
        message->read_round = get_varint(reader);
    }
    if (fields & FIELD_ENTRIES) {
        error = get_entries(reader, owner, out);
    }
    if (error == ERR_OK && (fields & FIELD_SNAPSHOT)) {
        error = get_snapshot(reader, out);
    }
    if (fields & FIELD_SNAPSHOT_ID) {
        message->snapshot_id = get_u64(reader);
    }
    if (fields & FIELD_OFFSET) {
        message->chunk_offset = get_varint(reader);
    }
    if (fields & FIELD_CHUNK) {
        message->chunk = get_sized(reader, reader_left(reader));
        message->chunk_owner = owner;
    }
    if (error == ERR_OK && !reader_done(reader)) {
        error = ERR_PROTOCOL;
    }
    return error;
}

int message_decode(struct bytes bytes, struct blob *owner, uint64_t from, uint64_t to,
                   struct message_decoded *out)
{
    memset(out, 0, sizeof(*out));
    if (bytes.size < 4 + CHECKSUM_BYTES) {
        return ERR_PROTOCOL;
    }
    size_t body = bytes.size - CHECKSUM_BYTES;
    if (bytes.data[0] != MESSAGE_VERSION) {
        return ERR_UNSUPPORTED;
    }
    if (load_u32(bytes.data + body) != crc32c_extend(0, bytes.data, body)) {
        return ERR_CORRUPT;
    }
    struct reader reader = reader_of(bytes_of(bytes.data + 1, body - 1));
    uint8_t kind = get_u8(&reader);
    uint16_t fields = get_u16(&reader);
    if (kind < RAFT_MSG_PREVOTE || kind > RAFT_MSG_TIMEOUT_NOW || (fields & ~FIELDS_ALL) != 0) {
        return ERR_PROTOCOL;
    }
    out->message.kind = (enum raft_message_kind)kind;
    out->message.from = from;
    out->message.to = to;
    int error = get_fields(&reader, fields, owner, out);
    if (error == ERR_OK && fields_of(&out->message) != fields) {
        error = ERR_PROTOCOL; /* a field that is there but zero: not how we encode */
    }
    if (error != ERR_OK) {
        message_decoded_deinit(out);
    }
    return error;
}

void message_decoded_deinit(struct message_decoded *decoded)
{
    free(decoded->entries);
    memset(decoded, 0, sizeof(*decoded));
}
