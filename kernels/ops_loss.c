/* Argument checks for ops_loss.h, once for all backends. */
#include "kernels/ops_loss.h"

#include "kernels/ops_check.h"

#include <inttypes.h>

OP_SCRATCH_BYTES(linear_ce)

err_t op_linear_ce(struct dev *dev, const struct linear_ce_args *a)
{
    TRY(check_dims(a->x, "x", 2));
    TRY(check_dims(a->w, "w", 2));
    TRY(check_dims(a->rows, "rows", 1));
    TRY(check_float(a->x, "x"));
    const dtype_t T = a->x->dtype, acc = dtype_accumulator(T);
    const int64_t R = a->x->dim[0], C = a->x->dim[1], V = a->w->dim[0], N = a->rows->dim[0];

    TRY(check_2d(a->x, "x", T, R, C, ROWS_DENSE));
    TRY(check_weight_dtype(a->w, "w", T));
    TRY(check_2d(a->w, "w", a->w->dtype, V, C, ROWS_DENSE));
    TRY(check_1d(a->rows, "rows", DTYPE_I32, N));
    TRY(check_1d(a->labels, "labels", DTYPE_I32, N));
    TRY(check_1d(a->weights, "weights", DTYPE_F32, N));
    TRY(check_1d(a->nll, "nll", acc, N));
    if (a->dx != NULL) TRY(check_2d(a->dx, "dx", T, R, C, ROWS_DENSE));
    if (a->dw_acc != NULL) {
        TRY(check_dtype_either(a->dw_acc, "dw_acc", T, acc));
        TRY(check_2d(a->dw_acc, "dw_acc", a->dw_acc->dtype, V, C, ROWS_DENSE));
    }
    if (N > R) RAISE(SHAPE, "rows: %" PRId64 " targets; expected at most %" PRId64, N, R);
    if (C == 0) RAISE(SHAPE, "x has 0 columns; expected at least 1");
    if (a->vocab_valid < 1 || a->vocab_valid > V)
        RAISE(ARG, "vocab_valid = %" PRId64 "; expected 1 .. %" PRId64, a->vocab_valid, V);
    TRY(check_scratch(&a->scratch, op_linear_ce_scratch_bytes(dev, a)));
    if (R == 0) return ERR_OK;
    OP_DISPATCH(dev, linear_ce, a);
}
