#include "train/guard.h"

#include "base/check.h"
#include "base/num.h"

#include <math.h>
#include <string.h>

#define SIGMA_PER_MAD  1.4826 /* of a normal distribution */
#define SIGMA_PER_SIZE 0.01   /* at least: values that hardly differ would make any other a spike */

err_t guard_rules_from_cfg(struct guard_rules *out, const struct cfg *cfg)
{
    static const enum guard_action nonfinite[] = { GUARD_STOP, GUARD_SKIP, GUARD_ROLLBACK };
    *out = (struct guard_rules){
        .on_spike = (enum guard_action)cfg_enum(cfg, "train.on_spike"),
        .on_nonfinite = nonfinite[cfg_enum(cfg, "train.on_nonfinite")],
        .sigmas = cfg_float(cfg, "train.spike_sigmas"),
        .skips_max = cfg_int(cfg, "train.skips_max"),
        .rollbacks_max = cfg_int(cfg, "train.rollbacks_max"),
        .rollback_skip = cfg_int(cfg, "train.rollback_skip"),
    };
    if (strcmp(cfg_str(cfg, "train.update"), "backward") != 0) return ERR_OK;
    if (out->on_spike == GUARD_SKIP || out->on_nonfinite == GUARD_SKIP)
        RAISE(USAGE,
              "train.%s is skip, and train.update: backward updates layers before a step's numbers "
              "are known; expected rollback or stop, or train.update: step",
              out->on_spike == GUARD_SKIP ? "on_spike" : "on_nonfinite");
    return ERR_OK;
}

/* ---- the window ---- */

double guard_limit(const struct guard_series *s, double sigmas)
{
    double sorted[GUARD_WINDOW];
    if (s->count < GUARD_WINDOW_MIN || sigmas == 0.0) return INFINITY;
    memcpy(sorted, s->value, (size_t)s->count * sizeof *sorted);
    const double middle = median_f64(sorted, s->count);
    for (int64_t i = 0; i < s->count; i++) sorted[i] = fabs(s->value[i] - middle);
    const double mad = median_f64(sorted, s->count);
    return middle + sigmas * fmax(SIGMA_PER_MAD * mad, SIGMA_PER_SIZE * fabs(middle));
}

static void push(struct guard_series *s, double value)
{
    if (!isfinite(value)) return;
    if (s->count == GUARD_WINDOW)
        memmove(s->value, s->value + 1, (size_t)(--s->count) * sizeof *s->value);
    s->value[s->count++] = value;
}

/* ---- the decision ---- */

static enum guard_cause find_cause(double *limit, const struct guard_state *s, double sigmas,
                                   double loss, double norm)
{
    *limit = 0.0;
    if (!isfinite(loss)) return GUARD_LOSS_NOT_FINITE;
    if (!isfinite(norm)) return GUARD_NORM_NOT_FINITE;
    if (loss == 0.0) return GUARD_LOSS_ZERO;
    *limit = guard_limit(&s->loss, sigmas);
    if (loss > *limit) return GUARD_LOSS_SPIKE;
    *limit = guard_limit(&s->norm, sigmas);
    if (norm > *limit) return GUARD_NORM_SPIKE;
    *limit = 0.0;
    return GUARD_FINE;
}

static bool is_spike(enum guard_cause cause)
{
    return cause == GUARD_LOSS_SPIKE || cause == GUARD_NORM_SPIKE;
}

void guard_decide(struct guard_decision *out, struct guard_state *s, const struct guard_rules *r,
                  double loss, double norm)
{
    *out = (struct guard_decision){ .action = GUARD_APPLY };
    out->cause = find_cause(&out->limit, s, r->sigmas, loss, norm);
    if (is_spike(out->cause)) out->action = r->on_spike;
    if (!is_spike(out->cause) && out->cause != GUARD_FINE)
        out->action = r->on_nonfinite == GUARD_APPLY ? GUARD_STOP : r->on_nonfinite;
    /* A step that is wrong in another way says nothing about the level of either. */
    if (out->cause == GUARD_FINE || is_spike(out->cause)) {
        push(&s->loss, loss);
        push(&s->norm, norm);
    }
    s->skips_in_row = out->action == GUARD_SKIP ? s->skips_in_row + 1 : 0;
    if (s->skips_in_row > r->skips_max ||
        (out->action == GUARD_ROLLBACK && s->rollbacks >= r->rollbacks_max)) {
        out->action = GUARD_STOP;
        out->limit_of_count = true;
    }
}

const char *guard_cause_text(enum guard_cause cause)
{
    static const char *const texts[GUARD_CAUSES] = {
        [GUARD_FINE] = "nothing",
        [GUARD_LOSS_NOT_FINITE] = "loss not finite",
        [GUARD_LOSS_ZERO] = "loss exactly 0",
        [GUARD_NORM_NOT_FINITE] = "gradient norm not finite",
        [GUARD_LOSS_SPIKE] = "spike of the loss",
        [GUARD_NORM_SPIKE] = "spike of the gradient norm",
        [GUARD_PASSED_OVER] = "passed over",
    };
    ASSERT(cause < GUARD_CAUSES);
    return texts[cause];
}

/* ---- rollbacks ---- */

bool guard_passes_over(const struct guard_state *s, int64_t step)
{
    for (int64_t i = 0; i < s->rollbacks; i++)
        if (step >= s->range[i].first && step < s->range[i].end) return true;
    return false;
}

void guard_note_rollback(struct guard_state *s, const struct guard_state *before,
                         const struct guard_rules *r, int64_t step, int64_t loaded)
{
    ASSERT(before->rollbacks < GUARD_RANGES_MAX);
    memcpy(s->range, before->range, sizeof s->range);
    s->rollbacks = before->rollbacks;
    s->range[s->rollbacks++] =
        (struct guard_range){ max_i64(loaded, step + 1 - r->rollback_skip), step + 1 };
}
