/* run_impl.h - the parts of opening a run. Private to train/run*.c. */
#ifndef TRAIN_RUN_IMPL_H
#define TRAIN_RUN_IMPL_H

#include "train/run.h"

/* ---- run_data.c: what it trains on, which model, how many steps ---- */

/* Shards, samples and batches; ERR_USAGE: none to train on, or prepared with other settings. */
MUST_USE err_t run_open_data(struct run *r);
bool run_starts_random(const struct run *r);
/* The model's sizes. ERR_USAGE: too short for the samples, or not of the corpus's tokens. */
MUST_USE err_t run_read_config(struct run *r, struct glm_config *config);
/* total_steps and the schedule. */
MUST_USE err_t run_plan_steps(struct run *r);

/* ---- run_ranks.c: one of several ranks ---- */

/* batch.lanes: 0 becomes a number here: that of the run which is continued, or of the ranks. */
MUST_USE err_t run_settle_lanes(struct run *r, bool resume, int64_t ranks);
/* "cuda" alone: of several cards the one with the rank's number on its machine. */
MUST_USE err_t run_open_device(struct run *r, const struct ranks_place *place);
/* Meets the others, where there are others. ERR_COMM: with other settings or another corpus. */
MUST_USE err_t run_join_ranks(struct run *r, const struct ranks_place *place);

#endif
