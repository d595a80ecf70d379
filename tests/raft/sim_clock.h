/* Virtual time: a heap of things to do, run one by one in the order of their time (and, at one
 * time, in the order they were asked for). One thread; the same calls give the same order, which is
 * what makes a seed replayable. */
#ifndef TESTS_RAFT_SIM_CLOCK_H
#define TESTS_RAFT_SIM_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_US 1000ull
#define SIM_MS 1000000ull
#define SIM_S  1000000000ull

/* `payload` is handed over: `run` (or `drop`, when the simulation ends first) frees it. */
typedef void (*sim_event_fn)(void *context, void *payload, uint64_t tag);

struct sim_event {
    uint64_t at_ns;
    uint64_t order;
    sim_event_fn run;
    sim_event_fn drop; /* NULL: nothing to free */
    void *context;
    void *payload;
    uint64_t tag;
};

struct sim_clock {
    uint64_t now_ns;
    uint64_t order;
    uint64_t events_run;
    struct sim_event *heap;
    size_t count;
    size_t capacity;
};

void sim_clock_init(struct sim_clock *clock);
/* Drops what was never run. */
void sim_clock_deinit(struct sim_clock *clock);
/* order is given by the clock; at_ns >= now_ns. */
void sim_clock_add(struct sim_clock *clock, const struct sim_event *event);
/* Runs the next event if it is due by `limit_ns`; otherwise moves the time to `limit_ns` and
 * returns false. */
bool sim_clock_step(struct sim_clock *clock, uint64_t limit_ns);

#endif
