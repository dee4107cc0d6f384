/* linear_fwd, linear_bwd, act_fwd. */
#include "ops_cases.h"
#include "ops_harness.h"

#include "base/fault.h"
#include "kernels/probe.h"

#include <math.h>
#include <string.h>

/*
 * k of the bounds k * eps * sqrt(n) * scale (eps = 2^-24 in f32). A sum of n random terms of rms t
 * walks: its partial sums have rms t*sqrt(j), each is rounded, together n*t*eps/sqrt(6); ten
 * sigma of that is k = 4 with scale = t*sqrt(n).
 *   gelu   the slope is below 1.13, and some six roundings of values as large as five sigma
 *   swiglu each factor carries its error times the other factor: twice five sigma
 *
 * And k of what a 16-bit T adds where the contract rounds on the way, k * eps_T * scale, with
 * values up to seven times their rms, as normal values are in tables of this size:
 *   gelu        pre of rms spread/sqrt(2), rounded, times the slope of 1.13
 *   swiglu      both factors so, the largest product of two being 25 times their rms squared
 *   gelu_bwd    dy w rounded, times the slope
 *   swiglu_bwd  dy w rounded, times u2, times a slope of 1.1
 */
static const struct {
    double sum, gelu, swiglu;
} k = { 4, 12, 40 };
static const struct {
    double gelu, swiglu, gelu_bwd, swiglu_bwd;
} k_stored = { 6, 14, 8, 28 };

/* Weights are kept near 1/sqrt(K) so that activations see values around `magnitude`. */
static double weight_scale(const struct linear_case *c) { return 1.0 / sqrt((double)c->K); }

/* Only f32 layers take weights in another format. */
static dtype_t weight_dtype(enum weight_format w, dtype_t T)
{
    if (T == DTYPE_BF16) return T;
    return w == W_F16 ? DTYPE_F16 : w == W_BF16 ? DTYPE_BF16 : T;
}

static void fill(struct operand *o, const struct linear_case *c, double magnitude)
{
    if (c->integers) ops_fill_integer(o, 4);
    else ops_fill_normal(o, magnitude);
}

static int64_t twice_if_swiglu(const struct linear_case *c, int64_t width)
{
    return c->act == ACT_SWIGLU ? 2 * width : width;
}

/* The bound of act(u), u around `spread` and wrong by less than eps*sqrt(n)*spread*k.sum. */
static void bound_act(const struct ops_call *call, struct operand *o, enum act_kind act, int64_t n,
                      double spread)
{
    if (act == ACT_NONE) ops_bound(call, o, k.sum, n, spread);
    if (act == ACT_GELU_TANH) ops_bound(call, o, k.gelu, n, spread);
    if (act == ACT_SWIGLU) ops_bound(call, o, k.swiglu, n, spread * fmax(spread, 1.0));
}

/* ---- forward ---- */

enum { Y, PRE, X, W, BIAS, FWD_COUNT };

static void describe_fwd_with(struct ops_call *call, int64_t index, dtype_t bias_dtype)
{
    const struct linear_case *c = &linear_cases[index];
    const dtype_t T = call->dtype;
    const int64_t wide = twice_if_swiglu(c, c->N);
    call->title = c->title;
    call->row = c;
    struct operand *y = ops_operand(call, Y, ROLE_OUT, "y", T, c->R, c->N);
    struct operand *x = ops_operand(call, X, ROLE_IN, "x", T, c->R, c->K);
    struct operand *w =
        ops_operand(call, W, ROLE_IN, "w", weight_dtype(c->w, T), wide, c->K);
    y->gap = x->gap = c->gap;
    y->freedom = x->freedom = FREE_STRIDE;
    fill(x, c, c->magnitude);
    fill(w, c, weight_scale(c));
    if (c->bias)
        fill(ops_operand(call, BIAS, ROLE_IN, "bias", bias_dtype, wide, 0), c, c->magnitude);
    if (c->keeps_pre) ops_operand(call, PRE, ROLE_OUT, "pre", T, c->R, wide);
    if (c->integers) return;
    if (c->keeps_pre) ops_bound(call, &call->o[PRE], k.sum, c->K + 1, 2 * c->magnitude);
    bound_act(call, y, c->act, c->K + 1, 2 * c->magnitude);
    const double spread = 2 * c->magnitude;
    if (c->act == ACT_GELU_TANH) ops_bound_stored(call, y, k_stored.gelu, spread);
    if (c->act == ACT_SWIGLU) ops_bound_stored(call, y, k_stored.swiglu, spread * spread);
}

