/*
 * tok.h - text to token ids and back, exactly as the ChatGLM family does it.
 *
 *     struct tok *tok;
 *     TRY(tok_open(&tok, "models/chatglm-6b")); // with ice_text.model or tokenizer.model
 *     TRY_DONE(tok_encode(tok, &ids, text, size, TOK_PLAIN));
 *     tok_close(tok);
 *
 * Two families: ChatGLM-6B (ice_text.model, unigram) and ChatGLM2-6B (tokenizer.model, BPE); the
 * layout of their ids is at the top of tok_open.c. The family is read from the pieces in the file,
 * never guessed from a file name. No special token is ever produced from user text unless
 * TOK_PARSE_SPECIAL is given: "<sop>" typed by a person stays text, because a <sop> inside a prompt
 * would move the boundary between context and target. Typed literally, in ChatGLM-6B:
 *
 *     text                                        TOK_PLAIN           TOK_PARSE_SPECIAL
 *     <sop> <eop> <unk> <pad> [MASK]              ordinary text       the special id
 *     [gMASK] [sMASK] <s> </s> <ENC> <dBLOCK>     ordinary text       ordinary text
 *     <n> <|tab|> <|blank_2|> .. <|blank_80|>     the white space     the white space
 *     <0x00> .. <0xFF>                            ordinary text       ordinary text
 *
 * The third row is what the reference does (SentencePiece matches these pieces itself) and is
 * harmless: they mean white space, decode to it and mark no boundary. Next to a name of the first
 * row, TOK_PARSE_SPECIAL removes white space, as the reference does. In ChatGLM2 every row is
 * ordinary text in both modes: its special tokens are not in the file and its class registers none.
 *
 * Bytes that are not UTF-8 are replaced by U+FFFD, one for each maximal ill-formed subsequence
 * (Unicode 15, section 3.9, the way Python's errors="replace" does it); ChatGLM-6B's normalisation
 * then drops U+FFFD and most control characters. NUL is an ordinary character. A tok is immutable
 * after opening: any number of threads may use it at once.
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

/* Ids of the special tokens, all from the file. `eos` ends a reply: <eop> in ChatGLM-6B, </s> in
 * ChatGLM2, whose pad is its unk. */
struct tok_specials {
    int32_t unk, pad, mask, gmask, smask, sop, eop, eos;
    int32_t newline; /* what "\n" becomes when alone inside text: "<n>" or the byte piece */
    int32_t space;   /* the piece "▁" (U+2581) that a leading dummy space becomes */
};

enum tok_mode {
    TOK_PLAIN = 0,         /* text in, text tokens out; literal special names stay text */
    TOK_PARSE_SPECIAL = 1, /* as the reference's Python class: registered names become ids */
};

struct tok;

/*
 * Open the tokenizer of a model folder, or a .model file itself. Yours; tok_close it (NULL
 * allowed). ERR_NOTFOUND: neither file is there (names both). ERR_FORMAT: not a SentencePiece
 * model, cut short or damaged, a Git LFS pointer (says so), or special pieces are missing.
 * ERR_UNSUPPORTED: another family (GLM-4, the first ChatGLM-6B vocabulary, a config.json beside it
 * with another model_type).
 */
MUST_USE err_t tok_open(struct tok **out, const char *path);
/* The same, with the SentencePiece library doing the work that our own encoder does for ChatGLM-6B:
 * what that one is compared with. ERR_UNSUPPORTED in a build without the library. */
MUST_USE err_t tok_open_library(struct tok **out, const char *path);
void tok_close(struct tok *tok);

/* Append the ids of `size` bytes of text. No special tokens are added around it.
 * Errors: ERR_NOMEM; ERR_ARG when size > TOK_TEXT_BYTES_MAX. */
#define TOK_TEXT_BYTES_MAX (16 << 20) /* it takes up to 270 bytes for each of them */
MUST_USE err_t tok_encode(const struct tok *tok, struct i32_buf *ids, const char *text,
                          int64_t size, enum tok_mode mode);

/*
 * The same as `from_count` calls of tok_encode with TOK_PLAIN, one for text[from[i], size), in one:
 * ids->count after each goes to ends[i]. Where the parts are alike their work is shared, so that a
 * line with and without what leads to it costs little more than one of them. On errors nothing is
 * appended.
 */
#define TOK_FROM_MAX 3
MUST_USE err_t tok_encode_from(const struct tok *tok, struct i32_buf *ids, int64_t *ends,
                               const char *text, int64_t size, const int64_t *from,
                               int64_t from_count);

/*
 * Append the text of ids[count]. Special ids (pad, masks, sop, eop, ...) vanish, as in the
 * reference with skip_special_tokens, and so do ids of the embedding's padding rows, up to
 * TOK_PADDING_IDS_MAX after the last piece. The result is always valid UTF-8: a byte piece that is
 * no part of a character becomes U+FFFD. Errors: ERR_ARG names the first id outside of that,
 * nothing is appended; ERR_NOMEM.
 */
#define TOK_PADDING_IDS_MAX 512
MUST_USE err_t tok_decode(const struct tok *tok, struct buf *text, const int32_t *ids,
                          int64_t count);

/*
 * Streaming decode: give the ids so far, get the text that is final, i.e. that no later id can
 * change (whole characters, no half of a marker such as "<n>"). *text receives only what was not
 * given before. `emitted` is the caller's counter of bytes given out so far, 0 at the start. `last`
 * flushes the rest, each byte of an incomplete character as U+FFFD. What all calls gave, joined,
 * equals tok_decode(). Each call decodes from the start: cheap for replies of some thousand tokens.
 * Errors as tok_decode.
 */
MUST_USE err_t tok_decode_stream(const struct tok *tok, struct buf *text, int64_t *emitted,
                                 const int32_t *ids, int64_t count, int last);

enum tok_family tok_family(const struct tok *tok);
const char *tok_family_name(enum tok_family family); /* "chatglm", "chatglm2" */
const struct tok_specials *tok_specials(const struct tok *tok);
int64_t tok_vocab_size(const struct tok *tok); /* pieces with a text or a name, and specials */
const char *tok_sha256(const struct tok *tok); /* hex of the .model file's bytes */
const char *tok_path(const struct tok *tok);   /* of the .model file that was opened */
/* A printable name of one id for inspection: "▁你好", "<sop>", "<0xE4>"; appended to *name. */
MUST_USE err_t tok_piece(const struct tok *tok, struct buf *name, int32_t id);

#ifdef __cplusplus
}
#endif
#endif
