/* Membership changes under faults: one replica after another is replaced by a new one, as an
 * administrator would do it, in steps that may be tried again after an unknown outcome. */
#ifndef TESTS_FAULT_MEMBERS_H
#define TESTS_FAULT_MEMBERS_H

#include "fault/fault_test.h"

enum replacing_stage {
    REPLACING_NONE, /* the next step draws a replica */
    REPLACING_REMOVE,
    REPLACING_START, /* it was removed and still runs: it must do no harm */
    REPLACING_ADD,
    REPLACING_PROMOTE,
};

struct replacing { /* zeroed: nothing was begun */
    struct process *process;
    enum replacing_stage stage;
    uint32_t new_id;
    uint32_t highest_id; /* ids are never used again */
};

/* Tries the next step for `seconds`; goes on to the one after it when that is known to be done. */
void replacing_step(struct fault *fault, struct replacing *replacing, uint32_t seconds);
/* On a healed cluster: what was begun is done. */
void replacing_finish(struct fault *fault, struct replacing *replacing);

void fault_j5(void);

#endif
