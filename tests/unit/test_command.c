/* Packed operations and results: exact bytes, round trips, and everything a block may be refused
 * for. */
#include "unit/proto_test.h"

#include "base/rng.h"
#include "proto/command.h"
#include "proto/shard_hash.h"

#define SHARD_COUNT 64

static struct op op_of(enum op_kind kind, uint64_t sequence, const char *key, const char *value)
{
    struct op op = {.kind = kind, .sequence = sequence};
    op.key = bytes_of_string(key);
    op.shard = shard_of_key(op.key, SHARD_COUNT);
    op.value = bytes_of_string(value);
    return op;
}

static void put_block(struct buf *out, uint64_t client_id, const struct op *ops, uint32_t count)
{
    struct block_header header = {
        .client_id = client_id, .acked_below = 3, .age_ms = 250, .count = count};
    block_put_header(out, &header);
    for (uint32_t i = 0; i < count; i++) {
        size_t before = out->size;
        block_put_op(out, &ops[i]);
        assert_int_equal(out->size - before, block_op_bytes(&ops[i]));
    }
}

static int check(const struct buf *block, bool reads)
{
    struct block_header header;
    return block_check(buf_view(block), reads, SHARD_COUNT, &header);
}

/* Checks a block of writes of client 7 and frees nothing of ops. */
static int check_ops(uint64_t client_id, bool reads, const struct op *ops, uint32_t count)
{
    struct buf block;
    buf_init(&block);
    put_block(&block, client_id, ops, count);
    int error = check(&block, reads);
    buf_deinit(&block);
    return error;
}

/* ---- exact bytes ---- */

static void test_block_bytes_are_pinned(void **state)
{
    (void)state;
    struct op ops[] = {op_of(OP_PUT, 5, "a", "vw"), op_of(OP_APPEND, 6, "a", ""),
                       op_of(OP_DELETE, 300, "abc", ""), op_of(OP_CAS, 301, "a", "x")};
    ops[3].expected_version = 129;
    struct buf block;
    buf_init(&block);
    put_block(&block, 0x0102030405060708ull, ops, 4);
    /* Shards 27 of "a" and 25 of "abc" among 64, by the pinned hashes. */
    static const uint8_t expected[] = {
        1, 0x08, 7,  6,  5,   4,   3,    2,    1, 3,   0xfa, 0x01, 4, /* header */
        2, 5,    27, 1,  'a', 2,   'v',  'w',                         /* put */
        3, 6,    27, 1,  'a', 0,                                      /* append */
        4, 0xac, 2,  25, 3,   'a', 'b',  'c',                         /* delete */
        5, 0xad, 2,  27, 1,   'a', 0x81, 0x01, 1, 'x',                /* cas */
    };
    assert_bytes_equal(buf_view(&block), bytes_of(expected, sizeof(expected)));
    assert_int_equal(check(&block, false), ERR_OK);
    buf_deinit(&block);
}

static void test_results_bytes_are_pinned(void **state)
{
    (void)state;
    struct buf results;
    buf_init(&results);
    results_put_count(&results, 3);
    struct op_result found = {.error = ERR_OK, .version = 200, .value = bytes_of_string("hi")};
    struct op_result absent = {.error = ERR_NOT_FOUND};
    struct op_result mismatch = {.error = ERR_VERSION_MISMATCH, .version = 9};
    results_put(&results, OP_GET, &found);
    results_put(&results, OP_GET, &absent);
    results_put(&results, OP_CAS, &mismatch);
    assert_int_equal(results_bytes(OP_GET, &found), 6);
    assert_int_equal(results_bytes(OP_GET, &absent), 3);
    assert_int_equal(results_bytes(OP_CAS, &mismatch), 2);
    static const uint8_t expected[] = {3, 0, 0xc8, 1, 2, 'h', 'i', 3, 0, 0, 40, 9};
    assert_bytes_equal(buf_view(&results), bytes_of(expected, sizeof(expected)));

    struct reader reader;
    uint32_t count;
    struct op_result result;
    assert_int_equal(results_open(buf_view(&results), &reader, &count), ERR_OK);
    assert_int_equal(count, 3);
    assert_int_equal(results_next(&reader, OP_GET, &result), ERR_OK);
    assert_int_equal(result.error, ERR_OK);
    assert_int_equal(result.version, 200);
    assert_ptr_equal(result.value.data, results.data + 5);
    assert_int_equal(results_next(&reader, OP_GET, &result), ERR_OK);
    assert_int_equal(result.error, ERR_NOT_FOUND);
    assert_int_equal(results_next(&reader, OP_CAS, &result), ERR_OK);
    assert_int_equal(result.error, ERR_VERSION_MISMATCH);
    assert_int_equal(result.version, 9);
    assert_true(reader_done(&reader));
    assert_int_equal(results_next(&reader, OP_PUT, &result), ERR_PROTOCOL);
    buf_deinit(&results);
}

