/* Views, buffers, blobs. */
#include "unit/base_test.h"

#include "base/bytes.h"

#include <pthread.h>
#include <stdatomic.h>

static struct bytes text(const char *string)
{
    return bytes_of_string(string);
}

static void test_bytes_equal_compares_size_and_content(void **state)
{
    (void)state;
    assert_true(bytes_equal(text("abc"), text("abc")));
    assert_false(bytes_equal(text("abc"), text("abd")));
    assert_false(bytes_equal(text("abc"), text("ab")));
    assert_true(bytes_equal(BYTES_EMPTY, text("")));
}

static void test_bytes_compare_is_unsigned_and_shorter_first(void **state)
{
    (void)state;
    assert_int_equal(bytes_compare(text("a"), text("a")), 0);
    assert_int_equal(bytes_compare(BYTES_EMPTY, text("")), 0);
    assert_true(bytes_compare(text("a"), text("ab")) < 0);
    assert_true(bytes_compare(text("ab"), text("a")) > 0);
    assert_true(bytes_compare(BYTES_EMPTY, text("a")) < 0);
    assert_true(bytes_compare(text("\x7f"), text("\x80")) < 0);
}

static void test_bytes_has_prefix_needs_all_of_it(void **state)
{
    (void)state;
    assert_true(bytes_has_prefix(text("shard"), text("sh")));
    assert_true(bytes_has_prefix(text("shard"), BYTES_EMPTY));
    assert_true(bytes_has_prefix(BYTES_EMPTY, BYTES_EMPTY));
    assert_false(bytes_has_prefix(text("sh"), text("shard")));
    assert_false(bytes_has_prefix(text("shard"), text("sx")));
}

static void test_mem_zero_size_gives_a_pointer(void **state)
{
    (void)state;
    void *a = mem_alloc(0);
    void *b = mem_calloc(0, 8);
    void *c = mem_realloc(NULL, 0);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    free(a);
    free(b);
    free(c);
}

static void allocate_too_many(void *context)
{
    const size_t *count = context;
    free(mem_calloc(*count, 16));
}

static void test_mem_calloc_overflow_stops_the_process(void **state)
{
    (void)state;
    size_t count = SIZE_MAX / 8;
    char said[512];
    int status = child_run(allocate_too_many, &count, said, sizeof(said));
    /* A sanitizer's allocator ends the process in its own way. */
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_buf_append_grows_and_keeps_content(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf);
    assert_int_equal(buf_view(&buf).size, 0);
    buf_append(&buf, NULL, 0);
    for (unsigned i = 0; i < 100000; i++) {
        uint8_t byte = (uint8_t)(i * 7);
        buf_append(&buf, &byte, 1);
    }
    assert_int_equal(buf.size, 100000);
    assert_true(buf.capacity >= buf.size);
    for (unsigned i = 0; i < 100000; i++) {
        assert_int_equal(buf.data[i], (uint8_t)(i * 7));
    }
    size_t capacity = buf.capacity;
    buf_clear(&buf);
    assert_int_equal(buf.size, 0);
    assert_int_equal(buf.capacity, capacity);
    buf_deinit(&buf);
    assert_null(buf.data);
    buf_deinit(&buf);
}

static void test_buf_reserve_leaves_size_and_never_gives_null(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf);
    assert_non_null(buf_reserve(&buf, 0));
    uint8_t *at = buf_reserve(&buf, 1000);
    memset(at, 1, 1000);
    assert_int_equal(buf.size, 0);
    assert_true(buf.capacity >= 1000);
    assert_ptr_equal(buf_reserve(&buf, 1000), at);
    buf_deinit(&buf);
}

static void reserve_too_much(void *context)
{
    struct buf *buf = context;
    buf_reserve(buf, SIZE_MAX - 1);
}

static void test_buf_reserve_overflow_stops_the_process(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf);
    buf_append(&buf, "abc", 3);
    assert_aborts(reserve_too_much, &buf, "out of memory");
    buf_deinit(&buf);
}

static void test_buf_printf_appends_without_nul(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf);
    buf_printf(&buf, "%s=%d", "a", 1);
    buf_printf(&buf, " %0200d", 7);
    buf_printf(&buf, "%s", "");
    assert_int_equal(buf.size, 3 + 1 + 200);
    assert_memory_equal(buf.data, "a=1 000", 7);
    assert_int_equal(buf.data[203], '7');
    buf_deinit(&buf);
}

