#include "train/sched.h"

#include "base/check.h"

#include <math.h>

err_t sched_from_cfg(struct sched *out, const struct cfg *cfg, int64_t total_updates)
{
    const struct sched s = {
        .kind = (enum sched_kind)cfg_enum(cfg, "train.schedule"),
        .warmup_log = cfg_enum(cfg, "train.warmup_shape") == 0,
        .lr_max = cfg_float(cfg, "train.lr"),
        .lr_min = cfg_float(cfg, "train.lr_min"),
        .warmup_updates = cfg_int(cfg, "train.warmup_steps"),
        .total_updates = total_updates,
    };
    if (s.warmup_updates > total_updates)
        RAISE(USAGE, "train.warmup_steps is %lld; expected at most the %lld steps of the run",
              (long long)s.warmup_updates, (long long)total_updates);
    if (s.lr_min > s.lr_max)
        RAISE(USAGE, "train.lr_min is %g; expected at most train.lr = %g", s.lr_min, s.lr_max);
    *out = s;
    return ERR_OK;
}

/* Rising part of WarmupDecayLR at 0 <= t < W; W is at least 2, as in DeepSpeed. */
static double warmup_gamma(const struct sched *s, double t, double W)
{
    return s->warmup_log ? log(t + 1.0) / log(W) : t / W;
}

static double warmup_decay_gamma(const struct sched *s, double k)
{
    const double W = fmax(2.0, (double)s->warmup_updates), T = (double)s->total_updates;
    if (k + 1.0 < W) return warmup_gamma(s, k + 1.0, W);
    return fmin(1.0, fmax(0.0, (T - k) / fmax(1.0, T - W)));
}

static double deepspeed_gamma(const struct sched *s, double k)
{
    const double W = fmax(2.0, (double)s->warmup_updates), T = (double)s->total_updates;
    if (k < 1.0) return 1.0;
    const double t = k - 1.0;
    if (t < W) return warmup_gamma(s, t, W);
    return fmax(0.0, (T - t) / fmax(1.0, T - W));
}

double sched_lr(const struct sched *s, int64_t update)
{
    ASSERT(update >= 0 && s->total_updates > 0);
    const double k = (double)update, W = (double)s->warmup_updates, T = (double)s->total_updates;
    const double fallen = fmin(1.0, (k - W) / fmax(1.0, T - W));
    double gamma = 1.0;

    if (s->kind == SCHED_WARMUP_DECAY)
        gamma = warmup_decay_gamma(s, k);
    else if (s->kind == SCHED_DEEPSPEED_0_9_0)
        gamma = deepspeed_gamma(s, k);
    else if (k < W)
        gamma = (k + 1.0) / W;
    else if (s->kind == SCHED_COSINE)
        gamma = 0.5 * (1.0 + cos(M_PI * fallen));
    else if (s->kind == SCHED_LINEAR)
        gamma = 1.0 - fallen;
    return s->lr_min + (s->lr_max - s->lr_min) * gamma;
}
