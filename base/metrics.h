/* Process-wide counters and gauges, registered once, read as text (Prometheus exposition; every name gets the prefix
 * "shardkv_"). Updating is one relaxed atomic; no lock, no allocation. The table of names is fixed when the process
 * starts; a name defined twice stops it there. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/bytes.h"
#include <stdatomic.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE };

struct metric {
    const char *name; /* snake_case with unit last: wal_sync_count, wal_bytes */
    const char *help;
    enum metric_kind kind;
    _Atomic uint64_t value;
    struct metric *next;
    bool registered;
};

/* Define at file scope: METRIC(wal_sync_count, COUNTER, "log syncs"); use metric_add(&wal_sync_count, 1). */
#define METRIC(name_, kind_, help_)                                                                \
    static struct metric name_ = {.name = #name_, .help = help_, .kind = METRIC_##kind_};          \
    __attribute__((constructor)) static void name_##_register(void)                                \
    {                                                                                              \
        metric_register(&name_);                                                                   \
    }

void metric_register(struct metric *metric); /* static storage; before threads start */
static inline void metric_add(struct metric *metric, uint64_t count)
{
    atomic_fetch_add_explicit(&metric->value, count, memory_order_relaxed);
}
static inline void metric_set(struct metric *metric, uint64_t value)
{
    atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}
static inline uint64_t metric_get(const struct metric *metric)
{
    return atomic_load_explicit(&metric->value, memory_order_relaxed);
}
void metrics_text(struct buf *out); /* appends; sorted by name */

#endif
