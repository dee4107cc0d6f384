/* Rows of bench_ops that are bound by memory. */
#include "bench/bench.h"

#include "base/num.h"
#include "kernels/ops_attn.h"
#include "kernels/ops_embed.h"
#include "kernels/ops_norm.h"
#include "kernels/ops_optim.h"

#include <stdlib.h>

#define OP_RUNNER(op)                                                                              \
    static err_t run_##op(struct dev *dev, const void *context) { return op_##op(dev, context); }
OP_RUNNER(decode_attn)
OP_RUNNER(residual_norm_fwd)
OP_RUNNER(residual_norm_bwd)
OP_RUNNER(act_fwd)
OP_RUNNER(rotary)
OP_RUNNER(embed_fwd)
OP_RUNNER(embed_bwd)
OP_RUNNER(adamw_segments)
OP_RUNNER(sumsq_chunks)
OP_RUNNER(cast)
OP_RUNNER(add)

static dtype_t sum_dtype(const struct bench *b) { return dtype_accumulator(b->dtype); }

static void zero(struct bench *b, const struct tensor *t)
{
    if (dev_zero(b->dev, t->data, tensor_count(t) * dtype_bytes(t->dtype)) != ERR_OK) exit(1);
}

/* i32 numbers first, first + step, ... modulo `mod`, on the device. */
static struct tensor take_i32(struct bench *b, int64_t count, int64_t step, int64_t mod,
                              const char *name)
{
    int32_t *values = calloc((size_t)count, sizeof *values);
    if (values == NULL) exit(1);
    for (int64_t i = 0; i < count; i++) values[i] = (int32_t)(i * step % mod);
    void *data = bench_upload(b, values, count * 4);
    free(values);
    return tensor_1d(data, DTYPE_I32, count, name);
}

void bench_decode_attn(struct bench *b)
{
    const bool tiny = b->sizes == BENCH_TINY;
    const int64_t B = tiny ? 2 : b->sizes == BENCH_GPU ? 64 : 4, H = tiny ? 2 : 32;
    const int64_t D = tiny ? 32 : 128, room = tiny ? 16 : 1024;
    bench_begin(b);
    struct tensor k = tensor_3d(bench_take(b, B * room * H * D * dtype_bytes(b->dtype)), b->dtype,
                                B, room, H * D, "k");
    struct tensor v = tensor_3d(bench_take(b, B * room * H * D * dtype_bytes(b->dtype)), b->dtype,
                                B, room, H * D, "v");
    struct tensor qkv = bench_2d(b, b->dtype, B, 3 * H * D, "qkv");
    struct tensor out = bench_2d(b, b->dtype, B, H * D, "out");
    const struct tensor slots = take_i32(b, B, 1, B, "slots");
    int32_t lens_host[64];
    for (int64_t i = 0; i < B; i++) lens_host[i] = (int32_t)room - 1;
    const struct tensor lens = tensor_1d(bench_upload(b, lens_host, B * 4), DTYPE_I32, B, "lens");
    struct decode_attn_args a = { .out = &out,
                                  .k_cache = &k,
                                  .v_cache = &v,
                                  .qkv = &qkv,
                                  .layout = qkv_layout_interleaved(H, D),
                                  .slots = &slots,
                                  .lens = &lens,
                                  .scale = 0.1 };
    a.scratch = bench_scratch(b, op_decode_attn_scratch_bytes(b->dev, &a));
    bench_row(b, &(struct bench_row){
                     .name = "decode_attn",
                     .shape = bench_shape(b, "B=%lld H=%lld D=%lld len=%lld", (long long)B,
                                          (long long)H, (long long)D, (long long)room),
                     .work = run_decode_attn,
                     .context = &a,
                     .reads_only = true,
                     .bytes = 2.0 * (double)(B * room * H * D * dtype_bytes(b->dtype)) });
}

