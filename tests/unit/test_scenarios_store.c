/* Scenarios 29 and 32: the state machine over the real RocksDB, in a process of its own that is
 * killed at any moment, again and again, over one directory. Each life says first what it found:
 * that must be the exact state of some position of the log, at or after what a flush of an earlier
 * life had called durable. Commands have no sessions, so whatever is applied twice shows.
 *
 * The log is a function of the index, so nobody has to keep it. RocksDB runs in the children only:
 * its threads would not survive the fork. */
#include "kv_fixture.h"

#include "base/log.h"
#include "shardkv/write_buffer.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SHARDS = 4,
    GROUP = 1,
    KEYS = 2000,
    OPS_OF_ENTRY = 3,
    BATCH_ENTRIES_MAX = 20,
    MEMTABLE_BYTES = 1024 * 1024,
    /* Of the buffer above RocksDB: one goes through memtables, the other becomes a table. */
    SMALL_TABLE_BYTES = 64 * 1024,
    LARGE_TABLE_BYTES = 2 * 1024 * 1024,
};

/* Written by the child, read by the parent. */
struct shared {
    atomic_bool opened;
    uint64_t found_index; /* valid once opened */
    uint64_t found_hash;
    atomic_uint_fast64_t applied;
    atomic_uint_fast64_t durable; /* what a flush that returned had covered */
};

struct fixture {
    char dir[64];
    char state[96];
    struct shared *shared;
    struct kv_replica reference; /* the same log over a store in memory */
};

/* ---- the log ---- */

static void put_config(struct buf *out)
{
    const uint64_t owners[SHARDS] = {GROUP, GROUP, GROUP, GROUP};
    const uint64_t sources[SHARDS] = {0};
    struct config *config = test_config(1, SHARDS, owners, sources);
    struct buf bytes = {0};
    config_encode(config, &bytes);
    kv_command_encode(&(struct kv_command){.kind = KV_COMMAND_CONFIG, .config = buf_view(&bytes)},
                      out);
    buf_deinit(&bytes);
    config_free(config);
}

static void put_block(uint64_t index, struct buf *out)
{
    static uint8_t bytes[4096];
    struct rng rng;
    rng_init(&rng, index);
    block_put_header(out, &(struct block_header){.count = OPS_OF_ENTRY});
    for (uint32_t i = 0; i < OPS_OF_ENTRY; i++) {
        char key[16];
        char text[32];
        uint32_t number = (uint32_t)rng_below(&rng, KEYS);
        snprintf(key, sizeof key, "key%u", (unsigned)number);
        struct op op = {.shard = number % SHARDS, .key = KEY(key)};
        uint64_t kind = rng_below(&rng, 10);
        if (kind < 5) {
            op.kind = OP_PUT;
            memset(bytes, (int)('a' + index % 26), sizeof bytes);
            for (size_t at = 0; at + 8 <= sizeof bytes; at += 64) {
                store_u64(bytes + at, rng_next(&rng)); /* does not compress to nothing */
            }
            op.value = bytes_of(bytes, (size_t)rng_below(&rng, sizeof bytes));
        } else if (kind < 9) {
            op.kind = OP_APPEND;
            snprintf(text, sizeof text, "<%llu>", (unsigned long long)index);
            op.value = KEY(text);
        } else {
            op.kind = OP_DELETE;
        }
        block_put_op(out, &op);
    }
}

/* Applies entries (from, to] as one batch. */
static int apply_range(struct state_machine *sm, uint64_t from, uint64_t to)
{
    struct buf payloads[BATCH_ENTRIES_MAX] = {{0}};
    struct sm_command commands[BATCH_ENTRIES_MAX];
    size_t count = 0;
    for (uint64_t index = from + 1; index <= to; index++) {
        if (index == 1) {
            put_config(&payloads[count]);
        } else {
            put_block(index, &payloads[count]);
        }
        commands[count] = (struct sm_command){
            .position = {index, 1}, .time_ms = index, .payload = buf_view(&payloads[count])};
        count++;
    }
    struct sm_batch batch = {.commands = commands, .count = count, .last = {to, 1}};
    int error = sm->ops->apply(sm->sm, &batch);
    for (size_t i = 0; i < count; i++) {
        buf_deinit(&payloads[i]);
    }
    return error;
}

