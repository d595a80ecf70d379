/* The state machine of a shard group over a store in memory and a fake disk. First byte:
 *
 *   0  a snapshot's stream: any bytes, in pieces
 *   1  a stream that is built from the input with every checksum right, but for what the input
 *      spoils: names, sizes, order, rows
 *   2  commands as a log may hold them (blocks, configs, moves), well-formed or not; then a
 * snapshot of the outcome, received elsewhere in pieces, must restore to the same state 3  as 2,
 * and then rows of the store are changed behind the machine's back: loading them works or is
 * refused with ERR_CORRUPT and the row's name
 *
 * A stream is taken or refused, never half: what was not finished cannot be restored. */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "lib/fake_store.h"
#include "lib/fake_vfs.h"
#include "proto/command.h"
#include "proto/shard_hash.h"
#include "shardkv/keys.h"
#include "shardkv/kv_command.h"
#include "shardkv/kv_machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 4096;

enum { SHARDS = 4, STEPS_MAX = 60, FILES_MAX = 4, ROWS_MAX = 8, GROUP = 1 };

struct side {
    struct fake_vfs *disk;
    struct fake_store *fake;
    struct store store;
    struct kv_machine *machine;
    struct state_machine sm;
};

static int side_load(struct side *side)
{
    char why[300] = "";
    struct kv_machine_options options = {
        .group_id = GROUP, .store = &side->store, .vfs = fake_vfs_vfs(side->disk)};
    int error = kv_machine_create(&options, &side->machine, why, sizeof why);
    ASSERT(error == 0 || (error == ERR_CORRUPT && why[0] != '\0'));
    if (error != 0) {
        side->machine = NULL;
        return error;
    }
    side->sm = kv_machine_ops(side->machine);
    return 0;
}

static void make_dir(struct side *side, const char *dir)
{
    const struct vfs *vfs = fake_vfs_vfs(side->disk);
    int error = vfs->make_dir(vfs->context, dir);
    ASSERT(error == 0);
}

static void side_open(struct side *side)
{
    memset(side, 0, sizeof *side);
    side->disk = fake_vfs_create(1);
    side->fake = fake_store_create(fake_vfs_vfs(side->disk));
    side->store = fake_store_as_store(side->fake);
    int error = side_load(side);
    ASSERT(error == 0);
    make_dir(side, "/in");
    make_dir(side, "/out");
}

static void side_close(struct side *side)
{
    kv_machine_destroy(side->machine);
    fake_store_destroy(side->fake);
    fake_vfs_destroy(side->disk);
}

/* ---- streams ---- */

/* What receive_finish says; pieces as the input likes. */
static int receive(struct side *side, struct bytes stream, struct reader *pieces)
{
    struct sm_snapshot_writer *writer = NULL;
    int error = side->sm.ops->receive_open(side->sm.sm, "/in", &writer);
    ASSERT(error == 0);
    size_t at = 0;
    while (error == 0 && at < stream.size) {
        size_t left = stream.size - at;
        size_t part = 1 + get_u8(pieces) * 4u;
        part = part < left ? part : left;
        error = side->sm.ops->receive_write(writer, bytes_of(stream.data + at, part));
        at += part;
    }
    error = error != 0 ? error : side->sm.ops->receive_finish(writer);
    side->sm.ops->receive_close(writer);
    return error;
}

/* True: restored. After a refusal by the store or of a row the process would stop, so nothing more
 * is asked of the machine. */
static bool take(struct side *side, struct bytes stream, struct reader *pieces)
{
    int error = receive(side, stream, pieces);
    ASSERT(error == 0 || error == ERR_CORRUPT);
    int restored = side->sm.ops->restore(side->sm.sm, "/in");
    ASSERT(error == 0 || restored != 0);
    return restored == 0;
}

static void use_restored(struct side *side)
{
    uint64_t hash;
    struct raft_position position;
    int error = side->sm.ops->hash(side->sm.sm, &hash, &position);
    ASSERT(error == 0);
    error = side->sm.ops->restore(side->sm.sm, "/in"); /* twice is harmless */
    ASSERT(error == 0);
}

