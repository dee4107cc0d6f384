/* Signatures and shingle sets against what they stand for, and sorting against qsort. */
#include "testing.h"

#include "base/check.h"
#include "base/rng.h"
#include "data/dedup.h"
#include "data/dedup_runs.h"
#include "data/split.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void sign(struct dedup_signature *out, const char *question, const char *reply)
{
    struct dedup_work w = { 0 };
    const struct turn_text turns[] = { { ROLE_CLIENT, question, (int64_t)strlen(question) },
                                        { ROLE_COUNSELLOR, reply, (int64_t)strlen(reply) } };
    assert_ok(dedup_sign(out, &w, turns, 2));
    dedup_work_clear(&w);
}

static void test_exact(void **state)
{
    (void)state;
    struct dedup_signature a, b;
    sign(&a, "我今天很难过，Why？", "抱抱你。");
    sign(&b, "我 今天很难过!! Ｗｈｙ", "抱抱你～😊");
    assert_true(a.exact == b.exact);
    assert_int_equal(a.chars, 6 + 3 + 3);
    assert_memory_equal(a.band, b.band, sizeof a.band);
    sign(&b, "我今天很难过，Why？抱", "抱你。"); /* another speaker says it */
    assert_true(a.exact != b.exact);
    sign(&b, "我今天很难过，Who？", "抱抱你。");
    assert_true(a.exact != b.exact);
    sign(&a, "", "");
    sign(&b, "？", "。");
    assert_true(a.exact == b.exact && a.chars == 0);
}

static uint64_t opening(const char *question, const char *reply)
{
    struct dedup_signature s;
    sign(&s, question, reply);
    return s.opening;
}

/* The first 16 characters of the client's first turn that has so many, signs aside. */
static void test_opening(void **state)
{
    (void)state;
    const char *text = "一二三四五六七八九十百千万亿兆京";
    const uint64_t h = opening(text, "好");
    assert_true(h != 0);
    assert_true(h == opening("一二三四，五六七八。九十百千！万亿兆京垓秭", "不好"));
    assert_true(h != opening("一二三四五六七八九十百千万亿兆垓", "好"));
    assert_true(opening("一二三四五六七八九十百千万亿兆", "好") == 0);
    assert_true(opening("你好", text) == 0); /* the counsellor's */
    struct dedup_work w = { 0 };
    struct dedup_signature s;
    const struct turn_text turns[] = { { ROLE_COUNSELLOR, text, (int64_t)strlen(text) },
                                        { ROLE_CLIENT, "你好", 6 },
                                        { ROLE_COUNSELLOR, "好", 3 },
                                        { ROLE_CLIENT, text, (int64_t)strlen(text) } };
    assert_ok(dedup_sign(&s, &w, turns, COUNT_OF(turns)));
    assert_true(s.opening == h);
    dedup_work_clear(&w);
}

/* A text of `count` characters, those from `change` on by another seed. */
static void make_text(char *out, uint64_t seed, int64_t count, int64_t change)
{
    for (int64_t i = 0; i < count; i++) {
        const uint64_t c =
            0x4e00 + rng_u64(i < change ? seed : seed + 1000, RNG_TEST, (uint64_t)i) % 3000;
        out += sprintf(out, "%c%c%c", (int)(0xe0 | c >> 12), (int)(0x80 | (c >> 6 & 63)),
                       (int)(0x80 | (c & 63)));
    }
    *out = '\0';
}

static void fill(struct shingle_set *set, struct dedup_work *w, const char *text)
{
    const struct turn_text turn = { ROLE_CLIENT, text, (int64_t)strlen(text) };
    assert_ok(shingle_set_fill(set, w, &turn, 1));
}

static void test_jaccard(void **state)
{
    (void)state;
    struct shingle_set a = { 0 }, b = { 0 };
    struct dedup_work w = { 0 };
    char text[2000], other[2000];
    make_text(text, 1, 300, 300);
    make_text(other, 1, 300, 200);
    fill(&a, &w, text);
    fill(&b, &w, other);
    assert_int_equal(a.count, 297); /* 300 characters and the mark, 5 at a time */
    assert_true(shingle_set_jaccard(&a, &a) == 1.0);
    /* 200 characters and the mark in common: 197 shingles; 100 more on either side. */
    assert_true(fabs(shingle_set_jaccard(&a, &b) - 197.0 / 397.0) < 1e-12);
    fill(&b, &w, "好");
    assert_int_equal(b.count, 1);
    assert_true(shingle_set_jaccard(&a, &b) == 0.0);
    /* Repeats count once. */
    fill(&a, &w, "哈哈哈哈哈哈哈哈哈哈");
    assert_int_equal(a.count, 2);
    shingle_set_clear(&a);
    shingle_set_clear(&b);
    dedup_work_clear(&w);
}

/* How often one band agrees, for texts of a known similarity: 1-(1-s^6)^20 within five standard
 * deviations of 400 trials. */
