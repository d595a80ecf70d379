/* See shrink.h. Three steps, each of which keeps the history broken and could not have broken a
 * good one:
 *
 *   1. Cut it off after the earliest return that breaks it, by halving: what is linearizable is so
 * up to any moment. What had been called and not returned by then has an unknown outcome.
 *   2. Forget claims, in ever smaller pieces (Zeller's ddmin): leave out gets, let writes be of
 * unknown outcome, drop versions. Fewer claims, more orders.
 *   3. Leave out writes of unknown outcome that the search finds nobody saw: with or without them
 * is the same. */
#include "lin/shrink.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

struct shrinker {
    const struct lin_budget *limits;
    uint64_t deadline_ns;
    uint64_t work;
    bool stopped;                /* the bounds were hit */
    bool uncertain;              /* some check found no answer */
    bool *pointless;             /* by operation of the last check */
    struct lin_search_info info; /* of the last check */
};

static bool is_broken(struct shrinker *shrinker, const struct lin_op *ops, size_t count)
{
    const struct lin_budget *limits = shrinker->limits;
    struct lin_budget budget = {
        .clock = limits->clock,
        .deadline_ns = shrinker->deadline_ns,
        .memory_bytes_max = limits->memory_bytes_max,
        .memory_bytes_base = limits->memory_bytes_base,
        /* As much again as the whole took, and no less than a small one needs. */
        .steps_max = 2 * limits->steps + 100000};
    if (shrinker->work > LIN_SHRINK_WORK_MAX ||
        (budget.clock != NULL && clock_now_ns(budget.clock) > budget.deadline_ns)) {
        shrinker->stopped = true;
        return false;
    }
    enum lin_verdict verdict =
        lin_search(ops, count, false, &budget, &shrinker->info, shrinker->pointless);
    shrinker->work += budget.steps + count;
    shrinker->uncertain = shrinker->uncertain || verdict == LIN_UNKNOWN;
    return verdict == LIN_BROKEN;
}

/* --- 1. the shortest broken beginning --- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool says_nothing_open(const struct lin_op *op)
{
    return op->kind == LIN_GET || op->kind == LIN_SEEN;
}

static void make_open(struct lin_op *op)
{
    op->returned_ns = LIN_NEVER;
    op->version = 0;
}

/* The operations called until `end_ns`; what returned later had not returned. */
static size_t cut(const struct lin_op *ops, size_t count, uint64_t end_ns, struct lin_op *out)
{
    size_t kept = 0;
    for (size_t i = 0; i < count && ops[i].called_ns <= end_ns; i++) {
        if (ops[i].returned_ns <= end_ns) {
            out[kept++] = ops[i];
        } else if (!says_nothing_open(&ops[i])) {
            out[kept] = ops[i];
            make_open(&out[kept++]);
        }
    }
    return kept;
}

/* Returns how many operations `out` holds. */
static size_t cut_shortest(struct shrinker *shrinker, const struct lin_op *ops, size_t count,
                           struct lin_op *out, struct lin_failure *failure)
{
    uint64_t *returns = mem_calloc(count, sizeof *returns);
    size_t return_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (ops[i].returned_ns != LIN_NEVER) {
            returns[return_count++] = ops[i].returned_ns;
        }
    }
    ASSERT_CMP(return_count, >, 0); /* without a return nothing is claimed, so nothing is broken */
    qsort(returns, return_count, sizeof *returns, by_number);
    size_t good = 0; /* up to before returns[good] it is linearizable, or not known to be broken */
    size_t broken = return_count - 1;
    while (good < broken) {
        size_t middle = good + (broken - good) / 2;
        if (is_broken(shrinker, out, cut(ops, count, returns[middle], out))) {
            broken = middle;
        } else {
            good = middle + 1;
        }
    }
    uint64_t end_ns = returns[broken];
    free(returns);
    for (size_t i = 0; i < count && ops[i].called_ns <= end_ns; i++) {
        failure->prefix_ops++;
        if (ops[i].returned_ns == end_ns) {
            failure->culprit = &ops[i];
        }
    }
    return cut(ops, count, end_ns, out);
}

/* --- 2. and 3.: fewer claims --- */

enum forget { FORGET_VERSIONS, FORGET_GETS, FORGET_OUTCOMES };

