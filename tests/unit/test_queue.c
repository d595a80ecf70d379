/* The queue: bounds, order, deadlines, closing, and many threads at once. */
#include "unit/base_test.h"

#include "base/clock.h"
#include "base/queue.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* Items are numbers dressed as pointers; 0 is not used. */
static void *item_of(uint64_t number)
{
    return (void *)(uintptr_t)number;
}
static uint64_t number_of(void *item)
{
    return (uint64_t)(uintptr_t)item;
}

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

static struct queue *queue_of(uint32_t items_max, uint64_t bytes_max)
{
    return queue_create((struct queue_limits){.items_max = items_max, .bytes_max = bytes_max});
}

static void drain_and_destroy(struct queue *queue)
{
    void *items[8];
    while (queue_pop(queue, items, 8, 0) > 0) {
    }
    queue_destroy(queue);
}

static void test_queue_pop_gives_pushed_order_in_batches(void **state)
{
    (void)state;
    struct queue *queue = queue_of(1000, 1000);
    for (uint64_t i = 1; i <= 100; i++) { /* past the first ring, so that it grows */
        assert_int_equal(queue_push(queue, item_of(i), 1), ERR_OK);
    }
    assert_int_equal(queue_count(queue), 100);
    uint64_t expected = 1;
    void *items[7];
    for (;;) {
        size_t count = queue_pop(queue, items, 7, 0);
        if (count == 0) {
            break;
        }
        assert_int_equal(count, expected <= 98 ? 7 : 2);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(number_of(items[i]), expected++);
        }
    }
    assert_int_equal(expected, 101);
    queue_destroy(queue);
}

static void test_queue_ring_wraps_and_grows_in_order(void **state)
{
    (void)state;
    struct queue *queue = queue_of(1000, 100000);
    uint64_t pushed = 0;
    uint64_t popped = 0;
    for (int round = 0; round < 50; round++) { /* more in than out: the ring turns while it grows */
        for (int i = 0; i < 11; i++) {
            assert_int_equal(queue_push(queue, item_of(++pushed), 1), ERR_OK);
        }
        void *items[5];
        assert_int_equal(queue_pop(queue, items, 5, 0), 5);
        for (int i = 0; i < 5; i++) {
            assert_int_equal(number_of(items[i]), ++popped);
        }
    }
    void *item;
    while (queue_pop(queue, &item, 1, 0) == 1) {
        assert_int_equal(number_of(item), ++popped);
    }
    assert_int_equal(popped, pushed);
    queue_destroy(queue);
}

static void test_queue_full_by_count_is_busy(void **state)
{
    (void)state;
    struct queue *queue = queue_of(2, 1000);
    assert_int_equal(queue_push(queue, item_of(1), 0), ERR_OK);
    assert_int_equal(queue_push(queue, item_of(2), 0), ERR_OK);
    assert_int_equal(queue_push(queue, item_of(3), 0), ERR_BUSY);
    void *item;
    assert_int_equal(queue_pop(queue, &item, 1, 0), 1);
    assert_int_equal(queue_push(queue, item_of(3), 0), ERR_OK);
    drain_and_destroy(queue);
}

static void test_queue_full_by_bytes_is_busy(void **state)
{
    (void)state;
    struct queue *queue = queue_of(100, 10);
    assert_int_equal(queue_push(queue, item_of(1), 6), ERR_OK);
    assert_int_equal(queue_push(queue, item_of(2), 5), ERR_BUSY);
    assert_int_equal(queue_push(queue, item_of(2), SIZE_MAX), ERR_BUSY); /* no wrap */
    assert_int_equal(queue_push(queue, item_of(2), 4), ERR_OK);
    assert_int_equal(queue_push(queue, item_of(3), 1), ERR_BUSY);
    void *item;
    assert_int_equal(queue_pop(queue, &item, 1, 0), 1); /* gives back 6, and 4 are still held */
    assert_int_equal(queue_push(queue, item_of(3), 7), ERR_BUSY);
    assert_int_equal(queue_push(queue, item_of(3), 6), ERR_OK);
    drain_and_destroy(queue);
}

