/* Channels and where they lead: addresses, peers that are not there or never speak, strangers on
 * the port, and who may be believed about what was sent. */
#include "rpc/world.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);
    world_init(world, 2, NULL);
    world_server(world);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Echo", handle_echo, NULL), 0);
    world_start(world);
    *state = world;
    return 0;
}

static int teardown(void **state)
{
    world_deinit(*state);
    free(*state);
    return 0;
}

static void call_unsendable(struct rpc_channel *channel, struct outcome *outcome, uint64_t number)
{
    call_start(channel, "/t.T/Echo", soon_ns(), outcome);
    gate_wait(&outcome->done, number);
    assert_int_equal(outcome->error, ERR_UNAVAILABLE);
    assert_int_not_equal(strlen(outcome->text), 0);
    assert_true(outcome->not_sent);
}

static void test_connect_refused_is_unavailable_and_not_sent(void **state)
{
    struct world *world = *state;
    struct rpc_channel *channel = NULL;
    struct outcome outcome;
    char address[64];
    outcome_init(&outcome);
    address_unused(address);
    assert_int_equal(rpc_channel_create(world->client_rpc, address, &channel), ERR_OK);
    for (uint64_t i = 1; i <= 3; i++) {
        call_unsendable(channel, &outcome, i);
    }
    rpc_channel_destroy(channel);
    outcome_deinit(&outcome);
}

static void test_name_unresolvable_is_unavailable_and_not_sent(void **state)
{
    struct world *world = *state;
    struct rpc_channel *channel = NULL;
    struct outcome outcome;
    outcome_init(&outcome);
    /* RFC 2606: .invalid never resolves. */
    assert_int_equal(rpc_channel_create(world->client_rpc, "no.such.invalid:80", &channel), ERR_OK);
    call_unsendable(channel, &outcome, 1);
    rpc_channel_destroy(channel);
    outcome_deinit(&outcome);
}

static void test_server_gone_before_the_call_is_unavailable_and_not_sent(void **state)
{
    struct world *world = *state;
    struct outcome outcome;
    outcome_init(&outcome);
    call_pattern(world->channel, 10); /* there was a connection */
    rpc_server_destroy(world->server);
    world->server = NULL;
    call_start(world->channel, "/t.T/Echo", soon_ns(), &outcome);
    gate_wait(&outcome.done, 1);
    assert_int_equal(outcome.error, ERR_UNAVAILABLE); /* perhaps over the dying connection */
    call_unsendable(world->channel, &outcome, 2);
    outcome_deinit(&outcome);
}

static void test_peer_that_never_speaks_is_timeout(void **state)
{
    struct world *world = *state;
    struct rpc_channel *channel = NULL;
    struct outcome outcome;
    char address[64];
    outcome_init(&outcome);
    int fd = socket_listen(address);
    assert_int_equal(rpc_channel_create(world->client_rpc, address, &channel), ERR_OK);
    call_start(channel, "/t.T/Echo", now_ns() + 300 * NS_PER_MS, &outcome);
    gate_wait(&outcome.done, 1);
    assert_int_equal(outcome.error, ERR_TIMEOUT);
    rpc_channel_destroy(channel);
    close(fd);
    outcome_deinit(&outcome);
}

static void test_channel_address_bad_is_invalid(void **state)
{
    struct world *world = *state;
    const char *bad[] = {"",    "host",        "127.0.0.1:", "127.0.0.1:99999",
                         ":80", "127.0.0.1:0", "a b:1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rpc_channel *channel = NULL;
        assert_int_equal(rpc_channel_create(world->client_rpc, bad[i], &channel), ERR_INVALID);
        assert_null(channel);
    }
}

static void test_channel_by_name_and_by_v6_literal(void **state)
{
    struct world *world = *state;
    struct rpc_channel *channel = NULL;
    struct buf reply;
    char address[80];
    buf_init(&reply);
    char text[RPC_ERROR_TEXT_BYTES_MAX];
    snprintf(address, sizeof(address), "localhost:%u", (unsigned)rpc_server_port(world->server));
    assert_int_equal(rpc_channel_create(world->client_rpc, address, &channel), ERR_OK);
    assert_int_equal(call_text(channel, "/t.T/Echo", "by name", &reply, NULL, 0), ERR_OK);
    assert_memory_equal(reply.data, "by name", 7);
    rpc_channel_destroy(channel);
    buf_deinit(&reply);
    /* Nothing listens there, or there is no v6 at all: either way an honest answer. */
    snprintf(address, sizeof(address), "[::1]:%u", (unsigned)rpc_server_port(world->server));
    assert_int_equal(rpc_channel_create(world->client_rpc, address, &channel), ERR_OK);
    assert_int_equal(call_text(channel, "/t.T/Echo", "v6", &reply, text, sizeof(text)),
                     ERR_UNAVAILABLE);
    assert_non_null(strstr(text, "::1"));
    rpc_channel_destroy(channel);
    buf_deinit(&reply);
}

static void test_garbage_on_the_port_does_no_harm(void **state)
{
    struct world *world = *state;
    struct sockaddr_in name = {.sin_family = AF_INET};
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    name.sin_port = htons(rpc_server_port(world->server));
    for (unsigned round = 0; round < 20; round++) {
        uint8_t noise[512];
        for (size_t i = 0; i < sizeof(noise); i++) {
            noise[i] = (uint8_t)(round * 37 + i * (round + 3));
        }
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
        if (round % 2 == 0) { /* half of them start as HTTP/2 does */
            assert_int_equal(send(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, MSG_NOSIGNAL), 24);
        }
        (void)send(fd, noise, sizeof(noise), MSG_NOSIGNAL);
        close(fd);
    }
    call_pattern(world->channel, 100);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_connect_refused_is_unavailable_and_not_sent),
        TEST(test_name_unresolvable_is_unavailable_and_not_sent),
        TEST(test_server_gone_before_the_call_is_unavailable_and_not_sent),
        TEST(test_peer_that_never_speaks_is_timeout),
        TEST(test_channel_address_bad_is_invalid),
        TEST(test_channel_by_name_and_by_v6_literal),
        TEST(test_garbage_on_the_port_does_no_harm),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
