/* pack.h against the definition of best-fit decreasing as two plain loops. */
#include "testing.h"

#include "base/num.h"
#include "data/pack.h"

#include <stdlib.h>
#include <string.h>

/* A small generator of our own: the test must not change when base/rng.h does. */
static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* The pack of each item by the definition; O(n^2). */
static int64_t pack_naive(int64_t *pack_of, const int32_t *len, int64_t count, int64_t capacity)
{
    int64_t *room = calloc((size_t)count + 1, sizeof *room);
    int64_t packs = 0;
    for (int64_t i = 0; i < count; i++) pack_of[i] = -1;
    for (int64_t k = 0; k < count; k++) {
        int64_t longest = -1;
        for (int64_t i = 0; i < count; i++)
            if (pack_of[i] < 0 && (longest < 0 || len[i] > len[longest])) longest = i;
        int64_t best = -1;
        for (int64_t p = 0; p < packs; p++)
            if (room[p] >= len[longest] && (best < 0 || room[p] < room[best])) best = p;
        if (best < 0) {
            best = packs++;
            room[best] = capacity;
        }
        room[best] -= len[longest];
        pack_of[longest] = best;
    }
    free(room);
    return packs;
}

static void check_plan(const struct pack_plan *plan, const int32_t *len, int64_t count,
                       int64_t capacity)
{
    uint8_t *seen = calloc((size_t)count + 1, 1);
    assert_int_equal(plan->item_count, count);
    assert_int_equal(plan->first[0], 0);
    assert_int_equal(plan->first[plan->pack_count], count);
    for (int64_t p = 0; p < plan->pack_count; p++) {
        int64_t rows = 0;
        assert_true(plan->first[p] < plan->first[p + 1]); /* no empty packs */
        for (int64_t k = plan->first[p]; k < plan->first[p + 1]; k++) {
            if (k > plan->first[p]) assert_true(plan->item[k - 1] < plan->item[k]);
            assert_int_equal(seen[plan->item[k]]++, 0);
            rows += len[plan->item[k]];
        }
        assert_true(rows <= capacity);
    }
    free(seen); /* count items, none twice: all are there */
}

static void check_against_naive(const int32_t *len, int64_t count, int64_t capacity)
{
    struct pack_plan plan = { 0 };
    int64_t *pack_of = calloc((size_t)count + 1, sizeof *pack_of);
    assert_ok(pack_best_fit(&plan, len, count, capacity));
    check_plan(&plan, len, count, capacity);
    assert_int_equal(plan.pack_count, pack_naive(pack_of, len, count, capacity));
    for (int64_t p = 0; p < plan.pack_count; p++)
        for (int64_t k = plan.first[p]; k < plan.first[p + 1]; k++)
            assert_int_equal(pack_of[plan.item[k]], p);
    free(pack_of);
    pack_plan_clear(&plan);
}

static void test_by_hand(void **state)
{
    (void)state;
    /* Longest first: 7 | 6 | 4 -> beside 6 | 3 -> beside 7 | 2 -> a new one */
    const int32_t len[] = { 4, 3, 7, 6, 2 };
    struct pack_plan plan = { 0 };
    assert_ok(pack_best_fit(&plan, len, 5, 10));
    assert_int_equal(plan.pack_count, 3);
    const int64_t first[] = { 0, 2, 4, 5 }, item[] = { 1, 2, 0, 3, 4 };
    assert_memory_equal(plan.first, first, sizeof first);
    assert_memory_equal(plan.item, item, sizeof item);
    assert_true(plan.fill == 22.0 / 30.0);
    pack_plan_clear(&plan);
    assert_null(plan.first);
}

static void test_like_naive(void **state)
{
    (void)state;
    int32_t len[300];
    uint64_t random = 42;
    for (int64_t round = 0; round < 200; round++) {
        const int64_t capacity = 1 + (int64_t)(next_random(&random) % 200);
        const int64_t count = (int64_t)(next_random(&random) % 300);
        /* Half the rounds have short items, where many packs tie. */
        const int64_t len_max = round % 2 ? capacity : 1 + capacity / 4;
        for (int64_t i = 0; i < count; i++)
            len[i] = (int32_t)(1 + next_random(&random) % (uint64_t)len_max);
        check_against_naive(len, count, capacity);
    }
}

static void test_extremes(void **state)
{
    (void)state;
    struct pack_plan plan = { 0 };
    assert_ok(pack_best_fit(&plan, NULL, 0, 2048));
    assert_int_equal(plan.pack_count, 0);
    assert_int_equal(plan.first[0], 0);
    pack_plan_clear(&plan);

    const int32_t full[] = { 64, 64, 64 }, ones[] = { 1, 1, 1, 1, 1 };
    check_against_naive(full, 3, 64);
    check_against_naive(full, 3, 127);
    check_against_naive(full, 3, 128);
    check_against_naive(ones, 5, 1);
    check_against_naive(ones, 5, 5);
}

static void test_hostile(void **state)
{
    (void)state;
    struct pack_plan plan = { .pack_count = 77 };
    const int32_t len[] = { 5, 65, 0, -3 };
    assert_err(pack_best_fit(&plan, len, 2, 64), ARG, "item 1 has 65 rows");
    assert_err(pack_best_fit(&plan, len + 2, 1, 64), ARG, "item 0 has 0 rows");
    assert_err(pack_best_fit(&plan, len + 3, 1, 64), ARG, "-3 rows");
    assert_err(pack_best_fit(&plan, len, 1, 0), ARG, "capacity 0");
    assert_err(pack_best_fit(&plan, len, 1, PACK_CAPACITY_MAX + 1), ARG, "capacity 16777217");
    assert_int_equal(plan.pack_count, 77);
}

/* A million items with the spread of real samples; also the heaps' worst case, equal rooms. */
static void test_million(void **state)
{
    (void)state;
    const int64_t count = 1000000;
    int32_t *len = malloc((size_t)count * sizeof *len);
    uint64_t random = 7;
    for (int64_t i = 0; i < count; i++)
        len[i] = (int32_t)(20 + next_random(&random) % 300 + next_random(&random) % 300);
    struct pack_plan plan = { 0 };
    assert_ok(pack_best_fit(&plan, len, count, 2048));
    check_plan(&plan, len, count, 2048);
    assert_true(plan.fill > 0.995);
    pack_plan_clear(&plan);

    for (int64_t i = 0; i < count; i++) len[i] = i < count / 2 ? 1500 : 1;
    assert_ok(pack_best_fit(&plan, len, count, 2048));
    check_plan(&plan, len, count, 2048);
    assert_int_equal(plan.pack_count, count / 2);
    pack_plan_clear(&plan);
    free(len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),  cmocka_unit_test(test_like_naive),
        cmocka_unit_test(test_extremes), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_million),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
