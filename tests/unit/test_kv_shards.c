/* A shard's life: every transition of proto/config.h, and every fence that keeps late, doubled or
 * foreign commands out. Group 1 and group 2 each with one replica; commands go to both logs by
 * hand. */
#include "kv_fixture.h"

#include "proto/config.h"
#include "shardkv/move_rows.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 2 };

struct fixture {
    struct kv_single a; /* group 1 */
    struct kv_single b; /* group 2 */
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof *fixture);
    kv_single_open(&fixture->a, 1);
    kv_single_open(&fixture->b, 2);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    kv_single_close(&fixture->a);
    kv_single_close(&fixture->b);
    test_free(fixture);
    return 0;
}

/* Both groups take config `number` with these owners and sources of shards 0 and 1. */
static int config_to(struct kv_single *single, uint64_t number, uint64_t owner0, uint64_t source0,
                     uint64_t owner1, uint64_t source1)
{
    const uint64_t owners[SHARDS] = {owner0, owner1};
    const uint64_t sources[SHARDS] = {source0, source1};
    return kv_single_config(single, number, SHARDS, owners, sources);
}

static void config_both(struct fixture *fixture, uint64_t number, uint64_t owner0, uint64_t source0,
                        uint64_t owner1, uint64_t source1)
{
    assert_int_equal(config_to(&fixture->a, number, owner0, source0, owner1, source1), 0);
    assert_int_equal(config_to(&fixture->b, number, owner0, source0, owner1, source1), 0);
}

static int drop(struct kv_single *single, uint32_t shard, uint64_t number, uint64_t group)
{
    return kv_single_run(
        single, &(struct kv_command){
                    .kind = KV_COMMAND_DROP, .shard = shard, .number = number, .group = group});
}

static int step(struct kv_single *single, uint32_t shard, uint64_t number)
{
    return kv_single_run(
        single, &(struct kv_command){.kind = KV_COMMAND_STEP, .shard = shard, .number = number});
}

static int confirmed(struct kv_single *single, uint32_t shard, uint64_t number)
{
    return kv_single_run(
        single,
        &(struct kv_command){.kind = KV_COMMAND_DROP_CONFIRMED, .shard = shard, .number = number});
}

static struct op_result put_with_session(struct kv_single *single, uint32_t shard,
                                         uint64_t sequence, const char *value)
{
    struct op op = {.kind = OP_APPEND,
                    .sequence = sequence,
                    .shard = shard,
                    .key = KEY("k"),
                    .value = KEY(value)};
    return kv_single_op(single, 77, &op);
}

static size_t pending_count(struct kv_single *single)
{
    struct kv_table *table = kv_machine_table(single->replica.machine);
    size_t count = table->pending_count;
    kv_table_unref(table);
    return count;
}

/* Shard 0 with some rows in group 1, then given to group 2 by config 2. */
static void freeze_in_a(struct fixture *fixture)
{
    config_both(fixture, 1, 1, 0, 1, 0);
    for (uint64_t i = 1; i <= 10; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%u", (unsigned)i);
        assert_int_equal(kv_single_put(&fixture->a, 0, key, "value").error, 0);
    }
    assert_int_equal(put_with_session(&fixture->a, 0, 1, "x").error, 0);
    config_both(fixture, 2, 2, 1, 1, 1);
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_FROZEN);
    assert_int_equal(kv_single_state(&fixture->b, 0), SHARD_PULLING);
}

static void test_shard_gained_without_source_serves_at_once(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(kv_single_put(&fixture->a, 0, "k", "v").error,
                     ERR_WRONG_GROUP); /* no config yet */
    config_both(fixture, 1, 1, 0, 0, 0);
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_SERVING);
    assert_int_equal(kv_single_state(&fixture->b, 0), SHARD_ABSENT);
    assert_int_equal(kv_single_state(&fixture->a, 1), SHARD_ABSENT);
    assert_int_equal(kv_single_put(&fixture->a, 0, "k", "v").error, 0);
    assert_int_equal(kv_single_put(&fixture->b, 0, "k", "v").error, ERR_WRONG_GROUP);
}

/* A group whose disks were wiped after it had left, and that was joined again: its way through the
 * old configs makes it the owner of what it owned in its former life, without the data. It serves
 * nothing until it has reached the present. */
