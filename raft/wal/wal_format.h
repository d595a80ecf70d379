/* The bytes of wal_format.md as structs: headers to bytes and back, with their checksums. Pure. */
#ifndef RAFT_WAL_WAL_FORMAT_H
#define RAFT_WAL_WAL_FORMAT_H

#include "base/bytes.h"
#include "base/error.h"
#include "raft/core/types.h"

#include <assert.h>

#define WAL_SEGMENT_HEADER_BYTES   128u  /* one copy */
#define WAL_SEGMENT_HEADER_COPY_AT 512u  /* where the second copy lies: another sector */
#define WAL_SEGMENT_DATA_AT        1024u /* where the first group begins */
#define WAL_GROUP_HEADER_BYTES     32u
#define WAL_RECORD_HEADER_BYTES    32u
#define WAL_ALIGN_BYTES            8u
#define WAL_TAIL_BYTES             (2u * WAL_GROUP_HEADER_BYTES) /* mark and zeroes behind the last group */
#define WAL_FILE_ALIGN_BYTES       4096u
#define WAL_HARD_STATE_BYTES       24u
#define WAL_GROUP_BODY_BYTES_MAX   (1ull << 30)
#define WAL_MEMBERSHIP_BYTES_MAX   (64u * 1024u) /* encoded; far above 15 members of ~150 bytes */
#define WAL_BASE_BYTES_MAX         (WAL_MEMBERSHIP_BYTES_MAX + 128u)
#define WAL_VERSION                1u
#define WAL_INDEX_MAX              (UINT64_MAX / 2) /* no log gets there; index + 1 never overflows */

static_assert(WAL_SEGMENT_HEADER_COPY_AT + WAL_SEGMENT_HEADER_BYTES <= WAL_SEGMENT_DATA_AT,
              "both header copies lie before the first group");
static_assert(WAL_SEGMENT_DATA_AT % WAL_ALIGN_BYTES == 0, "groups start aligned");
static_assert(WAL_RECORD_HEADER_BYTES % WAL_ALIGN_BYTES == 0, "payloads start aligned");

enum wal_segment_flags {
    WAL_SEGMENT_BEGINS_LOG = 1,
};

struct wal_segment_header {
    uint64_t sequence;
    uint64_t salt;
    uint64_t file_bytes;
    struct raft_position start; /* the log's last position when the segment was begun */
    uint64_t previous_salt;
    uint64_t previous_end;
    uint32_t flags;
};

/* Both copies and the zeroes between and behind them, up to and including an empty group header. */
void wal_segment_header_encode(const struct wal_segment_header *header, struct buf *out);
/* One copy that lies at `offset`. False when it is not a header of this version. */
bool wal_segment_header_decode(const uint8_t *bytes, uint64_t offset,
                               struct wal_segment_header *out);

struct wal_group_header {
    uint64_t body_bytes;
    uint32_t record_count;
    uint32_t body_crc;
    uint64_t durable_to;
};

void wal_group_header_encode(const struct wal_group_header *header, uint64_t salt, uint64_t offset,
                             uint8_t *out);
/* False when the bytes are not a group header written for this salt and offset. */
bool wal_group_header_decode(const uint8_t *bytes, uint64_t salt, uint64_t offset,
                             struct wal_group_header *out);
/* Cheap first look, for searching. */
bool wal_group_header_maybe(const uint8_t *bytes);
static inline bool wal_group_is_mark(const struct wal_group_header *header)
{
    return header->record_count == 0;
}

enum wal_record_type {
    WAL_RECORD_ENTRY = 1,
    WAL_RECORD_TRUNCATE = 2,
    WAL_RECORD_HARD_STATE = 3,
};

struct wal_record_header {
    uint32_t crc;
    enum wal_record_type type;
    uint8_t kind;
    uint32_t payload_bytes;
    uint64_t index;
    uint64_t term;
};

static inline uint64_t wal_align(uint64_t bytes)
{
    return (bytes + WAL_ALIGN_BYTES - 1) & ~(uint64_t)(WAL_ALIGN_BYTES - 1);
}
/* Header, payload and padding. */
static inline uint64_t wal_record_bytes(uint64_t payload_bytes)
{
    return WAL_RECORD_HEADER_BYTES + wal_align(payload_bytes);
}

/* Writes the header, its checksum included (over salt, offset, header, payload and padding). */
void wal_record_header_encode(struct wal_record_header *header, struct bytes payload, uint64_t salt,
                              uint64_t offset, uint8_t *out);
/* Takes the fields apart; false when a field has a value no writer gives. The checksum is not
 * looked at. */
bool wal_record_header_decode(const uint8_t *bytes, struct wal_record_header *out);
/* The checksum of a record's header; payload and padding are added with crc32c_extend. */
uint32_t wal_record_crc_begin(const uint8_t *header_bytes, uint64_t salt, uint64_t offset);

void wal_hard_state_encode(const struct raft_hard_state *state, uint8_t out[WAL_HARD_STATE_BYTES]);
void wal_hard_state_decode(const uint8_t bytes[WAL_HARD_STATE_BYTES], struct raft_hard_state *out);

struct wal_base {
    struct raft_position position;
    uint64_t first_sequence;
    struct raft_hard_state hard_state;
    struct raft_membership membership;
};

void wal_base_encode(const struct wal_base *base, struct buf *out);
int wal_base_decode(struct bytes bytes, struct wal_base *out) MUST_USE; /* ERR_CORRUPT */

#endif
