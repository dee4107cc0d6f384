/* rng.h: the generator's published answers, bijections, and the moments of the distributions. */
#include "testing.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The three philox4x32-10 rows of Random123's known answers: counter, key, output. */
static void test_known_answers(void **state)
{
    (void)state;
    static const uint32_t rows[3][10] = {
        { 0, 0, 0, 0, 0, 0, 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u },
        { 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu,
          0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu },
        { 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0xa4093822u, 0x299f31d0u,
          0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u },
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        rng_philox(out, rows[i], rows[i] + 4);
        assert_memory_equal(out, rows[i] + 6, sizeof out);
    }
    assert_true(rng_u64(0, 0, 0) == 0xe169c58d6627e8d5u);
    assert_true(rng_u64(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u) ==
                0x94fdccebd16cfe09u);
}

/* These values are in checkpoints' futures: a run resumed tomorrow must draw the same. */
static void test_pinned(void **state)
{
    (void)state;
    assert_true(rng_uniform(0, 0, 0) == (double)(0xe169c58d6627e8d5u >> 11) * 0x1p-53);
    static const int64_t places[8] = { 7, 3, 0, 5, 1, 4, 2, 6 };
    for (int64_t i = 0; i < 8; i++) assert_true(rng_permute(42, RNG_SHUFFLE, i, 8) == places[i]);
    assert_true(rng_permute(42, RNG_SHUFFLE, 12345, 2300248) == 1175684);
}

static void test_bijection(void **state)
{
    (void)state;
    static const int64_t counts[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 100, 255, 256, 257,
                                      1000, 4095, 4096, 4097, 65537 };
    unsigned char *seen = malloc(65537);
    assert_non_null(seen);
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (uint64_t seed = 0; seed < 3; seed++) {
            memset(seen, 0, (size_t)counts[c]);
            for (int64_t i = 0; i < counts[c]; i++) {
                const int64_t place = rng_permute(seed, RNG_TEST, i, counts[c]);
                assert_true(place >= 0 && place < counts[c]);
                assert_int_equal(seen[place]++, 0);
            }
        }
    }
    free(seen);
    const int64_t huge = rng_permute(1, RNG_TEST, INT64_MAX - 1, INT64_MAX);
    assert_true(huge >= 0 && huge < INT64_MAX);
}

/* Over seeds, every index goes to every place equally often: each of the 49 cells is a binomial
 * of 7000 draws with p = 1/7, so 6 standard deviations are 6 * sqrt(7000 * 6 / 49) = 176. */
static void test_permute_uniform(void **state)
{
    (void)state;
    int cells[7][7] = { { 0 } };
    for (uint64_t seed = 0; seed < 7000; seed++)
        for (int64_t i = 0; i < 7; i++) cells[i][rng_permute(seed, RNG_TEST, i, 7)]++;
    for (int i = 0; i < 49; i++) assert_in_range(cells[i / 7][i % 7], 1000 - 176, 1000 + 176);
}

/* Neighbours must not stay neighbours: in a random order of n, 2 pairs of n - 1 do on average. */
static void test_permute_mixes(void **state)
{
    (void)state;
    int kept = 0;
    int64_t before = rng_permute(3, RNG_TEST, 0, 100000);
    for (int64_t i = 1; i < 100000; i++) {
        const int64_t place = rng_permute(3, RNG_TEST, i, 100000);
        kept += llabs(place - before) == 1;
        before = place;
    }
    assert_in_range(kept, 0, 12);
}

/*
 * Sample moments of N values lie within 5 standard errors: var(mean) = 1/N, var(mean square) = 2/N,
 * var(mean cube) = 15/N, var(mean fourth) = 96/N for a standard normal.
 */
static void test_normal(void **state)
{
    (void)state;
    enum { N = 200000 };
    double sum[5] = { 0 }, largest = 0;
    for (uint64_t i = 0; i < N; i++) {
        const double x = rng_normal(7, RNG_TEST, i);
        double power = 1;
        for (int k = 1; k < 5; k++) sum[k] += power *= x;
        largest = fmax(largest, fabs(x));
    }
    const double expected[5] = { 0, 0, 1, 0, 3 }, variance[5] = { 0, 1, 2, 15, 96 };
    for (int k = 1; k < 5; k++)
        assert_true(fabs(sum[k] / N - expected[k]) < 5 * sqrt(variance[k] / N));
    assert_true(largest > 4 && largest < 8.6);
}

/* Uniform: moments as above (variance 1/12), and consecutive values are not correlated. */
static void test_uniform(void **state)
{
    (void)state;
    enum { N = 200000 };
    double sum = 0, product = 0, before = 0;
    for (uint64_t i = 0; i < N; i++) {
        const double u = rng_uniform(7, RNG_TEST, i);
        assert_true(u >= 0 && u < 1);
        sum += u - 0.5;
        product += (u - 0.5) * before;
        before = u - 0.5;
    }
    assert_true(fabs(sum / N) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(product / N) < 5 * (1.0 / 12) / sqrt(N));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers), cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_bijection),     cmocka_unit_test(test_permute_uniform),
        cmocka_unit_test(test_permute_mixes), cmocka_unit_test(test_normal),
        cmocka_unit_test(test_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
