/* Streams: order, bursts, backpressure both ways, half-close, every way to end. */
#include "base/codec.h"
#include "rpc/world.h"
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One side of one stream, as the test sees it. */
struct side {
    struct gate opened;
    struct gate received;
    struct gate writable;
    struct gate closed;
    struct gate finished;
    _Atomic(struct rpc_stream *) stream; /* the server's, referenced */
    _Atomic int error;
    char text[RPC_ERROR_TEXT_BYTES_MAX];
    _Atomic uint64_t next; /* the number the next message must carry */
    _Atomic uint64_t disorder;
    _Atomic uint64_t after_close;
    _Atomic uint64_t bytes;
    _Atomic uint64_t pause_at;  /* `message` says false at this number */
    _Atomic bool resume_inside; /* and resumes before it returns */
    _Atomic int refuse;         /* what `opened` answers */
    _Atomic uint64_t greet;     /* messages sent from within `opened` */
    bool echo;
};

static void side_init(struct side *side)
{
    memset(side, 0, sizeof(*side));
    gate_init(&side->opened);
    gate_init(&side->received);
    gate_init(&side->writable);
    gate_init(&side->closed);
    gate_init(&side->finished);
    atomic_store(&side->pause_at, UINT64_MAX);
}

static void side_deinit(struct side *side)
{
    rpc_stream_unref(atomic_load(&side->stream));
    gate_deinit(&side->opened);
    gate_deinit(&side->received);
    gate_deinit(&side->writable);
    gate_deinit(&side->closed);
    gate_deinit(&side->finished);
}

/* A message is its number and `padding` further bytes. */
static int send_number(struct rpc_stream *stream, uint64_t number, size_t padding)
{
    struct buf message;
    buf_init(&message);
    put_u64(&message, number);
    memset(buf_reserve(&message, padding + 1), 'p', padding);
    message.size += padding;
    int error = rpc_stream_send(stream, &message);
    if (error != ERR_OK) {
        assert_non_null(message.data); /* nothing was taken */
    } else {
        assert_null(message.data);
    }
    buf_deinit(&message);
    return error;
}

static int on_opened(void *context, struct rpc_stream *stream)
{
    struct side *side = context;
    int refuse = atomic_load(&side->refuse);
    if (refuse != ERR_OK) {
        return refuse;
    }
    rpc_stream_set_user(stream, side);
    atomic_store(&side->stream, rpc_stream_ref(stream));
    uint64_t greet = atomic_load(&side->greet);
    for (uint64_t i = 0; i < greet; i++) {
        assert_int_equal(send_number(stream, i, 0), ERR_OK);
    }
    gate_pass(&side->opened);
    return ERR_OK;
}

static bool on_message(void *context, struct rpc_stream *stream, struct bytes message,
                       struct blob *owner)
{
    (void)owner;
    struct side *side = context;
    struct reader reader = reader_of(message);
    uint64_t number = get_u64(&reader);
    if (reader.failed || number != atomic_load(&side->next)) {
        atomic_fetch_add(&side->disorder, 1);
    }
    if (gate_count(&side->closed) > 0) {
        atomic_fetch_add(&side->after_close, 1);
    }
    atomic_fetch_add(&side->next, 1);
    atomic_fetch_add(&side->bytes, message.size);
    if (side->echo) {
        assert_int_equal(send_number(stream, number, 0), ERR_OK);
    }
    bool more = number != atomic_load(&side->pause_at);
    if (!more && atomic_load(&side->resume_inside)) {
        rpc_stream_resume(stream);
    }
    gate_pass(&side->received);
    return more;
}

static void on_writable(void *context, struct rpc_stream *stream)
{
    (void)stream;
    struct side *side = context;
    if (gate_count(&side->closed) > 0) {
        atomic_fetch_add(&side->after_close, 1);
    }
    gate_pass(&side->writable);
}

static void on_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    struct side *side = context;
    struct buf late;
    buf_of_text(&late, "late");
    assert_int_equal(rpc_stream_send(stream, &late), ERR_UNAVAILABLE);
    buf_deinit(&late);
    atomic_store(&side->error, error);
    snprintf(side->text, sizeof(side->text), "%s", text);
    gate_pass(&side->closed);
}

static void on_finished(void *context, struct rpc_stream *stream)
{
    (void)stream;
    struct side *side = context;
    gate_pass(&side->finished);
}

