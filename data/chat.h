/*
 * chat.h - from a dialogue's text to token runs, by template: how SoulChat writes a conversation.
 *
 *     用户：{text}\n心理咨询师：{text}\n用户：{text}\n心理咨询师：
 *
 * Used by prepare (runs for shards) and by chat and generate (a prompt for the model): both give the same tokens.
 */
#ifndef DATA_CHAT_H
#define DATA_CHAT_H

#include "base/buf.h"
#include "base/cfg.h"
#include "base/err.h"
#include "data/corpus.h"
#include "data/shard.h"
#include "data/tok.h"

#include <stdint.h>

struct chat_template {
    char client_name[SHARD_NAME_MAX];     /* "用户" */
    char counsellor_name[SHARD_NAME_MAX]; /* "心理咨询师" */
    char separator[SHARD_NAME_MAX];       /* "：" */
};

/* From the settings data.client_name, data.counsellor_name, data.separator. ERR_USAGE for empty, over-long or
 * names with a newline. */
MUST_USE err_t chat_template_from_cfg(struct chat_template *out, const struct cfg *cfg);

/* Fill family, tokenizer, template, specials, cue of `info` (split_seed is the caller's). */
MUST_USE err_t chat_shard_info(struct shard_info *info, const struct chat_template *t,
                               const struct tok *tok);

/*
 * The prompt for the next reply: turns (the last one the client's) + cue, as tokens of at most `tokens_max`: whole oldest turns are
 * dropped first; a current question that is too long alone loses its oldest tokens but keeps role name and cue.
 * *turns_dropped (may be NULL) counts dropped turns, *tokens_cut the tokens cut from the question.
 * No special tokens are appended (see seq.h). Appends to *ids.
 */
MUST_USE err_t chat_prompt(struct i32_buf *ids, const struct tok *tok,
                           const struct chat_template *t, const struct turn_text *turns,
                           int64_t turn_count, int64_t tokens_max, int64_t *turns_dropped,
                           int64_t *tokens_cut);

#endif
