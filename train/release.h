/*
 * release.h - gradients that are used at once: each unit of the parameter table is updated during
 * the backward pass, as soon as its gradient is complete, and the gradient's place is then free.
 *
 *     struct release release = { .glm = glm, .optim = optim, .arena = arena, .lr = lr, ... };
 *     const struct glm_grads grads = release_grads(&release);
 *     TRY(glm_train_begin(glm, &ticket, &batch, &grads));
 *     TRY(glm_train_end(glm, ticket, nll));
 *     TRY(optim_norm(optim, &norm));                      // of all units
 *
 * For models with GLM_GRADS_RELEASED; one micro-batch a step. The first gradient that is complete
 * is waited for: a loss that is not finite makes it so, and then the pass ends with ERR_NUMERIC and
 * nothing changed. What becomes infinite further down shows in the norm, when it is too late.
 */
#ifndef TRAIN_RELEASE_H
#define TRAIN_RELEASE_H

#include "model/glm.h"
#include "train/optim.h"

#include <stdint.h>

struct release {
    struct glm *glm;
    struct optim *optim;
    struct tensor arena; /* of gradients, laid out as glm_grad_layout says */
    double lr, grad_scale;
    int64_t update;     /* as of optim_step */
    int64_t step;       /* 0-based, for messages */
    int64_t units_done; /* in this pass: 0 before it begins */
};

/* Borrows `r`, which must stay until the pass has been queued. */
struct glm_grads release_grads(struct release *r);

#endif
