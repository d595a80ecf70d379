/* Numbered scenarios of shards that move between two groups: who serves one, what comes late or
 * twice, and crashes around the install (docs/TESTING.md has the numbers). */
#include "unit/kv_groups_fixture.h"

#include "base/log.h"
#include "shardkv/move_rows.h"

/* ---- 38, 59, 60: who serves, when ---- */

/* The service looks at the table when a read arrives, and the read waits for its index; meanwhile
 * the shard is taken away, or comes back with newer data. */
static void test_s38_read_queued_across_a_move_is_judged_when_it_is_served(void **state)
{
    struct fixture *fixture = *state;
    all_to_a(fixture);
    assert_int_equal(append(&fixture->a, 9, 0, 1, "old").error, 0);
    struct kv_table *when_it_came = kv_machine_table(fixture->a.replica.machine);
    assert_int_equal(kv_table_serves(when_it_came, 0), 0);
    shard_0_to_b(fixture);
    assert_int_equal(kv_table_serves(when_it_came, 0), 0); /* what the service saw */
    struct buf value = {0};
    assert_int_equal(kv_single_get(&fixture->a, 0, "k", &value).error, ERR_WRONG_GROUP);
    assert_int_equal(value.size, 1); /* nothing but the terminating zero */
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 1000), 0);
    assert_int_equal(append(&fixture->b, 9, 0, 2, ", new").error, 0);
    assert_int_equal(kv_single_get(&fixture->a, 0, "k", &value).error, ERR_WRONG_GROUP);
    assert_int_equal(verb(&fixture->a, KV_COMMAND_DROP, 0, 2, GROUP_B), 0);
    assert_int_equal(kv_single_get(&fixture->a, 0, "k", &value).error, ERR_WRONG_GROUP);
    assert_int_equal(verb(&fixture->a, KV_COMMAND_STEP, 0, 2, 0), 0);
    /* Never the answer 'absent', which would be wrong: the key exists. */
    assert_int_equal(kv_single_get(&fixture->a, 0, "k", &value).error, ERR_WRONG_GROUP);
    assert_value(&fixture->b, 0, "old, new");
    kv_table_unref(when_it_came);
    buf_deinit(&value);
}

static void refuses_everything(struct kv_single *single, int error)
{
    const enum op_kind kinds[] = {OP_PUT, OP_APPEND, OP_DELETE, OP_CAS};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct op op = append_op(0, 2, "z");
        op.kind = kinds[i];
        op.value = op.kind == OP_DELETE ? BYTES_EMPTY : op.value;
        assert_int_equal(kv_single_op(single, 9, &op).error, error);
        op.sequence = 0;
        assert_int_equal(kv_single_op(single, 0, &op).error, error);
    }
    assert_int_equal(append(single, 9, 0, 1, "x").error, error); /* not even a repetition */
    assert_int_equal(kv_single_get(single, 0, "k", NULL).error, error);
    assert_int_equal(kv_single_get(single, 0, "no such key", NULL).error, error);
}

