/* Readers that ask each server by itself, past the client library's routing: a server that no
 * longer leads, or no longer owns the shard, must say so and never answer from what it still has.
 * Whatever one answers goes into the history. */
#ifndef TESTS_FAULT_DIRECT_H
#define TESTS_FAULT_DIRECT_H

#include "lin/history.h"

enum { DIRECT_ADDRESS_BYTES = 32 };

struct direct;

struct direct_options {
    const char (*addresses)[DIRECT_ADDRESS_BYTES];
    uint32_t count;
    uint32_t keys; /* "fault-0" to "fault-<keys - 1>" */
    uint64_t seed;
    uint64_t first_process; /* the readers' numbers in the history */
};

/* Starts two threads for each address. gives */
struct direct *direct_start(const struct direct_options *options);
/* Ends them; no more is recorded. */
void direct_stop(struct direct *direct);
/* Adds what was recorded; how many reads were answered. takes */
uint64_t direct_take(struct direct *direct, struct lin_history *into);

#endif
