#include "data/chat.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

/* ---- the template ---- */

static err_t copy_name(char out[SHARD_NAME_MAX], const struct cfg *cfg, const char *key)
{
    const char *name = cfg_str(cfg, key);
    const size_t size = strlen(name);
    if (size == 0) RAISE(USAGE, "%s is empty", key);
    if (size >= SHARD_NAME_MAX)
        RAISE(USAGE, "%s has %zu bytes, at most %d", key, size, SHARD_NAME_MAX - 1);
    if (strpbrk(name, "\r\n") != NULL)
        RAISE(USAGE, "%s holds a line end, which separates turns", key);
    memset(out, 0, SHARD_NAME_MAX);
    memcpy(out, name, size);
    return ERR_OK;
}

err_t chat_template_from_cfg(struct chat_template *out, const struct cfg *cfg)
{
    TRY(copy_name(out->client_name, cfg, "data.client_name"));
    TRY(copy_name(out->counsellor_name, cfg, "data.counsellor_name"));
    TRY(copy_name(out->separator, cfg, "data.separator"));
    if (strcmp(out->client_name, out->counsellor_name) == 0)
        RAISE(USAGE, "data.client_name and data.counsellor_name are both \"%s\"", out->client_name);
    return ERR_OK;
}

static const char *role_name(const struct chat_template *t, enum role role)
{
    ASSERT(role == ROLE_CLIENT || role == ROLE_COUNSELLOR);
    return role == ROLE_CLIENT ? t->client_name : t->counsellor_name;
}

/* ---- runs ---- */

/* Append "<lead><name><separator><text>". */
static err_t put_line(struct buf *line, const struct chat_template *t, const char *lead,
                      enum role role, const char *text, int64_t size)
{
    TRY(buf_puts(line, lead));
    TRY(buf_puts(line, role_name(t, role)));
    TRY(buf_puts(line, t->separator));
    return buf_append(line, text, (size_t)size);
}

/* ids[at, at + count) go; the two or three runs that end at ends[0..2] and lie behind move up. */
static void remove_ids(struct i32_buf *ids, int64_t ends[3], int64_t at, int64_t count)
{
    int32_t *to = ids->data + at;
    memmove(to, to + count, (size_t)(ids->count - at - count) * sizeof *to);
    ids->count -= count;
    for (int i = 0; i < 3; i++)
        if (ends[i] > at) ends[i] -= count;
}

/*
 * Encoded on its own, "\n..." begins with the space piece that SentencePiece puts before every
 * text; inside a prompt that piece is not there, and nothing merges across the newline piece.
 */
static err_t remove_lead(struct i32_buf *ids, int64_t begin, int64_t ends[3], const struct tok *tok)
{
    const struct tok_specials *s = tok_specials(tok);
    const int32_t *run = ids->data + begin;
    if (ends[0] - begin < 3 || run[0] != s->space || run[1] != s->newline)
        RAISE(UNSUPPORTED, "%s: a line does not begin with the pieces for space and newline",
              tok_path(tok));
    remove_ids(ids, ends, begin, 1);
    return ERR_OK;
}

static bool first_follows_rule(const int32_t *first, int64_t first_len, const int32_t *ctx,
                               int64_t ctx_len, int32_t space)
{
    return first_len == ctx_len && first[0] == space &&
           memcmp(first + 1, ctx + 1, (size_t)(ctx_len - 1) * sizeof *ctx) == 0;
}

static void set_runs(struct shard_turn *out, struct i32_buf *ids, int64_t begin, int64_t ends[3],
                     int32_t space)
{
    out->ctx_off = begin;
    out->ctx_len = (int32_t)(ends[0] - begin);
    if (first_follows_rule(ids->data + ends[0], ends[1] - ends[0], ids->data + begin, out->ctx_len,
                           space)) {
        remove_ids(ids, ends, ends[0], ends[1] - ends[0]);
    } else {
        out->first_off = ends[0];
        out->first_len = (int32_t)(ends[1] - ends[0]);
        out->flags |= TURN_FIRST_STORED;
    }
    out->target_len = (int32_t)(ends[2] - ends[1]);
    if (out->target_len > 0) out->target_off = ends[1]; /* none: characters without a piece */
}

