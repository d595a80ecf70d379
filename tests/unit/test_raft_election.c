/* Elections: raft/core/election.c. Tests with a number are the scenarios of that number. */
#include "unit/raft_pump.h"

static struct raft_message vote_request(uint64_t from, uint64_t to, uint64_t term,
                                        struct raft_position last)
{
    struct raft_message message = pump_message(RAFT_MSG_VOTE, from, to, term);
    message.position = last;
    return message;
}

static struct raft_message prevote_request(uint64_t from, uint64_t to, uint64_t term,
                                           struct raft_position last)
{
    struct raft_message message = pump_message(RAFT_MSG_PREVOTE, from, to, term);
    message.position = last;
    return message;
}

static void test_three_replicas_elect_one_leader_with_few_messages(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 2);
    assert_int_equal(pump_status(pump, 2).term, 1);
    assert_int_equal(pump_status(pump, 1).leader, 2);
    assert_int_equal(pump_status(pump, 3).leader, 2);
    assert_true(pump_status(pump, 2).read_ready);
    assert_in_range(pump->sent_count, 6, 14);
    /* It stays. */
    pump_tick_all(pump, 100);
    assert_int_equal(pump_status(pump, 2).state, RAFT_LEADER);
    assert_int_equal(pump_status(pump, 2).term, 1);
    pump_destroy(pump);
}

static void test_idle_second_costs_only_heartbeats(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_tick_all(pump, 3);
    uint64_t before = pump->sent_count;
    pump_tick_all(pump, 10); /* ten heartbeats: one to each of two followers, answered */
    assert_int_equal(pump->sent_count - before, 40);
    pump_destroy(pump);
}

static void test_s01_vote_lost_in_a_crash_was_never_sent(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump->nodes[1].disk_waits = true;
    struct raft_message request = vote_request(2, 1, 5, (struct raft_position){0, 0});
    pump_step(pump, &request);
    assert_null(pump_find(pump, RAFT_MSG_VOTE_REPLY, 2));
    pump_restart(pump, 1); /* before the write: it forgot, and may vote for another */
    assert_int_equal(pump_status(pump, 1).term, 0);
    request = vote_request(3, 1, 5, (struct raft_position){0, 0});
    pump_step(pump, &request);
    pump_sync(pump, 1, 1);
    assert_non_null(pump_find(pump, RAFT_MSG_VOTE_REPLY, 3));
    assert_false(pump_find(pump, RAFT_MSG_VOTE_REPLY, 3)->message.reject);
    pump_drop_wire(pump);
    /* After the write it remembers. */
    pump_restart(pump, 1);
    request = vote_request(2, 1, 5, (struct raft_position){0, 0});
    pump_step(pump, &request);
    pump_sync(pump, 1, 9);
    assert_true(pump_find(pump, RAFT_MSG_VOTE_REPLY, 2)->message.reject);
    pump_destroy(pump);
}

static void test_s02_vote_is_answered_after_its_sync_only(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump->nodes[1].disk_waits = true;
    struct raft_message request = vote_request(2, 1, 5, (struct raft_position){0, 0});
    pump_step(pump, &request);
    assert_null(pump_find(pump, RAFT_MSG_VOTE_REPLY, 2));
    assert_int_equal(pump->nodes[1].write_count, 1);
    assert_true(pump->nodes[1].writes[0].write.must_sync);
    assert_true(pump->nodes[1].writes[0].write.hard_state_changed);
    assert_int_equal(pump->nodes[1].writes[0].write.hard_state.voted_for, 2);
    /* Asked again while the write is under way: the answer waits for it as well. */
    pump_step(pump, &request);
    assert_null(pump_find(pump, RAFT_MSG_VOTE_REPLY, 2));
    pump_sync(pump, 1, 1);
    assert_false(pump_find(pump, RAFT_MSG_VOTE_REPLY, 2)->message.reject);
    pump_destroy(pump);
}

