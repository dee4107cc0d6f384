/*
 * glm_block.h - a ChatGLM-6B layer and the norms between layers, forward and backward. Private to
 * the model.
 *
 * A layer reads a = LN1(hidden) and leaves its output without the residual; the norm that follows
 * (LN1 of the next layer, or the final norm) adds the residual, so that each fused residual_norm is
 * one operator:
 *
 *     norm 0:   a_0 = LN(hidden_0)
 *     layer l:  h1 = alpha*a_l + dense(attention(qkv(a_l)));  m = LN2(h1);  f = fc2(gelu(fc1(m)))
 *     norm l+1: hidden_{l+1} = alpha*m + f;  a_{l+1} = LN(hidden_{l+1})
 *
 * The backward functions undo this in reverse: before glm_norm_bwd(l) `dy` holds the gradient of
 * a_l and `dh` that of h1 of layer l (which reached a_l through the residual); after it `dh` holds
 * the gradient of hidden_l. What they read is kept by the forward pass, or made again: see
 * enum glm_activations.
 */
#ifndef MODEL_GLM_BLOCK_H
#define MODEL_GLM_BLOCK_H

#include "model/glm_impl.h"

/* l = 0 .. layer_count; the last is the final norm. */
MUST_USE err_t glm_norm_fwd(struct glm_pass *p, int64_t l);
MUST_USE err_t glm_block_fwd(struct glm_pass *p, int64_t l);

/* For GLM_RECOMPUTE: all that glm_norm_bwd(l) and glm_block_bwd(l) read, made from hidden_l. */
MUST_USE err_t glm_block_again(struct glm_pass *p, int64_t l);

MUST_USE err_t glm_norm_bwd(struct glm_pass *p, int64_t l);
MUST_USE err_t glm_block_bwd(struct glm_pass *p, int64_t l);

#endif
