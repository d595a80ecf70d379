/* Snapshots between replicas: raft/core/snapshot.c. Tests with a number are the scenarios of that
 * number. */
#include "unit/raft_pump.h"

enum { SNAPSHOT_ID = 7001, OTHER_ID = 7002, BYTES = 25 };

static void small_chunks(struct raft_core_options *options)
{
    options->chunk_bytes_max = 10; /* three chunks */
}

/* Replica 3 missed `missed` entries that the leader, 1, has compacted. */
static struct pump *leader_without_the_log(size_t missed)
{
    struct pump *pump = pump_create(3, small_chunks);
    pump_elect(pump, 1);
    pump_commit(pump, 1, "seen by all");
    pump_tick_all(pump, 1);
    pump_isolate(pump, 3, true);
    for (size_t i = 0; i < missed; i++) {
        pump_commit(pump, 1, "missed by 3");
    }
    pump_compact(pump, 1, pump->nodes[1].applied);
    return pump;
}

static struct raft_snapshot snapshot_of(const struct pump *pump, uint64_t id,
                                        struct raft_position position, uint64_t size)
{
    struct raft_snapshot snapshot = {
        .position = position, .membership = pump->bootstrap, .size_bytes = size, .id = id};
    return snapshot;
}

static struct raft_message chunk_of(const struct raft_snapshot *snapshot, uint64_t from,
                                    uint64_t to, uint64_t term, uint64_t offset,
                                    const uint8_t *bytes, size_t size)
{
    struct raft_message message = pump_message(RAFT_MSG_SNAPSHOT, from, to, term);
    message.snapshot = snapshot;
    message.chunk_offset = offset;
    message.chunk = bytes_of(bytes + offset, size);
    return message;
}

static void fill(uint8_t bytes[BYTES], uint64_t id)
{
    for (size_t i = 0; i < BYTES; i++) {
        bytes[i] = (uint8_t)(id * 31 + i); /* what the pump's disk expects */
    }
}

/* The newest answer about a snapshot that replica `to` is sent. */
static struct raft_message answer_to(struct pump *pump, uint64_t to)
{
    struct pump_message *found = pump_find(pump, RAFT_MSG_SNAPSHOT_REPLY, to);
    assert_non_null(found);
    return found->message;
}

static void test_follower_behind_the_log_is_sent_a_snapshot(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(10);
    uint64_t last = pump_status(pump, 1).last.index;
    pump_isolate(pump, 3, false);
    pump_tick_all(pump, 2);
    assert_int_equal(pump_progress(pump, 1, 3).mode, RAFT_SNAPSHOT);
    assert_int_equal(pump_status(pump, 1).snapshot_wanted, last);
    assert_false(raft_core_snapshot_in_use(pump->nodes[1].core, SNAPSHOT_ID));
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    assert_int_equal(pump_status(pump, 1).snapshot_wanted, 0);
    pump_settle(pump);
    assert_int_equal(pump->nodes[3].applied, last);
    assert_int_equal(pump_status(pump, 3).log_start.index, last);
    assert_int_equal(pump_status(pump, 3).commit, last);
    assert_int_equal(pump_progress(pump, 1, 3).mode, RAFT_REPLICATE);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_SNAPSHOT], 3);
    pump_commit(pump, 1, "after");
    pump_tick_all(pump, 1);
    assert_int_equal(pump->nodes[3].applied, last + 1);
    /* A newer one replaces the offered one, which nobody needs any more. */
    assert_true(raft_core_snapshot_in_use(pump->nodes[1].core, SNAPSHOT_ID));
    pump_snapshot(pump, 1, OTHER_ID, BYTES);
    assert_false(raft_core_snapshot_in_use(pump->nodes[1].core, SNAPSHOT_ID));
    pump_destroy(pump);
}

