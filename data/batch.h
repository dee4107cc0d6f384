/*
 * batch.h - which samples a step trains on, and how they lie in memory: a pure function of
 * (settings, seed, step, lanes), so that resuming needs nothing but the step number.
 *
 *     TRY_DONE(batcher_open(&b, set, &spec));
 *     TRY_DONE(micro_batch_reserve(&m, &bounds));      // bounds = batcher_bounds(b)
 *     for (int64_t step = first; step < last; step++) {
 *         TRY_DONE(batcher_plan(b, &plan, step));
 *         for (each lane of this rank, each micro < plan.micro_count[lane])
 *             TRY_DONE(batcher_fill(b, &m, lane, micro));
 *     }
 *
 * unit = samples (the published recipe, size 80): the data are an endless stream; index i is sample
 *   perm(seed, floor(i/N))[i mod N]; step s takes exactly i in [size*s, size*(s+1)), across epoch
 *   ends, nothing dropped or repeated.
 * unit = tokens (throughput): best-fit packs of `pack_len` rows over the whole set, their order
 *   shuffled anew every epoch; a step takes size/pack_len packs; the last step of an epoch may be
 *   smaller; packs never cross epochs.
 *
 * Samples mode deals a step's samples to lanes: longest first (ties by place in the step), onto the
 * lane with the fewest rows (ties: the lowest); inside a lane they are in the step's order again. A
 * lane is cut into micro-batches: samples laid end to end, up to `micro_tokens` rows. Tokens mode
 * deals packs to lanes in turn, and a micro-batch holds up to micro_tokens/pack_len whole packs,
 * their samples also laid end to end. Either way only the tail is padded, to a multiple of 128,
 * with rows that belong to no segment. A lane's content depends on (settings, seed, step) alone,
 * not on how many ranks share the lanes.
 *
 * Weights: token: 1/T for each trained token, T = trained tokens of the whole step; sample:
 * 1/(samples * trained tokens of its sample).
 *
 * One thread at a time per batcher. After batcher_open nothing is allocated but what a micro-batch
 * lacks: batcher_fill reserves its bounds at the first use.
 */
#ifndef DATA_BATCH_H
#define DATA_BATCH_H

#include "base/cfg.h"
#include "base/err.h"
#include "data/sample.h"

#include <stdbool.h>
#include <stdint.h>

#define BATCH_ROW_MULTIPLE 128
#define BATCH_ROWS_MAX     (1 << 24)  /* rows of a micro-batch */
#define BATCH_SAMPLES_MAX  (1 << 24)  /* samples of a step */
#define BATCH_TOKENS_MAX   1000000000 /* rows of a step in tokens mode */
#define BATCH_LANES_MAX    4096

enum batch_unit { BATCH_SAMPLES, BATCH_TOKENS };
enum loss_mean { LOSS_MEAN_TOKEN, LOSS_MEAN_SAMPLE };

struct batch_spec {
    enum batch_unit unit;
    int64_t size;         /* samples or tokens (rows) per step */
    int64_t lanes;        /* >= 1 */
    int64_t micro_tokens; /* rows of a micro-batch at most; a multiple of 128 */
    int64_t pack_len;     /* tokens mode: rows of a pack; divides micro_tokens and size */
    enum loss_mean loss_mean;
    uint64_t seed;
};
/* From the settings of section `batch`, where batch.lanes 0 counts as 1; ERR_USAGE where they
 * contradict each other (see below). */
MUST_USE err_t batch_spec_from_cfg(struct batch_spec *out, const struct cfg *cfg);
/* ERR_USAGE names the settings that contradict each other, or the one out of range. */
MUST_USE err_t batch_spec_check(const struct batch_spec *spec);

struct batcher;

/*
 * The set is borrowed until close. ERR_ARG: empty set, or a sample longer than micro_tokens
 * (pack_len in tokens mode): says which. ERR_USAGE names the settings of a contradictory spec:
 * micro_tokens no multiple of 128, pack_len that does not divide it or size, more lanes than
 * samples or packs in a step, anything out of range.
 */
MUST_USE err_t batcher_open(struct batcher **out, struct sample_set *set,
                            const struct batch_spec *spec);
void batcher_close(struct batcher *b);

/* What one step holds. Arrays are borrowed until the next batcher_plan or close. */
struct step_plan {
    int64_t step;
    int64_t sample_count, trained_tokens, rows; /* rows without padding */
    int64_t rows_padded;                        /* with padding */
    int64_t stream_first; /* samples mode: stream index of the first; tokens mode: -1 */
    double epoch;         /* data consumed after this step, in epochs */
    const int64_t *micro_count; /* [lanes] micro-batches of each lane; tokens mode: 0 where the last
                                 * step of an epoch has fewer packs than lanes */
};
/* ERR_ARG when the stream index of `step` does not fit in 63 bits. step >= 0. */
MUST_USE err_t batcher_plan(struct batcher *b, struct step_plan *out, int64_t step);

/* Upper bounds over all steps: what a model must have room for. */
struct batch_bounds {
    int64_t rows, segments, targets; /* of one micro-batch; rows with padding */
};
struct batch_bounds batcher_bounds(const struct batcher *b);
/* Steps of one epoch: samples mode ceil(N/size); tokens mode from the pack plan. */
int64_t batcher_steps_per_epoch(const struct batcher *b);
/* Tokens mode: how full packs are (rows used / rows); 0 in samples mode. */
double batcher_pack_fill(const struct batcher *b);

/*
 * One micro-batch on the host. Arrays are owned by the struct; init to zero, clear when done;
 * refilled without allocating once large enough.
 */
struct micro_batch {
    int64_t rows, row_capacity; /* a multiple of 128; padding rows included */
    int64_t segment_count, segment_capacity;
    int64_t target_count, target_capacity;
    int32_t *ids, *pos, *block;    /* [rows] padding rows: pad id, 0, 0 */
    int32_t *order;                /* [rows] permutation that sorts ids, equal ids by row */
    int32_t *scratch;              /* [rows] for sorting */
    int32_t *segments;             /* [segment_count][3]: start, ctx, len */
    int64_t *samples;              /* [segment_count] index in the sample set */
    int64_t *stream;               /* [segment_count] place in the step, 0..sample_count-1 */
    int32_t *target_rows, *labels; /* [target_count] strictly increasing rows */
    float *weights;                /* [target_count] */
    int32_t *target_segment;       /* [target_count] segment of each target */
};
void micro_batch_clear(struct micro_batch *m);
/* Room for these bounds; the contents are lost when arrays grow. ERR_NOMEM leaves it cleared. */
MUST_USE err_t micro_batch_reserve(struct micro_batch *m, const struct batch_bounds *bounds);
/* Fill micro-batch `micro` of `lane` of the step planned last. Errors: those of sample_fill. */
MUST_USE err_t batcher_fill(struct batcher *b, struct micro_batch *out, int64_t lane,
                            int64_t micro);

/*
 * A micro-batch from given samples of a set, in the order given, with weights as if they were a
 * whole step (or 1 each with unit_weights); for validation, inspection and tests. ERR_ARG beyond
 * BATCH_ROWS_MAX.
 */
MUST_USE err_t micro_batch_from_samples(struct micro_batch *out, struct sample_set *set,
                                        const int64_t *samples, int64_t count, enum loss_mean mean,
                                        bool unit_weights);

#endif
