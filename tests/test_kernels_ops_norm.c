/* residual_norm_fwd, residual_norm_bwd. */
#include "ops_cases.h"
#include "ops_harness.h"

#include "kernels/cuda/gpu.h"

#include <math.h>
#include <stdlib.h>

#define NORM_EPS 1e-5

/*
 * k of the bounds k * eps * scale (eps = 2^-24 in f32). A row of h has entries up to `top`, spread
 * s around `centre`. Summed in sequence, the spread part errs by 0.4*s*eps in the mean (a random
 * walk), the centre by centre*sqrt(C)*eps/3: ten sigma of the two is k = 4 with scale
 * s + centre*sqrt(C).
 *   h      alpha and alpha*residual are rounded, each to eps*|alpha*residual|
 *   y      the mean's error and the rounding of h (not in the reference), times rstd*gamma
 *   rstd   a sum of squares: sqrt(C)*eps/3, and the rounding of h, relatively
 *   dh     two means of p and p*xhat, and xhat, which carries the error of y
 *   dgamma a random walk over R rows: R*eps/sqrt(6) times a term's rms; ten sigma, scale R*rms
 *
 * A 16-bit T rounds alpha*residual + x to h before the statistics and y are computed from it, which
 * the reference does not. With u = 2^-8 (bf16), an entry of h is off by u*top at most, by
 * u*top/sqrt(3) rms, independently of the others:
 *   mean   the average of C such errors: ten sigma are 6/sqrt(C) times u*top, and never above it
 *   rstd   relatively half the change of the mean of d^2 over its value s^2 (d: distance from the
 *          mean): the average of d*error/s^2, ten sigma of which are 6/sqrt(C) times
 *          e = u*top*rstd, and of error^2/(2 s^2), at most e^2/2
 *   y      the entry's own error and the mean's, times rstd*gamma; the relative error of rstd times
 *          the largest xhat
 * The backward pass takes h as it is stored: nothing but its results is rounded to T.
 */
static const struct {
    double h, mean, rstd, y, dh, dgamma;
} k = { 2, 4, 4, 4, 4, 4 };

static double top(const struct operand *o)
{
    double largest = 0.0;
    for (int64_t i = 0; i < operand_count(o); i++) largest = fmax(largest, fabs(o->value[i]));
    return largest;
}

/* The largest over the rows of h: an entry, the mean, 1/standard deviation, xhat. */
struct rows_size {
    double top, centre, rstd, xhat;
};

static void statistics(double *mean, double *rstd, const double *h, const struct norm_case *c)
{
    double sum = 0.0, sum2 = 0.0;
    for (int64_t i = 0; i < c->C; i++) sum += h[i];
    *mean = c->kind == NORM_LAYER ? sum / (double)c->C : 0.0;
    for (int64_t i = 0; i < c->C; i++) sum2 += (h[i] - *mean) * (h[i] - *mean);
    *rstd = 1.0 / sqrt(sum2 / (double)c->C + NORM_EPS);
}

static struct rows_size size_of(const double *h, const struct norm_case *c)
{
    struct rows_size size = { 0 };
    for (int64_t i = 0; i < c->R * c->C; i++) size.top = fmax(size.top, fabs(h[i]));
    for (int64_t r = 0; r < c->R; r++) {
        double mean = 0.0, rstd = 0.0;
        statistics(&mean, &rstd, h + r * c->C, c);
        size.centre = fmax(size.centre, fabs(mean));
        size.rstd = fmax(size.rstd, rstd);
        for (int64_t i = 0; i < c->C; i++)
            size.xhat = fmax(size.xhat, fabs(h[r * c->C + i] - mean) * rstd);
    }
    return size;
}

static void fill(struct operand *o, const struct norm_case *c)
{
    ops_fill_normal(o, c->magnitude);
    const struct tensor value = tensor_1d(o->value, DTYPE_F64, operand_count(o), o->name);
    for (int64_t i = 0; i < operand_count(o); i++) {
        double storage = 0.0;
        const struct tensor stored = tensor_1d(&storage, o->dtype, 1, o->name);
        ref_put(&stored, 0, ref_get(&value, i) + c->offset);
        ref_put(&value, i, ref_get(&stored, 0));
    }
}

/* ---- forward ---- */

