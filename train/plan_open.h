/* plan_open.h - a plan from the settings: the model's sizes, the card, the corpus where there is
 * one. */
#ifndef TRAIN_PLAN_OPEN_H
#define TRAIN_PLAN_OPEN_H

#include "train/plan.h"
#include "train/plan_dev.h"

#define PLAN_SOURCE_MAX 256

/* A plan with where its figures come from, for people. */
struct plan_setup {
    struct plan plan; /* given fields only: plan_compute is the caller's */
    struct plan_dev device;
    char model_source[PLAN_SOURCE_MAX]; /* "models/chatglm-6b" */
    char text_source[PLAN_SOURCE_MAX];
    char rates_source[PLAN_SOURCE_MAX];
    char links_source[PLAN_SOURCE_MAX];
};

/*
 * Yours; plan_setup_close it, also after a failure. A model.dir without config.json stands for
 * ChatGLM-6B as published; a data.dir without a corpus for plan.context and plan.target. With
 * plan.card = auto and train.device = cuda the GPU is looked at; for a card that is not there,
 * plan.card has to say which, and train.device is set to what it is. A processor's speed is
 * measured, for a fifth of a second.
 */
MUST_USE err_t plan_setup_open(struct plan_setup *out, struct cfg *cfg);
void plan_setup_close(struct plan_setup *s);

#endif