static err_t invoke_fwd(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    const struct linear_case *c = call->row;
    OPS_INVOKE(linear_fwd, .y = t[Y], .pre = t[PRE], .x = t[X], .w = t[W], .bias = t[BIAS],
               .act = c->act, .scratch = scratch);
}

static void describe_fwd(struct ops_call *call, int64_t index)
{
    describe_fwd_with(call, index, call->dtype);
}

static void describe_fwd_f32_bias(struct ops_call *call, int64_t index)
{
    describe_fwd_with(call, index, call->dtype == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32);
}

static const struct ops_op fwd = { "linear_fwd", FWD_COUNT, COUNT_OF(linear_cases), describe_fwd,
                                   invoke_fwd };
static void describe_fwd_narrow_bias(struct ops_call *call, int64_t index)
{
    describe_fwd_with(call, index, weight_dtype(linear_cases[index].w, call->dtype));
}

static const struct ops_op fwd_f32_bias = { "linear_fwd, f32 bias", FWD_COUNT,
                                            COUNT_OF(linear_cases), describe_fwd_f32_bias,
                                            invoke_fwd };
static const struct ops_op fwd_narrow_bias = { "linear_fwd, bias as w", FWD_COUNT,
                                               COUNT_OF(linear_cases), describe_fwd_narrow_bias,
                                               invoke_fwd };

/* ---- backward ---- */

enum { DX, DW, DB, DY, X_IN, W_IN, X_PRE, BWD_COUNT };

/* dx is a sum around `spread` times act', which is below 1.13; swiglu's has the factor u2 too. */
static void bound_slope(const struct ops_call *call, struct operand *dx,
                        const struct linear_case *c, double spread)
{
    if (c->act == ACT_NONE) ops_bound(call, dx, k.sum, c->N, spread);
    const double wide = spread * fmax(1.0, c->magnitude);
    if (c->act == ACT_GELU_TANH) {
        ops_bound(call, dx, k.gelu, c->N, spread);
        ops_bound_stored(call, dx, k_stored.gelu_bwd, spread);
    }
    if (c->act == ACT_SWIGLU) {
        ops_bound(call, dx, k.swiglu, c->N, wide);
        ops_bound_stored(call, dx, k_stored.swiglu_bwd, wide);
    }
}

static void describe_bwd_into(struct ops_call *call, int64_t index, dtype_t sum)
{
    const struct linear_case *c = &linear_cases[index];
    const dtype_t T = call->dtype;
    const int64_t wide = twice_if_swiglu(c, c->K);
    call->title = c->title;
    call->row = c;
    struct operand *dy = ops_operand(call, DY, ROLE_IN, "dy", T, c->R, c->N);
    dy->gap = c->gap;
    dy->freedom = FREE_STRIDE;
    fill(dy, c, 1.0);
    if (c->wants_dx) {
        struct operand *dx = ops_operand(call, DX, ROLE_OUT, "dx", T, c->R, wide);
        dx->gap = c->gap;
        dx->freedom = FREE_STRIDE;
        fill(ops_operand(call, W_IN, ROLE_IN, "w", weight_dtype(c->w, T), c->N, c->K), c,
             weight_scale(c));
        if (c->act != ACT_NONE) {
            struct operand *pre = ops_operand(call, X_PRE, ROLE_IN, "x_pre", T, c->R, wide);
            pre->gap = c->gap; /* dx may alias it */
            pre->freedom = FREE_STRIDE;
            fill(pre, c, c->magnitude);
        }
        const double spread = weight_scale(c) * sqrt((double)c->N);
        if (!c->integers) bound_slope(call, dx, c, spread);
    }
    if (!c->wants_dw) return;
    struct operand *x = ops_operand(call, X_IN, ROLE_IN, "x", T, c->R, c->K);
    x->gap = c->gap;
    x->freedom = FREE_STRIDE;
    fill(x, c, c->magnitude);
    struct operand *dw = ops_operand(call, DW, ROLE_ACC, "dw_acc", sum, c->N, c->K);
    fill(dw, c, 1.0);
    struct operand *db = ops_operand(call, DB, ROLE_ACC, "db_acc", sum, c->N, 0);
    fill(db, c, 1.0);
    if (c->integers) return;
    const double root = sqrt((double)c->R + 1);
    ops_bound(call, dw, k.sum, c->R + 1, fmax(1.0, c->magnitude) * root);
    ops_bound(call, db, k.sum, c->R + 1, root);
}

