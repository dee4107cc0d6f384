/*
 * metrics.h - one JSON object a line, appended as training goes: the record from which curves are
 * drawn.
 *
 *     {"step":12,"loss":2.31,"lr":4.9e-05,"grad_norm":1.2,"tokens":15872,...}
 *     {"step":500,"validation_loss":2.10,"validation_tokens":81234}
 *     {"step":0,"validation_loss_f32":3.07}
 *     {"step":500,"weight_change":1.3e-03,"since_step":0}
 *     {"step":500,"event":"resume","time":1767225600.000}
 *     {"step":600,"event":"save","time":1767225660.000,"seconds":0.2,"useful_seconds":412.5}
 *     {"step":600,"event":"published","time":1767225663.100,"seconds":3.1}
 *     {"step":613,"event":"skip","cause":"spike of the loss","loss":9.1,"grad_norm":2,"limit":3.5}
 *
 * A step's line holds that step's own values, not a mean over the steps since the line before.
 * Each line is one write(2) to a file opened for appending, so a crash or a full disk leaves at
 * most one cut line at the end, which the next line or the next open ends with a newline. What is
 * written before a checkpoint is on the disk before it (metrics_sync): no power cut leaves a run
 * that goes on from a step without the lines that led there. After a resume steps may occur again;
 * the last line of a step holds.
 *
 * Of several ranks one keeps it; to the others', which are not open, nothing is written.
 */
#ifndef TRAIN_METRICS_H
#define TRAIN_METRICS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct guard_decision;
struct goodput_report;

struct metrics {
    int fd;   /* -1: not open */
    bool cut; /* the file ends inside a line */
    const char *path;
};

struct metrics_step {
    int64_t step;                         /* 1 = after the first update */
    double epoch, loss, lr, grad_norm;    /* not finite: written as null, which JSON has */
    double clip_scale, seconds, waited_s; /* waited_s: of the seconds, for samples */
    int64_t samples, stream_first; /* samples of the step, and where they begin in the stream */
    int64_t tokens, tokens_padded, trained_tokens; /* rows without and with padding; targets */
};

/* `path` is borrowed until close. ERR_IO; then nothing is open. */
MUST_USE err_t metrics_open(struct metrics *m, const char *path);
/* ERR_IO: the line is lost, the next may be tried. */
MUST_USE err_t metrics_step(struct metrics *m, const struct metrics_step *s);
MUST_USE err_t metrics_validation(struct metrics *m, int64_t step, double loss, int64_t tokens);
/* base_loss.h */
MUST_USE err_t metrics_base_loss(struct metrics *m, double loss);
/* drift.h; since: the step of the sample before. */
MUST_USE err_t metrics_weight_change(struct metrics *m, int64_t step, double change, int64_t since);
/* "start", "resume" or "stop"; `time` in seconds since 1970. */
MUST_USE err_t metrics_clock(struct metrics *m, int64_t step, const char *event, double time);
/* A checkpoint for which training waited `seconds`; `useful` seconds of steps led to it. */
MUST_USE err_t metrics_save(struct metrics *m, int64_t step, double time, double seconds,
                            double useful);
/* It is on the disk, `seconds` after it was begun. */
MUST_USE err_t metrics_published(struct metrics *m, int64_t step, double time, double seconds);
MUST_USE err_t metrics_goodput(struct metrics *m, int64_t step, const struct goodput_report *g);
/* A step that the guard did not simply let pass. */
MUST_USE err_t metrics_guard(struct metrics *m, int64_t step, const struct guard_decision *decision,
                             double loss, double grad_norm);
/* Lines so far become durable. ERR_IO. */
MUST_USE err_t metrics_sync(struct metrics *m);
void metrics_close(struct metrics *m);

#endif
