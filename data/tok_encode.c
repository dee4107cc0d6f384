/*
 * Text to ids. The model (tok_unigram.h, or the SentencePiece library) does the work behind the
 * family's own rewriting of the text:
 *   ChatGLM-6B   "\n" -> "<n>", "\t" -> "<|tab|>", a run of i spaces -> "<|blank_i|>"
 *                (a run of more than 80: as many blank_80 as fit, then the rest)
 *   ChatGLM2-6B  none
 */
#include "data/tok_internal.h"

#include "base/check.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <string.h>

static err_t append_spaces(struct buf *out, int64_t run)
{
    for (; run >= TOK_BLANK_MIN; run -= TOK_BLANK_MAX)
        TRY(buf_printf(out, "<|blank_%d|>", run > TOK_BLANK_MAX ? TOK_BLANK_MAX : (int)run));
    if (run == 1) TRY(buf_puts(out, " "));
    return ERR_OK;
}

/* None of these eight bytes is a space, a newline, a tab or what lies below. */
static bool is_free_of_blanks(const char *text)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t word;
    memcpy(&word, text, sizeof word);
    return ((word - ones * (' ' + 1)) & ~word & ones * 0x80) == 0;
}

static err_t rewrite_whitespace(struct buf *out, const char *text, int64_t size)
{
    TRY(buf_reserve(out, (size_t)size + 1));
    int64_t plain = 0; /* text[plain, at) is to be copied as it is */
    int64_t at = 0;
    while (at < size) {
        int64_t run = 1;
        if (size - at >= 8 && is_free_of_blanks(text + at)) {
            at += 8;
            continue;
        }
        if (text[at] == ' ')
            while (at + run < size && text[at + run] == ' ') run++;
        const bool rewritten = text[at] == '\n' || text[at] == '\t' || run > 1;
        if (rewritten) {
            TRY(buf_append(out, text + plain, (size_t)(at - plain)));
            if (text[at] == ' ')
                TRY(append_spaces(out, run));
            else
                TRY(buf_puts(out, text[at] == '\n' ? "<n>" : "<|tab|>"));
            plain = at + run;
        }
        at += run;
    }
    TRY(buf_append(out, text + plain, (size_t)(size - plain)));
    return ERR_OK;
}

/* Well-formed UTF-8, without special names, by our own encoder. */
static err_t encode_unigram(const struct tok *tok, struct i32_buf *ids, int64_t *ends,
                            const char *text, int64_t size, const int64_t *from, int64_t from_count)
{
    err_t rc = ERR_OK;
    struct buf rewritten[TOK_FROM_MAX] = { 0 };
    struct tok_part parts[TOK_FROM_MAX] = { 0 };
    ASSERT(from_count >= 1 && from_count <= TOK_FROM_MAX);
    for (int64_t i = 0; i < from_count; i++) {
        TRY_DONE(rewrite_whitespace(&rewritten[i], text + from[i], size - from[i]));
        parts[i] = (struct tok_part){ rewritten[i].data, (int64_t)rewritten[i].size };
    }
    TRY_DONE(tok_unigram_encode(tok->unigram, ids, ends, parts, from_count));
done:
    for (int64_t i = 0; i < from_count; i++) buf_clear(&rewritten[i]);
    return rc;
}

/* The same by the library. */
static err_t encode_library(const struct tok *tok, struct i32_buf *ids, const char *text,
                            int64_t size)
{
    if (tok->family != TOK_CHATGLM) return tok_spm_encode(tok->spm, ids, text, size);

    err_t rc = ERR_OK;
    struct buf rewritten = { 0 };
    TRY_DONE(rewrite_whitespace(&rewritten, text, size));
    TRY_DONE(tok_spm_encode(tok->spm, ids, rewritten.data, (int64_t)rewritten.size));
done:
    buf_clear(&rewritten);
    return rc;
}

static err_t encode_plain(const struct tok *tok, struct i32_buf *ids, const char *text,
                          int64_t size)
{
    const int64_t from = 0;
    int64_t end;
    if (tok->unigram == NULL) return encode_library(tok, ids, text, size);
    return encode_unigram(tok, ids, &end, text, size, &from, 1);
}

/* The names that the reference class registers; [gMASK] and </s> are not among them. */
static const char *const REGISTERED[] = { "<sop>", "<eop>", "<unk>", "<pad>", "[MASK]" };