/* Between the config and the install, the destination answers nothing, whatever it has already. */
static void test_s59_nothing_is_served_before_the_install(void **state)
{
    struct fixture *fixture = *state;
    all_to_a(fixture);
    for (uint64_t client = 1; client <= CLIENTS; client++) {
        assert_int_equal(append(&fixture->a, client + 10, 0, 1, "x").error, 0);
    }
    assert_int_equal(append(&fixture->a, 9, 0, 1, "x").error, 0);
    refuses_everything(&fixture->b, ERR_WRONG_GROUP);
    shard_0_to_b(fixture);
    refuses_everything(&fixture->b, ERR_SHARD_MOVING);
    struct kv_move_scan scan;
    kv_move_scan_init(&scan, 0, 2, GROUP_B);
    while (!scan.done) {
        assert_int_equal(kv_move_scan_step(fixture->a.replica.machine, &scan, 3), 0);
    }
    struct kv_move_rows rows = {0};
    struct buf after = {0};
    uint32_t chunks = 0;
    do {
        assert_int_equal(
            kv_move_read(fixture->a.replica.machine, 0, 2, GROUP_B, buf_view(&after), 1, &rows), 0);
        assert_int_equal(
            kv_single_run(&fixture->b, &(struct kv_command){.kind = KV_COMMAND_CHUNK,
                                                            .number = 2,
                                                            .after_row = buf_view(&after),
                                                            .last_row = buf_view(&rows.last_row),
                                                            .rows = buf_view(&rows.rows),
                                                            .end = rows.end}),
            0);
        buf_clear(&after);
        buf_append_bytes(&after, buf_view(&rows.last_row));
        chunks++;
        refuses_everything(&fixture->b, ERR_SHARD_MOVING);
        kv_replica_crash(&fixture->b.replica, fake_store_unflushed(fixture->b.replica.fake));
        refuses_everything(&fixture->b, ERR_SHARD_MOVING);
    } while (!rows.end);
    assert_true(chunks > CLIENTS);
    assert_int_equal(kv_single_run(&fixture->b, &(struct kv_command){.kind = KV_COMMAND_INSTALL,
                                                                     .number = 2,
                                                                     .row_count = scan.rows,
                                                                     .row_bytes = scan.bytes,
                                                                     .checksum = scan.checksum}),
                     0);
    assert_int_equal(append(&fixture->b, 9, 0, 1, "x").version, CLIENTS + 1);
    assert_value(&fixture->b, 0, "xxxxx");
    kv_move_scan_deinit(&scan);
    buf_deinit(&rows.rows);
    buf_deinit(&rows.last_row);
    buf_deinit(&after);
}

static void add_append(struct kv_log *log, uint64_t client, uint64_t sequence, const char *value)
{
    struct op op = append_op(0, sequence, value);
    struct buf payload = {0};
    block_put_header(&payload, &(struct block_header){.client_id = client, .count = 1});
    block_put_op(&payload, &op);
    kv_log_add(log, &payload);
}

static void add_config_2(struct kv_log *log)
{
    struct config *config = test_config(2, SHARDS, (const uint64_t[SHARDS]){2, 1, 1, 1, 1},
                                        (const uint64_t[SHARDS]){1, 1, 1, 1, 1});
    struct buf bytes = {0};
    struct buf payload = {0};
    config_encode(config, &bytes);
    kv_command_encode(&(struct kv_command){.kind = KV_COMMAND_CONFIG, .config = buf_view(&bytes)},
                      &payload);
    kv_log_add(log, &payload);
    buf_deinit(&bytes);
    config_free(config);
}

static int next_append_answer(const struct buf *results, size_t *at)
{
    struct reader reader;
    struct op_result result;
    uint32_t count = 0;
    (*at)++; /* the flags */
    assert_int_equal(
        results_open(bytes_of(results->data + *at, results->size - *at), &reader, &count), 0);
    assert_int_equal(results_next(&reader, OP_APPEND, &result), 0);
    *at = (size_t)(reader.at - results->data);
    return result.error;
}

/* The freeze stands in the log like every write: what follows it in the same batch, even in the
 * same entry, is refused, and none of it is among what the destination copies. */
static void test_s60_nothing_is_acknowledged_after_the_freeze(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *a = &fixture->a;
    all_to_a(fixture);
    kv_log_entry(&a->log, 1);
    add_append(&a->log, 9, 1, "before");
    add_config_2(&a->log);
    add_append(&a->log, 9, 2, ", after");
    kv_log_entry(&a->log, 1);
    add_append(&a->log, 0, 0, ", and later");
    struct buf results = {0};
    kv_replica_apply(&a->replica, &a->log, a->log.last_index, &results);
    size_t at = 0;
    assert_int_equal(next_append_answer(&results, &at), 0);
    assert_int_equal(results.data[at++], 0); /* the config's answer: a code of one byte */
    assert_int_equal(next_append_answer(&results, &at), ERR_WRONG_GROUP);
    assert_int_equal(next_append_answer(&results, &at), ERR_WRONG_GROUP);
    assert_int_equal(at, results.size);
    buf_deinit(&results);
    refuses_everything(a, ERR_WRONG_GROUP);

    assert_int_equal(kv_single_config(&fixture->b, 2, SHARDS,
                                      (const uint64_t[SHARDS]){2, 1, 1, 1, 1},
                                      (const uint64_t[SHARDS]){1, 1, 1, 1, 1}),
                     0);
    assert_int_equal(kv_copy_shard(a, &fixture->b, 0, 2, 1000), 0);
    assert_value(&fixture->b, 0, "before");
    /* What was refused was not executed: it is executed now, once. */
    assert_int_equal(append(&fixture->b, 9, 0, 2, ", after").version, 2);
    assert_value(&fixture->b, 0, "before, after");
}

