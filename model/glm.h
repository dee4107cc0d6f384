/*
 * glm.h - the network: memory, forward, backward, decoding. Written once against the operator
 * table; the device decides how things are computed. The mathematics is in model/README.md.
 *
 *     struct glm_options options = { .dtype = DTYPE_F32, .train = true, .rows_max = 16384, ... };
 *     TRY(glm_create(&glm, dev, &config, &options));
 *     TRY_DONE(glm_load(glm, weight_source));               // or glm_init(glm, seed)
 *     TRY_DONE(glm_train_begin(glm, &ticket, &batch, &grads));  // added to grads.arena
 *     TRY_DONE(glm_train_end(glm, ticket, nll));
 *
 * All memory is planned by glm_create (glm_plan.h); no call after it allocates on the device, but
 * for glm_cache_create. One thread at a time per glm, its caches included: they share its
 * activations.
 */
#ifndef MODEL_GLM_H
#define MODEL_GLM_H

#include "base/err.h"
#include "kernels/dev.h"
#include "kernels/ops_attn.h"
#include "model/glm_config.h"
#include "model/glm_params.h"
#include "model/weights.h"

#include <stdbool.h>
#include <stdint.h>

enum glm_activations {
    GLM_KEEP_ALL,  /* every activation the backward pass reads is kept */
    GLM_LEAN,      /* norm outputs and GELU outputs are recomputed: same bits, less memory */
    GLM_RECOMPUTE, /* only each layer's input is kept; the layer's forward pass runs again */
};

/* Where gradients live. */
enum glm_grad_keep {
    GLM_GRADS_ALL,      /* one arena for all units: micro-batches and lanes can be added up */
    GLM_GRADS_RELEASED, /* layers take turns in two slots: each unit's gradient is consumed by
                           glm_grads.unit_done before the slot is used again. One micro-batch is
                           one pass over all units; nothing adds up over micro-batches */
};

struct glm_options {
    dtype_t dtype; /* of activations and weights: F32, BF16 (cuda, emu), F64 (reference table) */
    dtype_t grad_dtype; /* BF16, with dtype BF16; F32, the value left out: accumulator(dtype) */
    enum glm_grad_keep grad_keep;
    /* Of matrices: F16 or BF16 keeps them as published files have them, half the memory, with dtype
     * F32 and without train; norms and biases stay in dtype. F32, the value left out: as dtype. */
    dtype_t weight_dtype;
    bool train; /* room for a backward pass */
    enum glm_activations activations;
    int64_t rows_max;     /* tokens of one micro-batch or prompt */
    int64_t segments_max; /* samples of one micro-batch */
    int64_t targets_max;  /* trained tokens of one micro-batch */
    int64_t ranks;        /* layouts are padded for this many; 1 */
    /* Zero rows follow the vocabulary up to a multiple of this, for kernels that want one: tensor
     * cores reach their rate on whole tiles. They are in no file, norm, decay or softmax. 0: what
     * glm_vocab_multiple says of the device; 1: none. */
    int64_t vocab_multiple;
    /* Layers' weights take turns in two slots, where the caller puts them (struct glm_fetch), with
     * train and one dtype for all. glm_weights then has room for `weight_extra` more elements of
     * the caller's behind the slots. */
    bool weights_fetched;
    int64_t weight_extra;
};

/*
 * One micro-batch on the host; all arrays borrowed for the call. The caller (train, eval) fills it
 * from data/batch.h. Rows in no segment are padding and contribute nothing. Target rows increase
 * strictly and lie in segments. Every function that takes a batch checks it: ERR_ARG names what is
 * out of range or does not fit into options.
 */
struct glm_batch {
    int64_t rows;
    const int32_t *ids, *pos, *block; /* [rows] */
    const int32_t *order; /* [rows] sorts ids, see op_embed_bwd; may be NULL without backward */
    int64_t segment_count;
    const struct attn_segment *segments;
    int64_t target_count;
    const int32_t *target_rows, *labels; /* [target_count] */
    const float *weights;                /* [target_count]; may be NULL without backward */
};

