/* The router against scripted answers: where a command goes, and goes next. */
#include "router_fixture.h"

static void test_not_leader_with_hint_takes_one_round_trip(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    /* Not one of the config's addresses: a member added since. */
    refuse(&fixture, &flight, ERR_NOT_LEADER, "127.0.0.1:1999");
    take(&fixture, &flight); /* at once, no tick between */
    assert_string_equal(flight.batch.address, "127.0.0.1:1999");
    assert_int_equal(flight.ops[0].sequence, 1);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    /* And it is remembered. */
    submit(&fixture, OP_PUT, 1);
    take(&fixture, &flight);
    assert_string_equal(flight.batch.address, "127.0.0.1:1999");
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 2, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_not_leader_without_hint_tries_each_then_rests(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    char seen[3][ADDRESS_BYTES_MAX];
    submit(&fixture, OP_PUT, 0);
    for (uint32_t i = 0; i < 3; i++) {
        take(&fixture, &flight);
        memcpy(seen[i], flight.batch.address, sizeof seen[i]);
        for (uint32_t k = 0; k < i; k++) {
            assert_string_not_equal(seen[i], seen[k]);
        }
        refuse(&fixture, &flight, ERR_NOT_LEADER, "");
    }
    take_none(&fixture);
    assert_true(advance_to_wake(&fixture, 10 * MS)); /* first rest: 5 .. 10 ms */
    take(&fixture, &flight);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_hints_in_a_circle_make_no_loop(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    uint32_t sent = 0;
    submit(&fixture, OP_PUT, 0);
    uint64_t until_ns = fixture.now_ns + 2 * NS_PER_S;
    while (fixture.now_ns < until_ns) {
        while (router_next_batch(fixture.router, fixture.now_ns, &flight.batch)) {
            take_apart(&flight);
            sent++;
            assert_true(sent < 1000);
            bool first = strcmp(flight.batch.address, "127.0.0.1:1001") == 0;
            refuse(&fixture, &flight, ERR_NOT_LEADER, first ? "127.0.0.1:1002" : "127.0.0.1:1001");
        }
        assert_true(advance_to_wake(&fixture, 5 * NS_PER_S));
    }
    /* Five hops, then a rest that grows to 100 .. 200 ms: far below what a loop would make of two
     * seconds. */
    assert_in_range(sent, 20, 150);
    advance(&fixture, 5 * NS_PER_S);
    expect_completion(&fixture, 1, OUTCOME_NOT_DONE, ERR_UNAVAILABLE); /* refused each time */
    fixture_end(&fixture);
}

static void test_wrong_group_with_route_takes_one_round_trip(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    int wrong = ERR_WRONG_GROUP;
    struct msg_route route = route_to(2, 0, 2);
    submit(&fixture, OP_APPEND, 0);
    take(&fixture, &flight);
    assert_memory_equal(flight.batch.address, "127.0.0.1:1", 11);
    answer_each(&fixture, &flight, &wrong, &route, 1);
    take(&fixture, &flight);
    assert_memory_equal(flight.batch.address, "127.0.0.1:2", 11);
    assert_int_equal(flight.ops[0].sequence, 1);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    assert_true(router_wants_config(fixture.router, fixture.now_ns)); /* 2 is newer than 1 */
    fixture_end(&fixture);
}

static void test_shard_moved_twice_ends_at_the_newest_owner(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    int wrong = ERR_WRONG_GROUP;
    struct msg_route away = route_to(2, 0, 2);
    struct msg_route back = route_to(3, 0, 1);
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    answer_each(&fixture, &flight, &wrong, &away, 1);
    take(&fixture, &flight);
    answer_each(&fixture, &flight, &wrong, &back, 1);
    take(&fixture, &flight);
    assert_memory_equal(flight.batch.address, "127.0.0.1:1", 11);
    /* An older route, told late by a server that is behind, is not believed. */
    answer_each(&fixture, &flight, &wrong, &away, 1);
    take_none(&fixture);
    assert_true(advance_to_wake(&fixture, 10 * MS));
    take(&fixture, &flight);
    assert_memory_equal(flight.batch.address, "127.0.0.1:1", 11);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_wrong_group_in_a_circle_makes_no_loop(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    int wrong = ERR_WRONG_GROUP;
    uint32_t sent = 0;
    submit(&fixture, OP_PUT, 0);
    uint64_t until_ns = fixture.now_ns + 1 * NS_PER_S;
    while (fixture.now_ns < until_ns) {
        while (router_next_batch(fixture.router, fixture.now_ns, &flight.batch)) {
            take_apart(&flight);
            sent++;
            assert_true(sent < 1000);
            bool first = strncmp(flight.batch.address, "127.0.0.1:1", 11) == 0;
            struct msg_route route = route_to(1 + sent, 0, first ? 2 : 1);
            answer_each(&fixture, &flight, &wrong, &route, 1);
        }
        assert_true(advance_to_wake(&fixture, 5 * NS_PER_S));
    }
    assert_in_range(sent, 10, 100);
    advance(&fixture, 5 * NS_PER_S);
    expect_completion(&fixture, 1, OUTCOME_NOT_DONE, ERR_UNAVAILABLE);
    fixture_end(&fixture);
}

static void test_moving_shard_waits_short_first_and_others_go_on(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    int errors[2];
    submit(&fixture, OP_GET, 1);
    take(&fixture, &flight);
    submit(&fixture, OP_GET, 0);
    submit(&fixture, OP_GET, 1);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    take(&fixture, &flight);
    assert_int_equal(flight.count, 2);
    errors[0] = ERR_SHARD_MOVING;
    errors[1] = 0;
    answer_each(&fixture, &flight, errors, NULL, 0);
    expect_completion(&fixture, 3, OUTCOME_DONE, 0);
    uint64_t start_ns = fixture.now_ns;
    take_none(&fixture);
    assert_true(advance_to_wake(&fixture, 10 * MS));
    assert_true(fixture.now_ns - start_ns >= 5 * MS);
    for (uint32_t i = 0; i < 12; i++) { /* the wait grows, and stays below 200 ms */
        start_ns = fixture.now_ns;
        take(&fixture, &flight);
        answer_all(&fixture, &flight, ERR_SHARD_MOVING);
        assert_true(advance_to_wake(&fixture, 200 * MS));
    }
    assert_true(fixture.now_ns - start_ns >= 100 * MS);
    take(&fixture, &flight);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 2, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_busy_group_rests_and_keeps_its_leader(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    char leader[ADDRESS_BYTES_MAX];
    memcpy(leader, flight.batch.address, sizeof leader);
    refuse(&fixture, &flight, ERR_BUSY, "");
    take_none(&fixture);
    assert_true(advance_to_wake(&fixture, 10 * MS));
    take(&fixture, &flight);
    assert_string_equal(flight.batch.address, leader);
    refuse(&fixture, &flight, ERR_BUSY, "");
    advance(&fixture, 6 * NS_PER_S);
    expect_completion(&fixture, 1, OUTCOME_NOT_DONE, ERR_BUSY);
    fixture_end(&fixture);
}

static void test_silent_leader_is_left_and_its_connection_reset(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight first, second;
    uint64_t reset = 0;
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &first);
    assert_false(router_next_reset(fixture.router, &reset));
    advance(&fixture, 1500 * MS);
    assert_true(router_next_reset(fixture.router, &reset));
    assert_int_equal(reset, first.batch.connection);
    take(&fixture, &second);
    assert_string_not_equal(second.batch.address, first.batch.address);
    answer_all(&fixture, &second, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    /* The late answer of the first is nobody's. */
    answer_all(&fixture, &first, 0);
    expect_no_completion(&fixture);
    fixture_end(&fixture);
}

static void test_slow_leader_gets_more_patience_until_it_is_quick_again(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    uint64_t reset;
    submit(&fixture, OP_GET, 0);
    take(&fixture, &flight);
    advance(&fixture, 1400 * MS); /* slow, but in time */
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, "v", 60 * NS_PER_S), 0);
    take(&fixture, &flight);
    advance(&fixture, 5500 * MS); /* four times as long as it took before is waited */
    assert_false(router_next_reset(fixture.router, &reset));
    advance(&fixture, 200 * MS);
    assert_true(router_next_reset(fixture.router, &reset));
    flight_end(&flight);
    for (uint32_t i = 0; i < 60; i++) { /* quick answers take the patience down again */
        take(&fixture, &flight);
        answer_all(&fixture, &flight, 0);
        submit(&fixture, OP_GET, 0);
    }
    take(&fixture, &flight);
    advance(&fixture, 1600 * MS);
    assert_true(router_next_reset(fixture.router, &reset));
    flight_end(&flight);
    router_destroy(fixture.router);
}

static void test_new_batch_does_not_cut_short_the_wait_for_an_older_one(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight put, get;
    uint64_t reset;
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, "v", 60 * NS_PER_S), 0);
    take(&fixture, &put);
    flight_end(&put);
    advance(&fixture, 1500 * MS);
    assert_true(router_next_reset(fixture.router, &reset));
    take(&fixture, &put); /* its second attempt waits twice as long */
    submit(&fixture, OP_GET, 0);
    take(&fixture, &get);
    assert_int_equal(get.batch.connection, put.batch.connection);
    advance(&fixture, 2900 * MS);
    assert_false(router_next_reset(fixture.router, &reset));
    answer_all(&fixture, &put, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    advance(&fixture, 100 * MS);
    assert_true(router_next_reset(fixture.router, &reset));
    flight_end(&get);
    router_destroy(fixture.router);
}

static void test_nonsense_answer_resets_the_connection(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    uint64_t reset = 0;
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    router_reply(fixture.router, flight.batch.connection, bytes_of("\xff\xff\xff", 3), NULL,
                 fixture.now_ns);
    assert_true(router_next_reset(fixture.router, &reset));
    flight_end(&flight);
    take(&fixture, &flight);
    /* One result too many. */
    flight.ops[1] = flight.ops[0];
    flight.count = 2;
    answer_all(&fixture, &flight, 0);
    assert_true(router_next_reset(fixture.router, &reset));
    take(&fixture, &flight);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_dead_group_does_not_hold_up_the_other(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    struct router_completion completion;
    uint32_t done = 0, to_dead = 0;
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(submit_for(&fixture, OP_PUT, i % 8, "v", 2 * NS_PER_S), 0);
    }
    uint64_t until_ns = fixture.now_ns + 1900 * MS;
    while (fixture.now_ns < until_ns) {
        while (router_next_batch(fixture.router, fixture.now_ns, &flight.batch)) {
            take_apart(&flight);
            if (strncmp(flight.batch.address, "127.0.0.1:1", 11) == 0) {
                to_dead++;
                flight_end(&flight);
                router_connection_lost(fixture.router, flight.batch.connection, fixture.now_ns);
            } else {
                answer_all(&fixture, &flight, 0);
            }
        }
        while (router_next_completion(fixture.router, &completion)) {
            assert_int_equal(completion.outcome, OUTCOME_DONE);
            done++;
        }
        assert_true(advance_to_wake(&fixture, 5 * NS_PER_S));
    }
    assert_int_equal(done, 20);
    assert_in_range(to_dead, 10, 100); /* bounded by the rests */
    advance(&fixture, NS_PER_S);
    for (uint32_t i = 0; i < 20; i++) {
        assert_true(router_next_completion(fixture.router, &completion));
        assert_int_equal(completion.outcome, OUTCOME_UNKNOWN);
    }
    fixture_end(&fixture);
}

static void test_config_moves_what_waits_for_a_dead_group(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight first, second;
    const uint64_t owners[FIXTURE_SHARDS] = {2, 2, 2, 2, 2, 2, 2, 2};
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &first); /* never answered */
    submit(&fixture, OP_PUT, 0);
    take_none(&fixture);
    fixture_give_config(&fixture, 2, owners);
    take(&fixture, &second);
    assert_memory_equal(second.batch.address, "127.0.0.1:2", 11);
    assert_int_equal(second.ops[0].sequence, 2);
    answer_all(&fixture, &second, 0);
    expect_completion(&fixture, 2, OUTCOME_DONE, 0);
    advance(&fixture, 1500 * MS);
    take(&fixture, &second);
    assert_int_equal(second.ops[0].sequence, 1);
    assert_memory_equal(second.batch.address, "127.0.0.1:2", 11);
    answer_all(&fixture, &second, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    flight_end(&first);
    uint64_t reset;
    assert_true(router_next_reset(fixture.router, &reset));
    fixture_end(&fixture);
}

static void test_shard_without_owner_waits_for_a_config(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    const uint64_t nobody[FIXTURE_SHARDS] = {0};
    fixture_give_config(&fixture, 2, nobody);
    submit(&fixture, OP_PUT, 3);
    take_none(&fixture);
    assert_true(router_wants_config(fixture.router, fixture.now_ns));
    assert_false(router_wants_config(fixture.router, fixture.now_ns)); /* asked once */
    fixture_give_config(&fixture, 3, fixture_owners);
    take(&fixture, &flight);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    fixture_give_config(&fixture, 4, nobody);
    submit(&fixture, OP_PUT, 3);
    advance(&fixture, 6 * NS_PER_S);
    expect_completion(&fixture, 2, OUTCOME_NOT_DONE, ERR_UNAVAILABLE);
    fixture_end(&fixture);
}

static void test_older_config_changes_nothing(void **state)
{
    (void)state;
    static const uint64_t all_of_two[FIXTURE_SHARDS] = {2, 2, 2, 2, 2, 2, 2, 2};
    struct fixture fixture = fixture_make();
    struct flight flight;
    fixture_give_config(&fixture, 3, all_of_two);
    fixture_give_config(&fixture, 2, fixture_owners);
    fixture_give_config(&fixture, 3, fixture_owners); /* another one of that number cannot be */
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    assert_memory_equal(flight.batch.address, "127.0.0.1:2", 11);
    assert_int_equal(flight.request.config_number, 3);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

/* Group 2 has moved to other machines; a route to it that is older comes behind. */
static void test_older_addresses_of_a_group_change_nothing(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    int wrong = ERR_WRONG_GROUP;
    struct msg_route routes[2] = {route_to(5, 0, 2), route_to(3, 1, 2)};
    for (uint32_t r = 0; r < 3; r++) {
        (void)snprintf(routes[0].addresses[r], ADDRESS_BYTES_MAX, "127.0.0.1:29%02u", r);
    }
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    answer_each(&fixture, &flight, &wrong, routes, 2);
    take(&fixture, &flight); /* whoever led as far as is known */
    refuse(&fixture, &flight, ERR_NOT_LEADER, "");
    take(&fixture, &flight);
    assert_memory_equal(flight.batch.address, "127.0.0.1:29", 12);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

/* Every replica of the group was replaced: its leader is believed in until it is found gone, and
 * then nobody is asked any more whom the former config listed. */
static void test_group_with_other_addresses_is_found_there(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    struct config *config = fixture_config(2, fixture_owners);
    config->groups[0].replica_count = 2;
    config->groups[0].members_index = 9;
    for (uint32_t r = 0; r < 2; r++) {
        (void)snprintf(config->groups[0].replicas[r].address, ADDRESS_BYTES_MAX, "127.0.0.1:29%02u",
                       r);
    }
    assert_int_equal(router_config(fixture.router, config, fixture.now_ns), 0);
    config_free(config);
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    for (uint32_t i = 0; i < 8; i++) {
        flight_end(&flight);
        router_connection_lost(fixture.router, flight.batch.connection, fixture.now_ns);
        while (!router_next_batch(fixture.router, fixture.now_ns, &flight.batch)) {
            assert_true(advance_to_wake(&fixture, 5 * NS_PER_S)); /* it rests now and then */
        }
        take_apart(&flight);
        assert_memory_equal(flight.batch.address, "127.0.0.1:29", 12);
    }
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 2, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_config_with_another_shard_count_is_refused(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct config *config = config_create(9, FIXTURE_SHARDS * 2);
    assert_int_equal(router_config(fixture.router, config, fixture.now_ns), ERR_PROTOCOL);
    config_free(config);
    fixture_end(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_leader_with_hint_takes_one_round_trip),
        cmocka_unit_test(test_not_leader_without_hint_tries_each_then_rests),
        cmocka_unit_test(test_hints_in_a_circle_make_no_loop),
        cmocka_unit_test(test_wrong_group_with_route_takes_one_round_trip),
        cmocka_unit_test(test_shard_moved_twice_ends_at_the_newest_owner),
        cmocka_unit_test(test_wrong_group_in_a_circle_makes_no_loop),
        cmocka_unit_test(test_moving_shard_waits_short_first_and_others_go_on),
        cmocka_unit_test(test_busy_group_rests_and_keeps_its_leader),
        cmocka_unit_test(test_silent_leader_is_left_and_its_connection_reset),
        cmocka_unit_test(test_slow_leader_gets_more_patience_until_it_is_quick_again),
        cmocka_unit_test(test_new_batch_does_not_cut_short_the_wait_for_an_older_one),
        cmocka_unit_test(test_nonsense_answer_resets_the_connection),
        cmocka_unit_test(test_dead_group_does_not_hold_up_the_other),
        cmocka_unit_test(test_config_moves_what_waits_for_a_dead_group),
        cmocka_unit_test(test_shard_without_owner_waits_for_a_config),
        cmocka_unit_test(test_older_config_changes_nothing),
        cmocka_unit_test(test_older_addresses_of_a_group_change_nothing),
        cmocka_unit_test(test_group_with_other_addresses_is_found_there),
        cmocka_unit_test(test_config_with_another_shard_count_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
