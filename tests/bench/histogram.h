/* Latencies in log-linear buckets: 128 to each power of two, so that a value that is read back is
 * never below the recorded one and above it by less than 1/128 (0.8 %). Below 128 ns values are
 * exact; the smallest, the largest and the mean always are. Values over HISTOGRAM_NS_MAX (18
 * minutes) count in the last bucket. One owner at a time. */
#ifndef TESTS_BENCH_HISTOGRAM_H
#define TESTS_BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
    HISTOGRAM_SUB_BITS = 7,
    HISTOGRAM_VALUE_BITS = 40,
    HISTOGRAM_SUB_BUCKETS = 1 << HISTOGRAM_SUB_BITS,
    /* One linear run for the values below 128 and one for each power of two from there on. */
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB_BUCKETS,
};
#define HISTOGRAM_NS_MAX ((1ull << HISTOGRAM_VALUE_BITS) - 1)

struct histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t min_ns; /* UINT64_MAX while empty */
    uint64_t max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_init(struct histogram *histogram);
void histogram_record(struct histogram *histogram, uint64_t ns);
void histogram_add(struct histogram *histogram, const struct histogram *other);
/* The value that `per_100k` in 100,000 of the recorded ones do not exceed (50,000: the median;
 * 99,900: p99.9), by the nearest rank; 0 while empty. */
uint64_t histogram_quantile_ns(const struct histogram *histogram, uint32_t per_100k);
double histogram_mean_ns(const struct histogram *histogram);

#endif
