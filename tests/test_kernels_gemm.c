/*
 * Products of the cpu backend and what it builds its operators from. Where inputs are small
 * integers every sum is exact, so results must be equal and not close.
 */
#include "testing.h"

#include "kernels/cpu/act.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemv.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/dev.h"
#include "kernels/ops_optim.h"

#include "base/num.h"
#include "base/rng.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *host_alloc(int64_t bytes)
{
    void *data = aligned_alloc(64, (size_t)align_up(bytes + 64, 64));
    assert_non_null(data);
    memset(data, 0xff, (size_t)bytes + 64); /* NaN, so that nothing passes by luck */
    return data;
}

static float *floats(int64_t count) { return host_alloc(count * (int64_t)sizeof(float)); }

enum fill { FILL_INTEGERS, FILL_NORMAL };

static void fill(float *out, int64_t count, enum fill kind, uint64_t seed)
{
    for (int64_t i = 0; i < count; i++) {
        const uint64_t u = rng_u64(seed, RNG_TEST, (uint64_t)i);
        out[i] = kind == FILL_INTEGERS ? (float)(int64_t)(u % 9) - 4.0f
                                       : (float)rng_normal(seed, RNG_TEST, (uint64_t)i);
    }
}

/* ---- products ---- */

struct shape {
    int64_t m, n, k;
};

/* One element; edges of tiles, of lanes and of panels; few rows; a k of many runs; a large tile. */
static const struct shape shapes[] = {
    { 1, 1, 1 },       { 1, 5, 3 },      { 2, 33, 17 },     { 3, 64, 512 },   { 7, 130, 1000 },
    { 8, 31, 530 },    { 9, 65, 64 },    { 16, 48, 96 },    { 64, 64, 64 },   { 65, 129, 33 },
    { 17, 40, 100 },   { 24, 33, 300 },  { 25, 48, 600 },   { 130, 70, 257 }, { 100, 300, 700 },
    { 257, 515, 130 }, { 1030, 90, 40 }, { 70, 1100, 300 },
};

static const char *const forms[] = { "NN", "NT", "TN" };

/* Operands of one product with gaps between rows. */
struct product {
    struct gemm_args g;
    float *a, *b, *c, *c_before;
    uint16_t *b16;
    struct scratch scratch;
    int64_t a_count, b_count, c_count;
};

static void product_open(struct product *p, struct dev *dev, struct shape s, const char *form,
                         dtype_t b_dtype, enum fill kind)
{
    const bool ta = form[0] == 'T', tb = form[1] == 'T';
    const int64_t gap = 3;
    *p = (struct product){ .g = { .a_transposed = ta,
                                  .b_transposed = tb,
                                  .m = s.m,
                                  .n = s.n,
                                  .k = s.k,
                                  .b_dtype = b_dtype } };
    p->g.lda = (ta ? s.m : s.k) + gap;
    p->g.ldb = (tb ? s.k : s.n) + gap;
    p->g.ldc = s.n + gap;
    p->a_count = (ta ? s.k : s.m) * p->g.lda;
    p->b_count = (tb ? s.n : s.k) * p->g.ldb;
    p->c_count = s.m * p->g.ldc;
    p->a = floats(p->a_count);
    p->b = floats(p->b_count);
    p->c = floats(p->c_count);
    p->c_before = floats(p->c_count);
    fill(p->a, p->a_count, kind, 1);
    fill(p->b, p->b_count, kind, 2);
    fill(p->c, p->c_count, kind, 3);
    memcpy(p->c_before, p->c, (size_t)p->c_count * sizeof(float));
    p->b16 = host_alloc(p->b_count * 2);
    for (int64_t i = 0; i < p->b_count; i++)
        p->b16[i] = b_dtype == DTYPE_F16 ? f32_to_f16(p->b[i]) : f32_to_bf16(p->b[i]);
    p->g.a = p->a;
    p->g.b = b_dtype == DTYPE_F32 ? (const void *)p->b : p->b16;
    p->g.c = p->c;
    const int threads = dev->threads;
    dev->threads = 4; /* the most that any test runs it with */
    p->scratch.bytes = gemm_scratch_bytes(dev, &p->g);
    dev->threads = threads;
    p->scratch.data = host_alloc(p->scratch.bytes);
    p->g.scratch = p->scratch;
}

