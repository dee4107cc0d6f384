/*
 * resume.h - continuing a run: which checkpoint, and whether the settings still describe the same
 * run.
 *
 * Sections `batch` and `model` and the corpus decide what is computed: they must be as they were,
 * or the promise "ends in the same bits as without the interruption" would be broken silently.
 * Where the model's folder lies is free; what its config.json says is not. Other changed settings
 * (a longer run, another rate) are allowed and listed in a warning. Settings are compared by value:
 * 5e-5 is 0.00005.
 */
#ifndef TRAIN_RESUME_H
#define TRAIN_RESUME_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct ckpt_ranks;
struct run;

/*
 * With `resume`: the step of the newest valid checkpoint, or -1 (a fresh start, said in a line);
 * errors of ckpt_newest. Without: ERR_USAGE when the folder already holds checkpoints.
 */
MUST_USE err_t resume_find(int64_t *step, const char *ckpt_root, bool resume,
                           const struct ckpt_ranks *ranks);
/* batch.lanes of the run in this folder, all of whose checkpoints have the same; *lanes stays where
 * there is none that can be read. */
MUST_USE err_t resume_lanes(int64_t *lanes, const char *ckpt_root);
/* Load the checkpoint of `step` into an opened run; ERR_USAGE names the first setting, model size
 * or corpus that differs. */
MUST_USE err_t resume_from(struct run *run, int64_t step);
/* Go back to one that this very run has saved or come from. */
MUST_USE err_t resume_again(struct run *run, int64_t step);

#endif
