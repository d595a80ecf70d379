/* A group of real replicas over virtual time: electing, proposing, reading, crashing, changing
 * members. */
#include "base/log.h"
#include "node/kv_ask.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LIMIT_NS (20 * SIM_S)

static void ignore_change(void *context, int error)
{
    (void)context;
    (void)error;
}

static struct harness_options options_with_kv(uint64_t seed)
{
    struct harness_options options = harness_options_default(seed);
    options.machine = kv_machine_for_harness();
    return options;
}

static struct harness *group_of_three(uint64_t seed)
{
    struct harness_options options = options_with_kv(seed);
    struct harness *harness = harness_create(&options);
    harness_start_all(harness);
    return harness;
}

static uint32_t leader_of(struct harness *harness)
{
    int leader = harness_wait_leader(harness, LIMIT_NS);
    assert_true(leader >= 0);
    return (uint32_t)leader;
}

static struct node_status status_of(struct harness *harness, uint32_t slot)
{
    struct node_status status;
    assert_true(harness_is_up(harness, slot));
    replica_status(harness_replica(harness, slot), &status);
    return status;
}

static void test_replica_three_elect_one_and_apply_everywhere(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(1);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    assert_true(kv_put(harness, "b", "2", LIMIT_NS));
    assert_true(harness_wait_applied(harness, 3, LIMIT_NS));
    for (uint32_t slot = 0; slot < 3; slot++) {
        assert_true(kv_holds(harness, slot, "a", "1"));
        assert_true(kv_holds(harness, slot, "b", "2"));
    }
    assert_true(kv_all_equal(harness));
    harness_destroy(harness);
}

static void test_replica_single_member_works_alone(void **state)
{
    (void)state;
    struct harness_options options = options_with_kv(2);
    options.slot_count = 1;
    options.member_count = 1;
    struct harness *harness = harness_create(&options);
    harness_start_all(harness);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    harness_crash(harness, 0, FAKE_CRASH_LOSE);
    harness_start_all(harness);
    struct buf value;
    buf_init(&value);
    assert_true(kv_get(harness, "a", &value, LIMIT_NS));
    assert_true(bytes_equal(buf_view(&value), bytes_of_string("1")));
    buf_deinit(&value);
    harness_destroy(harness);
}

static void test_replica_commands_at_once_share_entries(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    struct harness *harness = group_of_three(3);
    uint32_t leader = leader_of(harness);
    uint64_t before = status_of(harness, leader).raft.last.index;
    static struct kv_ask asks[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%u", i);
        kv_ask_init(&asks[i]);
        kv_ask_put(harness, leader, key, "v", &asks[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(kv_ask_wait(harness, &asks[i], LIMIT_NS));
        assert_int_equal(asks[i].error, ERR_OK);
        assert_int_equal(asks[i].code, ERR_OK);
        kv_ask_deinit(&asks[i]);
    }
    uint64_t entries = status_of(harness, leader).raft.last.index - before;
    assert_in_range(entries, 1, COUNT / 5);
    assert_int_equal(kv_machine_count(harness_machine_of(harness, leader)), COUNT);
    harness_destroy(harness);
}

static void test_replica_follower_refuses_to_propose_and_read(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(4);
    uint32_t follower = (leader_of(harness) + 1) % 3;
    struct kv_ask put;
    struct kv_ask get;
    kv_ask_init(&put);
    kv_ask_init(&get);
    kv_ask_put(harness, follower, "a", "1", &put);
    kv_ask_get(harness, follower, "a", &get);
    assert_true(kv_ask_wait(harness, &put, LIMIT_NS));
    assert_true(kv_ask_wait(harness, &get, LIMIT_NS));
    assert_int_equal(put.error, ERR_NOT_LEADER);
    assert_int_equal(get.error, ERR_NOT_LEADER);
    harness_destroy(harness);
}

static void test_replica_too_large_command_is_refused_alone(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(5);
    uint32_t leader = leader_of(harness);
    char *large = mem_alloc(NODE_COMMAND_BYTES_MAX + 1);
    memset(large, 'x', NODE_COMMAND_BYTES_MAX);
    large[NODE_COMMAND_BYTES_MAX] = '\0';
    struct kv_ask asks[2];
    kv_ask_init(&asks[0]);
    kv_ask_init(&asks[1]);
    kv_ask_put(harness, leader, "large", large, &asks[0]);
    kv_ask_put(harness, leader, "small", "s", &asks[1]);
    assert_true(kv_ask_wait(harness, &asks[0], LIMIT_NS));
    assert_true(kv_ask_wait(harness, &asks[1], LIMIT_NS));
    assert_int_equal(asks[0].error, ERR_TOO_LARGE);
    assert_int_equal(asks[1].error, ERR_OK);
    free(large);
    harness_destroy(harness);
}

static void test_replica_leader_crash_elects_another_and_it_returns(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(6);
    assert_true(kv_put_many(harness, "before", 20, 10, LIMIT_NS));
    uint32_t first = leader_of(harness);
    harness_crash(harness, first, FAKE_CRASH_ANY);
    assert_true(kv_put_many(harness, "after", 20, 10, LIMIT_NS));
    uint32_t second = leader_of(harness);
    assert_int_not_equal(first, second);
    harness_start_all(harness);
    uint64_t last = status_of(harness, second).raft.last.index;
    assert_true(harness_wait_applied(harness, last, LIMIT_NS));
    assert_true(kv_holds(harness, first, "after19", "vvvvvvvvvv"));
    assert_true(kv_all_equal(harness));
    harness_destroy(harness);
}

static void test_replica_all_lose_power_nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 120; seed++) {
        struct harness *harness = group_of_three(seed);
        assert_true(kv_put_many(harness, "k", 30, 50, LIMIT_NS));
        for (uint32_t slot = 0; slot < 3; slot++) {
            harness_crash(harness, slot, FAKE_CRASH_ANY);
        }
        harness_start_all(harness);
        assert_true(kv_put(harness, "last", "l", LIMIT_NS));
        uint32_t leader = leader_of(harness);
        assert_int_equal(kv_machine_count(harness_machine_of(harness, leader)), 31);
        assert_true(harness_wait_applied(harness, harness_applied(harness, leader), LIMIT_NS));
        assert_true(kv_all_equal(harness));
        harness_destroy(harness);
    }
}

