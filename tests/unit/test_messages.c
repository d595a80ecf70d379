/* Single messages: exact bytes, every field where it belongs, views into the input, and each limit
 * from both sides. What holds for all of them is in test_messages_all.c. */
#include "unit/proto_test.h"

#include "proto/messages.h"
#include <stdio.h>

static void assert_is_view(struct bytes view, const struct buf *input)
{
    assert_true(view.data >= input->data);
    assert_true(view.data + view.size <= input->data + input->size);
}

/* ---- bytes and fields ---- */

static void test_put_request_bytes_are_pinned(void **state)
{
    (void)state;
    struct msg_put_request request = {
        .header = {.cluster_id = 0x1122334455667788ull, .client_id = 1, .sequence = 300},
        .key = bytes_of_string("k"),
        .value = bytes_of_string("vv"),
    };
    struct buf bytes;
    buf_init(&bytes);
    msg_put_request_encode(&request, &bytes);
    static const uint8_t expected[] = {
        0x0a, 21,   0x09, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, /* cluster_id */
        0x11, 1,    0,    0,    0,    0,    0,    0,    0,                /* client_id */
        0x18, 0xac, 2,                                                    /* sequence */
        0x12, 1,    'k',  0x1a, 2,    'v',  'v',
    };
    assert_bytes_equal(buf_view(&bytes), bytes_of(expected, sizeof(expected)));

    struct msg_put_request decoded;
    assert_int_equal(msg_put_request_decode(buf_view(&bytes), &decoded), ERR_OK);
    assert_true(decoded.header.cluster_id == 0x1122334455667788ull);
    assert_int_equal(decoded.header.client_id, 1);
    assert_int_equal(decoded.header.sequence, 300);
    assert_int_equal(decoded.header.acked_below, 0);
    assert_bytes_equal(decoded.key, bytes_of_string("k"));
    assert_bytes_equal(decoded.value, bytes_of_string("vv"));
    assert_is_view(decoded.key, &bytes);
    assert_is_view(decoded.value, &bytes);
    buf_deinit(&bytes);
}

static void test_response_header_fields_come_back(void **state)
{
    (void)state;
    struct msg_response_header header = {0};
    msg_response_header_set(&header, ERR_WRONG_GROUP, NULL);
    header.has_route = true;
    header.route.config_number = 7;
    header.route.shard = 3;
    header.route.group_id = 100;
    header.route.address_count = 2;
    memcpy(header.route.addresses[0], "a:1", 4);
    memcpy(header.route.addresses[1], "b:2", 4);
    memcpy(header.route.leader_address, "b:2", 4);
    struct buf bytes;
    buf_init(&bytes);
    msg_response_header_encode(&header, &bytes);
    struct msg_response_header decoded;
    assert_int_equal(msg_response_header_decode(buf_view(&bytes), &decoded), ERR_OK);
    assert_int_equal(decoded.error, ERR_WRONG_GROUP);
    assert_string_equal(decoded.message, err_text(ERR_WRONG_GROUP));
    assert_true(decoded.has_route);
    assert_int_equal(decoded.route.config_number, 7);
    assert_int_equal(decoded.route.shard, 3);
    assert_int_equal(decoded.route.group_id, 100);
    assert_int_equal(decoded.route.address_count, 2);
    assert_string_equal(decoded.route.addresses[0], "a:1");
    assert_string_equal(decoded.route.addresses[1], "b:2");
    assert_string_equal(decoded.route.leader_address, "b:2");
    buf_deinit(&bytes);
}

static void test_response_of_all_zeroes_still_has_a_header(void **state)
{
    (void)state;
    struct msg_write_response response = {0};
    struct buf bytes;
    buf_init(&bytes);
    msg_write_response_encode(&response, &bytes);
    assert_bytes_equal(buf_view(&bytes), bytes_of("\x0a\x00", 2));
    struct msg_write_response decoded;
    assert_int_equal(msg_write_response_decode(buf_view(&bytes), &decoded), ERR_OK);
    assert_int_equal(decoded.header.error, ERR_OK);
    assert_int_equal(msg_write_response_decode(BYTES_EMPTY, &decoded), ERR_OK);
    assert_int_equal(decoded.header.error, ERR_OK);
    assert_false(decoded.header.has_route);
    buf_deinit(&bytes);
}

