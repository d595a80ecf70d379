/* See linear.h. Bounded by steps and memory, never by time: a seed ends the same way everywhere. */
#include "sim/linear.h"

#include "lin/check.h"
#include "lin/report.h"
#include "sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

#define STEPS_MAX        (50u * 1000 * 1000)
#define MEMORY_BYTES_MAX (UINT64_C(1) << 30)

struct linear_history {
    struct lin_history *ops;
};

struct linear_history *linear_create(void)
{
    struct linear_history *history = mem_calloc(1, sizeof *history);
    history->ops = lin_history_create();
    return history;
}

void linear_destroy(struct linear_history *history)
{
    lin_history_destroy(history->ops);
    free(history);
}

void linear_add(struct linear_history *history, const struct lin_op *op)
{
    lin_history_add(history->ops, op);
}

size_t linear_count(const struct linear_history *history)
{
    return lin_history_count(history->ops);
}

void linear_require(struct linear_history *history)
{
    const struct lin_limits limits = {
        .memory_bytes = MEMORY_BYTES_MAX, .steps_max = STEPS_MAX, .explain = true};
    struct lin_result result;
    if (lin_check(history->ops, &limits, &result) != LIN_LINEARIZABLE) {
        struct buf text = {0};
        lin_report_text(&result, &text);
        (void)fprintf(stderr, "%.*s", (int)text.size, (const char *)text.data);
        SIM_FAIL("the history is %s", lin_verdict_name(result.verdict));
    }
    lin_result_deinit(&result);
}
