#include "config_test.h"

#include "proto/messages.h"
#include "shardctrler/config_machine.h"
#include "shardctrler/config_state.h"
#include <string.h>

enum { SHARDS = 10 };

struct fixture {
    struct config_state state;
    uint64_t index;
    uint64_t time_ms;
};

/* Applies one command and gives its decoded answer. */
static struct msg_change_response run(struct fixture *fixture, enum config_command kind,
                                      struct bytes body)
{
    struct buf payload, result;
    buf_init(&payload);
    buf_init(&result);
    put_u8(&payload, (uint8_t)kind);
    buf_append_bytes(&payload, body);
    struct sm_command command = {.position = {++fixture->index, 1},
                                 .time_ms = fixture->time_ms,
                                 .payload = buf_view(&payload),
                                 .result = &result};
    config_state_apply(&fixture->state, &command);
    fixture->state.applied = command.position;
    struct msg_change_response response = {0};
    if (kind != CONFIG_COMMAND_CREATE) {
        assert_int_equal(msg_change_response_decode(buf_view(&result), &response), 0);
    }
    buf_deinit(&payload);
    buf_deinit(&result);
    return response;
}

static struct msg_change_response run_join(struct fixture *fixture,
                                           struct msg_request_header header, uint64_t group)
{
    struct config_group joining = test_group(group);
    struct msg_join_request request = {.header = header, .group_count = 1, .groups = &joining};
    struct buf body;
    buf_init(&body);
    msg_join_request_encode(&request, &body);
    struct msg_change_response response = run(fixture, CONFIG_COMMAND_JOIN, buf_view(&body));
    buf_deinit(&body);
    return response;
}

static void create(struct fixture *fixture, uint32_t shards)
{
    struct buf body;
    buf_init(&body);
    put_varint(&body, shards);
    run(fixture, CONFIG_COMMAND_CREATE, buf_view(&body));
    buf_deinit(&body);
}

static int setup(void **state)
{
    struct fixture *fixture = mem_calloc(1, sizeof *fixture);
    config_state_init(&fixture->state);
    create(fixture, SHARDS);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    config_state_deinit(&fixture->state);
    free(fixture);
    return 0;
}

static void test_create_twice_keeps_the_first_shard_count(void **state)
{
    struct fixture *fixture = *state;
    create(fixture, 99);
    assert_int_equal(history_latest(fixture->state.history)->shard_count, SHARDS);
}

static void test_command_before_create_is_not_executed(void **state)
{
    (void)state;
    struct fixture fixture = {0};
    config_state_init(&fixture.state);
    struct msg_change_response response = run_join(&fixture, (struct msg_request_header){0}, 1);
    assert_int_equal(response.header.error, ERR_BUSY);
    config_state_deinit(&fixture.state);
}

static void test_retry_is_answered_with_the_first_result(void **state)
{
    struct fixture *fixture = *state;
    struct msg_request_header header = {.client_id = 5, .sequence = 1, .acked_below = 1};
    assert_int_equal(run_join(fixture, header, 1).config_number, 1);
    header.age_ms = 700; /* the retry is older, and is the same command */
    header.config_number = 1;
    struct msg_change_response again = run_join(fixture, header, 1);
    assert_int_equal(again.header.error, 0);
    assert_int_equal(again.config_number, 1);
    assert_int_equal(history_latest(fixture->state.history)->number, 1);
}

static void test_retry_after_a_restart_is_answered_with_the_first_result(void **state)
{
    struct fixture *fixture = *state;
    struct msg_request_header header = {.client_id = 5, .sequence = 1, .acked_below = 1};
    assert_int_equal(run_join(fixture, header, 1).config_number, 1);
    struct buf stored;
    buf_init(&stored);
    config_state_encode(&fixture->state, &stored);
    config_state_deinit(&fixture->state);
    config_state_init(&fixture->state);
    assert_int_equal(config_state_decode(buf_view(&stored), &fixture->state), 0);
    buf_deinit(&stored);
    struct msg_change_response again = run_join(fixture, header, 1);
    assert_int_equal(again.header.error, 0);
    assert_int_equal(again.config_number, 1);
}

