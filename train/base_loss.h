/*
 * base_loss.h - what bf16 costs before anything is trained: the validation loss of given weights in
 * float32 arithmetic, beside that of the run's own first validation in bf16. The weights are those
 * of the files, not rounded, and the samples are those of every validation.
 *
 *     TRY(base_loss_measure(&run->base_loss, run));   // before training takes its memory
 *     ...
 *     TRY(base_loss_report(run, loss_of_the_first_validation));
 *
 * Of interest where weights are given, trained in bf16 and validated; elsewhere both do nothing.
 */
#ifndef TRAIN_BASE_LOSS_H
#define TRAIN_BASE_LOSS_H

#include "base/err.h"

struct run;

/*
 * NaN where it is not of interest, and where the device has no room for the model in float32 (a
 * warning): 16-bit files take 2 bytes a weight, others 4. The memory is free again on return.
 * Called by every rank, each of which evaluates its part and has the result. Errors: of reading the
 * weights, and of validate.
 */
MUST_USE err_t base_loss_measure(double *out, const struct run *run);
/* A line in the log and one in the metrics. ERR_IO: of the latter. */
MUST_USE err_t base_loss_report(struct run *run, double bf16);

#endif
