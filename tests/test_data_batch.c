/* batch.h as properties: nothing lost, nothing twice, the same whatever came before. */
#include "testing.h"

#include "base/check.h"
#include "base/num.h"
#include "base/rng.h"
#include "data/batch_source.h"
#include "data/pack.h"
#include "data/sort.h"

#include <stdlib.h>
#include <string.h>

/* ---- a source of samples that exist nowhere ---- */

struct fake {
    int64_t count;
    int32_t *len, *target_count;
};

static int32_t fake_id(int64_t index, int64_t row) { return (int32_t)((index * 7 + row * 3) % 50); }

static err_t fake_fill(void *self, int64_t index, struct seq *seq, int32_t *ids, int32_t *pos,
                       int32_t *block)
{
    const struct fake *f = self;
    const int32_t len = f->len[index], targets = f->target_count[index];
    *seq = (struct seq){
        .len = len, .ctx = len - targets, .target_first = len - targets - 1, .target_count = targets
    };
    for (int64_t r = 0; r < len; r++) {
        ids[r] = fake_id(index, r);
        pos[r] = (int32_t)r;
        block[r] = (int32_t)index;
    }
    return ERR_OK;
}

static void fake_init(struct fake *f, int64_t count, int32_t len_min, int32_t len_max)
{
    f->count = count;
    f->len = calloc((size_t)count, sizeof *f->len);
    f->target_count = calloc((size_t)count, sizeof *f->target_count);
    for (int64_t i = 0; i < count; i++) {
        const uint64_t range = (uint64_t)(len_max - len_min + 1);
        f->len[i] = len_min + (int32_t)(rng_u64(1, RNG_TEST, (uint64_t)i) % range);
        f->target_count[i] =
            1 + (int32_t)(rng_u64(2, RNG_TEST, (uint64_t)i) % 20) % (f->len[i] - 1);
    }
}

static void fake_clear(struct fake *f)
{
    free(f->len);
    free(f->target_count);
}

static struct batch_source fake_source(struct fake *f)
{
    return (struct batch_source){ .self = f,
                                  .count = f->count,
                                  .len = f->len,
                                  .target_count = f->target_count,
                                  .pad = 3,
                                  .fill = fake_fill };
}

static struct batcher *open_fake(struct fake *f, const struct batch_spec *spec)
{
    struct batcher *b = NULL;
    const struct batch_source source = fake_source(f);
    assert_ok(batcher_open_source(&b, &source, spec));
    return b;
}

static const struct batch_spec samples_spec = {
    .unit = BATCH_SAMPLES, .size = 10, .lanes = 1, .micro_tokens = 384, .pack_len = 128, .seed = 42
};
static const struct batch_spec tokens_spec = {
    .unit = BATCH_TOKENS, .size = 640, .lanes = 1, .micro_tokens = 256, .pack_len = 128, .seed = 42
};

static int64_t pack_count_of(const struct fake *f)
{
    struct pack_plan plan;
    assert_ok(pack_best_fit(&plan, f->len, f->count, tokens_spec.pack_len));
    const int64_t count = plan.pack_count;
    pack_plan_clear(&plan);
    return count;
}

/* ---- what every micro-batch must be ---- */

static void check_segments(const struct micro_batch *m, const struct fake *f)
{
    int64_t row = 0;
    for (int64_t k = 0; k < m->segment_count; k++) {
        const int64_t sample = m->samples[k];
        const int32_t *s = m->segments + 3 * k;
        assert_int_equal(s[0], row); /* end to end: disjoint, ordered, nothing between */
        assert_int_equal(s[1], f->len[sample] - f->target_count[sample]);
        assert_int_equal(s[2], f->len[sample]);
        for (int64_t r = 0; r < s[2]; r++) {
            assert_int_equal(m->ids[row + r], fake_id(sample, r));
            assert_int_equal(m->pos[row + r], r);
            assert_int_equal(m->block[row + r], sample);
        }
        row += s[2];
    }
    assert_int_equal(m->rows, align_up(row, BATCH_ROW_MULTIPLE));
    for (; row < m->rows; row++) {
        assert_int_equal(m->ids[row], 3);
        assert_int_equal(m->pos[row], 0);
        assert_int_equal(m->block[row], 0);
    }
}

