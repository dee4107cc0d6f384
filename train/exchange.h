/*
 * exchange.h - gradients of several ranks summed by their owners, and what owners have spread to
 * all. No sum is made on the way: the nodes of the tree over lanes (lanes.h) that each rank has
 * travel slice by slice to the slice's owner (owner.h), who finishes the tree there, in its order.
 *
 *     TRY(exchange_open(&x, &args));
 *     for each unit, in the same order on every rank:
 *         TRY(exchange_unit(&x, lanes.buffer, unit));   // begins; the last pieces stay under way
 *     TRY(exchange_finish(&x));         // own spans of lanes.buffer[0] hold the sum over all lanes
 *     TRY(exchange_spread(&x, &lanes.buffer[0]));       // now the rest as well
 *     exchange_close(&x);
 *
 * With one node on each rank this moves what a ring's reduce-scatter moves, (n-1)/n of the
 * gradients. A unit goes in pieces as large as a layer, two at a time: while one is summed, the
 * next is on its way. A layer in one piece can wait until the next layer's gradients are ready, so
 * that it travels beside the computation; smaller pieces would be waited for at once.
 */
#ifndef TRAIN_EXCHANGE_H
#define TRAIN_EXCHANGE_H

#include "base/err.h"
#include "kernels/dev.h"
#include "model/glm_params.h"
#include "train/comm.h"
#include "train/lanes.h"
#include "train/owner.h"

#include <stdint.h>

#define EXCHANGE_DEPTH 2 /* pieces under way */

struct exchange_args {
    struct dev *dev;
    struct comm *comm;
    const struct owner *owner;
    const struct glm_layout *layout; /* of gradients: every unit in its own place */
    int64_t lane_count;              /* at least as many as ranks */
    dtype_t dtype;                   /* of gradients: f32, f64 */
    int64_t piece_elements;          /* of one owner's span, a multiple of 32; 0: a layer's */
};

/* A piece under way. */
struct exchange_piece {
    char *inbox; /* [foreign nodes] slots of piece_elements */
    struct comm_request *request[LANES_NODES_MAX];
    const struct tensor *nodes;
    int64_t unit, from, count; /* elements of this rank's span; count = 0: all requests are empty */
};

struct exchange {
    struct exchange_args args;
    int64_t rank, size;
    int64_t *node_count;           /* [size] */
    int64_t calls, foreign;        /* the most nodes of a rank; all nodes of the other ranks */
    struct comm_span *send, *recv; /* [size] each, of the call being made */
    struct exchange_piece piece[EXCHANGE_DEPTH];
    int64_t begun, ended;
};

/* Everything in args is borrowed. ERR_NOMEM. Close it also after a failure; closing a zeroed struct
 * does nothing. */
MUST_USE err_t exchange_open(struct exchange *x, const struct exchange_args *args);
/* After an error of the communicator, only when that is closed. */
void exchange_close(struct exchange *x);

/* `nodes` are this rank's, arenas of gradients; borrowed until exchange_finish, and written: what
 * they hold of this unit is used up, but for the own span of nodes[0]. */
MUST_USE err_t exchange_unit(struct exchange *x, const struct tensor *nodes, int64_t unit);
MUST_USE err_t exchange_finish(struct exchange *x);

/* `arena`, of any dtype: the spans of a unit that begins at element `at` become everywhere what
 * their owners have, there, or at `own`, where that is not NULL; end with comm_end. */
MUST_USE err_t exchange_spread_begin(struct exchange *x, struct comm_request **request,
                                     const struct tensor *arena, int64_t at, const void *own,
                                     int64_t unit);
/* All units of an arena that is laid out as the gradients. */
MUST_USE err_t exchange_spread(struct exchange *x, const struct tensor *arena);

/* Bytes on the device of what exchange_open allocates on a rank to which others send so many nodes
 * of the tree. */
int64_t exchange_bytes(const struct exchange_args *args, int64_t foreign);
/* Elements of an owner's span that go at once. */
int64_t exchange_piece_elements(const struct exchange_args *args);
/* Nodes of the tree that `rank` sends to others, and that they send to it. */
int64_t exchange_nodes(int64_t lane_count, int64_t rank, int64_t size);
int64_t exchange_foreign(int64_t lane_count, int64_t rank, int64_t size);

#endif