static void test_chunk_is_acknowledged_when_it_is_durable(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_isolate(pump, 3, false);
    pump->nodes[3].disk_waits = true;
    pump_tick_all(pump, 2);
    assert_int_equal(pump->nodes[3].write_count, 1);
    assert_true(pump->nodes[3].writes[0].write.must_sync);
    assert_int_equal(pump->sent_of_kind[RAFT_MSG_SNAPSHOT_REPLY], 0);
    pump_sync(pump, 3, 1);
    assert_int_equal(answer_to(pump, 1).chunk_offset, 10);
    pump_settle(pump);
    pump_sync(pump, 3, 1);
    pump_settle(pump);
    /* The last chunk: until the install is durable the log stays as it was. */
    assert_non_null(pump->nodes[3].writes[0].install);
    uint64_t before = pump_status(pump, 3).last.index;
    assert_int_equal(pump_status(pump, 3).commit, before);
    pump_sync(pump, 3, 1);
    assert_true(pump_status(pump, 3).commit > before);
    pump->nodes[3].disk_waits = false;
    pump_settle(pump);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_s20_stale_snapshot_does_not_cut_a_newer_log(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, small_chunks);
    pump_elect(pump, 1);
    for (int i = 0; i < 5; i++) {
        pump_commit(pump, 1, "x");
    }
    pump_tick_all(pump, 1);
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot old = snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){3, 1}, 10);
    struct raft_message message = chunk_of(&old, 1, 2, 1, 0, bytes, 10);
    pump_step(pump, &message);
    assert_int_equal(pump_status(pump, 2).last.index, 6);
    assert_int_equal(pump_status(pump, 2).commit, 6);
    assert_int_equal(pump->nodes[2].write_count, 0);
    /* The leader learns that the follower has more than the snapshot. */
    assert_int_equal(pump_find(pump, RAFT_MSG_APPEND_REPLY, 1)->message.position.index, 6);
    pump_destroy(pump);
}

/* Replica 1 follows 2 in term 5 with entries 1..6 of term 1, nothing committed. */
static struct pump *follower_with_six(void)
{
    struct pump *pump = pump_create(3, small_chunks);
    struct raft_entry entries[6];
    for (uint64_t i = 0; i < 6; i++) {
        entries[i] = pump_entry(i + 1, 1, "x");
    }
    struct raft_message message = pump_message(RAFT_MSG_APPEND, 2, 1, 5);
    message.entries = entries;
    message.entry_count = 6;
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    pump_drop_wire(pump);
    return pump;
}

static void test_s21_conflict_at_last_included_discards_the_log(void **state)
{
    (void)state;
    struct pump *pump = follower_with_six();
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot snapshot =
        snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){4, 3}, 10);
    struct raft_message message = chunk_of(&snapshot, 2, 1, 5, 0, bytes, 10);
    pump_step(pump, &message);
    assert_non_null(pump->nodes[1].writes[0].install);
    pump_sync(pump, 1, 9);
    struct raft_status status = pump_status(pump, 1);
    assert_int_equal(status.last.index, 4); /* 5 and 6 followed a wrong 4 */
    assert_int_equal(status.last.term, 3);
    assert_int_equal(status.log_start.index, 4);
    assert_int_equal(status.commit, 4);
    assert_int_equal(answer_to(pump, 2).chunk_offset, 10);
    pump_destroy(pump);
}

static void test_s21_match_at_last_included_keeps_what_follows(void **state)
{
    (void)state;
    struct pump *pump = follower_with_six();
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot snapshot =
        snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){4, 1}, 10);
    struct raft_message message = chunk_of(&snapshot, 2, 1, 5, 0, bytes, 10);
    pump_step(pump, &message);
    struct raft_status status = pump_status(pump, 1);
    assert_int_equal(status.last.index, 6);
    assert_int_equal(status.commit, 4);
    /* nothing was installed: the log itself is as good */
    assert_int_equal(status.log_start.index, 0);
    assert_int_equal(pump->nodes[1].write_count, 0);
    assert_int_equal(pump_find(pump, RAFT_MSG_APPEND_REPLY, 2)->message.position.index, 4);
    pump_destroy(pump);
}

