/* ref_impl.h - what the files of the reference table share. */
#ifndef TESTS_REF_IMPL_H
#define TESTS_REF_IMPL_H

#include "ref_ops.h"

#include <stdlib.h>

#define X(op) err_t ref_##op(struct dev *dev, const struct op##_args *args);
OPS_LIST(X)
#undef X

/* Row r of an f64 tensor. */
static inline double *ref_row(const struct tensor *t, int64_t r)
{
    ASSERT(t->dtype == DTYPE_F64);
    return (double *)t->data + r * t->row_stride;
}

static inline const int32_t *ref_i32(const struct tensor *t)
{
    ASSERT(t->dtype == DTYPE_I32);
    return t->data;
}

/* A zeroed temporary of `count` doubles; free it. */
static inline double *ref_temp(int64_t count)
{
    double *data = calloc((size_t)count + 1, sizeof *data);
    ASSERT(data != NULL);
    return data;
}

static inline double ref_dot(const double *a, const double *b, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* y += s * x */
static inline void ref_axpy(double *y, double s, const double *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) y[i] += s * x[i];
}

static inline void ref_zero_rows(const struct tensor *t)
{
    for (int64_t r = 0; r < t->dim[0]; r++) {
        double *row = ref_row(t, r);
        for (int64_t c = 0; c < t->dim[1]; c++) row[c] = 0.0;
    }
}

#endif
