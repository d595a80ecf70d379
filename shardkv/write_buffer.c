/* See write_buffer.h. The tables, from the newest: the open one, then those that are closed and not
 * yet below. `mutex` guards the list and the open table's content; closed tables are read without
 * it by whoever holds a reference. Where it is held, the store below is asked for a view only
 * (which is quick): a view of both must be of one moment.
 *
 * Order of a table's end: it is below first, then it leaves the list. So whoever took the list
 * finds each row in it or below, sometimes in both, and then they are the same or the list's is the
 * newer. */
#include "shardkv/write_buffer.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/thread.h"
#include "shardkv/recent_rows.h"
#include "shardkv/write_buffer_iterator.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    TABLES_CLOSED_MAX = WRITE_BUFFER_TABLES_MAX - 1, /* the open one is a table too */
    NICENESS = 10, /* carrying down may wait for those that answer clients */
    DELETED = 1u << 31,
};
#define TABLE_BYTES_DEFAULT (16ull * 1024 * 1024)

struct write_buffer {
    struct store below;
    struct write_buffer_options options;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a table was closed or is below, or `closing` */
    struct recent_rows *open;
    uint64_t open_bytes_max; /* it is full at this size */
    struct rng rng;
    struct recent_rows *closed[TABLES_CLOSED_MAX]; /* the oldest first */
    size_t closed_count;
    uint64_t closed_total; /* tables ever closed */
    uint64_t below_total;  /* of those, that are below */
    bool carrying;         /* closed[0] is on its way */
    bool closing;
    int error; /* the first failure below; final */
    pthread_t thread;
};

/* Puts and deletes one after the other: sizes (the upper bit of the value's: a delete), key, value.
 */
struct store_batch {
    struct buf ops;
};

struct op_sizes {
    uint32_t key;
    uint32_t value;
};

/* ---- carrying down ---- */

/* The oldest closed table goes below. With the mutex held, which is given up meanwhile. */
static void carry_one(struct write_buffer *buffer)
{
    struct recent_rows *table = buffer->closed[0];
    buffer->carrying = true;
    pthread_mutex_unlock(&buffer->mutex);
    const struct store_row **rows = recent_rows_sorted(table);
    int error = buffer->below.ops->write_rows(buffer->below.store, rows, recent_rows_count(table));
    free(rows);
    pthread_mutex_lock(&buffer->mutex);
    buffer->carrying = false;
    if (error != 0) {
        buffer->error = error;
    } else {
        buffer->closed_count--;
        memmove(&buffer->closed[0], &buffer->closed[1],
                buffer->closed_count * sizeof buffer->closed[0]);
        buffer->below_total++;
    }
    pthread_cond_broadcast(&buffer->changed);
    if (error == 0) {
        pthread_mutex_unlock(&buffer->mutex);
        recent_rows_unref(table); /* not under the mutex: it may be a lot to free */
        pthread_mutex_lock(&buffer->mutex);
    }
}

static bool may_carry(const struct write_buffer *buffer)
{
    return buffer->closed_count > 0 && !buffer->carrying && buffer->error == 0;
}

static void *carry_main(void *context)
{
    struct write_buffer *buffer = context;
    /* Without the right to, it runs at the usual priority. */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICENESS);
    pthread_mutex_lock(&buffer->mutex);
    while (!buffer->closing) {
        if (may_carry(buffer)) {
            carry_one(buffer);
        } else {
            pthread_cond_wait(&buffer->changed, &buffer->mutex);
        }
    }
    pthread_mutex_unlock(&buffer->mutex);
    return NULL;
}

/* Until something has changed. With the mutex held. */
static void wait_for_change(struct write_buffer *buffer)
{
    if (!buffer->options.without_thread) {
        pthread_cond_wait(&buffer->changed, &buffer->mutex);
    } else {
        ASSERT(may_carry(buffer)); /* one thread: nobody else will */
        carry_one(buffer);
    }
}

/* With the mutex held, or before anybody else knows of it. */
static void open_table(struct write_buffer *buffer)
{
    uint64_t max = buffer->options.table_bytes_max;
    buffer->open = recent_rows_create();
    buffer->open_bytes_max =
        buffer->options.seed == 0 ? max : rng_between(&buffer->rng, max - max / 2, max);
}

