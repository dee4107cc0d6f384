/* The properties: parity, determinism, rows, refusals, gradients. */
#include "ops_harness.h"

#include "base/num.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- tolerances that hold for every operator ---- */

/* A normalized mean square error of 1e-7 is a relative rms error of 3e-4: the max-error bounds are
 * far tighter where their scale is that of the result; this catches a scale chosen too large. For
 * 16-bit results it is the square of one rounding. A statistic in f32 of values that were rounded
 * to 16 bits has no such limit: a mean near zero is small beside what the roundings leave of it. */
static double nmse_limit(dtype_t dtype)
{
    return dtype == DTYPE_BF16 ? 0x1p-16 : dtype == DTYPE_F16 ? 0x1p-22 : 1e-7;
}

/* At most half a unit in the last place of a result, subnormals included. */
static double half_ulp(dtype_t dtype, double value)
{
    switch (dtype) {
    case DTYPE_F32: return fabs(value) * 0x1p-24 + 0x1p-150;
    case DTYPE_BF16: return fabs(value) * 0x1p-8 + 0x1p-134;
    case DTYPE_F16: return fabs(value) * 0x1p-11 + 0x1p-25;
    default: return fabs(value) * 0x1p-53;
    }
}

/* ---- parity ---- */

/* Fails on the first element outside; returns the largest error as a share of what is accepted. */
static double compare(const struct ops_laid *got, const struct ops_laid *ref, int slot)
{
    const struct operand *o = &got->call->o[slot];
    double worst = 0.0, error2 = 0.0, ref2 = 0.0;
    for (int64_t i = 0; i < operand_count(o); i++) {
        const double g = ops_result(got, slot, i), r = ops_result(ref, slot, i);
        const double error = fabs(g - r);
        const double limit = o->bound > 0.0 ? o->bound + half_ulp(o->dtype, r) : 0.0;
        const double nearest = ref_rounded(o->dtype, r);
        const bool same = g == nearest || (isnan(g) && isnan(nearest));
        ref2 += r * r;
        if (!same && !(error <= limit))
            fail_msg("%s/%s: %s[%lld] = %.9g, expected %.17g; error %.3g, accepted %.3g",
                     got->call->op->name, got->call->title, o->name, (long long)i, g, r, error,
                     limit);
        if (same) continue;
        worst = fmax(worst, error / limit);
        error2 += error * error;
    }
    const double nmse = nmse_limit(o->stored ? got->call->dtype : o->dtype);
    if (o->bound > 0.0 && error2 > nmse * ref2 + 1e-60)
        fail_msg("%s/%s: %s: NMSE %.3g, accepted %.3g", got->call->op->name, got->call->title,
                 o->name, error2 / ref2, nmse);
    return worst;
}

static bool is_output(const struct operand *o)
{
    return o->role == ROLE_OUT || o->role == ROLE_ACC || o->role == ROLE_INPLACE;
}

/* Bits of all operands, gaps included. */
static void expect_same_bits(const struct ops_laid *laid, const struct ops_laid *first, int threads)
{
    for (int s = 0; s < laid->call->op->operand_count; s++)
        if (laid->block[s]
            && memcmp(laid->after[s], first->after[s], (size_t)laid->block_bytes[s]) != 0)
            fail_msg("%s/%s: %s has other bits in a second run (%d threads)",
                     laid->call->op->name, laid->call->title, laid->call->o[s].name, threads);
}

/* Again for each thread count, each time with the scratch that it asks for. */
static void check_determinism(struct ops_env *env, const struct ops_laid *first)
{
    const int threads = env->dev->threads;
    for (int run = 1; run <= (env->host ? 4 : 1); run++) {
        if (env->host) env->dev->threads = run;
        struct ops_laid again;
        ops_run(&again, env->dev, first->call);
        expect_same_bits(&again, first, run);
        ops_clear(&again);
    }
    env->dev->threads = threads;
}

