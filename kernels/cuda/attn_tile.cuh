/*
 * attn_tile.cuh - tiles of q, k, v and their gradients in shared memory, and products of a warp
 * with them: what the attention kernels on matrix units are made of. M is the number of 16-row
 * slices that a warp has of its tile, N the number of 8-column pieces of a product, D the head's
 * width.
 */
#ifndef KERNELS_CUDA_ATTN_TILE_CUH
#define KERNELS_CUDA_ATTN_TILE_CUH

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/mma.cuh"

#define TILE_WARPS   4
#define TILE_THREADS (TILE_WARPS * 32)

/* Start copying ROWS rows, of which the first `rows` are real and the others become zero. Not
 * unrolled in full: addresses prepared in advance would take registers that the products need. */
template <int D, int ROWS>
__device__ __forceinline__ void load_tile(bf16 *tile, const bf16 *from, int64_t stride, int rows)
{
    constexpr int CHUNKS = D / 8, STEP = TILE_THREADS / CHUNKS;
    static_assert(STEP % 8 == 0 && ROWS % STEP == 0, "a thread's rows have one swizzle");
    const int first = (int)threadIdx.x / CHUNKS, chunk = (int)threadIdx.x % CHUNKS;
    bf16 *to = tile + tile_at<D>(first, chunk);
    from += first * stride + 8 * chunk;
#pragma unroll 2
    for (int r = first; r < ROWS; r += STEP) {
        async_copy<16>(to, from, r < rows);
        to += STEP * D;
        from += STEP * stride;
    }
}

/* A product's piece: rows 16*m + lane/4 and 8 below, columns 8*n + 2*(lane%4) and the next. */
template <int M, int N> struct piece {
    float of[M][N][4];
};

template <int M, int N> __device__ __forceinline__ void clear(piece<M, N> &c)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) c.of[m][n][i] = 0.0f;
}

/* c = x y^T with rows row .. row+16M-1 of tile x, rows 0 .. 8N-1 of tile y. */
template <int D, int M, int N>
__device__ __forceinline__ void multiply(piece<M, N> &c, const bf16 *x, int row, const bf16 *y)
{
    clear(c);
#pragma unroll 4 /* in full it takes more registers for addresses */
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) load_a<D>(a[m], x, row + 16 * m, k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t b[4];
            load_b<D>(b, y, 8 * n, k);
#pragma unroll
            for (int m = 0; m < M; m++) mma_16x16x16(c.of[m][n], c.of[m][n + 1], a[m], b);
        }
    }
}

/* A product's piece rounded to bf16: the left side of the next product. */
template <int M, int N> struct rounded {
    uint32_t of[M][N / 2][4];
};

template <int M, int N>
__device__ __forceinline__ void round_piece(rounded<M, N> &a, const piece<M, N> &c)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int k = 0; k < N / 2; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&four)[4] = c.of[m][2 * k + i / 2];
                a.of[m][k][i] = round_pair(four[i % 2 * 2], four[i % 2 * 2 + 1]);
            }
}

/* sum += a y with rows 0 .. 8N-1 of tile y. */
template <int D, int M, int N>
__device__ __forceinline__ void add_product(piece<M, D / 8> &sum, const rounded<M, N> &a,
                                            const bf16 *y)
{
#pragma unroll
    for (int k = 0; k < N / 2; k++)
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_b_rows<D>(b, y, k, 8 * n);
#pragma unroll
            for (int m = 0; m < M; m++) mma_16x16x16(sum.of[m][n], sum.of[m][n + 1], a.of[m][k], b);
        }
}

/* Rows row .. of the block's tile, of which the first `rows` are real, to `to`, where row 0 of the
 * tile goes; rounded. They pass through those rows of `tile`, which no other warp may use. */
template <int D, int M>
__device__ __forceinline__ void store_rows(bf16 *to, int64_t stride, int rows, bf16 *tile, int row,
                                           const piece<M, D / 8> &sum)
{
    constexpr int CHUNKS = D / 8;
    const int lane = (int)(threadIdx.x % 32);
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < D / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const pack<bf16, 2> two = { { to_bf16(sum.of[m][n][2 * i]),
                                              to_bf16(sum.of[m][n][2 * i + 1]) } };
                const int r = row + 16 * m + 8 * i + lane / 4;
                store_pack<2>(tile + tile_at<D>(r, n) + lane % 4 * 2, two);
            }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16 * M * CHUNKS / 32; i++) {
        const int at = 32 * i + lane, r = row + at / CHUNKS, c = at % CHUNKS;
        if (r < rows) store_pack<8>(to + r * stride + 8 * c, load_pack<8>(tile + tile_at<D>(r, c)));
    }
}

#endif
