/*
 * goodput.h - how much of a run's time went into steps that count, over all its starts.
 *
 *     TRY(goodput_open(&goodput, metrics_path, step_first));   // before this start's first line
 *     ... goodput.useful_s += seconds of each step ...
 *     const struct goodput_report report = goodput_now(&goodput);
 *
 * The record is metrics.jsonl: lines "start", "resume", "save" and "stop" tell the clock, and
 * "save" also how many useful seconds lie behind its checkpoint. What was computed after the
 * checkpoint that a start goes on from is lost, and does not count; nor does the time from a crash
 * to the next start. The time from a stop on request to the next start belongs to nobody.
 *
 * Repeated steps are those of the last line before a crash or a rollback that lie behind the
 * checkpoint: with train.log_every above 1 some may be missed.
 *
 * A checkpoint that is written in the background costs the time in which training waits for its
 * copy ("save" has the seconds); that it is on the disk is a line "published" of its own.
 */
#ifndef TRAIN_GOODPUT_H
#define TRAIN_GOODPUT_H

#include "base/err.h"

#include <stdint.h>

/* Of this start alone. */
struct goodput_here {
    int64_t saves;
    double paused_s;            /* training waited for them */
    double stepped_s, waited_s; /* in steps, and of that for samples */
};

struct goodput {
    double begun_s;  /* goodput_clock_s() when this start opened */
    double before_s; /* wall time of the starts before, from the first's begin to this one's */
    double useful_s; /* in steps that led to the present state */
    double saved_s;  /* the same at the last save of this start or before it */
    struct goodput_here here;
    int64_t restarts, repeated;
};

struct goodput_report {
    double wall_s, useful_s, share; /* share: useful_s / wall_s */
    int64_t restarts, repeated;
    struct goodput_here here;
};

/* From the lines so far, where there are any; a line that is none is passed over. `step`: where
 * this start goes on. ERR_IO, ERR_NOMEM. */
MUST_USE err_t goodput_open(struct goodput *out, const char *metrics_path, int64_t step);
struct goodput_report goodput_now(const struct goodput *g);

/* Seconds since 1970. */
double goodput_clock_s(void);

#endif
