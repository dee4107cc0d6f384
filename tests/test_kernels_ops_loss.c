/* linear_ce. */
#include "kernels/ops_loss.h"
#include "ops_cases.h"
#include "ops_harness.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

/*
 * k of the bounds k * eps * sqrt(n) * scale. A logit sums C terms of rms s/sqrt(C), s its size: it
 * errs by eps*sqrt(C)*s/sqrt(6) rms (ten sigma: k = 4), and by eps*5*s once more where it is
 * rounded before exp.
 *   nll  twice a logit's error, and the rounding of the log-sum-exp; n = C
 *   dx   probabilities sum to one and carry twice a logit's error relatively; times w; n = C
 *   dw   the same times x for each of N targets, which do not conspire; n = C*N
 * Where T has 16 bits dz is rounded to it, k * eps_T * scale:
 *   dx   the sum over words of |dz| is twice a weight of five, times a w of five sigma
 *   dw   each of N targets contributes weight * x at most; ten sigma of a uniform rounding error
 */
static const struct {
    double nll, dx, dw;
} k = { 10, 10, 10 }, k_stored = { 0, 50, 6 };

enum { NLL, DX, DW, X, W, ROWS, LABELS, WEIGHTS, CE_COUNT };

/* Targets spread over all rows; labels touch the first and the last valid word. */
static void fill_targets(struct ops_call *call, const struct ce_case *c)
{
    int32_t *rows = malloc((size_t)(c->N + 1) * sizeof *rows);
    int32_t *labels = malloc((size_t)(c->N + 1) * sizeof *labels);
    for (int64_t i = 0; i < c->N; i++) {
        rows[i] = (int32_t)(((i + 1) * c->R - 1) / c->N);
        labels[i] = (int32_t)(rng_u64(4, RNG_TEST, (uint64_t)i) % (uint64_t)c->Vv);
        if (i < 2) labels[i] = i == 0 ? 0 : (int32_t)(c->Vv - 1);
    }
    ops_fill_i32(ops_operand(call, ROWS, ROLE_IN, "rows", DTYPE_I32, c->N, 0), rows);
    ops_fill_i32(ops_operand(call, LABELS, ROLE_IN, "labels", DTYPE_I32, c->N, 0), labels);
    free(rows);
    free(labels);
}

static void describe(struct ops_call *call, int64_t index)
{
    const struct ce_case *c = &ce_cases[index];
    const dtype_t T = call->dtype, sum = dtype_accumulator(T);
    call->title = c->title;
    call->row = c;
    call->rough = c->magnitude > 1;
    struct operand *nll = ops_operand(call, NLL, ROLE_OUT, "nll", sum, c->N, 0);
    struct operand *x = ops_operand(call, X, ROLE_IN, "x", T, c->R, c->C);
    struct operand *w = ops_operand(call, W, ROLE_IN, "w",
                                    T == DTYPE_BF16  ? T
                                    : c->w == W_F16  ? DTYPE_F16
                                    : c->w == W_BF16 ? DTYPE_BF16
                                                     : T,
                                    c->V, c->C);
    const double w_rms = 1.0 / sqrt((double)c->C);
    w->freedom = c->wants_dw ? 0 : FREE_ROWS; /* else tied to dw_acc */
    x->freedom = c->wants_dx ? 0 : FREE_ROWS; /* else tied to dx */
    ops_fill_normal(x, c->magnitude);
    ops_fill_normal(w, w_rms);
    fill_targets(call, c);
    struct operand *weights = ops_operand(call, WEIGHTS, ROLE_IN, "weights", DTYPE_F32, c->N, 0);
    weights->fixed = true;
    ops_fill_normal(weights, 1.0);

    const double s = fmax(c->magnitude, 1.0), size = s + log((double)c->V);
    ops_bound(call, nll, k.nll, c->C, size);
    if (c->wants_dx) {
        struct operand *dx = ops_operand(call, DX, ROLE_OUT, "dx", T, c->R, c->C);
        ops_bound(call, dx, k.dx, c->C, 5 * w_rms * size);
        ops_bound_stored(call, dx, k_stored.dx, w_rms);
    }
    if (c->wants_dw) {
        struct operand *dw = ops_operand(call, DW, ROLE_ACC, "dw_acc", sum, c->V, c->C);
        ops_fill_normal(dw, 1.0);
        ops_bound(call, dw, k.dw, c->C * c->N, s * size);
        ops_bound_stored(call, dw, k_stored.dw, sqrt((double)c->N) * c->magnitude);
    }
}

static err_t invoke(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                    struct scratch scratch, int64_t *bytes)
{
    const struct ce_case *c = call->row;
    OPS_INVOKE(linear_ce, .nll = t[NLL], .dx = t[DX], .dw_acc = t[DW], .x = t[X], .w = t[W],
               .rows = t[ROWS], .labels = t[LABELS], .weights = t[WEIGHTS],
               .vocab_valid = c->Vv, .scratch = scratch);
}

static const struct ops_op ce = { "linear_ce", CE_COUNT, COUNT_OF(ce_cases), describe, invoke };

