/*
 * bench_packs.h - the micro-batches that benchmarks work on, here and in PyTorch (tests/peer/):
 * from a formula, from a prepared corpus, or from a file of either.
 *
 *     TRY(bench_packs_read(&packs, "packs.safetensors"));
 *     for (each m of step s) use(&packs.micro[packs.step_first[s] + m]);
 *     bench_packs_clear(&packs);
 *
 * The file is in the safetensors format (model/safetensors.h), so that a program without HDF5 and a
 * page of Python read it:
 *     vocab_size          [1]     i32
 *     step_first          [S+1]   i32  step s is micro-batches step_first[s] .. step_first[s+1]-1
 *     NNNNN/ids, pos, block, order          [rows]      i32   of micro-batch NNNNN
 *     NNNNN/segments                        [count, 3]  i32   start, ctx, len
 *     NNNNN/target_rows, labels, weights    [targets]   i32, i32, f32
 */
#ifndef TRAIN_BENCH_PACKS_H
#define TRAIN_BENCH_PACKS_H

#include "base/cfg.h"
#include "base/err.h"
#include "model/glm.h"

#include <stdint.h>

struct bench_packs {
    int64_t vocab_size, steps, micro_count;
    int32_t *step_first;     /* [steps + 1] */
    struct glm_batch *micro; /* [micro_count]; arrays owned */
};

/* `steps` of `micro` micro-batches of bench_batch.h each, all alike; weights 1/targets of a step.
 */
MUST_USE err_t bench_packs_formula(struct bench_packs *out, int64_t steps, int64_t micro,
                                   int64_t rows, int64_t vocab_size);
/* The first `steps` steps that `soulchat train` would take on corpus `dir` with these settings; one
 * lane. ERR_UNSUPPORTED in a build without HDF5. */
MUST_USE err_t bench_packs_corpus(struct bench_packs *out, const struct cfg *cfg, const char *dir,
                                  int64_t steps);
/* ERR_NOTFOUND, ERR_FORMAT: names the file and the tensor. The numbers are checked by the model. */
MUST_USE err_t bench_packs_read(struct bench_packs *out, const char *path);
MUST_USE err_t bench_packs_write(const struct bench_packs *packs, const char *path);
void bench_packs_clear(struct bench_packs *packs);

/* What a model needs room for. */
struct bench_bounds {
    int64_t rows, segments, targets; /* of the largest micro-batch */
};
struct bench_bounds bench_packs_bounds(const struct bench_packs *packs);

#endif
