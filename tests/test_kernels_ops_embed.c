/* embed_fwd, embed_bwd. */
#include "kernels/ops_embed.h"
#include "ops_cases.h"
#include "ops_harness.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

/* embed_fwd copies: bit-equal. embed_bwd adds up to R rows of rms 1 to one: a random walk of n
 * steps errs by n*eps/sqrt(6) rms; ten sigma is k = 4 in k * eps * sqrt(n) * sqrt(n). */
static const double k_sum = 4;

static int32_t *ids_of(const struct embed_case *c)
{
    int32_t *ids = malloc((size_t)(c->R + 1) * sizeof *ids);
    for (int64_t r = 0; r < c->R; r++)
        ids[r] = c->ids == IDS_EQUAL
                     ? (int32_t)(c->V - 1)
                     : (int32_t)(rng_u64(3, RNG_TEST, (uint64_t)r) % (uint64_t)c->V);
    return ids;
}

static void fill_ids(struct ops_call *call, int slot, const struct embed_case *c)
{
    int32_t *ids = ids_of(c);
    ops_fill_i32(ops_operand(call, slot, ROLE_IN, "ids", DTYPE_I32, c->R, 0), ids);
    free(ids);
}

/* The rows sorted by id, equal ids by row. */
static void fill_order(struct ops_call *call, int slot, const struct embed_case *c)
{
    int32_t *ids = ids_of(c), *order = malloc((size_t)(c->R + 1) * sizeof *order);
    int64_t count = 0;
    for (int32_t id = 0; id < c->V; id++)
        for (int32_t r = 0; r < c->R; r++)
            if (ids[r] == id) order[count++] = r;
    assert_int_equal(count, c->R);
    ops_fill_i32(ops_operand(call, slot, ROLE_IN, "order", DTYPE_I32, c->R, 0), order);
    free(ids);
    free(order);
}

/* Integers that the dtype holds: bf16 has 8 bits. */
static void fill(struct operand *o, const struct embed_case *c)
{
    if (c->integers) ops_fill_integer(o, o->dtype == DTYPE_BF16 ? 256 : 1000);
    else ops_fill_normal(o, 1.0);
}

/* Formats are widened to f32; a 16-bit T has the table in T. */
static dtype_t table_dtype(const struct embed_case *c, dtype_t T)
{
    if (T == DTYPE_BF16 || c->table == W_T) return T;
    return c->table == W_F16 ? DTYPE_F16 : DTYPE_BF16;
}

enum { Y, TABLE, IDS, FWD_COUNT };

static void describe_fwd(struct ops_call *call, int64_t index)
{
    const struct embed_case *c = &embed_cases[index];
    const dtype_t T = call->dtype;
    call->title = c->title;
    call->row = c;
    struct operand *y = ops_operand(call, Y, ROLE_OUT, "y", T, c->R, c->C);
    y->gap = c->gap;
    y->freedom = FREE_STRIDE;
    struct operand *table =
        ops_operand(call, TABLE, ROLE_IN, "table",
                    table_dtype(c, T), c->V, c->C);
    table->freedom = FREE_ROWS;
    fill(table, c);
    fill_ids(call, IDS, c);
}

static err_t invoke_fwd(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    (void)call;
    OPS_INVOKE(embed_fwd, .y = t[Y], .table = t[TABLE], .ids = t[IDS]);
}

static const struct ops_op fwd = { "embed_fwd", FWD_COUNT, COUNT_OF(embed_cases), describe_fwd,
                                   invoke_fwd };

enum { DTABLE, DY, IDS_IN, ORDER, BWD_COUNT };

