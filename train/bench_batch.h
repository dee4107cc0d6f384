/*
 * bench_batch.h - a micro-batch like those of real dialogues, from a formula: benchmarks here and
 * in PyTorch (tests/peer/) work on the same one.
 *
 * Segments cycle through six (prompt, reply) lengths whose mean, 315 rows with 52 trained, is that
 * of SMILE:
 *     (120,30) (210,48) (264,52) (330,60) (450,75) (195,47)
 * ctx = prompt + 1, rows = prompt + reply + 3; the last one is cut to fill the micro-batch. Token of
 * row r is (r*7919 + 13) mod (V - 8); its label the token of row r+1.
 */
#ifndef TRAIN_BENCH_BATCH_H
#define TRAIN_BENCH_BATCH_H

#include "base/err.h"
#include "model/glm.h"

#include <stdint.h>

/* Yours; bench_batch_clear it. `rows` > 0 rows, all of them in segments. */
MUST_USE err_t bench_batch_create(struct glm_batch *out, int64_t rows, int64_t vocab_size);
void bench_batch_clear(struct glm_batch *batch);

#endif
