/* CRC-32C: published vectors, and both implementations against one that goes bit by bit. */
#include "unit/base_test.h"

#include "base/crc32c.h"
#include "base/rng.h"

typedef uint32_t (*crc32c_fn)(uint32_t crc, const void *data, size_t size);

static uint32_t bit_by_bit(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *at = data;
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
        }
    }
    return ~crc;
}

/* RFC 3720 B.4, and the check value of the CRC catalogue. */
static void assert_vectors(crc32c_fn extend)
{
    uint8_t data[32];
    assert_int_equal(extend(0, "", 0), 0);
    assert_int_equal(extend(0, "123456789", 9), 0xe3069283);
    memset(data, 0, sizeof(data));
    assert_int_equal(extend(0, data, sizeof(data)), 0x8a9136aa);
    memset(data, 0xff, sizeof(data));
    assert_int_equal(extend(0, data, sizeof(data)), 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++) {
        data[i] = i;
    }
    assert_int_equal(extend(0, data, sizeof(data)), 0x46dd794e);
    for (uint8_t i = 0; i < 32; i++) {
        data[i] = (uint8_t)(31 - i);
    }
    assert_int_equal(extend(0, data, sizeof(data)), 0x113fdb5c);
}

static void test_crc32c_vectors_match(void **state)
{
    (void)state;
    assert_vectors(crc32c_extend);
    assert_vectors(crc32c__portable);
    if (crc32c__hardware_available()) {
        assert_vectors(crc32c__hardware);
    }
}

static void test_crc32c_every_size_and_alignment_agree(void **state)
{
    (void)state;
    uint8_t data[300];
    struct rng rng;
    rng_init(&rng, 1);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)rng_next(&rng);
    }
    for (size_t start = 0; start < 9; start++) {
        for (size_t size = 0; size <= sizeof(data) - start; size++) {
            uint32_t from = (uint32_t)rng_next(&rng);
            uint32_t expected = bit_by_bit(from, data + start, size);
            assert_int_equal(crc32c__portable(from, data + start, size), expected);
            if (crc32c__hardware_available()) {
                assert_int_equal(crc32c__hardware(from, data + start, size), expected);
            }
        }
    }
}

static void test_crc32c_in_pieces_equals_whole(void **state)
{
    (void)state;
    static const char data[] = "a record, then another record, then the end";
    size_t size = sizeof(data) - 1;
    uint32_t whole = crc32c_extend(0, data, size);
    for (size_t cut = 0; cut <= size; cut++) {
        uint32_t first = crc32c_extend(0, data, cut);
        assert_int_equal(crc32c_extend(first, data + cut, size - cut), whole);
    }
}

static void test_crc32c_any_flipped_bit_is_seen(void **state)
{
    (void)state;
    uint8_t data[64] = {0};
    uint32_t clean = crc32c_extend(0, data, sizeof(data));
    for (size_t bit = 0; bit < sizeof(data) * 8; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_not_equal(crc32c_extend(0, data, sizeof(data)), clean);
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_vectors_match),
        cmocka_unit_test(test_crc32c_every_size_and_alignment_agree),
        cmocka_unit_test(test_crc32c_in_pieces_equals_whole),
        cmocka_unit_test(test_crc32c_any_flipped_bit_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
