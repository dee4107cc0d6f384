/*
 * tok_model.h - the inside of a SentencePiece .model file, read and checked by us.
 *
 * The SentencePiece library trusts its model: a cut or altered file can abort the process or make
 * it read outside its tables. So the whole file is checked here first, and only what passed reaches
 * the library. The same pass gives us names, kinds and scores of all pieces and the normalisation
 * table, which is all that decoding and our own encoder (tok_unigram.h) need.
 *
 * The file is one protobuf message: repeated field 1 = piece { 1 name, 2 score, 3 kind }, field 2 =
 * training settings, field 3 = text normalisation, 4 = self test, 5 = denormalisation.
 */
#ifndef DATA_TOK_MODEL_H
#define DATA_TOK_MODEL_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Numbers as in the file. */
enum tok_piece_kind {
    TOK_PIECE_NORMAL = 1,
    TOK_PIECE_UNKNOWN = 2,
    TOK_PIECE_CONTROL = 3,
    TOK_PIECE_USER_DEFINED = 4,
    TOK_PIECE_UNUSED = 5,
    TOK_PIECE_BYTE = 6,
};
enum tok_algorithm { TOK_ALGORITHM_UNIGRAM = 1, TOK_ALGORITHM_BPE = 2 };

#define TOK_MODEL_BYTES_MAX  (256 << 20)
#define TOK_MODEL_PIECES_MAX (1 << 22)

struct tok_model {
    int64_t piece_count;
    struct buf names;        /* of all pieces, one after the other; UTF-8 without NUL */
    int64_t *name_offset;    /* [piece_count + 1] into names */
    uint8_t *kind;           /* [piece_count] enum tok_piece_kind */
    float *score;            /* [piece_count] log probability (unigram); finite */
    int16_t *byte_value;     /* [piece_count] 0..255 for byte pieces, else -1 */
    int32_t byte_piece[256]; /* id of each byte's piece */
    int32_t unknown;         /* id of the one piece for unknown text */
    int algorithm;           /* enum tok_algorithm */
    bool strip_spaces;       /* leading, trailing and repeated spaces are removed */
    struct buf charsmap;     /* the normalisation table, checked; its layout is in tok_norm.c */
};

/*
 * Read bytes[size] of the file called `path` (for messages) into *out, which the caller clears
 * after success and failure alike. ERR_FORMAT: not such a file, cut short, or a table in it points
 * outside; ERR_UNSUPPORTED: a valid model of a kind that no ChatGLM uses; ERR_NOMEM.
 */
MUST_USE err_t tok_model_parse(struct tok_model *out, const char *path, const void *bytes,
                               int64_t size);
void tok_model_clear(struct tok_model *model);

/* The id of a piece by name, or -1. Linear: for the handful of names looked up at opening. */
int32_t tok_model_find(const struct tok_model *model, const char *name);

#ifdef __cplusplus
}
#endif
#endif
