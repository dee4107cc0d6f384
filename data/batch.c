/*
 * Which samples a step has, and which lane and micro-batch each goes to. All arrays are allocated
 * at opening, at their largest; a plan only fills them in, from the step number alone.
 */
#include "data/batch.h"

#include "base/check.h"
#include "base/num.h"
#include "base/rng.h"
#include "data/batch_source.h"
#include "data/pack.h"
#include "data/sort.h"

#include <stdlib.h>

struct batcher {
    struct batch_source source; /* arrays borrowed */
    struct batch_spec spec;
    struct batch_bounds bounds;
    struct pack_plan packs; /* tokens mode: of every epoch, in unshuffled order */
    int64_t packs_per_step;

    /* The step planned last. A place is a sample's number in the step's order. */
    bool planned;
    int64_t sample_count, trained_tokens;
    int64_t place_capacity;
    int64_t *samples; /* [place] index in the source */
    int32_t *lane_of; /* [place] */
    int32_t *group;   /* [place] the pack, counted within the step; samples mode: unused */
    int32_t *key, *order, *scratch; /* [place] for dealing */
    int64_t *lane_rows;             /* [lanes] dealt so far */
    int32_t *dealt;       /* [sample_count] places, lane after lane, in step order inside a lane */
    int64_t *micro_start; /* [micro-batches + 1] where each begins in `dealt`, lane after lane */
    int64_t *lane_micro;  /* [lanes] number of each lane's first micro-batch */
    int64_t *micro_count; /* [lanes] */
};

/* ---- the samples of a step, in the step's order ---- */

static int64_t shuffled(const struct batcher *b, int64_t epoch, int64_t index, int64_t count)
{
    return rng_permute(b->spec.seed, RNG_SHUFFLE | (uint64_t)epoch << 8, index, count);
}

static err_t choose_samples(struct batcher *b, struct step_plan *out, int64_t step)
{
    const int64_t count = b->source.count;
    int64_t steps, end;
    if (!checked_add(&steps, step, 1) || !checked_mul(&end, steps, b->spec.size))
        RAISE(ARG, "step %lld of %lld samples lies beyond the end of the stream", (long long)step,
              (long long)b->spec.size);
    out->stream_first = end - b->spec.size;
    out->epoch = (double)end / (double)count;
    for (int64_t k = 0; k < b->spec.size; k++) {
        const int64_t i = out->stream_first + k;
        b->samples[k] = shuffled(b, i / count, i % count, count);
    }
    b->sample_count = b->spec.size;
    return ERR_OK;
}

static void choose_packs(struct batcher *b, struct step_plan *out, int64_t step)
{
    const int64_t steps = batcher_steps_per_epoch(b);
    const int64_t epoch = step / steps, count = b->packs.pack_count;
    const int64_t first = step % steps * b->packs_per_step;
    const int64_t end = min_i64(first + b->packs_per_step, count);
    out->stream_first = -1;
    out->epoch = (double)epoch + (double)end / (double)count;
    b->sample_count = 0;
    for (int64_t p = first; p < end; p++) {
        const int64_t pack = shuffled(b, epoch, p, count);
        for (int64_t k = b->packs.first[pack]; k < b->packs.first[pack + 1]; k++) {
            ASSERT(b->sample_count < b->place_capacity);
            b->group[b->sample_count] = (int32_t)(p - first);
            b->samples[b->sample_count++] = b->packs.item[k];
        }
    }
}

/* ---- dealing to lanes ---- */

static int32_t emptiest_lane(const struct batcher *b)
{
    int32_t best = 0;
    for (int32_t l = 1; l < b->spec.lanes; l++)
        if (b->lane_rows[l] < b->lane_rows[best]) best = l;
    return best;
}

static void deal_longest_first(struct batcher *b)
{
    for (int64_t l = 0; l < b->spec.lanes; l++) b->lane_rows[l] = 0;
    for (int64_t k = 0; k < b->sample_count; k++)
        b->key[k] = INT32_MAX - b->source.len[b->samples[k]];
    sort_stable_i32(b->order, b->scratch, b->key, b->sample_count);
    for (int64_t k = 0; k < b->sample_count; k++) {
        const int32_t place = b->order[k];
        const int32_t lane = emptiest_lane(b);
        b->lane_of[place] = lane;
        b->lane_rows[lane] += b->source.len[b->samples[place]];
    }
}

static void deal_packs_in_turn(struct batcher *b)
{
    for (int64_t k = 0; k < b->sample_count; k++)
        b->lane_of[k] = b->group[k] % (int32_t)b->spec.lanes;
}

/* ---- cutting lanes into micro-batches ---- */

/* A lane as far as it is cut: rows of the open micro-batch, packs seen, the last of them. */
struct cut {
    int64_t rows, packs;
    int32_t pack;
};

