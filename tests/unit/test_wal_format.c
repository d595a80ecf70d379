/* The bytes of wal_format.md: what is written is read back, one bit more or less is not, and the
 * layout stays what the page says. */
#include "base/codec.h"
#include "raft/wal/wal_format.h"
#include "unit/wal_test.h"

#include <string.h>

#define SALT   0x1122334455667788ull
#define OFFSET 4096u

static struct wal_segment_header sample_segment(void)
{
    return (struct wal_segment_header){
        .sequence = 3,
        .salt = SALT,
        .file_bytes = 65536,
        .start = {100, 7},
        .previous_salt = 5,
        .previous_end = 60000,
        .flags = WAL_SEGMENT_BEGINS_LOG,
    };
}

static void expect_segment_equal(const struct wal_segment_header *found,
                                 const struct wal_segment_header *expected)
{
    assert_int_equal(found->sequence, expected->sequence);
    assert_int_equal(found->salt, expected->salt);
    assert_int_equal(found->file_bytes, expected->file_bytes);
    assert_int_equal(found->start.index, expected->start.index);
    assert_int_equal(found->start.term, expected->start.term);
    assert_int_equal(found->previous_salt, expected->previous_salt);
    assert_int_equal(found->previous_end, expected->previous_end);
    assert_int_equal(found->flags, expected->flags);
}