static err_t invoke_bwd(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    const struct linear_case *c = call->row;
    OPS_INVOKE(linear_bwd, .dx = t[DX], .dw_acc = t[DW], .db_acc = t[DB], .dy = t[DY],
               .x = t[X_IN], .w = t[W_IN], .x_act = t[X_PRE] ? c->act : ACT_NONE,
               .x_pre = t[X_PRE], .scratch = scratch);
}

static void describe_bwd(struct ops_call *call, int64_t index)
{
    describe_bwd_into(call, index, dtype_accumulator(call->dtype));
}

static void describe_bwd_narrow(struct ops_call *call, int64_t index)
{
    describe_bwd_into(call, index, call->dtype);
}

static const struct ops_op bwd = { "linear_bwd", BWD_COUNT, COUNT_OF(linear_cases), describe_bwd,
                                   invoke_bwd };
static const struct ops_op bwd_narrow = { "linear_bwd, gradients in T", BWD_COUNT,
                                          COUNT_OF(linear_cases), describe_bwd_narrow, invoke_bwd };

/* ---- act_fwd, on the rows that have an activation ---- */

enum { ACT_Y, ACT_PRE, ACT_COUNT };

static const struct linear_case *act_case(int64_t index)
{
    for (int64_t i = 0; i < COUNT_OF(linear_cases); i++)
        if (linear_cases[i].act != ACT_NONE && index-- == 0) return &linear_cases[i];
    return NULL;
}

static int64_t act_case_count(void)
{
    int64_t count = 0;
    while (act_case(count) != NULL) count++;
    return count;
}

static void describe_act(struct ops_call *call, int64_t index)
{
    const struct linear_case *c = act_case(index);
    call->title = c->title;
    call->row = c;
    struct operand *y = ops_operand(call, ACT_Y, ROLE_OUT, "y", call->dtype, c->R, c->N);
    ops_fill_normal(ops_operand(call, ACT_PRE, ROLE_IN, "pre", call->dtype, c->R,
                                twice_if_swiglu(c, c->N)),
                    c->magnitude);
    bound_act(call, y, c->act, 1, fmax(c->magnitude, 1e-30));
}

static err_t invoke_act(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    const struct linear_case *c = call->row;
    OPS_INVOKE(act_fwd, .y = t[ACT_Y], .pre = t[ACT_PRE], .act = c->act);
}

static struct ops_op act_op(void)
{
    return (struct ops_op){ "act_fwd", ACT_COUNT, act_case_count(), describe_act, invoke_act };
}

/* ---- x = act(x_pre), y = x w^T: the forward pass that linear_bwd reverses ---- */

enum { PAIR_Y, PAIR_X, PAIR_X_PRE, PAIR_W, PAIR_BIAS, PAIR_COUNT };

static void describe_pair(struct ops_call *call, int64_t index)
{
    const struct linear_case *c = &linear_cases[index];
    const dtype_t T = call->dtype;
    call->title = c->title;
    call->row = c;
    call->rough = c->magnitude > 1 || c->integers;
    ops_operand(call, PAIR_Y, ROLE_OUT, "y", T, c->R, c->N);
    if (c->act == ACT_NONE) {
        ops_fill_normal(ops_operand(call, PAIR_X, ROLE_IN, "x", T, c->R, c->K), 1.0);
    } else {
        ops_operand(call, PAIR_X, ROLE_OUT, "x", T, c->R, c->K);
        ops_fill_normal(ops_operand(call, PAIR_X_PRE, ROLE_IN, "x_pre", T, c->R,
                                    twice_if_swiglu(c, c->K)),
                        1.0);
    }
    ops_fill_normal(ops_operand(call, PAIR_W, ROLE_IN, "w", T, c->N, c->K), weight_scale(c));
    ops_fill_normal(ops_operand(call, PAIR_BIAS, ROLE_IN, "bias", T, c->N, 0), 1.0);
}

static err_t invoke_pair(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                         struct scratch scratch, int64_t *bytes)
{
    const struct linear_case *c = call->row;
    if (c->act != ACT_NONE && bytes == NULL)
        TRY(op_act_fwd(dev, &(struct act_fwd_args){ .y = t[PAIR_X], .pre = t[PAIR_X_PRE],
                                                    .act = c->act }));
    OPS_INVOKE(linear_fwd, .y = t[PAIR_Y], .x = t[PAIR_X], .w = t[PAIR_W], .bias = t[PAIR_BIAS],
               .scratch = scratch);
}

