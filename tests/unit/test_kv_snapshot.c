/* Snapshots of the state machine: what is sent is what arrives, in whatever pieces; damage is
 * found; restoring is repeatable, and a replica that restored goes on as if it had applied
 * everything itself. Over RocksDB and over the store in memory. */
#include "kv_fixture.h"

#include "base/crc32c.h"
#include "lib/fake_vfs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHARDS = 2 };

struct fixture {
    char dir[64];
    struct kv_single sender;
    bool rocksdb;
    struct store store; /* of the receiver */
    struct fake_store *fake;
    struct kv_machine *receiver;
    struct state_machine sm;
};

static void path_of(const struct fixture *fixture, const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", fixture->dir, name);
}

static void make_dir(const struct fixture *fixture, const char *name, char out[128])
{
    path_of(fixture, name, out);
    assert_int_equal(vfs_system()->make_dir(vfs_system()->context, out), 0);
}

static void open_receiver(struct fixture *fixture)
{
    char why[512] = "";
    char path[128];
    path_of(fixture, "state", path);
    if (fixture->rocksdb) {
        assert_int_equal(store_rocksdb_open(path, NULL, &fixture->store, why, sizeof why), 0);
    }
    struct kv_machine_options options = {
        .group_id = 1, .store = &fixture->store, .vfs = vfs_system()};
    assert_int_equal(kv_machine_create(&options, &fixture->receiver, why, sizeof why), 0);
    fixture->sm = kv_machine_ops(fixture->receiver);
}

static void close_receiver(struct fixture *fixture)
{
    kv_machine_destroy(fixture->receiver);
    if (fixture->rocksdb) {
        store_rocksdb_close(&fixture->store);
    }
}

static struct fixture *make(bool rocksdb)
{
    struct fixture *fixture = test_calloc(1, sizeof *fixture);
    fixture->rocksdb = rocksdb;
    snprintf(fixture->dir, sizeof fixture->dir, "/tmp/shardkv-snap-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    kv_single_open(&fixture->sender, 1);
    if (rocksdb) {
        /* The sender's too: its fixture made one in memory, which is put aside. */
        kv_machine_destroy(fixture->sender.replica.machine);
        char path[128];
        char why[512] = "";
        path_of(fixture, "sender", path);
        assert_int_equal(
            store_rocksdb_open(path, NULL, &fixture->sender.replica.store, why, sizeof why), 0);
        struct kv_machine_options options = {
            .group_id = 1, .store = &fixture->sender.replica.store, .vfs = vfs_system()};
        assert_int_equal(
            kv_machine_create(&options, &fixture->sender.replica.machine, why, sizeof why), 0);
        fixture->sender.replica.sm = kv_machine_ops(fixture->sender.replica.machine);
    } else {
        fixture->fake = fake_store_create(vfs_system());
        fixture->store = fake_store_as_store(fixture->fake);
    }
    open_receiver(fixture);
    const uint64_t owners[SHARDS] = {1, 1};
    const uint64_t sources[SHARDS] = {0, 0};
    assert_int_equal(kv_single_config(&fixture->sender, 1, SHARDS, owners, sources), 0);
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

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    close_receiver(fixture);
    fake_store_destroy(fixture->fake);
    struct store store = fixture->sender.replica.store;
    kv_single_close(&fixture->sender);
    if (fixture->rocksdb) {
        store_rocksdb_close(&store);
    }
    assert_int_equal(vfs_system()->remove_tree(vfs_system()->context, fixture->dir), 0);
    test_free(fixture);
    return 0;
}

static void fill(struct fixture *fixture, uint32_t count, size_t value_bytes)
{
    uint8_t *value = test_calloc(1, value_bytes);
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%u", (unsigned)i);
        memset(value, (int)('a' + i % 26), value_bytes);
        struct op op = {.kind = OP_PUT,
                        .sequence = i + 1,
                        .shard = i % SHARDS,
                        .key = KEY(key),
                        .value = bytes_of(value, value_bytes)};
        assert_int_equal(kv_single_op(&fixture->sender, 5, &op).error, 0);
    }
    test_free(value);
}