enum { Y, H, MEAN, RSTD, X, RESIDUAL, GAMMA, BETA, FWD_COUNT };

/* What rounding h to T adds; see above. */
static void bound_stored(struct ops_call *call, const struct norm_case *c,
                         const struct rows_size *size)
{
    const double share = fmin(1.0, 6.0 / sqrt((double)c->C)), step = size->top * size->rstd;
    const double relative = share + 0x1p-9 * step;
    if (c->kind == NORM_LAYER) ops_bound_stored(call, &call->o[MEAN], share, size->top);
    ops_bound_stored(call, &call->o[RSTD], relative, size->rstd * step);
    ops_bound_stored(call, &call->o[Y], 1 + share + relative * size->xhat,
                     step * top(&call->o[GAMMA]));
}

/* gamma and beta are in T, or in f32. */
static void describe_fwd_case(struct ops_call *call, const struct norm_case *c, dtype_t G)
{
    const dtype_t T = call->dtype, sum = dtype_accumulator(T);
    const bool layer = c->kind == NORM_LAYER;
    call->title = c->title;
    call->row = c;
    call->rough = c->magnitude != 1;
    ops_operand(call, Y, ROLE_OUT, "y", T, c->R, c->C);
    if (c->keeps_h) ops_operand(call, H, ROLE_OUT, "h", T, c->R, c->C);
    if (layer) ops_operand(call, MEAN, ROLE_OUT, "mean", sum, c->R, 0);
    ops_operand(call, RSTD, ROLE_OUT, "rstd", sum, c->R, 0);
    fill(ops_operand(call, X, ROLE_IN, "x", T, c->R, c->C), c);
    if (c->residual) fill(ops_operand(call, RESIDUAL, ROLE_IN, "residual", T, c->R, c->C), c);
    ops_fill_normal(ops_operand(call, GAMMA, ROLE_IN, "gamma", G, c->C, 0), 1.0);
    if (layer) ops_fill_normal(ops_operand(call, BETA, ROLE_IN, "beta", G, c->C, 0), 1.0);

    const double a = c->residual ? c->alpha : 0.0, root = sqrt((double)c->C);
    double *h = malloc((size_t)(c->R * c->C + 1) * sizeof *h);
    for (int64_t i = 0; i < c->R * c->C; i++)
        h[i] = call->o[X].value[i] + (c->residual ? a * call->o[RESIDUAL].value[i] : 0.0);
    const struct rows_size size = size_of(h, c);
    free(h);
    const double error = size.top + size.centre * root;
    if (c->keeps_h && c->residual) ops_bound(call, &call->o[H], k.h, 1, size.top + a * c->offset);
    ops_bound(call, &call->o[MEAN], k.mean, 1, error);
    ops_bound(call, &call->o[RSTD], k.rstd, 1, size.rstd * (root + error * size.rstd));
    ops_bound(call, &call->o[Y], k.y, 1, (1 + error * size.rstd) * top(&call->o[GAMMA]));
    if (c->residual) bound_stored(call, c, &size);
}

static void describe_fwd(struct ops_call *call, int64_t index)
{
    describe_fwd_case(call, &norm_cases[index], call->dtype);
}

static void describe_fwd_mixed(struct ops_call *call, int64_t index)
{
    describe_fwd_case(call, &norm_cases[index], dtype_accumulator(call->dtype));
}

static err_t invoke_fwd(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    const struct norm_case *c = call->row;
    OPS_INVOKE(residual_norm_fwd, .kind = c->kind, .y = t[Y], .h = t[H], .mean = t[MEAN],
               .rstd = t[RSTD], .x = t[X], .residual = t[RESIDUAL], .gamma = t[GAMMA],
               .beta = t[BETA], .alpha = c->alpha, .eps = NORM_EPS);
}

static const struct ops_op fwd = { "residual_norm_fwd", FWD_COUNT, COUNT_OF(norm_cases),
                                   describe_fwd, invoke_fwd };
/* With gamma and beta in the accumulator's dtype, as models keep them in training. */
static const struct ops_op fwd_mixed = { "residual_norm_fwd", FWD_COUNT, COUNT_OF(norm_cases),
                                         describe_fwd_mixed, invoke_fwd };

/* ---- backward ---- */

