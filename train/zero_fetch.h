/*
 * zero_fetch.h - layers' weights that live scattered over their owners, and come whole into two
 * slots when a pass wants them (struct glm_fetch): one layer ahead, beside the computation. Private
 * to zero.c.
 *
 * What a rank owns of the layers (their homes) lies behind the slots in the model's own arena of
 * weights, unit by unit, so that the optimizer updates everything in one arena. Embedding and final
 * unit are whole on every rank.
 *
 * Fetching is a collective: every rank fetches the same layers in the same order. Who has fewer
 * passes to run than others goes through the motions (zero_fetch_idle).
 */
#ifndef TRAIN_ZERO_FETCH_H
#define TRAIN_ZERO_FETCH_H

#include "base/err.h"
#include "model/glm.h"
#include "train/comm.h"
#include "train/exchange.h"
#include "train/owner.h"

#include <stdint.h>

struct zero_fetch {
    struct glm *glm;
    struct comm *comm;
    struct exchange *exchange;
    const struct owner *owner;
    struct glm_layout home;                       /* where optimizers find rows; of layers, what is
                                                     owned alone */
    int64_t slot_unit[GLM_GRAD_SLOTS];            /* whose weights are in each slot; -1: none */
    struct comm_request *request[GLM_GRAD_SLOTS]; /* on their way there */
};

/* Elements of the homes of `rank`. */
int64_t zero_fetch_extra(const struct owner *owner, int64_t rank);
/* Everything is borrowed. The model has weights_fetched, and the extra weights asked for. Close it
 * also after a failure; closing a zeroed one does nothing. */
MUST_USE err_t zero_fetch_open(struct zero_fetch *f, struct glm *glm, struct exchange *exchange);
void zero_fetch_close(struct zero_fetch *f);

/* The homes have changed: slots are stale, and what is whole everywhere is sent round. */
MUST_USE err_t zero_fetch_renew(struct zero_fetch *f);

/* The fetches of a pass that others run. After each unit of the backward pass `unit_done`, if it is
 * not NULL; no backward pass where `backward` is false. */
MUST_USE err_t zero_fetch_idle(struct zero_fetch *f, bool backward, const struct glm_grads *hooks);

#endif
