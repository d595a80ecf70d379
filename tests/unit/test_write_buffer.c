/* The write buffer beside a plain store that is told the same: whatever is asked of both must be
 * answered alike, at any spread of rows over memory and the store below. What the contract of
 * store.h asks of it is in test_store.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/vfs.h"
#include "lib/fake_store.h"
#include "shardkv/write_buffer.h"
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { KEYS = 40, VIEWS_MAX = 3, ROUNDS = 4000, SEEDS = 20 };

struct pair {
    struct rng rng;
    struct fake_store *below;
    struct fake_store *model;
    struct store below_store;
    struct store buffer;
    struct store plain;
    struct store_view *buffer_views[VIEWS_MAX];
    struct store_view *plain_views[VIEWS_MAX];
};

static void open_buffer(struct pair *pair)
{
    struct write_buffer_options options = {
        .table_bytes_max = 1 + rng_below(&pair->rng, 64 * 1024),
        .tables_max = 1 + (uint32_t)rng_below(&pair->rng, 4),
        .without_thread = true,
    };
    assert_int_equal(write_buffer_open(&pair->below_store, &options, &pair->buffer), 0);
}

static void pair_init(struct pair *pair, uint64_t seed)
{
    *pair = (struct pair){0};
    rng_init(&pair->rng, seed);
    pair->below = fake_store_create(vfs_system());
    pair->model = fake_store_create(vfs_system());
    pair->below_store = fake_store_as_store(pair->below);
    pair->plain = fake_store_as_store(pair->model);
    open_buffer(pair);
}

static void close_views(struct pair *pair)
{
    for (uint32_t i = 0; i < VIEWS_MAX; i++) {
        pair->buffer.ops->view_close(pair->buffer.store, pair->buffer_views[i]);
        pair->plain.ops->view_close(pair->plain.store, pair->plain_views[i]);
        pair->buffer_views[i] = NULL;
        pair->plain_views[i] = NULL;
    }
}

static void pair_deinit(struct pair *pair)
{
    close_views(pair);
    write_buffer_close(&pair->buffer);
    fake_store_destroy(pair->below);
    fake_store_destroy(pair->model);
}

static struct bytes random_key(struct pair *pair, char text[16])
{
    /* Some share their first eight bytes, some are a prefix of others. */
    uint64_t number = rng_below(&pair->rng, KEYS);
    snprintf(text, 16, number % 3 == 0 ? "prefix--%llu" : "%llu", (unsigned long long)number);
    return bytes_of_string(text);
}

static void write_batch(struct pair *pair)
{
    struct store_batch *buffer = pair->buffer.ops->batch_create(pair->buffer.store);
    struct store_batch *plain = pair->plain.ops->batch_create(pair->plain.store);
    for (uint64_t i = rng_below(&pair->rng, 6); i > 0; i--) {
        char key_text[16];
        struct bytes key = random_key(pair, key_text);
        if (rng_below(&pair->rng, 3) == 0) {
            pair->buffer.ops->batch_delete(buffer, key);
            pair->plain.ops->batch_delete(plain, key);
        } else {
            char value[2000];
            int size = snprintf(value, sizeof value, "%0*llu", (int)rng_below(&pair->rng, 1500),
                                (unsigned long long)rng_below(&pair->rng, 1000000));
            pair->buffer.ops->batch_put(buffer, key, bytes_of(value, (size_t)size));
            pair->plain.ops->batch_put(plain, key, bytes_of(value, (size_t)size));
        }
    }
    assert_int_equal(pair->buffer.ops->write(pair->buffer.store, buffer), 0);
    assert_int_equal(pair->plain.ops->write(pair->plain.store, plain), 0);
    pair->buffer.ops->batch_destroy(buffer);
    pair->plain.ops->batch_destroy(plain);
}

static void compare_gets(struct pair *pair, const struct store_view *a, const struct store_view *b)
{
    char text[16];
    struct bytes key = random_key(pair, text);
    struct store_value left = {0};
    struct store_value right = {0};
    int error = pair->buffer.ops->get(pair->buffer.store, a, key, &left);
    assert_int_equal(error, pair->plain.ops->get(pair->plain.store, b, key, &right));
    assert_true(bytes_equal(left.bytes, right.bytes));
    pair->buffer.ops->value_release(pair->buffer.store, &left);
    pair->plain.ops->value_release(pair->plain.store, &right);
}

