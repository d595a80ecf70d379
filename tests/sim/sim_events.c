/* See sim_events.h. A heap with four children a node: half as deep, and they share cache lines. */
#include "sim/sim_events.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <stdlib.h>

enum { CHILDREN = 4, CAPACITY_FIRST = 256 };

void sim_events_init(struct sim_events *events, uint64_t now_ns)
{
    *events = (struct sim_events){.now_ns = now_ns};
}

void sim_events_deinit(struct sim_events *events)
{
    for (size_t i = 0; i < events->count; i++) {
        const struct sim_scheduled *event = &events->slots[events->heap[i].slot];
        if (event->drop != NULL) {
            event->drop(event->context, event->payload);
        }
    }
    free(events->heap);
    free(events->slots);
    *events = (struct sim_events){0};
}

static uint32_t slot_take(struct sim_events *events)
{
    if (events->first_free != 0) {
        uint32_t slot = events->first_free - 1;
        events->first_free = events->slots[slot].next_free;
        return slot;
    }
    if (events->slot_count == events->slot_capacity) {
        events->slot_capacity =
            events->slot_capacity == 0 ? CAPACITY_FIRST : 2 * events->slot_capacity;
        events->slots = mem_realloc(events->slots, events->slot_capacity * sizeof events->slots[0]);
    }
    return events->slot_count++;
}

static bool before(const struct sim_due *a, const struct sim_due *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void sim_events_add(struct sim_events *events, uint64_t at_ns, const struct sim_scheduled *event)
{
    ASSERT_CMP(at_ns, >=, events->now_ns);
    if (events->count == events->capacity) {
        events->capacity = events->capacity == 0 ? CAPACITY_FIRST : 2 * events->capacity;
        events->heap = mem_realloc(events->heap, events->capacity * sizeof events->heap[0]);
    }
    struct sim_due due = {at_ns, events->order++, slot_take(events)};
    events->slots[due.slot] = *event;
    size_t at = events->count++;
    while (at > 0 && before(&due, &events->heap[(at - 1) / CHILDREN])) {
        events->heap[at] = events->heap[(at - 1) / CHILDREN];
        at = (at - 1) / CHILDREN;
    }
    events->heap[at] = due;
}

/* Takes the first away and puts the last in its place. */
static void heap_shift(struct sim_events *events)
{
    struct sim_due due = events->heap[--events->count];
    size_t at = 0;
    for (;;) {
        size_t first = CHILDREN * at + 1;
        if (first >= events->count) {
            break;
        }
        size_t end = events->count - first < CHILDREN ? events->count : first + CHILDREN;
        size_t least = first;
        for (size_t child = first + 1; child < end; child++) {
            if (before(&events->heap[child], &events->heap[least])) {
                least = child;
            }
        }
        if (!before(&events->heap[least], &due)) {
            break;
        }
        events->heap[at] = events->heap[least];
        at = least;
    }
    events->heap[at] = due;
}

bool sim_events_take(struct sim_events *events, uint64_t limit_ns, struct sim_scheduled *out)
{
    if (events->count == 0 || events->heap[0].at_ns > limit_ns) {
        if (events->now_ns < limit_ns) {
            events->now_ns = limit_ns;
        }
        return false;
    }
    uint32_t slot = events->heap[0].slot;
    events->now_ns = events->heap[0].at_ns;
    *out = events->slots[slot];
    events->slots[slot].next_free = events->first_free;
    events->first_free = slot + 1;
    heap_shift(events);
    return true;
}
