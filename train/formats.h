/*
 * formats.h - in which number formats a run keeps what, from the settings of section `train`; and
 * which settings exclude each other.
 *
 *     train.precision       f32 | bf16           weights, activations
 *     train.grad_dtype      f32 | bf16           gradients; bf16 only of bf16 weights
 *     train.master          auto | on | off      float32 values of bf16 weights
 *     train.moments         f32 | 8bit           8bit: no master
 *     train.moments_place   device | host
 *     train.update          step | backward      backward: one lane, one micro-batch a step
 *     train.clip_norm_from  step | previous      previous: with train.update: backward
 *     train.activations     keep | lean | recompute
 */
#ifndef TRAIN_FORMATS_H
#define TRAIN_FORMATS_H

#include "base/cfg.h"
#include "base/err.h"
#include "model/glm.h"
#include "train/optim_plan.h"

#include <stdbool.h>

struct train_formats {
    dtype_t precision, grad_dtype;
    enum glm_activations activations;
    enum glm_grad_keep grad_keep;
    struct optim_format state;
    bool clip_by_previous;
};

/* ERR_USAGE: two settings that exclude each other, with both names and what to change. */
MUST_USE err_t formats_from_cfg(struct train_formats *out, const struct cfg *cfg);

/* What of it stays in checkpoints. */
struct stored_formats {
    dtype_t precision;
    bool master;
    enum optim_moments moments;
};
struct stored_formats formats_stored(const struct optim_format *state);
bool formats_same(const struct stored_formats *a, const struct stored_formats *b);
const char *formats_moments_name(enum optim_moments moments); /* "f32", "8bit" */
/*
 * Whether state stored in `then` can go on as `now` without a changed value: the same, or weights
 * with at least the precision that they had (f32 and bf16 with a master hold the same). ERR_USAGE
 * names the setting; `dir` is for the message.
 */
MUST_USE err_t formats_check_resume(const struct stored_formats *now,
                                    const struct stored_formats *then, const char *dir);

#endif