static void test_queue_oversized_item_fits_an_empty_queue_only(void **state)
{
    (void)state;
    struct queue *queue = queue_of(100, 10);
    assert_int_equal(queue_push(queue, item_of(1), 11), ERR_OK);
    assert_int_equal(queue_push(queue, item_of(2), 0), ERR_BUSY);
    void *item;
    assert_int_equal(queue_pop(queue, &item, 1, 0), 1);
    assert_int_equal(queue_push(queue, item_of(2), 1), ERR_OK);
    assert_int_equal(queue_push(queue, item_of(3), 11), ERR_BUSY);
    drain_and_destroy(queue);
}

static void test_queue_push_always_passes_the_bounds(void **state)
{
    (void)state;
    struct queue *queue = queue_of(1, 10);
    for (uint64_t i = 1; i <= 50; i++) {
        assert_int_equal(queue_push_always(queue, item_of(i), 100), ERR_OK);
    }
    assert_int_equal(queue_push(queue, item_of(51), 0), ERR_BUSY);
    assert_int_equal(queue_count(queue), 50);
    void *items[50];
    assert_int_equal(queue_pop(queue, items, 50, 0), 50);
    assert_int_equal(number_of(items[49]), 50);
    assert_int_equal(queue_push(queue, item_of(51), 10), ERR_OK); /* all bytes were given back */
    drain_and_destroy(queue);
}

static void test_queue_pop_empty_returns_at_the_deadline(void **state)
{
    (void)state;
    struct queue *queue = queue_of(1, 1);
    void *item;
    assert_int_equal(queue_pop(queue, &item, 1, 0), 0);
    assert_int_equal(queue_pop(queue, &item, 1, 1), 0); /* long past */
    uint64_t deadline_ns = now_ns() + 20 * NS_PER_MS;
    assert_int_equal(queue_pop(queue, &item, 1, deadline_ns), 0);
    assert_true(now_ns() >= deadline_ns);
    queue_destroy(queue);
}

static void test_queue_closed_refuses_pushes_and_empties(void **state)
{
    (void)state;
    struct queue *queue = queue_of(10, 10);
    assert_int_equal(queue_push(queue, item_of(1), 1), ERR_OK);
    assert_false(queue_is_closed(queue));
    queue_close(queue);
    queue_close(queue);
    assert_true(queue_is_closed(queue));
    assert_int_equal(queue_push(queue, item_of(2), 1), ERR_SHUTDOWN);
    assert_int_equal(queue_push_always(queue, item_of(2), 1), ERR_SHUTDOWN);
    void *item;
    assert_int_equal(queue_pop(queue, &item, 1, UINT64_MAX), 1);
    assert_int_equal(number_of(item), 1);
    assert_int_equal(queue_pop(queue, &item, 1, UINT64_MAX), 0);
    queue_destroy(queue);
}

static void destroy_full(void *context)
{
    queue_destroy(context);
}

static void test_queue_destroy_with_items_is_a_callers_bug(void **state)
{
    (void)state;
    struct queue *queue = queue_of(10, 10);
    assert_int_equal(queue_push(queue, item_of(1), 1), ERR_OK);
    assert_aborts(destroy_full, queue, "queue->count == 0");
    drain_and_destroy(queue);
    queue_destroy(NULL);
}

static void *pop_for_ever(void *context)
{
    void *item = NULL;
    size_t count = queue_pop(context, &item, 1, UINT64_MAX);
    return count == 0 ? NULL : item;
}

static void test_queue_close_wakes_every_waiter(void **state)
{
    (void)state;
    struct queue *queue = queue_of(10, 10);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pop_for_ever, queue), 0);
    }
    queue_close(queue); /* before or after they wait: both must end */
    for (int i = 0; i < 3; i++) {
        void *item;
        assert_int_equal(pthread_join(threads[i], &item), 0);
        assert_null(item);
    }
    queue_destroy(queue);
}