static void test_replica_cut_off_leader_answers_lost_and_not_leader(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(7);
    uint32_t leader = leader_of(harness);
    harness_partition(harness, 1u << leader);
    struct kv_ask put;
    struct kv_ask get;
    kv_ask_init(&put);
    kv_ask_init(&get);
    kv_ask_put(harness, leader, "a", "1", &put);
    kv_ask_get(harness, leader, "a", &get);
    assert_true(kv_ask_wait(harness, &put, LIMIT_NS));
    assert_true(kv_ask_wait(harness, &get, LIMIT_NS));
    assert_int_equal(put.error, ERR_LEADER_LOST);
    assert_int_equal(get.error, ERR_NOT_LEADER);
    harness_heal(harness);
    assert_true(kv_put(harness, "b", "2", LIMIT_NS));
    harness_destroy(harness);
}

static void test_replica_read_never_sees_less_than_an_acknowledged_write(void **state)
{
    (void)state;
    struct harness_options options = options_with_kv(8);
    options.latency[REPLICA_APPLY] = (struct harness_latency){5 * SIM_MS, 20 * SIM_MS};
    struct harness *harness = harness_create(&options);
    harness_start_all(harness);
    for (uint32_t i = 0; i < 50; i++) {
        char value[16];
        struct buf held;
        snprintf(value, sizeof(value), "%u", i);
        assert_true(kv_put(harness, "counter", value, LIMIT_NS));
        if (i % 10 == 5) {
            harness_crash(harness, leader_of(harness), FAKE_CRASH_ANY);
        }
        buf_init(&held);
        assert_true(kv_get(harness, "counter", &held, LIMIT_NS));
        assert_true(bytes_equal(buf_view(&held), bytes_of_string(value)));
        buf_deinit(&held);
        if (i % 10 == 5) {
            harness_start_all(harness);
        }
    }
    harness_destroy(harness);
}

static void test_replica_lagging_follower_is_served_from_the_log(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(9);
    uint32_t away = (leader_of(harness) + 1) % 3;
    harness_crash(harness, away, FAKE_CRASH_ANY);
    /* More than the cache holds (so it is read back from disk), less than what is flushed and
     * compacted. */
    assert_true(kv_put_many(harness, "k", 40, 1000, LIMIT_NS));
    harness_start_all(harness);
    assert_true(harness_wait_applied(harness, 40, LIMIT_NS));
    assert_true(kv_all_equal(harness));
    assert_int_equal(harness_counters(harness)->restores, 0);
    harness_destroy(harness);
}

