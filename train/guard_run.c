#include "train/guard_run.h"

#include "base/fault.h"
#include "base/log.h"
#include "train/resume.h"
#include "train/run.h"
#include "train/snapshot.h"
#include "train/step.h"

#include <math.h>

/* Why it cannot go on, and what may help. Losses are printed without a sign where they are NaN. */
static err_t raise_stop(const struct run *run, const struct step_result *r, int64_t step)
{
    const bool updated = run->formats.grad_keep == GLM_GRADS_RELEASED;
    const struct guard_decision *d = &r->guard;
    const double loss = isnan(r->loss) ? NAN : r->loss;
    if (d->limit_of_count)
        RAISE(NUMERIC,
              "step %lld: loss %g, gradient norm %g: %s, after as many %s as train.%s allows; a "
              "lower train.lr or other data is needed",
              (long long)step + 1, loss, fabs(r->grad_norm), guard_cause_text(d->cause),
              run->state.guard.skips_in_row > run->guard.skips_max ? "skipped steps in a row"
                                                                   : "rollbacks",
              run->state.guard.skips_in_row > run->guard.skips_max ? "skips_max" : "rollbacks_max");
    if (d->limit > 0.0)
        RAISE(NUMERIC,
              "step %lld: loss %g, gradient norm %g: %s, the limit was %g; train.on_spike is stop",
              (long long)step + 1, loss, r->grad_norm, guard_cause_text(d->cause), d->limit);
    if (updated)
        RAISE(NUMERIC,
              "step %lld: loss %g, gradient norm %g: not finite, found after layers were updated; "
              "these weights are lost and were not saved; continue from the last checkpoint with "
              "--resume and a lower train.lr, or with train.update: step",
              (long long)step + 1, loss, fabs(r->grad_norm));
    RAISE(NUMERIC,
          "step %lld: loss %g, gradient norm %g: %s; the weights are as they were before this "
          "step; a lower train.lr or a longer warm-up may help",
          (long long)step + 1, loss, fabs(r->grad_norm),
          d->cause == GUARD_LOSS_ZERO ? "a loss of exactly 0 is none" : "not finite");
}

err_t guard_step(struct run *run, struct step_result *r, int64_t step)
{
    static const char *const doing[] = { "applied all the same", "skipped", "rolling back", "" };
    if (fault_point("guard.nan") != ERR_OK) r->loss = NAN;
    if (fault_point("guard.spike") != ERR_OK) r->loss *= 1000.0;
    guard_decide(&r->guard, &run->state.guard, &run->guard, r->loss, r->grad_norm);
    if (r->guard.cause == GUARD_FINE) return ERR_OK;
    if (r->guard.action == GUARD_STOP) return raise_stop(run, r, step);
    if (run->zero.rank != 0) return ERR_OK; /* all decide the same, one says so */
    LOG_W("train", "step %lld: %s (loss %g, gradient norm %g, limit %g): %s", (long long)step + 1,
          guard_cause_text(r->guard.cause), r->loss, fabs(r->grad_norm), r->guard.limit,
          doing[r->guard.action]);
    return ERR_OK;
}

err_t guard_step_lost(struct run *run, struct step_result *r, int64_t step)
{
    if (r->guard.cause != GUARD_FINE || run->guard.on_nonfinite != GUARD_ROLLBACK)
        return ERR_NUMERIC;
    r->loss = r->grad_norm = NAN;
    return guard_step(run, r, step);
}

bool guard_step_passed_over(const struct run *run, struct step_result *r, int64_t step)
{
    if (!guard_passes_over(&run->state.guard, step)) return false;
    r->loss = r->grad_norm = NAN;
    r->clip_scale = r->seconds = r->waited_s = 0.0;
    r->guard = (struct guard_decision){ .action = GUARD_SKIP, .cause = GUARD_PASSED_OVER };
    return true;
}

err_t guard_roll_back(struct run *run, int64_t step)
{
    int64_t newest;
    const struct guard_state before = run->state.guard;
    /* Layers may have been updated by the step that is undone: a stop must not save them. */
    run->step_saved = step;
    TRY(snapshot_wait(run->snapshot)); /* what is being published is the newest */
    TRY(resume_find(&newest, run->ckpt_root, true, zero_ckpt(&run->zero)));
    if (newest < 0)
        RAISE(NUMERIC,
              "step %lld is to be rolled back, and %s has no checkpoint yet; a smaller "
              "train.save_every makes one sooner",
              (long long)step + 1, run->ckpt_root);
    TRY(resume_again(run, newest));
    guard_note_rollback(&run->state.guard, &before, &run->guard, step, run->state.step);
    if (run->zero.rank != 0) return ERR_OK;
    const struct guard_state *now = &run->state.guard;
    const struct guard_range *range = &now->range[now->rollbacks - 1];
    LOG_W("train", "rolled back to step %lld; the samples of steps %lld to %lld are passed over",
          (long long)run->state.step, (long long)range->first + 1, (long long)range->end);
    return ERR_OK;
}