/* With the mutex held, which may be given up meanwhile. */
static void close_table(struct write_buffer *buffer)
{
    if (recent_rows_count(buffer->open) == 0) {
        return;
    }
    while (buffer->closed_count == TABLES_CLOSED_MAX && buffer->error == 0) {
        wait_for_change(buffer);
    }
    if (buffer->error != 0 || recent_rows_count(buffer->open) == 0) {
        return;
    }
    buffer->closed[buffer->closed_count] = buffer->open;
    buffer->closed_count++;
    buffer->closed_total++;
    open_table(buffer);
    pthread_cond_broadcast(&buffer->changed);
}

/* All that was written before the call is below after it. */
static int settle(struct write_buffer *buffer)
{
    pthread_mutex_lock(&buffer->mutex);
    close_table(buffer);
    uint64_t goal = buffer->closed_total;
    while (buffer->below_total < goal && buffer->error == 0) {
        wait_for_change(buffer);
    }
    int error = buffer->error;
    pthread_mutex_unlock(&buffer->mutex);
    return error;
}

/* ---- writing ---- */

static struct store_batch *batch_create(void *store)
{
    (void)store;
    return mem_calloc(1, sizeof(struct store_batch));
}

static void batch_destroy(struct store_batch *batch)
{
    if (batch != NULL) {
        buf_deinit(&batch->ops);
        free(batch);
    }
}

static void batch_add(struct store_batch *batch, struct bytes key, struct bytes value,
                      uint32_t deleted)
{
    ASSERT_CMP(key.size, <, DELETED);
    ASSERT_CMP(value.size, <, DELETED);
    struct op_sizes sizes = {(uint32_t)key.size, (uint32_t)value.size | deleted};
    buf_append(&batch->ops, &sizes, sizeof sizes);
    buf_append_bytes(&batch->ops, key);
    buf_append_bytes(&batch->ops, value);
}

static void batch_put(struct store_batch *batch, struct bytes key, struct bytes value)
{
    batch_add(batch, key, value, 0);
}

static void batch_delete(struct store_batch *batch, struct bytes key)
{
    batch_add(batch, key, BYTES_EMPTY, DELETED);
}

static void take_batch(struct recent_rows *table, const struct store_batch *batch)
{
    const uint8_t *at = batch->ops.data;
    const uint8_t *end = at + batch->ops.size;
    while (at < end) {
        struct op_sizes sizes;
        memcpy(&sizes, at, sizeof sizes);
        bool deleted = (sizes.value & DELETED) != 0;
        struct bytes key = bytes_of(at + sizeof sizes, sizes.key);
        struct bytes value = bytes_of(key.data + key.size, sizes.value & ~DELETED);
        if (deleted) {
            recent_rows_delete(table, key);
        } else {
            recent_rows_put(table, key, value);
        }
        at = value.data + value.size;
    }
}

static int buffer_write(void *store, struct store_batch *batch)
{
    enum { BATCH_BYTES_KEPT_MAX = 1024 * 1024 };
    struct write_buffer *buffer = store;
    if (batch->ops.size == 0) {
        return 0;
    }
    pthread_mutex_lock(&buffer->mutex);
    if (buffer->error == 0) {
        take_batch(buffer->open, batch);
    }
    if (recent_rows_bytes(buffer->open) >= buffer->open_bytes_max) {
        /* Whoever fills tables faster than they get below waits here, and so bounds the memory. */
        while (buffer->closed_count >= buffer->options.tables_max && buffer->error == 0) {
            wait_for_change(buffer);
        }
        close_table(buffer);
    }
    int error = buffer->error;
    pthread_mutex_unlock(&buffer->mutex);
    if (batch->ops.capacity > BATCH_BYTES_KEPT_MAX) {
        buf_deinit(&batch->ops);
    }
    buf_clear(&batch->ops);
    return error;
}

static int buffer_write_rows(void *store, const struct store_row *const *rows, size_t count)
{
    struct write_buffer *buffer = store;
    int error = settle(buffer); /* they are newer than what is in memory */
    return error != 0 ? error : buffer->below.ops->write_rows(buffer->below.store, rows, count);
}

