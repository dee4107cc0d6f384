#include "train/plan.h"

#include "base/num.h"
#include "train/snapshot.h"

#include <math.h>

/* Samples and targets of a micro-batch when no corpus says: samples of at least 64 rows, half of
 * which are trained. They cost some bytes each, against some hundred thousand of a row. */
#define ASSUMED_SAMPLE_ROWS 64
#define ASSUMED_TARGET_PART 2

int64_t plan_budget(const struct plan *p)
{
    return (int64_t)floor((double)p->card.memory_bytes * (1.0 - p->spare));
}

/* The corpus gave bounds for its own micro_tokens: others are scaled, for none can be exceeded
 * while a micro-batch is longer in proportion. */
static struct batch_bounds bounds_of(const struct plan *p)
{
    const struct plan_text *t = &p->text;
    const int64_t micro = p->batch.micro_tokens;
    if (t->bounds.rows == 0)
        return (struct batch_bounds){ .rows = micro,
                                      .segments = div_ceil(micro, ASSUMED_SAMPLE_ROWS),
                                      .targets = div_ceil(micro, ASSUMED_TARGET_PART) };
    if (micro == t->micro_tokens) return t->bounds;
    /* A bound below micro_tokens is the largest step's. */
    const bool whole_step = t->bounds.rows < t->micro_tokens && p->batch.unit == BATCH_SAMPLES;
    const double scale = (double)micro / (double)t->micro_tokens;
    return (struct batch_bounds){
        .rows = whole_step ? min_i64(t->bounds.rows, micro) : micro,
        .segments = (int64_t)ceil((double)t->bounds.segments * scale),
        .targets = min_i64((int64_t)ceil((double)t->bounds.targets * scale), micro),
    };
}

void plan_step(struct plan *p)
{
    const struct plan_text *t = &p->text;
    const double micro = (double)p->batch.micro_tokens, lanes = (double)p->batch.lanes;
    const double size = (double)p->batch.size;
    const bool tokens = p->batch.unit == BATCH_TOKENS;
    struct cost_work w = { .rows = tokens ? size * t->fill : size * t->sample_rows };
    const double samples = w.rows / t->sample_rows;
    w.micro_batches = tokens ? ceil(size / micro) : lanes * ceil(w.rows / lanes / micro);
    /* Only tails are padded, by half a multiple on average. */
    w.rows_padded = tokens ? size : w.rows + w.micro_batches * BATCH_ROW_MULTIPLE / 2.0;
    w.targets = samples * t->sample_targets;
    w.pairs = samples * t->sample_pairs;
    p->work = w;
    p->bounds = bounds_of(p);
}

static err_t check_backward(const struct plan *p)
{
    if (!p->settings.update_in_backward || p->work.micro_batches <= 1.0) return ERR_OK;
    RAISE(USAGE,
          "train.update is backward, and a step of about %.0f rows does not fit into "
          "batch.micro_tokens = %lld at once; make batch.size smaller",
          p->work.rows, (long long)p->batch.micro_tokens);
}

/* A copy is asked for when the first checkpoint is saved, and training waits where there is none:
 * it takes no part in what fits. */
static err_t count_copy(struct plan *p)
{
    const struct stored_formats formats = {
        .precision = p->settings.dtype,
        .master = p->settings.master,
        .moments = p->settings.moments_8bit ? OPTIM_MOMENTS_8BIT : OPTIM_MOMENTS_F32,
    };
    struct glm_params params;
    p->copy_bytes = 0;
    if (!p->copies) return ERR_OK;
    TRY(glm_params_create(&params, &p->config));
    const err_t rc = snapshot_bytes(&p->copy_bytes, &params, &formats);
    glm_params_clear(&params);
    return rc;
}

err_t plan_compute(struct plan *p)
{
    plan_step(p);
    TRY(count_copy(p));
    TRY(check_backward(p));
    TRY(cost_memory(&p->memory, p->dev, &p->config, &p->settings, &p->bounds));
    cost_time(&p->time, &p->config, &p->settings, &p->work, &p->memory, &p->card);
    const int64_t host_bytes = p->card.capability > 0 ? 0 : p->memory.host_bytes;
    p->fits = p->memory.device_bytes + host_bytes <= plan_budget(p);
    return ERR_OK;
}
