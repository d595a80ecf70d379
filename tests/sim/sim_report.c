/* How a run says what it is and why it failed: the test, the seed, the virtual time and the one
 * command that replays it. Process-wide, because a signal handler has no other way to learn which
 * run it is in. Thread: any of the world's. */
#include "sim/sim.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct {
    char replay[192]; /* ready beforehand: the handler only writes it */
    bool trace;
    void (*on_failure)(void);
} report;

static void on_abort(int number)
{
    (void)number;
    ssize_t written = write(STDERR_FILENO, report.replay, strlen(report.replay));
    (void)written;
}

void sim_report_begin(const char *test, uint64_t seed)
{
    (void)snprintf(report.replay, sizeof report.replay,
                   "FAILED %s seed=%" PRIu64 "\nreplay: sim_suite --test %s --seed %" PRIu64 "\n",
                   test, seed, test, seed);
    struct sigaction action = {.sa_handler = on_abort, .sa_flags = (int)SA_RESETHAND};
    (void)sigaction(SIGABRT, &action, NULL); /* abort() raises it again after the handler returns */
}

_Noreturn void sim_fail(const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)fflush(stdout);
    double at_s = sim_world() == NULL ? 0 : (double)sim_now_ns() / 1e9 - 1000;
    (void)fprintf(stderr, "%s:%d at %.6f s: %s\n%s", file, line, at_s, text, report.replay);
    if (report.on_failure != NULL) {
        report.on_failure();
    }
    _exit(1); /* not exit: what the stopped world holds is not a leak worth a report */
}

void sim_report_on_failure(void (*run)(void))
{
    report.on_failure = run;
}

void sim_trace_on(void)
{
    report.trace = true;
}

void sim_trace(const char *format, ...)
{
    if (!report.trace) {
        return;
    }
    double at_s = sim_world() == NULL ? 0 : (double)sim_now_ns() / 1e9 - 1000;
    (void)fprintf(stderr, "%12.6f ", at_s);
    va_list arguments;
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
}