static void test_response_header_code_unknown_is_outcome_unknown(void **state)
{
    (void)state;
    struct msg_response_header decoded;
    assert_int_equal(msg_response_header_decode(bytes_of("\x08\xe7\x07", 3), &decoded), ERR_OK);
    assert_int_equal(err_outcome(decoded.error), OUTCOME_UNKNOWN);
}

static void test_response_header_set_cuts_between_characters(void **state)
{
    (void)state;
    struct msg_response_header header = {0};
    char text[400];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    memcpy(text + TEXT_BYTES_MAX - 3, "\xe2\x82\xac", 3); /* would end at the NUL's place */
    msg_response_header_set(&header, ERR_INVALID, text);
    assert_int_equal(strlen(header.message), TEXT_BYTES_MAX - 3);
    msg_response_header_set(&header, ERR_INVALID, "bad \xff\xc3 bytes");
    assert_string_equal(header.message, "bad ?? bytes");
    msg_response_header_set(&header, ERR_OK, NULL);
    assert_string_equal(header.message, "");
}

static void test_response_text_written_by_hand_is_made_clean(void **state)
{
    (void)state;
    struct msg_admin_response response = {.header = {.error = ERR_INVALID}};
    /* As snprintf leaves it when it cuts a character in two. */
    memcpy(response.header.message, "cut \xe2\x82", 7);
    struct buf bytes;
    buf_init(&bytes);
    msg_admin_response_encode(&response, &bytes);
    struct msg_admin_response decoded;
    assert_int_equal(msg_admin_response_decode(buf_view(&bytes), &decoded), ERR_OK);
    assert_string_equal(decoded.header.message, "cut ??");
    buf_deinit(&bytes);
}

static void test_route_from_config_names_the_owners_replicas(void **state)
{
    (void)state;
    struct config *config = config_create(9, 2);
    config->group_count = 1;
    config->groups = mem_calloc(1, sizeof(*config->groups));
    config->groups[0].id = 5;
    config->groups[0].replica_count = 2;
    memcpy(config->groups[0].replicas[0].address, "a:1", 4);
    memcpy(config->groups[0].replicas[1].address, "b:2", 4);
    config->owners[1] = 5;
    struct msg_route route = {.address_count = 3};
    msg_route_from_config(&route, config, 1);
    assert_int_equal(route.config_number, 9);
    assert_int_equal(route.shard, 1);
    assert_int_equal(route.group_id, 5);
    assert_int_equal(route.address_count, 2);
    assert_string_equal(route.addresses[1], "b:2");
    msg_route_from_config(&route, config, 0);
    assert_int_equal(route.group_id, 0);
    assert_int_equal(route.address_count, 0);
    config_free(config);
}

static void test_batch_messages_fields_come_back(void **state)
{
    (void)state;
    struct msg_batch_request request = {.batch_id = 1,
                                        .cluster_id = 2,
                                        .config_number = 3,
                                        .reads = true,
                                        .operations = bytes_of_string("block")};
    struct buf bytes;
    buf_init(&bytes);
    msg_batch_request_encode(&request, &bytes);
    struct msg_batch_request request_back;
    assert_int_equal(msg_batch_request_decode(buf_view(&bytes), &request_back), ERR_OK);
    assert_int_equal(request_back.batch_id, 1);
    assert_int_equal(request_back.cluster_id, 2);
    assert_int_equal(request_back.config_number, 3);
    assert_true(request_back.reads);
    assert_bytes_equal(request_back.operations, request.operations);
    assert_is_view(request_back.operations, &bytes);

    struct msg_route routes[2] = {{.shard = 4, .group_id = 8}, {.shard = 5, .group_id = 9}};
    struct msg_batch_response response = {
        .batch_id = 1, .results = bytes_of_string("results"), .route_count = 2, .routes = routes};
    buf_clear(&bytes);
    msg_batch_response_encode(&response, &bytes);
    struct msg_batch_response response_back;
    assert_int_equal(msg_batch_response_decode(buf_view(&bytes), &response_back), ERR_OK);
    assert_int_equal(response_back.batch_id, 1);
    assert_bytes_equal(response_back.results, response.results);
    assert_is_view(response_back.results, &bytes);
    assert_int_equal(response_back.route_count, 2);
    assert_int_equal(response_back.routes[0].shard, 4);
    assert_int_equal(response_back.routes[1].group_id, 9);
    msg_batch_response_deinit(&response_back);
    assert_null(response_back.routes);
    buf_deinit(&bytes);
}

