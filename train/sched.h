/*
 * sched.h - the learning rate as a pure function of the number of updates applied so far.
 *
 * Let k = updates applied before this one (0, 1, ...), W = warm-up updates, T = all updates, and
 * rate = min + (max - min) * gamma.
 *   warmup_decay   warm-up, t = k+1 < W:  gamma = ln(t+1)/ln(W) (log) or t/W (linear);
 *                  then gamma = (T-k)/(T-W), at most 1; so that neither the first nor the last
 *                  update has rate zero.
 *   warmup_decay_deepspeed_0_9_0
 *                  what DeepSpeed 0.9.0 really runs: update 0 at the optimizer's own rate (max),
 *                  since the engine steps the optimizer before the scheduler; update k >= 1 at
 *                  t = k-1 with gamma = ln(t+1)/ln(W) or t/W for t < W, else
 *                  max(0, (T-t)/max(1, T-W)).
 *   cosine         linear warm-up (k+1)/W, then 0.5*(1 + cos(pi*(k-W)/(T-W)))
 *   linear         linear warm-up (k+1)/W, then (T-k)/(T-W)
 *   constant       linear warm-up (k+1)/W, then 1
 *
 * Source: deepspeed/runtime/lr_schedules.py of v0.9.0, class WarmupDecayLR (W is at least 2 there);
 * cosine: Loshchilov, Hutter 2017, arXiv:1608.03983, eq. 5, one cycle.
 * Skipped updates consume data and do not advance k.
 */
#ifndef TRAIN_SCHED_H
#define TRAIN_SCHED_H

#include "base/cfg.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* In the order of the choices of train.schedule. */
enum sched_kind {
    SCHED_WARMUP_DECAY,
    SCHED_DEEPSPEED_0_9_0,
    SCHED_COSINE,
    SCHED_LINEAR,
    SCHED_CONSTANT
};

struct sched {
    enum sched_kind kind;
    bool warmup_log; /* shape of the warm-up of the first two kinds */
    double lr_max, lr_min;
    int64_t warmup_updates; /* W >= 0 */
    int64_t total_updates;  /* T > 0 */
};

/* From train.schedule, .warmup_shape, .lr, .lr_min, .warmup_steps; T = total_updates.
 * ERR_USAGE where W > T or lr_min > lr. */
MUST_USE err_t sched_from_cfg(struct sched *out, const struct cfg *cfg, int64_t total_updates);
double sched_lr(const struct sched *s, int64_t update);

#endif