static uint32_t compare_ranges(const struct store *a, const struct store_view *a_view,
                               const struct store *b, const struct store_view *b_view,
                               struct bytes from, struct bytes to)
{
    uint32_t rows = 0;
    struct store_iterator *left = a->ops->iterator_create(a->store, a_view, from, to);
    struct store_iterator *right = b->ops->iterator_create(b->store, b_view, from, to);
    while (a->ops->iterator_valid(left)) {
        assert_true(b->ops->iterator_valid(right));
        assert_true(bytes_equal(a->ops->iterator_key(left), b->ops->iterator_key(right)));
        assert_true(bytes_equal(a->ops->iterator_value(left), b->ops->iterator_value(right)));
        a->ops->iterator_next(left);
        b->ops->iterator_next(right);
        rows++;
    }
    assert_false(b->ops->iterator_valid(right));
    assert_int_equal(a->ops->iterator_error(left), 0);
    a->ops->iterator_destroy(left);
    b->ops->iterator_destroy(right);
    return rows;
}

static void step(struct pair *pair)
{
    uint64_t view = rng_below(&pair->rng, VIEWS_MAX);
    char from_text[16];
    char to_text[16];
    struct bytes from = random_key(pair, from_text);
    struct bytes to = rng_below(&pair->rng, 4) == 0 ? BYTES_EMPTY : random_key(pair, to_text);
    if (to.size > 0 && bytes_compare(from, to) > 0) {
        struct bytes swap = from;
        from = to;
        to = swap;
    }
    const struct store_view *a = pair->buffer_views[view];
    const struct store_view *b = pair->plain_views[view];
    switch (rng_below(&pair->rng, 16)) {
    case 0:
        pair->buffer.ops->view_close(pair->buffer.store, pair->buffer_views[view]);
        pair->plain.ops->view_close(pair->plain.store, pair->plain_views[view]);
        pair->buffer_views[view] = pair->buffer.ops->view_open(pair->buffer.store);
        pair->plain_views[view] = pair->plain.ops->view_open(pair->plain.store);
        break;
    case 1:
        (void)compare_ranges(&pair->buffer, a, &pair->plain, b, from, to);
        break;
    case 2:
        (void)compare_ranges(&pair->buffer, NULL, &pair->plain, NULL, from, to);
        break;
    case 3:
        if (rng_below(&pair->rng, 10) == 0) {
            assert_int_equal(pair->buffer.ops->flush(pair->buffer.store), 0);
            (void)compare_ranges(&pair->below_store, NULL, &pair->plain, NULL, BYTES_EMPTY,
                                 BYTES_EMPTY);
        }
        break;
    case 4:
    case 5:
    case 6:
        compare_gets(pair, a, b);
        break;
    case 7:
    case 8:
    case 9:
        compare_gets(pair, NULL, NULL);
        break;
    default:
        write_batch(pair);
        break;
    }
}

static void test_write_buffer_answers_as_a_plain_store(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct pair pair;
        pair_init(&pair, seed);
        for (uint32_t i = 0; i < ROUNDS; i++) {
            step(&pair);
        }
        assert_true(
            compare_ranges(&pair.buffer, NULL, &pair.plain, NULL, BYTES_EMPTY, BYTES_EMPTY) > 0);
        pair_deinit(&pair);
    }
}

static void test_write_buffer_closed_has_carried_everything_down(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, 7);
    for (uint32_t i = 0; i < 100; i++) {
        write_batch(&pair);
    }
    write_buffer_close(&pair.buffer);
    assert_true(
        compare_ranges(&pair.below_store, NULL, &pair.plain, NULL, BYTES_EMPTY, BYTES_EMPTY) > 0);
    open_buffer(&pair);
    pair_deinit(&pair);
}

/* Batches that write their number to every key: whatever a crash leaves shows one number only. */
static void put_number_everywhere(struct store *store, uint32_t number)
{
    struct store_batch *batch = store->ops->batch_create(store->store);
    for (uint32_t i = 0; i < KEYS; i++) {
        char key[16];
        char value[16];
        snprintf(key, sizeof key, "key%02u", i);
        snprintf(value, sizeof value, "%u", number);
        store->ops->batch_put(batch, bytes_of_string(key), bytes_of_string(value));
    }
    assert_int_equal(store->ops->write(store->store, batch), 0);
    store->ops->batch_destroy(batch);
}

