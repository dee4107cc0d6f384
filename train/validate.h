/* validate.h - the mean loss per trained token over fixed samples of a split, without gradients. */
#ifndef TRAIN_VALIDATE_H
#define TRAIN_VALIDATE_H

#include "base/err.h"
#include "data/batch.h"
#include "model/glm.h"

#include <stdint.h>

struct zero;

struct validation {
    double loss;    /* mean negative log-likelihood per trained token (nats); NaN: an empty set */
    int64_t tokens; /* trained tokens */
    int64_t samples;
};

/*
 * Evaluate `sample_count` samples of the set (all where it has fewer), chosen by a fixed
 * permutation, so that every call and every run looks at the same ones. Micro-batches respect
 * `bounds`, what the model has room for; the longest sample alone must fit (validate_bounds). Sums
 * are kept per sample in float64 and folded in sample order: the result does not depend on how
 * samples share micro-batches, nor on how those are dealt to ranks (`zero`, zero.h; every rank
 * calls it, and has the result). ERR_INTERRUPTED when a stop was requested (base/stop.h), of one
 * rank alone.
 */
MUST_USE err_t validate(struct validation *out, struct zero *zero, struct glm *glm,
                        struct sample_set *set, int64_t sample_count,
                        const struct batch_bounds *bounds);

/* Widen `bounds` so that every sample of the set fits a micro-batch of its own: those of training
 * may all be shorter. */
void validate_bounds(struct batch_bounds *bounds, const struct sample_set *set);

#endif