/* worst[s], name[s]: of output operand s, the largest error as a share of what is accepted. */
static void check_case(struct ops_env *env, const struct ops_op *op, int64_t index, double *worst,
                       const char **name)
{
    struct ops_call call = ops_describe(op, env->dtype, index);
    struct ops_laid got, ref;
    ops_run(&got, env->dev, &call);
    ops_run(&ref, &env->ref, &call);
    for (int s = 0; s < op->operand_count; s++) {
        if (!is_output(&call.o[s])) continue;
        name[s] = call.o[s].name;
        worst[s] = fmax(worst[s], compare(&got, &ref, s));
    }
    check_determinism(env, &got);
    ops_clear(&got);
    ops_clear(&ref);
    ops_call_clear(&call);
}

void ops_check_case(struct ops_env *env, const struct ops_op *op, int64_t index)
{
    double worst[OPS_OPERANDS_MAX] = { 0 };
    const char *name[OPS_OPERANDS_MAX];
    check_case(env, op, index, worst, name);
}

void ops_check_table(struct ops_env *env, const struct ops_op *op)
{
    double worst[OPS_OPERANDS_MAX] = { 0 };
    const char *name[OPS_OPERANDS_MAX] = { NULL };
    for (int64_t index = 0; index < op->case_count; index++)
        check_case(env, op, index, worst, name);
    printf("  %s: %lld cases; largest error / accepted:", op->name, (long long)op->case_count);
    for (int s = 0; s < OPS_OPERANDS_MAX; s++)
        if (name[s]) printf(" %s %.2f", name[s], worst[s]);
    printf("\n");
}

/* ---- rows ---- */

void ops_check_rows(struct ops_env *env, const struct ops_op *op, int64_t index, int in, int out)
{
    struct ops_call call = ops_describe(op, env->dtype, index);
    struct ops_laid first, second;
    ops_run(&first, env->dev, &call);

    const int64_t R = call.o[in].dim[0], cols = call.o[in].dims == 1 ? 1 : call.o[in].dim[1];
    const int64_t changed = R / 2;
    assert_true(R > 1);
    for (int64_t c = 0; c < cols; c++)
        call.o[in].value[changed * cols + c] += (double)(1 + c % 3);
    ops_run(&second, env->dev, &call);

    for (int64_t r = 0; r < R; r++) {
        size_t bytes = 0;
        const void *a = ops_result_row(&first, out, r, &bytes);
        const bool same = memcmp(a, ops_result_row(&second, out, r, &bytes), bytes) == 0;
        if (same == (r == changed))
            fail_msg("%s/%s: row %lld of %s %s with row %lld of %s", op->name, call.title,
                     (long long)r, call.o[out].name, same ? "stayed" : "changed",
                     (long long)changed, call.o[in].name);
    }
    ops_clear(&first);
    ops_clear(&second);
    ops_call_clear(&call);
}

void ops_check_alias(struct ops_env *env, const struct ops_op *op, int64_t index, int in, int out)
{
    struct ops_call call = ops_describe(op, env->dtype, index);
    struct ops_laid apart, shared;
    ops_run(&apart, env->dev, &call);
    ops_lay(&shared, env->dev, &call);
    shared.tensor[out].data = shared.tensor[in].data;
    assert_ok(ops_invoke(&shared));
    assert_ok(dev_download(env->dev, shared.after[in], shared.block[in], shared.block_bytes[in]));
    for (int64_t r = 0; r < call.o[out].dim[0]; r++) {
        size_t bytes = 0;
        const void *a = ops_result_row(&apart, out, r, &bytes);
        if (memcmp(a, ops_result_row(&shared, in, r, &bytes), bytes) != 0)
            fail_msg("%s/%s: row %lld of %s is another one when it aliases %s", op->name,
                     call.title, (long long)r, call.o[out].name, call.o[in].name);
    }
    ops_clear(&apart);
    ops_clear(&shared);
    ops_call_clear(&call);
}

/* ---- refusals ---- */

