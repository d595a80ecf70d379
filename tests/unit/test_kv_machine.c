/* The state machine against a model: random operations of several clients, retries, batches cut at
 * random, crashes that lose what was not flushed. Both must agree on every result, and replicas
 * with different batches and crashes on every byte. */
#include "kv_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 4, KEYS = 12, CLIENTS = 3, GROUP = 7 };

static void all_to_us(struct kv_single *single)
{
    uint64_t owners[SHARDS];
    uint64_t sources[SHARDS] = {0};
    for (uint32_t i = 0; i < SHARDS; i++) {
        owners[i] = GROUP;
    }
    assert_int_equal(kv_single_config(single, 1, SHARDS, owners, sources), 0);
}

/* ---- the model: what one client may expect, without sessions, batches or stores ---- */

struct model_row {
    char value[4096];
    size_t size;
    uint64_t version; /* 0: absent */
};
struct model_client {
    uint64_t next_sequence;
    uint64_t acked_below;
    struct op ops[64]; /* the last ones, by sequence % 64 */
    char values[64][16];
    struct op_result results[64];
    bool executed[64];
};
struct model {
    struct model_row rows[KEYS];
    uint64_t versions[SHARDS];
    struct model_client clients[CLIENTS];
    char keys[KEYS][8];
};

static uint32_t key_shard(uint32_t key)
{
    return key % SHARDS;
}

static struct op_result model_run(struct model *model, uint32_t key, const struct op *op)
{
    struct model_row *row = &model->rows[key];
    uint64_t *version = &model->versions[op->shard];
    struct op_result result = {0};
    switch (op->kind) {
    case OP_CAS:
        if (row->version != op->expected_version) {
            return (struct op_result){.error = ERR_VERSION_MISMATCH, .version = row->version};
        }
        row->size = 0;
        break;
    case OP_DELETE:
        row->version = 0;
        row->size = 0;
        return result;
    case OP_PUT:
        row->size = 0;
        break;
    case OP_APPEND:
        row->size = row->version == 0 ? 0 : row->size;
        break;
    case OP_GET:
        fail();
    }
    if (row->size + op->value.size > sizeof row->value) {
        fail_msg("the model's value grew too large");
    }
    memcpy(row->value + row->size, op->value.data, op->value.size);
    row->size += op->value.size;
    row->version = ++*version;
    result.version = row->version;
    return result;
}

static struct op random_op(struct model *model, struct rng *rng, char value[16], uint32_t *key)
{
    const enum op_kind kinds[] = {OP_PUT, OP_APPEND, OP_APPEND, OP_DELETE, OP_CAS};
    *key = (uint32_t)rng_below(rng, KEYS);
    struct op op = {
        .kind = kinds[rng_below(rng, 5)], .shard = key_shard(*key), .key = KEY(model->keys[*key])};
    if (op.kind == OP_APPEND && model->rows[*key].size > 2000) {
        op.kind = OP_PUT;
    }
    if (op.kind != OP_DELETE) {
        snprintf(value, 16, "<%u>", (unsigned)rng_below(rng, 100000));
        op.value = KEY(value);
    }
    if (op.kind == OP_CAS) {
        op.expected_version =
            rng_chance(rng, 1, 2) ? model->rows[*key].version : rng_below(rng, 50);
    }
    return op;
}

/* A block of one client: new commands and repetitions of old ones that it has not acknowledged. */
static void add_block(struct model *model, struct rng *rng, struct kv_log *log,
                      struct buf *expected)
{
    struct model_client *client = &model->clients[rng_below(rng, CLIENTS)];
    uint64_t client_id = 100 + (uint64_t)(client - model->clients);
    uint32_t fresh = (uint32_t)rng_between(rng, 1, 8);
    struct op ops[16];
    uint32_t count = 0;
    for (uint64_t s = client->acked_below; s < client->next_sequence && count < 8; s++) {
        if (rng_chance(rng, 1, 4)) {
            ops[count++] = client->ops[s % 64];
        }
    }
    for (uint32_t i = 0; i < fresh; i++) {
        uint64_t sequence = client->next_sequence++;
        uint32_t key = 0;
        struct op *op = &client->ops[sequence % 64];
        *op = random_op(model, rng, client->values[sequence % 64], &key);
        op->sequence = sequence;
        client->results[sequence % 64] = model_run(model, key, op);
        ops[count++] = *op;
    }
    struct buf payload = {0};
    block_put_header(&payload, &(struct block_header){.client_id = client_id,
                                                      .acked_below = client->acked_below,
                                                      .count = count});
    put_u8(expected, 0);
    results_put_count(expected, count);
    for (uint32_t i = 0; i < count; i++) {
        block_put_op(&payload, &ops[i]);
        results_put(expected, ops[i].kind, &client->results[ops[i].sequence % 64]);
    }
    kv_log_add(log, &payload);
    uint64_t lowest = client->next_sequence > 40 ? client->next_sequence - 40 : 1;
    lowest = lowest < client->acked_below ? client->acked_below : lowest; /* never goes back */
    if (client->acked_below < lowest || rng_chance(rng, 1, 4)) {
        client->acked_below = rng_between(rng, lowest, client->next_sequence);
    }
}

