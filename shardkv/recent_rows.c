/* See recent_rows.h. Slots hold half of the hash beside the row's place, so that a key that is not
 * here is told without a look at its bytes; rows keep the first bytes of their keys as a number,
 * so that most comparisons of a sort or a range are of two words. */
#include "shardkv/recent_rows.h"

#include "base/assert.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    SLOTS_MIN = 1024, /* a power of two */
    ROWS_MIN = 256,
    CHUNK_BYTES_MIN = 16 * 1024, /* an idle replica's table stays small */
    CHUNK_BYTES_MAX = 1024 * 1024,
};

struct recent_row {
    struct store_row row;
    uint64_t prefix; /* of the key, see prefix_of */
    uint64_t hash;
};

struct chunk {
    struct chunk *next;
    size_t used;
    size_t capacity;
    uint8_t data[];
};

struct recent_rows {
    _Atomic uint32_t references;
    struct recent_row *rows;
    uint32_t count;
    uint32_t capacity;
    uint64_t *slots; /* upper half of the hash, row + 1; 0: free; open addressing */
    uint32_t slot_count;
    struct chunk *chunks; /* the newest first; only that one has room */
    size_t chunk_bytes;
};

struct recent_rows *recent_rows_create(void)
{
    struct recent_rows *rows = mem_calloc(1, sizeof *rows);
    atomic_init(&rows->references, 1);
    rows->slot_count = SLOTS_MIN;
    rows->slots = mem_calloc(rows->slot_count, sizeof rows->slots[0]);
    return rows;
}

struct recent_rows *recent_rows_ref(struct recent_rows *rows)
{
    atomic_fetch_add_explicit(&rows->references, 1, memory_order_relaxed);
    return rows;
}