static void expect_refused(struct ops_laid *laid, err_t expected, const char *part,
                           const char *what)
{
    const struct ops_call *call = laid->call;
    const err_t rc = ops_invoke(laid);
    if (rc != expected)
        fail_msg("%s/%s: %s %s gave %s, expected %s", call->op->name, call->title, part, what,
                 err_name(rc), err_name(expected));
    if (strstr(err_last()->text, part) == NULL)
        fail_msg("%s/%s: %s %s: the message does not name it: %s", call->op->name, call->title,
                 part, what, err_last()->text);
    ops_fetch(laid);
    for (int s = 0; s < call->op->operand_count; s++)
        if (laid->block[s]
            && memcmp(laid->after[s], laid->before[s], (size_t)laid->block_bytes[s]) != 0)
            fail_msg("%s/%s: %s %s was refused, but %s was written", call->op->name, call->title,
                     part, what, call->o[s].name);
}

/* One operand, wrong in each way that it can be. */
static void refuse_operand(struct ops_laid *laid, int slot)
{
    const struct operand *o = &laid->call->o[slot];
    const struct tensor good = laid->tensor[slot];
    struct tensor bad = good;
    const int last = good.dims - 1;
    const bool free_cols = o->freedom & (good.dims == 1 ? FREE_ROWS : FREE_COLS);
    laid->pointer[slot] = &bad;

    bad.dtype = DTYPE_U8;
    expect_refused(laid, ERR_DTYPE, o->name, "as u8");
    bad = good;
    bad.data = (unsigned char *)good.data + 4;
    expect_refused(laid, ERR_ARG, o->name, "at a misaligned address");
    bad = good;
    if (!(o->freedom & FREE_DIMS)) {
        bad.dims = good.dims == 3 ? 2 : 3;
        bad.row_stride = bad.dim[bad.dims - 1];
        expect_refused(laid, ERR_SHAPE, o->name, "with other dimensions");
        bad = good;
    }
    if (!free_cols) {
        bad.dim[last]++;
        bad.row_stride++;
        expect_refused(laid, ERR_SHAPE, "", "with another last dimension");
        bad = good;
    }
    if (good.dims > 1 && !(o->freedom & FREE_ROWS)) {
        bad.dim[0]++;
        expect_refused(laid, ERR_SHAPE, "", "with another first dimension");
        bad = good;
    }
    if (good.dims == 2) {
        bad.row_stride = good.dim[1] - 1;
        expect_refused(laid, ERR_SHAPE, o->name, "with overlapping rows");
        bad = good;
    }
    if (good.dims == 2 && !(o->freedom & FREE_STRIDE)) {
        bad.row_stride += 8;
        expect_refused(laid, ERR_SHAPE, o->name, "with strided rows");
    }
    laid->pointer[slot] = &laid->tensor[slot];
}

static void refuse_scratch(struct ops_laid *laid)
{
    const struct scratch good = laid->scratch;
    if (good.bytes == 0) return;
    laid->scratch.bytes--;
    expect_refused(laid, ERR_ARG, "scratch", "one byte short");
    laid->scratch = (struct scratch){ NULL, good.bytes };
    expect_refused(laid, ERR_ARG, "scratch", "without data");
    laid->scratch = (struct scratch){ (unsigned char *)good.data + 4, good.bytes };
    expect_refused(laid, ERR_ARG, "scratch", "misaligned");
    laid->scratch = good;
}

static void refuse_backend(struct ops_laid *laid)
{
    const struct ops_table none = { .name = "none" };
    struct dev without = *laid->dev;
    struct dev *with = laid->dev;
    without.ops = &none;
    laid->dev = &without;
    expect_refused(laid, ERR_UNSUPPORTED, laid->call->op->name, "in a backend without it");
    laid->dev = with;
}

