/* rotary, attn_fwd, attn_bwd. */
#include "ops_cases.h"
#include "ops_harness.h"

#include "base/num.h"
#include "base/rng.h"
#include "kernels/cuda/gpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * k of the bounds k * eps * sqrt(n) * scale.
 *   rotary  three roundings of products as large as six sigma
 *   lse     a score sums D products of rms m^2/sqrt(D) after scaling: eps*sqrt(D)*m^2/sqrt(6) rms
 *           (ten sigma: k = 4), and is itself rounded: five sigma of m^2
 *   out     probabilities carry twice that relatively and sum to one; times v, and a sum over keys
 *   dqkv    the same, with dout.v (rms sqrt(D), times 1/sqrt(D)) and k or q; dk and dv add up the
 *           H/G heads of a group
 * A shift of all scores adds to what is rounded; the column of q and k that makes it adds to their
 * size, PEAK.
 *
 * k of the bounds k * u * scale of 16-bit T, u its roundoff: a backend may round p and ds to T
 * before they are multiplied. Each is off by u at most and u/sqrt(3) rms, without conspiring.
 *   out     the sum of p*u*|v| is below u*|v|; four, since where few keys share the weight |v|
 *           stays below four sigma. Nothing where all scores are 0, since then p = 1.
 *   dqkv    dv sums p*u/sqrt(3)*dout over queries: sqrt(sum p^2) is 1.3 for the first key of a
 *           causal segment with even weights and seldom above 3 with others; five sigma of that
 *           are 8.7. dk, dq: ds*scale is p times a number of rms 1.2 (dout.(v-out)/sqrt(D)), then
 *           times q or k; the sum of squares of p is at most 1 for dq, as above for dk
 */
static const struct {
    double rotary, lse, out, dqkv;
} k = { 3, 4, 8, 16 };
static const struct {
    double out, dqkv;
} k_stored = { 4, 9 };

#define PEAK 32.0 /* exact in every dtype, as is -shift*sqrt(D)/PEAK of 64 columns */

static struct qkv_layout layout_of(const struct heads *h)
{
    return h->interleaved ? qkv_layout_interleaved(h->heads, h->head_dim)
                          : qkv_layout_grouped(h->heads, h->kv_heads, h->head_dim);
}

static int64_t width_of(const struct heads *h)
{
    return (h->heads + 2 * h->kv_heads) * h->head_dim + h->spare;
}

/* ---- rotary ---- */

enum { QKV, POS, BLOCK, COS, SIN, ROTARY_COUNT };

static void fill_positions(struct ops_call *call, int slot, const char *name,
                           const struct rotary_case *c, uint64_t seed)
{
    int32_t *pos = malloc((size_t)(c->R + 1) * sizeof *pos);
    for (int64_t r = 0; r < c->R; r++)
        pos[r] = r < 2 ? (int32_t)(r * (c->P - 1))
                       : (int32_t)(rng_u64(seed, RNG_TEST, (uint64_t)r) % (uint64_t)c->P);
    ops_fill_i32(ops_operand(call, slot, ROLE_IN, name, DTYPE_I32, c->R, 0), pos);
    free(pos);
}

static void describe_rotary(struct ops_call *call, int64_t index)
{
    const struct rotary_case *c = &rotary_cases[index];
    const dtype_t T = call->dtype, sum = dtype_accumulator(T);
    const int64_t quarter = c->heads.head_dim / 4;
    call->title = c->title;
    call->row = c;
    struct operand *qkv =
        ops_operand(call, QKV, ROLE_INPLACE, "qkv", T, c->R, width_of(&c->heads));
    qkv->freedom = FREE_COLS; /* columns beyond the layout are allowed */
    ops_fill_normal(qkv, 1.0);
    ops_bound(call, qkv, k.rotary, 1, 6);
    fill_positions(call, POS, "pos", c, 5);
    if (c->kind == ROTARY_TWO_STREAM) fill_positions(call, BLOCK, "block", c, 6);
    struct operand *cosine = ops_operand(call, COS, ROLE_IN, "cos", sum, c->P, quarter);
    struct operand *sine = ops_operand(call, SIN, ROLE_IN, "sin", sum, c->P, quarter);
    ops_fill_constant(cosine, 0.0);
    ops_fill_constant(sine, 0.0);
    for (int64_t i = 0; i < c->P * quarter; i++) {
        const double angle =
            (double)(i / quarter) * pow(10000.0, -(double)(i % quarter) / (double)quarter);
        cosine->value[i] = (double)(float)cos(angle);
        sine->value[i] = (double)(float)sin(angle);
    }
}

