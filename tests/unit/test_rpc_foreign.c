/* Peers that are not this room: a client straight on the gRPC core that sends what ours never
 * would, and a network that stops carrying anything. */
#include "rpc/world.h"
#include <arpa/inet.h>
#include <errno.h>
#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct fixture {
    struct world world;
    struct gate opened;
    struct gate messages;
    struct gate closed;
    _Atomic int error;
};

static int on_opened(void *context, struct rpc_stream *stream)
{
    (void)stream;
    struct fixture *fixture = context;
    gate_pass(&fixture->opened);
    return ERR_OK;
}

static bool on_message(void *context, struct rpc_stream *stream, struct bytes message,
                       struct blob *owner)
{
    (void)stream;
    (void)message;
    (void)owner;
    struct fixture *fixture = context;
    gate_pass(&fixture->messages);
    return true;
}

static void on_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)stream;
    (void)text;
    struct fixture *fixture = context;
    atomic_store(&fixture->error, error);
    gate_pass(&fixture->closed);
}

static const struct rpc_stream_events events = {
    .opened = on_opened, .message = on_message, .closed = on_closed};

enum { LARGE_BYTES = 1024 * 1024, ANSWER_BYTES_MAX = 4 * LARGE_BYTES };

static void handle_large(void *context, struct rpc_call *call, struct bytes request,
                         struct blob *owner)
{
    (void)context;
    (void)request;
    (void)owner;
    struct buf reply;
    buf_of_pattern(&reply, LARGE_BYTES, 1);
    rpc_call_reply(call, &reply);
}

static int setup_with_keepalive(void **state, uint64_t keepalive_ns)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    gate_init(&fixture->opened);
    gate_init(&fixture->messages);
    gate_init(&fixture->closed);
    struct world *world = &fixture->world;
    struct rpc_options options = rpc_options_default();
    options.keepalive_ns = keepalive_ns;
    assert_int_equal(rpc_create(&options, &world->server_rpc), ERR_OK);
    assert_int_equal(rpc_create(&options, &world->client_rpc), ERR_OK);
    world->options = rpc_server_options_default("127.0.0.1:0");
    world->options.answer_bytes_max = ANSWER_BYTES_MAX;
    world_server(world);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Echo", handle_echo, NULL), 0);
    assert_int_equal(rpc_server_add_unary(world->server, "/t.T/Large", handle_large, NULL), 0);
    assert_int_equal(rpc_server_add_stream(world->server, "/t.T/Stream", &events, fixture), 0);
    world_start(world);
    *state = fixture;
    return 0;
}

static int setup(void **state)
{
    return setup_with_keepalive(state, rpc_options_default().keepalive_ns);
}

/* For whoever waits for a connection to be given up. On a busy machine it may be given up for
 * nothing. */
static int setup_impatient(void **state)
{
    return setup_with_keepalive(state, 2 * NS_PER_S);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    world_deinit(&fixture->world);
    gate_deinit(&fixture->opened);
    gate_deinit(&fixture->messages);
    gate_deinit(&fixture->closed);
    free(fixture);
    return 0;
}

/* --- a client on the bare core --- */

struct bare {
    const char *method;
    size_t size;     /* of the request; all zeroes */
    bool no_message; /* none at all */
    bool compressed;
};

static grpc_channel *bare_channel(const char *address)
{
    grpc_arg list[2];
    grpc_channel_args arguments = {2, list};
    list[0].type = GRPC_ARG_INTEGER;
    list[0].key = (char *)(uintptr_t)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL;
    list[0].value.integer = 1;
    list[1].type = GRPC_ARG_INTEGER;
    list[1].key = (char *)(uintptr_t)GRPC_ARG_HTTP2_BDP_PROBE;
    list[1].value.integer = 0; /* its windows stay as small as they begin */
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    grpc_channel *channel = grpc_channel_create(address, credentials, &arguments);
    grpc_channel_credentials_release(credentials);
    return channel;
}

static void queue_drain(grpc_completion_queue *queue)
{
    grpc_completion_queue_shutdown(queue);
    while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
           GRPC_QUEUE_SHUTDOWN) {
    }
    grpc_completion_queue_destroy(queue);
}

