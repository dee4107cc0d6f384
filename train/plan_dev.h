/*
 * plan_dev.h - a device to plan for, on a machine that may not have it. Nothing is computed or
 * allocated on it: glm_plan_create asks its operators for scratch, and that is all.
 *
 *     struct plan_dev plan_dev;
 *     TRY(plan_dev_open(&plan_dev, &card));
 *     TRY_DONE(cost_memory(&memory, plan_dev.dev, ...));
 *     plan_dev_close(&plan_dev);
 *
 * A processor answers for itself. For a GPU the CUDA backend's own code answers, where its build
 * for the host (libsoulchat_emu.so) is installed; otherwise the formulas of plan_dev.c do, which
 * are bounds.
 */
#ifndef TRAIN_PLAN_DEV_H
#define TRAIN_PLAN_DEV_H

#include "kernels/dev.h"
#include "train/card.h"

struct plan_dev {
    struct dev *dev;
    struct dev own;     /* what dev points to when the formulas answer */
    const char *source; /* who answers: for people */
};

/* Yours; plan_dev_close it, also after a failure. */
MUST_USE err_t plan_dev_open(struct plan_dev *out, const struct card *card, int threads);
void plan_dev_close(struct plan_dev *p);

/* The formulas, whatever is installed; nothing to close. */
void plan_dev_formulas(struct plan_dev *out, const struct card *card);

#endif