void recent_rows_unref(struct recent_rows *rows)
{
    if (rows == NULL || atomic_fetch_sub_explicit(&rows->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    while (rows->chunks != NULL) {
        struct chunk *chunk = rows->chunks;
        rows->chunks = chunk->next;
        free(chunk);
    }
    free(rows->rows);
    free(rows->slots);
    free(rows);
}

/* ---- the table ---- */

/* The first eight bytes as a number that orders as they do; zeros stand for what is not there, so
 * equal numbers say nothing of the keys. */
static uint64_t prefix_of(struct bytes key)
{
    uint64_t prefix = 0;
    for (size_t i = 0; i < sizeof prefix; i++) {
        prefix = prefix << 8 | (i < key.size ? key.data[i] : 0);
    }
    return prefix;
}

static uint64_t slot_of(uint64_t hash, uint32_t row)
{
    return (hash & 0xffffffff00000000u) | (row + 1);
}

static void place(struct recent_rows *rows, uint32_t row)
{
    uint32_t mask = rows->slot_count - 1;
    uint32_t at = (uint32_t)rows->rows[row].hash & mask;
    while (rows->slots[at] != 0) {
        at = (at + 1) & mask;
    }
    rows->slots[at] = slot_of(rows->rows[row].hash, row);
}

static void grow(struct recent_rows *rows)
{
    if (rows->count == rows->capacity) {
        rows->capacity = rows->capacity == 0 ? ROWS_MIN : rows->capacity * 2;
        rows->rows = mem_realloc(rows->rows, rows->capacity * sizeof rows->rows[0]);
    }
    if ((rows->count + 1) * 2 > rows->slot_count) {
        free(rows->slots);
        rows->slot_count *= 2;
        rows->slots = mem_calloc(rows->slot_count, sizeof rows->slots[0]);
        for (uint32_t i = 0; i < rows->count; i++) {
            place(rows, i);
        }
    }
}

static struct recent_row *find(const struct recent_rows *rows, struct bytes key, uint64_t hash)
{
    uint32_t mask = rows->slot_count - 1;
    uint32_t at = (uint32_t)hash & mask;
    while (rows->slots[at] != 0) {
        uint64_t slot = rows->slots[at];
        if ((slot ^ hash) >> 32 == 0) {
            struct recent_row *row = &rows->rows[(uint32_t)slot - 1];
            if (bytes_equal(row->row.key, key)) {
                return row;
            }
        }
        at = (at + 1) & mask;
    }
    return NULL;
}

const struct store_row *recent_rows_find(const struct recent_rows *rows, struct bytes key)
{
    const struct recent_row *row = find(rows, key, XXH3_64bits(key.data, key.size));
    return row == NULL ? NULL : &row->row;
}

static struct bytes keep(struct recent_rows *rows, struct bytes bytes)
{
    struct chunk *chunk = rows->chunks;
    if (chunk == NULL || chunk->capacity - chunk->used < bytes.size) {
        size_t capacity = chunk == NULL ? CHUNK_BYTES_MIN : chunk->capacity * 2;
        capacity = capacity > CHUNK_BYTES_MAX ? CHUNK_BYTES_MAX : capacity;
        capacity = capacity < bytes.size ? bytes.size : capacity;
        chunk = mem_alloc(sizeof *chunk + capacity);
        *chunk = (struct chunk){.next = rows->chunks, .capacity = capacity};
        rows->chunks = chunk;
        rows->chunk_bytes += capacity;
    }
    uint8_t *at = chunk->data + chunk->used;
    if (bytes.size > 0) {
        memcpy(at, bytes.data, bytes.size);
    }
    chunk->used += bytes.size;
    return bytes_of(at, bytes.size);
}

static struct recent_row *row_of(struct recent_rows *rows, struct bytes key)
{
    uint64_t hash = XXH3_64bits(key.data, key.size);
    struct recent_row *row = find(rows, key, hash);
    if (row != NULL) {
        return row;
    }
    grow(rows);
    row = &rows->rows[rows->count];
    *row = (struct recent_row){
        .row = {.key = keep(rows, key)}, .prefix = prefix_of(key), .hash = hash};
    place(rows, rows->count);
    rows->count++;
    return row;
}

void recent_rows_put(struct recent_rows *rows, struct bytes key, struct bytes value)
{
    struct recent_row *row = row_of(rows, key);
    row->row.value = keep(rows, value);
    row->row.deleted = false;
}

void recent_rows_delete(struct recent_rows *rows, struct bytes key)
{
    struct recent_row *row = row_of(rows, key);
    row->row.value = BYTES_EMPTY;
    row->row.deleted = true;
}

size_t recent_rows_count(const struct recent_rows *rows)
{
    return rows->count;
}

size_t recent_rows_bytes(const struct recent_rows *rows)
{
    return sizeof *rows + rows->chunk_bytes + rows->capacity * sizeof rows->rows[0] +
           rows->slot_count * sizeof rows->slots[0];
}

/* ---- in order ---- */

void recent_rows_gather(const struct recent_rows *rows, struct bytes from, struct bytes to,
                        struct store_row_list *out)
{
    uint64_t low = prefix_of(from);
    uint64_t high = to.size == 0 ? UINT64_MAX : prefix_of(to);
    for (uint32_t i = 0; i < rows->count; i++) {
        const struct recent_row *row = &rows->rows[i];
        if (row->prefix < low || row->prefix > high || bytes_compare(row->row.key, from) < 0 ||
            (to.size > 0 && bytes_compare(row->row.key, to) >= 0)) {
            continue;
        }
        if (out->count == out->capacity) {
            out->capacity = out->capacity == 0 ? 64 : out->capacity * 2;
            out->rows = mem_realloc(out->rows, out->capacity * sizeof out->rows[0]);
        }
        out->rows[out->count] = row->row;
        out->count++;
    }
}

void store_row_list_deinit(struct store_row_list *list)
{
    free(list->rows);
    *list = (struct store_row_list){0};
}

struct place {
    uint64_t prefix;
    const struct store_row *row;
};

static int compare_places(const void *a, const void *b)
{
    const struct place *left = a;
    const struct place *right = b;
    if (left->prefix != right->prefix) {
        return left->prefix < right->prefix ? -1 : 1;
    }
    return bytes_compare(left->row->key, right->row->key);
}

const struct store_row **recent_rows_sorted(const struct recent_rows *rows)
{
    struct place *places = mem_alloc((rows->count + 1) * sizeof places[0]);
    for (uint32_t i = 0; i < rows->count; i++) {
        places[i] = (struct place){.prefix = rows->rows[i].prefix, .row = &rows->rows[i].row};
    }
    qsort(places, rows->count, sizeof places[0], compare_places);
    const struct store_row **sorted = mem_alloc((rows->count + 1) * sizeof sorted[0]);
    for (uint32_t i = 0; i < rows->count; i++) {
        sorted[i] = places[i].row;
    }
    free(places);
    return sorted;
}
