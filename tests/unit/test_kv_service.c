/* The service over real calls, one operation each: results, refusals with routes, limits, retries;
 * and the source's side of moves. */
#include "unit/kv_service_fixture.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_kv_service_unary_methods_do_what_they_say(void **state)
{
    struct service_fixture *fixture = *state;
    const struct msg_request_header header = {.cluster_id = CLUSTER};
    const char *key = key_in(2);
    char value[64];
    assert_int_equal(service_get(fixture, key, value).header.error, ERR_NOT_FOUND);
    assert_int_equal(service_put(fixture, &header, key, "a").header.error, 0);
    uint64_t version = service_append(fixture, &header, key, "b").version;
    struct msg_get_response got = service_get(fixture, key, value);
    assert_int_equal(got.header.error, 0);
    assert_string_equal(value, "ab");
    assert_int_equal(got.version, version);
    struct msg_compare_and_set_request cas = {.key = bytes_of_string(key),
                                              .expected_version = version + 1,
                                              .value = bytes_of_string("c")};
    struct buf request = {0};
    msg_compare_and_set_request_encode(&cas, &request);
    struct msg_write_response response =
        service_write(fixture, METHOD_KV_COMPARE_AND_SET, &request);
    assert_int_equal(response.header.error, ERR_VERSION_MISMATCH);
    assert_int_equal(response.version, version);
    cas.expected_version = version;
    msg_compare_and_set_request_encode(&cas, &request);
    assert_int_equal(service_write(fixture, METHOD_KV_COMPARE_AND_SET, &request).header.error, 0);
    msg_delete_request_encode(&(struct msg_delete_request){.key = bytes_of_string(key)}, &request);
    assert_int_equal(service_write(fixture, METHOD_KV_DELETE, &request).header.error, 0);
    assert_int_equal(service_get(fixture, key, value).header.error, ERR_NOT_FOUND);
}

static void test_kv_service_repeated_command_is_executed_once(void **state)
{
    struct service_fixture *fixture = *state;
    struct msg_request_header header = {.client_id = 5, .sequence = 1, .acked_below = 1};
    const char *key = key_in(2);
    char value[64];
    uint64_t version = service_append(fixture, &header, key, "x").version;
    assert_int_equal(service_append(fixture, &header, key, "x").version, version);
    assert_int_equal(service_append(fixture, &header, key, "y").header.error, ERR_SEQUENCE_REUSED);
    service_get(fixture, key, value);
    assert_string_equal(value, "x");
    header.age_ms = COMMAND_AGE_MS_MAX + 1;
    assert_int_equal(service_append(fixture, &header, key, "x").header.error, ERR_SESSION_EXPIRED);
    header = (struct msg_request_header){.client_id = 5};
    assert_int_equal(service_append(fixture, &header, key, "x").header.error,
                     ERR_INVALID); /* no sequence */
    header = (struct msg_request_header){.client_id = 5, .sequence = 2, .acked_below = 3};
    assert_int_equal(service_append(fixture, &header, key, "x").header.error, ERR_INVALID);
}

