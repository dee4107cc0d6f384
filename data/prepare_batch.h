/*
 * prepare_batch.h - some dialogues on their way from the spool to the shards: rows in, token runs
 * out; and small things that the parts of prepare share. Internal to prepare.
 */
#ifndef DATA_PREPARE_BATCH_H
#define DATA_PREPARE_BATCH_H

#include "data/prepare.h"
#include "data/prepare_plan.h"
#include "data/prepare_spool.h"
#include "data/tok.h"

#define BATCH_TEXT_BYTES   (256 << 10) /* a batch is handed over at this size: some 20 ms of work */
#define PREPARE_BATCH_ROWS 1024

struct batch_turn {
    enum role role;
    uint8_t flags;          /* enum turn_flag: those that are not about runs */
    struct shard_turn runs; /* offsets index the batch's ids */
};

struct batch_dialogue {
    int64_t turn_first, turn_count;
    int64_t source; /* index in the options */
    char topic[SHARD_TEXT_MAX];
    uint8_t hash[8];
    enum split split;
};

struct prepare_batch {
    int64_t first, count; /* rows of the spool */
    struct spool_row rows[PREPARE_BATCH_ROWS];
    uint8_t fate[PREPARE_BATCH_ROWS]; /* enum prepare_fate of each */
    struct buf text;
    struct batch_turn *turns;
    int64_t turn_count, turn_capacity;
    struct batch_dialogue *dialogues; /* those that are written */
    int64_t dialogue_count, dialogue_capacity;
    struct i32_buf ids;
    struct turn_text *texts; /* [CORPUS_TURNS_MAX] of one dialogue, with their flags */
    uint8_t *text_flags;
};

/* What all workers read. */
struct batch_context {
    const struct tok *tok;
    const struct prepare_options *options;
    const struct spool *spool;
};

/* Read and tokenize the dialogues of the rows that are written; a pool_work. `context` is a struct
 * batch_context. */
MUST_USE err_t prepare_batch_work(const void *context, void *batch);
void prepare_batch_reset(struct prepare_batch *b);
void prepare_batch_clear(struct prepare_batch *b);

/* ---- shared ---- */

/* A dialogue's hash: the first 8 bytes of sha256 over, for each turn, its role as one byte, its
 * size as 8 bytes little-endian, its text. */
void prepare_hash(uint8_t hash[8], const struct clean_dialogue *d);
/* Topics are labels; one that is longer than the format takes is cut between characters. */
void prepare_topic(char out[SHARD_TEXT_MAX], const char *topic);
/* ERR_INTERRUPTED when the options' stop function says so. */
MUST_USE err_t prepare_check_stop(const struct prepare_options *o);
MUST_USE err_t prepare_source_bytes(int64_t *total, const struct prepare_options *o);

#endif
