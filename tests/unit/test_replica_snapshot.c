/* Snapshots between replicas: a crash before every step the receiver's disk takes, corrupt streams,
 * leaders that change half way, disks that fill up. */
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

#define LIMIT_NS (30 * SIM_S)

enum { KEYS = 120, VALUE_BYTES = 1000 };

/* A group whose slot `*away` is down and needs a snapshot of some thirty chunks. */
static struct harness *group_with_one_behind(uint64_t seed, uint32_t *away)
{
    struct harness_options options = harness_options_default(seed);
    options.machine = kv_machine_for_harness();
    struct harness *harness = harness_create(&options);
    harness_start_all(harness);
    assert_true(kv_put_many(harness, "early", 3, 100, LIMIT_NS));
    int leader = harness_leader(harness);
    *away = leader == 1 ? 2 : 1;
    harness_run_for(harness, SIM_S);
    harness_crash(harness, *away, FAKE_CRASH_ANY);
    assert_true(kv_put_many(harness, "k", KEYS, VALUE_BYTES, LIMIT_NS));
    harness_run_for(harness, 3 * SIM_S);
    return harness;
}

static void assert_all_well(struct harness *harness)
{
    harness_start_all(harness);
    assert_true(kv_put(harness, "last", "l", LIMIT_NS));
    assert_true(harness_wait_applied(harness, KEYS, LIMIT_NS));
    assert_true(kv_all_equal(harness));
    for (uint32_t slot = 0; slot < 3; slot++) {
        assert_int_equal(kv_machine_count(harness_machine_of(harness, slot)), KEYS + 3 + 1);
    }
}

static bool has_restored(struct harness *harness, void *context)
{
    (void)context;
    return harness_counters(harness)->restores > 0;
}

static void test_snapshot_arrives_and_is_restored(void **state)
{
    (void)state;
    uint32_t away;
    struct harness *harness = group_with_one_behind(1, &away);
    assert_all_well(harness);
    assert_int_equal(harness_counters(harness)->restores, 1);
    harness_destroy(harness);
}

/* How many steps the receiver's disk takes from its start until the snapshot is restored. */
static uint64_t steps_of_install(uint64_t seed)
{
    uint32_t away;
    struct harness *harness = group_with_one_behind(seed, &away);
    uint64_t before = fake_vfs_step_count(harness_disk(harness, away));
    assert_int_equal(harness_start(harness, away), ERR_OK);
    assert_true(harness_run_until(harness, has_restored, NULL, LIMIT_NS));
    harness_run_for(harness, 100 * SIM_MS); /* the folder is removed, the next entries written */
    uint64_t steps = fake_vfs_step_count(harness_disk(harness, away)) - before;
    harness_destroy(harness);
    return steps;
}

static void test_snapshot_crash_before_every_step_of_the_receiver_recovers(void **state)
{
    (void)state;
    enum { SEED = 2 };
    uint64_t steps = steps_of_install(SEED);
    size_t crashed = 0;
    assert_true(steps > 40);
    for (uint64_t step = 1; step <= steps; step++) {
        uint32_t away;
        struct harness *harness = group_with_one_behind(SEED, &away);
        fake_vfs_halt_at(harness_disk(harness, away), step);
        if (harness_start(harness, away) == ERR_OK) {
            (void)harness_run_until(harness, has_restored, NULL, LIMIT_NS);
            harness_run_for(harness, 200 * SIM_MS);
        }
        crashed += harness_is_up(harness, away) ? 0 : 1;
        assert_all_well(harness);
        harness_destroy(harness);
    }
    assert_true(crashed >= steps * 9 / 10); /* the points were really hit */
}

static void test_snapshot_leader_dies_half_way_another_sends_it(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 20; seed++) {
        uint32_t away;
        struct harness *harness = group_with_one_behind(seed, &away);
        uint32_t leader = (uint32_t)harness_wait_leader(harness, LIMIT_NS);
        assert_int_equal(harness_start(harness, away), ERR_OK);
        harness_run_for(harness, (seed - 9) * 8 * SIM_MS);
        harness_crash(harness, leader, FAKE_CRASH_ANY);
        harness_run_for(harness, SIM_S);
        assert_all_well(harness);
        harness_destroy(harness);
    }
}

