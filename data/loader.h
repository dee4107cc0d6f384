/*
 * loader.h - micro-batches made ready in the background: one thread fills them in the order in
 * which they are trained on, a few ahead, while the caller works on those it has taken.
 *
 *     const struct loader_spec spec = { .step_first = s, .step_end = e, .lane_end = 1, .ahead = 4
 * }; TRY_DONE(loader_open(&loader, batcher, &spec)); while (true) { TRY_DONE(loader_take(loader,
 * &got));     // waits only when the thread is behind if (got == NULL) break;                  //
 * all steps were taken use(&got->plan, &got->micro); loader_give_back(loader);                //
 * the oldest one taken
 *     }
 *     loader_close(loader);
 *
 * What is taken, and its order, is what batcher_plan and batcher_fill give for these steps, lanes
 * and micro-batches, whatever the threads do. Up to `held` micro-batches may be with the caller at
 * once, as when two are in flight on a device; they are given back in the order in which they were
 * taken.
 *
 * Between open and close the batcher, its sample set and its shards belong to the thread. Who needs
 * them in between, such as a validation that reads the same shards, asks for them: loader_pause
 * waits until the thread has finished the micro-batch it is at, and loader_resume lets it go on.
 *
 * How training uses it: a step's loop calls loader_take where it calls batcher_plan and
 * batcher_fill, with .held = GLM_TICKETS, and gives back when a ticket has ended.
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
    int64_t ahead;                /* filled and not taken yet, at most; >= 1 */
    int64_t held;                 /* taken and not given back, at most; 0 = 1 */
};

/* One micro-batch, with the plan of its step. */
struct loaded {
    struct step_plan plan; /* micro_count: this struct's own copy */
    int64_t lane, index;   /* micro-batch `index` of `lane` */
    struct micro_batch micro;
};

struct loader;

/* ERR_ARG: an empty range, or more slots than LOADER_SLOTS_MAX. ERR_NOMEM. */
MUST_USE err_t loader_open(struct loader **out, struct batcher *batcher,
                           const struct loader_spec *spec);
/*
 * The next micro-batch; NULL behind the last one. Borrowed until it is given back. What went wrong
 * in the thread is returned, with its record, behind all that was filled before it, and again by
 * every later call. ASSERTs that fewer than `held` are with the caller.
 */
MUST_USE err_t loader_take(struct loader *l, const struct loaded **out);
/* The oldest one that was taken. ASSERTs that there is one. */
void loader_give_back(struct loader *l);

void loader_pause(struct loader *l);
void loader_resume(struct loader *l);

/* Seconds that loader_take has waited since open: a step's stall. */
double loader_waited_s(const struct loader *l);

/* Stops the thread at the next micro-batch, whatever is left to do. NULL allowed. */
void loader_close(struct loader *l);

#endif