static void check_rows(struct model *model, struct kv_single *single)
{
    struct buf value = {0};
    for (uint32_t i = 0; i < KEYS; i++) {
        struct op_result result = kv_single_get(single, key_shard(i), model->keys[i], &value);
        assert_int_equal(result.error, model->rows[i].version == 0 ? ERR_NOT_FOUND : 0);
        assert_int_equal(result.version, model->rows[i].version);
        if (result.error == 0) {
            assert_int_equal(value.size, model->rows[i].size + 1);
            assert_memory_equal(value.data, model->rows[i].value, model->rows[i].size);
        }
    }
    buf_deinit(&value);
}

static void random_run(uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    struct model *model = test_calloc(1, sizeof *model);
    for (uint32_t i = 0; i < KEYS; i++) {
        snprintf(model->keys[i], sizeof model->keys[i], "key%u", (unsigned)i);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        model->clients[i].next_sequence = 1;
        model->clients[i].acked_below = 1;
    }
    struct kv_single first = {0};
    kv_single_open(&first, GROUP);
    all_to_us(&first);
    struct kv_replica second = {.session_cache_bytes =
                                    1}; /* forgets every session after each batch */
    kv_replica_open(&second, GROUP);
    for (uint32_t step = 0; step < 60; step++) {
        struct buf expected = {0};
        struct buf got = {0};
        uint32_t entries = (uint32_t)rng_between(&rng, 1, 4);
        for (uint32_t e = 0; e < entries; e++) {
            kv_log_entry(&first.log, rng_below(&rng, 1000));
            for (uint64_t blocks = rng_below(&rng, 4); blocks > 0; blocks--) {
                add_block(model, &rng, &first.log, &expected);
            }
        }
        kv_replica_apply(&first.replica, &first.log, first.log.last_index, &got);
        assert_int_equal(got.size, expected.size);
        if (got.size > 0) {
            assert_memory_equal(got.data, expected.data, got.size);
        }
        buf_deinit(&got);
        buf_deinit(&expected);
        if (rng_chance(&rng, 1, 3)) {
            kv_replica_apply_random(&second, &first.log, &rng);
        }
        if (rng_chance(&rng, 1, 6)) {
            assert_int_equal(second.sm.ops->flush(second.sm.sm), 0);
            assert_int_equal(second.sm.ops->durable(second.sm.sm).index,
                             second.sm.ops->applied(second.sm.sm).index);
        }
        if (rng_chance(&rng, 1, 5)) {
            kv_replica_crash(&second, rng_below(&rng, fake_store_unflushed(second.fake) + 1));
        }
    }
    check_rows(model, &first);
    kv_replica_apply_random(&second, &first.log, &rng);
    assert_int_equal(kv_replica_hash(&second), kv_replica_hash(&first.replica));
    kv_replica_close(&second);
    kv_single_close(&first);
    test_free(model);
}

static void test_kv_machine_random_commands_agree_with_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        random_run(seed);
    }
}

/* ---- single rules ---- */

struct fixture {
    struct kv_single single;
};

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof *fixture);
    fixture->single.replica.sessions_max = 3;
    kv_single_open(&fixture->single, GROUP);
    all_to_us(&fixture->single);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    kv_single_close(&fixture->single);
    test_free(fixture);
    return 0;
}

static struct op put_op(uint64_t sequence, const char *key, const char *value)
{
    return (struct op){
        .kind = OP_PUT, .sequence = sequence, .shard = 1, .key = KEY(key), .value = KEY(value)};
}