static void test_s02_candidate_asks_and_counts_itself_after_its_sync_only(void **state)
{
    (void)state;
    struct pump *pump = pump_create(2, NULL);
    pump->nodes[1].disk_waits = true;
    for (int i = 0; i < 40 && pump_status(pump, 1).state != RAFT_CANDIDATE; i++) {
        pump_tick(pump, 1);
        pump_settle(pump);
    }
    assert_int_equal(pump_status(pump, 1).state, RAFT_CANDIDATE);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_VOTE], 0);
    /* A slow disk does not make it start one term after the other. */
    for (int i = 0; i < 100; i++) {
        pump_tick(pump, 1);
    }
    assert_int_equal(pump_status(pump, 1).term, 1);
    struct raft_message grant = pump_message(RAFT_MSG_VOTE_REPLY, 2, 1, 1);
    pump_step(pump, &grant);
    assert_int_equal(pump_status(pump, 1).state, RAFT_CANDIDATE);
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_VOTE], 1);
    pump_destroy(pump);
}

/* What completes may be an older write: it says nothing of the vote. */
static void test_s02_older_write_does_not_make_the_own_vote_durable(void **state)
{
    (void)state;
    struct pump *pump = pump_create(2, NULL);
    pump->nodes[1].disk_waits = true;
    struct raft_entry entry = pump_entry(1, 1, "a");
    struct raft_message append = pump_message(RAFT_MSG_APPEND, 2, 1, 1);
    append.entries = &entry;
    append.entry_count = 1;
    pump_step(pump, &append);
    struct raft_message now = pump_message(RAFT_MSG_TIMEOUT_NOW, 2, 1, 1);
    pump_step(pump, &now);
    assert_int_equal(pump_status(pump, 1).state, RAFT_CANDIDATE);
    assert_int_equal(pump->nodes[1].write_count, 2);
    struct raft_message grant = pump_message(RAFT_MSG_VOTE_REPLY, 2, 1, 2);
    pump_step(pump, &grant);
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_status(pump, 1).state, RAFT_CANDIDATE);
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    pump_destroy(pump);
}

static void test_s03_heartbeat_does_not_clear_the_vote(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    struct raft_message request = vote_request(2, 1, 5, (struct raft_position){0, 0});
    pump_step(pump, &request);
    pump_settle(pump);
    struct raft_message heartbeat = pump_message(RAFT_MSG_HEARTBEAT, 2, 1, 5);
    pump_step(pump, &heartbeat);
    pump_drop_wire(pump);
    /* Another candidate of that term is not granted, the same one is granted again. */
    request = vote_request(3, 1, 5, (struct raft_position){9, 4});
    pump_step(pump, &request);
    assert_null(pump_find(pump, RAFT_MSG_VOTE_REPLY, 3));
    request = vote_request(2, 1, 5, (struct raft_position){0, 0});
    pump_step(pump, &request);
    pump_collect(pump, 1);
    assert_non_null(pump_find(pump, RAFT_MSG_VOTE_REPLY, 2));
    assert_false(pump_find(pump, RAFT_MSG_VOTE_REPLY, 2)->message.reject);
    pump_destroy(pump);
}

static void test_s04_leader_votes_for_nobody_in_its_term(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    struct raft_message request = vote_request(2, 1, 1, (struct raft_position){99, 1});
    request.leader_transfer = true;
    pump_step(pump, &request);
    pump_sync(pump, 1, 9);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    struct pump_message *reply = pump_find(pump, RAFT_MSG_VOTE_REPLY, 2);
    assert_true(reply == NULL || reply->message.reject);
    pump_destroy(pump);
}

static void test_s05_isolated_replica_returns_without_a_higher_term(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    pump_tick_all(pump, 200);
    assert_int_equal(pump_status(pump, 3).state, RAFT_PRE_CANDIDATE);
    assert_int_equal(pump_status(pump, 3).term, 1);
    pump_isolate(pump, 3, false);
    pump_tick_all(pump, 30);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_int_equal(pump_status(pump, 1).term, 1);
    assert_int_equal(pump_status(pump, 3).leader, 1);
    pump_destroy(pump);
}

