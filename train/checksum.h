/*
 * checksum.h - whether weights and optimizer state are what they should be: the same on every rank
 * that has a copy, the same after loading as before saving, and finite.
 *
 *     TRY(checksum_measure(&sum, optim, CHECKSUM_WEIGHTS | CHECKSUM_STATE));
 *     TRY_DONE(checksum_compare_ranks(&sum, comm, step));
 *     checksum_clear(&sum);
 *
 *     TRY(checksum_total(&total, &bytes, optim, ranks));  // the same after loading as before
 *
 * A sum is the crc32c of a tensor's elements in row-major order, without the layout's padding; of
 * the state, of its parts one after the other. The total adds up, modulo 2^32, the crc32c of every
 * chunk of SUMSQ_CHUNK elements of every tensor together with its place: it does not depend on who
 * has which chunks. No sum depends on layouts, and any flipped bit changes them. Values go through
 * host memory: that takes as long as the bytes take to come, plus 1 / (5 GB/s) of one core.
 */
#ifndef TRAIN_CHECKSUM_H
#define TRAIN_CHECKSUM_H

#include "base/err.h"
#include "train/ckpt.h"
#include "train/comm.h"
#include "train/optim.h"

#include <stdint.h>

enum checksum_what { CHECKSUM_WEIGHTS = 1, CHECKSUM_STATE = 2 };

struct checksum {
    const struct glm_params *params; /* borrowed from the optimizer's target */
    uint32_t *row;                   /* [2 * params->count] weights, then state; 0: not measured */
    int64_t bytes;                   /* that were read */
};

/* Of weights in the target's arena; of state only where all of it is here. Waits for the device.
 * Clear it also after a failure. */
MUST_USE err_t checksum_measure(struct checksum *out, struct optim *optim, int what);
void checksum_clear(struct checksum *sum);

/*
 * The same on all ranks, or ERR_CHECKSUM with the tensor and the rank whose copy is not that of the
 * majority; where there is none, the ranks that differ from rank 0. Every rank gets the same
 * answer. comm NULL: one rank, nothing to compare. Only what every rank has in full may have been
 * measured.
 */
MUST_USE err_t checksum_compare_ranks(const struct checksum *sum, struct comm *comm, int64_t step);
/* The decision alone. `all`: [ranks][2 * params->count]. */
MUST_USE err_t checksum_compare(const uint32_t *all, int64_t ranks, const struct glm_params *params,
                                int64_t step);

/* Of all weights and state; every rank of several adds its part, and gets the same. `bytes`: read
 * by this rank. NULL for `ranks`: one rank. */
MUST_USE err_t checksum_total(uint32_t *total, int64_t *bytes, struct optim *optim,
                              const struct ckpt_ranks *ranks);

/* ERR_NUMERIC names the first tensor with weights that are NaN or infinite, among those of which
 * this rank writes the checkpoint. Summed up on the device: costs a read of the weights there. */
MUST_USE err_t checksum_weights_finite(struct optim *optim, const struct ckpt_ranks *ranks,
                                       int64_t step);

#endif
