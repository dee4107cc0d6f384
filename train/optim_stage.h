/*
 * optim_stage.h - optimizer state in page-locked host memory, slice by slice through two staging
 * buffers on the device. Private to optim.c.
 *
 *     for each slice of an update, in any order:
 *         TRY(optim_stage_in(&stage, &base, slice));     // operators queued from now on find it at
 *         ... queue the operator on `base` ...           // base
 *         TRY(optim_stage_out(&stage, slice));
 *
 * Slices take the buffers in turn. Three queues run beside each other, and only this is waited for:
 *
 *     copy in   the copy out that emptied the buffer, two turns ago; where the slice itself is
 *               still on its way out, one turn ago, that too
 *     operator  the copy in
 *     copy out  the operator
 *
 * Copies out are in one queue, so the wait for the one two turns ago covers all before it.
 */
#ifndef TRAIN_OPTIM_STAGE_H
#define TRAIN_OPTIM_STAGE_H

#include "base/err.h"
#include "kernels/dev.h"
#include "train/optim_plan.h"

#include <stdint.h>

#define OPTIM_STAGE_BUFFERS 2

struct optim_stage {
    struct dev *dev;
    const struct optim_plan *plan;
    char *host; /* all slices */
    char *buffer[OPTIM_STAGE_BUFFERS];
    struct dev_event *in[OPTIM_STAGE_BUFFERS];   /* the slice has come */
    struct dev_event *used[OPTIM_STAGE_BUFFERS]; /* the operator is done with it */
    struct dev_event *out[OPTIM_STAGE_BUFFERS];  /* it is back in host memory */
    int64_t turn_in, turn_out; /* slices so far: begun to come in, begun to go out */
    int64_t *last_out;         /* [slices] the turn in which each went out last; -1: never */
    int64_t prefetched;        /* slices 0 .. of the next update that are on their way in */
};

/* Close it also after a failure; closing a zeroed one does nothing. */
MUST_USE err_t optim_stage_open(struct optim_stage *stage, struct dev *dev,
                                const struct optim_plan *plan, char *host);
/* Waits for what is under way. */
void optim_stage_close(struct optim_stage *stage);
MUST_USE err_t optim_stage_in(struct optim_stage *stage, char **base, int64_t slice);
MUST_USE err_t optim_stage_out(struct optim_stage *stage, int64_t slice);
/* Slices 0 and 1, with which the next update must then begin. */
MUST_USE err_t optim_stage_prefetch(struct optim_stage *stage);
/* Wait until every slice is in host memory, and forget what was prefetched. */
MUST_USE err_t optim_stage_empty(struct optim_stage *stage);

#endif
