#include "train/loop.h"

#include "base/log.h"
#include "base/progress.h"
#include "base/stop.h"
#include "train/base_loss.h"
#include "train/checksum_run.h"
#include "train/drift.h"
#include "train/guard_run.h"
#include "train/record.h"
#include "train/run.h"
#include "train/snapshot.h"
#include "train/step.h"
#include "train/validate.h"

#include <math.h>
#include <stdio.h>

struct loop {
    struct run *run;
    struct step_memory memory;
    struct progress progress;
    double validation_loss; /* the latest; NaN before there is one */
    bool metrics_lost;      /* the last line of metrics could not be written */
    struct drift *drift;    /* bf16 weights without a master; else NULL */
    int64_t drift_since;    /* the step of its sample */
};

/* A step is due at every multiple of `every`, and at the end; every = 0: at the end only. */
static bool is_due(int64_t step, int64_t every, int64_t total)
{
    return step == total || (every > 0 && step % every == 0);
}

/* The outcome of a line of metrics: not worth a run, but worth a word. */
static void note_metrics(struct loop *l, err_t rc)
{
    if (rc != ERR_OK && !l->metrics_lost) LOG_W("train", "%s; training goes on", err_last()->text);
    l->metrics_lost = rc != ERR_OK;
}

/* Without a master, whether updates are lost to rounding shows in what the weights do. */
static err_t measure_drift(struct loop *l)
{
    struct run *run = l->run;
    const int64_t step = run->state.step;
    double change;
    if (run->formats.precision != DTYPE_BF16 || run->formats.state.master) return ERR_OK;
    if (l->drift == NULL) {
        TRY(drift_open(&l->drift, optim_target(run->optim)));
    } else {
        TRY(drift_measure(l->drift, &change));
        note_metrics(l, metrics_weight_change(&run->metrics, step, change, l->drift_since));
        LOG_I("train", "step %lld: weights changed by %.2e of their size since step %lld",
              (long long)step, change, (long long)l->drift_since);
    }
    l->drift_since = step;
    return ERR_OK;
}

/* Of the save that is on the disk since the last call, where there is one. */
static void note_published(struct loop *l)
{
    struct snapshot_report report;
    if (snapshot_take_report(l->run->snapshot, &report))
        note_metrics(l, record_published(l->run, &report));
}

static err_t save_now(struct loop *l)
{
    const double begin_s = time_now_s();
    TRY(checksum_run_saving(l->run));
    note_metrics(l, metrics_sync(&l->run->metrics));
    TRY(run_save(l->run));
    note_metrics(l, record_save(l->run, time_now_s() - begin_s));
    note_published(l);
    return ERR_OK;
}

/* What is being saved in the background: a failure ends the run, as one while training waits. */
static err_t look_at_save(struct loop *l)
{
    TRY(snapshot_poll(l->run->snapshot));
    note_published(l);
    return ERR_OK;
}

static err_t wait_for_save(struct loop *l)
{
    TRY(snapshot_wait(l->run->snapshot));
    note_published(l);
    return ERR_OK;
}

static err_t validate_now(struct loop *l)
{
    struct run *run = l->run;
    const int64_t step = run->state.step;
    struct validation v;
    feed_pause(&l->memory.feed);
    const err_t rc = validate(&v, &run->zero, run->glm, run->validation_set,
                              cfg_int(run->cfg, "train.validate_samples"), &run->bounds);
    feed_resume(&l->memory.feed);
    TRY(rc);
    note_metrics(l, metrics_validation(&run->metrics, step, v.loss, v.tokens));
    if (!isfinite(v.loss))
        RAISE(NUMERIC,
              "step %lld: validation loss %g: the weights are no longer usable%s; go on from an "
              "older checkpoint with a lower train.lr",
              (long long)step, v.loss, step > run->step_saved ? " and were not saved" : "");
    l->validation_loss = run->validation_loss = v.loss;
    run->state.validation_due = false;
    if (step == 0)
        LOG_I("train",
              "before the first step: validation loss %.4f over %lld tokens of %lld samples",
              v.loss, (long long)v.tokens, (long long)v.samples);
    else
        LOG_I("train", "step %lld: validation loss %.4f", (long long)step, v.loss);
    if (step == 0) note_metrics(l, base_loss_report(run, v.loss));
    return ERR_OK;
}

static void log_step(struct loop *l, const struct step_result *r)
{
    const struct metrics_step line = {
        .step = l->run->state.step,
        .epoch = r->plan.epoch,
        .loss = r->loss,
        .lr = r->lr,
        .grad_norm = r->grad_norm,
        .clip_scale = r->clip_scale,
        .seconds = r->seconds,
        .waited_s = r->waited_s,
        .samples = r->plan.sample_count,
        .stream_first = r->plan.stream_first,
        .tokens = r->plan.rows,
        .tokens_padded = r->plan.rows_padded,
        .trained_tokens = r->plan.trained_tokens,
    };
    note_metrics(l, metrics_step(&l->run->metrics, &line));
}

static void show_step(struct loop *l, const struct step_result *r)
{
    char validation[32] = "";
    if (l->run->zero.rank != 0 || r->guard.cause == GUARD_PASSED_OVER) return;
    if (!isnan(l->validation_loss))
        snprintf(validation, sizeof validation, " (validation %.4f)", l->validation_loss);
    progress_update(&l->progress, l->run->state.step, "loss %.4f%s lr %.2e norm %.2f %.0f tok/s",
                    r->loss, validation, r->lr, r->grad_norm,
                    (double)r->plan.rows / fmax(r->seconds, 1e-9));
}