static void test_replica_follower_behind_compaction_gets_a_snapshot(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(10);
    uint32_t leader = leader_of(harness);
    uint32_t away = (leader + 1) % 3;
    assert_true(kv_put_many(harness, "early", 5, 100, LIMIT_NS));
    harness_crash(harness, away, FAKE_CRASH_ANY);
    assert_true(kv_put_many(harness, "k", 300, 1000, LIMIT_NS));
    assert_true(status_of(harness, leader_of(harness)).raft.log_start.index > 50);
    harness_start_all(harness);
    assert_true(harness_wait_applied(harness, 300, LIMIT_NS));
    assert_true(kv_all_equal(harness));
    assert_true(harness_counters(harness)->restores >= 1);
    /* It goes on as an ordinary follower, and remembers over a crash. */
    assert_true(kv_put(harness, "later", "l", LIMIT_NS));
    harness_crash(harness, away, FAKE_CRASH_ANY);
    harness_start_all(harness);
    assert_true(harness_wait_applied(harness, 301, LIMIT_NS));
    assert_true(kv_all_equal(harness));
    harness_destroy(harness);
}

static void test_replica_log_stays_bounded_under_load(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(11);
    assert_true(kv_put_many(harness, "k", 1500, 1000, LIMIT_NS));
    harness_run_for(harness, SIM_S);
    for (uint32_t slot = 0; slot < 3; slot++) {
        struct node_status status = status_of(harness, slot);
        assert_true(status.raft.log_start.index > 1000);
        /* of 1.5 MB written; the first flush comes at 64 KiB */
        assert_in_range(status.log_bytes, 1, 8 * 64 * 1024);
    }
    assert_int_equal(harness_counters(harness)->restores, 0);
    harness_destroy(harness);
}

static void test_replica_failed_sync_ends_it_and_others_go_on(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(12);
    uint32_t leader = leader_of(harness);
    fake_vfs_fail(harness_disk(harness, leader), FAKE_SYNC, 3, ERR_IO);
    assert_true(kv_put_many(harness, "k", 20, 10, LIMIT_NS));
    assert_int_equal(harness_counters(harness)->fatals, 1);
    assert_false(harness_is_up(harness, leader));
    assert_non_null(strstr(harness_why(harness, leader), "syncing the log"));
    harness_start_all(harness);
    assert_true(harness_wait_applied(harness, 20, LIMIT_NS));
    assert_true(kv_all_equal(harness));
    harness_destroy(harness);
}

static void test_replica_full_disk_ends_it_with_advice_and_it_recovers(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(13);
    uint32_t leader = leader_of(harness);
    struct fake_vfs *disk = harness_disk(harness, leader);
    fake_vfs_set_space(disk, fake_vfs_space_used(disk) + 8 * 1024);
    assert_true(kv_put_many(harness, "k", 100, 1000, LIMIT_NS));
    assert_false(harness_is_up(harness, leader));
    assert_non_null(strstr(harness_why(harness, leader), "make room"));
    fake_vfs_set_space(disk, UINT64_MAX);
    harness_start_all(harness);
    assert_true(harness_wait_applied(harness, 100, LIMIT_NS));
    assert_true(kv_all_equal(harness));
    harness_destroy(harness);
}

static void test_replica_wiped_disk_is_refused(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(14);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    uint32_t leader = leader_of(harness);
    uint32_t wiped = (leader + 1) % 3;
    uint32_t other = (leader + 2) % 3;
    harness_run_for(harness, SIM_S);
    harness_crash(harness, wiped, FAKE_CRASH_ANY);
    harness_wipe(harness, wiped);
    assert_int_equal(harness_start(harness, wiped), ERR_OK);
    harness_crash(harness, other, FAKE_CRASH_ANY);
    /* The leader and the one that lost its memory are no majority. */
    assert_false(kv_put(harness, "b", "2", 5 * SIM_S));
    harness_start_all(harness);
    assert_true(kv_put(harness, "b", "2", LIMIT_NS));
    harness_destroy(harness);
}