static void test_kv_service_wrong_group_is_answered_with_the_route(void **state)
{
    struct service_fixture *fixture = *state;
    struct msg_request_header header = {.cluster_id = CLUSTER + 1};
    const char *key = key_in(3);
    assert_int_equal(service_put(fixture, &header, key, "a").header.error, ERR_WRONG_CLUSTER);
    header.cluster_id = 0;
    struct msg_write_response response = service_put(fixture, &header, key, "a");
    assert_int_equal(response.header.error, ERR_WRONG_GROUP);
    assert_true(response.header.has_route);
    assert_int_equal(response.header.route.config_number, 1);
    assert_int_equal(response.header.route.shard, 3);
    assert_int_equal(response.header.route.group_id, OTHER);
    assert_int_equal(response.header.route.address_count, 1);
    assert_string_equal(response.header.route.addresses[0], "group2:1");
    char value[64];
    assert_int_equal(service_get(fixture, key, value).header.error, ERR_WRONG_GROUP);
    /* A newer config that the group itself has not taken: the route is the newest known. */
    struct config *config = config_create(7, SHARDS);
    config->groups = mem_calloc(1, sizeof *config->groups);
    config->group_count = 1;
    config->groups[0] = (struct config_group){.id = 9, .replica_count = 1};
    config->groups[0].replicas[0].id = 1;
    snprintf(config->groups[0].replicas[0].address, ADDRESS_BYTES_MAX, "nine:9");
    config->owners[3] = 9;
    kv_service_learn_config(fixture->service, config);
    config_free(config);
    response = service_put(fixture, &header, key, "a");
    assert_int_equal(response.header.route.config_number, 7);
    assert_int_equal(response.header.route.group_id, 9);
    assert_string_equal(response.header.route.addresses[0], "nine:9");
}

static void test_kv_service_limits_and_garbage_are_answered(void **state)
{
    struct service_fixture *fixture = *state;
    char *large = mem_calloc(1, KEY_BYTES_MAX + 2);
    memset(large, 'k', KEY_BYTES_MAX + 1);
    struct buf request = {0};
    struct buf reply = {0};
    /* The encoder would refuse such a key, so the bytes are made by hand: field 2, that many bytes.
     */
    put_u8(&request, 0x12);
    put_sized(&request, bytes_of(large, KEY_BYTES_MAX + 1));
    struct msg_write_response response = service_write(fixture, METHOD_KV_PUT, &request);
    assert_int_equal(response.header.error, ERR_TOO_LARGE);
    const char *methods[] = {METHOD_KV_GET,
                             METHOD_KV_PUT,
                             METHOD_KV_APPEND,
                             METHOD_KV_DELETE,
                             METHOD_KV_COMPARE_AND_SET,
                             METHOD_ADMIN_STATUS,
                             METHOD_SHARD_MOVE_OPEN,
                             METHOD_SHARD_MOVE_READ,
                             METHOD_SHARD_MOVE_FREEZE,
                             METHOD_SHARD_MOVE_DROP};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        buf_append(&request, "\xff\xff\xff", 3);
        buf_clear(&reply);
        service_call(fixture, methods[i], &request, &reply);
        assert_true(reply.size > 0);
    }
    free(large);
    buf_deinit(&request);
    buf_deinit(&reply);
}

static void test_kv_service_status_shows_shards_and_hash(void **state)
{
    struct service_fixture *fixture = *state;
    const struct msg_request_header header = {0};
    assert_int_equal(service_put(fixture, &header, key_in(2), "a").header.error, 0);
    struct buf request = {0};
    struct buf reply = {0};
    struct msg_status_response response;
    msg_status_request_encode(&(struct msg_status_request){.with_hash = true}, &request);
    service_call(fixture, METHOD_ADMIN_STATUS, &request, &reply);
    assert_int_equal(msg_status_response_decode(buf_view(&reply), &response), 0);
    assert_int_equal(response.header.error, 0);
    assert_string_equal(response.version, "test");
    assert_string_equal(response.role, "leader");
    assert_int_equal(response.config_number, 1);
    assert_int_equal(response.shard_count, SHARDS / 2);
    assert_int_equal(response.shards[1].shard, 2);
    assert_int_equal(response.shards[1].state, SHARD_SERVING);
    assert_int_equal(response.shards[1].keys, 1);
    assert_true(response.state_hash != 0);
    assert_true(response.state_hash_applied >= 3);
    msg_status_response_deinit(&response);
    msg_status_request_encode(&(struct msg_status_request){.cluster_id = CLUSTER + 1}, &request);
    buf_clear(&reply);
    service_call(fixture, METHOD_ADMIN_STATUS, &request, &reply);
    assert_int_equal(msg_status_response_decode(buf_view(&reply), &response), 0);
    assert_int_equal(response.header.error, ERR_WRONG_CLUSTER);
    msg_status_response_deinit(&response);
    buf_deinit(&reply);
}

