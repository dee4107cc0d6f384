/* Argument checks for ops_linear.h, once for all backends. */
#include "kernels/ops_linear.h"

#include "kernels/ops_check.h"

OP_SCRATCH_BYTES(linear_fwd)
OP_SCRATCH_BYTES(linear_bwd)
OP_SCRATCH_BYTES(act_fwd)

static err_t check_act(enum act_kind act, const char *role)
{
    if (act != ACT_NONE && act != ACT_GELU_TANH && act != ACT_SWIGLU)
        RAISE(ARG, "%s = %d; expected one of enum act_kind", role, (int)act);
    return ERR_OK;
}

err_t op_linear_fwd(struct dev *dev, const struct linear_fwd_args *a)
{
    TRY(check_act(a->act, "act"));
    TRY(check_dims(a->x, "x", 2));
    TRY(check_dims(a->y, "y", 2));
    TRY(check_float(a->x, "x"));
    const dtype_t T = a->x->dtype;
    const int64_t R = a->x->dim[0], K = a->x->dim[1], N = a->y->dim[1];
    const int64_t width = a->act == ACT_SWIGLU ? 2 * N : N;

    TRY(check_2d(a->x, "x", T, R, K, ROWS_STRIDED));
    TRY(check_2d(a->y, "y", T, R, N, ROWS_STRIDED));
    TRY(check_weight_dtype(a->w, "w", T));
    TRY(check_2d(a->w, "w", a->w->dtype, width, K, ROWS_DENSE));
    if (a->bias != NULL) {
        if (a->bias->dtype != a->w->dtype)
            TRY(check_dtype_either(a->bias, "bias", T, DTYPE_F32));
        TRY(check_1d(a->bias, "bias", a->bias->dtype, width));
    }
    ASSERT(a->act != ACT_NONE || a->pre == NULL);
    if (a->pre != NULL) TRY(check_2d(a->pre, "pre", T, R, width, ROWS_DENSE));
    if (K == 0) RAISE(SHAPE, "x has 0 columns; expected at least 1");
    TRY(check_scratch(&a->scratch, op_linear_fwd_scratch_bytes(dev, a)));
    if (R == 0 || N == 0) return ERR_OK;
    OP_DISPATCH(dev, linear_fwd, a);
}

err_t op_linear_bwd(struct dev *dev, const struct linear_bwd_args *a)
{
    TRY(check_act(a->x_act, "x_act"));
    TRY(check_dims(a->dy, "dy", 2));
    TRY(check_float(a->dy, "dy"));
    const dtype_t T = a->dy->dtype, acc = dtype_accumulator(T);
    const int64_t R = a->dy->dim[0], N = a->dy->dim[1];

    int64_t K = 0; /* columns of w and x, whichever there are */
    TRY(check_2d(a->dy, "dy", T, R, N, ROWS_STRIDED));
    if (a->dx != NULL) {
        TRY(check_dims(a->w, "w", 2));
        K = a->w->dim[1];
        const int64_t width = a->x_act == ACT_SWIGLU ? 2 * K : K;
        TRY(check_weight_dtype(a->w, "w", T));
        TRY(check_2d(a->w, "w", a->w->dtype, N, K, ROWS_DENSE));
        TRY(check_2d(a->dx, "dx", T, R, width, ROWS_STRIDED));
        if (a->x_act != ACT_NONE) TRY(check_2d(a->x_pre, "x_pre", T, R, width, ROWS_STRIDED));
    }
    if (a->dw_acc != NULL) {
        TRY(check_dims(a->x, "x", 2));
        if (a->dx == NULL) K = a->x->dim[1];
        TRY(check_2d(a->x, "x", T, R, K, ROWS_STRIDED));
        TRY(check_dtype_either(a->dw_acc, "dw_acc", T, acc));
        TRY(check_2d(a->dw_acc, "dw_acc", a->dw_acc->dtype, N, K, ROWS_DENSE));
    }
    if (a->db_acc != NULL) {
        TRY(check_dtype_either(a->db_acc, "db_acc", T, acc));
        TRY(check_1d(a->db_acc, "db_acc", a->db_acc->dtype, N));
    }
    TRY(check_scratch(&a->scratch, op_linear_bwd_scratch_bytes(dev, a)));
    if (R == 0) return ERR_OK;
    if (N == 0) RAISE(SHAPE, "dy has 0 columns; expected at least 1");
    OP_DISPATCH(dev, linear_bwd, a);
}

err_t op_act_fwd(struct dev *dev, const struct act_fwd_args *a)
{
    TRY(check_act(a->act, "act"));
    if (a->act == ACT_NONE) RAISE(ARG, "act = ACT_NONE; expected an activation");
    TRY(check_dims(a->y, "y", 2));
    TRY(check_float(a->y, "y"));
    const dtype_t T = a->y->dtype;
    const int64_t R = a->y->dim[0], N = a->y->dim[1];

    TRY(check_2d(a->y, "y", T, R, N, ROWS_DENSE));
    TRY(check_2d(a->pre, "pre", T, R, a->act == ACT_SWIGLU ? 2 * N : N, ROWS_DENSE));
    if (R == 0 || N == 0) return ERR_OK;
    OP_DISPATCH(dev, act_fwd, a);
}
