/* Linearizable reads and the lease: raft/core/read.c. Tests with a number are the scenarios of that
 * number. */
#include "unit/raft_pump.h"

static void with_lease(struct raft_core_options *options)
{
    options->lease_reads = true;
}

static void ask(struct pump *pump, uint64_t id, uint64_t context)
{
    assert_int_equal(raft_core_read(pump->nodes[id].core, context), ERR_OK);
}

static void test_read_is_served_after_a_quorum_echoed_its_round(void **state)
{
    (void)state;
    struct pump *pump = pump_create(5, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    ask(pump, 1, 77);
    pump_collect(pump, 1);
    assert_int_equal(pump->nodes[1].read_count, 0);
    assert_int_equal(pump->wire.count, 4);
    pump_deliver_one(pump); /* request to 2 */
    struct pump_message *echo = pump_find(pump, RAFT_MSG_HEARTBEAT_REPLY, 1);
    assert_non_null(echo);
    pump_step(pump, &echo->message);
    assert_int_equal(pump->nodes[1].read_count, 0); /* two of five */
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].read_count, 1);
    assert_int_equal(pump->nodes[1].reads[0].context, 77);
    assert_int_equal(pump->nodes[1].reads[0].index, pump_status(pump, 1).commit);
    assert_int_equal(pump->nodes[1].reads[0].error, ERR_OK);
    pump_destroy(pump);
}

static void test_reads_before_a_ready_share_one_round(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    uint64_t before = pump->sent_count;
    for (uint64_t i = 0; i < 50; i++) {
        ask(pump, 1, i);
    }
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].read_count, 50);
    assert_int_equal(pump->sent_count - before, 4);
    for (uint64_t i = 0; i < 50; i++) {
        assert_int_equal(pump->nodes[1].reads[i].context, i);
    }
    pump_destroy(pump);
}

static void test_rounds_under_way_are_bounded(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    uint64_t before = pump->sent_of_kind[RAFT_MSG_HEARTBEAT];
    for (uint64_t i = 0; i < 40; i++) {
        ask(pump, 1, i);
        pump_collect(pump, 1);
    }
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_HEARTBEAT] - before, 2 * 4);
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].read_count, 40);
    pump_destroy(pump);
}

static void test_read_whose_round_was_lost_rides_on_the_next_heartbeat(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    ask(pump, 1, 1);
    pump_collect(pump, 1);
    pump_drop_wire(pump);
    pump_tick_all(pump, 1);
    assert_int_equal(pump->nodes[1].read_count, 1);
    pump_destroy(pump);
}

static void test_single_voter_serves_at_once(void **state)
{
    (void)state;
    struct pump *pump = pump_create(1, NULL);
    pump_elect(pump, 1);
    pump_settle(pump);
    ask(pump, 1, 5);
    pump_collect(pump, 1);
    assert_int_equal(pump->nodes[1].read_count, 1);
    assert_int_equal(pump->nodes[1].reads[0].index, pump_status(pump, 1).commit);
    pump_destroy(pump);
}

static void test_follower_does_not_take_reads(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    assert_int_equal(raft_core_read(pump->nodes[2].core, 1), ERR_NOT_LEADER);
    pump_destroy(pump);
}

static void test_reads_in_waiting_are_bounded(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    int error = ERR_OK;
    size_t taken = 0;
    for (; taken < 100000 && error == ERR_OK; taken++) {
        error = raft_core_read(pump->nodes[1].core, taken);
    }
    assert_int_equal(error, ERR_BUSY);
    assert_int_equal(taken, 65536 + 1);
    pump_crash(pump, 1); /* too many for the pump to note down */
    pump_destroy(pump);
}

static void test_s33_read_is_refused_before_the_first_commit_of_the_term(void **state)
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
    /* It may not know yet what its predecessor committed. */
    assert_int_equal(raft_core_read(pump->nodes[1].core, 1), ERR_BUSY);
    pump_settle(pump);
    ask(pump, 1, 2);
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].read_count, 1);
    assert_int_equal(pump->nodes[1].reads[0].context, 2);
    pump_destroy(pump);
}