static void test_snapshot_over_a_bad_network_arrives(void **state)
{
    (void)state;
    for (uint64_t seed = 30; seed < 36; seed++) {
        uint32_t away;
        struct harness *harness = group_with_one_behind(seed, &away);
        struct harness_net bad = harness_net_unreliable();
        harness_set_net(harness, &bad);
        harness_start_all(harness);
        assert_true(harness_run_until(harness, has_restored, NULL, 120 * SIM_S));
        struct harness_net good = harness_net_reliable();
        harness_set_net(harness, &good);
        assert_all_well(harness);
        harness_destroy(harness);
    }
}

/* The receiver's disk garbles the stream: it is noticed, nothing is replaced, and it is sent anew.
 * */
struct garbler {
    struct fake_vfs *disk;
    bool done;
};

static bool garble_image(void *context, enum fake_op op, const char *path, uint64_t step)
{
    struct garbler *garbler = context;
    (void)step;
    if (!garbler->done && op == FAKE_SYNC && strstr(path, "data/image") != NULL) {
        garbler->done = fake_vfs_flip_bit(garbler->disk, path, 5000);
    }
    return false;
}

static void test_snapshot_garbled_on_arrival_is_asked_for_anew(void **state)
{
    (void)state;
    uint32_t away;
    struct harness *harness = group_with_one_behind(40, &away);
    struct garbler garbler = {harness_disk(harness, away), false};
    fake_vfs_set_crash_point(garbler.disk, garble_image, &garbler);
    assert_int_equal(harness_start(harness, away), ERR_OK);
    assert_true(harness_run_until(harness, has_restored, NULL, LIMIT_NS));
    assert_true(garbler.done);
    fake_vfs_set_crash_point(garbler.disk, NULL, NULL);
    assert_all_well(harness);
    assert_int_equal(harness_counters(harness)->fatals, 0);
    harness_destroy(harness);
}

static void test_snapshot_receiver_disk_full_stops_and_recovers(void **state)
{
    (void)state;
    uint32_t away;
    struct harness *harness = group_with_one_behind(41, &away);
    struct fake_vfs *disk = harness_disk(harness, away);
    fake_vfs_set_space(disk, fake_vfs_space_used(disk) + 20 * 1024);
    assert_int_equal(harness_start(harness, away), ERR_OK);
    harness_run_for(harness, 5 * SIM_S);
    assert_false(harness_is_up(harness, away));
    assert_non_null(strstr(harness_why(harness, away), "make room"));
    fake_vfs_set_space(disk, UINT64_MAX);
    assert_all_well(harness);
    harness_destroy(harness);
}

static void ignore_change(void *context, int error)
{
    (void)context;
    (void)error;
}

/* A change of members is in the leader's log, after the snapshot's position, and is rolled back:
 * the receiver of the snapshot must not have heard of it. */
static void test_snapshot_carries_the_members_at_its_position(void **state)
{
    (void)state;
    uint32_t away;
    struct harness *harness = group_with_one_behind(45, &away);
    uint32_t leader = (uint32_t)harness_leader(harness);
    uint32_t other = 3 - leader - away;
    /* It takes a while to be made: until then the change is there. */
    harness_set_latency(harness, leader, REPLICA_BACKGROUND,
                        (struct harness_latency){100 * SIM_MS, 100 * SIM_MS});
    assert_int_equal(harness_start(harness, away), ERR_OK);
    harness_run_for(harness, 60 * SIM_MS);
    harness_crash(harness, other, FAKE_CRASH_KEEP);
    harness_change_member(harness, leader, RAFT_REMOVE, other + 1, ignore_change, NULL);
    assert_true(harness_run_until(harness, has_restored, NULL, LIMIT_NS));
    struct node_status status;
    replica_status(harness_replica(harness, leader), &status);
    assert_int_equal(status.raft.membership.count, 2);
    assert_true(status.raft.commit < status.raft.membership.position.index);
    harness_crash(harness, leader, FAKE_CRASH_KEEP);
    assert_int_equal(harness_start(harness, other), ERR_OK);
    assert_true(kv_put(harness, "after", "a", LIMIT_NS));
    harness_run_for(harness, SIM_S);
    replica_status(harness_replica(harness, away), &status);
    assert_int_equal(status.raft.membership.count, 3);
    harness_destroy(harness);
}