/* ---- round trips ---- */

static void test_block_reader_gives_back_what_was_put_as_views(void **state)
{
    (void)state;
    struct op ops[] = {op_of(OP_PUT, 1, "key", "value"), op_of(OP_CAS, UINT64_MAX, "{t}x", "")};
    ops[1].expected_version = UINT64_MAX;
    struct buf block;
    buf_init(&block);
    put_block(&block, UINT64_MAX, ops, 2);
    struct block_reader reader;
    assert_int_equal(block_open(buf_view(&block), &reader), ERR_OK);
    assert_true(reader.header.client_id == UINT64_MAX);
    assert_int_equal(reader.header.acked_below, 3);
    assert_int_equal(reader.header.age_ms, 250);
    assert_int_equal(reader.header.count, 2);
    for (size_t i = 0; i < 2; i++) {
        struct op op;
        assert_int_equal(block_next(&reader, &op), ERR_OK);
        assert_int_equal(op.kind, ops[i].kind);
        assert_true(op.sequence == ops[i].sequence);
        assert_int_equal(op.shard, ops[i].shard);
        assert_true(op.expected_version == ops[i].expected_version);
        assert_bytes_equal(op.key, ops[i].key);
        assert_bytes_equal(op.value, ops[i].value);
        assert_true(op.key.data > block.data && op.key.data < block.data + block.size);
    }
    struct op op;
    assert_int_equal(block_next(&reader, &op), ERR_NOT_FOUND);
    assert_int_equal(block_next(&reader, &op), ERR_NOT_FOUND);
    buf_deinit(&block);
}

static void test_block_of_largest_operation_fits_and_one_byte_more_is_refused(void **state)
{
    (void)state;
    uint8_t *value = mem_calloc(1, VALUE_BYTES_MAX + 1);
    char *key = mem_calloc(1, KEY_BYTES_MAX + 1);
    memset(key, 'k', KEY_BYTES_MAX);
    struct op op = op_of(OP_CAS, UINT64_MAX, key, "");
    op.expected_version = UINT64_MAX;
    op.value = bytes_of(value, VALUE_BYTES_MAX);
    struct buf block;
    buf_init(&block);
    put_block(&block, UINT64_MAX, &op, 1);
    assert_true(block.size <= BLOCK_BYTES_MAX);
    assert_int_equal(check(&block, false), ERR_OK);

    /* The same by hand, with a value and then a key one byte too large. */
    buf_clear(&block);
    struct block_header header = {.client_id = 7, .count = 1};
    block_put_header(&block, &header);
    put_u8(&block, OP_PUT);
    put_varint(&block, 1);
    put_varint(&block, shard_of_key(bytes_of_string("a"), SHARD_COUNT));
    put_sized(&block, bytes_of_string("a"));
    put_sized(&block, bytes_of(value, VALUE_BYTES_MAX + 1));
    assert_int_equal(check(&block, false), ERR_TOO_LARGE);
    buf_clear(&block);
    block_put_header(&block, &header);
    put_u8(&block, OP_DELETE);
    put_varint(&block, 1);
    put_varint(&block, 0);
    put_sized(&block, bytes_of(value, KEY_BYTES_MAX + 1));
    assert_int_equal(check(&block, false), ERR_TOO_LARGE);
    buf_deinit(&block);
    free(value);
    free(key);
}