static void check_targets(const struct micro_batch *m, const struct fake *f)
{
    int64_t expected = 0;
    for (int64_t k = 0; k < m->segment_count; k++) expected += f->target_count[m->samples[k]];
    assert_int_equal(m->target_count, expected);
    for (int64_t t = 0; t < m->target_count; t++) {
        const int32_t row = m->target_rows[t];
        const int32_t *s = m->segments + 3 * m->target_segment[t];
        if (t > 0) assert_true(m->target_rows[t - 1] < row);
        assert_true(row >= s[0] + s[1] - 1 && row + 1 < s[0] + s[2]);
        assert_int_equal(m->labels[t], m->ids[row + 1]);
    }
}

static void check_order(const struct micro_batch *m)
{
    for (int64_t k = 1; k < m->rows; k++) {
        const int32_t a = m->order[k - 1], b = m->order[k];
        assert_true(m->ids[a] < m->ids[b] || (m->ids[a] == m->ids[b] && a < b));
    }
    /* Strictly increasing (id, row) pairs within the rows: a permutation if all are in range. */
    for (int64_t k = 0; k < m->rows; k++) assert_in_range(m->order[k], 0, m->rows - 1);
}

/* ---- a step collected: which sample at which place, in which lane and micro-batch ---- */

struct collected {
    struct step_plan plan;
    int64_t sample[4096], lane[4096], micro[4096];
    int64_t lane_rows[16];
    double weight_sum;
};

static void collect(struct collected *c, struct batcher *b, const struct fake *f,
                    const struct batch_spec *spec, struct micro_batch *m, int64_t step)
{
    int64_t samples = 0, rows = 0, rows_padded = 0, trained = 0;
    const struct batch_bounds bounds = batcher_bounds(b);
    memset(c, 0, sizeof *c);
    assert_ok(batcher_plan(b, &c->plan, step));
    for (int64_t place = 0; place < c->plan.sample_count; place++) c->sample[place] = -1;
    for (int64_t lane = 0; lane < spec->lanes; lane++) {
        for (int64_t micro = 0; micro < c->plan.micro_count[lane]; micro++) {
            assert_ok(batcher_fill(b, m, lane, micro));
            check_segments(m, f);
            check_targets(m, f);
            check_order(m);
            assert_true(m->rows <= spec->micro_tokens && m->rows <= bounds.rows);
            assert_true(m->segment_count >= 1 && m->segment_count <= bounds.segments);
            assert_true(m->target_count <= bounds.targets);
            for (int64_t k = 0; k < m->segment_count; k++) {
                const int64_t place = m->stream[k];
                assert_in_range(place, 0, c->plan.sample_count - 1);
                assert_int_equal(c->sample[place], -1);
                if (k > 0) assert_true(m->stream[k - 1] < place);
                c->sample[place] = m->samples[k];
                c->lane[place] = lane;
                c->micro[place] = micro;
                c->lane_rows[lane] += m->segments[3 * k + 2];
                rows += m->segments[3 * k + 2];
            }
            for (int64_t t = 0; t < m->target_count; t++) c->weight_sum += m->weights[t];
            samples += m->segment_count;
            trained += m->target_count;
            rows_padded += m->rows;
        }
    }
    assert_int_equal(samples, c->plan.sample_count);
    assert_int_equal(trained, c->plan.trained_tokens);
    assert_int_equal(rows, c->plan.rows);
    assert_int_equal(rows_padded, c->plan.rows_padded);
    assert_true(c->weight_sum > 1 - 1e-6 && c->weight_sum < 1 + 1e-6);
}

/* ---- samples mode ---- */

