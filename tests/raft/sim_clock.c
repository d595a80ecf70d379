/* A binary heap by (time, order). Thread: one. Invariant: now_ns never goes back. */
#include "raft/sim_clock.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <stdlib.h>

void sim_clock_init(struct sim_clock *clock)
{
    *clock = (struct sim_clock){0};
}

void sim_clock_deinit(struct sim_clock *clock)
{
    for (size_t i = 0; i < clock->count; i++) {
        struct sim_event *event = &clock->heap[i];
        if (event->drop != NULL) {
            event->drop(event->context, event->payload, event->tag);
        }
    }
    free(clock->heap);
    *clock = (struct sim_clock){0};
}

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    if (a->at_ns != b->at_ns) {
        return a->at_ns < b->at_ns;
    }
    return a->order < b->order;
}

static void swap(struct sim_event *a, struct sim_event *b)
{
    struct sim_event kept = *a;
    *a = *b;
    *b = kept;
}

void sim_clock_add(struct sim_clock *clock, const struct sim_event *event)
{
    ASSERT_CMP(event->at_ns, >=, clock->now_ns);
    if (clock->count == clock->capacity) {
        clock->capacity = clock->capacity == 0 ? 256 : clock->capacity * 2;
        clock->heap = mem_realloc(clock->heap, clock->capacity * sizeof clock->heap[0]);
    }
    size_t at = clock->count++;
    clock->heap[at] = *event;
    clock->heap[at].order = clock->order++;
    while (at > 0 && before(&clock->heap[at], &clock->heap[(at - 1) / 2])) {
        swap(&clock->heap[at], &clock->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static struct sim_event pop(struct sim_clock *clock)
{
    struct sim_event first = clock->heap[0];
    clock->heap[0] = clock->heap[--clock->count];
    size_t at = 0;
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2; child++) {
            if (child < clock->count && before(&clock->heap[child], &clock->heap[least])) {
                least = child;
            }
        }
        if (least == at) {
            return first;
        }
        swap(&clock->heap[at], &clock->heap[least]);
        at = least;
    }
}

bool sim_clock_step(struct sim_clock *clock, uint64_t limit_ns)
{
    if (clock->count == 0 || clock->heap[0].at_ns > limit_ns) {
        if (clock->now_ns < limit_ns) {
            clock->now_ns = limit_ns;
        }
        return false;
    }
    struct sim_event event = pop(clock);
    clock->now_ns = event.at_ns;
    clock->events_run++;
    event.run(event.context, event.payload, event.tag);
    return true;
}
