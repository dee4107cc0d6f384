/*
 * linear_rows.h - the row by row work around matrix products: activations, biases, column sums,
 * weights widened to float32. Private to kernels/cuda; the host halves of linear_cuda.cc and
 * loss_cuda.cu call it. Everything is queued in the compute queue.
 *
 * Rows may be strided. Where widths and strides allow, 16 bytes are moved at once; the bits of a
 * result do not depend on that.
 */
#ifndef KERNELS_CUDA_LINEAR_ROWS_H
#define KERNELS_CUDA_LINEAR_ROWS_H

#include "kernels/cuda/gemm.h"
#include "kernels/ops_linear.h"

/* The rows of a tensor from row `first` on. */
struct rows rows_of(const struct tensor *t, int64_t first);

/* y[R,N] = act(pre) in dtype; ACT_NONE copies. y may be pre but for swiglu. */
MUST_USE err_t rows_act(struct dev *dev, enum act_kind act, dtype_t dtype, struct rows y,
                        struct rows pre, int64_t R, int64_t N);
/* dx = g act'(pre): gelu [R,K]; swiglu g [R,K], pre and dx [R,2K]. dx may be pre. */
MUST_USE err_t rows_act_bwd(struct dev *dev, enum act_kind act, dtype_t dtype, struct rows dx,
                            struct rows g, struct rows pre, int64_t R, int64_t K);
/* y[R,N] in bf16 = z + bias, both f32, rounded once. */
MUST_USE err_t rows_add_bias(struct dev *dev, struct rows y, struct rows z, const float *bias,
                             int64_t R, int64_t N);
/* sum_acc[N] += sum over rows of x[R,N], in an order that depends on R alone.
 * `partial` has rows_sum_bytes(R, N). */
MUST_USE err_t rows_sum(struct dev *dev, const struct tensor *sum_acc, dtype_t dtype, struct rows x,
                        int64_t R, int64_t N, float *partial);
int64_t rows_sum_bytes(int64_t R, int64_t N);

/* Weights in T as products want them: a matrix in another format is widened to f32, a piece of its
 * rows at a time. Pieces have as many rows as fit gemm_piece_bytes, at least 128. */
int64_t weight_piece_rows(const struct dev *dev, const struct tensor *w, dtype_t T);
/* 0: used as they are */
int64_t weight_piece_bytes(const struct dev *dev, const struct tensor *w, dtype_t T);
/* Rows first .. first+count-1 of w in T, contiguous if widened into `buffer`. */
MUST_USE err_t weight_piece(struct rows *out, struct dev *dev, const struct tensor *w, dtype_t T,
                            int64_t first, int64_t count, void *buffer);
/* count numbers of a 16-bit format to f32. */
MUST_USE err_t widen(struct dev *dev, float *out, const void *in, dtype_t dtype, int64_t count);

#endif
