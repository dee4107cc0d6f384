/* AdamW with 8-bit moments and with stochastic rounding: codes, equality with the reference, random
 * bits, independence of how tensors are cut. */
#include "kernels/adamw.h"
#include "kernels/ops_optim.h"
#include "ops_harness.h"

#include "base/num.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5 * ADAMW_BLOCK + 100, BLOCKS = 6 };

/* ---- one call, its arenas on a device ---- */

enum arena { WEIGHT, MASTER, GRAD, AVG, AVG_SQ, CODES, SQ_CODES, ABSMAX, SQ_ABSMAX, ARENAS };

struct rig {
    struct dev *dev;
    struct tensor t[ARENAS];
    struct adamw_segment segment[8];
    struct adamw_segments_args args;
};

static struct tensor make(struct dev *dev, dtype_t dtype, int64_t count)
{
    void *data;
    assert_ok(dev_alloc(dev, &data, count * dtype_bytes(dtype), "arena"));
    return tensor_1d(data, dtype, count, "arena");
}

/* One segment over all N elements; every arena is zero. */
static void rig_open(struct rig *r, struct dev *dev, dtype_t T, dtype_t grad,
                     enum adamw_state state, bool master)
{
    const dtype_t A = dtype_accumulator(T);
    const bool full = state == ADAMW_STATE_FULL;
    memset(r, 0, sizeof *r);
    r->dev = dev;
    r->t[WEIGHT] = make(dev, T, N);
    r->t[GRAD] = make(dev, grad, N);
    if (master) r->t[MASTER] = make(dev, DTYPE_F32, N);
    for (int a = AVG; a <= AVG_SQ && full; a++) r->t[a] = make(dev, A, N);
    for (int a = CODES; a <= SQ_CODES && !full; a++) r->t[a] = make(dev, DTYPE_U8, N);
    for (int a = ABSMAX; a <= SQ_ABSMAX && !full; a++) r->t[a] = make(dev, DTYPE_F32, BLOCKS);
    r->segment[0] = (struct adamw_segment){ .count = N, .decay = true, .state = state };
    r->args = (struct adamw_segments_args){
        .weight = &r->t[WEIGHT],
        .master = master ? &r->t[MASTER] : NULL,
        .exp_avg = full ? &r->t[AVG] : NULL,
        .exp_avg_sq = full ? &r->t[AVG_SQ] : NULL,
        .exp_avg_codes = full ? NULL : &r->t[CODES],
        .exp_avg_sq_codes = full ? NULL : &r->t[SQ_CODES],
        .exp_avg_absmax = full ? NULL : &r->t[ABSMAX],
        .exp_avg_sq_absmax = full ? NULL : &r->t[SQ_ABSMAX],
        .grad = &r->t[GRAD],
        .segments = r->segment,
        .segment_count = 1,
        .lr = 1e-2,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .eps = 1e-8,
        .weight_decay = 0.1,
        .grad_scale = 0.5,
        .update = 3,
    };
}

static void rig_close(struct rig *r)
{
    for (int a = 0; a < ARENAS; a++) dev_free(r->dev, r->t[a].data);
}

static void put(struct rig *r, enum arena which, const double *values)
{
    const struct tensor *t = &r->t[which];
    const int64_t count = tensor_count(t), bytes = count * dtype_bytes(t->dtype);
    void *host = calloc(1, (size_t)bytes);
    const struct tensor view = tensor_1d(host, t->dtype, count, "host");
    for (int64_t i = 0; i < count; i++) {
        if (t->dtype == DTYPE_U8)
            ((uint8_t *)host)[i] = (uint8_t)values[i];
        else
            ref_put(&view, i, values[i]);
    }
    assert_ok(dev_upload(r->dev, t->data, host, bytes));
    free(host);
}

