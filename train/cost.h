/*
 * cost.h - what a training step takes: bytes of every class of memory, and seconds of every part.
 * Pure functions of the model, the settings, the card and the step's tokens; nothing is allocated
 * on a device. `soulchat plan` prints them, and searches with them (plan.h).
 *
 *     struct cost_memory memory;
 *     struct cost_time time;
 *     TRY(cost_memory(&memory, dev, &config, &settings, &bounds));    // dev: plan_dev.h, or real
 *     cost_time(&time, &config, &settings, &work, &memory, &card);
 *
 * Memory comes from the plans of the model and of the optimizer, which are also what a run
 * allocates by. Time is a sum of parts, each FLOP or bytes over a rate: within 10 % where the rates
 * are measured.
 */
#ifndef TRAIN_COST_H
#define TRAIN_COST_H

#include "base/cfg.h"
#include "base/err.h"
#include "data/batch.h"
#include "model/glm.h"
#include "train/card.h"
#include "train/zero_memory.h"

#include <stdbool.h>
#include <stdint.h>

/* The settings that memory and time depend on. */
struct cost_settings {
    dtype_t dtype;      /* of weights and activations: F32, BF16 */
    dtype_t grad_dtype; /* F32, or BF16 with dtype BF16 */
    bool master;        /* float32 master weights, with dtype BF16 */
    bool moments_8bit;
    bool state_on_host;      /* moments and master */
    bool update_in_backward; /* each layer's gradient is used up at once: one micro-batch a step */
    bool clip_by_previous;   /* by the norm of the step before; with update_in_backward */
    enum glm_activations activations;
    int64_t lanes; /* at least one for each rank */
    int64_t ranks;
    int zero; /* the stage, with several ranks */
};
/* From the settings of section `train` and batch.lanes, for one rank. ERR_USAGE where they exclude
 * each other. */
MUST_USE err_t cost_settings_from_cfg(struct cost_settings *out, const struct cfg *cfg);

/* "keep", "lean", "recompute". */
const char *cost_activations_name(enum glm_activations activations);

/* ---- memory ---- */

enum cost_class {
    COST_WEIGHTS,
    COST_GRADIENTS,
    COST_MASTER,
    COST_MOMENTS,
    COST_ACTIVATIONS,
    COST_BATCH,
    COST_TABLES,
    COST_SCRATCH,
    COST_NORM_SUMS, /* of the gradient's norm */
    COST_STAGING,   /* states on their way from and to the host */
    COST_EXCHANGE,  /* gradients of other ranks on their way */
    COST_LIBRARIES, /* what cuDNN wants beyond the shared scratch; buffers of NCCL */
    COST_CONTEXT,   /* what the driver takes for the program itself */
    COST_CLASSES
};
const char *cost_class_name(enum cost_class klass);

struct cost_memory {
    int64_t bytes[COST_CLASSES]; /* on the device */
    int64_t device_bytes;        /* their sum */
    int64_t host_bytes;          /* page-locked memory of the host */
    struct zero_memory zero;     /* what they come from */
};

/* Of the rank that takes most. Errors are glm_plan_create's. */
MUST_USE err_t cost_memory(struct cost_memory *out, struct dev *dev,
                           const struct glm_config *config, const struct cost_settings *settings,
                           const struct batch_bounds *bounds);
/* The stage that a run would choose by itself on a card of so much memory. */
MUST_USE err_t cost_lowest_zero(int *stage, struct dev *dev, const struct glm_config *config,
                                const struct cost_settings *settings,
                                const struct batch_bounds *bounds, int64_t card_bytes);

/* ---- time ---- */

/* What one step computes, all micro-batches together: of all ranks, or of one. */
struct cost_work {
    double rows;        /* without padding */
    double rows_padded; /* what the matrix products see */
    double targets;     /* trained tokens */
    double pairs;       /* visible (query, key) pairs, all samples: see cost_pairs */
    double micro_batches;
};
/* Visible pairs of one sample: c*c + c*t + t*(t+1)/2, for c rows of context and t after them. */
double cost_pairs(double context, double target);

enum cost_part {
    COST_T_PRODUCTS, /* of the layers, forward and backward */
    COST_T_ATTENTION,
    COST_T_HEAD,      /* output layer and loss */
    COST_T_ROWS,      /* norms, rotary, GELU, bias sums, embedding: bound by memory */
    COST_T_RECOMPUTE, /* what lean or recomputed activations repeat */
    COST_T_GRADIENTS, /* zeroing, adding up, the norm */
    COST_T_OPTIMIZER,
    COST_T_TRANSFER, /* of states on the host, as far as nothing hides it */
    COST_T_EXCHANGE, /* between ranks, likewise; 0 from cost_time: see scale.h */
    COST_PARTS
};
/* Short ("attention"), and for people. */
const char *cost_part_name(enum cost_part part);
const char *cost_part_label(enum cost_part part);

struct cost_time {
    double seconds[COST_PARTS];
    double step_s;
    double tokens_per_s;          /* rows without padding */
    double transfer_s;            /* of states each way, hidden or not */
    double forward_s, backward_s; /* of that, layers alone */
    double flop;                  /* of the model: 6 P rows + 6 V C targets + 12 L C pairs */
    double flop_per_s;            /* of that, in this time */
    double optimizer_bytes;       /* per parameter, read and written */
};
/* Works for any settings; a card that cannot compute in settings->dtype is an ASSERT. */
void cost_time(struct cost_time *out, const struct glm_config *config,
               const struct cost_settings *settings, const struct cost_work *work,
               const struct cost_memory *memory, const struct card *card);

#endif
