/* What works on flat arenas: sumsq_chunks, adamw_segments, cast, add. */
#include "kernels/ops_optim.h"
#include "ops_harness.h"

#include "base/num.h"

#include <math.h>

/* ---- sumsq_chunks ---- */

enum { SEGMENTS_MAX = 4 };

struct sumsq_case {
    const char *title;
    int64_t n, chunks; /* of the arena, of out */
    int64_t count;
    struct sumsq_segment segments[SEGMENTS_MAX];
    bool integers;
    double magnitude;
    dtype_t dtype; /* of x */
};

static const struct sumsq_case sumsq_cases[] = {
    { "small", 20, 3, 2, { { 0, 7, 2 }, { 11, 9, 0 } }, false, 1, DTYPE_F32 },
    { "no segments", 20, 3, 0, { { 0, 0, 0 } }, false, 1, DTYPE_F32 },
    { "empty segment", 20, 3, 2, { { 5, 0, 1 }, { 3, 1, 1 } }, false, 1, DTYPE_F32 },
    { "chunk - 1, chunk, chunk + 1", 3 * SUMSQ_CHUNK, 5, 3,
      { { 0, SUMSQ_CHUNK - 1, 0 }, { SUMSQ_CHUNK - 1, SUMSQ_CHUNK, 3 },
        { 2 * SUMSQ_CHUNK - 1, SUMSQ_CHUNK + 1, 1 } }, false, 1, DTYPE_F32 },
    { "integers", 100000, 8, 1, { { 17, 99983, 1 } }, true, 1, DTYPE_F32 },
    { "bf16", 40000, 4, 2, { { 1, 39000, 1 }, { 39001, 999, 0 } }, false, 1, DTYPE_BF16 },
    { "f64", 20000, 2, 1, { { 3, 19000, 0 } }, false, 1, DTYPE_F64 },
    { "beyond f32", 20000, 2, 1, { { 0, 20000, 0 } }, false, 1e25, DTYPE_F32 },
};

enum { SUMSQ_OUT, SUMSQ_X, SUMSQ_COUNT };

static void describe_sumsq(struct ops_call *call, int64_t index)
{
    const struct sumsq_case *c = &sumsq_cases[index];
    call->title = c->title;
    call->row = c;
    /* Chunks of no segment stay as they are, so the output is one that is also read. */
    struct operand *out =
        ops_operand(call, SUMSQ_OUT, ROLE_INPLACE, "out", DTYPE_F64, c->chunks, 0);
    struct operand *x = ops_operand(call, SUMSQ_X, ROLE_IN, "x", c->dtype, c->n, 0);
    out->freedom = x->freedom = FREE_ROWS;
    ops_fill_constant(out, 77.0);
    if (c->integers) ops_fill_integer(x, 100);
    else ops_fill_normal(x, c->magnitude);
    /* 16384 positive terms in float64: a sum that grows evenly errs by sum*sqrt(n/3)*eps at 1 sigma
     * in the worst order; the sum is n*magnitude^2. */
    const double n = SUMSQ_CHUNK;
    if (!c->integers) out->bound = 4 * 0x1p-53 * sqrt(n) * n * c->magnitude * c->magnitude;
}

static err_t invoke_sumsq(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                          struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    const struct sumsq_case *c = call->row;
    OPS_INVOKE(sumsq_chunks, .out = t[SUMSQ_OUT], .x = t[SUMSQ_X], .segments = c->segments,
               .segment_count = c->count);
}

static const struct ops_op sumsq = { "sumsq_chunks", SUMSQ_COUNT, COUNT_OF(sumsq_cases),
                                     describe_sumsq, invoke_sumsq };

static void test_sumsq(void **state)
{
    ops_check_table(*state, &sumsq);
    struct sumsq_case bad[4];
    for (int i = 0; i < 4; i++) bad[i] = sumsq_cases[0];
    bad[0].segments[1].count = 10;    /* past the end of x */
    bad[1].segments[0].offset = -1;
    bad[2].segments[0].out_index = 3; /* past the end of out */
    bad[3].segments[1].count = -1;
    const struct ops_bad rows[] = { { &bad[0], ERR_ARG }, { &bad[1], ERR_ARG },
                                    { &bad[2], ERR_ARG }, { &bad[3], ERR_ARG } };
    ops_check_refusals(*state, &sumsq, 0, rows, COUNT_OF(rows));
}

/* ---- adamw_segments ---- */

enum adamw_forms { MASTER = 1, F32_GRAD = 2 };

