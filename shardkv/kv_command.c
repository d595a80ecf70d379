/* Commands of the log, packed. Pure. */
#include "shardkv/kv_command.h"

#include "base/assert.h"
#include "base/codec.h"
#include "proto/command.h"
#include "proto/limits.h"

static bool has_fence(enum kv_command_kind kind)
{
    return kind != KV_COMMAND_CONFIG && kind != KV_COMMAND_EXPIRE;
}

static bool has_generation(enum kv_command_kind kind)
{
    return kind == KV_COMMAND_CHUNK || kind == KV_COMMAND_INSTALL;
}

void kv_command_encode(const struct kv_command *command, struct buf *out)
{
    ASSERT(command->kind != KV_COMMAND_BLOCK);
    put_u8(out, (uint8_t)command->kind);
    if (command->kind == KV_COMMAND_CONFIG) {
        put_varint(out, command->number);
        buf_append_bytes(out, command->config);
        return;
    }
    put_varint(out, command->shard);
    if (has_fence(command->kind)) {
        put_varint(out, command->number);
    }
    if (has_generation(command->kind)) {
        put_varint(out, command->generation);
    }
    if (command->kind == KV_COMMAND_CHUNK) {
        put_sized(out, command->after_row);
        put_sized(out, command->last_row);
        put_u8(out, command->end ? 1 : 0);
        put_sized(out, command->rows);
    } else if (command->kind == KV_COMMAND_INSTALL) {
        put_varint(out, command->row_count);
        put_varint(out, command->row_bytes);
        put_u64(out, command->checksum);
    } else if (command->kind == KV_COMMAND_DROP) {
        put_varint(out, command->group);
    }
}

static bool is_known(uint8_t kind)
{
    return kind >= KV_COMMAND_CONFIG && kind <= KV_COMMAND_EXPIRE;
}

int kv_command_decode(struct bytes payload, struct kv_command *out)
{
    struct reader reader = reader_of(payload);
    uint8_t kind = get_u8(&reader);
    *out = (struct kv_command){0};
    if (reader.failed) {
        return ERR_PROTOCOL;
    }
    out->kind = (enum kv_command_kind)kind;
    if (kind == KV_COMMAND_BLOCK) {
        return 0;
    }
    if (!is_known(kind)) {
        return ERR_UNSUPPORTED;
    }
    if (kind == KV_COMMAND_CONFIG) {
        out->number = get_varint(&reader);
        out->config = get_bytes(&reader, reader_left(&reader));
        return reader.failed ? ERR_PROTOCOL : 0;
    }
    uint64_t shard = get_varint(&reader);
    out->shard = shard < SHARD_COUNT_MAX ? (uint32_t)shard : SHARD_COUNT_MAX;
    out->number = has_fence(out->kind) ? get_varint(&reader) : 0;
    out->generation = has_generation(out->kind) ? get_varint(&reader) : 0;
    if (kind == KV_COMMAND_CHUNK) {
        out->after_row = get_sized(&reader, MOVE_ROW_KEY_BYTES_MAX);
        out->last_row = get_sized(&reader, MOVE_ROW_KEY_BYTES_MAX);
        out->end = get_u8(&reader) != 0;
        out->rows = get_sized(&reader, MOVE_ROWS_BYTES_MAX);
    } else if (kind == KV_COMMAND_INSTALL) {
        out->row_count = get_varint(&reader);
        out->row_bytes = get_varint(&reader);
        out->checksum = get_u64(&reader);
    } else if (kind == KV_COMMAND_DROP) {
        out->group = get_varint(&reader);
    }
    return reader_done(&reader) ? 0 : ERR_PROTOCOL;
}

int kv_command_result(struct bytes result)
{
    struct reader reader = reader_of(result);
    uint64_t code = get_varint(&reader);
    if (!reader_done(&reader) || code > UINT32_MAX) {
        return ERR_PROTOCOL;
    }
    return err_from_wire((unsigned)code);
}
