/*
 * num.h - small arithmetic that everything needs: 16-bit floats, checked sizes, rounding, medians.
 * Sizes and counts are int64_t; `checked_mul` is for sizes that come from a file or a setting.
 */
#ifndef BASE_NUM_H
#define BASE_NUM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

static inline int64_t div_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* The smallest multiple of `step` that is >= a; a >= 0, step > 0. */
static inline int64_t align_up(int64_t a, int64_t step) { return div_ceil(a, step) * step; }

static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

/* *out = a * b; false, with *out untouched, when a or b is negative or the product overflows. */
static inline bool checked_mul(int64_t *out, int64_t a, int64_t b)
{
    int64_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

static inline bool checked_add(int64_t *out, int64_t a, int64_t b)
{
    int64_t sum;
    if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

static inline float bits_to_f32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t f32_to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float bf16_to_f32(uint16_t h) { return bits_to_f32((uint32_t)h << 16); }

/* Round to nearest, ties to even. NaN stays NaN (quiet). */
static inline uint16_t f32_to_bf16(float f)
{
    const uint32_t bits = f32_to_bits(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x0040u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* IEEE binary16, subnormals included; exact. */
static inline float f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t magnitude = h & 0x7fffu;
    if (magnitude >= 0x7c00u) return bits_to_f32(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    if (magnitude >= 0x0400u) return bits_to_f32(sign | ((magnitude << 13) + 0x38000000u));
    const float tiny = (float)magnitude * 0x1p-24f;
    return (h & 0x8000u) ? -tiny : tiny;
}

/* Round to nearest, ties to even; overflow gives infinity, NaN stays NaN. */
uint16_t f32_to_f16(float f);

/* Of count > 0 values, none of them NaN, which are sorted; the mean of the two in the middle where
 * count is even. */
double median_f64(double *values, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
