/* Who owns what: exact values, and that nothing is cut or left out. */
#include "base/num.h"
#include "testing.h"

#include "kernels/ops_optim.h"
#include "train/optim_plan.h"
#include "train/owner.h"
#include "train_fixture.h"

#include <string.h>

struct table {
    struct glm_config config;
    struct glm_params params;
    struct glm_layout layout;
};

/* V rows of 128 elements: 1280 are 10 chunks; padded to 1344 they are 10.5 chunks of the layout. */
static void table_open(struct table *t, int64_t vocab_multiple)
{
    t->config = micro_config();
    t->config.vocab_size = 1280;
    t->config.hidden_size = 128;
    t->config.ffn_size = 512;
    assert_ok(glm_params_create(&t->params, &t->config));
    assert_ok(glm_layout_create(&t->layout, &t->params, 1, vocab_multiple));
}

static void table_close(struct table *t)
{
    glm_layout_clear(&t->layout);
    glm_params_clear(&t->params);
}

static int64_t unit_size(const struct table *t, int64_t unit)
{
    return t->layout.unit_offset[unit + 1] - t->layout.unit_offset[unit];
}

static void expect_share(const struct owner *o, int64_t unit, int64_t rank,
                         const struct owner_share *want)
{
    const struct owner_share *got = owner_share(o, unit, rank);
    assert_int_equal(got->begin, want->begin);
    assert_int_equal(got->end, want->end);
    assert_int_equal(got->chunk_begin, want->chunk_begin);
    assert_int_equal(got->chunk_end, want->chunk_end);
}

/* The embedding is 10 chunks: of 3 ranks they own 3, 3 and 4; of 4 ranks 2, 3, 2 and 3. What
 * follows the last row belongs to the last. */
static void test_embedding(void **state)
{
    (void)state;
    enum { C = SUMSQ_CHUNK };
    const struct {
        int64_t multiple, end;
    } layouts[] = { { 0, 10 * C }, { 64, 10 * C }, { 1344, 11 * C } };
    for (int i = 0; i < 3; i++) {
        const int64_t end = layouts[i].end;
        const struct owner_share one[] = { { 0, end, 0, 10 } };
        const struct owner_share three[] = { { 0, 3 * C, 0, 3 },
                                             { 3 * C, 6 * C, 3, 6 },
                                             { 6 * C, end, 6, 10 } };
        const struct owner_share four[] = { { 0, 2 * C, 0, 2 },
                                            { 2 * C, 5 * C, 2, 5 },
                                            { 5 * C, 7 * C, 5, 7 },
                                            { 7 * C, end, 7, 10 } };
        const struct owner_share *want[] = { one, three, four };
        const int64_t sizes[] = { 1, 3, 4 };
        struct table t;
        table_open(&t, layouts[i].multiple);
        assert_int_equal(unit_size(&t, 0), end);
        for (int s = 0; s < 3; s++) {
            struct owner o;
            assert_ok(owner_create(&o, &t.params, &t.layout, sizes[s]));
            for (int64_t r = 0; r < sizes[s]; r++) expect_share(&o, 0, r, &want[s][r]);
            owner_clear(&o);
        }
        table_close(&t);
    }
}

/* A layer of H = 128, F = 512: chunks ln1 1 1, qkv 3 1, dense 1 1, ln2 1 1, fc1 4 1, fc2 4 1: 20.
 * Of 3 ranks rank 0 owns chunks 0 .. 5, up to the middle of the table: gamma, beta, qkv and its
 * bias; rank 1 chunks 6 .. 12: dense, ln2, and three of fc1's four. */
static void test_layer(void **state)
{
    (void)state;
    enum { C = SUMSQ_CHUNK, H = 128, F = 512 };
    const int64_t dense = 2 * H + 3 * H * H + 3 * H, fc1 = dense + H * H + 3 * H;
    struct table t;
    struct owner o;
    table_open(&t, 0);
    assert_ok(owner_create(&o, &t.params, &t.layout, 3));
    assert_int_equal(o.chunk_count, 10 + 20 + 20 + 2);
    const struct owner_share want[] = { { 0, dense, 10, 16 },
                                        { dense, fc1 + 3 * C, 16, 23 },
                                        { fc1 + 3 * C, unit_size(&t, 1), 23, 30 } };
    for (int64_t r = 0; r < 3; r++) expect_share(&o, 1, r, &want[r]);
    int64_t first, count;
    const int64_t row = glm_params_find(&t.params, GLM_FC1_WEIGHT, 0);
    owner_row(&first, &count, &o, &t.params, row, 0);
    assert_int_equal(count, 0);
    owner_row(&first, &count, &o, &t.params, row, 1);
    assert_int_equal(first, 0);
    assert_int_equal(count, 3 * C);
    owner_row(&first, &count, &o, &t.params, row, 2);
    assert_int_equal(first, 3 * C);
    assert_int_equal(count, F * H - 3 * C);
    owner_clear(&o);
    table_close(&t);
}

/* Spans cover each unit, rows are dealt out whole, and states of all ranks together are the state
 * of one: in both formats of moments, with and without padding, on 1, 3, 4 and very many ranks. */
static void test_everything_once(void **state)
{
    (void)state;
    const int64_t sizes[] = { 1, 3, 4, 50 }, multiples[] = { 0, 1344 };
    for (int i = 0; i < 16; i++) {
        const int64_t size = sizes[i % 4];
        struct table t;
        struct owner o;
        struct optim_plan whole, part;
        const struct optim_format format = { .weights = i & 4 ? DTYPE_BF16 : DTYPE_F32,
                                             .moments =
                                                 i & 4 ? OPTIM_MOMENTS_8BIT : OPTIM_MOMENTS_F32 };
        int64_t bytes[OPTIM_PARTS] = { 0 };
        table_open(&t, multiples[i / 8]);
        assert_ok(owner_create(&o, &t.params, &t.layout, size));
        for (int64_t u = 0; u < t.params.unit_count; u++) {
            assert_int_equal(owner_share(&o, u, 0)->begin, 0);
            for (int64_t r = 1; r < size; r++)
                assert_int_equal(owner_share(&o, u, r)->begin, owner_share(&o, u, r - 1)->end);
            assert_int_equal(owner_share(&o, u, size - 1)->end, unit_size(&t, u));
        }
        for (int64_t row = 0; row < t.params.count; row++) {
            int64_t next = 0;
            for (int64_t r = 0, first, count; r < size; r++, next += count) {
                owner_row(&first, &count, &o, &t.params, row, r);
                if (count > 0) assert_int_equal(first, next);
                assert_int_equal(first % SUMSQ_CHUNK, 0);
            }
            assert_int_equal(next, t.params.row[row].count);
        }
        assert_ok(optim_plan_create(&whole, &t.params, &format, NULL, 0));
        for (int64_t r = 0; r < size; r++) {
            assert_ok(optim_plan_create(&part, &t.params, &format, &o, r));
            for (int p = 0; p < OPTIM_PARTS; p++) bytes[p] += part.part_bytes[p];
            optim_plan_clear(&part);
        }
        for (int p = 0; p < OPTIM_PARTS; p++) assert_int_equal(bytes[p], whole.part_bytes[p]);
        optim_plan_clear(&whole);
        owner_clear(&o);
        table_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_layer),
        cmocka_unit_test(test_everything_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