static void put_rows(struct reader *input, struct buf *out)
{
    uint32_t count = fuzz_choice(input, ROWS_MAX);
    put_u64(out, count);
    for (uint32_t i = 0; i < count; i++) {
        struct buf key;
        buf_init(&key);
        switch (fuzz_choice(input, 6)) {
        case 0:
            buf_append_bytes(&key, key_applied());
            break;
        case 1:
            buf_append_bytes(&key, key_config());
            break;
        default:
            buf_append_bytes(&key, fuzz_take(input, fuzz_choice(input, 16)));
            break;
        }
        put_sized(out, buf_view(&key));
        buf_deinit(&key);
        put_sized(out, fuzz_take(input, fuzz_choice(input, 64)));
    }
    put_u32(out, crc32c_extend(0, out->data, out->size));
}

static void put_block(struct buf *out, uint32_t file, struct bytes bytes)
{
    uint8_t place[12] = {0};
    store_u32(place, file);
    uint32_t seed = crc32c_extend(0, place, sizeof place);
    if (bytes.size > 0) {
        buf_append_bytes(out, bytes);
        put_u32(out, crc32c_extend(seed, bytes.data, bytes.size));
    }
}

static void build_stream(struct reader *input, struct buf *out)
{
    static const char *names[] = {"rows", "rows", "rows", "x", "..", "a/b", "", "complete"};
    struct buf files[FILES_MAX];
    uint32_t count = fuzz_choice(input, FILES_MAX + 1);
    uint8_t spoil = get_u8(input);
    put_u32(out, 0x736b7673 ^ (spoil == 1));
    put_u32(out, 1u + (spoil == 2));
    put_u64(out, fuzz_number(input));
    put_u64(out, fuzz_number(input));
    put_u32(out, count + (spoil == 3 ? 1u << 20 : 0));
    for (uint32_t i = 0; i < count; i++) {
        buf_init(&files[i]);
        put_rows(input, &files[i]);
        const char *name = names[fuzz_choice(input, 8)];
        put_sized(out, bytes_of_string(name));
        put_u64(out, files[i].size + (fuzz_choice(input, 32) == 31 ? fuzz_number(input) : 0));
    }
    put_u32(out, crc32c_extend(0, out->data, out->size) ^ (spoil == 4));
    for (uint32_t i = 0; i < count; i++) {
        put_block(out, spoil == 5 ? 0 : i, buf_view(&files[i]));
        buf_deinit(&files[i]);
    }
    if (spoil == 6) {
        put_u8(out, 0);
    }
}

static void fuzz_stream(struct reader *input, bool built)
{
    struct side side;
    struct buf stream;
    buf_init(&stream);
    side_open(&side);
    if (built) {
        build_stream(input, &stream);
    } else {
        buf_append_bytes(&stream, fuzz_take(input, get_u16(input)));
    }
    if (take(&side, buf_view(&stream), input)) {
        use_restored(&side);
    }
    buf_deinit(&stream);
    side_close(&side);
}

/* ---- commands ---- */

static void put_ops(struct reader *input, struct buf *out)
{
    struct block_header header = {.client_id = fuzz_choice(input, 3),
                                  .acked_below = fuzz_choice(input, 8),
                                  .age_ms = fuzz_number(input),
                                  .count = 1 + fuzz_choice(input, 4)};
    block_put_header(out, &header);
    uint64_t sequence = header.client_id == 0 ? 0 : fuzz_number(input);
    for (uint32_t i = 0; i < header.count; i++) {
        static const char *keys[] = {"a", "b", "key", "{b}x"};
        struct op op = {.kind = (enum op_kind)(OP_PUT + fuzz_choice(input, 4))};
        op.key = bytes_of_string(keys[fuzz_choice(input, 4)]);
        op.shard = shard_of_key(op.key, SHARDS);
        if (header.client_id != 0) {
            op.sequence = sequence < UINT64_MAX ? sequence++ : sequence;
        }
        op.value = op.kind == OP_DELETE ? BYTES_EMPTY : fuzz_take(input, fuzz_choice(input, 9));
        op.expected_version = op.kind == OP_CAS ? fuzz_choice(input, 8) : 0;
        block_put_op(out, &op);
    }
}

