/* A sorted array of counted rows, copied when it is written while a view or the durable state
 * shares it. */
#include "lib/fake_store.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECKPOINT_BYTES_MAX = 1 << 30 };

struct row {
    struct blob *key;
    struct blob *value;
};

struct map {
    unsigned references;
    size_t count;
    size_t capacity;
    struct row *rows;
};

struct change {
    struct blob *key;
    struct blob *value; /* NULL: delete */
};

struct store_batch {
    struct change *changes;
    size_t count;
    size_t capacity;
};

struct store_view {
    struct map *map;
};

struct store_iterator {
    struct map *map;
    size_t at;
    size_t end;
};

struct fake_store {
    const struct vfs *vfs;
    struct map *live;
    struct map *durable;
    struct store_batch *written; /* since the last flush, in order */
    size_t written_count;
    size_t written_capacity;
    uint32_t fail_after;
    uint32_t fail_count;
    size_t batch_rows_max;
};

/* ---- maps ---- */

static struct map *map_create(void)
{
    struct map *map = mem_calloc(1, sizeof *map);
    map->references = 1;
    return map;
}

static struct map *map_ref(struct map *map)
{
    map->references++;
    return map;
}

static void map_unref(struct map *map)
{
    map->references--;
    if (map->references > 0) {
        return;
    }
    for (size_t i = 0; i < map->count; i++) {
        blob_unref(map->rows[i].key);
        blob_unref(map->rows[i].value);
    }
    free(map->rows);
    free(map);
}

/* The map itself when nobody shares it, else a copy; takes and gives. */
static struct map *map_own(struct map *map)
{
    if (map->references == 1) {
        return map;
    }
    struct map *copy = map_create();
    copy->rows = mem_alloc((map->count + 1) * sizeof *copy->rows);
    copy->capacity = map->count + 1;
    copy->count = map->count;
    for (size_t i = 0; i < map->count; i++) {
        copy->rows[i].key = blob_ref(map->rows[i].key);
        copy->rows[i].value = blob_ref(map->rows[i].value);
    }
    map_unref(map);
    return copy;
}