void ops_check_refusals(struct ops_env *env, const struct ops_op *op, int64_t index,
                        const struct ops_bad bad[], int64_t bad_count)
{
    struct ops_call call = ops_describe(op, env->dtype, index);
    const void *good_row = call.row;
    struct ops_laid laid;
    ops_lay(&laid, env->dev, &call);
    for (int s = 0; s < op->operand_count; s++)
        if (call.o[s].role != ROLE_NONE) refuse_operand(&laid, s);
    refuse_scratch(&laid);
    for (int64_t i = 0; i < bad_count; i++) {
        char what[32];
        snprintf(what, sizeof what, "bad row %lld", (long long)i);
        call.row = bad[i].row;
        expect_refused(&laid, bad[i].code, "", what);
    }
    call.row = good_row;
    refuse_backend(&laid);

    assert_ok(ops_invoke(&laid)); /* nothing of the above stuck */
    ops_fetch(&laid);
    ops_clear(&laid);
    ops_call_clear(&call);
}

/* ---- gradients ---- */

double ops_inner(const struct ops_laid *laid, int slot, const struct operand *cotangent)
{
    double sum = 0.0;
    for (int64_t i = 0; i < operand_count(cotangent); i++)
        sum += cotangent->value[i] * ops_result(laid, slot, i);
    return sum;
}

enum { GRADIENT_ELEMENTS_MAX = 30000, GRADIENT_SAMPLES = 24 };

static int64_t elements(const struct ops_call *call)
{
    int64_t sum = 0;
    for (int s = 0; s < call->op->operand_count; s++)
        if (call->o[s].role != ROLE_NONE) sum += operand_count(&call->o[s]);
    return sum;
}

/* Small, smooth, and with every operand that the backward pass needs. */
static bool is_differentiable(const struct ops_gradient *g, const struct ops_call *fwd,
                              const struct ops_call *bwd)
{
    for (int64_t l = 0; l < g->link_count; l++)
        if (bwd->o[g->links[l].bwd].role != ROLE_NONE && fwd->o[g->links[l].fwd].role == ROLE_NONE)
            return false;
    return !fwd->rough && elements(fwd) <= GRADIENT_ELEMENTS_MAX;
}

/* The loss with element i of a forward input moved by `step`. */
static double loss_at(const struct ops_gradient *g, struct ops_env *env, struct ops_call *fwd,
                      const struct ops_call *bwd, int slot, int64_t i, double step)
{
    double *x = &fwd->o[slot].value[i];
    const double keep = *x;
    *x += step;
    struct ops_laid laid;
    ops_run(&laid, &env->ref, fwd);
    const double loss = g->loss(&laid, bwd);
    ops_clear(&laid);
    *x = keep;
    return loss;
}

static void check_link(struct ops_env *env, const struct ops_gradient *g, struct ops_call *fwd,
                       const struct ops_laid *bwd, const struct ops_link *link)
{
    const struct operand *d = &bwd->call->o[link->bwd];
    if (d->role == ROLE_NONE) return;
    const int64_t count = operand_count(&fwd->o[link->fwd]);
    assert_int_equal(count, operand_count(d));

    double largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const double start = d->role == ROLE_ACC ? d->value[i] : 0.0;
        largest = fmax(largest, fabs(ops_result(bwd, link->bwd, i) - start));
    }
    const int64_t step = max_i64(1, count / GRADIENT_SAMPLES);
    for (int64_t i = 0; i < count; i += step) {
        const double h = 1e-3;
        double f[4];
        for (int k = 0; k < 4; k++)
            f[k] = loss_at(g, env, fwd, bwd->call, link->fwd, i,
                           h * (double)(k < 2 ? k - 2 : k - 1));
        const double slope = (f[0] - 8.0 * f[1] + 8.0 * f[2] - f[3]) / (12.0 * h);
        const double start = d->role == ROLE_ACC ? d->value[i] : 0.0;
        const double got = ops_result(bwd, link->bwd, i) - start;
        /* The formula errs by h^4/30 of a fifth derivative; the loss's rounding is noise. */
        const double noise = 1e-12 * (1.0 + fabs(f[0]));
        if (!(fabs(got - slope) <= 1e-7 * fabs(slope) + 1e-9 * largest + noise))
            fail_msg("%s/%s: %s[%lld] = %.15g, by differences %.15g (largest entry %.3g)",
                     g->bwd->name, fwd->title, d->name, (long long)i, got, slope, largest);
    }
}

