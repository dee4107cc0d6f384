/*
 * ops_optim.h - what works on flat arenas: gradient norm, AdamW, casts and sums.
 *
 * Weights, gradients and optimizer state lie in arenas with layouts of their own; a segment says
 * where one piece of one tensor lies in each. Segments are host memory, read during the call.
 */
#ifndef KERNELS_OPS_OPTIM_H
#define KERNELS_OPS_OPTIM_H

#include "kernels/dev.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sums of squares are taken per this many elements of a logical tensor and folded in order by the
 * caller, so that the gradient norm does not depend on how tensors are spread over ranks. */
#define SUMSQ_CHUNK 16384

/*
 * out[out_index + c] = sum of x[e]^2 over chunk c of the segment, for each segment;
 * a segment of `count` elements has ceil(count / SUMSQ_CHUNK) chunks.
 * Numerics: float64 sums in a fixed order.
 */
struct sumsq_segment {
    int64_t offset, count; /* elements of x */
    int64_t out_index;
};

struct sumsq_chunks_args {
    struct tensor *out;     /* [chunks]  f64 */
    const struct tensor *x; /* [n]       flat arena, f32, bf16 or f64 */
    const struct sumsq_segment *segments;
    int64_t segment_count;
};
MUST_USE err_t op_sumsq_chunks(struct dev *dev, const struct sumsq_chunks_args *args);
int64_t op_sumsq_chunks_scratch_bytes(const struct dev *dev, const struct sumsq_chunks_args *args);

/*
 * AdamW, decoupled decay, with g = grad_scale * grad and t the 1-based number of this update:
 *   w *= 1 - lr*weight_decay          (segments with decay)
 *   m  = beta1*m + (1-beta1)*g
 *   v  = beta2*v + (1-beta2)*g*g
 *   w -= lr/(1-beta1^t) * m / (sqrt(v)/sqrt(1-beta2^t) + eps)
 *
 * Source:   Loshchilov, Hutter 2019, arXiv:1711.05101, algorithm 2; eps placed as torch.optim.AdamW
 *           does (after the bias correction).
 * Numerics: elementwise in the accumulator dtype; scalar factors computed in float64, then rounded.
 *           With `master`, the update acts on master (f32) and w receives the rounded copy.
 * Cost:     per element 3 reads + 3 writes of f32 without master (28 B); bandwidth bound.
 */
struct adamw_segment {
    int64_t weight_offset, grad_offset; /* elements of the arenas below */
    int64_t state_offset;               /* of both moments, and of master */
    int64_t count;
    bool decay;
};

struct adamw_segments_args {
    struct tensor *weight;      /* [n]  T */
    struct tensor *master;      /* [n]  f32; NULL: weight is its own master */
    struct tensor *exp_avg;     /* [n]  accumulator dtype of T */
    struct tensor *exp_avg_sq;  /* [n]  accumulator dtype of T */
    const struct tensor *grad;  /* [n]  T or accumulator dtype */
    const struct adamw_segment *segments;
    int64_t segment_count;
    double lr;                  /* >= 0 */
    double beta1, beta2;        /* in [0, 1) */
    double eps;                 /* > 0 */
    double weight_decay;        /* >= 0 */
    double grad_scale;          /* finite; the clipping factor */
    int64_t update;             /* t >= 1 */
};
MUST_USE err_t op_adamw_segments(struct dev *dev, const struct adamw_segments_args *args);
int64_t op_adamw_segments_scratch_bytes(const struct dev *dev,
                                        const struct adamw_segments_args *args);

/* y = x rounded to y's dtype (to nearest, ties to even); any pair of float dtypes; counts equal. */
struct cast_args {
    struct tensor *y;
    const struct tensor *x;
};
MUST_USE err_t op_cast(struct dev *dev, const struct cast_args *args);
int64_t op_cast_scratch_bytes(const struct dev *dev, const struct cast_args *args);

/* y_acc += x, elementwise: how the gradients of lanes are combined. */
struct add_args {
    struct tensor *y_acc;   /* [n]  f32 or f64 */
    const struct tensor *x; /* [n]  as y_acc */
};
MUST_USE err_t op_add(struct dev *dev, const struct add_args *args);
int64_t op_add_scratch_bytes(const struct dev *dev, const struct add_args *args);

#ifdef __cplusplus
}
#endif
#endif
