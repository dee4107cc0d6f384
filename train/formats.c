#include "train/formats.h"

#include "base/check.h"

#include <string.h>

static bool is(const struct cfg *cfg, const char *key, const char *value)
{
    return strcmp(cfg_str(cfg, key), value) == 0;
}

/* Two settings that cannot go together, and the way out. */
struct conflict {
    const char *key, *value, *other_key, *other_value, *reason, *advice;
};

static const struct conflict conflicts[] = {
    { "train.precision", "bf16", "train.device", "cpu", "the cpu backend computes in float32",
      "set train.device: cuda, or train.precision: f32" },
    { "train.grad_dtype", "bf16", "train.precision", "f32",
      "gradients of float32 weights are float32", "set train.precision: bf16 as well" },
    { "train.master", "on", "train.precision", "f32", "float32 weights are their own master",
      "set train.master: auto" },
    { "train.master", "on", "train.moments", "8bit",
      "weights with 8-bit moments are updated without a master",
      "set train.master: auto, or train.moments: f32" },
    { "train.clip_norm_from", "previous", "train.update", "step",
      "the step's own norm is known before the update",
      "set train.clip_norm_from: step, or train.update: backward" },
};

static err_t check_conflicts(const struct cfg *cfg)
{
    for (int64_t i = 0; i < COUNT_OF(conflicts); i++) {
        const struct conflict *c = &conflicts[i];
        if (is(cfg, c->key, c->value) && is(cfg, c->other_key, c->other_value))
            RAISE(USAGE, "%s is %s and %s is %s: %s; %s", c->key, c->value, c->other_key,
                  c->other_value, c->reason, c->advice);
    }
    return ERR_OK;
}

/* Conflicts with numbers. */
static err_t check_lanes_and_norm(const struct cfg *cfg)
{
    const long long lanes = cfg_int(cfg, "batch.lanes");
    if (lanes > 1 && is(cfg, "train.grad_dtype", "bf16"))
        RAISE(USAGE,
              "train.grad_dtype is bf16 and batch.lanes is %lld: lanes are added up in float32; "
              "set train.grad_dtype: f32, or batch.lanes: 1",
              lanes);
    if (is(cfg, "train.update", "step")) return ERR_OK;
    if (lanes > 1)
        RAISE(USAGE,
              "train.update is backward and batch.lanes is %lld: a gradient that is used at once "
              "cannot be added to others; set batch.lanes: 1, or train.update: step",
              lanes);
    if (cfg_float(cfg, "train.max_grad_norm") > 0 && is(cfg, "train.clip_norm_from", "step"))
        RAISE(USAGE,
              "train.update is backward and train.max_grad_norm is %s: the step's norm is known "
              "only after its update; set train.max_grad_norm: 0, or train.clip_norm_from: "
              "previous",
              cfg_text(cfg, "train.max_grad_norm"));
    return ERR_OK;
}

/* auto: where it is worth its memory. */
static bool wants_master(const struct cfg *cfg)
{
    if (!is(cfg, "train.master", "auto")) return is(cfg, "train.master", "on");
    return is(cfg, "train.precision", "bf16") && is(cfg, "train.moments", "f32");
}

err_t formats_from_cfg(struct train_formats *out, const struct cfg *cfg)
{
    static const dtype_t dtypes[] = { DTYPE_F32, DTYPE_BF16 };
    TRY(check_conflicts(cfg));
    TRY(check_lanes_and_norm(cfg));
    const bool releases = is(cfg, "train.update", "backward");
    *out = (struct train_formats){
        .precision = dtypes[cfg_enum(cfg, "train.precision")],
        .grad_dtype = dtypes[cfg_enum(cfg, "train.grad_dtype")],
        .activations = (enum glm_activations)cfg_enum(cfg, "train.activations"),
        .grad_keep = releases ? GLM_GRADS_RELEASED : GLM_GRADS_ALL,
        .clip_by_previous = is(cfg, "train.clip_norm_from", "previous"),
    };
    out->state =
        (struct optim_format){ .weights = out->precision,
                               .master = wants_master(cfg),
                               .moments = (enum optim_moments)cfg_enum(cfg, "train.moments"),
                               .place = (enum optim_place)cfg_enum(cfg, "train.moments_place") };
    return ERR_OK;
}

/* ---- checkpoints ---- */

struct stored_formats formats_stored(const struct optim_format *state)
{
    return (struct stored_formats){ state->weights, state->master, state->moments };
}

bool formats_same(const struct stored_formats *a, const struct stored_formats *b)
{
    return a->precision == b->precision && a->master == b->master && a->moments == b->moments;
}

const char *formats_moments_name(enum optim_moments moments)
{
    return moments == OPTIM_MOMENTS_8BIT ? "8bit" : "f32";
}

static bool holds_f32(const struct stored_formats *f)
{
    return f->precision != DTYPE_BF16 || f->master;
}

err_t formats_check_resume(const struct stored_formats *now, const struct stored_formats *then,
                           const char *dir)
{
    if (now->moments != then->moments)
        RAISE(USAGE,
              "train.moments is %s; the run in %s keeps its moments in %s: continue with that, or "
              "start a new run in another train.out",
              formats_moments_name(now->moments), dir, formats_moments_name(then->moments));
    if (holds_f32(then) && !holds_f32(now))
        RAISE(USAGE,
              "train.precision is bf16 without a master; the run in %s keeps float32 values "
              "(%s): continue with train.master: on, or start a new run in another train.out",
              dir, then->master ? "a master" : "train.precision: f32");
    return ERR_OK;
}
