/* layer: data */
/* The first byte says what follows: 'm' a model file, 't' a text, 'i' ids of two bytes each. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "data/tok.h"
#include "data/tok_model.h"
#include "data/tok_spm.h"
#include "data/tok_unigram.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

#define STREAM_IDS_MAX 64 /* streaming decodes from the start each time */

static struct tok *toks[2], *library; /* opened once: a run should cost microseconds */

static void open_once(void)
{
    if (toks[0] != NULL) return;
    ASSERT(tok_open(&toks[0], "data/sample/model") == ERR_OK);
    ASSERT(tok_open(&toks[1], "tests/golden/chatglm2") == ERR_OK);
    ASSERT(tok_open_library(&library, "data/sample/model") == ERR_OK);
}

/* Our own encoder takes whatever passes our checks. */
static void run_unigram(const struct tok_model *model, const char *text, int64_t size)
{
    struct tok_unigram *unigram = NULL;
    struct i32_buf ids = { 0 };
    int64_t ends[2];
    const struct tok_part parts[] = { { text, size }, { text + 4, size - 4 } };
    if (model->algorithm != TOK_ALGORITHM_UNIGRAM || !model->strip_spaces ||
        tok_unigram_open(&unigram, "fuzz", model) != ERR_OK)
        return;
    ASSERT(tok_unigram_encode(unigram, &ids, ends, parts, 2) == ERR_OK);
    for (int64_t i = 0; i < ids.count; i++)
        ASSERT(ids.data[i] >= 0 && ids.data[i] < model->piece_count);
    i32_buf_clear(&ids);
    tok_unigram_close(unigram);
}

/* Whatever passes our checks, the library must load or refuse, and then encode. */
static void run_model(const void *bytes, int64_t size)
{
    static const char TEXT[] = "我 最近 是不是<n>失眠\xF0\x9F\x91\x8B e\xCC\x81\0z";
    struct tok_model model;
    struct tok_spm *spm = NULL;
    struct i32_buf ids = { 0 };
    const err_t parsed = tok_model_parse(&model, "fuzz", bytes, size);
    if (parsed == ERR_OK) run_unigram(&model, TEXT, sizeof TEXT - 1);
    if (parsed == ERR_OK && tok_spm_open(&spm, "fuzz", bytes, size) == ERR_OK &&
        tok_spm_encode(spm, &ids, TEXT, sizeof TEXT - 1) == ERR_OK)
        for (int64_t i = 0; i < ids.count; i++)
            ASSERT(ids.data[i] >= 0 && ids.data[i] < model.piece_count);
    i32_buf_clear(&ids);
    tok_spm_close(spm);
    tok_model_clear(&model);
}

/* Valid UTF-8, and the same whether whole or streamed. */
static void run_ids(const struct tok *tok, const int32_t *ids, int64_t count)
{
    struct buf whole = { 0 }, joined = { 0 };
    int64_t emitted = 0;
    ASSERT(tok_decode(tok, &whole, ids, count) == ERR_OK);
    ASSERT(utf8_valid_prefix(whole.data, (int64_t)whole.size) == (int64_t)whole.size);
    for (int64_t i = count > STREAM_IDS_MAX ? count - STREAM_IDS_MAX : 0; i <= count; i++) {
        ASSERT(tok_decode_stream(tok, &joined, &emitted, ids, i, i == count) == ERR_OK);
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
    i32_buf_reset(&again);
    ASSERT(tok_encode(tok == toks[0] ? library : tok, &again, text, size, TOK_PLAIN) == ERR_OK);
    ASSERT(again.count == ids.count);
    ASSERT(ids.count == 0 || memcmp(ids.data, again.data, (size_t)ids.count * 4) == 0);
    buf_clear(&repaired);
    i32_buf_clear(&ids);
    i32_buf_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0) return 0;
    if (bytes[0] == 'm') run_model(bytes + 1, (int64_t)size - 1);
    open_once();
    for (int i = 0; i < 2; i++) {
        if (bytes[0] == 't') run_text(toks[i], (const char *)bytes + 1, (int64_t)size - 1);
        if (bytes[0] != 'i') continue;
        struct i32_buf ids = { 0 };
        for (size_t at = 1; at + 1 < size; at += 2)
            ASSERT(i32_buf_push(&ids, (bytes[at] | bytes[at + 1] << 8) % tok_vocab_size(toks[i])) ==
                   ERR_OK);
        run_ids(toks[i], ids.data, ids.count);
        i32_buf_clear(&ids);
    }
    return 0;
}