static void test_s22_log_stands_still_while_a_snapshot_is_installed(void **state)
{
    (void)state;
    struct pump *pump = follower_with_six();
    pump->nodes[1].disk_waits = true;
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot snapshot =
        snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){9, 3}, 10);
    struct raft_message message = chunk_of(&snapshot, 2, 1, 5, 0, bytes, 10);
    pump_step(pump, &message);
    /* Entries, another snapshot and an election must wait. */
    struct raft_entry entry = pump_entry(7, 5, "y");
    struct raft_message append = pump_message(RAFT_MSG_APPEND, 2, 1, 5);
    append.position = (struct raft_position){6, 1};
    append.entries = &entry;
    append.entry_count = 1;
    append.commit = 7;
    pump_step(pump, &append);
    struct raft_snapshot newer = snapshot_of(pump, OTHER_ID, (struct raft_position){12, 3}, 10);
    message = chunk_of(&newer, 2, 1, 5, 0, bytes, 10);
    pump_step(pump, &message);
    for (int i = 0; i < 100; i++) {
        pump_tick(pump, 1);
    }
    assert_int_equal(pump_status(pump, 1).state, RAFT_FOLLOWER);
    assert_int_equal(pump_status(pump, 1).last.index, 6);
    assert_int_equal(pump_status(pump, 1).commit, 0);
    assert_int_equal(pump->nodes[1].write_count, 1);
    pump_sync(pump, 1, 9);
    assert_int_equal(pump_status(pump, 1).commit, 9);
    assert_int_equal(pump_status(pump, 1).last.index, 9);
    pump_destroy(pump);
}

static void test_s22_a_vote_written_behind_the_install_claims_no_log(void **state)
{
    (void)state;
    struct pump *pump = follower_with_six();
    pump->nodes[1].disk_waits = true;
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot snapshot =
        snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){4, 3}, 10);
    struct raft_message message = chunk_of(&snapshot, 2, 1, 5, 0, bytes, 10);
    pump_step(pump, &message);
    struct raft_message vote = pump_message(RAFT_MSG_VOTE, 3, 1, 8);
    vote.position = (struct raft_position){9, 7};
    vote.leader_transfer = true;
    pump_step(pump, &vote);
    assert_int_equal(pump->nodes[1].write_count, 2);
    pump_sync(pump, 1, 1);
    pump_sync(pump, 1, 1);
    assert_int_equal(pump_status(pump, 1).durable, 4);
    assert_int_equal(pump_status(pump, 1).last.index, 4);
    assert_int_equal(pump_status(pump, 1).term, 8);
    pump_destroy(pump);
}

static void test_s23_two_snapshots_in_quick_succession(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_isolate(pump, 3, false);
    pump->nodes[3].disk_waits = true;
    pump_tick_all(pump, 2);
    /* A newer one is offered in the middle of the stream: the stream goes on with what it began. */
    pump_commit(pump, 1, "more");
    uint64_t last = pump_status(pump, 1).last.index;
    pump_snapshot(pump, 1, OTHER_ID, BYTES);
    assert_true(raft_core_snapshot_in_use(pump->nodes[1].core, SNAPSHOT_ID));
    pump->nodes[3].disk_waits = false;
    pump_settle(pump);
    assert_int_equal(pump->nodes[3].snapshot.id, SNAPSHOT_ID);
    assert_false(raft_core_snapshot_in_use(pump->nodes[1].core, SNAPSHOT_ID));
    assert_int_equal(pump_status(pump, 3).last.index, last);
    pump_destroy(pump);
}

static void test_s25_valid_snapshot_from_a_new_leader_is_taken_though_older(void **state)
{
    (void)state;
    struct pump *pump = follower_with_six();
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot newer =
        snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){20, 4}, BYTES);
    struct raft_message message = chunk_of(&newer, 2, 1, 5, 0, bytes, 10);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    /* In the same term an older one is a delayed message. */
    uint8_t other[BYTES];
    fill(other, OTHER_ID);
    struct raft_snapshot older = snapshot_of(pump, OTHER_ID, (struct raft_position){15, 4}, 10);
    message = chunk_of(&older, 2, 1, 5, 0, other, 10);
    pump_step(pump, &message);
    assert_int_equal(pump->nodes[1].write_count, 0);
    /* The next leader may have none but that. */
    message = chunk_of(&older, 3, 1, 6, 0, other, 10);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    assert_int_equal(pump_status(pump, 1).commit, 15);
    pump_destroy(pump);
}

