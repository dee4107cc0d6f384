/*
 * plan.h - one training setup as `soulchat plan` looks at it: model, settings, step and card, with
 * the memory and time they come to; and the search for settings that fit.
 *
 *     struct plan plan = { .config = ..., .settings = ..., .batch = ..., .text = ..., ... };
 *     TRY(plan_compute(&plan));
 *     if (!plan.fits) TRY(plan_search(&better, &found, &plan));
 *     if (found) print(plan_changes(&better, &plan, ...));
 */
#ifndef TRAIN_PLAN_H
#define TRAIN_PLAN_H

#include "train/cost.h"

/* What samples are like: means of a corpus, or assumptions. */
struct plan_text {
    double sample_rows;         /* rows of a sample */
    double sample_targets;      /* its trained tokens */
    double sample_pairs;        /* its visible pairs */
    int64_t longest;            /* rows of the longest sample that may come */
    double fill;                /* rows used of a pack, tokens mode */
    struct batch_bounds bounds; /* at micro_tokens, from the corpus; rows = 0: not known */
    int64_t micro_tokens;
    bool measured; /* from a corpus */
};

struct plan {
    /* Given. dev is borrowed. */
    struct dev *dev;
    struct card card;
    struct glm_config config;
    struct cost_settings settings;
    struct batch_spec batch;
    struct plan_text text;
    double spare; /* share of the card that must stay free, 0 to 0.5 */
    bool copies;  /* train.save: background */

    /* Computed. */
    struct batch_bounds bounds;
    struct cost_work work;
    struct cost_memory memory;
    int64_t copy_bytes; /* host memory of all ranks, where checkpoints are written from a copy */
    struct cost_time time;
    bool fits;
};

/* ERR_USAGE: settings that contradict each other or the card; else as glm_plan_create. */
MUST_USE err_t plan_compute(struct plan *plan);

/* The step's work and the largest micro-batch alone; plan_compute does it first. */
void plan_step(struct plan *plan);

/* Bytes that may be used: the card's without what must stay free. */
int64_t plan_budget(const struct plan *plan);

/*
 * The smallest change of settings that makes a plan fit. Changes are tried from the mildest to the
 * strongest; one is only made if all milder ones together are not enough:
 *
 *     activations lean        same bits, a few percent of the time
 *     smaller micro_tokens    the same sums in another order
 *     precision bf16          half the memory of activations; a float32 master beside weights
 *     grad_dtype bf16         sums over micro-batches in 8 bits of precision
 *     activations recompute   same bits, a third of the time
 *     master off              weights in bf16 alone, rounded stochastically
 *     moments 8bit            block-wise quantized
 *     moments_place host      same bits, traffic over PCIe
 *     update backward         one micro-batch a step, clipped by the norm of the step before
 *
 * Where one of the last four is needed, activations and micro_tokens become what is predicted to be
 * fastest with it. `found` is false when nothing fits; then `out` is untouched. Micro-batches are
 * never made so small that the longest sample would not fit.
 */
MUST_USE err_t plan_search(struct plan *out, bool *found, const struct plan *base);

/* The largest micro_tokens with which the plan fits, at most the rows of a step; 0: none. */
MUST_USE err_t plan_micro_max(int64_t *micro_tokens, const struct plan *plan);

#define PLAN_CHANGES_MAX 12
#define PLAN_CHANGE_MAX  48 /* bytes of one, with the NUL */

/* The command-line settings that lead from one plan to another ("--train.activations=lean").
 * Returns their number. */
int64_t plan_changes(char out[PLAN_CHANGES_MAX][PLAN_CHANGE_MAX], const struct plan *from,
                     const struct plan *to);

#endif
