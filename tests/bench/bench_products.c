/* Rows of bench_ops that are bound by products: dense layers, attention, the output layer. */
#include "bench/bench.h"

#include "base/num.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/sgemm.h"
#include "kernels/ops_attn.h"
#include "kernels/ops_loss.h"

#include <stdlib.h>
#include <string.h>

#define OP_RUNNER(op)                                                                              \
    static err_t run_##op(struct dev *dev, const void *context) { return op_##op(dev, context); }
OP_RUNNER(linear_fwd)
OP_RUNNER(linear_bwd)
OP_RUNNER(attn_fwd)
OP_RUNNER(attn_bwd)
OP_RUNNER(linear_ce)

static dtype_t sum_dtype(const struct bench *b) { return dtype_accumulator(b->dtype); }

/* ---- bare products of the host ---- */

static err_t run_gemm(struct dev *dev, const void *context) { return gemm_f32(dev, context); }

static err_t run_sgemm_own(struct dev *dev, const void *context)
{
    (void)dev;
    if (!sgemm_own(context)) RAISE(NOMEM, "product: no memory");
    return ERR_OK;
}

static void bench_gemm_shape(struct bench *b, int64_t m, int64_t n, int64_t k, const char *form)
{
    bench_begin(b);
    struct gemm_args g = {
        .a_transposed = form[0] == 'T',
        .b_transposed = form[1] == 'T',
        .m = m,
        .n = n,
        .k = k,
        .a = bench_take(b, m * k * 4),
        .b = bench_take(b, n * k * 4),
        .b_dtype = DTYPE_F32,
        .c = bench_take(b, m * n * 4),
        .ldc = n,
        .accumulate = form[0] == 'T',
    };
    g.lda = g.a_transposed ? m : k;
    g.ldb = g.b_transposed ? k : n;
    const double flop = 2.0 * (double)m * (double)n * (double)k;
    const char *shape =
        bench_shape(b, "%s %lldx%lldx%lld", form, (long long)m, (long long)n, (long long)k);
    struct bench_row row = { .name = "gemm",
                             .shape = shape,
                             .work = run_gemm,
                             .context = &g,
                             .flop = flop,
                             .m = m,
                             .n = n,
                             .k = k };
    bench_row(b, &row);
    if (m > 1024) return;
    const struct sgemm_args own = { .a_transposed = g.a_transposed,
                                    .b_transposed = g.b_transposed,
                                    .m = m,
                                    .n = n,
                                    .k = k,
                                    .alpha = 1.0f,
                                    .a = g.a,
                                    .lda = g.lda,
                                    .b = g.b,
                                    .ldb = g.ldb,
                                    .c = g.c,
                                    .ldc = n };
    row.name = "own, 1 thread";
    row.work = run_sgemm_own;
    row.context = &own;
    bench_row(b, &row);
}

void bench_gemm(struct bench *b)
{
    static const int64_t shapes[][3] = {
        { 500, 384, 128 },    { 500, 128, 512 },    { 2000, 1536, 512 },  { 4000, 512, 2048 },
        { 2048, 4096, 1024 }, { 2048, 4096, 4096 }, { 4096, 4096, 2048 }, { 128, 384, 4000 },
        { 512, 2048, 4000 },  { 1024, 1024, 1024 },
    };
    static const char *const forms[] = { "NN", "NT", "TN" };
    if (!b->on_host || b->sizes == BENCH_TINY) return;
    for (int64_t s = 0; s < COUNT_OF(shapes); s++)
        for (int64_t f = 0; f < COUNT_OF(forms); f++)
            bench_gemm_shape(b, shapes[s][0], shapes[s][1], shapes[s][2], forms[f]);
}

/* ---- dense layers ---- */

