/*
 * async_copy.cuh - copies from global to shared memory that go on beside computation (cp.async).
 *
 *     async_copy<16>(to, from, is_real);  ...         // many of them
 *     async_commit();                                 // they are one group now
 *     async_wait<1>();                                // all groups but the last one have arrived
 *     __syncthreads();                                // and are seen by the whole block
 *
 * A wait is for the thread's own copies: only the barrier after it makes those of others visible.
 * On the host a copy arrives as late as it may, at the wait, and until then its place holds NaN.
 */
#ifndef KERNELS_CUDA_ASYNC_COPY_CUH
#define KERNELS_CUDA_ASYNC_COPY_CUH

#include "kernels/cuda/launch.cuh"

#ifdef SOULCHAT_EMU

template <int BYTES> void async_copy(void *to, const void *from, bool is_real)
{
    emu::copy_later(to, is_real ? from : nullptr, BYTES);
}
inline void async_commit() { emu::copy_commit(); }
template <int LEFT> void async_wait() { emu::copy_wait(LEFT); }

#else

/* BYTES = 8 or 16, and both addresses multiples of it; zeros where the source is not real (it is
 * not read then, but must be an address all the same). */
template <int BYTES>
__device__ __forceinline__ void async_copy(void *to, const void *from, bool is_real)
{
    static_assert(BYTES == 8 || BYTES == 16, "widths of cp.async");
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    const int bytes = is_real ? BYTES : 0;
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
                     "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(at), "l"(from), "r"(bytes)
                     : "memory");
}

__device__ __forceinline__ void async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most LEFT of the latest groups are on their way. */
template <int LEFT> __device__ __forceinline__ void async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

#endif
#endif