static const struct ops_op pair = { "act_fwd, linear_fwd", PAIR_COUNT, COUNT_OF(linear_cases),
                                    describe_pair, invoke_pair };

static double loss(const struct ops_laid *laid, const struct ops_call *back)
{
    return ops_inner(laid, PAIR_Y, &back->o[DY]);
}

/* ---- tests ---- */

static void test_fwd(void **state) { ops_check_table(*state, &fwd); }

static void test_bwd(void **state) { ops_check_table(*state, &bwd); }

/* A bias of the weights' 16 bits; and a bias and gradients of another dtype than T, as 16-bit Ts
 * alone can have them. */
static void test_mixed(void **state)
{
    struct ops_env *env = *state;
    if (env->dtype == DTYPE_F32) {
        for (int64_t i = 0; i < COUNT_OF(linear_cases); i++)
            if (linear_cases[i].w != W_T) ops_check_case(env, &fwd_narrow_bias, i);
        return;
    }
    ops_check_table(*state, &fwd_f32_bias);
    ops_check_table(*state, &bwd_narrow);
}

static void test_act(void **state)
{
    const struct ops_op op = act_op();
    ops_check_table(*state, &op);
}

static void test_gradient(void **state)
{
    const struct ops_link common[] = { { LINK_INPUT, W_IN, PAIR_W },
                                       { LINK_GRADIENT, DW, PAIR_W },
                                       { LINK_GRADIENT, DB, PAIR_BIAS } };
    struct ops_gradient plain = { &pair, &bwd, 5,
                                  { { LINK_INPUT, X_IN, PAIR_X }, { LINK_GRADIENT, DX, PAIR_X } },
                                  loss };
    struct ops_gradient acted = { &pair, &bwd, 6,
                                  { { LINK_OUTPUT, X_IN, PAIR_X },
                                    { LINK_INPUT, X_PRE, PAIR_X_PRE },
                                    { LINK_GRADIENT, DX, PAIR_X_PRE } },
                                  loss };
    memcpy(&plain.links[2], common, sizeof common);
    memcpy(&acted.links[3], common, sizeof common);
    int64_t checked = 0;
    for (int64_t i = 0; i < COUNT_OF(linear_cases); i++)
        checked += ops_check_gradient_case(
            *state, linear_cases[i].act == ACT_NONE ? &plain : &acted, i);
    assert_true(checked > 10);
}

static void test_rows(void **state)
{
    ops_check_rows(*state, &fwd, 9, X, Y);
    ops_check_rows(*state, &fwd, 13, X, Y);
    ops_check_rows(*state, &bwd, 9, DY, DX);
    ops_check_rows(*state, &bwd, 11, DY, DX);
    const struct ops_op act = act_op();
    ops_check_rows(*state, &act, 2, ACT_PRE, ACT_Y);
}

/* act_fwd on the kept pre gives the bits of linear_fwd's y, and so does keeping no pre. */
static void test_recompute(void **state)
{
    struct ops_env *env = *state;
    const struct ops_op act = act_op();
    for (int64_t index = 0, of_act = 0; index < fwd.case_count; index++) {
        const struct linear_case *c = &linear_cases[index];
        if (c->act == ACT_NONE) continue;
        const int64_t act_index = of_act++;
        if (!c->keeps_pre) continue;
        struct ops_call call = ops_describe(&fwd, env->dtype, index);
        struct ops_call again = ops_describe(&act, env->dtype, act_index);
        struct ops_laid kept, lean, recomputed;
        ops_run(&kept, env->dev, &call);
        for (int64_t i = 0; i < operand_count(&again.o[ACT_PRE]); i++)
            again.o[ACT_PRE].value[i] = ops_result(&kept, PRE, i);
        ops_run(&recomputed, env->dev, &again);
        call.o[PRE].role = ROLE_NONE;
        ops_run(&lean, env->dev, &call);
        for (int64_t r = 0; r < c->R; r++) {
            size_t bytes = 0;
            const void *y = ops_result_row(&kept, Y, r, &bytes);
            assert_memory_equal(y, ops_result_row(&recomputed, ACT_Y, r, &bytes), bytes);
            assert_memory_equal(y, ops_result_row(&lean, Y, r, &bytes), bytes);
        }
        ops_clear(&kept);
        ops_clear(&lean);
        ops_clear(&recomputed);
        ops_call_clear(&call);
        ops_call_clear(&again);
    }
}

