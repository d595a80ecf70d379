/* Are the operations of one key linearizable? The search of Wing and Gong ("Testing and Verifying
 * Concurrent Objects", 1993) with the cache of Lowe ("Testing for Linearizability", 2017). Used
 * through check.h. */
#ifndef TESTS_LIN_SEARCH_H
#define TESTS_LIN_SEARCH_H

#include "lin/budget.h"
#include "lin/history.h"

enum lin_verdict {
    LIN_LINEARIZABLE = 0,
    LIN_BROKEN = 1, /* not linearizable */
    LIN_UNKNOWN = 2 /* a limit was hit; says nothing either way */
};

enum lin_reason {
    LIN_NO_ORDER = 0,  /* every order was ruled out */
    LIN_NOT_WRITTEN,   /* reason_ops[0] saw a value that nothing of all that was called makes */
    LIN_TWICE_APPLIED, /* reason_ops[0], an append, was seen in two places by [1] and [2]; they may
                          be one */
};

struct lin_search_info {
    uint64_t configurations; /* entered */
    size_t placed_max;       /* most operations that were in an order at once */
    enum lin_reason reason;  /* of LIN_BROKEN */
    size_t reason_ops[3];
};

/* All of one key, in any order. `plain`: no shortcut but the cache, to check the others by.
 * `pointless`, if not NULL, has room for `count` and is set for each operation of unknown outcome
 * that the verdict does not depend on. */
enum lin_verdict lin_search(const struct lin_op *ops, size_t count, bool plain,
                            struct lin_budget *budget, struct lin_search_info *info,
                            bool *pointless);

#endif
