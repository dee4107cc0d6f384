/*
 * optim.h - AdamW over the parameter table: state, gradient norm, clipping, update.
 *
 *     TRY(optim_create(&optim, glm, &options));
 *     TRY_DONE(optim_prefetch(optim));             // state in host memory: copies begin
 *     TRY_DONE(optim_grad_norm(optim, &norm, &grads));
 *     TRY_DONE(optim_step(optim, &grads, lr, optim_clip_scale(optim, norm), update));
 *
 * or unit by unit, as gradients become ready:
 *     TRY(optim_unit_norm(optim, &grads, unit));
 *     TRY(optim_unit_step(optim, &grads, unit, lr, scale, update));
 *     ...
 *     TRY(optim_norm(optim, &norm));               // of all units
 *
 * The norm is the square root of float64 sums of squares, one per 16,384-element chunk of each
 * logical tensor, folded in table order: it does not depend on layouts, threads or ranks. Decay
 * acts on the table's `decay` rows (matrices).
 *
 * Updates are queued: nothing but the norm waits for the device. Where and how state is stored is
 * optim_plan.h's; state in host memory passes through two staging buffers on the device, slice by
 * slice: while one is updated, the next comes in and the last goes out. The bits are those of state
 * on the device.
 */
#ifndef TRAIN_OPTIM_H
#define TRAIN_OPTIM_H

#include "base/cfg.h"
#include "base/err.h"
#include "model/glm.h"
#include "train/comm.h"
#include "train/optim_plan.h"
#include "train/owner.h"

#include <stdint.h>

struct optim_options {
    double beta1, beta2, eps, weight_decay;
    double max_grad_norm;         /* 0 = no clipping */
    enum adamw_rounding rounding; /* of bf16 weights without master */
    uint64_t seed;                /* of stochastic rounding */
    struct optim_format format;   /* of the target's weights */
};
/* From section `train`, but for the format, which is formats.h's. */
struct optim_options optim_options_from_cfg(const struct cfg *cfg,
                                            const struct optim_format *format);

/* What an optimizer works on; everything is borrowed. With several ranks that each keep the state
 * of what they own (owner.h), it works on that alone, and the norm is made of all ranks' sums. */
struct optim_target {
    struct dev *dev;
    const struct glm_params *params;
    const struct glm_layout *layout, *grad_layout;
    struct tensor weights;     /* flat arena */
    bool scattered;            /* of layers' weights only what is owned lies where `layout` says */
    const struct owner *owner; /* NULL: all is ours, as is the norm; then no comm */
    struct comm *comm;
};
struct optim_target optim_target_of(const struct glm *glm);
/* Where element `first` of a row's weights lies on the device. */
void *optim_target_weights(const struct optim_target *target, int64_t row, int64_t first);

struct optim;

/* Yours; optim_close it (NULL allowed). The glm is borrowed. State is zero, the master included
 * (optim_write_state). ERR_NOMEM. */
MUST_USE err_t optim_create(struct optim **out, struct glm *glm,
                            const struct optim_options *options);
MUST_USE err_t optim_create_on(struct optim **out, const struct optim_target *target,
                               const struct optim_options *options);
void optim_close(struct optim *optim);

/* Queue the sums of squares of `grads` (laid out as the target's grad_layout)... */
MUST_USE err_t optim_queue_norm(struct optim *optim, const struct tensor *grads);
/* ... and wait for the global norm of what was queued last, here or unit by unit. With several
 * owners every rank calls it, and has the same bits. */
MUST_USE err_t optim_norm(struct optim *optim, double *norm);
/* Both. */
MUST_USE err_t optim_grad_norm(struct optim *optim, double *norm, const struct tensor *grads);
/* min(1, max_grad_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 without clipping. */
double optim_clip_scale(const struct optim *optim, double norm);
/* State in host memory: the first slices of the next optim_step begin to come in, beside whatever
 * is computed. Of no use and no harm otherwise. */
MUST_USE err_t optim_prefetch(struct optim *optim);
/* One update; update >= 1 counts from the start of training. */
MUST_USE err_t optim_step(struct optim *optim, const struct tensor *grads, double lr,
                          double grad_scale, int64_t update);

/* The same for one unit of the table. Queue the sums of squares of its gradients... */
MUST_USE err_t optim_unit_norm(struct optim *optim, const struct tensor *grads, int64_t unit);
/* ... wait for them: false where they are not finite (without owners) ... */
MUST_USE err_t optim_unit_is_finite(struct optim *optim, bool *out, int64_t unit);
/* ... update; not between optim_prefetch and optim_step. */
MUST_USE err_t optim_unit_step(struct optim *optim, const struct tensor *grads, int64_t unit,
                               double lr, double grad_scale, int64_t update);

/* ---- for checkpoints and initial values ---- */

const struct optim_target *optim_target(const struct optim *optim);
const struct optim_plan *optim_plan_of(const struct optim *optim);
/* Elements first .. first+count-1 of a row's state (optim_part_count), to host memory or from it,
 * whatever the layout. Both wait for the device. What is not owned is left as it is. */
MUST_USE err_t optim_read_state(struct optim *optim, void *out, enum optim_part part, int64_t row,
                                int64_t first, int64_t count);
MUST_USE err_t optim_write_state(struct optim *optim, enum optim_part part, int64_t row,
                                 int64_t first, const void *values, int64_t count);
/* Where a float32 master gets its initial values while the model is loaded (glm_load_exact); none
 * where the format has no master: `put` is NULL. */
struct glm_sink optim_master_sink(struct optim *optim);

#endif
