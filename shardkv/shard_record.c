/* Shard records and pending drops: encoding and small questions. Pure. */
#include "shardkv/shard_record.h"

#include "base/assert.h"
#include "base/codec.h"

#include <string.h>

enum { RECORD_VERSION = 1 };

void shard_record_encode(const struct shard_record *record, struct buf *out)
{
    put_u8(out, RECORD_VERSION);
    put_u8(out, (uint8_t)record->state);
    put_varint(out, record->number);
    put_varint(out, record->peer_group);
    put_varint(out, record->version);
    put_varint(out, record->session_count);
    put_u64(out, record->expire_from);
    put_varint(out, record->frozen_ms);
    put_varint(out, record->generation);
    put_u8(out, record->clearing ? 1 : 0);
    put_u8(out, record->complete ? 1 : 0);
    put_varint(out, record->rows);
    put_varint(out, record->bytes);
    put_u64(out, record->checksum);
    put_sized(out, shard_record_last_row(record));
}

int shard_record_decode(struct bytes bytes, struct shard_record *out)
{
    struct reader reader = reader_of(bytes);
    uint8_t version = get_u8(&reader);
    uint8_t state = get_u8(&reader);
    *out = (struct shard_record){.state = (enum shard_state)state};
    out->number = get_varint(&reader);
    out->peer_group = get_varint(&reader);
    out->version = get_varint(&reader);
    out->session_count = get_varint(&reader);
    out->expire_from = get_u64(&reader);
    out->frozen_ms = get_varint(&reader);
    out->generation = get_varint(&reader);
    uint8_t clearing = get_u8(&reader);
    uint8_t complete = get_u8(&reader);
    out->rows = get_varint(&reader);
    out->bytes = get_varint(&reader);
    out->checksum = get_u64(&reader);
    struct bytes last_row = get_sized(&reader, MOVE_ROW_KEY_BYTES_MAX);
    if (!reader_done(&reader) || version != RECORD_VERSION || state > SHARD_DROPPING ||
        clearing > 1 || complete > 1) {
        *out = (struct shard_record){0};
        return ERR_CORRUPT;
    }
    out->clearing = clearing == 1;
    out->complete = complete == 1;
    out->last_row = last_row.size == 0 ? NULL : blob_copy(last_row);
    return 0;
}

void shard_record_copy(struct shard_record *to, const struct shard_record *from)
{
    *to = *from;
    to->last_row = blob_ref(from->last_row);
}

void shard_record_clear(struct shard_record *record)
{
    blob_unref(record->last_row);
    *record = (struct shard_record){0};
}

void shard_record_restart(struct shard_record *record)
{
    record->generation++;
    record->complete = false;
    record->rows = 0;
    record->bytes = 0;
    record->checksum = 0;
    record->version = 0;
    record->session_count = 0;
    blob_unref(record->last_row);
    record->last_row = NULL;
}

void shard_record_set_last_row(struct shard_record *record, struct bytes row)
{
    blob_unref(record->last_row);
    record->last_row = blob_copy(row);
}

struct bytes shard_record_last_row(const struct shard_record *record)
{
    return record->last_row == NULL ? BYTES_EMPTY : blob_view(record->last_row);
}

int shard_record_serves(const struct shard_record *record)
{
    switch (record->state) {
    case SHARD_SERVING:
        return 0;
    case SHARD_PULLING:
        return ERR_SHARD_MOVING;
    case SHARD_ABSENT:
    case SHARD_FROZEN:
    case SHARD_DROPPING:
        return ERR_WRONG_GROUP;
    }
    UNREACHABLE();
}

bool shard_record_is_settled(const struct shard_record *record)
{
    switch (record->state) {
    case SHARD_SERVING:
    case SHARD_ABSENT:
        return true;
    case SHARD_FROZEN:
        return record->peer_group == 0;
    case SHARD_PULLING:
    case SHARD_DROPPING:
        return false;
    }
    UNREACHABLE();
}

void pending_source_encode(const struct config_group *group, struct buf *out)
{
    put_varint(out, group->id);
    put_varint(out, group->replica_count);
    for (uint32_t i = 0; i < group->replica_count; i++) {
        put_varint(out, group->replicas[i].id);
        put_sized(out, bytes_of_string(group->replicas[i].address));
    }
}

int pending_source_decode(struct bytes bytes, struct config_group *out)
{
    struct reader reader = reader_of(bytes);
    memset(out, 0, sizeof *out);
    out->id = get_varint(&reader);
    uint64_t count = get_varint(&reader);
    if (count > GROUP_REPLICAS_MAX) {
        return ERR_CORRUPT;
    }
    out->replica_count = (uint32_t)count;
    for (uint32_t i = 0; i < out->replica_count; i++) {
        out->replicas[i].id = get_varint(&reader);
        struct bytes address = get_sized(&reader, ADDRESS_BYTES_MAX - 1);
        memcpy(out->replicas[i].address, address.size == 0 ? "" : (const char *)address.data,
               address.size);
    }
    return reader_done(&reader) ? 0 : ERR_CORRUPT;
}
