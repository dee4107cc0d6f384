/*
 * checksum_run.h - what checksum.h finds of a run's weights and optimizer state, and what follows:
 * before every save, after every load, every train.check_every steps. Called by every rank; a
 * failure of one is everyone's.
 */
#ifndef TRAIN_CHECKSUM_RUN_H
#define TRAIN_CHECKSUM_RUN_H

#include "base/err.h"

struct run;

/* Before a save: ERR_NUMERIC for weights that are not finite. With train.check_every, also what the
 * values sum up to, which goes into the checkpoint. */
MUST_USE err_t checksum_run_saving(struct run *run);
/* After a load: ERR_CHECKSUM when the values are not those that were saved. */
MUST_USE err_t checksum_run_loaded(struct run *run, const char *dir);
/* Every train.check_every steps: ERR_CHECKSUM where ranks have different copies of weights (below
 * stage 3) or optimizer state (stage 0). */
MUST_USE err_t checksum_run_ranks(struct run *run);

#endif
