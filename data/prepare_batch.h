/*
 * prepare_batch.h - some dialogues on their way from the reader to the writer: text in, token runs
 * out. Internal to prepare.c.
 */
#ifndef DATA_PREPARE_BATCH_H
#define DATA_PREPARE_BATCH_H

#include "data/prepare.h"
#include "data/tok.h"

#define BATCH_TEXT_BYTES (256 << 10) /* a batch is handed over at this size: some 20 ms of work */

struct batch_turn {
    enum role role;
    int64_t text_off, size;
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
    struct buf text;
    struct batch_turn *turns;
    int64_t turn_count, turn_capacity;
    struct batch_dialogue *dialogues;
    int64_t dialogue_count, dialogue_capacity;
    struct i32_buf ids;
};

/* What all workers read. */
struct batch_context {
    const struct tok *tok;
    const struct prepare_options *options;
};

/* Append a cleaned dialogue. ERR_NOMEM. */
MUST_USE err_t prepare_batch_add(struct prepare_batch *b, const struct clean_dialogue *d,
                                 int64_t source, const char *topic);
/* Hash, split and tokenize all dialogues; a pool_work. `context` is a struct batch_context. */
MUST_USE err_t prepare_batch_work(const void *context, void *batch);
void prepare_batch_reset(struct prepare_batch *b);
void prepare_batch_clear(struct prepare_batch *b);

/* The split of a dialogue: sha256(seed as 8 bytes little-endian, hash), its first 8 bytes
 * little-endian, mod 10,000: the lowest numbers are validation, the next ones test. */
enum split prepare_split(uint64_t seed, const uint8_t hash[8], int64_t validation_permyriad,
                         int64_t test_permyriad);

#endif
