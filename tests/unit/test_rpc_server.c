/* The server's life: addresses, methods, starting, going down with calls in flight. */
#include "rpc/world.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCKED = 2 }; /* calls that a handler holds up */

struct fixture {
    struct world world;
    struct gate arrived;
    _Atomic(struct rpc_call *) call;
    pthread_t thread;
    uint64_t grace_ns;
    _Atomic bool down;
    struct gate entered; /* the server's queue thread, into a handler that blocks .. */
    struct gate let_go;  /* .. until this has been passed as often */
};

static void handle_hold(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    (void)request;
    (void)owner;
    struct fixture *fixture = context;
    atomic_store(&fixture->call, call);
    gate_pass(&fixture->arrived);
}

/* Holds up its queue's thread, as no handler of the product may. */
static void handle_block(void *context, struct rpc_call *call, struct bytes request,
                         struct blob *owner)
{
    (void)request;
    (void)owner;
    struct fixture *fixture = context;
    gate_pass(&fixture->entered);
    uint64_t entered = gate_count(&fixture->entered);
    gate_wait(&fixture->let_go, entered < BLOCKED ? entered : BLOCKED);
    struct buf reply;
    buf_of_text(&reply, "executed");
    rpc_call_reply(call, &reply);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    gate_init(&fixture->arrived);
    gate_init(&fixture->entered);
    gate_init(&fixture->let_go);
    world_init(&fixture->world, 1, NULL);
    *state = fixture;
    return 0;
}

static void serve(struct fixture *fixture)
{
    struct world *world = &fixture->world;
    world_server(world);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Echo", handle_echo, NULL), 0);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Hold", handle_hold, fixture), 0);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Block", handle_block, fixture), 0);
    world_start(world);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    world_deinit(&fixture->world);
    gate_deinit(&fixture->arrived);
    gate_deinit(&fixture->entered);
    gate_deinit(&fixture->let_go);
    free(fixture);
    return 0;
}

static void *shutdown_main(void *context)
{
    struct fixture *fixture = context;
    rpc_server_shutdown(fixture->world.server, fixture->grace_ns);
    atomic_store(&fixture->down, true);
    return NULL;
}

static void shutdown_start(struct fixture *fixture, uint64_t grace_ns)
{
    fixture->grace_ns = grace_ns;
    assert_int_equal(pthread_create(&fixture->thread, NULL, shutdown_main, fixture), 0);
}

static void hold_start(struct fixture *fixture, struct outcome *outcome)
{
    call_start(fixture->world.channel, "/t.T/Hold", soon_ns(), outcome);
    gate_wait(&fixture->arrived, 1);
}

static void test_address_in_use_is_exists(void **state)
{
    struct fixture *fixture = *state;
    serve(fixture);
    struct rpc_server_options options = rpc_server_options_default(fixture->world.address);
    struct rpc_server *second = NULL;
    assert_int_equal(rpc_server_create(fixture->world.server_rpc, &options, &second), ERR_OK);
    assert_int_equal(rpc_server_add_unary(second, "/t.T/Echo", handle_echo, NULL), ERR_OK);
    assert_int_equal(rpc_server_start(second), ERR_EXISTS);
    assert_int_equal(rpc_server_port(second), 0);
    rpc_server_destroy(fixture->world.server);
    fixture->world.server = NULL;
    assert_int_equal(rpc_server_start(second),
                     ERR_OK); /* free now: the same server may try again */
    struct buf reply;
    buf_init(&reply);
    struct rpc_channel *channel = NULL;
    assert_int_equal(
        rpc_channel_create(fixture->world.client_rpc, fixture->world.address, &channel), ERR_OK);
    assert_int_equal(call_text(channel, "/t.T/Echo", "hi", &reply, NULL, 0), ERR_OK);
    rpc_channel_destroy(channel);
    rpc_server_destroy(second);
    buf_deinit(&reply);
}

static void test_address_of_a_plain_socket_is_exists(void **state)
{
    struct fixture *fixture = *state;
    char address[64];
    int fd = socket_listen(address);
    struct rpc_server_options options = rpc_server_options_default(address);
    assert_int_equal(rpc_server_create(fixture->world.server_rpc, &options, &fixture->world.server),
                     ERR_OK);
    assert_int_equal(rpc_server_start(fixture->world.server), ERR_EXISTS);
    close(fd);
}

static void test_address_of_another_machine_is_invalid(void **state)
{
    struct fixture *fixture = *state;
    /* TEST-NET-1, RFC 5737: never an address of this machine. */
    struct rpc_server_options options = rpc_server_options_default("192.0.2.1:0");
    assert_int_equal(rpc_server_create(fixture->world.server_rpc, &options, &fixture->world.server),
                     ERR_OK);
    assert_int_equal(rpc_server_start(fixture->world.server), ERR_INVALID);
}

