/* Rows that no client touches, spread over all shards: they give moves something to carry, so that
 * faults hit them half-way, and in the end each must be there, once, with its value. */
#ifndef TESTS_FAULT_BALLAST_H
#define TESTS_FAULT_BALLAST_H

#include "fault/fault_test.h"

void ballast_load(struct fault *fault);
/* On a healed cluster. */
void ballast_check(struct fault *fault);

#endif
