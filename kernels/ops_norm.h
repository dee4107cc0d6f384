/*
 * ops_norm.h - residual addition fused with layer or RMS normalization, forward and backward.
 *
 * One pair serves both families. ChatGLM-6B takes its residual from the norm's OUTPUT, scaled:
 *     h = alpha*a + attn(a);  m = LN(h);  h' = alpha*m + mlp(m);  a' = LN(h')
 * ChatGLM2-6B takes it from the norm's INPUT (plain pre-norm): h' = h + f(RMS(h)).
 *
 * Letters: R rows, C hidden width.
 */
#ifndef KERNELS_OPS_NORM_H
#define KERNELS_OPS_NORM_H

#include "kernels/dev.h"

#ifdef __cplusplus
extern "C" {
#endif

enum norm_kind { NORM_LAYER, NORM_RMS };

/*
 * h[r,c]  = alpha * residual[r,c] + x[r,c]        (h = x where residual is NULL)
 * layer:  y = (h - mean) * rstd * gamma + beta,   rstd = 1/sqrt(mean_c((h-mean)^2) + eps)
 * rms:    y = h * rstd * gamma,                   rstd = 1/sqrt(mean_c(h^2) + eps)
 *
 * Source:   Ba, Kiros, Hinton 2016, arXiv:1607.06450, section 3; Zhang, Sennrich 2019,
 *           arXiv:1910.07467, eq. 4; residual scale: GLMBlock of THUDM/chatglm-6b.
 * Numerics: variance in two passes (no E[x^2]-E[x]^2 cancellation); h is rounded to T once, and y
 *           is computed from the rounded h, so that a recomputed y has the same bits.
 * Cost:     4*R*C elements moved (3 without residual); bandwidth bound.
 */
struct residual_norm_fwd_args {
    enum norm_kind kind;
    struct tensor *y;              /* [R, C]  T */
    struct tensor *h;              /* [R, C]  T; may alias x or residual; NULL: not stored (only
                                      where residual is NULL)                               */
    struct tensor *mean;           /* [R]     accumulator dtype; NULL for rms */
    struct tensor *rstd;           /* [R]     accumulator dtype */
    const struct tensor *x;        /* [R, C]  T */
    const struct tensor *residual; /* [R, C]  T, or NULL */
    const struct tensor *gamma;    /* [C]     T or F32 */
    const struct tensor *beta;     /* [C]     as gamma; NULL for rms */
    double alpha;                  /* finite; sqrt(56) in ChatGLM-6B */
    double eps;                    /* > 0, finite */
};
MUST_USE err_t op_residual_norm_fwd(struct dev *dev, const struct residual_norm_fwd_args *args);
int64_t op_residual_norm_fwd_scratch_bytes(const struct dev *dev,
                                           const struct residual_norm_fwd_args *args);

/*
 * The gradient of a loss with respect to h, from that with respect to y and to the residual branch.
 *   RESIDUAL_FROM_OUTPUT (ChatGLM-6B):  g = dy + alpha*dresidual;  dh = norm'(g)
 *   RESIDUAL_FROM_INPUT  (ChatGLM2-6B): g = dy;                    dh = norm'(g) + alpha*dresidual
 * with, for layer: xhat = (h - mean) * rstd, p = g * gamma,
 *   norm'(g) = rstd * (p - mean_c(p) - xhat * mean_c(p * xhat))
 *   dgamma_acc += sum_r g * xhat,   dbeta_acc += sum_r g
 * and for rms: xhat = h * rstd, norm'(g) = rstd * (p - xhat * mean_c(p * xhat)); no dbeta.
 * dh is also the gradient with respect to x, and alpha*dh that with respect to the residual.
 *
 * Source:   derivation in model/README.md, "LayerNorm"; checked against central differences.
 * Numerics: the sum over rows is a fixed tree over fixed blocks of rows.
 * Cost:     4*R*C elements moved; bandwidth bound.
 */
enum residual_from { RESIDUAL_FROM_OUTPUT, RESIDUAL_FROM_INPUT };

struct residual_norm_bwd_args {
    enum norm_kind kind;
    enum residual_from residual_from;
    struct tensor *dh;              /* [R, C]  T; may alias dy or dresidual */
    struct tensor *dgamma_acc;      /* [C]     T or accumulator; NULL: frozen, not computed */
    struct tensor *dbeta_acc;       /* [C]     as dgamma_acc; NULL for rms or frozen */
    const struct tensor *dy;        /* [R, C]  T */
    const struct tensor *dresidual; /* [R, C]  T; NULL: none */
    const struct tensor *h;         /* [R, C]  T, as the forward pass stored it */
    const struct tensor *mean;      /* [R]     from the forward pass; NULL for rms */
    const struct tensor *rstd;      /* [R]     from the forward pass */
    const struct tensor *gamma;     /* [C]     as in the forward pass */
    double alpha;
    struct scratch scratch;
};
MUST_USE err_t op_residual_norm_bwd(struct dev *dev, const struct residual_norm_bwd_args *args);
int64_t op_residual_norm_bwd_scratch_bytes(const struct dev *dev,
                                           const struct residual_norm_bwd_args *args);

#ifdef __cplusplus
}
#endif
#endif
