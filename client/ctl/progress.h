/* How far a long command is, on standard error: a bar that redraws itself on a terminal, a line
 * every few seconds elsewhere. One thread. */
#ifndef CLIENT_CTL_PROGRESS_H
#define CLIENT_CTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* "rows" */
    uint64_t start_ns;
    uint64_t shown_ns;
    bool terminal;
    bool drawn; /* something stands on the terminal's line */
};

struct progress progress_start(const char *what, uint64_t now_ns);
/* Shows `count` things, and the share `at` of `total` (0: unknown), if it is time again. */
void progress_show(struct progress *progress, uint64_t count, uint64_t at, uint64_t total,
                   uint64_t now_ns);
/* Wipes the bar; call before anything else is printed. */
void progress_end(struct progress *progress);

#endif
