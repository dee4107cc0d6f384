/*
 * glm_look.h - what tests look at inside a model after a forward pass, and a training micro-batch
 * that is waited for.
 *
 *     assert_ok(glm_eval_micro(glm, &batch, nll));
 *     assert_ok(glm_look_hidden(glm, hidden, batch.rows, 0));
 *
 * `rows` are those of the batch that ran last; all results are float64.
 */
#ifndef TESTS_GLM_LOOK_H
#define TESTS_GLM_LOOK_H

#include "model/glm.h"

/* out[rows, C]: the output of layer `layer`, which a model with options.train keeps. */
MUST_USE err_t glm_look_hidden(struct glm *glm, double *out, int64_t rows, int64_t layer);
/* out[count, V]: logits of rows first .. first+count-1. */
MUST_USE err_t glm_look_logits(struct glm *glm, double *out, int64_t rows, int64_t first,
                               int64_t count);
/* glm_train_begin and glm_train_end. */
MUST_USE err_t glm_train_micro(struct glm *glm, const struct glm_batch *batch,
                               const struct glm_grads *grads, double *nll);

#endif
