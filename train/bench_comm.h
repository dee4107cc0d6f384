/*
 * bench_comm.h - the exchanges of a training step between ranks, timed without a model: what
 * `soulchat bench comm` does. Every rank runs it, started as ranks of `train` are:
 *
 *     scripts/launch/node.sh --nproc 2 -- soulchat bench comm
 *
 *     rc = bench_comm_open(&bench, cfg);
 *     if (rc == ERR_OK) rc = bench_comm_measure(&bench, &result);
 *     rc = bench_comm_close(&bench, rc);
 */
#ifndef TRAIN_BENCH_COMM_H
#define TRAIN_BENCH_COMM_H

#include "base/cfg.h"
#include "base/err.h"
#include "kernels/dev.h"
#include "train/exchange.h"
#include "train/ranks.h"

#include <stdint.h>

enum bench_comm_part {
    BENCH_COMM_MOVE,   /* gradients to their owners, not added up */
    BENCH_COMM_TREE,   /* and added up there: what training does */
    BENCH_COMM_RING,   /* a ring's reduce-scatter of the same bytes, in place */
    BENCH_COMM_GATHER, /* owners' spans to everyone */
    BENCH_COMM_ADD,    /* one arena added to another: what a second lane on a rank costs */
    BENCH_COMM_PARTS
};
const char *bench_comm_part_name(enum bench_comm_part part); /* "move" */

struct bench_comm {
    struct dev *dev;
    struct ranks *ranks;
    struct glm_params params;
    struct glm_layout layout;
    struct owner owner;
    struct exchange exchange;
    struct tensor grads, other;    /* arenas, float32 */
    void *scratch[2];              /* of a slice each */
    struct comm_span *send, *recv; /* [ranks] */
    double *seconds;               /* [parts, rounds] */
    int64_t rounds;
};

struct bench_comm_result {
    double seconds[BENCH_COMM_PARTS];      /* medians; of the slowest rank each time */
    double tree_over_ring, tree_over_move; /* medians of ratios in one round */
    int64_t elements, sent_bytes;          /* of gradients; of one exchange */
    int64_t rounds;                        /* fewer than wanted when a rank was asked to stop */
    double bytes_per_s;                    /* of a rank, each way, while nothing is added up */
};

/* Sizes by bench.hidden, layers, heads, vocab; bench.steps rounds, after one that does not count.
 * ERR_USAGE: there is one rank only. */
MUST_USE err_t bench_comm_open(struct bench_comm *b, const struct cfg *cfg);
/* The parts in turns; every rank has the same result. ERR_INTERRUPTED: a rank was asked to stop
 * before the first round. */
MUST_USE err_t bench_comm_measure(struct bench_comm *b, struct bench_comm_result *out);
/* Also after a failure; returns `rc`, or what went wrong while ranks left. */
MUST_USE err_t bench_comm_close(struct bench_comm *b, err_t rc);

#endif
