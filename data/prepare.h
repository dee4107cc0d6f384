/*
 * prepare.h - the work of `soulchat prepare`: corpora in, a prepared directory out.
 *
 *     read -> clean -> (hash, split, tokenize: in parallel) -> write, in the order of the corpus
 *
 * The bytes written depend on the sources and the options alone, not on the number of threads. The
 * directory appears whole or not at all (data/shard.h), also when the work is stopped.
 */
#ifndef DATA_PREPARE_H
#define DATA_PREPARE_H

#include "base/buf.h"
#include "base/cfg.h"
#include "base/err.h"
#include "data/chat.h"
#include "data/clean.h"
#include "data/corpus.h"
#include "data/shard.h"

#include <stdbool.h>
#include <stdint.h>

#define PREPARE_SOURCES_MAX 256
#define PREPARE_THREADS_MAX 256

struct prepare_source {
    const char *path;
    const char *name; /* as kept in the shards: the last part of the path, if that tells it apart */
};

struct prepare_options {
    struct prepare_source source[PREPARE_SOURCES_MAX];
    int64_t source_count;
    char *source_text; /* what the sources borrow from */
    enum corpus_form form;
    enum corpus_on_bad_record on_bad_record;
    const char *tokenizer, *out; /* borrowed from the settings */
    const char *licence, *attribution;
    struct chat_template template;
    struct shard_writer_spec shards;
    uint64_t split_seed;
    int64_t validation_permyriad, test_permyriad;
    int64_t max_dialogues; /* 0 = all */
    int64_t threads;       /* 0 = one for each processor */
    bool (*stop)(void *context); /* asked often; true: ERR_INTERRUPTED. NULL = never */
    void *stop_context;
};

/* From section `data`; ERR_USAGE names what is missing. prepare_options_clear it. */
MUST_USE err_t prepare_options_from_cfg(struct prepare_options *out, const struct cfg *cfg);
void prepare_options_clear(struct prepare_options *o);

/* What was found in one source. */
struct prepare_source_counts {
    enum corpus_form form;
    int64_t bytes, dialogues, bad_records;
};

struct prepare_split_counts {
    int64_t dialogues, samples;
};

/* Everything that is counted; printed by prepare_report_*. */
struct prepare_counts {
    struct prepare_source_counts source[PREPARE_SOURCES_MAX];
    int64_t rule[CLEAN_RULES_MAX];
    struct prepare_split_counts split[SPLIT_COUNT];
    int64_t read, bad_records;         /* dialogues as read; records that were not dialogues */
    int64_t dialogues, turns, samples; /* written; a sample is a reply with something before it */
    int64_t tokens, prompt_line_tokens, target_tokens; /* all; in ctx runs; in targets */
    int64_t first_stored;                              /* turns whose first run had to be kept */
    double seconds;
};

/*
 * ERR_FORMAT: a source without a dialogue, no dialogue left after cleaning (the message has the
 * counters), a bad record with on_bad_record = fail. ERR_ARG: `out` exists. ERR_INTERRUPTED:
 * stopped. After any error nothing is left.
 */
MUST_USE err_t prepare_run(struct prepare_counts *counts, const struct prepare_options *o);

/* The report as a JSON object (it goes into prepared.json: no times) and as a table for people. */
MUST_USE err_t prepare_report_json(struct buf *out, const struct prepare_counts *counts,
                                   const struct prepare_options *o);
MUST_USE err_t prepare_report_table(struct buf *out, const struct prepare_counts *counts,
                                    const struct prepare_options *o);

#endif