static void advance(struct run *run, const struct step_result *r)
{
    struct ckpt_state *state = &run->state;
    const struct step_plan *plan = &r->plan;
    run->validation_loss = NAN;
    state->step++;
    if (r->guard.action == GUARD_APPLY) state->updates++;
    state->samples += plan->sample_count;
    if (plan->stream_first >= 0) state->stream_index = plan->stream_first + plan->sample_count;
    if (run->formats.clip_by_previous && isfinite(r->grad_norm)) state->grad_norm = r->grad_norm;
}

/* What is due after run->state.step steps. */
static err_t after_step(struct loop *l, const struct step_result *r)
{
    struct run *run = l->run;
    const int64_t step = run->state.step, total = run->total_steps;
    bool save = stop_take_save();
    run->state.validation_due =
        run_validates(run) && is_due(step, cfg_int(run->cfg, "train.validate_every"), total);
    if (is_due(step, cfg_int(run->cfg, "train.log_every"), total)) log_step(l, r);
    if (run->state.validation_due) TRY(validate_now(l));
    if (is_due(step, cfg_int(run->cfg, "train.validate_every"), total)) TRY(measure_drift(l));
    TRY(zero_any(&run->zero, &save));
    if (is_due(step, cfg_int(run->cfg, "train.check_every"), 0)) TRY(checksum_run_ranks(run));
    if (save || is_due(step, cfg_int(run->cfg, "train.save_every"), total)) TRY(save_now(l));
    return ERR_OK;
}

/* The samples of an undone step are passed over when its turn comes again. */
static err_t roll_back(struct loop *l)
{
    struct run *run = l->run;
    const int64_t step = run->state.step;
    TRY(guard_roll_back(run, step));
    run->goodput.repeated += step - run->state.step;
    run->goodput.useful_s = run->goodput.saved_s;
    drift_close(l->drift);
    l->drift = NULL;
    return measure_drift(l);
}

static err_t one_step(struct loop *l, struct step_result *r)
{
    struct run *run = l->run;
    const err_t rc = step_run(run, &l->memory, r, run->state.step);
    const struct err_record first = *err_last();
    if (r->guard.cause != GUARD_FINE)
        note_metrics(
            l, metrics_guard(&run->metrics, run->state.step + 1, &r->guard, r->loss, r->grad_norm));
    if (rc != ERR_OK) return err_adopt(&first);
    if (r->guard.action == GUARD_ROLLBACK) return roll_back(l);
    advance(run, r);
    run->goodput.useful_s += r->seconds;
    run->goodput.here.stepped_s += r->seconds;
    run->goodput.here.waited_s += r->waited_s;
    show_step(l, r);
    return after_step(l, r);
}

/* What a stop has cut short. Then the checkpoint is the one that there would be without it. */
static err_t validate_late(struct loop *l)
{
    TRY(validate_now(l));
    return save_now(l);
}

static err_t run_steps(struct loop *l)
{
    struct run *run = l->run;
    struct step_result result = { .loss = NAN };
    if (run_validates(run) && run->state.step == 0) TRY(validate_now(l));
    if (run->state.validation_due) TRY(validate_late(l));
    TRY(measure_drift(l));
    while (run->state.step < run->total_steps) {
        TRY(look_at_save(l));
        bool stop = stop_requested();
        TRY(zero_any(&run->zero, &stop));
        if (stop) RAISE(INTERRUPTED, "stopped before step %lld", (long long)run->state.step + 1);
        TRY(one_step(l, &result));
    }
    return wait_for_save(l);
}

/* A stop on request keeps what was done; the state is that of the last finished step. */
static err_t save_after_stop(struct loop *l)
{
    struct run *run = l->run;
    if (run->state.step > run->step_saved) TRY(save_now(l));
    TRY(wait_for_save(l));
    note_metrics(l, record_stop(run));
    RAISE(INTERRUPTED, "stopped after step %lld of %lld; continue with --resume",
          (long long)run->state.step, (long long)run->total_steps);
}

/* All ranks have given up together, so what was saved before can still be published. */
static err_t publish_after_failure(struct loop *l)
{
    const struct err_record first = *err_last();
    if (wait_for_save(l) != ERR_OK) LOG_W("train", "not saved: %s", err_last()->text);
    return err_adopt(&first);
}

err_t loop_run(struct run *run)
{
    struct loop l = { .run = run, .validation_loss = NAN };
    const bool shows = run->zero.rank == 0;
    if (shows) {
        progress_begin(&l.progress, "train", "steps", run->total_steps);
        progress_resume(&l.progress, run->state.step);
        progress_update(&l.progress, run->state.step, "starting");
    }
    err_t rc = run_steps(&l);
    if (shows) progress_end(&l.progress);
    step_memory_clear(&l.memory);
    drift_close(l.drift);
    if (rc == ERR_INTERRUPTED) rc = save_after_stop(&l);
    if (rc == ERR_NUMERIC) rc = publish_after_failure(&l);
    if (rc == ERR_OK) note_metrics(&l, record_end(run));
    return rc;
}