static void test_options_out_of_bounds_are_invalid(void **state)
{
    struct fixture *fixture = *state;
    struct rpc_server *server = NULL;
    struct rpc_server_options options = rpc_server_options_default("nonsense");
    assert_int_equal(rpc_server_create(fixture->world.server_rpc, &options, &server), ERR_INVALID);
    options = rpc_server_options_default("127.0.0.1:0");
    options.slots_per_method = 0;
    assert_int_equal(rpc_server_create(fixture->world.server_rpc, &options, &server), ERR_INVALID);
    options = rpc_server_options_default("127.0.0.1:0");
    options.calls_max = 0;
    assert_int_equal(rpc_server_create(fixture->world.server_rpc, &options, &server), ERR_INVALID);
    assert_null(server);
    struct rpc *rpc = NULL;
    struct rpc_options bad = rpc_options_default();
    bad.queue_count = 0;
    assert_int_equal(rpc_create(&bad, &rpc), ERR_INVALID);
    bad.queue_count = 17;
    assert_int_equal(rpc_create(&bad, &rpc), ERR_INVALID);
    assert_null(rpc);
}

static void test_methods_bad_or_twice_are_refused(void **state)
{
    struct fixture *fixture = *state;
    world_server(&fixture->world);
    struct rpc_server *server = fixture->world.server;
    assert_int_equal(rpc_server_add_unary(server, "/a.B/C", handle_echo, NULL), ERR_OK);
    assert_int_equal(rpc_server_add_unary(server, "/a.B/C", handle_echo, NULL), ERR_EXISTS);
    assert_int_equal(rpc_server_add_unary(server, "a.B/C", handle_echo, NULL), ERR_INVALID);
    assert_int_equal(rpc_server_add_unary(server, "/a.B", handle_echo, NULL), ERR_INVALID);
}

static void test_server_never_started_is_destroyed(void **state)
{
    struct fixture *fixture = *state;
    world_server(&fixture->world);
}

static void test_shutdown_with_grace_lets_the_call_finish(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    outcome_init(&outcome);
    serve(fixture);
    hold_start(fixture, &outcome);
    shutdown_start(fixture, (uint64_t)WORLD_WAIT_S * NS_PER_S);

    /* Meanwhile nobody else gets in: refused as not executed, or not even connected. */
    struct buf reply;
    buf_init(&reply);
    int error = ERR_OK;
    uint64_t until = soon_ns();
    while (error == ERR_OK && now_ns() < until) { /* until the shutdown has begun */
        buf_clear(&reply);
        error = call_text(fixture->world.channel, "/t.T/Echo", "x", &reply, NULL, 0);
    }
    assert_true(error == ERR_SHUTDOWN || error == ERR_UNAVAILABLE);
    assert_false(atomic_load(&fixture->down));
    assert_int_equal(gate_count(&outcome.done), 0);

    struct buf answer;
    buf_of_text(&answer, "in time");
    rpc_call_reply(atomic_load(&fixture->call), &answer);
    gate_wait(&outcome.done, 1);
    assert_int_equal(outcome.error, ERR_OK);
    assert_int_equal(outcome.reply.size, 7);
    pthread_join(fixture->thread, NULL);
    buf_deinit(&reply);
    outcome_deinit(&outcome);
}

static void block_start(struct fixture *fixture, struct outcome *outcome)
{
    call_start(fixture->world.channel, "/t.T/Block", soon_ns(), outcome);
}

static bool nobody_listens(void *context)
{
    struct fixture *fixture = context;
    struct sockaddr_in name = {.sin_family = AF_INET,
                               .sin_port = htons(rpc_server_port(fixture->world.server))};
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool refused = connect(fd, (struct sockaddr *)&name, sizeof(name)) != 0;
    close(fd);
    return refused;
}

/* Of calls that come at once one holds up the others until the shutdown has begun. Gives how many
 * were refused as not executed; those that had not even been read are told otherwise. */
static int refused_in_shutdown(struct fixture *fixture)
{
    enum { CALLS = 8 };
    struct outcome first;
    struct outcome outcomes[CALLS];
    outcome_init(&first);
    serve(fixture);
    block_start(fixture, &first);
    gate_wait(&fixture->entered, 1);
    for (int i = 0; i < CALLS; i++) { /* they wait in the socket, to be read together */
        outcome_init(&outcomes[i]);
        block_start(fixture, &outcomes[i]);
    }
    gate_pass(&fixture->let_go);
    gate_wait(&fixture->entered, BLOCKED);
    shutdown_start(fixture, (uint64_t)WORLD_WAIT_S * NS_PER_S);
    wait_for(nobody_listens, fixture);
    gate_pass(&fixture->let_go);
    int executed = 0;
    int refused = 0;
    for (int i = 0; i < CALLS; i++) {
        gate_wait(&outcomes[i].done, 1);
        executed += outcomes[i].error == ERR_OK;
        refused += outcomes[i].error == ERR_SHUTDOWN;
        outcome_deinit(&outcomes[i]);
    }
    gate_wait(&first.done, 1);
    assert_int_equal(first.error, ERR_OK);
    outcome_deinit(&first);
    pthread_join(fixture->thread, NULL);
    assert_int_equal(executed, 1);
    assert_int_equal(gate_count(&fixture->entered), BLOCKED);
    return refused;
}

