/* Starting from what was durable: raft/core/create.c. */
#include "unit/raft_pump.h"

struct recovered {
    struct raft_core_state state;
    struct raft_position runs[3];
    struct raft_membership memberships[2];
    struct raft_entry tail[2];
};

/* A log 5..10 after a snapshot at 7: terms 2 2 2 | 2 4 4 4, applied 8, memberships at 6 and 9. */
static struct recovered *good_state(struct recovered *r)
{
    memset(r, 0, sizeof(*r));
    r->runs[0] = (struct raft_position){5, 2};
    r->runs[1] = (struct raft_position){8, 4};
    struct raft_member one = {.id = 1, .role = RAFT_VOTER, .address = "one:1"};
    struct raft_member two = {.id = 2, .role = RAFT_VOTER, .address = "two:2"};
    r->memberships[0] = (struct raft_membership){.position = {6, 2}, .count = 1, .members = {one}};
    r->memberships[1] =
        (struct raft_membership){.position = {9, 4}, .count = 2, .members = {one, two}};
    r->tail[0] = pump_entry(9, 4, "nine");
    r->tail[1] = pump_entry(10, 4, "ten");
    r->state = (struct raft_core_state){
        .hard_state = {.term = 6, .voted_for = 2, .commit = 8},
        .snapshot = {.position = {7, 2}, .membership = r->memberships[0]},
        .log_start = {4, 2},
        .log_last = {10, 4},
        .term_runs = r->runs,
        .term_run_count = 2,
        .memberships = r->memberships,
        .membership_count = 2,
        .applied = 8,
        .tail = r->tail,
        .tail_count = 2,
    };
    return r;
}

static int create(const struct recovered *r, struct raft_core **core)
{
    struct raft_core_options options = raft_core_options_default(1, 1);
    char why[64] = "";
    int error = raft_core_create(&options, &r->state, core, why, sizeof(why));
    assert_true((error == ERR_OK) == (why[0] == '\0'));
    return error;
}

static void test_everything_durable_is_taken_up(void **state)
{
    (void)state;
    struct recovered r;
    struct raft_core *core;
    assert_int_equal(create(good_state(&r), &core), ERR_OK);
    raft_core_check(core);
    struct raft_status status;
    raft_core_status(core, &status);
    assert_int_equal(status.state, RAFT_FOLLOWER);
    assert_int_equal(status.term, 6);
    assert_int_equal(status.commit, 8);
    assert_int_equal(status.applied, 8);
    assert_int_equal(status.durable, 10);
    assert_int_equal(status.last.index, 10);
    assert_int_equal(status.last.term, 4);
    assert_int_equal(status.log_start.index, 4);
    assert_int_equal(status.membership.position.index, 9);
    assert_int_equal(raft_core_term_at(core, 4), 2);
    assert_int_equal(raft_core_term_at(core, 7), 2);
    assert_int_equal(raft_core_term_at(core, 8), 4);
    struct raft_membership there;
    assert_false(raft_core_membership_at(core, 5, &there)); /* older than all we know */
    assert_true(raft_core_membership_at(core, 8, &there));
    assert_int_equal(there.count, 1);
    const struct raft_entry *entries;
    assert_int_equal(raft_core_entries(core, 8, 1000, &entries), 0);
    assert_int_equal(raft_core_entries(core, 9, 1000, &entries), 2);
    /* Nothing is to be written, and nothing is committed that was not. */
    struct raft_ready ready;
    if (raft_core_ready(core, &ready)) {
        assert_int_equal(ready.write.seq, 0);
        assert_int_equal(ready.message_count, 0);
        raft_core_accept(core);
    }
    raft_core_destroy(core);
}

static void test_commit_hint_and_applied_give_the_larger(void **state)
{
    (void)state;
    struct recovered r;
    struct raft_core *core;
    good_state(&r)->state.hard_state.commit = 0;
    assert_int_equal(create(&r, &core), ERR_OK);
    struct raft_status status;
    raft_core_status(core, &status);
    assert_int_equal(status.commit, 8);
    raft_core_destroy(core);
}

typedef void (*spoil_fn)(struct recovered *r);
static void lost_tail(struct recovered *r)
{
    r->state.hard_state.commit = 11;
}
static void gap_before_log(struct recovered *r)
{
    r->state.log_start.index = 9;
    r->state.term_run_count = 0;
}
static void applied_beyond(struct recovered *r)
{
    r->state.applied = 11;
}
static void applied_before_snapshot(struct recovered *r)
{
    r->state.applied = 6;
}
static void ends_before_start(struct recovered *r)
{
    r->state.log_last.index = 3;
}
static void old_hard_state(struct recovered *r)
{
    r->state.hard_state.term = 3;
}
static void no_runs(struct recovered *r)
{
    r->state.term_run_count = 0;
}
static void runs_fall(struct recovered *r)
{
    r->runs[1].term = 1;
}
static void runs_late(struct recovered *r)
{
    r->runs[0].index = 6;
}
static void runs_disorder(struct recovered *r)
{
    r->runs[1].index = 5;
}
static void runs_end(struct recovered *r)
{
    r->runs[1].term = 5;
}
static void members_disorder(struct recovered *r)
{
    r->memberships[1].position.index = 6;
}
static void members_beyond(struct recovered *r)
{
    r->memberships[1].position.index = 11;
}
static void members_twice(struct recovered *r)
{
    r->memberships[1].members[1].id = 1;
}
static void snapshot_members(struct recovered *r)
{
    r->state.snapshot.membership.position.index = 8;
}
static void tail_gap(struct recovered *r)
{
    r->tail[0].position.index = 8;
}
static void tail_term(struct recovered *r)
{
    r->tail[1].position.term = 3;
}
static void empty_with_term(struct recovered *r)
{
    r->state.log_start = (struct raft_position){10, 3};
    r->state.applied = 10;
    r->state.tail_count = 0;
}

