/* Lowe's cache: the configurations (operations that took effect, state) that a search has been in.
 * Compared exactly, not by hash.
 *
 * Of the required operations, numbered by call, almost all below the first one that is still to
 * take effect are done and almost none far above it, so only the words between the two ends are
 * stored. The set's hash comes from the caller, who keeps it up to date by one exclusive or per
 * operation. */
#ifndef TESTS_LIN_MEMO_H
#define TESTS_LIN_MEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lin_memo {
    uint64_t *slots; /* tag in the high bits, one more than the place in `words` in the low ones; 0:
                        free */
    size_t capacity; /* a power of two, or 0 */
    size_t count;
    uint64_t *words; /* entries, one after another */
    size_t word_count;
    size_t word_capacity;
};

struct lin_config {
    uint64_t hash; /* of everything below */
    uint32_t state;
    bool flag;
    uint32_t low;         /* all words of `done` below are full */
    uint32_t high;        /* all from here on are empty */
    const uint64_t *done; /* words [low, high) count */
    uint32_t open_high;   /* of `open`, words [0, open_high) count, the rest are empty */
    const uint64_t *open; /* operations of unknown outcome that were let take effect */
};

void lin_memo_deinit(struct lin_memo *memo); /* a zeroed memo is empty */
/* True when it is new, and then remembers it. */
bool lin_memo_enter(struct lin_memo *memo, const struct lin_config *config);
/* What it holds, and what it would hold in the middle of its next growth. */
uint64_t lin_memo_bytes(const struct lin_memo *memo);

#endif