static bool can_forget(const struct lin_op *op, enum forget what)
{
    switch (what) {
    case FORGET_VERSIONS:
        return op->kind != LIN_SEEN && (op->version > 0 || op->expected > 0);
    case FORGET_GETS:
        return says_nothing_open(op);
    case FORGET_OUTCOMES:
        return op->returned_ns != LIN_NEVER;
    }
    UNREACHABLE();
}

/* ops with what can be forgotten in [from, to) forgotten; returns how many `out` holds. */
static size_t forget(const struct lin_op *ops, size_t count, size_t from, size_t to,
                     enum forget what, struct lin_op *out)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        out[kept] = ops[i];
        if (i < from || i >= to || !can_forget(&ops[i], what)) {
            kept++;
        } else if (what == FORGET_VERSIONS) {
            out[kept].version = 0;
            out[kept++].expected = 0;
        } else if (!says_nothing_open(&ops[i])) {
            make_open(&out[kept++]);
        }
    }
    return kept;
}

static size_t drop_pointless(const bool *pointless, struct lin_op *ops, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (!pointless[i]) {
            ops[kept++] = ops[i];
        }
    }
    return kept;
}

/* Forgets what can be forgotten, in pieces of half the list down to single operations. True:
 * something was. */
static bool forget_pieces(struct shrinker *shrinker, struct lin_op *ops, size_t *count,
                          struct lin_op *scratch, enum forget what)
{
    bool any = false;
    for (size_t piece = *count / 2 + 1; piece > 0; piece /= 2) {
        /* From the end: what matters tends to be near it, and what is before it goes in larger
         * pieces. */
        size_t to = *count;
        while (to > 0 && !shrinker->stopped) {
            size_t from = to > piece ? to - piece : 0;
            bool can = false;
            for (size_t i = from; i < to; i++) {
                can = can || can_forget(&ops[i], what);
            }
            if (can) {
                size_t left = forget(ops, *count, from, to, what, scratch);
                if (is_broken(shrinker, scratch, left)) {
                    left = drop_pointless(shrinker->pointless, scratch, left);
                    memcpy(ops, scratch, left * sizeof *ops);
                    *count = left;
                    any = true;
                }
            }
            to = from < *count ? from : *count;
        }
    }
    return any;
}

/* When the values alone convict, `core` becomes the few operations they convict. */
static void pick_reason(const struct lin_search_info *info, struct lin_op *core, size_t *count,
                        struct lin_failure *failure)
{
    size_t named = info->reason == LIN_NOT_WRITTEN ? 1 : info->reason == LIN_TWICE_APPLIED ? 3 : 0;
    if (named == 0) {
        return;
    }
    failure->reason = info->reason;
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++) {
        bool picked = false;
        for (size_t j = 0; j < named; j++) {
            picked = picked || info->reason_ops[j] == i;
        }
        if (picked) {
            core[kept++] = core[i];
        }
    }
    *count = kept;
}

void lin_shrink(const struct lin_op *ops, size_t count, const struct lin_budget *budget,
                struct lin_failure *failure)
{
    struct shrinker shrinker = {.limits = budget};
    if (budget->clock != NULL) {
        shrinker.deadline_ns = clock_now_ns(budget->clock) + LIN_SHRINK_NS_MAX;
    }
    shrinker.pointless = mem_calloc(count, sizeof *shrinker.pointless);
    struct lin_op *core = mem_calloc(count, sizeof *core);
    struct lin_op *scratch = mem_calloc(count, sizeof *scratch);
    size_t left = cut_shortest(&shrinker, ops, count, core, failure);
    if (is_broken(&shrinker, core, left)) {
        left = drop_pointless(shrinker.pointless, core, left);
    }
    bool again = shrinker.info.reason == LIN_NO_ORDER;
    while (again && !shrinker.stopped) {
        shrinker.uncertain = false; /* what counts is the last round, which finds nothing more */
        again = forget_pieces(&shrinker, core, &left, scratch, FORGET_VERSIONS);
        /* Gets before returns: a write that returned says as much as one that somebody saw, and in
         * one operation. */
        again = forget_pieces(&shrinker, core, &left, scratch, FORGET_GETS) || again;
        again = forget_pieces(&shrinker, core, &left, scratch, FORGET_OUTCOMES) || again;
    }
    if (is_broken(&shrinker, core, left)) {
        pick_reason(&shrinker.info, core, &left, failure);
    }
    failure->core = core;
    failure->core_count = left;
    failure->core_is_minimal = !shrinker.stopped && !shrinker.uncertain;
    free(scratch);
    free(shrinker.pointless);
}
