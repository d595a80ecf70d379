/* Unary calls: results, deadlines, cancelling, refusals, sizes, and what callbacks may do.
 * (test_rpc_channel.c has the peers that cannot be reached.) */
#include "rpc/world.h"
#include <stdatomic.h>
#include <stdlib.h>

/* Keeps calls unanswered until told. */
struct holder {
    struct gate arrived;
    struct rpc_call *calls[64];
    _Atomic uint64_t deadline_ns;
};

static void handle_hold(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    (void)request;
    (void)owner;
    struct holder *holder = context;
    pthread_mutex_lock(&holder->arrived.lock);
    assert_in_range(holder->arrived.count, 0, 63);
    holder->calls[holder->arrived.count] = call;
    pthread_mutex_unlock(&holder->arrived.lock);
    atomic_store(&holder->deadline_ns, rpc_call_deadline_ns(call));
    gate_pass(&holder->arrived);
}

static void holder_answer(struct holder *holder)
{
    uint64_t count = gate_count(&holder->arrived);
    for (uint64_t i = 0; i < count; i++) {
        struct rpc_call *call = holder->calls[i];
        if (call != NULL) {
            struct buf reply;
            buf_of_text(&reply, "late");
            holder->calls[i] = NULL;
            rpc_call_reply(call, &reply);
        }
    }
}

static void handle_fail(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    (void)context;
    (void)owner;
    int code = request.data[0];
    rpc_call_fail(call, err_from_wire((unsigned)code), "told so");
}

static void handle_large_reply(void *context, struct rpc_call *call, struct bytes request,
                               struct blob *owner)
{
    (void)context;
    (void)request;
    (void)owner;
    struct buf reply;
    buf_of_pattern(&reply, (size_t)RPC_MESSAGE_BYTES_MAX + 1, 0);
    rpc_call_reply(call, &reply);
    assert_null(reply.data);
}

static void handle_peer(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    (void)context;
    (void)request;
    (void)owner;
    struct buf reply;
    buf_of_text(&reply, rpc_call_peer(call));
    assert_ptr_equal(rpc_call_peer(call), rpc_call_peer(call));
    rpc_call_reply(call, &reply);
}

struct fixture {
    struct world world;
    struct holder holder;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    struct world *world = &fixture->world;
    gate_init(&fixture->holder.arrived);
    world_init(world, 2, NULL);
    world->options.calls_max = 8;
    world_server(world);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Echo", handle_echo, NULL), 0);
    assert_int_equal(
        rpc_server_add_unary(world->server, "/t.T/Hold", handle_hold, &fixture->holder), 0);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Fail", handle_fail, NULL), 0);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Large", handle_large_reply, NULL),
                     0);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Peer", handle_peer, NULL), 0);
    world_start(world);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    holder_answer(&fixture->holder); /* what a failed test left; the server waits for it */
    world_deinit(&fixture->world);
    gate_deinit(&fixture->holder.arrived);
    free(fixture);
    return 0;
}

static void test_call_of_any_size_is_echoed(void **state)
{
    struct fixture *fixture = *state;
    const size_t sizes[] = {
        0, 1, 22, 23, 24, 25, 8191, 8192, 8193, 16384, 65536, 1u << 20, RPC_MESSAGE_BYTES_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        call_pattern(fixture->world.channel, sizes[i]);
    }
}

static void test_call_too_large_is_refused_and_kept(void **state)
{
    struct fixture *fixture = *state;
    struct buf request;
    buf_of_pattern(&request, (size_t)RPC_MESSAGE_BYTES_MAX + 1, 1);
    int error = rpc_call_start(fixture->world.channel, "/t.T/Echo", &request, soon_ns(),
                               outcome_done, NULL, NULL);
    assert_int_equal(error, ERR_TOO_LARGE);
    assert_int_equal(request.size, (size_t)RPC_MESSAGE_BYTES_MAX + 1);
    buf_deinit(&request);
}