static void test_frame_messages_are_views_in_order(void **state)
{
    (void)state;
    struct msg_frame frame = {.version = PEER_VERSION,
                              .cluster_id = 1,
                              .group_id = 2,
                              .from = 3,
                              .from_incarnation = 4,
                              .to = 5,
                              .message_count = 3};
    frame.messages[0] = bytes_of_string("first");
    frame.messages[1] = BYTES_EMPTY;
    frame.messages[2] = bytes_of_string("third");
    struct buf bytes;
    buf_init(&bytes);
    msg_frame_encode(&frame, &bytes);
    struct msg_frame back;
    assert_int_equal(msg_frame_decode(buf_view(&bytes), &back), ERR_OK);
    assert_int_equal(back.version, PEER_VERSION);
    assert_int_equal(back.cluster_id, 1);
    assert_int_equal(back.group_id, 2);
    assert_int_equal(back.from, 3);
    assert_int_equal(back.from_incarnation, 4);
    assert_int_equal(back.to, 5);
    assert_int_equal(back.message_count, 3);
    assert_bytes_equal(back.messages[0], frame.messages[0]);
    assert_int_equal(back.messages[1].size, 0);
    assert_bytes_equal(back.messages[2], frame.messages[2]);
    assert_is_view(back.messages[2], &bytes);
    buf_deinit(&bytes);
}

static void test_status_response_fields_come_back(void **state)
{
    (void)state;
    struct msg_shard_status shards[2] = {
        {.shard = 1, .state = SHARD_SERVING, .keys = 10},
        {.shard = 2, .state = SHARD_PULLING, .config_number = 6, .bytes = 20, .moved_bytes = 30}};
    struct msg_status_response response = {.cluster_id = 1,
                                           .group_id = 2,
                                           .replica_id = 3,
                                           .version = "0.1.0",
                                           .role = "follower",
                                           .term = 4,
                                           .leader_id = 5,
                                           .leader_address = "l:1",
                                           .commit = 6,
                                           .applied = 7,
                                           .log_first = 8,
                                           .log_last = 9,
                                           .log_bytes = 10,
                                           .config_number = 11,
                                           .member_count = 1,
                                           .shard_count = 2,
                                           .shards = shards,
                                           .state_hash = 12,
                                           .state_hash_applied = 13};
    response.members[0] = (struct msg_member){
        .id = 14, .address = "m:1", .learner = true, .match = 15, .active = true};
    struct buf bytes;
    buf_init(&bytes);
    msg_status_response_encode(&response, &bytes);
    struct msg_status_response back;
    assert_int_equal(msg_status_response_decode(buf_view(&bytes), &back), ERR_OK);
    assert_int_equal(back.cluster_id, 1);
    assert_int_equal(back.group_id, 2);
    assert_int_equal(back.replica_id, 3);
    assert_string_equal(back.version, "0.1.0");
    assert_string_equal(back.role, "follower");
    assert_int_equal(back.term, 4);
    assert_int_equal(back.leader_id, 5);
    assert_string_equal(back.leader_address, "l:1");
    assert_int_equal(back.commit, 6);
    assert_int_equal(back.applied, 7);
    assert_int_equal(back.log_first, 8);
    assert_int_equal(back.log_last, 9);
    assert_int_equal(back.log_bytes, 10);
    assert_int_equal(back.config_number, 11);
    assert_int_equal(back.member_count, 1);
    assert_memory_equal(&back.members[0].id, &response.members[0].id, sizeof(uint64_t));
    assert_string_equal(back.members[0].address, "m:1");
    assert_true(back.members[0].learner);
    assert_int_equal(back.members[0].match, 15);
    assert_true(back.members[0].active);
    assert_int_equal(back.shard_count, 2);
    assert_int_equal(back.shards[0].keys, 10);
    assert_int_equal(back.shards[1].state, SHARD_PULLING);
    assert_int_equal(back.shards[1].config_number, 6);
    assert_int_equal(back.shards[1].bytes, 20);
    assert_int_equal(back.shards[1].moved_bytes, 30);
    assert_int_equal(back.state_hash, 12);
    assert_int_equal(back.state_hash_applied, 13);
    msg_status_response_deinit(&back);
    buf_deinit(&bytes);
}

