/*
 * lanes.h - gradients of several lanes added in a fixed tree, so that the sum has the same bits
 * however the lanes are spread over ranks:
 *     sum(a,b) = sum(a,m) + sum(m,b),  m = a + the largest power of two below b-a
 * On one rank lanes come one after the other; finished subtrees wait on a stack, as the digits of a
 * binary counter do, so L lanes need floor(log2 L) + 1 gradient buffers.
 *
 *     for (lane = 0; lane < L; lane++) {
 *         TRY(lanes_begin(lanes, &grads));       // a zeroed buffer
 *         ... accumulate the lane's micro-batches into grads ...
 *         TRY(lanes_end(lanes));
 *     }
 *     TRY(lanes_sum(lanes, &grads));             // the total; valid until the next lanes_begin
 */
#ifndef TRAIN_LANES_H
#define TRAIN_LANES_H

#include "base/err.h"
#include "kernels/dev.h"

#include <stdint.h>

#define LANES_DEPTH_MAX 16 /* up to 32,768 lanes */

struct lanes {
    struct dev *dev;
    int64_t lane_count, buffer_count;
    struct tensor buffer[LANES_DEPTH_MAX];
    int64_t width[LANES_DEPTH_MAX]; /* lanes summed in each buffer on the stack */
    int64_t depth;                  /* buffers on the stack */
};

/* Buffers of `element_count` elements of `dtype` on the device. ERR_NOMEM. Clear also after a
 * failure; clearing a zeroed struct does nothing. */
MUST_USE err_t lanes_init(struct lanes *lanes, struct dev *dev, int64_t lane_count,
                          int64_t element_count, dtype_t dtype);
void lanes_clear(struct lanes *lanes);
MUST_USE err_t lanes_begin(struct lanes *lanes, struct tensor *grads);
MUST_USE err_t lanes_end(struct lanes *lanes);
MUST_USE err_t lanes_sum(struct lanes *lanes, struct tensor *grads);
/* Forget what is on the stack: a step that was given up. */
void lanes_reset(struct lanes *lanes);

#endif
