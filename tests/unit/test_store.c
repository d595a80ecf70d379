/* The contract of struct store, by all stores: RocksDB, the one in memory that stands in for it in
 * other tests, and both below a write buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/vfs.h"
#include "lib/fake_store.h"
#include "shardkv/write_buffer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fixture {
    bool rocksdb;
    char dir[64];
    char path[96];
    struct fake_store *fake;
    struct store below; /* a write buffer: what it is over */
    struct store store;
};

static void open_rocksdb(struct fixture *fixture)
{
    char why[512] = "";
    int error = store_rocksdb_open(fixture->path, NULL, &fixture->store, why, sizeof why);
    assert_string_equal(why, "");
    assert_int_equal(error, 0);
}

static void put_buffer_on_top(struct fixture *fixture)
{
    /* Tables of one row, so that most of what is asked is spread over several. */
    struct write_buffer_options options = {
        .table_bytes_max = 1, .tables_max = 3, .without_thread = !fixture->rocksdb};
    fixture->below = fixture->store;
    assert_int_equal(write_buffer_open(&fixture->below, &options, &fixture->store), 0);
}

static struct fixture *make(bool rocksdb)
{
    struct fixture *fixture = test_calloc(1, sizeof *fixture);
    fixture->rocksdb = rocksdb;
    snprintf(fixture->dir, sizeof fixture->dir, "/tmp/shardkv-store-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    snprintf(fixture->path, sizeof fixture->path, "%s/state", fixture->dir);
    if (rocksdb) {
        open_rocksdb(fixture);
    } else {
        fixture->fake = fake_store_create(vfs_system());
        fixture->store = fake_store_as_store(fixture->fake);
    }
    return fixture;
}

static int set_up_rocksdb(void **state)
{
    *state = make(true);
    return 0;
}

static int set_up_fake(void **state)
{
    *state = make(false);
    return 0;
}

static int set_up_buffered_rocksdb(void **state)
{
    *state = make(true);
    put_buffer_on_top(*state);
    return 0;
}

static int set_up_buffered_fake(void **state)
{
    *state = make(false);
    put_buffer_on_top(*state);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    if (fixture->below.store != NULL) {
        write_buffer_close(&fixture->store);
        fixture->store = fixture->below;
    }
    if (fixture->rocksdb) {
        store_rocksdb_close(&fixture->store);
    } else {
        fake_store_destroy(fixture->fake);
    }
    const struct vfs *vfs = vfs_system();
    assert_int_equal(vfs->remove_tree(vfs->context, fixture->dir), 0);
    test_free(fixture);
    return 0;
}

/* ---- short words ---- */

static void put(struct fixture *fixture, const char *key, const char *value)
{
    const struct store *store = &fixture->store;
    struct store_batch *batch = store->ops->batch_create(store->store);
    store->ops->batch_put(batch, bytes_of_string(key), bytes_of_string(value));
    assert_int_equal(store->ops->write(store->store, batch), 0);
    store->ops->batch_destroy(batch);
}

/* "" when there is none. */
static const char *get(struct fixture *fixture, const struct store_view *view, const char *key)
{
    static char text[64];
    const struct store *store = &fixture->store;
    struct store_value value;
    int error = store->ops->get(store->store, view, bytes_of_string(key), &value);
    if (error == ERR_NOT_FOUND) {
        return "";
    }
    assert_int_equal(error, 0);
    assert_true(value.bytes.size < sizeof text);
    memcpy(text, value.bytes.data, value.bytes.size);
    text[value.bytes.size] = '\0';
    store->ops->value_release(store->store, &value);
    return text;
}

/* "key=value key=value" */
static const char *scan(struct fixture *fixture, const struct store_view *view, const char *from,
                        const char *to)
{
    static char text[256];
    const struct store *store = &fixture->store;
    struct store_iterator *iterator =
        store->ops->iterator_create(store->store, view, bytes_of_string(from), bytes_of_string(to));
    text[0] = '\0';
    while (store->ops->iterator_valid(iterator)) {
        struct bytes key = store->ops->iterator_key(iterator);
        struct bytes value = store->ops->iterator_value(iterator);
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%.*s=%.*s", used == 0 ? "" : " ",
                 (int)key.size, (const char *)key.data, (int)value.size, (const char *)value.data);
        store->ops->iterator_next(iterator);
    }
    assert_int_equal(store->ops->iterator_error(iterator), 0);
    store->ops->iterator_destroy(iterator);
    return text;
}

