/* The small formats of raft/node on disk and in the log: command entries, the identity file, the
 * header of a snapshot's stream. Round trips, every truncation, every flipped bit. */
#include "lib/fake_vfs.h"
#include "raft/node/identity.h"
#include "raft/node/log_entry.h"
#include "raft/node/snapshot_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- entries --------------------------------------------------------------------------------- */

static void encode_entry(struct buf *out)
{
    buf_init(out);
    log_entry_put_header(out, 123456789, 3);
    log_entry_put_command(out, bytes_of_string("first"));
    log_entry_put_command(out, BYTES_EMPTY);
    log_entry_put_command(out, bytes_of_string("third"));
}

/* 0 when the entry is sound to its last byte. */
static int walk_entry(struct bytes bytes, uint32_t *count)
{
    struct log_entry_reader reader;
    struct bytes command;
    int error = log_entry_open(bytes, &reader);
    *count = 0;
    while (error == ERR_OK) {
        error = log_entry_next(&reader, &command);
        *count += error == ERR_OK ? 1 : 0;
    }
    return error == ERR_NOT_FOUND ? ERR_OK : error;
}

static void test_log_entry_commands_come_back_in_order(void **state)
{
    (void)state;
    struct buf entry;
    struct log_entry_reader reader;
    struct bytes command;
    encode_entry(&entry);
    assert_int_equal(log_entry_open(buf_view(&entry), &reader), ERR_OK);
    assert_int_equal(reader.time_ms, 123456789);
    assert_int_equal(reader.count, 3);
    assert_int_equal(log_entry_next(&reader, &command), ERR_OK);
    assert_true(bytes_equal(command, bytes_of_string("first")));
    assert_int_equal(log_entry_next(&reader, &command), ERR_OK);
    assert_int_equal(command.size, 0);
    assert_int_equal(log_entry_next(&reader, &command), ERR_OK);
    assert_true(bytes_equal(command, bytes_of_string("third")));
    assert_int_equal(log_entry_next(&reader, &command), ERR_NOT_FOUND);
    buf_deinit(&entry);
}

static void test_log_entry_truncated_or_longer_is_corrupt(void **state)
{
    (void)state;
    struct buf entry;
    uint32_t count;
    encode_entry(&entry);
    for (size_t size = 0; size < entry.size; size++) {
        struct blob *copy = blob_copy(bytes_of(entry.data, size));
        assert_int_equal(walk_entry(blob_view(copy), &count), ERR_CORRUPT);
        blob_unref(copy);
    }
    assert_int_equal(walk_entry(buf_view(&entry), &count), ERR_OK);
    assert_int_equal(count, 3);
    buf_append(&entry, "x", 1);
    assert_int_equal(walk_entry(buf_view(&entry), &count), ERR_CORRUPT);
    entry.data[0] = 2;
    assert_int_equal(walk_entry(buf_view(&entry), &count), ERR_UNSUPPORTED);
    buf_deinit(&entry);
}

/* ---- identity -------------------------------------------------------------------------------- */

static struct identity sample_identity(void)
{
    struct identity identity = {.cluster_id = 11,
                                .group_id = 22,
                                .replica_id = 33,
                                .incarnation = 0xabcdef,
                                .log_time_ms = 44};
    assert_true(identity_peer_learn(&identity, 9, 900));
    assert_true(identity_peer_learn(&identity, 4, 400));
    assert_true(identity_peer_learn(&identity, 6, 600));
    return identity;
}

static void test_identity_round_trip_keeps_everything(void **state)
{
    (void)state;
    struct fake_vfs *disk = fake_vfs_create(1);
    struct identity stored = sample_identity();
    struct identity loaded;
    char why[256] = "";
    assert_int_equal(identity_load(fake_vfs_vfs(disk), "", &loaded, why, sizeof(why)),
                     ERR_NOT_FOUND);
    assert_int_equal(identity_store(fake_vfs_vfs(disk), "", &stored), ERR_OK);
    fake_vfs_crash_as(disk, FAKE_CRASH_LOSE, NULL);
    assert_int_equal(identity_load(fake_vfs_vfs(disk), "", &loaded, why, sizeof(why)), ERR_OK);
    assert_int_equal(loaded.cluster_id, 11);
    assert_int_equal(loaded.group_id, 22);
    assert_int_equal(loaded.replica_id, 33);
    assert_int_equal(loaded.incarnation, 0xabcdef);
    assert_int_equal(loaded.log_time_ms, 44);
    assert_int_equal(loaded.peer_count, 3);
    assert_int_equal(loaded.peers[0].id, 4);
    assert_int_equal(identity_peer_incarnation(&loaded, 4), 400);
    assert_int_equal(identity_peer_incarnation(&loaded, 6), 600);
    assert_int_equal(identity_peer_incarnation(&loaded, 9), 900);
    assert_int_equal(identity_peer_incarnation(&loaded, 5), 0);
    fake_vfs_destroy(disk);
}

