/*
 * state_rig.h - an optimizer over the table of a small model without the model: its weights may
 * have any dtype that op_adamw_segments knows on a device that computes in f32.
 *
 *     state_rig_open(&r, state_rig_cpu(), &format);
 *     assert_ok(state_rig_fill(&r));             // weights
 *     assert_ok(state_rig_train(&r, 1, 20));     // updates 1 to 20 with gradients of their own
 *     state_rig_close(&r);                       // and its device
 */
#ifndef TESTS_STATE_RIG_H
#define TESTS_STATE_RIG_H

#include "train_fixture.h"

struct state_rig {
    struct dev *dev;
    struct glm_params params;
    struct glm_layout layout;
    struct tensor weights, grads;
    struct optim *optim;
};

struct dev *state_rig_cpu(void);
void state_rig_open(struct state_rig *r, struct dev *dev, const struct optim_format *format);
/* As a rank that has only what it owns of the weights. */
void state_rig_open_scattered(struct state_rig *r, struct dev *dev,
                              const struct optim_format *format);
void state_rig_close(struct state_rig *r);
/* Weights, and the master where there is one. */
MUST_USE err_t state_rig_fill(struct state_rig *r);
/* Some updates are whole, some unit by unit in the order of a backward pass. */
MUST_USE err_t state_rig_train(struct state_rig *r, int64_t first, int64_t last);
/* Whether weights and all state are equal. */
bool state_rig_same(struct state_rig *a, struct state_rig *b);

#endif
