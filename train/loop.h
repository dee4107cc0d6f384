/*
 * loop.h - training as a whole: steps (step.h), and the policy of when to validate, log and save.
 *
 * Before the first step of a new run the base model is validated; it is logged as step 0. After a
 * step come its line of metrics, a validation and a checkpoint where they are due; the last step
 * has all three. A validation loss that is not finite stops the run before it is saved.
 *
 * Runs of bf16 weights without a master report how far the weights moved as often (drift.h).
 *
 * Checkpoints are written behind the steps that follow (train.save, snapshot.h); one that fails
 * ends the run at the next step. What was begun is in place when loop_run returns, unless it
 * failed.
 *
 * Ctrl-C, SIGTERM or SIGUSR2 gives up the step or validation under way, saves the state of the last
 * finished step unless that is saved already, and returns ERR_INTERRUPTED; a checkpoint being
 * written is finished first. SIGUSR1 has the step under way followed by a checkpoint. Of several
 * ranks, one that is asked is enough; they stop between steps. A line of metrics that cannot be
 * written is a warning, once, and no reason to stop: the disk that is too full for it will stop the
 * run at the next checkpoint.
 *
 * A step whose loss, gradient norm or weights are wrong is the guard's business (guard.h): it may
 * be skipped, or the run goes back to its newest checkpoint.
 */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H

#include "base/err.h"

struct run;

/* Train from run->state.step to run->total_steps. Errors: of step_run, validate and run_save. The
 * checkpoints saved so far stay in every case. */
MUST_USE err_t loop_run(struct run *run);

#endif
