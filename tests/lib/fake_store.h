/* struct store in memory, for tests and the simulator. One thread. What was not flushed is lost in
 * a crash, but for a prefix of the batches written since, as with the real one (whose memtables go
 * to disk when they please). Checkpoints are real files of the vfs that is given, so that the
 * simulator's faulty disk sees them. */
#ifndef TESTS_LIB_FAKE_STORE_H
#define TESTS_LIB_FAKE_STORE_H

#include "base/vfs.h"
#include "shardkv/store.h"

struct fake_store;

struct fake_store *
fake_store_create(const struct vfs *vfs); /* gives; `vfs` may be NULL when no checkpoint is made */
void fake_store_destroy(struct fake_store *fake);
struct store fake_store_as_store(struct fake_store *fake);

/* Batches written since the last flush. */
size_t fake_store_unflushed(const struct fake_store *fake);
/* Power loss: of the unflushed batches the first `keep` survive. Views, iterators and batches made
 * before must be gone. */
void fake_store_crash(struct fake_store *fake, size_t keep);
/* The next `count` writes or flushes fail with ERR_IO after `after` more have succeeded. */
void fake_store_fail(struct fake_store *fake, uint32_t after, uint32_t count);
/* Largest number of puts and deletes seen in one batch. */
size_t fake_store_batch_rows_max(const struct fake_store *fake);
size_t fake_store_rows(const struct fake_store *fake);

#endif
