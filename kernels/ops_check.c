#include "kernels/ops_check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define SHAPE_TEXT_MAX 112

static const char *label(const struct tensor *t) { return t->name == NULL ? "unnamed" : t->name; }

/* "f32 [8, 16]" */
static const char *shape_text(char out[SHAPE_TEXT_MAX], dtype_t dtype, int dims,
                              const int64_t *dim)
{
    int at = snprintf(out, SHAPE_TEXT_MAX, "%s [", dtype_name(dtype));
    for (int i = 0; i < dims; i++)
        at += snprintf(out + at, (size_t)(SHAPE_TEXT_MAX - at), "%s%" PRId64, i > 0 ? ", " : "",
                       dim[i]);
    snprintf(out + at, (size_t)(SHAPE_TEXT_MAX - at), "]");
    return out;
}

static err_t check_data(const struct tensor *t, const char *role)
{
    if (tensor_count(t) == 0) return ERR_OK;
    ASSERT(t->data != NULL);
    if ((uintptr_t)t->data % 16 != 0)
        RAISE(ARG, "%s (%s): data at %p; expected a multiple of 16 bytes", role, label(t), t->data);
    return ERR_OK;
}

static err_t check_tensor(const struct tensor *t, const char *role, dtype_t dtype, int dims,
                          const int64_t *dim, enum check_rows rows)
{
    ASSERT(t != NULL);
    ASSERT(t->dims >= 1 && t->dims <= TENSOR_DIMS_MAX);
    char got[SHAPE_TEXT_MAX], expected[SHAPE_TEXT_MAX];
    shape_text(got, t->dtype, t->dims, t->dim);
    shape_text(expected, dtype, dims, dim);

    if (t->dtype != dtype) RAISE(DTYPE, "%s (%s): %s; expected %s", role, label(t), got, expected);
    bool same = t->dims == dims;
    for (int i = 0; same && i < dims; i++) same = t->dim[i] == dim[i];
    if (!same) RAISE(SHAPE, "%s (%s): %s; expected %s", role, label(t), got, expected);

    const int64_t columns = dim[dims - 1];
    if (rows == ROWS_DENSE && !tensor_is_contiguous(t))
        RAISE(SHAPE, "%s (%s): row stride %" PRId64 "; expected contiguous rows of %" PRId64, role,
              label(t), t->row_stride, columns);
    if (rows == ROWS_STRIDED && t->row_stride < columns)
        RAISE(SHAPE, "%s (%s): row stride %" PRId64 "; expected at least %" PRId64, role, label(t),
              t->row_stride, columns);
    return check_data(t, role);
}

err_t check_1d(const struct tensor *t, const char *role, dtype_t dtype, int64_t d0)
{
    return check_tensor(t, role, dtype, 1, &d0, ROWS_DENSE);
}

err_t check_2d(const struct tensor *t, const char *role, dtype_t dtype, int64_t d0, int64_t d1,
               enum check_rows rows)
{
    const int64_t dim[] = { d0, d1 };
    return check_tensor(t, role, dtype, 2, dim, rows);
}

err_t check_3d(const struct tensor *t, const char *role, dtype_t dtype, int64_t d0, int64_t d1,
               int64_t d2)
{
    const int64_t dim[] = { d0, d1, d2 };
    return check_tensor(t, role, dtype, 3, dim, ROWS_DENSE);
}

err_t check_flat(const struct tensor *t, const char *role, int64_t count)
{
    ASSERT(t != NULL);
    if (tensor_count(t) != count)
        RAISE(SHAPE, "%s (%s): %" PRId64 " elements; expected %" PRId64, role, label(t),
              tensor_count(t), count);
    if (!tensor_is_contiguous(t))
        RAISE(SHAPE, "%s (%s): row stride %" PRId64 "; expected contiguous rows", role, label(t),
              t->row_stride);
    return check_data(t, role);
}

err_t check_dims(const struct tensor *t, const char *role, int dims)
{
    ASSERT(t != NULL);
    if (t->dims != dims)
        RAISE(SHAPE, "%s (%s): %d dimensions; expected %d", role, label(t), t->dims, dims);
    return ERR_OK;
}

err_t check_float(const struct tensor *t, const char *role)
{
    ASSERT(t != NULL);
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16 &&
        t->dtype != DTYPE_F64)
        RAISE(DTYPE, "%s (%s): %s; expected a float dtype", role, label(t), dtype_name(t->dtype));
    return ERR_OK;
}

err_t check_dtype(const struct tensor *t, const char *role, dtype_t dtype)
{
    return check_dtype_either(t, role, dtype, dtype);
}

err_t check_dtype_either(const struct tensor *t, const char *role, dtype_t a, dtype_t b)
{
    ASSERT(t != NULL);
    if (t->dtype != a && t->dtype != b)
        RAISE(DTYPE, "%s (%s): %s; expected %s%s%s", role, label(t), dtype_name(t->dtype),
              dtype_name(a), a == b ? "" : " or ", a == b ? "" : dtype_name(b));
    return ERR_OK;
}

err_t check_weight_dtype(const struct tensor *t, const char *role, dtype_t T)
{
    ASSERT(t != NULL);
    if (T == DTYPE_F32 && (t->dtype == DTYPE_F16 || t->dtype == DTYPE_BF16)) return ERR_OK;
    return check_dtype(t, role, T);
}

err_t check_finite(double value, const char *role)
{
    if (!isfinite(value)) RAISE(ARG, "%s = %g; expected a finite number", role, value);
    return ERR_OK;
}

err_t check_positive(double value, const char *role)
{
    if (!isfinite(value) || value <= 0.0)
        RAISE(ARG, "%s = %g; expected a finite number above 0", role, value);
    return ERR_OK;
}

err_t check_scratch(const struct scratch *scratch, int64_t bytes)
{
    if (bytes == 0) return ERR_OK;
    if (scratch->data == NULL || scratch->bytes < bytes)
        RAISE(ARG, "scratch: %" PRId64 " bytes; expected at least %" PRId64,
              scratch->data == NULL ? 0 : scratch->bytes, bytes);
    if ((uintptr_t)scratch->data % SCRATCH_ALIGN != 0)
        RAISE(ARG, "scratch: data at %p; expected a multiple of %d bytes", scratch->data,
              SCRATCH_ALIGN);
    return ERR_OK;
}
