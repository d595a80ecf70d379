/* Answers that a client does not read: bounded for all streams of a server together, at the cost of
 * who holds the most. */
#include "rpc/world.h"
#include <stdatomic.h>
#include <stdlib.h>

enum { MESSAGE_BYTES = 64 * 1024, ANSWER_BYTES_MAX = 2 * 1024 * 1024, STREAMS_MAX = 3 };

struct side {
    struct gate opened;
    struct gate messages;
    struct gate closed;
    _Atomic(struct rpc_stream *) stream;
    _Atomic int error;
    _Atomic bool reads;
};

/* Both ends of a reader's and of a sleeper's stream; the server's are told apart by the order in
 * which they were opened. */
struct fixture {
    struct world world;
    struct side server[STREAMS_MAX + 1];
    struct side client[STREAMS_MAX + 1];
    uint32_t opened_count; /* the server's queue thread */
    struct gate held;      /* the server's queue thread stands still .. */
    struct gate let_go;    /* .. until this */
};

static int on_opened(void *context, struct rpc_stream *stream)
{
    struct fixture *fixture = context;
    struct side *side = &fixture->server[fixture->opened_count++];
    rpc_stream_set_user(stream, side);
    atomic_store(&side->stream, rpc_stream_ref(stream));
    gate_pass(&side->opened);
    return ERR_OK;
}

static bool on_message(void *context, struct rpc_stream *stream, struct bytes message,
                       struct blob *owner)
{
    (void)context;
    (void)stream;
    (void)message;
    (void)owner;
    return true;
}

static void on_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)context;
    (void)text;
    struct side *side = rpc_stream_user(stream);
    atomic_store(&side->error, error);
    gate_pass(&side->closed);
}

static void on_hold(void *context, struct rpc_call *call, struct bytes request, struct blob *owner)
{
    struct fixture *fixture = context;
    (void)request;
    (void)owner;
    gate_pass(&fixture->held);
    gate_wait(&fixture->let_go, 1);
    struct buf reply;
    buf_of_text(&reply, "held");
    rpc_call_reply(call, &reply);
}

static bool on_answer(void *context, struct rpc_stream *stream, struct bytes message,
                      struct blob *owner)
{
    (void)stream;
    (void)message;
    (void)owner;
    struct side *side = context;
    gate_pass(&side->messages);
    return atomic_load(&side->reads);
}

static void on_end(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)stream;
    (void)text;
    struct side *side = context;
    atomic_store(&side->error, error);
    gate_pass(&side->closed);
}

static const struct rpc_stream_events server_events = {
    .opened = on_opened, .message = on_message, .closed = on_closed};
static const struct rpc_stream_events client_events = {.message = on_answer, .closed = on_end};

static void side_init(struct side *side)
{
    gate_init(&side->opened);
    gate_init(&side->messages);
    gate_init(&side->closed);
}

static void side_deinit(struct side *side)
{
    rpc_stream_unref(atomic_load(&side->stream));
    gate_deinit(&side->opened);
    gate_deinit(&side->messages);
    gate_deinit(&side->closed);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    for (int i = 0; i <= STREAMS_MAX; i++) {
        side_init(&fixture->server[i]);
        side_init(&fixture->client[i]);
    }
    gate_init(&fixture->held);
    gate_init(&fixture->let_go);
    struct world *world = &fixture->world;
    world_init(world, 1, NULL);
    world->options.answer_bytes_max = ANSWER_BYTES_MAX;
    world->options.streams_max = STREAMS_MAX;
    world_server(world);
    assert_int_equal(rpc_server_add_stream(world->server, "/t.T/A", &server_events, fixture), 0);
    assert_int_equal(rpc_server_add_stream(world->server, "/t.T/B", &server_events, fixture), 0);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Hold", on_hold, fixture), 0);
    world_start(world);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    struct world *world = &fixture->world;
    rpc_channel_destroy(world->channel); /* cancels; the sides live until that is through */
    world->channel = NULL;
    for (int i = 0; i <= STREAMS_MAX; i++) {
        if (atomic_load(&fixture->client[i].stream) != NULL) {
            gate_wait(&fixture->client[i].closed, 1);
        }
    }
    world_deinit(world);
    for (int i = 0; i <= STREAMS_MAX; i++) {
        side_deinit(&fixture->server[i]);
        side_deinit(&fixture->client[i]);
    }
    gate_deinit(&fixture->held);
    gate_deinit(&fixture->let_go);
    free(fixture);
    return 0;
}

