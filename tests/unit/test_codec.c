/* The codec: exact bytes, round trips at the edges, and every kind of malformed input. */
#include "unit/base_test.h"

#include "base/codec.h"

static const uint64_t varint_edges[] = {
    0,          1,          127, 128, 300, 16383, 16384, UINT32_MAX, 1ull << 56, (1ull << 63) - 1,
    1ull << 63, UINT64_MAX,
};
#define VARINT_EDGE_COUNT (sizeof(varint_edges) / sizeof(varint_edges[0]))

static struct reader reader_over(const uint8_t *data, size_t size)
{
    return reader_of(bytes_of(data, size));
}

static void test_put_writes_pinned_little_endian_bytes(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf);
    put_u8(&buf, 0x01);
    put_u16(&buf, 0x0203);
    put_u32(&buf, 0x04050607);
    put_u64(&buf, 0x08090a0b0c0d0e0full);
    put_varint(&buf, 300);
    put_sized(&buf, bytes_of_string("ab"));
    static const uint8_t expected[] = {
        0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f, 0x0e, 0x0d,
        0x0c, 0x0b, 0x0a, 0x09, 0x08, 0xac, 0x02, 0x02, 'a',  'b',
    };
    assert_int_equal(buf.size, sizeof(expected));
    assert_memory_equal(buf.data, expected, sizeof(expected));

    struct reader reader = reader_of(buf_view(&buf));
    assert_int_equal(get_u8(&reader), 0x01);
    assert_int_equal(get_u16(&reader), 0x0203);
    assert_int_equal(get_u32(&reader), 0x04050607);
    assert_int_equal(get_u64(&reader), 0x08090a0b0c0d0e0full);
    assert_int_equal(get_varint(&reader), 300);
    assert_false(reader_done(&reader));
    assert_int_equal(reader_left(&reader), 3);
    struct bytes sized = get_sized(&reader, 2);
    assert_int_equal(sized.size, 2);
    assert_memory_equal(sized.data, "ab", 2);
    assert_true(reader_done(&reader));
    buf_deinit(&buf);
}

static void test_varint_edges_round_trip_at_minimal_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < VARINT_EDGE_COUNT; i++) {
        struct buf buf;
        buf_init(&buf);
        put_varint(&buf, varint_edges[i]);
        size_t expected = 1;
        for (uint64_t rest = varint_edges[i] >> 7; rest != 0; rest >>= 7) {
            expected++;
        }
        assert_int_equal(buf.size, expected);
        struct reader reader = reader_of(buf_view(&buf));
        assert_int_equal(get_varint(&reader), varint_edges[i]);
        assert_true(reader_done(&reader));
        /* Every shorter piece is refused. */
        for (size_t size = 0; size < buf.size; size++) {
            struct reader cut = reader_over(buf.data, size);
            assert_int_equal(get_varint(&cut), 0);
            assert_true(cut.failed);
        }
        buf_deinit(&buf);
    }
}

