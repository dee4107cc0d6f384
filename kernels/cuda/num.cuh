/*
 * num.cuh - 16-bit numbers and 16-byte packs on the device. bf16 and f16 hold bits; arithmetic is
 * in float. Rounding is to nearest, ties to even, the same bits as base/num.h;
 * but a card has one NaN.
 */
#ifndef KERNELS_CUDA_NUM_CUH
#define KERNELS_CUDA_NUM_CUH

#include "base/num.h"
#include "kernels/cuda/launch.cuh"

#ifndef SOULCHAT_EMU
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

struct bf16 {
    uint16_t bits;
};

struct f16 {
    uint16_t bits;
};

#ifdef SOULCHAT_EMU
inline float to_float(bf16 x) { return bf16_to_f32(x.bits); }
inline float to_float(f16 x) { return f16_to_f32(x.bits); }
inline bf16 to_bf16(float x) { return { f32_to_bf16(x) }; }
inline f16 to_f16(float x) { return { f32_to_f16(x) }; }
inline float exp2_fast(float x) { return emu::about(exp2f(x)); }
#else
__device__ __forceinline__ float to_float(bf16 x)
{
    return __uint_as_float((uint32_t)x.bits << 16);
}
__device__ __forceinline__ float to_float(f16 x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ bf16 to_bf16(float x)
{
    return { __bfloat16_as_ushort(__float2bfloat16_rn(x)) };
}
__device__ __forceinline__ f16 to_f16(float x) { return { __half_as_ushort(__float2half_rn(x)) }; }

/* 2^x within 2 units in the last place; 0 below 2^-126, at minus infinity too. */
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#endif

__device__ __forceinline__ float to_float(float x) { return x; }

/* x rounded to T. */
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return to_bf16(x); }
template <> __device__ __forceinline__ f16 from_float<f16>(float x) { return to_f16(x); }

/* W neighbours of a row, loaded and stored at once; p must be aligned to W * sizeof(T). */
template <class T, int W> struct alignas(W * sizeof(T)) pack {
    T v[W];
};

template <int W, class T> __device__ __forceinline__ pack<T, W> load_pack(const T *p)
{
    return *reinterpret_cast<const pack<T, W> *>(p);
}

/* 16 bytes by the one instruction that there is for them: a plain store of a struct comes out as
 * four where the compiler loses sight of its alignment. */
template <int W, class T> __device__ __forceinline__ void store_pack(T *p, const pack<T, W> &x)
{
    if constexpr (sizeof x == sizeof(int4)) {
        int4 word;
        memcpy(&word, &x, sizeof word);
        __stwb(reinterpret_cast<int4 *>(p), word);
    } else {
        *reinterpret_cast<pack<T, W> *>(p) = x;
    }
}

/* Elements of T in 16 bytes: the widest access. */
template <class T> constexpr int pack_width = 16 / (int)sizeof(T);

template <class T> inline constexpr dtype_t dtype_of = DTYPE_COUNT;
template <> inline constexpr dtype_t dtype_of<float> = DTYPE_F32;
template <> inline constexpr dtype_t dtype_of<bf16> = DTYPE_BF16;
template <> inline constexpr dtype_t dtype_of<f16> = DTYPE_F16;

#endif