static err_t invoke_as(struct dev *dev, const struct rotary_case *c, struct tensor *const t[],
                       int64_t *bytes, bool inverse)
{
    OPS_INVOKE(rotary, .kind = c->kind, .qkv = t[QKV], .layout = layout_of(&c->heads),
               .pos = t[POS], .block = t[BLOCK], .cos = t[COS], .sin = t[SIN],
               .inverse = inverse);
}

static err_t invoke_rotary(struct dev *dev, const struct ops_call *call,
                           struct tensor *const t[], struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    const struct rotary_case *c = call->row;
    return invoke_as(dev, c, t, bytes, c->inverse);
}

static err_t invoke_back(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                         struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    const struct rotary_case *c = call->row;
    return invoke_as(dev, c, t, bytes, !c->inverse);
}

static const struct ops_op rotary = { "rotary", ROTARY_COUNT, COUNT_OF(rotary_cases),
                                      describe_rotary, invoke_rotary };

/* The backward pass: on a cotangent of another name, so that it has other values. */
static void describe_back(struct ops_call *call, int64_t index)
{
    describe_rotary(call, index);
    call->o[QKV].name = "dqkv";
    ops_fill_normal(&call->o[QKV], 1.0);
}

static const struct ops_op rotary_back = { "rotary", ROTARY_COUNT, COUNT_OF(rotary_cases),
                                           describe_back, invoke_back };

static double rotary_loss(const struct ops_laid *laid, const struct ops_call *back)
{
    return ops_inner(laid, QKV, &back->o[QKV]);
}

static void test_rotary(void **state)
{
    ops_check_table(*state, &rotary);
    ops_check_rows(*state, &rotary, 4, QKV, QKV);
    const struct ops_gradient g = {
        &rotary, &rotary_back, 1, { { LINK_GRADIENT, QKV, QKV } }, rotary_loss
    };
    ops_check_gradient(*state, &g);
}

static void test_rotary_refusals(void **state)
{
    struct rotary_case width = rotary_cases[0], kind = width, streams = width;
    width.heads.head_dim = 6; /* no multiple of 4 */
    kind.kind = (enum rotary_kind)7;
    streams.kind = ROTARY_HALF_INTERLEAVED; /* with `block` given */
    const struct ops_bad rows[] = { { &width, ERR_SHAPE }, { &kind, ERR_ARG },
                                    { &streams, ERR_ARG } };
    ops_check_refusals(*state, &rotary, 0, rows, COUNT_OF(rows));
    ops_check_refusals(*state, &rotary, 1, NULL, 0);
}

/* ---- attention ---- */

enum { OUT, LSE, QKV_IN, SEGMENTS, FWD_COUNT };
enum { DQKV, DOUT, OUT_IN, LSE_IN, QKV_AGAIN, SEGMENTS_IN, BWD_COUNT };

static double scale_of(const struct attn_case *c) { return 1.0 / sqrt((double)c->heads.head_dim); }

static int64_t longest(const struct attn_case *c)
{
    int64_t n = c->heads.head_dim;
    for (int64_t s = 0; s < c->S; s++) n = max_i64(n, c->segments[s].len);
    return n;
}

static void fill_segments(struct ops_call *call, int slot, const struct attn_case *c)
{
    struct operand *o = ops_operand(call, slot, ROLE_IN, "segments", DTYPE_I32, c->S, 3);
    o->freedom = FREE_ROWS;
    ops_fill_i32(o, (const int32_t *)c->segments);
}

/* Column 0 of a head of q or k, so that their product shifts all scores. */
static double shift_q(const struct attn_case *c, dtype_t dtype)
{
    return ref_rounded(dtype, c->shift / scale_of(c) / PEAK);
}