/* Give the backward pass what the forward pass read and wrote. */
static void connect(const struct ops_gradient *g, const struct ops_laid *fwd, struct ops_call *bwd)
{
    for (int64_t l = 0; l < g->link_count; l++) {
        const struct ops_link *link = &g->links[l];
        struct operand *to = &bwd->o[link->bwd];
        const struct operand *from = &fwd->call->o[link->fwd];
        if (link->kind == LINK_GRADIENT || to->role == ROLE_NONE) continue;
        assert_int_equal(operand_count(to), operand_count(from));
        for (int64_t i = 0; i < operand_count(to); i++)
            to->value[i] =
                link->kind == LINK_INPUT ? from->value[i] : ops_result(fwd, link->fwd, i);
    }
}

bool ops_check_gradient_case(struct ops_env *env, const struct ops_gradient *g, int64_t index)
{
    struct ops_call fwd = ops_describe(g->fwd, DTYPE_F64, index);
    struct ops_call bwd = ops_describe(g->bwd, DTYPE_F64, index);
    const bool checked = is_differentiable(g, &fwd, &bwd);
    if (checked) {
        struct ops_laid laid_fwd, laid_bwd;
        ops_run(&laid_fwd, &env->ref, &fwd);
        connect(g, &laid_fwd, &bwd);
        ops_run(&laid_bwd, &env->ref, &bwd);
        for (int64_t l = 0; l < g->link_count; l++)
            if (g->links[l].kind == LINK_GRADIENT)
                check_link(env, g, &fwd, &laid_bwd, &g->links[l]);
        ops_clear(&laid_fwd);
        ops_clear(&laid_bwd);
    }
    ops_call_clear(&fwd);
    ops_call_clear(&bwd);
    return checked;
}

void ops_check_gradient(struct ops_env *env, const struct ops_gradient *g)
{
    int64_t checked = 0;
    assert_int_equal(g->fwd->case_count, g->bwd->case_count);
    for (int64_t index = 0; index < g->fwd->case_count; index++)
        checked += ops_check_gradient_case(env, g, index);
    assert_true(checked > 0);
    printf("  %s: %lld cases by differences\n", g->bwd->name, (long long)checked);
}

/* ---- backends ---- */

int ops_main(const char *family, const struct CMUnitTest *tests, size_t count)
{
    static const struct backend {
        const char *dev;
        dtype_t dtype;
    } backends[] = { { "cpu", DTYPE_F32 },
                     { "emu", DTYPE_F32 },
                     { "emu", DTYPE_BF16 },
                     { "cuda", DTYPE_F32 },
                     { "cuda", DTYPE_BF16 } };
    int failed = 0;
    for (size_t b = 0; b < COUNT_OF(backends); b++) {
        struct ops_env env = { .name = backends[b].dev, .dtype = backends[b].dtype };
        if (!testing_wants(backends[b].dev)) continue;
        const err_t rc = dev_open(&env.dev, backends[b].dev, 2);
        if (rc != ERR_OK) {
            printf("SKIP: %s in %s: %s\n", backends[b].dev, dtype_name(env.dtype),
                   err_last()->text);
            if (rc != ERR_UNSUPPORTED && rc != ERR_CUDA) failed++;
            continue;
        }
        env.host = strcmp(backends[b].dev, "cpu") == 0;
        dev_init_host(&env.ref, &ops_ref, 1);

        char group[128];
        snprintf(group, sizeof group, "%s: %s in %s", family, backends[b].dev,
                 dtype_name(env.dtype));
        struct CMUnitTest *own = malloc(count * sizeof *own);
        for (size_t i = 0; i < count; i++) {
            own[i] = tests[i];
            own[i].initial_state = &env;
        }
        const int failures = _cmocka_run_group_tests(group, own, count, NULL, NULL);
        free(own);
        failed += failures;
        if (failures == 0) dev_close(env.dev); /* a failed test leaves its memory behind */
    }
    return failed;
}
