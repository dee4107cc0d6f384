#include "train/step.h"

#include "base/progress.h"
#include "base/stop.h"
#include "train/run.h"
#include "train/validate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void step_memory_clear(struct step_memory *m)
{
    micro_batch_clear(&m->micro);
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

/* Each sample's weighted loss, at its place in the step's stream order. */
static void collect_losses(struct step_memory *m)
{
    const struct micro_batch *micro = &m->micro;
    for (int64_t i = 0; i < micro->target_count; i++)
        m->sample_loss[micro->stream[micro->target_segment[i]]] +=
            (double)micro->weights[i] * m->nll[i];
}

static err_t run_lane(struct run *run, struct step_memory *m, int64_t lane, int64_t micro_count)
{
    struct glm_grads grads = { 0 };
    TRY(lanes_begin(&run->lanes, &grads.arena));
    for (int64_t i = 0; i < micro_count; i++) {
        if (stop_requested()) RAISE(INTERRUPTED, "stopped inside a step");
        TRY(batcher_fill(run->batcher, &m->micro, lane, i));
        const struct glm_batch batch = glm_batch_from_micro(&m->micro);
        TRY(glm_train_micro(run->glm, &batch, &grads, m->nll));
        collect_losses(m);
    }
    return lanes_end(&run->lanes);
}

/* Before the update, so that nothing that is not finite reaches the weights. */
static err_t check_finite(const struct step_result *r, int64_t step)
{
    if (isfinite(r->loss) && isfinite(r->grad_norm)) return ERR_OK;
    RAISE(NUMERIC,
          "step %lld: loss %g, gradient norm %g: not finite; the weights are as they were "
          "before this step; a lower train.lr or a longer warm-up may help",
          (long long)step + 1, r->loss, fabs(r->grad_norm)); /* no "-nan" */
}

err_t step_run(struct run *run, struct step_memory *m, struct step_result *out, int64_t step)
{
    const double begin_s = time_now_s();
    struct tensor grads;
    TRY(batcher_plan(run->batcher, &out->plan, step));
    TRY(reserve(m, run, out->plan.sample_count));
    lanes_reset(&run->lanes);
    for (int64_t lane = 0; lane < run->batch.lanes; lane++)
        TRY(run_lane(run, m, lane, out->plan.micro_count[lane]));
    TRY(lanes_sum(&run->lanes, &grads));

    out->loss = 0.0;
    for (int64_t i = 0; i < out->plan.sample_count; i++) out->loss += m->sample_loss[i];
    TRY(optim_grad_norm(run->optim, &out->grad_norm, &grads));
    TRY(check_finite(out, step));
    out->lr = sched_lr(&run->sched, run->state.updates);
    out->clip_scale = optim_clip_scale(run->optim, out->grad_norm);
    TRY(optim_step(run->optim, &grads, out->lr, out->clip_scale, run->state.updates + 1));
    TRY(dev_sync(run->dev));
    out->seconds = time_now_s() - begin_s;
    return ERR_OK;
}