static void test_s05_inflated_term_ends_in_one_election(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump_crash(pump, 3);
    pump->nodes[3].hard_state.term = 50; /* however it came to it */
    pump->nodes[3].hard_state.voted_for = 3;
    pump_restart(pump, 3);
    /* It refuses the leader, which must step down to bring it back; its own candidacy cannot be
     * heard. */
    uint64_t leader = pump_wait_leader(pump);
    assert_int_equal(pump_status(pump, leader).term, 51);
    pump_commit(pump, leader, "b");
    pump_tick_all(pump, 3);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, leader).last.index);
    pump_destroy(pump);
}

static void test_s05_vote_request_is_ignored_while_the_leader_is_heard(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_tick_all(pump, 2);
    for (uint64_t id = 1; id <= 2; id++) {
        struct raft_message request = vote_request(3, id, 50, (struct raft_position){99, 49});
        pump_step(pump, &request);
        request = prevote_request(3, id, 51, (struct raft_position){99, 49});
        pump_step(pump, &request);
        assert_int_equal(pump_status(pump, id).term, 1);
    }
    assert_null(pump_find(pump, RAFT_MSG_VOTE_REPLY, 3));
    assert_null(pump_find(pump, RAFT_MSG_PREVOTE_REPLY, 3));
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    pump_destroy(pump);
}

static void test_s06_voter_of_a_stale_term_helps_to_elect(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump_crash(pump, 1);
    pump_crash(pump, 3);
    /* 2 has been in a much later term than 3: together they are a quorum. */
    pump_crash(pump, 2);
    pump->nodes[2].hard_state.term = 30;
    pump->nodes[2].hard_state.voted_for = 0;
    pump_restart(pump, 2);
    pump_restart(pump, 3);
    uint64_t leader = pump_wait_leader(pump);
    assert_true(leader == 2 || leader == 3);
    assert_true(pump_status(pump, leader).term > 30);
    pump_destroy(pump);
}

/* 2 has the longer log but a low term, 1 the shorter log and a high term; 3 is down. */
static void test_s07_long_log_low_term_does_not_deadlock_prevote(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 2);
    pump_isolate(pump, 1, true);
    pump_commit(pump, 2, "a");
    pump_commit(pump, 2, "b");
    pump_crash(pump, 3);
    pump_crash(pump, 1);
    pump_crash(pump, 2);
    pump->nodes[1].hard_state.term = 20;
    pump->nodes[1].hard_state.voted_for = 0;
    pump_isolate(pump, 1, false);
    pump_restart(pump, 1);
    pump_restart(pump, 2);
    assert_true(pump_status(pump, 1).last.index < pump_status(pump, 2).last.index);
    assert_true(pump_status(pump, 1).term > pump_status(pump, 2).term);
    uint64_t leader = pump_wait_leader(pump);
    assert_int_equal(leader, 2); /* the only one whose log may lead */
    assert_true(pump_status(pump, 2).term > 20);
    pump_destroy(pump);
}

static void test_s08_leader_that_hears_nobody_steps_down(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump->cut[2][1] = true; /* its own messages still arrive */
    pump->cut[3][1] = true;
    for (int i = 0; i < 9; i++) {
        pump_tick_all(pump, 1);
        assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    }
    pump_tick_all(pump, 3);
    assert_int_not_equal(pump_status(pump, 1).state, RAFT_LEADER);
    uint64_t leader = pump_wait_leader(pump);
    assert_true(leader == 2 || leader == 3);
    pump_destroy(pump);
}

static void test_s08_leader_that_cannot_be_heard_is_replaced(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump->cut[1][2] = true;
    pump->cut[1][3] = true;
    pump_tick_all(pump, 60);
    uint64_t leader = pump_wait_leader(pump);
    assert_true(leader == 2 || leader == 3);
    assert_int_not_equal(pump_status(pump, 1).state, RAFT_LEADER);
    pump_destroy(pump);
}

static void test_prevote_changes_nothing_at_the_voter(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    struct raft_message request = prevote_request(2, 1, 9, (struct raft_position){0, 0});
    pump_step(pump, &request);
    assert_int_equal(pump_status(pump, 1).term, 0);
    assert_int_equal(pump->nodes[1].write_count, 0);
    assert_false(pump_find(pump, RAFT_MSG_PREVOTE_REPLY, 2)->message.reject);
    assert_int_equal(pump_find(pump, RAFT_MSG_PREVOTE_REPLY, 2)->message.term, 9);
    pump_destroy(pump);
}