/* 97 steps of 10 are exactly ten epochs of 97: the stream is ten permutations, all different. */
static void test_stream(void **state)
{
    (void)state;
    struct fake f;
    struct collected *c = malloc(sizeof *c);
    struct micro_batch m = { 0 };
    int64_t stream[970];
    fake_init(&f, 97, 5, 100);
    struct batcher *b = open_fake(&f, &samples_spec);
    assert_int_equal(batcher_steps_per_epoch(b), 10);
    for (int64_t step = 0; step < 97; step++) {
        collect(c, b, &f, &samples_spec, &m, step);
        assert_int_equal(c->plan.step, step);
        assert_int_equal(c->plan.stream_first, 10 * step);
        assert_int_equal(c->plan.sample_count, 10);
        assert_true(c->plan.epoch == (double)(10 * (step + 1)) / 97);
        memcpy(stream + 10 * step, c->sample, 10 * sizeof *stream);
    }
    for (int64_t epoch = 0; epoch < 10; epoch++) {
        bool seen[97] = { false };
        for (int64_t i = 0; i < 97; i++) {
            const int64_t sample = stream[97 * epoch + i];
            assert_in_range(sample, 0, 96);
            assert_false(seen[sample]);
            seen[sample] = true;
            assert_int_equal(sample, rng_permute(42, RNG_SHUFFLE | (uint64_t)epoch << 8, i, 97));
        }
        for (int64_t earlier = 0; earlier < epoch; earlier++)
            assert_memory_not_equal(stream + 97 * earlier, stream + 97 * epoch,
                                    97 * sizeof *stream);
    }
    batcher_close(b);
    micro_batch_clear(&m);
    fake_clear(&f);
    free(c);
}

/* The definition of dealing and cutting, as plainly as it can be written. */
static void check_against_naive(const struct collected *c, const struct fake *f,
                                const struct batch_spec *spec)
{
    int64_t lane_of[4096], rows[16] = { 0 };
    for (int64_t p = 0; p < c->plan.sample_count; p++) lane_of[p] = -1;
    for (int64_t k = 0; k < c->plan.sample_count; k++) {
        int64_t longest = -1, lane = 0;
        for (int64_t p = 0; p < c->plan.sample_count; p++)
            if (lane_of[p] < 0 &&
                (longest < 0 || f->len[c->sample[p]] > f->len[c->sample[longest]]))
                longest = p;
        for (int64_t l = 1; l < spec->lanes; l++)
            if (rows[l] < rows[lane]) lane = l;
        lane_of[longest] = lane;
        rows[lane] += f->len[c->sample[longest]];
    }
    for (int64_t lane = 0; lane < spec->lanes; lane++) {
        int64_t micro = 0, used = 0;
        for (int64_t p = 0; p < c->plan.sample_count; p++) {
            if (lane_of[p] != lane) continue;
            const int64_t len = f->len[c->sample[p]];
            if (used > 0 && used + len > spec->micro_tokens) {
                micro++;
                used = 0;
            }
            used += len;
            assert_int_equal(c->lane[p], lane);
            assert_int_equal(c->micro[p], micro);
        }
        assert_int_equal(c->plan.micro_count[lane], micro + 1);
    }
}

/* Lanes and micro-batches change where samples lie, never which ones a step has. */
static void test_lanes(void **state)
{
    (void)state;
    struct fake f;
    struct collected *c = malloc(sizeof *c), *plain = malloc(sizeof *plain);
    struct micro_batch m = { 0 };
    const int64_t lanes[] = { 1, 2, 3, 4, 7, 10 }, micro_tokens[] = { 128, 256, 512, 16384 };
    fake_init(&f, 97, 5, 100);
    for (int64_t l = 0; l < COUNT_OF(lanes); l++) {
        for (int64_t t = 0; t < COUNT_OF(micro_tokens); t++) {
            struct batch_spec spec = samples_spec;
            spec.lanes = lanes[l];
            spec.micro_tokens = micro_tokens[t];
            struct batcher *b = open_fake(&f, &spec), *one = open_fake(&f, &samples_spec);
            for (int64_t step = 0; step < 30; step++) {
                collect(plain, one, &f, &samples_spec, &m, step);
                collect(c, b, &f, &spec, &m, step);
                assert_memory_equal(c->sample, plain->sample, sizeof c->sample);
                assert_int_equal(c->plan.trained_tokens, plain->plan.trained_tokens);
                check_against_naive(c, &f, &spec);
                int64_t least = INT64_MAX, most = 0;
                for (int64_t lane = 0; lane < spec.lanes; lane++) {
                    least = min_i64(least, c->lane_rows[lane]);
                    most = max_i64(most, c->lane_rows[lane]);
                }
                assert_true(most - least <= 100); /* the longest sample */
            }
            batcher_close(b);
            batcher_close(one);
        }
    }
    micro_batch_clear(&m);
    fake_clear(&f);
    free(c);
    free(plain);
}

