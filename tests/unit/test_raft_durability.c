/* Nothing counts before it is on the disk: what is claimed, answered and committed while writes are
 * under way. core.c, replicate_follower.c. Tests with a number are the scenarios of that number. */
#include "unit/raft_appends.h"

static void test_conflicting_suffix_is_cut_and_the_disk_told(void **state)
{
    (void)state;
    struct pump *pump = follower_with_three();
    struct raft_entry other = pump_entry(3, 3, "d");
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){2, 1}, &other, 1, 0);
    pump_step(pump, &message);
    assert_int_equal(pump->nodes[1].write_count, 1);
    assert_int_equal(pump->nodes[1].writes[0].write.truncate_from, 3);
    assert_int_equal(pump->nodes[1].writes[0].write.entry_count, 1);
    assert_null(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2));
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2)->message.position.term, 3);
    pump_destroy(pump);
}

/* Entries 4, 5 of one leader are being written when another leader replaces them: the old write,
 * when it completes, must not be taken for the new entries. */
static void test_s17_write_of_cut_entries_claims_nothing(void **state)
{
    (void)state;
    struct pump *pump = follower_with_three();
    pump->nodes[1].disk_waits = true;
    struct raft_entry old[] = {pump_entry(4, 3, "old"), pump_entry(5, 3, "old")};
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){3, 2}, old, 2, 0);
    pump_step(pump, &message);
    struct raft_entry new[] = {pump_entry(4, 4, "new"), pump_entry(5, 4, "new")};
    message = append_of(3, 1, 4, (struct raft_position){3, 2}, new, 2, 5);
    pump_step(pump, &message);
    assert_int_equal(pump->nodes[1].write_count, 2);
    assert_int_equal(pump_status(pump, 1).durable, 3);
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_status(pump, 1).durable, 3);
    assert_null(pump_find(pump, RAFT_MSG_APPEND_REPLY, 3));
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_status(pump, 1).durable, 5);
    assert_int_equal(pump_find(pump, RAFT_MSG_APPEND_REPLY, 3)->message.position.term, 4);
    pump_destroy(pump);
}

static void test_s18_single_voter_commits_after_its_own_sync(void **state)
{
    (void)state;
    struct pump *pump = pump_create(1, NULL);
    pump_elect(pump, 1);
    uint64_t before = pump_status(pump, 1).commit;
    pump->nodes[1].disk_waits = true;
    struct raft_position position = pump_propose(pump, 1, "a");
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 1).commit, before);
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_status(pump, 1).commit, position.index);
    pump_destroy(pump);
}

static void test_s18_leader_counts_itself_after_its_own_sync(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    pump->nodes[1].disk_waits = true;
    uint64_t before = pump_status(pump, 1).commit;
    struct raft_position position = pump_propose(pump, 1, "a");
    pump_settle(pump);
    assert_int_equal(pump_progress(pump, 1, 2).match, position.index);
    assert_int_equal(pump_status(pump, 1).commit, before); /* one durable copy of three */
    pump_sync(pump, 1, 9);
    assert_int_equal(pump_status(pump, 1).commit, position.index);
    pump_destroy(pump);
}

static void test_followers_alone_can_commit_while_the_leaders_disk_waits(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump_elect(pump, 1);
    pump->nodes[1].disk_waits = true;
    struct raft_position position = pump_propose(pump, 1, "a");
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 1).commit, position.index);
    assert_true(pump_status(pump, 1).durable < position.index);
    pump->nodes[1].disk_waits = false;
    pump_settle(pump);
    pump_destroy(pump);
}

static void test_acceptance_without_a_write_waits_for_the_one_under_way(void **state)
{
    (void)state;
    struct pump *pump = follower_with_three();
    pump->nodes[1].disk_waits = true;
    struct raft_entry entry = pump_entry(4, 3, "d");
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){3, 2}, &entry, 1, 0);
    pump_step(pump, &message);
    pump_step(pump, &message); /* repeated: nothing to write, but not durable either */
    assert_int_equal(pump->nodes[1].write_count, 2);
    assert_int_equal(pump->nodes[1].writes[1].write.entry_count, 0);
    assert_false(pump->nodes[1].writes[1].write.must_sync);
    assert_null(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2));
    pump_sync(pump, 1, 1);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_APPEND_REPLY], 2); /* one is from the set-up */
    pump_sync(pump, 1, 1);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_APPEND_REPLY], 3);
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conflicting_suffix_is_cut_and_the_disk_told),
        cmocka_unit_test(test_s17_write_of_cut_entries_claims_nothing),
        cmocka_unit_test(test_s18_single_voter_commits_after_its_own_sync),
        cmocka_unit_test(test_s18_leader_counts_itself_after_its_own_sync),
        cmocka_unit_test(test_followers_alone_can_commit_while_the_leaders_disk_waits),
        cmocka_unit_test(test_acceptance_without_a_write_waits_for_the_one_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
