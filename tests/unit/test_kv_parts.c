/* The small parts of the state machine: keys, commands, records, the overlay of a batch, the cache
 * of sessions, rows of a move. */
#include "kv_fixture.h"

#include "shardkv/keys.h"
#include "shardkv/move_rows.h"
#include "shardkv/overlay.h"
#include "shardkv/session_cache.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ---- */

static void test_keys_of_a_shard_lie_in_its_ranges_and_in_no_other(void **state)
{
    (void)state;
    const uint32_t shards[] = {0, 1, 255, 256, SHARD_COUNT_MAX - 1};
    for (size_t i = 0; i < sizeof shards / sizeof shards[0]; i++) {
        for (size_t j = 0; j < sizeof shards / sizeof shards[0]; j++) {
            struct store_key key;
            struct store_key from;
            struct store_key to;
            key_of_data(shards[i], bytes_of("\xff\xff\xff", 3), &key);
            key_range(KEY_SPACE_DATA, shards[j], &from, &to);
            bool in = bytes_compare(store_key_view(&key), store_key_view(&from)) >= 0 &&
                      bytes_compare(store_key_view(&key), store_key_view(&to)) < 0;
            assert_int_equal(in, i == j);
            key_of_session(shards[i], UINT64_MAX, &key);
            key_range(KEY_SPACE_SESSION, shards[j], &from, &to);
            in = bytes_compare(store_key_view(&key), store_key_view(&from)) >= 0 &&
                 bytes_compare(store_key_view(&key), store_key_view(&to)) < 0;
            assert_int_equal(in, i == j);
        }
    }
}

static void test_keys_parse_what_was_built_and_nothing_else(void **state)
{
    (void)state;
    struct store_key key;
    uint32_t shard = 0;
    uint64_t number = 0;
    key_of_shard(300, &key);
    assert_true(key_parse_shard(store_key_view(&key), &shard));
    assert_int_equal(shard, 300);
    assert_false(key_parse_session(store_key_view(&key), &shard, &number));
    key_of_session(7, 0x0102030405060708ull, &key);
    assert_true(key_parse_session(store_key_view(&key), &shard, &number));
    assert_int_equal(shard, 7);
    assert_int_equal(number, 0x0102030405060708ull);
    key_of_pending(9, 77, &key);
    assert_true(key_parse_pending(store_key_view(&key), &shard, &number));
    assert_int_equal(shard, 9);
    assert_int_equal(number, 77);
    assert_false(key_parse_pending(key_config(), &shard, &number));
    assert_false(key_parse_shard(bytes_of("h\xff\xff", 3), &shard)); /* no such shard */
}

static void test_keys_of_rows_are_the_same_in_every_group(void **state)
{
    (void)state;
    struct store_key key;
    struct store_key row;
    struct store_key again;
    key_of_data(5, KEY("name"), &key);
    row_key_of(store_key_view(&key), &row);
    assert_memory_equal(row.data, "dname", 5);
    assert_true(key_of_row(5, store_key_view(&row), &again));
    assert_true(bytes_equal(store_key_view(&again), store_key_view(&key)));
    assert_false(key_of_row(5, KEY("v"), &again));
    assert_false(key_of_row(5, KEY("mxx"), &again));
    assert_false(key_of_row(5, KEY("s123"), &again));
    uint8_t large[KEY_BYTES_MAX + 2];
    memset(large, 'd', sizeof large);
    assert_false(key_of_row(5, bytes_of(large, sizeof large), &again));
    assert_true(key_of_row(5, bytes_of(large, sizeof large - 1), &again));
}

/* ---- commands and records ---- */

