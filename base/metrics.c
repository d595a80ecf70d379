/* The process's metrics: a list sorted by name, built by constructors before main() and never
 * changed after, so that reading and updating need no lock. Every name gets the prefix "shardkv_"
 * in the text. */
#include "base/metrics.h"

#include "base/assert.h"

#include <inttypes.h>
#include <string.h>

#define METRIC_PREFIX "shardkv_"

static struct metric *metrics_first;

void metric_register(struct metric *metric)
{
    ASSERT(!metric->registered);
    struct metric **at = &metrics_first;
    while (*at != NULL && strcmp((*at)->name, metric->name) < 0) {
        at = &(*at)->next;
    }
    /* Two of one name would make the whole text unreadable to Prometheus. */
    ASSERT(*at == NULL || strcmp((*at)->name, metric->name) != 0);
    metric->next = *at;
    metric->registered = true;
    *at = metric;
}

static const char *metric_kind_word(enum metric_kind kind)
{
    switch (kind) {
    case METRIC_COUNTER:
        return "counter";
    case METRIC_GAUGE:
        return "gauge";
    }
    UNREACHABLE();
}

void metrics_text(struct buf *out)
{
    for (const struct metric *metric = metrics_first; metric != NULL; metric = metric->next) {
        buf_printf(out, "# HELP " METRIC_PREFIX "%s %s\n", metric->name, metric->help);
        buf_printf(out, "# TYPE " METRIC_PREFIX "%s %s\n", metric->name,
                   metric_kind_word(metric->kind));
        buf_printf(out, METRIC_PREFIX "%s %" PRIu64 "\n", metric->name, metric_get(metric));
    }
}