static void test_kv_append_over_limit_is_refused_and_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    uint8_t *large = test_calloc(1, VALUE_BYTES_MAX);
    struct op op = {
        .kind = OP_PUT, .shard = 1, .key = KEY("k"), .value = bytes_of(large, VALUE_BYTES_MAX - 1)};
    assert_int_equal(kv_single_op(&fixture->single, 0, &op).error, 0);
    op.kind = OP_APPEND;
    op.value = KEY("ab");
    struct op_result result = kv_single_op(&fixture->single, 0, &op);
    assert_int_equal(result.error, ERR_TOO_LARGE);
    assert_int_equal(result.version, 1);
    op.value = KEY("a");
    assert_int_equal(kv_single_op(&fixture->single, 0, &op).error, 0);
    struct buf value = {0};
    assert_int_equal(kv_single_get(&fixture->single, 1, "k", &value).version, 2);
    assert_int_equal(value.size, VALUE_BYTES_MAX + 1);
    buf_deinit(&value);
    test_free(large);
}

static void test_kv_version_after_delete_is_never_used_again(void **state)
{
    struct fixture *fixture = *state;
    uint64_t before = kv_single_put(&fixture->single, 1, "k", "a").version;
    struct op op = {.kind = OP_DELETE, .shard = 1, .key = KEY("k")};
    struct op_result deleted = kv_single_op(&fixture->single, 0, &op);
    assert_int_equal(deleted.error, 0);
    assert_int_equal(deleted.version, 0);
    assert_int_equal(kv_single_op(&fixture->single, 0, &op).error, 0); /* absent: done as well */
    assert_true(kv_single_put(&fixture->single, 1, "k", "b").version > before);
}

static void test_kv_cas_checks_version_and_absence(void **state)
{
    struct fixture *fixture = *state;
    struct op op = {
        .kind = OP_CAS, .shard = 1, .key = KEY("k"), .value = KEY("a"), .expected_version = 5};
    struct op_result result = kv_single_op(&fixture->single, 0, &op);
    assert_int_equal(result.error, ERR_VERSION_MISMATCH);
    assert_int_equal(result.version, 0);
    op.expected_version = 0;
    result = kv_single_op(&fixture->single, 0, &op);
    assert_int_equal(result.error, 0);
    op.expected_version = result.version;
    assert_true(kv_single_op(&fixture->single, 0, &op).version > result.version);
}

static void test_kv_sequence_reused_or_stale_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    struct op op = put_op(4, "k", "a");
    struct op_result first = kv_single_op(&fixture->single, 9, &op);
    assert_int_equal(first.error, 0);
    assert_int_equal(kv_single_op(&fixture->single, 9, &op).version, first.version);
    op = put_op(4, "k", "b");
    assert_int_equal(kv_single_op(&fixture->single, 9, &op).error, ERR_SEQUENCE_REUSED);
    op = put_op(6, "k", "c");
    struct block_header header = {.client_id = 9, .acked_below = 5, .count = 1};
    assert_int_equal(kv_single_block(&fixture->single, &header, &op).error, 0);
    op = put_op(4, "k", "a");
    assert_int_equal(kv_single_op(&fixture->single, 9, &op).error, ERR_SEQUENCE_STALE);
    struct buf value = {0};
    kv_single_get(&fixture->single, 1, "k", &value);
    assert_string_equal(value.data, "c");
    buf_deinit(&value);
}

static void test_kv_command_too_old_is_refused_not_executed(void **state)
{
    struct fixture *fixture = *state;
    struct op op = put_op(1, "k", "a");
    struct block_header header = {.client_id = 9, .age_ms = COMMAND_AGE_MS_MAX + 1, .count = 1};
    assert_int_equal(kv_single_block(&fixture->single, &header, &op).error, ERR_SESSION_EXPIRED);
    assert_int_equal(kv_single_get(&fixture->single, 1, "k", NULL).error, ERR_NOT_FOUND);
    header.age_ms = COMMAND_AGE_MS_MAX;
    assert_int_equal(kv_single_block(&fixture->single, &header, &op).error, 0);
}

static void test_kv_sessions_full_is_refused_until_one_expires(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *single = &fixture->single;
    struct op op = put_op(1, "k", "a");
    for (uint64_t client = 1; client <= 3; client++) {
        assert_int_equal(kv_single_op(single, client, &op).error, 0);
    }
    assert_int_equal(kv_single_op(single, 4, &op).error, ERR_SESSIONS_FULL);
    op.shard = 2; /* another shard has its own */
    assert_int_equal(kv_single_op(single, 4, &op).error, 0);
    op.shard = 1;
    single->log.time_ms += SESSION_TTL_MS - 100;
    assert_int_equal(kv_single_op(single, 2, &op).error, 0); /* repeats: active again */
    assert_int_equal(
        kv_single_run(single, &(struct kv_command){.kind = KV_COMMAND_EXPIRE, .shard = 1}), 0);
    assert_int_equal(kv_single_op(single, 4, &op).error, ERR_SESSIONS_FULL);
    single->log.time_ms += 200;
    assert_int_equal(
        kv_single_run(single, &(struct kv_command){.kind = KV_COMMAND_EXPIRE, .shard = 1}), 0);
    assert_int_equal(kv_single_op(single, 4, &op).error, 0);
    assert_int_equal(kv_single_op(single, 5, &op).error, 0);
    assert_int_equal(kv_single_op(single, 6, &op).error, ERR_SESSIONS_FULL);
}

