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

/* Arguments above VEC_EXP_MAX count as that one, arguments below VEC_EXP_MIN give 0. Beside a sum
 * of at least 1, which is where all results here end up, exp(-64) = 1.6e-28 is nothing; but smaller
 * factors, or the reciprocal of larger ones, soon make subnormal products, and those take the
 * hardware a hundred times longer. */
#define VEC_EXP_MAX 64.0f
#define VEC_EXP_MIN -64.0f

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
    const uint32_t keep = ~-(uint32_t)(x < VEC_EXP_MIN); /* no select: it may become a branch */
    return bits_to_f32(f32_to_bits(p * scale + scale) & keep);
}

/* a*b + c with the same bits wherever the compiler puts it: where the machine has a fused
 * instruction, plain sums of products are fused or not as the optimiser sees fit. */
#ifdef __FMA__
static inline float vec_fma(float a, float b, float c) { return fmaf(a, b, c); }
#else
static inline float vec_fma(float a, float b, float c) { return a * b + c; }
#endif

/* The largest of count > 0 numbers. */
float vec_max(const float *x, int64_t count);

/* x[i] = exp(x[i] - max); returns their sum. */
double vec_exp_minus(float *x, int64_t count, float max);

#endif
