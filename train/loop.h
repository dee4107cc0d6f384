/*
 * loop.h - the training step and its policy: when to validate, log, save and stop.
 *
 * A step: plan its samples, run every micro-batch of every lane forward and backward, add the lanes' gradients,
 * clip, update. Its loss is the weighted sum of the targets' nll, per sample in float64, folded in stream order.
 * Ctrl-C or SIGTERM gives up the step under way (nothing of it is kept), saves the state before it and returns
 * ERR_INTERRUPTED. A loss or gradient that is not finite stops the run with ERR_NUMERIC; the last checkpoint stays.
 */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H

#include "base/err.h"
#include "train/run.h"

/* Train from run->step_first to run->total_steps. */
MUST_USE err_t loop_run(struct run *run);

/* What one step computed. */
struct step_result {
    struct step_plan plan;
    double loss, grad_norm, clip_scale, lr, seconds;
};

/* Working memory of steps: grows in the first ones, then stays. */
struct step_memory {
    struct micro_batch micro;
    double *nll;         /* [bounds.targets] */
    double *sample_loss; /* [samples of a step], stream order */
    int64_t sample_capacity;
};
void step_memory_clear(struct step_memory *m);

/* Run step `step` and apply its update; benchmarks call it directly. */
MUST_USE err_t step_run(struct run *run, struct step_memory *memory, struct step_result *out,
                        int64_t step);

#endif