/* Each run is an end of "\n用户：text": all of it, without the newline, the text alone. */
err_t chat_turn_encode(struct i32_buf *ids, struct shard_turn *out, const struct tok *tok,
                       const struct chat_template *t, const struct turn_text *turn,
                       bool with_target)
{
    err_t rc = ERR_OK;
    struct buf line = { 0 };
    const int64_t begin = ids->count;
    const int from_count = with_target && turn->role == ROLE_COUNSELLOR ? 3 : 2;
    int64_t ends[3];
    *out = (struct shard_turn){ .first_off = -1, .target_off = -1 };
    out->role = (uint8_t)turn->role;
    TRY_DONE(put_line(&line, t, "\n", turn->role, turn->text, turn->size));
    const int64_t from[3] = { 0, 1, (int64_t)line.size - turn->size };
    TRY_DONE(tok_encode_from(tok, ids, ends, line.data, (int64_t)line.size, from, from_count));
    if (from_count == 2) ends[2] = ends[1];
    TRY_DONE(remove_lead(ids, begin, ends, tok));
    set_runs(out, ids, begin, ends, tok_specials(tok)->space);
done:
    buf_clear(&line);
    return rc;
}

err_t chat_append_first(struct i32_buf *out, const int32_t *ids, const struct shard_turn *turn,
                        const struct tok_specials *specials)
{
    if (turn->flags & TURN_FIRST_STORED)
        return i32_buf_append(out, ids + turn->first_off, turn->first_len);
    TRY(i32_buf_push(out, specials->space));
    return i32_buf_append(out, ids + turn->ctx_off + 1, turn->ctx_len - 1);
}

static int64_t first_len(const struct shard_turn *turn)
{
    return (turn->flags & TURN_FIRST_STORED) ? turn->first_len : turn->ctx_len;
}

/* ---- what is the same for a whole corpus ---- */

static err_t copy_ids(int32_t *out, int32_t *len, const struct i32_buf *ids, const char *what)
{
    if (ids->count < 1 || ids->count > SHARD_CUE_MAX)
        RAISE(USAGE, "%s takes %lld tokens, expected 1 to %d", what, (long long)ids->count,
              SHARD_CUE_MAX);
    memcpy(out, ids->data, (size_t)ids->count * sizeof *out);
    *len = (int32_t)ids->count;
    return ERR_OK;
}

err_t chat_shard_info(struct shard_info *info, const struct chat_template *t, const struct tok *tok)
{
    err_t rc = ERR_OK;
    struct i32_buf ids = { 0 };
    struct buf line = { 0 };
    memset(info, 0, sizeof *info); /* whole structs are compared */
    info->family = tok_family(tok);
    memcpy(info->tokenizer_sha256, tok_sha256(tok), SHA256_HEX_SIZE);
    memcpy(info->client_name, t->client_name, SHARD_NAME_MAX);
    memcpy(info->counsellor_name, t->counsellor_name, SHARD_NAME_MAX);
    memcpy(info->separator, t->separator, SHARD_NAME_MAX);
    info->specials = *tok_specials(tok);
    info->vocab_size = (int32_t)tok_vocab_size(tok);
    TRY_DONE(put_line(&line, t, "\n", ROLE_COUNSELLOR, "", 0));
    TRY_DONE(tok_encode(tok, &ids, line.data, (int64_t)line.size, TOK_PLAIN));
    TRY_DONE(remove_lead(&ids, 0, (int64_t[3]){ ids.count }, tok));
    TRY_DONE(copy_ids(info->cue, &info->cue_len, &ids, "data.counsellor_name"));
    i32_buf_reset(&ids);
    buf_reset(&line);
    TRY_DONE(put_line(&line, t, "", ROLE_CLIENT, "", 0));
    TRY_DONE(tok_encode(tok, &ids, line.data, (int64_t)line.size, TOK_PLAIN));
    TRY_DONE(copy_ids(info->client_head, &info->client_head_len, &ids, "data.client_name"));
done:
    i32_buf_clear(&ids);
    buf_clear(&line);
    return rc;
}

