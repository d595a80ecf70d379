/* Who belongs to the group: raft/core/membership.c. Tests with a number are the scenarios of that
 * number. */
#include "unit/raft_pump.h"

#include <stdio.h>

static int change(struct pump *pump, uint64_t leader, enum raft_change_kind kind, uint64_t id)
{
    char address[32];
    snprintf(address, sizeof(address), "node:%u", (unsigned)id);
    struct raft_change asked = {.kind = kind, .id = id, .address = address};
    struct raft_position position;
    int error = raft_core_propose_change(pump->nodes[leader].core, &asked, &position);
    pump_collect(pump, leader);
    return error;
}

static void test_learner_is_added_fed_and_promoted(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    for (int i = 0; i < 5; i++) {
        pump_commit(pump, 1, "x");
    }
    pump_add_blank(pump, 4);
    assert_int_equal(change(pump, 1, RAFT_ADD_LEARNER, 4), ERR_OK);
    /* It has said nothing yet: as a voter it would be missing from quorums. */
    pump_isolate(pump, 4, true);
    pump_settle(pump);
    assert_int_equal(change(pump, 1, RAFT_PROMOTE, 4), ERR_BUSY);
    pump_isolate(pump, 4, false);
    pump_tick_all(pump, 3);
    assert_int_equal(pump->nodes[4].applied, pump_status(pump, 1).last.index);
    assert_int_equal(pump_voter_count(pump, 1), 3);
    assert_int_equal(change(pump, 1, RAFT_PROMOTE, 4), ERR_OK);
    pump_settle(pump);
    assert_int_equal(pump_voter_count(pump, 1), 4);
    pump_tick_all(pump, 1);
    assert_int_equal(pump_voter_count(pump, 4), 4);
    pump_destroy(pump);
}

static void test_learner_counts_in_no_quorum_and_does_not_campaign(void **state)
{
    (void)state;
    struct pump *pump = pump_create(2, NULL);
    pump_elect(pump, 1);
    pump_add_blank(pump, 3);
    assert_int_equal(change(pump, 1, RAFT_ADD_LEARNER, 3), ERR_OK);
    pump_settle(pump);
    pump_isolate(pump, 2, true);
    struct raft_position position = pump_propose(pump, 1, "x");
    pump_settle(pump);
    assert_int_equal(pump_progress(pump, 1, 3).match, position.index);
    assert_true(pump_status(pump, 1).commit < position.index);
    for (int i = 0; i < 100; i++) {
        pump_tick(pump, 3);
    }
    assert_int_equal(pump_status(pump, 3).state, RAFT_FOLLOWER);
    pump_destroy(pump);
}