static void get(double *values, struct rig *r, enum arena which)
{
    const struct tensor *t = &r->t[which];
    const int64_t count = tensor_count(t), bytes = count * dtype_bytes(t->dtype);
    void *host = malloc((size_t)bytes);
    const struct tensor view = tensor_1d(host, t->dtype, count, "host");
    assert_ok(dev_download(r->dev, host, t->data, bytes));
    for (int64_t i = 0; i < count; i++)
        values[i] = t->dtype == DTYPE_U8 ? (double)((uint8_t *)host)[i] : ref_get(&view, i);
    free(host);
}

static double normal(uint64_t key, int64_t i)
{
    return rng_normal(3, RNG_TEST | key << 8, (uint64_t)i);
}

/* The same numbers, as far as the dtypes hold them, in every rig. Magnitudes of gradients differ
 * from block to block, and by 2^16 inside one. */
static void fill(struct rig *r)
{
    double value[N];
    for (int64_t i = 0; i < N; i++) value[i] = normal(WEIGHT, i);
    put(r, WEIGHT, value);
    if (r->t[MASTER].data != NULL) {
        get(value, r, WEIGHT);
        put(r, MASTER, value);
    }
    for (int64_t i = 0; i < N; i++)
        value[i] = ldexp(normal(GRAD, i), (int)(i % 17) - 4 * (int)(i / ADAMW_BLOCK));
    put(r, GRAD, value);
    for (int a = CODES; a <= SQ_CODES; a++) {
        if (r->t[a].data == NULL) continue;
        for (int64_t i = 0; i < N; i++)
            value[i] = (double)(rng_u64(3, RNG_TEST | (uint64_t)a << 8, (uint64_t)i) % 256);
        put(r, (enum arena)a, value);
        for (int64_t b = 0; b < BLOCKS; b++)
            value[b] = ldexp(1.0 + 0.1 * (double)b, 10 - 8 * (int)b);
        put(r, (enum arena)(a + ABSMAX - CODES), value);
    }
    for (int a = AVG; a <= AVG_SQ; a++) {
        if (r->t[a].data == NULL) continue;
        for (int64_t i = 0; i < N; i++)
            value[i] = a == AVG ? 0.1 * normal(AVG, i) : 0.1 + pow(normal(AVG_SQ, i), 2);
        put(r, (enum arena)a, value);
    }
}

static void expect_same(struct rig *a, struct rig *b, const char *what)
{
    for (int which = 0; which < ARENAS; which++) {
        double x[N], y[N];
        if (a->t[which].data == NULL || b->t[which].data == NULL) continue;
        get(x, a, (enum arena)which);
        get(y, b, (enum arena)which);
        for (int64_t i = 0; i < tensor_count(&a->t[which]); i++)
            if (x[i] != y[i])
                fail_msg("%s: arena %d, element %lld: %.9g and %.9g", what, which, (long long)i,
                         x[i], y[i]);
    }
}

/* T of this environment; the cpu backend, which computes in f32 otherwise, updates bf16 too. */
static void for_dtypes(struct ops_env *env, void (*test)(struct ops_env *env, dtype_t T))
{
    test(env, env->dtype);
    if (env->host) test(env, DTYPE_BF16);
}

/* ---- the codes ---- */

/* The definition, in long double: |code| as an increasing sequence. */
static int64_t define_codes(long double out[256], int64_t cells_of_first)
{
    int64_t count = 0;
    for (int d = 0; d < 7; d++) {
        const int64_t cells = cells_of_first << d;
        for (int64_t i = 0; i < cells; i++)
            out[count++] = powl(10.0L, d - 6) * (0.1L + 0.9L * ((long double)i + 0.5L) / cells);
    }
    out[count++] = 1.0L;
    return count;
}

static void expect_code(float code, long double defined)
{
    if (!(fabsl((long double)code - defined) <= fabsl(defined) * 0x1.00001p-24L))
        fail_msg("code %.9g; defined as %.9Lg", code, defined);
}

