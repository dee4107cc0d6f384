/*
 * drift.h - how far the weights have moved: a fixed sample of every matrix, now against then. For
 * runs without a master, where an update smaller than a weight's rounding may be lost: a change far
 * below the learning rate times the number of updates is the sign of it.
 *
 *     TRY(drift_open(&drift, target));              // remembers the weights of now
 *     ...
 *     TRY(drift_measure(drift, &change));           // |now - then| / |then|; now becomes then
 *     drift_close(drift);
 */
#ifndef TRAIN_DRIFT_H
#define TRAIN_DRIFT_H

#include "base/err.h"
#include "train/optim.h"

#define DRIFT_RUNS         4   /* of each matrix, evenly apart */
#define DRIFT_RUN_ELEMENTS 256 /* side by side */

struct drift;

/* Yours; drift_close it (NULL allowed). The target is borrowed. Reads from the device. ERR_NOMEM.
 */
MUST_USE err_t drift_open(struct drift **out, const struct optim_target *target);
void drift_close(struct drift *drift);
/* The root of the sum of squared differences over that of squared weights; 0 where all weights are
 * 0. Waits for the device. */
MUST_USE err_t drift_measure(struct drift *drift, double *change);

#endif
