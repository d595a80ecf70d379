/* What a check may use. Counted here, asked by whoever is about to use more; once spent, spent for
 * all. */
#ifndef TESTS_LIN_BUDGET_H
#define TESTS_LIN_BUDGET_H

#include "base/clock.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lin_spent { LIN_SPENT_NOTHING = 0, LIN_SPENT_TIME, LIN_SPENT_MEMORY, LIN_SPENT_STEPS };

struct lin_budget {
    const struct clock *clock; /* NULL: time does not count */
    uint64_t deadline_ns;
    uint64_t memory_bytes_max;
    uint64_t memory_bytes_base; /* held by the caller for as long as the search runs */
    uint64_t steps_max;
    uint64_t steps;
    uint64_t memory_bytes_peak;
    enum lin_spent spent;
};

enum { LIN_STEPS_BETWEEN_LOOKS = 1024 };

/* One step more, now holding `memory_bytes` besides the base. False: stop. */
static inline bool lin_budget_step(struct lin_budget *budget, uint64_t memory_bytes)
{
    budget->steps++;
    uint64_t held = budget->memory_bytes_base + memory_bytes;
    if (held > budget->memory_bytes_peak) {
        budget->memory_bytes_peak = held;
    }
    if (held > budget->memory_bytes_max) {
        budget->spent = LIN_SPENT_MEMORY;
    } else if (budget->steps > budget->steps_max) {
        budget->spent = LIN_SPENT_STEPS;
    } else if (budget->clock != NULL && budget->steps % LIN_STEPS_BETWEEN_LOOKS == 0 &&
               clock_now_ns(budget->clock) > budget->deadline_ns) {
        budget->spent = LIN_SPENT_TIME;
    }
    return budget->spent == LIN_SPENT_NOTHING;
}

#endif
