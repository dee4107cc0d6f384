/*
 * step.h - one training step: plan its samples, run every micro-batch of every lane forward and
 * backward, add the lanes' gradients, clip, update.
 *
 *     struct step_memory memory = { 0 };
 *     TRY_DONE(step_run(&run, &memory, &result, run.state.step));   // run.h
 *     step_memory_clear(&memory);
 */
#ifndef TRAIN_STEP_H
#define TRAIN_STEP_H

#include "base/err.h"
#include "data/batch.h"

#include <stdint.h>

struct run;

/* What one step computed. */
struct step_result {
    struct step_plan plan; /* its arrays are the batcher's: gone with the next plan */
    double loss;       /* sum of weight * nll over the targets, folded per sample in stream order */
    double grad_norm;  /* before clipping */
    double clip_scale; /* what the gradients were multiplied by */
    double lr;
    double seconds;
};

/* Working memory of steps; zeroed at first. Allocated by the first step, then it stays. */
struct step_memory {
    struct micro_batch micro;
    double *nll;         /* [bounds.targets] */
    double *sample_loss; /* [samples of a step], stream order */
    int64_t sample_capacity;
};
void step_memory_clear(struct step_memory *m);

/*
 * Run step `step` (0-based) and apply its update; run->state is read, not advanced. Or, with
 * weights and optimizer state as they were: ERR_INTERRUPTED, a stop was requested; ERR_NUMERIC,
 * loss or gradient norm is not finite; errors of reading samples.
 */
MUST_USE err_t step_run(struct run *run, struct step_memory *memory, struct step_result *out,
                        int64_t step);

#endif
