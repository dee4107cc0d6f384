/*
 * ops_cuda.h - the operators of the CUDA backend, and what their host halves share. Private to
 * kernels/cuda.
 *
 * An operator's file holds its kernels and, below them, the function of the table, which picks a
 * kernel for the dtypes and shapes and queues it. Grids and blocks depend on shapes alone, never on
 * the card, so that results have the same bits on every card of an architecture.
 */
#ifndef KERNELS_CUDA_OPS_CUDA_H
#define KERNELS_CUDA_OPS_CUDA_H

#include "base/num.h"
#include "kernels/dev.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const struct ops_table ops_cuda;

#define X(op)                                                                                      \
    err_t op##_cuda(struct dev *dev, const struct op##_args *args);                                \
    int64_t op##_scratch_cuda(const struct dev *dev, const struct op##_args *args);
OPS_LIST(X)
#undef X

err_t probe_gemm_cuda(double *flop_per_s, struct dev *dev, int64_t n, double seconds);

#ifdef __cplusplus
}
#endif

/* The dtype this backend computes in, f32 or bf16; else ERR_UNSUPPORTED, naming the tensor. */
MUST_USE err_t cuda_require_compute(const struct tensor *t);

/* Cut the next piece, 256-byte aligned, off the front of `left`. */
static inline void *cuda_scratch_take(struct scratch *left, int64_t bytes)
{
    const int64_t taken = align_up(bytes, 256);
    void *piece = left->data;
    ASSERT(taken <= left->bytes);
    left->data = (char *)left->data + taken;
    left->bytes -= taken;
    return piece;
}

#endif