static void test_block_over_its_limits_is_refused(void **state)
{
    (void)state;
    struct buf block;
    struct block_reader reader;
    buf_init(&block);
    memset(buf_reserve(&block, BLOCK_BYTES_MAX + 1), 1, BLOCK_BYTES_MAX + 1);
    assert_int_equal(block_open(bytes_of(block.data, BLOCK_BYTES_MAX + 1), &reader), ERR_TOO_LARGE);
    buf_clear(&block);
    put_u8(&block, 1);
    put_u64(&block, 7);
    put_varint(&block, 0);
    put_varint(&block, 0);
    size_t before_count = block.size;
    put_varint(&block, BLOCK_OPERATIONS_MAX + 1);
    assert_int_equal(block_open(buf_view(&block), &reader), ERR_TOO_LARGE);
    block.size = before_count;
    put_varint(&block, 0);
    assert_int_equal(block_open(buf_view(&block), &reader), ERR_PROTOCOL);
    block.size = before_count;
    put_varint(&block, 100); /* and nothing behind it */
    assert_int_equal(block_open(buf_view(&block), &reader), ERR_PROTOCOL);
    block.data[0] = 2;
    assert_int_equal(block_open(buf_view(&block), &reader), ERR_UNSUPPORTED);
    assert_int_equal(block_open(BYTES_EMPTY, &reader), ERR_PROTOCOL);
    buf_deinit(&block);
}

static void test_results_over_their_limits_are_refused(void **state)
{
    (void)state;
    struct buf results;
    struct reader reader;
    uint32_t count;
    struct op_result result;
    buf_init(&results);
    memset(buf_reserve(&results, RESULTS_BYTES_MAX + 1), 1, RESULTS_BYTES_MAX + 1);
    assert_int_equal(results_open(bytes_of(results.data, RESULTS_BYTES_MAX + 1), &reader, &count),
                     ERR_TOO_LARGE);
    put_varint(&results, BLOCK_OPERATIONS_MAX + 1);
    assert_int_equal(results_open(buf_view(&results), &reader, &count), ERR_PROTOCOL);
    buf_clear(&results);
    put_varint(&results, 0);
    assert_int_equal(results_open(buf_view(&results), &reader, &count), ERR_PROTOCOL);
    buf_clear(&results);
    put_varint(&results, 1);
    put_varint(&results, 0);
    put_varint(&results, 1);
    put_varint(&results, VALUE_BYTES_MAX + 1);
    assert_int_equal(results_open(buf_view(&results), &reader, &count), ERR_OK);
    assert_int_equal(results_next(&reader, OP_GET, &result), ERR_TOO_LARGE);
    buf_clear(&results);
    put_varint(&results, 1);
    put_varint(&results, (uint64_t)UINT32_MAX + 1);
    put_varint(&results, 1);
    assert_int_equal(results_open(buf_view(&results), &reader, &count), ERR_OK);
    assert_int_equal(results_next(&reader, OP_PUT, &result), ERR_PROTOCOL);
    buf_deinit(&results);
}

/* ---- what a block must be ---- */

static void test_block_check_kinds_must_match(void **state)
{
    (void)state;
    struct op mixed[] = {op_of(OP_GET, 0, "a", ""), op_of(OP_PUT, 1, "a", "v")};
    assert_int_equal(check_ops(7, true, mixed, 1), ERR_OK);
    assert_int_equal(check_ops(0, true, mixed, 1), ERR_OK);
    assert_int_equal(check_ops(7, false, mixed, 1), ERR_PROTOCOL);
    assert_int_equal(check_ops(7, true, mixed, 2), ERR_PROTOCOL);
    assert_int_equal(check_ops(7, false, mixed + 1, 1), ERR_OK);
    assert_int_equal(check_ops(7, true, mixed + 1, 1), ERR_PROTOCOL);
    /* Each with a sequence that is right among the others. */
    struct op counted_get = op_of(OP_GET, 1, "a", "");
    struct op uncounted_put = op_of(OP_PUT, 0, "a", "v");
    assert_int_equal(check_ops(7, false, &counted_get, 1), ERR_PROTOCOL);
    assert_int_equal(check_ops(0, false, mixed, 1), ERR_PROTOCOL);
    assert_int_equal(check_ops(7, true, &uncounted_put, 1), ERR_PROTOCOL);
}

