/* What the clients of a simulated cluster were answered, and whether it is linearizable: the
 * checker of tests/lin on histories that clerk.c notes. An operation whose outcome is unknown may
 * take effect at any moment after its call, or never; one that surely was not executed is not
 * noted at all. Versions are claims too: they grow with every change of a key. */
#ifndef TESTS_SIM_LINEAR_H
#define TESTS_SIM_LINEAR_H

#include "lin/history.h"

struct linear_history;

struct linear_history *linear_create(void); /* gives */
void linear_destroy(struct linear_history *history);
void linear_add(struct linear_history *history, const struct lin_op *op); /* copied */
size_t linear_count(const struct linear_history *history);
/* Fails the run, with the evidence, unless it is linearizable; a search that gave up fails too. */
void linear_require(struct linear_history *history);

#endif