/* The whole stream, read in pieces of `piece` bytes. */
static void read_stream(struct fixture *fixture, size_t piece, struct buf *out)
{
    struct state_machine *sm = &fixture->sender.replica.sm;
    struct raft_position position;
    uint64_t size = 0;
    struct sm_snapshot_reader *reader = NULL;
    char dir[128];
    make_dir(fixture, "out", dir);
    assert_int_equal(sm->ops->snapshot_open(sm->sm, dir, &position, &size, &reader), 0);
    assert_int_equal(position.index, fixture->sender.log.last_index);
    for (uint64_t offset = 0; offset < size;) {
        size_t part = size - offset < piece ? (size_t)(size - offset) : piece;
        uint8_t *at = buf_reserve(out, part);
        assert_int_equal(sm->ops->snapshot_read(reader, offset, at, part), 0);
        out->size += part;
        offset += part;
    }
    uint8_t byte;
    assert_true(sm->ops->snapshot_read(reader, size, &byte, 1) != 0);
    /* Any place can be read again, in any order. */
    for (uint64_t offset = size; offset > 0; offset -= offset < 1000 ? offset : 1000) {
        assert_int_equal(sm->ops->snapshot_read(reader, offset - 1, &byte, 1), 0);
        assert_int_equal(byte, out->data[offset - 1]);
    }
    sm->ops->snapshot_close(reader);
    assert_int_equal(vfs_system()->remove_tree(vfs_system()->context, dir), 0);
}

/* Receives into `dir`: 0 or the error of the call that found the damage. */
static int receive(struct fixture *fixture, const char *dir, struct bytes stream, size_t piece)
{
    struct sm_snapshot_writer *writer = NULL;
    assert_int_equal(fixture->sm.ops->receive_open(fixture->sm.sm, dir, &writer), 0);
    int error = 0;
    for (size_t at = 0; at < stream.size && error == 0; at += piece) {
        size_t part = stream.size - at < piece ? stream.size - at : piece;
        error = fixture->sm.ops->receive_write(writer, bytes_of(stream.data + at, part));
    }
    if (error == 0) {
        error = fixture->sm.ops->receive_finish(writer);
    }
    fixture->sm.ops->receive_close(writer);
    return error;
}

static uint64_t hash_of(const struct state_machine *sm)
{
    uint64_t hash = 0;
    struct raft_position position;
    assert_int_equal(sm->ops->hash(sm->sm, &hash, &position), 0);
    return hash;
}

static void test_kv_snapshot_arrives_whole_and_the_receiver_goes_on(void **state)
{
    struct fixture *fixture = *state;
    fill(fixture, 200, 3000); /* several blocks */
    struct buf stream = {0};
    char dir[128];
    read_stream(fixture, 100001, &stream);
    make_dir(fixture, "in", dir);
    assert_int_equal(receive(fixture, dir, buf_view(&stream), 7777), 0);
    assert_int_equal(fixture->sm.ops->applied(fixture->sm.sm).index, 0); /* not before restore */
    assert_int_equal(fixture->sm.ops->restore(fixture->sm.sm, dir), 0);
    assert_int_equal(fixture->sm.ops->applied(fixture->sm.sm).index,
                     fixture->sender.log.last_index);
    assert_int_equal(fixture->sm.ops->durable(fixture->sm.sm).index,
                     fixture->sender.log.last_index);
    assert_int_equal(hash_of(&fixture->sm), hash_of(&fixture->sender.replica.sm));
    /* Again, as a node does that crashed before it noted that it had restored. */
    assert_int_equal(fixture->sm.ops->restore(fixture->sm.sm, dir), 0);
    close_receiver(fixture);
    open_receiver(fixture);
    assert_int_equal(fixture->sm.ops->restore(fixture->sm.sm, dir), 0);
    assert_int_equal(hash_of(&fixture->sm), hash_of(&fixture->sender.replica.sm));
    /* Both apply the same command: a repetition here as there. */
    size_t next = fixture->sender.log.count;
    struct op op = {.kind = OP_PUT, .sequence = 199, .shard = 0, .key = KEY("key198")};
    uint8_t value[3000];
    memset(value, 'a' + 198 % 26, sizeof value);
    op.value = bytes_of(value, sizeof value);
    uint64_t version = kv_single_op(&fixture->sender, 5, &op).version;
    assert_int_equal(version, 100);
    struct sm_command command = {.position = {fixture->sender.log.last_index, 1},
                                 .time_ms = fixture->sender.log.time_ms,
                                 .payload = blob_view(fixture->sender.log.commands[next].payload)};
    struct sm_batch batch = {&command, 1, command.position};
    assert_int_equal(fixture->sm.ops->apply(fixture->sm.sm, &batch), 0);
    assert_int_equal(hash_of(&fixture->sm), hash_of(&fixture->sender.replica.sm));
    buf_deinit(&stream);
}