static void test_kv_expiry_step_and_session_in_one_batch_see_each_other(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *single = &fixture->single;
    struct kv_replica other = {.sessions_max = 3};
    kv_replica_open(&other, GROUP);
    kv_replica_apply(&other, &single->log, single->log.last_index, NULL);
    /* Written, expired, and written again by the same client, all in one batch here and one by one
     * there. */
    for (uint32_t round = 0; round < 3; round++) {
        for (uint64_t client = 1; client <= 2; client++) {
            struct op op = put_op(1, "k", "a");
            struct buf payload = {0};
            block_put_header(&payload, &(struct block_header){.client_id = client, .count = 1});
            block_put_op(&payload, &op);
            kv_log_entry(&single->log, 1);
            kv_log_add(&single->log, &payload);
        }
        struct buf expire = {0};
        kv_command_encode(&(struct kv_command){.kind = KV_COMMAND_EXPIRE, .shard = 1}, &expire);
        kv_log_entry(&single->log, round == 0 ? 5 : SESSION_TTL_MS + 1);
        kv_log_add(&single->log, &expire);
    }
    kv_replica_apply(&single->replica, &single->log, single->log.last_index, NULL);
    for (uint64_t i = other.sm.ops->applied(other.sm.sm).index + 1; i <= single->log.last_index;
         i++) {
        kv_replica_apply(&other, &single->log, i, NULL);
    }
    assert_int_equal(kv_replica_hash(&other), kv_replica_hash(&single->replica));
    struct buf value = {0};
    assert_int_equal(kv_single_get(single, 1, "k", &value).version, 4); /* 2, none (repeats), 2 */
    buf_deinit(&value);
    kv_replica_close(&other);
}

/* Commands without sessions are executed again when they are applied again, so their versions tell.
 */
static void add_plain_put(struct kv_log *log, const char *value)
{
    struct op op = put_op(0, "k", value);
    struct buf payload = {0};
    block_put_header(&payload, &(struct block_header){.count = 1});
    block_put_op(&payload, &op);
    kv_log_add(log, &payload);
}

static void add_expire(struct kv_log *log)
{
    struct buf payload = {0};
    kv_command_encode(&(struct kv_command){.kind = KV_COMMAND_EXPIRE, .shard = 1}, &payload);
    kv_log_add(log, &payload);
}

static void test_kv_crash_between_two_writes_of_one_batch_replays_exactly_the_rest(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *single = &fixture->single;
    for (uint32_t entry = 0; entry < 3; entry++) {
        kv_log_entry(&single->log, 1);
        for (uint32_t i = 0; i < 3; i++) { /* every expiry writes what stands before it at once */
            add_plain_put(&single->log, "a");
            add_plain_put(&single->log, "b");
            add_expire(&single->log);
        }
    }
    uint64_t start = single->replica.sm.ops->applied(single->replica.sm.sm).index;
    kv_replica_apply(&single->replica, &single->log, single->log.last_index, NULL);
    assert_int_equal(kv_single_get(single, 1, "k", NULL).version, 18);
    uint64_t wanted = kv_replica_hash(&single->replica);
    for (size_t keep = 0; keep < 100; keep++) {
        struct kv_replica other = {.sessions_max = 3};
        kv_replica_open(&other, GROUP);
        kv_replica_apply(&other, &single->log, start, NULL);
        kv_replica_apply(&other, &single->log, single->log.last_index, NULL);
        size_t batches = fake_store_unflushed(other.fake);
        assert_true(batches > 9);
        kv_replica_crash(&other, keep < batches ? keep : batches);
        if (other.sm.ops->applied(other.sm.sm).index < start) {
            kv_replica_apply(&other, &single->log, start, NULL);
        }
        if (other.sm.ops->applied(other.sm.sm).index < single->log.last_index) {
            kv_replica_apply(&other, &single->log, single->log.last_index, NULL);
        }
        assert_int_equal(kv_replica_hash(&other), wanted);
        kv_replica_close(&other);
        if (keep >= batches) {
            break;
        }
    }
}