static void bench_norm_shape(struct bench *b, int64_t R, int64_t C)
{
    const dtype_t T = b->dtype, A = sum_dtype(b);
    bench_begin(b);
    struct tensor x = bench_2d(b, T, R, C, "x"), y = bench_2d(b, T, R, C, "y");
    struct tensor h = bench_2d(b, T, R, C, "h"), residual = bench_2d(b, T, R, C, "residual");
    struct tensor mean = bench_1d(b, A, R, "mean"), rstd = bench_1d(b, A, R, "rstd");
    struct tensor gamma = bench_1d(b, T, C, "gamma"), beta = bench_1d(b, T, C, "beta");
    struct tensor dgamma = bench_1d(b, A, C, "dgamma"), dbeta = bench_1d(b, A, C, "dbeta");
    const struct residual_norm_fwd_args fwd = { .kind = NORM_LAYER,
                                                .y = &y,
                                                .h = &h,
                                                .mean = &mean,
                                                .rstd = &rstd,
                                                .x = &x,
                                                .residual = &residual,
                                                .gamma = &gamma,
                                                .beta = &beta,
                                                .alpha = 7.48,
                                                .eps = 1e-5 };
    struct residual_norm_bwd_args bwd = { .kind = NORM_LAYER,
                                          .residual_from = RESIDUAL_FROM_OUTPUT,
                                          .dh = &y,
                                          .dgamma_acc = &dgamma,
                                          .dbeta_acc = &dbeta,
                                          .dy = &x,
                                          .dresidual = &residual,
                                          .h = &h,
                                          .mean = &mean,
                                          .rstd = &rstd,
                                          .gamma = &gamma,
                                          .alpha = 7.48 };
    bwd.scratch = bench_scratch(b, op_residual_norm_bwd_scratch_bytes(b->dev, &bwd));
    const char *shape = bench_shape(b, "%lldx%lld", (long long)R, (long long)C);
    const double bytes = 4.0 * (double)(R * C * dtype_bytes(T));
    bench_row(b, &(struct bench_row){ .name = "norm_fwd",
                                      .shape = shape,
                                      .bytes = bytes,
                                      .work = run_residual_norm_fwd,
                                      .context = &fwd });
    bench_row(b, &(struct bench_row){ .name = "norm_bwd",
                                      .shape = shape,
                                      .bytes = bytes,
                                      .work = run_residual_norm_bwd,
                                      .context = &bwd });
}

void bench_norm(struct bench *b)
{
    static const int64_t shapes[BENCH_SIZES][3][2] = {
        [BENCH_TINY] = { { 16, 64 } },
        [BENCH_HOST] = { { 65536, 128 }, { 16384, 512 }, { 4096, 4096 } },
        [BENCH_GPU] = { { 16384, 4096 } },
    };
    for (int64_t s = 0; s < 3 && shapes[b->sizes][s][0] > 0; s++)
        bench_norm_shape(b, shapes[b->sizes][s][0], shapes[b->sizes][s][1]);
}

void bench_act(struct bench *b)
{
    static const char *const names[] = { "", "gelu_tanh", "swiglu" };
    static const int64_t shapes[BENCH_SIZES][2] = { { 16, 64 }, { 4096, 8192 }, { 16384, 16384 } };
    const int64_t R = shapes[b->sizes][0], N = shapes[b->sizes][1];
    for (enum act_kind act = ACT_GELU_TANH; act <= ACT_SWIGLU; act++) {
        const int64_t width = act == ACT_SWIGLU ? 2 * N : N;
        bench_begin(b);
        struct tensor y = bench_2d(b, b->dtype, R, N, "y");
        struct tensor pre = bench_2d(b, b->dtype, R, width, "pre");
        const struct act_fwd_args a = { .y = &y, .pre = &pre, .act = act };
        bench_row(
            b, &(struct bench_row){
                   .name = "act_fwd",
                   .shape = bench_shape(b, "%s %lldx%lld", names[act], (long long)R, (long long)N),
                   .work = run_act_fwd,
                   .context = &a,
                   .bytes = (double)(R * (N + width) * dtype_bytes(b->dtype)) });
    }
}

