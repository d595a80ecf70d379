/* The store over RocksDB 7.8: the only file that knows it.
 *
 * One column family and no RocksDB log, so that what is on disk is always a prefix of the batches
 * written (a memtable is flushed whole, in order). The data directory `dir` holds RocksDB's files
 * and nothing else.
 *
 * Threads: one writer; reads, views, flush and checkpoint from any thread. replace() and close need
 * that nobody else is inside: the owner's gate sees to that (kv_snapshot.c).
 *
 * `dir`.ingest is the table that write_rows is making.
 *
 * replace(), and what open makes of a crash in it:
 *     dir is old, staged is whole          1. rename dir -> dir.old, sync parent
 *     no dir, dir.old is old               open: rename back; the owner calls replace again
 *                                          2. rename staged -> dir, sync both parents
 *     dir is new, dir.old is old           open: removes dir.old
 *                                          3. remove dir.old */
#include "base/assert.h"
#include "base/log.h"
#include "base/vfs.h"
#include "shardkv/store.h"
#include "shardkv/store_failure.h"

#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MEMTABLES_MAX = 2,
    OPEN_FILES_MAX = 256,
    BLOCK_BYTES = 8 * 1024,
    METADATA_BLOCK_BYTES = 4 * 1024,
    ARENA_BLOCK_BYTES = 1024 * 1024,
    BLOOM_BITS = 10,
    INFO_LOG_BYTES_MAX = 1024 * 1024,
    INFO_LOG_FILES_MAX = 2,
    MANIFEST_BYTES_MAX = 4 * 1024 * 1024,
    TABLE_BYTES = 32 * 1024 * 1024,
    LEVEL1_BYTES = 128 * 1024 * 1024,
    CACHE_SHARD_BITS = 2,
    SCAN_READAHEAD_BYTES = 256 * 1024,
    ROWS_A_LOOK = 4096, /* between two looks at whether to go on */
    BATCH_BYTES_KEPT_MAX = 1024 * 1024,
    INGEST_ROWS_MIN = 4096, /* fewer are not worth a table of their own */
    INGEST_BYTES_MIN = 1024 * 1024,
    INGEST_LEVEL0_MAX = 12, /* with more tables waiting to be merged, rows go through a memtable:
                               there RocksDB slows the writer down */
};
#define MEMTABLE_BYTES_DEFAULT    (16ull * 1024 * 1024)
#define BLOCK_CACHE_BYTES_DEFAULT (8ull * 1024 * 1024)

struct store_rocksdb {
    char path[VFS_PATH_BYTES_MAX];
    char old_path[VFS_PATH_BYTES_MAX];
    char ingest_path[VFS_PATH_BYTES_MAX];
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    rocksdb_flushoptions_t *flush;
    rocksdb_envoptions_t *ingest_env;
    rocksdb_ingestexternalfileoptions_t *ingest;
};

struct store_batch {
    rocksdb_writebatch_t *batch;
};

struct store_view {
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *read;
};

struct store_iterator {
    rocksdb_iterator_t *iterator;
    rocksdb_readoptions_t *read;
    struct buf to; /* the bound: RocksDB borrows it */
};

/* Takes `message` (RocksDB's, or NULL for none). RocksDB's C API gives only words, so no space is
 * told by them; the answer is the same either way, that the process stops, but not what the
 * operator reads. */
static int failed(const struct store_rocksdb *db, const char *action, char *message)
{
    if (message == NULL) {
        return 0;
    }
    int error = strstr(message, "No space left") != NULL  ? ERR_NO_SPACE
                : strncmp(message, "Corruption", 10) == 0 ? ERR_CORRUPT
                                                          : ERR_IO;
    log_event(LOG_ERROR, "store.failed", "action=%s error=%s path=%s reason=\"%s\"", action,
              err_name(error), db->path, message);
    rocksdb_free(message);
    return error;
}

static uint64_t property(struct store_rocksdb *db, const char *name)
{
    uint64_t value = 0;
    return rocksdb_property_int(db->db, name, &value) == 0 ? value : 0;
}

