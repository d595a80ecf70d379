/* See histogram.h. Bucket b of run r >= 1 holds the values whose leading 8 bits are 128 + b % 128
 * after a shift by r - 1; run 0 holds the values below 128 themselves. */
#include "bench/histogram.h"

#include "base/assert.h"
#include <stdbool.h>
#include <string.h>

static uint32_t bucket_of(uint64_t ns)
{
    if (ns > HISTOGRAM_NS_MAX) {
        ns = HISTOGRAM_NS_MAX;
    }
    if (ns < HISTOGRAM_SUB_BUCKETS) {
        return (uint32_t)ns;
    }
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(ns) - HISTOGRAM_SUB_BITS;
    uint32_t within = (uint32_t)(ns >> shift) - HISTOGRAM_SUB_BUCKETS;
    return (shift + 1) * HISTOGRAM_SUB_BUCKETS + within;
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_top(uint32_t bucket)
{
    if (bucket < HISTOGRAM_SUB_BUCKETS) {
        return bucket;
    }
    uint32_t shift = bucket / HISTOGRAM_SUB_BUCKETS - 1;
    uint64_t leading = bucket % HISTOGRAM_SUB_BUCKETS + HISTOGRAM_SUB_BUCKETS;
    return ((leading + 1) << shift) - 1;
}

void histogram_init(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
    histogram->min_ns = UINT64_MAX;
}

void histogram_record(struct histogram *histogram, uint64_t ns)
{
    uint32_t bucket = bucket_of(ns);
    ASSERT(bucket < HISTOGRAM_BUCKETS);
    histogram->buckets[bucket]++;
    histogram->count++;
    histogram->sum_ns += ns;
    histogram->min_ns = ns < histogram->min_ns ? ns : histogram->min_ns;
    histogram->max_ns = ns > histogram->max_ns ? ns : histogram->max_ns;
}

void histogram_add(struct histogram *histogram, const struct histogram *other)
{
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        histogram->buckets[i] += other->buckets[i];
    }
    histogram->count += other->count;
    histogram->sum_ns += other->sum_ns;
    histogram->min_ns = other->min_ns < histogram->min_ns ? other->min_ns : histogram->min_ns;
    histogram->max_ns = other->max_ns > histogram->max_ns ? other->max_ns : histogram->max_ns;
}

uint64_t histogram_quantile_ns(const struct histogram *histogram, uint32_t per_100k)
{
    ASSERT(per_100k <= 100000);
    if (histogram->count == 0) {
        return 0;
    }
    uint64_t whole = histogram->count / 100000 * per_100k;
    uint64_t rest = (histogram->count % 100000 * per_100k + 99999) / 100000;
    uint64_t rank = whole + rest > 0 ? whole + rest : 1;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            /* The last bucket also holds what is over its top. */
            bool last = i == HISTOGRAM_BUCKETS - 1;
            uint64_t top = bucket_top(i);
            return last || top > histogram->max_ns ? histogram->max_ns : top;
        }
    }
    return histogram->max_ns;
}

double histogram_mean_ns(const struct histogram *histogram)
{
    return histogram->count > 0 ? (double)histogram->sum_ns / (double)histogram->count : 0;
}