static void test_peer_move_messages_fields_come_back(void **state)
{
    (void)state;
    struct msg_peer_read_request request = {
        .move = {.cluster_id = 1, .shard = 2, .config_number = 3, .from_group = 4, .to_group = 5},
        .after_row = bytes_of_string("row"),
        .bytes_max = 6};
    struct buf bytes;
    buf_init(&bytes);
    msg_peer_read_request_encode(&request, &bytes);
    struct msg_peer_read_request request_back;
    assert_int_equal(msg_peer_read_request_decode(buf_view(&bytes), &request_back), ERR_OK);
    assert_int_equal(request_back.move.cluster_id, 1);
    assert_int_equal(request_back.move.shard, 2);
    assert_int_equal(request_back.move.config_number, 3);
    assert_int_equal(request_back.move.from_group, 4);
    assert_int_equal(request_back.move.to_group, 5);
    assert_bytes_equal(request_back.after_row, request.after_row);
    assert_int_equal(request_back.bytes_max, 6);

    struct msg_peer_read_response response = {.error = ERR_NOT_LEADER,
                                              .message = "why",
                                              .leader_address = "l:1",
                                              .rows = bytes_of_string("rows"),
                                              .rows_crc32c = 7,
                                              .last_row = bytes_of_string("last"),
                                              .end = true};
    buf_clear(&bytes);
    msg_peer_read_response_encode(&response, &bytes);
    struct msg_peer_read_response back;
    assert_int_equal(msg_peer_read_response_decode(buf_view(&bytes), &back), ERR_OK);
    assert_int_equal(back.error, ERR_NOT_LEADER);
    assert_string_equal(back.message, "why");
    assert_string_equal(back.leader_address, "l:1");
    assert_bytes_equal(back.rows, response.rows);
    assert_int_equal(back.rows_crc32c, 7);
    assert_bytes_equal(back.last_row, response.last_row);
    assert_true(back.end);
    buf_deinit(&bytes);
}

/* ---- limits and refusals ---- */

static int put_with(size_t key_bytes, size_t value_bytes)
{
    uint8_t *data = mem_calloc(1, value_bytes > key_bytes ? value_bytes : key_bytes);
    struct msg_put_request request = {.key = bytes_of(data, key_bytes),
                                      .value = bytes_of(data, value_bytes)};
    struct buf bytes;
    buf_init(&bytes);
    msg_put_request_encode(&request, &bytes);
    struct msg_put_request decoded;
    int error = msg_put_request_decode(buf_view(&bytes), &decoded);
    if (error == ERR_OK) {
        assert_int_equal(decoded.value.size, value_bytes);
        if (value_bytes > 0) {
            assert_is_view(decoded.value, &bytes);
        }
    }
    buf_deinit(&bytes);
    free(data);
    return error;
}

static void test_put_request_limits_of_key_and_value(void **state)
{
    (void)state;
    assert_int_equal(put_with(KEY_BYTES_MAX, VALUE_BYTES_MAX), ERR_OK);
    assert_int_equal(put_with(KEY_BYTES_MAX + 1, 1), ERR_TOO_LARGE);
    assert_int_equal(put_with(1, VALUE_BYTES_MAX + 1), ERR_TOO_LARGE);
    assert_int_equal(put_with(0, 1), ERR_INVALID);
    assert_int_equal(put_with(1, 0), ERR_OK);
}

