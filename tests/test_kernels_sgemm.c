/*
 * The float32 products that the cpu backend is built on: the library's and our own. With small
 * integers every sum is exact, so results must be equal and not close.
 */
#include "testing.h"

#include "base/check.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernels/cpu/sgemm.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

struct shape {
    int64_t m, n, k;
};

/* One element; edges of register tiles, of panels of a and of b, of blocks of k and of m. */
static const struct shape shapes[] = {
    { 1, 1, 1 },    { 5, 3, 2 },     { 6, 16, 8 },    { 13, 31, 256 },  { 14, 32, 257 },
    { 15, 33, 64 }, { 28, 64, 512 }, { 29, 65, 513 }, { 680, 40, 300 }, { 1, 100, 700 },
};

static float *floats(int64_t count)
{
    float *out = malloc((size_t)count * sizeof *out);
    assert_non_null(out);
    return out;
}

static float *integers(int64_t count, uint64_t seed)
{
    float *out = floats(count);
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(int64_t)(rng_u64(seed, RNG_TEST, (uint64_t)i) % 9) - 4.0f;
    return out;
}

/* Rows of a and b lie one float apart, those of c three. */
static struct sgemm_args make(struct shape s, int form)
{
    struct sgemm_args g = { .a_transposed = form & 1,
                            .b_transposed = form & 2,
                            .m = s.m,
                            .n = s.n,
                            .k = s.k,
                            .alpha = 1.0f,
                            .ldc = s.n + 3 };
    g.lda = (g.a_transposed ? s.m : s.k) + 1;
    g.ldb = (g.b_transposed ? s.k : s.n) + 1;
    g.a = integers((g.a_transposed ? s.k : s.m) * g.lda, 1);
    g.b = integers((g.b_transposed ? s.n : s.k) * g.ldb, 2);
    g.c = floats(s.m * g.ldc);
    return g;
}

static void clear(struct sgemm_args *g)
{
    free((void *)(uintptr_t)g->a);
    free((void *)(uintptr_t)g->b);
    free(g->c);
}

static float element(const struct sgemm_args *g, int64_t i, int64_t j)
{
    float sum = 0.0f;
    for (int64_t p = 0; p < g->k; p++)
        sum += (g->a_transposed ? g->a[p * g->lda + i] : g->a[i * g->lda + p]) *
               (g->b_transposed ? g->b[j * g->ldb + p] : g->b[p * g->ldb + j]);
    return sum;
}

typedef bool (*product_fn)(const struct sgemm_args *args);

static void check_exact(product_fn product, struct shape s, int form, float alpha, float beta)
{
    struct sgemm_args g = make(s, form);
    g.alpha = alpha;
    g.beta = beta;
    for (int64_t i = 0; i < s.m * g.ldc; i++) g.c[i] = beta == 0.0f ? NAN : 5.0f;
    assert_true(product(&g));
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n; j++) {
            const float old = beta == 0.0f ? 0.0f : 5.0f;
            assert_true(g.c[i * g.ldc + j] == alpha * element(&g, i, j) + beta * old);
        }
        for (int64_t j = s.n; j < g.ldc; j++) /* the gap is nobody's */
            assert_true(beta == 0.0f ? isnan(g.c[i * g.ldc + j]) : g.c[i * g.ldc + j] == 5.0f);
    }
    clear(&g);
}

static void check_all(product_fn product)
{
    static const float factors[][2] = { { 1, 0 }, { 1, 1 }, { 2, 0 }, { 0.5f, -1 } };
    for (int64_t s = 0; s < COUNT_OF(shapes); s++)
        for (int form = 0; form < 4; form++)
            for (int64_t f = 0; f < COUNT_OF(factors); f++)
                check_exact(product, shapes[s], form, factors[f][0], factors[f][1]);
}

static void test_own(void **state)
{
    (void)state;
    check_all(sgemm_own);
}

static void test_library(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        omp_set_num_threads(threads);
        check_all(sgemm);
    }
}

/* A block computed alone has the bits that it has as part of the whole. */
static void test_own_bits(void **state)
{
    (void)state;
    const struct shape s = { 97, 130, 600 };
    struct sgemm_args whole = make(s, 2);
    float *a = (float *)(uintptr_t)whole.a, *b = (float *)(uintptr_t)whole.b;
    for (int64_t i = 0; i < s.m * whole.lda; i++)
        a[i] = (float)rng_normal(1, RNG_TEST, (uint64_t)i);
    for (int64_t i = 0; i < s.n * whole.ldb; i++)
        b[i] = (float)rng_normal(2, RNG_TEST, (uint64_t)i);
    assert_true(sgemm_own(&whole));
    for (int64_t row = 0; row < s.m; row += 31) {
        for (int64_t col = 0; col < s.n; col += 47) {
            struct sgemm_args part = whole;
            float c[31 * 47];
            part.m = min_i64(31, s.m - row);
            part.n = min_i64(47, s.n - col);
            part.a += row * whole.lda;
            part.b += col * whole.ldb;
            part.c = c;
            part.ldc = part.n;
            assert_true(sgemm_own(&part));
            for (int64_t i = 0; i < part.m; i++)
                assert_memory_equal(c + i * part.n, whole.c + (row + i) * whole.ldc + col,
                                    (size_t)part.n * sizeof *c);
        }
    }
    clear(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_own), cmocka_unit_test(test_library),
                                        cmocka_unit_test(test_own_bits) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