/* After a start the log is replayed in batches of another cut: the commit index is learned bit by
 * bit. */
static void test_kv_crash_in_a_batch_replayed_in_smaller_batches_applies_nothing_twice(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *single = &fixture->single;
    uint64_t start = single->replica.sm.ops->applied(single->replica.sm.sm).index;
    for (uint32_t entry = 0; entry < 3; entry++) {
        kv_log_entry(&single->log, 1);
        add_plain_put(&single->log, "a");
        add_plain_put(&single->log, "b");
    }
    add_expire(&single->log); /* in the last entry: writes the ones before it at once */
    add_plain_put(&single->log, "c");
    kv_replica_apply(&single->replica, &single->log, single->log.last_index, NULL);
    uint64_t wanted = kv_replica_hash(&single->replica);
    bool partial = false;
    for (size_t keep = 0;; keep++) {
        struct kv_replica other = {.sessions_max = 3};
        kv_replica_open(&other, GROUP);
        kv_replica_apply(&other, &single->log, start, NULL);
        kv_replica_apply(&other, &single->log, single->log.last_index, NULL);
        size_t batches = fake_store_unflushed(other.fake);
        kv_replica_crash(&other, keep < batches ? keep : batches);
        uint64_t applied = other.sm.ops->applied(other.sm.sm).index;
        partial = partial || (applied == start && keep > 1);
        for (uint64_t index = applied + 1; index <= single->log.last_index; index++) {
            kv_replica_apply(&other, &single->log, index, NULL);
        }
        assert_int_equal(kv_replica_hash(&other), wanted);
        kv_replica_close(&other);
        if (keep >= batches) {
            break;
        }
    }
    assert_true(partial);
}

static void test_kv_store_that_fails_stops_apply_with_its_error(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *single = &fixture->single;
    fake_store_fail(single->replica.fake, 0, 1);
    struct sm_batch batch = {.last = {single->log.last_index + 1, 1}};
    assert_int_equal(single->replica.sm.ops->apply(single->replica.sm.sm, &batch), ERR_IO);
    assert_int_equal(single->replica.sm.ops->applied(single->replica.sm.sm).index,
                     single->log.last_index);
}

static void test_kv_unknown_and_malformed_commands_change_nothing(void **state)
{
    struct fixture *fixture = *state;
    uint64_t before = kv_replica_hash(&fixture->single.replica);
    const char *payloads[] = {
        "", "\x00", "\x7f", "\x01", "\x42", "\x43\x01", "\x44\xff\xff\xff\xff", "\x41zz"};
    for (size_t i = 0; i < sizeof payloads / sizeof payloads[0]; i++) {
        struct buf payload = {0};
        buf_append(&payload, payloads[i], strlen(payloads[i]));
        kv_log_entry(&fixture->single.log, 1);
        kv_log_add(&fixture->single.log, &payload);
        kv_replica_apply(&fixture->single.replica, &fixture->single.log,
                         fixture->single.log.last_index, NULL);
    }
    assert_int_equal(kv_replica_hash(&fixture->single.replica), before);
}

static void test_kv_results_of_refused_shards_are_flagged(void **state)
{
    struct fixture *fixture = *state;
    struct op op = put_op(0, "k", "a");
    op.shard = SHARDS; /* out of range: like a shard of another group */
    assert_int_equal(kv_single_op(&fixture->single, 0, &op).error, ERR_WRONG_GROUP);
    assert_int_equal(kv_single_get(&fixture->single, SHARDS, "k", NULL).error, ERR_WRONG_GROUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv_machine_random_commands_agree_with_model),
        cmocka_unit_test_setup_teardown(test_kv_append_over_limit_is_refused_and_changes_nothing,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kv_version_after_delete_is_never_used_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_kv_cas_checks_version_and_absence, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kv_sequence_reused_or_stale_is_an_error, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_kv_command_too_old_is_refused_not_executed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_kv_sessions_full_is_refused_until_one_expires, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_kv_expiry_step_and_session_in_one_batch_see_each_other,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_kv_crash_between_two_writes_of_one_batch_replays_exactly_the_rest, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_kv_crash_in_a_batch_replayed_in_smaller_batches_applies_nothing_twice, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(test_kv_store_that_fails_stops_apply_with_its_error, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_kv_unknown_and_malformed_commands_change_nothing,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_kv_results_of_refused_shards_are_flagged, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