struct glm;

/* The multiple of rows that a device of this capability (dev_info.capability) wants: 128 on a GPU,
 * so that ChatGLM-6B's 130,528 rows become 130,560; else 1. */
int64_t glm_vocab_multiple(int capability);

/* Yours; glm_close it (NULL allowed). dev is borrowed. ERR_NOMEM names the buffer; ERR_UNSUPPORTED
 * the family, or a dtype that the device does not compute in. */
MUST_USE err_t glm_create(struct glm **out, struct dev *dev, const struct glm_config *config,
                          const struct glm_options *options);
void glm_close(struct glm *glm);

/* Random initial weights, a pure function of the seed; rounded to weight_dtype. */
MUST_USE err_t glm_init(struct glm *glm, uint64_t seed);
/* Every tensor of the table from a source (weights.h); missing, extra, misshapen tensors are errors
 * that name them. For a tied model whose files hold both names, both must be equal: ERR_FORMAT with
 * the first differing row and the setting model.tie. Rotary frequencies in the files are ignored,
 * as the reference does. A tensor stored in the dtype it has here is copied bit by bit; a wider one
 * is rounded, ERR_NUMERIC where a value becomes infinite. */
MUST_USE err_t glm_load(struct glm *glm, struct weight_source *source);

/*
 * Both again, for who keeps the weights in more precision than the model does: a float32 master
 * must begin at the file's own value, not at its rounding to bf16. `put` receives every element of
 * the table once, as float32, before it is rounded: elements first .. first+count-1 of row `index`,
 * rows in the table's order, chunks from the front; a tied tensor once. `values` is the model's own
 * until put returns. An error of put ends the load with that error. A sink without `put` gets
 * nothing. With `stops`, stop_requested() is asked before every chunk: ERR_INTERRUPTED.
 */
struct glm_sink {
    err_t (*put)(void *context, int64_t index, int64_t first, const float *values, int64_t count);
    void *context;
    bool stops;
};
MUST_USE err_t glm_init_exact(struct glm *glm, uint64_t seed, const struct glm_sink *sink);
MUST_USE err_t glm_load_exact(struct glm *glm, struct weight_source *source,
                              const struct glm_sink *sink);

/*
 * With options.weights_fetched: how whole layers come to their slots (glm_weight_layout).
 *
 * `want` is called while a pass is being queued, as the hooks of gradients are: what is queued from
 * now on reads the layer of `unit`, and `next` will be wanted soon (-1: none is known): it may be
 * fetched beside the computation, into the other slot, which nobody reads any more. Forward:
 * each layer once as `unit` with the one above as `next`, and once more, as the norm that ends the
 * layer below reads it; then backward. Every pass makes the same calls in the same order.
 *
 * `put` gets initial values, as dtype options.dtype in host memory: elements first ..
 * first+count-1 of row `index`, of every row of the table.
 */
struct glm_fetch {
    err_t (*want)(void *context, int64_t unit, int64_t next);
    err_t (*put)(void *context, int64_t index, int64_t first, const void *values, int64_t count);
    void *context;
};
/* Before weights are loaded or used; copied. */
void glm_set_fetch(struct glm *glm, const struct glm_fetch *fetch);

const struct glm_config *glm_config(const struct glm *glm);
const struct glm_params *glm_params(const struct glm *glm);
const struct glm_layout *glm_layout(const struct glm *glm);
/* Of the weights: the same, or with weights_fetched that of glm_grad_layout's second kind. */
const struct glm_layout *glm_weight_layout(const struct glm *glm);
/*
 * Of the gradients. With GLM_GRADS_ALL the weights' own. Else layer l lies in slot l mod 2, so that
 * layers share offsets: a row's offset and unit_offset[unit] (where the unit begins) are as usual,
 * but a unit ends where its size says, which is the same in every layout:
 *     glm_layout(glm)->unit_offset[unit + 1] - glm_layout(glm)->unit_offset[unit]
 */
