/*
 * width.h - columns that text takes on a terminal, so that tables with Chinese in them line up.
 * East Asian wide and fullwidth characters take two, combining marks none (Unicode annex 11, by
 * ranges that cover what Chinese dialogues contain); it does not depend on the locale.
 */
#ifndef DATA_WIDTH_H
#define DATA_WIDTH_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Columns of `size` bytes of UTF-8; what is not UTF-8 counts as one "?" for each
 * U+FFFD that base/utf8.h would put there. */
int64_t text_width(const char *text, size_t size);

/*
 * Append text, cut with "…" where it is wider than `columns` and filled with spaces where it is
 * narrower. Control characters and what is not UTF-8 become "?": a piece of a corpus cannot
 * steer the terminal.
 */
MUST_USE err_t text_pad(struct buf *out, const char *text, size_t size, int64_t columns);

#endif
