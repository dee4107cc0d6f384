/* tokenize.h - the work of `soulchat tokenize` on any two streams: one JSON value a line. */
#ifndef DATA_TOKENIZE_H
#define DATA_TOKENIZE_H

#include "base/err.h"
#include "data/tok.h"

#include <stdbool.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tokenize_options {
    bool decode;  /* {"ids":[...]} or [...] to a JSON string, instead of the reverse */
    bool special; /* TOK_PARSE_SPECIAL */
    bool pieces;  /* add "pieces":[...] to the ids */
};

/*
 * Until `in` ends. Each result is flushed with its line, so that another program can ask and wait.
 * Lines may have any length up to memory; a last line without newline counts. ERR_FORMAT "line 3:
 * ..." for a line that is not what it should be (earlier lines have been answered), ERR_ARG for an
 * id or text outside the limits of tok.h, ERR_IO when reading or writing stops, ERR_NOMEM.
 */
MUST_USE err_t tokenize_lines(FILE *out, FILE *in, const struct tok *tok,
                              const struct tokenize_options *options);

#ifdef __cplusplus
}
#endif
#endif
