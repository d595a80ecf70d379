/* What a replica's directory may look like when it starts, and log time over restarts. */
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

static struct harness *group(uint64_t seed, uint32_t members)
{
    struct harness_options options = harness_options_default(seed);
    options.machine = kv_machine_for_harness();
    options.slot_count = members;
    options.member_count = members;
    return harness_create(&options);
}

static void remove_path(struct harness *harness, uint32_t slot, const char *path)
{
    const struct vfs *vfs = fake_vfs_vfs(harness_disk(harness, slot));
    assert_int_equal(vfs->remove_tree(vfs->context, path), ERR_OK);
}

static void assert_start_fails(struct harness *harness, uint32_t slot, int error, const char *what,
                               const char *advice)
{
    assert_int_equal(harness_start(harness, slot), error);
    if (strstr(harness_why(harness, slot), what) == NULL ||
        strstr(harness_why(harness, slot), advice) == NULL) {
        fail_msg("said \"%s\", not \"%s\" and \"%s\"", harness_why(harness, slot), what, advice);
    }
}

static void test_recover_crash_before_every_step_of_the_first_start(void **state)
{
    (void)state;
    for (uint64_t step = 1; step < 200; step++) {
        struct harness *harness = group(step, 1);
        fake_vfs_halt_at(harness_disk(harness, 0), step);
        bool went_through =
            harness_start(harness, 0) == ERR_OK && kv_put(harness, "a", "1", 5 * SIM_S);
        if (!went_through) {
            assert_false(harness_is_up(harness, 0));
            harness_start_all(harness);
            assert_true(kv_put(harness, "a", "1", LIMIT_NS));
        }
        harness_destroy(harness);
        if (went_through) {
            assert_true(step > 10); /* otherwise nothing was tried */
            return;
        }
    }
    fail_msg("the first start never went through");
}

static void test_recover_missing_log_is_refused_again_and_again(void **state)
{
    (void)state;
    struct harness *harness = group(1, 3);
    harness_start_all(harness);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    harness_crash(harness, 1, FAKE_CRASH_KEEP);
    remove_path(harness, 1, "replica/wal");
    assert_start_fails(harness, 1, ERR_CORRUPT, "the log is missing", "under a new id");
    assert_start_fails(harness, 1, ERR_CORRUPT, "the log is missing", "under a new id");
    harness_destroy(harness);
}

static void test_recover_missing_identity_is_refused(void **state)
{
    (void)state;
    struct harness *harness = group(2, 3);
    harness_start_all(harness);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    harness_crash(harness, 1, FAKE_CRASH_KEEP);
    remove_path(harness, 1, "replica/identity");
    assert_start_fails(harness, 1, ERR_CORRUPT, "no file `identity`", "under a new id");
    harness_destroy(harness);
}

static void test_recover_damaged_identity_is_refused(void **state)
{
    (void)state;
    struct harness *harness = group(3, 3);
    harness_start_all(harness);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    harness_crash(harness, 1, FAKE_CRASH_KEEP);
    assert_true(fake_vfs_flip_bit(harness_disk(harness, 1), "replica/identity", 200));
    assert_start_fails(harness, 1, ERR_CORRUPT, "identity is damaged", "under a new id");
    harness_destroy(harness);
}

static void test_recover_state_machine_behind_the_log_is_refused(void **state)
{
    (void)state;
    struct harness *harness = group(4, 3);
    harness_start_all(harness);
    assert_true(kv_put_many(harness, "k", 300, 1000, LIMIT_NS));
    harness_run_for(harness, SIM_S);
    harness_crash(harness, 1, FAKE_CRASH_KEEP);
    remove_path(harness, 1, "replica/kv");
    assert_start_fails(harness, 1, ERR_CORRUPT, "the log begins after entry", "under a new id");
    /* One that is given a new disk and a new id joins; the group was fine all the time. */
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    harness_destroy(harness);
}