static void test_identity_any_flipped_bit_is_corrupt(void **state)
{
    (void)state;
    struct fake_vfs *disk = fake_vfs_create(2);
    struct identity stored = sample_identity();
    struct identity loaded;
    char why[256];
    uint64_t size;
    assert_int_equal(identity_store(fake_vfs_vfs(disk), "", &stored), ERR_OK);
    assert_true(fake_vfs_file_size(disk, "identity", &size));
    for (uint64_t bit = 0; bit < size * 8; bit++) {
        assert_true(fake_vfs_flip_bit(disk, "identity", bit));
        assert_int_equal(identity_load(fake_vfs_vfs(disk), "", &loaded, why, sizeof(why)),
                         ERR_CORRUPT);
        assert_non_null(strstr(why, "identity is damaged"));
        assert_true(fake_vfs_flip_bit(disk, "identity", bit));
    }
    for (uint64_t cut = size; cut > 0; cut--) {
        assert_true(fake_vfs_cut(disk, "identity", cut - 1));
        assert_int_equal(identity_load(fake_vfs_vfs(disk), "", &loaded, why, sizeof(why)),
                         ERR_CORRUPT);
    }
    fake_vfs_destroy(disk);
}

static void test_identity_peers_are_bounded_and_forgotten_with_membership(void **state)
{
    (void)state;
    struct identity identity = sample_identity();
    struct raft_membership membership = {.count = 2};
    membership.members[0].id = 6;
    membership.members[1].id = 9;
    assert_true(identity_peers_keep(&identity, &membership));
    assert_false(identity_peers_keep(&identity, &membership));
    assert_int_equal(identity.peer_count, 2);
    assert_int_equal(identity_peer_incarnation(&identity, 4), 0);
    for (uint64_t id = 100; identity.peer_count < IDENTITY_PEERS_MAX; id++) {
        assert_true(identity_peer_learn(&identity, id, id));
    }
    assert_false(identity_peer_learn(&identity, 1000, 1));
}

/* ---- snapshot header ------------------------------------------------------------------------- */

