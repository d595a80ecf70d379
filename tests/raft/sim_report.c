/* The one place of the simulator with process-wide state: a signal handler has no other way to
 * learn which run it is in. Thread: one. */
#include "raft/sim_report.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *name;
    uint64_t seed;
    const struct sim_clock *clock;
    char replay[160]; /* ready beforehand: the handler only writes it */
    bool trace;
} current;

void sim_report_begin(const char *name, uint64_t seed, const struct sim_clock *clock)
{
    current.name = name;
    current.seed = seed;
    current.clock = clock;
    if (name == NULL) {
        current.replay[0] = '\0';
        return;
    }
    (void)snprintf(current.replay, sizeof current.replay,
                   "FAIL %s seed=%" PRIu64 "\nreplay: raft_suite --test %s --seed %" PRIu64 "\n",
                   name, seed, name, seed);
}

static void on_abort(int number)
{
    (void)number;
    ssize_t written = write(STDERR_FILENO, current.replay, strlen(current.replay));
    (void)written;
}

void sim_report_catch_aborts(void)
{
    struct sigaction action = {.sa_handler = on_abort, .sa_flags = (int)SA_RESETHAND};
    (void)sigaction(SIGABRT, &action, NULL); /* abort() raises it again after the handler returns */
}

_Noreturn void sim_fail(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)fflush(stdout);
    double at_s = current.clock == NULL ? 0 : (double)current.clock->now_ns / 1e9;
    (void)fprintf(stderr, "at %.6f s: %s\n%s", at_s, text, current.replay);
    _exit(1); /* not exit: what the stopped simulation holds is not a leak worth a report */
}

void sim_trace_on(void)
{
    current.trace = true;
}

bool sim_trace_is_on(void)
{
    return current.trace;
}

void sim_trace(const char *format, ...)
{
    if (!current.trace) {
        return;
    }
    double at_s = current.clock == NULL ? 0 : (double)current.clock->now_ns / 1e9;
    (void)fprintf(stderr, "%12.6f ", at_s);
    va_list arguments;
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
}
