/* A heap of times: who is due next. Nodes live inside what they time; setting, moving and removing
 * one is O(log n) and needs no search. One owner, one thread. */
#ifndef CLIENT_TIMERS_H
#define CLIENT_TIMERS_H

#include <stddef.h>
#include <stdint.h>

struct timer_node {
    uint64_t at_ns;
    uint32_t place; /* 1 + index in the heap; 0: not set, so a zeroed node is a valid one */
    uint32_t kind;  /* the owner's */
};

struct timers {
    struct timer_node **nodes;
    uint32_t count;
    uint32_t capacity;
};

void timers_init(struct timers *timers);
void timers_deinit(struct timers *timers); /* nodes are the owner's */
/* Sets or moves. */
void timers_set(struct timers *timers, struct timer_node *node, uint64_t at_ns);
void timers_clear(struct timers *timers, struct timer_node *node); /* also when not set */
/* The earliest, still set; NULL when none is. */
struct timer_node *timers_first(const struct timers *timers);

#endif
