/*
 * mma.cuh - bf16 matrix units as a warp sees them: fragments in registers, tiles in shared memory.
 *
 * A fragment is 16x16 or 16x8 elements spread over the lanes of a warp. With g = lane/4 and
 * t = lane%4 a lane holds (PTX ISA, mma.m16n8k16):
 *     a[16 rows, 16 k]   pairs (g, 2t) (g+8, 2t) (g, 2t+8) (g+8, 2t+8)
 *     b[16 k, 8 cols]    pairs (2t, g) (2t+8, g)
 *     c[16 rows, 8 cols] (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1), in float
 * so that two c side by side, rounded, are an a: the chain from scores to their product with the
 * values never leaves registers.
 *
 * The host's twin is kernels/emu/mma_emu.h.
 */
#ifndef KERNELS_CUDA_MMA_CUH
#define KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/num.cuh"

#ifdef SOULCHAT_EMU
#include "kernels/emu/mma_emu.h"
#else

/* left += a * b[0..1], right += a * b[2..3]: 16 columns. */
__device__ __forceinline__ void mma_16x16x16(float (&left)[4], float (&right)[4],
                                             const uint32_t (&a)[4], const uint32_t (&b)[4])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(left[0]), "+f"(left[1]), "+f"(left[2]), "+f"(left[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(right[0]), "+f"(right[1]), "+f"(right[2]), "+f"(right[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[2]), "r"(b[3]));
}

/* Four 8x8 matrices: lane 8m+r gives the address of row r of matrix m, 16 bytes in shared memory;
 * out[m] is the pair (g, 2t) (g, 2t+1) of matrix m. */
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], const bf16 *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

/* The same of the transposed matrices: the pair (2t, g) (2t+1, g). */
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&out)[4], const bf16 *row)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

/* Two numbers in one register, the first in the low half. */
__device__ __forceinline__ uint32_t round_pair(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

#endif

/*
 * A tile in shared memory: rows of D elements, 16-byte chunk c of row r stored in place of chunk
 * c ^ (r % 8). Eight rows read at one chunk, as load_matrices does, then lie in different banks.
 */
template <int D> __device__ __forceinline__ int tile_at(int row, int chunk)
{
    return row * D + ((chunk ^ (row & 7)) << 3);
}

/* a = rows row .. row+15, elements 16*k .. 16*k+15 of a tile. */
template <int D>
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const bf16 *tile, int row, int k)
{
    const int lane = (int)(threadIdx.x % 32);
    load_matrices(a, tile + tile_at<D>(row + lane % 16, 2 * k + lane / 16));
}

/* b = (tile rows col .. col+15, elements 16*k ..)^T: the tile's rows are the product's columns. */
template <int D>
__device__ __forceinline__ void load_b(uint32_t (&b)[4], const bf16 *tile, int col, int k)
{
    const int lane = (int)(threadIdx.x % 32);
    load_matrices(b, tile + tile_at<D>(col + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
}

/* b = tile rows 16*k .. 16*k+15, elements col .. col+15: the tile's rows are summed over. */
template <int D>
__device__ __forceinline__ void load_b_rows(uint32_t (&b)[4], const bf16 *tile, int k, int col)
{
    const int lane = (int)(threadIdx.x % 32);
    load_matrices_transposed(b, tile + tile_at<D>(16 * k + lane % 16, col / 8 + lane / 16));
}

#endif