/* ---- batches and reads
 * --------------------------------------------------------------------------------------- */

static struct store_batch *batch_create(void *store)
{
    (void)store;
    struct store_batch *batch = mem_alloc(sizeof *batch);
    batch->batch = rocksdb_writebatch_create();
    return batch;
}

static void batch_destroy(struct store_batch *batch)
{
    if (batch != NULL) {
        rocksdb_writebatch_destroy(batch->batch);
        free(batch);
    }
}

static void batch_put(struct store_batch *batch, struct bytes key, struct bytes value)
{
    rocksdb_writebatch_put(batch->batch, (const char *)key.data, key.size, (const char *)value.data,
                           value.size);
}

static void batch_delete(struct store_batch *batch, struct bytes key)
{
    rocksdb_writebatch_delete(batch->batch, (const char *)key.data, key.size);
}

static int db_write(void *store, struct store_batch *batch)
{
    struct store_rocksdb *db = store;
    char *message = NULL;
    rocksdb_write(db->db, db->write, batch->batch, &message);
    int error = failed(db, "write", message);
    if (error != 0) {
        return error;
    }
    size_t bytes = 0;
    (void)rocksdb_writebatch_data(batch->batch, &bytes);
    if (bytes >
        BATCH_BYTES_KEPT_MAX) { /* clearing would keep the memory of the largest batch for ever */
        rocksdb_writebatch_destroy(batch->batch);
        batch->batch = rocksdb_writebatch_create();
    } else {
        rocksdb_writebatch_clear(batch->batch);
    }
    return 0;
}

/* A table beside the store, made and synced whole, then taken in by one edit of the manifest. */
static int ingest_rows(struct store_rocksdb *db, const struct store_row *const *rows, size_t count)
{
    char *message = NULL;
    rocksdb_sstfilewriter_t *writer = rocksdb_sstfilewriter_create(db->ingest_env, db->options);
    rocksdb_sstfilewriter_open(writer, db->ingest_path, &message);
    for (size_t i = 0; message == NULL && i < count; i++) {
        const struct store_row *row = rows[i];
        const char *key = (const char *)row->key.data;
        if (row->deleted) {
            rocksdb_sstfilewriter_delete(writer, key, row->key.size, &message);
        } else {
            rocksdb_sstfilewriter_put(writer, key, row->key.size, (const char *)row->value.data,
                                      row->value.size, &message);
        }
    }
    if (message == NULL) {
        rocksdb_sstfilewriter_finish(writer, &message);
    }
    rocksdb_sstfilewriter_destroy(writer);
    if (message == NULL) {
        const char *const files[] = {db->ingest_path};
        rocksdb_ingest_external_file(db->db, files, 1, db->ingest, &message);
    }
    return failed(db, "ingest", message);
}

static int db_write_rows(void *store, const struct store_row *const *rows, size_t count)
{
    struct store_rocksdb *db = store;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += rows[i]->key.size + rows[i]->value.size;
    }
    if ((count >= INGEST_ROWS_MIN || bytes >= INGEST_BYTES_MIN) &&
        property(db, "rocksdb.num-files-at-level0") <= INGEST_LEVEL0_MAX) {
        return ingest_rows(db, rows, count);
    }
    struct store_batch *batch = batch_create(db);
    for (size_t i = 0; i < count; i++) {
        if (rows[i]->deleted) {
            batch_delete(batch, rows[i]->key);
        } else {
            batch_put(batch, rows[i]->key, rows[i]->value);
        }
    }
    int error = db_write(db, batch);
    batch_destroy(batch);
    return error;
}

static int db_get(void *store, const struct store_view *view, struct bytes key,
                  struct store_value *out)
{
    struct store_rocksdb *db = store;
    char *message = NULL;
    rocksdb_pinnableslice_t *slice = rocksdb_get_pinned(
        db->db, view == NULL ? db->read : view->read, (const char *)key.data, key.size, &message);
    int error = failed(db, "get", message);
    if (error != 0) {
        return error;
    }
    if (slice == NULL) {
        return ERR_NOT_FOUND;
    }
    size_t size = 0;
    const char *data = rocksdb_pinnableslice_value(slice, &size);
    *out = (struct store_value){.bytes = bytes_of(data, size), .owner = slice};
    return 0;
}

