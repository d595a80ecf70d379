/* Bounds-checked little-endian encoding for bytes that go to disk or over the wire.
 *
 * A writer appends to a buf and cannot fail. A reader walks a view; the first read past its end sets `failed`,
 * and every later read gives zeroes, so a decoder reads all its fields and checks `failed` once at the end. A failed
 * reader has nothing left, so a loop over reader_left() ends. A varint that is padded or over 64 bits fails. */
#ifndef BASE_CODEC_H
#define BASE_CODEC_H

#include "base/bytes.h"

void put_u8(struct buf *buf, uint8_t value);
void put_u16(struct buf *buf, uint16_t value);
void put_u32(struct buf *buf, uint32_t value);
void put_u64(struct buf *buf, uint64_t value);
void put_varint(struct buf *buf, uint64_t value);           /* LEB128, 1..10 bytes */
void put_sized(struct buf *buf, struct bytes bytes);        /* varint size, then the bytes */

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

struct reader reader_of(struct bytes bytes);
uint8_t get_u8(struct reader *reader);
uint16_t get_u16(struct reader *reader);
uint32_t get_u32(struct reader *reader);
uint64_t get_u64(struct reader *reader);
uint64_t get_varint(struct reader *reader);
struct bytes get_bytes(struct reader *reader, size_t size);      /* a view into the reader's bytes */
struct bytes get_sized(struct reader *reader, size_t size_max);  /* fails when larger than size_max */
size_t reader_left(const struct reader *reader);
/* True when nothing failed and nothing is left over. */
bool reader_done(const struct reader *reader);

/* Fixed places, for patching and for keys. Big-endian sorts as numbers do. */
void store_u32(uint8_t *at, uint32_t value);
void store_u64(uint8_t *at, uint64_t value);
uint32_t load_u32(const uint8_t *at);
uint64_t load_u64(const uint8_t *at);
void store_u16_be(uint8_t *at, uint16_t value);
void store_u32_be(uint8_t *at, uint32_t value);
void store_u64_be(uint8_t *at, uint64_t value);
uint16_t load_u16_be(const uint8_t *at);
uint32_t load_u32_be(const uint8_t *at);
uint64_t load_u64_be(const uint8_t *at);

#endif
