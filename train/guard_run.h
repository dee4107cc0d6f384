/*
 * guard_run.h - the guard's decisions carried out in a run: what step.c and loop.c call.
 *
 * Fault points: guard.nan makes a step's loss NaN, guard.spike a thousand times as large.
 */
#ifndef TRAIN_GUARD_RUN_H
#define TRAIN_GUARD_RUN_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct run;
struct step_result;

/* Decide on a step whose loss and norm are known (result->guard) and say so where there is anything
 * to say. ERR_NUMERIC when the run is to stop. */
MUST_USE err_t guard_step(struct run *run, struct step_result *result, int64_t step);

/* A step with train.update: backward gave up at a gradient that is not finite: ERR_NUMERIC, that of
 * err_last(), unless such steps are rolled back. */
MUST_USE err_t guard_step_lost(struct run *run, struct step_result *result, int64_t step);

/* Whether a rollback has the run pass over this step; the result then says so, and no more. */
bool guard_step_passed_over(const struct run *run, struct step_result *result, int64_t step);

/* Back to the newest valid checkpoint because of `step`. ERR_NUMERIC: there is none. */
MUST_USE err_t guard_roll_back(struct run *run, int64_t step);

#endif