static void test_kv_snapshot_damage_anywhere_is_found(void **state)
{
    struct fixture *fixture = *state;
    fill(fixture, 20, 2000);
    struct buf stream = {0};
    read_stream(fixture, 4096, &stream);
    uint64_t before = hash_of(&fixture->sm);
    struct rng rng;
    rng_init(&rng, 1);
    for (uint32_t i = 0; i < 60; i++) {
        char name[16];
        char dir[128];
        snprintf(name, sizeof name, "bad%u", (unsigned)i);
        make_dir(fixture, name, dir);
        size_t at =
            i < 20 ? i : (size_t)rng_below(&rng, stream.size); /* the header's first bytes all */
        if (i % 3 == 2) {
            assert_int_equal(receive(fixture, dir, bytes_of(stream.data, at), 1000),
                             ERR_CORRUPT); /* cut */
        } else {
            stream.data[at] ^= (uint8_t)(1u << rng_below(&rng, 8));
            struct buf copy = {0};
            buf_append(&copy, stream.data, stream.size);
            int error = receive(fixture, dir, buf_view(&copy), 1000);
            buf_deinit(&copy);
            assert_int_equal(error, ERR_CORRUPT);
            assert_true(fixture->sm.ops->restore(fixture->sm.sm, dir) != 0);
            /* The attempt to restore changed nothing but the cache; put the byte back. */
            buf_clear(&stream);
            read_stream(fixture, 4096, &stream);
        }
    }
    assert_int_equal(hash_of(&fixture->sm), before);
    buf_deinit(&stream);
}

/* A block is bound to its place: two of one size do not change places. */
static void test_kv_snapshot_blocks_that_changed_places_are_found(void **state)
{
    enum { BLOCK = 64 * 1024 + 4, HEADER_MAX = 200 };
    struct fixture *fixture = *state;
    fill(fixture, 100, 3000);
    struct buf stream = {0};
    read_stream(fixture, 65536, &stream);
    assert_true(stream.size > HEADER_MAX + 3 * BLOCK);
    uint8_t *first = test_calloc(1, BLOCK);
    char dir[128];
    /* Wherever the header ends: one of these is the exchange of the first two blocks, the others
     * are damage of another kind. */
    for (size_t at = 20; at < HEADER_MAX; at++) {
        struct buf changed = {0};
        buf_append(&changed, stream.data, stream.size);
        memcpy(first, changed.data + at, BLOCK);
        memmove(changed.data + at, changed.data + at + BLOCK, BLOCK);
        memcpy(changed.data + at + BLOCK, first, BLOCK);
        make_dir(fixture, "in", dir);
        assert_int_equal(receive(fixture, dir, buf_view(&changed), BLOCK), ERR_CORRUPT);
        assert_int_equal(vfs_system()->remove_tree(vfs_system()->context, dir), 0);
        buf_deinit(&changed);
    }
    test_free(first);
    buf_deinit(&stream);
}

/* Applies the sender's log from `next` on to the receiver. */
static size_t follow(struct fixture *fixture, size_t next)
{
    const struct kv_log *log = &fixture->sender.log;
    for (; next < log->count; next++) {
        struct sm_command command = {.position = {log->commands[next].index, 1},
                                     .time_ms = log->commands[next].time_ms,
                                     .payload = blob_view(log->commands[next].payload)};
        struct sm_batch batch = {&command, 1, command.position};
        assert_int_equal(fixture->sm.ops->apply(fixture->sm.sm, &batch), 0);
    }
    return next;
}

/* The receiver has sessions in memory, of what it applied itself. What the snapshot says about them
 * is newer. */
static void test_kv_snapshot_replaces_sessions_in_memory(void **state)
{
    struct fixture *fixture = *state;
    fill(fixture, 4, 10);
    (void)follow(fixture, 0);
    struct op op = {
        .kind = OP_APPEND, .sequence = 5, .shard = 0, .key = KEY("once"), .value = KEY("x")};
    uint64_t version = kv_single_op(&fixture->sender, 5, &op).version;
    struct buf stream = {0};
    char dir[128];
    read_stream(fixture, 4096, &stream);
    make_dir(fixture, "in", dir);
    assert_int_equal(receive(fixture, dir, buf_view(&stream), 4096), 0);
    assert_int_equal(fixture->sm.ops->restore(fixture->sm.sm, dir), 0);
    size_t next = fixture->sender.log.count;
    assert_int_equal(kv_single_op(&fixture->sender, 5, &op).version, version);
    (void)follow(fixture, next);
    assert_int_equal(hash_of(&fixture->sm), hash_of(&fixture->sender.replica.sm));
    buf_deinit(&stream);
}