static void test_s34_reads_in_waiting_fail_when_leadership_is_lost(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 1, true);
    ask(pump, 1, 1);
    pump_collect(pump, 1);
    ask(pump, 1, 2); /* without a round yet, or with another */
    struct raft_message higher = pump_message(RAFT_MSG_HEARTBEAT, 2, 1, 9);
    pump_step(pump, &higher);
    assert_int_equal(pump->nodes[1].read_count, 2);
    assert_int_equal(pump->nodes[1].reads[0].error, ERR_NOT_LEADER);
    assert_int_equal(pump->nodes[1].reads[1].error, ERR_NOT_LEADER);
    pump_destroy(pump);
}

static void test_s34_isolated_leader_serves_nothing_it_was_asked_later(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 1, true);
    for (int i = 0; i < 30; i++) {
        pump_tick(pump, 2);
        pump_tick(pump, 3);
        pump_settle(pump);
    }
    uint64_t second = pump_status(pump, 2).leader;
    assert_true(second == 2 || second == 3);
    pump_commit(pump, second, "newer");
    ask(pump, 1, 1);
    pump_settle(pump);
    pump_tick_all(pump, 30);
    assert_int_equal(pump->nodes[1].read_count, 1);
    assert_int_equal(pump->nodes[1].reads[0].error, ERR_NOT_LEADER);
    pump_destroy(pump);
}

/* An echo of an earlier round, delayed, confirms nothing that was asked since. */
static void test_s34_late_echo_of_an_old_round_confirms_nothing(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    ask(pump, 1, 1);
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].read_count, 1);
    pump_isolate(pump, 1, true);
    ask(pump, 1, 2);
    pump_collect(pump, 1);
    struct raft_message echo = pump_message(RAFT_MSG_HEARTBEAT_REPLY, 2, 1, 1);
    echo.read_round = 1;
    pump_step(pump, &echo);
    echo.from = 3;
    pump_step(pump, &echo);
    assert_int_equal(pump->nodes[1].read_count, 1);
    echo.read_round = 99; /* a round that was never begun */
    pump_step(pump, &echo);
    assert_int_equal(pump->nodes[1].read_count, 1);
    echo.read_round = 2;
    pump_step(pump, &echo);
    assert_int_equal(pump->nodes[1].read_count, 2);
    pump_destroy(pump);
}

static void test_learner_does_not_confirm_a_round(void **state)
{
    (void)state;
    struct pump *pump = pump_create(2, NULL);
    pump_elect(pump, 1);
    struct raft_change change = {.kind = RAFT_ADD_LEARNER, .id = 3, .address = "three:3"};
    struct raft_position position;
    pump_add_blank(pump, 3);
    assert_int_equal(raft_core_propose_change(pump->nodes[1].core, &change, &position), ERR_OK);
    pump_settle(pump);
    pump_isolate(pump, 2, true);
    ask(pump, 1, 1);
    pump_settle(pump);
    pump_tick_all(pump, 2); /* heartbeats carry the round to the learner too */
    assert_int_equal(pump->nodes[1].read_count, 0);
    pump_destroy(pump);
}

static void test_lease_serves_without_a_message(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, with_lease);
    pump_elect(pump, 1);
    pump_tick_all(pump, 2);
    uint64_t before = pump->sent_count;
    ask(pump, 1, 1);
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].read_count, 1);
    assert_int_equal(pump->sent_count, before);
    pump_destroy(pump);
}

/* Nobody answers any more; followers elect another leader no earlier than 10 ticks after they last
 * heard this one. */
static void test_s35_lease_ends_before_another_leader_can_be_elected(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, with_lease);
    pump_elect(pump, 1);
    pump_tick_all(pump, 2);
    pump_isolate(pump, 1, true);
    size_t served = 0;
    for (int tick = 1; tick <= 9; tick++) {
        pump_tick(pump, 1);
        size_t before = pump->nodes[1].read_count;
        assert_int_equal(raft_core_read(pump->nodes[1].core, 1), ERR_OK);
        pump_collect(pump, 1);
        bool by_lease = pump->nodes[1].read_count > before;
        served += by_lease ? 1 : 0;
        assert_true(!by_lease || tick <= 8); /* (10 - 1) * 9/10 */
    }
    assert_in_range(served, 5, 8);
    pump_destroy(pump);
}

/* The answer to a round that was begun long ago arrives now: the lease counts from the beginning,
 * not from the answer. */
