/* The fake disk itself: it must lose what a real one may lose, keep what it must keep, and do the
 * same for the same seed. */
#include "unit/wal_test.h"

#include <stdlib.h>
#include <string.h>

struct disk {
    struct fake_vfs *fake;
    const struct vfs *vfs;
};

static struct disk disk_create(uint64_t seed)
{
    struct fake_vfs *fake = fake_vfs_create(seed);
    return (struct disk){fake, fake_vfs_vfs(fake)};
}

static struct vfs_file *disk_open(const struct disk *disk, const char *path, unsigned flags)
{
    struct vfs_file *file;
    assert_int_equal(disk->vfs->open(disk->vfs->context, path, flags, &file), ERR_OK);
    return file;
}

static int disk_write(const struct disk *disk, struct vfs_file *file, uint64_t offset, uint8_t fill,
                      size_t size)
{
    uint8_t *data = mem_alloc(size);
    memset(data, fill, size);
    int error = disk->vfs->write_at(disk->vfs->context, file, offset, bytes_of(data, size));
    free(data);
    return error;
}

static bool disk_exists(const struct disk *disk, const char *path)
{
    bool found;
    assert_int_equal(disk->vfs->exists(disk->vfs->context, path, &found), ERR_OK);
    return found;
}

/* A durable file of `size` bytes `fill`, left open. */
static struct vfs_file *disk_file(const struct disk *disk, const char *path, uint8_t fill,
                                  size_t size)
{
    struct vfs_file *file = disk_open(disk, path, VFS_READ | VFS_WRITE | VFS_CREATE);
    assert_int_equal(disk_write(disk, file, 0, fill, size), ERR_OK);
    assert_int_equal(disk->vfs->sync(disk->vfs->context, file), ERR_OK);
    assert_int_equal(disk->vfs->sync_dir(disk->vfs->context, "/"), ERR_OK);
    return file;
}

static void disk_close(const struct disk *disk, struct vfs_file *file)
{
    assert_int_equal(disk->vfs->close(disk->vfs->context, file), ERR_OK);
}

static void test_unsynced_write_lost_power_is_gone_synced_stays(void **state)
{
    (void)state;
    struct disk disk = disk_create(1);
    struct vfs_file *file = disk_file(&disk, "/f", 'a', 2000);
    assert_int_equal(disk_write(&disk, file, 1000, 'b', 2000), ERR_OK);
    disk_close(&disk, file);
    struct buf bytes;
    buf_init(&bytes);
    assert_true(fake_vfs_file_bytes(disk.fake, "/f", &bytes));
    assert_int_equal(bytes.size, 3000);
    assert_int_equal(bytes.data[1500], 'b');
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_KEEP, NULL);
    assert_true(fake_vfs_file_bytes(disk.fake, "/f", &bytes));
    assert_int_equal(bytes.size, 3000);
    /* The process was killed, then the power went: it was never synced. */
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_LOSE, NULL);
    assert_true(fake_vfs_file_bytes(disk.fake, "/f", &bytes));
    assert_int_equal(bytes.size, 2000);
    assert_int_equal(bytes.data[1500], 'a');
    buf_deinit(&bytes);
    fake_vfs_destroy(disk.fake);
}

/* Two unsynced writes over ten sectors: a sector is whole, and holds any of the three versions. */
static void test_torn_write_is_whole_by_sector_and_any_version(void **state)
{
    (void)state;
    unsigned seen[3] = {0};
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct disk disk = disk_create(seed);
        struct vfs_file *file = disk_file(&disk, "/f", 'a', 10 * FAKE_SECTOR_BYTES);
        assert_int_equal(disk_write(&disk, file, 0, 'b', 10 * FAKE_SECTOR_BYTES), ERR_OK);
        assert_int_equal(disk_write(&disk, file, 0, 'c', 10 * FAKE_SECTOR_BYTES), ERR_OK);
        fake_vfs_crash_as(disk.fake, FAKE_CRASH_TEAR, NULL);
        disk_close(&disk, file);
        struct buf bytes;
        buf_init(&bytes);
        assert_true(fake_vfs_file_bytes(disk.fake, "/f", &bytes));
        assert_int_equal(bytes.size, 10 * FAKE_SECTOR_BYTES);
        for (size_t sector = 0; sector < 10; sector++) {
            const uint8_t *at = bytes.data + sector * FAKE_SECTOR_BYTES;
            assert_in_range(at[0], 'a', 'c');
            seen[at[0] - 'a']++;
            for (size_t i = 1; i < FAKE_SECTOR_BYTES; i++) {
                assert_int_equal(at[i], at[0]);
            }
        }
        buf_deinit(&bytes);
        fake_vfs_destroy(disk.fake);
    }
    assert_true(seen[0] > 50 && seen[1] > 50 && seen[2] > 50);
}

