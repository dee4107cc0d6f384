/*
 * tok_norm.h - how a unigram model sees a text: characters replaced by its table (mostly NFKC),
 * repeated spaces gone, "▁" for those that stay and one in front. Internal to the tokenizer.
 *
 * The same as normalizer.cc of SentencePiece does with add_dummy_prefix, remove_extra_whitespaces
 * and escape_whitespaces, on well-formed UTF-8.
 */
#ifndef DATA_TOK_NORM_H
#define DATA_TOK_NORM_H

#include "base/buf.h"
#include "base/err.h"
#include "data/tok_model.h"
#include "data/tok_trie.h"

#include <stdint.h>

#define TOK_SPACE_POINT 0x2581 /* "▁" */

struct tok_norm {
    const struct tok_model *model; /* borrowed, as is */
    const struct tok_trie *trie;   /* whose user-defined pieces stay as they are */
    uint32_t *units;               /* of the table's trie; NULL = no table */
    const char *strings;           /* its replacements; in the model */
    int32_t *simple;               /* [65536] what a character becomes, whatever follows; or -1 */
};

/* ERR_NOMEM. Close it in any case; zero it before. */
MUST_USE err_t tok_norm_open(struct tok_norm *out, const char *path, const struct tok_model *model,
                             const struct tok_trie *trie);
void tok_norm_close(struct tok_norm *n);

/* Append the code points that text[size], well-formed, is to the model; nothing when only spaces
 * are left. ERR_NOMEM. */
MUST_USE err_t tok_norm_apply(const struct tok_norm *n, struct i32_buf *points, const char *text,
                              int64_t size);

#endif