static void assert_varint_refused(const uint8_t *data, size_t size)
{
    struct reader reader = reader_over(data, size);
    assert_int_equal(get_varint(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(reader_left(&reader), 0);
}

static void test_varint_too_long_or_padded_is_refused(void **state)
{
    (void)state;
    static const uint8_t over_64_bits[] = {0xff, 0xff, 0xff, 0xff, 0xff,
                                           0xff, 0xff, 0xff, 0xff, 0x02};
    static const uint8_t eleven[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                     0x80, 0x80, 0x80, 0x80, 0x01};
    static const uint8_t padded_zero[] = {0x80, 0x00};
    static const uint8_t padded_one[] = {0x81, 0x80, 0x00};
    assert_varint_refused(over_64_bits, sizeof(over_64_bits));
    assert_varint_refused(eleven, sizeof(eleven));
    assert_varint_refused(padded_zero, sizeof(padded_zero));
    assert_varint_refused(padded_one, sizeof(padded_one));
}

static void test_reader_past_end_fails_for_good(void **state)
{
    (void)state;
    static const uint8_t data[] = {1, 2, 3, 4, 5};
    struct reader reader = reader_over(data, sizeof(data));
    assert_int_equal(get_u8(&reader), 1);
    assert_int_equal(get_u64(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(reader_left(&reader), 0);
    /* Four bytes would have been there; a failed reader gives none of them. */
    assert_int_equal(get_u8(&reader), 0);
    assert_int_equal(get_u16(&reader), 0);
    assert_int_equal(get_u32(&reader), 0);
    assert_int_equal(get_varint(&reader), 0);
    assert_int_equal(get_bytes(&reader, 0).size, 0);
    assert_int_equal(get_sized(&reader, 10).size, 0);
    assert_false(reader_done(&reader));
}

static void test_reader_each_width_needs_all_its_bytes(void **state)
{
    (void)state;
    static const uint8_t data[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    for (size_t size = 0; size < 8; size++) {
        struct reader r8 = reader_over(data, size);
        struct reader r16 = r8;
        struct reader r32 = r8;
        struct reader r64 = r8;
        assert_int_equal(get_u8(&r8) != 0, size >= 1);
        assert_int_equal(get_u16(&r16) != 0, size >= 2);
        assert_int_equal(get_u32(&r32) != 0, size >= 4);
        assert_int_equal(get_u64(&r64) != 0, false);
        assert_true(r64.failed);
    }
}

static void test_reader_empty_view_is_done_at_once(void **state)
{
    (void)state;
    struct reader reader = reader_of(BYTES_EMPTY);
    assert_true(reader_done(&reader));
    assert_int_equal(get_bytes(&reader, 0).size, 0);
    assert_true(reader_done(&reader));
    assert_int_equal(get_bytes(&reader, SIZE_MAX).size, 0);
    assert_true(reader.failed);
}

static void test_get_sized_over_limit_or_over_end_is_refused(void **state)
{
    (void)state;
    static const uint8_t data[] = {3, 'a', 'b', 'c'};
    struct reader at_limit = reader_over(data, sizeof(data));
    assert_int_equal(get_sized(&at_limit, 3).size, 3);
    assert_true(reader_done(&at_limit));

    struct reader over_limit = reader_over(data, sizeof(data));
    assert_int_equal(get_sized(&over_limit, 2).size, 0);
    assert_true(over_limit.failed);

    struct reader over_end = reader_over(data, 3);
    assert_int_equal(get_sized(&over_end, 100).size, 0);
    assert_true(over_end.failed);

    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 'a'};
    struct reader over_all = reader_over(huge, sizeof(huge));
    assert_int_equal(get_sized(&over_all, SIZE_MAX).size, 0);
    assert_true(over_all.failed);
}

static void test_store_and_load_pin_both_byte_orders(void **state)
{
    (void)state;
    uint8_t at[8];
    store_u32(at, 0x01020304);
    assert_memory_equal(at, "\x04\x03\x02\x01", 4);
    assert_int_equal(load_u32(at), 0x01020304);
    store_u64(at, 0x0102030405060708ull);
    assert_memory_equal(at, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    assert_int_equal(load_u64(at), 0x0102030405060708ull);
    store_u16_be(at, 0x0102);
    assert_memory_equal(at, "\x01\x02", 2);
    assert_int_equal(load_u16_be(at), 0x0102);
    store_u32_be(at, 0xfffefdfc);
    assert_memory_equal(at, "\xff\xfe\xfd\xfc", 4);
    assert_int_equal(load_u32_be(at), 0xfffefdfc);
    store_u64_be(at, 0xfffefdfcfbfaf9f8ull);
    assert_memory_equal(at, "\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8", 8);
    assert_int_equal(load_u64_be(at), 0xfffefdfcfbfaf9f8ull);
}

static void test_big_endian_sorts_as_numbers_do(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < VARINT_EDGE_COUNT; i++) {
        uint8_t low[8];
        uint8_t high[8];
        store_u64_be(low, varint_edges[i]);
        store_u64_be(high, varint_edges[i + 1]);
        assert_true(memcmp(low, high, 8) < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_writes_pinned_little_endian_bytes),
        cmocka_unit_test(test_varint_edges_round_trip_at_minimal_size),
        cmocka_unit_test(test_varint_too_long_or_padded_is_refused),
        cmocka_unit_test(test_reader_past_end_fails_for_good),
        cmocka_unit_test(test_reader_each_width_needs_all_its_bytes),
        cmocka_unit_test(test_reader_empty_view_is_done_at_once),
        cmocka_unit_test(test_get_sized_over_limit_or_over_end_is_refused),
        cmocka_unit_test(test_store_and_load_pin_both_byte_orders),
        cmocka_unit_test(test_big_endian_sorts_as_numbers_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