static void assert_same_micro(const struct micro_batch *a, const struct micro_batch *b)
{
    const size_t rows = (size_t)a->rows * 4, targets = (size_t)a->target_count * 4;
    assert_true(a->rows == b->rows && a->segment_count == b->segment_count);
    assert_true(a->target_count == b->target_count);
    assert_memory_equal(a->ids, b->ids, rows);
    assert_memory_equal(a->pos, b->pos, rows);
    assert_memory_equal(a->block, b->block, rows);
    assert_memory_equal(a->order, b->order, rows);
    assert_memory_equal(a->segments, b->segments, (size_t)a->segment_count * 12);
    assert_memory_equal(a->stream, b->stream, (size_t)a->segment_count * 8);
    assert_memory_equal(a->target_rows, b->target_rows, targets);
    assert_memory_equal(a->labels, b->labels, targets);
    assert_memory_equal(a->weights, b->weights, targets);
    assert_memory_equal(a->target_segment, b->target_segment, targets);
}

/* A step computed first equals the same step after all before it, in both modes. */
static void test_step_alone(void **state)
{
    (void)state;
    struct fake f;
    struct step_plan pa, pb;
    struct micro_batch ma = { 0 }, mb = { 0 };
    fake_init(&f, 97, 5, 100);
    for (int mode = 0; mode < 2; mode++) {
        struct batch_spec spec = mode == 0 ? samples_spec : tokens_spec;
        spec.lanes = 2;
        struct batcher *walker = open_fake(&f, &spec);
        for (int64_t step = 0; step < 25; step++) {
            struct batcher *fresh = open_fake(&f, &spec);
            assert_ok(batcher_plan(walker, &pa, step));
            assert_ok(batcher_plan(fresh, &pb, step));
            assert_memory_equal(pa.micro_count, pb.micro_count, 2 * sizeof *pa.micro_count);
            for (int64_t lane = 0; lane < 2; lane++) {
                for (int64_t micro = pa.micro_count[lane] - 1; micro >= 0; micro--) {
                    assert_ok(batcher_fill(walker, &ma, lane, micro));
                    assert_ok(batcher_fill(fresh, &mb, lane, micro));
                    assert_same_micro(&ma, &mb);
                }
            }
            batcher_close(fresh);
        }
        batcher_close(walker);
    }
    micro_batch_clear(&ma);
    micro_batch_clear(&mb);
    fake_clear(&f);
}

/* A step larger than the whole set: samples come again, each time in full. */
static void test_tiny_set(void **state)
{
    (void)state;
    struct fake f;
    struct collected *c = malloc(sizeof *c);
    struct micro_batch m = { 0 };
    fake_init(&f, 3, 5, 100);
    struct batcher *b = open_fake(&f, &samples_spec);
    assert_int_equal(batcher_steps_per_epoch(b), 1);
    int64_t seen[3] = { 0 };
    for (int64_t step = 0; step < 3; step++) {
        collect(c, b, &f, &samples_spec, &m, step);
        for (int64_t p = 0; p < 10; p++) seen[c->sample[p]]++;
    }
    for (int64_t i = 0; i < 3; i++) assert_int_equal(seen[i], 10);
    batcher_close(b);
    micro_batch_clear(&m);
    fake_clear(&f);
    free(c);
}

/* ---- tokens mode ---- */