static void count_name(void *context, const char *name)
{
    (void)name;
    (*(size_t *)context)++;
}

static size_t snapshot_folders(struct harness *harness, uint32_t slot)
{
    const struct vfs *vfs = fake_vfs_vfs(harness_disk(harness, slot));
    size_t count = 0;
    assert_int_equal(vfs->list(vfs->context, "replica/snapshot", count_name, &count), ERR_OK);
    return count;
}

/* A leader without room for a snapshot tries now and then, leaves nothing of what failed, and
 * succeeds when there is room. */
static void test_snapshot_sender_disk_full_leaves_nothing_and_tries_again(void **state)
{
    (void)state;
    uint32_t away;
    struct harness *harness = group_with_one_behind(44, &away);
    uint32_t leader = (uint32_t)harness_leader(harness);
    struct fake_vfs *disk = harness_disk(harness, leader);
    fake_vfs_set_space(disk, fake_vfs_space_used(disk) + 4 * 1024);
    uint64_t attempts = fake_vfs_count(disk, FAKE_CREATE);
    assert_int_equal(harness_start(harness, away), ERR_OK);
    harness_run_for(harness, 10 * SIM_S);
    assert_int_equal(harness_leader(harness), leader);
    assert_int_equal(harness_counters(harness)->restores, 0);
    assert_in_range(fake_vfs_count(disk, FAKE_CREATE) - attempts, 2, 100);
    assert_true(snapshot_folders(harness, leader) <= 1);
    fake_vfs_set_space(disk, UINT64_MAX);
    assert_all_well(harness);
    harness_destroy(harness);
}

/* The group goes on writing, more than the log keeps, while the snapshot travels: the receiver
 * catches up all the same. */
static void test_snapshot_while_writes_go_on_catches_up(void **state)
{
    (void)state;
    uint32_t away;
    struct harness *harness = group_with_one_behind(42, &away);
    assert_int_equal(harness_start(harness, away), ERR_OK);
    assert_true(kv_put_many(harness, "k", KEYS, VALUE_BYTES, LIMIT_NS));
    assert_true(kv_put_many(harness, "k", KEYS, VALUE_BYTES, LIMIT_NS));
    assert_all_well(harness);
    assert_in_range(harness_counters(harness)->restores, 1, 3);
    harness_destroy(harness);
}

static void test_snapshot_leaves_no_files_behind(void **state)
{
    (void)state;
    uint32_t away;
    struct harness *harness = group_with_one_behind(43, &away);
    assert_all_well(harness);
    harness_run_for(harness, 60 * SIM_S); /* nobody asks for it any more, so compaction passes it */
    assert_true(kv_put_many(harness, "k", KEYS, VALUE_BYTES, LIMIT_NS));
    assert_true(kv_put_many(harness, "k", KEYS, VALUE_BYTES, LIMIT_NS));
    harness_run_for(harness, 2 * SIM_S);
    for (uint32_t slot = 0; slot < 3; slot++) {
        assert_int_equal(snapshot_folders(harness, slot), 0);
    }
    harness_destroy(harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot_arrives_and_is_restored),
        cmocka_unit_test(test_snapshot_crash_before_every_step_of_the_receiver_recovers),
        cmocka_unit_test(test_snapshot_leader_dies_half_way_another_sends_it),
        cmocka_unit_test(test_snapshot_over_a_bad_network_arrives),
        cmocka_unit_test(test_snapshot_garbled_on_arrival_is_asked_for_anew),
        cmocka_unit_test(test_snapshot_receiver_disk_full_stops_and_recovers),
        cmocka_unit_test(test_snapshot_sender_disk_full_leaves_nothing_and_tries_again),
        cmocka_unit_test(test_snapshot_carries_the_members_at_its_position),
        cmocka_unit_test(test_snapshot_while_writes_go_on_catches_up),
        cmocka_unit_test(test_snapshot_leaves_no_files_behind),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? (enum log_level)(LOG_ERROR + 1) : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