static void test_change_is_in_force_from_its_append_on(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    assert_int_equal(change(pump, 1, RAFT_ADD_VOTER, 4), ERR_OK);
    assert_int_equal(pump_status(pump, 1).membership.count, 4);
    /* Three of four are needed, and only two are there. */
    pump_settle(pump);
    assert_true(pump_status(pump, 1).commit < pump_status(pump, 1).last.index);
    pump_add_blank(pump, 4);
    pump_tick_all(pump, 3);
    assert_int_equal(pump_status(pump, 1).commit, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_group_grows_from_one_and_shrinks_back(void **state)
{
    (void)state;
    struct pump *pump = pump_create(1, NULL);
    pump_elect(pump, 1);
    pump_settle(pump);
    for (uint64_t id = 2; id <= 5; id++) {
        pump_add_blank(pump, id);
        assert_int_equal(change(pump, 1, RAFT_ADD_VOTER, id), ERR_OK);
        pump_tick_all(pump, 3);
        pump_commit(pump, 1, "x");
    }
    pump_tick_all(pump, 1);
    assert_int_equal(pump->nodes[5].applied, pump_status(pump, 1).last.index);
    for (uint64_t id = 5; id >= 2; id--) {
        assert_int_equal(change(pump, 1, RAFT_REMOVE, id), ERR_OK);
        pump_tick_all(pump, 2);
        pump_commit(pump, 1, "y");
    }
    assert_int_equal(pump_voter_count(pump, 1), 1);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    pump_destroy(pump);
}

static void test_s39_no_change_before_the_first_commit_of_the_term(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump_restart(pump, 1);
    pump_restart(pump, 2);
    pump_restart(pump, 3);
    for (int i = 0; i < 1000 && pump_status(pump, 1).state != RAFT_LEADER; i++) {
        if (i % 10 == 0) {
            pump_tick(pump, 1);
        }
        for (uint64_t id = 1; id <= 3; id++) {
            pump_sync(pump, id, 9);
        }
        if (pump->wire.count > 0 && pump_status(pump, 1).state != RAFT_LEADER) {
            pump_deliver_one(pump);
        }
    }
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_false(pump_status(pump, 1).read_ready);
    assert_int_equal(change(pump, 1, RAFT_ADD_VOTER, 4), ERR_BUSY);
    pump_settle(pump);
    assert_int_equal(change(pump, 1, RAFT_ADD_VOTER, 4), ERR_OK);
    pump_destroy(pump);
}

static void test_s39_one_change_at_a_time(void **state)
{
    (void)state;
    struct pump *pump = pump_create(5, NULL);
    pump_elect(pump, 1);
    const struct {
        enum raft_change_kind first;
        uint64_t first_id;
        enum raft_change_kind second;
        uint64_t second_id;
    } cases[] = {
        {RAFT_ADD_VOTER, 6, RAFT_REMOVE, 2},
        {RAFT_ADD_VOTER, 7, RAFT_ADD_VOTER, 8},
        {RAFT_REMOVE, 6, RAFT_REMOVE, 7},
    };
    pump_add_blank(pump, 6);
    pump_add_blank(pump, 7);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(change(pump, 1, cases[i].first, cases[i].first_id), ERR_OK);
        assert_int_equal(change(pump, 1, cases[i].second, cases[i].second_id), ERR_MEMBERSHIP_BUSY);
        pump_tick_all(pump, 3);
    }
    assert_int_equal(change(pump, 1, RAFT_REMOVE, 7), ERR_OK);
    pump_destroy(pump);
}

static void test_s40_uncommitted_change_is_rolled_back(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump_tick_all(pump, 1);
    pump_isolate(pump, 1, true);
    assert_int_equal(change(pump, 1, RAFT_ADD_VOTER, 4), ERR_OK);
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 1).membership.count, 4);
    uint64_t index = pump_status(pump, 1).membership.position.index;
    struct raft_membership there;
    assert_true(raft_core_membership_at(pump->nodes[1].core, index, &there));
    assert_int_equal(there.count, 4);
    assert_true(raft_core_membership_at(pump->nodes[1].core, index - 1, &there));
    assert_int_equal(there.count, 3);
    assert_false(raft_core_membership_at(pump->nodes[1].core, index + 1, &there));
    pump_tick_all(pump, 40);
    uint64_t leader = pump_status(pump, 2).leader;
    assert_true(leader == 2 || leader == 3);
    pump_commit(pump, leader, "b");
    pump_isolate(pump, 1, false);
    pump_tick_all(pump, 3);
    assert_int_equal(pump_status(pump, 1).membership.count, 3);
    assert_int_equal(pump->nodes[1].applied, pump_status(pump, leader).last.index);
    /* Also after a restart, from what the log says. */
    pump_restart(pump, 1);
    assert_int_equal(pump_status(pump, 1).membership.count, 3);
    pump_destroy(pump);
}

static void test_s41_leader_removes_itself_and_hands_off(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump_isolate(pump, 3, true);
    assert_int_equal(change(pump, 1, RAFT_REMOVE, 1), ERR_OK);
    pump_settle(pump);
    /* It leads on, but does not count: two of 2, 3 are needed. */
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_true(pump_status(pump, 1).commit < pump_status(pump, 1).last.index);
    pump_isolate(pump, 3, false);
    for (int i = 0; i < 5 && pump_status(pump, 1).state == RAFT_LEADER; i++) {
        pump_tick(pump, 1);
        pump_settle(pump);
    }
    assert_int_equal(pump_status(pump, 1).state, RAFT_FOLLOWER);
    pump_settle(pump);
    /* Nobody had to wait for a timeout. */
    assert_true(pump_status(pump, 2).state == RAFT_LEADER ||
                pump_status(pump, 3).state == RAFT_LEADER);
    pump_destroy(pump);
}

