/* What travels between a leader and its followers, and when: batches, the window, the bound on what
 * is uncommitted, lost messages, entries that have to be read from the disk. replicate_leader.c,
 * core.c. Tests with a number are the scenarios of that number. */
#include "unit/raft_pump.h"

static void test_proposals_before_a_ready_share_one_append(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_tick_all(pump, 2);
    uint64_t before = pump->sent_count;
    struct raft_position position;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(
            raft_core_propose(pump->nodes[1].core, bytes_of_string("x"), NULL, &position), ERR_OK);
    }
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].applied, position.index);
    assert_int_equal(pump->sent_count - before, 4);
    pump_destroy(pump);
}

static void test_each_entry_goes_to_each_follower_once(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_tick_all(pump, 1);
    char text[5001];
    memset(text, 'x', 5000);
    text[5000] = '\0';
    uint64_t before = pump->sent_entry_bytes;
    for (int i = 0; i < 10; i++) {
        pump_commit(pump, 1, text);
        pump_tick_all(pump, 1);
    }
    assert_int_equal(pump->sent_entry_bytes - before, 10 * 5000 * 2);
    pump_destroy(pump);
}

static void test_followers_learn_the_commit_index_with_the_next_heartbeat(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    struct raft_position position = pump_commit(pump, 1, "a");
    pump_tick_all(pump, 1);
    assert_int_equal(pump->nodes[2].applied, position.index);
    assert_int_equal(pump->nodes[3].applied, position.index);
    pump_destroy(pump);
}

/* ---- limits ---- */

static void small_appends(struct raft_core_options *options)
{
    options->append_bytes_max = 200;
    options->inflight_bytes_max = 400;
    options->inflight_count_max = 3;
    options->uncommitted_bytes_max = 3000;
}

static void test_s16_oversized_first_entry_travels_alone(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, small_appends);
    pump_elect(pump, 1);
    char text[1001];
    memset(text, 'y', 1000);
    text[1000] = '\0';
    struct raft_position position;
    assert_int_equal(
        raft_core_propose(pump->nodes[1].core, bytes_of_string("small"), NULL, &position), ERR_OK);
    struct blob *owner = blob_copy(bytes_of_string(text));
    assert_int_equal(raft_core_propose(pump->nodes[1].core, blob_view(owner), owner, &position),
                     ERR_OK);
    blob_unref(owner);
    assert_int_equal(
        raft_core_propose(pump->nodes[1].core, bytes_of_string("small"), NULL, &position), ERR_OK);
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].applied, position.index);
    pump_tick_all(pump, 1);
    assert_int_equal(pump->nodes[2].applied, position.index);
    pump_destroy(pump);
}

static void test_s16_appends_keep_to_the_byte_limit_exactly(void **state)
{
    (void)state;
    struct pump *pump = pump_create(2, small_appends);
    pump_elect(pump, 1);
    struct raft_position position;
    char text[53];
    memset(text, 'z', 52);
    text[52] = '\0'; /* 52 + 48 = 100 bytes each: exactly two fit */
    for (int i = 0; i < 6; i++) {
        struct blob *owner = blob_copy(bytes_of_string(text));
        assert_int_equal(raft_core_propose(pump->nodes[1].core, blob_view(owner), owner, &position),
                         ERR_OK);
        blob_unref(owner);
    }
    pump_collect(pump, 1);
    size_t appends = 0;
    for (size_t i = 0; i < pump->wire.count; i++) {
        if (pump->wire.items[i].message.kind == RAFT_MSG_APPEND) {
            assert_int_equal(pump->wire.items[i].message.entry_count, 2);
            appends++;
        }
    }
    assert_int_equal(appends, 2); /* the window: 400 bytes */
    assert_int_equal(pump_progress(pump, 1, 2).inflight_bytes, 400);
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].applied, position.index);
    pump_destroy(pump);
}