/* ---- reading ---- */

static int found(const struct store_row *row, struct recent_rows *table, struct store_value *out)
{
    if (row->deleted) {
        return ERR_NOT_FOUND;
    }
    *out = (struct store_value){.bytes = row->value, .table = recent_rows_ref(table)};
    return 0;
}

static int get_now(struct write_buffer *buffer, struct bytes key, struct store_value *out)
{
    pthread_mutex_lock(&buffer->mutex);
    struct recent_rows *table = buffer->open;
    const struct store_row *row = recent_rows_find(table, key);
    for (size_t i = buffer->closed_count; row == NULL && i > 0; i--) {
        table = buffer->closed[i - 1];
        row = recent_rows_find(table, key);
    }
    int error = row != NULL ? found(row, table, out) : 0;
    pthread_mutex_unlock(&buffer->mutex);
    return row != NULL ? error : buffer->below.ops->get(buffer->below.store, NULL, key, out);
}

static int get_in_view(struct write_buffer *buffer, const struct store_view *view, struct bytes key,
                       struct store_value *out)
{
    for (size_t i = 0; i < view->tables.count; i++) {
        const struct store_row *row = recent_rows_find(view->tables.tables[i], key);
        if (row != NULL) {
            return found(row, view->tables.tables[i], out);
        }
    }
    return buffer->below.ops->get(buffer->below.store, view->below, key, out);
}

static int buffer_get(void *store, const struct store_view *view, struct bytes key,
                      struct store_value *out)
{
    return view == NULL ? get_now(store, key, out) : get_in_view(store, view, key, out);
}

static void buffer_value_release(void *store, struct store_value *value)
{
    struct write_buffer *buffer = store;
    if (value->table != NULL) {
        recent_rows_unref(value->table);
        *value = (struct store_value){0};
    } else {
        buffer->below.ops->value_release(buffer->below.store, value);
    }
}

static struct store_view *view_open(void *store)
{
    struct write_buffer *buffer = store;
    struct store_view *view = mem_calloc(1, sizeof *view);
    pthread_mutex_lock(&buffer->mutex);
    close_table(buffer); /* what a view holds must not change */
    for (size_t i = buffer->closed_count; i > 0; i--) {
        table_list_add(&view->tables, buffer->closed[i - 1]);
    }
    view->below = buffer->below.ops->view_open(buffer->below.store);
    pthread_mutex_unlock(&buffer->mutex);
    return view;
}

static void view_close(void *store, struct store_view *view)
{
    struct write_buffer *buffer = store;
    if (view != NULL) {
        buffer->below.ops->view_close(buffer->below.store, view->below);
        table_list_deinit(&view->tables);
        free(view);
    }
}

static struct store_iterator *iterator_create(void *store, const struct store_view *view,
                                              struct bytes from, struct bytes to)
{
    struct write_buffer *buffer = store;
    if (view != NULL) {
        return write_buffer_iterator_create(&buffer->below, view->below, &view->tables, NULL, from,
                                            to);
    }
    struct table_list tables = {0};
    struct store_row_list open = {0};
    pthread_mutex_lock(&buffer->mutex);
    recent_rows_gather(buffer->open, from, to, &open);
    table_list_add(&tables, buffer->open);
    for (size_t i = buffer->closed_count; i > 0; i--) {
        table_list_add(&tables, buffer->closed[i - 1]);
    }
    struct store_view *below = buffer->below.ops->view_open(buffer->below.store);
    pthread_mutex_unlock(&buffer->mutex);
    struct store_iterator *iterator =
        write_buffer_iterator_create(&buffer->below, below, &tables, &open, from, to);
    write_buffer_iterator_own_view(iterator, below);
    table_list_deinit(&tables);
    return iterator;
}

/* ---- the whole store ---- */

static int buffer_flush(void *store)
{
    struct write_buffer *buffer = store;
    int error = settle(buffer);
    return error != 0 ? error : buffer->below.ops->flush(buffer->below.store);
}

static int buffer_checkpoint(void *store, const char *dir)
{
    struct write_buffer *buffer = store;
    int error = settle(buffer);
    return error != 0 ? error : buffer->below.ops->checkpoint(buffer->below.store, dir);
}

