/*
 * vec_math.h - exp and what follows from it, written so that plain loops over arrays vectorise:
 * no calls, no branches, no tables. tests/test_kernels_gemm.c holds the stated errors against
 * double.
 */
#ifndef KERNELS_CPU_VEC_MATH_H
#define KERNELS_CPU_VEC_MATH_H

#include "base/num.h"

#include <math.h>
#include <stdint.h>

#define VEC_EXP_MAX 88.0f  /* arguments above count as this: exp(88) = 1.65e38 is finite */
#define VEC_EXP_MIN -87.0f /* arguments below give 0: exp(-87) = 1.6e-38 is the last normal one */

/*
 * exp(x), within 1 ulp for VEC_EXP_MIN <= x <= VEC_EXP_MAX; NaN stays NaN.
 *
 * x = n ln2 + r with |r| <= ln2/2. Adding 1.5*2^23 rounds x/ln2 to the integer n and leaves n in
 * the low bits; n*LN2_HIGH is exact, because LN2_HIGH has 15 significant bits and |n| <= 127.
 * exp(r) is its Taylor polynomial of degree 7: the next term is at most 5.2e-9.
 */
static inline float vec_expf(float x)
{
    const float log2_e = 0x1.715476p+0f, magic = 0x1.8p23f;
    const float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
    const float capped = x > VEC_EXP_MAX ? VEC_EXP_MAX : x;
    const float arg = capped < VEC_EXP_MIN ? VEC_EXP_MIN : capped;
    const float shifted = arg * log2_e + magic;
    const float n = shifted - magic;
    const float r = (arg - n * ln2_high) - n * ln2_low;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    const float scale = bits_to_f32((f32_to_bits(shifted) << 23) + 0x3f800000u);
    const float y = p * scale + scale;
    return x < VEC_EXP_MIN ? 0.0f : y;
}

/* a*b + c with the same bits wherever the compiler puts it: where the machine has a fused
 * instruction, plain sums of products are fused or not as the optimiser sees fit. */
#ifdef __FMA__
static inline float vec_fma(float a, float b, float c) { return fmaf(a, b, c); }
#else
static inline float vec_fma(float a, float b, float c) { return a * b + c; }
#endif

/* A float's bits as an integer of the same order, NaNs beyond infinities; its own inverse. */
static inline int32_t vec_order(int32_t bits) { return bits ^ ((bits >> 31) & INT32_MAX); }

/* The largest of count > 0 numbers. Compared as integers, because compilers do not vectorise a
 * maximum of floats: it would have to mind NaN and the sign of zero. */
static inline float vec_max(const float *x, int64_t count)
{
    int32_t max = INT32_MIN;
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < count; i++) {
        const int32_t order = vec_order((int32_t)f32_to_bits(x[i]));
        max = order > max ? order : max;
    }
    return bits_to_f32((uint32_t)vec_order(max));
}

/* x[i] = exp(x[i] - max); returns their sum. */
static inline double vec_exp_minus(float *x, int64_t count, float max)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) {
        const float e = vec_expf(x[i] - max);
        x[i] = e;
        sum += (double)e;
    }
    return sum;
}

#endif