static void linear_fwd_row(struct bench *b, int64_t R, int64_t N, int64_t K, enum act_kind act)
{
    const double T = (double)dtype_bytes(b->dtype);
    bench_begin(b);
    struct tensor x = bench_2d(b, b->dtype, R, K, "x"), w = bench_2d(b, b->dtype, N, K, "w");
    struct tensor y = bench_2d(b, b->dtype, R, N, "y"), pre = bench_2d(b, b->dtype, R, N, "pre");
    struct tensor bias = bench_1d(b, b->dtype, N, "bias");
    struct linear_fwd_args fwd = { .y = &y, .x = &x, .w = &w, .bias = &bias, .act = act };
    if (act != ACT_NONE) fwd.pre = &pre;
    fwd.scratch = bench_scratch(b, op_linear_fwd_scratch_bytes(b->dev, &fwd));
    const double outputs = act == ACT_NONE ? 1 : 2;
    bench_row(
        b, &(struct bench_row){
               .name = act == ACT_NONE ? "linear_fwd" : "linear_fwd gelu",
               .shape = bench_shape(b, "%lldx%lldx%lld", (long long)R, (long long)N, (long long)K),
               .work = run_linear_fwd,
               .context = &fwd,
               .bytes = T * ((double)(R * K + N * K) + outputs * (double)(R * N)),
               .flop = 2.0 * (double)R * (double)N * (double)K,
               .m = R,
               .n = N,
               .k = K });
}

/* dx alone, then dw and db alone; for 16-bit numbers with sums of either width. */
static void linear_bwd_rows(struct bench *b, int64_t R, int64_t N, int64_t K, enum act_kind act)
{
    const double T = (double)dtype_bytes(b->dtype), flop = 2.0 * (double)R * (double)N * (double)K;
    const bool gelu = act != ACT_NONE;
    bench_begin(b);
    struct tensor x = bench_2d(b, b->dtype, R, K, "x"), w = bench_2d(b, b->dtype, N, K, "w");
    struct tensor dy = bench_2d(b, b->dtype, R, N, "dy"), dx = bench_2d(b, b->dtype, R, K, "dx");
    const int64_t operands = b->arena_used;
    const char *shape = bench_shape(b, "%lldx%lldx%lld", (long long)R, (long long)N, (long long)K);
    struct linear_bwd_args to_x = {
        .dx = &dx, .dy = &dy, .w = &w, .x_act = act, .x_pre = gelu ? &x : NULL
    };
    to_x.scratch = bench_scratch(b, op_linear_bwd_scratch_bytes(b->dev, &to_x));
    bench_row(b, &(struct bench_row){ .name = gelu ? "linear_dx gelu" : "linear_dx",
                                      .shape = shape,
                                      .work = run_linear_bwd,
                                      .context = &to_x,
                                      .bytes = T * (double)(R * N + N * K + (gelu ? 2 : 1) * R * K),
                                      .flop = flop,
                                      .m = R,
                                      .n = K,
                                      .k = N });
    if (gelu) return;
    const dtype_t sums[] = { sum_dtype(b), b->dtype };
    for (int64_t i = 0; i < (sums[0] == sums[1] ? 1 : 2); i++) {
        b->arena_used = operands;
        struct tensor dw = bench_2d(b, sums[i], N, K, "dw"), db = bench_1d(b, sums[i], N, "db");
        struct linear_bwd_args to_w = { .dw_acc = &dw, .db_acc = &db, .dy = &dy, .x = &x };
        to_w.scratch = bench_scratch(b, op_linear_bwd_scratch_bytes(b->dev, &to_w));
        bench_row(b, &(struct bench_row){ .name = sums[i] == DTYPE_BF16 ? "linear_dw bf16"
                                                                        : "linear_dw f32",
                                          .shape = shape,
                                          .work = run_linear_bwd,
                                          .context = &to_w,
                                          .bytes = T * (double)(R * N + R * K) +
                                                   2.0 * (double)(N * K * dtype_bytes(sums[i])),
                                          .flop = flop,
                                          .m = N,
                                          .n = K,
                                          .k = R });
    }
}

void bench_linear(struct bench *b)
{
    static const int64_t shapes[BENCH_SIZES][4][3] = {
        [BENCH_TINY] = { { 64, 96, 32 }, { 40, 128, 64 } },
        [BENCH_HOST] = { { 500, 512, 128 }, { 2000, 2048, 512 }, { 2048, 4096, 1024 } },
        [BENCH_GPU] = { { 16384, 12288, 4096 },
                        { 16384, 4096, 4096 },
                        { 16384, 16384, 4096 },
                        { 16384, 4096, 16384 } },
    };
    for (int64_t s = 0; s < 4 && shapes[b->sizes][s][0] > 0; s++) {
        const int64_t R = shapes[b->sizes][s][0], N = shapes[b->sizes][s][1];
        const int64_t K = shapes[b->sizes][s][2];
        linear_fwd_row(b, R, N, K, ACT_NONE);
        if (N > K) linear_fwd_row(b, R, N, K, ACT_GELU_TANH);
        linear_bwd_rows(b, R, N, K, ACT_NONE);
        if (N < K || b->sizes != BENCH_GPU) linear_bwd_rows(b, R, N, K, ACT_GELU_TANH);
    }
}