static void test_vote_needs_a_log_that_is_up_to_date(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    struct raft_position last = pump_status(pump, 2).last;
    pump_crash(pump, 1);
    pump_restart(pump, 2); /* has not heard a leader since */
    const struct {
        struct raft_position last;
        bool granted;
    } cases[] = {
        {{last.index - 1, last.term}, false}, {{last.index + 9, last.term - 1}, false},
        {{last.index, last.term}, true},      {{last.index + 1, last.term}, true},
        {{1, last.term + 1}, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct raft_message request = vote_request(3, 2, 10 + i, cases[i].last);
        pump_step(pump, &request);
        pump_sync(pump, 2, 9);
        assert_int_equal(pump_find(pump, RAFT_MSG_VOTE_REPLY, 3)->message.reject,
                         !cases[i].granted);
        assert_int_equal(pump_status(pump, 2).term, 10 + i);
    }
    pump_destroy(pump);
}

static void test_single_voter_leads_after_its_own_sync(void **state)
{
    (void)state;
    struct pump *pump = pump_create(1, NULL);
    pump->nodes[1].disk_waits = true;
    pump_tick(pump, 1);
    assert_int_equal(pump_status(pump, 1).state, RAFT_CANDIDATE);
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_false(pump_status(pump, 1).read_ready);
    pump_sync(pump, 1, 1);
    assert_true(pump_status(pump, 1).read_ready);
    assert_int_equal(pump->sent_count, 0);
    pump_destroy(pump);
}

static void test_messages_that_make_no_sense_change_nothing(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    struct raft_message bad[] = {
        pump_message(RAFT_MSG_VOTE, 0, 2, 9),
        pump_message(RAFT_MSG_VOTE, 2, 2, 9),
        pump_message((enum raft_message_kind)77, 1, 2, 9),
        pump_message((enum raft_message_kind)0, 1, 2, 9),
        pump_message(RAFT_MSG_HEARTBEAT, 1, 2, 0),
        pump_message(RAFT_MSG_HEARTBEAT, 1, 2, UINT64_MAX),
        pump_message(RAFT_MSG_APPEND_REPLY, 77, 2, 9), /* an answer of no member */
        pump_message(RAFT_MSG_HEARTBEAT, 3, 2, 1),     /* a second leader of the term */
        pump_message(RAFT_MSG_SNAPSHOT, 1, 2, 1),      /* without a snapshot */
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        pump_step(pump, &bad[i]);
        assert_int_equal(pump_status(pump, 2).term, 1);
        assert_int_equal(pump_status(pump, 2).leader, 1);
        assert_int_equal(pump->wire.count, 0);
    }
    /* To another: not ours to look at. */
    struct raft_message astray = pump_message(RAFT_MSG_HEARTBEAT, 1, 3, 9);
    raft_core_step(pump->nodes[2].core, &astray);
    pump_collect(pump, 2);
    assert_int_equal(pump_status(pump, 2).term, 1);
    pump_destroy(pump);
}

static void test_sender_of_an_old_term_is_told_the_newer_one(void **state)
{
    (void)state;
    static const enum raft_message_kind kinds[][2] = {
        {RAFT_MSG_PREVOTE, RAFT_MSG_PREVOTE_REPLY},
        {RAFT_MSG_VOTE, RAFT_MSG_VOTE_REPLY},
        {RAFT_MSG_APPEND, RAFT_MSG_APPEND_REPLY},
        {RAFT_MSG_HEARTBEAT, RAFT_MSG_HEARTBEAT_REPLY},
        {RAFT_MSG_SNAPSHOT, RAFT_MSG_SNAPSHOT_REPLY},
    };
    struct pump *pump = pump_create(3, NULL);
    struct raft_message newer = pump_message(RAFT_MSG_HEARTBEAT, 2, 1, 9);
    pump_step(pump, &newer);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        pump_drop_wire(pump);
        struct raft_message old = pump_message(kinds[i][0], 3, 1, 4);
        pump_step(pump, &old);
        struct pump_message *reply = pump_find(pump, kinds[i][1], 3);
        assert_non_null(reply);
        assert_true(reply->message.reject);
        assert_int_equal(reply->message.term, 9);
        assert_int_equal(pump_status(pump, 1).leader, 2);
    }
    /* Answers and orders of an old term need no answer. */
    pump_drop_wire(pump);
    for (int kind = RAFT_MSG_PREVOTE; kind <= RAFT_MSG_TIMEOUT_NOW; kind++) {
        bool answered = false;
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
            answered = answered || (int)kinds[i][0] == kind;
        }
        if (!answered) {
            struct raft_message old = pump_message((enum raft_message_kind)kind, 3, 1, 4);
            old.reject = true;
            pump_step(pump, &old);
        }
    }
    assert_int_equal(pump->wire.count, 0);
    assert_int_equal(pump_status(pump, 1).state, RAFT_FOLLOWER);
    pump_destroy(pump);
}

