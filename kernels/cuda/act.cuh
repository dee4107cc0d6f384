/*
 * act.cuh - activations on the device, for act_fwd and for the kernels around matrix products: one
 * definition, so that a recomputed activation has the bits of the first one. Formulas as in
 * kernels/cpu/act_cpu.c: both are u times the logistic function s(t) = 1/(1 + exp(-t)),
 *   gelu_tanh(u) = u * s(1.5957691*(u + 0.044715 u^3)),   silu(u) = u * s(u),
 * and 1 - s(t) is exp(-t)*s(t).
 *
 * Fused multiply-adds are written out: the compiler has nothing left to contract, differently in
 * one kernel than in another. In f32 quotients are rounded correctly and powers within an ulp or
 * two. For 16-bit T both are the hardware's own, 2 ulp of f32 with subnormal results of zero: more
 * would take longer than the memory.
 */
#ifndef KERNELS_CUDA_ACT_CUH
#define KERNELS_CUDA_ACT_CUH

#include "kernels/cuda/num.cuh"

#define ACT_GELU_B 0.044715f
#define ACT_GELU_A 1.5957691216057308f
#define ACT_LOG2_E 1.4426950408889634f

template <class T> __device__ __forceinline__ float act_quotient(float a, float b)
{
    return __fdividef(a, b);
}
template <> __device__ __forceinline__ float act_quotient<float>(float a, float b) { return a / b; }

/* exp(-t) */
template <class T> __device__ __forceinline__ float act_exp_minus(float t)
{
    return exp2_fast(-ACT_LOG2_E * t);
}
template <> __device__ __forceinline__ float act_exp_minus<float>(float t)
{
    return exp2f(-ACT_LOG2_E * t);
}

/* The argument of gelu's logistic function. */
__device__ __forceinline__ float act_gelu_argument(float u)
{
    return ACT_GELU_A * u * fmaf(ACT_GELU_B, u * u, 1.0f);
}

template <class T> __device__ __forceinline__ float act_silu(float u)
{
    return act_quotient<T>(u, 1.0f + act_exp_minus<T>(u));
}

template <class T> __device__ __forceinline__ float act_gelu(float u)
{
    return act_quotient<T>(u, 1.0f + act_exp_minus<T>(act_gelu_argument(u)));
}

template <class T> __device__ __forceinline__ float act_swiglu(float u1, float u2)
{
    return act_silu<T>(u1) * u2;
}

/* s and 1 - s. */
struct act_logistic {
    float s, rest;
};

/* Where exp(-t) overflows, s is 0 and the rest 1, not inf * 0. */
template <class T> __device__ __forceinline__ act_logistic act_logistic_of(float t)
{
    const float e = act_exp_minus<T>(fmaxf(t, -64.0f));
    const float s = act_quotient<T>(1.0f, 1.0f + e);
    return { s, e * s };
}

template <class T> __device__ __forceinline__ float act_gelu_slope(float u)
{
    const act_logistic l = act_logistic_of<T>(act_gelu_argument(u));
    const float inner = ACT_GELU_A * fmaf(3.0f * ACT_GELU_B, u * u, 1.0f);
    return fmaf(u * (l.s * l.rest), inner, l.s);
}

/* d act_swiglu / du1 and / du2. */
struct act_swiglu_slopes {
    float u1, u2;
};

template <class T>
__device__ __forceinline__ act_swiglu_slopes act_swiglu_slopes_of(float u1, float u2)
{
    const act_logistic l = act_logistic_of<T>(u1);
    return { u2 * (l.s * fmaf(u1, l.rest, 1.0f)), u1 * l.s };
}

#endif
