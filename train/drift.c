#include "train/drift.h"

#include "base/check.h"
#include "base/num.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct drift {
    const struct optim_target *target;
    float *then, *now; /* [count] */
    int64_t count;
};

/* What of elements *first .. of a row is here; returns how many. */
static int64_t here(int64_t *first, int64_t count, const struct optim_target *target, int64_t row)
{
    int64_t begin, owned;
    if (!target->scattered) return count;
    owner_row(&begin, &owned, target->owner, target->params, row, comm_rank(target->comm));
    const int64_t end = min_i64(*first + count, begin + owned);
    *first = max_i64(*first, begin);
    return max_i64(end - *first, 0);
}

/* The sample, matrix by matrix; out = NULL counts its elements. */
static err_t take(float *out, int64_t *count, const struct optim_target *target)
{
    const struct glm_params *params = target->params;
    const dtype_t dtype = target->weights.dtype;
    double raw[DRIFT_RUN_ELEMENTS]; /* room for any dtype */
    *count = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const int64_t all = params->row[i].count;
        for (int64_t k = 0; k < DRIFT_RUNS && params->row[i].dims == 2; k++) {
            int64_t first = all / DRIFT_RUNS * k;
            const int64_t run = here(&first, min_i64(DRIFT_RUN_ELEMENTS, all - first), target, i);
            *count += run;
            if (out == NULL || run == 0) continue;
            TRY(dev_download(target->dev, raw, optim_target_weights(target, i, first),
                             run * dtype_bytes(dtype)));
            weight_widen(out + *count - run, dtype, raw, run);
        }
    }
    return ERR_OK;
}

err_t drift_open(struct drift **out, const struct optim_target *target)
{
    err_t rc = ERR_OK;
    struct drift *d = calloc(1, sizeof *d);
    *out = NULL;
    if (d == NULL) RAISE(NOMEM, "sample of the weights: %zu bytes wanted", sizeof *d);
    d->target = target;
    TRY_DONE(take(NULL, &d->count, target));
    d->then = malloc((size_t)d->count * sizeof *d->then);
    d->now = malloc((size_t)d->count * sizeof *d->now);
    if (d->then == NULL || d->now == NULL)
        RAISE_DONE(NOMEM, "sample of the weights: %lld numbers", (long long)d->count);
    TRY_DONE(take(d->then, &d->count, target));
    *out = d;
done:
    if (rc != ERR_OK) drift_close(d);
    return rc;
}

void drift_close(struct drift *d)
{
    if (d == NULL) return;
    free(d->then);
    free(d->now);
    free(d);
}

err_t drift_measure(struct drift *d, double *change)
{
    double moved = 0.0, size = 0.0;
    TRY(take(d->now, &d->count, d->target));
    for (int64_t i = 0; i < d->count; i++) {
        const double difference = (double)d->now[i] - (double)d->then[i];
        moved += difference * difference;
        size += (double)d->then[i] * (double)d->then[i];
    }
    *change = size > 0.0 ? sqrt(moved / size) : 0.0;
    float *const then = d->then;
    d->then = d->now;
    d->now = then;
    return ERR_OK;
}
