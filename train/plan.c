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

/* `parts` of a step's `all` parts, samples or packs, in `lanes` lanes. */
static struct cost_work work_of(const struct plan *p, double parts, double all, double lanes)
{
    const struct plan_text *t = &p->text;
    const double micro = (double)p->batch.micro_tokens;
    const double size = (double)p->batch.size * parts / all;
    const bool tokens = p->batch.unit == BATCH_TOKENS;
    struct cost_work w = { .rows = tokens ? size * t->fill : size * t->sample_rows };
    const double samples = w.rows / t->sample_rows;
    w.micro_batches = lanes * ceil((tokens ? size : w.rows) / lanes / micro);
    /* Only tails are padded, by half a multiple on average. */
    w.rows_padded = tokens ? size : w.rows + w.micro_batches * BATCH_ROW_MULTIPLE / 2.0;
    w.targets = samples * t->sample_targets;
    w.pairs = samples * t->sample_pairs;
    return w;
}

/* Lanes take samples or packs in turn, so that some may have one more than others: the rank that
 * has most is waited for. That samples differ in length is left out. */
void plan_step(struct plan *p)
{
    const int64_t lanes = p->batch.lanes, here = div_ceil(lanes, p->settings.ranks);
    const int64_t all =
        p->batch.unit == BATCH_TOKENS ? div_ceil(p->batch.size, p->batch.pack_len) : p->batch.size;
    const int64_t most = here * (all / lanes) + min_i64(here, all % lanes);
    p->work = work_of(p, (double)all, (double)all, (double)lanes);
    p->rank_work = work_of(p, (double)most, (double)all, (double)here);
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

static err_t choose_zero(struct plan *p)
{
    p->settings.zero = 0;
    if (p->settings.ranks == 1) return ERR_OK;
    return cost_lowest_zero(&p->settings.zero, p->dev, &p->config, &p->settings, &p->bounds,
                            p->card.memory_bytes);
}

/* What the rank exchanges, and that it waits for it. */
static err_t add_exchange(struct plan *p)
{
    const struct cost_settings *s = &p->settings;
    const double passes = p->rank_work.micro_batches;
    struct cost_time *t = &p->time;
    const double samples = p->work.rows / p->text.sample_rows;
    TRY(scale_step(&p->scale, &(struct scale_args){
                                  .config = &p->config,
                                  .vocab_multiple = glm_vocab_multiple(p->dev->info.capability),
                                  .ranks = s->ranks,
                                  .rank = p->memory.zero.rank,
                                  .lanes = s->lanes,
                                  .stage = s->zero,
                                  .weights = s->dtype,
                                  .grads = s->grad_dtype,
                                  .passes = (int64_t)passes,
                                  .samples = llround(samples),
                                  .fabric = p->fabric,
                                  .forward_s = t->forward_s / passes,
                                  .head_s = t->seconds[COST_T_HEAD] / passes,
                                  .backward_s = t->backward_s / passes,
                              }));
    t->seconds[COST_T_EXCHANGE] = p->scale.exposed_s;
    t->step_s += p->scale.exposed_s;
    t->tokens_per_s = p->work.rows / t->step_s;
    t->flop_per_s = t->flop / t->step_s;
    return ERR_OK;
}

/* Ranks on processors share the machine's memory. */
static int64_t bytes_wanted(const struct plan *p)
{
    if (p->card.capability > 0) return p->memory.device_bytes;
    const int64_t here = min_i64(p->settings.ranks, max_i64(p->fabric.ranks_per_node, 1));
    return here * (p->memory.device_bytes + p->memory.host_bytes);
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
    if (p->zero_auto) TRY(choose_zero(p));
    TRY(cost_memory(&p->memory, p->dev, &p->config, &p->settings, &p->bounds));
    cost_time(&p->time, &p->config, &p->settings, &p->rank_work, &p->memory, &p->card);
    p->scale = (struct scale){ 0 };
    if (p->settings.ranks > 1) TRY(add_exchange(p));
    p->fits = bytes_wanted(p) <= plan_budget(p);
    return ERR_OK;
}

err_t plan_efficiency(double *out, const struct plan *p)
{
    struct plan alone = *p;
    alone.settings.ranks = alone.settings.lanes = alone.batch.lanes = 1;
    alone.settings.zero = 0;
    alone.zero_auto = false;
    TRY(plan_compute(&alone));
    *out = alone.time.step_s / (p->time.step_s * (double)p->settings.ranks);
    return ERR_OK;
}