static void test_s26_missing_repeated_and_foreign_chunks(void **state)
{
    (void)state;
    struct pump *pump = follower_with_six();
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot snapshot =
        snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){9, 3}, BYTES);
    struct raft_message first = chunk_of(&snapshot, 2, 1, 5, 0, bytes, 10);
    struct raft_message third = chunk_of(&snapshot, 2, 1, 5, 20, bytes, 5);
    /* The first one is missing. */
    pump_step(pump, &third);
    assert_int_equal(answer_to(pump, 2).chunk_offset, 0);
    assert_int_equal(answer_to(pump, 2).snapshot_id, SNAPSHOT_ID);
    pump_step(pump, &first);
    pump_sync(pump, 1, 9);
    assert_int_equal(answer_to(pump, 2).chunk_offset, 10);
    /* Repeated, and one too far: the answer names what is wanted, nothing is written. */
    pump_drop_wire(pump);
    pump_step(pump, &first);
    assert_int_equal(answer_to(pump, 2).chunk_offset, 10);
    pump_drop_wire(pump);
    pump_step(pump, &third);
    assert_int_equal(answer_to(pump, 2).chunk_offset, 10);
    assert_int_equal(pump->nodes[1].write_count, 0);
    /* Malformed: beyond the end; empty in the middle. */
    struct raft_message bad = chunk_of(&snapshot, 2, 1, 5, 10, bytes, 10);
    bad.chunk = bytes_of(bytes, 16);
    pump_step(pump, &bad);
    bad.chunk = BYTES_EMPTY;
    pump_step(pump, &bad);
    assert_int_equal(pump->nodes[1].write_count, 0);
    /* The middle of a newer one, whose start was lost, does not end what is under way. */
    struct raft_snapshot newer = snapshot_of(pump, OTHER_ID, (struct raft_position){11, 3}, BYTES);
    struct raft_message lost = chunk_of(&newer, 2, 1, 5, 10, bytes, 10);
    pump_drop_wire(pump);
    pump_step(pump, &lost);
    assert_int_equal(answer_to(pump, 2).chunk_offset, 0);
    struct raft_message second = chunk_of(&snapshot, 2, 1, 5, 10, bytes, 10);
    pump_step(pump, &second);
    pump_sync(pump, 1, 9);
    assert_int_equal(answer_to(pump, 2).chunk_offset, 20);
    /* Another leader with another snapshot, in its middle and from its start. */
    uint8_t other[BYTES];
    fill(other, OTHER_ID);
    struct raft_snapshot theirs = snapshot_of(pump, OTHER_ID, (struct raft_position){9, 3}, BYTES);
    struct raft_message message = chunk_of(&theirs, 3, 1, 6, 10, other, 10);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    assert_int_equal(answer_to(pump, 3).chunk_offset, 0);
    for (size_t at = 0; at < BYTES; at += 10) {
        message = chunk_of(&theirs, 3, 1, 6, at, other, BYTES - at < 10 ? BYTES - at : 10);
        pump_step(pump, &message);
        pump_sync(pump, 1, 9);
    }
    assert_int_equal(pump_status(pump, 1).commit, 9);
    assert_int_equal(pump->nodes[1].snapshot.id, OTHER_ID);
    pump_destroy(pump);
}

static void test_s26_stream_resumes_where_the_same_snapshot_stopped(void **state)
{
    (void)state;
    struct pump *pump = follower_with_six();
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot snapshot =
        snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){9, 3}, BYTES);
    struct raft_message message = chunk_of(&snapshot, 2, 1, 5, 0, bytes, 10);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    /* Its sender is elected anew and begins at the start. */
    message = chunk_of(&snapshot, 2, 1, 7, 0, bytes, 10);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    assert_int_equal(answer_to(pump, 2).chunk_offset, 10);
    assert_int_equal(pump->nodes[1].staged_bytes, 10);
    pump_destroy(pump);
}

static void test_s26_lost_chunk_and_lost_answer_are_sent_again(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_isolate(pump, 3, false);
    for (int i = 0; i < 12 && pump->nodes[3].staged_bytes < 10; i++) {
        pump_tick_all(pump, 1);
        pump_drop_kind(pump, RAFT_MSG_SNAPSHOT);
    }
    pump_isolate(pump, 3, true);
    pump_tick_all(pump, 3);
    pump_isolate(pump, 3, false);
    pump_tick_all(pump, 25);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_s26_follower_that_restarts_gets_it_from_the_start(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_isolate(pump, 3, false);
    pump->nodes[3].disk_waits = true;
    pump_tick_all(pump, 2);
    pump_sync(pump, 3, 1);
    assert_int_equal(pump->nodes[3].staged_bytes, 10);
    pump_settle(pump);
    pump_restart(pump, 3);
    pump->nodes[3].disk_waits = false;
    pump_tick_all(pump, 25);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_s26_damaged_snapshot_is_sent_anew(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_isolate(pump, 3, false);
    pump->nodes[3].installs_damaged = 1;
    pump_tick_all(pump, 2);
    assert_int_equal(pump->nodes[3].installs_damaged, 0);
    pump_tick_all(pump, 25);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, 1).last.index);
    assert_in_range(pump->sent_of_kind[RAFT_MSG_SNAPSHOT], 6, 8);
    pump_destroy(pump);
}

