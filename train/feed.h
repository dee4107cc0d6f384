/*
 * feed.h - the micro-batches of a run's steps, made ready in the background (data/loader.h)
 * wherever training goes: on, over a step, back.
 *
 *     TRY(feed_step(&feed, &plan, run, step));
 *     for (each lane of this rank, each of its micro-batches) {
 *         TRY(feed_take(&feed, &micro));
 *         ...
 *         feed_give_back(&feed); // the oldest one taken; up to GLM_TICKETS are out at once
 *     }
 *     feed_close(&feed);         // before the run's data are closed
 *
 * Steps that follow one another, each taken whole, come from one loader. Any other step, such as
 * the one after a rollback, opens another there; so what is given up may be left as it is.
 */
#ifndef TRAIN_FEED_H
#define TRAIN_FEED_H

#include "base/err.h"
#include "data/batch.h"
#include "model/glm.h"

#include <stdint.h>

struct loader;
struct run;

/* Zeroed: closed. */
struct feed {
    struct loader *loader;
    int64_t step;    /* the one planned last */
    int64_t held;    /* taken and not given back */
    double waited_s; /* by the loaders before this one */
};

/* The plan of step `step`; its arrays are borrowed until the next call or close. The run's batcher
 * belongs to the feed until feed_close. Errors: of loader_open and of reading samples. */
MUST_USE err_t feed_step(struct feed *f, struct step_plan *out, const struct run *run,
                         int64_t step);
MUST_USE err_t feed_take(struct feed *f, const struct micro_batch **out);
void feed_give_back(struct feed *f);

/* Around whatever else reads the run's shards. */
void feed_pause(struct feed *f);
void feed_resume(struct feed *f);

/* Seconds in which a step had to wait for samples. */
double feed_waited_s(const struct feed *f);

void feed_close(struct feed *f);

/* The arrays of a micro-batch as the model wants them; borrowed from `m`. */
struct glm_batch glm_batch_from_micro(const struct micro_batch *m);

/* A gradient that is used at once (train.update: backward) has nothing to be added to: every step
 * must be one micro-batch. ERR_USAGE names the first of steps 0 .. steps-1 that has more. What
 * cannot be looked at in a second or two is left to be found at its step. */
MUST_USE err_t feed_check_one_micro(struct batcher *batcher, int64_t steps, int64_t micro_tokens);

/* How many micro-batches of these bounds are made ready: enough to smooth over a slow read. */
int64_t feed_ahead(const struct batch_bounds *bounds);

#endif