static void client_open(struct fixture *fixture, uint32_t place, const char *method, bool reads)
{
    struct side *side = &fixture->client[place];
    struct rpc_stream *stream = NULL;
    atomic_store(&side->reads, reads);
    assert_int_equal(
        rpc_stream_open(fixture->world.channel, method, &client_events, side, 1000, &stream), 0);
    atomic_store(&side->stream, stream);
}

enum { READER, SLEEPER };

static void open_reader_and_sleeper(struct fixture *fixture)
{
    client_open(fixture, READER, "/t.T/A", true);
    gate_wait(&fixture->server[READER].opened, 1);
    client_open(fixture, SLEEPER, "/t.T/A", false);
    gate_wait(&fixture->server[SLEEPER].opened, 1);
}

static int answer(struct side *side)
{
    struct buf message;
    buf_of_pattern(&message, MESSAGE_BYTES, 1);
    int error = rpc_stream_send(atomic_load(&side->stream), &message);
    buf_deinit(&message);
    return error;
}

static void test_answers_not_read_end_the_stream_that_holds_the_most(void **state)
{
    enum { ANSWERS_MAX = 1000 };
    struct fixture *fixture = *state;
    open_reader_and_sleeper(fixture);

    uint32_t sent = 0;
    while (sent < ANSWERS_MAX && answer(&fixture->server[SLEEPER]) == ERR_OK) {
        sent++;
        /* The reader gets as much, one at a time. */
        assert_int_equal(answer(&fixture->server[READER]), ERR_OK);
        gate_wait(&fixture->client[READER].messages, sent);
    }
    /* It was let go on up to the bound, and not far beyond: the core's windows take some. */
    assert_in_range(sent, ANSWER_BYTES_MAX / MESSAGE_BYTES - 1, ANSWERS_MAX - 1);
    gate_wait(&fixture->server[SLEEPER].closed, 1);
    assert_int_equal(atomic_load(&fixture->server[SLEEPER].error), ERR_CANCELED);
    atomic_store(&fixture->client[SLEEPER].reads, true);
    rpc_stream_resume(atomic_load(&fixture->client[SLEEPER].stream));

    for (uint32_t i = 0; i < 2 * ANSWER_BYTES_MAX / MESSAGE_BYTES; i++) {
        sent++;
        assert_int_equal(answer(&fixture->server[READER]), ERR_OK);
        gate_wait(&fixture->client[READER].messages, sent);
    }
    assert_int_equal(gate_count(&fixture->server[READER].closed), 0);
}

/* The bytes of who was cancelled are there until its thread comes to it. They are not held against
 * the others meanwhile. */
static void test_answers_of_who_was_cancelled_count_no_more(void **state)
{
    enum { ANSWERS_MAX = 1000 };
    struct fixture *fixture = *state;
    open_reader_and_sleeper(fixture);
    struct outcome outcome;
    outcome_init(&outcome);
    call_start(fixture->world.channel, "/t.T/Hold", soon_ns(), &outcome);
    gate_wait(&fixture->held, 1);

    uint32_t sent = 0;
    while (sent < ANSWERS_MAX && answer(&fixture->server[SLEEPER]) == ERR_OK) {
        sent++;
    }
    assert_in_range(sent, 1, ANSWERS_MAX - 1);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(answer(&fixture->server[READER]), ERR_OK);
    }
    gate_pass(&fixture->let_go);
    gate_wait(&fixture->client[READER].messages, 3);
    gate_wait(&fixture->server[SLEEPER].closed, 1);
    gate_wait(&outcome.done, 1);
    outcome_deinit(&outcome);
    assert_int_equal(gate_count(&fixture->server[READER].closed), 0);
}

static void test_streams_of_one_method_leave_room_for_those_of_another(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 0; i < STREAMS_MAX; i++) {
        client_open(fixture, i, "/t.T/A", true);
        gate_wait(&fixture->server[i].opened, 1);
    }
    client_open(fixture, STREAMS_MAX, "/t.T/B", true);
    gate_wait(&fixture->server[STREAMS_MAX].opened, 1);
}

static void test_one_stream_more_of_a_method_is_refused(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t i = 0; i < STREAMS_MAX; i++) {
        client_open(fixture, i, "/t.T/A", true);
        gate_wait(&fixture->server[i].opened, 1);
    }
    client_open(fixture, STREAMS_MAX, "/t.T/A", true);
    gate_wait(&fixture->client[STREAMS_MAX].closed, 1);
    assert_int_equal(atomic_load(&fixture->client[STREAMS_MAX].error), ERR_BUSY);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_answers_not_read_end_the_stream_that_holds_the_most),
        TEST(test_answers_of_who_was_cancelled_count_no_more),
        TEST(test_streams_of_one_method_leave_room_for_those_of_another),
        TEST(test_one_stream_more_of_a_method_is_refused),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
