/* Packed operations and results: the format is in command.h.
 *
 * Thread: any; a reader has one owner. Invariant of a block_reader: read_count operations were
 * taken, and reader stands at the next one; after an error it gives the same error class again,
 * because a failed reader stays failed. */
#include "proto/command.h"

#include "base/assert.h"
#include "proto/shard_hash.h"
#include <string.h>

#define BLOCK_VERSION 1
/* Kind, sequence, shard, and a key of one byte with its size. */
#define OPERATION_BYTES_MIN 5
#define VARINT_BYTES_MAX    10

/* One largest operation travels alone: its kind, sequence, shard, expected version and two sizes,
 * after a header of a version, a client id and three varints. */
static_assert(1 + 8 + 3 * VARINT_BYTES_MAX + 1 + 5 * VARINT_BYTES_MAX + KEY_BYTES_MAX +
                      VALUE_BYTES_MAX <=
                  BLOCK_BYTES_MAX,
              "the largest operation fits a block");

static bool kind_has_value(enum op_kind kind)
{
    return kind == OP_PUT || kind == OP_APPEND || kind == OP_CAS;
}

static size_t varint_bytes(uint64_t value)
{
    size_t count = 1;
    while (value >= 0x80) {
        value >>= 7;
        count++;
    }
    return count;
}

/* ---- blocks ---- */

void block_put_header(struct buf *out, const struct block_header *header)
{
    ASSERT_CMP(header->count, >, 0);
    ASSERT_CMP(header->count, <=, BLOCK_OPERATIONS_MAX);
    put_u8(out, BLOCK_VERSION);
    put_u64(out, header->client_id);
    put_varint(out, header->acked_below);
    put_varint(out, header->age_ms);
    put_varint(out, header->count);
}