/* ---- a connection that was closed from the leader's side ---- */

static void with_rare_heartbeats(struct raft_core_options *options)
{
    options->heartbeat_ticks = 10;
    options->election_ticks = 30;
}

static void test_closed_leader_is_replaced_within_a_heartbeat(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, with_rare_heartbeats);
    pump_elect(pump, 1);
    pump_tick_all(pump, 3);
    pump_crash(pump, 1);
    raft_core_peer_closed(pump->nodes[2].core, 1);
    raft_core_peer_closed(pump->nodes[3].core, 1);
    uint32_t heartbeat = pump->nodes[2].options.heartbeat_ticks;
    for (uint32_t i = 0; i < heartbeat; i++) {
        pump_tick(pump, 2);
        pump_tick(pump, 3);
        pump_settle(pump);
    }
    bool second = pump_status(pump, 2).state == RAFT_LEADER;
    bool third = pump_status(pump, 3).state == RAFT_LEADER;
    assert_true(second != third);
    pump_destroy(pump);
}

static void test_closed_connection_of_one_follower_disturbs_nobody(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    uint64_t term = pump_status(pump, 1).term;
    for (uint32_t i = 0; i < 20; i++) {
        raft_core_peer_closed(pump->nodes[2].core, 1);
        pump_tick_all(pump, 10);
    }
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    assert_int_equal(pump_status(pump, 1).term, term);
    assert_int_equal(pump_status(pump, 2).leader, 1);
    pump_destroy(pump);
}

/* What is heard of the leader after it counts for more than the connection that was lost: the next
 * heartbeat may take its time. */
static void test_closed_leader_that_is_heard_again_has_the_whole_timeout(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, with_rare_heartbeats);
    pump_elect(pump, 1);
    const struct raft_core_options *options = &pump->nodes[2].options;
    for (uint32_t round = 0; round < 10; round++) {
        raft_core_peer_closed(pump->nodes[2].core, 1);
        for (uint32_t i = 0; i < options->heartbeat_ticks; i++) {
            pump_tick(pump, 1);
        }
        pump_settle(pump);
        for (uint32_t i = 1; i < options->election_ticks; i++) {
            pump_tick(pump, 2);
            assert_int_equal(pump_status(pump, 2).state, RAFT_FOLLOWER);
        }
        pump_tick_all(pump, options->heartbeat_ticks);
        assert_int_equal(pump_status(pump, 2).leader, 1);
    }
    pump_destroy(pump);
}

static void test_closed_connection_of_another_follower_says_nothing(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_tick_all(pump, 3);
    raft_core_peer_closed(pump->nodes[2].core, 3);
    raft_core_peer_closed(pump->nodes[1].core, 3); /* nor does a leader mind */
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    struct raft_message request =
        prevote_request(3, 2, pump_status(pump, 2).term + 1, pump_status(pump, 2).last);
    pump_step(pump, &request);
    assert_null(pump_find(pump, RAFT_MSG_PREVOTE_REPLY, 3)); /* its leader is heard */
    pump_destroy(pump);
}

static void with_leases(struct raft_core_options *options)
{
    options->lease_reads = true;
}