static void test_snapshot_header_any_flipped_bit_is_refused(void **state)
{
    (void)state;
    uint8_t header[SNAPSHOT_HEADER_BYTES];
    uint64_t time_ms = 0;
    snapshot_header_encode(987654321, header);
    assert_int_equal(snapshot_header_decode(header, &time_ms), ERR_OK);
    assert_int_equal(time_ms, 987654321);
    for (size_t bit = 0; bit < sizeof(header) * 8; bit++) {
        header[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_not_equal(snapshot_header_decode(header, &time_ms), ERR_OK);
        header[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

/* ---- whose directory --------------------------------------------------------------------- */

static void test_identity_of_another_is_refused_by_name(void **state)
{
    (void)state;
    struct identity identity = sample_identity();
    char why[256];
    assert_int_equal(identity_check(&identity, 11, 22, 33, why, sizeof(why)), ERR_OK);
    assert_int_equal(identity_check(&identity, 12, 22, 33, why, sizeof(why)), ERR_WRONG_CLUSTER);
    assert_non_null(strstr(why, "belongs to cluster"));
    assert_int_equal(identity_check(&identity, 11, 23, 33, why, sizeof(why)), ERR_WRONG_REPLICA);
    assert_non_null(strstr(why, "replica 33 of group 22"));
    assert_int_equal(identity_check(&identity, 11, 22, 34, why, sizeof(why)), ERR_WRONG_REPLICA);
    assert_non_null(strstr(why, "not replica 34"));
}

/* ---- staged snapshots ------------------------------------------------------------------------ */

/* A state machine that only counts what it is given. */
struct sm_snapshot_writer {
    size_t *received;
};

static int counting_open(void *sm, const char *dir, struct sm_snapshot_writer **out)
{
    (void)dir;
    *out = mem_calloc(1, sizeof(**out));
    (*out)->received = sm;
    *(*out)->received = 0;
    return ERR_OK;
}

static int counting_write(struct sm_snapshot_writer *writer, struct bytes bytes)
{
    *writer->received += bytes.size;
    return ERR_OK;
}

static int counting_finish(struct sm_snapshot_writer *writer)
{
    (void)writer;
    return ERR_OK;
}

static void counting_close(struct sm_snapshot_writer *writer)
{
    free(writer);
}

static const struct state_machine_ops counting_ops = {.receive_open = counting_open,
                                                      .receive_write = counting_write,
                                                      .receive_finish = counting_finish,
                                                      .receive_close = counting_close};

enum { STREAM_BYTES = 100, STREAM_ID = 9 };

static struct raft_snapshot sample_snapshot(void)
{
    struct raft_snapshot snapshot = {
        .position = {500, 4}, .id = STREAM_ID, .size_bytes = STREAM_BYTES};
    snapshot.membership.position = (struct raft_position){400, 3};
    snapshot.membership.count = 1;
    snapshot.membership.members[0].id = 6;
    snapshot.membership.members[0].role = RAFT_VOTER;
    snprintf(snapshot.membership.members[0].address, RAFT_ADDRESS_BYTES_MAX, "one:1");
    return snapshot;
}

static void stream_init(uint8_t stream[STREAM_BYTES])
{
    memset(stream, 'x', STREAM_BYTES);
    snapshot_header_encode(77, stream);
}

static int stage(struct snapshot_staging *staging, uint64_t id, size_t from, size_t to)
{
    uint8_t stream[STREAM_BYTES];
    stream_init(stream);
    return snapshot_staging_write(staging, id, from, bytes_of(stream + from, to - from));
}

/* What is not the next bytes of what is arriving changes nothing. */
static void test_staging_takes_chunks_only_in_order(void **state)
{
    (void)state;
    struct fake_vfs *disk = fake_vfs_create(3);
    size_t received = 0;
    const struct state_machine sm = {&counting_ops, &received};
    struct snapshot_staging staging;
    struct raft_snapshot snapshot = sample_snapshot();
    char *path = NULL;
    snapshot_staging_init(&staging, fake_vfs_vfs(disk), &sm, "");
    assert_int_equal(stage(&staging, STREAM_ID, 10, 20), ERR_INVALID);
    assert_int_equal(stage(&staging, STREAM_ID, 0, 40), ERR_OK);
    assert_int_equal(stage(&staging, STREAM_ID, 10, 40), ERR_INVALID);     /* again */
    assert_int_equal(stage(&staging, STREAM_ID, 50, 90), ERR_INVALID);     /* a gap */
    assert_int_equal(stage(&staging, STREAM_ID + 1, 40, 90), ERR_INVALID); /* of another */
    assert_int_equal(received, 40 - SNAPSHOT_HEADER_BYTES);
    assert_int_equal(snapshot_staging_finish(&staging, &snapshot, &path), ERR_INVALID);
    assert_int_equal(stage(&staging, STREAM_ID, 40, STREAM_BYTES), ERR_OK);
    snapshot.id++;
    assert_int_equal(snapshot_staging_finish(&staging, &snapshot, &path), ERR_INVALID);
    snapshot.id--;
    assert_int_equal(snapshot_staging_finish(&staging, &snapshot, &path), ERR_OK);
    assert_int_equal(received, STREAM_BYTES - SNAPSHOT_HEADER_BYTES);
    free(path);
    snapshot_staging_deinit(&staging);
    fake_vfs_destroy(disk);
}

static void test_staged_snapshot_survives_and_any_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct fake_vfs *disk = fake_vfs_create(4);
    const struct vfs *vfs = fake_vfs_vfs(disk);
    size_t received = 0;
    const struct state_machine sm = {&counting_ops, &received};
    struct snapshot_staging staging;
    struct raft_snapshot snapshot = sample_snapshot();
    struct snapshot_ready ready;
    char why[512];
    char *path = NULL;
    snapshot_staging_init(&staging, vfs, &sm, "");
    assert_int_equal(stage(&staging, STREAM_ID, 0, STREAM_BYTES), ERR_OK);
    assert_int_equal(snapshot_staging_finish(&staging, &snapshot, &path), ERR_OK);
    snapshot_staging_deinit(&staging);
    fake_vfs_crash_as(disk, FAKE_CRASH_LOSE, NULL);
    assert_int_equal(snapshot_store_open(vfs, "", &ready, why, sizeof(why)), ERR_OK);
    assert_string_equal(ready.path, path);
    assert_int_equal(ready.log_time_ms, 77);
    assert_true(raft_position_equal(ready.snapshot.position, snapshot.position));
    assert_true(
        raft_position_equal(ready.snapshot.membership.position, snapshot.membership.position));
    assert_int_equal(ready.snapshot.membership.members[0].id, 6);
    assert_int_equal(ready.snapshot.size_bytes, STREAM_BYTES);
    char meta[VFS_PATH_BYTES_MAX];
    uint64_t size = 0;
    assert_int_equal(vfs_path(meta, path, "meta"), ERR_OK);
    assert_true(fake_vfs_file_size(disk, meta, &size));
    for (uint64_t bit = 0; bit < size * 8; bit++) {
        assert_true(fake_vfs_flip_bit(disk, meta, bit));
        assert_int_equal(snapshot_store_open(vfs, "", &ready, why, sizeof(why)), ERR_CORRUPT);
        assert_non_null(strstr(why, "is not readable"));
        assert_true(fake_vfs_flip_bit(disk, meta, bit));
    }
    free(path);
    fake_vfs_destroy(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_entry_commands_come_back_in_order),
        cmocka_unit_test(test_log_entry_truncated_or_longer_is_corrupt),
        cmocka_unit_test(test_identity_round_trip_keeps_everything),
        cmocka_unit_test(test_identity_any_flipped_bit_is_corrupt),
        cmocka_unit_test(test_identity_peers_are_bounded_and_forgotten_with_membership),
        cmocka_unit_test(test_snapshot_header_any_flipped_bit_is_refused),
        cmocka_unit_test(test_identity_of_another_is_refused_by_name),
        cmocka_unit_test(test_staging_takes_chunks_only_in_order),
        cmocka_unit_test(test_staged_snapshot_survives_and_any_flipped_bit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