static void value_release(void *store, struct store_value *value)
{
    (void)store;
    if (value->owner != NULL) {
        rocksdb_pinnableslice_destroy(value->owner);
        *value = (struct store_value){0};
    }
}

static struct store_view *view_open(void *store)
{
    struct store_rocksdb *db = store;
    struct store_view *view = mem_alloc(sizeof *view);
    view->snapshot = rocksdb_create_snapshot(db->db);
    view->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_snapshot(view->read, view->snapshot);
    return view;
}

static void view_close(void *store, struct store_view *view)
{
    struct store_rocksdb *db = store;
    if (view != NULL) {
        rocksdb_readoptions_destroy(view->read);
        rocksdb_release_snapshot(db->db, view->snapshot);
        free(view);
    }
}

static struct store_iterator *iterator_create(void *store, const struct store_view *view,
                                              struct bytes from, struct bytes to)
{
    struct store_rocksdb *db = store;
    struct store_iterator *iterator = mem_calloc(1, sizeof *iterator);
    iterator->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(iterator->read,
                                       0); /* a scan would push out what gets need */
    rocksdb_readoptions_set_readahead_size(iterator->read, SCAN_READAHEAD_BYTES);
    if (view != NULL) {
        rocksdb_readoptions_set_snapshot(iterator->read, view->snapshot);
    }
    if (to.size > 0) {
        buf_append_bytes(&iterator->to, to);
        rocksdb_readoptions_set_iterate_upper_bound(iterator->read, (const char *)iterator->to.data,
                                                    iterator->to.size);
    }
    iterator->iterator = rocksdb_create_iterator(db->db, iterator->read);
    rocksdb_iter_seek(iterator->iterator, from.size == 0 ? "" : (const char *)from.data, from.size);
    return iterator;
}

static bool iterator_valid(const struct store_iterator *iterator)
{
    return rocksdb_iter_valid(iterator->iterator) != 0;
}

static struct bytes iterator_key(const struct store_iterator *iterator)
{
    size_t size = 0;
    const char *data = rocksdb_iter_key(iterator->iterator, &size);
    return bytes_of(data, size);
}

static struct bytes iterator_value(const struct store_iterator *iterator)
{
    size_t size = 0;
    const char *data = rocksdb_iter_value(iterator->iterator, &size);
    return bytes_of(data, size);
}

static void iterator_next(struct store_iterator *iterator)
{
    rocksdb_iter_next(iterator->iterator);
}

static int iterator_error(const struct store_iterator *iterator)
{
    char *message = NULL;
    rocksdb_iter_get_error(iterator->iterator, &message);
    if (message == NULL) {
        return 0;
    }
    int error = strncmp(message, "Corruption", 10) == 0 ? ERR_CORRUPT : ERR_IO;
    log_event(LOG_ERROR, "store.failed", "action=iterate error=%s reason=\"%s\"", err_name(error),
              message);
    rocksdb_free(message);
    return error;
}

static void iterator_destroy(struct store_iterator *iterator)
{
    if (iterator != NULL) {
        rocksdb_iter_destroy(iterator->iterator);
        rocksdb_readoptions_destroy(iterator->read);
        buf_deinit(&iterator->to);
        free(iterator);
    }
}

/* ---- the whole store
 * ----------------------------------------------------------------------------------------- */

static int db_flush(void *store)
{
    struct store_rocksdb *db = store;
    char *message = NULL;
    rocksdb_flush(db->db, db->flush, &message);
    return failed(db, "flush", message);
}

