/* The rows of space `d` that a batch has written and the store has not yet: later commands of the
 * batch read them here, and each key goes to the store once. Keys and values are borrowed until
 * overlay_clear, but for values that grow by appends, which the overlay owns. */
#ifndef SHARDKV_OVERLAY_H
#define SHARDKV_OVERLAY_H

#include "base/bytes.h"

struct overlay_row {
    uint32_t shard;
    bool deleted;
    uint64_t version;
    struct bytes key;   /* the client's */
    struct bytes value; /* as long as nothing is written to this row */
    struct buf owned;   /* memory of `value` once it was appended to */
    uint64_t hash;
};

struct overlay {
    struct overlay_row *rows;
    uint32_t count;
    uint32_t capacity;
    uint32_t *slots;     /* row index + 1, 0: free; open addressing */
    uint32_t slot_count; /* a power of two, at least twice `capacity` */
};

void overlay_init(struct overlay *overlay);
void overlay_deinit(struct overlay *overlay);
void overlay_clear(struct overlay *overlay);
/* NULL: not written in this batch. The row is good until the next overlay_row_of. */
struct overlay_row *overlay_find(const struct overlay *overlay, uint32_t shard, struct bytes key);
/* The row of this key, made (deleted, version 0) if it is not there. Borrows `key`. */
struct overlay_row *overlay_row_of(struct overlay *overlay, uint32_t shard, struct bytes key);
void overlay_row_set(struct overlay_row *row, struct bytes value,
                     uint64_t version); /* borrows value */
void overlay_row_delete(struct overlay_row *row);
/* value := base + tail, copied; `base` may be the row's own value. */
void overlay_row_append(struct overlay_row *row, struct bytes base, struct bytes tail,
                        uint64_t version);
/* Orders rows by shard and key, for the store's sake. After it only overlay_clear may be called. */
void overlay_sort(struct overlay *overlay);

#endif