static void test_command_survives_encoding(void **state)
{
    (void)state;
    const struct kv_command commands[] = {
        {.kind = KV_COMMAND_CONFIG, .config = KEY("bytes")},
        {.kind = KV_COMMAND_CHUNK,
         .shard = 3,
         .number = 4,
         .generation = 5,
         .after_row = KEY("da"),
         .last_row = KEY("db"),
         .end = true,
         .rows = KEY("rows")},
        {.kind = KV_COMMAND_INSTALL,
         .shard = 3,
         .number = 4,
         .generation = 5,
         .row_count = 6,
         .row_bytes = 7,
         .checksum = UINT64_MAX},
        {.kind = KV_COMMAND_DROP, .shard = 3, .number = 4, .group = 5},
        {.kind = KV_COMMAND_STEP, .shard = 3, .number = 4},
        {.kind = KV_COMMAND_DROP_CONFIRMED, .shard = 3, .number = 4},
        {.kind = KV_COMMAND_EXPIRE, .shard = 3},
    };
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const struct kv_command *a = &commands[i];
        struct buf bytes = {0};
        struct kv_command b;
        kv_command_encode(a, &bytes);
        assert_int_equal(kv_command_decode(buf_view(&bytes), &b), 0);
        assert_int_equal(b.kind, a->kind);
        assert_int_equal(b.shard, a->shard);
        assert_int_equal(b.number, a->number);
        assert_int_equal(b.generation, a->generation);
        assert_int_equal(b.group, a->group);
        assert_true(bytes_equal(b.config, a->config));
        assert_true(bytes_equal(b.after_row, a->after_row));
        assert_true(bytes_equal(b.last_row, a->last_row));
        assert_true(bytes_equal(b.rows, a->rows));
        assert_int_equal(b.end, a->end);
        assert_int_equal(b.row_count, a->row_count);
        assert_int_equal(b.row_bytes, a->row_bytes);
        assert_int_equal(b.checksum, a->checksum);
        for (size_t cut = 0; cut < bytes.size && a->kind != KV_COMMAND_CONFIG; cut++) {
            assert_int_equal(kv_command_decode(bytes_of(bytes.data, cut), &b), ERR_PROTOCOL);
        }
        buf_deinit(&bytes);
    }
    struct kv_command unknown;
    assert_int_equal(kv_command_decode(KEY("\x60"), &unknown), ERR_UNSUPPORTED);
    assert_int_equal(kv_command_result(BYTES_EMPTY), ERR_PROTOCOL);
}

static void test_shard_record_survives_encoding_and_damage_is_found(void **state)
{
    (void)state;
    struct shard_record record = {
        .state = SHARD_PULLING,
        .number = 300,
        .peer_group = 4,
        .version = 1ull << 60,
        .session_count = 5,
        .expire_from = UINT64_MAX,
        .frozen_ms = 6,
        .generation = 7,
        .clearing = true,
        .complete = true,
        .rows = 8,
        .bytes = 9,
        .checksum = UINT64_MAX,
    };
    shard_record_set_last_row(&record, KEY("dkey"));
    struct buf bytes = {0};
    struct shard_record again;
    shard_record_encode(&record, &bytes);
    assert_int_equal(shard_record_decode(buf_view(&bytes), &again), 0);
    struct buf second = {0};
    shard_record_encode(&again, &second);
    assert_true(bytes_equal(buf_view(&bytes), buf_view(&second)));
    assert_int_equal(again.version, 1ull << 60);
    shard_record_clear(&again);
    for (size_t cut = 0; cut < bytes.size; cut++) {
        assert_int_equal(shard_record_decode(bytes_of(bytes.data, cut), &again), ERR_CORRUPT);
    }
    bytes.data[1] = SHARD_DROPPING + 1;
    assert_int_equal(shard_record_decode(buf_view(&bytes), &again), ERR_CORRUPT);
    shard_record_clear(&record);
    assert_int_equal(record.state, SHARD_ABSENT);
    buf_deinit(&bytes);
    buf_deinit(&second);
}

static void test_pending_source_survives_encoding(void **state)
{
    (void)state;
    struct config_group group = {.id = 9, .replica_count = 2};
    group.replicas[0].id = 1;
    group.replicas[1].id = 5;
    snprintf(group.replicas[0].address, ADDRESS_BYTES_MAX, "a:1");
    snprintf(group.replicas[1].address, ADDRESS_BYTES_MAX, "b:2");
    struct buf bytes = {0};
    struct config_group again;
    pending_source_encode(&group, &bytes);
    assert_int_equal(pending_source_decode(buf_view(&bytes), &again), 0);
    assert_int_equal(again.id, 9);
    assert_int_equal(again.replica_count, 2);
    assert_int_equal(again.replicas[1].id, 5);
    assert_string_equal(again.replicas[1].address, "b:2");
    for (size_t cut = 0; cut < bytes.size; cut++) {
        assert_int_equal(pending_source_decode(bytes_of(bytes.data, cut), &again), ERR_CORRUPT);
    }
    buf_deinit(&bytes);
}

/* ---- the overlay ---- */