static void test_codes(void **state)
{
    (void)state;
    long double defined[256];
    assert_int_equal(define_codes(defined, 2), 255);
    assert_true(adamw_code_unsigned[0] == 0.0f && adamw_code_unsigned[255] == 1.0f);
    for (int i = 0; i < 255; i++) expect_code(adamw_code_unsigned[i + 1], defined[i]);

    assert_int_equal(define_codes(defined, 1), 128);
    assert_true(adamw_code_signed[127] == 0.0f && adamw_code_signed[255] == 1.0f);
    for (int i = 0; i < 128; i++) expect_code(adamw_code_signed[128 + i], defined[i]);
    for (int i = 0; i < 127; i++)
        assert_true(adamw_code_signed[126 - i] == -adamw_code_signed[128 + i]);
    for (int i = 1; i < 256; i++) {
        assert_true(adamw_code_signed[i] > adamw_code_signed[i - 1]);
        assert_true(adamw_code_unsigned[i] > adamw_code_unsigned[i - 1]);
    }
}

/* By looking at all codes; both distances are exact in long double. */
static int nearest_of_all(const float codes[256], float x)
{
    int best = 0;
    for (int i = 1; i < 256; i++)
        if (fabsl((long double)codes[i] - x) < fabsl((long double)codes[best] - x)) best = i;
    return best;
}

static void check_nearest(const float codes[256], const float bounds[255])
{
    for (int i = 0; i < 256; i++) assert_int_equal(adamw_code_nearest(bounds, codes[i]), i);
    for (int i = 0; i < 255; i++) {
        const float middle = (float)(((double)codes[i] + (double)codes[i + 1]) / 2);
        float x = nextafterf(nextafterf(middle, -2.0f), -2.0f);
        for (int k = 0; k < 5; k++, x = nextafterf(x, 2.0f))
            assert_int_equal(adamw_code_nearest(bounds, x), nearest_of_all(codes, x));
    }
    for (int64_t i = 0; i < 20000; i++) {
        const float x = (float)(2.0 * rng_uniform(5, RNG_TEST, (uint64_t)i) - 1.0);
        assert_int_equal(adamw_code_nearest(bounds, x), nearest_of_all(codes, x));
    }
    assert_int_equal(adamw_code_nearest(bounds, 7.0f), 255);
    assert_int_equal(adamw_code_nearest(bounds, -7.0f), 0);
    assert_int_equal(adamw_code_nearest(bounds, NAN), 0);
}

static void test_nearest(void **state)
{
    (void)state;
    struct adamw_bounds bounds;
    adamw_bounds_fill(&bounds);
    check_nearest(adamw_code_signed, bounds.signed_codes);
    check_nearest(adamw_code_unsigned, bounds.unsigned_codes);
}

/* ---- 8-bit moments against the reference ---- */

struct outcome {
    double weight[N], codes[2][N], absmax[2][BLOCKS];
    double scale[N]; /* what roundings of a weight's update are parts of */
};

static void take(struct outcome *out, struct rig *r)
{
    get(out->weight, r, WEIGHT);
    for (int k = 0; k < 2; k++) {
        get(out->codes[k], r, (enum arena)(CODES + k));
        get(out->absmax[k], r, (enum arena)(ABSMAX + k));
    }
}

/* Of each weight: itself, and its update as if both terms of the new moment had one sign. */
static void measure_scale(double scale[N], struct rig *r)
{
    const struct adamw_segments_args *a = &r->args;
    const double t = (double)a->update, step = a->lr / (1 - pow(a->beta1, t));
    static struct outcome before;
    double g[N];
    take(&before, r);
    get(g, r, GRAD);
    for (int64_t i = 0; i < N; i++) {
        const double gi = a->grad_scale * fabs(g[i]);
        const double m0 = (double)adamw_code_signed[(int)before.codes[0][i]];
        const double v0 = (double)adamw_code_unsigned[(int)before.codes[1][i]];
        const double m = a->beta1 * fabs(m0) * before.absmax[0][i / ADAMW_BLOCK];
        const double v = a->beta2 * v0 * before.absmax[1][i / ADAMW_BLOCK];
        const double root = sqrt((v + (1 - a->beta2) * gi * gi) / (1 - pow(a->beta2, t)));
        scale[i] = fabs(before.weight[i]) + step * (m + (1 - a->beta1) * gi) / (root + a->eps);
    }
}

