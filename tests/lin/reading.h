/* What the values that were read say about the writes, found before any search.
 *
 * Every value that is ever read is a base (what some put or cas wrote, or nothing) followed by
 * appended tokens. Walking the observed values from each place that bases and tokens can reach
 * tells which tokens were ever seen, and which values nobody can have written. Where a value can be
 * put together in one way only, that is how it was made. A token in it that only one append writes
 * tells more: that append took effect once, so everything up to the token is the same wherever the
 * token is read, and is what the append must have made. */
#ifndef TESTS_LIN_READING_H
#define TESTS_LIN_READING_H

#include "lin/model.h"

#define LIN_READING_NONE UINT32_MAX

struct lin_reading {
    bool *seen;       /* by token: part of some observed value */
    uint32_t *result; /* by token: the value that its append must make; LIN_VALUE_NONE: not known */
    uint32_t unwritten; /* an observed value that a returned observer saw and nobody can have
                           written, or NONE */
    uint32_t twice; /* a token of one append that returned observers saw behind two beginnings, or
                       NONE */
    uint32_t twice_in[2]; /* the observed values */
};

void lin_reading_init(struct lin_reading *reading, struct lin_model *model,
                      const struct lin_op *ops, size_t count);
void lin_reading_deinit(struct lin_reading *reading);

#endif
