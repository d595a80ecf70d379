/* The helpers over any vfs, run on the real file system behind a layer that writes down each call
 * and can fail any one of them: the order of the steps is what makes a file durable, so the order
 * is what is asserted. */
#include "unit/vfs_test.h"

struct tracer {
    struct vfs vfs; /* what the helper gets; its context is this struct */
    struct buf trace;
    unsigned calls;
    unsigned fail_at; /* the number of the call to fail, from 1; 0: none */
    size_t dir_size;  /* cut from paths in the trace */
};

/* Notes the call; true when it is the one to fail. */
static bool trace(struct tracer *tracer, const char *operation, const char *path)
{
    const char *shown = path;
    if (path != NULL && strlen(path) >= tracer->dir_size) {
        shown = path + tracer->dir_size;
    }
    buf_printf(&tracer->trace, "%s%s%s ", operation, shown == NULL ? "" : ":",
               shown == NULL ? "" : shown);
    return ++tracer->calls == tracer->fail_at;
}

#define REAL vfs_system()

static int t_open(void *context, const char *path, unsigned flags, struct vfs_file **out)
{
    return trace(context, "open", path) ? ERR_IO : REAL->open(NULL, path, flags, out);
}
static int t_close(void *context, struct vfs_file *file)
{
    bool failed = trace(context, "close", NULL);
    int error = REAL->close(NULL, file); /* takes the file even when it fails */
    return failed ? ERR_IO : error;
}
static int t_write_at(void *context, struct vfs_file *file, uint64_t offset, struct bytes bytes)
{
    if (trace(context, "write", NULL)) {
        int error = REAL->write_at(NULL, file, offset, bytes_of(bytes.data, bytes.size / 2));
        return error != ERR_OK ? error : ERR_NO_SPACE;
    }
    return REAL->write_at(NULL, file, offset, bytes);
}
static int t_read_at(void *context, struct vfs_file *file, uint64_t offset, uint8_t *data,
                     size_t size, size_t *count)
{
    return trace(context, "read", NULL) ? ERR_IO
                                        : REAL->read_at(NULL, file, offset, data, size, count);
}
static int t_sync(void *context, struct vfs_file *file)
{
    return trace(context, "sync", NULL) ? ERR_IO : REAL->sync(NULL, file);
}
static int t_size(void *context, struct vfs_file *file, uint64_t *size)
{
    return trace(context, "size", NULL) ? ERR_IO : REAL->size(NULL, file, size);
}
static int t_rename(void *context, const char *from, const char *to)
{
    return trace(context, "rename", from) ? ERR_IO : REAL->rename(NULL, from, to);
}
static int t_remove(void *context, const char *path)
{
    return trace(context, "remove", path) ? ERR_IO : REAL->remove(NULL, path);
}
static int t_make_dir(void *context, const char *path)
{
    return trace(context, "make_dir", path) ? ERR_IO : REAL->make_dir(NULL, path);
}
static int t_sync_dir(void *context, const char *path)
{
    return trace(context, "sync_dir", path) ? ERR_IO : REAL->sync_dir(NULL, path);
}
static int t_exists(void *context, const char *path, bool *out)
{
    return trace(context, "exists", path) ? ERR_IO : REAL->exists(NULL, path, out);
}

static void tracer_init(struct tracer *tracer, const struct place *place, unsigned fail_at)
{
    tracer->vfs = (struct vfs){
        .context = tracer,
        .open = t_open,
        .close = t_close,
        .write_at = t_write_at,
        .read_at = t_read_at,
        .sync = t_sync,
        .size = t_size,
        .rename = t_rename,
        .remove = t_remove,
        .make_dir = t_make_dir,
        .sync_dir = t_sync_dir,
        .exists = t_exists,
    };
    buf_init(&tracer->trace);
    tracer->calls = 0;
    tracer->fail_at = fail_at;
    tracer->dir_size = strlen(place->dir);
}

static void assert_trace(struct tracer *tracer, const char *expected)
{
    buf_append(&tracer->trace, "", 1);
    assert_string_equal((const char *)tracer->trace.data, expected);
}

static void test_vfs_path_joins_with_one_slash(void **state)
{
    (void)state;
    char out[VFS_PATH_BYTES_MAX];
    assert_int_equal(vfs_path(out, "dir", "name"), ERR_OK);
    assert_string_equal(out, "dir/name");
    assert_int_equal(vfs_path(out, "dir/", "name"), ERR_OK);
    assert_string_equal(out, "dir/name");
    assert_int_equal(vfs_path(out, "/", "name"), ERR_OK);
    assert_string_equal(out, "/name");
    assert_int_equal(vfs_path(out, "", "name"), ERR_OK);
    assert_string_equal(out, "name");
}