static void test_s26_snapshot_damaged_for_good_is_not_sent_in_a_tight_loop(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_isolate(pump, 3, false);
    pump->nodes[3].installs_damaged = 1000000;
    pump_tick_all(pump, 10);
    assert_in_range(pump->sent_of_kind[RAFT_MSG_SNAPSHOT], 3, 3 * 10);
    pump_destroy(pump);
}

static void test_s27_snapshot_carries_the_membership(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, small_chunks);
    pump_elect(pump, 1);
    struct raft_change change = {.kind = RAFT_ADD_LEARNER, .id = 5, .address = "five:5"};
    struct raft_position position;
    assert_int_equal(raft_core_propose_change(pump->nodes[1].core, &change, &position), ERR_OK);
    pump_settle(pump);
    pump_commit(pump, 1, "x");
    pump_compact(pump, 1, pump->nodes[1].applied);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_add_blank(pump, 5);
    assert_int_equal(pump_status(pump, 5).membership.count, 0);
    pump_tick_all(pump, 3);
    struct raft_status status = pump_status(pump, 5);
    assert_int_equal(status.membership.count, 4);
    assert_int_equal(status.membership.position.index, position.index);
    assert_string_equal(status.membership.members[3].address, "five:5");
    assert_int_equal(pump->nodes[5].applied, pump_status(pump, 1).last.index);
    /* And it is still there after a restart. */
    pump_restart(pump, 5);
    assert_int_equal(pump_status(pump, 5).membership.count, 4);
    pump_destroy(pump);
}

