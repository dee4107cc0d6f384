/*
 * parity_case.h - a golden folder opened: its model with weights on a device, and its batch as one
 * ragged run.
 *
 *     struct parity p;
 *     TRY_DONE(parity_open(&p, dir, &(struct parity_how){ .device = "cpu" }));
 *     parity_close(&p);
 *
 * The golden batch is right-padded; here its samples lie end to end, each a segment of its own,
 * labels shifted by one, every label with weight 1/count.
 */
#ifndef TESTS_PARITY_CASE_H
#define TESTS_PARITY_CASE_H

#include "golden.h"

#include "data/tok.h"
#include "model/glm.h"

/* On what, and in what. */
struct parity_how {
    const char *device; /* of dev_open, or "ref": the reference operators */
    int threads;
    dtype_t dtype;      /* F32, BF16; F64 on "ref" */
    dtype_t grad_dtype; /* as in glm_options */
    bool round_weights; /* to bf16 first, whatever dtype is */
};

struct parity {
    struct dev *dev;
    struct dev ref_dev;
    struct golden *golden;
    struct glm_config config;
    struct glm *glm;
    struct tensor grads; /* zeroed, laid out like the weights */
    int64_t B, S;        /* of the golden batch */
    int64_t *row_of;     /* [batch.rows] place b*S + s of each row in the golden batch */
    struct glm_batch batch;
    int32_t *ids, *pos, *block, *order, *target_rows, *labels;
    float *weights;
    struct attn_segment *segments;
    double *nll;              /* [batch.target_count] */
    int32_t *prompt, *greedy; /* what to continue, and how the reference does */
    int64_t prompt_len, greedy_len;
};

/* After an error parity_close is still due. ERR_UNSUPPORTED: the device or dtype is not here. */
MUST_USE err_t parity_open(struct parity *p, const char *dir, const struct parity_how *how);
void parity_close(struct parity *p);
/* A flat arena on the host as float64; free it. */
MUST_USE err_t parity_arena(double **out, const struct parity *p, const struct tensor *arena);
struct tok_specials parity_specials(const struct glm_config *c);

#endif
