/* residual_norm_fwd, residual_norm_bwd. */
#include "ops_cases.h"
#include "ops_harness.h"

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

/* The largest over the rows of h: an entry, the mean, 1/standard deviation. */
struct rows_size {
    double top, centre, rstd;
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
    }
    return size;
}

static void fill(struct operand *o, const struct norm_case *c)
{
    ops_fill_normal(o, c->magnitude);
    for (int64_t i = 0; i < operand_count(o); i++)
        o->value[i] = (double)(float)(o->value[i] + c->offset);
}

/* ---- forward ---- */

enum { Y, H, MEAN, RSTD, X, RESIDUAL, GAMMA, BETA, FWD_COUNT };

static void describe_fwd(struct ops_call *call, int64_t index)
{
    const struct norm_case *c = &norm_cases[index];
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
    ops_fill_normal(ops_operand(call, GAMMA, ROLE_IN, "gamma", T, c->C, 0), 1.0);
    if (layer) ops_fill_normal(ops_operand(call, BETA, ROLE_IN, "beta", T, c->C, 0), 1.0);

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

static void describe_bwd(struct ops_call *call, int64_t index)
{
    const struct norm_case *c = &norm_cases[index];
    const dtype_t T = call->dtype, sum = dtype_accumulator(T);
    const bool layer = c->kind == NORM_LAYER;
    call->title = c->title;
    call->row = c;
    ops_operand(call, DH, ROLE_OUT, "dh", T, c->R, c->C);
    if (!c->frozen)
        ops_fill_normal(ops_operand(call, DGAMMA, ROLE_ACC, "dgamma_acc", sum, c->C, 0), 1.0);
    if (!c->frozen && layer)
        ops_fill_normal(ops_operand(call, DBETA, ROLE_ACC, "dbeta_acc", sum, c->C, 0), 1.0);
    ops_fill_normal(ops_operand(call, DY, ROLE_IN, "dy", T, c->R, c->C), 1.0);
    if (c->residual)
        ops_fill_normal(ops_operand(call, DRESIDUAL, ROLE_IN, "dresidual", T, c->R, c->C), 1.0);
    fill(ops_operand(call, H_IN, ROLE_IN, "h", T, c->R, c->C), c);
    if (layer) ops_operand(call, MEAN_IN, ROLE_IN, "mean", sum, c->R, 0);
    ops_operand(call, RSTD_IN, ROLE_IN, "rstd", sum, c->R, 0);
    fill_statistics(call, c);
    ops_fill_normal(ops_operand(call, GAMMA_IN, ROLE_IN, "gamma", T, c->C, 0), 1.0);

    const double a = c->residual ? c->alpha : 0.0, root = sqrt((double)c->R);
    const struct rows_size size = size_of(call->o[H_IN].value, c);
    const double g = 5 * (1 + a), relative = 1 + size.top * size.rstd;
    ops_bound(call, &call->o[DH], k.dh, 1,
              size.rstd * g * top(&call->o[GAMMA_IN]) * relative + 5 * a);
    ops_bound(call, &call->o[DGAMMA], k.dgamma, c->R, (1 + a) * relative * root);
    ops_bound(call, &call->o[DBETA], k.dgamma, c->R, (1 + a) * root);
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

/* ---- tests ---- */

static void test_tables(void **state)
{
    ops_check_table(*state, &fwd);
    ops_check_table(*state, &bwd);
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

static void test_gradient(void **state)
{
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
    struct norm_case bad = norm_cases[0];
    bad.alpha = NAN;
    const struct ops_bad rows[] = { { &bad, ERR_ARG } };
    ops_check_refusals(*state, &fwd, 0, rows, COUNT_OF(rows));
    ops_check_refusals(*state, &fwd, 1, NULL, 0);
    ops_check_refusals(*state, &bwd, 0, rows, COUNT_OF(rows));
    ops_check_refusals(*state, &bwd, 1, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),    cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_rows),      cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_alias),     cmocka_unit_test(test_refusals),
    };
    return ops_main("norm", tests, COUNT_OF(tests));
}