static void put_config(struct reader *input, uint64_t number, struct buf *out)
{
    struct config *config = config_create(number, SHARDS);
    free(config->groups);
    config->group_count = 2;
    config->groups = mem_calloc(2, sizeof *config->groups);
    for (uint32_t i = 0; i < 2; i++) {
        config->groups[i] = (struct config_group){.id = i + 1u, .replica_count = 1};
        config->groups[i].replicas[0].id = 1;
        snprintf(config->groups[i].replicas[0].address, ADDRESS_BYTES_MAX, "h:%u", (unsigned)i + 1);
    }
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        uint8_t what = get_u8(input);
        config->owners[shard] = what % 3;
        config->sources[shard] = what / 3 % 3;
    }
    config_encode(config, out);
    config_free(config);
}

static void put_command(struct reader *input, uint64_t *number, struct buf *out)
{
    uint32_t kind = fuzz_choice(input, 10);
    if (kind < 4) {
        put_ops(input, out);
        return;
    }
    if (kind == 9) {
        buf_append_bytes(out, fuzz_take(input, get_u8(input)));
        return;
    }
    struct buf config;
    buf_init(&config);
    struct kv_command command = {.kind = KV_COMMAND_CONFIG};
    command.shard = fuzz_choice(input, SHARDS + 1);
    if (kind == 4 || kind == 5) {
        *number += fuzz_choice(input, 8) == 7 ? 0 : 1;
        put_config(input, *number, &config);
        command.config = buf_view(&config);
    } else {
        command.kind = (enum kv_command_kind)(KV_COMMAND_CHUNK + fuzz_choice(input, 6));
        command.number = *number;
        command.generation = fuzz_choice(input, 3);
        command.group = 1 + fuzz_choice(input, 2);
        command.end = fuzz_choice(input, 2) == 1;
        command.after_row = fuzz_take(input, fuzz_choice(input, 4));
        command.last_row = fuzz_take(input, fuzz_choice(input, 4));
        command.rows = fuzz_take(input, fuzz_choice(input, 64));
        command.row_count = fuzz_choice(input, 4);
        command.row_bytes = fuzz_choice(input, 4);
    }
    kv_command_encode(&command, out);
    buf_deinit(&config);
}

static void apply_commands(struct side *side, struct reader *input)
{
    uint64_t number = 0;
    uint64_t time_ms = 1000;
    for (uint64_t index = 1; index <= STEPS_MAX && reader_left(input) > 0; index++) {
        struct buf payload;
        struct buf result;
        buf_init(&payload);
        buf_init(&result);
        put_command(input, &number, &payload);
        time_ms += fuzz_choice(input, 4) == 3 ? 4000000 : 1;
        struct sm_command command = {.position = {index, 1},
                                     .time_ms = time_ms,
                                     .payload = buf_view(&payload),
                                     .result = &result};
        struct sm_batch batch = {.commands = &command, .count = 1, .last = {index, 1}};
        int error = side->sm.ops->apply(side->sm.sm, &batch);
        ASSERT(error == 0);
        buf_deinit(&payload);
        buf_deinit(&result);
    }
}

/* One bit of it is wrong, or its end is missing: never taken. */
static void check_damaged(struct bytes stream, struct reader *input)
{
    struct side side;
    struct buf damaged;
    buf_init(&damaged);
    buf_append_bytes(&damaged, stream);
    size_t at = get_u32(input) % stream.size;
    uint8_t how = get_u8(input);
    if (how % 9 == 8) {
        damaged.size = at;
    } else {
        damaged.data[at] ^= (uint8_t)(1u << how % 9);
    }
    side_open(&side);
    bool restored = take(&side, buf_view(&damaged), input);
    ASSERT(!restored);
    side_close(&side);
    buf_deinit(&damaged);
}

static void check_snapshot(struct side *side, struct reader *pieces)
{
    struct sm_snapshot_reader *reader = NULL;
    struct raft_position position;
    uint64_t size;
    int error = side->sm.ops->snapshot_open(side->sm.sm, "/out", &position, &size, &reader);
    ASSERT(error == 0);
    struct buf stream;
    buf_init(&stream);
    uint8_t *at = buf_reserve(&stream, (size_t)size);
    error = side->sm.ops->snapshot_read(reader, 0, at, (size_t)size);
    ASSERT(error == 0);
    stream.size = (size_t)size;
    side->sm.ops->snapshot_close(reader);
    check_damaged(buf_view(&stream), pieces);
    struct side other;
    side_open(&other);
    bool restored = take(&other, buf_view(&stream), pieces);
    ASSERT(restored);
    uint64_t hash, other_hash;
    struct raft_position other_position;
    error = side->sm.ops->hash(side->sm.sm, &hash, &position);
    ASSERT(error == 0);
    error = other.sm.ops->hash(other.sm.sm, &other_hash, &other_position);
    ASSERT(error == 0);
    ASSERT_CMP(hash, ==, other_hash);
    ASSERT(raft_position_equal(position, other_position));
    side_close(&other);
    buf_deinit(&stream);
}

