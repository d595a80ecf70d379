/* See memo.h. An entry in `words`:
 *
 *   hash | state (32), flag (1) | low (32), high - low (32) | open_high | done[low..high) |
 * open[0..open_high)
 *
 * Invariant: at most half of the slots are taken. */
#include "lin/memo.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

enum {
    SLOTS_FIRST = 1024,
    WORDS_FIRST = 4096,
    ENTRY_HEAD_WORDS = 4,
    PLACE_BITS = 40, /* of a slot: a place among at most 2^40 words, 8 TiB */
};
#define PLACE_MASK ((UINT64_C(1) << PLACE_BITS) - 1)

void lin_memo_deinit(struct lin_memo *memo)
{
    free(memo->slots);
    free(memo->words);
    *memo = (struct lin_memo){0};
}

static void head_of(const struct lin_config *config, uint64_t head[ENTRY_HEAD_WORDS])
{
    head[0] = config->hash;
    head[1] = config->state | (uint64_t)config->flag << 32;
    head[2] = config->low | (uint64_t)(config->high - config->low) << 32;
    head[3] = config->open_high;
}

static bool equals(const uint64_t *entry, const uint64_t head[ENTRY_HEAD_WORDS],
                   const struct lin_config *config)
{
    size_t window = config->high - config->low;
    size_t word = sizeof(uint64_t);
    return memcmp(entry, head, ENTRY_HEAD_WORDS * word) == 0 &&
           memcmp(entry + ENTRY_HEAD_WORDS, config->done + config->low, window * word) == 0 &&
           memcmp(entry + ENTRY_HEAD_WORDS + window, config->open, config->open_high * word) == 0;
}

static void grow_slots(struct lin_memo *memo)
{
    size_t capacity = memo->capacity == 0 ? SLOTS_FIRST : 2 * memo->capacity;
    uint64_t *slots = mem_calloc(capacity, sizeof *slots);
    for (size_t i = 0; i < memo->capacity; i++) {
        if (memo->slots[i] == 0) {
            continue;
        }
        uint64_t hash = memo->words[(memo->slots[i] & PLACE_MASK) - 1];
        size_t at = (size_t)hash & (capacity - 1);
        while (slots[at] != 0) {
            at = (at + 1) & (capacity - 1);
        }
        slots[at] = memo->slots[i];
    }
    free(memo->slots);
    memo->slots = slots;
    memo->capacity = capacity;
}

static uint64_t *reserve_words(struct lin_memo *memo, size_t more)
{
    if (more > memo->word_capacity - memo->word_count) {
        size_t capacity = memo->word_capacity == 0 ? WORDS_FIRST : memo->word_capacity;
        while (more > capacity - memo->word_count) {
            capacity += capacity / 2;
        }
        memo->words = mem_realloc(memo->words, capacity * sizeof memo->words[0]);
        memo->word_capacity = capacity;
    }
    return memo->words + memo->word_count;
}

bool lin_memo_enter(struct lin_memo *memo, const struct lin_config *config)
{
    ASSERT_CMP(config->low, <=, config->high);
    if (memo->count >= memo->capacity / 2) {
        grow_slots(memo);
    }
    uint64_t head[ENTRY_HEAD_WORDS];
    head_of(config, head);
    uint64_t tag = config->hash & ~PLACE_MASK;
    size_t at = (size_t)config->hash & (memo->capacity - 1);
    for (; memo->slots[at] != 0; at = (at + 1) & (memo->capacity - 1)) {
        if ((memo->slots[at] & ~PLACE_MASK) == tag &&
            equals(memo->words + (memo->slots[at] & PLACE_MASK) - 1, head, config)) {
            return false;
        }
    }
    size_t window = config->high - config->low;
    size_t size = ENTRY_HEAD_WORDS + window + config->open_high;
    uint64_t *entry = reserve_words(memo, size);
    memcpy(entry, head, sizeof head);
    memcpy(entry + ENTRY_HEAD_WORDS, config->done + config->low, window * sizeof *entry);
    memcpy(entry + ENTRY_HEAD_WORDS + window, config->open, config->open_high * sizeof *entry);
    ASSERT_CMP(memo->word_count, <, PLACE_MASK);
    memo->slots[at] = tag | (memo->word_count + 1);
    memo->word_count += size;
    memo->count++;
    return true;
}

uint64_t lin_memo_bytes(const struct lin_memo *memo)
{
    /* Growing makes the new before the old is freed. A table about to double counts with both; the
     * words move by half. */
    size_t slots = memo->count >= memo->capacity / 2 - memo->capacity / 32 ? 3 * memo->capacity
                                                                           : memo->capacity;
    size_t words = memo->word_count >= memo->word_capacity - memo->word_capacity / 32
                       ? memo->word_capacity / 2 * 5
                       : memo->word_capacity;
    return (slots + words) * sizeof(uint64_t);
}
