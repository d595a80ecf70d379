/* The router against scripted answers: what a command ends with when attempts were lost, refused or
 * too late. */
#include "router_fixture.h"

static void test_connection_lost_retries_under_the_same_sequence(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    submit(&fixture, OP_APPEND, 0);
    take(&fixture, &flight);
    uint64_t connection = flight.batch.connection;
    char address[ADDRESS_BYTES_MAX];
    memcpy(address, flight.batch.address, sizeof address);
    flight_end(&flight);
    router_connection_lost(fixture.router, connection, fixture.now_ns);
    fixture.now_ns += 3 * MS;
    take(&fixture, &flight);
    assert_string_not_equal(flight.batch.address, address);
    assert_true(flight.batch.connection != connection);
    assert_int_equal(flight.ops[0].sequence, 1);
    assert_int_equal(flight.header.acked_below, 1);
    assert_int_equal(flight.header.age_ms, 3);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_lost_write_then_refused_ends_unknown(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    submit(&fixture, OP_APPEND, 0);
    take(&fixture, &flight);
    flight_end(&flight);
    router_connection_lost(fixture.router, flight.batch.connection, fixture.now_ns);
    take(&fixture, &flight);
    /* 'Not executed' of the second attempt says nothing about the first. */
    answer_all(&fixture, &flight, ERR_SHARD_MOVING);
    advance(&fixture, 6 * NS_PER_S);
    expect_completion(&fixture, 1, OUTCOME_UNKNOWN, ERR_TIMEOUT);
    fixture_end(&fixture);
}

/* Every attempt from here on is refused as not executed; what the command ends with. */
static struct router_completion refuse_until_the_end(struct fixture *fixture)
{
    uint32_t sent = 0;
    struct router_completion completion;
    struct flight flight;
    while (!router_next_completion(fixture->router, &completion)) {
        while (router_next_batch(fixture->router, fixture->now_ns, &flight.batch)) {
            assert_true(++sent < 10000); /* a loop would send without end */
            take_apart(&flight);
            assert_int_equal(flight.ops[0].sequence, 1); /* of all attempts */
            refuse(fixture, &flight, ERR_NOT_LEADER, "");
        }
        advance(fixture, 10 * MS);
    }
    return completion;
}

/* Scenario 54: what an answer says of the first attempt is not forgotten over those that follow,
 * whether it was given for the block or for each operation. */
static void test_outcome_of_an_attempt_is_remembered_over_later_refusals(void **state)
{
    (void)state;
    const int errors[] = {ERR_LEADER_LOST, ERR_TIMEOUT,    ERR_CANCELED, ERR_UNAVAILABLE, ERR_IO,
                          ERR_CORRUPT,     ERR_NOT_LEADER, ERR_SHUTDOWN, ERR_BUSY};
    for (size_t i = 0; i < 2 * sizeof errors / sizeof errors[0]; i++) {
        int error = errors[i / 2];
        struct fixture fixture = fixture_make();
        struct flight flight;
        submit(&fixture, OP_APPEND, 0);
        take(&fixture, &flight);
        if (i % 2 == 0) {
            refuse(&fixture, &flight, error, "");
        } else {
            answer_all(&fixture, &flight, error);
        }
        struct router_completion completion = refuse_until_the_end(&fixture);
        assert_int_equal(completion.outcome, err_outcome(error) == OUTCOME_NOT_DONE
                                                 ? OUTCOME_NOT_DONE
                                                 : OUTCOME_UNKNOWN);
        fixture_end(&fixture);
    }
}

static void test_lost_write_then_answered_is_settled(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    struct router_completion completion;
    submit(&fixture, OP_CAS, 0);
    take(&fixture, &flight);
    flight_end(&flight);
    router_connection_lost(fixture.router, flight.batch.connection, fixture.now_ns);
    take(&fixture, &flight);
    answer_all(&fixture, &flight, ERR_VERSION_MISMATCH);
    assert_true(router_next_completion(fixture.router, &completion));
    assert_int_equal(completion.outcome, OUTCOME_NOT_DONE);
    assert_int_equal(completion.error, ERR_VERSION_MISMATCH);
    assert_int_equal(completion.version, 10);
    fixture_end(&fixture);
}

static void test_deadline_without_answer_is_unknown_for_writes_only(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight put, get;
    submit(&fixture, OP_PUT, 0);
    submit(&fixture, OP_GET, 0);
    take(&fixture, &put);
    take(&fixture, &get);
    fixture.now_ns += 1000 * MS;
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, "late", 10 * MS), 0); /* behind the first */
    take_none(&fixture);
    advance(&fixture, 10 * MS);
    expect_completion(&fixture, 3, OUTCOME_NOT_DONE, ERR_TIMEOUT);
    advance(&fixture, 4 * NS_PER_S);
    expect_completion(&fixture, 1, OUTCOME_UNKNOWN, ERR_TIMEOUT);
    struct router_completion completion;
    assert_true(router_next_completion(fixture.router, &completion));
    assert_int_equal((uintptr_t)completion.context, 2);
    assert_int_equal(completion.outcome, OUTCOME_NOT_DONE);
    flight_end(&put);
    flight_end(&get);
    fixture_end(&fixture);
}