static void test_overlay_keeps_the_last_of_each_key(void **state)
{
    (void)state;
    enum { KEYS = 3000 };
    struct overlay overlay;
    overlay_init(&overlay);
    static char keys[KEYS][8];
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < KEYS; i++) {
            snprintf(keys[i], sizeof keys[i], "%u", (unsigned)i);
            for (uint32_t shard = 0; shard < 2; shard++) {
                struct overlay_row *row = overlay_row_of(&overlay, shard, KEY(keys[i]));
                overlay_row_set(row, KEY(keys[i]), i + 1 + shard);
            }
        }
        assert_int_equal(overlay.count, KEYS * 2);
        for (uint32_t i = 0; i < KEYS; i++) {
            assert_int_equal(overlay_find(&overlay, 1, KEY(keys[i]))->version, i + 2);
        }
        assert_null(overlay_find(&overlay, 2, KEY(keys[0])));
        overlay_sort(&overlay);
        for (uint32_t i = 1; i < overlay.count; i++) {
            const struct overlay_row *a = &overlay.rows[i - 1];
            const struct overlay_row *b = &overlay.rows[i];
            assert_true(a->shard < b->shard ||
                        (a->shard == b->shard && bytes_compare(a->key, b->key) < 0));
        }
        overlay_clear(&overlay);
        assert_null(overlay_find(&overlay, 0, KEY(keys[0])));
    }
    overlay_deinit(&overlay);
}

static void test_overlay_appends_own_their_bytes(void **state)
{
    (void)state;
    struct overlay overlay;
    overlay_init(&overlay);
    char base[] = "base";
    struct overlay_row *row = overlay_row_of(&overlay, 0, KEY("k"));
    assert_true(row->deleted);
    overlay_row_append(row, KEY(base), KEY("+1"), 1);
    memset(base, 'x', 4); /* what was borrowed is gone */
    overlay_row_append(row, row->value, KEY("+2"), 2);
    assert_int_equal(row->value.size, 8);
    assert_memory_equal(row->value.data, "base+1+2", 8);
    overlay_row_delete(row);
    assert_true(row->deleted);
    overlay_row_append(row, BYTES_EMPTY, KEY("new"), 3);
    assert_memory_equal(row->value.data, "new", 3);
    overlay_deinit(&overlay);
}

/* ---- the cache of sessions ---- */

static void test_session_cache_forgets_clean_ones_and_finds_them_in_the_store(void **state)
{
    (void)state;
    struct fake_store *fake = fake_store_create(NULL);
    struct store store = fake_store_as_store(fake);
    struct session_cache cache;
    session_cache_init(&cache, 2000);
    struct store_batch *batch = store.ops->batch_create(store.store);
    struct buf scratch = {0};
    struct session_entry *entry = NULL;
    for (uint64_t client = 1; client <= 200; client++) {
        assert_int_equal(session_cache_get(&cache, &store, 3, client, &entry), ERR_NOT_FOUND);
        entry = session_cache_add(&cache, 3, client);
        session_record(&entry->session, &(struct session_result){.sequence = client, .code = 2});
        session_cache_mark_dirty(&cache, entry);
    }
    assert_true(session_cache_has_dirty(&cache));
    session_cache_write(&cache, &store, batch, &scratch);
    assert_int_equal(store.ops->write(store.store, batch), 0);
    assert_false(session_cache_has_dirty(&cache));
    session_cache_trim(&cache);
    assert_true(cache.bytes <= 2000);
    assert_true(cache.count < 20);
    for (uint64_t client = 1; client <= 200; client++) {
        assert_int_equal(session_cache_get(&cache, &store, 3, client, &entry), 0);
        assert_int_equal(entry->session.count, 1);
        assert_int_equal(entry->session.results[0].sequence, client);
        assert_int_equal(session_cache_get(&cache, &store, 4, client, &entry), ERR_NOT_FOUND);
    }
    session_cache_drop(&cache, 3, 200);
    session_cache_drop_shard(&cache, 3);
    assert_int_equal(cache.count, 0);
    assert_int_equal(cache.bytes, 0);
    buf_deinit(&scratch);
    store.ops->batch_destroy(batch);
    session_cache_deinit(&cache);
    fake_store_destroy(fake);
}

/* One client has a session in each shard. There are far more of them than the cache has lists, so
 * that some share one. */
