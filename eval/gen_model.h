/*
 * gen_model.h - the model to answer with, from whatever folder the user named: an exported or
 * Hugging Face folder, a run folder of `soulchat train`, or one of its checkpoints; with its
 * tokenizer and a device.
 */
#ifndef EVAL_GEN_MODEL_H
#define EVAL_GEN_MODEL_H

#include "base/cfg.h"
#include "base/err.h"
#include "data/chat.h"
#include "data/tok.h"
#include "kernels/dev.h"
#include "model/glm.h"

#include <stdint.h>

struct gen_model {
    struct dev *dev;
    struct glm *glm;
    struct tok *tok;
    struct chat_template chat; /* role names: role_names.h */
    int32_t end_id;            /* <eop> or eos: ends a reply */
    int64_t prompt_rows;       /* of the longest prompt with its special tokens */
    int64_t reply_tokens;      /* of the longest reply; both fit into the model's positions */
};

/*
 * Open generate.model, to decode up to `slots` sequences at once. Close it also after a failure.
 *
 * generate.max_new_tokens left at its default gives way to small models: a quarter of the positions
 * at most. generate.max_input gives way to the reply.
 *
 * ERR_USAGE     generate.model is empty, or generate.max_new_tokens leaves no room for a prompt
 * ERR_NOTFOUND  no model there, or no tokenizer; the message names generate.tokenizer
 * ERR_FORMAT    the tokenizer is not this model's: it has more tokens than the model, is of another
 *               family, or a special token has another id
 * and what opening a model, a tokenizer, a device reports.
 */
MUST_USE err_t gen_model_open(struct gen_model *out, const struct cfg *cfg, int64_t slots);
void gen_model_close(struct gen_model *m);

#endif
