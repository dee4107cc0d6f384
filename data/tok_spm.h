/*
 * tok_spm.h - the SentencePiece library behind three C functions. No exception leaves them.
 *
 * Only encoding is used; the file was checked by tok_model_parse() before it comes here. A tok_spm
 * is immutable: any number of threads may encode with it at once.
 */
#ifndef DATA_TOK_SPM_H
#define DATA_TOK_SPM_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tok_spm;

/* Yours; tok_spm_close it. `path` is for messages. ERR_FORMAT with the library's reason; ERR_NOMEM.
 * */
MUST_USE err_t tok_spm_open(struct tok_spm **out, const char *path, const void *bytes,
                            int64_t size);
void tok_spm_close(struct tok_spm *spm);

/* Append the ids of text[size], well-formed UTF-8. ERR_NOMEM; ERR_FORMAT with the library's reason.
 * */
MUST_USE err_t tok_spm_encode(const struct tok_spm *spm, struct i32_buf *ids, const char *text,
                              int64_t size);

#ifdef __cplusplus
}
#endif
#endif