static void test_block_check_sequences_must_ascend(void **state)
{
    (void)state;
    struct op ops[] = {op_of(OP_PUT, 4, "a", "v"), op_of(OP_DELETE, 9, "a", ""),
                       op_of(OP_APPEND, 10, "b", "w")};
    assert_int_equal(check_ops(7, false, ops, 3), ERR_OK);
    assert_int_equal(check_ops(0, false, ops, 3), ERR_PROTOCOL); /* no client, but sequences */
    ops[1].sequence = 4;
    assert_int_equal(check_ops(7, false, ops, 3), ERR_PROTOCOL);
    ops[1].sequence = 11;
    assert_int_equal(check_ops(7, false, ops, 3), ERR_PROTOCOL);
    ops[1].sequence = 0;
    assert_int_equal(check_ops(7, false, ops, 3), ERR_PROTOCOL);
    ops[0].sequence = 0;
    assert_int_equal(check_ops(7, false, ops, 1), ERR_PROTOCOL);
    assert_int_equal(check_ops(0, false, ops, 2), ERR_OK);
    struct op get = op_of(OP_GET, 1, "a", "");
    assert_int_equal(check_ops(7, true, &get, 1), ERR_PROTOCOL);
}

static void test_block_check_shard_must_be_the_keys(void **state)
{
    (void)state;
    struct op op = op_of(OP_PUT, 1, "a", "v");
    op.shard = SHARD_COUNT;
    assert_int_equal(check_ops(7, false, &op, 1), ERR_SHARD_RANGE);
    op.shard = (shard_of_key(op.key, SHARD_COUNT) + 1) % SHARD_COUNT;
    assert_int_equal(check_ops(7, false, &op, 1), ERR_PROTOCOL);
    struct buf block;
    buf_init(&block);
    struct block_header header = {.client_id = 7, .count = 1};
    block_put_header(&block, &header);
    put_u8(&block, OP_PUT);
    put_varint(&block, 1);
    put_varint(&block, (1ull << 32) | shard_of_key(op.key, SHARD_COUNT)); /* right modulo 2^32 */
    put_sized(&block, op.key);
    put_sized(&block, op.value);
    assert_int_equal(check(&block, false), ERR_PROTOCOL);
    buf_deinit(&block);
}

static void test_block_check_malformed_operations_are_refused(void **state)
{
    (void)state;
    struct buf block;
    buf_init(&block);
    struct op op = op_of(OP_PUT, 1, "a", "v");
    put_block(&block, 7, &op, 1);
    put_u8(&block, 0);
    assert_int_equal(check(&block, false), ERR_PROTOCOL); /* something after the last operation */
    block.size--;
    assert_int_equal(check(&block, false), ERR_OK);
    size_t kind_at = block.size - block_op_bytes(&op);
    block.data[kind_at] = 0;
    assert_int_equal(check(&block, false), ERR_PROTOCOL);
    block.data[kind_at] = OP_CAS + 1;
    assert_int_equal(check(&block, false), ERR_PROTOCOL);
    buf_clear(&block);
    struct block_header header = {.client_id = 7, .count = 1};
    block_put_header(&block, &header);
    put_u8(&block, OP_DELETE);
    put_varint(&block, 1);
    put_varint(&block, 0);
    put_sized(&block, BYTES_EMPTY);
    put_u8(&block, 0);
    assert_int_equal(check(&block, false), ERR_INVALID);
    buf_deinit(&block);
}

/* ---- damage ---- */

