/*
 * scale.h - a training step on n ranks as a model: the bytes that one rank sends and receives, and
 * how long it waits for them. It walks through a step's exchanges in the order in which zero.h,
 * exchange.h and zero_fetch.h make them, on one clock for computing and one for the links.
 *
 *     struct scale scale;
 *     struct scale_args args = { .config = &config, .ranks = 8, .stage = 2, ... };
 *     TRY(scale_step(&scale, &args));
 *     ... scale.sent_bytes, scale.exposed_s ...
 *
 * Bytes are exact: tests compare them with those that a communicator has counted. Of N elements in
 * n slices, with g bytes of a gradient, w of a weight, k sums over lanes on each rank (lanes.h: 1
 * where each rank has one lane), a rank sends and receives about
 *     gradients     k g N (n-1)/n         to their owners
 *     spread        g N (n-1)/n           sums to everyone, stage 0
 *                   w N (n-1)/n           weights to everyone, stages 1 and 2; embedding and end, 3
 *     fetched       w N_layers (n-1)/n    a pass and direction, less the two layers that the pass
 *                                         before has left, stage 3
 *     scalars       8 (n-1) each          losses of samples, and from stage 1 the norm's chunks
 * which for one lane on each rank is the volume of ring algorithms (Rajbhandari and others 2020,
 * arXiv:1910.02054, section 7: stages 0 to 2 move what plain data parallelism does, stage 3 half as
 * much again).
 *
 * Gathers (all but the gradients) go in two levels over m machines of equally many ranks, as GPUs
 * do it (kernels/dev_comm.h): a rank receives the bytes above, (m-1)/n of N from other machines,
 * and sends as many but for the differences between slices. CPU ranks gather in one level: give
 * them one machine.
 *
 * Seconds are an estimate. A card reaches neighbours and other machines at once, each at the link's
 * rate, and every other rank costs a message. What the model leaves out: links that several cards
 * share on their way, and that copying takes processors and memory from computing.
 */
#ifndef TRAIN_SCALE_H
#define TRAIN_SCALE_H

#include "base/err.h"
#include "kernels/tensor.h"
#include "model/glm.h"
#include "train/fabric.h"

#include <stdint.h>

struct scale_args {
    const struct glm_config *config;
    int64_t vocab_multiple; /* of embedding and head, as glm_options has it; 0: none */
    int64_t ranks, rank, lanes;
    int stage;
    dtype_t weights, grads;
    int64_t passes;  /* micro-batches of the rank that has most */
    int64_t samples; /* of a step, all ranks */
    struct fabric fabric;
    double forward_s, backward_s; /* of one micro-batch: all layers */
    double head_s;                /* its output layer and loss */
};

enum scale_kind { SCALE_GRADIENTS, SCALE_SPREAD, SCALE_FETCHED, SCALE_SCALARS, SCALE_KINDS };
const char *scale_kind_name(enum scale_kind kind); /* "gradients" */

struct scale {
    int64_t sent[SCALE_KINDS], received[SCALE_KINDS];
    int64_t sent_bytes, received_bytes; /* their sums */
    int64_t inter_bytes;                /* of what is sent: to other machines */
    int64_t messages;
    double exchange_s; /* the links are at work */
    double exposed_s;  /* computing waits for them */
};

/* With one rank all is 0. ERR_NOMEM. */
MUST_USE err_t scale_step(struct scale *out, const struct scale_args *args);

#endif
