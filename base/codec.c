/* Bounds-checked little-endian encoding.
 *
 * Thread: whoever owns the buf or the reader. Invariant of a reader: at <= end, and once `failed`
 * is set at == end, so that a loop 'while bytes are left' ends. Encoding is canonical: one value
 * has one spelling, and a varint padded with zero groups is refused, so that decode-then-encode
 * gives back the same bytes. */
#include "base/codec.h"

#include "base/assert.h"

#define VARINT_BYTES_MAX  10
#define VARINT_GROUP_BITS 7
static_assert(VARINT_BYTES_MAX * VARINT_GROUP_BITS >= 64, "a varint holds any uint64_t");

/* --- Writing --- */

void put_u8(struct buf *buf, uint8_t value)
{
    buf_append(buf, &value, sizeof(value));
}

void put_u16(struct buf *buf, uint16_t value)
{
    uint8_t *at = buf_reserve(buf, sizeof(value));
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    buf->size += sizeof(value);
}

void put_u32(struct buf *buf, uint32_t value)
{
    store_u32(buf_reserve(buf, sizeof(value)), value);
    buf->size += sizeof(value);
}

void put_u64(struct buf *buf, uint64_t value)
{
    store_u64(buf_reserve(buf, sizeof(value)), value);
    buf->size += sizeof(value);
}

void put_varint(struct buf *buf, uint64_t value)
{
    uint8_t *at = buf_reserve(buf, VARINT_BYTES_MAX);
    size_t count = 0;
    while (value >= 0x80) {
        at[count++] = (uint8_t)(value | 0x80);
        value >>= VARINT_GROUP_BITS;
    }
    at[count++] = (uint8_t)value;
    ASSERT_CMP(count, <=, VARINT_BYTES_MAX);
    buf->size += count;
}

void put_sized(struct buf *buf, struct bytes bytes)
{
    put_varint(buf, bytes.size);
    buf_append_bytes(buf, bytes);
}

/* --- Reading --- */

struct reader reader_of(struct bytes bytes)
{
    /* An empty view may hold NULL, on which even adding 0 is undefined. */
    static const uint8_t nothing = 0;
    const uint8_t *data = bytes.size == 0 ? &nothing : bytes.data;
    return (struct reader){data, data + bytes.size, false};
}

size_t reader_left(const struct reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

bool reader_done(const struct reader *reader)
{
    return !reader->failed && reader->at == reader->end;
}

static void reader_fail(struct reader *reader)
{
    reader->failed = true;
    reader->at = reader->end;
}

/* The next `size` bytes, or NULL after marking the reader failed. */
static const uint8_t *reader_take(struct reader *reader, size_t size)
{
    if (reader->failed || size > reader_left(reader)) {
        reader_fail(reader);
        return NULL;
    }
    const uint8_t *at = reader->at;
    reader->at += size;
    return at;
}

uint8_t get_u8(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, 1);
    return at == NULL ? 0 : at[0];
}

uint16_t get_u16(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, sizeof(uint16_t));
    return at == NULL ? 0 : (uint16_t)(at[0] | ((unsigned)at[1] << 8));
}

uint32_t get_u32(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, sizeof(uint32_t));
    return at == NULL ? 0 : load_u32(at);
}

uint64_t get_u64(struct reader *reader)
{
    const uint8_t *at = reader_take(reader, sizeof(uint64_t));
    return at == NULL ? 0 : load_u64(at);
}

uint64_t get_varint(struct reader *reader)
{
    uint64_t value = 0;
    for (unsigned group = 0; group < VARINT_BYTES_MAX; group++) {
        const uint8_t *at = reader_take(reader, 1);
        if (at == NULL) {
            return 0;
        }
        unsigned shift = group * VARINT_GROUP_BITS;
        uint64_t bits = *at & 0x7fu;
        bool last = (*at & 0x80u) == 0;
        bool overflows = bits << shift >> shift != bits;
        bool padded = last && bits == 0 && group > 0;
        if (overflows || padded) {
            break;
        }
        value |= bits << shift;
        if (last) {
            return value;
        }
    }
    reader_fail(reader);
    return 0;
}

struct bytes get_bytes(struct reader *reader, size_t size)
{
    const uint8_t *at = reader_take(reader, size);
    return at == NULL ? BYTES_EMPTY : bytes_of(at, size);
}

struct bytes get_sized(struct reader *reader, size_t size_max)
{
    uint64_t size = get_varint(reader);
    if (size > size_max) {
        reader_fail(reader);
        return BYTES_EMPTY;
    }
    return get_bytes(reader, (size_t)size);
}

/* --- Fixed places --- */

void store_u32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < sizeof(value); i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

void store_u64(uint8_t *at, uint64_t value)
{
    for (unsigned i = 0; i < sizeof(value); i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

uint32_t load_u32(const uint8_t *at)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < sizeof(value); i++) {
        value |= (uint32_t)at[i] << (8 * i);
    }
    return value;
}

uint64_t load_u64(const uint8_t *at)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < sizeof(value); i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

void store_u16_be(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

void store_u32_be(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < sizeof(value); i++) {
        at[i] = (uint8_t)(value >> (8 * (sizeof(value) - 1 - i)));
    }
}

void store_u64_be(uint8_t *at, uint64_t value)
{
    for (unsigned i = 0; i < sizeof(value); i++) {
        at[i] = (uint8_t)(value >> (8 * (sizeof(value) - 1 - i)));
    }
}

uint16_t load_u16_be(const uint8_t *at)
{
    return (uint16_t)(((unsigned)at[0] << 8) | at[1]);
}

uint32_t load_u32_be(const uint8_t *at)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < sizeof(value); i++) {
        value = (value << 8) | at[i];
    }
    return value;
}

uint64_t load_u64_be(const uint8_t *at)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < sizeof(value); i++) {
        value = (value << 8) | at[i];
    }
    return value;
}
