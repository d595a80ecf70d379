/* That the logs become one: what a follower takes, cuts and refuses, what a leader believes of its
 * answers, and what either commits. replicate_leader.c, replicate_follower.c. Tests with a number
 * are the scenarios of that number. */
#include "unit/raft_appends.h"

/* Figure 8 of the paper: an entry of an old term on a majority is not committed by counting. */
static void test_s09_old_term_entry_is_not_committed_by_counting(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    uint64_t base = pump_status(pump, 1).last.index;
    pump->cut[1][2] = true;
    pump->cut[1][3] = true;
    pump_propose(pump, 1, "old term");
    pump_sync(pump, 1, 9);
    pump_drop_wire(pump);
    pump_restart(pump, 1);
    pump_restart(pump, 2); /* forgets that it heard a leader */
    memset(pump->cut, 0, sizeof(pump->cut));
    /* It is elected anew; its old entry reaches 2, but the new term's first entry reaches nobody.
     */
    pump->cut[1][3] = true;
    pump->cut[3][1] = true;
    for (int i = 0; i < 100 && pump_status(pump, 1).state != RAFT_LEADER; i++) {
        pump_tick(pump, 1);
        for (int k = 0; k < 20 && pump_status(pump, 1).state != RAFT_LEADER; k++) {
            pump_sync(pump, 1, 9);
            pump_sync(pump, 2, 9);
            if (pump->wire.count > 0) {
                pump_deliver_one(pump);
            }
        }
    }
    assert_int_equal(pump_status(pump, 1).state, RAFT_LEADER);
    uint64_t term = pump_status(pump, 1).term;
    assert_true(term > 1);
    pump_sync(pump, 1, 9);
    pump_drop_wire(pump);
    uint64_t old = base + 1;
    struct raft_message ack = pump_message(RAFT_MSG_APPEND_REPLY, 2, 1, term);
    ack.position = (struct raft_position){old, 1};
    pump_step(pump, &ack);
    assert_int_equal(pump_progress(pump, 1, 2).match, old);
    assert_true(pump_status(pump, 1).commit < old);
    assert_false(pump_status(pump, 1).read_ready);
    /* With an entry of its own term everything before it is committed too. */
    ack.position = (struct raft_position){old + 1, term};
    pump_step(pump, &ack);
    assert_int_equal(pump_status(pump, 1).commit, old + 1);
    pump_destroy(pump);
}

/* An acceptance that names an entry the leader does not have counts for nothing, whatever it means.
 */
static void test_acceptance_of_what_is_not_in_our_log_counts_for_nothing(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_tick_all(pump, 1);
    pump->cut[1][2] = true;
    pump->cut[1][3] = true;
    struct raft_position position = pump_propose(pump, 1, "a");
    pump_sync(pump, 1, 9);
    uint64_t match = pump_progress(pump, 1, 2).match;
    assert_true(match < position.index);
    struct raft_message ack = pump_message(RAFT_MSG_APPEND_REPLY, 2, 1, position.term);
    ack.position = (struct raft_position){position.index, position.term - 1};
    pump_step(pump, &ack);
    ack.position = (struct raft_position){position.index + 1, position.term};
    pump_step(pump, &ack);
    assert_int_equal(pump_progress(pump, 1, 2).match, match);
    assert_true(pump_status(pump, 1).commit < position.index);
    ack.position = position;
    pump_step(pump, &ack);
    assert_int_equal(pump_status(pump, 1).commit, position.index);
    pump_destroy(pump);
}

static void test_s10_empty_append_commits_no_further_than_its_previous(void **state)
{
    (void)state;
    struct pump *pump = follower_with_three();
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){1, 1}, NULL, 0, 100);
    pump_step(pump, &message);
    assert_int_equal(pump_status(pump, 1).commit, 1);
    struct raft_entry two = pump_entry(2, 1, "b");
    message = append_of(2, 1, 3, (struct raft_position){1, 1}, &two, 1, 100);
    pump_step(pump, &message);
    assert_int_equal(pump_status(pump, 1).commit, 2);
    /* A heartbeat says what the leader knows us to hold; more than we have is not believed. */
    struct raft_message heartbeat = pump_message(RAFT_MSG_HEARTBEAT, 2, 1, 3);
    heartbeat.commit = 100;
    pump_step(pump, &heartbeat);
    assert_int_equal(pump_status(pump, 1).commit, 2);
    pump_destroy(pump);
}