/* One call; the status it ends with. */
static grpc_status_code bare_call(struct fixture *fixture, const struct bare *bare)
{
    grpc_init();
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_channel *channel = bare_channel(fixture->world.address);
    grpc_call *call = grpc_channel_create_call(
        channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue, grpc_slice_from_static_string(bare->method),
        NULL, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(20, GPR_TIMESPAN)),
        NULL);
    grpc_metadata encoding = {
        .key = grpc_slice_from_static_string("grpc-internal-encoding-request"),
        .value = grpc_slice_from_static_string("gzip"),
    };
    grpc_slice slice = grpc_slice_malloc(bare->size);
    memset(GRPC_SLICE_START_PTR(slice), 0, bare->size);
    grpc_byte_buffer *request = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_metadata_array_init(&initial);
    grpc_metadata_array_init(&trailing);
    grpc_byte_buffer *reply = NULL;
    grpc_status_code status = GRPC_STATUS_OK;
    grpc_slice details = grpc_empty_slice();

    grpc_op ops[6] = {0};
    size_t count = 0;
    ops[count].data.send_initial_metadata.count = bare->compressed ? 1 : 0;
    ops[count].data.send_initial_metadata.metadata = &encoding;
    ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (!bare->no_message) {
        ops[count].data.send_message.send_message = request;
        ops[count++].op = GRPC_OP_SEND_MESSAGE;
    }
    ops[count++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[count].data.recv_initial_metadata.recv_initial_metadata = &initial;
    ops[count++].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[count].data.recv_message.recv_message = &reply;
    ops[count++].op = GRPC_OP_RECV_MESSAGE;
    ops[count].data.recv_status_on_client.trailing_metadata = &trailing;
    ops[count].data.recv_status_on_client.status = &status;
    ops[count].data.recv_status_on_client.status_details = &details;
    ops[count++].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    assert_int_equal(grpc_call_start_batch(call, ops, count, &status, NULL), GRPC_CALL_OK);
    grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    assert_int_equal(event.type, GRPC_OP_COMPLETE);

    grpc_byte_buffer_destroy(request);
    grpc_byte_buffer_destroy(reply);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_slice_unref(details);
    grpc_call_unref(call);
    grpc_channel_destroy(channel);
    queue_drain(queue);
    grpc_shutdown();
    return status;
}

static void server_still_serves(struct fixture *fixture)
{
    struct buf reply;
    buf_init(&reply);
    assert_int_equal(call_text(fixture->world.channel, "/t.T/Echo", "still here", &reply, NULL, 0),
                     ERR_OK);
    assert_int_equal(reply.size, 10);
    buf_deinit(&reply);
}

static void test_call_of_a_bare_client_is_answered(void **state)
{
    const struct bare bare = {.method = "/t.T/Echo", .size = 100000};
    assert_int_equal(bare_call(*state, &bare), GRPC_STATUS_OK);
}

static void test_call_without_a_message_is_malformed(void **state)
{
    const struct bare bare = {.method = "/t.T/Echo", .no_message = true};
    assert_int_equal(bare_call(*state, &bare), GRPC_STATUS_INVALID_ARGUMENT);
    server_still_serves(*state);
}

static void test_call_too_large_is_refused_by_the_server(void **state)
{
    const struct bare largest = {.method = "/t.T/Echo", .size = RPC_MESSAGE_BYTES_MAX + 1};
    assert_int_equal(bare_call(*state, &largest), GRPC_STATUS_RESOURCE_EXHAUSTED);
    server_still_serves(*state);
}

static void test_stream_message_too_large_ends_the_stream(void **state)
{
    struct fixture *fixture = *state;
    const struct bare bare = {.method = "/t.T/Stream", .size = RPC_MESSAGE_BYTES_MAX + 1};
    assert_int_not_equal(bare_call(fixture, &bare), GRPC_STATUS_OK);
    gate_wait(&fixture->closed, 1);
    assert_int_equal(gate_count(&fixture->messages), 0);
    server_still_serves(fixture);
}

static void test_call_compressed_is_unimplemented(void **state)
{
    const struct bare bare = {.method = "/t.T/Echo", .size = 1000000, .compressed = true};
    assert_int_equal(bare_call(*state, &bare), GRPC_STATUS_UNIMPLEMENTED);
    server_still_serves(*state);
}

static void test_stream_message_compressed_is_never_delivered(void **state)
{
    struct fixture *fixture = *state;
    const struct bare bare = {.method = "/t.T/Stream", .size = 1000000, .compressed = true};
    assert_int_not_equal(bare_call(fixture, &bare), GRPC_STATUS_OK);
    assert_int_equal(gate_count(&fixture->messages), 0);
    server_still_serves(fixture);
}

