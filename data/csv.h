/*
 * csv.h - a table of comma-separated values (RFC 4180), row by row, in constant memory. Internal to
 * corpus.c.
 *
 * The first row names the columns. A field in quotes may hold commas, newlines and quotes, which
 * are doubled; rows end with LF or CRLF; blank lines are passed over. A row with more or fewer
 * fields than the first, a quote inside a field that does not begin with one, anything but a comma
 * or the row's end after a closing quote, text that is not UTF-8, and a row above
 * CORPUS_RECORD_BYTES_MAX are ERR_FORMAT with w->resumable: reading goes on with the line after the
 * mistake. A quote that is never closed swallows the rest of the file and cannot be resumed.
 */
#ifndef DATA_CSV_H
#define DATA_CSV_H

#include "base/buf.h"
#include "base/err.h"
#include "data/window.h"

#include <stdbool.h>
#include <stdint.h>

#define CSV_COLUMNS_MAX 64

/* A zeroed struct stands at the beginning. */
struct csv {
    struct buf row; /* the fields of the row read last, unquoted, a NUL after each */
    int64_t field[CSV_COLUMNS_MAX]; /* where each begins */
    int64_t size[CSV_COLUMNS_MAX];  /* bytes without the NUL */
    int64_t count;
    int64_t columns;           /* of the first row; 0 before it */
    int64_t byte_offset, line; /* where the row begins */
};

/* The next row, the one with the names first. *found = false at the end. */
MUST_USE err_t csv_next(struct csv *c, struct window *w, bool *found);
/* The text of a field of the row read last; may be changed in place. */
char *csv_field(struct csv *c, int64_t column);
/* The column whose name is this; call it while the first row is there. -1 when there is none. */
int64_t csv_column(struct csv *c, const char *name);
void csv_clear(struct csv *c);

#endif
