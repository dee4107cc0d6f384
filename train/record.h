/*
 * record.h - what a run writes down about itself beside its steps: when it started, saved and
 * ended, and what of the time was of use (goodput.h).
 */
#ifndef TRAIN_RECORD_H
#define TRAIN_RECORD_H

#include "base/err.h"

#include <stdbool.h>

struct run;
struct snapshot_report;

/* Opens the metrics, with a line on this start. */
MUST_USE err_t record_start(struct run *run, bool resumed);

/* After a save for which training waited `seconds`: its line. */
MUST_USE err_t record_save(struct run *run, double seconds);
/* What was saved is on the disk: its line. The first also says how long a stop takes. */
MUST_USE err_t record_published(struct run *run, const struct snapshot_report *report);

/* The run stops on request. */
MUST_USE err_t record_stop(struct run *run);
/* The run is done: goodput, in the log and the metrics. */
MUST_USE err_t record_end(struct run *run);

#endif