static void test_s10_heartbeat_commit_is_clamped_to_the_match(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    pump_commit(pump, 1, "a");
    pump_commit(pump, 1, "b");
    pump_tick(pump, 1);
    uint64_t match = pump_progress(pump, 1, 3).match;
    assert_true(match < pump_status(pump, 1).commit);
    assert_int_equal(pump_find(pump, RAFT_MSG_HEARTBEAT, 3)->message.commit, match);
    assert_int_equal(pump_find(pump, RAFT_MSG_HEARTBEAT, 2)->message.commit,
                     pump_status(pump, 1).commit);
    pump_destroy(pump);
}

static void test_s11_duplicated_append_does_not_cut_a_matching_suffix(void **state)
{
    (void)state;
    struct pump *pump = follower_with_three();
    struct raft_entry first = pump_entry(1, 1, "a");
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){0, 0}, &first, 1, 0);
    pump_step(pump, &message);
    pump_step(pump, &message);
    assert_int_equal(pump_status(pump, 1).last.index, 3);
    assert_int_equal(pump->nodes[1].write_count, 0);
    /* Its answer claims what it carried, not the rest. */
    assert_int_equal(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2)->message.position.index, 1);
    message = append_of(2, 1, 3, (struct raft_position){0, 0}, NULL, 0, 0);
    pump_step(pump, &message);
    assert_int_equal(pump_status(pump, 1).last.index, 3);
    assert_int_equal(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2)->message.position.index, 0);
    pump_destroy(pump);
}

static void test_s11_reordered_append_is_refused_and_resent(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    pump_tick_all(pump, 1);
    pump_propose(pump, 1, "a");
    pump_propose(pump, 1, "b");
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_APPEND], 6);
    size_t at[2];
    size_t found = 0;
    for (size_t i = 0; i < pump->wire.count && found < 2; i++) {
        if (pump->wire.items[i].message.to == 2) {
            at[found++] = i;
        }
    }
    assert_int_equal(found, 2);
    struct pump_message swap = pump->wire.items[at[0]];
    pump->wire.items[at[0]] = pump->wire.items[at[1]];
    pump->wire.items[at[1]] = swap;
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 1).commit, pump_status(pump, 1).last.index);
    assert_int_equal(pump_progress(pump, 1, 2).match, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_s12_nothing_committed_is_ever_cut(void **state)
{
    (void)state;
    struct pump *pump = follower_with_three();
    struct raft_message heartbeat = pump_message(RAFT_MSG_HEARTBEAT, 2, 1, 3);
    heartbeat.commit = 2;
    pump_step(pump, &heartbeat);
    struct raft_entry wrong[] = {pump_entry(1, 3, "x"), pump_entry(2, 3, "y"),
                                 pump_entry(3, 3, "z")};
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){0, 0}, wrong, 3, 0);
    pump_step(pump, &message);
    assert_int_equal(raft_core_term_at(pump->nodes[1].core, 1), 1);
    assert_int_equal(raft_core_term_at(pump->nodes[1].core, 2), 1);
    assert_true(pump_status(pump, 1).commit == 2);
    pump_destroy(pump);
}

static void test_s13_previous_zero_or_compacted_is_accepted(void **state)
{
    (void)state;
    struct pump *pump = follower_with_three();
    struct raft_message heartbeat = pump_message(RAFT_MSG_HEARTBEAT, 2, 1, 3);
    heartbeat.commit = 3;
    pump_step(pump, &heartbeat);
    pump_drop_wire(pump);
    pump_compact(pump, 1, 2);
    assert_int_equal(pump_status(pump, 1).log_start.index, 2);
    /* Everything again from the start, with one entry more. */
    struct raft_entry entries[] = {pump_entry(1, 1, "a"), pump_entry(2, 1, "b"),
                                   pump_entry(3, 2, "c"), pump_entry(4, 3, "d")};
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){0, 0}, entries, 4, 4);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    assert_int_equal(pump_status(pump, 1).last.index, 4);
    assert_int_equal(pump_status(pump, 1).commit, 4);
    assert_int_equal(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2)->message.position.index, 4);
    /* From the middle of what was compacted. */
    pump_drop_wire(pump);
    message = append_of(2, 1, 3, (struct raft_position){1, 1}, entries + 1, 3, 4);
    pump_step(pump, &message);
    assert_false(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2)->message.reject);
    struct raft_entry five = pump_entry(5, 3, "e");
    struct raft_entry longer[] = {entries[1], entries[2], entries[3], five};
    message = append_of(2, 1, 3, (struct raft_position){1, 1}, longer, 4, 4);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    assert_int_equal(pump_status(pump, 1).last.index, 5);
    /* Wholly below the commit index. */
    pump_drop_wire(pump);
    message = append_of(2, 1, 3, (struct raft_position){0, 0}, entries, 1, 4);
    pump_step(pump, &message);
    assert_false(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2)->message.reject);
    assert_int_equal(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2)->message.position.index, 4);
    pump_destroy(pump);
}