static void test_reply_too_large_is_an_error_of_unknown_outcome(void **state)
{
    struct fixture *fixture = *state;
    struct buf reply;
    buf_init(&reply);
    char text[64];
    int error = call_text(fixture->world.channel, "/t.T/Large", "x", &reply, text, sizeof(text));
    assert_int_equal(error, ERR_IO);
    assert_int_equal(err_outcome(error), OUTCOME_UNKNOWN);
    assert_int_equal(reply.size, 0);
}

static void test_every_error_of_the_table_travels_exactly(void **state)
{
    struct fixture *fixture = *state;
    const int errors[] = {
#define X(name, number, outcome, text) ERR_##name,
        ERROR_TABLE(X)
#undef X
    };
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct buf request;
        struct buf reply;
        char text[64];
        uint8_t code = (uint8_t)err_to_wire(errors[i]);
        buf_init(&request);
        buf_init(&reply);
        buf_append(&request, &code, 1);
        int error = rpc_call_wait(fixture->world.channel, "/t.T/Fail", &request, soon_ns(), &reply,
                                  text, sizeof(text));
        assert_int_equal(error, errors[i]);
        assert_string_equal(text, "told so");
    }
}

static void test_method_unknown_is_unsupported(void **state)
{
    struct fixture *fixture = *state;
    struct buf reply;
    buf_init(&reply);
    for (int i = 0; i < 20; i++) { /* more than the slots for it */
        assert_int_equal(call_text(fixture->world.channel, "/t.T/None", "x", &reply, NULL, 0),
                         ERR_UNSUPPORTED);
    }
}

static void test_peer_is_named(void **state)
{
    struct fixture *fixture = *state;
    struct buf reply;
    buf_init(&reply);
    assert_int_equal(call_text(fixture->world.channel, "/t.T/Peer", "x", &reply, NULL, 0), ERR_OK);
    assert_true(bytes_has_prefix(buf_view(&reply), bytes_of_string("ipv4:127.0.0.1:")));
    buf_deinit(&reply);
}

static bool first_is_cancelled(void *context)
{
    struct holder *holder = context;
    return rpc_call_is_cancelled(holder->calls[0]);
}

static void test_deadline_passed_is_timeout_and_seen_by_the_server(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    outcome_init(&outcome);
    uint64_t deadline = now_ns() + 300 * NS_PER_MS;
    call_start(fixture->world.channel, "/t.T/Hold", deadline, &outcome);
    gate_wait(&fixture->holder.arrived, 1);
    gate_wait(&outcome.done, 1);
    assert_in_range(now_ns(), deadline - 2 * NS_PER_MS, UINT64_MAX); /* the core counts in ms */
    assert_int_equal(outcome.error, ERR_TIMEOUT);
    assert_false(outcome.not_sent);
    /* The deadline travels as a duration: the server's is a little later, never by much. */
    assert_in_range(atomic_load(&fixture->holder.deadline_ns), deadline - 50 * NS_PER_MS,
                    deadline + 5 * NS_PER_S);
    wait_for(first_is_cancelled, &fixture->holder);
    holder_answer(&fixture->holder);
    assert_int_equal(gate_count(&outcome.done), 1);
    outcome_deinit(&outcome);
}

static void test_deadline_in_the_past_is_timeout(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    outcome_init(&outcome);
    call_start(fixture->world.channel, "/t.T/Echo", 1, &outcome);
    gate_wait(&outcome.done, 1);
    assert_int_equal(outcome.error, ERR_TIMEOUT);
    outcome_deinit(&outcome);
}

