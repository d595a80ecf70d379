/* Turns: what a queue's thread calls behind the callbacks, and what a callback may know of it. */
#include "rpc/world.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct seen {
    struct world world;
    struct gate turns;
    _Atomic bool follows_in_callback;
    _Atomic bool follows_for_other_rpc;
    _Atomic bool follows_in_turn;
    _Atomic uint32_t called;      /* callbacks so far */
    _Atomic uint32_t called_then; /* as the last turn saw it */
    _Atomic bool slow;            /* a turn waits for `released` */
    struct gate entered;
    struct gate released;
    struct gate taken_away;
};

static void on_call(void *context, struct rpc_call *call, struct bytes request, struct blob *owner)
{
    (void)request;
    (void)owner;
    struct seen *seen = context;
    atomic_store(&seen->follows_in_callback, rpc_turn_follows(seen->world.server_rpc));
    atomic_store(&seen->follows_for_other_rpc, rpc_turn_follows(seen->world.client_rpc));
    atomic_fetch_add(&seen->called, 1);
    struct buf reply;
    buf_of_text(&reply, "seen");
    rpc_call_reply(call, &reply);
}

static void on_turn(void *context)
{
    struct seen *seen = context;
    atomic_store(&seen->follows_in_turn, rpc_turn_follows(seen->world.server_rpc));
    atomic_store(&seen->called_then, atomic_load(&seen->called));
    if (atomic_load(&seen->slow) && atomic_load(&seen->called) > 0) {
        gate_pass(&seen->entered);
        gate_wait(&seen->released, 1);
        atomic_store(&seen->slow, false);
    }
    gate_pass(&seen->turns);
}

static int setup(void **state)
{
    struct seen *seen = mem_calloc(1, sizeof *seen);
    gate_init(&seen->turns);
    gate_init(&seen->entered);
    gate_init(&seen->released);
    gate_init(&seen->taken_away);
    world_init(&seen->world, 1, NULL);
    world_server(&seen->world);
    assert_int_equal(rpc_server_add_unary(seen->world.server, "/t.T/See", on_call, seen), 0);
    world_start(&seen->world);
    rpc_set_turn_end(seen->world.server_rpc, on_turn, seen);
    *state = seen;
    return 0;
}

static int teardown(void **state)
{
    struct seen *seen = *state;
    rpc_set_turn_end(seen->world.server_rpc, NULL, NULL);
    world_deinit(&seen->world);
    gate_deinit(&seen->turns);
    gate_deinit(&seen->entered);
    gate_deinit(&seen->released);
    gate_deinit(&seen->taken_away);
    free(seen);
    return 0;
}

static void call(struct seen *seen)
{
    struct buf reply;
    char text[RPC_ERROR_TEXT_BYTES_MAX];
    buf_init(&reply);
    assert_int_equal(call_text(seen->world.channel, "/t.T/See", "", &reply, text, sizeof text),
                     ERR_OK);
    buf_deinit(&reply);
}

static void test_turn_follows_its_callbacks(void **state)
{
    struct seen *seen = *state;
    call(seen);
    uint64_t turns = gate_count(&seen->turns);
    while (atomic_load(&seen->called_then) == 0) { /* the answer may be here before the turn ends */
        gate_wait(&seen->turns, ++turns);
    }
    assert_true(atomic_load(&seen->follows_in_callback));
    assert_false(atomic_load(&seen->follows_for_other_rpc));
    assert_false(atomic_load(&seen->follows_in_turn));
    assert_false(rpc_turn_follows(seen->world.server_rpc)); /* this is none of its threads */
}

static void nap(void)
{
    struct timespec pause = {0, NS_PER_MS};
    nanosleep(&pause, NULL);
}

static void *take_away(void *context)
{
    struct seen *seen = context;
    rpc_set_turn_end(seen->world.server_rpc, NULL, NULL);
    gate_pass(&seen->taken_away);
    return NULL;
}

static void test_turn_is_taken_away_only_when_nobody_is_inside(void **state)
{
    struct seen *seen = *state;
    atomic_store(&seen->slow, true);
    call(seen);
    gate_wait(&seen->entered, 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, take_away, seen), 0);
    /* It must not come back while the turn is inside, and is given the time to. */
    uint64_t end_ns = now_ns() + 100 * NS_PER_MS;
    while (gate_count(&seen->taken_away) == 0 && now_ns() < end_ns) {
        nap();
    }
    bool early = gate_count(&seen->taken_away) > 0;
    gate_pass(&seen->released);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(early);
    assert_false(atomic_load(&seen->slow)); /* the turn had run to its end */
    uint64_t turns = gate_count(&seen->turns);
    call(seen);
    assert_int_equal(gate_count(&seen->turns), turns);
    assert_false(atomic_load(&seen->follows_in_callback));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_turn_follows_its_callbacks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_turn_is_taken_away_only_when_nobody_is_inside, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