static void test_shard_of_a_former_life_is_not_served(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *a = &fixture->a;
    const uint64_t owners[SHARDS] = {1, 1};
    const uint64_t sources[SHARDS] = {0, 0};
    struct config *config = test_config(1, SHARDS, owners, sources);
    struct buf bytes = {0};
    config_encode(config, &bytes);
    assert_int_equal(kv_single_run(a, &(struct kv_command){.kind = KV_COMMAND_CONFIG,
                                                           .number = 3, /* the newest there is */
                                                           .config = buf_view(&bytes)}),
                     0);
    buf_deinit(&bytes);
    config_free(config);
    assert_int_equal(kv_single_state(a, 0), SHARD_SERVING);
    assert_int_equal(kv_single_put(a, 0, "k", "v").error, ERR_SHARD_MOVING);
    assert_int_equal(config_to(a, 2, 1, 1, 1, 1), 0);
    assert_int_equal(kv_single_put(a, 0, "k", "v").error, ERR_SHARD_MOVING);
    struct kv_table *table = kv_machine_table(a->replica.machine);
    assert_int_equal(kv_table_serves(table, 0), ERR_SHARD_MOVING);
    kv_table_unref(table);
    kv_replica_crash(&a->replica,
                     fake_store_unflushed(a->replica.fake)); /* nothing lost, all loaded again */
    assert_int_equal(kv_single_put(a, 0, "k", "v").error, ERR_SHARD_MOVING);
    assert_int_equal(config_to(a, 3, 1, 1, 1, 1), 0);
    assert_int_equal(kv_single_put(a, 0, "k", "v").error, 0);
}

static void test_shard_moves_with_rows_sessions_and_versions(void **state)
{
    struct fixture *fixture = *state;
    freeze_in_a(fixture);
    struct op_result first = {.version = 11}; /* ten puts before it */
    assert_int_equal(put_with_session(&fixture->a, 0, 2, "y").error, ERR_WRONG_GROUP);
    assert_int_equal(put_with_session(&fixture->b, 0, 2, "y").error, ERR_SHARD_MOVING);
    assert_int_equal(kv_single_get(&fixture->b, 0, "k", NULL).error, ERR_SHARD_MOVING);
    fixture->b.log.time_ms = 3; /* a log time far from the source's */
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 40), 0);
    assert_int_equal(kv_single_state(&fixture->b, 0), SHARD_SERVING);
    /* The retry of what the source executed is answered, not executed. */
    struct op_result again = put_with_session(&fixture->b, 0, 1, "x");
    assert_int_equal(again.error, 0);
    assert_int_equal(again.version, first.version);
    struct op_result next = put_with_session(&fixture->b, 0, 2, "y");
    assert_true(next.version > first.version);
    struct buf value = {0};
    kv_single_get(&fixture->b, 0, "k", &value);
    assert_string_equal(value.data, "xy");
    kv_single_get(&fixture->b, 0, "key7", &value);
    assert_string_equal(value.data, "value");
    buf_deinit(&value);
    assert_int_equal(kv_single_put(&fixture->a, 1, "k", "v").error,
                     0); /* the other shard was never touched */
}

static void test_shard_source_drops_everything_and_once(void **state)
{
    struct fixture *fixture = *state;
    freeze_in_a(fixture);
    size_t rows_before = fake_store_rows(fixture->a.replica.fake);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 1000), 0);
    assert_int_equal(pending_count(&fixture->b), 1);
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_DROPPING);
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(step(&fixture->a, 0, 2), 0);
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_ABSENT);
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(step(&fixture->a, 0, 2), 0);
    /* 11 keys, a session and the shard's record are gone. */
    assert_int_equal(fake_store_rows(fixture->a.replica.fake), rows_before - 13);
    assert_int_equal(confirmed(&fixture->b, 0, 2), 0);
    assert_int_equal(confirmed(&fixture->b, 0, 2), 0);
    assert_int_equal(pending_count(&fixture->b), 0);
}

