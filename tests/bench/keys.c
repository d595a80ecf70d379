/* See keys.h. */
#include "bench/keys.h"

#include "base/assert.h"
#include <math.h>

/* The antiderivative of x^-s, by which the continuous envelope is inverted: (x^(1-s) - 1) / (1-s),
 * and ln x at s = 1, both through expm1 and log1p so that s near 1 loses no digits. */
static double envelope(double x, double exponent)
{
    double log_x = log(x);
    double t = (1 - exponent) * log_x;
    return fabs(t) > 1e-8 ? expm1(t) / t * log_x : log_x * (1 + t / 2);
}

static double envelope_inverse(double y, double exponent)
{
    double t = y * (1 - exponent);
    if (t < -1) {
        t = -1; /* rounding at the far end */
    }
    return exp(fabs(t) > 1e-8 ? log1p(t) / t * y : y * (1 - t / 2));
}

void zipf_init(struct zipf *zipf, uint64_t count, double exponent)
{
    ASSERT(count >= 1);
    ASSERT(exponent > 0);
    zipf->count = count;
    zipf->exponent = exponent;
    zipf->h_first = envelope(1.5, exponent) - 1;
    zipf->h_last = envelope((double)count + 0.5, exponent);
    zipf->squeeze = 2 - envelope_inverse(envelope(2.5, exponent) - pow(2, -exponent), exponent);
}

uint64_t zipf_next(const struct zipf *zipf, struct rng *rng)
{
    for (;;) { /* ends: each turn is accepted with a probability of over a half */
        double unit = (double)(rng_next(rng) >> 11) * 0x1p-53;
        double u = zipf->h_last + unit * (zipf->h_first - zipf->h_last);
        double x = envelope_inverse(u, zipf->exponent);
        double rank = floor(x + 0.5);
        if (rank < 1) {
            rank = 1;
        } else if (rank > (double)zipf->count) {
            rank = (double)zipf->count;
        }
        if (rank - x <= zipf->squeeze ||
            u >= envelope(rank + 0.5, zipf->exponent) - pow(rank, -zipf->exponent)) {
            return (uint64_t)rank - 1;
        }
    }
}

uint64_t key_scatter(uint64_t rank, uint64_t count)
{
    /* A prime above every allowed count has no divisor in common with it, so this is one to one. */
    return (uint64_t)((unsigned __int128)rank * 11400714819323198549ull % count);
}

void key_choice_init(struct key_choice *choice, enum key_distribution distribution, uint64_t count,
                     double exponent)
{
    ASSERT(count >= 1);
    choice->distribution = distribution;
    choice->count = count;
    zipf_init(&choice->zipf, count, exponent);
    atomic_init(&choice->written, 0);
}

uint64_t key_choice_next(struct key_choice *choice, struct rng *rng, bool writes)
{
    switch (choice->distribution) {
    case KEY_UNIFORM:
        return rng_below(rng, choice->count);
    case KEY_ZIPFIAN:
        return key_scatter(zipf_next(&choice->zipf, rng), choice->count);
    case KEY_LATEST:
        if (writes) {
            return atomic_fetch_add(&choice->written, 1) % choice->count;
        }
        /* Before the first write the newest key is the last one that was loaded. */
        uint64_t newest = (atomic_load(&choice->written) + choice->count - 1) % choice->count;
        uint64_t behind = zipf_next(&choice->zipf, rng);
        return (newest + choice->count - behind) % choice->count;
    }
    ASSERT(false);
    return 0;
}

void key_write(char *out, size_t size, uint64_t key)
{
    for (size_t i = size; i > 0; i--) {
        out[i - 1] = (char)('0' + key % 10);
        key /= 10;
    }
    ASSERT(key == 0);
}

size_t key_bytes_min(uint64_t count)
{
    ASSERT(count >= 1);
    size_t digits = 1;
    for (uint64_t rest = (count - 1) / 10; rest > 0; rest /= 10) {
        digits++;
    }
    return digits;
}