/* Whether the next sample of the lane, the one at `place`, begins a new micro-batch. */
static bool starts_micro(const struct batcher *b, struct cut *cut, int32_t place)
{
    const int64_t len = b->source.len[b->samples[place]];
    bool starts;
    if (b->spec.unit == BATCH_TOKENS) {
        const bool new_pack = cut->packs == 0 || b->group[place] != cut->pack;
        starts = new_pack && cut->packs % (b->spec.micro_tokens / b->spec.pack_len) == 0;
        cut->packs += new_pack;
        cut->pack = b->group[place];
    } else {
        starts = cut->rows == 0 || cut->rows + len > b->spec.micro_tokens;
    }
    cut->rows = starts ? len : cut->rows + len;
    return starts;
}

static int64_t padded_rows(const struct batcher *b, int64_t micro)
{
    int64_t rows = 0;
    for (int64_t k = b->micro_start[micro]; k < b->micro_start[micro + 1]; k++)
        rows += b->source.len[b->samples[b->dealt[k]]];
    ASSERT(rows <= b->spec.micro_tokens);
    return align_up(rows, BATCH_ROW_MULTIPLE);
}

/* Returns the rows of all micro-batches, with padding. */
static int64_t cut_lanes(struct batcher *b)
{
    /* Sorting by lane keeps the step's order inside each lane. */
    sort_stable_i32(b->dealt, b->scratch, b->lane_of, b->sample_count);
    int64_t micros = 0, k = 0, padded = 0;
    for (int64_t lane = 0; lane < b->spec.lanes; lane++) {
        struct cut cut = { 0 };
        b->lane_micro[lane] = micros;
        for (; k < b->sample_count && b->lane_of[b->dealt[k]] == lane; k++)
            if (starts_micro(b, &cut, b->dealt[k])) b->micro_start[micros++] = k;
        b->micro_count[lane] = micros - b->lane_micro[lane];
    }
    ASSERT(k == b->sample_count);
    b->micro_start[micros] = k;
    for (int64_t m = 0; m < micros; m++) padded += padded_rows(b, m);
    return padded;
}

err_t batcher_plan(struct batcher *b, struct step_plan *out, int64_t step)
{
    ASSERT(step >= 0);
    b->planned = false;
    struct step_plan plan = { .step = step };
    if (b->spec.unit == BATCH_TOKENS) {
        choose_packs(b, &plan, step);
        deal_packs_in_turn(b);
    } else {
        TRY(choose_samples(b, &plan, step));
        deal_longest_first(b);
    }
    plan.rows_padded = cut_lanes(b);
    for (int64_t k = 0; k < b->sample_count; k++) {
        plan.rows += b->source.len[b->samples[k]];
        plan.trained_tokens += b->source.target_count[b->samples[k]];
    }
    plan.sample_count = b->sample_count;
    plan.micro_count = b->micro_count;
    b->trained_tokens = plan.trained_tokens;
    b->planned = true;
    *out = plan;
    return ERR_OK;
}

err_t batcher_fill(struct batcher *b, struct micro_batch *out, int64_t lane, int64_t micro)
{
    ASSERT(b->planned);
    ASSERT(lane >= 0 && lane < b->spec.lanes);
    ASSERT(micro >= 0 && micro < b->micro_count[lane]);
    const int64_t *start = b->micro_start + b->lane_micro[lane] + micro;
    const struct weight_rule rule = { .mean = b->spec.loss_mean,
                                      .trained_tokens = b->trained_tokens,
                                      .sample_count = b->sample_count };
    TRY(micro_batch_fill(out, &b->source, b->samples, b->dealt + start[0], start[1] - start[0],
                         &rule, &b->bounds));
    return ERR_OK;
}

/* ---- opening ---- */

static err_t check_source(const struct batch_source *source, const struct batch_spec *spec)
{
    const bool tokens = spec->unit == BATCH_TOKENS;
    const int64_t len_max = tokens ? spec->pack_len : spec->micro_tokens;
    if (source->count < 1) RAISE(ARG, "no samples to make batches of");
    for (int64_t i = 0; i < source->count; i++) {
        ASSERT(source->len[i] >= 1 && source->target_count[i] >= 1);
        if (source->len[i] > len_max)
            RAISE(ARG, "sample %lld has %d rows, more than batch.%s %lld", (long long)i,
                  source->len[i], tokens ? "pack_len" : "micro_tokens", (long long)len_max);
    }
    return ERR_OK;
}

/*
 * Tokens mode: the most samples in a whole step, and the most samples and trained rows that the
 * packs of one micro-batch can bring together.
 */
struct pack_stats {
    int32_t *items, *targets; /* [pack] */
    int32_t *key, *order, *scratch;
    int64_t count;
};

static int64_t sum_of_largest(struct pack_stats *s, const int32_t *value, int64_t how_many)
{
    int64_t sum = 0;
    for (int64_t p = 0; p < s->count; p++) s->key[p] = INT32_MAX - value[p];
    sort_stable_i32(s->order, s->scratch, s->key, s->count);
    for (int64_t k = 0; k < min_i64(how_many, s->count); k++) sum += value[s->order[k]];
    return sum;
}

