/* How a run says what it is and why it failed. A failure prints the test, the seed, the virtual
 * time and the one command that replays it, then ends the process: a simulation that broke an
 * invariant has nothing more to say. */
#ifndef TESTS_RAFT_SIM_REPORT_H
#define TESTS_RAFT_SIM_REPORT_H

#include "raft/sim_clock.h"

/* Names the run for failures, including aborts inside the core. `name` and `clock` must outlive the
 * run; NULL ends it. */
void sim_report_begin(const char *name, uint64_t seed, const struct sim_clock *clock);
/* Catches SIGABRT (a failed ASSERT, a sanitizer) to add the replay command to what was printed. */
void sim_report_catch_aborts(void);
/* Ends the process with status 1. */
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Lines on stderr when --trace was given. */
void sim_trace_on(void);
bool sim_trace_is_on(void);
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