static int db_checkpoint(void *store, const char *dir)
{
    struct store_rocksdb *db = store;
    char *message = NULL;
    rocksdb_checkpoint_t *checkpoint = rocksdb_checkpoint_object_create(db->db, &message);
    int error = failed(db, "checkpoint", message);
    if (error != 0) {
        return error;
    }
    message = NULL;
    /* 0: always flushes the memtable first, which is what makes it whole while there is no RocksDB
     * log. */
    rocksdb_checkpoint_create(checkpoint, dir, 0, &message);
    error = failed(db, "checkpoint", message);
    rocksdb_checkpoint_object_destroy(checkpoint);
    return error;
}

/* Of a copy that is read once: nothing of it is kept. */
static rocksdb_options_t *make_check_options(void)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_no_block_cache(table, 1);
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_set_paranoid_checks(options, 1);
    rocksdb_options_set_max_open_files(options, OPEN_FILES_MAX);
    rocksdb_options_set_max_file_opening_threads(options, 1);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_info_log_level(options, 4 /* fatal */);
    return options;
}

static int read_all_rows(const struct store_rocksdb *db, rocksdb_t *copy, const atomic_bool *stop)
{
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(read, 1);
    rocksdb_readoptions_set_readahead_size(read, SCAN_READAHEAD_BYTES);
    rocksdb_iterator_t *iterator = rocksdb_create_iterator(copy, read);
    int error = 0;
    rocksdb_iter_seek_to_first(iterator);
    for (uint64_t i = 0; error == 0 && rocksdb_iter_valid(iterator) != 0; i++) {
        rocksdb_iter_next(iterator);
        error = i % ROWS_A_LOOK == 0 && atomic_load(stop) ? ERR_BUSY : 0;
    }
    char *message = NULL;
    rocksdb_iter_get_error(iterator, &message);
    error = message != NULL ? failed(db, "check_copy", message) : error;
    rocksdb_iter_destroy(iterator);
    rocksdb_readoptions_destroy(read);
    return error;
}

static int db_check_copy(void *store, const char *dir, const atomic_bool *stop)
{
    struct store_rocksdb *db = store;
    rocksdb_options_t *options = make_check_options();
    char *message = NULL;
    rocksdb_t *copy = rocksdb_open_for_read_only(options, dir, 0, &message);
    int error = failed(db, "check_copy", message);
    if (error == 0) {
        error = read_all_rows(db, copy, stop);
        rocksdb_close(copy);
    }
    rocksdb_options_destroy(options);
    return error;
}

static int open_db(struct store_rocksdb *db, char *why, size_t why_size)
{
    char *message = NULL;
    db->db = rocksdb_open(db->options, db->path, &message);
    if (message == NULL) {
        return 0;
    }
    db->db = NULL;
    snprintf(why, why_size, "%s: %s", db->path, message);
    return failed(db, "open", message);
}

static int sync_parent(const char *path)
{
    const struct vfs *vfs = vfs_system();
    char parent[VFS_PATH_BYTES_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash == NULL) {
        return vfs->sync_dir(vfs->context, ".");
    }
    slash[slash == parent ? 1 : 0] = '\0';
    return vfs->sync_dir(vfs->context, parent);
}

static int db_replace(void *store, const char *dir)
{
    struct store_rocksdb *db = store;
    const struct vfs *vfs = vfs_system();
    bool there = false;
    int error = vfs->exists(vfs->context, dir, &there);
    if (error != 0) {
        return error;
    }
    if (!there) {
        return ERR_NOT_FOUND;
    }
    rocksdb_close(db->db);
    db->db = NULL;
    error = vfs->remove_tree(vfs->context, db->old_path);
    error = error != 0 ? error : vfs->rename(vfs->context, db->path, db->old_path);
    error = error != 0 ? error : sync_parent(db->path);
    error = error != 0 ? error : vfs->rename(vfs->context, dir, db->path);
    error = error != 0 ? error : sync_parent(db->path);
    error = error != 0 ? error : sync_parent(dir);
    error = error != 0 ? error : vfs->remove_tree(vfs->context, db->old_path);
    if (error != 0) {
        return error; /* final: the owner stops the process, and the next open finishes one way or
                         the other */
    }
    char why[512];
    return open_db(db, why, sizeof why);
}

