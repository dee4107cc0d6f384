/* tok_fixture.h - which tokenizers this build can use. */
#ifndef TESTS_TOK_FIXTURE_H
#define TESTS_TOK_FIXTURE_H

#include "data/tok.h"

#include <stdbool.h>

#define TOK_FIXTURE_CHATGLM  "data/sample/model"
#define TOK_FIXTURE_CHATGLM2 "tests/golden/chatglm2"

/* ChatGLM2's tokenizer, and the one that ChatGLM-6B's is compared with, are the SentencePiece
 * library's. */
static inline bool tok_fixture_library(void)
{
    struct tok *tok;
    const err_t rc = tok_open(&tok, TOK_FIXTURE_CHATGLM2);
    tok_close(tok);
    return rc != ERR_UNSUPPORTED;
}

#endif
