/*
 * convert.h - 16-bit floats to f32, sixteen at a time. Exact, subnormals, infinities and NaN
 * included.
 *
 * Vectors are GCC's and clang's own vector types, which the compiler lowers to whatever registers
 * the machine has. They are passed by pointer, so that a build without AVX-512 has no ABI to warn
 * about.
 */
#ifndef KERNELS_CPU_CONVERT_H
#define KERNELS_CPU_CONVERT_H

#include "base/check.h"
#include "base/num.h"
#include "kernels/tensor.h"

#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16
typedef float f32_lanes_t __attribute__((vector_size(64)));

static inline void lanes_from_f32(f32_lanes_t *out, const void *in)
{
    memcpy(out, in, sizeof *out);
}

/* GCC 12 makes the conversion of vector types out of halves and shuffles; so by name where
 * possible. */
#ifdef __AVX512F__
static inline void lanes_from_bf16(f32_lanes_t *out, const void *in)
{
    const __m256i half = _mm256_loadu_si256((const __m256i *)in);
    const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
    memcpy(out, &wide, sizeof *out);
}

static inline void lanes_from_f16(f32_lanes_t *out, const void *in)
{
    const __m512 wide = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)in));
    memcpy(out, &wide, sizeof *out);
}
#else
static inline void lanes_from_bf16(f32_lanes_t *out, const void *in)
{
    uint16_t half[LANES];
    memcpy(half, in, sizeof half);
    for (int i = 0; i < LANES; i++) (*out)[i] = bf16_to_f32(half[i]);
}

static inline void lanes_from_f16(f32_lanes_t *out, const void *in)
{
    uint16_t half[LANES];
    memcpy(half, in, sizeof half);
    for (int i = 0; i < LANES; i++) (*out)[i] = f16_to_f32(half[i]);
}
#endif

typedef void (*lanes_from_fn)(f32_lanes_t *out, const void *in);

/* out[i] = in[i], where `in` holds elements of `bytes` bytes that `from` reads LANES at a time. */
static inline __attribute__((always_inline)) void widen_with(lanes_from_fn from, int64_t bytes,
                                                             float *out, const char *in,
                                                             int64_t count)
{
    f32_lanes_t wide;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        from(&wide, in + i * bytes);
        memcpy(out + i, &wide, sizeof wide);
    }
    if (i == count) return;
    char rest[sizeof wide] = { 0 };
    memcpy(rest, in + i * bytes, (size_t)((count - i) * bytes));
    from(&wide, rest);
    memcpy(out + i, &wide, (size_t)(count - i) * sizeof *out);
}

/* out[i] = in[first + i]; `in` is an array of f32, f16 or bf16. */
static inline void widen_run(float *out, const void *in, dtype_t dtype, int64_t first,
                             int64_t count)
{
    const char *from = (const char *)in + first * dtype_bytes(dtype);
    if (dtype == DTYPE_F16) {
        widen_with(lanes_from_f16, 2, out, from, count);
    } else if (dtype == DTYPE_BF16) {
        widen_with(lanes_from_bf16, 2, out, from, count);
    } else {
        ASSERT(dtype == DTYPE_F32);
        memcpy(out, from, (size_t)count * sizeof *out);
    }
}

#endif