void bench_rotary(struct bench *b)
{
    static const int64_t shapes[BENCH_SIZES][3] = { { 16, 2, 32 },
                                                    { 4096, 32, 128 },
                                                    { 16384, 32, 128 } };
    const int64_t R = shapes[b->sizes][0], H = shapes[b->sizes][1], D = shapes[b->sizes][2];
    const int64_t P = 512;
    bench_begin(b);
    struct tensor qkv = bench_2d(b, b->dtype, R, 3 * H * D, "qkv");
    const struct tensor pos = take_i32(b, R, 1, P, "pos"), block = take_i32(b, R, 1, 64, "block");
    const struct tensor cosines = bench_2d(b, sum_dtype(b), P, D / 4, "cos");
    const struct tensor sines = bench_2d(b, sum_dtype(b), P, D / 4, "sin");
    /* Rotations by these are not by angles: a factor of 0 keeps repeated ones from growing. */
    zero(b, &cosines);
    zero(b, &sines);
    const struct rotary_args a = { .kind = ROTARY_TWO_STREAM,
                                   .qkv = &qkv,
                                   .layout = qkv_layout_interleaved(H, D),
                                   .pos = &pos,
                                   .block = &block,
                                   .cos = &cosines,
                                   .sin = &sines };
    bench_row(b, &(struct bench_row){ .name = "rotary",
                                      .shape = bench_shape(b, "R=%lld H=%lld D=%lld", (long long)R,
                                                           (long long)H, (long long)D),
                                      .work = run_rotary,
                                      .context = &a,
                                      .bytes = 4.0 * (double)(R * H * D * dtype_bytes(b->dtype)) });
}

void bench_embed(struct bench *b)
{
    static const int64_t shapes[BENCH_SIZES][3] = { { 16, 64, 100 },
                                                    { 4096, 1024, 32000 },
                                                    { 16384, 4096, 130528 } };
    const int64_t R = shapes[b->sizes][0], C = shapes[b->sizes][1], V = shapes[b->sizes][2];
    bench_begin(b);
    struct tensor table = bench_2d(b, b->dtype, V, C, "table");
    struct tensor dtable = bench_2d(b, sum_dtype(b), V, C, "dtable");
    struct tensor y = bench_2d(b, b->dtype, R, C, "y");
    /* Increasing ids, so that `order` is the identity; every fourth repeats. */
    int32_t *values = calloc((size_t)R, sizeof *values);
    if (values == NULL) exit(1);
    for (int64_t r = 0; r < R; r++) values[r] = (int32_t)((r - (r % 4 == 3)) * (V / R));
    const struct tensor ids = tensor_1d(bench_upload(b, values, R * 4), DTYPE_I32, R, "ids");
    free(values);
    const struct tensor order = take_i32(b, R, 1, R, "order");
    const struct embed_fwd_args fwd = { .y = &y, .table = &table, .ids = &ids };
    const struct embed_bwd_args bwd = {
        .dtable_acc = &dtable, .dy = &y, .ids = &ids, .order = &order
    };
    const char *shape =
        bench_shape(b, "R=%lld C=%lld V=%lld", (long long)R, (long long)C, (long long)V);
    const double row = (double)(R * C * dtype_bytes(b->dtype)), sum = 0.75 * 4 * (double)(R * C);
    bench_row(b, &(struct bench_row){ .name = "embed_fwd",
                                      .shape = shape,
                                      .work = run_embed_fwd,
                                      .context = &fwd,
                                      .bytes = 1.75 * row });
    bench_row(b, &(struct bench_row){ .name = "embed_bwd",
                                      .shape = shape,
                                      .work = run_embed_bwd,
                                      .context = &bwd,
                                      .bytes = row + 2 * sum });
}

/* ---- the optimizer ---- */

struct adamw_form {
    const char *name;
    bool master, block8;
    dtype_t grad; /* DTYPE_COUNT: as the weight */
    double bytes; /* per element */
};

