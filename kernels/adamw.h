/*
 * adamw.h - what the backends of op_adamw_segments compute alike: the scalars of an update, and the
 * nearest code of a moment. The equations and the tables of codes are in ops_optim.h.
 */
#ifndef KERNELS_ADAMW_H
#define KERNELS_ADAMW_H

#include "kernels/ops_optim.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of one update, computed in float64 and rounded once. */
struct adamw_scalars {
    float decay;        /* 1 - lr*weight_decay */
    float beta1, rest1; /* beta1, 1 - beta1 */
    float beta2, rest2;
    float step; /* lr / (1 - beta1^t) */
    float root; /* 1 / sqrt(1 - beta2^t) */
    float eps, grad_scale;
};
struct adamw_scalars adamw_scalars_of(const struct adamw_segments_args *args);

/*
 * Bound i is the largest float that is not above the middle of codes i and i+1, so that
 * comparing floats decides as comparing with the exact middle would: the nearest code of x, the
 * lower one where two are equally near, is the number of bounds below x.
 */
struct adamw_bounds {
    float signed_codes[255], unsigned_codes[255];
};
void adamw_bounds_fill(struct adamw_bounds *out);

/* How many of 255 increasing bounds are below x; 0 for NaN. */
static inline int adamw_code_nearest(const float bounds[255], float x)
{
    int code = 0;
    for (int step = 128; step > 0; step /= 2)
        if (bounds[code + step - 1] < x) code += step;
    return code;
}

#ifdef __cplusplus
}
#endif
#endif
