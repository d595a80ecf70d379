/* See sometimes.h: the sums and how they are shown. */
#include "sim/sometimes.h"

#include "base/assert.h"

#include <inttypes.h>

/* Process-wide: a sum over all worlds. */
static uint64_t counts[SOMETIMES_COUNT];

static const struct row {
    const char *name;
    bool often;
    const char *what;
} rows[SOMETIMES_COUNT] = {
#define X(name, often, what) {#name, often, what},
    SIM_SOMETIMES(X)
#undef X
};

void sim_sometimes_add(enum sometimes what, uint64_t count)
{
    ASSERT_CMP(what, <, SOMETIMES_COUNT);
    counts[what] += count;
}

void sim_sometimes(enum sometimes what)
{
    sim_sometimes_add(what, 1);
}

uint64_t sim_sometimes_count(enum sometimes what)
{
    ASSERT_CMP(what, <, SOMETIMES_COUNT);
    return counts[what];
}

void sim_sometimes_print(FILE *out)
{
    for (int i = 0; i < SOMETIMES_COUNT; i++) {
        (void)fprintf(out, "  %12" PRIu64 "  %-22s %s%s\n", counts[i], rows[i].name, rows[i].what,
                      counts[i] == 0 ? "  <-- never" : "");
    }
}

void sim_sometimes_json(struct buf *out)
{
    for (int i = 0; i < SOMETIMES_COUNT; i++) {
        buf_printf(out, "%s\n    \"%s\": %" PRIu64, i == 0 ? "{" : ",", rows[i].name, counts[i]);
    }
    buf_printf(out, "\n  }");
}

const char *sim_sometimes_missing(bool only_often)
{
    for (int i = 0; i < SOMETIMES_COUNT; i++) {
        if (counts[i] == 0 && (rows[i].often || !only_often)) {
            return rows[i].name;
        }
    }
    return NULL;
}