static void test_batch_not_sent_ends_not_done(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    router_batch_not_sent(fixture.router, flight.batch.id, fixture.now_ns);
    flight_end(&flight);
    advance(&fixture, 6 * NS_PER_S);
    expect_completion(&fixture, 1, OUTCOME_NOT_DONE, ERR_UNAVAILABLE);
    fixture_end(&fixture);
}

static void test_session_expired_is_unknown_and_final(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    submit(&fixture, OP_APPEND, 0);
    take(&fixture, &flight);
    answer_all(&fixture, &flight, ERR_SESSION_EXPIRED);
    expect_completion(&fixture, 1, OUTCOME_UNKNOWN, ERR_SESSION_EXPIRED);
    submit(&fixture, OP_APPEND, 0);
    take(&fixture, &flight);
    refuse(&fixture, &flight, ERR_SESSION_EXPIRED, "");
    expect_completion(&fixture, 2, OUTCOME_UNKNOWN, ERR_SESSION_EXPIRED);
    fixture_end(&fixture);
}

static void test_command_too_old_is_not_sent_again(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    assert_int_equal(submit_for(&fixture, OP_APPEND, 0, "v", 3600 * NS_PER_S), 0);
    take(&fixture, &flight);
    flight_end(&flight);
    fixture.now_ns += 20 * 60 * NS_PER_S;
    router_connection_lost(fixture.router, flight.batch.connection, fixture.now_ns);
    take_none(&fixture);
    expect_completion(&fixture, 1, OUTCOME_UNKNOWN, ERR_SESSION_EXPIRED);
    /* One that was refused each time surely never ran: its age starts anew. */
    assert_int_equal(submit_for(&fixture, OP_APPEND, 4, "v", 3600 * NS_PER_S), 0);
    take(&fixture, &flight);
    fixture.now_ns += 20 * 60 * NS_PER_S;
    refuse(&fixture, &flight, ERR_NOT_LEADER, "");
    take(&fixture, &flight);
    assert_int_equal(flight.header.age_ms, 0);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 2, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

/* Its time is over before anybody's patience is: it is under way for the first time. */
static void test_deadline_of_a_first_attempt_under_way_is_unknown(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, "v", 20 * MS), 0);
    take(&fixture, &flight);
    advance(&fixture, 20 * MS);
    expect_completion(&fixture, 1, OUTCOME_UNKNOWN, ERR_TIMEOUT);
    answer_all(&fixture, &flight, 0); /* too late to matter */
    fixture_end(&fixture);
}

/* What is said to a later attempt alone, by any error, says nothing about one that was lost. */
static void test_lost_write_then_any_final_error_ends_unknown(void **state)
{
    (void)state;
    static const int errors[] = {ERR_SHARD_RANGE, ERR_UNSUPPORTED, ERR_PROTOCOL};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct fixture fixture = fixture_make();
        struct flight lost, flight;
        submit(&fixture, OP_PUT, 0);
        take(&fixture, &lost);
        router_connection_lost(fixture.router, lost.batch.connection, fixture.now_ns);
        flight_end(&lost);
        take(&fixture, &flight);
        assert_int_equal(flight.ops[0].sequence, 1);
        answer_all(&fixture, &flight, errors[i]);
        expect_completion(&fixture, 1, OUTCOME_UNKNOWN, errors[i]);
        fixture_end(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connection_lost_retries_under_the_same_sequence),
        cmocka_unit_test(test_lost_write_then_refused_ends_unknown),
        cmocka_unit_test(test_outcome_of_an_attempt_is_remembered_over_later_refusals),
        cmocka_unit_test(test_lost_write_then_answered_is_settled),
        cmocka_unit_test(test_deadline_without_answer_is_unknown_for_writes_only),
        cmocka_unit_test(test_batch_not_sent_ends_not_done),
        cmocka_unit_test(test_session_expired_is_unknown_and_final),
        cmocka_unit_test(test_command_too_old_is_not_sent_again),
        cmocka_unit_test(test_deadline_of_a_first_attempt_under_way_is_unknown),
        cmocka_unit_test(test_lost_write_then_any_final_error_ends_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
