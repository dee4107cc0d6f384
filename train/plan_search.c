/*
 * The search: every set of changes is a number whose bits are the changes, the mildest lowest.
 * Counting up from 1 therefore meets the sets in the wanted order, and the first that fits is the
 * smallest.
 */
#include "train/plan.h"

#include "base/check.h"
#include "base/num.h"

#include <stdio.h>

enum change {
    CHANGE_ZERO,
    CHANGE_LEAN,
    CHANGE_MICRO,
    CHANGE_BF16,
    CHANGE_GRAD_BF16,
    CHANGE_RECOMPUTE,
    CHANGE_NO_MASTER,
    CHANGE_8BIT,
    CHANGE_HOST,
    CHANGE_BACKWARD,
    CHANGE_COUNT
};

/* Make change `i` of the settings; false when it is none, or cannot be made here. */
static bool apply_change(struct plan *p, enum change i)
{
    struct cost_settings *s = &p->settings;
    const struct cost_settings before = *s;
    const bool gpu = p->card.capability > 0;
    switch (i) {
    case CHANGE_ZERO:
        p->zero_auto = !p->zero_auto && s->ranks > 1;
        return p->zero_auto;
    case CHANGE_LEAN:
        if (s->activations == GLM_KEEP_ALL) s->activations = GLM_LEAN;
        return s->activations != before.activations;
    case CHANGE_BF16:
        s->dtype = gpu ? DTYPE_BF16 : s->dtype;
        s->master = s->dtype == DTYPE_BF16;
        return s->dtype != before.dtype;
    case CHANGE_GRAD_BF16:
        if (s->dtype == DTYPE_BF16 && s->lanes == 1) s->grad_dtype = DTYPE_BF16;
        return s->grad_dtype != before.grad_dtype;
    case CHANGE_RECOMPUTE:
        s->activations = GLM_RECOMPUTE;
        return s->activations != before.activations;
    case CHANGE_NO_MASTER:
        s->master = false;
        return before.master;
    case CHANGE_8BIT:
        s->moments_8bit = true;
        return !before.moments_8bit;
    case CHANGE_HOST:
        s->state_on_host = gpu;
        return s->state_on_host != before.state_on_host;
    case CHANGE_BACKWARD:
        s->update_in_backward = s->clip_by_previous = s->lanes == 1;
        return s->update_in_backward != before.update_in_backward;
    default:
        ASSERT(i == CHANGE_MICRO); /* its size depends on all others: see fit_micro */
        return true;
    }
}

/* micro_tokens comes in steps of this many rows. */
static int64_t micro_step(const struct plan *p)
{
    const bool packs = p->batch.unit == BATCH_TOKENS || p->settings.update_in_backward;
    return packs ? align_up(p->batch.pack_len, BATCH_ROW_MULTIPLE) : BATCH_ROW_MULTIPLE;
}

static int64_t micro_least(const struct plan *p)
{
    return align_up(p->text.longest, micro_step(p));
}

/* A step of one micro-batch, whatever it was before, where gradients do not wait. */
static void set_micro(struct plan *p, int64_t micro)
{
    micro -= micro % micro_step(p);
    p->batch.micro_tokens = micro;
    if (!p->settings.update_in_backward) return;
    p->batch.unit = BATCH_TOKENS;
    p->batch.size = micro;
}

/* The largest micro_tokens from `least` to `most` with which the plan fits: memory grows with it.
 * False: not even the least. */
static err_t fit_micro(struct plan *p, bool *fits, int64_t least, int64_t most)
{
    const int64_t step = micro_step(p);
    int64_t low = least / step, high = most / step; /* low fits, above high nothing is asked */
    *fits = false;
    if (low > high) return ERR_OK;
    set_micro(p, low * step);
    TRY(plan_compute(p));
    if (!p->fits) return ERR_OK;
    while (low < high) {
        const int64_t middle = (low + high + 1) / 2;
        set_micro(p, middle * step);
        TRY(plan_compute(p));
        if (p->fits)
            low = middle;
        else
            high = middle - 1;
    }
    set_micro(p, low * step);
    *fits = true;
    return plan_compute(p);
}

#define BIT(change) (1u << (change))
/* What trades time for the memory of activations and leaves the results alone. */
#define TRADES (BIT(CHANGE_LEAN) | BIT(CHANGE_MICRO) | BIT(CHANGE_RECOMPUTE))

