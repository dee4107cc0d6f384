/* act.h - activations and their derivatives on row blocks. Private to kernels/cpu/. */
#ifndef KERNELS_CPU_ACT_H
#define KERNELS_CPU_ACT_H

#include "kernels/ops_linear.h"

/* y = act(pre) for rows x cols elements of y; for swiglu pre has a second half `half` columns to
 * the right. y may be pre (not for swiglu). Element by element, so that how a matrix is cut into
 * blocks does not change a bit. */
void act_apply(enum act_kind act, float *y, int64_t ldy, const float *pre, int64_t ldpre,
               int64_t half, int64_t rows, int64_t cols);

/* dx = g * act'(pre) for the same block; dx has pre's two halves for swiglu, and may be pre. */
void act_chain(enum act_kind act, float *dx, int64_t lddx, const float *g, int64_t ldg,
               const float *pre, int64_t ldpre, int64_t half, int64_t rows, int64_t cols);

#endif