static void test_state_that_contradicts_itself_is_refused_with_a_reason(void **state)
{
    (void)state;
    static const spoil_fn spoils[] = {
        lost_tail,         gap_before_log,  applied_beyond,   applied_before_snapshot,
        ends_before_start, old_hard_state,  no_runs,          runs_fall,
        runs_late,         runs_disorder,   runs_end,         members_disorder,
        members_beyond,    members_twice,   snapshot_members, tail_gap,
        tail_term,         empty_with_term,
    };
    for (size_t i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
        struct recovered r;
        struct raft_core *core = NULL;
        spoils[i](good_state(&r));
        assert_int_equal(create(&r, &core), ERR_CORRUPT);
        assert_null(core);
    }
}

static void test_options_that_cannot_work_are_refused(void **state)
{
    (void)state;
    struct recovered r;
    good_state(&r);
    struct raft_core_options good = raft_core_options_default(1, 1);
    struct raft_core_options bad[8];
    for (size_t i = 0; i < 8; i++) {
        bad[i] = good;
    }
    bad[0].id = 0;
    bad[1].heartbeat_ticks = 0;
    bad[2].heartbeat_ticks = good.election_ticks;
    bad[3].append_bytes_max = 0;
    bad[4].inflight_bytes_max = good.append_bytes_max - 1;
    bad[5].inflight_count_max = 257;
    bad[6].inflight_count_max = 0;
    bad[7].uncommitted_bytes_max = 0;
    for (size_t i = 0; i < 8; i++) {
        struct raft_core *core = NULL;
        char why[16] = "";
        assert_int_equal(raft_core_create(&bad[i], &r.state, &core, why, sizeof(why)), ERR_INVALID);
        assert_int_equal(strlen(why), 15); /* cut, but ended */
    }
    raft_core_destroy(NULL);
}

static void test_same_inputs_and_seed_give_the_same_trace(void **state)
{
    (void)state;
    static char traces[2][sizeof(((struct pump *)0)->trace)];
    for (size_t i = 0; i < 2; i++) {
        struct pump *pump = pump_create(3, NULL);
        pump->traced = 2;
        uint64_t leader = pump_wait_leader(pump);
        pump_commit(pump, leader, "a");
        pump_isolate(pump, leader, true);
        pump_tick_all(pump, 60);
        pump_isolate(pump, leader, false);
        pump_tick_all(pump, 60);
        memcpy(traces[i], pump->trace, sizeof(traces[i]));
        pump_destroy(pump);
    }
    assert_true(strlen(traces[0]) > 0);
    assert_string_equal(traces[0], traces[1]);
}

/* The life of a replica that is elected and deposed, as its trace tells it. */
static void test_trace_tells_each_transition_in_one_line(void **state)
{
    (void)state;
    struct pump *pump = pump_create(3, NULL);
    pump->traced = 1;
    pump_elect(pump, 1);
    pump_commit(pump, 1, "a");
    struct raft_message higher = pump_message(RAFT_MSG_HEARTBEAT, 2, 1, 5);
    pump_step(pump, &higher);
    assert_string_equal(pump->trace, "id=1 precandidate term=0\n"
                                     "id=1 candidate term=1 transfer=0\n"
                                     "id=1 leader term=1 last=0\n"
                                     "id=1 commit index=1\n"
                                     "id=1 commit index=2\n"
                                     "id=1 follower term=5 leader=2 was=leader\n");
    pump_destroy(pump);
}

static void corrupt_and_check(void *context)
{
    raft_core_applied(context, 99); /* more than is committed: a bug of the caller */
}

static void test_callers_bug_ends_the_process_with_both_values(void **state)
{
    (void)state;
    struct pump *pump = pump_create(1, NULL);
    char text[512];
    int status = child_run(corrupt_and_check, pump->nodes[1].core, text, sizeof(text));
    assert_true(WIFSIGNALED(status));
    assert_non_null(strstr(text, "index <= core->commit"));
    pump_destroy(pump);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_durable_is_taken_up),
        cmocka_unit_test(test_commit_hint_and_applied_give_the_larger),
        cmocka_unit_test(test_state_that_contradicts_itself_is_refused_with_a_reason),
        cmocka_unit_test(test_options_that_cannot_work_are_refused),
        cmocka_unit_test(test_same_inputs_and_seed_give_the_same_trace),
        cmocka_unit_test(test_trace_tells_each_transition_in_one_line),
        cmocka_unit_test(test_callers_bug_ends_the_process_with_both_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
