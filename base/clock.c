/* The machine's clocks. Any thread. */
#include "base/clock.h"

#include "base/assert.h"

#include <stddef.h>
#include <time.h>

static uint64_t clock_read_ns(clockid_t id)
{
    struct timespec now;
    int failed = clock_gettime(id, &now);
    ASSERT(failed == 0); /* both ids exist on every kernel we run on */
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t clock_system_monotonic_ns(void *context)
{
    (void)context;
    return clock_read_ns(CLOCK_MONOTONIC);
}

static uint64_t clock_system_wall_ns(void *context)
{
    (void)context;
    return clock_read_ns(CLOCK_REALTIME);
}

const struct clock *clock_system(void)
{
    static const struct clock clock = {clock_system_monotonic_ns, clock_system_wall_ns, NULL};
    return &clock;
}
