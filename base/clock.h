/* Time is injected: nothing below main() asks the machine. `monotonic_ns` never goes back and drives every
 * timeout; `wall_ns` is for logs and people only. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

struct clock {
    uint64_t (*monotonic_ns)(void *context);
    uint64_t (*wall_ns)(void *context);
    void *context;
};

static inline uint64_t clock_now_ns(const struct clock *clock)
{
    return clock->monotonic_ns(clock->context);
}
static inline uint64_t clock_wall_ns(const struct clock *clock)
{
    return clock->wall_ns(clock->context);
}

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

/* The machine's clocks. Static storage. */
const struct clock *clock_system(void);

#endif