static void test_names_need_a_directory_sync(void **state)
{
    (void)state;
    struct disk disk = disk_create(1);
    const struct vfs *vfs = disk.vfs;
    disk_close(&disk, disk_file(&disk, "/kept", 'k', 10));
    disk_close(&disk, disk_file(&disk, "/victim", 'v', 10));
    disk_close(&disk, disk_file(&disk, "/old", 'o', 10));
    struct vfs_file *file = disk_open(&disk, "/new", VFS_WRITE | VFS_CREATE);
    assert_int_equal(disk_write(&disk, file, 0, 'n', 10), ERR_OK);
    assert_int_equal(vfs->sync(vfs->context, file), ERR_OK);
    disk_close(&disk, file);
    assert_int_equal(vfs->remove(vfs->context, "/kept"), ERR_OK);
    assert_int_equal(vfs->rename(vfs->context, "/old", "/victim"), ERR_OK);
    assert_false(disk_exists(&disk, "/old"));
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_LOSE, NULL);
    assert_false(disk_exists(&disk, "/new"));
    assert_true(disk_exists(&disk, "/kept"));
    assert_true(disk_exists(&disk, "/old"));
    struct buf bytes;
    buf_init(&bytes);
    assert_true(fake_vfs_file_bytes(disk.fake, "/victim", &bytes));
    assert_int_equal(bytes.data[0], 'v');
    assert_int_equal(vfs->rename(vfs->context, "/old", "/victim"), ERR_OK);
    assert_int_equal(vfs->sync_dir(vfs->context, "/"), ERR_OK);
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_LOSE, NULL);
    assert_false(disk_exists(&disk, "/old"));
    assert_true(fake_vfs_file_bytes(disk.fake, "/victim", &bytes));
    assert_int_equal(bytes.data[0], 'o');
    buf_deinit(&bytes);
    fake_vfs_destroy(disk.fake);
}

static void test_names_survive_as_a_prefix(void **state)
{
    (void)state;
    bool seen[4] = {false};
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct disk disk = disk_create(seed);
        static const char *const paths[] = {"/1", "/2", "/3"};
        for (size_t i = 0; i < 3; i++) {
            disk_close(&disk, disk_open(&disk, paths[i], VFS_WRITE | VFS_CREATE));
        }
        fake_vfs_crash_as(disk.fake, FAKE_CRASH_PREFIX, NULL);
        size_t count = 0;
        while (count < 3 && disk_exists(&disk, paths[count])) {
            count++;
        }
        for (size_t i = count; i < 3; i++) {
            assert_false(disk_exists(&disk, paths[i]));
        }
        seen[count] = true;
        fake_vfs_destroy(disk.fake);
    }
    assert_true(seen[0] && seen[1] && seen[2] && seen[3]);
}

/* Moving a directory: synced through the one it went to, the move is durable, and so is what made
 * it. */