/* ---- the contract ---- */

static void test_store_batch_is_atomic_ordered_and_reusable(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    struct store_batch *batch = store->ops->batch_create(store->store);
    store->ops->batch_put(batch, bytes_of_string("a"), bytes_of_string("1"));
    store->ops->batch_put(batch, bytes_of_string("b"), BYTES_EMPTY);
    store->ops->batch_put(batch, bytes_of_string("a"),
                          bytes_of_string("2")); /* the later one wins */
    store->ops->batch_put(batch, bytes_of_string("c"), bytes_of_string("3"));
    store->ops->batch_delete(batch, bytes_of_string("c"));
    assert_string_equal(scan(fixture, NULL, "", ""), "");
    assert_int_equal(store->ops->write(store->store, batch), 0);
    assert_string_equal(scan(fixture, NULL, "", ""), "a=2 b=");
    store->ops->batch_put(batch, bytes_of_string("d"),
                          bytes_of_string("4")); /* empty again after write */
    assert_int_equal(store->ops->write(store->store, batch), 0);
    store->ops->batch_destroy(batch);
    assert_string_equal(scan(fixture, NULL, "", ""), "a=2 b= d=4");
    assert_string_equal(get(fixture, NULL, "d"), "4");
    assert_string_equal(get(fixture, NULL, "c"), "");
}

static void test_store_iterator_keeps_to_its_range(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "b", "1");
    put(fixture, "ba", "2");
    put(fixture, "c", "3");
    put(fixture, "cc", "4");
    assert_string_equal(scan(fixture, NULL, "b", "c"), "b=1 ba=2");
    assert_string_equal(scan(fixture, NULL, "ba", ""), "ba=2 c=3 cc=4");
    assert_string_equal(scan(fixture, NULL, "d", ""), "");
    assert_string_equal(scan(fixture, NULL, "c", "c"), "");
}

static void test_store_view_shows_its_moment(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    put(fixture, "a", "old");
    struct store_view *view = store->ops->view_open(store->store);
    put(fixture, "a", "new");
    put(fixture, "b", "new");
    assert_string_equal(get(fixture, view, "a"), "old");
    assert_string_equal(get(fixture, view, "b"), "");
    assert_string_equal(scan(fixture, view, "", ""), "a=old");
    assert_int_equal(store->ops->flush(store->store), 0);
    assert_string_equal(get(fixture, view, "a"), "old");
    store->ops->view_close(store->store, view);
    assert_string_equal(scan(fixture, NULL, "", ""), "a=new b=new");
}

static void test_store_value_stays_while_it_is_pinned(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    put(fixture, "a", "old");
    struct store_value value;
    assert_int_equal(store->ops->get(store->store, NULL, bytes_of_string("a"), &value), 0);
    put(fixture, "a", "new");
    assert_memory_equal(value.bytes.data, "old", 3);
    store->ops->value_release(store->store, &value);
    assert_string_equal(get(fixture, NULL, "a"), "new");
}

static void checkpoint_path(struct fixture *fixture, char out[96])
{
    snprintf(out, 96, "%s/checkpoint", fixture->dir);
}

static void test_store_replace_takes_the_checkpoint_and_uses_it_up(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    char path[96];
    checkpoint_path(fixture, path);
    put(fixture, "a", "kept");
    assert_int_equal(store->ops->checkpoint(store->store, path), 0);
    put(fixture, "a", "gone");
    put(fixture, "b", "gone");
    assert_int_equal(store->ops->replace(store->store, path), 0);
    assert_string_equal(scan(fixture, NULL, "", ""), "a=kept");
    put(fixture, "c", "after");
    assert_string_equal(scan(fixture, NULL, "", ""), "a=kept c=after");
    bool there = true;
    const struct vfs *vfs = vfs_system();
    assert_int_equal(vfs->exists(vfs->context, path, &there), 0);
    assert_false(there);
    assert_true(store->ops->replace(store->store, path) !=
                0); /* nothing there: the store stays as it is */
    assert_string_equal(scan(fixture, NULL, "", ""), "a=kept c=after");
}