static const struct rpc_stream_events events = {
    .opened = on_opened, .message = on_message, .writable = on_writable, .closed = on_closed};
static const struct rpc_stream_events events_half = {.opened = on_opened,
                                                     .message = on_message,
                                                     .writable = on_writable,
                                                     .closed = on_closed,
                                                     .finished = on_finished};

struct fixture {
    struct world world;
    struct side server;
    struct side client;
    struct rpc_stream *stream;
    _Atomic uint64_t turns;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    side_init(&fixture->server);
    side_init(&fixture->client);
    struct world *world = &fixture->world;
    world_init(world, 2, NULL);
    world->options.streams_max = 2;
    world_server(world);
    assert_int_equal(rpc_server_add_stream(world->server, "/t.T/Stream", &events, &fixture->server),
                     0);
    assert_int_equal(
        rpc_server_add_stream(world->server, "/t.T/Half", &events_half, &fixture->server), 0);
    world_start(world);
    *state = fixture;
    return 0;
}

/* With turns a stream may be read on only behind its turn; nothing that follows may tell. */
static void turn_ended(void *context)
{
    atomic_fetch_add((_Atomic uint64_t *)context, 1);
}

static int setup_with_turns(void **state)
{
    int failed = setup(state);
    struct fixture *fixture = *state;
    rpc_set_turn_end(fixture->world.server_rpc, turn_ended, &fixture->turns);
    rpc_set_turn_end(fixture->world.client_rpc, turn_ended, &fixture->turns);
    return failed;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    rpc_set_turn_end(fixture->world.server_rpc, NULL, NULL);
    rpc_set_turn_end(fixture->world.client_rpc, NULL, NULL);
    world_deinit(&fixture->world);
    rpc_stream_unref(fixture->stream);
    assert_int_equal(atomic_load(&fixture->server.disorder), 0);
    assert_int_equal(atomic_load(&fixture->client.disorder), 0);
    assert_int_equal(atomic_load(&fixture->server.after_close), 0);
    assert_int_equal(atomic_load(&fixture->client.after_close), 0);
    assert_in_range(gate_count(&fixture->server.closed), 0, 1);
    assert_in_range(gate_count(&fixture->client.closed), 0, 1);
    side_deinit(&fixture->server);
    side_deinit(&fixture->client);
    free(fixture);
    return 0;
}

static void open_on(struct fixture *fixture, const char *method, uint64_t send_bytes_max)
{
    assert_int_equal(rpc_stream_open(fixture->world.channel, method, &events, &fixture->client,
                                     send_bytes_max, &fixture->stream),
                     ERR_OK);
}

static void open_stream(struct fixture *fixture)
{
    open_on(fixture, "/t.T/Stream", 1u << 20);
    gate_wait(&fixture->server.opened, 1);
}

static void both_closed(struct fixture *fixture, int client_error, int server_error)
{
    gate_wait(&fixture->client.closed, 1);
    gate_wait(&fixture->server.closed, 1);
    assert_int_equal(atomic_load(&fixture->client.error), client_error);
    assert_int_equal(atomic_load(&fixture->server.error), server_error);
}

static void test_burst_of_messages_arrives_in_order(void **state)
{
    struct fixture *fixture = *state;
    fixture->server.echo = true;
    open_stream(fixture);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(send_number(fixture->stream, i, i % 300), ERR_OK);
    }
    gate_wait(&fixture->server.received, 1000);
    gate_wait(&fixture->client.received, 1000);
    assert_int_equal(atomic_load(&fixture->client.next), 1000);
    rpc_stream_finish(fixture->stream);
    both_closed(fixture, ERR_OK, ERR_OK);
    assert_int_equal(rpc_stream_queued_bytes(fixture->stream), 0);
}

static void test_finish_lets_what_is_queued_leave_first(void **state)
{
    struct fixture *fixture = *state;
    open_on(fixture, "/t.T/Stream", 64u << 20); /* not yet connected: all of it queues */
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(send_number(fixture->stream, i, 1000), ERR_OK);
    }
    rpc_stream_finish(fixture->stream);
    assert_int_equal(send_number(fixture->stream, 1000, 0), ERR_UNAVAILABLE);
    both_closed(fixture, ERR_OK, ERR_OK);
    assert_int_equal(gate_count(&fixture->server.received), 1000);
}