/* Names and sizes of a folder's files. */
struct listing {
    struct fake_vfs *disk;
    const char *dir;
    size_t count;
    uint64_t bytes;
    uint32_t checksum;
};

static void list_each(void *context, const char *name)
{
    struct listing *listing = context;
    char path[VFS_PATH_BYTES_MAX];
    struct buf bytes = {0};
    assert_int_equal(vfs_path(path, listing->dir, name), 0);
    assert_true(fake_vfs_file_bytes(listing->disk, path, &bytes));
    listing->count++;
    listing->bytes += bytes.size;
    listing->checksum += crc32c_extend(0, bytes.data, bytes.size);
    buf_deinit(&bytes);
}

/* When receive_finish has said so, all of it survives a power loss. */
static void test_kv_snapshot_received_is_durable(void **state)
{
    struct fixture *fixture = *state;
    fill(fixture, 50, 3000);
    struct buf stream = {0};
    read_stream(fixture, 65536, &stream);
    struct fake_vfs *disk = fake_vfs_create(1);
    const struct vfs *vfs = fake_vfs_vfs(disk);
    struct fake_store *fake = fake_store_create(vfs);
    struct store store = fake_store_as_store(fake);
    struct kv_machine_options options = {.group_id = 1, .store = &store, .vfs = vfs};
    struct kv_machine *machine = NULL;
    char why[256] = "";
    assert_int_equal(kv_machine_create(&options, &machine, why, sizeof why), 0);
    struct state_machine sm = kv_machine_ops(machine);
    assert_int_equal(vfs_make_dirs(vfs, "in"), 0);
    struct sm_snapshot_writer *writer = NULL;
    assert_int_equal(sm.ops->receive_open(sm.sm, "in", &writer), 0);
    assert_int_equal(sm.ops->receive_write(writer, buf_view(&stream)), 0);
    assert_int_equal(sm.ops->receive_finish(writer), 0);
    sm.ops->receive_close(writer);
    struct listing before = {.disk = disk, .dir = "in/store"};
    assert_int_equal(vfs->list(vfs->context, "in/store", list_each, &before), 0);
    assert_true(before.bytes > 50 * 3000);
    fake_vfs_crash_as(disk, FAKE_CRASH_LOSE, NULL);
    struct listing after = {.disk = disk, .dir = "in/store"};
    bool complete = false;
    assert_int_equal(vfs->list(vfs->context, "in/store", list_each, &after), 0);
    assert_memory_equal(&after, &before, sizeof after);
    assert_int_equal(vfs->exists(vfs->context, "in/complete", &complete), 0);
    assert_true(complete);
    kv_machine_destroy(machine);
    fake_store_destroy(fake);
    fake_vfs_destroy(disk);
    buf_deinit(&stream);
}

static void test_kv_flush_makes_durable_what_was_applied(void **state)
{
    struct fixture *fixture = *state;
    struct state_machine *sm = &fixture->sender.replica.sm;
    assert_int_equal(sm->ops->durable(sm->sm).index, 0);
    fill(fixture, 3, 10);
    assert_int_equal(sm->ops->flush(sm->sm), 0);
    assert_int_equal(sm->ops->durable(sm->sm).index, fixture->sender.log.last_index);
}

int main(void)
{
#define BOTH(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, set_up_fake, tear_down),                                 \
        cmocka_unit_test_setup_teardown(name, set_up_rocksdb, tear_down)
    const struct CMUnitTest tests[] = {
        BOTH(test_kv_snapshot_arrives_whole_and_the_receiver_goes_on),
        cmocka_unit_test_setup_teardown(test_kv_snapshot_damage_anywhere_is_found, set_up_fake,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_kv_snapshot_blocks_that_changed_places_are_found,
                                        set_up_fake, tear_down),
        BOTH(test_kv_snapshot_replaces_sessions_in_memory),
        cmocka_unit_test_setup_teardown(test_kv_snapshot_received_is_durable, set_up_fake,
                                        tear_down),
        BOTH(test_kv_flush_makes_durable_what_was_applied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
