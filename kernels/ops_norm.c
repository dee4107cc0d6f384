/* Argument checks for ops_norm.h, once for all backends. */
#include "kernels/ops_norm.h"

#include "kernels/ops_check.h"

OP_SCRATCH_BYTES(residual_norm_fwd)
OP_SCRATCH_BYTES(residual_norm_bwd)

/* mean and beta belong to layer normalization and to nothing else. */
static err_t check_kind(enum norm_kind kind, const struct tensor *mean)
{
    if (kind != NORM_LAYER && kind != NORM_RMS)
        RAISE(ARG, "kind = %d; expected NORM_LAYER or NORM_RMS", (int)kind);
    if (kind == NORM_RMS && mean != NULL) RAISE(ARG, "mean given; rms normalization has none");
    ASSERT(kind == NORM_RMS || mean != NULL);
    return ERR_OK;
}

static err_t check_gamma(const struct tensor *t, const char *role, dtype_t T, int64_t C)
{
    TRY(check_dtype_either(t, role, T, DTYPE_F32));
    return check_1d(t, role, t->dtype, C);
}

err_t op_residual_norm_fwd(struct dev *dev, const struct residual_norm_fwd_args *a)
{
    TRY(check_dims(a->x, "x", 2));
    TRY(check_float(a->x, "x"));
    const dtype_t T = a->x->dtype, acc = dtype_accumulator(T);
    const int64_t R = a->x->dim[0], C = a->x->dim[1];

    TRY(check_kind(a->kind, a->mean));
    TRY(check_2d(a->x, "x", T, R, C, ROWS_DENSE));
    TRY(check_2d(a->y, "y", T, R, C, ROWS_DENSE));
    if (a->residual != NULL) TRY(check_2d(a->residual, "residual", T, R, C, ROWS_DENSE));
    if (a->h != NULL) TRY(check_2d(a->h, "h", T, R, C, ROWS_DENSE));
    ASSERT(a->h != NULL || a->residual == NULL);
    if (a->kind == NORM_LAYER) TRY(check_1d(a->mean, "mean", acc, R));
    TRY(check_1d(a->rstd, "rstd", acc, R));
    TRY(check_gamma(a->gamma, "gamma", T, C));
    if (a->kind == NORM_LAYER) TRY(check_1d(a->beta, "beta", a->gamma->dtype, C));
    if (a->kind == NORM_RMS && a->beta != NULL)
        RAISE(ARG, "beta given; rms normalization has none");
    TRY(check_finite(a->alpha, "alpha"));
    TRY(check_positive(a->eps, "eps"));
    if (C == 0) RAISE(SHAPE, "x has 0 columns; expected at least 1");
    if (R == 0) return ERR_OK;
    OP_DISPATCH(dev, residual_norm_fwd, a);
}

err_t op_residual_norm_bwd(struct dev *dev, const struct residual_norm_bwd_args *a)
{
    TRY(check_dims(a->dy, "dy", 2));
    TRY(check_float(a->dy, "dy"));
    const dtype_t T = a->dy->dtype, acc = dtype_accumulator(T);
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1];

    TRY(check_kind(a->kind, a->mean));
    if (a->residual_from != RESIDUAL_FROM_OUTPUT && a->residual_from != RESIDUAL_FROM_INPUT)
        RAISE(ARG, "residual_from = %d; expected one of enum residual_from",
              (int)a->residual_from);
    TRY(check_2d(a->dh, "dh", T, R, C, ROWS_DENSE));
    TRY(check_2d(a->dy, "dy", T, R, C, ROWS_DENSE));
    if (a->dresidual != NULL) TRY(check_2d(a->dresidual, "dresidual", T, R, C, ROWS_DENSE));
    TRY(check_2d(a->h, "h", T, R, C, ROWS_DENSE));
    if (a->kind == NORM_LAYER) TRY(check_1d(a->mean, "mean", acc, R));
    TRY(check_1d(a->rstd, "rstd", acc, R));
    TRY(check_gamma(a->gamma, "gamma", T, C));
    if (a->dgamma_acc != NULL) {
        TRY(check_dtype_either(a->dgamma_acc, "dgamma_acc", T, acc));
        TRY(check_1d(a->dgamma_acc, "dgamma_acc", a->dgamma_acc->dtype, C));
    }
    if (a->dbeta_acc != NULL) {
        if (a->kind == NORM_RMS) RAISE(ARG, "dbeta_acc given; rms normalization has none");
        TRY(check_dtype_either(a->dbeta_acc, "dbeta_acc", T, acc));
        TRY(check_1d(a->dbeta_acc, "dbeta_acc", a->dbeta_acc->dtype, C));
    }
    TRY(check_finite(a->alpha, "alpha"));
    if (C == 0) RAISE(SHAPE, "dy has 0 columns; expected at least 1");
    TRY(check_scratch(&a->scratch, op_residual_norm_bwd_scratch_bytes(dev, a)));
    if (R == 0) return ERR_OK;
    OP_DISPATCH(dev, residual_norm_bwd, a);
}