/* `base` with the changes in `set`, if each of them is one, and they go together and fit. */
static err_t try_set(struct plan *p, bool *fits, const struct plan *base, unsigned set)
{
    const int64_t micro = base->batch.micro_tokens;
    *p = *base;
    *fits = false;
    for (int i = 0; i < CHANGE_COUNT; i++)
        if ((set & BIT(i)) != 0 && !apply_change(p, (enum change)i)) return ERR_OK;
    if (p->settings.moments_8bit && p->settings.master) return ERR_OK;
    if ((set & BIT(CHANGE_MICRO)) != 0)
        return fit_micro(p, fits, micro_least(p), micro - micro_step(p));
    set_micro(p, micro);
    TRY(plan_compute(p));
    *fits = p->fits;
    return ERR_OK;
}

/* Where recomputing layers is mild beside the rest of `set`, it may be the better trade: the same
 * set with other trades, if that is faster by more than a prediction is worth. */
static err_t improve(struct plan *best, const struct plan *base, unsigned set)
{
    if (set < BIT(CHANGE_RECOMPUTE)) return ERR_OK;
    for (unsigned trade = 0; trade <= TRADES; trade++) {
        struct plan p;
        bool fits;
        if ((trade & ~TRADES) != 0) continue;
        TRY(try_set(&p, &fits, base, (set & ~TRADES) | trade));
        if (fits && p.time.tokens_per_s > 1.05 * best->time.tokens_per_s) *best = p;
    }
    return ERR_OK;
}

err_t plan_search(struct plan *out, bool *found, const struct plan *base)
{
    struct plan p;
    *found = false;
    for (unsigned set = 1; set < BIT(CHANGE_COUNT) && !*found; set++) {
        TRY(try_set(&p, found, base, set));
        if (*found) TRY(improve(&p, base, set));
    }
    if (*found) *out = p;
    return ERR_OK;
}

err_t plan_micro_max(int64_t *micro_tokens, const struct plan *plan)
{
    struct plan p = *plan;
    bool fits = false;
    *micro_tokens = 0;
    plan_step(&p);
    /* More than a step has is of no use, unless a step is one micro-batch of any size. */
    const int64_t whole = align_up((int64_t)p.work.rows_padded, micro_step(&p));
    const int64_t most = p.settings.update_in_backward ? BATCH_ROWS_MAX : whole;
    TRY(fit_micro(&p, &fits, micro_least(&p), min_i64(most, BATCH_ROWS_MAX)));
    if (fits) *micro_tokens = p.batch.micro_tokens;
    return ERR_OK;
}

int64_t plan_changes(char out[PLAN_CHANGES_MAX][PLAN_CHANGE_MAX], const struct plan *from,
                     const struct plan *to)
{
    const struct cost_settings *a = &from->settings, *b = &to->settings;
    char micro[24], size[24], zero[24];
    int64_t count = 0;
    snprintf(micro, sizeof micro, "%lld", (long long)to->batch.micro_tokens);
    snprintf(size, sizeof size, "%lld", (long long)to->batch.size);
    snprintf(zero, sizeof zero, "%d", b->zero);
    const struct {
        bool differs;
        const char *key, *value;
    } rows[] = {
        { !from->zero_auto && a->zero != b->zero, "train.zero", zero },
        { a->activations != b->activations, "train.activations",
          cost_activations_name(b->activations) },
        { from->batch.unit != to->batch.unit, "batch.unit",
          to->batch.unit == BATCH_TOKENS ? "tokens" : "samples" },
        { from->batch.size != to->batch.size, "batch.size", size },
        { from->batch.micro_tokens != to->batch.micro_tokens, "batch.micro_tokens", micro },
        { a->dtype != b->dtype, "train.precision", b->dtype == DTYPE_BF16 ? "bf16" : "f32" },
        { a->grad_dtype != b->grad_dtype, "train.grad_dtype",
          b->grad_dtype == DTYPE_BF16 ? "bf16" : "f32" },
        { a->master != b->master || a->dtype != b->dtype, "train.master",
          b->master ? "on" : "off" },
        { a->moments_8bit != b->moments_8bit, "train.moments", b->moments_8bit ? "8bit" : "f32" },
        { a->state_on_host != b->state_on_host, "train.moments_place",
          b->state_on_host ? "host" : "device" },
        { a->update_in_backward != b->update_in_backward, "train.update",
          b->update_in_backward ? "backward" : "step" },
        { a->clip_by_previous != b->clip_by_previous, "train.clip_norm_from",
          b->clip_by_previous ? "previous" : "step" },
    };
    STATIC_ASSERT(COUNT_OF(rows) <= PLAN_CHANGES_MAX, "room for every change");
    for (int64_t i = 0; i < COUNT_OF(rows); i++)
        if (rows[i].differs)
            snprintf(out[count++], PLAN_CHANGE_MAX, "--%s=%s", rows[i].key, rows[i].value);
    return count;
}