/* A new leader whose state machine is far behind what is committed: it applies slowly. */
static void test_replica_new_leader_behind_in_applying_serves_no_old_value(void **state)
{
    (void)state;
    struct harness_options options = options_with_kv(19);
    struct harness *harness = harness_create(&options);
    harness_start_all(harness);
    assert_true(kv_put(harness, "counter", "old", LIMIT_NS));
    uint32_t leader = leader_of(harness);
    uint32_t slow = (leader + 1) % 3;
    harness_set_latency(harness, slow, REPLICA_APPLY,
                        (struct harness_latency){300 * SIM_MS, 300 * SIM_MS});
    assert_true(kv_put_many(harness, "k", 20, 10, LIMIT_NS));
    assert_true(kv_put(harness, "counter", "new", LIMIT_NS));
    harness_transfer(harness, leader, slow + 1, ignore_change, NULL);
    while (harness_leader(harness) != (int)slow) {
        harness_run_for(harness, SIM_MS);
    }
    assert_true(harness_applied(harness, slow) < harness_applied(harness, leader));
    struct kv_ask get;
    kv_ask_init(&get);
    kv_ask_get(harness, slow, "counter", &get);
    assert_true(kv_ask_wait(harness, &get, LIMIT_NS));
    assert_int_equal(get.error, ERR_OK);
    assert_true(bytes_equal(buf_view(&get.value), bytes_of_string("new")));
    kv_ask_deinit(&get);
    harness_destroy(harness);
}

struct change {
    bool answered;
    int error;
};

static void change_done(void *context, int error)
{
    struct change *change = context;
    assert_false(change->answered);
    change->answered = true;
    change->error = error;
}

static bool change_answered(struct harness *harness, void *context)
{
    (void)harness;
    return ((const struct change *)context)->answered;
}

static int change_member(struct harness *harness, enum raft_change_kind kind, uint64_t id)
{
    struct change change = {0};
    harness_change_member(harness, leader_of(harness), kind, id, change_done, &change);
    assert_true(harness_run_until(harness, change_answered, &change, LIMIT_NS));
    return change.error;
}

static void test_replica_waiting_one_is_added_promoted_and_removed(void **state)
{
    (void)state;
    struct harness_options options = options_with_kv(15);
    options.slot_count = 4;
    struct harness *harness = harness_create(&options);
    harness_start_all(harness);
    /* compacted: the new one needs a snapshot */
    assert_true(kv_put_many(harness, "k", 150, 1000, LIMIT_NS));
    harness_set_waiting(harness, 3, true);
    assert_int_equal(harness_start(harness, 3), ERR_OK);
    harness_run_for(harness, SIM_S);
    assert_int_equal(replica_role(harness_replica(harness, 3)), NODE_LEARNER);
    assert_int_equal(change_member(harness, RAFT_ADD_LEARNER, 4), ERR_OK);
    assert_int_equal(change_member(harness, RAFT_ADD_LEARNER, 4), ERR_MEMBERSHIP_BAD);
    harness_run_for(harness, 3 * SIM_S);
    assert_true(kv_holds(harness, 3, "k149", "") || harness_applied(harness, 3) > 150);
    assert_int_equal(change_member(harness, RAFT_PROMOTE, 4), ERR_OK);
    harness_run_for(harness, SIM_S);
    assert_int_equal(replica_role(harness_replica(harness, 3)), NODE_FOLLOWER);
    /* Four members: any two down is no majority, the new one counts when one is. */
    uint32_t leader = leader_of(harness);
    harness_crash(harness, (leader + 1) % 3, FAKE_CRASH_ANY);
    assert_true(kv_put(harness, "with-three", "t", LIMIT_NS));
    harness_start_all(harness);
    uint32_t removed = (leader_of(harness) + 1) % 4;
    assert_int_equal(change_member(harness, RAFT_REMOVE, removed + 1), ERR_OK);
    assert_true(kv_put(harness, "without", "w", LIMIT_NS));
    assert_int_equal(status_of(harness, leader_of(harness)).raft.membership.count, 3);
    harness_destroy(harness);
}

/* A removal that never was committed makes nobody forget who the member was: should it come back
 * with an empty disk, it is refused. */
static void test_replica_wiped_disk_is_refused_after_a_removal_rolled_back(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(20);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    uint32_t leader = leader_of(harness);
    uint32_t wiped = (leader + 1) % 3;
    uint32_t other = (leader + 2) % 3;
    harness_run_for(harness, SIM_S);
    harness_crash(harness, wiped, FAKE_CRASH_KEEP);
    harness_crash(harness, other, FAKE_CRASH_KEEP);
    struct change change = {0};
    harness_change_member(harness, leader, RAFT_REMOVE, wiped + 1, change_done, &change);
    assert_true(harness_run_until(harness, change_answered, &change, LIMIT_NS));
    assert_int_equal(change.error, ERR_LEADER_LOST);
    assert_int_equal(status_of(harness, leader).raft.membership.count, 2);
    /* The two that never heard of it elect one of themselves, and it is rolled back. */
    harness_crash(harness, leader, FAKE_CRASH_KEEP);
    assert_int_equal(harness_start(harness, wiped), ERR_OK);
    assert_int_equal(harness_start(harness, other), ERR_OK);
    assert_true(kv_put(harness, "b", "2", LIMIT_NS));
    harness_crash(harness, wiped, FAKE_CRASH_KEEP);
    assert_int_equal(harness_start(harness, leader), ERR_OK);
    assert_true(kv_put(harness, "c", "3", LIMIT_NS));
    assert_int_equal(status_of(harness, leader).raft.membership.count, 3);
    harness_wipe(harness, wiped);
    assert_int_equal(harness_start(harness, wiped), ERR_OK);
    harness_crash(harness, other, FAKE_CRASH_KEEP);
    assert_false(kv_put(harness, "d", "4", 5 * SIM_S));
    harness_destroy(harness);
}