static void test_messages_of_any_size_arrive_whole(void **state)
{
    struct fixture *fixture = *state;
    const size_t sizes[] = {0, 8184, 8185, 16384, 100000, 1u << 20, RPC_MESSAGE_BYTES_MAX - 8};
    size_t count = sizeof(sizes) / sizeof(sizes[0]);
    uint64_t total = 0;
    open_on(fixture, "/t.T/Stream", 64u << 20);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(send_number(fixture->stream, i, sizes[i]), ERR_OK);
        total += sizes[i] + 8;
    }
    assert_int_equal(send_number(fixture->stream, count, (size_t)RPC_MESSAGE_BYTES_MAX - 7),
                     ERR_TOO_LARGE);
    gate_wait(&fixture->server.received, count);
    assert_int_equal(atomic_load(&fixture->server.bytes), total);
}

static void test_server_sends_from_opened_and_ends_in_order(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->server.greet, 10);
    open_stream(fixture);
    gate_wait(&fixture->client.received, 10);
    rpc_stream_finish(atomic_load(&fixture->server.stream));
    both_closed(fixture, ERR_OK, ERR_OK);
    assert_string_equal(fixture->client.text, "");
}

static void test_half_close_is_told_and_the_other_half_stays_open(void **state)
{
    struct fixture *fixture = *state;
    open_on(fixture, "/t.T/Half", 1u << 20);
    assert_int_equal(send_number(fixture->stream, 0, 0), ERR_OK);
    rpc_stream_finish(fixture->stream);
    gate_wait(&fixture->server.finished, 1);
    assert_int_equal(gate_count(&fixture->server.received), 1);
    struct rpc_stream *server_stream = atomic_load(&fixture->server.stream);
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(send_number(server_stream, i, 10), ERR_OK);
    }
    gate_wait(&fixture->client.received, 100);
    assert_int_equal(gate_count(&fixture->client.closed), 0);
    rpc_stream_finish(server_stream);
    both_closed(fixture, ERR_OK, ERR_OK);
}

/* --- backpressure --- */

static void test_queue_full_is_busy_then_writable(void **state)
{
    struct fixture *fixture = *state;
    const uint64_t bound = 1u << 20;
    atomic_store(&fixture->server.pause_at, 0);
    open_on(fixture, "/t.T/Stream", bound);
    uint64_t sent = 0;
    int error = ERR_OK;
    while (error == ERR_OK && sent < 100000) {
        error = send_number(fixture->stream, sent, 10000);
        sent += error == ERR_OK;
        assert_in_range(rpc_stream_queued_bytes(fixture->stream), 0, bound);
    }
    assert_int_equal(error, ERR_BUSY);
    gate_wait(&fixture->server.received, 1);
    rpc_stream_resume(atomic_load(&fixture->server.stream));
    gate_wait(&fixture->client.writable, 1);
    gate_wait(&fixture->server.received, sent);
    assert_int_equal(gate_count(&fixture->client.writable), 1);
    assert_int_equal(send_number(fixture->stream, sent, 0), ERR_OK);
    gate_wait(&fixture->server.received, sent + 1);
}

static void test_message_over_the_bound_fits_an_empty_queue(void **state)
{
    struct fixture *fixture = *state;
    open_on(fixture, "/t.T/Stream", 100);
    assert_int_equal(send_number(fixture->stream, 0, 5000), ERR_OK);
    gate_wait(&fixture->server.received, 1);
    assert_int_equal(atomic_load(&fixture->server.bytes), 5008);
}

static void test_server_send_is_bounded_too(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->client.pause_at, 0);
    open_stream(fixture);
    struct rpc_stream *server_stream = atomic_load(&fixture->server.stream);
    uint64_t sent = 0;
    int error = ERR_OK;
    while (error == ERR_OK && sent < 1000) {
        error = send_number(server_stream, sent, 1u << 20);
        sent += error == ERR_OK;
    }
    assert_int_equal(error, ERR_BUSY);
    assert_in_range(rpc_stream_queued_bytes(server_stream), 1,
                    fixture->world.options.stream_send_bytes_max);
    gate_wait(&fixture->client.received, 1);
    rpc_stream_resume(fixture->stream);
    gate_wait(&fixture->server.writable, 1);
    gate_wait(&fixture->client.received, sent);
}