/* ---- 67: two drivers ---- */

/* What one driver proposes for the pull of shard 0: chunks of `bytes_max`, then Install, as they
 * are when it works alone. Recorded on a replica of the destination's log; the rest of a driver's
 * life is to send them, whatever happened meanwhile. */
struct driver {
    struct buf payloads[32];
    uint32_t count;
};

static void driver_record(struct fixture *fixture, size_t bytes_max, struct driver *driver)
{
    struct kv_single scratch;
    *driver = (struct driver){0};
    kv_single_open(&scratch, GROUP_B);
    kv_replica_apply(&scratch.replica, &fixture->b.log, fixture->b.log.last_index, NULL);
    scratch.log.last_index = fixture->b.log.last_index;
    scratch.replica.next = 0;
    assert_int_equal(kv_copy_shard(&fixture->a, &scratch, 0, 2, bytes_max), 0);
    assert_true(scratch.log.count <= sizeof driver->payloads / sizeof driver->payloads[0]);
    for (size_t i = 0; i < scratch.log.count; i++) {
        buf_append_bytes(&driver->payloads[driver->count++],
                         blob_view(scratch.log.commands[i].payload));
    }
    kv_single_close(&scratch);
}

static void driver_send(struct kv_single *to, const struct buf *payload)
{
    struct buf copy = {0};
    buf_append_bytes(&copy, buf_view(payload));
    kv_log_entry(&to->log, 0);
    kv_log_add(&to->log, &copy);
    kv_replica_apply(&to->replica, &to->log, to->log.last_index, NULL);
}

/* The leader changes in the middle of a pull: the new one's driver begins where the table stands,
 * and what the old one had proposed arrives in between, in order, at any moment, also behind the
 * install and the first writes. Neither disturbs the other: the rows come once. */
static void test_s67_old_driver_finishes_after_a_new_one_began(void **state)
{
    struct fixture *fixture = *state;
    struct rng rng;
    rng_init(&rng, 67);
    for (uint32_t round = 0; round < 100; round++) {
        all_to_a(fixture);
        for (uint64_t client = 1; client <= CLIENTS; client++) {
            assert_int_equal(append(&fixture->a, client, 0, 1, "x").error, 0);
        }
        shard_0_to_b(fixture);
        struct driver old;
        struct driver new;
        driver_record(fixture, rng_between(&rng, 1, 80), &old);
        driver_record(fixture, rng_between(&rng, 1, 80), &new);
        bool wrote = false;
        /* The new one in no order: what does not fit is not taken, and what fits comes in time. */
        uint32_t sent = 0;
        for (uint32_t steps = 0; steps < 400; steps++) {
            if (sent < old.count && rng_chance(&rng, 1, 12)) {
                driver_send(&fixture->b, &old.payloads[sent++]);
            }
            driver_send(&fixture->b, &new.payloads[rng_below(&rng, new.count)]);
            if (!wrote && kv_single_state(&fixture->b, 0) == SHARD_SERVING) {
                assert_int_equal(append(&fixture->b, 9, 0, 1, "y").version, CLIENTS + 1);
                wrote = true;
            }
        }
        for (uint32_t i = 0; i < old.count; i++) {
            driver_send(&fixture->b, &old.payloads[i]);
        }
        if (!wrote) { /* between two chunkings: a driver that reads the table gets it through */
            assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 50), 0);
            assert_int_equal(append(&fixture->b, 9, 0, 1, "y").version, CLIENTS + 1);
        }
        assert_value(&fixture->b, 0, "xxxxy");
        /* Which also has the table made anew: it is not for each session. */
        assert_int_equal(verb(&fixture->b, KV_COMMAND_EXPIRE, 0, 0, 0), 0);
        struct kv_table *table = kv_machine_table(fixture->b.replica.machine);
        assert_int_equal(table->shards[0].state, SHARD_SERVING);
        assert_int_equal(table->shards[0].session_count, CLIENTS + 1);
        assert_int_equal(table->pending_count, 1);
        kv_table_unref(table);
        for (uint64_t client = 1; client <= CLIENTS; client++) {
            assert_int_equal(append(&fixture->b, client, 0, 1, "x").version, client);
        }
        for (uint32_t i = 0; i < old.count; i++) {
            buf_deinit(&old.payloads[i]);
        }
        for (uint32_t i = 0; i < new.count; i++) {
            buf_deinit(&new.payloads[i]);
        }
        groups_reopen(fixture);
    }
}

