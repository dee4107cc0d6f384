/*
 * convert.h - runs of 16-bit floats to f32, branch free so that the loops vectorise.
 * Exact, subnormals, infinities and NaN included.
 */
#ifndef KERNELS_CPU_CONVERT_H
#define KERNELS_CPU_CONVERT_H

#include "base/check.h"
#include "base/num.h"
#include "kernels/tensor.h"

#include <stdint.h>
#include <string.h>

/* f16_to_f32 of base/num.h as selects instead of branches. */
static inline float f16_widen(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t magnitude = h & 0x7fffu;
    const uint32_t rebias = magnitude >= 0x7c00u ? 0x70000000u : 0x38000000u;
    const uint32_t normal = (magnitude << 13) + rebias;
    const uint32_t tiny = f32_to_bits((float)(int32_t)magnitude * 0x1p-24f);
    return bits_to_f32(sign | (magnitude < 0x0400u ? tiny : normal));
}

static inline void widen_f16(float *restrict out, const uint16_t *restrict in, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) out[i] = f16_widen(in[i]);
}

static inline void widen_bf16(float *restrict out, const uint16_t *restrict in, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) out[i] = bf16_to_f32(in[i]);
}

/* out[i] = in[first + i]; `in` is an array of f32, f16 or bf16. */
static inline void widen_run(float *restrict out, const void *in, dtype_t dtype, int64_t first,
                             int64_t count)
{
    if (dtype == DTYPE_F16) {
        widen_f16(out, (const uint16_t *)in + first, count);
    } else if (dtype == DTYPE_BF16) {
        widen_bf16(out, (const uint16_t *)in + first, count);
    } else {
        ASSERT(dtype == DTYPE_F32);
        memcpy(out, (const float *)in + first, (size_t)count * sizeof *out);
    }
}

#endif