static void test_reading_pauses_until_resumed(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->server.pause_at, 4);
    open_stream(fixture);
    struct rpc_stream *server_stream = atomic_load(&fixture->server.stream);
    rpc_stream_resume(server_stream); /* while reading: nothing */
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(send_number(fixture->stream, i, 0), ERR_OK);
    }
    gate_wait(&fixture->server.received, 5);
    /* Whatever else goes over the same queues proves that the sixth would have been delivered by
     * now. */
    struct buf reply;
    buf_init(&reply);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(call_text(fixture->world.channel, "/t.T/None", "x", &reply, NULL, 0),
                         ERR_UNSUPPORTED);
    }
    assert_int_equal(gate_count(&fixture->server.received), 5);
    rpc_stream_resume(server_stream);
    gate_wait(&fixture->server.received, 10);
    rpc_stream_finish(fixture->stream);
    both_closed(fixture, ERR_OK, ERR_OK);
}

static void test_resume_before_the_pause_is_not_lost(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->server.pause_at, 4);
    atomic_store(&fixture->server.resume_inside, true);
    open_stream(fixture);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(send_number(fixture->stream, i, 0), ERR_OK);
    }
    gate_wait(&fixture->server.received, 10);
}

static void test_end_in_order_waits_for_a_paused_reader(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->client.pause_at, 0);
    atomic_store(&fixture->server.greet, 10);
    open_stream(fixture);
    rpc_stream_finish(atomic_load(&fixture->server.stream));
    gate_wait(&fixture->client.received, 1);
    rpc_stream_resume(fixture->stream);
    gate_wait(&fixture->client.received, 10); /* nothing was lost to the end */
    gate_wait(&fixture->client.closed, 1);
    assert_int_equal(atomic_load(&fixture->client.error), ERR_OK);
}

/* ---- ends
 * -----------------------------------------------------------------------------------------------
 */

static void test_client_cancels_both_hear_it(void **state)
{
    struct fixture *fixture = *state;
    open_stream(fixture);
    assert_int_equal(send_number(fixture->stream, 0, 0), ERR_OK);
    gate_wait(&fixture->server.received, 1);
    rpc_stream_cancel(fixture->stream);
    both_closed(fixture, ERR_CANCELED, ERR_CANCELED);
    rpc_stream_cancel(fixture->stream); /* after the end: nothing */
    rpc_stream_finish(fixture->stream);
    rpc_stream_resume(fixture->stream);
}

static void test_server_cancels_both_hear_it(void **state)
{
    struct fixture *fixture = *state;
    open_stream(fixture);
    rpc_stream_cancel(atomic_load(&fixture->server.stream));
    both_closed(fixture, ERR_UNAVAILABLE, ERR_CANCELED);
}

static void test_peer_cancel_reaches_a_paused_reader(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->server.pause_at, 0);
    open_stream(fixture);
    for (uint64_t i = 0; i < 50; i++) {
        assert_int_equal(send_number(fixture->stream, i, 1000), ERR_OK);
    }
    gate_wait(&fixture->server.received, 1);
    rpc_stream_cancel(fixture->stream);
    both_closed(fixture, ERR_CANCELED, ERR_CANCELED);
    assert_int_equal(gate_count(&fixture->server.received), 1);
}

static void test_cancel_with_a_full_queue_frees_it(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->server.pause_at, 0);
    open_on(fixture, "/t.T/Stream", 4u << 20);
    uint64_t sent = 0;
    while (send_number(fixture->stream, sent, 100000) == ERR_OK) {
        sent++;
    }
    gate_wait(&fixture->server.opened, 1);
    rpc_stream_cancel(fixture->stream);
    assert_int_equal(send_number(fixture->stream, sent, 0), ERR_UNAVAILABLE);
    both_closed(fixture, ERR_CANCELED, ERR_CANCELED);
    assert_int_equal(rpc_stream_queued_bytes(fixture->stream), 0);
}

static void test_refused_by_opened_is_the_clients_error(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->server.refuse, ERR_WRONG_CLUSTER);
    open_on(fixture, "/t.T/Stream", 1u << 20);
    gate_wait(&fixture->client.closed, 1);
    assert_int_equal(atomic_load(&fixture->client.error), ERR_WRONG_CLUSTER);
    assert_string_equal(fixture->client.text, err_text(ERR_WRONG_CLUSTER));
    assert_int_equal(gate_count(&fixture->server.closed), 0);
}

static void test_method_unknown_is_unsupported(void **state)
{
    struct fixture *fixture = *state;
    open_on(fixture, "/t.T/None", 1u << 20);
    gate_wait(&fixture->client.closed, 1);
    assert_int_equal(atomic_load(&fixture->client.error), ERR_UNSUPPORTED);
}