static void product_close(struct product *p)
{
    free(p->a);
    free(p->b);
    free(p->b16);
    free(p->c);
    free(p->c_before);
    free(p->scratch.data);
}

static double expected_at(const struct product *p, int64_t i, int64_t j)
{
    const struct gemm_args *g = &p->g;
    double sum = g->accumulate ? (double)p->c_before[i * g->ldc + j] : 0;
    for (int64_t k = 0; k < g->k; k++) {
        const float a = g->a_transposed ? p->a[k * g->lda + i] : p->a[i * g->lda + k];
        const float b = g->b_transposed ? p->b[j * g->ldb + k] : p->b[k * g->ldb + j];
        sum += (double)a * (double)b;
    }
    return sum;
}

static void check_exact(struct product *p, struct dev *dev, const char *form)
{
    assert_ok(gemm_f32(dev, &p->g));
    for (int64_t i = 0; i < p->g.m; i++)
        for (int64_t j = 0; j < p->g.ldc; j++) {
            const double got = (double)p->c[i * p->g.ldc + j];
            const double expected =
                j < p->g.n ? expected_at(p, i, j) : (double)p->c_before[i * p->g.ldc + j];
            if (got != expected)
                fail_msg("%s %lldx%lldx%lld %s%s: [%lld,%lld] = %g, expected %g", form,
                         (long long)p->g.m, (long long)p->g.n, (long long)p->g.k,
                         dtype_name(p->g.b_dtype), p->g.accumulate ? " +=" : "", (long long)i,
                         (long long)j, got, expected);
        }
}

/* Every form, b format, and both = and +=, exactly; what lies between rows stays. */
static void test_exact(void **state)
{
    struct dev *dev = *state;
    static const dtype_t formats[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16 };
    dev->threads = 2;
    for (int64_t s = 0; s < COUNT_OF(shapes); s++)
        for (int form = 0; form < 3; form++)
            for (int64_t f = 0; f < COUNT_OF(formats); f++)
                for (int accumulate = 0; accumulate < 2; accumulate++) {
                    struct product p;
                    product_open(&p, dev, shapes[s], forms[form], formats[f], FILL_INTEGERS);
                    p.g.accumulate = accumulate;
                    check_exact(&p, dev, forms[form]);
                    product_close(&p);
                }
}

/* |error| <= k * 2^-24 * sum |a||b|, the bound for any order of summation. */
static void test_error(void **state)
{
    struct dev *dev = *state;
    dev->threads = 2;
    for (int64_t s = 0; s < COUNT_OF(shapes); s++)
        for (int form = 0; form < 3; form++) {
            struct product p;
            product_open(&p, dev, shapes[s], forms[form], DTYPE_F32, FILL_NORMAL);
            assert_ok(gemm_f32(dev, &p.g));
            const int64_t i = p.g.m / 2;
            for (int64_t j = 0; j < p.g.n; j++) {
                double magnitude = 0;
                for (int64_t k = 0; k < p.g.k; k++) {
                    const float a = p.g.a_transposed ? p.a[k * p.g.lda + i] : p.a[i * p.g.lda + k];
                    const float b = p.g.b_transposed ? p.b[j * p.g.ldb + k] : p.b[k * p.g.ldb + j];
                    magnitude += fabs((double)a * (double)b);
                }
                const double error = fabs((double)p.c[i * p.g.ldc + j] - expected_at(&p, i, j));
                assert_true(error <= (double)p.g.k * 0x1p-24 * magnitude);
            }
            product_close(&p);
        }
}

static void test_threads(void **state)
{
    struct dev *dev = *state;
    static const dtype_t formats[] = { DTYPE_F32, DTYPE_F16 };
    for (int64_t s = 0; s < COUNT_OF(shapes); s++)
        for (int form = 0; form < 3; form++)
            for (int64_t f = 0; f < COUNT_OF(formats); f++) {
                struct product p;
                product_open(&p, dev, shapes[s], forms[form], formats[f], FILL_NORMAL);
                float *first = floats(p.c_count);
                for (dev->threads = 1; dev->threads <= 4; dev->threads++) {
                    memcpy(p.c, p.c_before, (size_t)p.c_count * sizeof(float));
                    assert_ok(gemm_f32(dev, &p.g));
                    if (dev->threads == 1) memcpy(first, p.c, (size_t)p.c_count * sizeof(float));
                    assert_memory_equal(first, p.c, (size_t)p.c_count * sizeof(float));
                }
                free(first);
                product_close(&p);
            }
    dev->threads = 2;
}

