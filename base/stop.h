/*
 * stop.h - signals as questions that long work asks between pieces.
 *
 *     TRY(stop_catch());
 *     while (...) { if (stop_requested()) RAISE(INTERRUPTED, "stopped at step %lld", step); ... }
 *     ... exit(stop_status()) ...
 *
 *     Ctrl-C, SIGTERM   stop: end cleanly, status 130. A second one ends the process at once, for
 *                       people who mean it.
 *     SIGHUP            the same, when a terminal is closed.
 *     Ctrl-C and SIGHUP mean nothing to a process that was started with them ignored: by nohup, or
 *     with & by a script.
 *     SIGUSR2           the time is nearly up: stop as well, but the work is to be taken up again,
 *                       which is what status STOP_STATUS_AGAIN tells a batch system. SIGTERM beside
 *                       it, before or after, changes nothing: batch systems send both.
 *     SIGUSR1           save what there is and go on (stop_take_save)
 *     SIGPIPE           ignored: whoever read the log may leave, and long work goes on.
 *
 * Flags and thread are process state, as signals are.
 */
#ifndef BASE_STOP_H
#define BASE_STOP_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define STOP_STATUS_ASKED 130
#define STOP_STATUS_AGAIN 79 /* free in sysexits.h and of the shell's own */

/* Take these signals from now on, in a thread of their own; all others block them. Called before
 * any other thread is started; idempotent. ERR_NOMEM: no thread. */
MUST_USE err_t stop_catch(void);
/* Block these signals, for a program that is about to be executed: what comes before it calls
 * stop_catch waits for that, instead of ending it as though it had crashed. */
void stop_hold(void);
/* Whether signal_number is SIGINT, SIGHUP or SIGTSTP and ignored, as nohup, a script's & or a shell
 * without job control has it. Who takes signals by sigwait(3) or its kin must ask: while they are
 * blocked, these come all the same. */
bool stop_is_ignored(int signal_number);
/* What Ctrl-Z does to a process that has not blocked SIGTSTP, for one that has and took it to tell
 * its children. Returns when continued, or at once where nobody could continue it. */
void stop_suspend(void);
/* As if SIGUSR2 came so many seconds from now; 0: never. After stop_catch. */
void stop_after(int64_t seconds);
bool stop_requested(void);
/* Wait until fd has something to read, its end or an error included; false when asked to stop. A
 * plain read(2) knows nothing of signals, and a person at a prompt would press Ctrl-C in vain. */
bool stop_wait_readable(int fd);
int stop_signal(void);     /* SIGUSR2 if it came, else the first of the others; 0: none */
int stop_status(void);     /* how a process that stopped on request ends */
bool stop_take_save(void); /* whether SIGUSR1 came since the last call */
void stop_reset(void);

#endif
