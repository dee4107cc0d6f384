/*
 * gelu.cuh - activations and their derivatives of one number, the same bits wherever they are used:
 * every kernel that applies or undoes an activation calls these and nothing of its own, so that a
 * recomputed activation equals the first one. Sums are explicit fmaf, since the compiler may fuse
 * a plain product and sum in one kernel and not in another.
 *
 * Both are a linear factor times the logistic function s(t) = 1/(1 + exp(-t)):
 *   gelu_tanh(u) = u * s(2w(u)) with w(u) = 0.797885*(u + 0.044715 u^3), as 1 + tanh(w) = 2 s(2w),
 *                  without the cancellation that 1 + tanh(w) has for negative u;
 *   silu(u)      = u * s(u).
 * In derivatives, 1 - s(t) is taken as exp(-t)*s(t) for the same reason.
 *
 * Cost: some 20 instructions an element, where memory at 4.3 TB/s leaves time for 27 of them (one
 * load and one store of 2 bytes, 132 multiprocessors of 128 lanes at 1.7 GHz).
 */
#ifndef KERNELS_CUDA_GELU_CUH
#define KERNELS_CUDA_GELU_CUH

#include "kernels/cuda/launch.cuh"

#define GELU_A (2 * 0.7978845608028654f)
#define GELU_B 0.044715f

/* 1/(1 + e) within 1 ulp, for 0 <= e < 2^126. */
#ifdef SOULCHAT_EMU
inline float logistic_reciprocal(float e) { return 1.0f / (1.0f + e); }
#else
__device__ __forceinline__ float logistic_reciprocal(float e)
{
    const float y = __fadd_rn(1.0f, e);
    const float r = __fdividef(1.0f, y); /* 2 ulp; one step of Newton's method takes them */
    return fmaf(r, fmaf(-y, r, 1.0f), r);
}
#endif

struct logistic {
    float s, one_minus_s;
};

/* exp(64) = 6e27 beside 1 is as good as infinity, and 6e27 * (1/6e27) is still 1. NaN comes back
 * through the factor u of whoever calls. */
__device__ __forceinline__ logistic logistic_of(float t)
{
    const float e = expf(fminf(-t, 64.0f));
    const float s = logistic_reciprocal(e);
    return { s, e * s };
}

__device__ __forceinline__ logistic gelu_logistic(float u)
{
    return logistic_of(GELU_A * u * fmaf(GELU_B, u * u, 1.0f));
}

__device__ __forceinline__ float gelu_tanh(float u) { return u * gelu_logistic(u).s; }

__device__ __forceinline__ float gelu_tanh_slope(float u)
{
    const logistic l = gelu_logistic(u);
    return fmaf(u * (l.s * l.one_minus_s), GELU_A * fmaf(3.0f * GELU_B, u * u, 1.0f), l.s);
}

__device__ __forceinline__ float silu(float u) { return u * logistic_of(u).s; }

/* Of silu(u) and its derivative. */
struct silu_parts {
    float value, slope;
};

__device__ __forceinline__ silu_parts silu_both(float u)
{
    const logistic l = logistic_of(u);
    return { u * l.s, l.s * fmaf(u, l.one_minus_s, 1.0f) };
}

#endif