/* --- answers that nobody reads --- */

/* A call whose answer is asked for, and taken only when the test says so. */
struct unread {
    grpc_call *call;
    grpc_byte_buffer *request;
    grpc_byte_buffer *reply;
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_status_code status;
    grpc_slice details;
};

static void unread_start(struct unread *unread, grpc_channel *channel, grpc_completion_queue *queue,
                         const char *method)
{
    memset(unread, 0, sizeof(*unread));
    unread->call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue,
                                            grpc_slice_from_static_string(method), NULL,
                                            gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_slice slice = grpc_slice_from_static_string("much");
    unread->request = grpc_raw_byte_buffer_create(&slice, 1);
    unread->details = grpc_empty_slice();
    grpc_metadata_array_init(&unread->initial);
    grpc_metadata_array_init(&unread->trailing);
    grpc_op ops[5] = {0};
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = unread->request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &unread->initial;
    assert_int_equal(grpc_call_start_batch(unread->call, ops, 4, unread, NULL), GRPC_CALL_OK);
    grpc_op end = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    end.data.recv_status_on_client.trailing_metadata = &unread->trailing;
    end.data.recv_status_on_client.status = &unread->status;
    end.data.recv_status_on_client.status_details = &unread->details;
    assert_int_equal(grpc_call_start_batch(unread->call, &end, 1, &unread->status, NULL),
                     GRPC_CALL_OK);
}

static void unread_read(struct unread *unread)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &unread->reply;
    assert_int_equal(grpc_call_start_batch(unread->call, &op, 1, &unread->reply, NULL),
                     GRPC_CALL_OK);
}

static void unread_free(struct unread *unread)
{
    grpc_byte_buffer_destroy(unread->request);
    grpc_byte_buffer_destroy(unread->reply);
    grpc_metadata_array_destroy(&unread->initial);
    grpc_metadata_array_destroy(&unread->trailing);
    grpc_slice_unref(unread->details);
    grpc_call_unref(unread->call);
}

/* Until the event of this tag; others may come before it. */
static void event_wait(grpc_completion_queue *queue, const void *tag)
{
    gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                      gpr_time_from_seconds(WORLD_WAIT_S, GPR_TIMESPAN));
    grpc_event event;
    do {
        event = grpc_completion_queue_next(queue, until, NULL);
        assert_int_equal(event.type, GRPC_OP_COMPLETE);
    } while (event.tag != tag);
}

static void test_answers_of_calls_that_are_not_read_are_given_up_from_the_oldest(void **state)
{
    enum { KEPT = ANSWER_BYTES_MAX / LARGE_BYTES, CALLS = 2 * KEPT };
    struct fixture *fixture = *state;
    struct buf reply;
    buf_init(&reply);
    for (int i = 0; i < 2 * CALLS; i++) { /* who reads is not counted on */
        buf_clear(&reply);
        assert_int_equal(call_text(fixture->world.channel, "/t.T/Large", "x", &reply, NULL, 0),
                         ERR_OK);
        assert_true(is_pattern(buf_view(&reply), LARGE_BYTES, 1));
    }
    buf_deinit(&reply);

    grpc_init();
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_channel *channel = bare_channel(fixture->world.address);
    struct unread calls[CALLS];
    for (int i = 0; i < CALLS; i++) {
        unread_start(&calls[i], channel, queue, "/t.T/Large");
        event_wait(queue, &calls[i]); /* the answer is on its way */
    }
    /* Whatever else goes over the same connection proves that who had to go is told by now. */
    for (int i = 0; i < 20; i++) {
        struct unread other;
        unread_start(&other, channel, queue, "/t.T/Echo");
        unread_read(&other);
        event_wait(queue, &other.status);
        assert_int_equal(other.status, GRPC_STATUS_OK);
        unread_free(&other);
    }
    for (int i = 0; i < CALLS; i++) {
        unread_read(&calls[i]);
        event_wait(queue, &calls[i].status);
        if (i < CALLS - KEPT) {
            assert_int_not_equal(calls[i].status, GRPC_STATUS_OK);
        } else {
            assert_int_equal(calls[i].status, GRPC_STATUS_OK);
        }
    }
    server_still_serves(fixture);
    grpc_channel_destroy(channel);
    queue_drain(queue);
    for (int i = 0; i < CALLS; i++) {
        unread_free(&calls[i]);
    }
    grpc_shutdown();
}

