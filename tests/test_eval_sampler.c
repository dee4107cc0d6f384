/*
 * The sampler: exact distributions by hand against the frequencies of 20,000 draws, within five
 * standard deviations of a binomial (the draws are a fixed sequence: the test always does the
 * same); each choice against a plain sort; ties, extremes and rows that are not finite.
 */
#include "testing.h"

#include "base/check.h"
#include "base/rng.h"
#include "eval/sampler.h"
#include "eval/settings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DRAWS     20000
#define VOCAB_MAX 1000
#define FALLBACK  3

static struct sampler plain(void)
{
    return (struct sampler){
        .temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 42, .fallback = FALLBACK
    };
}

static int32_t choose(const struct sampler *s, struct sampler_memory *m, const float *logits,
                      int64_t vocab, uint64_t stream, uint64_t index)
{
    float row[VOCAB_MAX];
    memcpy(row, logits, (size_t)vocab * sizeof *row);
    return sampler_choose(s, m, row, vocab, NULL, 0, stream, index);
}

static struct sampler_memory open_memory(int64_t vocab)
{
    struct sampler_memory m;
    assert_ok(sampler_memory_init(&m, vocab));
    return m;
}

/* ---- distributions ---- */

struct expected {
    struct sampler sampler;
    double p[5];
};

static void check_frequencies(const struct expected *e, const float *logits, int64_t vocab,
                              const int32_t *history, int64_t history_count)
{
    int64_t found[5] = { 0 };
    struct sampler_memory m = open_memory(vocab);
    for (uint64_t i = 0; i < DRAWS; i++) {
        float row[5];
        memcpy(row, logits, (size_t)vocab * sizeof *row);
        const int32_t id =
            sampler_choose(&e->sampler, &m, row, vocab, history, history_count, 7, i);
        assert_in_range(id, 0, vocab - 1);
        found[id]++;
    }
    for (int64_t i = 0; i < vocab; i++) {
        const double mean = DRAWS * e->p[i], sigma = sqrt(mean * (1 - e->p[i]));
        assert_true(fabs((double)found[i] - mean) <= 5 * sigma);
    }
    sampler_memory_clear(&m);
}

/* Powers of two: a half, a quarter, ... The sums of the sampler are exact for them. */
static void halves(float logits[5])
{
    static const double p[5] = { 1. / 8, 1. / 2, 1. / 16, 1. / 4, 1. / 16 };
    for (int i = 0; i < 5; i++) logits[i] = (float)log(p[i]);
}

static void test_distributions(void **state)
{
    (void)state;
    float logits[5];
    halves(logits);
    const double squares = 1. / 64 + 1. / 4 + 1. / 256 + 1. / 16 + 1. / 256;
    const double roots = sqrt(1. / 8) + sqrt(1. / 2) + 0.25 + 0.5 + 0.25;
    struct expected rows[] = {
        { plain(), { 1. / 8, 1. / 2, 1. / 16, 1. / 4, 1. / 16 } },
        { plain(),
          { 1. / 64 / squares, 1. / 4 / squares, 1. / 256 / squares, 1. / 16 / squares,
            1. / 256 / squares } },
        { plain(),
          { sqrt(1. / 8) / roots, sqrt(1. / 2) / roots, 0.25 / roots, 0.5 / roots, 0.25 / roots } },
        { plain(), { 0, 2. / 3, 0, 1. / 3, 0 } },
        { plain(), { 0, 2. / 3, 0, 1. / 3, 0 } },
        { plain(), { 1. / 7, 4. / 7, 0, 2. / 7, 0 } },
        { plain(), { 0, 2. / 3, 0, 1. / 3, 0 } },
        { plain(), { 0, 1, 0, 0, 0 } },
        { plain(), { 1. / 8, 1. / 2, 1. / 16, 1. / 4, 1. / 16 } },
        { plain(), { 2. / 15, 8. / 15, 1. / 15, 4. / 15, 0 } },
    };
    rows[1].sampler.temperature = 0.5;
    rows[2].sampler.temperature = 2;
    rows[3].sampler.top_k = 2;
    rows[4].sampler.top_p = 0.75; /* reached exactly by two */
    rows[5].sampler.top_p = 0.76; /* needs a third */
    rows[6].sampler.top_k = 3;    /* then 0.8 is of the three's mass: two reach 6/7 of it, */
    rows[6].sampler.top_p = 0.8;  /* and only 3/4 of the whole */
    rows[7].sampler.top_p = 1e-6;
    rows[8].sampler.top_k = 4; /* both of the two of 1/16, as they tie */
    rows[9].sampler.top_k = 4; /* top-p then counts the mass of five: 7/8 do not reach 0.9 of it, */
    rows[9].sampler.top_p = 0.9; /* as they would of four's; of a tie it takes the lower id */
    for (int64_t i = 0; i < COUNT_OF(rows); i++) check_frequencies(&rows[i], logits, 5, NULL, 0);
}

