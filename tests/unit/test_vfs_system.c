/* The real file system: every operation, and the errors a test can bring about on a healthy
 * machine. */
#include "unit/vfs_test.h"

#include "base/log.h"

#include <sys/resource.h>
#include <sys/stat.h>

static const struct vfs *fs; /* the vtable under test; its context is unused */

static struct vfs_file *open_ok(const char *path, unsigned flags)
{
    struct vfs_file *file = NULL;
    assert_int_equal(fs->open(fs->context, path, flags, &file), ERR_OK);
    assert_non_null(file);
    return file;
}

static void close_ok(struct vfs_file *file)
{
    assert_int_equal(fs->close(fs->context, file), ERR_OK);
}

static struct bytes text(const char *string)
{
    return bytes_of_string(string);
}

static void make_file(const char *path, const char *content)
{
    struct vfs_file *file = open_ok(path, VFS_WRITE | VFS_CREATE | VFS_TRUNCATE);
    assert_int_equal(fs->write_at(fs->context, file, 0, text(content)), ERR_OK);
    close_ok(file);
}

static void test_vfs_open_flags_decide_what_happens(void **state)
{
    struct place *place = *state;
    const char *path = path_in(place, "file");
    struct vfs_file *file = NULL;
    assert_int_equal(fs->open(fs->context, path, VFS_READ, &file), ERR_NOT_FOUND);
    assert_int_equal(fs->open(fs->context, path, VFS_WRITE, &file), ERR_NOT_FOUND);
    assert_null(file);
    file = open_ok(path, VFS_WRITE | VFS_CREATE | VFS_EXCLUSIVE);
    assert_int_equal(fs->write_at(fs->context, file, 0, text("abc")), ERR_OK);
    close_ok(file);
    file = NULL;
    assert_int_equal(fs->open(fs->context, path, VFS_WRITE | VFS_CREATE | VFS_EXCLUSIVE, &file),
                     ERR_EXISTS);
    close_ok(open_ok(path, VFS_WRITE | VFS_CREATE));
    assert_content(path, "abc");
    close_ok(open_ok(path, VFS_WRITE | VFS_TRUNCATE));
    assert_content(path, "");
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07, 0); /* nothing for the world */
}

static void test_vfs_write_and_read_at_offsets(void **state)
{
    struct place *place = *state;
    struct vfs_file *file = open_ok(path_in(place, "file"), VFS_READ | VFS_WRITE | VFS_CREATE);
    assert_int_equal(fs->write_at(fs->context, file, 5, text("world")), ERR_OK);
    assert_int_equal(fs->write_at(fs->context, file, 0, text("hello")), ERR_OK);
    assert_int_equal(fs->write_at(fs->context, file, 3, BYTES_EMPTY), ERR_OK);
    uint64_t size = 0;
    assert_int_equal(fs->size(fs->context, file, &size), ERR_OK);
    assert_int_equal(size, 10);
    uint8_t data[16] = {0};
    size_t count = 99;
    assert_int_equal(fs->read_at(fs->context, file, 3, data, 4, &count), ERR_OK);
    assert_int_equal(count, 4);
    assert_memory_equal(data, "lowo", 4);
    assert_int_equal(fs->read_at(fs->context, file, 8, data, 16, &count), ERR_OK);
    assert_int_equal(count, 2); /* the end of the file */
    assert_int_equal(fs->read_at(fs->context, file, 100, data, 16, &count), ERR_OK);
    assert_int_equal(count, 0);
    assert_int_equal(fs->sync(fs->context, file), ERR_OK);
    assert_int_equal(fs->truncate(fs->context, file, 7), ERR_OK);
    assert_int_equal(fs->truncate(fs->context, file, 8), ERR_OK); /* grows with zeroes */
    assert_int_equal(fs->read_at(fs->context, file, 5, data, 16, &count), ERR_OK);
    assert_int_equal(count, 3);
    assert_memory_equal(data, "wo\0", 3);
    close_ok(file);
}

static void test_vfs_large_write_round_trips(void **state)
{
    struct place *place = *state;
    size_t size = 3u << 20;
    uint8_t *data = mem_alloc(size);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 31 >> 3);
    }
    struct vfs_file *file = open_ok(path_in(place, "file"), VFS_READ | VFS_WRITE | VFS_CREATE);
    assert_int_equal(fs->write_at(fs->context, file, 1, bytes_of(data, size)), ERR_OK);
    uint8_t *back = mem_calloc(1, size);
    size_t count = 0;
    assert_int_equal(fs->read_at(fs->context, file, 1, back, size, &count), ERR_OK);
    assert_int_equal(count, size);
    assert_memory_equal(back, data, size);
    close_ok(file);
    free(back);
    free(data);
}

