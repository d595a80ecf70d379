/* A bounded queue of pointers between threads.
 *
 * Thread: any; one mutex guards every field under it, and nothing is called while it is held. Items
 * lie in a ring that doubles when it is full; its size is bounded by items_max plus what
 * push_always() adds, which is bounded by its callers.
 *
 * Invariants: count <= capacity; capacity is a power of two; bytes is the sum over the items in the
 * ring. */
#include "base/queue.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define QUEUE_CAPACITY_MIN 16
static_assert((QUEUE_CAPACITY_MIN & (QUEUE_CAPACITY_MIN - 1)) == 0,
              "the ring is indexed by a mask");

struct queue_slot {
    void *item;
    size_t bytes;
};

struct queue {
    struct queue_limits limits;
    pthread_mutex_t lock;
    /* under lock */
    pthread_cond_t not_empty;
    struct queue_slot *slots;
    size_t capacity;
    size_t first;
    size_t count;
    uint64_t bytes;
    uint32_t waiter_count;
    bool closed;
};

struct queue *queue_create(struct queue_limits limits)
{
    ASSERT_CMP(limits.items_max, >, 0);
    struct queue *queue = mem_calloc(1, sizeof(*queue));
    queue->limits = limits;
    queue->capacity = QUEUE_CAPACITY_MIN;
    queue->slots = mem_calloc(queue->capacity, sizeof(queue->slots[0]));

    /* Deadlines are of the monotonic clock: a step of the wall clock must not wake or hold a
     * waiter. */
    pthread_condattr_t attributes;
    int failed = pthread_condattr_init(&attributes);
    ASSERT(failed == 0);
    failed = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    ASSERT(failed == 0);
    failed = pthread_cond_init(&queue->not_empty, &attributes);
    ASSERT(failed == 0);
    failed = pthread_mutex_init(&queue->lock, NULL);
    ASSERT(failed == 0);
    pthread_condattr_destroy(&attributes);
    return queue;
}

void queue_destroy(struct queue *queue)
{
    if (queue == NULL) {
        return;
    }
    ASSERT_CMP(queue->count, ==, 0);
    ASSERT_CMP(queue->waiter_count, ==, 0);
    pthread_cond_destroy(&queue->not_empty);
    pthread_mutex_destroy(&queue->lock);
    free(queue->slots);
    free(queue);
}

static void queue_grow(struct queue *queue)
{
    ASSERT_CMP(queue->count, ==, queue->capacity);
    struct queue_slot *slots = mem_calloc(queue->capacity * 2, sizeof(slots[0]));
    for (size_t i = 0; i < queue->count; i++) {
        slots[i] = queue->slots[(queue->first + i) & (queue->capacity - 1)];
    }
    free(queue->slots);
    queue->slots = slots;
    queue->capacity *= 2;
    queue->first = 0;
}

static void queue_append(struct queue *queue, void *item, size_t bytes)
{
    if (queue->count == queue->capacity) {
        queue_grow(queue);
    }
    size_t at = (queue->first + queue->count) & (queue->capacity - 1);
    queue->slots[at] = (struct queue_slot){item, bytes};
    queue->count++;
    queue->bytes += bytes;
    if (queue->waiter_count > 0) {
        pthread_cond_signal(&queue->not_empty);
    }
}

/* push_always() may have gone past either limit: compare before subtracting. */
static bool queue_has_room(const struct queue *queue, size_t bytes)
{
    if (queue->count == 0) {
        return true;
    }
    return queue->count < queue->limits.items_max && queue->bytes <= queue->limits.bytes_max &&
           bytes <= queue->limits.bytes_max - queue->bytes;
}

int queue_push(struct queue *queue, void *item, size_t bytes)
{
    int error = ERR_OK;
    pthread_mutex_lock(&queue->lock);
    if (queue->closed) {
        error = ERR_SHUTDOWN;
    } else if (!queue_has_room(queue, bytes)) {
        error = ERR_BUSY;
    } else {
        queue_append(queue, item, bytes);
    }
    pthread_mutex_unlock(&queue->lock);
    return error;
}

int queue_push_always(struct queue *queue, void *item, size_t bytes)
{
    int error = ERR_OK;
    pthread_mutex_lock(&queue->lock);
    if (queue->closed) {
        error = ERR_SHUTDOWN;
    } else {
        queue_append(queue, item, bytes);
    }
    pthread_mutex_unlock(&queue->lock);
    return error;
}

/* Waits, the lock held, until there is an item, the queue is closed or the deadline has passed. */
static void queue_wait(struct queue *queue, uint64_t deadline_ns)
{
    if (deadline_ns == 0) {
        return;
    }
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                .tv_nsec = (long)(deadline_ns % NS_PER_S)};
    int failed = 0;
    queue->waiter_count++;
    while (queue->count == 0 && !queue->closed && failed != ETIMEDOUT) {
        failed = deadline_ns == UINT64_MAX
                     ? pthread_cond_wait(&queue->not_empty, &queue->lock)
                     : pthread_cond_timedwait(&queue->not_empty, &queue->lock, &deadline);
        ASSERT(failed == 0 || failed == ETIMEDOUT);
    }
    queue->waiter_count--;
}

size_t queue_pop(struct queue *queue, void **items, size_t items_max, uint64_t deadline_ns)
{
    ASSERT_CMP(items_max, >, 0);
    pthread_mutex_lock(&queue->lock);
    queue_wait(queue, deadline_ns);
    size_t taken = queue->count < items_max ? queue->count : items_max;
    for (size_t i = 0; i < taken; i++) {
        struct queue_slot *slot = &queue->slots[queue->first];
        items[i] = slot->item;
        queue->bytes -= slot->bytes;
        queue->first = (queue->first + 1) & (queue->capacity - 1);
    }
    queue->count -= taken;
    /* The signal for what is left may have gone to a waiter whose deadline passed at the same
     * moment. */
    if (queue->count > 0 && queue->waiter_count > 0) {
        pthread_cond_signal(&queue->not_empty);
    }
    pthread_mutex_unlock(&queue->lock);
    return taken;
}

void queue_close(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_mutex_unlock(&queue->lock);
}

bool queue_is_closed(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    bool closed = queue->closed;
    pthread_mutex_unlock(&queue->lock);
    return closed;
}

size_t queue_count(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    size_t count = queue->count;
    pthread_mutex_unlock(&queue->lock);
    return count;
}