static uint64_t approximate_bytes(void *store, struct bytes from, struct bytes to)
{
    struct store_rocksdb *db = store;
    const char *start = (const char *)from.data;
    const char *limit = (const char *)to.data;
    uint64_t size = 0;
    char *message = NULL;
    rocksdb_approximate_sizes(db->db, 1, &start, &from.size, &limit, &to.size, &size, &message);
    return failed(db, "approximate_sizes", message) == 0 ? size : 0;
}

static void reclaim(void *store, struct bytes from, struct bytes to)
{
    struct store_rocksdb *db = store;
    char *message = NULL;
    rocksdb_suggest_compact_range(db->db, (const char *)from.data, from.size, (const char *)to.data,
                                  to.size, &message);
    (void)failed(db, "reclaim",
                 message); /* only a hint: what is wrong with the disk shows at the next write */
}

static const struct store_ops rocksdb_ops = {
    .batch_create = batch_create,
    .batch_destroy = batch_destroy,
    .batch_put = batch_put,
    .batch_delete = batch_delete,
    .write = db_write,
    .write_rows = db_write_rows,
    .get = db_get,
    .value_release = value_release,
    .view_open = view_open,
    .view_close = view_close,
    .iterator_create = iterator_create,
    .iterator_valid = iterator_valid,
    .iterator_key = iterator_key,
    .iterator_value = iterator_value,
    .iterator_next = iterator_next,
    .iterator_error = iterator_error,
    .iterator_destroy = iterator_destroy,
    .flush = db_flush,
    .checkpoint = db_checkpoint,
    .check_copy = db_check_copy,
    .replace = db_replace,
    .approximate_bytes = approximate_bytes,
    .reclaim = reclaim,
};

/* ---- opening ---- */

static rocksdb_options_t *make_options(uint64_t memtable_bytes, rocksdb_cache_t *cache)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_filter_policy(
        table, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS));
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_block_size(table, BLOCK_BYTES);
    /* Filters and indexes count against the cache's bound instead of growing with the data; in
     * partitions, so that one lookup needs a few KiB of them and not a whole file's. */
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
    rocksdb_block_based_options_set_index_type(
        table, rocksdb_block_based_table_index_type_two_level_index_search);
    rocksdb_block_based_options_set_partition_filters(table, 1);
    rocksdb_block_based_options_set_metadata_block_size(table, METADATA_BLOCK_BYTES);
    rocksdb_block_based_options_set_pin_top_level_index_and_filter(table, 1);
    rocksdb_block_based_options_set_format_version(table, 5);

    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_paranoid_checks(options, 1);
    rocksdb_options_set_write_buffer_size(options, (size_t)memtable_bytes);
    rocksdb_options_set_max_write_buffer_number(options, MEMTABLES_MAX);
    rocksdb_options_set_arena_block_size(options, ARENA_BLOCK_BYTES);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_max_open_files(options, OPEN_FILES_MAX);
    rocksdb_options_set_max_file_opening_threads(options, 1);
    rocksdb_options_set_table_cache_numshardbits(options, CACHE_SHARD_BITS);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_stats_persist_period_sec(options, 0);
    rocksdb_options_set_info_log_level(options, 2 /* warnings */);
    rocksdb_options_set_max_log_file_size(options, INFO_LOG_BYTES_MAX);
    rocksdb_options_set_keep_log_file_num(options, INFO_LOG_FILES_MAX);
    rocksdb_options_set_max_manifest_file_size(options, MANIFEST_BYTES_MAX);
    rocksdb_options_set_target_file_size_base(options, TABLE_BYTES);
    rocksdb_options_set_max_bytes_for_level_base(options, LEVEL1_BYTES);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_bytes_per_sync(options, 1024 * 1024);
    rocksdb_options_set_compression(options, rocksdb_lz4_compression);
    return options;
}