/* ---- 68: what comes late ---- */

static void assert_unmoved(struct kv_single *single, const struct kv_command *command)
{
    uint64_t before = kv_replica_hash(&single->replica);
    struct kv_table *table = kv_machine_table(single->replica.machine);
    enum shard_state state = table->shards[command->shard].state;
    kv_table_unref(table);
    (void)kv_single_run(single, command);
    assert_int_equal(kv_single_state(single, command->shard), state);
    assert_int_equal(kv_replica_hash(&single->replica), before);
}

/* Every command that the moves of this log consisted of, config by config. */
static void replay_all(struct kv_single *single, const struct kv_log *log, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct bytes payload = blob_view(log->commands[i].payload);
        struct kv_command command;
        assert_int_equal(kv_command_decode(payload, &command), 0);
        if (command.kind != KV_COMMAND_BLOCK && command.kind != KV_COMMAND_EXPIRE) {
            assert_unmoved(single, &command);
        }
    }
}

/* Shard 0 goes to group 2, comes back and goes again; after each step everything that was ever sent
 * to either group arrives once more, as from drivers of former terms. Nothing that was dropped
 * comes back, and nothing that is served goes. */
static void test_s68_late_messages_revive_no_dropped_shard(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *a = &fixture->a;
    struct kv_single *b = &fixture->b;
    struct kv_single *singles[] = {a, b};
    all_to_a(fixture);
    assert_int_equal(append(a, 9, 0, 1, "x").error, 0);
    for (uint64_t number = 2; number <= 4; number++) {
        struct kv_single *from = number % 2 == 0 ? a : b;
        struct kv_single *to = number % 2 == 0 ? b : a;
        uint64_t to_id = to->replica.group_id;
        config_both(fixture, number, (const uint64_t[SHARDS]){to_id, 1, 1, 1, 1},
                    (const uint64_t[SHARDS]){from->replica.group_id, 1, 1, 1, 1});
        replay_all(from, &from->log, from->log.count - 1);
        replay_all(to, &to->log, to->log.count - 1);
        assert_int_equal(kv_copy_shard(from, to, 0, number, 40), 0);
        assert_int_equal(append(to, 9, 0, number, "x").error, 0);
        replay_all(to, &to->log, to->log.count);
        assert_int_equal(verb(from, KV_COMMAND_DROP, 0, number, to_id), 0);
        assert_int_equal(verb(from, KV_COMMAND_STEP, 0, number, 0), 0);
        assert_int_equal(kv_single_state(from, 0), SHARD_ABSENT);
        assert_int_equal(verb(to, KV_COMMAND_DROP_CONFIRMED, 0, number, 0), 0);
        for (size_t i = 0; i < 2; i++) {
            replay_all(singles[i], &singles[i]->log, singles[i]->log.count);
            /* What the other group was sent, and reads of what is not there any more. */
            replay_all(singles[i], &singles[1 - i]->log, singles[1 - i]->log.count);
        }
        assert_int_equal(kv_move_check(from->replica.machine, 0, number, to_id), ERR_NOT_FOUND);
        assert_int_equal(kv_single_state(from, 0), SHARD_ABSENT);
        refuses_everything(from, ERR_WRONG_GROUP);
    }
    assert_value(b, 0, "xxxx");
}

/* ---- 66, 70: crashes around the install ---- */

/* Of what the destination wrote since its last flush any prefix survives. Wherever it was cut, it
 * comes to the same end, and the source keeps its rows until it is told that they are installed. */