/* --- a network that falls silent --- */

struct wire {
    int listener;
    int near;
    int far;
    _Atomic bool silent; /* takes nothing, gives nothing, closes nothing */
    _Atomic bool stop;
    pthread_t thread;
};

static void wire_carry(int from, int to)
{
    uint8_t bytes[4096];
    ssize_t count = recv(from, bytes, sizeof(bytes), MSG_DONTWAIT);
    for (ssize_t at = 0; at < count;) {
        ssize_t sent = send(to, bytes + at, (size_t)(count - at), MSG_NOSIGNAL);
        if (sent <= 0) {
            return;
        }
        at += sent;
    }
}

static void *wire_main(void *argument)
{
    struct wire *wire = argument;
    while (!atomic_load(&wire->stop)) {
        struct pollfd ends[2] = {{.fd = wire->near, .events = POLLIN},
                                 {.fd = wire->far, .events = POLLIN}};
        nfds_t count = atomic_load(&wire->silent) ? 0 : 2;
        if (poll(ends, count, 10) > 0) {
            wire_carry(wire->near, wire->far);
            wire_carry(wire->far, wire->near);
        }
    }
    return NULL;
}

static void *wire_accept(void *argument)
{
    struct wire *wire = argument;
    wire->near = accept(wire->listener, NULL, NULL);
    return wire_main(wire);
}

static void wire_start(struct wire *wire, uint16_t port, char address[64])
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port)};
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(wire, 0, sizeof(*wire));
    wire->listener = socket_listen(address);
    wire->far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(wire->far, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(pthread_create(&wire->thread, NULL, wire_accept, wire), 0);
}

static void wire_end(struct wire *wire)
{
    atomic_store(&wire->stop, true);
    pthread_join(wire->thread, NULL);
    close(wire->near);
    close(wire->far);
    close(wire->listener);
}

struct listener {
    struct gate closed;
    _Atomic int error;
};

static bool client_message(void *context, struct rpc_stream *stream, struct bytes message,
                           struct blob *owner)
{
    (void)context;
    (void)stream;
    (void)message;
    (void)owner;
    return true;
}

static void client_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)stream;
    (void)text;
    struct listener *listener = context;
    atomic_store(&listener->error, error);
    gate_pass(&listener->closed);
}

static void test_stream_over_a_silent_network_ends_on_both_sides(void **state)
{
    static const struct rpc_stream_events client_events = {.message = client_message,
                                                           .closed = client_closed};
    struct fixture *fixture = *state;
    struct wire wire;
    struct listener listener = {.error = ERR_OK};
    struct rpc_channel *channel = NULL;
    struct rpc_stream *stream = NULL;
    char address[64];
    gate_init(&listener.closed);
    wire_start(&wire, rpc_server_port(fixture->world.server), address);
    assert_int_equal(rpc_channel_create(fixture->world.client_rpc, address, &channel), ERR_OK);
    assert_int_equal(
        rpc_stream_open(channel, "/t.T/Stream", &client_events, &listener, 1000, &stream), ERR_OK);
    gate_wait(&fixture->opened, 1);
    struct buf message;
    buf_of_text(&message, "before");
    assert_int_equal(rpc_stream_send(stream, &message), ERR_OK);
    gate_wait(&fixture->messages, 1);

    atomic_store(&wire.silent, true);
    gate_wait(&listener.closed, 1);
    assert_int_equal(atomic_load(&listener.error), ERR_UNAVAILABLE);
    gate_wait(&fixture->closed, 1);
    assert_int_equal(atomic_load(&fixture->error), ERR_CANCELED);

    rpc_channel_destroy(channel);
    rpc_stream_unref(stream);
    wire_end(&wire);
    gate_deinit(&listener.closed);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_call_of_a_bare_client_is_answered),
        TEST(test_call_without_a_message_is_malformed),
        TEST(test_call_too_large_is_refused_by_the_server),
        TEST(test_stream_message_too_large_ends_the_stream),
        TEST(test_call_compressed_is_unimplemented),
        TEST(test_stream_message_compressed_is_never_delivered),
        TEST(test_answers_of_calls_that_are_not_read_are_given_up_from_the_oldest),
        cmocka_unit_test_setup_teardown(test_stream_over_a_silent_network_ends_on_both_sides,
                                        setup_impatient, teardown),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
