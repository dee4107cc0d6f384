#include "data/seq.h"

#include "base/check.h"

#include <string.h>

int64_t seq_len(enum tok_family family, int64_t prompt_len, int64_t reply_len, bool with_end)
{
    ASSERT(family == TOK_CHATGLM || family == TOK_CHATGLM2);
    ASSERT(prompt_len >= 0 && reply_len >= 0);
    return prompt_len + 2 + reply_len + (with_end ? 1 : 0); /* two start tokens in both families */
}

static void copy_ids(int32_t *out, const int32_t *ids, int64_t count)
{
    if (count > 0) memcpy(out, ids, (size_t)count * sizeof *out);
}

/* Rows up to `ctx`, the mask token's the last of them, count up; from there one stream stays where
 * it is and the other counts. */
static void fill_prefix_positions(int32_t *pos, int32_t *block, int64_t len, int64_t ctx)
{
    for (int64_t r = 0; pos != NULL && r < len; r++) pos[r] = (int32_t)(r < ctx ? r : ctx - 1);
    for (int64_t r = 0; block != NULL && r < len; r++)
        block[r] = (int32_t)(r < ctx ? 0 : r - ctx + 1);
}

static void fill_causal_positions(int32_t *pos, int32_t *block, int64_t len)
{
    for (int64_t r = 0; pos != NULL && r < len; r++) pos[r] = (int32_t)r;
    if (block != NULL) memset(block, 0, (size_t)len * sizeof *block);
}

void seq_build(struct seq *out, int32_t *ids, int32_t *pos, int32_t *block, enum tok_family family,
               const struct tok_specials *specials, const int32_t *prompt, int64_t prompt_len,
               const int32_t *reply, int64_t reply_len, bool with_end)
{
    const int64_t len = seq_len(family, prompt_len, reply_len, with_end);
    const bool prefix_form = family == TOK_CHATGLM;
    ASSERT(len <= INT32_MAX);

    int32_t *prompt_at = prefix_form ? ids : ids + 2;
    int32_t *start_at = prefix_form ? ids + prompt_len : ids;
    int32_t *reply_at = ids + prompt_len + 2;
    copy_ids(prompt_at, prompt, prompt_len);
    start_at[0] = specials->gmask;
    start_at[1] = specials->sop;
    copy_ids(reply_at, reply, reply_len);
    if (with_end) reply_at[reply_len] = prefix_form ? specials->eop : specials->eos;

    out->len = len;
    if (prefix_form) {
        const int64_t ctx = prompt_len + 1;
        out->ctx = ctx;
        out->target_first = ctx - 1; /* its label is <sop> */
        fill_prefix_positions(pos, block, len, ctx);
    } else {
        out->ctx = 0;
        out->target_first = prompt_len + 1; /* the last row before the reply */
        fill_causal_positions(pos, block, len);
    }
    out->target_count = len - 1 - out->target_first;
}
