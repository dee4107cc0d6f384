/*
 * seq.h - how a sample becomes a sequence: special tokens, labels, both position streams.
 * Pure integer code.
 *
 * ChatGLM-6B (arrows: what is trained; ctx = number of leading rows that see each other):
 *     prompt... [gMASK] <sop> reply... <eop>
 *     rows      0 .. ctx-1 = prompt and [gMASK]; row ctx = <sop>
 *     labels    of row r is the token of row r+1; rows ctx-1 .. n-2 are trained: <sop>, the reply,
 *               <eop>
 *     pos       0,1,2,...,ctx-1, then frozen at the index of the mask token ([gMASK], else [MASK])
 *     block     0 for rows < ctx, then 1,2,3,...
 * ChatGLM2-6B: [gMASK] sop prompt... reply... eos; causal (ctx = 0); pos 0,1,2,...; labels for
 *     reply and eos only.
 * Source: get_masks and get_position_ids of THUDM/chatglm-6b; ptuning/main.py of both repositories.
 */
#ifndef DATA_SEQ_H
#define DATA_SEQ_H

#include "data/tok.h"

#include <stdbool.h>
#include <stdint.h>

/* A sample laid out; arrays are the caller's, of at least seq_len() entries. */
struct seq {
    int64_t len;          /* rows */
    int64_t ctx;          /* leading rows that see each other; 0 = causal */
    int64_t target_first; /* first trained row: its label is ids[target_first + 1] */
    int64_t target_count; /* trained rows, consecutive; the last label is the last id */
};

/* Rows of a prompt of p tokens and a reply of t tokens: p + t + 3, or p + t + 2 without an end. */
int64_t seq_len(enum tok_family family, int64_t prompt_len, int64_t reply_len, bool with_end);

/*
 * Lay out prompt and reply: ids[len], pos[len], block[len] (pos and block may be NULL). Prompt and
 * reply are plain text tokens, without special ids. The reply may be empty; with with_end = false
 * that is a generation prompt, ready for the first new token.
 */
void seq_build(struct seq *out, int32_t *ids, int32_t *pos, int32_t *block, enum tok_family family,
               const struct tok_specials *specials, const int32_t *prompt, int64_t prompt_len,
               const int32_t *reply, int64_t reply_len, bool with_end);

#endif