/* Run the same on the device and, with weights and gradients in float64, in the reference. */
static void run_both(struct outcome *got, struct outcome *want, struct ops_env *env, dtype_t T,
                     dtype_t grad, void (*change)(struct rig *r))
{
    struct rig r, judge;
    double value[N];
    rig_open(&r, env->dev, T, grad, ADAMW_STATE_BLOCK8, false);
    rig_open(&judge, &env->ref, DTYPE_F64, DTYPE_F64, ADAMW_STATE_BLOCK8, false);
    fill(&r);
    if (change != NULL) change(&r);
    for (int a = 0; a < ARENAS; a++) {
        if (r.t[a].data == NULL) continue;
        get(value, &r, (enum arena)a);
        put(&judge, (enum arena)a, value);
    }
    const struct tensor *const kept = judge.args.weight;
    judge.args = r.args;
    judge.args.weight = &judge.t[WEIGHT];
    judge.args.grad = &judge.t[GRAD];
    judge.args.exp_avg_codes = &judge.t[CODES];
    judge.args.exp_avg_sq_codes = &judge.t[SQ_CODES];
    judge.args.exp_avg_absmax = &judge.t[ABSMAX];
    judge.args.exp_avg_sq_absmax = &judge.t[SQ_ABSMAX];
    assert_true(kept == &judge.t[WEIGHT]);
    double scale[N];
    measure_scale(scale, &judge);
    assert_ok(op_adamw_segments(env->dev, &r.args));
    assert_ok(op_adamw_segments(&env->ref, &judge.args));
    take(got, &r);
    take(want, &judge);
    memcpy(want->scale, scale, sizeof scale);
    rig_close(&r);
    rig_close(&judge);
}

/* A code may be the neighbour of the reference's where the quotient lies so near to the middle
 * between two that the roundings of f32 decide: four of them in the moment, each of the size of the
 * block's largest at worst, two in the quotient. `exact`: no rounding takes part. */
static void compare_codes(const struct outcome *got, const struct outcome *want, int k, bool exact)
{
    const float *table = k == 0 ? adamw_code_signed : adamw_code_unsigned;
    int64_t others = 0;
    for (int64_t i = 0; i < N; i++) {
        const int a = (int)got->codes[k][i], b = (int)want->codes[k][i];
        if (a == b) continue;
        others++;
        if (exact || abs(a - b) != 1)
            fail_msg("moment %d, element %lld: code %d (%.6g), expected %d (%.6g)", k, (long long)i,
                     a, table[a], b, table[b]);
    }
    /* The middles' neighbourhoods, 255 * 2 * 6 * 2^-24 of [-1, 1], hold 1e-4 of all numbers. */
    assert_true(others <= N / 100);
    for (int64_t b = 0; b < BLOCKS; b++)
        assert_true(fabs(got->absmax[k][b] - want->absmax[k][b]) <=
                    (exact ? 0.0 : 4 * 0x1p-24 * want->absmax[k][b]));
}

static void check_parity_of(struct ops_env *env, dtype_t T, dtype_t grad)
{
    struct outcome got, want;
    run_both(&got, &want, env, T, grad, NULL);
    compare_codes(&got, &want, 0, false);
    compare_codes(&got, &want, 1, false);
    for (int64_t i = 0; i < N; i++) {
        /* Two roundings of g, four of m, six of v of which the root takes half, four of the update,
         * two of the weight: each a part of the scale; then the weight is rounded to T. */
        const double ulp = T == DTYPE_BF16 ? 0x1p-8 : 0x1p-24;
        const double bound = 15 * 0x1p-24 * want.scale[i] + ulp * fabs(want.weight[i]);
        if (!(fabs(got.weight[i] - want.weight[i]) <= bound))
            fail_msg("weight %lld: %.9g, expected %.9g", (long long)i, got.weight[i],
                     want.weight[i]);
    }
}

