/*
 * progress.h - a progress line for long work: count, percentage, rate, ETA.
 *
 *     struct progress p;
 *     progress_begin(&p, "prepare", "dialogues", total);  // total 0 = unknown
 *     progress_update(&p, done, "kept=%lld", kept);       // cheap; draws at most 10 times a second
 *     progress_end(&p);
 *
 * On a terminal it redraws one line with \r; elsewhere it prints a line every 10 seconds, so a log
 * file stays readable. NO_COLOR and TERM=dumb are honoured. Writes to stderr.
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
    double time_begin_s, time_drawn_s;
    bool is_tty;
};

void progress_begin(struct progress *p, const char *what, const char *unit, int64_t total);
void progress_update(struct progress *p, int64_t done, const char *fmt, ...) PRINTF_LIKE(3, 4);
void progress_end(struct progress *p);

/* Seconds of the monotonic clock. */
double time_now_s(void);
/* "2:13:05", "47s", "3d 02:11:09" into out[24]; "?" for negative or non-finite. */
void time_format(char out[24], double seconds);

#ifdef __cplusplus
}
#endif
#endif
