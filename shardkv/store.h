/* The ordered store under the state machine, as a vtable: RocksDB in the product (store_rocksdb.c,
 * the only file that includes its header), an ordered map with a lossy memtable in the simulator
 * (tests/lib). One column family; the store's own log is off (the Raft log is the write-ahead log),
 * so what survives a crash is a prefix of the batches written. */
#ifndef SHARDKV_STORE_H
#define SHARDKV_STORE_H

#include "base/bytes.h"
#include "base/error.h"
#include <stdatomic.h>

struct store_batch;    /* a list of puts and deletes, applied atomically */
struct store_iterator; /* over a consistent view */
struct store_view;     /* a consistent read-only view of one moment */

struct store_value { /* pinned: no copy */
    struct bytes bytes;
    void *owner;
    void *table; /* of a write buffer, when one answered */
};

struct store_row {
    struct bytes key;
    struct bytes value; /* empty when deleted */
    bool deleted;
};

struct store_ops {
    struct store_batch *(*batch_create)(void *store); /* reusable: write clears it */
    void (*batch_destroy)(struct store_batch *batch);
    void (*batch_put)(struct store_batch *batch, struct bytes key, struct bytes value);
    void (*batch_delete)(struct store_batch *batch, struct bytes key);
    /* All or nothing; visible at once, durable after flush. An error is final. One writer at a
     * time. */
    int (*write)(void *store, struct store_batch *batch);
    /* The same for many rows at once, by strictly ascending keys. */
    int (*write_rows)(void *store, const struct store_row *const *rows, size_t count);

    /* ERR_NOT_FOUND; a value found is pinned until value_release. view NULL: as of now. */
    int (*get)(void *store, const struct store_view *view, struct bytes key,
               struct store_value *out);
    void (*value_release)(void *store, struct store_value *value);

    struct store_view *(*view_open)(void *store);
    void (*view_close)(void *store, struct store_view *view);
    /* Keys in [from, to), ascending; `to` empty: to the end. Destroy before closing the view. */
    struct store_iterator *(*iterator_create)(void *store, const struct store_view *view,
                                              struct bytes from, struct bytes to);
    bool (*iterator_valid)(const struct store_iterator *iterator);
    struct bytes (*iterator_key)(const struct store_iterator *iterator); /* until next/destroy */
    struct bytes (*iterator_value)(const struct store_iterator *iterator);
    void (*iterator_next)(struct store_iterator *iterator);
    int (*iterator_error)(const struct store_iterator *iterator);
    void (*iterator_destroy)(struct store_iterator *iterator);

    int (*flush)(void *store); /* everything written before the call is durable after it */
    /* A consistent copy as files in `dir` (which must not exist), hard-linked where possible. */
    int (*checkpoint)(void *store, const char *dir);
    /* Reads every row of such a copy from the disk, past all caches: ERR_CORRUPT when a checksum
     * fails, ERR_BUSY when *stop became true. It may leave a file of its own in `dir`. */
    int (*check_copy)(void *store, const char *dir, const atomic_bool *stop);
    /* Closes, replaces all files by those of `dir` (same file system; it is used up), opens again.
     * After a crash at any point either the old files are whole or `dir` is, and replaying it
     * finishes the job. */
    int (*replace)(void *store, const char *dir);
    uint64_t (*approximate_bytes)(void *store, struct bytes from, struct bytes to);
    /* Everything in [from, to) was deleted: gives its disk space back in the background. Does not
     * wait. */
    void (*reclaim)(void *store, struct bytes from, struct bytes to);
};

struct store {
    const struct store_ops *ops;
    void *store;
};

struct store_rocksdb_options {
    uint64_t memtable_bytes;    /* default 16 MiB */
    uint64_t block_cache_bytes; /* default 8 MiB */
};
/* Opens or creates. `why` names the path and RocksDB's own words. gives *out. */
int store_rocksdb_open(const char *dir, const struct store_rocksdb_options *options,
                       struct store *out, char *why, size_t why_size) MUST_USE;
void store_rocksdb_close(struct store *store);

#endif
