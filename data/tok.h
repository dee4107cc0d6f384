/*
 * tok.h - text to token ids and back, exactly as the ChatGLM family does it.
 *
 *     struct tok *tok;
 *     TRY(tok_open(&tok, "models/chatglm-6b"));      // a folder with ice_text.model or tokenizer.model
 *     TRY_DONE(tok_encode(tok, &ids, text, size, TOK_PLAIN));
 *     tok_close(tok);
 *
 * Two families: ChatGLM-6B (ice_text.model, unigram, ids as in spec of tok_glm.c) and ChatGLM2-6B
 * (tokenizer.model, BPE). The family is read from the file's own special pieces, never guessed from
 * a file name. No special token is ever produced from user text unless TOK_PARSE_SPECIAL is given:
 * "<sop>" typed by a person stays text, because a <sop> inside a prompt would move the boundary
 * between context and target.
 *
 * Bytes that are not UTF-8 are replaced by U+FFFD, one for each maximal ill-formed subsequence
 * (Unicode 15, section 3.9, the way Python's errors="replace" does it); NUL is an ordinary character.
 * A tok is immutable after opening: any number of threads may use it at once.
 */
#ifndef DATA_TOK_H
#define DATA_TOK_H

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum tok_family { TOK_CHATGLM, TOK_CHATGLM2 };

/* Ids of the special pieces; -1 where the family has none. All come from the file. */
struct tok_specials {
    int32_t unk, pad, mask, gmask, smask, sop, eop, eos;
    int32_t newline; /* what "\n" becomes when alone inside text: "<n>" or the byte piece */
    int32_t space;   /* the piece "▁" (U+2581) that a leading dummy space becomes */
};

enum tok_mode {
    TOK_PLAIN = 0,         /* text in, text tokens out; literal special names stay text */
    TOK_PARSE_SPECIAL = 1, /* as the reference's Python class: registered special names become ids */
};

struct tok;

/*
 * Open the tokenizer of a model folder, or a .model file itself. Yours; tok_close it (NULL allowed).
 * ERR_NOTFOUND: neither file is there (names both). ERR_FORMAT: not a SentencePiece model, a Git LFS
 * pointer (says so), or special pieces are missing. ERR_UNSUPPORTED: another family (GLM-4, ...).
 */
MUST_USE err_t tok_open(struct tok **out, const char *path);
void tok_close(struct tok *tok);

/* Append the ids of `size` bytes of text. No special tokens are added around it.
 * Errors: ERR_NOMEM; ERR_ARG when size > TOK_TEXT_BYTES_MAX. */
#define TOK_TEXT_BYTES_MAX (64 << 20)
MUST_USE err_t tok_encode(const struct tok *tok, struct i32_buf *ids, const char *text, int64_t size,
                          enum tok_mode mode);

/*
 * Append the text of ids[count]. Special ids (pad, masks, sop, eop, ...) vanish, as in the reference
 * with skip_special_tokens. ERR_ARG names the first id outside 0..vocab_size-1; ids that are in the embedding's
 * padding (no piece) vanish. The result is valid UTF-8 except where byte pieces of the ids are cut: see
 * tok_stream for streaming.
 */
MUST_USE err_t tok_decode(const struct tok *tok, struct buf *text, const int32_t *ids, int64_t count);

/*
 * Streaming decode: give the ids so far, get the text that is final, i.e. that no later id can change (whole UTF-8
 * characters; a leading-space rule already applied). *text receives only what was not given before.
 * `emitted` is the caller's counter of bytes given out so far, 0 at the start. `last` flushes the rest, an incomplete
 * character as U+FFFD.
 */
MUST_USE err_t tok_decode_stream(const struct tok *tok, struct buf *text, int64_t *emitted,
                                 const int32_t *ids, int64_t count, int last);

enum tok_family tok_family(const struct tok *tok);
const char *tok_family_name(enum tok_family family); /* "chatglm", "chatglm2" */
const struct tok_specials *tok_specials(const struct tok *tok);
int64_t tok_vocab_size(const struct tok *tok);      /* pieces with a text or a name, specials included */
const char *tok_sha256(const struct tok *tok);      /* hex of the .model file's bytes */
const char *tok_path(const struct tok *tok);        /* of the .model file that was opened */
/* A printable name of one id for inspection: "▁你好", "<sop>", "<0xE4>"; appended to *name. */
MUST_USE err_t tok_piece(const struct tok *tok, struct buf *name, int32_t id);

#ifdef __cplusplus
}
#endif
#endif
