/*
 * window.h - a part of a text file that moves on while it is read: the bytes from the next unread
 * one to as far as somebody needed to look. It counts bytes and lines, so that every message can
 * say where. Internal to the readers of corpora.
 *
 * The window grows to what is looked at ahead, at most one record, and forgets what was passed.
 */
#ifndef DATA_WINDOW_H
#define DATA_WINDOW_H

#include "base/buf.h"
#include "base/err.h"
#include "data/input.h"

#include <stdbool.h>
#include <stdint.h>

struct window {
    struct input in;
    struct buf bytes; /* of the text; bytes.data[at] is the next unread one */
    int64_t offset;   /* of bytes.data[0] in the text */
    int64_t at;       /* counted in the window */
    int64_t line;     /* of the next unread byte; the first is 1 */
    bool at_end;      /* all of the input is in the window */
    bool resumable;   /* set by readers: after this ERR_FORMAT the window stands behind what is
                         wrong, and reading can go on */
};

/* A piece of the window: a record, a line. */
struct window_slice {
    const char *text; /* borrowed until the window moves */
    int64_t size;
    int64_t byte_offset, line; /* of its first byte in the text */
};

/* ERR_NOTFOUND, ERR_IO; ERR_FORMAT for what is not UTF-8 text, saying how to convert it. */
MUST_USE err_t window_open(struct window *w, const char *path);
MUST_USE err_t window_open_memory(struct window *w, const char *name, const void *bytes,
                                  int64_t size);
void window_close(struct window *w);

/* Have `extra` more bytes after window position `from`, as far as the file goes; *have counts what
 * is there, which may be more. */
MUST_USE err_t window_fill(struct window *w, int64_t from, int64_t extra, int64_t *have);
/* The byte at a window position, or -1 at the end of the file. */
MUST_USE err_t window_byte(struct window *w, int64_t at, int *byte);
/* Pass over `count` bytes of the window, counting lines. */
void window_advance(struct window *w, int64_t count);
/* Forget what was passed, so that memory stays at one record and one read. */
void window_trim(struct window *w);
/* Advance to the next byte that is not blank; *byte = -1 at the end. */
MUST_USE err_t window_skip_blanks(struct window *w, int *byte);
/* Advance behind the next newline, in constant memory. */
MUST_USE err_t window_skip_line(struct window *w);
/* The line that begins at window position `from`, without its '\n', at most `size_max` bytes of it:
 * *size = size_max then and *whole = false. Nothing is passed. */
MUST_USE err_t window_line(struct window *w, int64_t from, int64_t size_max, int64_t *size,
                           bool *whole);

/* Bytes of the text before the next unread one. */
int64_t window_offset(const struct window *w);
/* ERR_FORMAT: "file:line (byte N): ..." for this place. */
MUST_USE err_t window_raise(const struct window *w, int64_t line, int64_t byte_offset,
                            const char *fmt, ...) PRINTF_LIKE(4, 5);
/* The same for the next unread byte: "found 'x', expected ...". byte = -1: the end of the file. */
MUST_USE err_t window_raise_found(const struct window *w, int byte, const char *expected);

#endif
