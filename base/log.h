/*
 * log.h - one line per event on stderr:
 *     12:31:07 info  ckpt   saved step=1200 bytes=1234567 seconds=3.2
 * Level and subsystem are settable by SOULCHAT_LOG=warn,ckpt:debug (base/env.h). Lines of
 * several threads do not mix; a progress line on the terminal (base/progress.h) is cleared first
 * and redrawn after. The sink is one of the three pieces of process state.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

/* `spec` as in SOULCHAT_LOG; ERR_USAGE names the part that is wrong. NULL = "info". */
MUST_USE err_t log_init(const char *spec);
void log_line(enum log_level level, const char *subsystem, const char *fmt, ...) PRINTF_LIKE(3, 4);

#define LOG_D(sub, ...) log_line(LOG_DEBUG, sub, __VA_ARGS__)
#define LOG_I(sub, ...) log_line(LOG_INFO, sub, __VA_ARGS__)
#define LOG_W(sub, ...) log_line(LOG_WARN, sub, __VA_ARGS__)
#define LOG_E(sub, ...) log_line(LOG_ERROR, sub, __VA_ARGS__)

#ifdef __cplusplus
}
#endif
#endif
