/* The error table: numbers are pinned, because they travel. */
#include "unit/base_test.h"

#include "base/error.h"

static const int all_errors[] = {ERR_OK,
#define X(name, number, outcome, text) ERR_##name,
                                 ERROR_TABLE(X)
#undef X
};
#define ERROR_COUNT (sizeof(all_errors) / sizeof(all_errors[0]))

static void test_error_numbers_on_the_wire_are_pinned(void **state)
{
    (void)state;
    assert_int_equal(err_to_wire(ERR_OK), 0);
    assert_int_equal(err_to_wire(ERR_INVALID), 1);
    assert_int_equal(err_to_wire(ERR_BUSY), 5);
    assert_int_equal(err_to_wire(ERR_IO), 10);
    assert_int_equal(err_to_wire(ERR_NOT_LEADER), 20);
    assert_int_equal(err_to_wire(ERR_WRONG_GROUP), 22);
    assert_int_equal(err_to_wire(ERR_SESSION_EXPIRED), 30);
    assert_int_equal(err_to_wire(ERR_VERSION_MISMATCH), 40);
    assert_int_equal(err_to_wire(ERR_GROUP_UNKNOWN), 50);
    assert_int_equal(err_to_wire(ERR_NO_QUORUM), 63);
}

static void test_error_every_row_round_trips_and_has_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < ERROR_COUNT; i++) {
        int error = all_errors[i];
        assert_true(error <= 0);
        assert_int_equal(err_from_wire(err_to_wire(error)), error);
        assert_string_not_equal(err_name(error), "UNKNOWN_ERROR");
        assert_string_not_equal(err_text(error), "unknown error");
    }
    assert_string_equal(err_name(ERR_OK), "OK");
    assert_string_equal(err_text(ERR_OK), "ok");
    assert_string_equal(err_name(ERR_NOT_LEADER), "NOT_LEADER");
    assert_string_equal(err_text(ERR_NOT_LEADER), "this replica is not the leader");
}

static void test_error_unknown_number_means_outcome_unknown(void **state)
{
    (void)state;
    static const unsigned codes[] = {13u + 2u, 999u, 0x80000000u, 0xffffffffu};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        assert_int_equal(err_from_wire(codes[i]), ERR_IO);
        assert_int_equal(err_outcome(err_from_wire(codes[i])), OUTCOME_UNKNOWN);
    }
    static const int strangers[] = {-999, 1, 20, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        assert_string_equal(err_name(strangers[i]), "UNKNOWN_ERROR");
        assert_string_equal(err_text(strangers[i]), "unknown error");
        assert_int_equal(err_outcome(strangers[i]), OUTCOME_UNKNOWN);
        assert_int_equal(err_to_wire(strangers[i]), 10);
    }
}

static void test_error_outcomes_a_client_relies_on(void **state)
{
    (void)state;
    assert_int_equal(err_outcome(ERR_OK), OUTCOME_DONE);
    static const int not_done[] = {ERR_BUSY,         ERR_NOT_LEADER,       ERR_WRONG_GROUP,
                                   ERR_SHARD_MOVING, ERR_VERSION_MISMATCH, ERR_SHUTDOWN};
    for (size_t i = 0; i < sizeof(not_done) / sizeof(not_done[0]); i++) {
        assert_int_equal(err_outcome(not_done[i]), OUTCOME_NOT_DONE);
    }
    static const int unknown[] = {ERR_TIMEOUT,     ERR_CANCELED,        ERR_UNAVAILABLE,
                                  ERR_LEADER_LOST, ERR_SESSION_EXPIRED, ERR_IO};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_int_equal(err_outcome(unknown[i]), OUTCOME_UNKNOWN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_numbers_on_the_wire_are_pinned),
        cmocka_unit_test(test_error_every_row_round_trips_and_has_words),
        cmocka_unit_test(test_error_unknown_number_means_outcome_unknown),
        cmocka_unit_test(test_error_outcomes_a_client_relies_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
