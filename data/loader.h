/*
 * loader.h - micro-batches made ready in the background: one thread plans and fills them in the
 * order in which they are trained on, some ahead, while the caller works on those it has taken.
 *
 *     const struct loader_spec spec = { .step_end = steps, .lane_end = 1, .ahead = 8 };
 *     TRY(loader_open(&loader, batcher, &spec));
 *     for (;;) {
 *         TRY_DONE(loader_plan(loader, &plan)); // waits only when the thread is behind
 *         if (plan == NULL) break;              // all steps were taken
 *         for (int64_t i = 0; i < plan->micro_count[0]; i++) {
 *             TRY_DONE(loader_take(loader, &got));
 *             use(&got->micro);
 *             loader_give_back(loader); // the oldest one taken
 *         }
 *     }
 *     loader_close(loader);
 *
 * What is planned and taken, and its order, is what batcher_plan and batcher_fill give for these
 * steps, lanes and micro-batches, whatever the threads do. Up to `held` micro-batches may be with
 * the caller at once, as when two are in flight on a device; they are given back in the order in
 * which they were taken.
 *
 * Between open and close the batcher, its sample set and its shards belong to the thread. Who needs
 * the set or the shards in between, such as a validation that reads the same shards, asks for them:
 * loader_pause waits until the thread has finished the micro-batch it is at, and loader_resume lets
 * it go on. The batcher stays the thread's, which is in the middle of a step.
 */
#ifndef DATA_LOADER_H
#define DATA_LOADER_H

#include "base/err.h"
#include "data/batch.h"

#include <stdint.h>

#define LOADER_SLOTS_MAX 1024

struct loader_spec {
    int64_t step_first, step_end; /* steps step_first .. step_end-1 */
    int64_t lane_first, lane_end; /* lanes lane_first .. lane_end-1 of each */
    int64_t lane_count;           /* of the batcher; 0 = lane_end */
    int64_t ahead;                /* filled and not taken yet, at most; >= 1 */
    int64_t held;                 /* taken and not given back, at most; 0 = 1 */
};

struct loaded {
    int64_t lane, index; /* micro-batch `index` of `lane` */
    struct micro_batch micro;
};

struct loader;

/* ERR_ARG: an empty range, or more slots than LOADER_SLOTS_MAX. ERR_NOMEM. */
MUST_USE err_t loader_open(struct loader **out, struct batcher *batcher,
                           const struct loader_spec *spec);
/*
 * The plan of the next step, micro_count of all lanes; NULL behind the last one. Borrowed until the
 * next call. What went wrong in the thread is returned, with its record, behind all that was filled
 * before it, and again by every later call. ASSERTs that the step before was taken and given back.
 */
MUST_USE err_t loader_plan(struct loader *l, const struct step_plan **out);
/* The next micro-batch of that step, borrowed until it is given back; errors as above. ASSERTs that
 * the step has one more, and that fewer than `held` are with the caller. */
MUST_USE err_t loader_take(struct loader *l, const struct loaded **out);
/* Micro-batches of that step, in these lanes, that were not taken yet. */
int64_t loader_left(const struct loader *l);
/* The oldest one that was taken. ASSERTs that there is one. */
void loader_give_back(struct loader *l);

void loader_pause(struct loader *l);
void loader_resume(struct loader *l);

/* Seconds that loader_plan and loader_take have waited since open: what steps were held up. */
double loader_waited_s(const struct loader *l);

/* Stops the thread at the next micro-batch, whatever is left to do. NULL allowed. */
void loader_close(struct loader *l);

#endif