static void test_packs(void **state)
{
    (void)state;
    struct fake f;
    struct collected *c = malloc(sizeof *c);
    struct micro_batch m = { 0 };
    fake_init(&f, 301, 5, 100);
    const int64_t lanes[] = { 1, 2, 5 };
    for (int64_t l = 0; l < COUNT_OF(lanes); l++) {
        struct batch_spec spec = tokens_spec;
        spec.lanes = lanes[l];
        struct batcher *b = open_fake(&f, &spec);
        const int64_t steps = batcher_steps_per_epoch(b), packs = pack_count_of(&f);
        assert_int_equal(steps, div_ceil(packs, 5));
        assert_true(packs % 5 != 0); /* so that the last step is a smaller one */
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            int64_t seen[301] = { 0 };
            for (int64_t s = 0; s < steps; s++) {
                collect(c, b, &f, &spec, &m, epoch * steps + s);
                const int64_t step_packs = s + 1 < steps ? 5 : packs % 5;
                for (int64_t lane = 0; lane < spec.lanes; lane++) {
                    const int64_t lane_packs = (step_packs - lane + spec.lanes - 1) / spec.lanes;
                    assert_int_equal(c->plan.micro_count[lane], div_ceil(lane_packs, 2));
                }
                for (int64_t p = 0; p < c->plan.sample_count; p++) seen[c->sample[p]]++;
                const double consumed = s + 1 < steps ? 5.0 * (double)(s + 1) : (double)packs;
                assert_true(c->plan.epoch == (double)epoch + consumed / (double)packs);
            }
            for (int64_t i = 0; i < 301; i++) assert_int_equal(seen[i], 1);
        }
        batcher_close(b);
    }
    micro_batch_clear(&m);
    fake_clear(&f);
    free(c);
}

/* One pack a micro-batch shows the packs themselves: the same in each epoch, in another order. */
static void test_packs_stay(void **state)
{
    (void)state;
    struct fake f;
    struct step_plan plan;
    struct micro_batch m = { 0 };
    int64_t pack_of[2][301], mates[2][301];
    fake_init(&f, 301, 5, 100);
    struct batch_spec spec = tokens_spec;
    spec.micro_tokens = 128;
    struct batcher *b = open_fake(&f, &spec);
    const int64_t steps = batcher_steps_per_epoch(b);
    double rows = 0;
    for (int64_t i = 0; i < 301; i++) rows += f.len[i];
    assert_true(batcher_pack_fill(b) == rows / (double)(pack_count_of(&f) * 128));
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        for (int64_t s = 0; s < steps; s++) {
            assert_ok(batcher_plan(b, &plan, epoch * steps + s));
            for (int64_t micro = 0; micro < plan.micro_count[0]; micro++) {
                assert_ok(batcher_fill(b, &m, 0, micro));
                for (int64_t k = 0; k < m.segment_count; k++) {
                    pack_of[epoch][m.samples[k]] = s * 5 + micro;
                    /* Items ascend inside a pack: the first names it. */
                    mates[epoch][m.samples[k]] = m.samples[0];
                }
            }
        }
    }
    assert_memory_equal(mates[0], mates[1], sizeof mates[0]);
    assert_memory_not_equal(pack_of[0], pack_of[1], sizeof pack_of[0]);
    batcher_close(b);
    micro_batch_clear(&m);
    fake_clear(&f);
}

/* ---- weights, order, memory ---- */

