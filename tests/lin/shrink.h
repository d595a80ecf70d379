/* From a key that is not linearizable to the few operations that show it. Used through check.h. */
#ifndef TESTS_LIN_SHRINK_H
#define TESTS_LIN_SHRINK_H

#include "lin/check.h"

/* Bounds of the search for evidence, beyond those of the check: after them what was found so far is
 * reported. */
#define LIN_SHRINK_NS_MAX   (10 * NS_PER_S)
#define LIN_SHRINK_WORK_MAX UINT64_C(50000000) /* steps, and operations made ready for them */

/* `ops`, sorted by call, must be broken. Fills in the failure but for its key. */
void lin_shrink(const struct lin_op *ops, size_t count, const struct lin_budget *budget,
                struct lin_failure *failure);

#endif