static void test_replica_transfer_moves_leadership(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(16);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    uint32_t leader = leader_of(harness);
    uint32_t target = (leader + 1) % 3;
    struct change change = {0};
    harness_transfer(harness, leader, target + 1, change_done, &change);
    assert_true(harness_run_until(harness, change_answered, &change, LIMIT_NS));
    assert_int_equal(change.error, ERR_OK);
    assert_true(kv_put(harness, "b", "2", LIMIT_NS));
    assert_int_equal(leader_of(harness), target);
    harness_destroy(harness);
}

static void test_replica_transfer_to_a_dead_target_is_given_up(void **state)
{
    (void)state;
    struct harness *harness = group_of_three(17);
    uint32_t leader = leader_of(harness);
    uint32_t target = (leader + 1) % 3;
    harness_crash(harness, target, FAKE_CRASH_ANY);
    struct change change = {0};
    harness_transfer(harness, leader, target + 1, change_done, &change);
    assert_true(harness_run_until(harness, change_answered, &change, LIMIT_NS));
    assert_int_equal(change.error, ERR_TRANSFER_FAILED);
    assert_true(kv_put(harness, "b", "2", LIMIT_NS));
    assert_int_equal(leader_of(harness), leader);
    harness_destroy(harness);
}

static void test_replica_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    struct harness_counters counters[2];
    uint64_t ended_ns[2];
    for (size_t i = 0; i < 2; i++) {
        struct harness *harness = group_of_three(18);
        assert_true(kv_put_many(harness, "k", 50, 100, LIMIT_NS));
        harness_crash(harness, leader_of(harness), FAKE_CRASH_ANY);
        assert_true(kv_put_many(harness, "l", 50, 100, LIMIT_NS));
        counters[i] = *harness_counters(harness);
        ended_ns[i] = harness_now_ns(harness);
        harness_destroy(harness);
    }
    assert_true(ended_ns[0] == ended_ns[1]);
    assert_memory_equal(&counters[0], &counters[1], sizeof(counters[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replica_three_elect_one_and_apply_everywhere),
        cmocka_unit_test(test_replica_single_member_works_alone),
        cmocka_unit_test(test_replica_commands_at_once_share_entries),
        cmocka_unit_test(test_replica_follower_refuses_to_propose_and_read),
        cmocka_unit_test(test_replica_too_large_command_is_refused_alone),
        cmocka_unit_test(test_replica_leader_crash_elects_another_and_it_returns),
        cmocka_unit_test(test_replica_all_lose_power_nothing_acknowledged_is_lost),
        cmocka_unit_test(test_replica_cut_off_leader_answers_lost_and_not_leader),
        cmocka_unit_test(test_replica_read_never_sees_less_than_an_acknowledged_write),
        cmocka_unit_test(test_replica_new_leader_behind_in_applying_serves_no_old_value),
        cmocka_unit_test(test_replica_lagging_follower_is_served_from_the_log),
        cmocka_unit_test(test_replica_follower_behind_compaction_gets_a_snapshot),
        cmocka_unit_test(test_replica_log_stays_bounded_under_load),
        cmocka_unit_test(test_replica_failed_sync_ends_it_and_others_go_on),
        cmocka_unit_test(test_replica_full_disk_ends_it_with_advice_and_it_recovers),
        cmocka_unit_test(test_replica_wiped_disk_is_refused),
        cmocka_unit_test(test_replica_waiting_one_is_added_promoted_and_removed),
        cmocka_unit_test(test_replica_wiped_disk_is_refused_after_a_removal_rolled_back),
        cmocka_unit_test(test_replica_transfer_moves_leadership),
        cmocka_unit_test(test_replica_transfer_to_a_dead_target_is_given_up),
        cmocka_unit_test(test_replica_same_seed_gives_the_same_run),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? LOG_ERROR : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
