#include "base/rng.h"

#include "base/check.h"

#include <math.h>

#define PHILOX_ROUNDS 10

/* The constants are those of the paper: two multipliers, and two Weyl increments for the key. */
void rng_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        const uint64_t p0 = (uint64_t)0xd2511f53u * c0;
        const uint64_t p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The two 64-bit halves of one Philox block. */
static void block(uint64_t halves[2], uint64_t seed, uint64_t stream, uint64_t index)
{
    const uint32_t counter[4] = { (uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream,
                                  (uint32_t)(stream >> 32) };
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    uint32_t out[4];
    rng_philox(out, counter, key);
    halves[0] = out[0] | (uint64_t)out[1] << 32;
    halves[1] = out[2] | (uint64_t)out[3] << 32;
}

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t halves[2];
    block(halves, seed, stream, index);
    return halves[0];
}

double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return (double)(rng_u64(seed, stream, index) >> 11) * 0x1p-53;
}

double rng_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t halves[2];
    block(halves, seed, stream, index);
    const double u = (double)((halves[0] >> 11) + 1) * 0x1p-53; /* (0, 1]: log is finite */
    const double angle = 0x1.921fb54442d18p+2 * ((double)(halves[1] >> 11) * 0x1p-53); /* 2 pi v */
    return sqrt(-2.0 * log(u)) * cos(angle);
}

/* Half rounds of the Feistel network; six already pass the tests, eight are a margin. */
#define PERMUTE_ROUNDS 8

/*
 * The domain is the smallest power of two that holds count, split into a low and a high part that
 * take turns being xored with a keyed function of the other: each turn is its own inverse, so the
 * whole is a bijection. Results outside 0..count-1 are walked on until they fall inside, at most
 * two steps on average because the domain is less than twice the count.
 */
int64_t rng_permute(uint64_t seed, uint64_t stream, int64_t index, int64_t count)
{
    ASSERT(count > 0);
    ASSERT(index >= 0 && index < count);
    if (count == 1) return 0;

    const int bits = 64 - __builtin_clzll((uint64_t)count - 1);
    const int low_bits = (bits + 1) / 2;
    const uint64_t low_mask = ((uint64_t)1 << low_bits) - 1;
    const uint64_t high_mask = ((uint64_t)1 << (bits - low_bits)) - 1;
    uint64_t low = (uint64_t)index & low_mask;
    uint64_t high = (uint64_t)index >> low_bits;
    int64_t place;
    do {
        for (uint64_t round = 1; round <= PERMUTE_ROUNDS; round += 2) {
            /* Round numbers in the top byte keep these counters apart from small indices. */
            low ^= rng_u64(seed, stream, round << 56 | high) & low_mask;
            high ^= rng_u64(seed, stream, (round + 1) << 56 | low) & high_mask;
        }
        place = (int64_t)(high << low_bits | low);
    } while (place >= count);
    return place;
}