/* Other values in one row leave every bit of the other rows. */
static void test_rows(void **state)
{
    struct dev *dev = *state;
    for (int64_t s = 0; s < COUNT_OF(shapes); s++) {
        struct product p;
        product_open(&p, dev, shapes[s], "NT", DTYPE_F32, FILL_NORMAL);
        const int64_t changed = p.g.m / 2, row_bytes = p.g.n * (int64_t)sizeof(float);
        float *first = floats(p.c_count);
        assert_ok(gemm_f32(dev, &p.g));
        memcpy(first, p.c, (size_t)p.c_count * sizeof(float));
        for (int64_t k = 0; k < p.g.k; k++) p.a[changed * p.g.lda + k] += 1e3f;
        assert_ok(gemm_f32(dev, &p.g));
        for (int64_t i = 0; i < p.g.m; i++) {
            const int64_t at = i * p.g.ldc;
            const bool same = memcmp(first + at, p.c + at, (size_t)row_bytes) == 0;
            assert_true(same == (i != changed));
        }
        free(first);
        product_close(&p);
    }
}

#define FEW_ROWS 23 /* three groups of 8, 8 and 7 */

/* With few rows the same holds for their number. */
static void test_few_rows(void **state)
{
    struct dev *dev = *state;
    struct product all;
    product_open(&all, dev, (struct shape){ FEW_ROWS, 70, 1337 }, "NT", DTYPE_BF16, FILL_NORMAL);
    assert_ok(gemm_f32(dev, &all.g));
    float *alone = floats(all.g.n);
    for (int64_t i = 0; i < FEW_ROWS; i++) {
        struct gemm_args one = all.g;
        one.m = 1;
        one.a = all.a + i * all.g.lda;
        one.c = alone;
        assert_ok(gemm_f32(dev, &one));
        assert_memory_equal(alone, all.c + i * all.g.ldc, (size_t)all.g.n * sizeof(float));
    }
    free(alone);
    product_close(&all);
}

/* Tiles cover the output once, whatever its shape, and finish sees each element once. */
static void count_visits(const void *context, float *tile, int64_t ld, int64_t row, int64_t rows,
                         int64_t col, int64_t cols)
{
    const struct tensor *visits = context;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            float *seen = (float *)visits->data + (row + r) * visits->row_stride + col + c;
            *seen = *seen == 0.0f ? tile[r * ld + c] + 1.0f : NAN;
        }
}

static void test_finish(void **state)
{
    struct dev *dev = *state;
    for (int64_t s = 0; s < COUNT_OF(shapes); s++)
        for (int in_scratch = 0; in_scratch < 2; in_scratch++) {
            struct product p;
            product_open(&p, dev, shapes[s], in_scratch ? "NN" : "NT", DTYPE_F32, FILL_INTEGERS);
            const int64_t count = p.g.m * p.g.n;
            struct tensor visits = tensor_2d(floats(count), DTYPE_F32, p.g.m, p.g.n, "visits");
            memset(visits.data, 0, (size_t)count * sizeof(float));
            p.g.tiles_in_scratch = in_scratch;
            p.g.finish = count_visits;
            p.g.finish_context = &visits;
            p.g.scratch.bytes = gemm_scratch_bytes(dev, &p.g);
            p.g.scratch.data = host_alloc(p.g.scratch.bytes);
            assert_ok(gemm_f32(dev, &p.g));
            for (int64_t i = 0; i < p.g.m; i++)
                for (int64_t j = 0; j < p.g.n; j++)
                    assert_true((double)((float *)visits.data)[i * p.g.n + j] ==
                                expected_at(&p, i, j) + 1);
            if (in_scratch) assert_memory_equal(p.c, p.c_before, (size_t)p.c_count * sizeof(float));
            free(p.g.scratch.data);
            free(visits.data);
            product_close(&p);
        }
}

