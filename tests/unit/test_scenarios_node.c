/* Numbered scenarios of one replica around the core (docs/TESTING.md has the numbers): who waits
 * for what. Virtual time and fake disks; in 57 the two peers are messages made by hand. */
#include "base/log.h"
#include "node/kv_ask.h"
#include "proto/messages.h"
#include "raft/node/log_entry.h"
#include "raft/node/message_codec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LIMIT_NS (20 * SIM_S)

/* ---- 30: no reads before replay has caught up ---- */

/* Everybody lost power, and with it what the state machines had not flushed; applying is slow, and
 * what is to be replayed is several times what one job applies. The moment somebody leads, it is
 * asked for what was written last: it answers late, never with less. */
static void test_s30_read_waits_until_the_replay_has_caught_up(void **state)
{
    (void)state;
    for (uint64_t seed = 300; seed < 305; seed++) {
        struct harness_options options = harness_options_default(seed);
        options.machine = kv_machine_for_harness();
        options.replica.flush_log_bytes = 64 * 1024 * 1024; /* none: all of it is replayed */
        options.replica.cache_bytes_max = 64 * 1024 * 1024;
        struct harness *harness = harness_create(&options);
        harness_start_all(harness);
        assert_true(kv_put(harness, "k", "old", LIMIT_NS));
        assert_true(kv_put_many(harness, "fill", 6, REPLICA_APPLY_BYTES_MAX * 3 / 4, LIMIT_NS));
        assert_true(kv_put(harness, "k", "new", LIMIT_NS));
        struct harness_latency slow = {200 * SIM_MS, 400 * SIM_MS};
        for (uint32_t slot = 0; slot < 3; slot++) {
            harness_crash(harness, slot, FAKE_CRASH_LOSE);
            harness_set_latency(harness, slot, REPLICA_APPLY, slow);
        }
        harness_start_all(harness);
        int leader = harness_wait_leader(harness, LIMIT_NS);
        assert_true(leader >= 0);
        assert_false(kv_holds(harness, (uint32_t)leader, "k", "new"));
        struct buf held;
        buf_init(&held);
        assert_true(kv_get(harness, "k", &held, LIMIT_NS));
        assert_true(bytes_equal(buf_view(&held), bytes_of_string("new")));
        buf_deinit(&held);
        harness_destroy(harness);
    }
}

/* ---- 43: a node returns wiped ---- */

/* When `wiped` has lost its disk, and with it what it had promised, `other` must know all the same
 * that this is not the member it was: the two of them would be a majority without what `leader` and
 * `wiped` have acknowledged. */
static void wiped_follower_makes_no_majority(struct harness *harness, uint32_t leader,
                                             uint32_t wiped, uint32_t other)
{
    harness_crash(harness, other, FAKE_CRASH_ANY);
    assert_true(kv_put(harness, "b", "2", LIMIT_NS));
    harness_crash(harness, wiped, FAKE_CRASH_ANY);
    harness_crash(harness, leader, FAKE_CRASH_ANY);
    harness_wipe(harness, wiped);
    assert_int_equal(harness_start(harness, wiped), ERR_OK);
    assert_int_equal(harness_start(harness, other), ERR_OK);
    assert_int_equal(harness_wait_leader(harness, 10 * SIM_S), -1);
    assert_int_equal(harness_start(harness, leader), ERR_OK);
    struct buf held;
    buf_init(&held);
    assert_true(kv_get(harness, "b", &held, LIMIT_NS));
    assert_true(bytes_equal(buf_view(&held), bytes_of_string("2")));
    buf_deinit(&held);
}

/* Two followers need never have had a word with each other: the leader speaks to both. */
static void test_s43_wiped_follower_makes_no_majority_with_another_follower(void **state)
{
    (void)state;
    for (uint64_t seed = 430; seed < 450; seed++) {
        struct harness_options options = harness_options_default(seed);
        options.machine = kv_machine_for_harness();
        struct harness *harness = harness_create(&options);
        harness_start_all(harness);
        assert_true(kv_put(harness, "a", "1", LIMIT_NS));
        harness_run_for(harness, 5 * SIM_S);
        int leader = harness_wait_leader(harness, LIMIT_NS);
        assert_true(leader >= 0);
        wiped_follower_makes_no_majority(harness, (uint32_t)leader, ((uint32_t)leader + 1) % 3,
                                         ((uint32_t)leader + 2) % 3);
        harness_destroy(harness);
    }
}

