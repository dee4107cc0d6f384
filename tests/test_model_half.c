/*
 * Matrices kept in 16 bits against the same values kept in 32.
 *
 * Bars: up to 8 rows both go through the same loops in the same order, so bits are equal. Beyond,
 * products are cut differently: 2e-6 of the largest logit, what separates any two orders here.
 */
#include "model_fixture.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

#define VOCAB 53

static const dtype_t formats[] = { DTYPE_F16, DTYPE_BF16 };

/* A model with 16-bit matrices and one with their values in f32. */
struct pair {
    struct rig half, wide;
};

static float widened(uint16_t bits, dtype_t dtype)
{
    return dtype == DTYPE_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

static void open_pair(struct pair *p, dtype_t format, int64_t rows, bool tied, int threads)
{
    const struct glm_config config = tiny_config(tied);
    struct glm_options options = tiny_options(rows);
    options.train = false;
    rig_open(&p->wide, "cpu", threads, &config, &options);
    options.weight_dtype = format;
    rig_open(&p->half, "cpu", threads, &config, &options);
    rig_randomize(&p->half, 5);
    rig_randomize(&p->wide, 5);
    const struct glm_params *table = glm_params(p->half.glm);
    for (int64_t i = 0; i < table->count; i++) {
        const struct tensor from = glm_weight(p->half.glm, i), to = glm_weight(p->wide.glm, i);
        if (from.dtype != format) continue;
        for (int64_t e = 0; e < table->row[i].count; e++)
            ((float *)to.data)[e] = widened(((const uint16_t *)from.data)[e], format);
    }
}

static void close_pair(struct pair *p)
{
    rig_close(&p->half);
    rig_close(&p->wide);
}

/* Logits of every row of a batch, and its loss behind them; free them. */
static double *results(struct rig *rig, const struct batch *b)
{
    const int64_t rows = b->glm.rows;
    double *out = calloc((size_t)(rows * VOCAB + 1), sizeof *out);
    assert_non_null(out);
    out[rows * VOCAB] = rig_eval(rig, &b->glm);
    assert_ok(glm_look_logits(rig->glm, out, rows, 0, rows));
    return out;
}

/* rows: few, some, many: each way that products take. */
static void check_forward(dtype_t format, int64_t rows, bool tied)
{
    const struct sample sample = { 3, rows / 2, rows };
    struct pair p;
    struct batch batch;
    open_pair(&p, format, rows, tied, 2);
    batch_make(&batch, &sample, 1, 0);
    double *half = results(&p.half, &batch), *wide = results(&p.wide, &batch);
    const int64_t count = rows * VOCAB;
    if (rows <= 8) assert_memory_equal(half, wide, (size_t)(count + 1) * sizeof *half);
    assert_true(largest_error(half, wide, count) <= 2e-6);
    assert_true(largest_error(half + count, wide + count, 1) <= 2e-6);
    free(half);
    free(wide);
    batch_clear(&batch);
    close_pair(&p);
}

static void test_forward(void **state)
{
    (void)state;
    static const int64_t rows[] = { 2, 8, 9, 20, 60 };
    for (int64_t f = 0; f < COUNT_OF(formats); f++)
        for (int64_t r = 0; r < COUNT_OF(rows); r++)
            for (int tied = 0; tied < 2; tied++) check_forward(formats[f], rows[r], tied);
}

/* A prompt of 8 tokens and 20 more, one at a time: the same bits all the way. */
static void test_decode(void **state)
{
    (void)state;
    enum { PROMPT = 8, STEPS = 20, ROWS = PROMPT + STEPS };
    const struct sample sample = { 4, PROMPT, ROWS };
    const int32_t slot = 0;
    struct pair p;
    struct batch batch;
    batch_make(&batch, &sample, 1, 0);
    for (int64_t f = 0; f < COUNT_OF(formats); f++) {
        open_pair(&p, formats[f], ROWS, true, 2);
        struct rig *rigs[] = { &p.half, &p.wide };
        float logits[2][STEPS + 1][VOCAB];
        for (int i = 0; i < 2; i++) {
            struct glm_cache *cache;
            assert_ok(glm_cache_create(&cache, rigs[i]->glm, 1, ROWS));
            assert_ok(glm_prefill(cache, logits[i][0], 0, batch.ids, batch.pos, batch.block, PROMPT,
                                  PROMPT));
            for (int64_t at = PROMPT; at < ROWS; at++)
                assert_ok(glm_decode(cache, logits[i][at - PROMPT + 1], &slot, batch.ids + at,
                                     batch.pos + at, batch.block + at, 1));
            glm_cache_close(cache);
        }
        assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
        close_pair(&p);
    }
    batch_clear(&batch);
}

static void test_threads(void **state)
{
    (void)state;
    const struct sample sample = { 5, 30, 60 };
    double *first = NULL;
    struct batch batch;
    batch_make(&batch, &sample, 1, 0);
    for (int threads = 1; threads <= 4; threads++) {
        struct pair p;
        open_pair(&p, DTYPE_F16, 60, true, threads);
        double *now = results(&p.half, &batch);
        if (first != NULL) assert_memory_equal(first, now, (60 * VOCAB + 1) * sizeof *now);
        free(first);
        first = now;
        close_pair(&p);
    }
    free(first);
    batch_clear(&batch);
}

/* Initial weights are those of a float32 model, rounded. */
static void test_initial_weights(void **state)
{
    (void)state;
    struct pair p;
    open_pair(&p, DTYPE_BF16, 4, false, 1);
    assert_ok(glm_init(p.half.glm, 9));
    assert_ok(glm_init(p.wide.glm, 9));
    const struct glm_params *table = glm_params(p.half.glm);
    for (int64_t i = 0; i < table->count; i++) {
        const struct tensor a = glm_weight(p.half.glm, i), b = glm_weight(p.wide.glm, i);
        const int64_t count = table->row[i].count;
        if (a.dtype == DTYPE_F32) {
            assert_memory_equal(a.data, b.data, (size_t)count * sizeof(float));
            continue;
        }
        const uint16_t *half = a.data;
        const float *wide = b.data;
        for (int64_t e = 0; e < count; e++) assert_int_equal(half[e], f32_to_bf16(wide[e]));
    }
    close_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_initial_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
