#include "train/loop.h"

#include "base/log.h"
#include "base/progress.h"
#include "base/stop.h"
#include "train/validate.h"

#include <string.h>

/* A step is due at every multiple of `every`, and at the end; every = 0: at the end only. */
static bool is_due(int64_t step, int64_t every, int64_t total)
{
    return step == total || (every > 0 && step % every == 0);
}

static err_t validate_now(struct run *run)
{
    struct validation v;
    TRY(validate(&v, run->glm, run->validation_set, cfg_int(run->cfg, "train.validate_samples"),
                 &run->bounds));
    if (run->state.step == 0)
        LOG_I("train", "before the first step: validation loss %.4f over %lld tokens of %lld samples",
              v.loss, (long long)v.tokens, (long long)v.samples);
    else
        LOG_I("train", "step %lld: validation loss %.4f", (long long)run->state.step, v.loss);
    return metrics_validation(&run->metrics, run->state.step, v.loss, v.tokens);
}

static err_t log_step(struct run *run, const struct step_result *r)
{
    const struct metrics_step line = {
        .step = run->state.step,
        .epoch = r->plan.epoch,
        .loss = r->loss,
        .lr = r->lr,
        .grad_norm = r->grad_norm,
        .clip_scale = r->clip_scale,
        .seconds = r->seconds,
        .samples = r->plan.sample_count,
        .stream_first = r->plan.stream_first,
        .tokens = r->plan.rows,
        .tokens_padded = r->plan.rows_padded,
        .trained_tokens = r->plan.trained_tokens,
    };
    return metrics_step(&run->metrics, &line);
}

/* What is due after run->state.step steps. */
static err_t after_step(struct run *run, const struct step_result *r)
{
    const int64_t step = run->state.step, total = run->total_steps;
    const int64_t validate_every = cfg_int(run->cfg, "train.validate_every");
    if (is_due(step, cfg_int(run->cfg, "train.log_every"), total)) TRY(log_step(run, r));
    if (run->validation_set != NULL && validate_every > 0 && is_due(step, validate_every, total))
        TRY(validate_now(run));
    if (is_due(step, cfg_int(run->cfg, "train.save_every"), total)) TRY(run_save(run));
    return ERR_OK;
}

static err_t run_steps(struct run *run, struct step_memory *memory, struct progress *progress)
{
    struct step_result result;
    if (run->validation_set != NULL && cfg_int(run->cfg, "train.validate_every") > 0 &&
        run->step_first == 0)
        TRY(validate_now(run));
    for (int64_t step = run->step_first; step < run->total_steps; step++) {
        if (stop_requested()) RAISE(INTERRUPTED, "stopped before step %lld", (long long)step + 1);
        TRY(step_run(run, memory, &result, step));
        run->state.step++;
        run->state.updates++;
        run->state.samples += result.plan.sample_count;
        progress_update(progress, run->state.step, "loss %.4f lr %.2e norm %.2f %.0f tok/s",
                        result.loss, result.lr, result.grad_norm,
                        (double)result.plan.rows / result.seconds);
        TRY(after_step(run, &result));
    }
    return ERR_OK;
}

/* A stop on request keeps what was done; the state is that of the last finished step. */
static err_t save_after_stop(struct run *run)
{
    if (run->state.step > run->step_first) TRY(run_save(run));
    TRY(metrics_event(&run->metrics, run->state.step, "stop"));
    RAISE(INTERRUPTED, "stopped after step %lld of %lld; continue with --resume",
          (long long)run->state.step, (long long)run->total_steps);
}

err_t loop_run(struct run *run)
{
    struct step_memory memory;
    struct progress progress;
    memset(&memory, 0, sizeof memory);
    progress_begin(&progress, "train", "steps", run->total_steps);
    progress_update(&progress, run->step_first, "starting");
    err_t rc = run_steps(run, &memory, &progress);
    progress_end(&progress);
    step_memory_clear(&memory);
    if (rc == ERR_INTERRUPTED) rc = save_after_stop(run);
    return rc;
}
