/* attn.cuh - what the attention kernels know of the prefix mask. Private to kernels/cuda. */
#ifndef KERNELS_CUDA_ATTN_CUH
#define KERNELS_CUDA_ATTN_CUH

#include "kernels/cuda/attn.h"
#include "kernels/cuda/launch.cuh"

__device__ __forceinline__ int least(int a, int b) { return a < b ? a : b; }

/* Keys that query i of the tile's segment sees: 0 .. visible-1. */
__device__ __forceinline__ int visible_keys(const attn_tile &t, int i)
{
    return i + 1 > t.ctx ? i + 1 : t.ctx;
}

/* The first query that sees a tile of keys: those of the prefix are seen by all, others from their
 * own row on. */
__device__ __forceinline__ int first_query(const attn_tile &t)
{
    return t.first < t.ctx ? 0 : t.first;
}

#endif