static void test_write_buffer_crash_leaves_a_prefix_of_whole_batches(void **state)
{
    (void)state;
    uint32_t seen_rows = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct pair pair;
        pair_init(&pair, seed);
        uint64_t count = rng_below(&pair.rng, 60);
        for (uint32_t i = 0; i < count; i++) {
            put_number_everywhere(&pair.buffer, i);
        }
        write_buffer_abandon(&pair.buffer);
        fake_store_crash(pair.below, rng_below(&pair.rng, fake_store_unflushed(pair.below) + 1));
        const struct store *store = &pair.below_store;
        struct store_iterator *iterator =
            store->ops->iterator_create(store->store, NULL, BYTES_EMPTY, BYTES_EMPTY);
        uint32_t rows = 0;
        char first[16] = "";
        for (; store->ops->iterator_valid(iterator); store->ops->iterator_next(iterator)) {
            struct bytes value = store->ops->iterator_value(iterator);
            if (rows == 0) {
                memcpy(first, value.data, value.size);
            }
            assert_int_equal(value.size, strlen(first));
            assert_memory_equal(value.data, first, value.size);
            rows++;
        }
        store->ops->iterator_destroy(iterator);
        assert_true(rows == 0 || rows == KEYS);
        seen_rows += rows;
        open_buffer(&pair);
        pair_deinit(&pair);
    }
    assert_true(seen_rows > 0);
}

static void test_write_buffer_failure_below_is_final_and_told(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, 3);
    put_number_everywhere(&pair.buffer, 1);
    fake_store_fail(pair.below, 0, 1);
    assert_int_equal(pair.buffer.ops->flush(pair.buffer.store), ERR_IO);
    struct store_batch *batch = pair.buffer.ops->batch_create(pair.buffer.store);
    pair.buffer.ops->batch_put(batch, bytes_of_string("a"), bytes_of_string("b"));
    assert_int_equal(pair.buffer.ops->write(pair.buffer.store, batch), ERR_IO);
    pair.buffer.ops->batch_destroy(batch);
    assert_int_equal(pair.buffer.ops->flush(pair.buffer.store), ERR_IO);
    /* What was written before it is still read: the process ends in its own time. */
    struct store_value value;
    assert_int_equal(
        pair.buffer.ops->get(pair.buffer.store, NULL, bytes_of_string("key00"), &value), 0);
    pair.buffer.ops->value_release(pair.buffer.store, &value);
    pair_deinit(&pair);
}

/* ---- over a store that watches what it is given ---- */

enum { WATCHED_TABLES = 20 };

/* One test at a time: the operations of a store have no place for more than the store itself. */
static struct {
    struct store_ops ops;
    const struct store_ops *real;
    struct store buffer;
    uint32_t tables;             /* carried down */
    size_t rows[WATCHED_TABLES]; /* of the first of them */
    uint32_t rows_left;          /* that a scan gets before it fails */
} watch;

static void assert_value(struct bytes key, const struct store_view *view, int expected,
                         struct bytes value)
{
    const struct store *store = &watch.buffer;
    struct store_value found = {0};
    assert_int_equal(store->ops->get(store->store, view, key, &found), expected);
    assert_true(bytes_equal(found.bytes, value));
    store->ops->value_release(store->store, &found);
}

/* The rows of a table on its way: in order, and still there for everybody who asks. */
static int watched_write_rows(void *store, const struct store_row *const *rows, size_t count)
{
    struct store_view *view = watch.buffer.ops->view_open(watch.buffer.store);
    for (size_t i = 0; i < count; i++) {
        assert_true(i == 0 || bytes_compare(rows[i - 1]->key, rows[i]->key) < 0);
        int expected = rows[i]->deleted ? ERR_NOT_FOUND : 0;
        assert_value(rows[i]->key, NULL, expected, rows[i]->value);
        assert_value(rows[i]->key, view, expected, rows[i]->value);
    }
    watch.buffer.ops->view_close(watch.buffer.store, view);
    if (watch.tables < WATCHED_TABLES) {
        watch.rows[watch.tables] = count;
    }
    watch.tables++;
    return watch.real->write_rows(store, rows, count);
}

static bool watched_valid(const struct store_iterator *iterator)
{
    return watch.rows_left > 0 && watch.real->iterator_valid(iterator);
}

static void watched_next(struct store_iterator *iterator)
{
    watch.rows_left--;
    watch.real->iterator_next(iterator);
}

static int watched_error(const struct store_iterator *iterator)
{
    return watch.rows_left > 0 ? watch.real->iterator_error(iterator) : ERR_CORRUPT;
}

