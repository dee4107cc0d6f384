/*
 * lanes.h - gradients of several lanes added in a fixed tree, so that the sum has the same bits
 * however the lanes are spread over ranks:
 *     sum(a,b) = sum(a,m) + sum(m,b),  m = a + the largest power of two below b-a
 * A rank computes lanes [first, end) one after the other. What lies inside that interval falls into
 * a few largest nodes of the tree (one or two for 12 lanes on 1 to 4 ranks; one for all lanes),
 * each of which is summed here: finished subtrees wait on a stack, as the digits of a binary
 * counter do. All lanes on one rank need floor(log2 L) + 1 gradient buffers. Nodes of several ranks
 * are brought together by exchange.h.
 *
 *     for (lane = first; lane < end; lane++) {
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
#define LANES_NODES_MAX (2 * LANES_DEPTH_MAX)

/* Lanes begin .. end-1. */
struct lanes_node {
    int64_t begin, end;
};

/* What rank `rank` of `ranks` computes: lanes side by side, at least one where there are as many
 * lanes as ranks, and none has more than one lane more than another. */
struct lanes_node lanes_of_rank(int64_t lane_count, int64_t rank, int64_t ranks);
/* The largest nodes of the tree over `lane_count` lanes inside [first, end), from the left; returns
 * how many. */
int64_t lanes_nodes(struct lanes_node out[LANES_NODES_MAX], int64_t lane_count, int64_t first,
                    int64_t end);
/* Where a node of more than one lane is cut in two. */
int64_t lanes_cut(const struct lanes_node *node);

struct lanes {
    struct dev *dev;
    struct lanes_node node[LANES_NODES_MAX]; /* what is summed here */
    int64_t node_count, buffer_count;
    struct tensor buffer[LANES_NODES_MAX]; /* the first hold the nodes that are done */
    int64_t width[LANES_NODES_MAX];        /* lanes summed in each buffer on the stack */
    int64_t done, depth;                   /* nodes; buffers on the stack */
};

/* Buffers of `element_count` elements of `dtype` on the device, for lanes first .. end-1 of
 * lane_count. ERR_NOMEM. Clear also after a failure; clearing a zeroed struct does nothing. */
MUST_USE err_t lanes_init(struct lanes *lanes, struct dev *dev, int64_t lane_count, int64_t first,
                          int64_t end, int64_t element_count, dtype_t dtype);
void lanes_clear(struct lanes *lanes);
MUST_USE err_t lanes_begin(struct lanes *lanes, struct tensor *grads);
MUST_USE err_t lanes_end(struct lanes *lanes);
/* The sum of all lanes, where all are here. */
MUST_USE err_t lanes_sum(struct lanes *lanes, struct tensor *grads);
/* Forget what is on the stack: a step is over, or was given up. */
void lanes_reset(struct lanes *lanes);

/* Buffers that lanes_init would take. */
int64_t lanes_buffers(int64_t lane_count, int64_t first, int64_t end);

#endif