static void test_table(void **state) { ops_check_table(*state, &ce); }

static double loss(const struct ops_laid *laid, const struct ops_call *back)
{
    return ops_inner(laid, NLL, &back->o[WEIGHTS]);
}

static void test_gradient(void **state)
{
    const struct ops_gradient g = {
        &ce, &ce, 2, { { LINK_GRADIENT, DX, X }, { LINK_GRADIENT, DW, W } }, loss
    };
    ops_check_gradient(*state, &g);
}

/* Neither the rows of x that are no targets nor the padding rows of w may matter: not even NaN. */
static void test_ignores(void **state)
{
    struct ops_env *env = *state;
    struct ops_call call = ops_describe(&ce, env->dtype, 3);
    const struct ce_case *c = call.row;
    struct ops_laid clean, dirty;
    ops_run(&clean, env->dev, &call);

    for (int64_t r = 0; r < c->R; r++) {
        bool is_target = false;
        for (int64_t i = 0; i < c->N; i++) is_target |= call.o[ROWS].value[i] == (double)r;
        for (int64_t i = 0; i < c->C && !is_target; i++) call.o[X].value[r * c->C + i] = NAN;
    }
    for (int64_t i = c->Vv * c->C; i < c->V * c->C; i++) call.o[W].value[i] = NAN;
    ops_run(&dirty, env->dev, &call);
    for (int s = NLL; s <= DW; s++)
        assert_memory_equal(clean.after[s], dirty.after[s], (size_t)clean.block_bytes[s]);
    for (int64_t i = c->Vv * c->C; i < c->V * c->C; i++)
        assert_true(ops_result(&dirty, DW, i) == call.o[DW].value[i]);
    ops_clear(&clean);
    ops_clear(&dirty);
    ops_call_clear(&call);
}

/* The forward pass alone, and each gradient alone, give the bits of all together. */
static void test_parts(void **state)
{
    struct ops_env *env = *state;
    struct ops_call call = ops_describe(&ce, env->dtype, 8);
    struct ops_laid all, part;
    ops_run(&all, env->dev, &call);
    const enum ops_role dx = call.o[DX].role, dw = call.o[DW].role;
    for (int which = 0; which < 3; which++) {
        call.o[DX].role = which & 1 ? dx : ROLE_NONE;
        call.o[DW].role = which & 2 ? dw : ROLE_NONE;
        ops_run(&part, env->dev, &call);
        for (int s = NLL; s <= DW; s++)
            if (part.block[s])
                assert_memory_equal(all.after[s], part.after[s], (size_t)all.block_bytes[s]);
        ops_clear(&part);
    }
    ops_clear(&all);
    ops_call_clear(&call);
}

static void test_refusals(void **state)
{
    struct ce_case bad[3];
    struct ops_bad rows[3];
    for (int i = 0; i < 3; i++) {
        bad[i] = ce_cases[0];
        rows[i] = (struct ops_bad){ &bad[i], ERR_ARG };
    }
    bad[0].Vv = 0;
    bad[1].Vv = 13;
    bad[2].Vv = -1;
    ops_check_refusals(*state, &ce, 0, rows, 3);
    ops_check_refusals(*state, &ce, 6, NULL, 0);
    ops_check_refusals(*state, &ce, 7, NULL, 0);
}

/* More targets never ask for less, over several chunks. */
static void test_scratch(void **state)
{
    const struct ops_env *env = *state;
    int64_t bytes = 0;
    for (int64_t N = 0; N < 3000; N++) {
        struct tensor x = tensor_2d(NULL, env->dtype, 3000, 8, "x");
        struct tensor w = tensor_2d(NULL, env->dtype, 40, 8, "w");
        struct tensor rows = tensor_1d(NULL, DTYPE_I32, N, "rows");
        const int64_t now = op_linear_ce_scratch_bytes(
            env->dev,
            &(struct linear_ce_args){ .x = &x, .w = &w, .rows = &rows, .vocab_valid = 37 });
        assert_true(now >= bytes);
        bytes = now;
    }
}

/* A label or row that is none shows as NaN in its own nll and in no other; checked by the host
 * where it runs there (ASSERT). */
static void test_wrong_target(void **state)
{
    struct ops_env *env = *state;
    if (env->host) return;
    struct ops_call call = ops_describe(&ce, env->dtype, 5);
    const struct ce_case *c = call.row;
    call.o[LABELS].value[2] = (double)c->Vv;
    call.o[LABELS].value[3] = -1;
    call.o[ROWS].value[c->N - 1] = (double)c->R;
    struct ops_laid laid;
    ops_run(&laid, env->dev, &call);
    for (int64_t i = 0; i < c->N; i++)
        assert_int_equal(isnan(ops_result(&laid, NLL, i)), i == 2 || i == 3 || i == c->N - 1);
    ops_clear(&laid);
    ops_call_clear(&call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),   cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_ignores), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_scratch),
        cmocka_unit_test(test_wrong_target),
    };
    return ops_main("loss", tests, COUNT_OF(tests));
}
