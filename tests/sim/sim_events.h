/* What will happen in a simulated world: a heap by (time, order asked for). The events themselves
 * stay where they are in slots that are used again, so nothing is allocated for one. Thread: one.
 * Invariant: now_ns never goes back. */
#ifndef TESTS_SIM_SIM_EVENTS_H
#define TESTS_SIM_SIM_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_host;
typedef void (*sim_event_run_fn)(void *context, void *payload);

struct sim_scheduled {
    struct sim_host *host; /* NULL: on none */
    uint32_t incarnation;
    uint32_t next_free;
    sim_event_run_fn run;
    sim_event_run_fn drop; /* NULL: nothing to give back */
    void *context;
    void *payload;
};

struct sim_due {
    uint64_t at_ns;
    uint64_t order;
    uint32_t slot;
};

struct sim_events {
    uint64_t now_ns;
    uint64_t order;
    struct sim_due *heap;
    size_t count, capacity;
    struct sim_scheduled *slots;
    uint32_t slot_count, slot_capacity;
    uint32_t first_free; /* index + 1; 0: none */
};

void sim_events_init(struct sim_events *events, uint64_t now_ns);
/* Drops what was never run. */
void sim_events_deinit(struct sim_events *events);
void sim_events_add(struct sim_events *events, uint64_t at_ns, const struct sim_scheduled *event);
/* The next event if it is due by `limit_ns`, and it is that time; otherwise moves the time to
 * `limit_ns` and returns false. */
bool sim_events_take(struct sim_events *events, uint64_t limit_ns, struct sim_scheduled *out);

#endif
