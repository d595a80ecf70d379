/* A bar for people. Thread: one. */
#include "client/ctl/progress.h"

#include "base/clock.h"
#include <stdio.h>
#include <unistd.h>

enum { BAR_COLUMNS = 30 };
#define TERMINAL_INTERVAL_NS (200 * NS_PER_MS)
#define PLAIN_INTERVAL_NS    (5 * NS_PER_S)

struct progress progress_start(const char *what, uint64_t now_ns)
{
    return (struct progress){.what = what,
                             .start_ns = now_ns,
                             .shown_ns = now_ns,
                             .terminal = isatty(STDERR_FILENO) != 0};
}

void progress_show(struct progress *progress, uint64_t count, uint64_t at, uint64_t total,
                   uint64_t now_ns)
{
    uint64_t interval_ns = progress->terminal ? TERMINAL_INTERVAL_NS : PLAIN_INTERVAL_NS;
    if (now_ns - progress->shown_ns < interval_ns) {
        return;
    }
    progress->shown_ns = now_ns;
    double seconds = (double)(now_ns - progress->start_ns) / (double)NS_PER_S;
    double rate = seconds > 0 ? (double)count / seconds : 0;
    double share = total > 0 ? (double)at / (double)total : 0;
    if (progress->terminal) {
        char bar[BAR_COLUMNS + 1];
        int filled = share < 1 ? (int)(share * BAR_COLUMNS) : BAR_COLUMNS;
        for (int i = 0; i < BAR_COLUMNS; i++) {
            bar[i] = i < filled ? '#' : '.';
        }
        bar[BAR_COLUMNS] = '\0';
        fprintf(stderr, "\r\033[K%s%s%s %3.0f%%  %llu %s  %.0f/s", total > 0 ? "[" : "",
                total > 0 ? bar : "", total > 0 ? "]" : "", share * 100, (unsigned long long)count,
                progress->what, rate);
        progress->drawn = true;
    } else {
        fprintf(stderr, "%llu %s, %.0f/s", (unsigned long long)count, progress->what, rate);
        if (total > 0) {
            fprintf(stderr, ", %.0f%%", share * 100);
        }
        (void)fputc('\n', stderr);
    }
    (void)fflush(stderr);
}

void progress_end(struct progress *progress)
{
    if (progress->drawn) {
        fprintf(stderr, "\r\033[K");
        (void)fflush(stderr);
        progress->drawn = false;
    }
}
