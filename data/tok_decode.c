/*
 * Ids to text, by the rules of SentencePiece and of the family's Python class:
 *   1. registered special ids are dropped; other control pieces give no text but end a byte run;
 *   2. the first text piece loses its leading "▁" (ChatGLM-6B: all pieces, while there is no text);
 *      every other "▁" is a space;
 *   3. a run of byte pieces is read as UTF-8, each byte that is part of no character is a U+FFFD;
 *   4. ChatGLM-6B only: "<n>", "<|tab|>" and "<|blank_i|>" in the joined text become white space,
 *      also when ordinary pieces spell them.
 * The reference's clean_up_tokenization_spaces ("a ," -> "a,") is not applied: it alters text.
 *
 * Rules 1 to 3 are applied id by id and never take text back; only an open byte run and an
 * unfinished marker of rule 4 are held, which is what makes streaming exact.
 */
#include "data/tok_internal.h"

#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <string.h>

#define SPACE_MARK "\xE2\x96\x81" /* U+2581 */

struct decoder {
    const struct tok *tok;
    struct buf *text;
    uint8_t pending[4]; /* byte pieces that are not yet a whole character */
    int pending_count;
    bool at_start;       /* the next text piece loses its leading space */
    bool start_consumed; /* the last piece was such a one (and that was the only one) */
};

static err_t drop_first_pending(struct decoder *d)
{
    TRY(buf_append(d->text, UTF8_REPLACEMENT, 3));
    d->pending_count--;
    memmove(d->pending, d->pending + 1, (size_t)d->pending_count);
    return ERR_OK;
}

static int wanted_bytes(uint8_t lead)
{
    if (lead < 0x80) return 1;
    if ((lead & 0xE0) == 0xC0) return 2;
    if ((lead & 0xF0) == 0xE0) return 3;
    return (lead & 0xF8) == 0xF0 ? 4 : 1;
}

/* The run grows by one byte; whatever is decided by that leaves `pending`. */
static err_t decode_byte(struct decoder *d, uint8_t byte)
{
    ASSERT(d->pending_count < 4);
    d->pending[d->pending_count++] = byte;
    while (d->pending_count > 0) {
        const int wanted = wanted_bytes(d->pending[0]);
        int trail = 1;
        while (trail < d->pending_count && (d->pending[trail] & 0xC0) == 0x80) trail++;
        if (d->pending_count < wanted && trail == d->pending_count) return ERR_OK;

        int64_t length;
        const int32_t point = utf8_decode(&length, (const char *)d->pending, d->pending_count);
        if (point < 0) {
            TRY(drop_first_pending(d));
            continue;
        }
        TRY(buf_append(d->text, d->pending, (size_t)length));
        d->pending_count -= (int)length;
        memmove(d->pending, d->pending + length, (size_t)d->pending_count);
    }
    return ERR_OK;
}

static err_t end_byte_run(struct decoder *d)
{
    while (d->pending_count > 0) TRY(drop_first_pending(d));
    if (d->start_consumed || d->text->size > 0) d->at_start = false;
    d->start_consumed = false;
    return ERR_OK;
}

static err_t decode_text(struct decoder *d, const char *piece, int64_t size)
{
    const int64_t mark = (int64_t)sizeof SPACE_MARK - 1;
    if (d->at_start && size >= mark && memcmp(piece, SPACE_MARK, (size_t)mark) == 0) {
        piece += mark;
        size -= mark;
        d->start_consumed = !d->tok->model.strip_spaces;
    }
    while (size > 0) {
        const char *next = memmem(piece, (size_t)size, SPACE_MARK, (size_t)mark);
        const int64_t plain = next == NULL ? size : next - piece;
        TRY(buf_append(d->text, piece, (size_t)plain));
        piece += plain;
        size -= plain;
        if (next == NULL) break;
        TRY(buf_puts(d->text, " "));
        piece += mark;
        size -= mark;
    }
    return ERR_OK;
}

/* Dropped before decoding, so that bytes on both sides still join: rule 1. */
static bool is_registered(const struct tok *tok, int32_t id)
{
    const struct tok_specials *s = &tok->specials;
    if (tok->family != TOK_CHATGLM) return false;
    return id == s->unk || id == s->pad || id == s->mask || id == s->sop || id == s->eop;
}

static err_t decode_id(struct decoder *d, int32_t id)
{
    const struct tok_model *model = &d->tok->model;
    if (is_registered(d->tok, id)) return ERR_OK;
    if (id < model->piece_count && model->kind[id] == TOK_PIECE_BYTE)
        return decode_byte(d, (uint8_t)model->byte_value[id]);

    TRY(end_byte_run(d));
    if (id >= model->piece_count || model->kind[id] == TOK_PIECE_CONTROL ||
        model->kind[id] == TOK_PIECE_UNKNOWN)
        return ERR_OK;
    const int64_t begin = model->name_offset[id];
    return decode_text(d, model->names.data + begin, model->name_offset[id + 1] - begin);
}