static void test_banding(void **state)
{
    (void)state;
    static const int64_t changes[] = { 300, 285, 267, 200, 100 };
    enum { TRIALS = 400, CHARS = 300 };
    for (int64_t i = 0; i < COUNT_OF(changes); i++) {
        const double both = (double)(changes[i] - 3), s = both / (2.0 * (CHARS - 3) - both);
        const double p = 1 - pow(1 - pow(s, DEDUP_BAND_BINS), DEDUP_BANDS);
        int64_t agreed = 0;
        for (uint64_t trial = 0; trial < TRIALS; trial++) {
            char text[1000], other[1000];
            struct dedup_signature a, b;
            bool any = false;
            make_text(text, 10 + 3 * trial, CHARS, CHARS);
            make_text(other, 10 + 3 * trial, CHARS, changes[i]);
            struct dedup_work w = { 0 };
            assert_ok(dedup_sign(&a, &w, &(struct turn_text){ ROLE_CLIENT, text, 3 * CHARS }, 1));
            assert_ok(dedup_sign(&b, &w, &(struct turn_text){ ROLE_CLIENT, other, 3 * CHARS }, 1));
            dedup_work_clear(&w);
            for (int k = 0; k < DEDUP_BANDS; k++) any |= a.band[k] == b.band[k];
            agreed += any;
        }
        const double slack = 5 * sqrt(TRIALS * p * (1 - p)) + 1;
        assert_true(fabs((double)agreed - TRIALS * p) <= slack);
    }
}

/* ---- sorting ---- */

static int compare_items(const void *a, const void *b)
{
    const struct runs_item *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static void check_sort(int64_t count, int64_t bytes, uint64_t key_mask, bool expect_spill)
{
    struct runs *r;
    struct runs_item *items = calloc((size_t)count + 1, sizeof *items), got;
    bool found;
    assert_ok(runs_open(&r, testing_dir(), bytes));
    for (int64_t i = 0; i < count; i++) {
        items[i] = (struct runs_item){ rng_u64(1, RNG_TEST, (uint64_t)i) & key_mask,
                                       rng_u64(2, RNG_TEST, (uint64_t)i) & 0xffff };
        assert_ok(runs_add(r, items[i].key, items[i].value));
    }
    qsort(items, (size_t)count, sizeof *items, compare_items);
    assert_ok(runs_sort(r));
    assert_int_equal(runs_spilled(r) > 0, expect_spill);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < count; i++) {
            assert_ok(runs_next(r, &got, &found));
            assert_true(found && got.key == items[i].key && got.value == items[i].value);
        }
        assert_ok(runs_next(r, &got, &found));
        assert_false(found);
        assert_ok(runs_rewind(r));
    }
    runs_close(r);
    free(items);
}

static void test_runs(void **state)
{
    (void)state;
    check_sort(0, 4096, UINT64_MAX, false);
    check_sort(1, 4096, UINT64_MAX, false);
    check_sort(128, 4096, UINT64_MAX, false);
    check_sort(129, 4096, UINT64_MAX, true);
    check_sort(50000, 1 << 22, 0xff00ff, false);
    check_sort(50000, 1 << 15, 0xff00ff, true); /* 49 runs, many equal keys */
    check_sort(30000, 1 << 18, UINT64_MAX, true);
}

/* ---- splits ---- */

static void test_quota(void **state)
{
    (void)state;
    struct split_quota q = { 0 };
    int64_t given[SPLIT_COUNT] = { 0 }, strata = 0, all = 0;
    /* A hundred strata of 1 to 100 dialogues: each within one of its share, the whole as well. */
    for (int64_t n = 1; n <= 100; n++, strata++) {
        int64_t here[SPLIT_COUNT] = { 0 };
        split_quota_stratum(&q, n, 300, 700);
        for (int64_t i = 0; i < n; i++) here[split_quota_take(&q, 1)]++;
        all += n;
        assert_true(llabs(here[SPLIT_VALIDATION] * 10000 - 300 * n) <= 10000);
        assert_true(llabs(here[SPLIT_TEST] * 10000 - 700 * n) <= 10000);
        for (int s = 0; s < SPLIT_COUNT; s++) given[s] += here[s];
        assert_true(llabs(given[SPLIT_VALIDATION] * 10000 - 300 * all) <= 10000);
    }
    assert_int_equal(given[SPLIT_TEST], (all * 700 + 5000) / 10000);
    /* A cluster that does not fit goes to training, and the next one takes its place. */
    q = (struct split_quota){ 0 };
    split_quota_stratum(&q, 100, 300, 0);
    assert_int_equal(split_quota_take(&q, 4), SPLIT_TRAIN);
    assert_int_equal(split_quota_take(&q, 3), SPLIT_VALIDATION);
    assert_int_equal(split_quota_take(&q, 1), SPLIT_TRAIN);
}

static void test_order(void **state)
{
    (void)state;
    /* By the number of rule `hash` first. */
    for (uint64_t i = 0; i < 1000; i++) {
        const uint64_t a = rng_u64(3, RNG_TEST, i), b = rng_u64(4, RNG_TEST, i);
        if (a % 10000 < b % 10000) assert_true(split_order(a) < split_order(b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),   cmocka_unit_test(test_opening),
        cmocka_unit_test(test_jaccard), cmocka_unit_test(test_banding),
        cmocka_unit_test(test_runs),    cmocka_unit_test(test_quota),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