static void test_vfs_path_too_long_is_refused(void **state)
{
    (void)state;
    char out[VFS_PATH_BYTES_MAX];
    char dir[VFS_PATH_BYTES_MAX];
    memset(dir, 'd', sizeof(dir));
    dir[VFS_PATH_BYTES_MAX - 3] = '\0'; /* dir, slash, one character and the NUL: just fits */
    assert_int_equal(vfs_path(out, dir, "n"), ERR_OK);
    assert_int_equal(strlen(out), VFS_PATH_BYTES_MAX - 1);
    assert_int_equal(vfs_path(out, dir, "nn"), ERR_TOO_LARGE);
    assert_string_equal(out, "");
}

static void test_vfs_write_atomic_steps_are_in_order(void **state)
{
    struct place *place = *state;
    struct tracer tracer;
    tracer_init(&tracer, place, 0);
    assert_int_equal(vfs_write_atomic(&tracer.vfs, place->dir, "id", bytes_of_string("one")),
                     ERR_OK);
    assert_trace(&tracer, "open:/id.tmp write sync close rename:/id.tmp sync_dir: ");
    assert_content(path_in(place, "id"), "one");
    assert_false(path_exists(path_in(place, "id.tmp")));
    buf_deinit(&tracer.trace);
    /* A longer temporary file that a crash left behind does not show through. */
    assert_int_equal(
        vfs_write_atomic(vfs_system(), place->dir, "id.tmp", bytes_of_string("leftover")), ERR_OK);
    assert_int_equal(vfs_write_atomic(vfs_system(), place->dir, "id", bytes_of_string("2")),
                     ERR_OK);
    assert_content(path_in(place, "id"), "2");
}

static void test_vfs_write_atomic_failed_at_any_step_is_old_or_new(void **state)
{
    struct place *place = *state;
    const char *path = path_in(place, "id");
    unsigned failures = 0;
    for (unsigned fail_at = 1;; fail_at++) {
        assert_int_equal(vfs_write_atomic(vfs_system(), place->dir, "id", bytes_of_string("old!")),
                         ERR_OK);
        struct tracer tracer;
        tracer_init(&tracer, place, fail_at);
        int error = vfs_write_atomic(&tracer.vfs, place->dir, "id", bytes_of_string("new!"));
        bool reached = tracer.calls >= fail_at;
        buf_deinit(&tracer.trace);
        if (!reached) {
            assert_int_equal(error, ERR_OK);
            assert_content(path, "new!");
            break;
        }
        failures++;
        assert_int_equal(error, fail_at == 2 ? ERR_NO_SPACE : ERR_IO);
        /* Only the last step, the directory's sync, comes after the new file has its name. */
        assert_content(path, fail_at == 6 ? "new!" : "old!");
        assert_false(path_exists(path_in(place, "id.tmp")));
    }
    assert_int_equal(failures, 6);
}

static void test_vfs_read_all_limits_and_replaces(void **state)
{
    struct place *place = *state;
    const struct vfs *vfs = vfs_system();
    assert_int_equal(vfs_write_atomic(vfs, place->dir, "f", bytes_of_string("12345")), ERR_OK);
    assert_int_equal(vfs_write_atomic(vfs, place->dir, "empty", BYTES_EMPTY), ERR_OK);
    const char *path = path_in(place, "f");
    struct buf out;
    buf_init(&out);
    buf_append(&out, "before", 6);
    assert_int_equal(vfs_read_all(vfs, path, 5, &out), ERR_OK);
    assert_int_equal(out.size, 5);
    assert_memory_equal(out.data, "12345", 5);
    assert_int_equal(vfs_read_all(vfs, path, 4, &out), ERR_TOO_LARGE);
    assert_int_equal(out.size, 0);
    assert_int_equal(vfs_read_all(vfs, path_in(place, "absent"), 4, &out), ERR_NOT_FOUND);
    assert_int_equal(vfs_read_all(vfs, path_in(place, "empty"), 0, &out), ERR_OK);
    assert_int_equal(out.size, 0);
    buf_deinit(&out);
}

