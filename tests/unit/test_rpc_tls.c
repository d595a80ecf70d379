/* Mutual TLS: who is let in, and who is not. */
#include "rpc/certificates.h"
#include "rpc/world.h"
#include <stdlib.h>
#include <string.h>

static const struct rpc_tls node = {ca_pem, node_pem, node_key};

struct fixture {
    struct world world;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    world_init(&fixture->world, 1, &node);
    world_server(&fixture->world);
    assert_int_equal(rpc_server_add_unary(fixture->world.server, "/t.T/Echo", handle_echo, NULL),
                     0);
    world_start(&fixture->world);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    world_deinit(&fixture->world);
    free(fixture);
    return 0;
}

/* What one call ends with when it comes with these credentials. */
static int call_as(struct fixture *fixture, const struct rpc_tls *tls)
{
    struct rpc_options options = rpc_options_default();
    struct rpc *rpc = NULL;
    struct rpc_channel *channel = NULL;
    struct buf reply;
    buf_init(&reply);
    options.tls = tls;
    assert_int_equal(rpc_create(&options, &rpc), ERR_OK);
    assert_int_equal(rpc_channel_create(rpc, fixture->world.address, &channel), ERR_OK);
    int error = call_text(channel, "/t.T/Echo", "hello", &reply, NULL, 0);
    assert_int_equal(reply.size, error == ERR_OK ? 5 : 0);
    rpc_channel_destroy(channel);
    rpc_destroy(rpc);
    buf_deinit(&reply);
    return error;
}

static void test_node_of_the_same_ca_is_let_in(void **state)
{
    assert_int_equal(call_as(*state, &node), ERR_OK);
}

static void test_client_whose_names_differ_is_let_in(void **state)
{
    const struct rpc_tls elsewhere = {ca_pem, elsewhere_pem, elsewhere_key};
    assert_int_equal(call_as(*state, &elsewhere), ERR_OK);
}

static void test_certificate_of_another_ca_is_refused(void **state)
{
    const struct rpc_tls stranger = {ca_pem, stranger_pem, stranger_key};
    assert_int_equal(call_as(*state, &stranger), ERR_UNAVAILABLE);
}

static void test_server_of_another_ca_is_not_trusted(void **state)
{
    const struct rpc_tls trusting_others = {other_ca_pem, node_pem, node_key};
    assert_int_equal(call_as(*state, &trusting_others), ERR_UNAVAILABLE);
}

static void test_plaintext_is_refused(void **state)
{
    assert_int_equal(call_as(*state, NULL), ERR_UNAVAILABLE);
}

static void test_server_with_the_wrong_name_is_not_trusted(void **state)
{
    struct fixture *fixture = *state;
    const struct rpc_tls elsewhere = {ca_pem, elsewhere_pem, elsewhere_key};
    struct world other;
    world_init(&other, 1, &elsewhere);
    world_server(&other);
    assert_int_equal(rpc_server_add_unary(other.server, "/t.T/Echo", handle_echo, NULL), 0);
    world_start(&other);
    struct buf reply;
    buf_init(&reply);
    struct rpc_channel *channel = NULL;
    assert_int_equal(rpc_channel_create(fixture->world.client_rpc, other.address, &channel),
                     ERR_OK);
    assert_int_equal(call_text(channel, "/t.T/Echo", "x", &reply, NULL, 0), ERR_UNAVAILABLE);
    rpc_channel_destroy(channel);
    world_deinit(&other);
}

static void test_incomplete_or_bad_credentials_are_invalid(void **state)
{
    (void)state;
    struct rpc_options options = rpc_options_default();
    struct rpc *rpc = NULL;
    const struct rpc_tls without_key = {ca_pem, node_pem, NULL};
    options.tls = &without_key;
    assert_int_equal(rpc_create(&options, &rpc), ERR_INVALID);
    const struct rpc_tls bad = {"not PEM", "not PEM", "not PEM"};
    options.tls = &bad;
    assert_int_equal(rpc_create(&options, &rpc), ERR_OK); /* found out when it is used */
    struct rpc_server_options server_options = rpc_server_options_default("127.0.0.1:0");
    struct rpc_server *server = NULL;
    assert_int_equal(rpc_server_create(rpc, &server_options, &server), ERR_OK);
    assert_int_equal(rpc_server_start(server), ERR_INVALID);
    rpc_server_destroy(server);
    rpc_destroy(rpc);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_node_of_the_same_ca_is_let_in),
        TEST(test_client_whose_names_differ_is_let_in),
        TEST(test_certificate_of_another_ca_is_refused),
        TEST(test_server_of_another_ca_is_not_trusted),
        TEST(test_plaintext_is_refused),
        TEST(test_server_with_the_wrong_name_is_not_trusted),
        cmocka_unit_test(test_incomplete_or_bad_credentials_are_invalid),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
