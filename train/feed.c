#include "train/feed.h"

#include "base/check.h"
#include "base/num.h"
#include "data/loader.h"
#include "train/run.h"

#define CHECK_STEPS_MAX 1000000

#define AHEAD_MAX   16
#define AHEAD_BYTES (INT64_C(64) << 20) /* one is small, but for those of a million rows */

int64_t feed_ahead(const struct batch_bounds *bounds)
{
    const int64_t arrays = 6; /* per row; those per target and segment are shorter */
    const int64_t bytes = bounds->rows * arrays * (int64_t)sizeof(int32_t);
    return max_i64(1, min_i64(AHEAD_MAX, AHEAD_BYTES / max_i64(bytes, 1)));
}

static err_t open_at(struct feed *f, const struct run *run, int64_t step)
{
    const struct batch_bounds bounds = batcher_bounds(run->batcher);
    const struct loader_spec spec = { .step_first = step,
                                      .step_end = max_i64(run->total_steps, step + 1),
                                      .lane_first = run->zero.lane_first,
                                      .lane_end = run->zero.lane_end,
                                      .lane_count = run->batch.lanes,
                                      .ahead = feed_ahead(&bounds),
                                      .held = GLM_TICKETS };
    feed_close(f);
    return loader_open(&f->loader, run->batcher, &spec);
}

err_t feed_step(struct feed *f, struct step_plan *out, const struct run *run, int64_t step)
{
    const struct step_plan *plan = NULL;
    const bool follows =
        f->loader != NULL && f->step + 1 == step && f->held == 0 && loader_left(f->loader) == 0;
    if (follows) TRY(loader_plan(f->loader, &plan));
    if (plan == NULL) { /* nothing open, elsewhere, or at its end */
        TRY(open_at(f, run, step));
        TRY(loader_plan(f->loader, &plan));
    }
    ASSERT(plan != NULL && plan->step == step);
    *out = *plan;
    f->step = step;
    return ERR_OK;
}

err_t feed_take(struct feed *f, const struct micro_batch **out)
{
    const struct loaded *loaded;
    TRY(loader_take(f->loader, &loaded));
    *out = &loaded->micro;
    f->held++;
    return ERR_OK;
}

void feed_give_back(struct feed *f)
{
    loader_give_back(f->loader);
    f->held--;
}

void feed_pause(struct feed *f)
{
    if (f->loader != NULL) loader_pause(f->loader);
}

void feed_resume(struct feed *f)
{
    if (f->loader != NULL) loader_resume(f->loader);
}

double feed_waited_s(const struct feed *f)
{
    return f->waited_s + (f->loader != NULL ? loader_waited_s(f->loader) : 0.0);
}

void feed_close(struct feed *f)
{
    const double waited_s = feed_waited_s(f);
    loader_close(f->loader);
    *f = (struct feed){ .waited_s = waited_s };
}

/* ---- micro-batches ---- */

STATIC_ASSERT(sizeof(struct attn_segment) == 3 * sizeof(int32_t), "segments are three i32");

struct glm_batch glm_batch_from_micro(const struct micro_batch *m)
{
    return (struct glm_batch){
        .rows = m->rows,
        .ids = m->ids,
        .pos = m->pos,
        .block = m->block,
        .order = m->order,
        .segment_count = m->segment_count,
        .segments = (const struct attn_segment *)(const void *)m->segments,
        .target_count = m->target_count,
        .target_rows = m->target_rows,
        .labels = m->labels,
        .weights = m->weights,
    };
}

err_t feed_check_one_micro(struct batcher *batcher, int64_t steps, int64_t micro_tokens)
{
    struct step_plan plan;
    for (int64_t step = 0; step < min_i64(steps, CHECK_STEPS_MAX); step++) {
        TRY(batcher_plan(batcher, &plan, step));
        if (plan.micro_count[0] > 1)
            RAISE(USAGE,
                  "train.update is backward, and step %lld has %lld micro-batches of "
                  "batch.micro_tokens = %lld rows: it must be one; set a larger "
                  "batch.micro_tokens, a smaller batch.size, or train.update: step",
                  (long long)step + 1, (long long)plan.micro_count[0], (long long)micro_tokens);
    }
    return ERR_OK;
}
