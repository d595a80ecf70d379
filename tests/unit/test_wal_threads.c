/* The log on a real file system with its three threads: owner, reader, maker of spares. For the
 * thread sanitizer, and for the places where the fake disk is kinder than a real one. */
#include "base/clock.h"
#include "unit/wal_test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENTRIES 3000u

struct shared {
    struct wal *wal;
    _Atomic uint64_t readable; /* entries up to here were written and are never truncated */
    _Atomic uint64_t base;
    _Atomic bool done;
    _Atomic uint64_t entries_read;
    _Atomic uint64_t wrong;
};

/* cmocka's asserts are for the main thread; the others count what is wrong. */
static void *reader_main(void *context)
{
    struct shared *shared = context;
    struct rng rng;
    rng_init(&rng, 3);
    while (!atomic_load(&shared->done)) {
        uint64_t base = atomic_load(&shared->base);
        uint64_t readable = atomic_load(&shared->readable);
        if (readable == base) {
            continue;
        }
        uint64_t from = rng_between(&rng, base + 1, readable);
        struct raft_entry *entries;
        size_t count;
        int error = wal_read(shared->wal, from, readable, 30000, &entries, &count);
        if (error == ERR_NOT_FOUND && from <= atomic_load(&shared->base)) {
            continue; /* compacted meanwhile */
        }
        if (error != ERR_OK) {
            atomic_fetch_add(&shared->wrong, 1);
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            struct raft_entry expected = wal_test_entry((struct raft_position){from + i, 1});
            bool same = entries[i].position.index == from + i && entries[i].position.term == 1 &&
                        bytes_equal(entries[i].data, expected.data);
            atomic_fetch_add(&shared->wrong, same ? 0u : 1u);
            blob_unref(expected.owner);
        }
        atomic_fetch_add(&shared->entries_read, count);
        wal_entries_free(entries, count);
    }
    return NULL;
}

static void *maker_main(void *context)
{
    struct shared *shared = context;
    while (!atomic_load(&shared->done)) {
        struct wal_stats stats;
        wal_stats(shared->wal, &stats);
        if (stats.spare_count < 2 && wal_prepare_spares(shared->wal) != ERR_OK) {
            atomic_fetch_add(&shared->wrong, 1);
        }
    }
    return NULL;
}

static void owner_run(struct shared *shared, struct wal_model *model)
{
    for (unsigned i = 0; model->last.index < ENTRIES; i++) {
        struct wal_model before = *model;
        wal_model_append(model, 0, 10, 1);
        assert_int_equal(wal_test_write(shared->wal, &before, model, 0), ERR_OK);
        /* A tail of another term, cut again: readers are never told of it. */
        uint64_t readable = model->last.index;
        struct wal_model with_tail = *model;
        wal_model_append(&with_tail, 0, 3, 2);
        assert_int_equal(wal_test_write(shared->wal, model, &with_tail, 0), ERR_OK);
        struct wal_append cut = {.truncate_from = readable + 1};
        assert_int_equal(wal_write(shared->wal, &cut), ERR_OK);
        atomic_store(&shared->readable, readable);
        if (i % 8 == 0) {
            assert_int_equal(wal_sync(shared->wal), ERR_OK);
        }
        if (i % 40 == 39) {
            struct raft_membership membership = wal_test_membership(1);
            atomic_store(&shared->base, model->last.index - 200);
            wal_model_compact(model, model->last.index - 200, 1);
            assert_int_equal(wal_compact(shared->wal, model->base, &membership), ERR_OK);
        }
    }
    assert_int_equal(wal_sync(shared->wal), ERR_OK);
}

static void test_reader_and_spare_maker_beside_the_owner(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_wal_threads_XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct wal_options options = wal_test_options(0);
    options.prewrite = true;
    options.seed = 0;
    char why[WAL_TEST_WHY_BYTES];
    struct wal_recovery recovery;
    struct shared shared = {0};
    assert_int_equal(
        wal_open(vfs_system(), dir, &options, NULL, 0, &shared.wal, &recovery, why, sizeof(why)),
        ERR_OK);
    wal_recovery_free(&recovery);
    pthread_t reader;
    pthread_t maker;
    assert_int_equal(pthread_create(&reader, NULL, reader_main, &shared), 0);
    assert_int_equal(pthread_create(&maker, NULL, maker_main, &shared), 0);
    struct wal_model model;
    wal_model_init(&model);
    owner_run(&shared, &model);
    uint64_t deadline_ns = clock_now_ns(clock_system()) + 20 * NS_PER_S;
    while (atomic_load(&shared.entries_read) == 0 && atomic_load(&shared.wrong) == 0 &&
           clock_now_ns(clock_system()) < deadline_ns) {
        sched_yield();
    }
    assert_true(atomic_load(&shared.entries_read) > 0);
    atomic_store(&shared.done, true);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(pthread_join(maker, NULL), 0);
    assert_int_equal(atomic_load(&shared.wrong), 0);
    wal_close(shared.wal);
    assert_int_equal(
        wal_open(vfs_system(), dir, &options, NULL, 9000, &shared.wal, &recovery, why, sizeof(why)),
        ERR_OK);
    wal_test_expect(shared.wal, &recovery, &model);
    wal_recovery_free(&recovery);
    wal_close(shared.wal);
    const struct vfs *vfs = vfs_system();
    assert_int_equal(vfs->remove_tree(vfs->context, dir), ERR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_and_spare_maker_beside_the_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
