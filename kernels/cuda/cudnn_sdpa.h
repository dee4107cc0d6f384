/*
 * cudnn_sdpa.h - attention of ragged batches as cuDNN graphs, and a cache of their plans.
 *
 *     scores = scale * q k^T          of each sample and head
 *     keep(i, j):  j < keys, and with `diagonal`:  j - i <= keys - queries
 *     o = softmax(scores) v           lse = log sum exp scores
 *
 * Samples are runs of rows of one packed array; where each begins and how long it is are read from
 * device memory when a plan runs, so one plan serves all batches that fit its maxima. cuDNN
 * recognises these graphs by their form: the order scale, padding, diagonal, softmax and the
 * places of the transposes are what its engines look for.
 *
 * Not checked here but needed: 9.10.2 or later, compute capability 9.0 or later.
 */
#ifndef KERNELS_CUDA_CUDNN_SDPA_H
#define KERNELS_CUDA_CUDNN_SDPA_H

#include "kernels/cuda/cudnn_graph.h"

/* What a plan is made for; equal shapes share one. */
struct cudnn_sdpa_shape {
    int64_t batch;           /* samples at most */
    int64_t queries, keys;   /* of a sample at most */
    int64_t heads, head_dim; /* H, D: as many key heads as query heads */
    int64_t qkv_head_stride; /* elements from head to head in q, k, v, dq */
    int64_t qkv_row_stride;  /* elements from row to row in q, k, v, dq */
    int64_t dkv_head_stride; /* the same of dk and dv */
    int64_t dkv_row_stride;
    bool diagonal; /* bottom-right: the last query of a sample sees all its keys */
    bool backward;
    bool deterministic; /* of backward: the same bits every time */
};

/* What a plan binds. Rows of o, dout: H*D; of lse and softmax_sum: H. Offsets are i64 [batch+1]
 * in elements of the tensor they belong to; counts i32 [batch]. A sample that is not there has
 * counts 0. */
enum cudnn_sdpa_operand {
    CUDNN_SDPA_Q = 1, /* bf16 */
    CUDNN_SDPA_K,
    CUDNN_SDPA_V,
    CUDNN_SDPA_O,
    CUDNN_SDPA_LSE, /* f32 */
    CUDNN_SDPA_DOUT,
    CUDNN_SDPA_DQ,
    CUDNN_SDPA_DK,
    CUDNN_SDPA_DV,
    CUDNN_SDPA_AT_Q,   /* offsets of q and dq */
    CUDNN_SDPA_AT_KV,  /* of k and v */
    CUDNN_SDPA_AT_O,   /* of o, dout and dq_sum */
    CUDNN_SDPA_AT_LSE, /* of lse and softmax_sum */
    CUDNN_SDPA_AT_DKV, /* of dk and dv */
    CUDNN_SDPA_QUERY_COUNT,
    CUDNN_SDPA_KEY_COUNT,
    CUDNN_SDPA_SOFTMAX_SUM, /* backward: f32 scratch, R*H */
    CUDNN_SDPA_DQ_SUM,      /* backward, not deterministic: f32 scratch, R*H*D */
    CUDNN_SDPA_SCALE,       /* f32 on the host, like the two below */
    CUDNN_SDPA_MASKED,      /* minus infinity */
    CUDNN_SDPA_ONE,
    CUDNN_SDPA_OPERANDS
};

struct cudnn_sdpa_plan {
    struct cudnn_sdpa_shape shape;
    struct cudnn_graph *graph; /* owned */
    struct cudnn_plan plan;
    bool is_refused; /* in a cache: cuDNN has none for this shape, and is not asked again */
};

/* Yours also after a failure; cudnn_sdpa_clear it. ERR_UNSUPPORTED: cuDNN has no engine for this
 * on this device; ERR_CUDA: it has one that cannot be loaded. */
MUST_USE err_t cudnn_sdpa_build(struct cudnn_sdpa_plan *out, const struct cudnn_target *target,
                                const struct cudnn_sdpa_shape *shape);
void cudnn_sdpa_clear(struct cudnn_sdpa_plan *plan); /* clearing twice is allowed */

/* `operands` by enum cudnn_sdpa_operand; those that the plan does not use are not read. */
MUST_USE err_t cudnn_sdpa_run(const struct cudnn_sdpa_plan *plan, const struct cudnn_target *target,
                              void *const operands[CUDNN_SDPA_OPERANDS], float scale,
                              void *workspace, void *stream);

#define CUDNN_SDPA_PLANS_MAX 128

/* Plans by shape. */
struct cudnn_sdpa_cache {
    struct cudnn_sdpa_plan plans[CUDNN_SDPA_PLANS_MAX];
    int64_t count;
};

/* The plan of a shape, built on first use (a second or so); the cache's, until it is cleared.
 * ERR_UNSUPPORTED: there is none, or none that can be loaded, which is logged the first time. */
MUST_USE err_t cudnn_sdpa_find(const struct cudnn_sdpa_plan **out, struct cudnn_sdpa_cache *cache,
                               const struct cudnn_target *target,
                               const struct cudnn_sdpa_shape *shape);
void cudnn_sdpa_cache_clear(struct cudnn_sdpa_cache *cache);

#endif
