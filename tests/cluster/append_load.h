/* Clients that append unique tokens to keys until told to stop, and the proof afterwards: every
 * acknowledged token is in its key exactly once, none is there that was not sent, and each client's
 * tokens stand in the order it sent them. */
#ifndef TESTS_CLUSTER_APPEND_LOAD_H
#define TESTS_CLUSTER_APPEND_LOAD_H

#include <stdint.h>

struct append_load;

struct append_load_options {
    const char *controllers;
    const char *cluster;
    uint32_t clients; /* threads, each with a client of its own and one append in flight */
    uint32_t keys;
    uint32_t timeout_ms; /* of one append */
};

struct append_load_report {
    uint64_t acknowledged;
    uint64_t unknown;  /* deadline passed: may be there once or not at all */
    uint64_t not_done; /* must not be there */
    double slowest_seconds;
    char error[256]; /* "" when the proof holds */
};

/* gives. Fails the program when a client cannot be opened. */
struct append_load *append_load_start(const struct append_load_options *options);
/* takes. Stops the clients, reads every key back and proves. */
void append_load_stop(struct append_load *load, struct append_load_report *report);

#endif
