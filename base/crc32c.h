/* CRC-32C (Castagnoli), with the processor's instruction where it has one. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `data` appended to bytes whose checksum is `crc`; start with 0. */
uint32_t crc32c_extend(uint32_t crc, const void *data, size_t size);

#endif