static void test_blob_copy_owns_its_bytes(void **state)
{
    (void)state;
    char source[] = "value";
    struct blob *blob = blob_copy(bytes_of(source, 5));
    source[0] = 'X';
    assert_int_equal(blob_view(blob).size, 5);
    assert_memory_equal(blob_view(blob).data, "value", 5);
    blob_unref(blob);

    struct blob *empty = blob_copy(BYTES_EMPTY);
    assert_int_equal(blob_view(empty).size, 0);
    blob_unref(empty);
}

static void test_blob_take_buf_empties_the_buf(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf);
    buf_append(&buf, "abc", 3);
    const uint8_t *data = buf.data;
    struct blob *blob = blob_take_buf(&buf);
    assert_ptr_equal(blob_view(blob).data, data); /* taken, not copied */
    assert_int_equal(blob_view(blob).size, 3);
    assert_null(buf.data);
    assert_int_equal(buf.capacity, 0);
    blob_unref(blob);

    struct blob *empty = blob_take_buf(&buf);
    assert_int_equal(blob_view(empty).size, 0);
    blob_unref(empty);
}

static void count_release(void *owner)
{
    atomic_fetch_add((_Atomic int *)owner, 1);
}

static void test_blob_wrap_releases_once_at_the_last_unref(void **state)
{
    (void)state;
    _Atomic int releases = 0;
    struct blob *blob = blob_wrap(text("static"), count_release, &releases);
    assert_ptr_equal(blob_ref(blob), blob);
    blob_unref(blob);
    assert_int_equal(atomic_load(&releases), 0);
    assert_memory_equal(blob_view(blob).data, "static", 6);
    blob_unref(blob);
    assert_int_equal(atomic_load(&releases), 1);
}

static void test_blob_null_passes_through(void **state)
{
    (void)state;
    assert_null(blob_ref(NULL));
    blob_unref(NULL);
}

#define BLOB_THREADS 4
#define BLOB_ROUNDS  20000

static void *ref_and_unref(void *context)
{
    struct blob *blob = context;
    uint64_t sum = 0;
    for (int i = 0; i < BLOB_ROUNDS; i++) {
        blob_ref(blob);
        sum += blob_view(blob).data[3];
        blob_unref(blob);
    }
    blob_unref(blob); /* the reference this thread was given */
    return (void *)(uintptr_t)sum;
}

static void test_blob_shared_by_threads_is_released_once(void **state)
{
    (void)state;
    _Atomic int releases = 0;
    static const uint8_t content[] = {1, 2, 3, 4};
    struct blob *blob = blob_wrap(bytes_of(content, 4), count_release, &releases);
    pthread_t threads[BLOB_THREADS];
    for (int i = 0; i < BLOB_THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, ref_and_unref, blob_ref(blob)), 0);
    }
    blob_unref(blob);
    for (int i = 0; i < BLOB_THREADS; i++) {
        void *sum;
        assert_int_equal(pthread_join(threads[i], &sum), 0);
        assert_int_equal((uintptr_t)sum, 4 * BLOB_ROUNDS);
    }
    assert_int_equal(atomic_load(&releases), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_equal_compares_size_and_content),
        cmocka_unit_test(test_bytes_compare_is_unsigned_and_shorter_first),
        cmocka_unit_test(test_bytes_has_prefix_needs_all_of_it),
        cmocka_unit_test(test_mem_zero_size_gives_a_pointer),
        cmocka_unit_test(test_mem_calloc_overflow_stops_the_process),
        cmocka_unit_test(test_buf_append_grows_and_keeps_content),
        cmocka_unit_test(test_buf_reserve_leaves_size_and_never_gives_null),
        cmocka_unit_test(test_buf_reserve_overflow_stops_the_process),
        cmocka_unit_test(test_buf_printf_appends_without_nul),
        cmocka_unit_test(test_blob_copy_owns_its_bytes),
        cmocka_unit_test(test_blob_take_buf_empties_the_buf),
        cmocka_unit_test(test_blob_wrap_releases_once_at_the_last_unref),
        cmocka_unit_test(test_blob_null_passes_through),
        cmocka_unit_test(test_blob_shared_by_threads_is_released_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