static void test_get_request_key_as_a_number_is_refused(void **state)
{
    (void)state;
    struct msg_get_request request;
    /* Field 2 as varint, 64 bits, 32 bits. */
    assert_int_equal(msg_get_request_decode(bytes_of("\x10\x41", 2), &request), ERR_PROTOCOL);
    assert_int_equal(msg_get_request_decode(bytes_of("\x11"
                                                     "12345678",
                                                     9),
                                            &request),
                     ERR_PROTOCOL);
    assert_int_equal(msg_get_request_decode(bytes_of("\x15"
                                                     "1234",
                                                     5),
                                            &request),
                     ERR_PROTOCOL);
    /* A run of bytes that says it is longer than the message, by one and by the most there is. */
    assert_int_equal(msg_get_request_decode(bytes_of("\x12\x02k", 3), &request), ERR_PROTOCOL);
    assert_int_equal(msg_get_request_decode(bytes_of("\x12\xff\xff\xff\xff\x0fk", 7), &request),
                     ERR_PROTOCOL);
    assert_int_equal(msg_get_request_decode(bytes_of("\x12\x01k", 3), &request), ERR_OK);
}

static int route_with(const char *address, size_t size, bool leader)
{
    struct buf bytes;
    buf_init(&bytes);
    uint8_t head[3] = {leader ? 0x2a : 0x22, (uint8_t)(0x80 | (size & 0x7f)), (uint8_t)(size >> 7)};
    buf_append(&bytes, head, sizeof(head));
    buf_append(&bytes, address, size);
    struct msg_route route;
    int error = msg_route_decode(buf_view(&bytes), &route);
    buf_deinit(&bytes);
    return error;
}

static void test_route_addresses_are_checked(void **state)
{
    (void)state;
    char longest[ADDRESS_BYTES_MAX];
    memset(longest, 'a', sizeof(longest));
    for (int leader = 0; leader < 2; leader++) {
        assert_int_equal(route_with("host:1", 6, leader != 0), ERR_OK);
        assert_int_equal(route_with(longest, ADDRESS_BYTES_MAX - 1, leader != 0), ERR_OK);
        assert_int_equal(route_with(longest, ADDRESS_BYTES_MAX, leader != 0), ERR_TOO_LARGE);
        assert_int_equal(route_with("host\0:1", 7, leader != 0), ERR_PROTOCOL);
        assert_int_equal(route_with("host :1", 7, leader != 0), ERR_PROTOCOL);
        assert_int_equal(route_with("h\xc3\xa9:1", 5, leader != 0), ERR_PROTOCOL);
        assert_int_equal(route_with("h\x7f:1", 4, leader != 0), ERR_PROTOCOL);
    }
    assert_int_equal(route_with("", 0, false), ERR_PROTOCOL);
    assert_int_equal(route_with("", 0, true), ERR_OK);
}

static void test_route_count_of_addresses_is_bounded(void **state)
{
    (void)state;
    struct buf bytes;
    struct msg_route route;
    buf_init(&bytes);
    for (uint32_t i = 0; i < GROUP_REPLICAS_MAX; i++) {
        buf_append(&bytes, "\x22\x01h", 3);
    }
    assert_int_equal(msg_route_decode(buf_view(&bytes), &route), ERR_OK);
    assert_int_equal(route.address_count, GROUP_REPLICAS_MAX);
    buf_append(&bytes, "\x22\x01h", 3);
    assert_int_equal(msg_route_decode(buf_view(&bytes), &route), ERR_TOO_LARGE);
    buf_deinit(&bytes);
}

static int text_with(const char *text, size_t size)
{
    struct buf bytes;
    buf_init(&bytes);
    uint8_t head[3] = {0x12, (uint8_t)(0x80 | (size & 0x7f)), (uint8_t)(size >> 7)};
    buf_append(&bytes, head, sizeof(head));
    buf_append(&bytes, text, size);
    struct msg_response_header header;
    int error = msg_response_header_decode(buf_view(&bytes), &header);
    buf_deinit(&bytes);
    return error;
}

