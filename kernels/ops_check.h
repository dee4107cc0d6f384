/*
 * ops_check.h - what every op_* wrapper shares: checks of tensors and scalars, and dispatch.
 * Private to kernels/ops_*.c. `role` is the field's name in the args struct; messages read
 * "gamma (layers.3.norm.weight): f32 [8]; expected f32 [16]".
 *
 * A NULL tensor here is a programmer's error (ASSERT); wrappers test optional ones themselves.
 */
#ifndef KERNELS_OPS_CHECK_H
#define KERNELS_OPS_CHECK_H

#include "kernels/dev.h"

#include <stddef.h>
#include <stdint.h>

#define SCRATCH_ALIGN 64

enum check_rows { ROWS_DENSE, ROWS_STRIDED };

/* dtype, shape, row stride and 16-byte alignment. */
MUST_USE err_t check_1d(const struct tensor *t, const char *role, dtype_t dtype, int64_t d0);
MUST_USE err_t check_2d(const struct tensor *t, const char *role, dtype_t dtype, int64_t d0,
                        int64_t d1, enum check_rows rows);
MUST_USE err_t check_3d(const struct tensor *t, const char *role, dtype_t dtype, int64_t d0,
                        int64_t d1, int64_t d2);
/* Two tensors of the same number of elements, contiguous and aligned; dtypes are the caller's. */
MUST_USE err_t check_flat(const struct tensor *t, const char *role, int64_t count);

/* The number of dimensions alone, before their sizes are read. */
MUST_USE err_t check_dims(const struct tensor *t, const char *role, int dims);

/* A dtype for computing: f32, bf16, f16 or f64. */
MUST_USE err_t check_float(const struct tensor *t, const char *role);
MUST_USE err_t check_dtype(const struct tensor *t, const char *role, dtype_t dtype);
MUST_USE err_t check_dtype_either(const struct tensor *t, const char *role, dtype_t a, dtype_t b);
/* T itself, or a 16-bit format that an f32 backend widens. */
MUST_USE err_t check_weight_dtype(const struct tensor *t, const char *role, dtype_t T);

MUST_USE err_t check_finite(double value, const char *role);
MUST_USE err_t check_positive(double value, const char *role); /* and finite */
MUST_USE err_t check_scratch(const struct scratch *scratch, int64_t bytes);

/* The last lines of every wrapper. */
#define OP_DISPATCH(dev, op, args)                                                              \
    do {                                                                                        \
        if ((dev)->ops->op == NULL)                                                             \
            RAISE(UNSUPPORTED, "the %s backend has no operator " #op, (dev)->ops->name);        \
        struct trace_span span_ = dev_span_begin((dev), #op);                                   \
        const err_t rc_ = (dev)->ops->op((dev), (args));                                        \
        dev_span_end((dev), &span_);                                                            \
        return rc_;                                                                             \
    } while (0)

#define OP_SCRATCH_BYTES(op)                                                                    \
    int64_t op_##op##_scratch_bytes(const struct dev *dev, const struct op##_args *args)        \
    {                                                                                           \
        return dev->ops->op##_scratch == NULL ? 0 : dev->ops->op##_scratch(dev, args);          \
    }

#endif
