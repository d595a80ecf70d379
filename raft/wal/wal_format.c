/* Encoding of the log's headers (wal_format.md). Pure functions, any thread. Every decoder takes
 * bytes that a disk may have changed in any way. */
#include "raft/wal/wal_format.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"

#include <string.h>

#define WAL_GROUP_MAGIC 0x31524757u /* "WGR1" */

static const char wal_segment_magic[8] = {'S', 'K', 'V', 'W', 'A', 'L', '0', '1'};
static const char wal_base_magic[8] = {'S', 'K', 'V', 'B', 'A', 'S', 'E', '1'};

/* Binds bytes to one life of one file and to one place in it. */
static uint32_t wal_crc_seed(uint64_t salt, uint64_t offset)
{
    uint8_t seed[16];
    store_u64(seed, salt);
    store_u64(seed + 8, offset);
    return crc32c_extend(0, seed, sizeof(seed));
}

static uint32_t wal_segment_header_crc(const uint8_t *bytes, uint64_t offset)
{
    return crc32c_extend(wal_crc_seed(0, offset), bytes + 12, WAL_SEGMENT_HEADER_BYTES - 12);
}

static void wal_segment_header_encode_copy(const struct wal_segment_header *header, uint64_t offset,
                                           uint8_t *out)
{
    memset(out, 0, WAL_SEGMENT_HEADER_BYTES);
    memcpy(out, wal_segment_magic, sizeof(wal_segment_magic));
    store_u32(out + 12, WAL_VERSION);
    store_u64(out + 16, header->sequence);
    store_u64(out + 24, header->salt);
    store_u64(out + 32, header->file_bytes);
    store_u64(out + 40, header->start.index);
    store_u64(out + 48, header->start.term);
    store_u64(out + 56, header->previous_salt);
    store_u64(out + 64, header->previous_end);
    store_u32(out + 72, header->flags);
    store_u32(out + 8, wal_segment_header_crc(out, offset));
}

void wal_segment_header_encode(const struct wal_segment_header *header, struct buf *out)
{
    size_t size = WAL_SEGMENT_DATA_AT + WAL_GROUP_HEADER_BYTES;
    uint8_t *at = buf_reserve(out, size);
    memset(at, 0, size);
    wal_segment_header_encode_copy(header, 0, at);
    wal_segment_header_encode_copy(header, WAL_SEGMENT_HEADER_COPY_AT,
                                   at + WAL_SEGMENT_HEADER_COPY_AT);
    out->size += size;
}

bool wal_segment_header_decode(const uint8_t *bytes, uint64_t offset,
                               struct wal_segment_header *out)
{
    if (memcmp(bytes, wal_segment_magic, sizeof(wal_segment_magic)) != 0 ||
        load_u32(bytes + 8) != wal_segment_header_crc(bytes, offset) ||
        load_u32(bytes + 12) != WAL_VERSION) {
        return false;
    }
    *out = (struct wal_segment_header){
        .sequence = load_u64(bytes + 16),
        .salt = load_u64(bytes + 24),
        .file_bytes = load_u64(bytes + 32),
        .start = {load_u64(bytes + 40), load_u64(bytes + 48)},
        .previous_salt = load_u64(bytes + 56),
        .previous_end = load_u64(bytes + 64),
        .flags = load_u32(bytes + 72),
    };
    return out->file_bytes >= WAL_SEGMENT_DATA_AT + WAL_TAIL_BYTES &&
           out->file_bytes % WAL_FILE_ALIGN_BYTES == 0 && out->start.index <= WAL_INDEX_MAX;
}

static uint32_t wal_group_header_crc(const uint8_t *bytes, uint64_t salt, uint64_t offset)
{
    return crc32c_extend(wal_crc_seed(salt, offset), bytes + 8, WAL_GROUP_HEADER_BYTES - 8);
}

void wal_group_header_encode(const struct wal_group_header *header, uint64_t salt, uint64_t offset,
                             uint8_t *out)
{
    ASSERT_CMP(header->body_bytes, <=, WAL_GROUP_BODY_BYTES_MAX);
    store_u32(out, WAL_GROUP_MAGIC);
    store_u64(out + 8, header->body_bytes);
    store_u32(out + 16, header->record_count);
    store_u32(out + 20, header->body_crc);
    store_u64(out + 24, header->durable_to);
    store_u32(out + 4, wal_group_header_crc(out, salt, offset));
}

bool wal_group_header_maybe(const uint8_t *bytes)
{
    return load_u32(bytes) == WAL_GROUP_MAGIC;
}

bool wal_group_header_decode(const uint8_t *bytes, uint64_t salt, uint64_t offset,
                             struct wal_group_header *out)
{
    if (!wal_group_header_maybe(bytes) ||
        load_u32(bytes + 4) != wal_group_header_crc(bytes, salt, offset)) {
        return false;
    }
    *out = (struct wal_group_header){
        .body_bytes = load_u64(bytes + 8),
        .record_count = load_u32(bytes + 16),
        .body_crc = load_u32(bytes + 20),
        .durable_to = load_u64(bytes + 24),
    };
    return out->body_bytes <= WAL_GROUP_BODY_BYTES_MAX && out->body_bytes % WAL_ALIGN_BYTES == 0 &&
           (out->record_count == 0) == (out->body_bytes == 0);
}

