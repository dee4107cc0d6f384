/*
 * batch_source.h - what batches are made of, without saying where it lies: lengths that decide the
 * plan, and a function that lays out one sample. A sample set is one source; tests have others.
 */
#ifndef DATA_BATCH_SOURCE_H
#define DATA_BATCH_SOURCE_H

#include "data/batch.h"

#include <stdint.h>

struct batch_source {
    void *self;
    int64_t count;
    const int32_t *len;          /* [count] rows of each sample, >= 1 */
    const int32_t *target_count; /* [count] trained rows of each, >= 1 */
    int32_t pad;                 /* id of padding rows */
    /* Lay out sample `index` into arrays of len[index] entries; *seq agrees with the two above. */
    err_t (*fill)(void *self, int64_t index, struct seq *seq, int32_t *ids, int32_t *pos,
                  int32_t *block);
};

/* As batcher_open; the arrays and `self` are borrowed until close. */
MUST_USE err_t batcher_open_source(struct batcher **out, const struct batch_source *source,
                                   const struct batch_spec *spec);

/* How the trained rows of a micro-batch are weighted: functions of the whole step. */
struct weight_rule {
    enum loss_mean mean;
    bool unit;                            /* 1 for every trained row; the rest is ignored */
    int64_t trained_tokens, sample_count; /* of the step */
};

/*
 * Lay out samples[place[0]], samples[place[1]], ... end to end; place[k] becomes `stream`. A NULL
 * place stands for 0, 1, 2, ...
 * Arrays grow to the larger of what is needed and `room` (may be NULL). ERR_NOMEM, ERR_ARG (more
 * than BATCH_ROWS_MAX rows), or what source->fill returns; then the contents are undefined.
 */
MUST_USE err_t micro_batch_fill(struct micro_batch *out, const struct batch_source *source,
                                const int64_t *samples, const int32_t *place, int64_t count,
                                const struct weight_rule *rule, const struct batch_bounds *room);

#endif