static void check_parity(struct ops_env *env, dtype_t T)
{
    check_parity_of(env, T, T);
    if (T != DTYPE_F32) check_parity_of(env, T, DTYPE_F32);
}

static void test_parity(void **state) { for_dtypes(*state, check_parity); }

/* From nothing, with betas of 1/2 and 3/4 and gradients of 12 bits, no product is rounded: m = g/2,
 * v = g^2/4. */
static void make_exact(struct rig *r)
{
    static const double zeros[N];
    double value[N];
    for (int a = CODES; a <= SQ_ABSMAX; a++) put(r, (enum arena)a, zeros);
    for (int64_t i = 0; i < N; i++)
        value[i] = (double)(rng_u64(6, RNG_TEST, (uint64_t)i) % 255) - 127.0;
    for (int64_t i = ADAMW_BLOCK; i < 2 * ADAMW_BLOCK; i++) value[i] = 0.0;
    put(r, GRAD, value);
    r->args.beta1 = 0.5;
    r->args.beta2 = 0.75;
    r->args.grad_scale = 1.0;
}

static void check_exact(struct ops_env *env, dtype_t T)
{
    struct outcome got, want;
    run_both(&got, &want, env, T, T, make_exact);
    compare_codes(&got, &want, 0, true);
    compare_codes(&got, &want, 1, true);
    for (int64_t i = ADAMW_BLOCK; i < 2 * ADAMW_BLOCK; i++)
        assert_true(got.codes[0][i] == 127.0 && got.codes[1][i] == 0.0);
    assert_true(got.absmax[0][1] == 0.0 && got.absmax[1][1] == 0.0);
}

static void test_exact(void **state) { for_dtypes(*state, check_exact); }

/* ---- cut in other places ---- */

/* Cut the one segment at these elements. */
static void cut(struct rig *r, const int64_t *at, int64_t count)
{
    const struct adamw_segment whole = r->segment[0];
    for (int64_t s = 0; s <= count; s++) {
        const int64_t first = s == 0 ? 0 : at[s - 1], end = s == count ? whole.count : at[s];
        r->segment[s] = whole;
        r->segment[s].weight_offset += first;
        r->segment[s].grad_offset += first;
        r->segment[s].state_offset += first;
        r->segment[s].element += first;
        r->segment[s].count = end - first;
    }
    r->args.segment_count = count + 1;
}

static void check_cuts(struct ops_env *env, dtype_t T)
{
    static const int64_t blocks[] = { ADAMW_BLOCK, 4 * ADAMW_BLOCK };
    static const int64_t eights[] = { 8, 1000, 1024 };
    for (int eight_bit = 0; eight_bit < 2; eight_bit++) {
        struct rig whole, parts;
        const enum adamw_state state = eight_bit ? ADAMW_STATE_BLOCK8 : ADAMW_STATE_FULL;
        rig_open(&whole, env->dev, T, T, state, false);
        rig_open(&parts, env->dev, T, T, state, false);
        struct rig *rigs[] = { &whole, &parts };
        for (int i = 0; i < 2; i++) {
            fill(rigs[i]);
            rigs[i]->segment[0].tensor = 77;
            rigs[i]->segment[0].element = 3 << 12;
            if (T != DTYPE_BF16) continue;
            rigs[i]->args.rounding = ADAMW_ROUND_STOCHASTIC;
            rigs[i]->args.seed = 0x123456789abcdef;
        }
        if (eight_bit)
            cut(&parts, blocks, COUNT_OF(blocks));
        else
            cut(&parts, eights, COUNT_OF(eights));
        for (int64_t update = 1; update <= 3; update++) {
            whole.args.update = parts.args.update = update;
            assert_ok(op_adamw_segments(env->dev, &whole.args));
            assert_ok(op_adamw_segments(env->dev, &parts.args));
        }
        expect_same(&whole, &parts, eight_bit ? "8 bit, cut at blocks" : "cut at eights");
        rig_close(&whole);
        rig_close(&parts);
    }
}

