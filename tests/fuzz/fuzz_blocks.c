/* Packed blocks and results (proto/command.h).
 *
 * First byte: 0 a block as it is; 1 a block whose operations' shards are set right first, so that
 * block_check gets past them; 2 results, their kinds from the bytes behind the first. What
 * block_check accepts walks without an error, obeys every rule it stands for, and packs again to
 * the same bytes; so do results. */
#include "fuzz/fuzz.h"

#include "proto/command.h"
#include "proto/shard_hash.h"

const size_t fuzz_input_bytes_max = 8192;

enum { SHARD_COUNT = 16 };

/* Walks and packs what block_open and block_next accept, all or a part. True: to its end. */
static bool walk(struct bytes block, bool set_shards, struct buf *again, bool *reads)
{
    struct block_reader reader;
    struct op op;
    if (block_open(block, &reader) != 0) {
        return false;
    }
    ASSERT_CMP(reader.header.count, >=, 1);
    ASSERT_CMP(reader.header.count, <=, BLOCK_OPERATIONS_MAX);
    block_put_header(again, &reader.header);
    int error;
    uint32_t count = 0;
    while ((error = block_next(&reader, &op)) == 0) {
        ASSERT_CMP(op.key.size, >=, 1);
        ASSERT_CMP(op.key.size, <=, KEY_BYTES_MAX);
        ASSERT_CMP(op.value.size, <=, VALUE_BYTES_MAX);
        *reads = op.kind == OP_GET;
        if (set_shards) {
            op.shard = shard_of_key(op.key, SHARD_COUNT);
        }
        size_t before = again->size;
        block_put_op(again, &op);
        ASSERT_CMP(again->size - before, ==, block_op_bytes(&op));
        count++;
    }
    ASSERT(error != ERR_NOT_FOUND || count == reader.header.count);
    return error == ERR_NOT_FOUND;
}

static void check_rules(struct bytes block, bool reads, const struct block_header *header)
{
    struct block_reader reader;
    struct op op;
    uint64_t sequence = 0;
    int error = block_open(block, &reader);
    ASSERT(error == 0);
    ASSERT_CMP(reader.header.client_id, ==, header->client_id);
    ASSERT_CMP(reader.header.acked_below, ==, header->acked_below);
    ASSERT_CMP(reader.header.age_ms, ==, header->age_ms);
    ASSERT_CMP(reader.header.count, ==, header->count);
    for (uint32_t i = 0; i < header->count; i++) {
        error = block_next(&reader, &op);
        ASSERT(error == 0);
        ASSERT((op.kind == OP_GET) == reads);
        ASSERT_CMP(op.shard, ==, shard_of_key(op.key, SHARD_COUNT));
        if (reads || header->client_id == 0) {
            ASSERT_CMP(op.sequence, ==, 0);
        } else {
            ASSERT_CMP(op.sequence, >, sequence);
        }
        sequence = op.sequence;
    }
    error = block_next(&reader, &op);
    ASSERT(error == ERR_NOT_FOUND);
}

static void fuzz_block(struct bytes block, bool set_shards)
{
    struct buf again;
    buf_init(&again);
    bool reads = false;
    bool whole = walk(block, set_shards, &again, &reads);
    struct bytes checked = set_shards && whole ? buf_view(&again) : block;
    struct block_header header;
    for (int asked = 0; asked < 2; asked++) {
        if (block_check(checked, asked == 1, SHARD_COUNT, &header) == 0) {
            ASSERT(whole);
            ASSERT(bytes_equal(buf_view(&again), checked));
            check_rules(checked, asked == 1, &header);
        }
    }
    buf_deinit(&again);
}

/* Packs the results that are there. True: as many as the count says, and nothing behind them. */
static bool pack_results(struct bytes results, struct bytes kinds, struct buf *again)
{
    struct reader kind_reader = reader_of(kinds);
    struct reader reader;
    uint32_t count;
    if (results_open(results, &reader, &count) != 0) {
        return false;
    }
    ASSERT_CMP(count, <=, BLOCK_OPERATIONS_MAX);
    results_put_count(again, count);
    for (uint32_t i = 0; i < count; i++) {
        enum op_kind kind = (enum op_kind)(OP_GET + fuzz_choice(&kind_reader, OP_CAS));
        struct op_result result;
        if (results_next(&reader, kind, &result) != 0) {
            return false;
        }
        ASSERT(result.error <= 0);
        size_t before = again->size;
        results_put(again, kind, &result);
        ASSERT_CMP(again->size - before, ==, results_bytes(kind, &result));
    }
    return reader_done(&reader);
}

/* Codes of a later version are all read as one, so it is the second packing that must not change.
 */
static void fuzz_results(struct bytes results)
{
    struct buf first;
    struct buf second;
    buf_init(&first);
    buf_init(&second);
    if (pack_results(results, results, &first)) {
        ASSERT(pack_results(buf_view(&first), results, &second));
        ASSERT(bytes_equal(buf_view(&first), buf_view(&second)));
    }
    buf_deinit(&first);
    buf_deinit(&second);
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    uint32_t what = fuzz_choice(&reader, 3);
    struct bytes rest = fuzz_take(&reader, input.size);
    if (what == 2) {
        fuzz_results(rest);
    } else {
        fuzz_block(rest, what == 1);
    }
}

static void seed_block(struct buf *out, bool reads, uint32_t count)
{
    struct block_header header = {
        .client_id = reads ? 0 : 77, .acked_below = 3, .age_ms = 900, .count = count};
    block_put_header(out, &header);
    for (uint32_t i = 0; i < count; i++) {
        struct op op = {.kind = reads ? OP_GET : (enum op_kind)(OP_PUT + i % 4)};
        op.key = bytes_of("{key}value, longer and longer", 5 + i % 20);
        op.shard = shard_of_key(op.key, SHARD_COUNT);
        op.sequence = reads ? 0 : 5 + i * 40;
        if (op.kind == OP_PUT || op.kind == OP_APPEND || op.kind == OP_CAS) {
            op.value = bytes_of("0123456789abcdefghij", i % 20);
        }
        op.expected_version = op.kind == OP_CAS ? i : 0;
        block_put_op(out, &op);
    }
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    switch (index) {
    case 0:
    case 1:
    case 2:
    case 3:
        put_u8(out, (uint8_t)(index / 2));
        seed_block(out, index % 2 == 0, index < 2 ? 2 : 9);
        return true;
    case 4:
        put_u8(out, 2);
        results_put_count(out, 3);
        for (uint32_t i = 0; i < 3; i++) {
            struct op_result result = {.error = i == 1 ? ERR_NOT_FOUND : 0, .version = 300 * i};
            results_put(out, OP_PUT, &result);
        }
        return true;
    default:
        return false;
    }
}
