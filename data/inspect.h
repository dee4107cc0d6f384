/*
 * inspect.h - what `soulchat inspect` shows, written into a buffer as text for people or as JSON.
 *
 *     gather with inspect_summarise, or fill a micro_batch; then call one of the writers.
 */
#ifndef DATA_INSPECT_H
#define DATA_INSPECT_H

#include "base/buf.h"
#include "base/err.h"
#include "data/batch.h"
#include "data/length_stats.h"
#include "data/sample.h"
#include "data/shard.h"
#include "data/tok.h"

#include <stdbool.h>
#include <stdint.h>

enum inspect_form { INSPECT_TEXT, INSPECT_COLOUR, INSPECT_JSON };

/* ---- a whole corpus ---- */

struct split_summary {
    int64_t dialogues, turns, tokens; /* tokens: of the turns as lines of a prompt */
    struct sample_counts samples;
    struct length_stats sample, prompt, reply; /* rows; tokens without special tokens */
    int64_t pack_len, pack_count;
    double pack_fill;
    int64_t steps_per_epoch;
    double step_fill; /* rows used / rows computed over the steps of one epoch */
};

struct corpus_summary {
    const char *dir;             /* borrowed */
    const struct shards *shards; /* borrowed */
    struct batch_spec spec;
    struct split_summary split[SPLIT_COUNT];
};

/* Counts everything by opening each split in turn; `mix` is for the training split (NULL: every
 * source once). Errors: those of sample_set_open, NOMEM. */
MUST_USE err_t inspect_summarise(struct corpus_summary *out, const char *dir, struct shards *shards,
                                 const struct sample_limits *limits, const struct batch_spec *spec,
                                 const struct sample_mix *mix);
MUST_USE err_t inspect_write_summary(struct buf *out, const struct corpus_summary *summary,
                                     enum inspect_form form);

/* ---- one step: how its samples are dealt and cut ---- */

MUST_USE err_t inspect_write_step(struct buf *out, struct batcher *b, const struct batch_spec *spec,
                                  int64_t step, enum inspect_form form);

/* ---- rows: tokens, labels, weights, segments, positions ---- */

struct inspect_rows {
    const char *title; /* "sample 17 of train" */
    const struct micro_batch *micro;
    struct sample_set *set;
    const struct tok *tok; /* NULL: ids without their pieces */
};
MUST_USE err_t inspect_write_rows(struct buf *out, const struct inspect_rows *rows,
                                  enum inspect_form form);

#endif
