/* The router against scripted answers: what travels together, how much at once, and in which order.
 */
#include "router_fixture.h"

/* Teaches the router who leads each group, so that a test starts from there. */
static void settle_leaders(struct fixture *fixture)
{
    struct flight flight;
    for (uint32_t shard = 0; shard < FIXTURE_SHARDS; shard += 4) {
        submit(fixture, OP_GET, shard);
        take(fixture, &flight);
        answer_all(fixture, &flight, 0);
        expect_completion(fixture, fixture->tag, OUTCOME_DONE, 0);
    }
}

static void test_put_alone_leaves_at_once(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &flight);
    assert_int_equal(flight.request.cluster_id, 5);
    assert_int_equal(flight.request.config_number, 1);
    assert_false(flight.request.reads);
    assert_int_equal(flight.header.client_id, 77);
    assert_int_equal(flight.header.acked_below, 1);
    assert_int_equal(flight.count, 1);
    assert_int_equal(flight.ops[0].kind, OP_PUT);
    assert_int_equal(flight.ops[0].sequence, 1);
    assert_memory_equal(flight.batch.address, "127.0.0.1:100", 13);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_get_answered_gives_value_and_version(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    struct router_completion completion;
    submit(&fixture, OP_GET, 5);
    take(&fixture, &flight);
    assert_true(flight.request.reads);
    assert_int_equal(flight.ops[0].sequence, 0);
    answer_all(&fixture, &flight, 0);
    assert_true(router_next_completion(fixture.router, &completion));
    assert_int_equal(completion.outcome, OUTCOME_DONE);
    assert_int_equal(completion.version, 10);
    assert_true(bytes_equal(completion.value, bytes_of_string(key_of(5, 0))));
    assert_non_null(completion.owner);
    blob_unref(completion.owner);

    submit(&fixture, OP_GET, 5);
    take(&fixture, &flight);
    answer_all(&fixture, &flight, ERR_NOT_FOUND);
    expect_completion(&fixture, 2, OUTCOME_DONE, ERR_NOT_FOUND);
    fixture_end(&fixture);
}

static void test_reads_that_did_not_fit_go_again_at_once(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight flight;
    int errors[] = {0, ERR_BUSY, ERR_BUSY};
    submit(&fixture, OP_GET, 0);
    take(&fixture, &flight);
    for (uint32_t i = 0; i < 3; i++) {
        submit(&fixture, OP_GET, i);
    }
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 1, OUTCOME_DONE, 0);
    take(&fixture, &flight);
    assert_int_equal(flight.count, 3);
    answer_each(&fixture, &flight, errors, NULL, 0);
    expect_completion(&fixture, 2, OUTCOME_DONE, 0);
    take(&fixture, &flight); /* one fitted, so one is asked for next */
    assert_int_equal(flight.count, 1);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 3, OUTCOME_DONE, 0);
    take(&fixture, &flight);
    answer_all(&fixture, &flight, 0);
    expect_completion(&fixture, 4, OUTCOME_DONE, 0);
    fixture_end(&fixture);
}

static void test_busy_path_makes_larger_blocks_and_ascending_sequences(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight first, second;
    settle_leaders(&fixture);
    uint64_t tag = fixture.tag;
    for (uint32_t i = 0; i < 20; i++) {
        submit(&fixture, OP_PUT, i % 4);
        if (i == 0) {
            take(&fixture, &first);
        }
    }
    take_none(&fixture); /* one is flying, the rest is not full */
    /* The first comes back without leadership, so it goes out again with the others, in order of
     * sequence. */
    refuse(&fixture, &first, ERR_NOT_LEADER, "127.0.0.1:1002");
    take(&fixture, &second);
    assert_int_equal(second.count, 20);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(second.ops[i].sequence, i + 1);
    }
    answer_all(&fixture, &second, 0);
    for (uint32_t i = 0; i < 20; i++) {
        expect_completion(&fixture, tag + 1 + i, OUTCOME_DONE, 0);
    }
    fixture_end(&fixture);
}

static void test_full_blocks_use_all_slots_and_no_more(void **state)
{
    (void)state;
    struct router_options options = router_options_default();
    options.batch_bytes_full = 4096;
    options.batches_eager = 1;
    options.batches_in_flight_max = 3;
    struct fixture fixture = fixture_make_with(options);
    struct flight flights[3];
    char value[2001];
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(submit_for(&fixture, OP_PUT, 0, value, NS_PER_S), 0);
    }
    for (uint32_t i = 0; i < 3; i++) {
        take(&fixture, &flights[i]);
        assert_int_equal(flights[i].count, 3); /* the third makes it full */
    }
    take_none(&fixture);
    answer_all(&fixture, &flights[1], 0);
    take_none(&fixture); /* a slot is free, but one command is no full block */
    answer_all(&fixture, &flights[0], 0);
    answer_all(&fixture, &flights[2], 0);
    take(&fixture, &flights[0]);
    assert_int_equal(flights[0].count, 1);
    answer_all(&fixture, &flights[0], 0);
    for (uint32_t i = 0; i < 10; i++) {
        struct router_completion completion;
        assert_true(router_next_completion(fixture.router, &completion));
        assert_int_equal(completion.outcome, OUTCOME_DONE);
    }
    fixture_end(&fixture);
}