static void test_nobody_listens_is_unavailable(void **state)
{
    struct fixture *fixture = *state;
    char address[64];
    struct rpc_channel *channel = NULL;
    address_unused(address);
    assert_int_equal(rpc_channel_create(fixture->world.client_rpc, address, &channel), ERR_OK);
    assert_int_equal(
        rpc_stream_open(channel, "/t.T/Stream", &events, &fixture->client, 1000, &fixture->stream),
        ERR_OK);
    (void)send_number(fixture->stream, 0, 0); /* queued, or refused when it has ended already */
    gate_wait(&fixture->client.closed, 1);
    assert_int_equal(atomic_load(&fixture->client.error), ERR_UNAVAILABLE);
    rpc_channel_destroy(channel);
}

static void test_server_shut_down_ends_the_stream_after_what_is_queued(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->client.pause_at, 0);
    open_stream(fixture);
    struct rpc_stream *server_stream = atomic_load(&fixture->server.stream);
    for (uint64_t i = 0; i < 500; i++) { /* less than what may be under way to a paused reader */
        assert_int_equal(send_number(server_stream, i, 80), ERR_OK);
    }
    gate_wait(&fixture->client.received, 1);
    rpc_server_shutdown(fixture->world.server, (uint64_t)WORLD_WAIT_S * NS_PER_S);
    rpc_stream_resume(fixture->stream);
    both_closed(fixture, ERR_UNAVAILABLE, ERR_UNAVAILABLE);
    assert_int_equal(gate_count(&fixture->client.received), 500);
    assert_string_equal(fixture->client.text, "the server is shutting down");
}

static void test_server_destroyed_mid_stream_ends_it(void **state)
{
    struct fixture *fixture = *state;
    atomic_store(&fixture->client.pause_at, 0);
    open_stream(fixture);
    struct rpc_stream *server_stream = atomic_load(&fixture->server.stream);
    uint64_t sent = 0;
    while (send_number(server_stream, sent, 1u << 20) == ERR_OK) { /* more than can leave */
        sent++;
    }
    gate_wait(&fixture->client.received, 1);
    rpc_server_destroy(fixture->world.server);
    fixture->world.server = NULL;
    gate_wait(&fixture->server.closed, 1);
    assert_int_equal(atomic_load(&fixture->server.error), ERR_CANCELED);
    rpc_stream_resume(fixture->stream); /* what had arrived is still read before the end is told */
    gate_wait(&fixture->client.closed, 1);
    assert_int_equal(atomic_load(&fixture->client.error), ERR_UNAVAILABLE);
    assert_in_range(atomic_load(&fixture->client.next), 1, sent - 1);
}

static void test_channel_destroyed_cancels_the_stream(void **state)
{
    struct fixture *fixture = *state;
    open_stream(fixture);
    rpc_channel_destroy(fixture->world.channel);
    fixture->world.channel = NULL;
    both_closed(fixture, ERR_CANCELED, ERR_CANCELED);
}

static void test_streams_over_the_bound_are_busy(void **state)
{
    struct fixture *fixture = *state;
    struct side sides[3];
    struct rpc_stream *streams[3];
    for (size_t i = 0; i < 3; i++) {
        side_init(&sides[i]);
        assert_int_equal(rpc_stream_open(fixture->world.channel, "/t.T/Half", &events, &sides[i],
                                         1000, &streams[i]),
                         ERR_OK);
        if (i < 2) {
            gate_wait(&fixture->server.opened, i + 1);
            rpc_stream_unref(atomic_exchange(&fixture->server.stream, NULL));
        }
    }
    gate_wait(&sides[2].closed, 1);
    assert_int_equal(atomic_load(&sides[2].error), ERR_BUSY);
    rpc_stream_cancel(streams[0]); /* its place is free once the server heard of it */
    gate_wait(&fixture->server.closed, 1);
    gate_reset(&fixture->server.closed, 0);
    struct side next;
    struct rpc_stream *next_stream = NULL;
    side_init(&next);
    assert_int_equal(
        rpc_stream_open(fixture->world.channel, "/t.T/Half", &events, &next, 1000, &next_stream),
        ERR_OK);
    gate_wait(&fixture->server.opened, 3);
    rpc_stream_cancel(streams[1]);
    gate_wait(&fixture->server.closed, 1);
    rpc_stream_cancel(next_stream);
    gate_wait(&fixture->server.closed, 2);
    gate_wait(&next.closed, 1);
    gate_reset(&fixture->server.closed,
               1); /* several streams shared the side; the teardown wants one */
    for (size_t i = 0; i < 3; i++) {
        gate_wait(&sides[i].closed, 1);
        rpc_stream_unref(streams[i]);
        side_deinit(&sides[i]);
    }
    rpc_stream_unref(next_stream);
    side_deinit(&next);
}

