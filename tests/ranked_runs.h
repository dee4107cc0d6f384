/*
 * ranked_runs.h - whole runs (train_runs.h) on several ranks of this machine, each a process, and
 * how they ended.
 *
 *     struct ranked_run run = { .size = 3, .out = "run", .settings = SETTINGS("train.zero", "3") };
 *     ranked_run(&run);
 *     assert_int_equal(run.status[0], 0);
 *
 * What a rank said, its log at level "warn" and its error, is in ranked_words(). Ranks are forked:
 * start no threads (OpenMP's included) in the test before.
 */
#ifndef TESTS_RANKED_RUNS_H
#define TESTS_RANKED_RUNS_H

#include "ranks_fixture.h"
#include "train_runs.h"

#define RANKED_MAX 8

struct ranked_run {
    int64_t size;
    const char *out, *const *settings; /* as runs_train */
    bool resume;
    void (*prepare)(int64_t rank, void *arg); /* in the rank's process, first; NULL: nothing */
    void (*finish)(int64_t rank, err_t rc, void *arg); /* there, when all is closed; or NULL */
    void *arg;
    int status[RANKED_MAX]; /* ranks_fixture.h; 75 for ERR_COMM, 2 for other errors */
};
void ranked_run(struct ranked_run *run);
/* The same, and every rank must end well. */
void ranked_run_well(struct ranked_run *run);

/* What rank `rank` of a run said; good until the next call. */
const char *ranked_words(const struct ranked_run *run, int64_t rank);

#endif
