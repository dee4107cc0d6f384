/* prepare_bench_parts.h - what the parts of the benchmark of a preparation share. Internal to it.
 */
#ifndef DATA_PREPARE_BENCH_PARTS_H
#define DATA_PREPARE_BENCH_PARTS_H

#include "base/file.h"
#include "data/prepare_batch.h"
#include "data/prepare_bench.h"

#include <stdbool.h>
#include <stdint.h>

/* A turn's line as a later one of a prompt, "\n用户：text". The first line of a prompt and the
 * reply alone are ends of it. */
struct line {
    enum role role;
    bool target;
    uint64_t ids_hash;       /* of what the tokenizer made of the three */
    int64_t off, head, size; /* bytes: where it begins; before the text; of the text */
};

struct some { /* dialogues that one worker does at a time */
    struct buf text;
    struct line *lines;
    int64_t line_count, line_capacity;
    struct batch_dialogue *dialogues;
    int64_t dialogue_count, dialogue_capacity;
    struct i32_buf ids;
    struct batch_turn *turns;                        /* [line_count] the runs, for writing */
    int64_t turn_capacity, token_count, other_count; /* lines that the library cuts otherwise */
};

struct bench {
    const struct prepare_options *options;
    struct prepare_bench *out;
    struct tok *tok, *library; /* NULL: this build or family has one tokenizer */
    struct clean_rules *rules;
    struct some *all; /* [all_count] the corpus in memory */
    int64_t all_count, all_capacity;
    char dir[FILE_PATH_MAX];
    bool created; /* the folder */
    double wall_begin_s, cpu_begin_s;
};

/* Around a part: its seconds of the clock and of the processors. */
void bench_begin(struct bench *b);
void bench_end(struct bench *b, enum prepare_bench_part part);

/* `use` gets each dialogue and its source's index; NULL: they are only read. */
MUST_USE err_t bench_read_sources(struct bench *b,
                                  err_t (*use)(void *, const struct dialogue_text *, int64_t),
                                  void *context);

MUST_USE err_t some_add_dialogue(struct some *s, const struct chat_template *t,
                                 const struct dialogue_text *d, int64_t source);
void some_reset(struct some *s);
void some_clear(struct some *s);

/* Parse, tokenize, write: BENCH_STREAM. */
MUST_USE err_t bench_run_stream(struct bench *b);

/* What trains on the corpus in `dir`: BENCH_FIRST, BENCH_RANDOM, BENCH_LOAD. */
MUST_USE err_t bench_run_load(struct bench *b, const char *dir);

#endif