static void test_repetition_penalty(void **state)
{
    (void)state;
    /* Twice in the history counts once; ids outside of the vocabulary are passed over. */
    static const int32_t history[] = { 0, 2, 0, -1, 3, 99 };
    static const float logits[3] = { 2, 2, -1 };
    struct expected e = { plain(), { 0 } };
    const double sum = exp(1) + exp(2) + exp(-2);
    e.sampler.repetition_penalty = 2;
    e.p[0] = exp(1) / sum; /* 2 becomes 2/2 */
    e.p[1] = exp(2) / sum;
    e.p[2] = exp(-2) / sum; /* -1 becomes -1*2 */
    check_frequencies(&e, logits, 3, history, COUNT_OF(history));

    /* It comes before the greedy choice as well. */
    struct sampler_memory m = open_memory(3);
    float row[3] = { 3, 2, 1 };
    e.sampler.greedy = true;
    assert_int_equal(sampler_choose(&e.sampler, &m, row, 3, history, 1, 0, 0), 1);
    sampler_memory_clear(&m);
}

/* ---- against a plain sort ---- */

struct ranked {
    float prob;
    int32_t id;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->prob != y->prob) return x->prob > y->prob ? -1 : 1;
    return x->id - y->id;
}

static int32_t choose_by_sorting(const struct sampler *s, const float *logits, int64_t vocab,
                                 uint64_t stream, uint64_t index)
{
    struct ranked r[VOCAB_MAX];
    double max = logits[0], sum = 0, mass = 0;
    for (int64_t i = 1; i < vocab; i++) max = fmax(max, logits[i]);
    for (int64_t i = 0; i < vocab; i++) {
        const float prob = (float)exp(((double)logits[i] - max) / s->temperature);
        r[i] = (struct ranked){ prob, (int32_t)i };
        sum += (double)r[i].prob;
    }
    qsort(r, (size_t)vocab, sizeof *r, compare_ranked);
    int64_t k = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    if (k < vocab) {
        while (k < vocab && r[k].prob > 0 && r[k].prob == r[k - 1].prob) k++;
        sum = 0;
        for (int64_t i = 0; i < k; i++) sum += (double)r[i].prob;
    }
    int64_t kept = 0;
    while (kept < k && (kept == 0 || mass < s->top_p * sum)) mass += (double)r[kept++].prob;
    double left = rng_uniform(s->seed, RNG_SAMPLING | stream << 8, index) * mass;
    for (int64_t i = 0; i < kept; i++) {
        left -= (double)r[i].prob;
        if (left < 0) return r[i].id;
    }
    return r[kept - 1].id;
}

static void test_against_sorting(void **state)
{
    (void)state;
    struct sampler_memory m = open_memory(VOCAB_MAX);
    float logits[VOCAB_MAX];
    for (uint64_t n = 0; n < 600; n++) {
        const int64_t vocab = 1 + (int64_t)(rng_u64(1, RNG_TEST, n) % VOCAB_MAX);
        struct sampler s = plain();
        s.seed = n;
        s.temperature = 0.2 + 2 * rng_uniform(2, RNG_TEST, n);
        s.top_p = 0.01 + 0.98 * rng_uniform(3, RNG_TEST, n);
        s.top_k = n % 3 == 0 ? 0 : (int64_t)(rng_u64(4, RNG_TEST, n) % 1200);
        for (int64_t i = 0; i < vocab; i++) { /* quarters: there are many ties */
            const double x = 2 * rng_normal(5 + n, RNG_TEST, (uint64_t)i);
            logits[i] = (float)(n % 2 ? rint(4 * x) / 4 : x);
        }
        for (uint64_t i = 0; i < 5; i++)
            assert_int_equal(choose(&s, &m, logits, vocab, n, i),
                             choose_by_sorting(&s, logits, vocab, n, i));
    }
    sampler_memory_clear(&m);
}

/* ---- edges ---- */

static void test_ties(void **state)
{
    (void)state;
    static const float same[4] = { 1, 1, 1, 1 };
    struct expected e = { plain(), { 0.5, 0.5, 0, 0 } };
    e.sampler.top_p = 0.5;
    check_frequencies(&e, same, 4, NULL, 0);
    e = (struct expected){ plain(), { 0.25, 0.25, 0.25, 0.25 } };
    e.sampler.top_k = 2; /* all tie with the second */
    check_frequencies(&e, same, 4, NULL, 0);
    struct sampler_memory m = open_memory(4);
    e.sampler.greedy = true;
    assert_int_equal(choose(&e.sampler, &m, same, 4, 0, 0), 0);
    sampler_memory_clear(&m);
}