static void test_recover_log_behind_the_state_machine_is_refused(void **state)
{
    (void)state;
    struct harness *harness = group(5, 1);
    harness_start_all(harness);
    assert_true(kv_put(harness, "a", "1", LIMIT_NS));
    harness_crash(harness, 0, FAKE_CRASH_KEEP);
    struct fake_vfs *older = fake_vfs_clone(harness_disk(harness, 0));
    harness_start_all(harness);
    assert_true(kv_put_many(harness, "k", 200, 1000, LIMIT_NS));
    harness_run_for(harness, SIM_S);
    harness_crash(harness, 0, FAKE_CRASH_KEEP);
    /* The state machine's folder of today with the log of then. */
    struct buf today;
    buf_init(&today);
    assert_true(fake_vfs_file_bytes(harness_disk(harness, 0), "replica/kv/kv.state", &today));
    const struct vfs *vfs = fake_vfs_vfs(older);
    assert_int_equal(vfs_write_atomic(vfs, "replica/kv", "kv.state", buf_view(&today)), ERR_OK);
    buf_deinit(&today);
    harness_swap_disk(harness, 0, older);
    assert_start_fails(harness, 0, ERR_CORRUPT, "but the log ends with entry", "under a new id");
    harness_destroy(harness);
}

/* A store that says it applied another term's entry than the log has at that index. */
static void test_recover_state_machine_of_another_history_is_refused(void **state)
{
    (void)state;
    struct harness *harness = group(10, 1);
    harness_start_all(harness);
    assert_true(kv_put_many(harness, "k", 5, 10, LIMIT_NS));
    uint64_t last = harness_applied(harness, 0);
    harness_crash(harness, 0, FAKE_CRASH_KEEP);
    const struct vfs *vfs = fake_vfs_vfs(harness_disk(harness, 0));
    struct state_machine sm;
    assert_int_equal(kv_machine_open(vfs, "replica", &sm), ERR_OK);
    assert_true(sm.ops->applied(sm.sm).index < last);
    assert_int_equal(sm.ops->apply(sm.sm, &(struct sm_batch){.last = {last, 9}}), ERR_OK);
    assert_int_equal(sm.ops->flush(sm.sm), ERR_OK);
    kv_machine_close(&sm);
    assert_start_fails(harness, 0, ERR_CORRUPT, "of term 9 in the state machine", "under a new id");
    harness_destroy(harness);
}

/* ---- log time -------------------------------------------------------------------------------- */

static uint64_t time_of_a_put(struct harness *harness)
{
    assert_true(kv_put(harness, "t", "t", LIMIT_NS));
    int leader = harness_leader(harness);
    assert_true(leader >= 0);
    return harness_log_time_ms(harness, (uint32_t)leader);
}

static void test_log_time_keeps_the_pace_of_the_clock(void **state)
{
    (void)state;
    struct harness *harness = group(6, 3);
    harness_start_all(harness);
    uint64_t before = time_of_a_put(harness);
    harness_run_for(harness, 60 * SIM_S);
    uint64_t after = time_of_a_put(harness);
    assert_in_range(after - before, 59900, 61000);
    harness_destroy(harness);
}

static void test_log_time_goes_on_over_a_change_of_leader(void **state)
{
    (void)state;
    struct harness *harness = group(7, 3);
    harness_start_all(harness);
    uint64_t before = time_of_a_put(harness);
    uint64_t began_ns = harness_now_ns(harness);
    harness_crash(harness, (uint32_t)harness_leader(harness), FAKE_CRASH_ANY);
    harness_run_for(harness, 20 * SIM_S);
    uint64_t after = time_of_a_put(harness);
    uint64_t passed_ms = (harness_now_ns(harness) - began_ns) / SIM_MS;
    assert_in_range(after - before, passed_ms - 1000, passed_ms + 1000);
    harness_destroy(harness);
}

static void ignore_change(void *context, int error)
{
    (void)context;
    (void)error;
}