static int thread_count_now(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *e; (e = readdir(tasks)) != NULL;) count += e->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* Must run before anything that starts threads. */
static void test_one_thread(void **state)
{
    struct dev *dev = *state;
    dev->threads = 1;
    struct product p;
    product_open(&p, dev, (struct shape){ 600, 600, 600 }, "NN", DTYPE_F32, FILL_NORMAL);
    assert_ok(gemm_f32(dev, &p.g));
    assert_int_equal(thread_count_now(), 1);
    assert_true(dev->stats.gemm_flop == 2.0 * 600 * 600 * 600);
    assert_true(dev->stats.gemm_s > 0);
    product_close(&p);
}

static void test_tiles(void **state)
{
    (void)state;
    for (int64_t m = 1; m < 20000; m = m * 5 / 4 + 1)
        for (int64_t n = 1; n < 200000; n = n * 5 / 4 + 1) {
            const struct gemm_tile t = gemm_tile_of(m, n, DTYPE_F32);
            const int64_t tiles = div_ceil(m, t.rows) * div_ceil(n, t.cols);
            assert_true(t.rows >= 1 && t.rows <= 1024 && t.cols >= 1 && t.cols <= 1024);
            assert_true(tiles >= 8 || t.rows < 128 || t.cols < 128); /* enough for 8 threads */
            assert_true(gemm_tile_of(m, n, DTYPE_F16).cols <= 512);  /* widened b stays in cache */
        }
}

/* ---- what loops are made of ---- */

/* Distance in units in the last place of the f32 next to `exact`. */
static double ulps(float got, double exact)
{
    const float nearest = (float)exact;
    const double step = (double)nextafterf(fabsf(nearest), INFINITY) - (double)fabsf(nearest);
    return fabs((double)got - exact) / step;
}

static void test_exp(void **state)
{
    (void)state;
    double worst = 0;
    const float top = VEC_EXP_MAX, bottom = VEC_EXP_MIN;
    for (uint32_t bits = 0; bits <= f32_to_bits(top); bits += 251)
        worst = fmax(worst, ulps(vec_expf(bits_to_f32(bits)), exp((double)bits_to_f32(bits))));
    for (uint32_t bits = f32_to_bits(-0.0f); bits <= f32_to_bits(bottom); bits += 251)
        worst = fmax(worst, ulps(vec_expf(bits_to_f32(bits)), exp((double)bits_to_f32(bits))));
    printf("  exp: largest error %.3f ulp\n", worst);
    assert_true(worst <= 1.0);
    assert_true(vec_expf(0.0f) == 1.0f && vec_expf(-0.0f) == 1.0f);
    assert_true(vec_expf(nextafterf(bottom, -INFINITY)) == 0.0f);
    assert_true(vec_expf(-INFINITY) == 0.0f);
    assert_true(vec_expf(INFINITY) == vec_expf(top));
    assert_true(isnan(vec_expf(NAN)));
}

static void test_widen(void **state)
{
    (void)state;
    enum { COUNT = 0x10000, FIRST = 3 }; /* begins off every boundary and ends off a vector */
    uint16_t *half = host_alloc(COUNT * 2);
    float *wide = floats(COUNT);
    for (int i = 0; i < COUNT; i++) half[i] = (uint16_t)i;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        widen_run(wide, half, bf16 ? DTYPE_BF16 : DTYPE_F16, FIRST, COUNT - FIRST);
        for (int i = FIRST; i < COUNT; i++) {
            const float expected = bf16 ? bf16_to_f32(half[i]) : f16_to_f32(half[i]);
            const float got = wide[i - FIRST];
            /* hardware makes a signalling NaN quiet */
            assert_true(isnan(expected) ? isnan(got) : f32_to_bits(got) == f32_to_bits(expected));
        }
    }
    free(half);
    free(wide);
}

