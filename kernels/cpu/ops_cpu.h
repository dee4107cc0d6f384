/*
 * ops_cpu.h - what the files of the float32 host backend share. Private to kernels/cpu/.
 *
 * Rules that keep results independent of the number of threads: work is cut into pieces whose
 * bounds come from shapes alone, each piece is computed by one thread, and sums over pieces are
 * taken in the order of the pieces.
 */
#ifndef KERNELS_CPU_OPS_CPU_H
#define KERNELS_CPU_OPS_CPU_H

#include "base/num.h"
#include "kernels/dev.h"

#include <stddef.h>
#include <stdint.h>

#define X(op) err_t op##_cpu(struct dev *dev, const struct op##_args *args);
OPS_LIST(X)
#undef X

err_t probe_gemm_cpu(double *flop_per_s, struct dev *dev, int64_t n, double seconds);

int64_t residual_norm_bwd_scratch_cpu(const struct dev *dev,
                                      const struct residual_norm_bwd_args *args);
int64_t linear_fwd_scratch_cpu(const struct dev *dev, const struct linear_fwd_args *args);
int64_t linear_bwd_scratch_cpu(const struct dev *dev, const struct linear_bwd_args *args);
int64_t attn_fwd_scratch_cpu(const struct dev *dev, const struct attn_fwd_args *args);
int64_t attn_bwd_scratch_cpu(const struct dev *dev, const struct attn_bwd_args *args);
int64_t decode_attn_scratch_cpu(const struct dev *dev, const struct decode_attn_args *args);
int64_t linear_ce_scratch_cpu(const struct dev *dev, const struct linear_ce_args *args);

/* This backend computes in f32; other dtypes are refused before anything is written. */
MUST_USE err_t cpu_require_f32(const struct tensor *t);

/* Row r of an f32 or i32 tensor. */
static inline float *f32_row(const struct tensor *t, int64_t r)
{
    ASSERT_SLOW(t->dtype == DTYPE_F32);
    return (float *)t->data + r * t->row_stride;
}

static inline const int32_t *i32_data(const struct tensor *t)
{
    ASSERT_SLOW(t->dtype == DTYPE_I32);
    return t->data;
}

/* Cut the next piece, 64-byte aligned, off the front of `left`. */
static inline void *scratch_take(struct scratch *left, int64_t bytes)
{
    const int64_t taken = align_up(bytes, 64);
    void *piece = left->data;
    ASSERT(taken <= left->bytes);
    left->data = (char *)left->data + taken;
    left->bytes -= taken;
    return piece;
}

/* Rows are summed in blocks, at most SUM_BLOCKS_MAX of them, at least SUM_ROWS_MIN rows each. */
#define SUM_BLOCKS_MAX 64
#define SUM_ROWS_MIN   16

static inline int64_t sum_block_rows(int64_t rows)
{
    return max_i64(SUM_ROWS_MIN, div_ceil(rows, SUM_BLOCKS_MAX));
}

static inline int64_t sum_block_count(int64_t rows) { return div_ceil(rows, sum_block_rows(rows)); }

/* What scratch is sized by: the count itself falls at 1025, 2049, ... rows, and scratch for many
 * rows has to serve fewer. */
static inline int64_t sum_block_bound(int64_t rows)
{
    return min_i64(div_ceil(rows, SUM_ROWS_MIN), SUM_BLOCKS_MAX);
}

/* out_acc[c] += sum_b partial[b*stride + c], b ascending. */
void cpu_fold_blocks(struct dev *dev, float *out_acc, const double *partial, int64_t blocks,
                     int64_t stride, int64_t cols);

#endif