/* The id of the registered name that text[size] begins with, and its length; -1 when none. */
static int32_t registered_at(int64_t *length, const struct tok *tok, const char *text, int64_t size)
{
    const struct tok_specials *s = &tok->specials;
    const int32_t ids[] = { s->sop, s->eop, s->unk, s->pad, s->mask };
    STATIC_ASSERT(sizeof ids / sizeof ids[0] == sizeof REGISTERED / sizeof REGISTERED[0],
                  "one id for each registered name");
    for (int64_t i = 0; i < COUNT_OF(REGISTERED); i++) {
        *length = (int64_t)strlen(REGISTERED[i]);
        if (*length <= size && memcmp(text, REGISTERED[i], (size_t)*length) == 0) return ids[i];
    }
    return -1;
}

/* Text between registered names loses the spaces next to them, and each part gets its own dummy
 * prefix, as in the reference. */
static err_t encode_with_specials(const struct tok *tok, struct i32_buf *ids, const char *text,
                                  int64_t size)
{
    int64_t part = 0; /* where the current text part begins */
    bool after_name = false;
    for (int64_t at = 0; at <= size;) {
        int64_t length = 1;
        const bool may_begin = at < size && (text[at] == '<' || text[at] == '[');
        const int32_t id = may_begin ? registered_at(&length, tok, text + at, size - at) : -1;
        if (id >= 0 || at == size) {
            if (after_name) part += utf8_leading_space(text + part, at - part);
            int64_t part_size = at - part;
            if (id >= 0) part_size -= utf8_trailing_space(text + part, part_size);
            if (part_size > 0) TRY(encode_plain(tok, ids, text + part, part_size));
        }
        if (id >= 0) {
            TRY(i32_buf_push(ids, id));
            part = at + length;
            after_name = true;
        }
        at += id >= 0 ? length : 1;
    }
    return ERR_OK;
}

err_t tok_encode(const struct tok *tok, struct i32_buf *ids, const char *text, int64_t size,
                 enum tok_mode mode)
{
    ASSERT(size >= 0);
    if (size > TOK_TEXT_BYTES_MAX)
        RAISE(ARG, "a text of %" PRId64 " bytes; at most %d can be tokenized at once", size,
              TOK_TEXT_BYTES_MAX);
    if (size == 0) return ERR_OK;

    err_t rc = ERR_OK;
    struct buf repaired = { 0 };
    const int64_t count = ids->count;
    if (utf8_valid_prefix(text, size) != size) {
        TRY_DONE(utf8_append_repaired(&repaired, text, size));
        text = repaired.data;
        size = (int64_t)repaired.size;
    }
    if (mode == TOK_PARSE_SPECIAL && tok->family == TOK_CHATGLM)
        TRY_DONE(encode_with_specials(tok, ids, text, size));
    else
        TRY_DONE(encode_plain(tok, ids, text, size));
done:
    buf_clear(&repaired);
    if (rc != ERR_OK) ids->count = count;
    return rc;
}

static err_t encode_each(const struct tok *tok, struct i32_buf *ids, int64_t *ends,
                         const char *text, int64_t size, const int64_t *from, int64_t from_count)
{
    for (int64_t i = 0; i < from_count; i++) {
        TRY(tok_encode(tok, ids, text + from[i], size - from[i], TOK_PLAIN));
        ends[i] = ids->count;
    }
    return ERR_OK;
}

err_t tok_encode_from(const struct tok *tok, struct i32_buf *ids, int64_t *ends, const char *text,
                      int64_t size, const int64_t *from, int64_t from_count)
{
    const int64_t count = ids->count;
    bool share =
        tok->unigram != NULL && size <= TOK_TEXT_BYTES_MAX && utf8_valid_prefix(text, size) == size;
    for (int64_t i = 0; i < from_count; i++) {
        ASSERT(from[i] >= 0 && from[i] <= size);
        share &= from[i] == size || ((uint8_t)text[from[i]] & 0xC0) != 0x80;
    }
    const err_t rc = share ? encode_unigram(tok, ids, ends, text, size, from, from_count)
                           : encode_each(tok, ids, ends, text, size, from, from_count);
    if (rc != ERR_OK) ids->count = count;
    return rc;
}