static struct fake_store *watch_open(const struct write_buffer_options *options)
{
    struct fake_store *fake = fake_store_create(vfs_system());
    struct store below = fake_store_as_store(fake);
    memset(&watch, 0, sizeof watch);
    watch.real = below.ops;
    watch.rows_left = UINT32_MAX;
    watch.ops = *below.ops;
    watch.ops.write_rows = watched_write_rows;
    watch.ops.iterator_valid = watched_valid;
    watch.ops.iterator_next = watched_next;
    watch.ops.iterator_error = watched_error;
    below.ops = &watch.ops;
    assert_int_equal(write_buffer_open(&below, options, &watch.buffer), 0);
    return fake;
}

static void watch_close(struct fake_store *fake)
{
    write_buffer_close(&watch.buffer);
    fake_store_destroy(fake);
}

static void watch_put(struct bytes key, struct bytes value)
{
    const struct store *store = &watch.buffer;
    struct store_batch *batch = store->ops->batch_create(store->store);
    store->ops->batch_put(batch, key, value);
    assert_int_equal(store->ops->write(store->store, batch), 0);
    store->ops->batch_destroy(batch);
}

static void watch_delete(struct bytes key)
{
    const struct store *store = &watch.buffer;
    struct store_batch *batch = store->ops->batch_create(store->store);
    store->ops->batch_delete(batch, key);
    assert_int_equal(store->ops->write(store->store, batch), 0);
    store->ops->batch_destroy(batch);
}

static const struct write_buffer_options one_threaded = {.without_thread = true};

static void test_write_buffer_rows_are_found_while_they_are_carried_down(void **state)
{
    (void)state;
    struct fake_store *fake = watch_open(&one_threaded);
    for (uint32_t round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < 100; i++) {
            char key[24];
            char value[24];
            /* Most are alike in the eight bytes that are compared first. */
            snprintf(key, sizeof key, "alike---%u", (i * 37 + round) % 100);
            snprintf(value, sizeof value, "%u", round * 100 + i);
            if (i % 5 == 0) {
                watch_delete(bytes_of_string(key));
            } else {
                watch_put(bytes_of_string(key), bytes_of_string(value));
            }
        }
        assert_int_equal(watch.buffer.ops->flush(watch.buffer.store), 0);
    }
    assert_int_equal(watch.tables, 4);
    watch_close(fake);
}

static void test_write_buffer_value_stays_as_it_was_read(void **state)
{
    (void)state;
    struct fake_store *fake = watch_open(&one_threaded);
    const struct store *store = &watch.buffer;
    (void)mallopt(M_PERTURB, 0x5a); /* what is freed does not look as before */
    watch_put(bytes_of_string("key"), bytes_of_string("what was read"));
    struct store_value value = {0};
    assert_int_equal(store->ops->get(store->store, NULL, bytes_of_string("key"), &value), 0);
    watch_put(bytes_of_string("key"), bytes_of_string("a newer one"));
    assert_memory_equal(value.bytes.data, "what was read", value.bytes.size);
    watch_delete(bytes_of_string("key"));
    assert_int_equal(store->ops->flush(store->store), 0); /* and nobody else holds its table */
    watch_put(bytes_of_string("another"), bytes_of_string("table"));
    assert_memory_equal(value.bytes.data, "what was read", value.bytes.size);
    store->ops->value_release(store->store, &value);
    (void)mallopt(M_PERTURB, 0);
    watch_close(fake);
}

static void test_write_buffer_keys_with_alike_hashes_are_two(void **state)
{
    (void)state;
    struct fake_store *fake = watch_open(&one_threaded);
    struct bytes first = bytes_of_string("key583533");
    struct bytes second = bytes_of_string("key5463120");
    /* Alike in the half that a slot keeps, and in the bits that choose the slot. */
    uint64_t differ = XXH3_64bits(first.data, first.size) ^ XXH3_64bits(second.data, second.size);
    assert_true((differ & 0xffffffff000003ffull) == 0);
    watch_put(first, bytes_of_string("1"));
    assert_value(second, NULL, ERR_NOT_FOUND, BYTES_EMPTY);
    watch_put(second, bytes_of_string("2"));
    assert_value(first, NULL, 0, bytes_of_string("1"));
    watch_delete(first);
    assert_value(second, NULL, 0, bytes_of_string("2"));
    assert_value(first, NULL, ERR_NOT_FOUND, BYTES_EMPTY);
    watch_close(fake);
}

/* Rows of memory behind the place where the store below failed must not be shown: what lies between
 * them is not known. */
