/*
 * train_runs.h - whole runs of a small model in one process, and what they leave on the disk. Run
 * folders lie below testing_dir().
 *
 *     micro_corpus(RUNS_CORPUS, 10, 4);
 *     assert_ok(runs_train(&step, "run", false, SETTINGS("train.steps", "7")));
 *     assert_ok(runs_train(&step, "run", true, SETTINGS("train.steps", "9")));
 */
#ifndef TESTS_TRAIN_RUNS_H
#define TESTS_TRAIN_RUNS_H

#include "train_fixture.h"

#define RUNS_CORPUS   "runs-corpus"
#define SETTINGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* micro_cfg of RUNS_CORPUS and these settings: key, value, ..., NULL. */
struct cfg *runs_cfg(const char *out, const char *const *settings);
MUST_USE err_t runs_open(struct cfg *cfg, bool resume); /* and close */
/* Such a start in which the n-th passage of the fault point `site` finds no memory: true, and its
 * error names `part`. False when it is passed less often, and the start succeeds. */
bool runs_open_fails(struct cfg *cfg, const char *site, int n, const char *part);
/* A whole start, as the command does it. *step: where it ended. */
MUST_USE err_t runs_train(int64_t *step, const char *out, bool resume, const char *const *settings);

void runs_read(struct buf *out, const char *path);
void runs_same_checkpoint(const char *run_a, const char *run_b, int64_t step);
bool runs_has_checkpoint(const char *run, int64_t step);

#define RUNS_CURVE_MAX 4096
/* Values of `key` in a run's metrics, in order, with their steps. */
struct runs_curve {
    int64_t step[RUNS_CURVE_MAX];
    double value[RUNS_CURVE_MAX];
    int64_t count;
};
struct runs_curve runs_curve(const char *run, const char *key);

#endif
