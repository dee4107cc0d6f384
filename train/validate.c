#include "train/validate.h"

#include "base/check.h"
#include "base/num.h"
#include "base/rng.h"
#include "base/stop.h"

#include <math.h>
#include <stdlib.h>

/* Any fixed number: validation looks at the same samples whatever the run's seed is. */
#define VALIDATION_SEED 1

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

void validate_bounds(struct batch_bounds *bounds, const struct sample_set *set)
{
    const int64_t count = sample_set_count(set);
    for (int64_t i = 0; i < count; i++) {
        const int64_t rows = align_up(sample_set_at(set, i)->len, BATCH_ROW_MULTIPLE);
        bounds->rows = max_i64(bounds->rows, rows);
        bounds->targets = max_i64(bounds->targets, sample_target_count(set, i));
    }
}

/* How many of chosen[0..count-1] fit one micro-batch; at least one. */
static int64_t fitting(const struct sample_set *set, const int64_t *chosen, int64_t count,
                       const struct batch_bounds *bounds)
{
    int64_t rows = 0, targets = 0, n = 0;
    for (; n < count && n < bounds->segments; n++) {
        rows += sample_set_at(set, chosen[n])->len;
        targets += sample_target_count(set, chosen[n]);
        if (n > 0 &&
            (align_up(rows, BATCH_ROW_MULTIPLE) > bounds->rows || targets > bounds->targets))
            break;
    }
    return n;
}

/* Add a micro-batch's nll to the running sum, sample by sample. */
static void fold(struct validation *v, const struct micro_batch *m, const double *nll)
{
    for (int64_t i = 0; i < m->target_count;) {
        const int32_t segment = m->target_segment[i];
        double sum = 0.0;
        for (; i < m->target_count && m->target_segment[i] == segment; i++) sum += nll[i];
        v->loss += sum;
    }
    v->tokens += m->target_count;
    v->samples += m->segment_count;
}

err_t validate(struct validation *out, struct glm *glm, struct sample_set *set,
               int64_t sample_count, const struct batch_bounds *bounds)
{
    err_t rc = ERR_OK;
    const int64_t available = sample_set_count(set), count = min_i64(sample_count, available);
    struct micro_batch micro = { 0 };
    struct validation v = { 0 };
    int64_t *chosen = malloc((size_t)(count + 1) * sizeof *chosen);
    double *nll = malloc((size_t)bounds->targets * sizeof *nll);
    if (chosen == NULL || nll == NULL)
        RAISE_DONE(NOMEM, "validation: no memory for %lld samples", (long long)count);

    for (int64_t i = 0; i < count; i++)
        chosen[i] = rng_permute(VALIDATION_SEED, RNG_SHUFFLE, i, available);
    for (int64_t at = 0; at < count;) {
        if (stop_requested()) RAISE_DONE(INTERRUPTED, "stopped during validation");
        const int64_t n = fitting(set, chosen + at, count - at, bounds);
        TRY_DONE(micro_batch_from_samples(&micro, set, chosen + at, n, LOSS_MEAN_TOKEN, true));
        const struct glm_batch batch = glm_batch_from_micro(&micro);
        TRY_DONE(glm_eval_micro(glm, &batch, nll));
        fold(&v, &micro, nll);
        at += n;
    }
    v.loss = v.tokens > 0 ? v.loss / (double)v.tokens : NAN;
    *out = v;
done:
    micro_batch_clear(&micro);
    free(chosen);
    free(nll);
    return rc;
}