static err_t bound_packs(struct batcher *b)
{
    err_t rc = ERR_OK;
    const int64_t count = b->packs.pack_count;
    struct pack_stats s = { .count = count };
    int32_t *block = calloc((size_t)(5 * count), sizeof *block);
    if (!block) RAISE_DONE(NOMEM, "no memory to measure %lld packs", (long long)count);
    s.items = block;
    s.targets = block + count;
    s.key = block + 2 * count;
    s.order = block + 3 * count;
    s.scratch = block + 4 * count;

    for (int64_t p = 0; p < count; p++) {
        s.items[p] = (int32_t)(b->packs.first[p + 1] - b->packs.first[p]);
        for (int64_t k = b->packs.first[p]; k < b->packs.first[p + 1]; k++)
            s.targets[p] += b->source.target_count[b->packs.item[k]];
    }
    const int64_t lane_packs = div_ceil(min_i64(b->packs_per_step, count), b->spec.lanes);
    const int64_t micro_packs = min_i64(b->spec.micro_tokens / b->spec.pack_len, lane_packs);
    b->bounds.rows = align_up(micro_packs * b->spec.pack_len, BATCH_ROW_MULTIPLE);
    b->bounds.segments = sum_of_largest(&s, s.items, micro_packs);
    b->bounds.targets = sum_of_largest(&s, s.targets, micro_packs);
    b->place_capacity = sum_of_largest(&s, s.items, b->packs_per_step);

done:
    free(block);
    return rc;
}

/* Samples mode: safe bounds from the longest and the shortest sample. */
static void bound_samples(struct batcher *b)
{
    int64_t len_min = INT32_MAX, len_max = 1, targets_max = 1;
    for (int64_t i = 0; i < b->source.count; i++) {
        len_min = min_i64(len_min, b->source.len[i]);
        len_max = max_i64(len_max, b->source.len[i]);
        targets_max = max_i64(targets_max, b->source.target_count[i]);
    }
    /* Every lane takes a sample before one takes a second, as none has no rows. */
    const int64_t samples_max = b->spec.size - (b->spec.lanes - 1);
    const int64_t rows = min_i64(b->spec.micro_tokens, samples_max * len_max);
    b->bounds.rows = align_up(rows, BATCH_ROW_MULTIPLE);
    b->bounds.segments = min_i64(samples_max, rows / len_min);
    b->bounds.targets = min_i64(rows, b->bounds.segments * targets_max);
    b->place_capacity = b->spec.size;
}

static err_t allocate_step(struct batcher *b)
{
    const size_t places = (size_t)b->place_capacity, lanes = (size_t)b->spec.lanes;
    b->samples = malloc(places * sizeof *b->samples);
    b->lane_of = malloc(places * sizeof *b->lane_of);
    b->group = malloc(places * sizeof *b->group);
    b->key = malloc(places * sizeof *b->key);
    b->order = malloc(places * sizeof *b->order);
    b->scratch = malloc(places * sizeof *b->scratch);
    b->dealt = malloc(places * sizeof *b->dealt);
    b->micro_start = malloc((places + 1) * sizeof *b->micro_start);
    b->lane_rows = malloc(lanes * sizeof *b->lane_rows);
    b->lane_micro = malloc(lanes * sizeof *b->lane_micro);
    b->micro_count = malloc(lanes * sizeof *b->micro_count);
    if (!b->samples || !b->lane_of || !b->group || !b->key || !b->order || !b->scratch ||
        !b->dealt || !b->micro_start || !b->lane_rows || !b->lane_micro || !b->micro_count)
        RAISE(NOMEM, "no memory to plan steps of %lld samples", (long long)b->place_capacity);
    return ERR_OK;
}

err_t batcher_open_source(struct batcher **out, const struct batch_source *source,
                          const struct batch_spec *spec)
{
    err_t rc = ERR_OK;
    struct batcher *b = NULL;

    TRY(batch_spec_check(spec));
    TRY(check_source(source, spec));
    b = calloc(1, sizeof *b);
    if (!b) RAISE_DONE(NOMEM, "no memory for a batcher");
    b->source = *source;
    b->spec = *spec;
    if (spec->unit == BATCH_TOKENS) {
        b->packs_per_step = spec->size / spec->pack_len;
        TRY_DONE(pack_best_fit(&b->packs, source->len, source->count, spec->pack_len));
        TRY_DONE(bound_packs(b));
    } else {
        bound_samples(b);
    }
    TRY_DONE(allocate_step(b));
    *out = b;
    b = NULL;

done:
    batcher_close(b);
    return rc;
}

void batcher_close(struct batcher *b)
{
    if (b == NULL) return;
    void *arrays[] = { b->samples,   b->lane_of,    b->group,      b->key,
                       b->order,     b->scratch,    b->dealt,      b->micro_start,
                       b->lane_rows, b->lane_micro, b->micro_count };
    for (int64_t i = 0; i < COUNT_OF(arrays); i++) free(arrays[i]);
    pack_plan_clear(&b->packs);
    free(b);
}

struct batch_bounds batcher_bounds(const struct batcher *b) { return b->bounds; }

int64_t batcher_steps_per_epoch(const struct batcher *b)
{
    return b->spec.unit == BATCH_TOKENS ? div_ceil(b->packs.pack_count, b->packs_per_step)
                                        : div_ceil(b->source.count, b->spec.size);
}

double batcher_pack_fill(const struct batcher *b) { return b->packs.fill; }