enum { DH, DGAMMA, DBETA, DY, DRESIDUAL, H_IN, MEAN_IN, RSTD_IN, GAMMA_IN, BWD_COUNT };

/* mean and rstd of the rows of h, as a forward pass leaves them. */
static void fill_statistics(struct ops_call *call, const struct norm_case *c)
{
    if (c->kind == NORM_LAYER) ops_fill_constant(&call->o[MEAN_IN], 0.0);
    ops_fill_constant(&call->o[RSTD_IN], 0.0);
    for (int64_t r = 0; r < c->R; r++) {
        double mean = 0.0, rstd = 0.0;
        statistics(&mean, &rstd, call->o[H_IN].value + r * c->C, c);
        if (c->kind == NORM_LAYER) call->o[MEAN_IN].value[r] = (double)(float)mean;
        call->o[RSTD_IN].value[r] = (double)(float)rstd;
    }
}

/* gamma in G; its gradient and that of beta in D. */
static void describe_bwd_case(struct ops_call *call, const struct norm_case *c, dtype_t G,
                              dtype_t D)
{
    const dtype_t T = call->dtype, sum = dtype_accumulator(T);
    const bool layer = c->kind == NORM_LAYER;
    call->title = c->title;
    call->row = c;
    ops_operand(call, DH, ROLE_OUT, "dh", T, c->R, c->C);
    if (!c->frozen)
        ops_fill_normal(ops_operand(call, DGAMMA, ROLE_ACC, "dgamma_acc", D, c->C, 0), 1.0);
    if (!c->frozen && layer)
        ops_fill_normal(ops_operand(call, DBETA, ROLE_ACC, "dbeta_acc", D, c->C, 0), 1.0);
    ops_fill_normal(ops_operand(call, DY, ROLE_IN, "dy", T, c->R, c->C), 1.0);
    if (c->residual)
        ops_fill_normal(ops_operand(call, DRESIDUAL, ROLE_IN, "dresidual", T, c->R, c->C), 1.0);
    fill(ops_operand(call, H_IN, ROLE_IN, "h", T, c->R, c->C), c);
    if (layer) ops_operand(call, MEAN_IN, ROLE_IN, "mean", sum, c->R, 0);
    ops_operand(call, RSTD_IN, ROLE_IN, "rstd", sum, c->R, 0);
    fill_statistics(call, c);
    ops_fill_normal(ops_operand(call, GAMMA_IN, ROLE_IN, "gamma", G, c->C, 0), 1.0);

    const double a = c->residual ? c->alpha : 0.0, root = sqrt((double)c->R);
    const struct rows_size size = size_of(call->o[H_IN].value, c);
    const double g = 5 * (1 + a), relative = 1 + size.top * size.rstd;
    ops_bound(call, &call->o[DH], k.dh, 1,
              size.rstd * g * top(&call->o[GAMMA_IN]) * relative + 5 * a);
    ops_bound(call, &call->o[DGAMMA], k.dgamma, c->R, (1 + a) * relative * root);
    ops_bound(call, &call->o[DBETA], k.dgamma, c->R, (1 + a) * root);
}

static void describe_bwd(struct ops_call *call, int64_t index)
{
    describe_bwd_case(call, &norm_cases[index], call->dtype, dtype_accumulator(call->dtype));
}

static void describe_bwd_mixed(struct ops_call *call, int64_t index)
{
    describe_bwd_case(call, &norm_cases[index], dtype_accumulator(call->dtype), call->dtype);
}

static err_t invoke_bwd(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    const struct norm_case *c = call->row;
    OPS_INVOKE(residual_norm_bwd, .kind = c->kind, .residual_from = c->from, .dh = t[DH],
               .dgamma_acc = t[DGAMMA], .dbeta_acc = t[DBETA], .dy = t[DY],
               .dresidual = t[DRESIDUAL], .h = t[H_IN], .mean = t[MEAN_IN], .rstd = t[RSTD_IN],
               .gamma = t[GAMMA_IN], .alpha = c->alpha, .scratch = scratch);
}

static const struct ops_op bwd = { "residual_norm_bwd", BWD_COUNT, COUNT_OF(norm_cases),
                                   describe_bwd, invoke_bwd };
static const struct ops_op bwd_mixed = { "residual_norm_bwd", BWD_COUNT, COUNT_OF(norm_cases),
                                         describe_bwd_mixed, invoke_bwd };