/* The owner wants to compact all it has, again and again; the follower must still arrive. */
static void test_s28_log_is_kept_behind_a_snapshot_that_is_being_sent(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    struct raft_snapshot snapshot = pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_isolate(pump, 3, false);
    pump->nodes[3].disk_waits = true;
    pump_tick_all(pump, 2);
    for (int i = 0; i < 20; i++) {
        pump_commit(pump, 1, "new");
        pump_compact(pump, 1, pump->nodes[1].applied);
        assert_int_equal(pump_status(pump, 1).log_start.index, snapshot.position.index);
    }
    pump_snapshot(pump, 1, OTHER_ID, BYTES);
    pump->nodes[3].disk_waits = false;
    pump_settle(pump);
    assert_int_equal(pump_status(pump, 3).last.index, pump_status(pump, 1).last.index);
    assert_int_equal(pump->nodes[3].snapshot.id, SNAPSHOT_ID);
    pump_compact(pump, 1, pump->nodes[1].applied);
    assert_int_equal(pump_status(pump, 1).log_start.index, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_s28_dead_follower_does_not_hold_the_log(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_isolate(pump, 3, false);
    pump->nodes[3].disk_waits = true;
    pump_tick_all(pump, 2);
    pump_isolate(pump, 3, true);
    pump_tick_all(pump, 12);
    pump_commit(pump, 1, "new");
    pump_compact(pump, 1, pump->nodes[1].applied);
    assert_int_equal(pump_status(pump, 1).log_start.index, pump_status(pump, 1).last.index);
    /* When it returns it needs a newer one. */
    pump->nodes[3].disk_waits = false;
    pump_isolate(pump, 3, false);
    pump_tick_all(pump, 3);
    assert_int_not_equal(pump_status(pump, 1).snapshot_wanted, 0);
    pump_snapshot(pump, 1, OTHER_ID, BYTES);
    pump_tick_all(pump, 2);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_snapshot_of_no_bytes_is_installed(void **state)
{
    (void)state;
    struct pump *pump = leader_without_the_log(5);
    pump_snapshot(pump, 1, SNAPSHOT_ID, 0);
    pump_isolate(pump, 3, false);
    pump_tick_all(pump, 2);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_entries_gone_from_the_disk_lead_to_a_snapshot(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, small_chunks);
    pump_elect(pump, 1);
    pump_isolate(pump, 3, true);
    for (int i = 0; i < 10; i++) {
        pump_commit(pump, 1, "x");
    }
    pump_restart(pump, 1); /* only the newest entries are in memory now */
    pump_restart(pump, 2);
    pump_elect(pump, 1);
    pump->nodes[1].log_gone = true;
    pump_isolate(pump, 3, false);
    pump_tick_all(pump, 3);
    assert_int_equal(pump_progress(pump, 1, 3).mode, RAFT_SNAPSHOT);
    assert_int_equal(pump_status(pump, 1).log_start.index, 0);
    assert_int_not_equal(pump_status(pump, 1).snapshot_wanted, 0);
    pump_snapshot(pump, 1, SNAPSHOT_ID, BYTES);
    pump_tick_all(pump, 2);
    assert_int_equal(pump->nodes[3].snapshot.id, SNAPSHOT_ID);
    assert_int_equal(pump->nodes[3].applied, pump_status(pump, 1).last.index);
    pump_destroy(pump);
}

static void test_snapshot_that_is_malformed_is_dropped(void **state)
{
    (void)state;
    struct pump *pump = follower_with_six();
    uint8_t bytes[BYTES];
    fill(bytes, SNAPSHOT_ID);
    struct raft_snapshot good = snapshot_of(pump, SNAPSHOT_ID, (struct raft_position){9, 3}, 10);
    struct raft_snapshot bad[6];
    for (size_t i = 0; i < 6; i++) {
        bad[i] = good;
    }
    bad[0].id = 0;
    bad[1].position.index = 0;
    bad[2].position.term = 9; /* later than the sender's */
    bad[3].membership.count = 0;
    bad[4].membership.position.index = 10;
    bad[5].membership.members[1].id = 1; /* twice */
    for (size_t i = 0; i < 6; i++) {
        struct raft_message message = chunk_of(&bad[i], 2, 1, 5, 0, bytes, 10);
        pump_step(pump, &message);
        assert_int_equal(pump->nodes[1].write_count, 0);
        assert_int_equal(pump->wire.count, 0);
    }
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follower_behind_the_log_is_sent_a_snapshot),
        cmocka_unit_test(test_chunk_is_acknowledged_when_it_is_durable),
        cmocka_unit_test(test_s20_stale_snapshot_does_not_cut_a_newer_log),
        cmocka_unit_test(test_s21_conflict_at_last_included_discards_the_log),
        cmocka_unit_test(test_s21_match_at_last_included_keeps_what_follows),
        cmocka_unit_test(test_s22_log_stands_still_while_a_snapshot_is_installed),
        cmocka_unit_test(test_s22_a_vote_written_behind_the_install_claims_no_log),
        cmocka_unit_test(test_s23_two_snapshots_in_quick_succession),
        cmocka_unit_test(test_s25_valid_snapshot_from_a_new_leader_is_taken_though_older),
        cmocka_unit_test(test_s26_missing_repeated_and_foreign_chunks),
        cmocka_unit_test(test_s26_stream_resumes_where_the_same_snapshot_stopped),
        cmocka_unit_test(test_s26_lost_chunk_and_lost_answer_are_sent_again),
        cmocka_unit_test(test_s26_follower_that_restarts_gets_it_from_the_start),
        cmocka_unit_test(test_s26_damaged_snapshot_is_sent_anew),
        cmocka_unit_test(test_s26_snapshot_damaged_for_good_is_not_sent_in_a_tight_loop),
        cmocka_unit_test(test_s27_snapshot_carries_the_membership),
        cmocka_unit_test(test_s28_log_is_kept_behind_a_snapshot_that_is_being_sent),
        cmocka_unit_test(test_s28_dead_follower_does_not_hold_the_log),
        cmocka_unit_test(test_snapshot_of_no_bytes_is_installed),
        cmocka_unit_test(test_entries_gone_from_the_disk_lead_to_a_snapshot),
        cmocka_unit_test(test_snapshot_that_is_malformed_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