struct capture {
    unsigned count;
    char last[1024];
};

static void keep(void *context, const char *line)
{
    struct capture *capture = context;
    capture->count++;
    snprintf(capture->last, sizeof(capture->last), "%s", line);
}

static void test_vfs_no_space_has_its_own_error_and_a_log_line(void **state)
{
    (void)state;
    struct capture capture = {0, ""};
    log_set_sink(keep, &capture);
    struct vfs_file *file = open_ok("/dev/full", VFS_WRITE); /* every write there is ENOSPC */
    assert_int_equal(fs->write_at(fs->context, file, 0, text("x")), ERR_NO_SPACE);
    assert_int_equal(capture.count, 1);
    assert_non_null(strstr(capture.last, "error vfs.failed operation=write path=/dev/full errno=28 "
                                         "name=ENOSPC"));
    /* A device cannot be synced: a failed sync is an I/O error, never one that invites another try.
     */
    assert_int_equal(fs->sync(fs->context, file), ERR_IO);
    assert_non_null(strstr(capture.last, "operation=sync path=/dev/full"));
    close_ok(file);
    log_set_sink(NULL, NULL);
}

static void write_past_limit(void *context)
{
    const char *path = context;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {1000, 1000};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        _exit(2);
    }
    static const uint8_t data[1500];
    struct vfs_file *file = NULL;
    if (fs->open(fs->context, path, VFS_WRITE | VFS_CREATE, &file) != ERR_OK) {
        _exit(3);
    }
    /* The kernel takes 1000 of the 1500 bytes and says so; the rest then fails with EFBIG. */
    int error = fs->write_at(fs->context, file, 0, bytes_of(data, sizeof(data)));
    _exit(error == ERR_IO ? 42 : 4);
}

static void test_vfs_short_write_is_never_taken_for_whole(void **state)
{
    struct place *place = *state;
    const char *path = path_in(place, "file");
    char said[1024];
    int status = child_run(write_past_limit, (void *)(uintptr_t)path, said, sizeof(said));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
    assert_non_null(strstr(said, "name=EFBIG"));
    struct stat file;
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(file.st_size, 1000);
}