static void test_rename_of_a_directory_between_directories_is_one_change(void **state)
{
    (void)state;
    struct disk disk = disk_create(1);
    const struct vfs *vfs = disk.vfs;
    assert_int_equal(vfs->make_dir(vfs->context, "/from"), ERR_OK);
    assert_int_equal(vfs->make_dir(vfs->context, "/to"), ERR_OK);
    assert_int_equal(vfs->sync_dir(vfs->context, "/"), ERR_OK);
    assert_int_equal(vfs->make_dir(vfs->context, "/from/d"), ERR_OK);
    struct vfs_file *file = disk_open(&disk, "/from/d/f", VFS_WRITE | VFS_CREATE);
    disk_close(&disk, file);
    assert_int_equal(vfs->sync_dir(vfs->context, "/from/d"), ERR_OK);
    assert_int_equal(vfs->rename(vfs->context, "/from/d", "/to/d"), ERR_OK);
    assert_int_equal(vfs->sync_dir(vfs->context, "/to"), ERR_OK);
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_LOSE, NULL);
    assert_false(disk_exists(&disk, "/from/d"));
    assert_true(disk_exists(&disk, "/to/d/f"));
    assert_int_equal(vfs->remove_tree(vfs->context, "/to"), ERR_OK);
    assert_false(disk_exists(&disk, "/to/d"));
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_LOSE, NULL);
    assert_true(disk_exists(&disk, "/to/d/f"));
    fake_vfs_destroy(disk.fake);
}

static void test_failed_sync_makes_later_ones_meaningless(void **state)
{
    (void)state;
    unsigned lost = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct disk disk = disk_create(seed);
        struct vfs_file *file = disk_file(&disk, "/f", 'a', 4 * FAKE_SECTOR_BYTES);
        assert_int_equal(disk_write(&disk, file, 0, 'b', 4 * FAKE_SECTOR_BYTES), ERR_OK);
        fake_vfs_fail(disk.fake, FAKE_SYNC, 1, ERR_IO);
        assert_int_equal(disk.vfs->sync(disk.vfs->context, file), ERR_IO);
        assert_int_equal(disk.vfs->sync(disk.vfs->context, file), ERR_OK);
        struct buf bytes;
        buf_init(&bytes);
        assert_true(fake_vfs_file_bytes(disk.fake, "/f", &bytes));
        assert_int_equal(bytes.data[0], 'b');
        disk_close(&disk, file);
        fake_vfs_crash_as(disk.fake, FAKE_CRASH_LOSE, NULL);
        assert_true(fake_vfs_file_bytes(disk.fake, "/f", &bytes));
        for (size_t i = 0; i < bytes.size; i += FAKE_SECTOR_BYTES) {
            lost += bytes.data[i] == 'a';
        }
        buf_deinit(&bytes);
        fake_vfs_destroy(disk.fake);
    }
    assert_in_range(lost, 10, 70);
}

static void test_lying_sync_and_write_are_found_out_by_a_crash(void **state)
{
    (void)state;
    struct disk disk = disk_create(1);
    struct vfs_file *file = disk_file(&disk, "/f", 'a', 1024);
    fake_vfs_lie(disk.fake, FAKE_SYNC, 1);
    assert_int_equal(disk_write(&disk, file, 0, 'b', 512), ERR_OK);
    assert_int_equal(disk.vfs->sync(disk.vfs->context, file), ERR_OK);
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_LOSE, NULL);
    disk_close(&disk, file);
    struct buf bytes;
    buf_init(&bytes);
    assert_true(fake_vfs_file_bytes(disk.fake, "/f", &bytes));
    assert_int_equal(bytes.data[0], 'a');
    file = disk_open(&disk, "/f", VFS_READ | VFS_WRITE);
    fake_vfs_lie(disk.fake, FAKE_WRITE, 2);
    assert_int_equal(disk_write(&disk, file, 0, 'c', 512), ERR_OK);
    assert_int_equal(disk_write(&disk, file, 512, 'c', 512), ERR_OK);
    assert_int_equal(disk.vfs->sync(disk.vfs->context, file), ERR_OK);
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_LOSE, NULL);
    disk_close(&disk, file);
    assert_true(fake_vfs_file_bytes(disk.fake, "/f", &bytes));
    assert_int_equal(bytes.data[0], 'c');
    assert_int_equal(bytes.data[512], 'a');
    assert_int_equal(fake_vfs_fault_count(disk.fake), 2);
    buf_deinit(&bytes);
    fake_vfs_destroy(disk.fake);
}

