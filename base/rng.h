/* A seeded random generator (xoshiro256++ seeded by splitmix64: D. Blackman, S. Vigna). Not for secrets.
 * The same seed gives the same numbers on every machine. One owner, one thread. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t state[4];
};

void rng_init(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound);                   /* 0 .. bound-1, unbiased; bound > 0 */
uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high);    /* low .. high, both included */
bool rng_chance(struct rng *rng, uint32_t numerator, uint32_t denominator);
/* A seed from the operating system, for real processes. */
uint64_t rng_seed_from_system(void);

#endif