static void test_vfs_read_all_failed_at_any_step_gives_nothing(void **state)
{
    struct place *place = *state;
    assert_int_equal(vfs_write_atomic(vfs_system(), place->dir, "f", bytes_of_string("12345")),
                     ERR_OK);
    for (unsigned fail_at = 1; fail_at <= 4; fail_at++) { /* open, size, read, close */
        struct tracer tracer;
        tracer_init(&tracer, place, fail_at);
        struct buf out;
        buf_init(&out);
        assert_int_equal(vfs_read_all(&tracer.vfs, path_in(place, "f"), 100, &out), ERR_IO);
        assert_int_equal(out.size, 0);
        assert_true(tracer.calls >= fail_at);
        buf_deinit(&out);
        buf_deinit(&tracer.trace);
    }
}

/* The place itself exists already; its parents are not in the traces, whose paths are long before
 * it. */
static const char *steps_from(struct tracer *tracer, const char *first)
{
    buf_append(&tracer->trace, "", 1);
    const char *at = strstr((const char *)tracer->trace.data, first);
    assert_non_null(at);
    return at;
}

static void test_vfs_make_dirs_syncs_above_each_new_one(void **state)
{
    struct place *place = *state;
    struct tracer tracer;
    tracer_init(&tracer, place, 0);
    assert_int_equal(vfs_make_dirs(&tracer.vfs, path_in(place, "a//b/")), ERR_OK);
    const char *steps = steps_from(&tracer, "exists:/a ");
    static const char expected[] = "exists:/a make_dir:/a sync_dir: "
                                   "exists:/a/b make_dir:/a/b sync_dir:/a sync_dir:";
    assert_memory_equal(steps, expected, sizeof(expected) - 1);
    assert_true(path_exists(path_in(place, "a/b")));
    buf_deinit(&tracer.trace);
}

static void test_vfs_make_dirs_existing_is_made_durable_again(void **state)
{
    struct place *place = *state;
    assert_int_equal(vfs_make_dirs(vfs_system(), path_in(place, "a/b")), ERR_OK);
    struct tracer tracer;
    tracer_init(&tracer, place, 0);
    /* As after a crash between make_dir and sync_dir: the deepest may not be on disk yet. */
    assert_int_equal(vfs_make_dirs(&tracer.vfs, path_in(place, "a/b")), ERR_OK);
    assert_string_equal(steps_from(&tracer, "exists:/a/b "),
                        "exists:/a/b make_dir:/a/b sync_dir:/a ");
    buf_deinit(&tracer.trace);
}

static void test_vfs_make_dirs_failed_at_any_step_is_told(void **state)
{
    struct place *place = *state;
    for (unsigned fail_at = 1;; fail_at++) {
        assert_int_equal(vfs_system()->remove_tree(NULL, path_in(place, "a")), ERR_OK);
        struct tracer tracer;
        tracer_init(&tracer, place, fail_at);
        int error = vfs_make_dirs(&tracer.vfs, path_in(place, "a/b"));
        bool reached = tracer.calls >= fail_at;
        buf_deinit(&tracer.trace);
        if (!reached) {
            assert_int_equal(error, ERR_OK);
            assert_true(fail_at > 7); /* three steps for each of a and b, one for the place */
            break;
        }
        assert_int_equal(error, ERR_IO);
    }
}

static void test_vfs_make_dirs_bad_paths_are_refused(void **state)
{
    struct place *place = *state;
    const struct vfs *vfs = vfs_system();
    assert_int_equal(vfs_make_dirs(vfs, ""), ERR_INVALID);
    assert_int_equal(vfs_make_dirs(vfs, "/"), ERR_OK);
    assert_int_equal(vfs_write_atomic(vfs, place->dir, "file", BYTES_EMPTY), ERR_OK);
    assert_int_equal(vfs_make_dirs(vfs, path_in(place, "file")), ERR_EXISTS);
    assert_int_equal(vfs_make_dirs(vfs, path_in(place, "file/below")), ERR_EXISTS);
    char longest[VFS_PATH_BYTES_MAX + 8];
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(vfs_make_dirs(vfs, longest), ERR_TOO_LARGE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, place_create, place_destroy)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vfs_path_joins_with_one_slash),
        cmocka_unit_test(test_vfs_path_too_long_is_refused),
        TEST(test_vfs_write_atomic_steps_are_in_order),
        TEST(test_vfs_write_atomic_failed_at_any_step_is_old_or_new),
        TEST(test_vfs_read_all_limits_and_replaces),
        TEST(test_vfs_read_all_failed_at_any_step_gives_nothing),
        TEST(test_vfs_make_dirs_syncs_above_each_new_one),
        TEST(test_vfs_make_dirs_existing_is_made_durable_again),
        TEST(test_vfs_make_dirs_failed_at_any_step_is_told),
        TEST(test_vfs_make_dirs_bad_paths_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
