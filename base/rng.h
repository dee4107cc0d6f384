/*
 * rng.h - random numbers as pure functions: value = f(seed, stream, index). Nothing has to be
 * saved to resume, and any step can be replayed alone. The generator is Philox4x32-10
 * (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3").
 *
 * Streams keep uses apart; each use names its own (enum below plus a sub-key such as a tensor's
 * index: stream = RNG_INIT | (uint64_t)tensor << 8).
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The low 8 bits of a stream; never renumber: runs must stay repeatable. */
enum rng_use {
    RNG_INIT = 1,     /* initial weights */
    RNG_SHUFFLE = 2,  /* order of samples and packs */
    RNG_SAMPLING = 3, /* text generation */
    RNG_ROUNDING = 4, /* stochastic rounding of weights */
    RNG_SELF_TEST = 254,
    RNG_TEST = 255,
};

/* The generator itself: key = seed, counter = {index, stream}, each low word first. */
void rng_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);
/* 64 uniform bits. */
uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform in [0, 1), 53 bits. */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* Standard normal (Box-Muller in double); |value| < 8.6. */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t index);
/* The place of `index` in a random permutation of 0..count-1; a bijection for each
 * (seed, stream, count). Feistel network with cycle walking: no memory. 0 <= index < count. */
int64_t rng_permute(uint64_t seed, uint64_t stream, int64_t index, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
