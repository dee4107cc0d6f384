/*
 * glm_impl.h - what the files of the network share: the model itself, and a pass through it.
 * Private to model/glm*.c and to the tests that look inside.
 *
 *     glm.c         life cycle, initial weights
 *     glm_load.c    weights from files
 *     glm_micro.c   a micro-batch: checks, upload, loss
 *     glm_train.c   micro-batches with gradients, several in flight
 *     glm_net.c     embedding, layers, head: forward and backward
 *     glm_block.c   one layer, forward and backward
 *     glm_decode.c  the cache, prompts, one token at a time
 */
#ifndef MODEL_GLM_IMPL_H
#define MODEL_GLM_IMPL_H

#include "kernels/dev.h"
#include "model/glm.h"
#include "model/glm_plan.h"

/* A micro-batch in flight. Its image is page-locked and laid out as the device's batch buffers:
 * what is on its way there, and the losses on their way back. */
struct glm_ticket {
    char *image; /* [plan.class_bytes[GLM_BUF_BATCH]] */
    struct dev_event *done;
    int64_t target_count;
};

struct glm {
    struct dev *dev;
    struct glm_config config;
    struct glm_options options;
    struct glm_params params;
    struct glm_layout layout;        /* of weights in one dtype, of states, of gradients */
    struct glm_layout shared_layout; /* layers in two slots: of gradients with GLM_GRADS_RELEASED,
                                        of weights with weights_fetched; else empty */
    struct glm_fetch fetch;
    struct glm_storage storage; /* of the weights */
    int64_t vocab_rows;         /* of embedding and head, with the zero rows behind them */
    struct glm_plan plan;
    void *memory[GLM_BUF_CLASSES]; /* on the device; NULL in a sketch that only measures scratch */
    void *losses;                  /* [targets_max] on the host, as the device has them */
    struct glm_ticket ticket[GLM_TICKETS];
    int64_t tickets_begun, tickets_ended; /* ticket i is ticket[i % GLM_TICKETS] */
};

/* The table of parameters, the layout and the storage, from config and options; clear them also
 * after a failure. */
MUST_USE err_t glm_place_weights(struct glm *glm);
void glm_forget_weights(struct glm *glm);

/* The first `rows` rows of copy `copy` of a planned buffer. A buffer with one copy serves every
 * layer. */
struct tensor glm_view(const struct glm *glm, enum glm_buffer_id id, int64_t copy, int64_t rows);

/* The weights of a layer (or, with layer = layer_count, of the end) and the global ones, by role;
 * and their gradients inside the arena `grads`. GLM_HEAD of a tied model is its embedding. Absent
 * ones have dims = 0. */
void glm_weights_by_role(struct tensor out[GLM_ROLE_COUNT], const struct glm *glm, int64_t layer);
void glm_grads_by_role(struct tensor out[GLM_ROLE_COUNT], const struct glm *glm,
                       const struct tensor *grads, int64_t layer);

/* Values in the dtype of the row become its elements first .. first+count-1. */
MUST_USE err_t glm_put(struct glm *glm, int64_t index, int64_t first, const void *values,
                       int64_t count);

/* One key/value cache of all layers; see glm_decode.c. */
struct glm_cache;

enum glm_pass_kind {
    PASS_BATCH,   /* segments attend to themselves; may be followed by a backward pass */
    PASS_PREFILL, /* the same for one segment, whose keys and values also go into a slot */
    PASS_DECODE,  /* each row is the next token of a slot */
};

/* What runs through the layers. */
struct glm_pass {
    struct glm *glm;
    struct dev *dev;
    enum glm_pass_kind kind;
    bool measure; /* run nothing: let scratch.bytes grow to what the operators ask for */
    struct scratch scratch;
    struct glm_ticket *ticket; /* the batch goes by way of its image; NULL: by dev_upload */
    int64_t rows;
    struct tensor ids, pos, block, cos, sin;
    struct tensor segments; /* PASS_BATCH, PASS_PREFILL */
    const struct attn_segment *segments_host;
    struct tensor order, target_rows, labels, weights, nll; /* PASS_BATCH */
    const struct glm_grads *grads;                          /* for a backward pass */
    struct glm_cache *cache;                                /* PASS_PREFILL, PASS_DECODE */
    int64_t slot;                                           /* PASS_PREFILL */
    struct tensor slots, lens;                              /* PASS_DECODE */
};

/*
 * Run operator `op` with these arguments, or, in a pass that measures, ask for its scratch. The
 * plan and the computation are the same lines of code, so the plan cannot forget an operator.
 */
#define RUN(p, op, ...)                                                                            \
    ((p)->measure ? glm_pass_measured((p), op_##op##_scratch_bytes(                                \
                                               (p)->dev, &(struct op##_args){ __VA_ARGS__ }))      \
                  : op_##op((p)->dev, &(struct op##_args){ __VA_ARGS__ }))

static inline err_t glm_pass_measured(struct glm_pass *p, int64_t scratch_bytes)
{
    if (scratch_bytes > p->scratch.bytes) p->scratch.bytes = scratch_bytes;
    return ERR_OK;
}

/* ---- glm_micro.c ---- */

/* Room for the rows, ids and positions in range: ERR_ARG says which is not. */
MUST_USE err_t glm_check_rows(const struct glm *glm, int64_t rows, const int32_t *ids,
                              const int32_t *pos, const int32_t *block);
MUST_USE err_t glm_upload_rows(struct glm_pass *p, const int32_t *ids, const int32_t *pos,
                               const int32_t *block);
MUST_USE err_t glm_check_batch(const struct glm *glm, const struct glm_batch *b, bool backward);
MUST_USE err_t glm_upload_batch(struct glm_pass *p, const struct glm_batch *b, bool backward);
/* `segments` is borrowed until the device has done the pass. */
MUST_USE err_t glm_upload_segments(struct glm_pass *p, const struct attn_segment *segments,
                                   int64_t count);
/* Values as the device keeps them to float64. */
void glm_widen(double *out, const void *values, dtype_t dtype, int64_t count);

/* ---- glm_train.c ---- */

/* Page-locked memory and events of all tickets, for a model that trains; close them also after a
 * failure, before anything that work in flight may use. */
MUST_USE err_t glm_tickets_open(struct glm *glm);
void glm_tickets_close(struct glm *glm);

/* ---- glm_net.c ---- */

/* A pass over `rows` rows with the model's buffers and scratch. */
struct glm_pass glm_pass_begin(struct glm *glm, enum glm_pass_kind kind, int64_t rows);
/* Embedding, layers, final norm. */
MUST_USE err_t glm_forward(struct glm_pass *p);
/* nll of the targets, without gradients. */
MUST_USE err_t glm_loss(struct glm_pass *p);
/* nll of the targets, then every gradient into p->grads, unit by unit. */
MUST_USE err_t glm_loss_backward(struct glm_pass *p);
/* logits [count, V] of rows first .. first+count-1 of the last forward pass. */
MUST_USE err_t glm_head(struct glm_pass *p, struct tensor *logits, int64_t first, int64_t count);
/* Scratch of every pass that `sketch`, a model without memory, can be asked for (decoding apart:
 * the cache's size is not known yet). */
MUST_USE err_t glm_measure_scratch(int64_t *bytes, struct glm *sketch);

#endif
