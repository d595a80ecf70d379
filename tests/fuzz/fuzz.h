/* What a fuzz target is, whoever feeds it: libFuzzer (libfuzzer_main.c, clang) or the replayer of
 * kept and mutated inputs (replay_main.c, any compiler, every run of the tests).
 *
 * A target is one file fuzz_<name>.c with the three things below. It finds a fault by ending the
 * process: an ASSERT, of its own or of the code under test, or a sanitizer. It must be a function
 * of its input alone, so that an input that failed once fails again. One thread. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "base/assert.h"
#include "base/bytes.h"
#include "base/codec.h"

/* No input is longer; what one input may cost is bounded by this. */
extern const size_t fuzz_input_bytes_max;

void fuzz_one(struct bytes input);

/* Appends input number `index` of those that are right by the rules of what is tested, so that
 * mutations start deep inside. False: there is no such number. */
bool fuzz_seed(uint32_t index, struct buf *out);

/* ---- an input as a source of choices; zeroes when it is used up ---- */

/* 0 .. bound-1; bound is 1 .. 256. */
static inline uint32_t fuzz_choice(struct reader *input, uint32_t bound)
{
    return get_u8(input) % bound;
}
/* Small ones mostly, and sometimes any: what protocols go wrong on lies at both ends. */
static inline uint64_t fuzz_number(struct reader *input)
{
    uint8_t first = get_u8(input);
    if (first < 0xf0) {
        return first % 16;
    }
    if (first < 0xf8) {
        return get_u16(input);
    }
    return first < 0xff ? get_u64(input) : UINT64_MAX;
}
/* Up to `size_max` of the bytes that are left. */
static inline struct bytes fuzz_take(struct reader *input, size_t size_max)
{
    size_t left = reader_left(input);
    return get_bytes(input, left < size_max ? left : size_max);
}

#endif
