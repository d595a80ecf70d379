/* A bounded queue of pointers between threads: many producers, many consumers, one mutex, batches out.
 * The bound is a count of items and a sum of bytes; what is over either is refused at once, never waited for. */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue;

struct queue_limits {
    uint32_t items_max;
    uint64_t bytes_max;
};

struct queue *queue_create(struct queue_limits limits); /* gives */
void queue_destroy(struct queue *queue);                /* takes; it must be empty */

/* takes `item` on OK. ERR_BUSY: full. ERR_SHUTDOWN: closed. An item larger than bytes_max fits an empty queue. */
int queue_push(struct queue *queue, void *item, size_t bytes) MUST_USE;
/* The same, but never refused for room: for completions, whose number is bounded by what was started. */
int queue_push_always(struct queue *queue, void *item, size_t bytes) MUST_USE;

/* Moves up to `items_max` items to `items` and returns how many; waits until there is one, `deadline_ns`
 * (CLOCK_MONOTONIC, 0 = do not wait, UINT64_MAX = for ever) passes, or the queue is closed (then what is left
 * still comes out, and 0 means closed and empty or the deadline). */
size_t queue_pop(struct queue *queue, void **items, size_t items_max, uint64_t deadline_ns);

/* No more pushes; waiters wake. Idempotent. */
void queue_close(struct queue *queue);
bool queue_is_closed(struct queue *queue);
size_t queue_count(struct queue *queue);

#endif
