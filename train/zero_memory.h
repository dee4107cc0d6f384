/*
 * zero_memory.h - what a rank takes of its device at each stage of zero.h, and the stage to choose
 * by it. Arithmetic: nothing is allocated on the device.
 *
 *     struct zero_memory memory;
 *     TRY(zero_memory(&memory, &need, dev, stage, rank, size));     // memory.bytes
 *     TRY(zero_choose(&stage, &need, dev, comm));                   // in a run
 */
#ifndef TRAIN_ZERO_MEMORY_H
#define TRAIN_ZERO_MEMORY_H

#include "base/err.h"
#include "model/glm.h"
#include "model/glm_plan.h"
#include "train/comm.h"
#include "train/optim_plan.h"

#include <stdint.h>

struct zero_need {
    const struct glm_config *config;
    const struct glm_options *options; /* of the model on one rank */
    const struct optim_format *state;
    int64_t lane_count;
};

/* By what it is for; what libraries take is not in it. */
struct zero_memory {
    int64_t rank; /* whose it is */
    struct glm_plan model;
    int64_t grad_buffers, grad_bytes;  /* arenas, and the bytes of all */
    int64_t exchange_bytes;            /* gradients of other ranks on their way */
    int64_t state_bytes, master_bytes; /* moments and master; of those the master; wherever */
    int64_t staging_bytes, sums_bytes, optim_host_bytes;
    int64_t bytes;                /* on the device, in all */
    int64_t parameters, elements; /* of the table; of an arena, with padding */
    int64_t owned;                /* parameters whose state is here: all in stage 0 */
    int64_t summed;               /* elements whose gradients are added up here */
    int64_t foreign;              /* sums over lanes that come from other ranks */
};

/* The rank that takes most, up to a few chunks of parameters. */
#define ZERO_WIDEST (-1)
/* Of rank `rank` of `size`, or of ZERO_WIDEST. With one rank the stage is 0. ERR_ARG, ERR_NOMEM. */
MUST_USE err_t zero_memory(struct zero_memory *out, const struct zero_need *need, struct dev *dev,
                           int stage, int64_t rank, int64_t size);

/* The lowest stage with which that rank fits into `free_bytes`, with ZERO_SPARE of them to spare;
 * where none does, the highest. On the host, whose memory ranks share, the lowest that has no part
 * of the state twice: 1. */
#define ZERO_SPARE 0.05
MUST_USE err_t zero_lowest(int *stage, const struct zero_need *need, struct dev *dev, int64_t rank,
                           int64_t size, int64_t free_bytes);
/* The lowest that fits into the device of every rank. Called by every rank. */
MUST_USE err_t zero_choose(int *stage, const struct zero_need *need, struct dev *dev,
                           struct comm *comm);

#endif
