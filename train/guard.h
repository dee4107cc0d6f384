/*
 * guard.h - what to do with a step whose numbers are wrong: the decision alone, without a run.
 *
 *     struct guard_decision d;
 *     guard_decide(&d, &state, &rules, loss, grad_norm);     // before the update
 *     if (d.action == GUARD_APPLY) ... update ...
 *
 * Two kinds of wrong:
 *   - not finite: a loss or gradient norm that is NaN or infinite, or a loss of exactly 0, which
 *     only broken labels or a broken product give;
 *   - a spike: a loss or gradient norm above
 *         median + sigmas * max(1.4826 * MAD, 1 % of the median)
 *     of the last GUARD_WINDOW steps of its kind (MAD: median distance from the median; 1.4826 *
 *     MAD is the standard deviation of normal values). There is no verdict before
 *     GUARD_WINDOW_MIN values.
 *
 * What is not finite never enters the window. A spike does: a median is not moved by it, and a
 * lasting change of level becomes the rule after half a window, instead of an alarm for ever.
 *
 * The same values in the same state give the same decision. Loss and norm are the same bits on
 * every rank, and the state is part of the checkpoint: all ranks decide alike, and a resumed run
 * decides as one that was not interrupted.
 */
#ifndef TRAIN_GUARD_H
#define TRAIN_GUARD_H

#include "base/cfg.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define GUARD_WINDOW     128
#define GUARD_WINDOW_MIN 32
#define GUARD_RANGES_MAX 64 /* rollbacks of a run */

/* In the order of the choices of train.on_spike. */
enum guard_action {
    GUARD_APPLY,    /* update (a spike is reported) */
    GUARD_SKIP,     /* no update: the samples count as used, the number of updates stays */
    GUARD_ROLLBACK, /* go back to the newest checkpoint and pass over these samples */
    GUARD_STOP
};

enum guard_cause {
    GUARD_FINE,
    GUARD_LOSS_NOT_FINITE,
    GUARD_LOSS_ZERO,
    GUARD_NORM_NOT_FINITE,
    GUARD_LOSS_SPIKE,
    GUARD_NORM_SPIKE,
    GUARD_PASSED_OVER, /* nothing was computed: the step is in a range of a rollback */
    GUARD_CAUSES
};

/* Zeroed: nothing is a spike, and what is not finite stops the run. */
struct guard_rules {
    enum guard_action on_spike, on_nonfinite; /* the latter: GUARD_APPLY means GUARD_STOP */
    double sigmas;                            /* 0: nothing is a spike */
    int64_t skips_max;                        /* in a row; one more stops the run */
    int64_t rollbacks_max;                    /* in a run; one more stops it */
    int64_t rollback_skip; /* >= 1: steps up to the offending one that are passed over then */
};
/* ERR_USAGE: an update cannot be skipped that is made while its step is computed (train.update). */
MUST_USE err_t guard_rules_from_cfg(struct guard_rules *out, const struct cfg *cfg);

/* The last values, oldest first; all finite. */
struct guard_series {
    double value[GUARD_WINDOW];
    int64_t count;
};

/* Steps first .. end-1, counted from 0. */
struct guard_range {
    int64_t first, end;
};

/* Kept in checkpoints; zeroed at the start. */
struct guard_state {
    struct guard_series loss, norm;
    int64_t skips_in_row, rollbacks;
    struct guard_range range[GUARD_RANGES_MAX]; /* [rollbacks] passed over, one for each */
};

struct guard_decision {
    enum guard_action action;
    enum guard_cause cause;
    double limit;        /* of a spike; else 0 */
    bool limit_of_count; /* action is GUARD_STOP because there were skips_max or rollbacks_max */
};

/* Decide on a step and remember it. */
void guard_decide(struct guard_decision *out, struct guard_state *state,
                  const struct guard_rules *rules, double loss, double norm);
/* "loss not finite", "spike of the gradient norm", ... */
const char *guard_cause_text(enum guard_cause cause);

/* What a series calls a spike; infinite before GUARD_WINDOW_MIN values and for sigmas = 0. */
double guard_limit(const struct guard_series *series, double sigmas);

/* Whether a step lies in a range that is passed over. */
bool guard_passes_over(const struct guard_state *state, int64_t step);
/* After a rollback because of `step`: `state`, just loaded from the checkpoint of `loaded` steps,
 * remembers what `before` knew of earlier rollbacks, and one more. */
void guard_note_rollback(struct guard_state *state, const struct guard_state *before,
                         const struct guard_rules *rules, int64_t step, int64_t loaded);

/* ---- as part of state.json ---- */

struct json_t;

/* A new reference; NULL: no memory. */
struct json_t *guard_state_to_json(const struct guard_state *state);
/* NULL: of a checkpoint without one, zeroed. ERR_FORMAT: `name` and what is wrong. */
MUST_USE err_t guard_state_from_json(struct guard_state *out, const struct json_t *json,
                                     const char *name);

#endif
