/*
 * progress.h - a progress line for long work: count, percentage, rate, ETA.
 *
 *     struct progress p;
 *     progress_begin(&p, "prepare", "dialogues", total);  // total 0 = unknown
 *     progress_update(&p, done, "kept=%lld", kept);       // cheap; draws at most 10 times a second
 *     progress_end(&p);
 *
 * On a terminal it redraws one line below the log (log_status); elsewhere, and with TERM=dumb, it
 * is a log line of level info every 10 seconds, so a log file stays readable. No colours are used.
 * The end is a log line with the total and the time. Subsystem in the log: `what`.
 * One at a time on a terminal; one thread.
 */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct progress {
    const char *what; /* borrowed until progress_end */
    const char *unit;
    int64_t total, done;
    int64_t done_before; /* done by an earlier start: takes no part in the rate */
    double time_begin_s, time_drawn_s;
    bool is_tty;
};

/* 0 <= total; 0 = unknown. */
void progress_begin(struct progress *p, const char *what, const char *unit, int64_t total);
/* Work that goes on where an earlier start left it: call after progress_begin. */
void progress_resume(struct progress *p, int64_t done_before);
/* `fmt` adds figures of the caller's; NULL adds none. */
void progress_update(struct progress *p, int64_t done, const char *fmt, ...) PRINTF_LIKE(3, 4);
void progress_end(struct progress *p);

#define PROGRESS_LINE_MAX 256
/* What is drawn at the time `now_s`: "45% 12345/27000 dialogues 1.2k/s eta 0:12". */
void progress_format(char out[PROGRESS_LINE_MAX], const struct progress *p, double now_s);

/* Seconds of the monotonic clock. */
double time_now_s(void);
/* "47s", "13:05", "2:13:05", "3d 02:11:09" into out[24], rounded to seconds; "?" for negative, for
 * non-finite and from 10,000 days on. */
void time_format(char out[24], double seconds);

#ifdef __cplusplus
}
#endif
#endif