/* A marker of rule 4 at the start of some text. */
struct marker {
    int64_t length; /* 0: none; -1: the text ends inside what may become one */
    char white;
    int count;
};

static struct marker marker_at(const char *text, int64_t size)
{
    static const struct { const char *name; char white; } FIXED[] = { { "<n>", '\n' },
                                                                      { "<|tab|>", '\t' } };
    for (int64_t i = 0; i < COUNT_OF(FIXED); i++) {
        const int64_t length = (int64_t)strlen(FIXED[i].name);
        if (memcmp(text, FIXED[i].name, (size_t)min_i64(length, size)) != 0) continue;
        return (struct marker){ size < length ? -1 : length, FIXED[i].white, 1 };
    }
    static const char BLANK[] = "<|blank_";
    const int64_t digits_at = (int64_t)sizeof BLANK - 1;
    if (memcmp(text, BLANK, (size_t)min_i64(digits_at, size)) != 0) return (struct marker){ 0 };
    int64_t at = digits_at;
    int value = 0;
    while (at < size && at < digits_at + 2 && text[at] >= '0' && text[at] <= '9')
        value = value * 10 + (text[at++] - '0');
    if (at > digits_at && text[digits_at] == '0') return (struct marker){ 0 };
    if (at >= size) return (struct marker){ .length = -1 };
    if (value < TOK_BLANK_MIN || value > TOK_BLANK_MAX || text[at] != '|')
        return (struct marker){ 0 };
    if (at + 1 >= size) return (struct marker){ .length = -1 };
    if (text[at + 1] != '>') return (struct marker){ 0 };
    return (struct marker){ at + 2, ' ', value };
}

/* Rule 4: markers never nest or overlap, so one pass equals the reference's
 * replacements one after the other. Stops before an unfinished marker unless `last`. */
static err_t restore_whitespace(struct buf *out, const struct buf *text, bool last)
{
    const int64_t size = (int64_t)text->size;
    int64_t plain = 0;
    for (int64_t at = 0; at < size;) {
        const char *open = memchr(text->data + at, '<', (size_t)(size - at));
        if (open == NULL) break;
        at = open - text->data;
        const struct marker m = marker_at(open, size - at);
        if (m.length < 0 && !last)
            return buf_append(out, text->data + plain, (size_t)(at - plain));
        if (m.length <= 0) {
            at++;
            continue;
        }
        TRY(buf_append(out, text->data + plain, (size_t)(at - plain)));
        for (int i = 0; i < m.count; i++) TRY(buf_append(out, &m.white, 1));
        at += m.length;
        plain = at;
    }
    return buf_append(out, text->data + plain, (size_t)(size - plain));
}

static err_t check_ids(const struct tok *tok, const int32_t *ids, int64_t count)
{
    const int64_t end = tok->vocab_size + TOK_PADDING_IDS_MAX;
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= end)
            RAISE(ARG, "id %d at index %" PRId64 "; %s has ids 0 to %" PRId64, ids[i], i, tok->path,
                  tok->vocab_size - 1);
    return ERR_OK;
}

/* All text that is final after ids[count]; with `last`, all text. */
static err_t decode_final(const struct tok *tok, struct buf *out, const int32_t *ids,
                          int64_t count, bool last)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    struct decoder d = { .tok = tok, .text = &text, .at_start = true };
    TRY_DONE(check_ids(tok, ids, count));
    for (int64_t i = 0; i < count; i++) TRY_DONE(decode_id(&d, ids[i]));
    if (last) TRY_DONE(end_byte_run(&d));
    if (text.size == 0) goto done;
    if (tok->family == TOK_CHATGLM)
        TRY_DONE(restore_whitespace(out, &text, last));
    else
        TRY_DONE(buf_append(out, text.data, text.size));
done:
    buf_clear(&text);
    return rc;
}

err_t tok_decode(const struct tok *tok, struct buf *text, const int32_t *ids, int64_t count)
{
    return decode_final(tok, text, ids, count, true);
}

err_t tok_decode_stream(const struct tok *tok, struct buf *text, int64_t *emitted,
                        const int32_t *ids, int64_t count, int last)
{
    err_t rc = ERR_OK;
    struct buf final = { 0 };
    TRY_DONE(decode_final(tok, &final, ids, count, last != 0));
    ASSERT((int64_t)final.size >= *emitted);
    if ((int64_t)final.size > *emitted) {
        TRY_DONE(buf_append(text, final.data + *emitted, final.size - (size_t)*emitted));
        *emitted = (int64_t)final.size;
    }
done:
    buf_clear(&final);
    return rc;
}