static void test_s14_match_next_and_commit_never_fall(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump_commit(pump, 1, "b");
    struct raft_progress before = pump_progress(pump, 1, 2);
    uint64_t commit = pump_status(pump, 1).commit;
    struct raft_message old = pump_message(RAFT_MSG_APPEND_REPLY, 2, 1, 1);
    old.position = (struct raft_position){1, 1};
    pump_step(pump, &old);
    struct raft_message beyond = old;
    beyond.position = (struct raft_position){999, 1};
    pump_step(pump, &beyond);
    beyond.position.term = 0;
    pump_step(pump, &beyond);
    struct raft_message other_term = old;
    other_term.position = (struct raft_position){2, 9};
    pump_step(pump, &other_term);
    assert_int_equal(pump_progress(pump, 1, 2).match, before.match);
    assert_int_equal(pump_progress(pump, 1, 2).next, before.next);
    assert_int_equal(pump_status(pump, 1).commit, commit);
    pump_destroy(pump);
}

static void test_s15_stale_rejection_is_recognised(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    pump_commit(pump, 1, "b");
    struct raft_progress before = pump_progress(pump, 1, 2);
    struct raft_message stale = pump_message(RAFT_MSG_APPEND_REPLY, 2, 1, 1);
    stale.reject = true;
    stale.position = (struct raft_position){before.match, 1}; /* known to match */
    stale.hint = (struct raft_position){1, 0};
    pump_step(pump, &stale);
    assert_int_equal(pump_progress(pump, 1, 2).mode, RAFT_REPLICATE);
    stale.position.index = before.next + 5; /* nothing of that kind was sent */
    pump_step(pump, &stale);
    assert_int_equal(pump_progress(pump, 1, 2).mode, RAFT_REPLICATE);
    assert_int_equal(pump_progress(pump, 1, 2).next, before.next);
    /* While probing, only the answer to this very probe counts. */
    pump_isolate(pump, 2, true);
    pump_propose(pump, 1, "c");
    pump_propose(pump, 1, "d");
    raft_core_unreachable(pump->nodes[1].core, 2);
    pump_collect(pump, 1);
    assert_int_equal(pump_progress(pump, 1, 2).mode, RAFT_PROBE);
    stale.position = (struct raft_position){before.match + 1, 1};
    pump_step(pump, &stale);
    assert_int_equal(pump_progress(pump, 1, 2).next, before.match + 1);
    pump_destroy(pump);
}

static void test_s15_probe_believes_only_the_answer_to_itself(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    for (int i = 0; i < 5; i++) {
        pump_commit(pump, 1, "x");
    }
    pump_isolate(pump, 3, true);
    for (uint64_t id = 1; id <= 2; id++) {
        pump_restart(pump, id);
    }
    pump_elect(pump, 1);
    struct raft_progress before = pump_progress(pump, 1, 3);
    assert_int_equal(before.mode, RAFT_PROBE);
    assert_true(before.next > before.match + 3);
    struct raft_message stale =
        pump_message(RAFT_MSG_APPEND_REPLY, 3, 1, pump_status(pump, 1).term);
    stale.reject = true;
    stale.position = (struct raft_position){2, 1};
    stale.hint = (struct raft_position){1, 0};
    pump_step(pump, &stale);
    assert_int_equal(pump_progress(pump, 1, 3).next, before.next);
    stale.position = (struct raft_position){before.next - 1, 1};
    stale.hint = (struct raft_position){3, 0};
    pump_step(pump, &stale);
    assert_int_equal(pump_progress(pump, 1, 3).next, 3);
    pump_destroy(pump);
}

