/* Which key an operation takes: uniform, zipfian (the popular keys scattered over the whole range)
 * or latest (writes go through the keys in order, round and round; what reads takes a zipfian
 * distance behind the newest). The sampler is W. Hoermann and G. Derflinger's rejection-inversion
 * (1996): exact, no tables, for any exponent above 0. */
#ifndef TESTS_BENCH_KEYS_H
#define TESTS_BENCH_KEYS_H

#include "base/rng.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct zipf {
    uint64_t count;
    double exponent;
    double h_first, h_last, squeeze;
};

void zipf_init(struct zipf *zipf, uint64_t count, double exponent); /* count >= 1, exponent > 0 */
uint64_t zipf_next(const struct zipf *zipf,
                   struct rng *rng); /* rank 0 .. count-1; 0 is the likeliest */

enum key_distribution { KEY_UNIFORM, KEY_ZIPFIAN, KEY_LATEST };

struct key_choice {
    enum key_distribution distribution;
    uint64_t count;
    struct zipf zipf;
    atomic_uint_fast64_t
        written; /* LATEST: writes so far; the newest key is (written - 1) mod count */
};

void key_choice_init(struct key_choice *choice, enum key_distribution distribution, uint64_t count,
                     double exponent);
/* Any thread, each with its own rng. */
uint64_t key_choice_next(struct key_choice *choice, struct rng *rng, bool writes);
/* Where rank `rank` lies among `count` keys: one to one. */
uint64_t key_scatter(uint64_t rank, uint64_t count);

/* The key's text: `size` decimal digits with leading zeroes, no NUL. */
void key_write(char *out, size_t size, uint64_t key);
/* Digits that count - 1 needs. */
size_t key_bytes_min(uint64_t count);

#endif