static void test_s66_destination_crashes_between_install_and_drop(void **state)
{
    struct fixture *fixture = *state;
    all_to_a(fixture);
    assert_int_equal(append(&fixture->a, 9, 0, 1, "x").error, 0);
    shard_0_to_b(fixture);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 40), 0);
    uint64_t wanted = kv_replica_hash(&fixture->b.replica);
    struct rng rng;
    rng_init(&rng, 66);
    uint32_t installed = 0;
    for (size_t keep = 0;; keep++) {
        struct kv_replica other = {0};
        kv_replica_open(&other, GROUP_B);
        kv_replica_apply_random(&other, &fixture->b.log, &rng);
        size_t batches = fake_store_unflushed(other.fake);
        kv_replica_crash(&other, keep < batches ? keep : batches);
        struct kv_table *table = kv_machine_table(other.machine);
        /* The shard is served and the drop is owed, or neither: both stand in one batch. */
        bool serves = table->config_number == 2 && table->shards[0].state == SHARD_SERVING;
        assert_int_equal(table->pending_count, serves ? 1 : 0);
        installed += serves;
        kv_table_unref(table);
        kv_replica_apply_random(&other, &fixture->b.log, &rng);
        assert_int_equal(kv_replica_hash(&other), wanted);
        kv_replica_close(&other);
        if (keep >= batches) {
            break;
        }
    }
    assert_true(installed > 0);
    assert_int_equal(kv_single_state(&fixture->a, 0), SHARD_FROZEN);
    /* The driver of its next life reads from the table what is owed. */
    kv_replica_crash(&fixture->b.replica, fake_store_unflushed(fixture->b.replica.fake));
    struct kv_table *table = kv_machine_table(fixture->b.replica.machine);
    assert_int_equal(table->pending_count, 1);
    assert_int_equal(table->pending[0].number, 2);
    kv_table_unref(table);
    assert_int_equal(verb(&fixture->a, KV_COMMAND_DROP, 0, 2, GROUP_B), 0);
    assert_int_equal(verb(&fixture->a, KV_COMMAND_STEP, 0, 2, 0), 0);
    assert_int_equal(append(&fixture->b, 9, 0, 1, "x").version, 1);
    assert_value(&fixture->b, 0, "x");
}

/* Whatever part of an install survives, the applied position in the store is that of the state
 * beside it: shard 0's rows are all there exactly when its record says so. */
static void test_s70_crash_inside_install_leaves_record_rows_and_position_agreeing(void **state)
{
    struct fixture *fixture = *state;
    all_to_a(fixture);
    for (uint64_t client = 1; client <= CLIENTS; client++) {
        assert_int_equal(append(&fixture->a, client, 0, 1, "x").error, 0);
    }
    shard_0_to_b(fixture);
    assert_int_equal(kv_copy_shard(&fixture->a, &fixture->b, 0, 2, 1), 0);
    uint64_t install_at = fixture->b.log.last_index;
    uint64_t config_at = install_at - CLIENTS - 3; /* a key, its sessions, the counter */
    for (size_t keep = 0;; keep++) {
        struct kv_replica other = {0};
        kv_replica_open(&other, GROUP_B);
        for (uint64_t index = 1; index <= install_at; index++) {
            kv_replica_apply(&other, &fixture->b.log, index, NULL);
        }
        size_t batches = fake_store_unflushed(other.fake);
        kv_replica_crash(&other, keep < batches ? keep : batches);
        uint64_t applied = other.sm.ops->applied(other.sm.sm).index;
        struct kv_table *table = kv_machine_table(other.machine);
        if (applied >= config_at) {
            const struct shard_record *record = &table->shards[0];
            bool all = applied >= install_at;
            assert_int_equal(record->state, all ? SHARD_SERVING : SHARD_PULLING);
            assert_int_equal(table->pending_count, all ? 1 : 0);
            if (!all) {
                assert_int_equal(record->rows, applied - config_at);
            }
        } else {
            assert_true(table->config_number < 2);
        }
        kv_table_unref(table);
        kv_replica_close(&other);
        if (keep >= batches) {
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENARIO(test_s38_read_queued_across_a_move_is_judged_when_it_is_served),
        SCENARIO(test_s59_nothing_is_served_before_the_install),
        SCENARIO(test_s60_nothing_is_acknowledged_after_the_freeze),
        SCENARIO(test_s66_destination_crashes_between_install_and_drop),
        SCENARIO(test_s67_old_driver_finishes_after_a_new_one_began),
        SCENARIO(test_s68_late_messages_revive_no_dropped_shard),
        SCENARIO(test_s70_crash_inside_install_leaves_record_rows_and_position_agreeing),
    };
    log_set_level(LOG_ERROR); /* thousands of transitions */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
