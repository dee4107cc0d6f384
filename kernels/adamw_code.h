/*
 * adamw_code.h - from a number in [-1, 1] to the nearest code of a moment. The tables and what they
 * mean are in ops_optim.h.
 */
#ifndef KERNELS_ADAMW_CODE_H
#define KERNELS_ADAMW_CODE_H

#include "kernels/ops_optim.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * adamw_bound_*[i] is the largest float that is not above the middle of codes i and i+1, so that
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