static uint8_t *store_varint(uint8_t *at, uint64_t value)
{
    while (value >= 0x80) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

static uint8_t *store_sized(uint8_t *at, struct bytes bytes)
{
    at = store_varint(at, bytes.size);
    if (bytes.size > 0) {
        memcpy(at, bytes.data, bytes.size);
    }
    return at + bytes.size;
}

/* Makes room once and stores the fields there: a client does this for every command. */
void block_put_op(struct buf *out, const struct op *op)
{
    ASSERT(op->kind >= OP_GET && op->kind <= OP_CAS);
    ASSERT_CMP(op->key.size, >, 0);
    ASSERT_CMP(op->key.size, <=, KEY_BYTES_MAX);
    bool has_value = kind_has_value(op->kind);
    size_t value_bytes = has_value ? op->value.size : 0;
    ASSERT_CMP(value_bytes, <=, VALUE_BYTES_MAX);
    size_t bytes_max = 1 + 5 * VARINT_BYTES_MAX + op->key.size + value_bytes;
    uint8_t *start = buf_reserve(out, bytes_max);
    uint8_t *at = start;
    *at++ = (uint8_t)op->kind;
    at = store_varint(at, op->sequence);
    at = store_varint(at, op->shard);
    at = store_sized(at, op->key);
    if (op->kind == OP_CAS) {
        at = store_varint(at, op->expected_version);
    }
    if (has_value) {
        at = store_sized(at, op->value);
    }
    ASSERT_CMP(at - start, <=, bytes_max);
    out->size += (size_t)(at - start);
}

size_t block_op_bytes(const struct op *op)
{
    size_t bytes = 1 + varint_bytes(op->sequence) + varint_bytes(op->shard) +
                   varint_bytes(op->key.size) + op->key.size;
    if (op->kind == OP_CAS) {
        bytes += varint_bytes(op->expected_version);
    }
    if (kind_has_value(op->kind)) {
        bytes += varint_bytes(op->value.size) + op->value.size;
    }
    return bytes;
}

int block_open(struct bytes block, struct block_reader *out)
{
    if (block.size > BLOCK_BYTES_MAX) {
        return ERR_TOO_LARGE;
    }
    struct reader reader = reader_of(block);
    uint8_t version = get_u8(&reader);
    if (reader.failed) {
        return ERR_PROTOCOL;
    }
    if (version != BLOCK_VERSION) {
        return ERR_UNSUPPORTED;
    }
    struct block_header header;
    header.client_id = get_u64(&reader);
    header.acked_below = get_varint(&reader);
    header.age_ms = get_varint(&reader);
    uint64_t count = get_varint(&reader);
    if (reader.failed || count == 0) {
        return ERR_PROTOCOL;
    }
    if (count > BLOCK_OPERATIONS_MAX) {
        return ERR_TOO_LARGE;
    }
    /* So that a small block cannot make anyone prepare for many operations. */
    if (count > reader_left(&reader) / OPERATION_BYTES_MIN) {
        return ERR_PROTOCOL;
    }
    header.count = (uint32_t)count;
    *out = (struct block_reader){.reader = reader, .header = header, .read_count = 0};
    return ERR_OK;
}

/* A sized run of bytes; tells one that is over its limit from one that is cut off. */
static int read_sized(struct reader *reader, size_t size_max, struct bytes *out)
{
    uint64_t size = get_varint(reader);
    if (reader->failed) {
        return ERR_PROTOCOL;
    }
    if (size > size_max) {
        return ERR_TOO_LARGE;
    }
    *out = get_bytes(reader, (size_t)size);
    return reader->failed ? ERR_PROTOCOL : ERR_OK;
}

static int read_op(struct reader *reader, struct op *out)
{
    uint8_t kind = get_u8(reader);
    if (kind < OP_GET || kind > OP_CAS) {
        return ERR_PROTOCOL;
    }
    struct op op = {.kind = (enum op_kind)kind};
    op.sequence = get_varint(reader);
    uint64_t shard = get_varint(reader);
    if (reader->failed || shard > UINT32_MAX) {
        return ERR_PROTOCOL;
    }
    op.shard = (uint32_t)shard;
    int error = read_sized(reader, KEY_BYTES_MAX, &op.key);
    if (error != ERR_OK) {
        return error;
    }
    if (op.key.size == 0) {
        return ERR_INVALID;
    }
    if (op.kind == OP_CAS) {
        op.expected_version = get_varint(reader);
    }
    if (kind_has_value(op.kind)) {
        error = read_sized(reader, VALUE_BYTES_MAX, &op.value);
        if (error != ERR_OK) {
            return error;
        }
    }
    *out = op;
    return ERR_OK;
}

int block_next(struct block_reader *block, struct op *out)
{
    ASSERT_CMP(block->read_count, <=, block->header.count);
    if (block->read_count == block->header.count) {
        return reader_done(&block->reader) ? ERR_NOT_FOUND : ERR_PROTOCOL;
    }
    int error = read_op(&block->reader, out);
    if (error == ERR_OK) {
        block->read_count++;
    } else {
        /* Nothing after a bad operation has a meaning. */
        block->reader.failed = true;
        block->reader.at = block->reader.end;
    }
    return error;
}

/* What a well-formed operation must be to stand at its place in its block. */
static int check_op(const struct op *op, const struct block_header *header, bool reads,
                    uint32_t shard_count, uint64_t sequence_before)
{
    if ((op->kind == OP_GET) != reads) {
        return ERR_PROTOCOL;
    }
    if (op->shard >= shard_count) {
        return ERR_SHARD_RANGE;
    }
    if (op->shard != shard_of_key(op->key, shard_count)) {
        return ERR_PROTOCOL;
    }
    bool counted = !reads && header->client_id != 0;
    /* `sequence_before` starts at 0: ascending means nonzero too. */
    bool sequence_right = counted ? op->sequence > sequence_before : op->sequence == 0;
    return sequence_right ? ERR_OK : ERR_PROTOCOL;
}

int block_check(struct bytes block, bool reads, uint32_t shard_count, struct block_header *header)
{
    ASSERT_CMP(shard_count, >, 0);
    struct block_reader reader;
    int error = block_open(block, &reader);
    if (error != ERR_OK) {
        return error;
    }
    struct op op;
    uint64_t sequence_before = 0;
    while ((error = block_next(&reader, &op)) == ERR_OK) {
        error = check_op(&op, &reader.header, reads, shard_count, sequence_before);
        if (error != ERR_OK) {
            return error;
        }
        sequence_before = op.sequence;
    }
    if (error != ERR_NOT_FOUND) {
        return error;
    }
    *header = reader.header;
    return ERR_OK;
}

/* ---- results ---- */

void results_put_count(struct buf *out, uint32_t count)
{
    ASSERT_CMP(count, >, 0);
    ASSERT_CMP(count, <=, BLOCK_OPERATIONS_MAX);
    put_varint(out, count);
}

void results_put(struct buf *out, enum op_kind kind, const struct op_result *result)
{
    put_varint(out, err_to_wire(result->error));
    put_varint(out, result->version);
    if (kind == OP_GET) {
        ASSERT_CMP(result->value.size, <=, VALUE_BYTES_MAX);
        put_sized(out, result->value);
    }
}

size_t results_bytes(enum op_kind kind, const struct op_result *result)
{
    size_t bytes = varint_bytes(err_to_wire(result->error)) + varint_bytes(result->version);
    if (kind == OP_GET) {
        bytes += varint_bytes(result->value.size) + result->value.size;
    }
    return bytes;
}

int results_open(struct bytes results, struct reader *reader, uint32_t *count)
{
    if (results.size > RESULTS_BYTES_MAX) {
        return ERR_TOO_LARGE;
    }
    *reader = reader_of(results);
    uint64_t value = get_varint(reader);
    if (reader->failed || value == 0 || value > BLOCK_OPERATIONS_MAX) {
        return ERR_PROTOCOL;
    }
    *count = (uint32_t)value;
    return ERR_OK;
}

int results_next(struct reader *reader, enum op_kind kind, struct op_result *out)
{
    struct op_result result = {0};
    uint64_t code = get_varint(reader);
    result.version = get_varint(reader);
    if (reader->failed || code > UINT32_MAX) {
        return ERR_PROTOCOL;
    }
    result.error = code == 0 ? ERR_OK : err_from_wire((unsigned)code);
    if (kind == OP_GET) {
        int error = read_sized(reader, VALUE_BYTES_MAX, &result.value);
        if (error != ERR_OK) {
            return error;
        }
    }
    *out = result;
    return ERR_OK;
}