const struct glm_layout *glm_grad_layout(const struct glm *glm);
dtype_t glm_grad_dtype(const struct glm *glm);
struct dev *glm_dev(const struct glm *glm);
/* The flat arena of weights [glm_weight_layout's element_count + options.weight_extra], dtype
 * options.dtype; borrowed. Not of a model with 16-bit matrices, whose weights are no one array:
 * ASSERT. */
struct tensor glm_weights(const struct glm *glm);
/* Row `index` of the parameter table, in its own dtype; borrowed. */
struct tensor glm_weight(const struct glm *glm, int64_t index);

/* Forward pass and loss, no gradients. nll[target_count] (host, float64): -log p(label) of each
 * target, unweighted. */
MUST_USE err_t glm_eval_micro(struct glm *glm, const struct glm_batch *batch, double *nll);
/*
 * Where the gradients of a pass go. `arena` is flat, on the device, of the model's grad_dtype, and
 * laid out as glm_grad_layout says.
 *
 * The two hooks, where set, are called while the pass is being queued, on the caller's thread, in
 * the order of the device's work: unit_begin just before the first operator that adds to a unit of
 * the parameter table, unit_done just after the last. What they queue runs in that place. Backward
 * order: final, layers from the last to the first, embedding; the tied head's gradient begins the
 * embedding's unit first of all. With GLM_GRADS_RELEASED both hooks must be set (ERR_ARG):
 * unit_begin must make the unit's gradient zero and unit_done must consume it. An error of a hook
 * ends the pass with that error; some units have then been added to, and the others not.
 */
struct glm_grads {
    struct tensor arena;
    err_t (*unit_begin)(void *context, int64_t unit);
    err_t (*unit_done)(void *context, int64_t unit);
    void *context;
};

/*
 * Forward and backward; gradients of sum_i weights[i]*nll[i] are ADDED to grads. A batch without
 * targets adds nothing and calls no hook.
 *
 * The next micro-batch can be prepared while the device works on this one: begin queues it (the
 * batch may change as soon as it returns) and gives a ticket; end waits for that micro-batch's
 * losses. Tickets are ended in the order they were begun; at most GLM_TICKETS may be open: ERR_ARG
 * else. An error of begin opens no ticket, and those that were open stay so. A failure of queued
 * work may appear in a later call. A ticket that will not be ended any more needs no care:
 * glm_close waits for its work.
 */
#define GLM_TICKETS 2
MUST_USE err_t glm_train_begin(struct glm *glm, int *ticket, const struct glm_batch *batch,
                               const struct glm_grads *grads);
MUST_USE err_t glm_train_end(struct glm *glm, int ticket, double *nll);

/* ---- decoding with a key/value cache ---- */

struct glm_cache;

/* Room for `slots` sequences of `tokens_max` tokens each (prompt and reply). Yours; glm_cache_close
 * it before the model. ERR_ARG: tokens_max above the positions of the rotary table,
 * max(position_max, rows_max). */
MUST_USE err_t glm_cache_create(struct glm_cache **out, struct glm *glm, int64_t slots,
                                int64_t tokens_max);
void glm_cache_close(struct glm_cache *cache);

/* Run a prompt (ids, pos, block [rows], first ctx rows bidirectional) into an empty or reused slot;
 * logits[V] (host, float32) of its last row. */
MUST_USE err_t glm_prefill(struct glm_cache *cache, float *logits, int64_t slot, const int32_t *ids,
                           const int32_t *pos, const int32_t *block, int64_t rows, int64_t ctx);
/* One more token for each of `count` different slots (at most rows_max); logits[count][V] (host,
 * float32). ERR_ARG: a slot that is full or holds no prompt. */
MUST_USE err_t glm_decode(struct glm_cache *cache, float *logits, const int32_t *slots,
                          const int32_t *ids, const int32_t *pos, const int32_t *block,
                          int64_t count);
#endif