/* ---- rows too wide for one way of keeping them ---- */

static const struct norm_case wide_cases[] = {
    { "8192", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 2, 8192, true, true, false, 7.5, 1, 0 },
    { "8195", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 2, 8195, true, true, false, 7.5, 1, 0 },
    { "16384", NORM_LAYER, RESIDUAL_FROM_INPUT, 5, 16384, true, true, false, 7.5, 1, 0 },
    { "16384, rms", NORM_RMS, RESIDUAL_FROM_INPUT, 2, 16384, false, true, false, 1, 1, 0 },
};

static void describe_fwd_wide(struct ops_call *call, int64_t index)
{
    describe_fwd_case(call, &wide_cases[index], call->dtype);
}

static void describe_bwd_wide(struct ops_call *call, int64_t index)
{
    describe_bwd_case(call, &wide_cases[index], call->dtype, dtype_accumulator(call->dtype));
}

static const struct ops_op fwd_wide = { "residual_norm_fwd", FWD_COUNT, COUNT_OF(wide_cases),
                                        describe_fwd_wide, invoke_fwd };
static const struct ops_op bwd_wide = { "residual_norm_bwd", BWD_COUNT, COUNT_OF(wide_cases),
                                        describe_bwd_wide, invoke_bwd };

/* ---- tests ---- */

static void test_tables(void **state)
{
    const struct ops_env *env = *state;
    ops_check_table(*state, &fwd);
    ops_check_table(*state, &bwd);
    if (env->dtype == dtype_accumulator(env->dtype)) return;
    ops_check_table(*state, &fwd_mixed);
    ops_check_table(*state, &bwd_mixed);
}

static void test_wide(void **state)
{
    ops_check_table(*state, &fwd_wide);
    ops_check_table(*state, &bwd_wide);
}

/* What flows back: dy into y, and alpha * dresidual into y or into h. */
static double loss(const struct ops_laid *laid, const struct ops_call *back)
{
    const struct norm_case *c = back->row;
    double sum = ops_inner(laid, Y, &back->o[DY]);
    if (c->residual)
        sum += c->alpha * ops_inner(laid, c->from == RESIDUAL_FROM_OUTPUT ? Y : H,
                                    &back->o[DRESIDUAL]);
    return sum;
}

/* The reference alone: once is enough. */
static void test_gradient(void **state)
{
    const struct ops_env *env = *state;
    if (!env->host) return;
    const struct ops_gradient g = {
        &fwd, &bwd, 7,
        { { LINK_OUTPUT, H_IN, H }, { LINK_OUTPUT, MEAN_IN, MEAN }, { LINK_OUTPUT, RSTD_IN, RSTD },
          { LINK_INPUT, GAMMA_IN, GAMMA }, { LINK_GRADIENT, DH, X },
          { LINK_GRADIENT, DGAMMA, GAMMA }, { LINK_GRADIENT, DBETA, BETA } },
        loss
    };
    ops_check_gradient(*state, &g);
}

static void test_rows(void **state)
{
    ops_check_rows(*state, &fwd, 0, X, Y);
    ops_check_rows(*state, &fwd, 11, X, Y);
    ops_check_rows(*state, &fwd, 11, RESIDUAL, RSTD);
    ops_check_rows(*state, &bwd, 11, DY, DH);
}

/* A second pass over the stored h gives the bits of the first. */
static void test_recompute(void **state)
{
    struct ops_env *env = *state;
    for (int64_t index = 0; index < fwd.case_count; index++) {
        struct norm_case again = norm_cases[index];
        if (!again.residual || again.R == 0) continue;
        struct ops_call call = ops_describe(&fwd, env->dtype, index);
        struct ops_laid first, second;
        ops_run(&first, env->dev, &call);

        for (int64_t i = 0; i < operand_count(&call.o[X]); i++)
            call.o[X].value[i] = ops_result(&first, H, i);
        call.o[RESIDUAL].role = call.o[H].role = ROLE_NONE;
        ops_run(&second, env->dev, &call);
        for (int64_t r = 0; r < again.R; r++) {
            size_t bytes = 0;
            const void *y = ops_result_row(&first, Y, r, &bytes);
            assert_memory_equal(y, ops_result_row(&second, Y, r, &bytes), bytes);
            const void *rstd = ops_result_row(&first, RSTD, r, &bytes);
            assert_memory_equal(rstd, ops_result_row(&second, RSTD, r, &bytes), bytes);
        }
        ops_clear(&first);
        ops_clear(&second);
        ops_call_clear(&call);
    }
}