static void reference_to(struct fixture *fixture, uint64_t index)
{
    struct kv_replica *reference = &fixture->reference;
    uint64_t at = reference->sm.ops->applied(reference->sm.sm).index;
    if (at > index) {
        kv_replica_close(reference);
        *reference = (struct kv_replica){0};
        kv_replica_open(reference, GROUP);
        at = 0;
    }
    while (at < index) {
        uint64_t to = index - at < BATCH_ENTRIES_MAX ? index : at + BATCH_ENTRIES_MAX;
        assert_int_equal(apply_range(&reference->sm, at, to), 0);
        at = to;
    }
}

/* ---- a life, in the child ---- */

struct life {
    struct shared *shared;
    struct store tables;
    struct store store;
    struct kv_machine *machine;
    struct state_machine sm;
    atomic_uint_fast64_t pause_us;
};

static void *flusher(void *context)
{
    struct life *life = context;
    for (;;) {
        if (life->sm.ops->flush(life->sm.sm) != 0) {
            _exit(3);
        }
        atomic_store(&life->shared->durable, life->sm.ops->durable(life->sm.sm).index);
        struct timespec pause = {0, (long)atomic_load(&life->pause_us) * 1000};
        nanosleep(&pause, NULL); /* flushes come now and then; nothing waits for this */
    }
    return NULL;
}

/* Never returns: killed, or ended with a code that is not 0. */
static _Noreturn void live(struct fixture *fixture, uint64_t seed, bool large)
{
    const uint64_t table_bytes = large ? LARGE_TABLE_BYTES : SMALL_TABLE_BYTES;
    struct life life = {.shared = fixture->shared};
    struct rng rng;
    char why[512] = "";
    rng_init(&rng, seed);
    atomic_init(&life.pause_us,
                large ? rng_between(&rng, 100000, 400000) : rng_between(&rng, 0, 100));
    struct store_rocksdb_options options = {.memtable_bytes = MEMTABLE_BYTES};
    struct write_buffer_options buffer = {.table_bytes_max = table_bytes};
    struct kv_machine_options machine = {
        .group_id = GROUP, .store = &life.store, .vfs = vfs_system()};
    if (store_rocksdb_open(fixture->state, &options, &life.tables, why, sizeof why) != 0 ||
        write_buffer_open(&life.tables, &buffer, &life.store) != 0 ||
        kv_machine_create(&machine, &life.machine, why, sizeof why) != 0) {
        fprintf(stderr, "cannot open: %s\n", why);
        _exit(2);
    }
    life.sm = kv_machine_ops(life.machine);
    uint64_t at = life.sm.ops->applied(life.sm.sm).index;
    struct raft_position position;
    if (life.sm.ops->hash(life.sm.sm, &life.shared->found_hash, &position) != 0) {
        _exit(2);
    }
    life.shared->found_index = at;
    atomic_store(&life.shared->applied, at);
    atomic_store(&life.shared->opened, true);
    pthread_t thread;
    if (pthread_create(&thread, NULL, flusher, &life) != 0) {
        _exit(2);
    }
    for (;;) {
        uint64_t to = at + rng_between(&rng, 1, BATCH_ENTRIES_MAX);
        if (apply_range(&life.sm, at, to) != 0) {
            _exit(3);
        }
        at = to;
        atomic_store(&life.shared->applied, at);
    }
}

/* ---- the parent ---- */

static void nap(void)
{
    struct timespec pause = {0, 200 * 1000};
    nanosleep(&pause, NULL); /* between looks at a condition that has a deadline */
}

/* Waits until the child has applied so much; fails the test when it ends by itself. */
static void wait_for(struct fixture *fixture, pid_t child, uint64_t entries)
{
    time_t end = time(NULL) + 60;
    const struct shared *shared = fixture->shared;
    while (!atomic_load(&shared->opened) ||
           atomic_load(&shared->applied) < shared->found_index + entries) {
        int status;
        if (waitpid(child, &status, WNOHANG) == child) {
            fail_msg("the process ended by itself: status %d", status);
        }
        if (time(NULL) > end) {
            (void)kill(child, SIGKILL);
            fail_msg("the process does not get on");
        }
        nap();
    }
}

/* Tables in the directory: how many, and the largest number a file has. */
static uint32_t count_tables(const struct fixture *fixture)
{
    uint32_t count = 0;
    DIR *dir = opendir(fixture->state);
    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        size_t size = strlen(entry->d_name);
        count += size > 4 && strcmp(entry->d_name + size - 4, ".sst") == 0;
    }
    closedir(dir);
    return count;
}