static void test_no_space_takes_what_fits_and_says_so(void **state)
{
    (void)state;
    struct disk disk = disk_create(1);
    struct vfs_file *file = disk_file(&disk, "/f", 'a', 1000);
    fake_vfs_set_space(disk.fake, 1500);
    assert_int_equal(disk_write(&disk, file, 0, 'b', 1000), ERR_OK);
    assert_int_equal(disk_write(&disk, file, 1000, 'c', 600), ERR_NO_SPACE);
    assert_int_equal(fake_vfs_space_used(disk.fake), 1500);
    uint64_t left;
    assert_int_equal(disk.vfs->free_bytes(disk.vfs->context, "/", &left), ERR_OK);
    assert_int_equal(left, 0);
    assert_int_equal(disk.vfs->truncate(disk.vfs->context, file, 2000), ERR_NO_SPACE);
    assert_int_equal(disk.vfs->truncate(disk.vfs->context, file, 1200), ERR_OK);
    assert_int_equal(disk_write(&disk, file, 1200, 'c', 300), ERR_OK);
    disk_close(&disk, file);
    fake_vfs_destroy(disk.fake);
}

static bool stop_at_rename(void *context, enum fake_op op, const char *path, uint64_t step)
{
    (void)step;
    *(unsigned *)context += 1;
    return op == FAKE_RENAME && strcmp(path, "/dir/base") == 0;
}

static void test_crash_point_halts_in_place_of_the_step(void **state)
{
    (void)state;
    struct disk disk = disk_create(1);
    const struct vfs *vfs = disk.vfs;
    assert_int_equal(vfs->make_dir(vfs->context, "/dir"), ERR_OK);
    assert_int_equal(vfs->sync_dir(vfs->context, "/"), ERR_OK);
    unsigned calls = 0;
    fake_vfs_set_crash_point(disk.fake, stop_at_rename, &calls);
    assert_int_equal(vfs_write_atomic(vfs, "/dir", "base", bytes_of_string("x")), ERR_IO);
    assert_true(fake_vfs_is_halted(disk.fake));
    assert_int_equal(calls, 4); /* create, write, sync, rename; nothing after the halt */
    fake_vfs_set_crash_point(disk.fake, NULL, NULL);
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_KEEP, NULL);
    assert_false(disk_exists(&disk, "/dir/base"));
    assert_true(disk_exists(&disk, "/dir/base.tmp"));
    fake_vfs_halt_at(disk.fake, 2);
    struct vfs_file *file = disk_open(&disk, "/dir/g", VFS_WRITE | VFS_CREATE);
    assert_int_equal(disk_write(&disk, file, 0, 'x', 5), ERR_IO);
    assert_int_equal(vfs->sync_dir(vfs->context, "/dir"), ERR_IO);
    disk_close(&disk, file);
    fake_vfs_destroy(disk.fake);
}

static void test_crash_kills_handles_and_frees_locks(void **state)
{
    (void)state;
    struct disk disk = disk_create(1);
    const struct vfs *vfs = disk.vfs;
    struct vfs_file *file = disk_file(&disk, "/f", 'a', 10);
    assert_int_equal(vfs->lock(vfs->context, "/lock"), ERR_OK);
    assert_int_equal(vfs->lock(vfs->context, "/lock"), ERR_BUSY);
    fake_vfs_crash_as(disk.fake, FAKE_CRASH_KEEP, NULL);
    assert_int_equal(disk_write(&disk, file, 0, 'b', 5), ERR_IO);
    uint64_t size;
    assert_int_equal(vfs->size(vfs->context, file, &size), ERR_IO);
    disk_close(&disk, file);
    assert_int_equal(vfs->lock(vfs->context, "/lock"), ERR_OK);
    fake_vfs_destroy(disk.fake);
}

