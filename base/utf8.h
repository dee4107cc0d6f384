/*
 * utf8.h - strict UTF-8: what is well-formed, and how ill-formed bytes are repaired.
 *
 * Well-formed means Unicode 15, table 3-7: no surrogates, nothing overlong, nothing above U+10FFFF.
 * Repair replaces each maximal subpart of an ill-formed sequence by one U+FFFD (section 3.9), which
 * is what Python's bytes.decode(errors="replace") does. NUL is an ordinary character.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/*
 * The code point at the start of text[size], size > 0, and its length in bytes. -1 when the bytes
 * are ill-formed; *length is then what one U+FFFD stands for, 1 to 3.
 */
int32_t utf8_decode(int64_t *length, const char *text, int64_t size);

/* The bytes of a code point, 0 to 0x10FFFF and no surrogate; returns how many, 1 to 4. */
int64_t utf8_put(char out[4], int32_t point);

/* Bytes of the white space that well-formed text[size] begins, and ends, with: what Python's
 * str.strip() takes, which is Unicode's white space and the four information separators. */
int64_t utf8_leading_space(const char *text, int64_t size);
int64_t utf8_trailing_space(const char *text, int64_t size);

/* Bytes of the longest well-formed prefix; `size` when everything is. */
int64_t utf8_valid_prefix(const char *text, int64_t size);

/* Append text[size] to *out with ill-formed bytes repaired. Error: ERR_NOMEM. */
MUST_USE err_t utf8_append_repaired(struct buf *out, const char *text, int64_t size);

#ifdef __cplusplus
}
#endif
#endif
