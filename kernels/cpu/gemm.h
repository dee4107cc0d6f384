/*
 * gemm.h - matrix products of the host backend. Private to kernels/cpu/ and its tests.
 *
 *     TRY(gemm_f32(dev, &(struct gemm_args){ .b_transposed = true, .m = R, .n = N, .k = K,
 *             .a = x, .lda = K, .b = w, .b_dtype = DTYPE_F32, .ldb = K, .c = y, .ldc = N }));
 *
 * The output is cut into tiles whose bounds depend on m and n alone. One thread computes a tile
 * with one single-threaded call of sgemm(), over all of k, so that neither the number of threads
 * nor who computes which tile can change a bit. An optional `finish` works on a tile while it is in
 * cache.
 *
 * The price of tiles is that operands are packed once per tile instead of once: 2 to 6 percent.
 */
#ifndef KERNELS_CPU_GEMM_H
#define KERNELS_CPU_GEMM_H

#include "kernels/dev.h"

/* Called once per tile, by the thread that computed it, after its last product: `tile` holds rows
 * row .. row+rows-1 and columns col .. col+cols-1 of the product, `ld` floats from row to row. */
typedef void (*gemm_finish_fn)(const void *context, float *tile, int64_t ld, int64_t row,
                               int64_t rows, int64_t col, int64_t cols);

/* c = op(a) op(b), or c += op(a) op(b); op(a) is [m, k], op(b) is [k, n]. */
struct gemm_args {
    bool a_transposed, b_transposed; /* stored [k, m], [n, k]; not both                      */
    int64_t m, n, k;                 /* k > 0                                                */
    const float *a;
    int64_t lda;                     /* floats from stored row to stored row                 */
    const void *b;                   /* f32, or f16 or bf16, widened exactly piece by piece  */
    dtype_t b_dtype;
    int64_t ldb;
    float *c;                        /* unused with tiles_in_scratch                         */
    int64_t ldc;
    bool tiles_in_scratch;           /* a tile lives in scratch until `finish` has taken it  */
    bool accumulate;                 /* c += instead of c =; not with tiles_in_scratch       */
    gemm_finish_fn finish;           /* NULL: nothing to do                                  */
    const void *finish_context;
    struct scratch scratch;          /* gemm_scratch_bytes                                   */
};

/* ERR_NOMEM: no memory for packing. Adds to dev->stats. */
MUST_USE err_t gemm_f32(struct dev *dev, const struct gemm_args *args);

/* A function of m, n, b_dtype and tiles_in_scratch that never falls as m or n grow; 0 for f32
 * straight into c. */
int64_t gemm_scratch_bytes(const struct dev *dev, const struct gemm_args *args);

/* One product on the calling thread, inside a parallel region of the caller's: the row-major
 * c[m,n] = alpha * op(a) op(b) + beta*c. Returns false for want of memory. */
bool gemm_one_thread(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                     float beta, float *c, int64_t ldc);

/* Call first in every parallel region that calls gemm_one_thread: keeps oneDNN from starting
 * threads of its own where the region has one thread and so does not count as parallel. */
void gemm_region_begin(void);

/* The tile that m x n is cut into. */
struct gemm_tile {
    int64_t rows, cols;
};
struct gemm_tile gemm_tile_of(int64_t m, int64_t n, dtype_t b_dtype);

#endif