static void test_largest_commands_travel_alone(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct router_batch batch;
    char *value = mem_calloc(1, VALUE_BYTES_MAX + 2);
    memset(value, 'x', VALUE_BYTES_MAX);
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, value, NS_PER_S), 0);
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, value, NS_PER_S), 0);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(router_next_batch(fixture.router, fixture.now_ns, &batch));
        assert_int_equal(batch.count, 1);
        buf_deinit(&batch.message);
    }
    value[VALUE_BYTES_MAX] = 'x';
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, value, NS_PER_S), ERR_TOO_LARGE);
    struct router_command nothing = {.kind = OP_GET, .deadline_ns = UINT64_MAX};
    assert_int_equal(router_submit(fixture.router, &nothing, fixture.now_ns), ERR_INVALID);
    free(value);
    router_destroy(fixture.router);
}

static void test_acked_below_is_the_lowest_outstanding_of_the_shards_in_the_block(void **state)
{
    (void)state;
    struct fixture fixture = fixture_make();
    struct flight one, two;
    submit(&fixture, OP_PUT, 0); /* 1: group 1 */
    take(&fixture, &one);
    submit(&fixture, OP_PUT, 4); /* 2: group 2 */
    take(&fixture, &two);
    assert_int_equal(two.header.acked_below, 2); /* 1 is of another shard */
    answer_all(&fixture, &two, 0);
    submit(&fixture, OP_PUT, 0); /* 3 */
    submit(&fixture, OP_PUT, 4); /* 4 */
    take(&fixture, &two);
    assert_int_equal(two.header.acked_below, 4);
    answer_all(&fixture, &two, 0);
    refuse(&fixture, &one, ERR_NOT_LEADER, "");
    take(&fixture, &one);
    assert_int_equal(one.count, 2);
    assert_int_equal(one.header.acked_below, 1);
    answer_all(&fixture, &one, 0);
    submit(&fixture, OP_PUT, 0); /* 5 */
    take(&fixture, &one);
    assert_int_equal(one.header.acked_below, 5);
    answer_all(&fixture, &one, 0);
    struct router_completion completion;
    for (uint32_t i = 0; i < 5; i++) {
        assert_true(router_next_completion(fixture.router, &completion));
        assert_int_equal(completion.outcome, OUTCOME_DONE);
    }
    fixture_end(&fixture);
}

static void test_outstanding_limits_refuse_with_busy(void **state)
{
    (void)state;
    struct router_options options = router_options_default();
    options.outstanding_max = 3;
    options.outstanding_bytes_max = 100;
    struct fixture fixture = fixture_make_with(options);
    char large[101];
    memset(large, 'x', 100);
    large[100] = '\0';
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, large, NS_PER_S), 0); /* one always fits */
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, "v", NS_PER_S), ERR_BUSY);
    advance(&fixture, NS_PER_S);
    expect_completion(&fixture, 1, OUTCOME_NOT_DONE, ERR_TIMEOUT);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(submit_for(&fixture, OP_PUT, 0, "v", NS_PER_S), 0);
    }
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, "v", NS_PER_S), ERR_BUSY);
    router_destroy(fixture.router);
}

/* A session keeps the results of all that came after the oldest write without an answer, and only
 * so many of them: others must wait for it, though few are under way. */
static void test_writes_far_ahead_of_the_oldest_are_refused_with_busy(void **state)
{
    (void)state;
    enum { AT_ONCE = 64 };
    struct router_options options = router_options_default();
    options.batches_eager = 2; /* others go while the oldest is not answered */
    struct fixture fixture = fixture_make_with(options);
    struct router_completion completion;
    struct flight oldest, flight;
    submit(&fixture, OP_PUT, 0);
    take(&fixture, &oldest);
    for (uint32_t i = 1; i < SESSION_OUTSTANDING_MAX; i++) {
        submit(&fixture, OP_PUT, 0);
        if (i % AT_ONCE == 0 || i + 1 == SESSION_OUTSTANDING_MAX) {
            while (router_next_batch(fixture.router, fixture.now_ns, &flight.batch)) {
                take_apart(&flight);
                answer_all(&fixture, &flight, 0);
            }
            while (router_next_completion(fixture.router, &completion)) {
                assert_int_equal(completion.outcome, OUTCOME_DONE);
            }
        }
    }
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, "v", NS_PER_S), ERR_BUSY);
    assert_int_equal(submit_for(&fixture, OP_GET, 0, "", NS_PER_S), 0);
    assert_int_equal(submit_for(&fixture, OP_PUT, 1, "v", NS_PER_S), 0);
    answer_all(&fixture, &oldest, 0);
    assert_int_equal(submit_for(&fixture, OP_PUT, 0, "v", NS_PER_S), 0);
    router_destroy(fixture.router);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_alone_leaves_at_once),
        cmocka_unit_test(test_get_answered_gives_value_and_version),
        cmocka_unit_test(test_reads_that_did_not_fit_go_again_at_once),
        cmocka_unit_test(test_busy_path_makes_larger_blocks_and_ascending_sequences),
        cmocka_unit_test(test_full_blocks_use_all_slots_and_no_more),
        cmocka_unit_test(test_largest_commands_travel_alone),
        cmocka_unit_test(test_acked_below_is_the_lowest_outstanding_of_the_shards_in_the_block),
        cmocka_unit_test(test_outstanding_limits_refuse_with_busy),
        cmocka_unit_test(test_writes_far_ahead_of_the_oldest_are_refused_with_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
