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
 *           With `master`, the update acts on master and weight receives its copy, rounded to
 *           nearest.
 * Cost:     per element, bytes: f32 without master 28; bf16 weight and gradient with master 28,
 *           with f32 gradient 30; bf16 without master 22, with 8-bit moments 10.03; bandwidth
 *           bound.
 */

/* How the moments of a segment are stored. */
enum adamw_state {
    ADAMW_STATE_FULL,   /* exp_avg, exp_avg_sq: an element each, in the accumulator dtype */
    ADAMW_STATE_BLOCK8, /* a byte each, and one f32 scale per ADAMW_BLOCK elements */
};

/*
 * Block-wise dynamic quantization (Dettmers, Lewis, Shleifer, Zettlemoyer 2022, arXiv:2110.02861,
 * section 2): a moment is adamw_code_*[byte] * absmax[block], absmax being the largest magnitude in
 * the block. The update reads the block's moments, computes in f32, uses the new moments for the
 * weight, and stores the codes nearest to moment / absmax, an f32 quotient (the lower one where two
 * are equally near). exp_avg has signed codes, exp_avg_sq unsigned ones; both contain 0 and 1
 * (exactly), and increase strictly. A block of zeros has the scale 0 and the code of 0. Zeroed
 * memory means moments of 0: every scale is 0.
 *
 * Positive codes: decade d = 0 .. 6 divides [0.1, 1] * 10^(d-6) into 2^d equal cells (2^(d+1) where
 * there are no negative ones), each with its centre as a code; then 0 and 1, and with signs every
 * centre once more below zero. adamw.h has the search.
 */
#define ADAMW_BLOCK 256
extern const float adamw_code_signed[256], adamw_code_unsigned[256];

/*
 * How a bf16 weight without master is rounded. Stochastic: away from zero with the probability of
 * the part cut off, so that the expected value is the f32 result w:
 *     bf16 bits = (bits of w + r) >> 16, r uniform in 0 .. 65535; not finite: to nearest
 * r is a pure function of (seed, update, segment.tensor, logical element e), whatever the layout:
 * 16 of the 128 bits that eight elements get from one block of Philox4x32-10 (base/rng.h):
 *     key = { seed, seed >> 32 }, each 32 bits
 *     counter = { e / 8, (e / 8) >> 32, RNG_ROUNDING | tensor << 8, update }, each 32 bits
 *     r = (out[e % 8 / 2] >> 16 * (e % 2)) & 0xffff
 */
enum adamw_rounding {
    ADAMW_ROUND_NEAREST,
    ADAMW_ROUND_STOCHASTIC,
};
#define ADAMW_TENSOR_MAX (1 << 24) /* stochastic rounding: tensors are below */

struct adamw_segment {
    int64_t weight_offset, grad_offset; /* elements of the arenas below */
    int64_t state_offset; /* FULL: of both moments and of master; BLOCK8: of both codes, a multiple
                             of ADAMW_BLOCK; its scales begin at state_offset / ADAMW_BLOCK */
    int64_t count;
    bool decay;
    enum adamw_state state;
    uint32_t tensor; /* which tensor of the table, and the first element's index in it, a multiple
                        of 8: the key of stochastic rounding, not looked at otherwise */
    int64_t element;
};

struct adamw_segments_args {
    struct tensor *weight;      /* [n]  T: f32, bf16 or f64 */
    struct tensor *master;      /* [n]  f32, for T = bf16 (backends may refuse it for f32); NULL:
                                   weight is its own master. There are no BLOCK8 segments then */
    struct tensor *exp_avg;     /* [n]  accumulator dtype of T; NULL: no FULL segment */
    struct tensor *exp_avg_sq;  /* as exp_avg */
    struct tensor *exp_avg_codes, *exp_avg_sq_codes;   /* [n8]  u8; NULL: no BLOCK8 segment */
    struct tensor *exp_avg_absmax, *exp_avg_sq_absmax; /* [ceil(n8 / ADAMW_BLOCK)]  f32 */
    const struct tensor *grad;  /* [n]  T or accumulator dtype */
    const struct adamw_segment *segments;
    int64_t segment_count;
    double lr;                  /* >= 0 */
    double beta1, beta2;        /* in [0, 1) */
    double eps;                 /* > 0 */
    double weight_decay;        /* >= 0 */
    double grad_scale;          /* finite; the clipping factor */
    int64_t update;             /* t >= 1 */
    enum adamw_rounding rounding; /* STOCHASTIC only with T = bf16 and without master */
    uint64_t seed;                /* of stochastic rounding */
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