static size_t map_lower_bound(const struct map *map, struct bytes key)
{
    size_t low = 0;
    size_t high = map->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bytes_compare(blob_view(map->rows[middle].key), key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool map_has_at(const struct map *map, size_t at, struct bytes key)
{
    return at < map->count && bytes_equal(blob_view(map->rows[at].key), key);
}

static void map_change(struct map *map, const struct change *change)
{
    struct bytes key = blob_view(change->key);
    size_t at = map_lower_bound(map, key);
    bool has = map_has_at(map, at, key);
    if (change->value == NULL) {
        if (has) {
            blob_unref(map->rows[at].key);
            blob_unref(map->rows[at].value);
            map->count--;
            memmove(&map->rows[at], &map->rows[at + 1], (map->count - at) * sizeof *map->rows);
        }
        return;
    }
    if (has) {
        blob_unref(map->rows[at].value);
        map->rows[at].value = blob_ref(change->value);
        return;
    }
    if (map->count == map->capacity) {
        map->capacity = map->capacity == 0 ? 64 : map->capacity * 2;
        map->rows = mem_realloc(map->rows, map->capacity * sizeof *map->rows);
    }
    memmove(&map->rows[at + 1], &map->rows[at], (map->count - at) * sizeof *map->rows);
    map->rows[at] = (struct row){blob_ref(change->key), blob_ref(change->value)};
    map->count++;
}

/* ---- batches ---- */

static void batch_clear(struct store_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        blob_unref(batch->changes[i].key);
        blob_unref(batch->changes[i].value);
    }
    batch->count = 0;
}

static struct store_batch *batch_create(void *store)
{
    (void)store;
    return mem_calloc(1, sizeof(struct store_batch));
}

static void batch_destroy(struct store_batch *batch)
{
    if (batch != NULL) {
        batch_clear(batch);
        free(batch->changes);
        free(batch);
    }
}

static void batch_add(struct store_batch *batch, struct bytes key, struct blob *value)
{
    if (batch->count == batch->capacity) {
        batch->capacity = batch->capacity == 0 ? 16 : batch->capacity * 2;
        batch->changes = mem_realloc(batch->changes, batch->capacity * sizeof *batch->changes);
    }
    batch->changes[batch->count] = (struct change){blob_copy(key), value};
    batch->count++;
}

static void batch_put(struct store_batch *batch, struct bytes key, struct bytes value)
{
    batch_add(batch, key, blob_copy(value));
}

static void batch_delete(struct store_batch *batch, struct bytes key)
{
    batch_add(batch, key, NULL);
}

static bool is_failing(struct fake_store *fake)
{
    if (fake->fail_count == 0) {
        return false;
    }
    if (fake->fail_after > 0) {
        fake->fail_after--;
        return false;
    }
    fake->fail_count--;
    return true;
}

static int fake_write(void *store, struct store_batch *batch)
{
    struct fake_store *fake = store;
    if (is_failing(fake)) {
        return ERR_IO;
    }
    fake->live = map_own(fake->live);
    for (size_t i = 0; i < batch->count; i++) {
        map_change(fake->live, &batch->changes[i]);
    }
    if (batch->count > fake->batch_rows_max) {
        fake->batch_rows_max = batch->count;
    }
    if (fake->written_count == fake->written_capacity) {
        fake->written_capacity = fake->written_capacity == 0 ? 16 : fake->written_capacity * 2;
        fake->written = mem_realloc(fake->written, fake->written_capacity * sizeof *fake->written);
    }
    fake->written[fake->written_count] = *batch; /* moved: the caller's is empty after it */
    fake->written_count++;
    *batch = (struct store_batch){0};
    return 0;
}

static int fake_write_rows(void *store, const struct store_row *const *rows, size_t count)
{
    struct store_batch *batch = batch_create(store);
    for (size_t i = 0; i < count; i++) {
        if (rows[i]->deleted) {
            batch_delete(batch, rows[i]->key);
        } else {
            batch_put(batch, rows[i]->key, rows[i]->value);
        }
    }
    int error = fake_write(store, batch);
    batch_destroy(batch);
    return error;
}

static void written_clear(struct fake_store *fake)
{
    for (size_t i = 0; i < fake->written_count; i++) {
        batch_clear(&fake->written[i]);
        free(fake->written[i].changes);
    }
    fake->written_count = 0;
}

/* ---- reading ---- */

static int fake_get(void *store, const struct store_view *view, struct bytes key,
                    struct store_value *out)
{
    struct fake_store *fake = store;
    const struct map *map = view == NULL ? fake->live : view->map;
    size_t at = map_lower_bound(map, key);
    if (!map_has_at(map, at, key)) {
        return ERR_NOT_FOUND;
    }
    struct blob *value = blob_ref(map->rows[at].value);
    *out = (struct store_value){.bytes = blob_view(value), .owner = value};
    return 0;
}

static void value_release(void *store, struct store_value *value)
{
    (void)store;
    blob_unref(value->owner);
    *value = (struct store_value){0};
}

static struct store_view *view_open(void *store)
{
    struct fake_store *fake = store;
    struct store_view *view = mem_alloc(sizeof *view);
    view->map = map_ref(fake->live);
    return view;
}

static void view_close(void *store, struct store_view *view)
{
    (void)store;
    if (view != NULL) {
        map_unref(view->map);
        free(view);
    }
}

static struct store_iterator *iterator_create(void *store, const struct store_view *view,
                                              struct bytes from, struct bytes to)
{
    struct fake_store *fake = store;
    struct store_iterator *iterator = mem_alloc(sizeof *iterator);
    iterator->map = map_ref(view == NULL ? fake->live : view->map);
    iterator->at = map_lower_bound(iterator->map, from);
    iterator->end = to.size == 0 ? iterator->map->count : map_lower_bound(iterator->map, to);
    return iterator;
}

static bool iterator_valid(const struct store_iterator *iterator)
{
    return iterator->at < iterator->end;
}

static struct bytes iterator_key(const struct store_iterator *iterator)
{
    ASSERT(iterator_valid(iterator));
    return blob_view(iterator->map->rows[iterator->at].key);
}

static struct bytes iterator_value(const struct store_iterator *iterator)
{
    ASSERT(iterator_valid(iterator));
    return blob_view(iterator->map->rows[iterator->at].value);
}

static void iterator_next(struct store_iterator *iterator)
{
    ASSERT(iterator_valid(iterator));
    iterator->at++;
}

static int iterator_error(const struct store_iterator *iterator)
{
    (void)iterator;
    return 0;
}

static void iterator_destroy(struct store_iterator *iterator)
{
    if (iterator != NULL) {
        map_unref(iterator->map);
        free(iterator);
    }
}

/* ---- the whole ---- */

static int fake_flush(void *store)
{
    struct fake_store *fake = store;
    if (is_failing(fake)) {
        return ERR_IO;
    }
    map_unref(fake->durable);
    fake->durable = map_ref(fake->live);
    written_clear(fake);
    return 0;
}

static int fake_checkpoint(void *store, const char *dir)
{
    struct fake_store *fake = store;
    struct buf bytes = {0};
    put_u64(&bytes, fake->live->count);
    for (size_t i = 0; i < fake->live->count; i++) {
        put_sized(&bytes, blob_view(fake->live->rows[i].key));
        put_sized(&bytes, blob_view(fake->live->rows[i].value));
    }
    put_u32(&bytes, crc32c_extend(0, bytes.data, bytes.size));
    int error = fake->vfs->make_dir(fake->vfs->context, dir);
    error = error != 0 ? error : vfs_write_atomic(fake->vfs, dir, "rows", buf_view(&bytes));
    buf_deinit(&bytes);
    return error;
}

static int map_decode(struct bytes bytes, struct map **out)
{
    if (bytes.size < 4 ||
        load_u32(bytes.data + bytes.size - 4) != crc32c_extend(0, bytes.data, bytes.size - 4)) {
        return ERR_CORRUPT;
    }
    struct reader reader = reader_of(bytes_of(bytes.data, bytes.size - 4));
    uint64_t count = get_u64(&reader);
    struct map *map = map_create();
    for (uint64_t i = 0; i < count && !reader.failed; i++) {
        struct change change;
        change.key = blob_copy(get_sized(&reader, SIZE_MAX));
        change.value = blob_copy(get_sized(&reader, SIZE_MAX));
        map_change(map, &change);
        blob_unref(change.key);
        blob_unref(change.value);
    }
    if (!reader_done(&reader)) {
        map_unref(map);
        return ERR_CORRUPT;
    }
    *out = map;
    return 0;
}

/* Atomic by itself: memory stands in for the disk the real one renames on. */
static int fake_check_copy(void *store, const char *dir, const atomic_bool *stop)
{
    struct fake_store *fake = store;
    char path[VFS_PATH_BYTES_MAX];
    struct buf bytes = {0};
    struct map *map = NULL;
    int error = atomic_load(stop) ? ERR_BUSY : vfs_path(path, dir, "rows");
    error = error != 0 ? error : vfs_read_all(fake->vfs, path, CHECKPOINT_BYTES_MAX, &bytes);
    error = error != 0 ? error : map_decode(buf_view(&bytes), &map);
    buf_deinit(&bytes);
    if (map != NULL) {
        map_unref(map);
    }
    return error;
}

static int fake_replace(void *store, const char *dir)
{
    struct fake_store *fake = store;
    char path[VFS_PATH_BYTES_MAX];
    struct buf bytes = {0};
    struct map *map = NULL;
    int error = vfs_path(path, dir, "rows");
    error = error != 0 ? error : vfs_read_all(fake->vfs, path, CHECKPOINT_BYTES_MAX, &bytes);
    error = error != 0 ? error : map_decode(buf_view(&bytes), &map);
    buf_deinit(&bytes);
    if (error != 0) {
        return error;
    }
    map_unref(fake->live);
    map_unref(fake->durable);
    written_clear(fake);
    fake->live = map;
    fake->durable = map_ref(map);
    return fake->vfs->remove_tree(fake->vfs->context, dir);
}

static uint64_t approximate_bytes(void *store, struct bytes from, struct bytes to)
{
    struct fake_store *fake = store;
    uint64_t bytes = 0;
    for (size_t i = map_lower_bound(fake->live, from); i < map_lower_bound(fake->live, to); i++) {
        bytes +=
            blob_view(fake->live->rows[i].key).size + blob_view(fake->live->rows[i].value).size;
    }
    return bytes;
}

static void reclaim(void *store, struct bytes from, struct bytes to)
{
    (void)store;
    (void)from;
    (void)to;
}

static const struct store_ops fake_ops = {
    .batch_create = batch_create,
    .batch_destroy = batch_destroy,
    .batch_put = batch_put,
    .batch_delete = batch_delete,
    .write = fake_write,
    .write_rows = fake_write_rows,
    .get = fake_get,
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
    .flush = fake_flush,
    .checkpoint = fake_checkpoint,
    .check_copy = fake_check_copy,
    .replace = fake_replace,
    .approximate_bytes = approximate_bytes,
    .reclaim = reclaim,
};

struct fake_store *fake_store_create(const struct vfs *vfs)
{
    struct fake_store *fake = mem_calloc(1, sizeof *fake);
    fake->vfs = vfs;
    fake->live = map_create();
    fake->durable = map_ref(fake->live);
    return fake;
}

void fake_store_destroy(struct fake_store *fake)
{
    if (fake == NULL) {
        return;
    }
    written_clear(fake);
    free(fake->written);
    map_unref(fake->live);
    map_unref(fake->durable);
    free(fake);
}

struct store fake_store_as_store(struct fake_store *fake)
{
    return (struct store){.ops = &fake_ops, .store = fake};
}

size_t fake_store_unflushed(const struct fake_store *fake)
{
    return fake->written_count;
}

void fake_store_crash(struct fake_store *fake, size_t keep)
{
    ASSERT_CMP(keep, <=, fake->written_count);
    map_unref(fake->live);
    fake->live = map_own(map_ref(fake->durable));
    for (size_t i = 0; i < keep; i++) {
        for (size_t j = 0; j < fake->written[i].count; j++) {
            map_change(fake->live, &fake->written[i].changes[j]);
        }
    }
    map_unref(fake->durable);
    fake->durable = map_ref(fake->live);
    written_clear(fake);
}

void fake_store_fail(struct fake_store *fake, uint32_t after, uint32_t count)
{
    fake->fail_after = after;
    fake->fail_count = count;
}

size_t fake_store_batch_rows_max(const struct fake_store *fake)
{
    return fake->batch_rows_max;
}

size_t fake_store_rows(const struct fake_store *fake)
{
    return fake->live->count;
}
