/*
 * record.h - what a run writes down about itself beside its steps: when it started, saved and
 * ended, and what of the time was of use (goodput.h). And the checks that go with a save.
 */
#ifndef TRAIN_RECORD_H
#define TRAIN_RECORD_H

#include "base/err.h"

#include <stdbool.h>

struct run;
struct snapshot_report;

/* Opens the metrics, with a line on this start. */
MUST_USE err_t record_start(struct run *run, bool resumed);

/* Before a save: ERR_NUMERIC for weights that are not finite. With train.check_every, also what the
 * values sum up to, which goes into the checkpoint. */
MUST_USE err_t record_check(struct run *run);
/* Every train.check_every steps: ERR_CHECKSUM where ranks have different copies of weights (below
 * stage 3) or optimizer state (stage 0). */
MUST_USE err_t record_compare(struct run *run);
/* After one for which training waited `seconds`: its line. */
MUST_USE err_t record_save(struct run *run, double seconds);
/* What was saved is on the disk: its line. The first also says how long a stop takes. */
MUST_USE err_t record_published(struct run *run, const struct snapshot_report *report);
/* After a load: ERR_CHECKSUM when the values are not those that were saved. */
MUST_USE err_t record_verify(struct run *run, const char *dir);

/* The run stops on request. */
MUST_USE err_t record_stop(struct run *run);
/* The run is done: goodput, in the log and the metrics. */
MUST_USE err_t record_end(struct run *run);

#endif
