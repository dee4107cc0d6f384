/*
 * plan_scaling.h - one plan on 1, 2, 4, ... 512 cards, in two ways: the step as it is set, of which
 * every card gets a smaller part; and a step that grows with the cards, so that each has a full
 * micro-batch.
 */
#ifndef TRAIN_PLAN_SCALING_H
#define TRAIN_PLAN_SCALING_H

#include "train/plan_open.h"

#include <stdio.h>

#define PLAN_SCALING_ROWS 10 /* 1 to 512 cards */

struct plan_scaling_row {
    int64_t ranks;
    bool possible; /* the step has a sample or pack for each card */
    struct plan plan;
    double efficiency; /* plan_efficiency */
};

struct plan_scaling {
    struct plan_scaling_row fixed[PLAN_SCALING_ROWS]; /* the step as it is set */
    struct plan_scaling_row grown[PLAN_SCALING_ROWS]; /* micro_tokens rows on each card */
};

/* A lane on each rank. ERR_USAGE: settings that several ranks cannot have; errors of
 * plan_compute. */
MUST_USE err_t plan_scaling(struct plan_scaling *out, const struct plan *base);
void plan_scaling_print(FILE *out, const struct plan_setup *setup,
                        const struct plan_scaling *scaling);

#endif