/* Changes the row that the input names: its value, or another beside it. */
static void spoil_row(struct side *side, struct reader *input)
{
    const struct store_ops *ops = side->store.ops;
    uint32_t which = get_u8(input);
    struct store_iterator *iterator =
        ops->iterator_create(side->store.store, NULL, BYTES_EMPTY, BYTES_EMPTY);
    for (uint32_t i = 0; i < which && ops->iterator_valid(iterator); i++) {
        ops->iterator_next(iterator);
    }
    struct store_batch *batch = ops->batch_create(side->store.store);
    if (ops->iterator_valid(iterator)) {
        struct buf key;
        struct buf value;
        buf_init(&key);
        buf_init(&value);
        buf_append_bytes(&key, ops->iterator_key(iterator));
        buf_append_bytes(&value, ops->iterator_value(iterator));
        uint32_t how = fuzz_choice(input, 4);
        size_t at = value.size > 0 ? get_u8(input) % value.size : 0;
        if (how == 0) {
            value.size = at;
        } else if (how == 1) {
            buf_append_bytes(&value, fuzz_take(input, 4));
        } else if (how == 2 && value.size > 0) {
            value.data[at] = get_u8(input);
        } else if (key.size > 0) {
            key.data[get_u8(input) % key.size] ^= (uint8_t)(1u << fuzz_choice(input, 8));
        }
        ops->batch_put(batch, buf_view(&key), buf_view(&value));
        buf_deinit(&key);
        buf_deinit(&value);
    }
    ops->iterator_destroy(iterator);
    int error = ops->write(side->store.store, batch);
    ASSERT(error == 0);
    ops->batch_destroy(batch);
}

static void fuzz_commands(struct reader *input, bool spoil)
{
    struct side side;
    struct reader spoils = *input;
    side_open(&side);
    apply_commands(&side, input);
    check_snapshot(&side, &spoils);
    if (spoil) {
        kv_machine_destroy(side.machine);
        for (uint32_t i = 0; i < 3; i++) {
            spoil_row(&side, &spoils);
        }
        (void)side_load(&side);
    }
    side_close(&side);
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    uint32_t what = fuzz_choice(&reader, 4);
    if (what < 2) {
        fuzz_stream(&reader, what == 1);
    } else {
        fuzz_commands(&reader, what == 3);
    }
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    put_u8(out, (uint8_t)(index % 4));
    if (index % 4 == 0) { /* of one empty file of rows */
        struct buf stream;
        struct buf rows;
        buf_init(&stream);
        buf_init(&rows);
        put_u64(&rows, 0);
        put_u32(&rows, crc32c_extend(0, rows.data, rows.size));
        put_u32(&stream, 0x736b7673);
        put_u32(&stream, 1);
        put_u64(&stream, index);
        put_u64(&stream, 1);
        put_u32(&stream, 1);
        put_sized(&stream, bytes_of_string("rows"));
        put_u64(&stream, rows.size);
        put_u32(&stream, crc32c_extend(0, stream.data, stream.size));
        put_block(&stream, 0, buf_view(&rows));
        put_u16(out, (uint16_t)stream.size);
        buf_append_bytes(out, buf_view(&stream));
        buf_deinit(&stream);
        buf_deinit(&rows);
    }
    if (index % 4 > 1) { /* all shards are ours, from nobody */
        static const uint8_t config[] = {4, 0, 0, 1, 1, 1, 1, 0};
        buf_append(out, config, sizeof config);
    }
    for (uint32_t i = 0; index % 4 != 0 && i < 20 * index; i++) {
        put_u8(out, (uint8_t)(i * (index + 3) % (index % 2 == 0 ? 7 : 11)));
    }
    return index < 20;
}