struct adamw_case {
    const char *title;
    int64_t n_weight, n_grad, n_state;
    int64_t count;
    struct adamw_segment segments[SEGMENTS_MAX];
    double lr, beta1, beta2, eps, weight_decay, grad_scale, grad_magnitude;
    int64_t update;
    unsigned bf16; /* enum adamw_forms, of bf16 weights */
};

#define SEGMENT(weight, grad, state, n, decays)                                                 \
    { .weight_offset = weight, .grad_offset = grad, .state_offset = state, .count = n,          \
      .decay = decays }

static const struct adamw_case adamw_cases[] = {
    { "small", 12, 10, 11, 2, { SEGMENT(0, 3, 5, 6, true), SEGMENT(8, 0, 1, 3, false) },
      1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 1, 1, 0 },
    { "no segments", 12, 10, 11, 0, { { 0 } }, 1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 1, 1, 0 },
    { "empty segment", 12, 10, 11, 2, { SEGMENT(12, 10, 11, 0, true), SEGMENT(1, 2, 3, 1, true) },
      1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 1, 7, 0 },
    { "clipped", 4099, 4097, 4100, 1, { SEGMENT(1, 0, 3, 4097, true) },
      5e-5, 0.9, 0.95, 1e-8, 0.1, 0.0123, 80, 1000, 0 },
    { "first update", 1025, 1025, 1025, 1, { SEGMENT(0, 0, 0, 1025, true) },
      1e-3, 0.9, 0.999, 1e-8, 0.01, 1, 1, 1, 0 },
    { "late update", 1025, 1025, 1025, 1, { SEGMENT(0, 0, 0, 1025, false) },
      1e-3, 0.9, 0.999, 1e-8, 0, 1, 1, 100000000, 0 },
    { "rate zero", 65, 65, 65, 1, { SEGMENT(0, 0, 0, 65, true) },
      0, 0.9, 0.95, 1e-8, 0.1, 1, 1, 2, 0 },
    { "no momentum", 65, 65, 65, 1, { SEGMENT(0, 0, 0, 65, true) },
      1e-2, 0, 0, 1e-8, 0.1, 1, 1, 2, 0 },
    { "large gradients", 65, 65, 65, 1, { SEGMENT(0, 0, 0, 65, true) },
      1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 1e3, 3, 0 },
    { "tiny gradients", 65, 65, 65, 1, { SEGMENT(0, 0, 0, 65, true) },
      1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 1e-25, 3, 0 },
    { "master", 70, 70, 70, 2, { SEGMENT(3, 0, 1, 33, true), SEGMENT(40, 33, 36, 30, false) },
      1e-2, 0.9, 0.95, 1e-8, 0.1, 1, 1, 3, MASTER },
    { "master, f32 gradients", 4100, 4100, 4100, 1, { SEGMENT(2, 1, 3, 4097, true) },
      5e-5, 0.9, 0.95, 1e-8, 0.1, 0.3, 1, 9, MASTER | F32_GRAD },
    { "f32 gradients", 1100, 1100, 1100, 1, { SEGMENT(2, 1, 3, 1097, true) },
      1e-2, 0.9, 0.95, 1e-8, 0.1, 0.3, 1, 9, F32_GRAD },
};

enum { ADAMW_W, ADAMW_MASTER, ADAMW_M, ADAMW_V, ADAMW_G, ADAMW_COUNT };

static void describe_adamw(struct ops_call *call, int64_t index)
{
    const struct adamw_case *c = &adamw_cases[index];
    const dtype_t T = call->dtype, sum = dtype_accumulator(T);
    const double g = c->grad_scale * c->grad_magnitude;
    call->title = c->title;
    call->row = c;
    struct operand *w = ops_operand(call, ADAMW_W, ROLE_INPLACE, "weight", T, c->n_weight, 0);
    struct operand *m = ops_operand(call, ADAMW_M, ROLE_INPLACE, "exp_avg", sum, c->n_state, 0);
    struct operand *v =
        ops_operand(call, ADAMW_V, ROLE_INPLACE, "exp_avg_sq", sum, c->n_state, 0);
    struct operand *grad =
        ops_operand(call, ADAMW_G, ROLE_IN, "grad", c->bf16 & F32_GRAD ? sum : T, c->n_grad, 0);
    w->freedom = grad->freedom = FREE_ROWS;
    ops_fill_normal(w, 1.0);
    ops_fill_normal(m, 0.1 * g);
    ops_fill_normal(v, 1.0);
    for (int64_t i = 0; i < c->n_state; i++)
        v->value[i] = (double)(float)(0.1 * g * g * (0.1 + v->value[i] * v->value[i]));
    ops_fill_normal(grad, c->grad_magnitude);

    /* Each is a sum of two products with rounded factors: four roundings of values up to five
     * (v: 25) sigma. The update: ten relative roundings of lr times a ratio whose size follows from
     * v >= 0.01*g^2*beta2, and m below 5*g; with beta2 = 0 it is one. */
    const double ratio = c->beta2 > 0 ? 50 * sqrt(1 - pow(c->beta2, (double)c->update)) : 1;
    const double update = c->lr * ratio / (1 - pow(c->beta1, (double)c->update));
    ops_bound(call, m, 4, 1, 5 * g);
    ops_bound(call, v, 4, 1, 25 * g * g);
    ops_bound(call, w, 1, 1, 2 * 5 + 10 * update);
    if (!(c->bf16 & MASTER) || T != DTYPE_BF16) return;
    struct operand *master =
        ops_operand(call, ADAMW_MASTER, ROLE_INPLACE, "master", DTYPE_F32, c->n_state, 0);
    master->fixed = true;
    ops_fill_normal(master, 1.0);
    master->bound = w->bound;
}