static void test_deadline_never_is_told_as_never(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    outcome_init(&outcome);
    call_start(fixture->world.channel, "/t.T/Hold", UINT64_MAX, &outcome);
    gate_wait(&fixture->holder.arrived, 1);
    assert_true(atomic_load(&fixture->holder.deadline_ns) == UINT64_MAX);
    assert_false(rpc_call_is_cancelled(fixture->holder.calls[0]));
    holder_answer(&fixture->holder);
    gate_wait(&outcome.done, 1);
    assert_int_equal(outcome.error, ERR_OK);
    assert_memory_equal(outcome.reply.data, "late", 4);
    outcome_deinit(&outcome);
}

static void test_cancel_ends_the_call_once_and_is_seen_by_the_server(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    struct buf request;
    struct rpc_request *handle = NULL;
    outcome_init(&outcome);
    buf_of_text(&request, "x");
    assert_int_equal(rpc_call_start(fixture->world.channel, "/t.T/Hold", &request, soon_ns(),
                                    outcome_done, &outcome, &handle),
                     ERR_OK);
    gate_wait(&fixture->holder.arrived, 1);
    rpc_request_cancel(handle);
    gate_wait(&outcome.done, 1);
    assert_int_equal(outcome.error, ERR_CANCELED);
    assert_false(outcome.not_sent);
    rpc_request_cancel(handle); /* after the end: nothing */
    rpc_request_unref(handle);
    wait_for(first_is_cancelled, &fixture->holder);
    holder_answer(&fixture->holder);
    assert_int_equal(gate_count(&outcome.done), 1);
    outcome_deinit(&outcome);
}

static void test_server_gone_in_flight_is_unavailable_and_maybe_sent(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    outcome_init(&outcome);
    call_start(fixture->world.channel, "/t.T/Hold", soon_ns(), &outcome);
    gate_wait(&fixture->holder.arrived, 1);
    /* The handler's owner answers only after the caller was cut off. */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, (void *(*)(void *))(uintptr_t)rpc_server_destroy,
                                    fixture->world.server),
                     0);
    gate_wait(&outcome.done, 1);
    assert_int_equal(outcome.error, ERR_UNAVAILABLE);
    assert_false(outcome.not_sent);
    holder_answer(&fixture->holder);
    pthread_join(thread, NULL);
    fixture->world.server = NULL;
    outcome_deinit(&outcome);
}

static void test_calls_over_the_bound_are_busy_and_not_executed(void **state)
{
    struct fixture *fixture = *state;
    struct outcome held;
    struct outcome busy;
    outcome_init(&held);
    outcome_init(&busy);
    for (int i = 0; i < 8; i++) {
        call_start(fixture->world.channel, "/t.T/Hold", soon_ns(), &held);
    }
    gate_wait(&fixture->holder.arrived, 8);
    call_start(fixture->world.channel, "/t.T/Hold", soon_ns(), &busy);
    gate_wait(&busy.done, 1);
    assert_int_equal(busy.error, ERR_BUSY);
    assert_int_equal(gate_count(&fixture->holder.arrived), 8);
    holder_answer(&fixture->holder);
    gate_wait(&held.done, 8);
    assert_int_equal(held.error, ERR_OK);
    call_pattern(fixture->world.channel, 10); /* and there is room again */
    outcome_deinit(&held);
    outcome_deinit(&busy);
}

static void test_channel_destroyed_cancels_its_calls(void **state)
{
    struct fixture *fixture = *state;
    struct outcome outcome;
    outcome_init(&outcome);
    for (int i = 0; i < 5; i++) {
        call_start(fixture->world.channel, "/t.T/Hold", soon_ns(), &outcome);
    }
    gate_wait(&fixture->holder.arrived, 5);
    rpc_channel_destroy(fixture->world.channel);
    fixture->world.channel = NULL;
    gate_wait(&outcome.done, 5);
    assert_int_equal(outcome.error, ERR_CANCELED);
    holder_answer(&fixture->holder);
    outcome_deinit(&outcome);
}

struct chain {
    struct world *world;
    struct gate done;
    int left;
};