static void test_s35_lease_counts_from_the_time_of_sending(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, with_lease);
    pump_elect(pump, 1);
    pump_tick_all(pump, 1);
    pump_isolate(pump, 1, true);
    pump_tick(pump, 1); /* a round is begun here */
    uint64_t round = pump_find(pump, RAFT_MSG_HEARTBEAT, 2)->message.read_round;
    assert_true(round > 0);
    for (int i = 0; i < 8; i++) {
        pump_tick(pump, 1);
    }
    struct raft_message echo = pump_message(RAFT_MSG_HEARTBEAT_REPLY, 2, 1, 1);
    echo.read_round = round;
    pump_step(pump, &echo);
    ask(pump, 1, 1);
    pump_collect(pump, 1);
    assert_int_equal(pump->nodes[1].read_count, 0);
    /* The echo of a fresh one gives a lease. */
    echo.read_round = pump_find(pump, RAFT_MSG_HEARTBEAT, 2)->message.read_round;
    assert_true(echo.read_round > round);
    pump_step(pump, &echo);
    pump->nodes[1].read_count = 0;
    ask(pump, 1, 2);
    pump_collect(pump, 1);
    assert_int_equal(pump->nodes[1].read_count, 1);
    pump_destroy(pump);
}

/* A voter that told a leader it was heard, and restarts, must keep that promise. */
static void test_s35_restarted_voter_honours_a_lease(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, with_lease);
    pump_elect(pump, 1);
    pump_tick_all(pump, 1);
    pump_restart(pump, 2);
    struct raft_message request = pump_message(RAFT_MSG_PREVOTE, 3, 2, 2);
    request.position = (struct raft_position){99, 1};
    pump_step(pump, &request);
    assert_null(pump_find(pump, RAFT_MSG_PREVOTE_REPLY, 3));
    request.kind = RAFT_MSG_VOTE;
    pump_step(pump, &request);
    pump_sync(pump, 2, 9);
    assert_null(pump_find(pump, RAFT_MSG_VOTE_REPLY, 3));
    assert_int_equal(pump_status(pump, 2).term, 1);
    pump_destroy(pump);
}

static void test_s36_lease_is_given_up_by_a_transfer_for_the_whole_term(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, with_lease);
    pump_elect(pump, 1);
    pump_tick_all(pump, 2);
    pump->cut[1][2] = true; /* TIMEOUT_NOW will not arrive, or only much later */
    assert_int_equal(raft_core_transfer(pump->nodes[1].core, 2), ERR_OK);
    pump_collect(pump, 1);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_TIMEOUT_NOW], 1);
    ask(pump, 1, 1);
    pump_collect(pump, 1);
    assert_int_equal(pump->nodes[1].read_count, 0); /* needs its round */
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].read_count, 1);
    pump_tick_all(pump, 10);
    assert_false(pump_status(pump, 1).transfer_pending);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    /* Given up, but the message may be somewhere yet. */
    ask(pump, 1, 2);
    pump_collect(pump, 1);
    assert_int_equal(pump->nodes[1].read_count, 1);
    pump_settle(pump);
    assert_int_equal(pump->nodes[1].read_count, 2);
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_is_served_after_a_quorum_echoed_its_round),
        cmocka_unit_test(test_reads_before_a_ready_share_one_round),
        cmocka_unit_test(test_rounds_under_way_are_bounded),
        cmocka_unit_test(test_read_whose_round_was_lost_rides_on_the_next_heartbeat),
        cmocka_unit_test(test_single_voter_serves_at_once),
        cmocka_unit_test(test_follower_does_not_take_reads),
        cmocka_unit_test(test_reads_in_waiting_are_bounded),
        cmocka_unit_test(test_s33_read_is_refused_before_the_first_commit_of_the_term),
        cmocka_unit_test(test_s34_reads_in_waiting_fail_when_leadership_is_lost),
        cmocka_unit_test(test_s34_isolated_leader_serves_nothing_it_was_asked_later),
        cmocka_unit_test(test_s34_late_echo_of_an_old_round_confirms_nothing),
        cmocka_unit_test(test_learner_does_not_confirm_a_round),
        cmocka_unit_test(test_lease_serves_without_a_message),
        cmocka_unit_test(test_s35_lease_ends_before_another_leader_can_be_elected),
        cmocka_unit_test(test_s35_lease_counts_from_the_time_of_sending),
        cmocka_unit_test(test_s35_restarted_voter_honours_a_lease),
        cmocka_unit_test(test_s36_lease_is_given_up_by_a_transfer_for_the_whole_term),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