static void test_shutdown_refuses_what_has_not_begun_as_not_executed(void **state)
{
    struct fixture *fixture = *state;
    int refused = refused_in_shutdown(fixture);
    for (int tries = 1; refused == 0 && tries < 20; tries++) { /* were they read together? */
        world_deinit(&fixture->world);
        world_init(&fixture->world, 1, NULL);
        gate_reset(&fixture->entered, 0);
        gate_reset(&fixture->let_go, 0);
        refused = refused_in_shutdown(fixture);
    }
    assert_true(refused > 0);
}

static bool call_cancelled(void *context)
{
    struct fixture *fixture = context;
    return rpc_call_is_cancelled(atomic_load(&fixture->call));
}

static void test_shutdown_after_grace_cancels_and_waits_for_the_owner(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    outcome_init(&outcome);
    serve(fixture);
    hold_start(fixture, &outcome);
    shutdown_start(fixture, 50 * NS_PER_MS);
    gate_wait(&outcome.done, 1);
    assert_int_equal(outcome.error, ERR_UNAVAILABLE);
    wait_for(call_cancelled, fixture);
    uint64_t until = now_ns() + 200 * NS_PER_MS; /* time to be down in, if it would be */
    while (now_ns() < until) {
        assert_false(atomic_load(&fixture->down)); /* the owner has not answered yet */
        sched_yield();
    }
    rpc_call_fail(atomic_load(&fixture->call), ERR_SHUTDOWN, NULL);
    pthread_join(fixture->thread, NULL);
    assert_true(atomic_load(&fixture->down));
    rpc_server_shutdown(fixture->world.server, 0); /* again: nothing to do */
    outcome_deinit(&outcome);
}

static void test_server_again_on_the_same_address_is_found(void **state)
{
    struct fixture *fixture = *state;
    struct buf reply;
    buf_init(&reply);
    serve(fixture);
    char address[64];
    snprintf(address, sizeof(address), "%s", fixture->world.address);
    for (int round = 0; round < 3; round++) {
        rpc_server_destroy(fixture->world.server);
        fixture->world.server = NULL;
        assert_int_equal(call_text(fixture->world.channel, "/t.T/Echo", "x", &reply, NULL, 0),
                         ERR_UNAVAILABLE);
        struct rpc_server_options options = rpc_server_options_default(address);
        assert_int_equal(
            rpc_server_create(fixture->world.server_rpc, &options, &fixture->world.server), ERR_OK);
        assert_int_equal(
            rpc_server_add_unary(fixture->world.server, "/t.T/Echo", handle_echo, NULL), ERR_OK);
        assert_int_equal(rpc_server_start(fixture->world.server), ERR_OK);
        int error = ERR_UNAVAILABLE;
        uint64_t until = soon_ns();
        while (error != ERR_OK && now_ns() < until) {
            buf_clear(&reply);
            error = call_text(fixture->world.channel, "/t.T/Echo", "x", &reply, NULL, 0);
            assert_true(error == ERR_OK || error == ERR_UNAVAILABLE);
        }
        assert_int_equal(error, ERR_OK);
    }
    buf_deinit(&reply);
}

static void test_process_parts_made_and_destroyed_many_times(void **state)
{
    (void)state;
    struct buf reply;
    buf_init(&reply);
    for (uint32_t round = 0; round < 10; round++) {
        struct world world;
        world_init(&world, 1 + round % 3, NULL);
        world_server(&world);
        assert_int_equal(rpc_server_add_unary(world.server, "/t.T/Echo", handle_echo, NULL), 0);
        world_start(&world);
        buf_clear(&reply);
        assert_int_equal(call_text(world.channel, "/t.T/Echo", "abc", &reply, NULL, 0), ERR_OK);
        assert_int_equal(reply.size, 3);
        world_deinit(&world);
    }
    buf_deinit(&reply);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_address_in_use_is_exists),
        TEST(test_address_of_a_plain_socket_is_exists),
        TEST(test_address_of_another_machine_is_invalid),
        TEST(test_options_out_of_bounds_are_invalid),
        TEST(test_methods_bad_or_twice_are_refused),
        TEST(test_server_never_started_is_destroyed),
        TEST(test_shutdown_with_grace_lets_the_call_finish),
        TEST(test_shutdown_refuses_what_has_not_begun_as_not_executed),
        TEST(test_shutdown_after_grace_cancels_and_waits_for_the_owner),
        TEST(test_server_again_on_the_same_address_is_found),
        cmocka_unit_test(test_process_parts_made_and_destroyed_many_times),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
