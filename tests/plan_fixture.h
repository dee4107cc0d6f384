/* plan_fixture.h - ChatGLM-6B on a card of any size, for the tests of plans. */
#ifndef TESTS_PLAN_FIXTURE_H
#define TESTS_PLAN_FIXTURE_H

#include "testing.h"

#include "train/plan.h"
#include "train/plan_dev.h"

/* ChatGLM-6B's sizes. */
struct glm_config plan_6b(bool tied);

/* bf16 with float32 gradients, master and moments; every activation kept. */
struct cost_settings plan_full(void);

/* `device` with the card's formulas, and a plan on it: plan_6b, plan_full, 80 samples of 256 + 54
 * rows, micro-batches of 16,384; nothing must stay free. Not computed. */
struct plan plan_make(struct plan_dev *device, const char *card);

#endif
