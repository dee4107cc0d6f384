/*
 * ckpt_diff.h - what two checkpoints do not have in common: tensors, settings, state.
 *
 *     TRY(ckpt_diff(&report, "a/ckpt/step-00000100", "b/ckpt/step-00000100", cfg));
 *     json_object_get(report, "tensors") ...
 *     json_decref(report);
 */
#ifndef TRAIN_CKPT_DIFF_H
#define TRAIN_CKPT_DIFF_H

#include "base/cfg.h"
#include "base/err.h"

#include <jansson.h>

/*
 * *out (json_decref it):
 *     state        [{key, a, b}] fields of state.json that differ, settings and model's text apart
 *     settings     [{key, a, b}] settings that differ by value
 *     tensors      [{name, file, elements, differ, max_abs, at}] that are in both and differ, where
 *                  they do most; or {name, file, only: "a"|"b"}, or {name, file, shapes: "..."}
 *     compared     tensors in both
 * `cfg` has the table of settings. Files that the manifests call equal are not read.
 */
MUST_USE err_t ckpt_diff(json_t **out, const char *a, const char *b, const struct cfg *cfg);

#endif