static void test_s41_removed_replica_does_no_harm(void **state)
{
    (void)state;
    struct pump *pump = pump_create(4, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump_isolate(pump, 4, true); /* so that it does not learn of its removal */
    assert_int_equal(change(pump, 1, RAFT_REMOVE, 4), ERR_OK);
    pump_settle(pump);
    pump_isolate(pump, 4, false);
    pump_tick_all(pump, 200);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_int_equal(pump_status(pump, 1).term, 1);
    assert_int_equal(pump_status(pump, 4).membership.count, 4);
    assert_int_equal(pump_status(pump, 4).state, RAFT_PRE_CANDIDATE);
    /* Even with a term that is far ahead. */
    pump_crash(pump, 4);
    pump->nodes[4].hard_state.term = 1000;
    pump_restart(pump, 4);
    pump_tick_all(pump, 200);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_int_equal(pump_status(pump, 1).term, 1);
    pump_destroy(pump);
}

static void test_s42_change_is_checked_against_the_newest_membership(void **state)
{
    (void)state;
    struct pump *pump = pump_create(2, NULL);
    pump_elect(pump, 1);
    struct raft_position position;
    char long_address[RAFT_ADDRESS_BYTES_MAX + 1];
    memset(long_address, 'a', RAFT_ADDRESS_BYTES_MAX);
    long_address[RAFT_ADDRESS_BYTES_MAX] = '\0';
    const struct raft_change bad[] = {
        {.kind = RAFT_ADD_VOTER, .id = 2, .address = "two:2"},   /* there */
        {.kind = RAFT_ADD_LEARNER, .id = 2, .address = "two:2"}, /* there */
        {.kind = RAFT_ADD_VOTER, .id = 0, .address = "zero:0"},
        {.kind = RAFT_ADD_VOTER, .id = 9, .address = NULL},
        {.kind = RAFT_ADD_VOTER, .id = 9, .address = ""},
        {.kind = RAFT_ADD_VOTER, .id = 9, .address = long_address},
        {.kind = RAFT_PROMOTE, .id = 2}, /* a voter */
        {.kind = RAFT_PROMOTE, .id = 9},
        {.kind = RAFT_REMOVE, .id = 9},
        {.kind = (enum raft_change_kind)77, .id = 2},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(raft_core_propose_change(pump->nodes[1].core, &bad[i], &position),
                         ERR_MEMBERSHIP_BAD);
    }
    assert_int_equal(raft_core_propose_change(pump->nodes[2].core, &bad[0], &position),
                     ERR_NOT_LEADER);
    assert_int_equal(change(pump, 1, RAFT_REMOVE, 2), ERR_OK);
    pump_settle(pump);
    assert_int_equal(change(pump, 1, RAFT_REMOVE, 2), ERR_MEMBERSHIP_BAD); /* it is gone */
    assert_int_equal(change(pump, 1, RAFT_REMOVE, 1), ERR_MEMBERSHIP_BAD); /* the last voter */
    for (uint64_t id = 10; id < 10 + RAFT_MEMBERS_MAX - 1; id++) {
        assert_int_equal(change(pump, 1, RAFT_ADD_LEARNER, id), ERR_OK);
        pump_sync(pump, 1, 9);
        pump_drop_wire(pump);
    }
    assert_int_equal(change(pump, 1, RAFT_ADD_LEARNER, 99), ERR_MEMBERSHIP_BAD); /* full */
    pump_destroy(pump);
}

static void test_membership_follows_compaction(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_add_blank(pump, 4);
    assert_int_equal(change(pump, 1, RAFT_ADD_LEARNER, 4), ERR_OK);
    pump_tick_all(pump, 2);
    uint64_t first = pump_status(pump, 1).membership.position.index;
    pump_commit(pump, 1, "x");
    assert_int_equal(change(pump, 1, RAFT_REMOVE, 4), ERR_OK);
    pump_tick_all(pump, 2);
    uint64_t second = pump_status(pump, 1).membership.position.index;
    pump_compact(pump, 1, second - 1);
    struct raft_membership there;
    assert_true(raft_core_membership_at(pump->nodes[1].core, second - 1, &there));
    assert_int_equal(there.count, 4);
    assert_int_equal(there.position.index, first);
    assert_true(raft_core_membership_at(pump->nodes[1].core, second, &there));
    assert_int_equal(there.count, 3);
    assert_false(raft_core_membership_at(pump->nodes[1].core, first, &there));
    pump_destroy(pump);
}

static void test_blank_replica_never_campaigns(void **state)
{
    (void)state;
    struct pump *pump = pump_create(1, NULL);
    pump_add_blank(pump, 2);
    for (int i = 0; i < 200; i++) {
        pump_tick(pump, 2);
    }
    assert_int_equal(pump_status(pump, 2).state, RAFT_FOLLOWER);
    assert_int_equal(pump_status(pump, 2).term, 0);
    assert_int_equal(pump->wire.count, 0);
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learner_is_added_fed_and_promoted),
        cmocka_unit_test(test_learner_counts_in_no_quorum_and_does_not_campaign),
        cmocka_unit_test(test_change_is_in_force_from_its_append_on),
        cmocka_unit_test(test_group_grows_from_one_and_shrinks_back),
        cmocka_unit_test(test_s39_no_change_before_the_first_commit_of_the_term),
        cmocka_unit_test(test_s39_one_change_at_a_time),
        cmocka_unit_test(test_s40_uncommitted_change_is_rolled_back),
        cmocka_unit_test(test_s41_leader_removes_itself_and_hands_off),
        cmocka_unit_test(test_s41_removed_replica_does_no_harm),
        cmocka_unit_test(test_s42_change_is_checked_against_the_newest_membership),
        cmocka_unit_test(test_membership_follows_compaction),
        cmocka_unit_test(test_blank_replica_never_campaigns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
