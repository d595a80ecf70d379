/* A TCP proxy in the test's own process that does to connections what networks do: it resets them
 * at chosen moments of a call, lets them go silent without telling anybody (half-open), and delays
 * what passes. It stands before each server: others know only its address.
 *
 * Connections of this process (its clients) and of others (the servers' own) are told apart, and
 * each have faults of their own. A thread of its own moves the bytes; all functions may be called
 * from any thread. */
#ifndef TESTS_FAULT_PROXY_H
#define TESTS_FAULT_PROXY_H

#include <stdint.h>

struct proxy;

enum proxy_side { PROXY_CLIENTS, PROXY_SERVERS, PROXY_SIDES };

/* Chances are per 10000 chunks (what one read got, mostly a message or a few). */
struct proxy_faults {
    uint32_t reset_before; /* a request's bytes are dropped, and both sides reset */
    uint32_t reset_after;  /* the request is passed on, then both sides are reset */
    uint32_t reset_reply;  /* the answer is dropped, and both sides reset: it was executed */
    uint32_t
        half_open; /* nothing passes any more, nobody is told, for 1 to 4 seconds; then reset */
    uint32_t delay_us_max; /* each chunk is kept back for a drawn time up to this, in order */
};

struct proxy_counts {
    uint64_t connections;
    uint64_t reset_before, reset_after, reset_reply, half_open, delayed;
};

struct proxy *proxy_create(uint64_t seed); /* gives */
/* Ends the thread and all connections. takes */
void proxy_destroy(struct proxy *proxy);

/* A new port of loopback whose connections go to `port` of loopback. Of the type of
 * cluster_network.front, with the proxy as its context. */
uint16_t proxy_front(void *proxy, uint16_t port);

void proxy_set(struct proxy *proxy, enum proxy_side side, const struct proxy_faults *faults);
void proxy_count(struct proxy *proxy, enum proxy_side side, struct proxy_counts *out);

#endif
