#include "train/step.h"

#include "base/log.h"
#include "base/progress.h"
#include "base/stop.h"
#include "train/guard_run.h"
#include "train/release.h"
#include "train/run.h"
#include "train/validate.h"

#include <stdlib.h>
#include <string.h>

void step_memory_clear(struct step_memory *m)
{
    feed_close(&m->feed);
    free(m->nll);
    free(m->sample_loss);
    memset(m, 0, sizeof *m);
}

static err_t reserve(struct step_memory *m, const struct run *run, int64_t samples)
{
    if (m->nll == NULL) m->nll = malloc((size_t)run->bounds.targets * sizeof *m->nll);
    if (samples > m->sample_capacity) {
        free(m->sample_loss);
        m->sample_capacity = 0;
        m->sample_loss = malloc((size_t)samples * sizeof *m->sample_loss);
        if (m->sample_loss != NULL) m->sample_capacity = samples;
    }
    if (m->nll == NULL || m->sample_capacity < samples)
        RAISE(NOMEM, "training step: no memory for the losses of %lld samples", (long long)samples);
    memset(m->sample_loss, 0, (size_t)samples * sizeof *m->sample_loss);
    return ERR_OK;
}

/* Wait for the oldest micro-batch in flight and add each sample's weighted loss at its place in the
 * step's stream order. */
static err_t collect_oldest(struct run *run, struct step_memory *m)
{
    const int64_t oldest = m->ended++ % GLM_TICKETS;
    const struct micro_batch *micro = m->micro[oldest];
    TRY(glm_train_end(run->glm, m->ticket[oldest], m->nll));
    for (int64_t i = 0; i < micro->target_count; i++)
        m->sample_loss[micro->stream[micro->target_segment[i]]] +=
            (double)micro->weights[i] * m->nll[i];
    feed_give_back(&m->feed);
    return ERR_OK;
}

/* The next one of this rank: lane after lane, as the feed gives them. */
static err_t begin_micro(struct run *run, struct step_memory *m, const struct glm_grads *grads)
{
    const int64_t slot = m->begun % GLM_TICKETS;
    /* Of several ranks, some would already be past this point: they stop between steps. */
    if (run->zero.comm == NULL && stop_requested()) RAISE(INTERRUPTED, "stopped inside a step");
    if (m->begun - m->ended == GLM_TICKETS) TRY(collect_oldest(run, m));
    TRY(feed_take(&m->feed, &m->micro[slot]));
    const struct glm_batch batch = glm_batch_from_micro(m->micro[slot]);
    TRY(glm_train_begin(run->glm, &m->ticket[slot], &batch, grads));
    m->begun++;
    return ERR_OK;
}

static err_t collect_rest(struct run *run, struct step_memory *m, struct step_result *out)
{
    while (m->ended < m->begun) TRY(collect_oldest(run, m));
    TRY(zero_sum_losses(&run->zero, m->sample_loss, out->plan.sample_count));
    out->loss = 0.0;
    for (int64_t i = 0; i < out->plan.sample_count; i++) out->loss += m->sample_loss[i];
    return ERR_OK;
}

static err_t run_lane(struct run *run, struct step_memory *m, int64_t lane,
                      const int64_t *micro_count)
{
    struct glm_grads grads = { 0 };
    const int64_t count = micro_count[lane];
    TRY(lanes_begin(&run->lanes, &grads.arena));
    if (lane == run->zero.lane_first) TRY(zero_idle(&run->zero, micro_count));
    for (int64_t i = 0; i < count; i++) {
        if (i == count - 1 && lane == run->zero.lane_end - 1) zero_hooks(&run->zero, &grads);
        TRY(begin_micro(run, m, &grads));
    }
    return lanes_end(&run->lanes);
}

static err_t run_whole(struct run *run, struct step_memory *m, struct step_result *out,
                       int64_t step)
{
    struct zero *zero = &run->zero;
    struct tensor sum;
    TRY(optim_prefetch(run->optim));
    zero_begin(zero, step);
    for (int64_t lane = zero->lane_first; lane < zero->lane_end; lane++)
        TRY(run_lane(run, m, lane, out->plan.micro_count));
    TRY(zero_sum(zero, &sum));
    TRY(optim_queue_norm(run->optim, &sum));
    TRY(collect_rest(run, m, out));
    TRY(optim_norm(run->optim, &out->grad_norm));
    TRY(guard_step(run, out, step));
    if (out->guard.action != GUARD_APPLY) return ERR_OK;
    out->clip_scale = optim_clip_scale(run->optim, out->grad_norm);
    TRY(optim_step(run->optim, &sum, out->lr, out->clip_scale, run->state.updates + 1));
    return zero_spread_weights(zero);
}

/* ---- gradients that are used at once ---- */

/* Opening the run has looked at the micro-batches of all steps, or of the first million. */
static err_t run_released(struct run *run, struct step_memory *m, struct step_result *out,
                          int64_t step)
{
    const double before = run->state.grad_norm;
    if (out->plan.micro_count[0] != 1)
        RAISE(USAGE, "train.update is backward, and step %lld has %lld micro-batches",
              (long long)step + 1, (long long)out->plan.micro_count[0]);
    out->clip_scale = before > 0.0 ? optim_clip_scale(run->optim, before) : 1.0;
    struct release release = {
        .glm = run->glm,
        .optim = run->optim,
        .arena = run->lanes.buffer[0],
        .lr = out->lr,
        .grad_scale = out->clip_scale,
        .update = run->state.updates + 1,
        .step = step,
    };
    const struct glm_grads grads = release_grads(&release);
    TRY(begin_micro(run, m, &grads));
    TRY(collect_rest(run, m, out));
    TRY(optim_norm(run->optim, &out->grad_norm));
    return guard_step(run, out, step);
}

/* After a failure: wait for what is in flight, so that the next step may begin. The first failure
 * is the one to tell. */
static err_t give_up(struct run *run, struct step_memory *m)
{
    const struct err_record first = *err_last();
    while (m->ended < m->begun)
        if (collect_oldest(run, m) != ERR_OK) LOG_D("train", "given up: %s", err_last()->text);
    return err_adopt(&first);
}

err_t step_run(struct run *run, struct step_memory *m, struct step_result *out, int64_t step)
{
    const double begin_s = time_now_s(), waited_s = feed_waited_s(&m->feed);
    const bool releases = run->formats.grad_keep == GLM_GRADS_RELEASED;
    out->clip_scale = 0.0;
    out->guard = (struct guard_decision){ .action = GUARD_APPLY };
    TRY(feed_step(&m->feed, &out->plan, run, step));
    TRY(reserve(m, run, out->plan.sample_count));
    lanes_reset(&run->lanes);
    m->begun = m->ended = 0;
    out->lr = sched_lr(&run->sched, run->state.updates);
    if (guard_step_passed_over(run, out, step)) return ERR_OK;
    err_t rc = (releases ? run_released : run_whole)(run, m, out, step);
    if (rc != ERR_OK) rc = give_up(run, m);
    if (rc == ERR_NUMERIC && releases) rc = guard_step_lost(run, out, step);
    TRY(rc);
    out->seconds = time_now_s() - begin_s;
    out->waited_s = feed_waited_s(&m->feed) - waited_s;
    return ERR_OK;
}