static void test_shard_drop_goes_in_bounded_steps(void **state)
{
    struct fixture *fixture = *state;
    enum { ROWS = KV_STEP_ROWS_MAX * 2 + 10 };
    config_both(fixture, 1, 1, 0, 1, 0);
    for (uint32_t i = 0; i < ROWS; i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", (unsigned)i);
        assert_int_equal(kv_single_put(&fixture->a, 0, key, "v").error, 0);
    }
    config_both(fixture, 2, 2, 1, 1, 1);
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(step(&fixture->a, 0, 2), 0);
        assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_DROPPING);
    }
    assert_true(fake_store_batch_rows_max(fixture->a.replica.fake) <= KV_STEP_ROWS_MAX + 8);
    assert_int_equal(step(&fixture->a, 0, 2), 0);
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_ABSENT);
    assert_true(fake_store_rows(fixture->a.replica.fake) < 10);
}

static void test_shard_config_twice_skipped_or_unsettled_is_refused(void **state)
{
    struct fixture *fixture = *state;
    config_both(fixture, 1, 1, 0, 1, 0);
    uint64_t before = kv_replica_hash(&fixture->a.replica);
    assert_int_equal(config_to(&fixture->a, 1, 2, 0, 2, 0), ERR_EXISTS);
    assert_int_equal(config_to(&fixture->a, 3, 2, 1, 1, 1), ERR_INVALID);
    assert_int_equal(kv_replica_hash(&fixture->a.replica), before);
    config_both(fixture, 2, 2, 1, 1, 1);
    assert_int_equal(config_to(&fixture->a, 3, 2, 2, 1, 1), ERR_BUSY); /* frozen, not dropped */
    assert_int_equal(config_to(&fixture->b, 3, 2, 2, 1, 1), ERR_BUSY); /* pulling */
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 1000), 0);
    assert_int_equal(config_to(&fixture->b, 3, 2, 2, 1, 1),
                     0); /* a pending drop does not hold it up */
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(config_to(&fixture->a, 3, 2, 2, 1, 1), ERR_BUSY); /* dropping */
    assert_int_equal(step(&fixture->a, 0, 2), 0);
    assert_int_equal(config_to(&fixture->a, 3, 2, 2, 1, 1), 0);
}

static void test_shard_config_that_contradicts_what_is_here_is_refused(void **state)
{
    struct fixture *fixture = *state;
    config_both(fixture, 1, 1, 0, 1, 0);
    /* Says group 2 had shard 0 itself, and another number of shards. */
    assert_int_equal(config_to(&fixture->b, 2, 2, 2, 1, 1), ERR_INVALID);
    const uint64_t owners[3] = {1, 1, 1};
    const uint64_t sources[3] = {1, 1, 1};
    assert_int_equal(kv_single_config(&fixture->a, 2, 3, owners, sources), ERR_INVALID);
}

static void test_shard_without_owner_is_kept_and_served_again(void **state)
{
    struct fixture *fixture = *state;
    config_both(fixture, 1, 1, 0, 1, 0);
    assert_int_equal(put_with_session(&fixture->a, 0, 1, "x").error, 0);
    config_both(fixture, 2, 0, 1, 1, 1); /* nobody owns shard 0 */
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_FROZEN);
    assert_int_equal(put_with_session(&fixture->a, 0, 2, "y").error, ERR_WRONG_GROUP);
    assert_int_equal(kv_move_check(fixture->a.replica.machine, 0, 2, 2),
                     ERR_INVALID);       /* not given to anyone */
    config_both(fixture, 3, 1, 1, 1, 1); /* back */
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_SERVING);
    assert_int_equal(put_with_session(&fixture->a, 0, 1, "x").version, 1); /* a repetition */
    assert_int_equal(put_with_session(&fixture->a, 0, 2, "y").error, 0);
    struct buf value = {0};
    kv_single_get(&fixture->a, 0, "k", &value);
    assert_string_equal(value.data, "xy");
    buf_deinit(&value);
}

static void test_shard_without_owner_then_given_away_is_fenced_by_that_config(void **state)
{
    struct fixture *fixture = *state;
    config_both(fixture, 1, 1, 0, 1, 0);
    assert_int_equal(put_with_session(&fixture->a, 0, 1, "x").error, 0);
    config_both(fixture, 2, 0, 1, 1, 1);
    config_both(fixture, 3, 0, 1, 1, 1);
    config_both(fixture, 4, 2, 1, 1, 1);
    assert_int_equal(kv_move_check(fixture->a.replica.machine, 0, 4, 2), 0);
    assert_int_equal(kv_move_check(fixture->a.replica.machine, 0, 4, 3), ERR_INVALID);
    assert_int_equal(kv_move_check(fixture->a.replica.machine, 0, 5, 2), ERR_CONFIG_BEHIND);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 4, 1000), 0);
    struct buf value = {0};
    kv_single_get(&fixture->b, 0, "k", &value);
    assert_string_equal(value.data, "x");
    buf_deinit(&value);
}