static err_t invoke_adamw(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                          struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    const struct adamw_case *c = call->row;
    OPS_INVOKE(adamw_segments, .weight = t[ADAMW_W], .master = t[ADAMW_MASTER],
               .exp_avg = t[ADAMW_M], .exp_avg_sq = t[ADAMW_V], .grad = t[ADAMW_G],
               .segments = c->segments, .segment_count = c->count, .lr = c->lr,
               .beta1 = c->beta1, .beta2 = c->beta2, .eps = c->eps,
               .weight_decay = c->weight_decay, .grad_scale = c->grad_scale,
               .update = c->update);
}

static const struct ops_op adamw = { "adamw_segments", ADAMW_COUNT, COUNT_OF(adamw_cases),
                                     describe_adamw, invoke_adamw };

/* The cpu backend, which computes in f32 otherwise, updates bf16 weights too. */
static void test_adamw_bf16(void **state)
{
    struct ops_env env = *(const struct ops_env *)*state;
    if (!env.host) return;
    env.dtype = DTYPE_BF16;
    ops_check_table(&env, &adamw);
    ops_check_refusals(&env, &adamw, 10, NULL, 0);
    assert_string_equal(adamw_cases[10].title, "master");
}

static void test_adamw(void **state)
{
    ops_check_table(*state, &adamw);
    enum { BAD = 13 };
    struct adamw_case bad[BAD];
    struct ops_bad rows[BAD];
    for (int i = 0; i < BAD; i++) {
        bad[i] = adamw_cases[0];
        rows[i] = (struct ops_bad){ &bad[i], ERR_ARG };
    }
    bad[0].lr = -1e-3;
    bad[1].lr = NAN;
    bad[2].beta1 = 1.0;
    bad[3].beta1 = -0.1;
    bad[4].beta2 = 1.0;
    bad[5].eps = 0.0;
    bad[6].weight_decay = -0.1;
    bad[7].grad_scale = INFINITY;
    bad[8].update = 0;
    bad[9].segments[0].count = 13;
    bad[10].segments[0].weight_offset = -1;
    bad[11].segments[1].grad_offset = 8;
    bad[12].segments[1].state_offset = 9;
    ops_check_refusals(*state, &adamw, 0, rows, BAD);
}

/* One step by hand: w = 1, g = 2, m = v = 0: m/(1-b1) = g and sqrt(v)/sqrt(1-b2) = |g|, so that the
 * update is lr*sign(g) after the decay. */
static void test_adamw_first_step(void **state)
{
    const struct ops_env *env = *state;
    double w = 1.0, m = 0.0, v = 0.0, g = 2.0;
    struct dev ref = env->ref;
    struct tensor tw = tensor_1d(&w, DTYPE_F64, 1, "w"), tm = tensor_1d(&m, DTYPE_F64, 1, "m");
    struct tensor tv = tensor_1d(&v, DTYPE_F64, 1, "v"), tg = tensor_1d(&g, DTYPE_F64, 1, "g");
    const struct adamw_segment segment = SEGMENT(0, 0, 0, 1, true);
    assert_ok(ops_ref.adamw_segments(
        &ref, &(struct adamw_segments_args){ .weight = &tw, .exp_avg = &tm, .exp_avg_sq = &tv,
                                             .grad = &tg, .segments = &segment,
                                             .segment_count = 1, .lr = 0.1, .beta1 = 0.9,
                                             .beta2 = 0.99, .eps = 1e-12, .weight_decay = 0.5,
                                             .grad_scale = 1, .update = 1 }));
    assert_true(fabs(w - (0.95 - 0.1)) < 1e-12);
    assert_true(fabs(m - 0.2) < 1e-15 && fabs(v - 0.04) < 1e-15);
}

