/*
 * log.h - one line per event on stderr:
 *     12:31:07 info  ckpt   saved step=1200 bytes=1234567 seconds=3.2
 * Level and subsystem are settable by SOULCHAT_LOG=warn,ckpt:debug (base/env.h): levels are debug,
 * info, warn, error and off; the last part that fits a subsystem wins. Lines of
 * several threads do not mix; a progress line on the terminal (base/progress.h) is cleared first
 * and redrawn after. A line is at most LOG_LINE_MAX bytes; control characters in it (a message may
 * quote a file) become spaces. The sink is a piece of process state (see base/err.h).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

#define LOG_LINE_MAX       1024 /* bytes with the NUL; the rest of a longer line is cut */
#define LOG_SUBSYSTEM_MAX  16   /* bytes of a subsystem's name with the NUL */
#define LOG_RULES_MAX      16   /* subsystem:level parts in one spec */

/* `spec` as in SOULCHAT_LOG; ERR_USAGE names the part that is wrong. NULL = "info". */
MUST_USE err_t log_init(const char *spec);
/* What stands before the text of every line from now on, for a program that is several processes:
 * "rank 3"; "" = nothing. At most LOG_NAME_MAX - 1 bytes count. Before there are threads. */
#define LOG_NAME_MAX 32
void log_set_name(const char *name);
void log_line(enum log_level level, const char *subsystem, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Whether a line of this level and subsystem would be printed. */
bool log_enabled(enum log_level level, const char *subsystem);
/* The line kept below the log on a terminal: shown now and after every log line; NULL removes it.
 * Used by base/progress.c. Copied. Call it only when stderr is a terminal. */
void log_status(const char *line);

#define LOG_D(sub, ...) log_line(LOG_DEBUG, sub, __VA_ARGS__)
#define LOG_I(sub, ...) log_line(LOG_INFO, sub, __VA_ARGS__)
#define LOG_W(sub, ...) log_line(LOG_WARN, sub, __VA_ARGS__)
#define LOG_E(sub, ...) log_line(LOG_ERROR, sub, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
