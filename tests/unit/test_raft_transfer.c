/* Handing leadership over: raft/core/transfer.c. Tests with a number are the scenarios of that
 * number. */
#include "unit/raft_pump.h"

static void test_transfer_makes_the_target_leader(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 3), ERR_OK);
    pump_collect(pump, 1);
    assert_true(pump_status(pump, 1).transfer_pending);
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 3).state, RAFT_LEADER);
    assert_int_equal(pump_status(pump, 3).term, 2);
    assert_int_equal(pump_status(pump, 1).leader, 3);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_TIMEOUT_NOW], 1);
    pump_destroy(pump);
}

static void test_transfer_waits_until_the_target_has_everything(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    pump_commit(pump, 1, "a");
    pump_isolate(pump, 3, false);
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 3), ERR_OK);
    pump_collect(pump, 1);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_TIMEOUT_NOW], 0);
    struct raft_position position;
    assert_int_equal(raft_core_propose(pump->nodes[1].core, BYTES_EMPTY, NULL, &position),
                     ERR_BUSY);
    struct raft_change change = {.kind = RAFT_REMOVE, .id = 2};
    assert_int_equal(raft_core_propose_change(pump->nodes[1].core, &change, &position), ERR_BUSY);
    pump_tick_all(pump, 3);
    assert_int_equal(pump_status(pump, 3).state, RAFT_LEADER);
    pump_destroy(pump);
}

static void test_transfer_to_anyone_takes_the_most_up_to_date_voter(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 2, true);
    pump_commit(pump, 1, "a");
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 0), ERR_OK);
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 3).state, RAFT_LEADER);
    pump_destroy(pump);
}

static void test_transfer_to_nobody_fit_is_refused(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 1), ERR_TRANSFER_FAILED);
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 9), ERR_TRANSFER_FAILED);
    assert_int_equal(raft_core_transfer(pump->nodes[2].core, 1), ERR_NOT_LEADER);
    struct raft_change change = {.kind = RAFT_ADD_LEARNER, .id = 4, .address = "four:4"};
    struct raft_position position;
    assert_int_equal(raft_core_propose_change(pump->nodes[1].core, &change, &position), ERR_OK);
    pump_settle(pump);
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 4), ERR_TRANSFER_FAILED);
    assert_false(pump_status(pump, 1).transfer_pending);
    pump_destroy(pump);

    struct pump *alone = pump_create(1, NULL);
    pump_elect(alone, 1);
    assert_int_equal(raft_core_transfer(alone->nodes[1].core, 0), ERR_TRANSFER_FAILED);
    pump_destroy(alone);
}

static void test_s36_delayed_timeout_now_of_an_old_term_does_nothing(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 3), ERR_OK);
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 3).term, 2);
    struct raft_message late = pump_message(RAFT_MSG_TIMEOUT_NOW, 1, 2, 1);
    pump_step(pump, &late);
    /* And one of whoever leads now, from an earlier time when it led. */
    late = pump_message(RAFT_MSG_TIMEOUT_NOW, 3, 2, 1);
    pump_step(pump, &late);
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 2).state, RAFT_FOLLOWER);
    assert_int_equal(pump_status(pump, 3).state, RAFT_LEADER);
    assert_int_equal(pump_status(pump, 3).term, 2);
    pump_destroy(pump);
}

static void test_s36_timeout_now_from_another_than_the_leader_does_nothing(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    struct raft_message forged = pump_message(RAFT_MSG_TIMEOUT_NOW, 3, 2, 1);
    pump_step(pump, &forged);
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 2).state, RAFT_FOLLOWER);
    assert_int_equal(pump_status(pump, 1).term, 1);
    pump_destroy(pump);
}

static void test_s37_transfer_to_a_dead_target_is_abandoned(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_crash(pump, 3);
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 3), ERR_OK);
    for (int i = 0; i < 9; i++) {
        pump_tick_all(pump, 1);
        assert_true(pump_status(pump, 1).transfer_pending);
    }
    pump_tick_all(pump, 1);
    assert_false(pump_status(pump, 1).transfer_pending);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_int_equal(pump_status(pump, 1).term, 1);
    pump_commit(pump, 1, "goes on");
    pump_destroy(pump);
}

static void test_lost_timeout_now_is_sent_again(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_tick_all(pump, 1);
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 2), ERR_OK);
    pump_collect(pump, 1);
    pump_drop_wire(pump);
    pump_tick_all(pump, 2);
    assert_int_equal(pump_status(pump, 2).state, RAFT_LEADER);
    pump_destroy(pump);
}

static void test_s53_leader_whose_disk_stalls_hands_off(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump->nodes[1].disk_waits = true;
    struct raft_position position = pump_propose(pump, 1, "b");
    pump_settle(pump);
    pump_tick_all(pump, 19);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_TIMEOUT_NOW], 0);
    pump_tick_all(pump, 3);
    assert_int_equal(pump_status(pump, 1).state, RAFT_FOLLOWER);
    uint64_t leader = pump_status(pump, 2).leader;
    assert_true(leader == 2 || leader == 3);
    pump_commit(pump, leader, "c");
    assert_true(pump->nodes[leader].applied > position.index);
    /* When the disk comes back it follows. */
    pump->nodes[1].disk_waits = false;
    pump_tick_all(pump, 4);
    assert_int_equal(pump->nodes[1].applied, pump_status(pump, leader).last.index);
    pump_destroy(pump);
}

static void test_s53_stalled_leader_without_a_target_leads_on(void **state)
{
    (void)state;
    struct pump *pump = pump_create(1, NULL);
    pump_elect(pump, 1);
    pump->nodes[1].disk_waits = true;
    pump_propose(pump, 1, "b");
    pump_tick_all(pump, 200);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    pump->nodes[1].disk_waits = false;
    pump_commit(pump, 1, "c");
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transfer_makes_the_target_leader),
        cmocka_unit_test(test_transfer_waits_until_the_target_has_everything),
        cmocka_unit_test(test_transfer_to_anyone_takes_the_most_up_to_date_voter),
        cmocka_unit_test(test_transfer_to_nobody_fit_is_refused),
        cmocka_unit_test(test_s36_delayed_timeout_now_of_an_old_term_does_nothing),
        cmocka_unit_test(test_s36_timeout_now_from_another_than_the_leader_does_nothing),
        cmocka_unit_test(test_s37_transfer_to_a_dead_target_is_abandoned),
        cmocka_unit_test(test_lost_timeout_now_is_sent_again),
        cmocka_unit_test(test_s53_leader_whose_disk_stalls_hands_off),
        cmocka_unit_test(test_s53_stalled_leader_without_a_target_leads_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
