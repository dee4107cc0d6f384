/* bench_load.h - how fast micro-batches come from a prepared corpus: what `soulchat bench load`
 * does. */
#ifndef TRAIN_BENCH_LOAD_H
#define TRAIN_BENCH_LOAD_H

#include "base/cfg.h"
#include "base/err.h"

#include <stdint.h>

struct bench_load {
    int64_t steps, micro_batches, rows; /* rows without padding */
    int64_t steps_wanted;               /* more than `steps` when it was asked to stop */
    double open_s;                      /* until the first step could be planned */
    double wall_s, cpu_s;               /* of all steps; cpu_s: of all threads of the program */
};

/* One epoch of the training split of data.dir in the batches of section `batch`, by the loader that
 * training uses, with nobody else at work. ERR_INTERRUPTED: asked to stop before the first step. */
MUST_USE err_t bench_load_measure(struct bench_load *out, const struct cfg *cfg);

#endif