static void chain_next(void *context, const struct rpc_result *result)
{
    struct chain *chain = context;
    assert_int_equal(result->error, ERR_OK);
    if (chain->left == 0) {
        gate_pass(&chain->done);
        return;
    }
    chain->left--;
    struct buf request;
    buf_of_text(&request, "again");
    int error = rpc_call_start(chain->world->channel, "/t.T/Echo", &request, soon_ns(), chain_next,
                               chain, NULL);
    assert_int_equal(error, ERR_OK);
}

static void test_call_from_a_callback_works(void **state)
{
    struct fixture *fixture = *state;
    struct chain chain = {.world = &fixture->world, .left = 200};
    struct rpc_result begin = {.error = ERR_OK};
    gate_init(&chain.done);
    chain_next(&chain, &begin);
    gate_wait(&chain.done, 1);
    gate_deinit(&chain.done);
}

struct destroyer {
    struct gate done;
    struct rpc_channel *channel;
};

static void destroy_channel(void *context, const struct rpc_result *result)
{
    struct destroyer *destroyer = context;
    assert_int_equal(result->error, ERR_OK);
    rpc_channel_destroy(destroyer->channel);
    assert_int_equal(result->reply.size, 4);
    gate_pass(&destroyer->done);
}

static void test_channel_destroyed_from_its_own_callback(void **state)
{
    struct fixture *fixture = *state;
    struct destroyer destroyer = {.channel = fixture->world.channel};
    struct buf request;
    gate_init(&destroyer.done);
    buf_of_text(&request, "last");
    fixture->world.channel = NULL;
    assert_int_equal(rpc_call_start(destroyer.channel, "/t.T/Echo", &request, soon_ns(),
                                    destroy_channel, &destroyer, NULL),
                     ERR_OK);
    gate_wait(&destroyer.done, 1);
    gate_deinit(&destroyer.done);
}

struct keeper {
    struct gate done;
    struct blob *kept;
};

static void keep_reply(void *context, const struct rpc_result *result)
{
    struct keeper *keeper = context;
    keeper->kept = blob_ref(result->owner);
    gate_pass(&keeper->done);
}

static void test_reply_bytes_outlive_the_callback_with_a_reference(void **state)
{
    struct fixture *fixture = *state;
    const size_t sizes[] = {100, 10000, 100000};
    for (size_t i = 0; i < 3; i++) {
        struct keeper keeper = {.kept = NULL};
        struct buf request;
        gate_init(&keeper.done);
        buf_of_pattern(&request, sizes[i], 3);
        assert_int_equal(rpc_call_start(fixture->world.channel, "/t.T/Echo", &request, soon_ns(),
                                        keep_reply, &keeper, NULL),
                         ERR_OK);
        gate_wait(&keeper.done, 1);
        call_pattern(fixture->world.channel, 50000); /* other traffic over the same connection */
        assert_true(is_pattern(blob_view(keeper.kept), sizes[i], 3));
        blob_unref(keeper.kept);
        gate_deinit(&keeper.done);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_call_of_any_size_is_echoed),
        TEST(test_call_too_large_is_refused_and_kept),
        TEST(test_reply_too_large_is_an_error_of_unknown_outcome),
        TEST(test_every_error_of_the_table_travels_exactly),
        TEST(test_method_unknown_is_unsupported),
        TEST(test_peer_is_named),
        TEST(test_deadline_passed_is_timeout_and_seen_by_the_server),
        TEST(test_deadline_in_the_past_is_timeout),
        TEST(test_deadline_never_is_told_as_never),
        TEST(test_cancel_ends_the_call_once_and_is_seen_by_the_server),
        TEST(test_server_gone_in_flight_is_unavailable_and_maybe_sent),
        TEST(test_calls_over_the_bound_are_busy_and_not_executed),
        TEST(test_channel_destroyed_cancels_its_calls),
        TEST(test_call_from_a_callback_works),
        TEST(test_channel_destroyed_from_its_own_callback),
        TEST(test_reply_bytes_outlive_the_callback_with_a_reference),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