static void test_shard_two_groups_swap_shards_in_one_config(void **state)
{
    struct fixture *fixture = *state;
    config_both(fixture, 1, 1, 0, 2, 0);
    assert_int_equal(kv_single_put(&fixture->a, 0, "k", "from a").error, 0);
    assert_int_equal(kv_single_put(&fixture->b, 1, "k", "from b").error, 0);
    config_both(fixture, 2, 2, 1, 1, 2);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 1000), 0);
    assert_int_equal(kv_copy_shard(&fixture->b, &fixture->a, 1, 2, 1000), 0);
    struct buf value = {0};
    kv_single_get(&fixture->b, 0, "k", &value);
    assert_string_equal(value.data, "from a");
    kv_single_get(&fixture->a, 1, "k", &value);
    assert_string_equal(value.data, "from b");
    buf_deinit(&value);
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(drop(&fixture->b, 1, 2, 1), 0);
    assert_int_equal(step(&fixture->a, 0, 2), 0);
    assert_int_equal(step(&fixture->b, 1, 2), 0);
    config_both(fixture, 3, 2, 2, 1, 1);
}

static void test_shard_delayed_drop_of_an_older_config_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    freeze_in_a(fixture);
    assert_int_equal(drop(&fixture->a, 0, 3, 2), ERR_CONFIG_BEHIND);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 1000), 0);
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(step(&fixture->a, 0, 2), 0);
    assert_int_equal(drop(&fixture->a, 1, 2, 2), ERR_INVALID); /* serving: config 2 never took it */
    config_both(fixture, 3, 1, 2, 1, 1);                       /* and back to group 1 */
    assert_int_equal(kv_copy_shard(&fixture->b, &fixture->a, 0, 3, 1000), 0);
    assert_int_equal(drop(&fixture->a, 0, 2, 2),
                     0); /* the old one once more: answered, without effect */
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_SERVING);
    assert_int_equal(drop(&fixture->b, 0, 3, 2), ERR_INVALID); /* not its destination */
    assert_int_equal(drop(&fixture->b, 0, 3, 1), 0);
    assert_int_equal(step(&fixture->b, 0, 2), 0); /* a step of another config deletes nothing */
    assert_int_equal(kv_single_state(&fixture->b, 0), SHARD_DROPPING);
    assert_int_equal(step(&fixture->b, 0, 3), 0);
    config_both(fixture, 4, 2, 1, 1, 1); /* frozen again, under config 4 */
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_FROZEN);
    assert_int_equal(kv_move_check(fixture->a.replica.machine, 0, 2, 2), ERR_NOT_FOUND);
}

/* ---- chunks ---- */

/* The chunk that continues the pull, read from the source. */
static void next_chunk(struct fixture *fixture, size_t bytes_max, struct kv_move_rows *rows,
                       struct kv_command *command)
{
    struct kv_table *table = kv_machine_table(fixture->b.replica.machine);
    static uint8_t after[MOVE_ROW_KEY_BYTES_MAX];
    struct bytes last = shard_record_last_row(&table->shards[0]);
    if (last.size > 0) {
        memcpy(after, last.data, last.size);
    }
    assert_int_equal(kv_move_read(fixture->a.replica.machine, 0, 2, 2, last, bytes_max, rows), 0);
    *command = (struct kv_command){
        .kind = KV_COMMAND_CHUNK,
        .shard = 0,
        .number = 2,
        .generation = table->shards[0].generation,
        .after_row = bytes_of(after, last.size),
        .last_row = buf_view(&rows->last_row),
        .rows = buf_view(&rows->rows),
        .end = rows->end,
    };
    kv_table_unref(table);
}