/* Heads `first + i*stride` of a row times the case's magnitude, with the shift's column. */
static void sharpen(double *row, const struct attn_case *c, int64_t first, int64_t stride,
                    int64_t heads, double column)
{
    for (int64_t h = 0; h < heads; h++) {
        double *head = row + first + h * stride;
        for (int64_t i = 0; i < c->heads.head_dim; i++) head[i] *= c->magnitude;
        if (c->shift != 0) head[0] = column;
    }
}

/* Normal values; q and k times the case's magnitude. */
static void fill_qkv(struct ops_call *call, int slot, const struct attn_case *c)
{
    const struct qkv_layout l = layout_of(&c->heads);
    const int64_t W = width_of(&c->heads);
    struct operand *o = ops_operand(call, slot, ROLE_IN, "qkv", call->dtype, c->R, W);
    o->freedom = FREE_COLS;
    ops_fill_normal(o, 1.0);
    for (int64_t r = 0; r < c->R; r++) {
        sharpen(o->value + r * W, c, l.q_offset, l.q_stride, l.heads, shift_q(c, call->dtype));
        sharpen(o->value + r * W, c, l.k_offset, l.k_stride, l.kv_heads, PEAK);
    }
    for (int64_t i = 0; i < operand_count(o); i++)
        o->value[i] = ref_rounded(call->dtype, o->value[i]);
}

static void describe_fwd_of(struct ops_call *call, const struct attn_case *c)
{
    const dtype_t T = call->dtype, sum = dtype_accumulator(T);
    call->title = c->title;
    call->row = c;
    call->rough = c->magnitude > 1 || c->shift != 0;
    struct operand *out =
        ops_operand(call, OUT, ROLE_OUT, "out", T, c->R, c->heads.heads * c->heads.head_dim);
    struct operand *lse = ops_operand(call, LSE, ROLE_OUT, "lse", sum, c->R, c->heads.heads);
    fill_qkv(call, QKV_IN, c);
    fill_segments(call, SEGMENTS, c);
    const double m2 = c->magnitude * c->magnitude + fabs(c->shift);
    ops_bound(call, lse, k.lse, c->heads.head_dim, m2 + log((double)longest(c)));
    ops_bound(call, out, k.out, longest(c), 1 + m2);
    ops_bound_stored(call, out, k_stored.out, c->magnitude > 0 ? 1 : 0);
}

static void describe_fwd(struct ops_call *call, int64_t index)
{
    describe_fwd_of(call, &attn_cases[index]);
}

static err_t invoke_fwd(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    const struct attn_case *c = call->row;
    OPS_INVOKE(attn_fwd, .out = t[OUT], .lse = t[LSE], .qkv = t[QKV_IN],
               .layout = layout_of(&c->heads), .segments = t[SEGMENTS],
               .segments_host = c->segments, .scale = scale_of(c), .scratch = scratch);
}

static const struct ops_op fwd = { "attn_fwd", FWD_COUNT, COUNT_OF(attn_cases), describe_fwd,
                                   invoke_fwd };

static void describe_bwd(struct ops_call *call, int64_t index)
{
    const struct attn_case *c = &attn_cases[index];
    const dtype_t T = call->dtype, sum = dtype_accumulator(T);
    const int64_t HD = c->heads.heads * c->heads.head_dim;
    call->title = c->title;
    call->row = c;
    struct operand *dqkv =
        ops_operand(call, DQKV, ROLE_OUT, "dqkv", T, c->R, width_of(&c->heads));
    ops_fill_normal(ops_operand(call, DOUT, ROLE_IN, "dout", T, c->R, HD), 1.0);
    fill_qkv(call, QKV_AGAIN, c);
    call->o[QKV_AGAIN].freedom = 0; /* tied to dqkv */
    fill_segments(call, SEGMENTS_IN, c);
    struct operand *out = ops_operand(call, OUT_IN, ROLE_IN, "out", T, c->R, HD);
    struct operand *lse = ops_operand(call, LSE_IN, ROLE_IN, "lse", sum, c->R, c->heads.heads);
    ops_fill_constant(out, 0.0);
    ops_fill_constant(lse, 0.0);

    /* What the forward pass leaves, from the reference, rounded. */
    struct ops_call forward = ops_describe(&fwd, call->dtype, index);
    struct ops_laid laid;
    struct dev ref;
    dev_init_host(&ref, &ops_ref, 1);
    ops_run(&laid, &ref, &forward);
    for (int64_t i = 0; i < operand_count(out); i++)
        out->value[i] = ref_rounded(T, ops_result(&laid, OUT, i));
    for (int64_t i = 0; i < operand_count(lse); i++)
        lse->value[i] = ref_rounded(sum, ops_result(&laid, LSE, i));
    ops_clear(&laid);
    ops_call_clear(&forward);

    const double m = c->magnitude, group = (double)(c->heads.heads / c->heads.kv_heads);
    const double peak = c->shift == 0 ? 0 : fmax(PEAK, fabs(shift_q(c, T)));
    ops_bound(call, dqkv, k.dqkv, longest(c),
              (1 + m + peak) * (1 + m * m + fabs(c->shift)) * sqrt(group));
    ops_bound_stored(call, dqkv, k_stored.dqkv, (1 + m + peak) * sqrt(group));
}

