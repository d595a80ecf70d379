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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_entry_commands_come_back_in_order),
        cmocka_unit_test(test_log_entry_truncated_or_longer_is_corrupt),
        cmocka_unit_test(test_identity_round_trip_keeps_everything),
        cmocka_unit_test(test_identity_any_flipped_bit_is_corrupt),
        cmocka_unit_test(test_identity_peers_are_bounded_and_forgotten_with_membership),
        cmocka_unit_test(test_snapshot_header_any_flipped_bit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