/* ---- cast ---- */

static const dtype_t float_dtypes[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64 };
static const int64_t cast_counts[] = { 129, 0, 1, 3, 1025 };

enum { CAST_Y, CAST_X, CAST_COUNT };

static void describe_cast(struct ops_call *call, int64_t index)
{
    const int64_t pairs = COUNT_OF(float_dtypes) * COUNT_OF(float_dtypes);
    const dtype_t to = float_dtypes[index % pairs % 4], from = float_dtypes[index % pairs / 4];
    const int64_t n = cast_counts[index / pairs];
    call->title = dtype_name(from);
    struct operand *y = ops_operand(call, CAST_Y, ROLE_OUT, "y", to, n, 0);
    struct operand *x = ops_operand(call, CAST_X, ROLE_IN, "x", from, n, 0);
    y->fixed = x->fixed = true; /* bit-equal: the reference rounds too */
    y->freedom = x->freedom = FREE_DIMS;
    ops_fill_normal(x, 1.0);
    /* What sixteen bits must round: subnormals, ties, overflow, and ties broken below f32. */
    const double hard[] = { 0.0, -0.0, 0x1p-24, 0x1.8p-25, 65519.0, 65520.0, -70000.0, 3.4e38,
                            1.0 + 0x1p-8, 1.0 + 0x1.8p-7, 1.0 + 0x1p-8 + 0x1p-40,
                            1.0 - 0x1p-9 - 0x1p-45, 1.0 + 0x1p-11 - 0x1p-50, INFINITY, 0x1p-149 };
    const struct tensor as_x = tensor_1d(x->value, DTYPE_F64, n, "x");
    for (int64_t i = 0; i < COUNT_OF(hard) && 2 * i < n; i++) {
        double stored = 0.0;
        const struct tensor one = tensor_1d(&stored, from, 1, "x");
        ref_put(&one, 0, hard[i]);
        ref_put(&as_x, 2 * i, ref_get(&one, 0));
    }
}

static err_t invoke_cast(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                         struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    (void)call;
    OPS_INVOKE(cast, .y = t[CAST_Y], .x = t[CAST_X]);
}

static const struct ops_op cast = { "cast", CAST_COUNT,
                                    COUNT_OF(float_dtypes) * COUNT_OF(float_dtypes) *
                                        COUNT_OF(cast_counts),
                                    describe_cast, invoke_cast };

static void test_cast(void **state)
{
    ops_check_table(*state, &cast);
    ops_check_refusals(*state, &cast, 0, NULL, 0);
}

/* ---- add ---- */

static const struct add_case {
    const char *title;
    int64_t n;
    bool integers;
    dtype_t dtype;
} add_cases[] = {
    { "small", 5, false, DTYPE_F32 },      { "nothing", 0, false, DTYPE_F32 },
    { "one", 1, false, DTYPE_F32 },        { "odd", 1025, false, DTYPE_F32 },
    { "integers", 4099, true, DTYPE_F32 }, { "f64", 129, false, DTYPE_F64 },
};

enum { ADD_Y, ADD_X, ADD_COUNT };

static void describe_add(struct ops_call *call, int64_t index)
{
    const struct add_case *c = &add_cases[index];
    call->title = c->title;
    struct operand *y = ops_operand(call, ADD_Y, ROLE_ACC, "y_acc", c->dtype, c->n, 0);
    struct operand *x = ops_operand(call, ADD_X, ROLE_IN, "x", c->dtype, c->n, 0);
    y->freedom = x->freedom = FREE_DIMS;
    if (c->integers) {
        ops_fill_integer(y, 1000);
        ops_fill_integer(x, 1000);
    } else {
        ops_fill_normal(y, 1.0);
        ops_fill_normal(x, 1.0);
    }
    /* The bound stays 0: one addition, rounded once. */
}

static err_t invoke_add(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    (void)call;
    OPS_INVOKE(add, .y_acc = t[ADD_Y], .x = t[ADD_X]);
}

static const struct ops_op add = { "add", ADD_COUNT, COUNT_OF(add_cases), describe_add,
                                   invoke_add };

static void test_add(void **state)
{
    ops_check_table(*state, &add);
    ops_check_refusals(*state, &add, 0, NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sumsq), cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_adamw_bf16),
        cmocka_unit_test(test_adamw_first_step), cmocka_unit_test(test_cast),
        cmocka_unit_test(test_add),
    };
    return ops_main("optim", tests, COUNT_OF(tests));
}
