/* CRC-32C (Castagnoli), with the processor's instruction where it has one. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The checksum of `data` appended to bytes whose checksum is `crc`; start with 0. */
uint32_t crc32c_extend(uint32_t crc, const void *data, size_t size);

/* The two ways crc32c_extend() chooses between, for the test that compares them. */
uint32_t crc32c__portable(uint32_t crc, const void *data, size_t size);
uint32_t crc32c__hardware(uint32_t crc, const void *data, size_t size); /* only when available */
bool crc32c__hardware_available(void);

#endif