/* The leader may be alive behind the broken connection, and serve reads as long as its lease. */
static void test_closed_leader_keeps_its_lease(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, with_leases);
    pump_elect(pump, 1);
    pump_tick_all(pump, 3);
    raft_core_peer_closed(pump->nodes[2].core, 1);
    raft_core_peer_closed(pump->nodes[3].core, 1);
    struct raft_message request =
        prevote_request(3, 2, pump_status(pump, 2).term + 1, pump_status(pump, 2).last);
    pump_step(pump, &request);
    assert_null(pump_find(pump, RAFT_MSG_PREVOTE_REPLY, 3));
    uint32_t heartbeat = pump->nodes[2].options.heartbeat_ticks;
    for (uint32_t i = 0; i < heartbeat; i++) {
        pump_tick(pump, 2);
        pump_tick(pump, 3);
    }
    assert_int_equal(pump_status(pump, 2).state, RAFT_FOLLOWER);
    assert_int_equal(pump_status(pump, 3).state, RAFT_FOLLOWER);
    pump_destroy(pump);
}

static void test_candidate_refused_by_a_quorum_waits_for_the_next_timeout(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_isolate(pump, 1, true);
    for (int i = 0; i < 40 && pump_status(pump, 1).state != RAFT_PRE_CANDIDATE; i++) {
        pump_tick(pump, 1);
    }
    assert_int_equal(pump_status(pump, 1).state, RAFT_PRE_CANDIDATE);
    for (uint64_t from = 2; from <= 3; from++) {
        struct raft_message no = pump_message(RAFT_MSG_PREVOTE_REPLY, from, 1, 3);
        no.reject = true;
        pump_step(pump, &no);
    }
    /* The first refusal came with a later term, which ended the attempt. */
    assert_int_equal(pump_status(pump, 1).state, RAFT_FOLLOWER);
    assert_int_equal(pump_status(pump, 1).term, 3);
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_replicas_elect_one_leader_with_few_messages),
        cmocka_unit_test(test_idle_second_costs_only_heartbeats),
        cmocka_unit_test(test_s01_vote_lost_in_a_crash_was_never_sent),
        cmocka_unit_test(test_s02_vote_is_answered_after_its_sync_only),
        cmocka_unit_test(test_s02_candidate_asks_and_counts_itself_after_its_sync_only),
        cmocka_unit_test(test_s02_older_write_does_not_make_the_own_vote_durable),
        cmocka_unit_test(test_s03_heartbeat_does_not_clear_the_vote),
        cmocka_unit_test(test_s04_leader_votes_for_nobody_in_its_term),
        cmocka_unit_test(test_s05_isolated_replica_returns_without_a_higher_term),
        cmocka_unit_test(test_s05_inflated_term_ends_in_one_election),
        cmocka_unit_test(test_s05_vote_request_is_ignored_while_the_leader_is_heard),
        cmocka_unit_test(test_s06_voter_of_a_stale_term_helps_to_elect),
        cmocka_unit_test(test_s07_long_log_low_term_does_not_deadlock_prevote),
        cmocka_unit_test(test_s08_leader_that_hears_nobody_steps_down),
        cmocka_unit_test(test_s08_leader_that_cannot_be_heard_is_replaced),
        cmocka_unit_test(test_prevote_changes_nothing_at_the_voter),
        cmocka_unit_test(test_vote_needs_a_log_that_is_up_to_date),
        cmocka_unit_test(test_single_voter_leads_after_its_own_sync),
        cmocka_unit_test(test_messages_that_make_no_sense_change_nothing),
        cmocka_unit_test(test_sender_of_an_old_term_is_told_the_newer_one),
        cmocka_unit_test(test_closed_leader_is_replaced_within_a_heartbeat),
        cmocka_unit_test(test_closed_connection_of_one_follower_disturbs_nobody),
        cmocka_unit_test(test_closed_leader_that_is_heard_again_has_the_whole_timeout),
        cmocka_unit_test(test_closed_connection_of_another_follower_says_nothing),
        cmocka_unit_test(test_closed_leader_keeps_its_lease),
        cmocka_unit_test(test_candidate_refused_by_a_quorum_waits_for_the_next_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
