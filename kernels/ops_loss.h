/*
 * ops_loss.h - the output layer and the cross-entropy, fused so that no [tokens, V] matrix of
 * logits exists. Letters: R rows, N target rows, C hidden width, V vocabulary rows, of which
 * Vv <= V are valid.
 */
#ifndef KERNELS_OPS_LOSS_H
#define KERNELS_OPS_LOSS_H

#include "kernels/dev.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * For target i < N, with x_i = x[rows[i],:] and logits z = x_i w^T over the first Vv rows of w:
 *   nll[i]       = logsumexp(z) - z[labels[i]]
 *   loss         = sum_i weights[i] * nll[i]            (the caller's; its gradient appears here)
 *   dz           = weights[i] * (softmax(z) - onehot(labels[i]))
 *   dx[rows[i]]  = dz w          all other rows of dx are set to zero
 *   dw_acc      += dz^T x_i
 * dx and dw_acc may be NULL, each on its own; with both NULL this is the forward pass alone.
 * Rows Vv..V-1 of w are padding: no probability, no gradient.
 *
 * Numerics: logits and softmax in the accumulator dtype, maximum subtracted; dz is rounded to T
 *           before it is multiplied. A backend that cannot look at indices before it uses them
 *           gives NaN for a target whose row or label is out of range.
 * Cost:     2*N*C*Vv FLOP, three times that with both gradients; logits live in scratch, a chunk of
 *           targets at a time.
 */
struct linear_ce_args {
    struct tensor *nll;           /* [N]     accumulator dtype */
    struct tensor *dx;            /* [R, C]  T; NULL: not wanted */
    struct tensor *dw_acc;        /* [V, C]  T or accumulator; NULL: not wanted */
    const struct tensor *x;       /* [R, C]  T */
    const struct tensor *w;       /* [V, C]  T, or f16/bf16 with T = f32 */
    const struct tensor *rows;    /* [N]     i32, strictly increasing, 0 .. R-1 */
    const struct tensor *labels;  /* [N]     i32, 0 .. Vv-1 */
    const struct tensor *weights; /* [N]     f32 whatever T is */
    int64_t vocab_valid;          /* Vv */
    struct scratch scratch;
};
MUST_USE err_t op_linear_ce(struct dev *dev, const struct linear_ce_args *args);
int64_t op_linear_ce_scratch_bytes(const struct dev *dev, const struct linear_ce_args *args);

#ifdef __cplusplus
}
#endif
#endif