/* A follower has heard everybody, but what it said first was lost on the way to the other one. It
 * says it again within an election timeout, not when it has greeted for the next time in long. */
static void test_s43_wiped_follower_whose_first_greeting_was_lost(void **state)
{
    (void)state;
    uint32_t tried = 0;
    for (uint64_t seed = 430; seed < 450; seed++) {
        struct harness_options options = harness_options_default(seed);
        options.machine = kv_machine_for_harness();
        struct harness *harness = harness_create(&options);
        harness_cut(harness, 0, 2, true);
        harness_start_all(harness);
        if (harness_wait_leader(harness, LIMIT_NS) == 1) {
            tried++;
            harness_cut(harness, 0, 2, false);
            harness_run_for(harness, SIM_S);
            assert_int_equal(harness_leader(harness), 1);
            wiped_follower_makes_no_majority(harness, 1, 0, 2);
        }
        harness_destroy(harness);
    }
    assert_true(tried >= 5);
}

/* ---- 57: a waiter is matched on (index, term) ---- */

enum {
    CLUSTER_ID = 0x5eed, /* the harness's */
    GROUP_ID = 7,
    PEER_INCARNATION = 77,
};

static void receive(struct harness *harness, uint64_t from, const struct raft_message *message)
{
    struct msg_frame *frame = mem_calloc(1, sizeof *frame);
    struct buf bytes = {0};
    struct buf packed = {0};
    message_encode(message, &bytes);
    *frame = (struct msg_frame){.version = PEER_VERSION,
                                .cluster_id = CLUSTER_ID,
                                .group_id = GROUP_ID,
                                .from = from,
                                .from_incarnation = PEER_INCARNATION,
                                .to = 1,
                                .message_count = 1};
    frame->messages[0] = buf_view(&bytes);
    msg_frame_encode(frame, &packed);
    struct blob *blob = blob_take_buf(&packed);
    assert_int_equal(replica_receive(harness_replica(harness, 0), blob), from);
    replica_poll(harness_replica(harness, 0));
    blob_unref(blob);
    buf_deinit(&bytes);
    free(frame);
}

static struct raft_status raft_of(struct harness *harness)
{
    struct node_status status;
    replica_status(harness_replica(harness, 0), &status);
    return status.raft;
}

/* Replica 1 of three, made leader by the votes of replica 2, with its first entry committed. */
static struct harness *leader_alone(uint64_t seed)
{
    struct harness_options options = harness_options_default(seed);
    options.machine = kv_machine_for_harness();
    struct harness *harness = harness_create(&options);
    assert_int_equal(harness_start(harness, 0), ERR_OK);
    const enum raft_message_kind grants[] = {RAFT_MSG_PREVOTE_REPLY, RAFT_MSG_VOTE_REPLY};
    for (uint32_t i = 0; i < 1000 && raft_of(harness).state != RAFT_LEADER; i++) {
        for (size_t kind = 0; kind < 2; kind++) {
            struct raft_status raft = raft_of(harness);
            receive(harness, 2,
                    &(struct raft_message){.kind = grants[kind],
                                           .term = raft.term + (kind == 0 ? 1 : 0)});
        }
        harness_run_for(harness, 10 * SIM_MS);
    }
    struct raft_status raft = raft_of(harness);
    assert_int_equal(raft.state, RAFT_LEADER);
    receive(harness, 2,
            &(struct raft_message){
                .kind = RAFT_MSG_APPEND_REPLY, .term = raft.term, .position = raft.last});
    harness_run_for(harness, 20 * SIM_MS);
    raft = raft_of(harness);
    assert_int_equal(raft.commit, raft.last.index);
    return harness;
}

