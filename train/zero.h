/*
 * zero.h - what several ranks of one run share: lanes, gradients, optimizer state, weights; and how
 * they come together, with the same bits on any number of ranks.
 *
 *     TRY(zero_open(&z, comm, stage, lane_count));   // one rank: all that follows does nothing
 *     TRY(zero_share_model(&z, &options, dev, &config));
 *     ... glm_create, lanes_init ...
 *     TRY(zero_attach(&z, glm, &lanes));             // and optim_create_on z.target
 *     for each step:
 *     zero_begin(&z, step);
 *     ... lanes z.lane_first .. z.lane_end - 1, zero_idle before the first micro-batch, zero_hooks
 *         for the last ...
 *     TRY(zero_sum(&z, &grads));                     // gradients where this rank needs them
 *     TRY(zero_sum_losses(&z, losses, count));
 *     ... norm, update ...
 *     TRY(zero_spread_weights(&z));
 *
 * Stages (Rajbhandari, Rasley, Ruwase, He 2020, arXiv:1910.02054), each with what the one before
 * has:
 *     0  every rank has everything and updates everything;
 *     1  optimizer state of what a rank owns (owner.h) alone, which it updates and sends to all;
 *     2  where ranks have one lane each, they send each unit's gradients while the backward pass
 *        goes on. Ranks of several lanes send when all are summed, as in stage 1: a rank's own sums
 *        come first;
 *     3  of the layers' weights a rank keeps what it owns; whole layers are fetched, one ahead of
 *        the computation, into two slots. Embedding and final norm (and head) stay whole.
 * Gradients take a whole arena in every stage: a lane adds micro-batch to micro-batch in place, and
 * sums that were rounded in another order would have other bits.
 */
#ifndef TRAIN_ZERO_H
#define TRAIN_ZERO_H

#include "base/err.h"
#include "model/glm.h"
#include "model/glm_plan.h"
#include "train/ckpt.h"
#include "train/comm.h"
#include "train/exchange.h"
#include "train/lanes.h"
#include "train/optim.h"
#include "train/owner.h"
#include "train/zero_fetch.h"

#include <stdbool.h>
#include <stdint.h>

#define ZERO_STAGE_MAX 3

struct zero {
    int stage;
    struct comm *comm; /* NULL: one rank */
    int64_t rank, size;
    int64_t lane_count, lane_first, lane_end; /* in all; this rank's */
    struct glm *glm;              /* after zero_attach */
    struct lanes *lanes;
    struct owner owner;
    struct exchange exchange;
    struct zero_fetch fetch; /* stage 3 */
    int64_t unit_next; /* of the gradients to send, from the last unit down; -1: all are sent */
    double *gathered;  /* [size * gathered_capacity] losses of all ranks */
    int64_t gathered_capacity;
    struct optim_target target; /* for optim_create_on */
    struct ckpt_ranks ckpt;
};

/* ERR_USAGE names both numbers where there are more ranks than lanes. */
MUST_USE err_t zero_check_lanes(int64_t lane_count, int64_t ranks);

/* Which lanes are ours; `comm` NULL: all. Close it also after a failure, when the communicator is
 * closed; closing a zeroed struct does nothing. */
MUST_USE err_t zero_open(struct zero *z, struct comm *comm, int stage, int64_t lane_count);
/* What is owned, and what the options of the model must say because of it. ERR_NOMEM. */
MUST_USE err_t zero_share_model(struct zero *z, struct glm_options *options, const struct dev *dev,
                                const struct glm_config *config);
/* The model and the gradients' buffers, borrowed. ERR_NOMEM. */
MUST_USE err_t zero_attach(struct zero *z, struct glm *glm, struct lanes *lanes);
void zero_close(struct zero *z);

/* What this rank does now, for whoever loses it: "load", "save"; a literal. */
void zero_note(struct zero *z, const char *phase);
/* Step `step` (0-based) begins. */
void zero_begin(struct zero *z, int64_t step);
/* The first lane has begun: what this rank does for passes that only others run; micro_count
 * [lanes] of all ranks. */
MUST_USE err_t zero_idle(struct zero *z, const int64_t *micro_count);
/* This rank runs no forward pass while others do. */
MUST_USE err_t zero_idle_forward(struct zero *z);
/* Let the pass of the last micro-batch of the last lane send gradients as they are ready, where
 * that can be done. */
void zero_hooks(struct zero *z, struct glm_grads *grads);
/* The sum over all lanes of all ranks: of everything (stage 0), or of the spans owned. */
MUST_USE err_t zero_sum(struct zero *z, struct tensor *grads);
/* Weights updated, or set by their owners, to everyone. */
MUST_USE err_t zero_spread_weights(struct zero *z);

/* Each of `values` was computed by one rank, and is 0 on the others: now all have all. */
MUST_USE err_t zero_sum_losses(struct zero *z, double *values, int64_t count);
/* What this rank has, for checkpoints: for saving and finding them; and for loading them, before
 * zero_spread_weights. NULL: everything. */
const struct ckpt_ranks *zero_ckpt(const struct zero *z);
const struct ckpt_ranks *zero_ckpt_loading(const struct zero *z);

/* Whether any rank says so. */
MUST_USE err_t zero_any(struct zero *z, bool *flag);

#endif