static void test_shard_chunk_twice_late_or_foreign_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    freeze_in_a(fixture);
    struct kv_move_rows rows = {0};
    struct kv_command chunk;
    next_chunk(fixture, 60, &rows, &chunk);
    assert_int_equal(kv_single_run(&fixture->b, &chunk), 0);
    uint64_t before = kv_replica_hash(&fixture->b.replica);
    assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_EXISTS);
    chunk.after_row = chunk.last_row;
    assert_int_equal(kv_single_run(&fixture->b, &chunk),
                     ERR_PROTOCOL); /* the same rows do not come after themselves */
    next_chunk(fixture, 60, &rows, &chunk);
    chunk.number = 1;
    assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_EXISTS);
    chunk.number = 2;
    chunk.generation++;
    assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_EXISTS);
    chunk.generation--;
    chunk.shard = 1;
    assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_EXISTS);
    chunk.shard = SHARDS;
    assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_SHARD_RANGE);
    assert_int_equal(kv_replica_hash(&fixture->b.replica), before);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 60), 0);
    /* A driver of the former term, whose chunk was still under way, after the install. */
    chunk.shard = 0;
    before = kv_replica_hash(&fixture->b.replica);
    assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_EXISTS);
    assert_int_equal(kv_replica_hash(&fixture->b.replica), before);
    buf_deinit(&rows.rows);
    buf_deinit(&rows.last_row);
}

static void test_shard_chunk_with_bad_rows_is_refused_whole(void **state)
{
    struct fixture *fixture = *state;
    freeze_in_a(fixture);
    uint64_t before = kv_replica_hash(&fixture->b.replica);
    struct kv_command chunk = {.kind = KV_COMMAND_CHUNK, .number = 2};
    const struct {
        const char *keys[2];
        const char *values[2];
    } bad[] = {
        {{"da", "dz"}, {"\x01v", "\x80"}},  /* a version that does not end */
        {{"db", "da"}, {"\x01v", "\x01v"}}, /* not ascending */
        {{"da", "xz"}, {"\x01v", "\x01v"}}, /* no such space */
        {{"da", "d"}, {"\x01v", "\x01v"}},  /* no key */
        {{"da", "s12345678"}, {"\x01v", "nosession"}},
        {{"da", "s1234567"}, {"\x01v", "\x01"}},
        {{"da", "vv"}, {"\x01v", "\x01"}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf rows = {0};
        for (size_t j = 0; j < 2; j++) {
            move_row_put(&rows, KEY(bad[i].keys[j]), KEY(bad[i].values[j]));
        }
        chunk.rows = buf_view(&rows);
        chunk.last_row = KEY(bad[i].keys[1]);
        assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_PROTOCOL);
        buf_deinit(&rows);
    }
    chunk.rows = BYTES_EMPTY;
    chunk.last_row = BYTES_EMPTY;
    assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_PROTOCOL);
    assert_int_equal(kv_replica_hash(&fixture->b.replica), before);
}

static void test_shard_install_before_the_end_or_with_other_sums_is_refused(void **state)
{
    struct fixture *fixture = *state;
    freeze_in_a(fixture);
    struct kv_command install = {.kind = KV_COMMAND_INSTALL, .number = 2};
    assert_int_equal(kv_single_run(&fixture->b, &install), ERR_BUSY);
    struct kv_move_rows rows = {0};
    struct kv_command chunk;
    size_t chunks = 0;
    do {
        next_chunk(fixture, 60, &rows, &chunk);
        assert_int_equal(kv_single_run(&fixture->b, &chunk), 0);
        chunks++;
    } while (!rows.end);
    assert_true(chunks > 2);
    /* Sums that are not ours: begins again, and clears first. */
    install.row_count = 1;
    assert_int_equal(kv_single_run(&fixture->b, &install), ERR_CORRUPT);
    assert_int_equal(kv_single_state(&fixture->b, 0), SHARD_PULLING);
    assert_int_equal(kv_single_run(&fixture->b, &chunk), ERR_EXISTS); /* of the old generation */
    struct kv_table *table = kv_machine_table(fixture->b.replica.machine);
    assert_true(table->shards[0].clearing);
    assert_int_equal(table->shards[0].generation, 1);
    assert_int_equal(table->shards[0].rows, 0);
    kv_table_unref(table);
    size_t rows_before = fake_store_rows(fixture->b.replica.fake);
    assert_int_equal(step(&fixture->b, 0, 2), 0);
    assert_int_equal(fake_store_rows(fixture->b.replica.fake), rows_before - 12);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 100), 0);
    assert_int_equal(kv_single_state(&fixture->b, 0), SHARD_SERVING);
    assert_int_equal(put_with_session(&fixture->b, 0, 1, "x").version, 11);
    buf_deinit(&rows.rows);
    buf_deinit(&rows.last_row);
}