static void test_alias(void **state)
{
    ops_check_alias(*state, &fwd, 11, X, H);
    ops_check_alias(*state, &fwd, 11, RESIDUAL, H);
    ops_check_alias(*state, &bwd, 11, DY, DH);
    ops_check_alias(*state, &bwd, 11, DRESIDUAL, DH);
    ops_check_alias(*state, &bwd, 5, DRESIDUAL, DH);
}

static void test_refusals(void **state)
{
    struct norm_case alpha = norm_cases[0], kind = alpha, mean = alpha, from = alpha;
    alpha.alpha = NAN;
    kind.kind = (enum norm_kind)7;
    mean.kind = NORM_RMS; /* with `mean` given */
    from.from = (enum residual_from)7;
    const struct ops_bad rows[] = { { &alpha, ERR_ARG }, { &kind, ERR_ARG }, { &mean, ERR_ARG },
                                    { &from, ERR_ARG } };
    ops_check_refusals(*state, &fwd, 0, rows, COUNT_OF(rows) - 1); /* it has no `from` */
    ops_check_refusals(*state, &fwd, 1, NULL, 0);
    ops_check_refusals(*state, &bwd, 0, rows, COUNT_OF(rows));
    ops_check_refusals(*state, &bwd, 1, NULL, 0);
}

/* The cpu backend computes in f32 alone. */
static void test_dtype(void **state)
{
    struct ops_env *env = *state;
    if (!env->host) return;
    struct ops_call call = ops_describe(&fwd, DTYPE_BF16, 0);
    struct ops_laid laid;
    ops_lay(&laid, env->dev, &call);
    assert_err(ops_invoke(&laid), UNSUPPORTED, "bf16; the cpu backend computes in f32");
    ops_clear(&laid);
    ops_call_clear(&call);
}

/* A backend that cannot take a row says so before it writes. */
static void test_too_wide(void **state)
{
    struct ops_env *env = *state;
    if (env->host) return;
    static const struct norm_case wide = { "too wide", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 1, 16385,
                                           true, true, false, 1, 1, 0 };
    struct ops_call call = { .op = &fwd, .dtype = env->dtype };
    struct ops_laid laid;
    describe_fwd_case(&call, &wide, env->dtype);
    ops_lay(&laid, env->dev, &call);
    assert_err(ops_invoke(&laid), UNSUPPORTED, "rows of 16385");
    ops_fetch(&laid);
    assert_memory_equal(laid.before[Y], laid.after[Y], (size_t)laid.block_bytes[Y]);
    ops_clear(&laid);
    ops_call_clear(&call);
}

/* A card with less shared memory than the backward pass of a wide row wants is told so. */
static void test_shared_memory(void **state)
{
    struct ops_env *env = *state;
    if (env->host) return;
    static const struct norm_case wide = { "wide", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 1, 16383,
                                           true, true, false, 1, 1, 0 };
    struct ops_call call = { .op = &bwd, .dtype = env->dtype };
    struct ops_laid laid;
    struct gpu *const gpu = gpu_of(env->dev);
    const int64_t shared_bytes_max = gpu->shared_bytes_max;
    describe_bwd_case(&call, &wide, env->dtype, dtype_accumulator(env->dtype));
    ops_lay(&laid, env->dev, &call);
    gpu->shared_bytes_max = 99 << 10;
    assert_err(ops_invoke(&laid), UNSUPPORTED,
               "kernel residual_norm_bwd: a block wants 131064 bytes of shared memory; this GPU "
               "has 101376");
    gpu->shared_bytes_max = shared_bytes_max;
    ops_clear(&laid);
    ops_call_clear(&call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),    cmocka_unit_test(test_wide),
        cmocka_unit_test(test_gradient),  cmocka_unit_test(test_dtype),
        cmocka_unit_test(test_rows),      cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_alias),     cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_too_wide),  cmocka_unit_test(test_shared_memory),
    };
    return ops_main("norm", tests, COUNT_OF(tests));
}
