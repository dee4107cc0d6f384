/*
 * parity_case.h - a golden folder opened: its model with weights on a device, and its batch as one
 * ragged run.
 *
 * The golden batch is right-padded; here its samples lie end to end, each a segment of its own,
 * labels shifted by one, every label with weight 1/count.
 */
#ifndef TESTS_PARITY_CASE_H
#define TESTS_PARITY_CASE_H

#include "golden.h"

#include "data/tok.h"
#include "model/glm.h"

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

/* device: "cpu" or "ref". After an error parity_close is still due. */
MUST_USE err_t parity_open(struct parity *p, const char *dir, const char *device, int threads);
void parity_close(struct parity *p);
struct tok_specials parity_specials(const struct glm_config *c);

#endif