static void test_cuts(void **state) { for_dtypes(*state, check_cuts); }

/* ---- stochastic rounding ---- */

static uint16_t bf16_bits(double x) { return (uint16_t)(f32_to_bits((float)x) >> 16); }

/* The definition in ops_optim.h, word for word. */
static uint16_t rounded_by_definition(double x, uint64_t seed, int64_t update, uint32_t tensor,
                                      uint64_t e)
{
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
    const uint32_t counter[4] = { (uint32_t)(e / 8), (uint32_t)(e / 8 >> 32), 4 | tensor << 8,
                                  (uint32_t)update };
    uint32_t out[4];
    rng_philox(out, counter, key);
    const uint32_t r = (out[e % 8 / 2] >> 16 * (e % 2)) & 0xffff;
    return (uint16_t)((f32_to_bits((float)x) + r) >> 16);
}

/* A pair of rigs with the same bf16 weights: one keeps the f32 result in its master. */
static void open_pair(struct rig *rounds, struct rig *keeps, struct ops_env *env)
{
    rig_open(rounds, env->dev, DTYPE_BF16, DTYPE_F32, ADAMW_STATE_FULL, false);
    rig_open(keeps, env->dev, DTYPE_BF16, DTYPE_F32, ADAMW_STATE_FULL, true);
    fill(rounds);
    fill(keeps);
    rounds->args.rounding = ADAMW_ROUND_STOCHASTIC;
}

static bool has_bf16(const struct ops_env *env) { return env->host || env->dtype == DTYPE_BF16; }

static void test_rounding_is_as_defined(void **state)
{
    struct ops_env *env = *state;
    struct rig rounds, keeps;
    double exact[N], got[N];
    const uint64_t seed = 0xfedcba9876543210u;
    const int64_t element = ((int64_t)1 << 38) + 16; /* above 32 bits also when divided by 8 */
    const uint32_t tensor = ADAMW_TENSOR_MAX - 1;
    if (!has_bf16(env)) return;
    open_pair(&rounds, &keeps, env);
    rounds.args.seed = seed;
    rounds.args.update = keeps.args.update = 123456;
    rounds.segment[0].tensor = tensor;
    rounds.segment[0].element = element;
    assert_ok(op_adamw_segments(env->dev, &rounds.args));
    assert_ok(op_adamw_segments(env->dev, &keeps.args));
    get(exact, &keeps, MASTER);
    get(got, &rounds, WEIGHT);
    int64_t up = 0;
    for (int64_t i = 0; i < N; i++) {
        const uint16_t want =
            rounded_by_definition(exact[i], seed, 123456, tensor, (uint64_t)(element + i));
        if (bf16_bits(got[i]) != want)
            fail_msg("element %lld: %.9g to %04x, expected %04x", (long long)i, exact[i],
                     bf16_bits(got[i]), want);
        up += fabs(got[i]) > fabs(exact[i]);
    }
    assert_true(up > N / 3 && up < 2 * N / 3);
    rig_close(&rounds);
    rig_close(&keeps);
}

/*
 * Over K updates from the same start each weight is rounded up k times, k binomial with the
 * probability p of what is cut off: the mean of all is the f32 result. Six sigmas for each element:
 * 2e-9 * N of a chance to fail, once, since the seeds are fixed.
 */