/* Decoding: few rows, so that reading the matrix is the work. */
void bench_decode(struct bench *b)
{
    static const int64_t sides[BENCH_SIZES][2] = { { 96, 64 }, { 12288, 4096 }, { 12288, 4096 } };
    static const dtype_t formats[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16 };
    const int64_t N = sides[b->sizes][0], K = sides[b->sizes][1];
    for (int64_t f = 0; f < COUNT_OF(formats); f++) {
        if (b->dtype == DTYPE_BF16 && formats[f] != DTYPE_BF16) continue;
        for (int64_t R = 1; R <= 16; R *= 2) {
            bench_begin(b);
            struct tensor x = bench_2d(b, b->dtype, R, K, "x"),
                          w = bench_2d(b, formats[f], N, K, "w");
            struct tensor y = bench_2d(b, b->dtype, R, N, "y");
            struct linear_fwd_args a = { .y = &y, .x = &x, .w = &w };
            a.scratch = bench_scratch(b, op_linear_fwd_scratch_bytes(b->dev, &a));
            bench_row(b,
                      &(struct bench_row){
                          .name = "linear_decode",
                          .shape = bench_shape(b, "R=%lld %lldx%lld %s", (long long)R, (long long)N,
                                               (long long)K, dtype_name(formats[f])),
                          .work = run_linear_fwd,
                          .context = &a,
                          .reads_only = true,
                          .bytes = (double)(N * K * dtype_bytes(formats[f])) });
        }
    }
}

/* ---- attention ---- */

struct attn_shape {
    int64_t R, H, D, len, ctx; /* segments of `len` tokens, `ctx` of them prefix */
};

static void bench_attn_shape(struct bench *b, const struct attn_shape *a)
{
    const int64_t W = 3 * a->H * a->D, S = a->R / a->len;
    bench_begin(b);
    struct tensor qkv = bench_2d(b, b->dtype, a->R, W, "qkv");
    struct tensor dqkv = bench_2d(b, b->dtype, a->R, W, "dqkv");
    struct tensor out = bench_2d(b, b->dtype, a->R, a->H * a->D, "out");
    struct tensor dout = bench_2d(b, b->dtype, a->R, a->H * a->D, "dout");
    struct tensor lse = bench_2d(b, sum_dtype(b), a->R, a->H, "lse");
    struct attn_segment *host = calloc((size_t)S, sizeof *host);
    if (host == NULL) exit(1);
    double pairs = 0;
    for (int64_t s = 0; s < S; s++) {
        host[s] = (struct attn_segment){ (int32_t)(s * a->len), (int32_t)a->ctx, (int32_t)a->len };
        for (int64_t i = 0; i < a->len; i++) pairs += (double)max_i64(a->ctx, i + 1);
    }
    const struct tensor segments =
        tensor_2d(bench_upload(b, host, S * (int64_t)sizeof *host), DTYPE_I32, S, 3, "segments");
    const struct qkv_layout layout = qkv_layout_interleaved(a->H, a->D);
    struct attn_fwd_args fwd = { .out = &out,
                                 .lse = &lse,
                                 .qkv = &qkv,
                                 .layout = layout,
                                 .segments = &segments,
                                 .segments_host = host,
                                 .scale = 0.1 };
    struct attn_bwd_args bwd = { .dqkv = &dqkv,
                                 .dout = &dout,
                                 .out = &out,
                                 .lse = &lse,
                                 .qkv = &qkv,
                                 .layout = layout,
                                 .segments = &segments,
                                 .segments_host = host,
                                 .scale = 0.1 };
    fwd.scratch = bench_scratch(b, op_attn_fwd_scratch_bytes(b->dev, &fwd));
    bwd.scratch = bench_scratch(b, op_attn_bwd_scratch_bytes(b->dev, &bwd));
    const char *shape =
        bench_shape(b, "R=%lld H=%lld D=%lld len=%lld ctx=%lld", (long long)a->R, (long long)a->H,
                    (long long)a->D, (long long)a->len, (long long)a->ctx);
    const double flop = 4.0 * (double)a->D * (double)a->H * pairs;
    const double row_bytes = (double)(a->R * a->H * a->D * dtype_bytes(b->dtype));
    bench_row(b, &(struct bench_row){ .name = "attn_fwd",
                                      .shape = shape,
                                      .work = run_attn_fwd,
                                      .context = &fwd,
                                      .bytes = 4 * row_bytes,
                                      .flop = flop });
    bench_row(b, &(struct bench_row){ .name = "attn_bwd",
                                      .shape = shape,
                                      .work = run_attn_bwd,
                                      .context = &bwd,
                                      .bytes = 8 * row_bytes,
                                      .flop = 2.5 * flop });
    free(host);
}

