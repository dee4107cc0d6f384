/*
 * gen.h - from prompts to replies with a key/value cache.
 *
 *     TRY(gen_open(&gen, cfg));                                   // model folder, tokenizer, device, sampler
 *     TRY_DONE(gen_reply(gen, &reply, turns, turn_count, on_text, user));
 *
 * The model folder is an exported one or any Hugging Face folder, or a run folder or a checkpoint of `soulchat train`.
 * The same forward code runs as in training. A reply ends at <eop>, at generate.max_new_tokens, or when the cache is full.
 */
#ifndef EVAL_GEN_H
#define EVAL_GEN_H

#include "base/buf.h"
#include "base/cfg.h"
#include "base/err.h"
#include "data/chat.h"

#include <stdint.h>

enum gen_stop { GEN_STOP_END, GEN_STOP_LENGTH, GEN_STOP_REQUESTED };

struct gen_stats {
    int64_t prompt_tokens, new_tokens, turns_dropped, tokens_cut;
    double prefill_s, decode_s;
    enum gen_stop stop;
};

struct gen;

/* Yours; gen_close it (NULL allowed). Settings: generate.*, data.client_name and so on. */
MUST_USE err_t gen_open(struct gen **out, const struct cfg *cfg);
void gen_close(struct gen *gen);

/* Called with each piece of text as it becomes final: whole UTF-8 characters, not NUL-terminated. */
typedef err_t (*gen_on_text)(void *user, const char *text, int64_t size);

/*
 * The counsellor's reply to a conversation (the last turn is the client's), appended to *reply; `on_text` (may be NULL) sees it
 * as it grows. `index` numbers the conversation: it selects the random stream.
 */
MUST_USE err_t gen_reply(struct gen *gen, struct buf *reply, struct gen_stats *stats,
                         const struct turn_text *turns, int64_t turn_count, uint64_t index,
                         gen_on_text on_text, void *user);

#endif
