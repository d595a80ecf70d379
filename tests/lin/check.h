/* Is a history linearizable? Each key by itself (linearizability is local: Herlihy and Wing
 * 1990, 3.2), smallest first.
 *
 *     struct lin_history *history = lin_history_create();
 *     lin_history_add(history, &(struct lin_op){.kind = LIN_PUT, .key = ..., ...});
 *     struct lin_result result;
 *     if (lin_check(history, &(struct lin_limits){.explain = true}, &result) != LIN_LINEARIZABLE) {
 *         struct buf text; ... lin_report_text(&result, &text); (report.h)
 *     }
 *     lin_result_deinit(&result);
 *
 * LIN_BROKEN is a proof and comes with its evidence. LIN_UNKNOWN means that a limit was hit before
 * an answer; a gate must not let it pass. A broken key is reported even when another key is
 * unknown. */
#ifndef TESTS_LIN_CHECK_H
#define TESTS_LIN_CHECK_H

#include "lin/search.h"

#define LIN_MEMORY_BYTES_DEFAULT (UINT64_C(1) << 30)

struct lin_limits {
    const struct clock *clock; /* NULL: no limit of time. clock_system() for real time */
    uint64_t
        time_ns; /* for all keys together; 0: no limit. Evidence may take some more: see shrink.h */
    uint64_t memory_bytes; /* history and search; 0: LIN_MEMORY_BYTES_DEFAULT */
    uint64_t
        steps_max; /* in all; 0: no limit. The same history stops at the same step everywhere */
    bool explain;  /* look for the shortest failing part */
    bool plain;    /* no shortcut but the cache: for tests of the shortcuts */
};

/* Why a key is not linearizable. */
struct lin_failure {
    struct bytes key;
    size_t key_ops; /* operations on the key */
    /* The history up to this return is not linearizable, up to any earlier one it is. Without
     * `explain`: 0 and NULL. */
    const struct lin_op *culprit;
    size_t prefix_ops; /* operations called until then */
    /* These alone are not linearizable either. Leaving out a get, or forgetting that a write
     * returned, never breaks a history, so whoever sees that no order explains these has seen that
     * none explains the whole. Sorted by call; a write whose return was forgotten has LIN_NEVER.
     * Owned by the result; bytes borrowed from the history. */
    struct lin_op *core;
    size_t core_count;
    enum lin_reason reason; /* otherwise than LIN_NO_ORDER, the core is the operations it names */
    bool core_is_minimal;   /* none of it can be left out or forgotten */
};

struct lin_result {
    enum lin_verdict verdict;
    enum lin_spent spent; /* of LIN_UNKNOWN: which limit */
    struct bytes
        unknown_key; /* of LIN_UNKNOWN: where it was hit; empty when before any key. Borrowed */
    size_t unknown_placed, unknown_ops;
    size_t keys, keys_checked;
    size_t ops;
    uint64_t steps, configurations;
    uint64_t memory_bytes_peak; /* as counted against the limit */
    struct lin_failure failure; /* of LIN_BROKEN */
};

/* Borrows the history, which must not change while the result is in use. */
enum lin_verdict lin_check(struct lin_history *history, const struct lin_limits *limits,
                           struct lin_result *result);
void lin_result_deinit(struct lin_result *result);

#endif
