/*
 * reduce.cuh - sums and maxima over a warp or a block, in an order that depends on the block's size
 * alone; every thread gets the same bits. All threads of the warp or block must take part.
 */
#ifndef KERNELS_CUDA_REDUCE_CUH
#define KERNELS_CUDA_REDUCE_CUH

#include "kernels/cuda/launch.cuh"

#define WARP_SIZE 32

struct add_op {
    template <class A> __device__ A operator()(A a, A b) const { return a + b; }
};

struct max_op {
    template <class A> __device__ A operator()(A a, A b) const { return a > b ? a : b; }
};

template <class Op, class A> __device__ __forceinline__ A warp_reduce(A x)
{
#pragma unroll
    for (int step = WARP_SIZE / 2; step > 0; step /= 2)
        x = Op()(x, __shfl_xor_sync(WARP_ALL, x, step));
    return x;
}

/* `shared` has room for one A per warp of the block. Synchronizes before it returns, so that
 * `shared` may be used again at once. blockDim.x threads, a multiple of 32; one-dimensional. */
template <class Op, class A> __device__ __forceinline__ A block_reduce(A x, A *shared)
{
    const int warps = (int)blockDim.x / WARP_SIZE;
    x = warp_reduce<Op>(x);
    if (threadIdx.x % WARP_SIZE == 0) shared[threadIdx.x / WARP_SIZE] = x;
    __syncthreads();
    A total = shared[0];
    for (int w = 1; w < warps; w++) total = Op()(total, shared[w]);
    __syncthreads();
    return total;
}

template <class A> __device__ __forceinline__ A warp_sum(A x) { return warp_reduce<add_op>(x); }
template <class A> __device__ __forceinline__ A warp_max(A x) { return warp_reduce<max_op>(x); }
template <class A> __device__ __forceinline__ A block_sum(A x, A *shared)
{
    return block_reduce<add_op>(x, shared);
}
template <class A> __device__ __forceinline__ A block_max(A x, A *shared)
{
    return block_reduce<max_op>(x, shared);
}

#endif