void bench_attn(struct bench *b)
{
    static const struct attn_shape shapes[BENCH_SIZES][4] = {
        [BENCH_TINY] = { { 48, 2, 32, 24, 16 } },
        [BENCH_HOST] = { { 1024, 4, 32, 128, 100 },
                         { 2048, 8, 64, 512, 400 },
                         { 2048, 8, 128, 1024, 800 },
                         { 2048, 8, 128, 2048, 0 } },
        [BENCH_GPU] = { { 16384, 32, 128, 320, 268 },
                        { 16384, 32, 128, 704, 512 },
                        { 16384, 32, 128, 2048, 1536 },
                        { 16384, 32, 128, 2048, 0 } },
    };
    for (int64_t s = 0; s < 4 && shapes[b->sizes][s].R > 0; s++)
        bench_attn_shape(b, &shapes[b->sizes][s]);
}

/* ---- the output layer with its loss ---- */

static void bench_loss_shape(struct bench *b, int64_t R, int64_t N, int64_t C, int64_t V)
{
    bench_begin(b);
    struct tensor x = bench_2d(b, b->dtype, R, C, "x"), w = bench_2d(b, b->dtype, V, C, "w");
    struct tensor dx = bench_2d(b, b->dtype, R, C, "dx");
    struct tensor dw = bench_2d(b, sum_dtype(b), V, C, "dw");
    struct tensor nll = bench_1d(b, sum_dtype(b), N, "nll");
    struct tensor weights = bench_1d(b, DTYPE_F32, N, "weights");
    int32_t *count = calloc((size_t)N, sizeof *count);
    if (count == NULL) exit(1);
    for (int32_t i = 0; i < N; i++) count[i] = (int32_t)(i * (R / N));
    const struct tensor rows = tensor_1d(bench_upload(b, count, N * 4), DTYPE_I32, N, "rows");
    for (int32_t i = 0; i < N; i++) count[i] = (int32_t)((int64_t)i * 7919 % V);
    const struct tensor labels = tensor_1d(bench_upload(b, count, N * 4), DTYPE_I32, N, "labels");
    free(count);
    struct linear_ce_args args = { .nll = &nll,
                                   .dx = &dx,
                                   .dw_acc = &dw,
                                   .x = &x,
                                   .w = &w,
                                   .rows = &rows,
                                   .labels = &labels,
                                   .weights = &weights,
                                   .vocab_valid = V };
    args.scratch = bench_scratch(b, op_linear_ce_scratch_bytes(b->dev, &args));
    bench_row(b, &(struct bench_row){ .name = "linear_ce",
                                      .shape = bench_shape(b, "N=%lld C=%lld V=%lld", (long long)N,
                                                           (long long)C, (long long)V),
                                      .work = run_linear_ce,
                                      .context = &args,
                                      .bytes = (double)(2 * R * C * dtype_bytes(b->dtype)) +
                                               (double)(V * C * (dtype_bytes(b->dtype) + 2 * 4)),
                                      .flop = 6.0 * (double)N * (double)C * (double)V,
                                      .m = N,
                                      .n = V,
                                      .k = C });
}

void bench_loss(struct bench *b)
{
    static const int64_t shapes[BENCH_SIZES][3][4] = {
        [BENCH_TINY] = { { 32, 10, 32, 100 } },
        [BENCH_HOST] = { { 300, 300, 128, 1344 },
                         { 512, 512, 512, 8000 },
                         { 512, 512, 1024, 20000 } },
        [BENCH_GPU] = { { 16384, 2704, 4096, 130528 }, { 16384, 8192, 4096, 130528 } },
    };
    for (int64_t s = 0; s < 3 && shapes[b->sizes][s][0] > 0; s++) {
        const int64_t *shape = shapes[b->sizes][s];
        bench_loss_shape(b, shape[0], shape[1], shape[2], shape[3]);
    }
}