static void test_response_text_must_be_utf8_without_nul(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int error;
    } cases[] = {
        {"plain", ERR_OK},
        {"\xc2\x80", ERR_OK},
        {"\xc1\xbf", ERR_PROTOCOL}, /* overlong */
        {"\xe0\xa0\x80", ERR_OK},
        {"\xe0\x9f\xbf", ERR_PROTOCOL}, /* overlong */
        {"\xed\x9f\xbf", ERR_OK},
        {"\xed\xa0\x80", ERR_PROTOCOL}, /* surrogate */
        {"\xef\xbf\xbf", ERR_OK},
        {"\xf0\x90\x80\x80", ERR_OK},
        {"\xf0\x8f\xbf\xbf", ERR_PROTOCOL}, /* overlong */
        {"\xf4\x8f\xbf\xbf", ERR_OK},
        {"\xf4\x90\x80\x80", ERR_PROTOCOL}, /* over U+10FFFF */
        {"\xf5\x80\x80\x80", ERR_PROTOCOL},
        {"\x80", ERR_PROTOCOL},
        {"x\xe2\x82", ERR_PROTOCOL}, /* cut off */
        {"\xe2\x82x", ERR_PROTOCOL},
        {"\xff", ERR_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(text_with(cases[i].text, strlen(cases[i].text)), cases[i].error);
    }
    assert_int_equal(text_with("a\0b", 3), ERR_PROTOCOL);
    char longest[TEXT_BYTES_MAX];
    memset(longest, 'a', sizeof(longest));
    assert_int_equal(text_with(longest, TEXT_BYTES_MAX - 1), ERR_OK);
    assert_int_equal(text_with(longest, TEXT_BYTES_MAX), ERR_TOO_LARGE);
}

/* `count` fields of `field` bytes each. */
static void repeat(struct buf *out, const char *field, size_t size, uint32_t count)
{
    buf_clear(out);
    for (uint32_t i = 0; i < count; i++) {
        buf_append(out, field, size);
    }
}

static void test_repeated_parts_are_bounded(void **state)
{
    (void)state;
    struct buf bytes;
    buf_init(&bytes);
    struct msg_frame frame;
    repeat(&bytes, "\x3a\x00", 2, FRAME_MESSAGES_MAX);
    assert_int_equal(msg_frame_decode(buf_view(&bytes), &frame), ERR_OK);
    assert_int_equal(frame.message_count, FRAME_MESSAGES_MAX);
    repeat(&bytes, "\x3a\x00", 2, FRAME_MESSAGES_MAX + 1);
    assert_int_equal(msg_frame_decode(buf_view(&bytes), &frame), ERR_TOO_LARGE);

    struct msg_batch_response batch;
    repeat(&bytes, "\x22\x00", 2, BATCH_ROUTES_MAX);
    assert_int_equal(msg_batch_response_decode(buf_view(&bytes), &batch), ERR_OK);
    assert_int_equal(batch.route_count, BATCH_ROUTES_MAX);
    msg_batch_response_deinit(&batch);
    repeat(&bytes, "\x22\x00", 2, BATCH_ROUTES_MAX + 1);
    assert_int_equal(msg_batch_response_decode(buf_view(&bytes), &batch), ERR_TOO_LARGE);
    assert_null(batch.routes);

    struct msg_status_response status;
    repeat(&bytes, "\x8a\x01\x00", 3, SHARD_COUNT_MAX);
    assert_int_equal(msg_status_response_decode(buf_view(&bytes), &status), ERR_OK);
    assert_int_equal(status.shard_count, SHARD_COUNT_MAX);
    msg_status_response_deinit(&status);
    repeat(&bytes, "\x8a\x01\x00", 3, SHARD_COUNT_MAX + 1);
    assert_int_equal(msg_status_response_decode(buf_view(&bytes), &status), ERR_TOO_LARGE);
    repeat(&bytes, "\x82\x01\x00", 3, GROUP_REPLICAS_MAX + 1);
    assert_int_equal(msg_status_response_decode(buf_view(&bytes), &status), ERR_TOO_LARGE);

    struct msg_join_request join;
    repeat(&bytes, "\x12\x00", 2, GROUPS_MAX);
    assert_int_equal(msg_join_request_decode(buf_view(&bytes), &join), ERR_OK);
    assert_int_equal(join.group_count, GROUPS_MAX);
    msg_join_request_deinit(&join);
    repeat(&bytes, "\x12\x00", 2, GROUPS_MAX + 1);
    assert_int_equal(msg_join_request_decode(buf_view(&bytes), &join), ERR_TOO_LARGE);

    struct msg_leave_request leave;
    repeat(&bytes, "\x10\x05", 2, GROUPS_MAX);
    assert_int_equal(msg_leave_request_decode(buf_view(&bytes), &leave), ERR_OK);
    assert_int_equal(leave.group_count, GROUPS_MAX);
    assert_int_equal(leave.group_ids[GROUPS_MAX - 1], 5);
    repeat(&bytes, "\x10\x05", 2, GROUPS_MAX + 1);
    assert_int_equal(msg_leave_request_decode(buf_view(&bytes), &leave), ERR_TOO_LARGE);
    buf_deinit(&bytes);
}

