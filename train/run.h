/*
 * run.h - everything a training run holds, opened from the settings and closed in reverse.
 *
 *     struct run run;
 *     rc = run_open(&run, cfg, resume, &place);   // ranks.h
 *     if (rc == ERR_OK) rc = loop_run(&run);      // loop.h
 *     rc = run_leave(&run, rc);                   // everybody is done, or is told that we failed
 *     run_close(&run);
 *
 * Of several ranks each opens the run, and they are connected until run_leave. Rank 0 keeps the run
 * folder. All must see it at the same path: checkpoints are read by all.
 *
 * The run folder (train.out):
 *     settings.yaml    the resolved settings of the last start
 *     metrics.jsonl    metrics.h
 *     ckpt/            ckpt.h
 *     lock             held by the program that trains here
 */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "base/cfg.h"
#include "base/err.h"
#include "base/file.h"
#include "data/batch.h"
#include "data/sample.h"
#include "data/shard.h"
#include "kernels/dev.h"
#include "model/glm.h"
#include "train/ckpt.h"
#include "train/formats.h"
#include "train/goodput.h"
#include "train/guard.h"
#include "train/lanes.h"
#include "train/metrics.h"
#include "train/optim.h"
#include "train/ranks.h"
#include "train/sched.h"
#include "train/zero.h"

#include <stdbool.h>
#include <stdint.h>

struct snapshot;

struct run {
    struct cfg *cfg; /* borrowed */
    int lock_fd;     /* train.out/lock, held while the run is open; -1: not held */
    char ckpt_root[FILE_PATH_MAX], metrics_path[FILE_PATH_MAX];

    struct shards *shards;
    struct sample_set *train_set;
    struct sample_set *validation_set; /* NULL when the split is empty */
    struct batch_spec batch;
    struct batcher *batcher;
    struct batch_bounds bounds; /* of training and validation */

    struct train_formats formats;
    struct dev *dev;
    struct glm *glm;
    struct optim *optim;
    struct snapshot *snapshot; /* train.save; ranks save and find checkpoints through zero_ckpt */
    struct lanes lanes;        /* gradients; with GLM_GRADS_RELEASED its one buffer alone */
    struct ranks *ranks;       /* NULL: one rank */
    struct zero zero;
    struct metrics metrics;
    struct goodput goodput;
    bool announced; /* how long a checkpoint takes */

    int64_t total_steps;
    struct sched sched;
    struct guard_rules guard;
    int64_t step_saved;      /* of the newest checkpoint loaded, saved or being saved; 0: none */
    double validation_loss;  /* of the present weights; NAN: not measured */
    double base_loss;        /* of a new run's weights in float32 (base_loss.h); or NAN */
    struct ckpt_state state; /* what the next checkpoint will say; .step steps are done */
};

/*
 * Opens and checks everything, loads or initialises the weights, continues from the newest valid
 * checkpoint when `resume`. ERR_USAGE: settings that contradict each other, the corpus or the
 * checkpoint; batch.lanes that the ranks cannot share; a run folder that already holds checkpoints
 * while resume is false. ERR_IO: another program trains there. Settings and model are checked
 * before the run folder is made.
 *
 * `place` is whom ranks_find says that this process is. Several ranks meet when settings, corpus
 * and device are in order; settings and corpus must be the same on all (ERR_COMM).
 */
MUST_USE err_t run_open(struct run *run, struct cfg *cfg, bool resume,
                        const struct ranks_place *place);
/* Whether it has samples to validate with, and settings that ask for it. */
bool run_validates(const struct run *run);
/* Whether all its steps are done and validated. Resuming such a run touches no file. */
bool run_is_done(const struct run *run);
/* Ends the connection to the other ranks: ranks_leave, whose code is returned. */
MUST_USE err_t run_leave(struct run *run, err_t rc);
/* Safe after a failed run_open. One rank's checkpoint that is being written is finished first. */
void run_close(struct run *run);

/* Save a checkpoint of the present state (run->state.step); called by every rank. With train.save:
 * background it is in place when snapshot_wait or snapshot_poll says so. */
MUST_USE err_t run_save(struct run *run);

#endif