static void test_rounding_is_unbiased(void **state)
{
    struct ops_env *env = *state;
    struct rig rounds, keeps;
    double exact[N], start[N], got[N], sum[N] = { 0 }, all = 0.0;
    enum { K = 400 };
    if (!has_bf16(env)) return;
    open_pair(&rounds, &keeps, env);
    rounds.args.beta1 = keeps.args.beta1 = 0.0; /* each update begins where the first did */
    rounds.args.beta2 = keeps.args.beta2 = 0.0;
    get(start, &rounds, WEIGHT);
    assert_ok(op_adamw_segments(env->dev, &keeps.args));
    get(exact, &keeps, MASTER);
    for (int64_t k = 0; k < K; k++) {
        put(&rounds, WEIGHT, start);
        rounds.args.seed = (uint64_t)k;
        assert_ok(op_adamw_segments(env->dev, &rounds.args));
        get(got, &rounds, WEIGHT);
        for (int64_t i = 0; i < N; i++) sum[i] += got[i];
    }
    for (int64_t i = 0; i < N; i++) {
        const double down = (double)bf16_to_f32(bf16_bits(exact[i]));
        const double up = (double)bf16_to_f32((uint16_t)(bf16_bits(exact[i]) + 1));
        const double p = (exact[i] - down) / (up - down), mean = (sum[i] / K - down) / (up - down);
        if (!(fabs(mean - p) <= 6 * sqrt(p * (1 - p) / K)))
            fail_msg("element %lld: up in %.4f of the cases, expected %.4f", (long long)i, mean, p);
        all += mean - p;
    }
    /* And together: variances p(1-p) of at most 1/4 each. */
    assert_true(fabs(all) <= 6 * sqrt(0.25 * N / K));
    rig_close(&rounds);
    rig_close(&keeps);
}

/* ---- what is refused ---- */

static void expect_refused(struct rig *r, const char *part)
{
    double before[N], after[N];
    get(before, r, WEIGHT);
    assert_err(op_adamw_segments(r->dev, &r->args), ARG, part);
    get(after, r, WEIGHT);
    assert_memory_equal(before, after, sizeof before);
}

static void test_refusals(void **state)
{
    struct ops_env *env = *state;
    struct rig r;
    rig_open(&r, env->dev, env->dtype, env->dtype, ADAMW_STATE_BLOCK8, false);
    r.segment[0].state_offset = 8;
    r.segment[0].count = 8;
    expect_refused(&r, "state_offset 8; expected a multiple of 256");
    r.segment[0].state_offset = 5 * ADAMW_BLOCK;
    r.segment[0].count = 101;
    expect_refused(&r, "state elements");
    r.segment[0] = (struct adamw_segment){ .count = N, .state = (enum adamw_state)7 };
    expect_refused(&r, "state 7");
    r.segment[0].state = ADAMW_STATE_BLOCK8;
    assert_ok(op_adamw_segments(env->dev, &r.args));
    r.args.master = &r.t[ABSMAX];
    expect_refused(&r, "8-bit moments and a master");
    r.args.master = NULL;
    struct tensor few = r.t[ABSMAX];
    few.dim[0]--;
    r.args.exp_avg_absmax = &few;
    assert_err(op_adamw_segments(env->dev, &r.args), SHAPE, "exp_avg_absmax");
    rig_close(&r);

    if (!has_bf16(env)) return;
    rig_open(&r, env->dev, DTYPE_BF16, DTYPE_F32, ADAMW_STATE_FULL, true);
    r.args.rounding = ADAMW_ROUND_STOCHASTIC;
    expect_refused(&r, "without master");
    r.args.master = NULL;
    r.segment[0].tensor = ADAMW_TENSOR_MAX;
    expect_refused(&r, "tensors below");
    r.segment[0].tensor = 0;
    r.segment[0].element = 12;
    expect_refused(&r, "multiples of 8");
    r.segment[0].element = 0;
    assert_ok(op_adamw_segments(env->dev, &r.args));
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_parity),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_rounding_is_as_defined),
        cmocka_unit_test(test_rounding_is_unbiased),
        cmocka_unit_test(test_refusals),
    };
    return ops_main("moments", tests, COUNT_OF(tests));
}
