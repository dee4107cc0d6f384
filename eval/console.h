/*
 * console.h - writing replies to standard output, so that every way it can fail is an error of
 * ours: a reader that went away (a closed pipe), a full disk, a closed descriptor. Nothing is
 * buffered: what was written is with the reader.
 */
#ifndef EVAL_CONSOLE_H
#define EVAL_CONSOLE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A closed pipe is from now on an error of the write and no silent death of the process. */
void console_open(void);
/* All `size` bytes, whatever signals arrive meanwhile. ERR_IO; ERR_INTERRUPTED: the terminal was
 * closed, which may be known before SIGHUP is. */
MUST_USE err_t console_write(const char *text, int64_t size);
MUST_USE err_t console_puts(const char *text);
/* Whether `error`, of a read or a write of fd, says that its terminal was closed. */
bool console_is_gone(int fd, int error);

#endif
