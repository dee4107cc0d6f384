/*
 * gen.h - from prompts to replies with a key/value cache; several conversations at once.
 *
 *     TRY(gen_open(&gen, cfg, 1));                         // model, tokenizer, device, sampler
 *     TRY_DONE(gen_begin(gen, 0, turns, turn_count, 0));   // the prompt into slot 0
 *     while (gen_is_busy(gen, 0)) TRY_DONE(gen_step(gen)); // a token for every busy slot
 *     puts(gen_reply(gen, 0)->text.data);
 *
 * The same forward code runs as in training. A reply ends at <eop> (or eos), at
 * generate.max_new_tokens, or when it is told to; its text grows from step to step, by whole
 * characters of UTF-8 that are final, and may be read at any time: that is streaming.
 *
 * A reply depends on its conversation, the settings and `index` alone, not on what is in other
 * slots, as far as the device's products of few rows do the same (kernels/cpu: up to 8 rows, so up
 * to 8 slots). One thread at a time.
 */
#ifndef EVAL_GEN_H
#define EVAL_GEN_H

#include "base/buf.h"
#include "base/cfg.h"
#include "base/err.h"
#include "data/chat.h"
#include "data/corpus.h"

#include <stdbool.h>
#include <stdint.h>

enum gen_stop { GEN_STOP_END, GEN_STOP_LENGTH, GEN_STOP_REQUESTED };
const char *gen_stop_name(enum gen_stop stop); /* "end", "length", "requested" */

struct gen_reply {
    struct buf text;    /* what is final so far; data is NULL while there is none */
    enum gen_stop stop; /* why it ended; meaningless while the slot is busy */
    int64_t prompt_tokens, new_tokens;
    int64_t turns_dropped; /* oldest turns that did not fit into generate.max_input */
    int64_t tokens_cut;    /* of a question that alone was too long */
    double prefill_s, decode_s;
};

struct gen;

/*
 * Room for `slots` conversations. Yours; gen_close it (NULL allowed). Settings: generate.*, and the
 * role names of the prompt (role_names.h). Errors as gen_model.h, and ERR_NOMEM.
 */
MUST_USE err_t gen_open(struct gen **out, const struct cfg *cfg, int64_t slots);
void gen_close(struct gen *gen);

/*
 * Run the prompt of a conversation in a slot that is not busy; it is busy from then on. The last
 * turn is the client's; texts are taken as they are (eval/question.h tidies them). `index` numbers
 * the conversation: it selects the random stream. ERR_ARG: as chat_prompt (data/chat.h); the slot
 * is not busy after a failure.
 */
MUST_USE err_t gen_begin(struct gen *gen, int64_t slot, const struct turn_text *turns,
                         int64_t turn_count, uint64_t index);
/* One more token for every busy slot; replies that end leave their slots. */
MUST_USE err_t gen_step(struct gen *gen);
/* End the reply of a busy slot here. */
MUST_USE err_t gen_stop(struct gen *gen, int64_t slot);

bool gen_is_busy(const struct gen *gen, int64_t slot);
/* The role names of its prompts; borrowed. */
const struct chat_template *gen_names(const struct gen *gen);
/* The slot's reply, under way or ended; borrowed, until the slot begins another. */
const struct gen_reply *gen_reply(const struct gen *gen, int64_t slot);

#endif