static void test_uncommitted_bytes_are_bounded(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, small_appends);
    pump_elect(pump, 1);
    pump_isolate(pump, 1, true);
    char text[953];
    memset(text, 'z', 952);
    text[952] = '\0';
    struct raft_position position;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(
            raft_core_propose(pump->nodes[1].core, bytes_of_string(text), NULL, &position), ERR_OK);
    }
    assert_int_equal(raft_core_propose(pump->nodes[1].core, BYTES_EMPTY, NULL, &position),
                     ERR_BUSY);
    static char huge[3000];
    assert_int_equal(
        raft_core_propose(pump->nodes[1].core, bytes_of(huge, sizeof(huge)), NULL, &position),
        ERR_TOO_LARGE);
    assert_int_equal(raft_core_propose(pump->nodes[2].core, BYTES_EMPTY, NULL, &position),
                     ERR_NOT_LEADER);
    pump_collect(pump, 1);
    pump_isolate(pump, 1, false);
    pump_tick_all(pump, 3);
    assert_int_equal(raft_core_propose(pump->nodes[1].core, BYTES_EMPTY, NULL, &position), ERR_OK);
    pump_collect(pump, 1);
    pump_destroy(pump);
}

/* ---- what does not arrive ---- */

static void test_s19_unreachable_peer_does_not_stop_the_others(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    raft_core_unreachable(pump->nodes[1].core, 3);
    uint64_t before = pump->sent_count;
    struct raft_position position = pump_commit(pump, 1, "a");
    /* nothing is wasted on the peer that cannot be reached */
    assert_int_equal(pump->sent_count - before, 2);
    pump_tick(pump, 1);
    assert_non_null(pump_find(pump, RAFT_MSG_HEARTBEAT, 2));
    assert_non_null(pump_find(pump, RAFT_MSG_HEARTBEAT, 3));
    pump_isolate(pump, 3, false);
    pump_tick_all(pump, 2);
    assert_int_equal(pump->nodes[3].applied, position.index);
    pump_destroy(pump);
}

static void test_lost_appends_are_noticed_by_a_heartbeat(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    struct raft_position position = pump_propose(pump, 1, "a");
    pump_drop_wire(pump);
    pump_tick_all(pump, 3);
    assert_int_equal(pump->nodes[1].applied, position.index);
    assert_int_equal(pump_progress(pump, 1, 2).match, position.index);
    assert_int_equal(pump_progress(pump, 1, 3).match, position.index);
    pump_destroy(pump);
}

/* ---- what the cache does not hold ---- */

static void small_cache(struct raft_core_options *options)
{
    options->cache_bytes_max = 200;
    options->append_bytes_max = 500;
    options->inflight_bytes_max = 1000;
}

static void test_follower_behind_the_cache_is_fed_from_the_disk(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, small_cache);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    for (int i = 0; i < 40; i++) {
        pump_commit(pump, 1, "some value");
    }
    const struct raft_entry *entries;
    assert_int_equal(raft_core_entries(pump->nodes[1].core, 5, 1000, &entries), 0);
    assert_int_equal(raft_core_entries(pump->nodes[1].core, 41, 1000, &entries), 1);
    pump_isolate(pump, 3, false);
    pump_tick_all(pump, 4);
    assert_int_equal(pump->nodes[3].applied, 41);
    pump_destroy(pump);
}

static void test_loaded_entries_that_do_not_fit_are_ignored(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, small_cache);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    uint64_t before = pump->sent_count;
    struct raft_entry entry = pump_entry(1, 1, "not asked for");
    raft_core_entries_loaded(pump->nodes[1].core, 2, &entry, 1);
    raft_core_entries_loaded(pump->nodes[1].core, 2, NULL, 0);
    raft_core_entries_loaded(pump->nodes[1].core, 9, &entry, 1);
    raft_core_entries_loaded(pump->nodes[2].core, 1, &entry, 1);
    pump_collect(pump, 1);
    assert_int_equal(pump->sent_count, before);
    assert_int_equal(pump_progress(pump, 1, 2).mode, RAFT_REPLICATE);
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_proposals_before_a_ready_share_one_append),
        cmocka_unit_test(test_each_entry_goes_to_each_follower_once),
        cmocka_unit_test(test_followers_learn_the_commit_index_with_the_next_heartbeat),
        cmocka_unit_test(test_s16_oversized_first_entry_travels_alone),
        cmocka_unit_test(test_s16_appends_keep_to_the_byte_limit_exactly),
        cmocka_unit_test(test_uncommitted_bytes_are_bounded),
        cmocka_unit_test(test_s19_unreachable_peer_does_not_stop_the_others),
        cmocka_unit_test(test_lost_appends_are_noticed_by_a_heartbeat),
        cmocka_unit_test(test_follower_behind_the_cache_is_fed_from_the_disk),
        cmocka_unit_test(test_loaded_entries_that_do_not_fit_are_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