/* A crash within replace() left dir.old: decide which of the two is the store. */
static int finish_replace(const struct store_rocksdb *db)
{
    const struct vfs *vfs = vfs_system();
    bool current = false;
    bool old = false;
    int error = vfs->exists(vfs->context, db->path, &current);
    error = error != 0 ? error : vfs->exists(vfs->context, db->old_path, &old);
    if (error != 0 || !old) {
        return error;
    }
    if (current) {
        return vfs->remove_tree(vfs->context, db->old_path);
    }
    error = vfs->rename(vfs->context, db->old_path, db->path);
    return error != 0 ? error : sync_parent(db->path);
}

int store_rocksdb_open(const char *dir, const struct store_rocksdb_options *options,
                       struct store *out, char *why, size_t why_size)
{
    struct store_rocksdb *db = mem_calloc(1, sizeof *db);
    int written = snprintf(db->path, sizeof db->path, "%s", dir);
    int old_written = snprintf(db->old_path, sizeof db->old_path, "%s.old", dir);
    int ingest_written = snprintf(db->ingest_path, sizeof db->ingest_path, "%s.ingest", dir);
    if (written < 0 || old_written < 0 || ingest_written < 0 ||
        (size_t)ingest_written >= sizeof db->ingest_path) {
        snprintf(why, why_size, "the path of the store is longer than %d bytes",
                 VFS_PATH_BYTES_MAX - 8);
        free(db);
        return ERR_TOO_LARGE;
    }
    store_failure_name(dir);
    uint64_t memtable_bytes = options != NULL && options->memtable_bytes > 0
                                  ? options->memtable_bytes
                                  : MEMTABLE_BYTES_DEFAULT;
    uint64_t cache_bytes = options != NULL && options->block_cache_bytes > 0
                               ? options->block_cache_bytes
                               : BLOCK_CACHE_BYTES_DEFAULT;
    rocksdb_lru_cache_options_t *cache_options = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(cache_options, (size_t)cache_bytes);
    rocksdb_lru_cache_options_set_num_shard_bits(cache_options, CACHE_SHARD_BITS);
    db->cache = rocksdb_cache_create_lru_opts(cache_options);
    rocksdb_lru_cache_options_destroy(cache_options);
    db->options = make_options(memtable_bytes, db->cache);
    db->read = rocksdb_readoptions_create();
    db->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(db->write, 1);
    rocksdb_writeoptions_set_memtable_insert_hint_per_batch(db->write, 1);
    db->flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(db->flush, 1);
    db->ingest_env = rocksdb_envoptions_create();
    db->ingest = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(db->ingest, 1);
    *out = (struct store){.ops = &rocksdb_ops, .store = db};

    int error = finish_replace(db);
    /* What a crash left of a table that was not taken in, or a second name of one that was. */
    error = error != 0 ? error : vfs_system()->remove_tree(vfs_system()->context, db->ingest_path);
    if (error != 0) {
        snprintf(why, why_size, "%s: cannot clear away what a crash broke off: %s", dir,
                 err_text(error));
    } else {
        error = open_db(db, why, why_size);
    }
    if (error == 0) {
        error = sync_parent(db->path); /* RocksDB makes the directory, but not its name durable */
        if (error != 0) {
            snprintf(why, why_size, "%s: cannot sync the directory above it: %s", dir,
                     err_text(error));
        }
    }
    if (error != 0) {
        store_rocksdb_close(out);
    }
    return error;
}

void store_rocksdb_close(struct store *store)
{
    struct store_rocksdb *db = store->store;
    if (db == NULL) {
        return;
    }
    if (db->db != NULL) {
        rocksdb_close(db->db);
    }
    rocksdb_ingestexternalfileoptions_destroy(db->ingest);
    rocksdb_envoptions_destroy(db->ingest_env);
    rocksdb_flushoptions_destroy(db->flush);
    rocksdb_writeoptions_destroy(db->write);
    rocksdb_readoptions_destroy(db->read);
    rocksdb_options_destroy(db->options);
    rocksdb_cache_destroy(db->cache);
    free(db);
    *store = (struct store){0};
}