static err_t invoke_bwd(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                        struct scratch scratch, int64_t *bytes)
{
    const struct attn_case *c = call->row;
    OPS_INVOKE(attn_bwd, .dqkv = t[DQKV], .dout = t[DOUT], .out = t[OUT_IN], .lse = t[LSE_IN],
               .qkv = t[QKV_AGAIN], .layout = layout_of(&c->heads), .segments = t[SEGMENTS_IN],
               .segments_host = c->segments, .scale = scale_of(c), .scratch = scratch);
}

static const struct ops_op bwd = { "attn_bwd", BWD_COUNT, COUNT_OF(attn_cases), describe_bwd,
                                   invoke_bwd };

static void test_fwd(void **state) { ops_check_table(*state, &fwd); }

static void test_bwd(void **state) { ops_check_table(*state, &bwd); }

static double loss(const struct ops_laid *laid, const struct ops_call *back)
{
    return ops_inner(laid, OUT, &back->o[DOUT]);
}

static void test_gradient(void **state)
{
    const struct ops_gradient g = {
        &fwd, &bwd, 3,
        { { LINK_OUTPUT, OUT_IN, OUT }, { LINK_OUTPUT, LSE_IN, LSE },
          { LINK_GRADIENT, DQKV, QKV_IN } },
        loss
    };
    ops_check_gradient(*state, &g);
}

/* Rows first .. first+count-1 of `slot` in `a` have the bits of those from row `at` in `b`. */
static void expect_rows(const struct ops_laid *a, const struct ops_laid *b, int slot,
                        int64_t first, int64_t at, int64_t count)
{
    for (int64_t r = 0; r < count; r++) {
        size_t bytes = 0;
        const void *row = ops_result_row(a, slot, first + r, &bytes);
        if (memcmp(row, ops_result_row(b, slot, at + r, &bytes), bytes) != 0)
            fail_msg("%s/%s: %s, row %lld of a segment alone differs from the same in company",
                     a->call->op->name, a->call->title, a->call->o[slot].name, (long long)r);
    }
}

/* `whole` with segment s alone, moved to row 0: rows outside are gone. */
static void cut(struct ops_call *alone, struct attn_case *c, const struct ops_call *whole,
                const struct attn_segment *segment)
{
    *c = *(const struct attn_case *)whole->row;
    c->R = segment->len;
    c->S = 1;
    c->segments[0] = (struct attn_segment){ 0, segment->ctx, segment->len };
    *alone = *whole;
    alone->row = c;
    for (int s = 0; s < whole->op->operand_count; s++) {
        struct operand *o = &alone->o[s];
        const bool table = o->dtype == DTYPE_I32;
        const double *from = o->value;
        o->dim[0] = table ? 1 : segment->len;
        o->value = NULL;
        if (from == NULL) continue;
        ops_fill_constant(o, 0.0);
        if (table) ops_fill_i32(o, (const int32_t *)c->segments);
        else memcpy(o->value, from + segment->start * o->dim[1],
                    (size_t)operand_count(o) * sizeof *from);
    }
}

