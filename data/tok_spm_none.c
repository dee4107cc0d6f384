/* Of a build without the SentencePiece library: opening a tokenizer that needs it says so. */
#include "data/tok_spm.h"

#include "base/check.h"

#define WITHOUT "this build has no SentencePiece: configure with -DSOULCHAT_WITH_SENTENCEPIECE=ON"

err_t tok_spm_open(struct tok_spm **out, const char *path, const void *bytes, int64_t size)
{
    (void)bytes;
    (void)size;
    *out = NULL;
    RAISE(UNSUPPORTED, "%s: only ChatGLM-6B's tokenizer can be used; " WITHOUT, path);
}

void tok_spm_close(struct tok_spm *spm) { ASSERT(spm == NULL); }

err_t tok_spm_encode(const struct tok_spm *spm, struct i32_buf *ids, const char *text, int64_t size)
{
    (void)spm;
    (void)ids;
    (void)text;
    (void)size;
    RAISE(UNSUPPORTED, WITHOUT);
}