static void test_weights(void **state)
{
    (void)state;
    struct fake f;
    struct step_plan plan;
    struct micro_batch m = { 0 };
    fake_init(&f, 97, 5, 100);
    for (int mean = 0; mean < 2; mean++) {
        struct batch_spec spec = samples_spec;
        spec.loss_mean = mean == 0 ? LOSS_MEAN_TOKEN : LOSS_MEAN_SAMPLE;
        struct batcher *b = open_fake(&f, &spec);
        assert_ok(batcher_plan(b, &plan, 5));
        assert_ok(batcher_fill(b, &m, 0, 1));
        for (int64_t t = 0; t < m.target_count; t++) {
            const int32_t own = f.target_count[m.samples[m.target_segment[t]]];
            const double exact = mean == 0 ? 1.0 / (double)plan.trained_tokens : 1.0 / (10.0 * own);
            assert_true(m.weights[t] == (float)exact);
        }
        batcher_close(b);
    }
    const struct batch_source source = fake_source(&f);
    const struct weight_rule unit = { .unit = true };
    const int64_t samples[] = { 7, 3, 7 };
    assert_ok(micro_batch_fill(&m, &source, samples, NULL, 3, &unit, NULL));
    check_segments(&m, &f);
    for (int64_t t = 0; t < m.target_count; t++) assert_true(m.weights[t] == 1.0f);
    assert_true(m.stream[2] == 2 && m.samples[2] == 7);
    micro_batch_clear(&m);
    fake_clear(&f);
}

/* Once the bounds are reserved, no array moves or grows. */
static void test_no_growth(void **state)
{
    (void)state;
    struct fake f;
    struct collected *c = malloc(sizeof *c);
    fake_init(&f, 301, 5, 128);
    for (int mode = 0; mode < 2; mode++) {
        const struct batch_spec *spec = mode == 0 ? &samples_spec : &tokens_spec;
        struct batcher *b = open_fake(&f, spec);
        const struct batch_bounds bounds = batcher_bounds(b);
        struct micro_batch m = { 0 };
        assert_ok(micro_batch_reserve(&m, &bounds));
        const struct micro_batch before = m;
        for (int64_t step = 0; step < 100; step++) collect(c, b, &f, spec, &m, step);
        assert_ptr_equal(m.ids, before.ids);
        assert_ptr_equal(m.scratch, before.scratch);
        assert_ptr_equal(m.segments, before.segments);
        assert_ptr_equal(m.target_segment, before.target_segment);
        assert_int_equal(m.row_capacity, bounds.rows);
        assert_int_equal(m.segment_capacity, bounds.segments);
        assert_int_equal(m.target_capacity, bounds.targets);
        micro_batch_clear(&m);
        batcher_close(b);
    }
    fake_clear(&f);
    free(c);
}

static void test_sort(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    int32_t key[COUNT], order[COUNT], scratch[COUNT];
    const int32_t tops[] = { 1, 7, 3000, 130528, INT32_MAX };
    for (int64_t round = 0; round < COUNT_OF(tops); round++) {
        for (int64_t i = 0; i < COUNT; i++)
            key[i] = (int32_t)(rng_u64(3, RNG_TEST, (uint64_t)i) % (uint64_t)tops[round]);
        sort_stable_i32(order, scratch, key, COUNT);
        for (int64_t k = 0; k < COUNT; k++) assert_in_range(order[k], 0, COUNT - 1);
        for (int64_t k = 1; k < COUNT; k++) {
            const int32_t a = order[k - 1], b = order[k];
            assert_true(key[a] < key[b] || (key[a] == key[b] && a < b));
        }
    }
    sort_stable_i32(order, scratch, key, 0);
    key[0] = INT32_MAX;
    sort_stable_i32(order, scratch, key, 1);
    assert_int_equal(order[0], 0);
}

/* ---- what must be refused ---- */

static void assert_spec_refused(struct fake *f, const struct batch_spec *spec, const char *part)
{
    struct batcher *b = NULL;
    const struct batch_source source = fake_source(f);
    assert_err(batcher_open_source(&b, &source, spec), USAGE, part);
    assert_null(b);
}

