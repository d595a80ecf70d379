/* A binary heap of pointers; each node knows its place, so that it can be moved or removed in
 * place. Invariant: nodes[i]->place == i + 1, and no node is earlier than its parent. */
#include "client/timers.h"

#include "base/assert.h"
#include "base/bytes.h"
#include <stdlib.h>

void timers_init(struct timers *timers)
{
    *timers = (struct timers){0};
}

void timers_deinit(struct timers *timers)
{
    free(timers->nodes);
    *timers = (struct timers){0};
}

static void place(struct timers *timers, uint32_t index, struct timer_node *node)
{
    timers->nodes[index] = node;
    node->place = index + 1;
}

static void sift_up(struct timers *timers, uint32_t index)
{
    struct timer_node *node = timers->nodes[index];
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (timers->nodes[parent]->at_ns <= node->at_ns) {
            break;
        }
        place(timers, index, timers->nodes[parent]);
        index = parent;
    }
    place(timers, index, node);
}

static void sift_down(struct timers *timers, uint32_t index)
{
    struct timer_node *node = timers->nodes[index];
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= timers->count) {
            break;
        }
        if (child + 1 < timers->count &&
            timers->nodes[child + 1]->at_ns < timers->nodes[child]->at_ns) {
            child++;
        }
        if (node->at_ns <= timers->nodes[child]->at_ns) {
            break;
        }
        place(timers, index, timers->nodes[child]);
        index = child;
    }
    place(timers, index, node);
}

void timers_set(struct timers *timers, struct timer_node *node, uint64_t at_ns)
{
    if (node->place == 0) {
        if (timers->count == timers->capacity) {
            timers->capacity = timers->capacity == 0 ? 64 : timers->capacity * 2;
            timers->nodes =
                mem_realloc(timers->nodes, timers->capacity * sizeof(struct timer_node *));
        }
        node->at_ns = at_ns;
        place(timers, timers->count, node);
        timers->count++;
        sift_up(timers, timers->count - 1);
        return;
    }
    ASSERT(timers->nodes[node->place - 1] == node);
    node->at_ns = at_ns;
    sift_up(timers, node->place - 1);
    sift_down(timers, node->place - 1);
}

void timers_clear(struct timers *timers, struct timer_node *node)
{
    if (node->place == 0) {
        return;
    }
    uint32_t index = node->place - 1;
    ASSERT(timers->nodes[index] == node);
    node->place = 0;
    timers->count--;
    if (index < timers->count) {
        struct timer_node *moved = timers->nodes[timers->count];
        place(timers, index, moved);
        sift_up(timers, index);
        sift_down(timers, moved->place - 1);
    }
}

struct timer_node *timers_first(const struct timers *timers)
{
    return timers->count > 0 ? timers->nodes[0] : NULL;
}