static void test_write_buffer_scan_ends_where_the_store_below_fails(void **state)
{
    (void)state;
    struct fake_store *fake = watch_open(&one_threaded);
    const struct store *store = &watch.buffer;
    watch_put(bytes_of_string("a"), bytes_of_string("below"));
    watch_put(bytes_of_string("c"), bytes_of_string("below"));
    assert_int_equal(store->ops->flush(store->store), 0);
    watch_put(bytes_of_string("d"), bytes_of_string("in memory"));
    watch.rows_left = 1;
    struct store_iterator *iterator =
        store->ops->iterator_create(store->store, NULL, BYTES_EMPTY, BYTES_EMPTY);
    assert_true(store->ops->iterator_valid(iterator));
    assert_true(bytes_equal(store->ops->iterator_key(iterator), bytes_of_string("a")));
    assert_int_equal(store->ops->iterator_error(iterator), 0);
    store->ops->iterator_next(iterator);
    assert_false(store->ops->iterator_valid(iterator));
    assert_int_equal(store->ops->iterator_error(iterator), ERR_CORRUPT);
    store->ops->iterator_destroy(iterator);
    watch.rows_left = UINT32_MAX;
    watch_close(fake);
}

static uint64_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* Writers wait rather than fill the memory, and what is below, and no longer looked at, is given
 * back. (Under the address sanitizer the heap is not told, but it tells of leaks itself.) */
static void test_write_buffer_memory_is_bounded_and_given_back(void **state)
{
    (void)state;
    enum { TABLE_BYTES = 1024 * 1024, TABLES_MAX = 2, VALUE_BYTES = 10000, WRITES = 2000 };
    struct write_buffer_options options = {
        .table_bytes_max = TABLE_BYTES, .tables_max = TABLES_MAX, .without_thread = true};
    struct fake_store *fake = watch_open(&options);
    const struct store *store = &watch.buffer;
    uint64_t before = heap_bytes();
    uint8_t *value = mem_calloc(1, VALUE_BYTES);
    for (uint64_t i = 1; i <= WRITES; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", (unsigned)(i % KEYS));
        watch_put(bytes_of_string(key), bytes_of(value, VALUE_BYTES));
        /* A table counts at least what was written to it. */
        uint64_t tables = i * VALUE_BYTES / (TABLE_BYTES + VALUE_BYTES);
        assert_in_range(tables, 0, watch.tables + TABLES_MAX + 1);
        if (i % 100 == 0) {
            struct store_view *view = i % 200 == 0 ? store->ops->view_open(store->store) : NULL;
            struct store_iterator *iterator =
                store->ops->iterator_create(store->store, view, BYTES_EMPTY, BYTES_EMPTY);
            assert_true(store->ops->iterator_valid(iterator));
            store->ops->iterator_destroy(iterator);
            store->ops->view_close(store->store, view);
            assert_value(bytes_of_string(key), NULL, 0, bytes_of(value, VALUE_BYTES));
        }
    }
    free(value);
    assert_int_equal(store->ops->flush(store->store), 0);
    assert_in_range(heap_bytes(), 0, before + TABLE_BYTES);
    watch_close(fake);
}

static void fill_tables(uint64_t seed, size_t rows[WATCHED_TABLES])
{
    enum { TABLE_BYTES = 16 * 1024 * 1024, VALUE_BYTES = 10000 };
    struct write_buffer_options options = {
        .table_bytes_max = TABLE_BYTES, .seed = seed, .without_thread = true};
    struct fake_store *fake = watch_open(&options);
    uint8_t *value = mem_calloc(1, VALUE_BYTES);
    for (uint32_t i = 0; watch.tables < WATCHED_TABLES; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i);
        watch_put(bytes_of_string(key), bytes_of(value, VALUE_BYTES));
    }
    free(value);
    memcpy(rows, watch.rows, sizeof watch.rows);
    watch_close(fake);
}

/* Replicas write the same rows: without a draw of their own all of them would carry at the same
 * one. */
static void test_write_buffer_tables_of_two_replicas_are_not_full_at_the_same_row(void **state)
{
    (void)state;
    size_t whole[WATCHED_TABLES], one[WATCHED_TABLES], again[WATCHED_TABLES], other[WATCHED_TABLES];
    fill_tables(0, whole);
    fill_tables(1, one);
    fill_tables(1, again);
    fill_tables(2, other);
    size_t alike = 0, one_sum = 0, other_sum = 0, low = SIZE_MAX, high = 0;
    for (size_t i = 0; i < WATCHED_TABLES; i++) {
        assert_int_equal(whole[i], whole[0]);
        assert_int_equal(one[i], again[i]);
        assert_in_range(one[i], whole[0] * 2 / 5, whole[0]); /* memory comes in chunks */
        one_sum += one[i];
        other_sum += other[i];
        alike += one_sum == other_sum;
        low = one[i] < low ? one[i] : low;
        high = one[i] > high ? one[i] : high;
    }
    assert_in_range(alike, 0, WATCHED_TABLES / 3);
    assert_in_range(low, 0, whole[0] * 2 / 3); /* from a half up to the whole */
    assert_in_range(high, whole[0] * 5 / 6, whole[0]);
}