static int buffer_check_copy(void *store, const char *dir, const atomic_bool *stop)
{
    struct write_buffer *buffer = store;
    return buffer->below.ops->check_copy(buffer->below.store, dir, stop);
}

static int buffer_replace(void *store, const char *dir)
{
    struct write_buffer *buffer = store;
    int error = settle(buffer); /* nobody writes meanwhile; and if it fails, nothing is lost */
    return error != 0 ? error : buffer->below.ops->replace(buffer->below.store, dir);
}

static uint64_t approximate_bytes(void *store, struct bytes from, struct bytes to)
{
    struct write_buffer *buffer = store;
    return buffer->below.ops->approximate_bytes(buffer->below.store, from, to);
}

static void reclaim(void *store, struct bytes from, struct bytes to)
{
    struct write_buffer *buffer = store;
    buffer->below.ops->reclaim(buffer->below.store, from, to);
}

static const struct store_ops buffer_ops = {
    .batch_create = batch_create,
    .batch_destroy = batch_destroy,
    .batch_put = batch_put,
    .batch_delete = batch_delete,
    .write = buffer_write,
    .write_rows = buffer_write_rows,
    .get = buffer_get,
    .value_release = buffer_value_release,
    .view_open = view_open,
    .view_close = view_close,
    .iterator_create = iterator_create,
    .iterator_valid = write_buffer_iterator_valid,
    .iterator_key = write_buffer_iterator_key,
    .iterator_value = write_buffer_iterator_value,
    .iterator_next = write_buffer_iterator_next,
    .iterator_error = write_buffer_iterator_error,
    .iterator_destroy = write_buffer_iterator_destroy,
    .flush = buffer_flush,
    .checkpoint = buffer_checkpoint,
    .check_copy = buffer_check_copy,
    .replace = buffer_replace,
    .approximate_bytes = approximate_bytes,
    .reclaim = reclaim,
};

/* ---- opening and closing ---- */

static void destroy(struct write_buffer *buffer)
{
    recent_rows_unref(buffer->open);
    for (size_t i = 0; i < buffer->closed_count; i++) {
        recent_rows_unref(buffer->closed[i]);
    }
    pthread_cond_destroy(&buffer->changed);
    pthread_mutex_destroy(&buffer->mutex);
    free(buffer);
}

int write_buffer_open(const struct store *below, const struct write_buffer_options *options,
                      struct store *out)
{
    struct write_buffer *buffer = mem_calloc(1, sizeof *buffer);
    buffer->below = *below;
    buffer->options = options != NULL ? *options : (struct write_buffer_options){0};
    if (buffer->options.table_bytes_max == 0) {
        buffer->options.table_bytes_max = TABLE_BYTES_DEFAULT;
    }
    if (buffer->options.tables_max == 0) {
        buffer->options.tables_max = 1;
    }
    ASSERT_CMP(buffer->options.tables_max, <, TABLES_CLOSED_MAX);
    rng_init(&buffer->rng, buffer->options.seed);
    open_table(buffer);
    pthread_mutex_init(&buffer->mutex, NULL);
    pthread_cond_init(&buffer->changed, NULL);
    int error = buffer->options.without_thread
                    ? 0
                    : thread_start(&buffer->thread, "store-carry", carry_main, buffer);
    if (error != 0) {
        destroy(buffer);
        return error;
    }
    *out = (struct store){.ops = &buffer_ops, .store = buffer};
    return 0;
}

void write_buffer_abandon(struct store *store)
{
    struct write_buffer *buffer = store->store;
    if (buffer == NULL) {
        return;
    }
    pthread_mutex_lock(&buffer->mutex);
    buffer->closing = true;
    pthread_cond_broadcast(&buffer->changed);
    pthread_mutex_unlock(&buffer->mutex);
    if (!buffer->options.without_thread) {
        pthread_join(buffer->thread, NULL);
    }
    destroy(buffer);
    *store = (struct store){0};
}

void write_buffer_close(struct store *store)
{
    if (store->store != NULL) {
        (void)settle(store->store); /* a failure was told by the store below; the log has it all */
    }
    write_buffer_abandon(store);
}