static void make_leader(struct harness *harness, uint32_t slot)
{
    for (int i = 0; i < 300 && harness_wait_leader(harness, LIMIT_NS) != (int)slot; i++) {
        int leader = harness_wait_leader(harness, LIMIT_NS);
        harness_transfer(harness, (uint32_t)leader, slot + 1, ignore_change, NULL);
        harness_run_for(harness, 300 * SIM_MS);
    }
    assert_int_equal(harness_wait_leader(harness, LIMIT_NS), slot);
}

/* A leader that had restarted does not count the time when nothing was written; a follower that was
 * up all the while does. When it leads next, log time goes on from what the other one wrote. */
static void test_log_time_does_not_leap_to_a_followers_reckoning(void **state)
{
    (void)state;
    struct harness *harness = group(10, 3);
    harness_start_all(harness);
    (void)time_of_a_put(harness);
    harness_run_for(harness, 1000 * SIM_S);
    uint32_t slot = (uint32_t)harness_wait_leader(harness, LIMIT_NS);
    harness_crash(harness, slot, FAKE_CRASH_ANY);
    harness_start_all(harness);
    make_leader(harness, slot);
    uint64_t before = time_of_a_put(harness);
    assert_in_range(before, 0, 900 * 1000); /* it began anew from the only entry */
    uint64_t began_ns = harness_now_ns(harness);
    make_leader(harness, (slot + 1) % 3);
    uint64_t after = time_of_a_put(harness);
    uint64_t passed_ms = (harness_now_ns(harness) - began_ns) / SIM_MS;
    assert_in_range(after - before, 0, passed_ms + 1000);
    harness_destroy(harness);
}

static bool no_command_is_left(struct harness *harness, uint64_t index)
{
    for (uint32_t slot = 0; slot < 3; slot++) {
        struct node_status status;
        replica_status(harness_replica(harness, slot), &status);
        if (status.raft.log_start.index < index) {
            return false;
        }
    }
    return true;
}

/* Leaders come and go, and their own empty entries push everything else out of the log. */
static void push_commands_out(struct harness *harness)
{
    uint64_t index = harness_applied(harness, (uint32_t)harness_wait_leader(harness, LIMIT_NS));
    for (int i = 0; i < 300 && !no_command_is_left(harness, index); i++) {
        int leader = harness_wait_leader(harness, LIMIT_NS);
        harness_transfer(harness, (uint32_t)leader, 0, ignore_change, NULL);
        harness_run_for(harness, 300 * SIM_MS);
    }
    assert_true(no_command_is_left(harness, index));
}

static struct harness *group_with_short_log(uint64_t seed, uint32_t slots)
{
    struct harness_options options = harness_options_default(seed);
    options.machine = kv_machine_for_harness();
    options.slot_count = slots;
    options.member_count = 3;
    options.replica.flush_log_bytes = 1024;
    struct harness *harness = harness_create(&options);
    harness_start_all(harness);
    return harness;
}

static void test_log_time_survives_the_log_that_carried_it(void **state)
{
    (void)state;
    struct harness *harness = group_with_short_log(8, 3);
    harness_run_for(harness, 100 * SIM_S);
    uint64_t before = time_of_a_put(harness);
    assert_true(before > 90000);
    push_commands_out(harness);
    for (uint32_t slot = 0; slot < 3; slot++) {
        harness_crash(harness, slot, FAKE_CRASH_ANY);
    }
    harness_start_all(harness);
    assert_true(time_of_a_put(harness) >= before);
    harness_destroy(harness);
}