static void test_enum_values_are_checked(void **state)
{
    (void)state;
    struct msg_change_member_request change;
    assert_int_equal(msg_change_member_request_decode(BYTES_EMPTY, &change), ERR_PROTOCOL);
    assert_int_equal(msg_change_member_request_decode(bytes_of("\x10\x01", 2), &change), ERR_OK);
    assert_int_equal(change.kind, MSG_MEMBER_ADD_LEARNER);
    assert_int_equal(msg_change_member_request_decode(bytes_of("\x10\x04", 2), &change), ERR_OK);
    assert_int_equal(msg_change_member_request_decode(bytes_of("\x10\x05", 2), &change),
                     ERR_PROTOCOL);
    static const char negative[] = "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_int_equal(
        msg_change_member_request_decode(bytes_of(negative, sizeof(negative) - 1), &change),
        ERR_PROTOCOL);
    struct msg_status_response status;
    assert_int_equal(msg_status_response_decode(bytes_of("\x8a\x01\x02\x10\x05", 5), &status),
                     ERR_PROTOCOL); /* shard state 5 */
    struct msg_peer_move_request move;
    assert_int_equal(msg_peer_move_request_decode(bytes_of("\x10\x80\x80\x01", 4), &move),
                     ERR_PROTOCOL); /* shard 16384 */
}

static void test_watch_response_with_a_bad_config_is_refused_and_leaks_nothing(void **state)
{
    (void)state;
    struct msg_watch_response response;
    /* One shard owned by group 1, which is not listed. */
    static const char bad[] = "\x12\x08\x10\x01\x1a\x01\x01\x22\x01\x00";
    assert_int_equal(msg_watch_response_decode(bytes_of(bad, 10), &response), ERR_PROTOCOL);
    assert_null(response.config);
    static const char right[] = "\x12\x08\x10\x01\x1a\x01\x00\x22\x01\x00";
    assert_int_equal(msg_watch_response_decode(bytes_of(right, 10), &response), ERR_OK);
    assert_non_null(response.config);
    assert_int_equal(response.config->shard_count, 1);
    msg_watch_response_deinit(&response);
    assert_int_equal(msg_watch_response_decode(BYTES_EMPTY, &response), ERR_OK);
    assert_null(response.config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_request_bytes_are_pinned),
        cmocka_unit_test(test_response_header_fields_come_back),
        cmocka_unit_test(test_response_of_all_zeroes_still_has_a_header),
        cmocka_unit_test(test_response_header_code_unknown_is_outcome_unknown),
        cmocka_unit_test(test_response_header_set_cuts_between_characters),
        cmocka_unit_test(test_response_text_written_by_hand_is_made_clean),
        cmocka_unit_test(test_route_from_config_names_the_owners_replicas),
        cmocka_unit_test(test_batch_messages_fields_come_back),
        cmocka_unit_test(test_frame_messages_are_views_in_order),
        cmocka_unit_test(test_status_response_fields_come_back),
        cmocka_unit_test(test_peer_move_messages_fields_come_back),
        cmocka_unit_test(test_put_request_limits_of_key_and_value),
        cmocka_unit_test(test_get_request_key_as_a_number_is_refused),
        cmocka_unit_test(test_route_addresses_are_checked),
        cmocka_unit_test(test_route_count_of_addresses_is_bounded),
        cmocka_unit_test(test_response_text_must_be_utf8_without_nul),
        cmocka_unit_test(test_repeated_parts_are_bounded),
        cmocka_unit_test(test_enum_values_are_checked),
        cmocka_unit_test(test_watch_response_with_a_bad_config_is_refused_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