/* Entries of the new term behind `previous`, and how much is committed, from replica 3. */
static void append_of_the_next_leader(struct harness *harness, struct raft_position previous,
                                      uint64_t term, uint64_t commit, const char *value)
{
    struct buf command = {0};
    struct buf payload = {0};
    kv_command_encode(&(struct kv_command){.kind = KV_PUT,
                                           .key = bytes_of_string("k"),
                                           .value = bytes_of_string(value)},
                      &command);
    log_entry_put_header(&payload, 1000 * 1000, 1);
    log_entry_put_command(&payload, buf_view(&command));
    struct raft_entry entry = {.position = {previous.index + 1, term},
                               .kind = RAFT_ENTRY_COMMAND,
                               .data = buf_view(&payload)};
    receive(harness, 3,
            &(struct raft_message){.kind = RAFT_MSG_APPEND,
                                   .term = term,
                                   .position = previous,
                                   .commit = commit,
                                   .entries = &entry,
                                   .entry_count = 1});
    buf_deinit(&command);
    buf_deinit(&payload);
}

/* A leader that was stopped for a while has a command at an index. When it wakes, the first thing
 * it hears is the next leader's append: another command at that very index, committed. Its own was
 * never executed, and nobody may say it was. */
static void
test_s57_waiter_of_a_replaced_entry_is_not_answered_with_the_other_ones_result(void **state)
{
    (void)state;
    for (int later = 0; later < 2; later++) {
        struct harness *harness = leader_alone(570);
        struct raft_status before = raft_of(harness);
        struct kv_ask ask;
        kv_ask_init(&ask);
        kv_ask_put(harness, 0, "k", "mine", &ask);
        harness_run_for(harness, 5 * SIM_MS);
        assert_int_equal(raft_of(harness).last.index, before.last.index + 1);
        assert_false(ask.answered);
        uint64_t commit = later ? before.commit : before.commit + 1;
        append_of_the_next_leader(harness, before.last, before.term + 1, commit, "theirs");
        if (later) { /* known to be committed only with what follows */
            struct raft_position theirs = {before.last.index + 1, before.term + 1};
            append_of_the_next_leader(harness, theirs, before.term + 1, before.commit + 2, "more");
        }
        assert_true(kv_ask_wait(harness, &ask, LIMIT_NS));
        assert_int_equal(ask.error, ERR_LEADER_LOST);
        harness_run_for(harness, SIM_S);
        assert_true(kv_holds(harness, 0, "k", later ? "more" : "theirs"));
        kv_ask_deinit(&ask);
        harness_destroy(harness);
    }
}

/* The other way round: its entry is in the next leader's log. Whoever still waits when it becomes
 * committed is told so; who was told 'unknown' was told the truth. */
static void test_s57_waiter_of_an_entry_that_stays_is_told_it_is_done(void **state)
{
    (void)state;
    struct harness *harness = leader_alone(571);
    struct raft_status before = raft_of(harness);
    struct kv_ask ask;
    kv_ask_init(&ask);
    kv_ask_put(harness, 0, "k", "mine", &ask);
    harness_run_for(harness, 5 * SIM_MS);
    struct raft_position mine = raft_of(harness).last;
    assert_int_equal(mine.index, before.last.index + 1);
    append_of_the_next_leader(harness, mine, before.term + 1, mine.index + 1, "theirs");
    assert_true(kv_ask_wait(harness, &ask, LIMIT_NS));
    assert_int_equal(ask.error, ERR_OK);
    assert_true(raft_position_equal(ask.position, mine));
    kv_ask_deinit(&ask);
    harness_destroy(harness);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_s30_read_waits_until_the_replay_has_caught_up),
        cmocka_unit_test(test_s43_wiped_follower_makes_no_majority_with_another_follower),
        cmocka_unit_test(test_s43_wiped_follower_whose_first_greeting_was_lost),
        cmocka_unit_test(
            test_s57_waiter_of_a_replaced_entry_is_not_answered_with_the_other_ones_result),
        cmocka_unit_test(test_s57_waiter_of_an_entry_that_stays_is_told_it_is_done),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? LOG_ERROR : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
