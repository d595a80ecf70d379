/* Timers: order, replacing, clearing, and destroying while one runs. */
#include "base/rng.h"
#include "rpc/world.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    struct rpc_options options = rpc_options_default();
    struct rpc *rpc = NULL;
    assert_int_equal(rpc_create(&options, &rpc), ERR_OK);
    *state = rpc;
    return 0;
}

static int teardown(void **state)
{
    rpc_destroy(*state);
    return 0;
}

struct ring {
    struct gate fired;
    struct rpc_timer *timer;
    uint64_t deadline_ns;
    _Atomic bool early;
};

static void ring_fire(void *context)
{
    struct ring *ring = context;
    if (now_ns() < ring->deadline_ns) {
        atomic_store(&ring->early, true);
    }
    gate_pass(&ring->fired);
}

static void ring_init(struct ring *ring, struct rpc *rpc)
{
    memset(ring, 0, sizeof(*ring));
    gate_init(&ring->fired);
    ring->timer = rpc_timer_create(rpc, ring_fire, ring);
}

static void ring_deinit(struct ring *ring)
{
    rpc_timer_destroy(ring->timer);
    gate_deinit(&ring->fired);
}

static void ring_set(struct ring *ring, uint64_t deadline_ns)
{
    ring->deadline_ns = deadline_ns;
    rpc_timer_set(ring->timer, deadline_ns);
}

static void test_timer_set_fires_once_and_not_early(void **state)
{
    struct ring ring;
    struct ring after;
    ring_init(&ring, *state);
    ring_init(&after, *state);
    ring_set(&ring, now_ns() + 20 * NS_PER_MS);
    ring_set(&after, now_ns() + 60 * NS_PER_MS);
    gate_wait(&after.fired, 1);
    assert_int_equal(gate_count(&ring.fired), 1);
    assert_false(atomic_load(&ring.early));
    assert_false(atomic_load(&after.early));
    ring_deinit(&ring);
    ring_deinit(&after);
}

static void test_timer_in_the_past_fires_at_once(void **state)
{
    struct ring ring;
    ring_init(&ring, *state);
    ring_set(&ring, 0);
    gate_wait(&ring.fired, 1);
    ring_set(&ring, 1);
    gate_wait(&ring.fired, 2);
    ring_deinit(&ring);
}

static void test_timer_cleared_or_put_off_does_not_fire(void **state)
{
    struct ring cleared;
    struct ring put_off;
    struct ring after;
    ring_init(&cleared, *state);
    ring_init(&put_off, *state);
    ring_init(&after, *state);
    ring_set(&cleared, now_ns() + 30 * NS_PER_MS);
    ring_set(&put_off, now_ns() + 30 * NS_PER_MS);
    ring_set(&cleared, UINT64_MAX);
    ring_set(&put_off, now_ns() + 3600 * NS_PER_S);
    ring_set(&after, now_ns() + 60 * NS_PER_MS);
    gate_wait(&after.fired, 1);
    assert_int_equal(gate_count(&cleared.fired), 0);
    assert_int_equal(gate_count(&put_off.fired), 0);
    ring_set(&put_off, 0); /* and sooner again */
    gate_wait(&put_off.fired, 1);
    ring_deinit(&cleared);
    ring_deinit(&put_off);
    ring_deinit(&after);
}

static void test_timer_sooner_than_the_first_wakes_the_thread(void **state)
{
    struct ring late;
    struct ring soon;
    ring_init(&late, *state);
    ring_init(&soon, *state);
    ring_set(&late, now_ns() + 3600 * NS_PER_S);
    ring_set(&soon, now_ns() + 10 * NS_PER_MS);
    gate_wait(&soon.fired, 1);
    assert_int_equal(gate_count(&late.fired), 0);
    ring_deinit(&late);
    ring_deinit(&soon);
}

enum { MANY = 500 };

struct order {
    struct gate fired;
    uint64_t last_ns;
    _Atomic bool disorder;
    struct {
        struct order *order;
        struct rpc_timer *timer;
        uint64_t deadline_ns;
    } items[MANY];
};

static void order_fire(void *context)
{
    struct order *order = *(struct order **)context;
    size_t index = ((size_t)((char *)context - (char *)order->items)) / sizeof(order->items[0]);
    if (order->items[index].deadline_ns < order->last_ns) {
        atomic_store(&order->disorder, true);
    }
    order->last_ns = order->items[index].deadline_ns;
    gate_pass(&order->fired);
}

