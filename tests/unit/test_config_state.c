#include "base/codec.h"
#include "base/crc32c.h"
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

/* Group `group` consists of one replica with this id, since this index of its log. */
static struct msg_change_response run_update(struct fixture *fixture,
                                             struct msg_request_header header, uint64_t group,
                                             uint64_t index, uint64_t replica)
{
    struct msg_update_members_request request = {
        .header = header, .group = {.id = group, .members_index = index, .replica_count = 1}};
    request.group.replicas[0].id = replica;
    snprintf(request.group.replicas[0].address, sizeof request.group.replicas[0].address,
             "10.9.%u.%u:7000", (unsigned)group, (unsigned)replica);
    struct buf body;
    buf_init(&body);
    msg_update_members_request_encode(&request, &body);
    struct msg_change_response response =
        run(fixture, CONFIG_COMMAND_UPDATE_MEMBERS, buf_view(&body));
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

static uint64_t first_replica(const struct fixture *fixture, uint64_t group)
{
    return config_find_group(history_latest(fixture->state.history), group)->replicas[0].id;
}

static void test_members_that_are_not_newer_are_done_and_make_no_config(void **state)
{
    struct fixture *fixture = *state;
    const struct msg_request_header nobody = {0};
    assert_int_equal(run_update(fixture, nobody, 1, 5, 4).header.error, ERR_GROUP_UNKNOWN);
    run_join(fixture, nobody, 1);
    struct msg_change_response response = run_update(fixture, nobody, 1, 5, 4);
    assert_int_equal(response.header.error, 0);
    assert_int_equal(response.config_number, 2);
    assert_int_equal(first_replica(fixture, 1), 4);
    for (uint64_t index = 5; index >= 1; index--) { /* again, and by leaders of former times */
        response = run_update(fixture, nobody, 1, index, 9);
        assert_int_equal(response.header.error, 0);
        assert_int_equal(response.config_number, 2);
        assert_int_equal(first_replica(fixture, 1), 4);
    }
    response = run_update(fixture, nobody, 1, 8, 4); /* newer, and the same */
    assert_int_equal(response.header.error, 0);
    assert_int_equal(history_latest(fixture->state.history)->number, 2);
    assert_int_equal(run_update(fixture, nobody, 1, 7, 6).config_number, 3);
}

static void test_members_are_answered_once_to_a_client_that_repeats_itself(void **state)
{
    struct fixture *fixture = *state;
    run_join(fixture, (struct msg_request_header){0}, 1);
    struct msg_request_header header = {.client_id = 5, .sequence = 1, .acked_below = 1};
    assert_int_equal(run_update(fixture, header, 1, 5, 4).config_number, 2);
    assert_int_equal(run_update(fixture, header, 1, 5, 4).config_number, 2);
    assert_int_equal(run_update(fixture, header, 1, 6, 7).header.error, ERR_SEQUENCE_REUSED);
}

/* A replica that has replayed the log and one that was given the state are equal, and go on so. */
static void test_members_survive_a_snapshot_and_old_ones_stay_refused(void **state)
{
    struct fixture *fixture = *state;
    const struct msg_request_header nobody = {0};
    run_join(fixture, nobody, 1);
    run_join(fixture, nobody, 2);
    run_update(fixture, nobody, 1, 30, 4);
    struct buf bytes, first, second;
    buf_init(&bytes);
    buf_init(&first);
    buf_init(&second);
    struct fixture other = {.index = fixture->index};
    config_state_init(&other.state);
    config_state_encode(&fixture->state, &bytes);
    assert_int_equal(config_state_decode(buf_view(&bytes), &other.state), 0);
    struct fixture *both[] = {fixture, &other};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(run_update(both[i], nobody, 1, 29, 9).config_number, 3);
        assert_int_equal(first_replica(both[i], 1), 4);
        assert_int_equal(run_update(both[i], nobody, 1, 31, 5).config_number, 4);
    }
    config_state_encode(&fixture->state, &first);
    config_state_encode(&other.state, &second);
    assert_true(bytes_equal(buf_view(&first), buf_view(&second)));
    struct config *config = NULL;
    assert_int_equal(history_get(other.state.history, 3, &config), 0);
    assert_int_equal(config_find_group(config, 1)->members_index, 30);
    config_free(config);
    config_state_deinit(&other.state);
    buf_deinit(&bytes);
    buf_deinit(&first);
    buf_deinit(&second);
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
    enum { VERSION_AT = 4 }; /* behind the magic number */
    size_t body = bytes.size - sizeof(uint32_t);
    bytes.data[VERSION_AT]--;
    store_u32(bytes.data + body, crc32c_extend(0, bytes.data, body));
    assert_int_equal(config_state_decode(buf_view(&bytes), &decoded), ERR_UNSUPPORTED);
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
        cmocka_unit_test_setup_teardown(test_members_that_are_not_newer_are_done_and_make_no_config,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_members_are_answered_once_to_a_client_that_repeats_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_members_survive_a_snapshot_and_old_ones_stay_refused,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_sessions_full_refuses_until_idle_ones_expire, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_encode_decode_keeps_everything_and_any_flip_is_found,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