static void test_retry_of_a_refusal_is_refused_again_though_it_would_now_pass(void **state)
{
    struct fixture *fixture = *state;
    struct msg_request_header one = {.client_id = 5, .sequence = 1, .acked_below = 1};
    struct msg_request_header two = {.client_id = 6, .sequence = 1, .acked_below = 1};
    assert_int_equal(run_join(fixture, one, 1).header.error, 0);
    assert_int_equal(run_join(fixture, two, 1).header.error, ERR_GROUP_EXISTS);
    uint64_t id = 1;
    struct msg_leave_request leave = {.force = true, .group_count = 1, .group_ids = {id}};
    struct buf body;
    buf_init(&body);
    msg_leave_request_encode(&leave, &body);
    assert_int_equal(run(fixture, CONFIG_COMMAND_LEAVE, buf_view(&body)).header.error, 0);
    buf_deinit(&body);
    assert_int_equal(run_join(fixture, two, 1).header.error, ERR_GROUP_EXISTS);
}

static void test_sequence_reused_or_stale_or_too_old_is_an_error(void **state)
{
    struct fixture *fixture = *state;
    struct msg_request_header header = {.client_id = 5, .sequence = 3, .acked_below = 3};
    assert_int_equal(run_join(fixture, header, 1).header.error, 0);
    assert_int_equal(run_join(fixture, header, 2).header.error, ERR_SEQUENCE_REUSED);
    header.sequence = 2;
    assert_int_equal(run_join(fixture, header, 2).header.error, ERR_SEQUENCE_STALE);
    header.sequence = 4;
    header.age_ms = COMMAND_AGE_MS_MAX + 1;
    assert_int_equal(run_join(fixture, header, 2).header.error, ERR_SESSION_EXPIRED);
    assert_int_equal(history_latest(fixture->state.history)->number, 1);
}

static void test_sessions_full_refuses_until_idle_ones_expire(void **state)
{
    struct fixture *fixture = *state;
    for (uint64_t client = 1; client <= CONFIG_SESSIONS_MAX; client++) {
        struct msg_request_header header = {.client_id = client, .sequence = 1, .acked_below = 1};
        run_join(fixture, header, 1);
    }
    struct msg_request_header late = {.client_id = UINT64_MAX, .sequence = 1, .acked_below = 1};
    assert_int_equal(run_join(fixture, late, 2).header.error, ERR_SESSIONS_FULL);
    fixture->time_ms += SESSION_TTL_MS + 1;
    assert_int_equal(run_join(fixture, late, 2).header.error, 0);
    assert_int_equal(fixture->state.session_count, 1);
}

static void test_encode_decode_keeps_everything_and_any_flip_is_found(void **state)
{
    struct fixture *fixture = *state;
    for (uint64_t i = 1; i <= 5; i++) {
        struct msg_request_header header = {.client_id = i * 7, .sequence = 1, .acked_below = 1};
        run_join(fixture, header, i);
    }
    struct buf bytes, again;
    buf_init(&bytes);
    buf_init(&again);
    config_state_encode(&fixture->state, &bytes);
    struct config_state decoded;
    config_state_init(&decoded);
    assert_int_equal(config_state_decode(buf_view(&bytes), &decoded), 0);
    config_state_encode(&decoded, &again);
    assert_int_equal(again.size, bytes.size);
    assert_memory_equal(again.data, bytes.data, bytes.size);
    for (size_t i = 0; i < bytes.size; i++) {
        bytes.data[i] ^= 0x10;
        assert_int_equal(config_state_decode(buf_view(&bytes), &decoded), ERR_CORRUPT);
        bytes.data[i] ^= 0x10;
    }
    assert_int_equal(decoded.applied.index, fixture->index); /* a refusal leaves it as it was */
    config_state_deinit(&decoded);
    buf_deinit(&bytes);
    buf_deinit(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_create_twice_keeps_the_first_shard_count, setup,
                                        teardown),
        cmocka_unit_test(test_command_before_create_is_not_executed),
        cmocka_unit_test_setup_teardown(test_retry_is_answered_with_the_first_result, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            test_retry_after_a_restart_is_answered_with_the_first_result, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_retry_of_a_refusal_is_refused_again_though_it_would_now_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sequence_reused_or_stale_or_too_old_is_an_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_sessions_full_refuses_until_idle_ones_expire, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_encode_decode_keeps_everything_and_any_flip_is_found,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
