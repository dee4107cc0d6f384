/* layer: data */
/* The first byte says what follows: 't' a text, else ids of two bytes each, for ChatGLM-6B's
 * tokenizer; 'T' and 'I' the same for ChatGLM2's. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"
#include "data/tok.h"

#include <string.h>

#define STREAM_IDS_MAX 12 /* streaming decodes from the start each time */

/* Opened once: a run should cost microseconds. Those that a build lacks are NULL. */
static struct tok *toks[2], *library;

static void open_once(void)
{
    if (toks[0] != NULL) return;
    ASSERT(tok_open(&toks[0], "data/sample/model") == ERR_OK);
    const err_t rc = tok_open_library(&library, "data/sample/model");
    ASSERT(rc == ERR_OK || rc == ERR_UNSUPPORTED);
    ASSERT(tok_open(&toks[1], "tests/golden/chatglm2") == rc);
}

/* Valid UTF-8; the last ids give the same whether whole or streamed. */
static void run_ids(const struct tok *tok, const int32_t *ids, int64_t count)
{
    struct buf whole = { 0 }, joined = { 0 };
    const int64_t end = min_i64(count, STREAM_IDS_MAX);
    const int32_t *last = count > end ? ids + count - end : ids;
    int64_t emitted = 0;
    ASSERT(tok_decode(tok, &whole, ids, count) == ERR_OK);
    ASSERT(utf8_valid_prefix(whole.data, (int64_t)whole.size) == (int64_t)whole.size);
    buf_reset(&whole);
    ASSERT(tok_decode(tok, &whole, last, end) == ERR_OK);
    for (int64_t i = 0; i <= end; i++) {
        ASSERT(tok_decode_stream(tok, &joined, &emitted, last, i, i == end) == ERR_OK);
        ASSERT(utf8_valid_prefix(joined.data, (int64_t)joined.size) == (int64_t)joined.size);
    }
    ASSERT(joined.size == whole.size);
    ASSERT(whole.size == 0 || memcmp(joined.data, whole.data, whole.size) == 0);
    buf_clear(&whole);
    buf_clear(&joined);
}

/* No id that marks a boundary comes from text, bytes mean what their repaired form means, and the
 * library finds the same ids. */
static void run_text(const struct tok *tok, const char *text, int64_t size)
{
    const struct tok_specials *s = tok_specials(tok);
    struct buf repaired = { 0 };
    struct i32_buf ids = { 0 }, again = { 0 };
    ASSERT(tok_encode(tok, &ids, text, size, TOK_PARSE_SPECIAL) == ERR_OK);
    i32_buf_reset(&ids);
    ASSERT(tok_encode(tok, &ids, text, size, TOK_PLAIN) == ERR_OK);
    for (int64_t i = 0; i < ids.count; i++) {
        const int32_t id = ids.data[i];
        ASSERT(id > 2 && id < tok_vocab_size(tok));
        ASSERT(id != s->pad && id != s->mask && id != s->gmask && id != s->smask);
        ASSERT(id != s->sop && id != s->eop && id != s->eos && id != s->unk);
    }
    ASSERT(utf8_append_repaired(&repaired, text, size) == ERR_OK);
    ASSERT(tok_encode(tok, &again, repaired.data, (int64_t)repaired.size, TOK_PLAIN) == ERR_OK);
    ASSERT(again.count == ids.count);
    ASSERT(ids.count == 0 || memcmp(ids.data, again.data, (size_t)ids.count * 4) == 0);
    run_ids(tok, ids.data, ids.count);
    if (tok == toks[0] && library != NULL) {
        i32_buf_reset(&again);
        ASSERT(tok_encode(library, &again, text, size, TOK_PLAIN) == ERR_OK);
        ASSERT(again.count == ids.count);
        ASSERT(ids.count == 0 || memcmp(ids.data, again.data, (size_t)ids.count * 4) == 0);
    }
    buf_clear(&repaired);
    i32_buf_clear(&ids);
    i32_buf_clear(&again);
}

static void run_two_byte_ids(const struct tok *tok, const uint8_t *bytes, size_t size)
{
    struct i32_buf ids = { 0 };
    for (size_t at = 0; at + 1 < size; at += 2)
        ASSERT(i32_buf_push(&ids, (bytes[at] | bytes[at + 1] << 8) % tok_vocab_size(tok)) ==
               ERR_OK);
    run_ids(tok, ids.data, ids.count);
    i32_buf_clear(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0) return 0;
    open_once();
    const struct tok *tok = toks[bytes[0] == 'T' || bytes[0] == 'I'];
    if (tok == NULL) return 0;
    if (bytes[0] == 't' || bytes[0] == 'T')
        run_text(tok, (const char *)bytes + 1, (int64_t)size - 1);
    else
        run_two_byte_ids(tok, bytes + 1, size - 1);
    return 0;
}