/* However a row is cut, an element has the same bits: vectorised bodies and scalar ends agree. */
static void test_act_pieces(void **state)
{
    (void)state;
    enum { COUNT = 1003 };
    float *pre = floats(2 * COUNT), *g = floats(COUNT), *whole = floats(2 * COUNT);
    float *pieces = floats(2 * COUNT);
    fill(pre, 2 * COUNT, FILL_NORMAL, 4);
    fill(g, COUNT, FILL_NORMAL, 5);
    for (enum act_kind act = ACT_GELU_TANH; act <= ACT_SWIGLU; act++)
        for (int64_t width = 1; width < 70; width += 6) {
            act_apply(act, whole, COUNT, pre, COUNT, COUNT, 1, COUNT);
            for (int64_t c = 0; c < COUNT; c += width)
                act_apply(act, pieces + c, COUNT, pre + c, COUNT, COUNT, 1,
                          min_i64(width, COUNT - c));
            assert_memory_equal(whole, pieces, COUNT * sizeof(float));
            act_chain(act, whole, COUNT, g, COUNT, pre, COUNT, COUNT, 1, COUNT);
            for (int64_t c = 0; c < COUNT; c += width)
                act_chain(act, pieces + c, COUNT, g + c, COUNT, pre + c, COUNT, COUNT, 1,
                          min_i64(width, COUNT - c));
            const int64_t written = act == ACT_SWIGLU ? 2 * COUNT : COUNT;
            assert_memory_equal(whole, pieces, (size_t)written * sizeof(float));
        }
    free(pre);
    free(g);
    free(whole);
    free(pieces);
}

/* The same for AdamW: ranks cut tensors in different places. */
static void test_adamw_pieces(void **state)
{
    struct dev *dev = *state;
    enum { COUNT = 40000, ARENAS = 4 };
    float *whole[ARENAS], *cut[ARENAS];
    for (int i = 0; i < ARENAS; i++) {
        whole[i] = floats(COUNT);
        cut[i] = floats(COUNT);
        fill(whole[i], COUNT, FILL_NORMAL, (uint64_t)(10 + i));
        for (int64_t e = 0; i == 3 && e < COUNT; e++) whole[i][e] = fabsf(whole[i][e]);
        memcpy(cut[i], whole[i], COUNT * sizeof(float));
    }
    struct adamw_segment pieces[400];
    int64_t piece_count = 0;
    for (int64_t at = 0; at < COUNT; piece_count++) {
        const int64_t count = min_i64(1 + piece_count * 13 % 211, COUNT - at);
        pieces[piece_count] = (struct adamw_segment){ .weight_offset = at,
                                                      .grad_offset = at,
                                                      .state_offset = at,
                                                      .count = count,
                                                      .decay = true };
        at += count;
        assert_true(piece_count + 1 < COUNT_OF(pieces));
    }
    const struct adamw_segment all = { .count = COUNT, .decay = true };
    for (int run = 0; run < 2; run++) {
        float **arena = run == 0 ? whole : cut;
        struct tensor t[ARENAS];
        for (int i = 0; i < ARENAS; i++) t[i] = tensor_1d(arena[i], DTYPE_F32, COUNT, "arena");
        const struct adamw_segments_args args = {
            .weight = &t[0],
            .grad = &t[1],
            .exp_avg = &t[2],
            .exp_avg_sq = &t[3],
            .segments = run == 0 ? &all : pieces,
            .segment_count = run == 0 ? 1 : piece_count,
            .lr = 1e-3,
            .beta1 = 0.9,
            .beta2 = 0.95,
            .eps = 1e-8,
            .weight_decay = 0.1,
            .grad_scale = 0.7,
            .update = 3,
        };
        assert_ok(op_adamw_segments(dev, &args));
    }
    for (int i = 0; i < ARENAS; i++) {
        assert_memory_equal(whole[i], cut[i], COUNT * sizeof(float));
        free(whole[i]);
        free(cut[i]);
    }
}

static int open_dev(void **state)
{
    struct dev *dev;
    assert_ok(dev_open(&dev, "cpu", 1));
    *state = dev;
    return 0;
}

static int close_dev(void **state)
{
    dev_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread), /* first */
        cmocka_unit_test(test_exact),        cmocka_unit_test(test_error),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_rows),
        cmocka_unit_test(test_few_rows),     cmocka_unit_test(test_finish),
        cmocka_unit_test(test_tiles),        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_widen),        cmocka_unit_test(test_act_pieces),
        cmocka_unit_test(test_adamw_pieces),
    };
    return cmocka_run_group_tests(tests, open_dev, close_dev);
}