/* A segment's results are the same to the bit wherever it lies and whatever lies beside it. */
static void check_segments(struct ops_env *env, const struct ops_op *op, int64_t index)
{
    struct ops_call whole = ops_describe(op, env->dtype, index);
    const struct attn_case *c = whole.row;
    struct ops_laid packed, single;
    ops_run(&packed, env->dev, &whole);
    for (int64_t s = 0; s < c->S; s++) {
        struct attn_case own;
        struct ops_call alone;
        cut(&alone, &own, &whole, &c->segments[s]);
        ops_run(&single, env->dev, &alone);
        for (int slot = 0; slot < op->operand_count; slot++)
            if (alone.o[slot].role == ROLE_OUT)
                expect_rows(&single, &packed, slot, 0, c->segments[s].start, c->segments[s].len);
        ops_clear(&single);
        ops_call_clear(&alone);
    }
    ops_clear(&packed);
    ops_call_clear(&whole);
}

/* The plain build compares bits; sanitizers look at memory, and have seen every case above. */
#if defined(__SANITIZE_ADDRESS__)
#define COMPANY_ROWS_MAX 140
#else
#define COMPANY_ROWS_MAX 460
#endif

static void test_segments(void **state)
{
    for (int64_t index = 0; index < fwd.case_count; index++) {
        if (attn_cases[index].R > COMPANY_ROWS_MAX) continue;
        check_segments(*state, &fwd, index);
        check_segments(*state, &bwd, index);
    }
}

/* Padding rows are zero, and what lies in them does not matter: not even NaN. */
static void test_padding(void **state)
{
    struct ops_env *env = *state;
    const struct ops_op *const both[] = { &fwd, &bwd };
    for (int i = 0; i < 2; i++) {
        struct ops_call call = ops_describe(both[i], env->dtype, 6);
        const struct attn_case *c = call.row;
        struct operand *qkv = &call.o[i == 0 ? QKV_IN : QKV_AGAIN];
        struct ops_laid clean, dirty;
        ops_run(&clean, env->dev, &call);
        bool inside[32] = { false };
        for (int64_t s = 0; s < c->S; s++)
            for (int64_t r = 0; r < c->segments[s].len; r++)
                inside[c->segments[s].start + r] = true;
        for (int64_t e = 0; e < operand_count(qkv); e++)
            if (!inside[e / qkv->dim[1]]) qkv->value[e] = NAN;
        ops_run(&dirty, env->dev, &call);
        for (int slot = 0; slot < both[i]->operand_count; slot++) {
            const struct operand *o = &call.o[slot];
            if (o->role != ROLE_OUT) continue;
            assert_memory_equal(clean.after[slot], dirty.after[slot],
                                (size_t)clean.block_bytes[slot]);
            for (int64_t e = 0; e < operand_count(o); e++)
                if (!inside[e / o->dim[1]]) assert_true(ops_result(&dirty, slot, e) == 0.0);
        }
        ops_clear(&clean);
        ops_clear(&dirty);
        ops_call_clear(&call);
    }
}

/* ---- the ways of a GPU ---- */

/* The device once more, with attention in one way alone; NULL: it was refused. */
static struct dev *open_forced(const struct ops_env *env, const char *way, err_t expected)
{
    const char *before = getenv("SOULCHAT_ATTENTION");
    char *kept = before == NULL ? NULL : strdup(before);
    struct dev *dev = NULL;
    setenv("SOULCHAT_ATTENTION", way, 1);
    const err_t rc = dev_open(&dev, env->name, 2);
    if (kept == NULL) unsetenv("SOULCHAT_ATTENTION");
    else setenv("SOULCHAT_ATTENTION", kept, 1);
    free(kept);
    assert_int_equal(rc, expected);
    return rc == ERR_OK ? dev : NULL;
}

static bool mma_takes(const struct attn_case *c, dtype_t dtype)
{
    const struct heads *h = &c->heads;
    return dtype == DTYPE_BF16 && (h->head_dim == 64 || h->head_dim == 128) &&
           h->heads == h->kv_heads && h->spare % 8 == 0;
}

static void check_refused(struct ops_env *env, const struct ops_op *op, int64_t index)
{
    struct ops_call call = ops_describe(op, env->dtype, index);
    struct ops_laid laid;
    ops_lay(&laid, env->dev, &call);
    testing_assert_code(ops_invoke(&laid), ERR_UNSUPPORTED, "SOULCHAT_ATTENTION=mma", op->name,
                        __FILE__, __LINE__);
    ops_clear(&laid);
    ops_call_clear(&call);
}

