/*
 * gen_model.h - the model to answer with, from whatever folder the user named: an exported or Hugging Face
 * folder, a run folder of `soulchat train`, or one of its checkpoints; with its tokenizer and a device.
 */
#ifndef EVAL_GEN_MODEL_H
#define EVAL_GEN_MODEL_H

#include "base/cfg.h"
#include "base/err.h"
#include "data/tok.h"
#include "kernels/dev.h"
#include "model/glm.h"

#include <stdint.h>

struct gen_model {
    struct dev *dev;
    struct glm *glm;
    struct tok *tok;
    int32_t end_id; /* <eop> or eos: ends a reply */
};

/*
 * Open generate.model. *prompt_rows = rows of the longest prompt (generate.max_input + <sop>), lowered to what the
 * model's positions allow beside generate.max_new_tokens. ERR_USAGE when generate.model is empty or leaves no room.
 */
MUST_USE err_t gen_model_open(struct gen_model *out, const struct cfg *cfg, int64_t *prompt_rows);
void gen_model_close(struct gen_model *m);

#endif
