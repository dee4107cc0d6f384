/*
 * settings_kind.h - what a setting of a training run is to its result: the one place that says so,
 * for checkpoints (which hold nothing of how a run was started, so that their bytes are the same
 * however it was), for resuming and for ranks.
 *
 *     if (settings_kind("train.zero") == SETTINGS_OF_START) ...
 *     TRY(settings_of_run(&text, cfg));
 */
#ifndef TRAIN_SETTINGS_KIND_H
#define TRAIN_SETTINGS_KIND_H

#include "base/buf.h"
#include "base/cfg.h"
#include "base/err.h"

enum settings_kind {
    SETTINGS_OF_START,   /* another value gives the same bits: where and how fast, what is kept;
                            when to save, too, unless a rollback goes to what was saved */
    SETTINGS_OF_COURSE,  /* may change when a run goes on, and then what follows differs */
    SETTINGS_OF_NUMBERS, /* must stay: another value would be another run */
};
/* Of any key: sections other than train, batch and model are of the start; that a corpus is the
 * same, its sha256 says. */
enum settings_kind settings_kind(const char *key);

/* By value: 5e-5 is 0.00005. */
bool settings_same_value(const struct cfg *a, const struct cfg *b, const struct cfg_row *row);

/* Whether `soulchat train` takes it: what ranks compare. */
bool settings_of_training(const char *key);

/* What checkpoints hold: all but those of the start, as YAML, appended. ERR_NOMEM. */
MUST_USE err_t settings_of_run(struct buf *out, const struct cfg *cfg);

#endif