struct outcome {
    uint64_t lost;      /* entries applied before a kill and gone after it */
    uint32_t shrunk;    /* how often there were fewer tables than at the look before: merged */
    uint32_t leftovers; /* tables that the next life found to belong to nothing it knows */
};

static void check_found(struct fixture *fixture, uint64_t applied_before, uint64_t durable_before,
                        struct outcome *outcome)
{
    const struct shared *shared = fixture->shared;
    uint64_t found = shared->found_index;
    if (found < durable_before || found > applied_before) {
        fail_msg("found %llu, but %llu was durable and %llu applied", (unsigned long long)found,
                 (unsigned long long)durable_before, (unsigned long long)applied_before);
    }
    outcome->lost += applied_before - found;
    reference_to(fixture, found);
    if (kv_replica_hash(&fixture->reference) != shared->found_hash) {
        fail_msg("the state found at %llu is not that of the log", (unsigned long long)found);
    }
}

/* Whether what the lives are to meet was met. */
static bool met_all(const struct outcome *outcome, bool large)
{
    return outcome->lost > 0 && (!large || (outcome->shrunk > 0 && outcome->leftovers > 0));
}

/* `count` lives, and more, up to four times as many, until what they are to meet was met. */
static void lives(struct fixture *fixture, uint64_t seed, uint32_t count, uint64_t entries_max,
                  bool large, struct outcome *outcome)
{
    struct rng rng;
    rng_init(&rng, seed);
    uint64_t applied = 0;
    uint64_t durable = 0;
    *outcome = (struct outcome){0};
    for (uint32_t life = 0; life < count || (life < 4 * count && !met_all(outcome, large));
         life++) {
        struct shared *shared = fixture->shared;
        atomic_store(&shared->opened, false);
        atomic_store(&shared->durable, 0);
        uint32_t tables = life == 0 ? 0 : count_tables(fixture);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            live(fixture, seed * 1000 + life, large && life % 2 == 0);
        }
        wait_for(fixture, child, 0);
        outcome->leftovers += life > 0 && count_tables(fixture) < tables;
        uint64_t wanted = rng_between(&rng, 1, entries_max);
        uint32_t before = 0;
        for (uint64_t part = 0; part <= wanted; part += 1 + wanted / 8) {
            wait_for(fixture, child, part);
            uint32_t now = count_tables(fixture);
            outcome->shrunk += now < before;
            before = now;
        }
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        check_found(fixture, life == 0 ? 0 : applied, durable, outcome);
        applied = atomic_load(&shared->applied);
        /* What it was applying may have been written although nobody was told. */
        applied += BATCH_ENTRIES_MAX;
        uint64_t flushed = atomic_load(&shared->durable);
        durable = flushed > durable ? flushed : durable;
    }
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof *fixture);
    snprintf(fixture->dir, sizeof fixture->dir, "/tmp/shardkv-store-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    snprintf(fixture->state, sizeof fixture->state, "%s/state", fixture->dir);
    fixture->shared = mmap(NULL, sizeof *fixture->shared, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(fixture->shared, MAP_FAILED);
    kv_replica_open(&fixture->reference, GROUP);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    kv_replica_close(&fixture->reference);
    assert_int_equal(munmap(fixture->shared, sizeof *fixture->shared), 0);
    assert_int_equal(vfs_system()->remove_tree(vfs_system()->context, fixture->dir), 0);
    test_free(fixture);
    return 0;
}

/* Small tables: every kill comes close to one that is being written. */
static void test_s29_killed_process_finds_its_position_with_the_data(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    lives(fixture, 29, 32, 120, false, &outcome);
    assert_true(met_all(&outcome, false)); /* otherwise nothing was shown */
}

/* Also with tables of the size that RocksDB takes as they are, one beside the other; enough of
 * them that it merges all the time. */
static void test_s32_killed_process_in_the_middle_of_compactions(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    lives(fixture, 32, 8, 3000, true, &outcome);
    print_message("%u looks saw tables merged, %u lives began by removing unfinished ones\n",
                  outcome.shrunk, outcome.leftovers);
    assert_true(met_all(&outcome, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_s29_killed_process_finds_its_position_with_the_data,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_s32_killed_process_in_the_middle_of_compactions,
                                        set_up, tear_down),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