static void test_conflicting_terms_are_backed_over_in_few_steps(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "common");
    /* 3 led term 2 alone and has 50 entries that nobody else has. */
    uint64_t common = pump_status(pump, 1).last.index;
    struct raft_entry junk[50];
    for (size_t i = 0; i < 50; i++) {
        junk[i] = pump_entry(common + 1 + i, 2, "junk");
    }
    pump_isolate(pump, 3, true);
    struct raft_message message =
        append_of(2, 3, 2, (struct raft_position){common, 1}, junk, 50, 0);
    pump_step(pump, &message);
    pump_sync(pump, 3, 9);
    for (uint64_t id = 1; id <= 2; id++) {
        pump_crash(pump, id);
        pump->nodes[id].hard_state.term = 2;
        pump_restart(pump, id);
    }
    uint64_t leader = pump_wait_leader(pump);
    for (int i = 0; i < 60; i++) {
        pump_commit(pump, leader, "other");
    }
    /* The leader of another term does not know how far 3 is. */
    pump_restart(pump, 1);
    pump_restart(pump, 2);
    leader = pump_wait_leader(pump);
    pump_isolate(pump, 3, false);
    uint64_t before = pump->sent_of_kind[RAFT_MSG_APPEND];
    pump_tick_all(pump, 4);
    leader = pump_wait_leader(pump);
    pump_tick_all(pump, 3);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, leader).last.index);
    assert_true(pump->sent_of_kind[RAFT_MSG_APPEND] - before < 15);
    pump_destroy(pump);
}

static void test_append_that_is_no_log_is_dropped(void **state)
{
    (void)state;
    struct pump *pump = follower_with_three();
    struct raft_entry gap[] = {pump_entry(4, 3, "x"), pump_entry(6, 3, "y")};
    struct raft_entry falling[] = {pump_entry(4, 3, "x"), pump_entry(5, 2, "y")};
    struct raft_entry future[] = {pump_entry(4, 9, "x")};
    struct raft_entry early[] = {pump_entry(4, 1, "x")};
    struct raft_entry kind[] = {pump_entry(4, 3, "x")};
    kind[0].kind = (enum raft_entry_kind)9;
    struct raft_entry members[] = {pump_entry(4, 3, "not a membership")};
    members[0].kind = RAFT_ENTRY_MEMBERSHIP;
    const struct {
        const struct raft_entry *entries;
        size_t count;
    } cases[] = {{gap, 2}, {falling, 2}, {future, 1}, {early, 1}, {kind, 1}, {members, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct raft_message message =
            append_of(2, 1, 3, (struct raft_position){3, 2}, cases[i].entries, cases[i].count, 9);
        pump_step(pump, &message);
        assert_int_equal(pump_status(pump, 1).last.index, 3);
        assert_int_equal(pump_status(pump, 1).commit, 0);
        assert_null(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2));
    }
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_s09_old_term_entry_is_not_committed_by_counting),
        cmocka_unit_test(test_acceptance_of_what_is_not_in_our_log_counts_for_nothing),
        cmocka_unit_test(test_s10_empty_append_commits_no_further_than_its_previous),
        cmocka_unit_test(test_s10_heartbeat_commit_is_clamped_to_the_match),
        cmocka_unit_test(test_s11_duplicated_append_does_not_cut_a_matching_suffix),
        cmocka_unit_test(test_s11_reordered_append_is_refused_and_resent),
        cmocka_unit_test(test_s12_nothing_committed_is_ever_cut),
        cmocka_unit_test(test_s13_previous_zero_or_compacted_is_accepted),
        cmocka_unit_test(test_s14_match_next_and_commit_never_fall),
        cmocka_unit_test(test_s15_stale_rejection_is_recognised),
        cmocka_unit_test(test_s15_probe_believes_only_the_answer_to_itself),
        cmocka_unit_test(test_conflicting_terms_are_backed_over_in_few_steps),
        cmocka_unit_test(test_append_that_is_no_log_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
