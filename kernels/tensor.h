/*
 * tensor.h - a borrowed view of numbers on a device: never owns its memory, costs nothing to copy.
 *
 * Rows: the last dimension is contiguous; consecutive rows (indices of the last but one dimension)
 * are `row_stride` elements apart, which lets an operator work on a column block of a wider matrix.
 * A tensor with row_stride == dim[dims-1] is contiguous; beyond two dimensions it always is.
 */
#ifndef KERNELS_TENSOR_H
#define KERNELS_TENSOR_H

#include "base/check.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TENSOR_DIMS_MAX 4

typedef enum {
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_F64, /* the reference table of the tests */
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_U8,
    DTYPE_COUNT
} dtype_t;

int64_t dtype_bytes(dtype_t dtype);
const char *dtype_name(dtype_t dtype); /* "f32", ... */
/* The dtype in which sums over values of `dtype` are kept: F64 for F64, else F32. Row statistics
 * (mean, rstd, log-sum-exp, nll) have it. */
dtype_t dtype_accumulator(dtype_t dtype);

struct tensor {
    void *data;
    dtype_t dtype;
    int dims;
    int64_t dim[TENSOR_DIMS_MAX]; /* dim[0] is outermost */
    int64_t row_stride;           /* elements; == dim[dims-1] when contiguous */
    const char *name;             /* for messages and traces, "layers.7.qkv.weight"; borrowed */
};

static inline int64_t tensor_count(const struct tensor *t)
{
    int64_t count = 1;
    for (int i = 0; i < t->dims; i++) count *= t->dim[i];
    return count;
}

static inline bool tensor_is_contiguous(const struct tensor *t)
{
    return t->dims < 2 || t->row_stride == t->dim[t->dims - 1];
}

/* Contiguous views. */
static inline struct tensor tensor_1d(void *data, dtype_t dtype, int64_t count, const char *name)
{
    return (struct tensor){ data, dtype, 1, { count, 1, 1, 1 }, count, name };
}

static inline struct tensor tensor_2d(void *data, dtype_t dtype, int64_t rows, int64_t cols,
                                      const char *name)
{
    return (struct tensor){ data, dtype, 2, { rows, cols, 1, 1 }, cols, name };
}

static inline struct tensor tensor_3d(void *data, dtype_t dtype, int64_t d0, int64_t d1, int64_t d2,
                                      const char *name)
{
    return (struct tensor){ data, dtype, 3, { d0, d1, d2, 1 }, d2, name };
}

#ifdef __cplusplus
}
#endif
#endif