static void test_log_time_travels_with_a_snapshot(void **state)
{
    (void)state;
    struct harness *harness = group_with_short_log(9, 4);
    harness_run_for(harness, 100 * SIM_S);
    uint64_t before = time_of_a_put(harness);
    assert_true(before > 90000);
    push_commands_out(harness);
    harness_set_waiting(harness, 3, true);
    assert_int_equal(harness_start(harness, 3), ERR_OK);
    int leader = harness_wait_leader(harness, LIMIT_NS);
    harness_change_member(harness, (uint32_t)leader, RAFT_ADD_VOTER, 4, ignore_change, NULL);
    harness_run_for(harness, 2 * SIM_S);
    assert_true(harness_counters(harness)->restores > 0);
    harness_crash(harness, 3, FAKE_CRASH_LOSE);
    assert_int_equal(harness_start(harness, 3), ERR_OK);
    /* It leads, and no command has told it the time. */
    for (int i = 0; i < 20 && harness_wait_leader(harness, LIMIT_NS) != 3; i++) {
        leader = harness_leader(harness);
        harness_transfer(harness, (uint32_t)leader, 4, ignore_change, NULL);
        harness_run_for(harness, 500 * SIM_MS);
    }
    assert_int_equal(harness_wait_leader(harness, LIMIT_NS), 3);
    assert_true(time_of_a_put(harness) >= before);
    harness_destroy(harness);
}

/* The disk of a leader stands still, its followers' disks do not: what it commits by their word is
 * not applied before it is in its own log, so its state machine never runs ahead of it. */
static void test_recover_leader_with_a_stalled_disk_is_not_ahead_of_its_log(void **state)
{
    (void)state;
    for (uint64_t seed = 50; seed < 56; seed++) {
        struct harness *harness = group_with_short_log(seed, 3);
        assert_true(kv_put_many(harness, "k", 5, 100, LIMIT_NS));
        int leader = harness_leader(harness);
        struct harness_latency slow = {150 * SIM_MS, 200 * SIM_MS};
        harness_set_latency(harness, (uint32_t)leader, REPLICA_PERSIST, slow);
        static struct kv_ask asks[20];
        for (size_t i = 0; i < 20; i++) {
            kv_ask_init(&asks[i]);
            kv_ask_put(harness, (uint32_t)leader, "s",
                       "a value long enough to have the log flushed", &asks[i]);
            harness_run_for(harness, 15 * SIM_MS);
        }
        harness_crash(harness, (uint32_t)leader, FAKE_CRASH_LOSE);
        slow = (struct harness_latency){SIM_MS, 2 * SIM_MS};
        harness_set_latency(harness, (uint32_t)leader, REPLICA_PERSIST, slow);
        harness_start_all(harness);
        assert_true(kv_put(harness, "last", "l", LIMIT_NS));
        assert_true(harness_wait_applied(harness, 6, LIMIT_NS));
        assert_true(kv_all_equal(harness));
        for (size_t i = 0; i < 20; i++) {
            assert_true(asks[i].answered);
            kv_ask_deinit(&asks[i]);
        }
        harness_destroy(harness);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recover_crash_before_every_step_of_the_first_start),
        cmocka_unit_test(test_recover_missing_log_is_refused_again_and_again),
        cmocka_unit_test(test_recover_missing_identity_is_refused),
        cmocka_unit_test(test_recover_damaged_identity_is_refused),
        cmocka_unit_test(test_recover_state_machine_behind_the_log_is_refused),
        cmocka_unit_test(test_recover_log_behind_the_state_machine_is_refused),
        cmocka_unit_test(test_recover_state_machine_of_another_history_is_refused),
        cmocka_unit_test(test_log_time_keeps_the_pace_of_the_clock),
        cmocka_unit_test(test_log_time_goes_on_over_a_change_of_leader),
        cmocka_unit_test(test_log_time_does_not_leap_to_a_followers_reckoning),
        cmocka_unit_test(test_log_time_survives_the_log_that_carried_it),
        cmocka_unit_test(test_log_time_travels_with_a_snapshot),
        cmocka_unit_test(test_recover_leader_with_a_stalled_disk_is_not_ahead_of_its_log),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? (enum log_level)(LOG_ERROR + 1) : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
