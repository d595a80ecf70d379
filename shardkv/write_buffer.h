/* A store in front of a store: what was written lately stays in memory, and goes below by whole
 * tables, sorted, each key once. Why: a skip list takes 4 µs for a row, three times for each put of
 * a group of three; a hash table takes a tenth of that, and a sorted table is written at less than
 * 1 µs a row. And each batch rewrites a few rows (sessions, shard records, the applied position)
 * that have to get below only once.
 *
 * It keeps the contract of store.h: a batch is visible at once and whole, what is below is always
 * a prefix of the batches written, and everything is durable after flush. Tables are closed when
 * they are full or when somebody wants a view or a flush, and go below in order, each as one
 * atomic write.
 *
 * Threads: as store.h says; one thread of its own carries tables down, at a low priority. */
#ifndef SHARDKV_WRITE_BUFFER_H
#define SHARDKV_WRITE_BUFFER_H

#include "shardkv/store.h"

struct write_buffer_options {
    uint64_t table_bytes_max; /* a table is closed at this size; default 16 MiB */
    uint64_t seed; /* not 0: each table's size is drawn, from half of that to all of it. Replicas
                      that hold the same rows then do not all carry and merge at one moment, and a
                      majority of them is quick at any */
    uint32_t tables_max; /* closed ones that wait before writers do; default 1 */
    bool without_thread; /* tables go below within the call that closes or needs them: for
                            one-threaded owners */
};
/* `below` stays the caller's: used until write_buffer_close, closed by him after it. An error: the
 * thread cannot be started. gives *out. */
int write_buffer_open(const struct store *below, const struct write_buffer_options *options,
                      struct store *out) MUST_USE;
/* What is still in memory goes below unless a write has failed before. No view, iterator or batch
 * may be left. */
void write_buffer_close(struct store *store);
/* As a crash leaves it: what is in memory is gone. */
void write_buffer_abandon(struct store *store);

#endif