static void test_queue_push_wakes_a_waiter(void **state)
{
    (void)state;
    struct queue *queue = queue_of(10, 10);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, pop_for_ever, queue), 0);
    assert_int_equal(queue_push(queue, item_of(9), 1), ERR_OK);
    void *item;
    assert_int_equal(pthread_join(thread, &item), 0);
    assert_int_equal(number_of(item), 9);
    queue_destroy(queue);
}

#define PRODUCERS      4
#define CONSUMERS      3
#define PER_PRODUCER   10000
#define ITEMS_IN_ALL   (PRODUCERS * PER_PRODUCER)
#define CROWD_DEADLINE (25 * NS_PER_S)

struct crowd {
    struct queue *queue;
    uint64_t deadline_ns;
    _Atomic uint32_t next_producer;
    _Atomic uint32_t refused;
    _Atomic uint8_t seen[ITEMS_IN_ALL];
    _Atomic uint32_t out_of_order;
};

static void *produce(void *context)
{
    struct crowd *crowd = context;
    uint64_t base = (uint64_t)atomic_fetch_add(&crowd->next_producer, 1) * PER_PRODUCER;
    for (uint64_t i = 0; i < PER_PRODUCER; i++) {
        while (queue_push(crowd->queue, item_of(base + i + 1), 3) != ERR_OK) {
            atomic_fetch_add(&crowd->refused, 1);
            if (now_ns() > crowd->deadline_ns) {
                return NULL;
            }
            sched_yield();
        }
    }
    return NULL;
}

static void *consume(void *context)
{
    struct crowd *crowd = context;
    uint64_t last[PRODUCERS] = {0}; /* one consumer sees each producer's items in order */
    for (;;) {
        void *items[16];
        size_t count = queue_pop(crowd->queue, items, 16, crowd->deadline_ns);
        if (count == 0) {
            return NULL;
        }
        for (size_t i = 0; i < count; i++) {
            uint64_t number = number_of(items[i]);
            uint64_t producer = (number - 1) / PER_PRODUCER;
            if (number <= last[producer]) {
                atomic_fetch_add(&crowd->out_of_order, 1);
            }
            last[producer] = number;
            atomic_fetch_add(&crowd->seen[number - 1], 1);
        }
    }
}

static void test_queue_many_threads_each_item_once_in_order(void **state)
{
    (void)state;
    static struct crowd crowd;
    crowd.queue = queue_of(64, 150); /* both limits bite: 50 items of 3 bytes */
    crowd.deadline_ns = now_ns() + CROWD_DEADLINE;
    pthread_t producers[PRODUCERS];
    pthread_t consumers[CONSUMERS];
    for (int i = 0; i < CONSUMERS; i++) {
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, &crowd), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_create(&producers[i], NULL, produce, &crowd), 0);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_join(producers[i], NULL), 0);
    }
    queue_close(crowd.queue);
    for (int i = 0; i < CONSUMERS; i++) {
        assert_int_equal(pthread_join(consumers[i], NULL), 0);
    }
    for (int i = 0; i < ITEMS_IN_ALL; i++) {
        assert_int_equal(atomic_load(&crowd.seen[i]), 1);
    }
    assert_int_equal(atomic_load(&crowd.out_of_order), 0);
    assert_int_equal(queue_count(crowd.queue), 0);
    queue_destroy(crowd.queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_pop_gives_pushed_order_in_batches),
        cmocka_unit_test(test_queue_ring_wraps_and_grows_in_order),
        cmocka_unit_test(test_queue_full_by_count_is_busy),
        cmocka_unit_test(test_queue_full_by_bytes_is_busy),
        cmocka_unit_test(test_queue_oversized_item_fits_an_empty_queue_only),
        cmocka_unit_test(test_queue_push_always_passes_the_bounds),
        cmocka_unit_test(test_queue_pop_empty_returns_at_the_deadline),
        cmocka_unit_test(test_queue_closed_refuses_pushes_and_empties),
        cmocka_unit_test(test_queue_destroy_with_items_is_a_callers_bug),
        cmocka_unit_test(test_queue_close_wakes_every_waiter),
        cmocka_unit_test(test_queue_push_wakes_a_waiter),
        cmocka_unit_test(test_queue_many_threads_each_item_once_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