/* ---- the source's side of moves ---- */

static struct msg_peer_move_response move_call(struct service_fixture *fixture, const char *method,
                                               const struct msg_peer_move_request *request)
{
    struct buf bytes = {0};
    struct buf reply = {0};
    struct msg_peer_move_response response;
    msg_peer_move_request_encode(request, &bytes);
    service_call(fixture, method, &bytes, &reply);
    assert_int_equal(msg_peer_move_response_decode(buf_view(&reply), &response), 0);
    buf_deinit(&reply);
    return response;
}

static void test_kv_service_move_verbs_are_fenced_and_answered(void **state)
{
    struct service_fixture *fixture = *state;
    const struct msg_request_header header = {.client_id = 6, .sequence = 1, .acked_below = 1};
    assert_int_equal(service_put(fixture, &header, key_in(0), "moving").header.error, 0);
    struct msg_peer_move_request move = {.cluster_id = CLUSTER,
                                         .shard = 0,
                                         .config_number = 2,
                                         .from_group = GROUP,
                                         .to_group = OTHER};
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_OPEN, &move).error, ERR_CONFIG_BEHIND);
    assert_int_equal(service_take_config(fixture, 2), 0);
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_OPEN, &move).error, 0);
    move.cluster_id++;
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_OPEN, &move).error, ERR_WRONG_CLUSTER);
    move.cluster_id--;
    move.from_group = 5;
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_DROP, &move).error, ERR_WRONG_GROUP);
    move.from_group = GROUP;
    move.to_group = 5;
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_DROP, &move).error, ERR_INVALID);
    move.to_group = OTHER;
    char value[64];
    assert_int_equal(service_get(fixture, key_in(0), value).header.error, ERR_WRONG_GROUP);
    /* Read: the row, its client's session, the counter. */
    struct buf bytes = {0};
    struct buf reply = {0};
    struct msg_peer_read_response read;
    msg_peer_read_request_encode(
        &(struct msg_peer_read_request){.move = move, .bytes_max = 1 << 20}, &bytes);
    service_call(fixture, METHOD_SHARD_MOVE_READ, &bytes, &reply);
    assert_int_equal(msg_peer_read_response_decode(buf_view(&reply), &read), 0);
    assert_int_equal(read.error, 0);
    assert_true(read.end);
    assert_true(bytes_equal(read.last_row, bytes_of_string("v")));
    assert_int_equal(read.rows_crc32c, crc32c_extend(0, read.rows.data, read.rows.size));
    buf_deinit(&reply);
    struct msg_peer_move_response totals = move_call(fixture, METHOD_SHARD_MOVE_FREEZE, &move);
    assert_int_equal(totals.error, 0);
    assert_int_equal(totals.rows, 3);
    struct msg_peer_move_response again = move_call(fixture, METHOD_SHARD_MOVE_FREEZE, &move);
    assert_int_equal(again.rows, 3);
    assert_int_equal(again.checksum, totals.checksum);
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_DROP, &move).error, 0);
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_DROP, &move).error, 0);
    assert_int_equal(move_call(fixture, METHOD_SHARD_MOVE_OPEN, &move).error, ERR_NOT_FOUND);
    buf_deinit(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVICE_TEST(test_kv_service_unary_methods_do_what_they_say),
        SERVICE_TEST(test_kv_service_repeated_command_is_executed_once),
        SERVICE_TEST(test_kv_service_wrong_group_is_answered_with_the_route),
        SERVICE_TEST(test_kv_service_limits_and_garbage_are_answered),
        SERVICE_TEST(test_kv_service_status_shows_shards_and_hash),
        SERVICE_TEST(test_kv_service_move_verbs_are_fenced_and_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