static void put_sample(struct buf *block)
{
    struct op ops[] = {op_of(OP_PUT, 5, "alpha", "one value"), op_of(OP_APPEND, 6, "{tag}b", "two"),
                       op_of(OP_DELETE, 700, "abc", ""), op_of(OP_CAS, 70000, "a", "x")};
    ops[3].expected_version = 123456789;
    put_block(block, 99, ops, 4);
}

static void test_block_check_every_prefix_is_refused(void **state)
{
    (void)state;
    struct buf block;
    buf_init(&block);
    put_sample(&block);
    struct guarded guarded = guarded_create(block.size);
    struct block_header header;
    for (size_t size = 0; size < block.size; size++) {
        struct bytes prefix = guarded_put(&guarded, bytes_of(block.data, size));
        int error = block_check(prefix, false, SHARD_COUNT, &header);
        assert_int_equal(error, ERR_PROTOCOL);
    }
    struct bytes whole = guarded_put(&guarded, buf_view(&block));
    assert_int_equal(block_check(whole, false, SHARD_COUNT, &header), ERR_OK);
    assert_int_equal(header.client_id, 99);
    guarded_destroy(&guarded);
    buf_deinit(&block);
}

/* A damaged block is refused or is another block, and then walking it gives only views inside it.
 */
static void walk(struct bytes block)
{
    struct block_reader reader;
    if (block_open(block, &reader) != ERR_OK) {
        return;
    }
    struct op op;
    uint32_t count = 0;
    while (block_next(&reader, &op) == ERR_OK) {
        count++;
        assert_true(op.key.data >= block.data &&
                    op.key.data + op.key.size <= block.data + block.size);
        assert_true(op.key.size > 0 && op.key.size <= KEY_BYTES_MAX);
        assert_true(op.value.size == 0 || op.value.data + op.value.size <= block.data + block.size);
    }
    assert_true(count <= reader.header.count);
}

static void test_block_mutated_bytes_stay_inside(void **state)
{
    (void)state;
    struct buf block;
    buf_init(&block);
    put_sample(&block);
    struct guarded guarded = guarded_create(block.size);
    struct rng rng;
    rng_init(&rng, 20240501);
    uint32_t accepted = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        struct bytes bytes = guarded_put(&guarded, buf_view(&block));
        uint8_t *data = (uint8_t *)bytes.data;
        uint64_t changes = rng_between(&rng, 1, 4);
        for (uint64_t j = 0; j < changes; j++) {
            data[rng_below(&rng, bytes.size)] = (uint8_t)rng_next(&rng);
        }
        struct block_header header;
        accepted += block_check(bytes, false, SHARD_COUNT, &header) == ERR_OK;
        walk(bytes);
        uint32_t count;
        struct reader reader;
        struct op_result result;
        if (results_open(bytes, &reader, &count) == ERR_OK) {
            while (results_next(&reader, i % 2 == 0 ? OP_GET : OP_PUT, &result) == ERR_OK) {
                assert_true(result.error <= 0);
            }
        }
    }
    assert_true(accepted > 0 && accepted < 10000); /* values may change unseen here, keys may not */
    guarded_destroy(&guarded);
    buf_deinit(&block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_bytes_are_pinned),
        cmocka_unit_test(test_results_bytes_are_pinned),
        cmocka_unit_test(test_block_reader_gives_back_what_was_put_as_views),
        cmocka_unit_test(test_block_of_largest_operation_fits_and_one_byte_more_is_refused),
        cmocka_unit_test(test_block_over_its_limits_is_refused),
        cmocka_unit_test(test_results_over_their_limits_are_refused),
        cmocka_unit_test(test_block_check_kinds_must_match),
        cmocka_unit_test(test_block_check_sequences_must_ascend),
        cmocka_unit_test(test_block_check_shard_must_be_the_keys),
        cmocka_unit_test(test_block_check_malformed_operations_are_refused),
        cmocka_unit_test(test_block_check_every_prefix_is_refused),
        cmocka_unit_test(test_block_mutated_bytes_stay_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