static void disk_play(struct disk *disk, struct rng *rng)
{
    for (unsigned i = 0; i < 30; i++) {
        char path[3] = {'/', (char)('a' + rng_below(rng, 5)), '\0'};
        struct vfs_file *file = disk_open(disk, path, VFS_WRITE | VFS_CREATE);
        assert_int_equal(disk_write(disk, file, rng_below(rng, 3000), (uint8_t)i, 700), ERR_OK);
        if (rng_chance(rng, 1, 4)) {
            assert_int_equal(disk->vfs->sync(disk->vfs->context, file), ERR_OK);
        }
        disk_close(disk, file);
        if (rng_chance(rng, 1, 6)) {
            assert_int_equal(disk->vfs->sync_dir(disk->vfs->context, "/"), ERR_OK);
        }
        if (rng_chance(rng, 1, 6)) {
            assert_int_equal(disk->vfs->rename(disk->vfs->context, path, "/z"), ERR_OK);
        }
        if (rng_chance(rng, 1, 10)) {
            fake_vfs_crash(disk->fake, NULL);
        }
    }
}

static void test_same_seed_gives_the_same_disk(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct disk disks[2];
        for (unsigned i = 0; i < 2; i++) {
            disks[i] = disk_create(seed);
            struct rng rng;
            rng_init(&rng, seed);
            disk_play(&disks[i], &rng);
        }
        static const char *const paths[] = {"/a", "/b", "/c", "/d", "/e", "/z"};
        for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
            struct buf bytes[2];
            buf_init(&bytes[0]);
            buf_init(&bytes[1]);
            bool found = fake_vfs_file_bytes(disks[0].fake, paths[i], &bytes[0]);
            assert_int_equal(fake_vfs_file_bytes(disks[1].fake, paths[i], &bytes[1]), found);
            assert_true(bytes_equal(buf_view(&bytes[0]), buf_view(&bytes[1])));
            buf_deinit(&bytes[0]);
            buf_deinit(&bytes[1]);
        }
        assert_int_equal(fake_vfs_step_count(disks[0].fake), fake_vfs_step_count(disks[1].fake));
        fake_vfs_destroy(disks[0].fake);
        fake_vfs_destroy(disks[1].fake);
    }
}

static void test_flip_random_changes_one_bit_of_one_file(void **state)
{
    (void)state;
    struct disk disk = disk_create(1);
    assert_int_equal(disk.vfs->make_dir(disk.vfs->context, "/d"), ERR_OK);
    disk_close(&disk, disk_file(&disk, "/d/one", 0, 100));
    disk_close(&disk, disk_file(&disk, "/d/two", 0, 100));
    struct rng rng;
    rng_init(&rng, 4);
    char path[VFS_PATH_BYTES_MAX];
    uint64_t bit;
    assert_true(fake_vfs_flip_random(disk.fake, "/d", &rng, path, &bit));
    struct buf bytes;
    buf_init(&bytes);
    assert_true(fake_vfs_file_bytes(disk.fake, path, &bytes));
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(bytes.data[i], i == bit / 8 ? 1u << bit % 8 : 0);
    }
    assert_false(fake_vfs_flip_random(disk.fake, "/nowhere", &rng, path, &bit));
    buf_deinit(&bytes);
    fake_vfs_destroy(disk.fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsynced_write_lost_power_is_gone_synced_stays),
        cmocka_unit_test(test_torn_write_is_whole_by_sector_and_any_version),
        cmocka_unit_test(test_names_need_a_directory_sync),
        cmocka_unit_test(test_names_survive_as_a_prefix),
        cmocka_unit_test(test_rename_of_a_directory_between_directories_is_one_change),
        cmocka_unit_test(test_failed_sync_makes_later_ones_meaningless),
        cmocka_unit_test(test_lying_sync_and_write_are_found_out_by_a_crash),
        cmocka_unit_test(test_no_space_takes_what_fits_and_says_so),
        cmocka_unit_test(test_crash_point_halts_in_place_of_the_step),
        cmocka_unit_test(test_crash_kills_handles_and_frees_locks),
        cmocka_unit_test(test_same_seed_gives_the_same_disk),
        cmocka_unit_test(test_flip_random_changes_one_bit_of_one_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
