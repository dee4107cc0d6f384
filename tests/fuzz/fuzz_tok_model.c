/* layer: data */
/* A model file: what passes our checks, our own encoder and the library take. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "data/tok_model.h"
#include "data/tok_spm.h"
#include "data/tok_unigram.h"

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

/* The library must load or refuse it, and then encode. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char TEXT[] = "我 最近 是不是<n>失眠\xF0\x9F\x91\x8B e\xCC\x81\0z";
    struct tok_model model;
    struct tok_spm *spm = NULL;
    struct i32_buf ids = { 0 };
    const err_t parsed = tok_model_parse(&model, "fuzz", bytes, (int64_t)size);
    if (parsed == ERR_OK) run_unigram(&model, TEXT, sizeof TEXT - 1);
    if (parsed == ERR_OK && tok_spm_open(&spm, "fuzz", bytes, (int64_t)size) == ERR_OK &&
        tok_spm_encode(spm, &ids, TEXT, sizeof TEXT - 1) == ERR_OK)
        for (int64_t i = 0; i < ids.count; i++)
            ASSERT(ids.data[i] >= 0 && ids.data[i] < model.piece_count);
    i32_buf_clear(&ids);
    tok_spm_close(spm);
    tok_model_clear(&model);
    return 0;
}