static void test_vfs_descriptors_do_not_pass_to_children(void **state)
{
    struct place *place = *state;
    int before = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the next number is the one vfs gets */
    close(before);
    struct vfs_file *file = open_ok(path_in(place, "file"), VFS_WRITE | VFS_CREATE);
    assert_int_equal(fcntl(before, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close_ok(file);
}

static void test_vfs_rename_replaces_and_remove_removes(void **state)
{
    struct place *place = *state;
    const char *from = path_in(place, "from");
    const char *to = path_in(place, "to");
    make_file(from, "new");
    make_file(to, "old");
    assert_int_equal(fs->rename(fs->context, from, to), ERR_OK);
    assert_content(to, "new");
    assert_false(path_exists(from));
    assert_int_equal(fs->rename(fs->context, from, to), ERR_NOT_FOUND);
    assert_int_equal(fs->sync_dir(fs->context, place->dir), ERR_OK);
    assert_int_equal(fs->remove(fs->context, to), ERR_OK);
    assert_int_equal(fs->remove(fs->context, to), ERR_NOT_FOUND);
    assert_int_equal(fs->sync_dir(fs->context, to), ERR_NOT_FOUND);
}

static void test_vfs_make_dir_existing_is_ok_unless_a_file(void **state)
{
    struct place *place = *state;
    const char *dir = path_in(place, "dir");
    assert_int_equal(fs->make_dir(fs->context, dir), ERR_OK);
    assert_int_equal(fs->make_dir(fs->context, dir), ERR_OK);
    const char *file = path_in(place, "file");
    make_file(file, "");
    assert_int_equal(fs->make_dir(fs->context, file), ERR_EXISTS);
    assert_int_equal(fs->make_dir(fs->context, path_in(place, "absent/dir")), ERR_NOT_FOUND);
    assert_true(path_exists(dir));
    assert_false(path_exists(path_in(place, "file/below"))); /* ENOTDIR is just absence */
}

static void test_vfs_remove_tree_takes_all_but_follows_no_link(void **state)
{
    struct place *place = *state;
    const char *tree = path_in(place, "tree");
    const char *outside = path_in(place, "outside");
    assert_int_equal(fs->make_dir(fs->context, outside), ERR_OK);
    make_file(path_in(place, "outside/kept"), "kept");
    assert_int_equal(vfs_make_dirs(fs, path_in(place, "tree/a/b")), ERR_OK);
    make_file(path_in(place, "tree/a/b/file"), "x");
    make_file(path_in(place, "tree/top"), "x");
    assert_int_equal(symlink(outside, path_in(place, "tree/link")), 0);
    assert_int_equal(fs->remove_tree(fs->context, tree), ERR_OK);
    assert_false(path_exists(tree));
    assert_content(path_in(place, "outside/kept"), "kept");
    assert_int_equal(fs->remove_tree(fs->context, tree), ERR_OK); /* absent is fine */
}

struct names {
    char joined[256];
};

static void join_name(void *context, const char *name)
{
    struct names *names = context;
    strncat(names->joined, name, sizeof(names->joined) - strlen(names->joined) - 1);
    strncat(names->joined, " ", sizeof(names->joined) - strlen(names->joined) - 1);
}

static void test_vfs_list_is_in_byte_order(void **state)
{
    struct place *place = *state;
    struct names names = {""};
    assert_int_equal(fs->list(fs->context, place->dir, join_name, &names), ERR_OK);
    assert_string_equal(names.joined, "");
    static const char *const created[] = {"b", "a10", "B", "a2", ".hidden", "\xc3\xa9"};
    for (size_t i = 0; i < 6; i++) {
        make_file(path_in(place, created[i]), "");
    }
    assert_int_equal(fs->list(fs->context, place->dir, join_name, &names), ERR_OK);
    assert_string_equal(names.joined, ".hidden B a10 a2 b \xc3\xa9 ");
    assert_int_equal(fs->list(fs->context, path_in(place, "absent"), join_name, &names),
                     ERR_NOT_FOUND);
}

static void lock_in_child(void *context)
{
    _exit(fs->lock(fs->context, context) == ERR_BUSY ? 42 : 1);
}

static void take_lock_and_die(void *context)
{
    _exit(fs->lock(fs->context, context) == ERR_OK ? 42 : 1);
}

static void assert_child_exits(void (*body)(void *), const char *path, int code)
{
    char said[512];
    int status = child_run(body, (void *)(uintptr_t)path, said, sizeof(said));
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

static void test_vfs_lock_keeps_out_everyone_else(void **state)
{
    struct place *place = *state;
    const char *path = path_in(place, "LOCK");
    assert_child_exits(take_lock_and_die, path, 42); /* given up by its end */
    assert_int_equal(fs->lock(fs->context, path), ERR_OK);
    assert_int_equal(fs->lock(fs->context, path), ERR_BUSY); /* a second node in this process */
    assert_child_exits(lock_in_child, path, 42);
    /* Reading the file and closing it must not give the lock up, as a POSIX record lock would. */
    assert_content(path, "");
    assert_child_exits(lock_in_child, path, 42);
    assert_int_equal(fs->lock(fs->context, path_in(place, "absent/LOCK")), ERR_NOT_FOUND);
}

static void test_vfs_free_bytes_is_plausible(void **state)
{
    struct place *place = *state;
    uint64_t free_bytes = 0;
    assert_int_equal(fs->free_bytes(fs->context, place->dir, &free_bytes), ERR_OK);
    assert_true(free_bytes > 4096);
    assert_true(free_bytes < 1ull << 60);
    assert_int_equal(fs->free_bytes(fs->context, path_in(place, "absent"), &free_bytes),
                     ERR_NOT_FOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, place_create, place_destroy)

int main(void)
{
    fs = vfs_system();
    const struct CMUnitTest tests[] = {
        TEST(test_vfs_open_flags_decide_what_happens),
        TEST(test_vfs_write_and_read_at_offsets),
        TEST(test_vfs_large_write_round_trips),
        TEST(test_vfs_no_space_has_its_own_error_and_a_log_line),
        TEST(test_vfs_short_write_is_never_taken_for_whole),
        TEST(test_vfs_descriptors_do_not_pass_to_children),
        TEST(test_vfs_rename_replaces_and_remove_removes),
        TEST(test_vfs_make_dir_existing_is_ok_unless_a_file),
        TEST(test_vfs_remove_tree_takes_all_but_follows_no_link),
        TEST(test_vfs_list_is_in_byte_order),
        TEST(test_vfs_lock_keeps_out_everyone_else),
        TEST(test_vfs_free_bytes_is_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
