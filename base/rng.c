/* xoshiro256++ seeded by splitmix64 (D. Blackman, S. Vigna, prng.di.unimi.it).
 *
 * Thread: one owner. Invariant: the state is never all zero (splitmix64 gives four different
 * numbers, so at least three of them are not 0). */
#include "base/rng.h"

#include "base/assert.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

static uint64_t rotate_left(uint64_t value, unsigned bits)
{
    return (value << bits) | (value >> (64 - bits));
}

static uint64_t splitmix64_next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ull;
    uint64_t mixed = *state;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebull;
    return mixed ^ (mixed >> 31);
}

void rng_init(struct rng *rng, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++) {
        rng->state[i] = splitmix64_next(&seed);
    }
}

uint64_t rng_next(struct rng *rng)
{
    uint64_t *state = rng->state;
    uint64_t result = rotate_left(state[0] + state[3], 23) + state[0];
    uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    ASSERT_CMP(bound, >, 0);
    /* 2^64 mod bound: drawing again below it leaves a whole number of times `bound`, so no
     * remainder is favoured. Each draw is kept with a chance above one half. */
    uint64_t uneven = (0 - bound) % bound;
    for (;;) {
        uint64_t drawn = rng_next(rng);
        if (drawn >= uneven) {
            return drawn % bound;
        }
    }
}

uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
    ASSERT_CMP(low, <=, high);
    uint64_t span = high - low;
    return span == UINT64_MAX ? rng_next(rng) : low + rng_below(rng, span + 1);
}

bool rng_chance(struct rng *rng, uint32_t numerator, uint32_t denominator)
{
    ASSERT_CMP(denominator, >, 0);
    return rng_below(rng, denominator) < numerator;
}

uint64_t rng_seed_from_system(void)
{
    uint64_t seed;
    for (;;) {
        ssize_t count = getrandom(&seed, sizeof(seed), 0);
        if (count == (ssize_t)sizeof(seed)) {
            return seed;
        }
        if (count < 0 && errno != EINTR) {
            /* Client and cluster ids come from here; a guessable or repeated one would be worse
             * than no start. */
            log_event(LOG_ERROR, "rng.no_entropy", "errno=%d", errno);
            abort();
        }
    }
}
