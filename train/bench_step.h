/*
 * bench_step.h - whole training steps of a model, timed: what `soulchat bench step` does.
 *
 *     rc = bench_step_open(&bench, cfg);
 *     if (rc == ERR_OK) rc = bench_step_measure(&bench, &result);
 *     bench_step_close(&bench);
 */
#ifndef TRAIN_BENCH_STEP_H
#define TRAIN_BENCH_STEP_H

#include "base/cfg.h"
#include "base/err.h"
#include "model/glm.h"
#include "train/bench_packs.h"
#include "train/optim.h"

#include <stdbool.h>
#include <stdint.h>

/* Where the time of a step goes, each part waited for. With train.update: backward the model's part
 * has the others inside. */
enum bench_part { BENCH_ZERO, BENCH_MODEL, BENCH_NORM, BENCH_UPDATE, BENCH_PARTS };

struct bench_step {
    struct dev *dev;
    struct glm *glm;
    struct optim *optim;
    struct bench_packs packs;
    struct tensor grads;
    bool releases; /* train.update: backward */
    double norm;   /* of the step before, which then scales; 0: none */
    double *nll[GLM_TICKETS]; /* [targets of the largest micro-batch] */
    double *step_s;           /* [steps] measured */
    double *losses;           /* [steps + warm-up], in order */
    int64_t steps, losses_count, probe_side;
};

struct bench_result {
    double step_s, step_s_min, step_s_max, tokens_per_s; /* median; the fastest and slowest */
    double part_s[BENCH_PARTS]; /* of one step more, waiting after each part */
    double tokens, targets;     /* of a step, the mean of those measured */
    double model_flop;          /* of such a step: products and visible pairs, 3 x forward */
    double gemm_share;          /* host: of the steps' wall time; 0 elsewhere */
    double gemm_flop_per_s;     /* host: inside matrix products; 0 elsewhere */
    double ceiling_flop_per_s;  /* a large square product, before and after, the higher one */
    int64_t allocations;        /* device allocations after the first step */
    int64_t device_bytes, device_bytes_max, rss_bytes_max;
};

MUST_USE err_t bench_step_open(struct bench_step *b, const struct cfg *cfg);
void bench_step_close(struct bench_step *b); /* safe after a failed open */
/* Asked to stop, it measures fewer steps, b->steps then, and no parts (0 s); ERR_INTERRUPTED: not
 * one. */
MUST_USE err_t bench_step_measure(struct bench_step *b, struct bench_result *out);

/* The sizes of section `bench`, or of the folder bench.model. */
MUST_USE err_t bench_config_from_cfg(struct glm_config *config, const struct cfg *cfg);
/* Random weights, and their master where there is one, quickly: blocks of random numbers over and
 * over, which is good enough for time and not for training. */
MUST_USE err_t bench_init_weights(struct glm *glm, struct optim *optim);
/* FLOP per second of a square product in the model's dtype by the device's best library. */
MUST_USE err_t bench_product_rate(double *flop_per_s, struct dev *dev, dtype_t dtype, int64_t side);
/* 6 P n + 6 V C t + 12 L C pairs: what a step's mathematics needs, recomputation left out. */
double bench_model_flop(const struct glm_config *c, const struct glm_batch *batch);

#endif