static void test_alias(void **state)
{
    const struct ops_op act = act_op();
    ops_check_alias(*state, &act, 0, ACT_PRE, ACT_Y);
    ops_check_alias(*state, &act, 2, ACT_PRE, ACT_Y);
    ops_check_alias(*state, &bwd, 9, X_PRE, DX);
    ops_check_alias(*state, &bwd, 11, X_PRE, DX);
}

static void test_refusals(void **state)
{
    const struct ops_op act = act_op();
    struct linear_case unknown = linear_cases[0];
    unknown.act = (enum act_kind)7;
    const struct ops_bad unknowns[] = { { &unknown, ERR_ARG } };
    ops_check_refusals(*state, &fwd, 0, unknowns, COUNT_OF(unknowns));
    ops_check_refusals(*state, &fwd, 5, NULL, 0);
    ops_check_refusals(*state, &fwd, 6, NULL, 0);
    ops_check_refusals(*state, &bwd, 0, NULL, 0);
    ops_check_refusals(*state, &bwd, 6, unknowns, COUNT_OF(unknowns));
    ops_check_refusals(*state, &bwd, 7, NULL, 0);
    ops_check_refusals(*state, &bwd, 8, NULL, 0);
    struct linear_case bad = *act_case(0);
    bad.act = ACT_NONE;
    const struct ops_bad rows[] = { { &bad, ERR_ARG } };
    ops_check_refusals(*state, &act, 0, rows, COUNT_OF(rows));
    ops_check_refusals(*state, &act, 1, NULL, 0);
}

/* Scratch for the largest micro-batch serves all smaller ones. */
static void test_scratch(void **state)
{
    const struct ops_env *env = *state;
    const dtype_t T = env->dtype;
    enum { K = 40, N = 72 };
    int64_t fwd_bytes = 0, bwd_bytes = 0;
    for (int64_t R = 0; R < 3000; R++) {
        struct tensor y = tensor_2d(NULL, T, R, N, "y"), w = tensor_2d(NULL, T, 2 * N, K, "w");
        struct tensor x = tensor_2d(NULL, T, R, K, "x"), dx = tensor_2d(NULL, T, R, 2 * K, "dx");
        struct tensor db = tensor_1d(NULL, T, N, "db"), w_in = tensor_2d(NULL, T, N, K, "w");
        const int64_t fwd_now = op_linear_fwd_scratch_bytes(
            env->dev, &(struct linear_fwd_args){ .y = &y, .x = &x, .w = &w, .act = ACT_SWIGLU });
        const int64_t bwd_now = op_linear_bwd_scratch_bytes(
            env->dev, &(struct linear_bwd_args){ .dx = &dx, .db_acc = &db, .dy = &y, .w = &w_in,
                                                 .x_act = ACT_SWIGLU, .x_pre = &dx });
        assert_true(fwd_now >= fwd_bytes);
        assert_true(bwd_now >= bwd_bytes);
        fwd_bytes = fwd_now;
        bwd_bytes = bwd_now;
    }
}

/* A product that fails says which one. The host's products have no fault points. */
static void test_failure(void **state)
{
    const struct ops_env *env = *state;
    if (env->host) return;
    struct ops_call call = ops_describe(&fwd, env->dtype, 9);
    struct ops_laid laid;
    ops_lay(&laid, env->dev, &call);
    fault_arm("gemm.run", 1);
    const err_t rc = ops_invoke(&laid);
    fault_arm("", 0);
    assert_int_equal(rc, ERR_CUDA);
    assert_non_null(strstr(err_last()->text, "129x65x72"));
    assert_ok(ops_invoke(&laid));
    ops_clear(&laid);
    ops_call_clear(&call);
}

/* The ceiling of products: a rate, and nothing left behind. */
static void test_probe(void **state)
{
    const struct ops_env *env = *state;
    double flop_per_s = 0.0;
    const int64_t before = env->dev->stats.alloc_bytes;
    assert_ok(probe_gemm(&flop_per_s, env->dev, 64, 1e-4));
    assert_true(flop_per_s > 0.0 && isfinite(flop_per_s));
    assert_int_equal(env->dev->stats.alloc_bytes, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fwd),      cmocka_unit_test(test_bwd),
        cmocka_unit_test(test_act),      cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_rows),     cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_alias),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_mixed),    cmocka_unit_test(test_scratch),
        cmocka_unit_test(test_failure),  cmocka_unit_test(test_probe),
    };
    return ops_main("linear", tests, COUNT_OF(tests));
}
