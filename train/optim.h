/*
 * optim.h - AdamW over the parameter table: state, gradient norm, clipping, update.
 *
 *     TRY(optim_create(&optim, glm, &options));
 *     TRY_DONE(optim_grad_norm(optim, &norm, &grads));
 *     TRY_DONE(optim_step(optim, &grads, lr, optim_clip_scale(optim, norm), update));
 *
 * The norm is the square root of float64 sums of squares, one per 16,384-element chunk of each
 * logical tensor, folded in table order: it does not depend on layouts, threads or ranks. Decay
 * acts on the table's `decay` rows (matrices).
 */
#ifndef TRAIN_OPTIM_H
#define TRAIN_OPTIM_H

#include "base/cfg.h"
#include "base/err.h"
#include "model/glm.h"

#include <stdint.h>

struct optim_options {
    double beta1, beta2, eps, weight_decay;
    double max_grad_norm; /* 0 = no clipping */
};
struct optim_options optim_options_from_cfg(const struct cfg *cfg);

struct optim;

/* Yours; optim_close it (NULL allowed). The glm is borrowed. State is zero. ERR_NOMEM. */
MUST_USE err_t optim_create(struct optim **out, struct glm *glm,
                            const struct optim_options *options);
void optim_close(struct optim *optim);

/* The global norm of `grads` (the weights' layout). Waits for the device. */
MUST_USE err_t optim_grad_norm(struct optim *optim, double *norm, const struct tensor *grads);
/* min(1, max_grad_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 without clipping. */
double optim_clip_scale(const struct optim *optim, double norm);
/* One update; update >= 1 counts from the start of training. */
MUST_USE err_t optim_step(struct optim *optim, const struct tensor *grads, double lr,
                          double grad_scale, int64_t update);

/* Flat arenas with the weights' layout, for checkpoints; borrowed. */
struct tensor optim_exp_avg(const struct optim *optim);
struct tensor optim_exp_avg_sq(const struct optim *optim);

#endif
