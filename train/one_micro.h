/*
 * one_micro.h - a gradient that is used at once (train.update: backward) has nothing to be added
 * to: every step must be one micro-batch.
 */
#ifndef TRAIN_ONE_MICRO_H
#define TRAIN_ONE_MICRO_H

#include "base/err.h"
#include "data/batch.h"

#include <stdint.h>

/* ERR_USAGE names the first of steps 0 .. steps-1 that has more. What cannot be looked at in a
 * second or two is left to be found at its step. */
MUST_USE err_t one_micro_check(struct batcher *batcher, int64_t steps, int64_t micro_tokens);

#endif