static void test_store_rows_are_written_at_once(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    put(fixture, "a", "old");
    put(fixture, "b", "old");
    put(fixture, "d", "old");
    const struct store_row rows[] = {
        {.key = bytes_of_string("a"), .value = bytes_of_string("new")},
        {.key = bytes_of_string("b"), .deleted = true},
        {.key = bytes_of_string("c"), .value = BYTES_EMPTY},
    };
    const struct store_row *const sorted[] = {&rows[0], &rows[1], &rows[2]};
    assert_int_equal(store->ops->write_rows(store->store, sorted, 3), 0);
    assert_string_equal(scan(fixture, NULL, "", ""), "a=new c= d=old");
    put(fixture, "a", "newest");
    assert_string_equal(scan(fixture, NULL, "", ""), "a=newest c= d=old");
}

enum { MANY_ROWS = 20000 };

/* So many that RocksDB takes them as a table of their own, over rows that lie in its memtable and
 * in tables, and under a view. */
static void test_store_many_rows_are_written_at_once(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    put(fixture, "row00001", "before");
    assert_int_equal(store->ops->flush(store->store), 0);
    put(fixture, "row00002", "before");
    struct store_view *view = store->ops->view_open(store->store);
    static char keys[MANY_ROWS][16];
    static struct store_row rows[MANY_ROWS];
    static const struct store_row *sorted[MANY_ROWS];
    for (uint32_t i = 0; i < MANY_ROWS; i++) {
        snprintf(keys[i], sizeof keys[i], "row%05u", i);
        rows[i] = (struct store_row){.key = bytes_of_string(keys[i]), .deleted = i % 2 == 0};
        rows[i].value = rows[i].deleted ? BYTES_EMPTY : bytes_of_string("after");
        sorted[i] = &rows[i];
    }
    assert_int_equal(store->ops->write_rows(store->store, sorted, MANY_ROWS), 0);
    assert_string_equal(get(fixture, NULL, "row00001"), "after");
    assert_string_equal(get(fixture, NULL, "row00002"), "");
    assert_string_equal(get(fixture, NULL, "row19999"), "after");
    assert_string_equal(scan(fixture, NULL, "row19996", ""), "row19997=after row19999=after");
    assert_string_equal(scan(fixture, view, "", ""), "row00001=before row00002=before");
    store->ops->view_close(store->store, view);
    put(fixture, "row00001", "last");
    assert_string_equal(get(fixture, NULL, "row00001"), "last");
}

static void test_store_sizes_are_told(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%04d", i);
        put(fixture, key, "some value that is not short");
    }
    assert_int_equal(store->ops->flush(store->store), 0);
    assert_true(store->ops->approximate_bytes(store->store, bytes_of_string("key"),
                                              bytes_of_string("kez")) > 1000);
}

/* ---- RocksDB alone: what survives ---- */

static void test_store_rocksdb_flushed_rows_survive_reopening(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "a", "1");
    assert_int_equal(fixture->store.ops->flush(fixture->store.store), 0);
    store_rocksdb_close(&fixture->store);
    open_rocksdb(fixture);
    assert_string_equal(scan(fixture, NULL, "", ""), "a=1");
}

static void test_store_rocksdb_opened_twice_is_refused_with_the_path(void **state)
{
    struct fixture *fixture = *state;
    struct store second;
    char why[512] = "";
    assert_true(store_rocksdb_open(fixture->path, NULL, &second, why, sizeof why) != 0);
    assert_non_null(strstr(why, fixture->path));
}

static void rename_dir(const char *from, const char *to)
{
    const struct vfs *vfs = vfs_system();
    assert_int_equal(vfs->rename(vfs->context, from, to), 0);
}

static void test_store_rocksdb_crash_within_replace_leaves_one_of_the_two_whole(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    const struct vfs *vfs = vfs_system();
    char staged[96];
    char old[128];
    checkpoint_path(fixture, staged);
    snprintf(old, sizeof old, "%s.old", fixture->path);
    put(fixture, "a", "new");
    assert_int_equal(store->ops->checkpoint(store->store, staged), 0);
    put(fixture, "a", "old");
    assert_int_equal(store->ops->flush(store->store), 0);
    store_rocksdb_close(&fixture->store);
    /* After the first rename: the old one comes back, and replacing again finishes the job. */
    rename_dir(fixture->path, old);
    open_rocksdb(fixture);
    assert_string_equal(get(fixture, NULL, "a"), "old");
    store_rocksdb_close(&fixture->store);
    /* After the second one: the new one holds, the old one is removed. */
    rename_dir(fixture->path, old);
    rename_dir(staged, fixture->path);
    open_rocksdb(fixture);
    assert_string_equal(get(fixture, NULL, "a"), "new");
    bool there = true;
    assert_int_equal(vfs->exists(vfs->context, old, &there), 0);
    assert_false(there);
}