static void test_not_finite(void **state)
{
    (void)state;
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    struct sampler s = plain();
    struct sampler_memory m = open_memory(6);
    for (int64_t i = 0; i < COUNT_OF(bad); i++)
        for (int64_t at = 0; at < 5; at++) {
            float logits[6] = { 0, 1, 2, -3, 4, NAN }; /* the last one is padding: not looked at */
            s.greedy = at % 2;
            logits[at] = bad[i];
            assert_int_equal(choose(&s, &m, logits, 5, 0, 0), FALLBACK);
            logits[at] = 9;
            assert_in_range(choose(&s, &m, logits, 5, 0, 0), 0, 4);
        }
    assert_int_equal(m.invalid_rows, 15);
    sampler_memory_clear(&m);
}

static void test_extremes(void **state)
{
    (void)state;
    static const float wide[5] = { -3e38f, 1, 3e38f, 0, -1 }, near[5] = { 0, 0.9f, 1, 0.9f, 0 };
    struct expected even = { plain(), { 0.2, 0.2, 0.2, 0.2, 0.2 } };
    struct sampler s = plain();
    struct sampler_memory m = open_memory(5);
    for (uint64_t i = 0; i < 1000; i++) {
        s.temperature = 1;
        assert_int_equal(choose(&s, &m, wide, 5, 0, i), 2);
        s.temperature = 1e-4; /* exp(-0.1/1e-4) is 0: nothing else can come */
        s.top_k = i % 2 ? 4 : 0;
        assert_int_equal(choose(&s, &m, near, 5, 0, i), 2);
        assert_int_equal(choose(&s, &m, near + 2, 1, 0, i), 0); /* a vocabulary of one */
    }
    sampler_memory_clear(&m);
    even.sampler.temperature = 1e6;
    check_frequencies(&even, near, 5, NULL, 0);
    assert_err(sampler_memory_init(&m, INT64_MAX / 16), NOMEM, "vocabulary");
    assert_null(m.prob);
    sampler_memory_clear(&m);
}

static void test_repeatable(void **state)
{
    (void)state;
    static const float logits[5] = { 0.1f, 0.2f, 0.3f, 0.2f, 0.1f };
    struct sampler s = plain(), other = plain();
    struct sampler_memory m = open_memory(5);
    int64_t differ_by_stream = 0, differ_by_seed = 0, differ_by_index = 0;
    other.seed = 43;
    for (uint64_t i = 0; i < 200; i++) {
        const int32_t id = choose(&s, &m, logits, 5, 1, i);
        assert_int_equal(choose(&s, &m, logits, 5, 1, i), id);
        differ_by_stream += choose(&s, &m, logits, 5, 2, i) != id;
        differ_by_seed += choose(&other, &m, logits, 5, 1, i) != id;
        differ_by_index += choose(&s, &m, logits, 5, 1, i + 1) != id;
    }
    /* Independent draws differ in about four of five. */
    assert_in_range(differ_by_stream, 120, 190);
    assert_in_range(differ_by_seed, 120, 190);
    assert_in_range(differ_by_index, 120, 190);
    sampler_memory_clear(&m);
}

static void test_settings(void **state)
{
    (void)state;
    struct cfg *cfg;
    assert_ok(cfg_create(&cfg, &eval_settings, 1));
    struct sampler s = sampler_from_cfg(cfg, 9);
    assert_false(s.greedy);
    assert_true(s.temperature == 0.95 && s.top_p == 0.75 && s.repetition_penalty == 1);
    assert_int_equal(s.top_k, 50);
    assert_int_equal(s.fallback, 9);
    assert_ok(cfg_set(cfg, "generate.seed", "7", "test"));
    assert_ok(cfg_set(cfg, "generate.greedy", "true", "test"));
    s = sampler_from_cfg(cfg, 9);
    assert_true(s.greedy && s.seed == 7);
    assert_err(cfg_set(cfg, "generate.temperature", "0", "test"), USAGE, "generate.temperature");
    assert_err(cfg_set(cfg, "generate.top_p", "0", "test"), USAGE, "generate.top_p");
    assert_err(cfg_set(cfg, "generate.batch", "0", "test"), USAGE, "generate.batch");
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distributions),   cmocka_unit_test(test_repetition_penalty),
        cmocka_unit_test(test_against_sorting), cmocka_unit_test(test_ties),
        cmocka_unit_test(test_not_finite),      cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_repeatable),      cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
