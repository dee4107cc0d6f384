/*
 * supervise.h - `soulchat train --restarts N`: a parent that starts training again after a crash.
 *
 * The parent runs this program with the same arguments, less --restarts, and waits. How the child
 * ended decides:
 *     0, 2 (usage), 79 and 130 (stopped on request), or any end after SIGINT, SIGTERM or SIGHUP
 *                          that is final
 *     1 at the first start, with nothing recorded
 *                          final, too: what is missing or wrong then will be so again
 *     all else             a crash, a lost rank (75), a full disk, ...: again, with --resume
 * An end after which the newest checkpoint is a newer one than at the start counts as progress;
 * after N ends in a row without progress the parent gives up. The first start after progress, or
 * the first at all, comes at once, the next after 1 s, 2 s, 4 s, ... at most a minute.
 *
 * SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are passed on, unless ignored; Ctrl-Z (SIGTSTP)
 * suspends the child, too, until the parent is continued. When the parent is killed, the child
 * gets SIGTERM: it saves and ends. With --ranks the child is the launcher of the ranks.
 */
#ifndef TRAIN_SUPERVISE_H
#define TRAIN_SUPERVISE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Whether an end with this status (128 + signal for a signal) is one to start again after. */
bool supervise_is_crash(int status);
/* Seconds to wait before the start after `failures` ends in a row without progress. */
double supervise_pause_s(int64_t failures);

struct supervise_args {
    int64_t failures_max;  /* in a row without progress */
    const char *ckpt_root; /* where checkpoints appear */
    const char *record;    /* a file that is there once a run has begun */
    int argc;
    char *const *argv; /* the command's, argv[0] its name */
};

/*
 * Options --restarts and --resume are taken out of the arguments and the latter put in as needed.
 * *status: the last child's, which has said why. The calling process has one thread; SIGCHLD gets
 * its default action. ERR_NOMEM: no child could be started.
 */
MUST_USE err_t supervise(int *status, const struct supervise_args *args);

#endif
