/*
 * chat.h - from a dialogue's text to token runs, by template: how SoulChat writes a conversation.
 *
 *     用户：{text}\n心理咨询师：{text}\n用户：{text}\n心理咨询师：
 *
 * Used by prepare (runs for shards) and by chat and generate (a prompt for the model): both give
 * the same tokens.
 */
#ifndef DATA_CHAT_H
#define DATA_CHAT_H

#include "base/buf.h"
#include "base/cfg.h"
#include "base/err.h"
#include "data/corpus.h"
#include "data/shard.h"
#include "data/tok.h"

#include <stdbool.h>
#include <stdint.h>

struct chat_template {
    char client_name[SHARD_NAME_MAX];     /* "用户" */
    char counsellor_name[SHARD_NAME_MAX]; /* "心理咨询师" */
    char separator[SHARD_NAME_MAX];       /* "：" */
};

/* From the settings data.client_name, data.counsellor_name, data.separator. ERR_USAGE for empty,
 * over-long or names with a newline. */
MUST_USE err_t chat_template_from_cfg(struct chat_template *out, const struct cfg *cfg);

/*
 * Fill family, tokenizer, template, specials, cue, client_head of `info`; rules_sha256 and
 * split_seed are the caller's. ERR_UNSUPPORTED: the tokenizer has no newline piece that text stops
 * at; ERR_USAGE: a role name of more than SHARD_CUE_MAX tokens.
 */
MUST_USE err_t chat_shard_info(struct shard_info *info, const struct chat_template *t,
                               const struct tok *tok);

/*
 * One turn as token runs, appended to *ids; *out says where (offsets index *ids) and how, as a row
 * of a shard does. Only a counsellor's turn gets a target; whether one is wanted (is there a turn
 * before it?) is the caller's: `with_target`. The rule "first = [space piece] + ctx without its
 * newline" is tried on the turn itself, and the first run is appended where it does not hold.
 */
MUST_USE err_t chat_turn_encode(struct i32_buf *ids, struct shard_turn *out, const struct tok *tok,
                                const struct chat_template *t, const struct turn_text *turn,
                                bool with_target);

/* Append the turn as the first line of a prompt: its stored run, or what the rule says. `ids` are
 * the ones that the offsets of `turn` index. */
MUST_USE err_t chat_append_first(struct i32_buf *out, const int32_t *ids,
                                 const struct shard_turn *turn,
                                 const struct tok_specials *specials);

/*
 * The prompt for the next reply: turns (the last one the client's) + cue, as tokens of at most
 * `tokens_max`: whole oldest turns are dropped first; a current question that is too long alone
 * loses its oldest tokens but keeps role name and cue. Appends to *ids, without special tokens (see
 * seq.h). *turns_dropped (may be NULL) counts dropped turns, *tokens_cut (may be NULL) the tokens
 * cut from the question.
 * Texts are taken as they are: clean_text (data/clean.h) first gives what prepare would have
 * stored.
 * ERR_ARG: no turns, the last is not the client's, or tokens_max has no room for role name, one
 * token and cue.
 */
MUST_USE err_t chat_prompt(struct i32_buf *ids, const struct tok *tok,
                           const struct chat_template *t, const struct turn_text *turns,
                           int64_t turn_count, int64_t tokens_max, int64_t *turns_dropped,
                           int64_t *tokens_cut);

#endif
