#include "train/validate.h"

#include "base/check.h"
#include "base/num.h"
#include "base/rng.h"
#include "base/stop.h"
#include "train/feed.h"
#include "train/zero.h"

#include <math.h>
#include <stdlib.h>

/* Any fixed number: validation looks at the same samples whatever the run's seed is. */
#define VALIDATION_SEED 1

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

/* Sums of a micro-batch's nll by sample, which `sums` begins with. */
static void sum_samples(double *sums, const struct micro_batch *m, const double *nll)
{
    for (int64_t i = 0; i < m->target_count;) {
        const int32_t segment = m->target_segment[i];
        double sum = 0.0;
        for (; i < m->target_count && m->target_segment[i] == segment; i++) sum += nll[i];
        sums[segment] = sum;
    }
}

/* What one evaluation works with. */
struct work {
    struct glm *glm;
    struct sample_set *set;
    const struct batch_bounds *bounds;
    struct micro_batch micro;
    int64_t *chosen; /* [count] */
    double *sums;    /* [count] nll of each sample; 0 where another rank has it */
    double *nll;     /* [bounds->targets] */
};

static err_t open_work(struct work *w, int64_t count)
{
    const int64_t available = sample_set_count(w->set);
    w->chosen = malloc((size_t)(count + 1) * sizeof *w->chosen);
    w->sums = calloc((size_t)count + 1, sizeof *w->sums);
    w->nll = malloc((size_t)w->bounds->targets * sizeof *w->nll);
    if (w->chosen == NULL || w->sums == NULL || w->nll == NULL)
        RAISE(NOMEM, "validation: no memory for %lld samples", (long long)count);
    for (int64_t i = 0; i < count; i++)
        w->chosen[i] = rng_permute(VALIDATION_SEED, RNG_SHUFFLE, i, available);
    return ERR_OK;
}

static void close_work(struct work *w)
{
    micro_batch_clear(&w->micro);
    free(w->chosen);
    free(w->sums);
    free(w->nll);
}

static err_t evaluate(struct work *w, int64_t at, int64_t count)
{
    TRY(micro_batch_from_samples(&w->micro, w->set, w->chosen + at, count, LOSS_MEAN_TOKEN, true));
    const struct glm_batch batch = glm_batch_from_micro(&w->micro);
    TRY(glm_eval_micro(w->glm, &batch, w->nll));
    sum_samples(w->sums + at, &w->micro, w->nll);
    return ERR_OK;
}

/* Micro-batches go to the ranks in turn. */
static err_t evaluate_all(struct work *w, struct zero *zero, int64_t count)
{
    int64_t index = 0;
    for (int64_t at = 0; at < count; index++) {
        if (zero->comm == NULL && stop_requested()) RAISE(INTERRUPTED, "stopped during validation");
        const int64_t n = fitting(w->set, w->chosen + at, count - at, w->bounds);
        if (index % zero->size == zero->rank) TRY(evaluate(w, at, n));
        at += n;
    }
    if (index % zero->size != 0 && zero->rank >= index % zero->size) TRY(zero_idle_forward(zero));
    return zero_sum_losses(zero, w->sums, count);
}

err_t validate(struct validation *out, struct zero *zero, struct glm *glm, struct sample_set *set,
               int64_t sample_count, const struct batch_bounds *bounds)
{
    err_t rc = ERR_OK;
    const int64_t count = min_i64(sample_count, sample_set_count(set));
    struct work work = { .glm = glm, .set = set, .bounds = bounds };
    struct validation v = { .samples = count };
    zero_note(zero, "validate");
    TRY_DONE(open_work(&work, count));
    TRY_DONE(evaluate_all(&work, zero, count));
    for (int64_t i = 0; i < count; i++) {
        v.loss += work.sums[i];
        v.tokens += sample_target_count(set, work.chosen[i]);
    }
    v.loss = v.tokens > 0 ? v.loss / (double)v.tokens : NAN;
    *out = v;
done:
    close_work(&work);
    return rc;
}