static void bench_adamw(struct bench *b, const struct adamw_form *form, int64_t n)
{
    const bool stochastic = b->dtype == DTYPE_BF16 && !form->master;
    bench_begin(b);
    struct tensor weight = bench_1d(b, b->dtype, n, "weight");
    struct tensor grad = bench_1d(b, form->grad, n, "grad");
    struct tensor master = bench_1d(b, DTYPE_F32, form->master ? n : 1, "master");
    const dtype_t state = form->block8 ? DTYPE_U8 : DTYPE_F32;
    struct tensor m = bench_1d(b, state, n, "exp_avg"), v = bench_1d(b, state, n, "exp_avg_sq");
    struct tensor m_max = bench_1d(b, DTYPE_F32, n / ADAMW_BLOCK, "exp_avg_absmax");
    struct tensor v_max = bench_1d(b, DTYPE_F32, n / ADAMW_BLOCK, "exp_avg_sq_absmax");
    zero(b, &m);
    zero(b, &v);
    zero(b, &m_max);
    zero(b, &v_max);
    const struct adamw_segment all = {
        .count = n, .decay = true, .state = form->block8 ? ADAMW_STATE_BLOCK8 : ADAMW_STATE_FULL
    };
    struct adamw_segments_args a = {
        .weight = &weight,
        .master = form->master ? &master : NULL,
        .grad = &grad,
        .segments = &all,
        .segment_count = 1,
        .lr = 1e-5,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .eps = 1e-8,
        .weight_decay = 0.1,
        .grad_scale = 1,
        .update = 1,
        .seed = 1,
        .rounding = stochastic ? ADAMW_ROUND_STOCHASTIC : ADAMW_ROUND_NEAREST,
    };
    if (form->block8) {
        a.exp_avg_codes = &m;
        a.exp_avg_sq_codes = &v;
        a.exp_avg_absmax = &m_max;
        a.exp_avg_sq_absmax = &v_max;
    } else {
        a.exp_avg = &m;
        a.exp_avg_sq = &v;
    }
    bench_row(b, &(struct bench_row){
                     .name = "adamw",
                     .shape = bench_shape(b, "%s %lld Mi", form->name, (long long)(n >> 20)),
                     .work = run_adamw_segments,
                     .context = &a,
                     .bytes = form->bytes * (double)n });
}

static void bench_flat(struct bench *b, int64_t n)
{
    const dtype_t grads[] = { DTYPE_F32, DTYPE_BF16 };
    for (int i = 0; i < (b->dtype == DTYPE_BF16 ? 2 : 1); i++) {
        bench_begin(b);
        struct tensor x = bench_1d(b, grads[i], n, "x");
        struct tensor out = bench_1d(b, DTYPE_F64, div_ceil(n, SUMSQ_CHUNK), "out");
        const struct sumsq_segment whole = { 0, n, 0 };
        const struct sumsq_chunks_args a = {
            .out = &out, .x = &x, .segments = &whole, .segment_count = 1
        };
        bench_row(b,
                  &(struct bench_row){ .name = "sumsq",
                                       .shape = bench_shape(b, "%s %lld Mi", dtype_name(grads[i]),
                                                            (long long)(n >> 20)),
                                       .work = run_sumsq_chunks,
                                       .context = &a,
                                       .reads_only = true,
                                       .bytes = (double)(n * dtype_bytes(grads[i])) });
    }
    bench_begin(b);
    struct tensor y = bench_1d(b, DTYPE_F32, n, "y"), x = bench_1d(b, DTYPE_F32, n, "x");
    struct tensor narrow = bench_1d(b, DTYPE_BF16, n, "narrow");
    zero(b, &x);
    const struct add_args add = { .y_acc = &y, .x = &x };
    const struct cast_args cast = { .y = &narrow, .x = &y };
    const char *shape = bench_shape(b, "f32 %lld Mi", (long long)(n >> 20));
    bench_row(b, &(struct bench_row){ .name = "add",
                                      .shape = shape,
                                      .work = run_add,
                                      .context = &add,
                                      .bytes = 12.0 * (double)n });
    bench_row(b, &(struct bench_row){ .name = "cast to bf16",
                                      .shape = shape,
                                      .work = run_cast,
                                      .context = &cast,
                                      .bytes = 6.0 * (double)n });
}

void bench_optim(struct bench *b)
{
    static const int64_t counts[BENCH_SIZES] = { INT64_C(1) << 14, INT64_C(1) << 25,
                                                 INT64_C(1) << 28 };
    static const struct adamw_form narrow[] = {
        { "master, f32 grad", true, false, DTYPE_F32, 30 },
        { "master, bf16 grad", true, false, DTYPE_BF16, 28 },
        { "stochastic", false, false, DTYPE_BF16, 22 },
        { "8-bit moments", false, true, DTYPE_BF16, 10.03 },
    };
    static const struct adamw_form wide = { "f32", false, false, DTYPE_F32, 28 };
    const int64_t n = counts[b->sizes];
    if (b->dtype != DTYPE_BF16) bench_adamw(b, &wide, n);
    for (int64_t i = 0; b->dtype == DTYPE_BF16 && i < COUNT_OF(narrow); i++)
        bench_adamw(b, &narrow[i], n);
    bench_flat(b, n);
}
