/*
 * watchdog.h - every rank tells that it lives, once a second; when one does not, or says that it
 * failed, all end within seconds and say why.
 *
 *     TRY(watchdog_start(&watchdog, &(struct watchdog_args){ .meeting = meeting }));
 *     TRY(comm_open(&comm, ...));
 *     watchdog_watch(watchdog, comm);
 *     ... train ...
 *     watchdog_watch(watchdog, NULL);
 *     comm_close(comm);
 *     rc = watchdog_finish(watchdog);            // or watchdog_fail(watchdog, "why")
 *
 * A thread of its own sends {step, phase, collective} over the rendezvous connections: each rank to
 * rank 0, and rank 0 to each. A rank that computes, or saves, for minutes is alive; one that was
 * killed closes its connections; one that is stopped, or whose machine is gone, falls silent.
 * Rank 0 watches all and tells the others of a loss; they watch rank 0.
 *
 * On a loss the thread writes one line (who, why, at which step, in which phase and collective),
 * aborts the communicator and ends the process with RANKS_STATUS_LOST. It does not wait for the
 * main thread, which may hang in an exchange. Nothing is saved: the run goes on from its last
 * checkpoint.
 */
#ifndef TRAIN_WATCHDOG_H
#define TRAIN_WATCHDOG_H

#include "base/err.h"

struct comm;
struct rendezvous;
struct watchdog;

struct watchdog_args {
    struct rendezvous *meeting; /* its connections are the watchdog's from now on */
    double beat_s;              /* 0: 1 s */
    double silence_s;           /* of a rank that counts as lost; 0: 5 s */
    double finish_s;            /* how far apart ranks may finish; 0: 1800 s */
};

/* Yours; watchdog_finish or watchdog_fail ends it. */
MUST_USE err_t watchdog_start(struct watchdog **out, const struct watchdog_args *args);

/* The communicator whose activity is told, whose errors count, and which is aborted on a loss; NULL
 * before it is closed. */
void watchdog_watch(struct watchdog *watchdog, struct comm *comm);

/* This rank has done its work. Returns when all have; until then it goes on watching. ERR_COMM: not
 * all within finish_s. Ends the watchdog either way; NULL allowed. */
MUST_USE err_t watchdog_finish(struct watchdog *watchdog);

/* The communicator failed on this rank. That another was lost may be why, of which the thread hears
 * within a second, and then ends the process; returns when it was not so. NULL allowed. */
void watchdog_settle(const struct watchdog *watchdog);

/* This rank leaves with an error: the others are told which it is and why, and end. NULL
 * allowed. */
void watchdog_fail(struct watchdog *watchdog, const char *cause);

#endif