static void stream_open_use_and_end(struct fixture *fixture)
{
    open_stream(fixture);
    assert_int_equal(send_number(fixture->stream, 0, 100), ERR_OK);
    gate_wait(&fixture->client.received, 1);
    rpc_stream_finish(fixture->stream);
    both_closed(fixture, ERR_OK, ERR_OK);
    rpc_stream_unref(fixture->stream);
    fixture->stream = NULL;
    rpc_stream_unref(atomic_exchange(&fixture->server.stream, NULL));
    struct side *sides[] = {&fixture->server, &fixture->client};
    for (size_t i = 0; i < 2; i++) {
        gate_reset(&sides[i]->opened, 0);
        gate_reset(&sides[i]->received, 0);
        gate_reset(&sides[i]->closed, 0);
        atomic_store(&sides[i]->next, 0);
    }
}

static uint64_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* More of them than a server has slots. (Under the address sanitizer the heap is not told, but it
 * tells of leaks itself.) */
static void test_streams_that_ended_leave_nothing(void **state)
{
    enum { WARM_UP = 100, STREAMS = 400, STREAM_BYTES_MIN = 400 };
    struct fixture *fixture = *state;
    fixture->server.echo = true;
    for (int i = 0; i < WARM_UP; i++) {
        stream_open_use_and_end(fixture);
    }
    uint64_t before = heap_bytes();
    for (int i = 0; i < STREAMS; i++) {
        stream_open_use_and_end(fixture);
    }
    assert_in_range(heap_bytes(), 0, before + STREAMS * STREAM_BYTES_MIN);
}

static void test_user_pointer_and_peer_are_kept(void **state)
{
    struct fixture *fixture = *state;
    open_stream(fixture);
    struct rpc_stream *server_stream = atomic_load(&fixture->server.stream);
    assert_ptr_equal(rpc_stream_user(server_stream), &fixture->server);
    assert_null(rpc_stream_user(fixture->stream));
    assert_int_equal(strncmp(rpc_stream_peer(server_stream), "ipv4:127.0.0.1:", 15), 0);
    rpc_stream_cancel(fixture->stream);
    both_closed(fixture, ERR_CANCELED, ERR_CANCELED);
    assert_int_equal(strncmp(rpc_stream_peer(server_stream), "ipv4:127.0.0.1:", 15), 0);
}

int main(void)
{
#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, setup, teardown),                                        \
    {                                                                                              \
#name "_with_turns", name, setup_with_turns, teardown, NULL                                \
    }
    const struct CMUnitTest tests[] = {
        TEST(test_burst_of_messages_arrives_in_order),
        TEST(test_finish_lets_what_is_queued_leave_first),
        TEST(test_messages_of_any_size_arrive_whole),
        TEST(test_server_sends_from_opened_and_ends_in_order),
        TEST(test_half_close_is_told_and_the_other_half_stays_open),
        TEST(test_queue_full_is_busy_then_writable),
        TEST(test_message_over_the_bound_fits_an_empty_queue),
        TEST(test_server_send_is_bounded_too),
        TEST(test_reading_pauses_until_resumed),
        TEST(test_resume_before_the_pause_is_not_lost),
        TEST(test_end_in_order_waits_for_a_paused_reader),
        TEST(test_client_cancels_both_hear_it),
        TEST(test_server_cancels_both_hear_it),
        TEST(test_peer_cancel_reaches_a_paused_reader),
        TEST(test_cancel_with_a_full_queue_frees_it),
        TEST(test_refused_by_opened_is_the_clients_error),
        TEST(test_method_unknown_is_unsupported),
        TEST(test_nobody_listens_is_unavailable),
        TEST(test_server_shut_down_ends_the_stream_after_what_is_queued),
        TEST(test_server_destroyed_mid_stream_ends_it),
        TEST(test_channel_destroyed_cancels_the_stream),
        TEST(test_streams_over_the_bound_are_busy),
        TEST(test_streams_that_ended_leave_nothing),
        TEST(test_user_pointer_and_peer_are_kept),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