/* As many rows and bytes as the source has, and one other byte in one of them. */
static void test_shard_install_of_other_rows_of_the_same_size_is_refused(void **state)
{
    struct fixture *fixture = *state;
    freeze_in_a(fixture);
    struct kv_move_rows rows = {0};
    struct kv_command chunk;
    struct kv_move_scan scan;
    kv_move_scan_init(&scan, 0, 2, 2);
    while (!scan.done) {
        assert_int_equal(kv_move_scan_step(fixture->a.replica.machine, &scan, 100), 0);
    }
    next_chunk(fixture, 1000000, &rows, &chunk);
    assert_true(rows.end);
    uint8_t *value = memmem(rows.rows.data, rows.rows.size, "value", 5);
    assert_non_null(value);
    value[4] = 'E';
    assert_int_equal(kv_single_run(&fixture->b, &chunk), 0);
    struct kv_command install = {.kind = KV_COMMAND_INSTALL,
                                 .number = 2,
                                 .row_count = scan.rows,
                                 .row_bytes = scan.bytes,
                                 .checksum = scan.checksum};
    assert_int_equal(kv_single_run(&fixture->b, &install), ERR_CORRUPT);
    assert_int_equal(kv_single_state(&fixture->b, 0), SHARD_PULLING);
    kv_move_scan_deinit(&scan);
    buf_deinit(&rows.rows);
    buf_deinit(&rows.last_row);
}

/* What is frozen does not change, its sessions neither: they expire where they are served. */
static void test_shard_frozen_does_not_expire_its_sessions(void **state)
{
    struct fixture *fixture = *state;
    struct kv_command expire = {.kind = KV_COMMAND_EXPIRE, .shard = 0};
    freeze_in_a(fixture);
    size_t rows = fake_store_rows(fixture->a.replica.fake);
    fixture->a.log.time_ms += 2 * SESSION_TTL_MS;
    assert_int_equal(kv_single_run(&fixture->a, &expire), ERR_WRONG_GROUP);
    assert_int_equal(fake_store_rows(fixture->a.replica.fake), rows);
    assert_int_equal(kv_single_run(&fixture->b, &expire), ERR_SHARD_MOVING);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 1000), 0);
    assert_int_equal(put_with_session(&fixture->b, 0, 1, "x").version, 11); /* still known */
}

static void test_shard_reading_what_is_not_frozen_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct kv_move_rows rows = {0};
    struct kv_machine *machine = fixture->a.replica.machine;
    assert_int_equal(kv_move_read(machine, 0, 1, 2, BYTES_EMPTY, 100, &rows), ERR_CONFIG_BEHIND);
    config_both(fixture, 1, 1, 0, 1, 0);
    assert_int_equal(kv_move_read(machine, 0, 1, 2, BYTES_EMPTY, 100, &rows),
                     ERR_INVALID); /* serving */
    assert_int_equal(kv_move_read(machine, 9, 1, 2, BYTES_EMPTY, 100, &rows), ERR_SHARD_RANGE);
    config_both(fixture, 2, 2, 1, 1, 1);
    assert_int_equal(kv_move_read(machine, 0, 2, 2, KEY("nonsense"), 100, &rows), ERR_INVALID);
    assert_int_equal(kv_move_read(machine, 0, 2, 2, KEY("v"), 100, &rows), 0);
    assert_true(rows.end);
    assert_int_equal(rows.rows.size, 0);
    assert_int_equal(kv_move_read(machine, 0, 2, 2, BYTES_EMPTY, 100, &rows),
                     0); /* an empty shard: its counter */
    assert_true(rows.end);
    assert_true(rows.rows.size > 0);
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(kv_move_read(machine, 0, 2, 2, BYTES_EMPTY, 100, &rows), ERR_NOT_FOUND);
    buf_deinit(&rows.rows);
    buf_deinit(&rows.last_row);
}

