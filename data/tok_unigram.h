/*
 * tok_unigram.h - texts to ids by a unigram model: of all ways to cut a text into pieces, the one
 * with the largest sum of scores. Internal to the tokenizer.
 *
 * The ids are those of the SentencePiece library (0.1.97, its only and "optimized" search), bit for
 * bit: sums are kept in float32, and of equal sums the one stays that was found first, so near ties
 * are decided as there. Characters without a piece become byte pieces.
 *
 * Source: Kudo 2018, "Subword Regularization" (arXiv:1804.10959), section 3; the search is
 * Viterbi's over the places between characters.
 */
#ifndef DATA_TOK_UNIGRAM_H
#define DATA_TOK_UNIGRAM_H

#include "base/buf.h"
#include "base/err.h"
#include "data/tok_model.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tok_unigram;

struct tok_part {
    const char *text;
    int64_t size;
};

/* Yours; tok_unigram_close it (NULL allowed). Borrows the model, which was parsed and is a unigram
 * one that strips spaces. ERR_FORMAT: a name is there twice; ERR_NOMEM. */
MUST_USE err_t tok_unigram_open(struct tok_unigram **out, const char *path,
                                const struct tok_model *model);
void tok_unigram_close(struct tok_unigram *u);

/*
 * Append the ids of each of count texts, well-formed UTF-8, one after the other; ids->count after
 * text i goes to ends[i]. Each has the ids that it has alone. Which pieces begin where is looked up
 * once for what all of them end with. ERR_NOMEM; takes up to 100 bytes for each byte of text.
 */
#define TOK_UNIGRAM_PARTS_MAX 3
MUST_USE err_t tok_unigram_encode(const struct tok_unigram *u, struct i32_buf *ids, int64_t *ends,
                                  const struct tok_part *parts, int64_t count);

#ifdef __cplusplus
}
#endif
#endif
