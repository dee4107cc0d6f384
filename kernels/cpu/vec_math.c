#include "kernels/cpu/vec_math.h"

/* Functions of their own, because these loops have to be vectorised wherever they are used: inlined
 * into large callers GCC has left them scalar, at a tenth of the speed. */

/* A float's bits as an integer of the same order, NaNs beyond infinities; its own inverse. */
static inline int32_t order_of(int32_t bits) { return bits ^ ((bits >> 31) & INT32_MAX); }

/* Compared as integers, because compilers do not vectorise a maximum of floats: it would have to
 * mind NaN and the sign of zero. */
float vec_max(const float *x, int64_t count)
{
    int32_t max = INT32_MIN;
#pragma omp simd reduction(max : max)
    for (int64_t i = 0; i < count; i++) {
        const int32_t order = order_of((int32_t)f32_to_bits(x[i]));
        max = order > max ? order : max;
    }
    return bits_to_f32((uint32_t)order_of(max));
}

double vec_exp_minus(float *x, int64_t count, float max)
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