/* Where a backend may choose: each of its own ways alone. */
static void test_ways(void **state)
{
    struct ops_env *env = *state;
    static const char *const ways[] = { "plain", "mma" };
    if (env->host) return;
    (void)open_forced(env, "fast", ERR_USAGE);
    for (int way = 0; way < 2; way++) {
        struct ops_env forced = *env;
        forced.dev = open_forced(env, ways[way], ERR_OK);
        /* Without a library mma is the first choice, and the tables above have seen it. */
        const bool is_new = way == 0 || strcmp(env->name, "emu") != 0;
        for (int64_t index = 0; is_new && index < fwd.case_count; index++)
            if (mma_takes(&attn_cases[index], env->dtype) && attn_cases[index].R <= 460) {
                ops_check_case(&forced, &fwd, index);
                ops_check_case(&forced, &bwd, index);
            }
        if (way == 1) {
            check_refused(&forced, &fwd, 0);
            check_refused(&forced, &bwd, 0);
        }
        dev_close(forced.dev);
    }
}

static void check_width(struct ops_env *env, int64_t head_dim, err_t expected)
{
    struct attn_case wide = attn_cases[0];
    struct ops_call call = { .op = &fwd, .dtype = env->dtype };
    struct ops_laid laid;
    wide.heads.head_dim = head_dim;
    describe_fwd_of(&call, &wide);
    ops_lay(&laid, env->dev, &call);
    const err_t rc = ops_invoke(&laid);
    if (expected == ERR_OK) assert_ok(rc);
    else testing_assert_code(rc, expected, "head_dim", "attn_fwd", __FILE__, __LINE__);
    ops_clear(&laid);
    ops_call_clear(&call);
}

/* Widths that no way takes, on any card or on one with little shared memory. */
static void test_widths(void **state)
{
    struct ops_env *env = *state;
    if (env->host) return;
    struct gpu *const gpu = gpu_of(env->dev);
    const int64_t shared_bytes_max = gpu->shared_bytes_max;
    check_width(env, 6, ERR_UNSUPPORTED);
    check_width(env, 260, ERR_UNSUPPORTED);
    gpu->shared_bytes_max = 99 << 10;
    check_width(env, 256, ERR_UNSUPPORTED);
    check_width(env, 248, ERR_OK);
    gpu->shared_bytes_max = shared_bytes_max;
    check_width(env, 256, shared_bytes_max < 102 << 10 ? ERR_UNSUPPORTED : ERR_OK);
}

static void test_refusals(void **state)
{
    enum { BAD = 7 };
    struct attn_case bad[BAD];
    struct ops_bad rows[BAD];
    for (int i = 0; i < BAD; i++) {
        bad[i] = attn_cases[0];
        rows[i] = (struct ops_bad){ &bad[i], ERR_ARG };
    }
    bad[0].segments[0].ctx = 5;  /* above len */
    bad[1].segments[0].ctx = -1;
    bad[2].segments[0].len = 0;
    bad[3].segments[0].len = 5;  /* overlaps the next */
    bad[4].segments[1].len = 4;  /* past the last row */
    bad[5].segments[0].start = -1;
    bad[6].segments[0].start = 5; /* out of order */
    ops_check_refusals(*state, &fwd, 0, rows, BAD);
    ops_check_refusals(*state, &bwd, 0, rows, BAD);

    struct attn_case wide = attn_cases[1], uneven = wide;
    wide.heads.heads = 8;   /* beyond the row */
    uneven.heads.heads = 3; /* no multiple of kv_heads */
    const struct ops_bad layouts[] = { { &wide, ERR_SHAPE }, { &uneven, ERR_SHAPE } };
    ops_check_refusals(*state, &fwd, 1, layouts, COUNT_OF(layouts));
    ops_check_refusals(*state, &bwd, 1, layouts, COUNT_OF(layouts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rotary),   cmocka_unit_test(test_rotary_refusals),
        cmocka_unit_test(test_fwd),      cmocka_unit_test(test_bwd),
        cmocka_unit_test(test_gradient), cmocka_unit_test(test_segments),
        cmocka_unit_test(test_padding),  cmocka_unit_test(test_ways),
        cmocka_unit_test(test_widths),   cmocka_unit_test(test_refusals),
    };
    return ops_main("attention", tests, COUNT_OF(tests));
}
