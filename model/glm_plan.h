/*
 * glm_plan.h - every buffer of a model with its size and lifetime, computed before anything is
 * allocated. `soulchat plan` prints it, glm_create allocates exactly it, and a test compares both.
 *
 *     struct glm_plan plan;
 *     TRY(glm_plan_create(&plan, dev, &config, &options));
 *     for (int64_t i = 0; i < GLM_B_COUNT; i++)
 *         print(plan.buffer[i].name, plan.buffer[i].bytes, plan.buffer[i].copies);
 *
 * Buffers of one class lie in one allocation, each copy at a multiple of 64 bytes. Buffers that a
 * model does not need (gradients of activations without training) have 0 copies.
 */
#ifndef MODEL_GLM_PLAN_H
#define MODEL_GLM_PLAN_H

#include "base/err.h"
#include "kernels/dev.h"
#include "model/glm.h"

#include <stdint.h>

enum glm_buffer_class {
    GLM_BUF_WEIGHTS,
    GLM_BUF_ACTIVATIONS,
    GLM_BUF_BATCH,
    GLM_BUF_SCRATCH,
    GLM_BUF_TABLES,
    GLM_BUF_CLASSES
};

/*
 * The buffers, as indices of glm_plan.buffer. Letters: R rows_max, S segments_max, N targets_max, C
 * hidden, H heads, F feed-forward, V vocabulary, P positions, D head width, L layers. T is
 * options.dtype, A its accumulator dtype. Copies: see the table in glm_plan.c.
 */
enum glm_buffer_id {
    GLM_B_WEIGHTS,     /* [storage.bytes] u8  all weights, each in its own dtype */
    GLM_B_HIDDEN,      /* [R, C]  T  input of norm l: the embedding, then each layer's output */
    GLM_B_MEAN1,       /* [R]     A  of norm l, the final norm included */
    GLM_B_RSTD1,       /* [R]     A */
    GLM_B_A,           /* [R, C]  T  output of norm l; what layer l reads, and the head for l = L */
    GLM_B_QKV,         /* [R, 3C] T  rotated */
    GLM_B_ATTN,        /* [R, C]  T  attention's output, before the dense layer */
    GLM_B_LSE,         /* [R, H]  A */
    GLM_B_H1,          /* [R, C]  T  input of the second norm */
    GLM_B_MEAN2,       /* [R]     A */
    GLM_B_RSTD2,       /* [R]     A */
    GLM_B_M,           /* [R, C]  T  output of the second norm */
    GLM_B_U,           /* [R, F]  T  before GELU; later its gradient, in place */
    GLM_B_G,           /* [R, F]  T  after GELU */
    GLM_B_DH,          /* [R, C]  T  gradient of the stream: of h2, h1, the hidden state below */
    GLM_B_DY,          /* [R, C]  T  gradient of what a matrix read */
    GLM_B_DQKV,        /* [R, 3C] T */
    GLM_B_LOGITS,      /* [1, V]  T  of a prompt's last row */
    GLM_B_IDS,         /* [R]     i32 */
    GLM_B_POS,         /* [R]     i32 */
    GLM_B_BLOCK,       /* [R]     i32 */
    GLM_B_ORDER,       /* [R]     i32 */
    GLM_B_SEGMENTS,    /* [S, 3]  i32 */
    GLM_B_TARGET_ROWS, /* [N]     i32 */
    GLM_B_LABELS,      /* [N]     i32 */
    GLM_B_LOSS_WEIGHTS, /* [N]     f32 */
    GLM_B_NLL,          /* [N]     A */
    GLM_B_COS,          /* [P, D/4] A  P = max(position_max, rows_max) */
    GLM_B_SIN,          /* [P, D/4] A */
    GLM_B_SCRATCH,      /* bytes, the most that an operator asks for */
    GLM_B_COUNT
};

struct glm_buffer {
    const char *name; /* "qkv", "h1", ...; a literal */
    enum glm_buffer_class klass;
    dtype_t dtype;
    int64_t rows, cols; /* of one copy at its largest; cols = 0: one dimension */
    int64_t bytes;      /* of one copy, a multiple of 64 */
    int64_t copies;     /* one per layer, or 1, or 0 */
    int64_t offset;     /* of the first copy inside its class, bytes */
};

struct glm_plan {
    struct glm_buffer buffer[GLM_B_COUNT]; /* by enum glm_buffer_id */
    int64_t class_bytes[GLM_BUF_CLASSES];
    int64_t bytes; /* in all */
    /* Not in `bytes`, since the caller allocates it: one gradient arena (glm_grad_layout). */
    int64_t grad_elements, grad_bytes;
    int64_t host_bytes;          /* page-locked, for micro-batches in flight */
    double forward_flop_per_row; /* matrix products of one row without attention and head */
};

/* Scratch sizes depend on the device's operators, and so does the padding of the vocabulary unless
 * options.vocab_multiple says it. ERR_ARG: sizes that are not positive or overflow; ERR_DTYPE:
 * options.dtype, weight_dtype or grad_dtype; ERR_UNSUPPORTED: the family. */
MUST_USE err_t glm_plan_create(struct glm_plan *out, struct dev *dev,
                               const struct glm_config *config, const struct glm_options *options);
const char *glm_buffer_class_name(enum glm_buffer_class klass);

#endif