static void test_segment_header_round_trip_both_copies(void **state)
{
    (void)state;
    struct wal_segment_header header = sample_segment();
    struct buf bytes;
    buf_init(&bytes);
    wal_segment_header_encode(&header, &bytes);
    assert_int_equal(bytes.size, WAL_SEGMENT_DATA_AT + WAL_GROUP_HEADER_BYTES);
    for (unsigned copy = 0; copy < 2; copy++) {
        uint64_t at = copy * WAL_SEGMENT_HEADER_COPY_AT;
        struct wal_segment_header found;
        assert_true(wal_segment_header_decode(bytes.data + at, at, &found));
        expect_segment_equal(&found, &header);
        assert_false(wal_segment_header_decode(bytes.data + at, at + 512, &found));
        for (unsigned bit = 0; bit < WAL_SEGMENT_HEADER_BYTES * 8; bit++) {
            bytes.data[at + bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_false(wal_segment_header_decode(bytes.data + at, at, &found));
            bytes.data[at + bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    buf_deinit(&bytes);
}

static void test_segment_header_lies_where_the_page_says(void **state)
{
    (void)state;
    struct wal_segment_header header = sample_segment();
    struct buf bytes;
    buf_init(&bytes);
    wal_segment_header_encode(&header, &bytes);
    assert_memory_equal(bytes.data, "SKVWAL01", 8);
    assert_int_equal(load_u32(bytes.data + 12), 1);
    assert_int_equal(load_u64(bytes.data + 16), 3);
    assert_int_equal(load_u64(bytes.data + 24), SALT);
    assert_int_equal(load_u64(bytes.data + 32), 65536);
    assert_int_equal(load_u64(bytes.data + 40), 100);
    assert_int_equal(load_u64(bytes.data + 48), 7);
    assert_int_equal(load_u64(bytes.data + 56), 5);
    assert_int_equal(load_u64(bytes.data + 64), 60000);
    assert_int_equal(load_u32(bytes.data + 72), 1);
    buf_deinit(&bytes);
}

static void test_group_header_is_bound_to_salt_and_place(void **state)
{
    (void)state;
    struct wal_group_header header = {
        .body_bytes = 64, .record_count = 2, .body_crc = 99, .durable_to = 2048};
    uint8_t bytes[WAL_GROUP_HEADER_BYTES];
    wal_group_header_encode(&header, SALT, OFFSET, bytes);
    struct wal_group_header found;
    assert_true(wal_group_header_decode(bytes, SALT, OFFSET, &found));
    assert_int_equal(found.body_bytes, header.body_bytes);
    assert_int_equal(found.record_count, header.record_count);
    assert_int_equal(found.body_crc, header.body_crc);
    assert_int_equal(found.durable_to, header.durable_to);
    assert_false(wal_group_header_decode(bytes, SALT + 1, OFFSET, &found));
    assert_false(wal_group_header_decode(bytes, SALT, OFFSET + 8, &found));
    for (unsigned bit = 0; bit < sizeof(bytes) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(wal_group_header_decode(bytes, SALT, OFFSET, &found));
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    memset(bytes, 0, sizeof(bytes));
    assert_false(wal_group_header_decode(bytes, SALT, OFFSET, &found));
}

static void test_record_header_refuses_values_no_writer_gives(void **state)
{
    (void)state;
    struct wal_record_header header = {.type = WAL_RECORD_ENTRY,
                                       .kind = RAFT_ENTRY_COMMAND,
                                       .payload_bytes = 3,
                                       .index = 9,
                                       .term = 4};
    uint8_t bytes[WAL_RECORD_HEADER_BYTES];
    wal_record_header_encode(&header, bytes_of("abc", 3), SALT, OFFSET, bytes);
    struct wal_record_header found;
    assert_true(wal_record_header_decode(bytes, &found));
    assert_int_equal(found.index, 9);
    assert_int_equal(found.term, 4);
    assert_int_equal(found.payload_bytes, 3);
    assert_int_equal(found.crc, header.crc);
    static const struct {
        unsigned at;
        uint8_t value;
    } bad[] = {{4, 0}, {4, 4}, {5, 0}, {5, 4}, {16, 0}, {24, 0}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t was = bytes[bad[i].at];
        bytes[bad[i].at] = bad[i].value;
        assert_false(wal_record_header_decode(bytes, &found));
        bytes[bad[i].at] = was;
    }
}

static void test_record_size_is_header_payload_and_padding(void **state)
{
    (void)state;
    assert_int_equal(wal_record_bytes(0), 32);
    assert_int_equal(wal_record_bytes(1), 40);
    assert_int_equal(wal_record_bytes(8), 40);
    assert_int_equal(wal_record_bytes(9), 48);
}

static struct wal_base sample_base(uint64_t member)
{
    return (struct wal_base){
        .position = {50, 6},
        .first_sequence = 12,
        .hard_state = {8, 2, 49},
        .membership = wal_test_membership(member),
    };
}

static void test_base_round_trip_and_every_flip_and_cut_refused(void **state)
{
    (void)state;
    for (uint64_t member = 0; member < 2; member++) {
        struct wal_base base = sample_base(member);
        base.membership.position = (struct raft_position){40, 5};
        struct buf bytes;
        buf_init(&bytes);
        wal_base_encode(&base, &bytes);
        struct wal_base found;
        assert_int_equal(wal_base_decode(buf_view(&bytes), &found), ERR_OK);
        assert_int_equal(found.position.index, 50);
        assert_int_equal(found.position.term, 6);
        assert_int_equal(found.first_sequence, 12);
        assert_int_equal(found.hard_state.term, 8);
        assert_int_equal(found.hard_state.voted_for, 2);
        assert_int_equal(found.hard_state.commit, 49);
        assert_int_equal(found.membership.position.index, 40);
        assert_int_equal(found.membership.position.term, 5);
        assert_int_equal(found.membership.count, member);
        assert_int_equal(found.membership.members[0].id, member);
        for (size_t bit = 0; bit < bytes.size * 8; bit++) {
            bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(wal_base_decode(buf_view(&bytes), &found), ERR_CORRUPT);
            bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t size = 0; size < bytes.size; size++) {
            assert_int_equal(wal_base_decode(bytes_of(bytes.data, size), &found), ERR_CORRUPT);
        }
        buf_deinit(&bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_header_round_trip_both_copies),
        cmocka_unit_test(test_segment_header_lies_where_the_page_says),
        cmocka_unit_test(test_group_header_is_bound_to_salt_and_place),
        cmocka_unit_test(test_record_header_refuses_values_no_writer_gives),
        cmocka_unit_test(test_record_size_is_header_payload_and_padding),
        cmocka_unit_test(test_base_round_trip_and_every_flip_and_cut_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
