/*
 * step.h - one training step: plan its samples, run every micro-batch of every lane forward and
 * backward, add the lanes' gradients, clip, update.
 *
 *     struct step_memory memory = { 0 };
 *     TRY_DONE(step_run(&run, &memory, &result, run.state.step));   // run.h
 *     step_memory_clear(&memory);
 *
 * Of several ranks, each runs the lanes that are its own (zero.h), and all decide the same: losses
 * and norm are everyone's.
 *
 * While the device works on one micro-batch the host queues the next, which a thread has filled
 * (feed.h). The step waits once, for losses and norm, and then queues the update: a failure of that
 * appears in a later call.
 *
 * With train.update: backward each unit of the parameter table is updated as soon as its gradient
 * is ready, and the gradient is gone. What that changes:
 *   - the norm of the step, still reported, is known only when all is done. Clipping, if asked for,
 *     goes by the norm of the step before (run->state.grad_norm); the first step is not clipped;
 *   - the first gradient, that of the final norm (and head), is waited for and looked at before the
 *     first update: whatever makes the loss NaN makes it so, and then weights are as they were.
 *     What becomes infinite or NaN only in a lower layer is found after the layers above it were
 *     updated: the error says that this model is lost. Nothing saves it; the last checkpoint holds.
 */
#ifndef TRAIN_STEP_H
#define TRAIN_STEP_H

#include "base/err.h"
#include "data/batch.h"
#include "model/glm.h"
#include "train/feed.h"
#include "train/guard.h"

#include <stdint.h>

struct run;

/* What one step computed. */
struct step_result {
    struct step_plan plan; /* its arrays are the feed's: gone with the next step */
    double loss;       /* sum of weight * nll over the targets, folded per sample in stream order */
    double grad_norm;  /* before clipping */
    double clip_scale; /* what the gradients were multiplied by; 0: there was no update */
    double lr;
    double seconds;              /* from step to step on a device that works on its own */
    double waited_s;             /* of them, for samples */
    struct guard_decision guard; /* anything but GUARD_APPLY: there was no update */
};

/* Working memory of steps; zeroed at first. Allocated by the first step, then it stays. While it is
 * not cleared the run's batcher, samples and shards belong to its feed. */
struct step_memory {
    struct feed feed;
    const struct micro_batch *micro[GLM_TICKETS]; /* in flight, in turn; the feed's */
    int ticket[GLM_TICKETS];
    int64_t begun, ended; /* micro-batches of this step */
    double *nll;          /* [bounds.targets] */
    double *sample_loss;  /* [samples of a step], stream order */
    int64_t sample_capacity;
};
void step_memory_clear(struct step_memory *m);

/*
 * Run step `step` (0-based) and apply its update, unless out->guard says otherwise; of run->state,
 * the guard's part is advanced, all else is read. Or, with weights and optimizer state as they
 * were: ERR_INTERRUPTED, a stop was requested (one rank alone; several stop between steps);
 * ERR_NUMERIC, the guard stops the run (but see above); errors of reading samples. After errors of
 * the device, weights and state are undefined.
 */
MUST_USE err_t step_run(struct run *run, struct step_memory *memory, struct step_result *out,
                        int64_t step);

#endif
