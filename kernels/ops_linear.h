/*
 * ops_linear.h - dense layers: matrix product, bias and activation, forward and backward.
 * Letters: R rows, K input width, N output width.
 */
#ifndef KERNELS_OPS_LINEAR_H
#define KERNELS_OPS_LINEAR_H

#include "kernels/dev.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * gelu_tanh: act(u) = 0.5*u*(1 + tanh(0.7978845608028654*u*(1 + 0.044715*u*u)))
 *            (Hendrycks, Gimpel 2016, arXiv:1606.08415, with the constant of ChatGLM-6B's code).
 * swiglu:    the layer computes 2N columns u1|u2 and act = silu(u1)*u2, silu(u) = u/(1 + exp(-u))
 *            (Shazeer 2020, arXiv:2002.05202, eq. 6).
 */
enum act_kind { ACT_NONE, ACT_GELU_TANH, ACT_SWIGLU };

/*
 * pre = x w^T + bias;  y = act(pre)
 *
 * Numerics: products and sums in the accumulator dtype; pre is rounded to T and y is computed from
 *           the rounded pre, so that a recomputed y (act_fwd) has the same bits.
 * Cost:     2*R*K*N FLOP (twice that for swiglu); compute bound for R beyond some 100 rows.
 */
struct linear_fwd_args {
    struct tensor *y;          /* [R, N]  T, strided */
    struct tensor *pre;        /* [R, N]  ([R, 2N] for swiglu) T; NULL: not kept, or ACT_NONE */
    const struct tensor *x;    /* [R, K]  T, strided */
    const struct tensor *w;    /* [N, K]  ([2N, K] for swiglu) T; or f16, bf16 with T = f32 */
    const struct tensor *bias; /* [N]     ([2N]) dtype of w, T or F32; NULL: none */
    enum act_kind act;
    struct scratch scratch;
};
MUST_USE err_t op_linear_fwd(struct dev *dev, const struct linear_fwd_args *args);
int64_t op_linear_fwd_scratch_bytes(const struct dev *dev, const struct linear_fwd_args *args);

/*
 * dx      = (dy w) * act'(x_pre)     where x = act(x_pre) came from activation x_act; or just dy w
 * dw_acc += dy^T x
 * db_acc += sum_r dy
 * For x_act = ACT_SWIGLU, x_pre and dx are [R, 2K].
 * The three are independent: leave a pointer NULL and its product is not computed (frozen weights,
 * first layer).
 *
 * Numerics: sums over rows in a fixed order that depends on the shapes alone. With an activation,
 *           dy w may be rounded to T before act' multiplies it.
 * Cost:     2*R*K*N FLOP for each of dx and dw_acc.
 */
struct linear_bwd_args {
    struct tensor *dx;          /* [R, K]  T, strided; NULL: not wanted; may alias x_pre */
    struct tensor *dw_acc;      /* [N, K]  T or accumulator; NULL: not wanted */
    struct tensor *db_acc;      /* [N]     as dw_acc; NULL: not wanted */
    const struct tensor *dy;    /* [R, N]  T, strided */
    const struct tensor *x;     /* [R, K]  T, strided; needed for dw_acc, else NULL */
    const struct tensor *w;     /* [N, K]  as in the forward pass; needed for dx, else NULL */
    enum act_kind x_act;
    const struct tensor *x_pre; /* [R, K] or [R, 2K]  T, strided; needed for dx unless ACT_NONE */
    struct scratch scratch;
};
MUST_USE err_t op_linear_bwd(struct dev *dev, const struct linear_bwd_args *args);
int64_t op_linear_bwd_scratch_bytes(const struct dev *dev, const struct linear_bwd_args *args);

/* y = act(pre), the same bits as op_linear_fwd gives: what lean activations recompute. */
struct act_fwd_args {
    struct tensor *y;         /* [R, N]  T; may alias pre unless swiglu */
    const struct tensor *pre; /* [R, N] ([R, 2N] for swiglu)  T */
    enum act_kind act;        /* not ACT_NONE */
};
MUST_USE err_t op_act_fwd(struct dev *dev, const struct act_fwd_args *args);
int64_t op_act_fwd_scratch_bytes(const struct dev *dev, const struct act_fwd_args *args);

#ifdef __cplusplus
}
#endif
#endif
