/* Sums and prints of the 'sometimes' counters. */
#include "raft/sim_counters.h"

#include <inttypes.h>
#include <stdio.h>

void sim_counters_add(struct sim_counters *sum, const struct sim_counters *more)
{
#define X(name, required, what) sum->name += more->name;
    SIM_COUNTERS(X)
#undef X
}

void sim_counters_print(const struct sim_counters *counters)
{
#define X(name, required, what)                                                                    \
    printf("  %10" PRIu64 "  %-24s %s%s\n", counters->name, #name, what,                           \
           (required) && counters->name == 0 ? "  <-- never" : "");
    SIM_COUNTERS(X)
#undef X
}

const char *sim_counters_missing(const struct sim_counters *counters)
{
#define X(name, required, what)                                                                    \
    if ((required) && counters->name == 0) {                                                       \
        return #name;                                                                              \
    }
    SIM_COUNTERS(X)
#undef X
    return NULL;
}