static void test_session_cache_keeps_a_clients_shards_apart(void **state)
{
    (void)state;
    enum { SHARDS = 4096, CLIENT = 77 };
    struct fake_store *fake = fake_store_create(NULL);
    struct store store = fake_store_as_store(fake);
    struct session_cache cache;
    session_cache_init(&cache, UINT64_MAX);
    struct session_entry *entry = NULL;
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        assert_int_equal(session_cache_get(&cache, &store, shard, CLIENT, &entry), ERR_NOT_FOUND);
        entry = session_cache_add(&cache, shard, CLIENT);
        session_record(&entry->session, &(struct session_result){.sequence = shard + 1});
    }
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        assert_int_equal(session_cache_get(&cache, &store, shard, CLIENT, &entry), 0);
        assert_int_equal(entry->session.results[0].sequence, shard + 1);
    }
    session_cache_deinit(&cache);
    fake_store_destroy(fake);
}

/* ---- rows of a move ---- */

static void test_move_rows_survive_packing_and_sum_in_any_order(void **state)
{
    (void)state;
    struct buf rows = {0};
    move_row_put(&rows, KEY("da"), KEY("1"));
    move_row_put(&rows, KEY("db"), BYTES_EMPTY);
    assert_int_equal(rows.size,
                     move_row_bytes(KEY("da"), KEY("1")) + move_row_bytes(KEY("db"), BYTES_EMPTY));
    struct reader reader = reader_of(buf_view(&rows));
    struct bytes key;
    struct bytes value;
    assert_int_equal(move_row_next(&reader, &key, &value), 0);
    assert_true(bytes_equal(key, KEY("da")));
    assert_int_equal(move_row_next(&reader, &key, &value), 0);
    assert_int_equal(value.size, 0);
    assert_int_equal(move_row_next(&reader, &key, &value), ERR_NOT_FOUND);
    reader = reader_of(bytes_of(rows.data, rows.size - 1));
    assert_int_equal(move_row_next(&reader, &key, &value), 0);
    assert_int_equal(move_row_next(&reader, &key, &value), ERR_PROTOCOL);
    assert_true(move_row_hash(KEY("ab"), KEY("c")) != move_row_hash(KEY("a"), KEY("bc")));
    assert_true(move_row_hash(KEY("a"), KEY("b")) != move_row_hash(KEY("b"), KEY("a")));
    buf_deinit(&rows);
}

static uint32_t longest_chain(const struct session_cache *cache)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < cache->bucket_count; i++) {
        uint32_t length = 0;
        for (struct session_entry *at = cache->buckets[i]; at != NULL; at = at->hash_next) {
            length++;
        }
        longest = length > longest ? length : longest;
    }
    return longest;
}

/* One client in every shard, and every client in one shard: found in a few steps either way. */
static void test_session_cache_spreads_clients_and_shards(void **state)
{
    (void)state;
    enum { MANY = 16384, CHAIN_MAX = 12 };
    for (uint32_t way = 0; way < 2; way++) {
        struct session_cache cache;
        session_cache_init(&cache, UINT64_MAX);
        for (uint32_t i = 0; i < MANY; i++) {
            (void)session_cache_add(&cache, way == 0 ? i : 3,
                                    way == 0 ? 0x1234567890abcdefu : 77 + i);
        }
        assert_int_equal(cache.count, MANY);
        assert_in_range(longest_chain(&cache), 1, CHAIN_MAX);
        session_cache_drop(&cache, way == 0 ? 5000 : 3, way == 0 ? 0x1234567890abcdefu : 77 + 9);
        assert_int_equal(cache.count, MANY - 1);
        session_cache_deinit(&cache);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_of_a_shard_lie_in_its_ranges_and_in_no_other),
        cmocka_unit_test(test_keys_parse_what_was_built_and_nothing_else),
        cmocka_unit_test(test_keys_of_rows_are_the_same_in_every_group),
        cmocka_unit_test(test_command_survives_encoding),
        cmocka_unit_test(test_shard_record_survives_encoding_and_damage_is_found),
        cmocka_unit_test(test_pending_source_survives_encoding),
        cmocka_unit_test(test_overlay_keeps_the_last_of_each_key),
        cmocka_unit_test(test_overlay_appends_own_their_bytes),
        cmocka_unit_test(test_session_cache_forgets_clean_ones_and_finds_them_in_the_store),
        cmocka_unit_test(test_session_cache_spreads_clients_and_shards),
        cmocka_unit_test(test_session_cache_keeps_a_clients_shards_apart),
        cmocka_unit_test(test_move_rows_survive_packing_and_sum_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