/* ---- a prompt for generation ---- */

/* Turns encoded so far, newest first in `rows`, and the prompt's length if it began at the last of
 * them. */
struct history {
    struct i32_buf ids;
    struct shard_turn rows[CORPUS_TURNS_MAX];
};

/* How many of the newest turns fit into `room` tokens; 0 when not even the question does. */
static err_t encode_newest(struct history *h, int64_t *fitting, const struct tok *tok,
                           const struct chat_template *t, const struct turn_text *turns,
                           int64_t turn_count, int64_t room)
{
    int64_t later_tokens = 0; /* of the turns after the one at hand, as later lines */
    *fitting = 0;
    for (int64_t n = 0; n < min_i64(turn_count, CORPUS_TURNS_MAX); n++) {
        struct shard_turn *row = &h->rows[n];
        TRY(chat_turn_encode(&h->ids, row, tok, t, &turns[turn_count - 1 - n], false));
        if (first_len(row) + later_tokens > room) return ERR_OK;
        later_tokens += row->ctx_len;
        *fitting = n + 1;
    }
    return ERR_OK;
}

/* The question alone, its oldest tokens cut: role name, then the newest tokens that fit. */
static err_t append_cut_question(struct i32_buf *ids, struct history *h,
                                 const struct shard_info *info, int64_t room, int64_t *tokens_cut)
{
    err_t rc = ERR_OK;
    struct i32_buf first = { 0 };
    const int64_t keep = room - info->client_head_len;
    if (keep < 1)
        RAISE(ARG, "a prompt of at most %lld tokens has no room for the role names",
              (long long)(room + info->cue_len));
    TRY_DONE(chat_append_first(&first, h->ids.data, &h->rows[0], &info->specials));
    TRY_DONE(i32_buf_append(ids, info->client_head, info->client_head_len));
    TRY_DONE(i32_buf_append(ids, first.data + first.count - keep, keep));
    *tokens_cut = first.count - info->client_head_len - keep;
done:
    i32_buf_clear(&first);
    return rc;
}

err_t chat_prompt(struct i32_buf *ids, const struct tok *tok, const struct chat_template *t,
                  const struct turn_text *turns, int64_t turn_count, int64_t tokens_max,
                  int64_t *turns_dropped, int64_t *tokens_cut)
{
    err_t rc = ERR_OK;
    struct shard_info info;
    int64_t fitting, cut = 0;
    if (turn_count < 1 || turns[turn_count - 1].role != ROLE_CLIENT)
        RAISE(ARG, "a prompt ends with a turn of the client");
    struct history *h = calloc(1, sizeof *h);
    if (h == NULL) RAISE(NOMEM, "the turns of a prompt");

    TRY_DONE(chat_shard_info(&info, t, tok));
    const int64_t room = tokens_max - info.cue_len;
    TRY_DONE(encode_newest(h, &fitting, tok, t, turns, turn_count, room));
    if (fitting == 0) {
        TRY_DONE(append_cut_question(ids, h, &info, room, &cut));
    } else {
        TRY_DONE(chat_append_first(ids, h->ids.data, &h->rows[fitting - 1], &info.specials));
    }
    for (int64_t n = fitting - 2; n >= 0; n--)
        TRY_DONE(i32_buf_append(ids, h->ids.data + h->rows[n].ctx_off, h->rows[n].ctx_len));
    TRY_DONE(i32_buf_append(ids, info.cue, info.cue_len));
    if (turns_dropped) *turns_dropped = turn_count - max_i64(fitting, 1);
    if (tokens_cut) *tokens_cut = cut;
done:
    i32_buf_clear(&h->ids);
    free(h);
    return rc;
}