static void test_timers_many_fire_in_order_of_deadline(void **state)
{
    struct order *order = calloc(1, sizeof(*order));
    struct rng rng;
    assert_non_null(order);
    rng_init(&rng, 11);
    gate_init(&order->fired);
    /* All later than the time it takes to set them, so that none fires before its rivals are in. */
    uint64_t base = now_ns() + 500 * NS_PER_MS;
    uint64_t wanted = 0;
    for (size_t i = 0; i < MANY; i++) {
        order->items[i].order = order;
        order->items[i].timer = rpc_timer_create(*state, order_fire, &order->items[i]);
        order->items[i].deadline_ns = base + rng_below(&rng, 100 * NS_PER_MS);
        rpc_timer_set(order->items[i].timer, order->items[i].deadline_ns);
    }
    for (size_t i = 0; i < MANY; i++) { /* out of the heap's middle, and back in elsewhere */
        if (i % 3 == 0) {
            rpc_timer_set(order->items[i].timer, UINT64_MAX);
        } else if (i % 3 == 1) {
            order->items[i].deadline_ns = base + rng_below(&rng, 100 * NS_PER_MS);
            rpc_timer_set(order->items[i].timer, order->items[i].deadline_ns);
        }
        wanted += i % 3 != 0;
    }
    gate_wait(&order->fired, wanted);
    assert_false(atomic_load(&order->disorder));
    for (size_t i = 0; i < MANY; i++) {
        rpc_timer_destroy(order->items[i].timer);
    }
    assert_int_equal(gate_count(&order->fired), wanted);
    gate_deinit(&order->fired);
    free(order);
}

/* --- destroying --- */

struct slow {
    struct gate entered;
    struct gate leave;
    struct rpc_timer *timer;
    _Atomic bool left;
    bool set_again;
};

static void slow_fire(void *context)
{
    struct slow *slow = context;
    gate_pass(&slow->entered);
    gate_wait(&slow->leave, 1);
    if (slow->set_again) {
        rpc_timer_set(slow->timer, 0);
    }
    atomic_store(&slow->left, true);
}

static void *slow_destroy(void *context)
{
    struct slow *slow = context;
    rpc_timer_destroy(slow->timer);
    return (void *)(uintptr_t)atomic_load(&slow->left);
}

static void destroy_while_running(struct rpc *rpc, bool set_again)
{
    struct slow slow = {.set_again = set_again};
    pthread_t thread;
    void *left_before = NULL;
    gate_init(&slow.entered);
    gate_init(&slow.leave);
    slow.timer = rpc_timer_create(rpc, slow_fire, &slow);
    rpc_timer_set(slow.timer, 0);
    gate_wait(&slow.entered, 1);
    assert_int_equal(pthread_create(&thread, NULL, slow_destroy, &slow), 0);
    gate_pass(&slow.leave);
    pthread_join(thread, &left_before);
    assert_ptr_equal(left_before, (void *)(uintptr_t)1);
    if (!set_again) { /* what it set before the destroying began may still have run */
        assert_int_equal(gate_count(&slow.entered), 1);
    }
    gate_deinit(&slow.entered);
    gate_deinit(&slow.leave);
}

static void test_timer_destroyed_while_it_runs_is_waited_for(void **state)
{
    destroy_while_running(*state, false);
}

static void test_timer_destroyed_while_it_sets_itself_does_not_run_again(void **state)
{
    for (int i = 0; i < 50; i++) {
        destroy_while_running(*state, true);
    }
}

struct suicide {
    struct gate fired;
    struct rpc_timer *timer;
};

static void suicide_fire(void *context)
{
    struct suicide *suicide = context;
    rpc_timer_destroy(suicide->timer);
    gate_pass(&suicide->fired);
}

static void test_timer_destroys_itself_from_within(void **state)
{
    struct suicide suicide;
    struct ring after;
    gate_init(&suicide.fired);
    ring_init(&after, *state);
    suicide.timer = rpc_timer_create(*state, suicide_fire, &suicide);
    rpc_timer_set(suicide.timer, 0);
    gate_wait(&suicide.fired, 1);
    ring_set(&after, 0);
    gate_wait(&after.fired, 1);
    ring_deinit(&after);
    gate_deinit(&suicide.fired);
}

static void repeat_fire(void *context)
{
    struct ring *ring = context;
    gate_pass(&ring->fired);
    if (gate_count(&ring->fired) < 100) {
        rpc_timer_set(ring->timer, now_ns());
    }
}

static void test_timer_set_from_within_repeats(void **state)
{
    struct ring ring;
    gate_init(&ring.fired);
    ring.timer = rpc_timer_create(*state, repeat_fire, &ring);
    rpc_timer_set(ring.timer, now_ns());
    gate_wait(&ring.fired, 100);
    ring_deinit(&ring);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_timer_set_fires_once_and_not_early),
        TEST(test_timer_in_the_past_fires_at_once),
        TEST(test_timer_cleared_or_put_off_does_not_fire),
        TEST(test_timer_sooner_than_the_first_wakes_the_thread),
        TEST(test_timers_many_fire_in_order_of_deadline),
        TEST(test_timer_destroyed_while_it_runs_is_waited_for),
        TEST(test_timer_destroyed_while_it_sets_itself_does_not_run_again),
        TEST(test_timer_destroys_itself_from_within),
        TEST(test_timer_set_from_within_repeats),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
