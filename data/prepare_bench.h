/*
 * prepare_bench.h - what the parts of a preparation cost beside the bare tokenizer, all measured in
 * one run on one corpus with the same threads: the work of `soulchat bench prepare`.
 *
 *     parse       the sources read into turns, on one thread; nothing is done with them
 *     tokenize    the bare tokenizer on the strings of those turns that a corpus needs, in memory
 *     library     the SentencePiece library on the same strings, where our own encoder did those
 *     stream      parse, tokenize the same strings, write shards: a preparation that trusts its
 *                 corpus, in one pass
 *     clean       the cleaning rules on the dialogues, in memory
 *     sign        signatures of the dialogues for the search of duplicates, in memory
 *     prepare     all of `soulchat prepare`, with cleaning, duplicates and splits
 *     first       what was prepared opened, an epoch's packs planned, the first micro-batch filled
 *     random      samples read in random order
 *     load        an epoch of what was prepared, in packs, by the loader
 *
 * Each has seconds of the clock and of the processors. On a busy machine the latter are what can be
 * compared.
 */
#ifndef DATA_PREPARE_BENCH_H
#define DATA_PREPARE_BENCH_H

#include "base/buf.h"
#include "base/err.h"
#include "data/prepare.h"

#include <stdint.h>

enum prepare_bench_part {
    BENCH_PARSE,
    BENCH_TOKENIZE,
    BENCH_LIBRARY,
    BENCH_STREAM,
    BENCH_CLEAN,
    BENCH_SIGN,
    BENCH_PREPARE,
    BENCH_FIRST,
    BENCH_RANDOM,
    BENCH_LOAD,
    BENCH_PREPARE_PARTS
};
extern const char *const prepare_bench_names[BENCH_PREPARE_PARTS];

struct prepare_bench {
    /* 0: not done, as there is no other tokenizer, or as it was asked to stop before its end */
    double wall_s[BENCH_PREPARE_PARTS], cpu_s[BENCH_PREPARE_PARTS];
    int64_t threads, dialogues, turns;
    int64_t text_bytes;            /* of the sources, unpacked */
    int64_t string_bytes, strings; /* given to the tokenizer */
    int64_t tokens;                /* made of them */
    int64_t other_lines;           /* turns that the library cuts otherwise: none */
    int64_t random_samples;
    int64_t load_rows;    /* of samples, without padding */
    double load_waited_s; /* of the loader's caller, who does nothing else */
};

/*
 * The settings are those of a preparation; what is written goes below `o->out`.bench and is removed
 * again. All texts of the corpus are held in memory: data.max_dialogues bounds it. Errors as
 * prepare_run; ERR_ARG: `o->out`.bench exists. After ERR_INTERRUPTED *out has the parts that were
 * done.
 */
MUST_USE err_t prepare_bench_run(struct prepare_bench *out, const struct prepare_options *o);

/* As a table for people, with what each ratio should be; as one line of JSON. */
MUST_USE err_t prepare_bench_table(struct buf *out, const struct prepare_bench *b);
MUST_USE err_t prepare_bench_json(struct buf *out, const struct prepare_bench *b);

#endif