static void test_store_rocksdb_damaged_files_are_refused_with_the_reason(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "a", "1");
    assert_int_equal(fixture->store.ops->flush(fixture->store.store), 0);
    store_rocksdb_close(&fixture->store);
    char path[128];
    snprintf(path, sizeof path, "%s/CURRENT", fixture->path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "MANIFEST-999999\n");
    fclose(file);
    char why[512] = "";
    assert_true(store_rocksdb_open(fixture->path, NULL, &fixture->store, why, sizeof why) != 0);
    assert_non_null(strstr(why, "MANIFEST-999999"));
    fixture->rocksdb = true;
    assert_null(fixture->store.store); /* closing it again is harmless */
}

/* Rows that are in the cache are good; the file that a copy shares with the store is not. */
static void test_store_rocksdb_copy_with_a_changed_block_is_found_past_the_cache(void **state)
{
    struct fixture *fixture = *state;
    const struct store *store = &fixture->store;
    const struct vfs *vfs = vfs_system();
    atomic_bool stop = false;
    char path[96], shell[256];
    checkpoint_path(fixture, path);
    for (int i = 0; i < 200; i++) {
        char key[16], value[200];
        snprintf(key, sizeof key, "key-%d", i);
        snprintf(value, sizeof value, "%0150d", i);
        put(fixture, key, value);
    }
    assert_int_equal(store->ops->checkpoint(store->store, path), 0);
    assert_true(strlen(scan(fixture, NULL, "", "")) > 0);
    assert_int_equal(store->ops->check_copy(store->store, path, &stop), 0);
    snprintf(shell, sizeof shell,
             "printf X | dd of=$(ls %s/*.sst) bs=1 seek=100 conv=notrunc status=none", path);
    assert_int_equal(system(shell), 0);
    assert_int_equal(store->ops->check_copy(store->store, path, &stop), ERR_CORRUPT);
    assert_int_equal(vfs->remove_tree(vfs->context, path), 0);
}

/* ---- the one in memory: what does not ---- */

static void test_store_fake_crash_keeps_a_prefix_of_the_batches(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "a", "1");
    assert_int_equal(fixture->store.ops->flush(fixture->store.store), 0);
    put(fixture, "a", "2");
    put(fixture, "b", "3");
    put(fixture, "c", "4");
    assert_int_equal(fake_store_unflushed(fixture->fake), 3);
    fake_store_crash(fixture->fake, 2);
    assert_string_equal(scan(fixture, NULL, "", ""), "a=2 b=3");
    put(fixture, "d", "5");
    fake_store_crash(fixture->fake, 0);
    assert_string_equal(scan(fixture, NULL, "", ""), "a=2 b=3");
}

int main(void)
{
#define ALL(name)                                                                                  \
    cmocka_unit_test_setup_teardown(name, set_up_fake, tear_down),                                 \
        cmocka_unit_test_setup_teardown(name, set_up_rocksdb, tear_down),                          \
        cmocka_unit_test_setup_teardown(name, set_up_buffered_fake, tear_down),                    \
        cmocka_unit_test_setup_teardown(name, set_up_buffered_rocksdb, tear_down)
#define ROCKSDB(name) cmocka_unit_test_setup_teardown(name, set_up_rocksdb, tear_down)
    const struct CMUnitTest tests[] = {
        ALL(test_store_batch_is_atomic_ordered_and_reusable),
        ALL(test_store_iterator_keeps_to_its_range),
        ALL(test_store_view_shows_its_moment),
        ALL(test_store_value_stays_while_it_is_pinned),
        ALL(test_store_replace_takes_the_checkpoint_and_uses_it_up),
        ALL(test_store_rows_are_written_at_once),
        ALL(test_store_many_rows_are_written_at_once),
        ALL(test_store_sizes_are_told),
        ROCKSDB(test_store_rocksdb_flushed_rows_survive_reopening),
        ROCKSDB(test_store_rocksdb_opened_twice_is_refused_with_the_path),
        ROCKSDB(test_store_rocksdb_crash_within_replace_leaves_one_of_the_two_whole),
        ROCKSDB(test_store_rocksdb_damaged_files_are_refused_with_the_reason),
        ROCKSDB(test_store_rocksdb_copy_with_a_changed_block_is_found_past_the_cache),
        cmocka_unit_test_setup_teardown(test_store_fake_crash_keeps_a_prefix_of_the_batches,
                                        set_up_fake, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
