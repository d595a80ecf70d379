/* See check.h. */
#include "lin/check.h"

#include "base/assert.h"
#include "lin/shrink.h"

#include <stdlib.h>

struct key_range {
    size_t from, count; /* of the sorted operations */
};

static int by_count(const void *a, const void *b)
{
    const struct key_range *x = a;
    const struct key_range *y = b;
    if (x->count != y->count) {
        return x->count < y->count ? -1 : 1;
    }
    return x->from < y->from ? -1 : x->from > y->from;
}

/* gives */
static struct key_range *split_keys(const struct lin_op *ops, size_t count, size_t *keys)
{
    struct key_range *ranges = mem_calloc(count, sizeof *ranges);
    size_t made = 0;
    for (size_t i = 0; i < count; i++) {
        if (made == 0 || !bytes_equal(ops[i].key, ops[i - 1].key)) {
            ranges[made++] = (struct key_range){.from = i};
        }
        ranges[made - 1].count++;
    }
    qsort(ranges, made, sizeof *ranges, by_count);
    *keys = made;
    return ranges;
}

static struct lin_budget budget_of(const struct lin_limits *limits, uint64_t held_bytes)
{
    struct lin_budget budget = {
        .memory_bytes_max =
            limits->memory_bytes > 0 ? limits->memory_bytes : LIN_MEMORY_BYTES_DEFAULT,
        .memory_bytes_base = held_bytes,
        .steps_max = limits->steps_max > 0 ? limits->steps_max : UINT64_MAX,
    };
    if (limits->clock != NULL && limits->time_ns > 0) {
        uint64_t now = clock_now_ns(limits->clock);
        budget.clock = limits->clock;
        budget.deadline_ns =
            limits->time_ns > UINT64_MAX - now ? UINT64_MAX : now + limits->time_ns;
    }
    return budget;
}

static void note_unknown(struct lin_result *result, const struct lin_op *ops, size_t count,
                         const struct lin_search_info *info, enum lin_spent spent)
{
    if (result->verdict == LIN_UNKNOWN) {
        return; /* the first one stands */
    }
    result->verdict = LIN_UNKNOWN;
    result->spent = spent;
    result->unknown_key = ops[0].key;
    result->unknown_placed = info->placed_max;
    result->unknown_ops = count;
}

static void note_broken(struct lin_result *result, const struct lin_op *ops, size_t count,
                        const struct lin_limits *limits, const struct lin_budget *budget)
{
    result->verdict = LIN_BROKEN;
    result->spent = LIN_SPENT_NOTHING;
    result->failure = (struct lin_failure){.key = ops[0].key, .key_ops = count};
    if (limits->explain) {
        lin_shrink(ops, count, budget, &result->failure);
    }
}

enum lin_verdict lin_check(struct lin_history *history, const struct lin_limits *limits,
                           struct lin_result *result)
{
    size_t count = lin_history_count(history);
    *result = (struct lin_result){.ops = count};
    struct lin_budget budget = budget_of(limits, lin_history_bytes(history));
    result->memory_bytes_peak = budget.memory_bytes_base;
    if (budget.memory_bytes_base > budget.memory_bytes_max) {
        result->verdict = LIN_UNKNOWN;
        result->spent = LIN_SPENT_MEMORY;
        return result->verdict;
    }
    const struct lin_op *ops = lin_history_sorted(history);
    struct key_range *ranges = split_keys(ops, count, &result->keys);
    for (size_t i = 0; i < result->keys && result->verdict != LIN_BROKEN; i++) {
        const struct lin_op *first = &ops[ranges[i].from];
        struct lin_search_info info;
        enum lin_verdict verdict =
            lin_search(first, ranges[i].count, limits->plain, &budget, &info, NULL);
        result->keys_checked++;
        result->configurations += info.configurations;
        if (verdict == LIN_BROKEN) {
            note_broken(result, first, ranges[i].count, limits, &budget);
        } else if (verdict == LIN_UNKNOWN) {
            note_unknown(result, first, ranges[i].count, &info, budget.spent);
            if (budget.spent == LIN_SPENT_MEMORY) {
                budget.spent =
                    LIN_SPENT_NOTHING; /* it was given back: the next key has it all again */
            }
        }
    }
    result->steps = budget.steps;
    result->memory_bytes_peak = budget.memory_bytes_peak > result->memory_bytes_peak
                                    ? budget.memory_bytes_peak
                                    : result->memory_bytes_peak;
    free(ranges);
    return result->verdict;
}

void lin_result_deinit(struct lin_result *result)
{
    free(result->failure.core);
    *result = (struct lin_result){0};
}