static void describe_bwd_case(struct ops_call *call, const struct embed_case *c, dtype_t D)
{
    const dtype_t T = call->dtype;
    call->title = c->title;
    call->row = c;
    struct operand *dtable =
        ops_operand(call, DTABLE, ROLE_ACC, "dtable_acc", D, c->V, c->C);
    dtable->freedom = FREE_ROWS;
    fill(dtable, c);
    struct operand *dy = ops_operand(call, DY, ROLE_IN, "dy", T, c->R, c->C);
    dy->gap = c->gap;
    dy->freedom = FREE_STRIDE;
    fill(dy, c);
    fill_ids(call, IDS_IN, c);
    fill_order(call, ORDER, c);
    if (!c->integers) ops_bound(call, dtable, k_sum, c->R + 1, sqrt((double)c->R + 1));
}

static void describe_bwd(struct ops_call *call, int64_t index)
{
    describe_bwd_case(call, &embed_cases[index], dtype_accumulator(call->dtype));
}

/* The table's gradient in T: sums are rounded once, exact ones too. */
static void describe_bwd_narrow(struct ops_call *call, int64_t index)
{
    describe_bwd_case(call, &embed_cases[index], call->dtype);
}

/* Runs of ids around the lengths at which a backend may cut them: a run inside a piece, one that
 * ends with it, one that covers several, all ids different. */
static const struct embed_case run_cases[] = {
    { "two ids, halves", 128, 16, 2, IDS_RANDOM, 0, false, W_T },
    { "64", 64, 16, 2, IDS_EQUAL, 0, false, W_T },
    { "65", 65, 16, 3, IDS_EQUAL, 0, false, W_T },
    { "256", 256, 24, 3, IDS_EQUAL, 8, true, W_T },
    { "few ids", 1000, 16, 3, IDS_RANDOM, 0, true, W_T },
    { "many ids", 700, 8, 5000, IDS_RANDOM, 0, false, W_T },
    { "more pieces than fit", 16500, 8, 7, IDS_RANDOM, 0, true, W_T },
    { "long pieces", 16500, 4, 9000, IDS_RANDOM, 0, true, W_T },
    { "several columns of blocks", 130, 2056, 2, IDS_RANDOM, 0, false, W_T },
};

static void describe_bwd_runs(struct ops_call *call, int64_t index)
{
    describe_bwd_case(call, &run_cases[index], dtype_accumulator(call->dtype));
}

static err_t invoke_bwd(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    (void)call;
    OPS_INVOKE(embed_bwd, .dtable_acc = t[DTABLE], .dy = t[DY], .ids = t[IDS_IN],
               .order = t[ORDER], .scratch = scratch);
}

static const struct ops_op bwd = { "embed_bwd", BWD_COUNT, COUNT_OF(embed_cases), describe_bwd,
                                   invoke_bwd };
static const struct ops_op bwd_narrow = { "embed_bwd", BWD_COUNT, COUNT_OF(embed_cases),
                                          describe_bwd_narrow, invoke_bwd };
static const struct ops_op bwd_runs = { "embed_bwd", BWD_COUNT, COUNT_OF(run_cases),
                                        describe_bwd_runs, invoke_bwd };

static void test_tables(void **state)
{
    const struct ops_env *env = *state;
    ops_check_table(*state, &fwd);
    ops_check_table(*state, &bwd);
    if (env->dtype != dtype_accumulator(env->dtype)) ops_check_table(*state, &bwd_narrow);
}

static void test_runs(void **state) { ops_check_table(*state, &bwd_runs); }

static double loss(const struct ops_laid *laid, const struct ops_call *back)
{
    return ops_inner(laid, Y, &back->o[DY]);
}

/* The reference alone: once is enough. */
static void test_gradient(void **state)
{
    const struct ops_env *env = *state;
    if (!env->host) return;
    const struct ops_gradient g = { &fwd, &bwd, 1, { { LINK_GRADIENT, DTABLE, TABLE } }, loss };
    ops_check_gradient(*state, &g);
}

static void test_refusals(void **state)
{
    ops_check_refusals(*state, &fwd, 0, NULL, 0);
    ops_check_refusals(*state, &bwd, 0, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_refusals),
    };
    return ops_main("embed", tests, COUNT_OF(tests));
}