static void test_shard_session_age_travels_not_time(void **state)
{
    struct fixture *fixture = *state;
    fixture->a.log.time_ms = 10 * SESSION_TTL_MS;
    config_both(fixture, 1, 1, 0, 1, 0);
    assert_int_equal(put_with_session(&fixture->a, 0, 1, "x").error, 0);
    fixture->a.log.time_ms += SESSION_TTL_MS - 1000;
    fixture->b.log.time_ms = 20 * SESSION_TTL_MS;
    config_both(fixture, 2, 2, 1, 1, 1);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 1000), 0);
    struct kv_command expire = {.kind = KV_COMMAND_EXPIRE, .shard = 0};
    assert_int_equal(kv_single_run(&fixture->b, &expire), 0);
    assert_int_equal(put_with_session(&fixture->b, 0, 1, "x").version, 1); /* still known */
    fixture->b.log.time_ms += SESSION_TTL_MS + 1;
    assert_int_equal(kv_single_run(&fixture->b, &expire), 0);
    struct kv_table *table = kv_machine_table(fixture->b.replica.machine);
    assert_int_equal(table->shards[0].session_count, 0);
    kv_table_unref(table);
}

static void test_shard_states_survive_a_crash_at_every_point(void **state)
{
    struct fixture *fixture = *state;
    freeze_in_a(fixture);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 60), 0);
    assert_int_equal(drop(&fixture->a, 0, 2, 2), 0);
    assert_int_equal(step(&fixture->a, 0, 2), 0);
    assert_int_equal(confirmed(&fixture->b, 0, 2), 0);
    struct kv_single *singles[] = {&fixture->a, &fixture->b};
    for (size_t i = 0; i < 2; i++) {
        uint64_t wanted = kv_replica_hash(&singles[i]->replica);
        size_t batches = fake_store_unflushed(singles[i]->replica.fake);
        for (size_t keep = 0; keep <= batches; keep++) {
            struct kv_replica other = {0};
            struct rng rng;
            rng_init(&rng, keep);
            kv_replica_open(&other, singles[i]->replica.group_id);
            kv_replica_apply_random(&other, &singles[i]->log, &rng);
            size_t cut = fake_store_unflushed(other.fake);
            kv_replica_crash(&other, keep < cut ? keep : cut);
            kv_replica_apply_random(&other, &singles[i]->log, &rng);
            assert_int_equal(kv_replica_hash(&other), wanted);
            kv_replica_close(&other);
        }
    }
}

int main(void)
{
#define SHARD_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SHARD_TEST(test_shard_gained_without_source_serves_at_once),
        SHARD_TEST(test_shard_of_a_former_life_is_not_served),
        SHARD_TEST(test_shard_moves_with_rows_sessions_and_versions),
        SHARD_TEST(test_shard_source_drops_everything_and_once),
        SHARD_TEST(test_shard_drop_goes_in_bounded_steps),
        SHARD_TEST(test_shard_config_twice_skipped_or_unsettled_is_refused),
        SHARD_TEST(test_shard_config_that_contradicts_what_is_here_is_refused),
        SHARD_TEST(test_shard_without_owner_is_kept_and_served_again),
        SHARD_TEST(test_shard_without_owner_then_given_away_is_fenced_by_that_config),
        SHARD_TEST(test_shard_two_groups_swap_shards_in_one_config),
        SHARD_TEST(test_shard_delayed_drop_of_an_older_config_changes_nothing),
        SHARD_TEST(test_shard_chunk_twice_late_or_foreign_changes_nothing),
        SHARD_TEST(test_shard_chunk_with_bad_rows_is_refused_whole),
        SHARD_TEST(test_shard_install_before_the_end_or_with_other_sums_is_refused),
        SHARD_TEST(test_shard_install_of_other_rows_of_the_same_size_is_refused),
        SHARD_TEST(test_shard_frozen_does_not_expire_its_sessions),
        SHARD_TEST(test_shard_reading_what_is_not_frozen_is_refused),
        SHARD_TEST(test_shard_session_age_travels_not_time),
        SHARD_TEST(test_shard_states_survive_a_crash_at_every_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