uint32_t wal_record_crc_begin(const uint8_t *header_bytes, uint64_t salt, uint64_t offset)
{
    return crc32c_extend(wal_crc_seed(salt, offset), header_bytes + 4, WAL_RECORD_HEADER_BYTES - 4);
}

void wal_record_header_encode(struct wal_record_header *header, struct bytes payload, uint64_t salt,
                              uint64_t offset, uint8_t *out)
{
    static const uint8_t zeroes[WAL_ALIGN_BYTES] = {0};
    ASSERT_CMP(header->payload_bytes, ==, payload.size);
    memset(out, 0, WAL_RECORD_HEADER_BYTES);
    out[4] = (uint8_t)header->type;
    out[5] = header->kind;
    store_u32(out + 8, header->payload_bytes);
    store_u64(out + 16, header->index);
    store_u64(out + 24, header->term);
    uint32_t crc = wal_record_crc_begin(out, salt, offset);
    crc = crc32c_extend(crc, payload.data, payload.size);
    crc = crc32c_extend(crc, zeroes, (size_t)(wal_align(payload.size) - payload.size));
    header->crc = crc;
    store_u32(out, crc);
}

bool wal_record_header_decode(const uint8_t *bytes, struct wal_record_header *out)
{
    uint8_t type = bytes[4];
    if (type < WAL_RECORD_ENTRY || type > WAL_RECORD_HARD_STATE) {
        return false;
    }
    *out = (struct wal_record_header){
        .crc = load_u32(bytes),
        .type = (enum wal_record_type)type,
        .kind = bytes[5],
        .payload_bytes = load_u32(bytes + 8),
        .index = load_u64(bytes + 16),
        .term = load_u64(bytes + 24),
    };
    switch (out->type) {
    case WAL_RECORD_ENTRY:
        return out->kind >= RAFT_ENTRY_NOOP && out->kind <= RAFT_ENTRY_MEMBERSHIP &&
               out->index > 0 && out->term > 0;
    case WAL_RECORD_TRUNCATE:
        return out->index > 0 && out->payload_bytes == 0;
    case WAL_RECORD_HARD_STATE:
        return out->payload_bytes == WAL_HARD_STATE_BYTES;
    }
    return false;
}

void wal_hard_state_encode(const struct raft_hard_state *state, uint8_t out[WAL_HARD_STATE_BYTES])
{
    store_u64(out, state->term);
    store_u64(out + 8, state->voted_for);
    store_u64(out + 16, state->commit);
}

void wal_hard_state_decode(const uint8_t bytes[WAL_HARD_STATE_BYTES], struct raft_hard_state *out)
{
    out->term = load_u64(bytes);
    out->voted_for = load_u64(bytes + 8);
    out->commit = load_u64(bytes + 16);
}

void wal_base_encode(const struct wal_base *base, struct buf *out)
{
    size_t start = out->size;
    buf_append(out, wal_base_magic, sizeof(wal_base_magic));
    put_u32(out, 0);
    put_u32(out, WAL_VERSION);
    put_u64(out, base->position.index);
    put_u64(out, base->position.term);
    put_u64(out, base->first_sequence);
    uint8_t hard_state[WAL_HARD_STATE_BYTES];
    wal_hard_state_encode(&base->hard_state, hard_state);
    buf_append(out, hard_state, sizeof(hard_state));
    put_u64(out, base->membership.position.index);
    put_u64(out, base->membership.position.term);
    struct buf membership;
    buf_init(&membership);
    if (base->membership.count > 0) {
        raft_membership_encode(&base->membership, &membership);
        ASSERT_CMP(membership.size, <=, WAL_MEMBERSHIP_BYTES_MAX);
    }
    put_u32(out, (uint32_t)membership.size);
    buf_append_bytes(out, buf_view(&membership));
    buf_deinit(&membership);
    uint8_t *at = out->data + start;
    store_u32(at + 8, crc32c_extend(0, at + 12, out->size - start - 12));
}

int wal_base_decode(struct bytes bytes, struct wal_base *out)
{
    memset(out, 0, sizeof(*out));
    if (bytes.size < 84 || memcmp(bytes.data, wal_base_magic, sizeof(wal_base_magic)) != 0 ||
        load_u32(bytes.data + 8) != crc32c_extend(0, bytes.data + 12, bytes.size - 12) ||
        load_u32(bytes.data + 12) != WAL_VERSION) {
        return ERR_CORRUPT;
    }
    struct reader reader = reader_of(bytes);
    (void)get_bytes(&reader, 16);
    out->position.index = get_u64(&reader);
    out->position.term = get_u64(&reader);
    out->first_sequence = get_u64(&reader);
    struct bytes hard_state = get_bytes(&reader, WAL_HARD_STATE_BYTES);
    struct raft_position membership_position;
    membership_position.index = get_u64(&reader);
    membership_position.term = get_u64(&reader);
    struct bytes membership = get_bytes(&reader, get_u32(&reader));
    if (!reader_done(&reader) || out->first_sequence == 0 || out->first_sequence > WAL_INDEX_MAX ||
        out->position.index > WAL_INDEX_MAX) {
        return ERR_CORRUPT;
    }
    wal_hard_state_decode(hard_state.data, &out->hard_state);
    if (membership.size > 0 && raft_membership_decode(membership, &out->membership) != ERR_OK) {
        return ERR_CORRUPT;
    }
    out->membership.position = membership_position;
    return ERR_OK;
}
