/* See map.h. Invariant: at most half of the slots are taken, so that a search ends. */
#include "lin/map.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <stdlib.h>

enum { SLOTS_FIRST = 64 };

void lin_map_deinit(struct lin_map *map)
{
    free(map->slots);
    *map = (struct lin_map){0};
}

static size_t slot_of(const struct lin_map *map, uint64_t a, uint64_t b)
{
    size_t mask = map->capacity - 1;
    size_t at = (size_t)lin_mix(lin_mix(a) ^ b) & mask;
    while (map->slots[at].value != 0 && (map->slots[at].a != a || map->slots[at].b != b)) {
        at = (at + 1) & mask;
    }
    return at;
}

bool lin_map_find(const struct lin_map *map, uint64_t a, uint64_t b, uint32_t *value)
{
    if (map->capacity == 0) {
        return false;
    }
    const struct lin_map_slot *slot = &map->slots[slot_of(map, a, b)];
    if (slot->value == 0) {
        return false;
    }
    *value = slot->value - 1;
    return true;
}

static void grow(struct lin_map *map)
{
    struct lin_map larger = {.capacity = map->capacity == 0 ? SLOTS_FIRST : 2 * map->capacity,
                             .count = map->count};
    larger.slots = mem_calloc(larger.capacity, sizeof larger.slots[0]);
    for (size_t i = 0; i < map->capacity; i++) {
        const struct lin_map_slot *slot = &map->slots[i];
        if (slot->value != 0) {
            larger.slots[slot_of(&larger, slot->a, slot->b)] = *slot;
        }
    }
    free(map->slots);
    *map = larger;
}

void lin_map_add(struct lin_map *map, uint64_t a, uint64_t b, uint32_t value)
{
    ASSERT_CMP(value, <, UINT32_MAX);
    if (map->count >= map->capacity / 2) {
        grow(map);
    }
    size_t at = slot_of(map, a, b);
    ASSERT_CMP(map->slots[at].value, ==, 0);
    map->slots[at] = (struct lin_map_slot){a, b, value + 1};
    map->count++;
}

uint64_t lin_map_bytes(const struct lin_map *map)
{
    return map->capacity * sizeof map->slots[0];
}