/* ---- with its thread, over RocksDB: one writes, one reads, one looks over all ---- */

struct readers {
    struct store *store;
    _Atomic uint32_t written; /* the newest number that surely is there */
    _Atomic bool stop;
    _Atomic uint32_t wrong;
};

static void *read_forward(void *context)
{
    struct readers *readers = context;
    while (!atomic_load(&readers->stop)) {
        uint32_t at_least = atomic_load(&readers->written);
        struct store_value value;
        int error =
            readers->store->ops->get(readers->store->store, NULL, bytes_of_string("key05"), &value);
        if (error == 0) {
            char text[16] = "";
            memcpy(text, value.bytes.data, value.bytes.size);
            readers->wrong += strtoul(text, NULL, 10) < at_least;
            readers->store->ops->value_release(readers->store->store, &value);
        }
    }
    return NULL;
}

static void *view_whole(void *context)
{
    struct readers *readers = context;
    const struct store *store = readers->store;
    while (!atomic_load(&readers->stop)) {
        struct store_view *view = store->ops->view_open(store->store);
        struct store_iterator *iterator =
            store->ops->iterator_create(store->store, view, BYTES_EMPTY, BYTES_EMPTY);
        char first[16] = "";
        for (; store->ops->iterator_valid(iterator); store->ops->iterator_next(iterator)) {
            struct bytes value = store->ops->iterator_value(iterator);
            if (first[0] == '\0') {
                memcpy(first, value.data, value.size);
            }
            readers->wrong += memcmp(value.data, first, value.size) != 0;
        }
        readers->wrong += store->ops->iterator_error(iterator) != 0;
        store->ops->iterator_destroy(iterator);
        store->ops->view_close(store->store, view);
    }
    return NULL;
}

static void test_write_buffer_threads_see_whole_batches_and_never_older_ones(void **state)
{
    (void)state;
    char dir[] = "/tmp/shardkv-buffer-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[64];
    snprintf(path, sizeof path, "%s/state", dir);
    char why[256] = "";
    struct store below;
    assert_int_equal(store_rocksdb_open(path, NULL, &below, why, sizeof why), 0);
    struct store buffer;
    struct write_buffer_options options = {.table_bytes_max = 64 * 1024};
    assert_int_equal(write_buffer_open(&below, &options, &buffer), 0);
    struct readers readers = {.store = &buffer};
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, read_forward, &readers), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, view_whole, &readers), 0);
    for (uint32_t i = 1; i <= 3000; i++) {
        put_number_everywhere(&buffer, i);
        atomic_store(&readers.written, i);
        if (i % 1000 == 0) {
            assert_int_equal(buffer.ops->flush(buffer.store), 0);
        }
    }
    atomic_store(&readers.stop, true);
    for (uint32_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&readers.wrong), 0);
    write_buffer_close(&buffer);
    store_rocksdb_close(&below);
    const struct vfs *vfs = vfs_system();
    assert_int_equal(vfs->remove_tree(vfs->context, dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_buffer_answers_as_a_plain_store),
        cmocka_unit_test(test_write_buffer_closed_has_carried_everything_down),
        cmocka_unit_test(test_write_buffer_crash_leaves_a_prefix_of_whole_batches),
        cmocka_unit_test(test_write_buffer_failure_below_is_final_and_told),
        cmocka_unit_test(test_write_buffer_rows_are_found_while_they_are_carried_down),
        cmocka_unit_test(test_write_buffer_value_stays_as_it_was_read),
        cmocka_unit_test(test_write_buffer_keys_with_alike_hashes_are_two),
        cmocka_unit_test(test_write_buffer_scan_ends_where_the_store_below_fails),
        cmocka_unit_test(test_write_buffer_memory_is_bounded_and_given_back),
        cmocka_unit_test(test_write_buffer_tables_of_two_replicas_are_not_full_at_the_same_row),
        cmocka_unit_test(test_write_buffer_threads_see_whole_batches_and_never_older_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
