/* Replication and durability: replicate_leader.c, replicate_follower.c, core.c. Tests with a number
 * are the scenarios of that number. */
#include "unit/raft_pump.h"

static struct raft_message append_of(uint64_t from, uint64_t to, uint64_t term,
                                     struct raft_position previous,
                                     const struct raft_entry *entries, size_t count,
                                     uint64_t commit)
{
    struct raft_message message = pump_message(RAFT_MSG_APPEND, from, to, term);
    message.position = previous;
    message.entries = entries;
    message.entry_count = count;
    message.commit = commit;
    return message;
}

/* Replica 1 of three follows 2 in term 3 and holds entries 1, 2, 3 of terms 1, 1, 2; nothing
 * committed. */
static struct pump *follower_with_three(void)
{
    struct pump *pump = pump_create(3, NULL);
    struct raft_entry entries[] = {pump_entry(1, 1, "a"), pump_entry(2, 1, "b"),
                                   pump_entry(3, 2, "c")};
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){0, 0}, entries, 3, 0);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    pump_drop_wire(pump);
    return pump;
}

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
        cmocka_unit_test(test_proposals_before_a_ready_share_one_append),
        cmocka_unit_test(test_each_entry_goes_to_each_follower_once),
        cmocka_unit_test(test_followers_learn_the_commit_index_with_the_next_heartbeat),
        cmocka_unit_test(test_acceptance_of_what_is_not_in_our_log_counts_for_nothing),
        cmocka_unit_test(test_s09_old_term_entry_is_not_committed_by_counting),
        cmocka_unit_test(test_s10_empty_append_commits_no_further_than_its_previous),
        cmocka_unit_test(test_s10_heartbeat_commit_is_clamped_to_the_match),
        cmocka_unit_test(test_s11_duplicated_append_does_not_cut_a_matching_suffix),
        cmocka_unit_test(test_s11_reordered_append_is_refused_and_resent),
        cmocka_unit_test(test_s12_nothing_committed_is_ever_cut),
        cmocka_unit_test(test_conflicting_suffix_is_cut_and_the_disk_told),
        cmocka_unit_test(test_s13_previous_zero_or_compacted_is_accepted),
        cmocka_unit_test(test_s14_match_next_and_commit_never_fall),
        cmocka_unit_test(test_s15_stale_rejection_is_recognised),
        cmocka_unit_test(test_s15_probe_believes_only_the_answer_to_itself),
        cmocka_unit_test(test_conflicting_terms_are_backed_over_in_few_steps),
        cmocka_unit_test(test_s16_oversized_first_entry_travels_alone),
        cmocka_unit_test(test_s16_appends_keep_to_the_byte_limit_exactly),
        cmocka_unit_test(test_uncommitted_bytes_are_bounded),
        cmocka_unit_test(test_s17_write_of_cut_entries_claims_nothing),
        cmocka_unit_test(test_s18_single_voter_commits_after_its_own_sync),
        cmocka_unit_test(test_s18_leader_counts_itself_after_its_own_sync),
        cmocka_unit_test(test_followers_alone_can_commit_while_the_leaders_disk_waits),
        cmocka_unit_test(test_acceptance_without_a_write_waits_for_the_one_under_way),
        cmocka_unit_test(test_s19_unreachable_peer_does_not_stop_the_others),
        cmocka_unit_test(test_lost_appends_are_noticed_by_a_heartbeat),
        cmocka_unit_test(test_follower_behind_the_cache_is_fed_from_the_disk),
        cmocka_unit_test(test_loaded_entries_that_do_not_fit_are_ignored),
        cmocka_unit_test(test_append_that_is_no_log_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
