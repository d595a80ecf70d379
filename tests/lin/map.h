/* A hash map from a pair of numbers to a number; open addressing, no removal. */
#ifndef TESTS_LIN_MAP_H
#define TESTS_LIN_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lin_map_slot {
    uint64_t a, b;
    uint32_t value; /* one more than it; 0: the slot is free */
};

struct lin_map {
    struct lin_map_slot *slots;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
};

/* All bits of the outcome depend on all bits of `x` (the finisher of splitmix64). */
static inline uint64_t lin_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void lin_map_deinit(struct lin_map *map); /* a zeroed map is empty */
bool lin_map_find(const struct lin_map *map, uint64_t a, uint64_t b, uint32_t *value);
/* The pair must not be there. */
void lin_map_add(struct lin_map *map, uint64_t a, uint64_t b, uint32_t value);
uint64_t lin_map_bytes(const struct lin_map *map);

#endif