static void test_hostile_specs(void **state)
{
    (void)state;
    static const struct {
        bool tokens;
        int64_t size, lanes, micro_tokens, pack_len;
        const char *message;
    } cases[] = {
        { false, 0, 1, 256, 128, "batch.size is 0; expected 1 to" },
        { false, -5, 1, 256, 128, "batch.size is -5" },
        { false, BATCH_SAMPLES_MAX + 1, 1, 256, 128, "batch.size is 16777217" },
        { false, 10, 0, 256, 128, "batch.lanes is 0" },
        { false, 10, 11, 256, 128, "batch.lanes 11, but a step has only 10 samples" },
        { false, 10, 1, 0, 128, "batch.micro_tokens is 0" },
        { false, 10, 1, 200, 128, "micro_tokens 200 is no multiple of 128" },
        { true, 80, 1, 256, 128, "batch.size 80 is no multiple of batch.pack_len 128" },
        { true, 640, 1, 256, 0, "batch.pack_len is 0" },
        { true, 600, 1, 256, 100, "pack_len 100 does not divide batch.micro_tokens 256" },
        { true, 640, 1, 128, 256, "pack_len 256 does not divide batch.micro_tokens 128" },
        { true, 640, 6, 256, 128, "batch.lanes 6, but a step has only 5 packs" },
    };
    struct fake f;
    fake_init(&f, 20, 5, 100);
    for (int64_t i = 0; i < COUNT_OF(cases); i++) {
        const struct batch_spec spec = { .unit = cases[i].tokens ? BATCH_TOKENS : BATCH_SAMPLES,
                                         .size = cases[i].size,
                                         .lanes = cases[i].lanes,
                                         .micro_tokens = cases[i].micro_tokens,
                                         .pack_len = cases[i].pack_len };
        assert_spec_refused(&f, &spec, cases[i].message);
    }
    fake_clear(&f);
}

static void test_hostile_sources(void **state)
{
    (void)state;
    struct fake f;
    struct batcher *b = NULL;
    struct step_plan plan;
    fake_init(&f, 20, 5, 100);
    struct batch_source source = fake_source(&f);

    source.count = 0;
    assert_err(batcher_open_source(&b, &source, &samples_spec), ARG, "no samples");
    source.count = 20;

    /* Exactly as long as fits, and one more. */
    f.len[13] = 384;
    assert_ok(batcher_open_source(&b, &source, &samples_spec));
    assert_err(batcher_plan(b, &plan, INT64_MAX / 10), ARG, "beyond the end of the stream");
    assert_err(batcher_plan(b, &plan, INT64_MAX), ARG, "beyond the end of the stream");
    assert_ok(batcher_plan(b, &plan, INT64_MAX / 10 - 1));
    batcher_close(b);
    f.len[13] = 385;
    assert_err(batcher_open_source(&b, &source, &samples_spec), ARG,
               "sample 13 has 385 rows, more than batch.micro_tokens 384");
    f.len[13] = 128;
    assert_ok(batcher_open_source(&b, &source, &tokens_spec));
    batcher_close(b);
    f.len[13] = 129;
    assert_err(batcher_open_source(&b, &source, &tokens_spec), ARG,
               "sample 13 has 129 rows, more than batch.pack_len 128");
    batcher_close(NULL);
    fake_clear(&f);
}

/* A source that fails: its error arrives, and the next fill works. */
static err_t failing_fill(void *self, int64_t index, struct seq *seq, int32_t *ids, int32_t *pos,
                          int32_t *block)
{
    if (index == 4) RAISE(IO, "sample 4 is gone");
    return fake_fill(self, index, seq, ids, pos, block);
}

static void test_failing_source(void **state)
{
    (void)state;
    struct fake f;
    struct micro_batch m = { 0 };
    const struct weight_rule rule = { .unit = true };
    const int64_t bad[] = { 1, 4 }, good[] = { 1, 3 };
    fake_init(&f, 20, 5, 100);
    struct batch_source source = fake_source(&f);
    source.fill = failing_fill;
    assert_err(micro_batch_fill(&m, &source, bad, NULL, 2, &rule, NULL), IO, "sample 4 is gone");
    assert_ok(micro_batch_fill(&m, &source, good, NULL, 2, &rule, NULL));
    check_segments(&m, &f);
    micro_batch_clear(&m);
    fake_clear(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_step_alone),
        cmocka_unit_test(test_tiny_set),
        cmocka_unit_test(test_packs),
        cmocka_unit_test(test_packs_stay),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_no_growth),
        cmocka_unit_test(test_sort),
        cmocka_unit_test(test_hostile_specs),
        cmocka_unit_test(test_hostile_sources),
        cmocka_unit_test(test_failing_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
