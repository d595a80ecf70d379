/* A hash map of the rows one batch wrote. One thread: apply. */
#include "shardkv/overlay.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

enum {
    ROWS_INITIAL = 256,
    ROWS_KEPT_MAX = 16384, /* memory of a larger batch is given back when it is cleared */
};

void overlay_init(struct overlay *overlay)
{
    memset(overlay, 0, sizeof *overlay);
}

static void release(struct overlay *overlay)
{
    free(overlay->rows);
    free(overlay->slots);
    memset(overlay, 0, sizeof *overlay);
}

void overlay_clear(struct overlay *overlay)
{
    for (uint32_t i = 0; i < overlay->count; i++) {
        buf_deinit(&overlay->rows[i].owned);
    }
    overlay->count = 0;
    if (overlay->capacity > ROWS_KEPT_MAX) {
        release(overlay);
    } else if (overlay->slot_count > 0) {
        memset(overlay->slots, 0, overlay->slot_count * sizeof *overlay->slots);
    }
}

void overlay_deinit(struct overlay *overlay)
{
    overlay_clear(overlay);
    release(overlay);
}

static uint64_t hash_of(uint32_t shard, struct bytes key)
{
    return XXH3_64bits_withSeed(key.data, key.size, shard);
}

static uint32_t slot_of(const struct overlay *overlay, uint64_t hash, uint32_t shard,
                        struct bytes key)
{
    uint32_t mask = overlay->slot_count - 1;
    uint32_t slot = (uint32_t)hash & mask;
    while (overlay->slots[slot] != 0) {
        const struct overlay_row *row = &overlay->rows[overlay->slots[slot] - 1];
        if (row->hash == hash && row->shard == shard && bytes_equal(row->key, key)) {
            break;
        }
        slot = (slot + 1) & mask;
    }
    return slot;
}

static void grow(struct overlay *overlay)
{
    uint32_t capacity = overlay->capacity == 0 ? ROWS_INITIAL : overlay->capacity * 2;
    overlay->rows = mem_realloc(overlay->rows, capacity * sizeof *overlay->rows);
    overlay->capacity = capacity;
    overlay->slot_count = capacity * 2;
    free(overlay->slots);
    overlay->slots = mem_calloc(overlay->slot_count, sizeof *overlay->slots);
    for (uint32_t i = 0; i < overlay->count; i++) {
        const struct overlay_row *row = &overlay->rows[i];
        overlay->slots[slot_of(overlay, row->hash, row->shard, row->key)] = i + 1;
    }
}

struct overlay_row *overlay_find(const struct overlay *overlay, uint32_t shard, struct bytes key)
{
    if (overlay->count == 0) {
        return NULL;
    }
    uint32_t slot = slot_of(overlay, hash_of(shard, key), shard, key);
    return overlay->slots[slot] == 0 ? NULL : &overlay->rows[overlay->slots[slot] - 1];
}

struct overlay_row *overlay_row_of(struct overlay *overlay, uint32_t shard, struct bytes key)
{
    if (overlay->count == overlay->capacity) {
        grow(overlay);
    }
    uint64_t hash = hash_of(shard, key);
    uint32_t slot = slot_of(overlay, hash, shard, key);
    if (overlay->slots[slot] == 0) {
        overlay->rows[overlay->count] = (struct overlay_row){
            .shard = shard,
            .deleted = true,
            .key = key,
            .hash = hash,
        };
        overlay->count++;
        overlay->slots[slot] = overlay->count;
    }
    return &overlay->rows[overlay->slots[slot] - 1];
}

void overlay_row_set(struct overlay_row *row, struct bytes value, uint64_t version)
{
    buf_deinit(&row->owned);
    row->deleted = false;
    row->version = version;
    row->value = value;
}

void overlay_row_delete(struct overlay_row *row)
{
    buf_deinit(&row->owned);
    row->deleted = true;
    row->version = 0;
    row->value = BYTES_EMPTY;
}

void overlay_row_append(struct overlay_row *row, struct bytes base, struct bytes tail,
                        uint64_t version)
{
    bool own = row->owned.data != NULL && base.data == row->owned.data;
    if (!own) {
        ASSERT(row->owned.data == NULL);
        (void)buf_reserve(&row->owned, base.size + tail.size);
        buf_append_bytes(&row->owned, base);
    }
    buf_append_bytes(&row->owned, tail);
    row->deleted = false;
    row->version = version;
    row->value = buf_view(&row->owned);
}

static int compare_rows(const void *a, const void *b)
{
    const struct overlay_row *left = a;
    const struct overlay_row *right = b;
    if (left->shard != right->shard) {
        return left->shard < right->shard ? -1 : 1;
    }
    return bytes_compare(left->key, right->key);
}

void overlay_sort(struct overlay *overlay)
{
    if (overlay->count > 1) {
        qsort(overlay->rows, overlay->count, sizeof *overlay->rows, compare_rows);
    }
}
