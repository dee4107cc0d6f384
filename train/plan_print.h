/* plan_print.h - a plan as a table for people and as JSON for programs. */
#ifndef TRAIN_PLAN_PRINT_H
#define TRAIN_PLAN_PRINT_H

#include "train/plan_open.h"

#include <stdio.h>

/* What `soulchat plan` found out; setup->plan is computed. */
struct plan_answer {
    const struct plan_setup *setup;
    double efficiency;  /* plan_efficiency: 1 with one rank */
    int64_t micro_max;  /* the largest micro_tokens that fits; 0: none */
    bool found;         /* where it does not fit: `better` does */
    struct plan better; /* with the smallest change */
};

void plan_print_table(FILE *out, const struct plan_answer *answer);
/* One object, on lines of its own. ERR_NOMEM. */
MUST_USE err_t plan_print_json(FILE *out, const struct plan_answer *answer);

#endif
