/*
 * bench_ops - how fast the operators of the cpu backend are, beside what this machine can do.
 *
 *     bench_ops [--threads N] [--only PREFIX]
 *
 * Every figure is the median of timed calls, taken in turns with those of its ceiling, so that a
 * busy machine slows both: for products, oneDNN's own multi-threaded dnnl_sgemm on the same shape;
 * for what moves memory, a parallel copy or read of 256 MiB.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/ops_attn.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_loss.h"
#include "kernels/ops_norm.h"
#include "kernels/ops_optim.h"

#include "base/num.h"
#include "base/rng.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES_MAX  201
#define SECONDS_EACH 0.4
#define ARENA_FLOATS (INT64_C(1) << 28)
#define COPY_FLOATS  (INT64_C(1) << 26)

struct bench {
    struct dev *dev;
    const char *only;
    float *copy_area; /* 2 * COPY_FLOATS, touched by the ceilings alone */
    float *arena;     /* every operand of every row is carved from this */
    int64_t arena_used;
};

/* Errors end a benchmark. */
static void must(err_t rc)
{
    if (rc == ERR_OK) return;
    fprintf(stderr, "bench_ops: %s\n", err_last()->text);
    exit(1);
}

static float *take(struct bench *b, int64_t floats)
{
    float *out = b->arena + b->arena_used;
    b->arena_used += align_up(floats, 1024);
    ASSERT(b->arena_used <= ARENA_FLOATS);
    return out;
}

static struct tensor take_2d(struct bench *b, int64_t rows, int64_t cols, const char *name)
{
    return tensor_2d(take(b, rows * cols), DTYPE_F32, rows, cols, name);
}

static struct tensor take_1d(struct bench *b, int64_t count, const char *name)
{
    return tensor_1d(take(b, count), DTYPE_F32, count, name);
}

static struct scratch take_scratch(struct bench *b, int64_t bytes)
{
    return (struct scratch){ take(b, div_ceil(bytes, 4)), bytes };
}

static int by_value(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double median(double *sample, int count)
{
    qsort(sample, (size_t)count, sizeof *sample, by_value);
    return sample[count / 2];
}

typedef void (*work_fn)(struct bench *b, void *context);

/* Median seconds of `work`, and of `other` in turns with it. */
static double time_of(struct bench *b, work_fn work, work_fn other, void *context,
                      double *other_seconds)
{
    double mine[SAMPLES_MAX], theirs[SAMPLES_MAX];
    int count = 0;
    work(b, context);
    const double begin = omp_get_wtime();
    do {
        const double start = omp_get_wtime();
        work(b, context);
        const double middle = omp_get_wtime();
        other(b, context);
        mine[count] = middle - start;
        theirs[count] = omp_get_wtime() - middle;
        count++;
    } while (count < SAMPLES_MAX && (omp_get_wtime() - begin < SECONDS_EACH || count < 5));
    *other_seconds = median(theirs, count);
    return median(mine, count);
}

static bool wanted(const struct bench *b, const char *name)
{
    return strncmp(name, b->only, strlen(b->only)) == 0;
}

static void print_row(const char *name, const char *shape, double seconds, double rate,
                      const char *unit, double ceiling)
{
    printf("%-14s %-30s %9.3f ms %8.1f %-7s %6.1f %% of %.1f\n", name, shape, seconds * 1e3,
           rate * 1e-9, unit, 100 * rate / ceiling, ceiling * 1e-9);
    fflush(stdout);
}

/* ---- ceilings ---- */

#define COPY_BYTES (2.0 * 4 * (double)COPY_FLOATS) /* read and written */
#define READ_BYTES (4.0 * (double)COPY_FLOATS)

static void copy_block(struct bench *b, void *context)
{
    (void)context;
    float *from = b->copy_area, *to = from + COPY_FLOATS;
#pragma omp parallel for num_threads(b->dev->threads) schedule(static)
    for (int64_t i = 0; i < COPY_FLOATS; i += 1 << 16) memcpy(to + i, from + i, 4 << 16);
}

static void read_block(struct bench *b, void *context)
{
    (void)context;
    const float *from = b->copy_area;
    float total = 0;
#pragma omp parallel for num_threads(b->dev->threads) schedule(static) reduction(+ : total)
    for (int64_t i = 0; i < COPY_FLOATS; i += 1 << 16) {
        float lanes[64] = { 0 };
        for (int64_t j = i; j < i + (1 << 16); j += 64)
            for (int l = 0; l < 64; l++) lanes[l] += from[j + l];
        for (int l = 0; l < 64; l++) total += lanes[l];
    }
    volatile float keep = total;
    (void)keep;
}

/* One row of the table for work that moves `bytes`, against copying or reading memory. */
static void bench_memory(struct bench *b, const char *name, const char *shape, work_fn work,
                         void *context, double bytes, bool reads_only)
{
    const work_fn peer = reads_only ? read_block : copy_block;
    double ceiling = 0;
    const double seconds = time_of(b, work, peer, context, &ceiling);
    print_row(name, shape, seconds, bytes / seconds, "GB/s",
              (reads_only ? READ_BYTES : COPY_BYTES) / ceiling);
}

/* ---- products ---- */

static void run_gemm(struct bench *b, void *context) { must(gemm_f32(b->dev, context)); }

static void run_sgemm(struct bench *b, void *context)
{
    const struct gemm_args *g = context;
    omp_set_num_threads(b->dev->threads);
    dnnl_sgemm(g->a_transposed ? 'T' : 'N', g->b_transposed ? 'T' : 'N', g->m, g->n, g->k, 1.0f,
               g->a, g->lda, g->b, g->ldb, g->accumulate ? 1.0f : 0.0f, g->c, g->ldc);
}

static void bench_gemm(struct bench *b)
{
    static const int64_t shapes[][3] = {
        { 500, 384, 128 },    { 500, 128, 512 },    { 2000, 1536, 512 },  { 4000, 512, 2048 },
        { 2048, 4096, 1024 }, { 2048, 4096, 4096 }, { 4096, 4096, 2048 }, { 128, 384, 4000 },
        { 512, 2048, 4000 },
    };
    static const char *const forms[] = { "NN", "NT", "TN" };
    for (int64_t s = 0; s < COUNT_OF(shapes); s++) {
        const int64_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        for (int form = 0; form < 3; form++) {
            b->arena_used = 0;
            struct gemm_args g = {
                .a_transposed = forms[form][0] == 'T',
                .b_transposed = forms[form][1] == 'T',
                .m = m, .n = n, .k = k,
                .a = take(b, m * k), .b = take(b, n * k), .b_dtype = DTYPE_F32,
                .c = take(b, m * n), .ldc = n,
                .accumulate = form == 2,
            };
            g.lda = g.a_transposed ? m : k;
            g.ldb = g.b_transposed ? k : n;
            char shape[64];
            snprintf(shape, sizeof shape, "%s %ldx%ldx%ld", forms[form], (long)m, (long)n, (long)k);
            const double flop = 2.0 * (double)m * (double)n * (double)k;
            double plain = 0;
            const double seconds = time_of(b, run_gemm, run_sgemm, &g, &plain);
            print_row("gemm", shape, seconds, flop / seconds, "GFLOP/s", flop / plain);
        }
    }
}

/* Plain numbers in either format: random bits would be infinities and subnormals. */
static void fill_16(struct tensor *t)
{
    uint16_t *out = t->data;
    for (int64_t i = 0; i < tensor_count(t); i++)
        out[i] = (uint16_t)((t->dtype == DTYPE_F16 ? 0x2c00 : 0x3d00) + i % 61);
}

static void run_linear(struct bench *b, void *context) { must(op_linear_fwd(b->dev, context)); }

static void bench_decode(struct bench *b)
{
    static const dtype_t formats[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16 };
    const int64_t N = 12288, K = 4096;
    for (int64_t f = 0; f < COUNT_OF(formats); f++) {
        for (int64_t R = 1; R <= 16; R *= 2) {
            b->arena_used = 0;
            struct tensor x = take_2d(b, R, K, "x"), w = take_2d(b, N, K, "w");
            struct tensor y = take_2d(b, R, N, "y");
            w.dtype = formats[f];
            if (w.dtype != DTYPE_F32) fill_16(&w);
            struct linear_fwd_args a = { .y = &y, .x = &x, .w = &w };
            a.scratch = take_scratch(b, op_linear_fwd_scratch_bytes(b->dev, &a));
            char shape[64];
            snprintf(shape, sizeof shape, "R=%ld %ldx%ld %s", (long)R, (long)N, (long)K,
                     dtype_name(formats[f]));
            bench_memory(b, "linear_decode", shape, run_linear, &a,
                         (double)(N * K * dtype_bytes(formats[f])), true);
        }
    }
}

struct linear_step {
    struct linear_fwd_args fwd;
    struct linear_bwd_args bwd;
    struct gemm_args plain;
};

static void run_linear_fwd(struct bench *b, void *context)
{
    must(op_linear_fwd(b->dev, &((struct linear_step *)context)->fwd));
}

static void run_linear_bwd(struct bench *b, void *context)
{
    must(op_linear_bwd(b->dev, &((struct linear_step *)context)->bwd));
}

static void run_plain(struct bench *b, void *context)
{
    run_sgemm(b, &((struct linear_step *)context)->plain);
}

/* An MLP's first layer forward and its second one backward, against bare products. */
static void bench_linear(struct bench *b)
{
    static const int64_t shapes[][3] = {
        { 500, 512, 128 }, { 2000, 2048, 512 }, { 2048, 4096, 1024 }
    };
    for (int64_t s = 0; s < COUNT_OF(shapes); s++) {
        const int64_t R = shapes[s][0], N = shapes[s][1], K = shapes[s][2];
        b->arena_used = 0;
        struct tensor x = take_2d(b, R, K, "x"), w = take_2d(b, N, K, "w");
        struct tensor w2 = take_2d(b, K, N, "w2");
        struct tensor y = take_2d(b, R, N, "y"), pre = take_2d(b, R, N, "pre");
        struct tensor bias = take_1d(b, N, "bias"), dw = take_2d(b, K, N, "dw");
        struct tensor db = take_1d(b, K, "db"), dpre = take_2d(b, R, N, "dpre");
        struct linear_step step = {
            .fwd = { .y = &y, .pre = &pre, .x = &x, .w = &w, .bias = &bias, .act = ACT_GELU_TANH },
            .bwd = { .dx = &dpre, .dw_acc = &dw, .db_acc = &db, .dy = &x, .x = &y, .w = &w2,
                     .x_act = ACT_GELU_TANH, .x_pre = &pre },
            .plain = { .b_transposed = true, .m = R, .n = N, .k = K, .a = x.data, .lda = K,
                       .b = w.data, .ldb = K, .c = y.data, .ldc = N },
        };
        step.fwd.scratch = take_scratch(b, op_linear_fwd_scratch_bytes(b->dev, &step.fwd));
        step.bwd.scratch = take_scratch(b, op_linear_bwd_scratch_bytes(b->dev, &step.bwd));
        char shape[64];
        snprintf(shape, sizeof shape, "gelu %ldx%ldx%ld", (long)R, (long)N, (long)K);
        const double flop = 2.0 * (double)R * (double)N * (double)K;
        double plain = 0;
        double seconds = time_of(b, run_linear_fwd, run_plain, &step, &plain);
        print_row("linear_fwd", shape, seconds, flop / seconds, "GFLOP/s", flop / plain);
        seconds = time_of(b, run_linear_bwd, run_plain, &step, &plain);
        print_row("linear_bwd", shape, seconds, 2 * flop / seconds, "GFLOP/s", flop / plain);
    }
}

/* ---- attention ---- */

struct attn_step {
    struct attn_fwd_args fwd;
    struct attn_bwd_args bwd;
    struct gemm_args plain;
};

static void run_attn_fwd(struct bench *b, void *context)
{
    must(op_attn_fwd(b->dev, &((struct attn_step *)context)->fwd));
}

static void run_attn_bwd(struct bench *b, void *context)
{
    must(op_attn_bwd(b->dev, &((struct attn_step *)context)->bwd));
}

static void run_attn_plain(struct bench *b, void *context)
{
    run_sgemm(b, &((struct attn_step *)context)->plain);
}

/* Segments of `len` tokens of which `ctx` are prefix; the ceiling is a square product of 1024. */
static void bench_attn_shape(struct bench *b, int64_t R, int64_t H, int64_t D, int64_t len,
                             int64_t ctx)
{
    b->arena_used = 0;
    const int64_t W = 3 * H * D, S = R / len;
    struct tensor qkv = take_2d(b, R, W, "qkv"), dqkv = take_2d(b, R, W, "dqkv");
    struct tensor out = take_2d(b, R, H * D, "out"), dout = take_2d(b, R, H * D, "dout");
    struct tensor lse = take_2d(b, R, H, "lse");
    struct attn_segment *host = (struct attn_segment *)take(b, 3 * S);
    const struct tensor segments = tensor_2d(host, DTYPE_I32, S, 3, "segments");
    double pairs = 0;
    for (int64_t s = 0; s < S; s++) {
        host[s] = (struct attn_segment){ (int32_t)(s * len), (int32_t)ctx, (int32_t)len };
        for (int64_t i = 0; i < len; i++) pairs += (double)max_i64(ctx, i + 1);
    }
    const struct qkv_layout layout = qkv_layout_interleaved(H, D);
    struct attn_step step = {
        .fwd = { .out = &out, .lse = &lse, .qkv = &qkv, .layout = layout, .segments = &segments,
                 .segments_host = host, .scale = 0.1 },
        .bwd = { .dqkv = &dqkv, .dout = &dout, .out = &out, .lse = &lse, .qkv = &qkv,
                 .layout = layout, .segments = &segments, .segments_host = host, .scale = 0.1 },
        .plain = { .m = 1024, .n = 1024, .k = 1024, .a = take(b, 1 << 20), .lda = 1024,
                   .b = take(b, 1 << 20), .ldb = 1024, .c = take(b, 1 << 20), .ldc = 1024 },
    };
    step.fwd.scratch = take_scratch(b, op_attn_fwd_scratch_bytes(b->dev, &step.fwd));
    step.bwd.scratch = take_scratch(b, op_attn_bwd_scratch_bytes(b->dev, &step.bwd));
    char shape[64];
    snprintf(shape, sizeof shape, "R=%ld H=%ld D=%ld len=%ld ctx=%ld", (long)R, (long)H, (long)D,
             (long)len, (long)ctx);
    double plain = 0;
    const double flop = 4.0 * (double)D * (double)H * pairs, plain_flop = 2.0 * (1 << 30);
    double seconds = time_of(b, run_attn_fwd, run_attn_plain, &step, &plain);
    print_row("attn_fwd", shape, seconds, flop / seconds, "GFLOP/s", plain_flop / plain);
    seconds = time_of(b, run_attn_bwd, run_attn_plain, &step, &plain);
    print_row("attn_bwd", shape, seconds, 2.5 * flop / seconds, "GFLOP/s", plain_flop / plain);
}

static void bench_attn(struct bench *b)
{
    bench_attn_shape(b, 1024, 4, 32, 128, 100);
    bench_attn_shape(b, 2048, 8, 64, 512, 400);
    bench_attn_shape(b, 2048, 8, 128, 1024, 800);
    bench_attn_shape(b, 2048, 8, 128, 2048, 0);
}

static void run_decode_attn(struct bench *b, void *context)
{
    must(op_decode_attn(b->dev, context));
}

static void bench_decode_attn(struct bench *b)
{
    b->arena_used = 0;
    const int64_t B = 4, H = 32, D = 128, room = 1024, W = 3 * H * D;
    struct tensor k = tensor_3d(take(b, B * room * H * D), DTYPE_F32, B, room, H * D, "k");
    struct tensor v = tensor_3d(take(b, B * room * H * D), DTYPE_F32, B, room, H * D, "v");
    struct tensor qkv = take_2d(b, B, W, "qkv"), out = take_2d(b, B, H * D, "out");
    int32_t *slots = (int32_t *)take(b, B), *lens = (int32_t *)take(b, B);
    for (int32_t i = 0; i < B; i++) {
        slots[i] = i;
        lens[i] = (int32_t)room - 1;
    }
    const struct tensor slots_t = tensor_1d(slots, DTYPE_I32, B, "slots");
    const struct tensor lens_t = tensor_1d(lens, DTYPE_I32, B, "lens");
    struct decode_attn_args a = { .out = &out, .k_cache = &k, .v_cache = &v, .qkv = &qkv,
                                  .layout = qkv_layout_interleaved(H, D), .slots = &slots_t,
                                  .lens = &lens_t, .scale = 0.1 };
    a.scratch = take_scratch(b, op_decode_attn_scratch_bytes(b->dev, &a));
    bench_memory(b, "decode_attn", "B=4 H=32 D=128 len=1024", run_decode_attn, &a,
                 2.0 * 4 * (double)(B * room * H * D), true);
}

/* ---- loss ---- */

struct loss_step {
    struct linear_ce_args args;
    struct gemm_args plain;
};

static void run_loss(struct bench *b, void *context)
{
    must(op_linear_ce(b->dev, &((struct loss_step *)context)->args));
}

static void run_loss_plain(struct bench *b, void *context)
{
    run_sgemm(b, &((struct loss_step *)context)->plain);
}

static void bench_loss(struct bench *b)
{
    static const int64_t shapes[][3] = {
        { 300, 128, 1344 }, { 512, 512, 8000 }, { 512, 1024, 20000 }
    };
    for (int64_t s = 0; s < COUNT_OF(shapes); s++) {
        const int64_t N = shapes[s][0], C = shapes[s][1], V = shapes[s][2];
        b->arena_used = 0;
        struct tensor x = take_2d(b, N, C, "x"), w = take_2d(b, V, C, "w");
        struct tensor dx = take_2d(b, N, C, "dx"), dw = take_2d(b, V, C, "dw");
        struct tensor nll = take_1d(b, N, "nll"), weights = take_1d(b, N, "weights");
        int32_t *rows = (int32_t *)take(b, N), *labels = (int32_t *)take(b, N);
        for (int32_t i = 0; i < N; i++) {
            rows[i] = i;
            labels[i] = i;
        }
        const struct tensor rows_t = tensor_1d(rows, DTYPE_I32, N, "rows");
        const struct tensor labels_t = tensor_1d(labels, DTYPE_I32, N, "labels");
        struct loss_step step = {
            .args = { .nll = &nll, .dx = &dx, .dw_acc = &dw, .x = &x, .w = &w, .rows = &rows_t,
                      .labels = &labels_t, .weights = &weights, .vocab_valid = V },
            .plain = { .b_transposed = true, .m = N, .n = V, .k = C, .a = x.data, .lda = C,
                       .b = w.data, .ldb = C, .c = take(b, N * V), .ldc = V },
        };
        step.args.scratch = take_scratch(b, op_linear_ce_scratch_bytes(b->dev, &step.args));
        char shape[64];
        snprintf(shape, sizeof shape, "N=%ld C=%ld V=%ld", (long)N, (long)C, (long)V);
        const double flop = 2.0 * (double)N * (double)C * (double)V;
        double plain = 0;
        const double seconds = time_of(b, run_loss, run_loss_plain, &step, &plain);
        print_row("linear_ce", shape, seconds, 3 * flop / seconds, "GFLOP/s", flop / plain);
    }
}

/* ---- what moves memory ---- */

static void run_norm_fwd(struct bench *b, void *context)
{
    must(op_residual_norm_fwd(b->dev, context));
}

static void run_norm_bwd(struct bench *b, void *context)
{
    must(op_residual_norm_bwd(b->dev, context));
}

static void bench_norm(struct bench *b)
{
    static const int64_t shapes[][2] = { { 65536, 128 }, { 16384, 512 }, { 4096, 4096 } };
    for (int64_t s = 0; s < COUNT_OF(shapes); s++) {
        const int64_t R = shapes[s][0], C = shapes[s][1];
        b->arena_used = 0;
        struct tensor x = take_2d(b, R, C, "x"), y = take_2d(b, R, C, "y");
        struct tensor h = take_2d(b, R, C, "h");
        struct tensor residual = take_2d(b, R, C, "residual"), mean = take_1d(b, R, "mean");
        struct tensor rstd = take_1d(b, R, "rstd"), gamma = take_1d(b, C, "gamma");
        struct tensor beta = take_1d(b, C, "beta"), dgamma = take_1d(b, C, "dgamma");
        struct tensor dbeta = take_1d(b, C, "dbeta");
        struct residual_norm_fwd_args fwd = { .kind = NORM_LAYER, .y = &y, .h = &h, .mean = &mean,
                                              .rstd = &rstd, .x = &x, .residual = &residual,
                                              .gamma = &gamma, .beta = &beta, .alpha = 7.48,
                                              .eps = 1e-5 };
        struct residual_norm_bwd_args bwd = {
            .kind = NORM_LAYER, .residual_from = RESIDUAL_FROM_OUTPUT, .dh = &y,
            .dgamma_acc = &dgamma, .dbeta_acc = &dbeta, .dy = &x, .dresidual = &residual, .h = &h,
            .mean = &mean, .rstd = &rstd, .gamma = &gamma, .alpha = 7.48
        };
        bwd.scratch = take_scratch(b, op_residual_norm_bwd_scratch_bytes(b->dev, &bwd));
        char shape[64];
        snprintf(shape, sizeof shape, "%ldx%ld", (long)R, (long)C);
        const double bytes = 4.0 * 4 * (double)(R * C);
        bench_memory(b, "norm_fwd", shape, run_norm_fwd, &fwd, bytes, false);
        bench_memory(b, "norm_bwd", shape, run_norm_bwd, &bwd, bytes, false);
    }
}

static void run_act(struct bench *b, void *context) { must(op_act_fwd(b->dev, context)); }

static void bench_act(struct bench *b)
{
    static const char *const names[] = { "", "gelu_tanh", "swiglu" };
    for (enum act_kind act = ACT_GELU_TANH; act <= ACT_SWIGLU; act++) {
        const int64_t R = 4096, N = 8192, width = act == ACT_SWIGLU ? 2 * N : N;
        b->arena_used = 0;
        struct tensor y = take_2d(b, R, N, "y"), pre = take_2d(b, R, width, "pre");
        struct act_fwd_args a = { .y = &y, .pre = &pre, .act = act };
        bench_memory(b, "act_fwd", names[act], run_act, &a, 4.0 * (double)(R * (N + width)), false);
    }
}

static void run_adamw(struct bench *b, void *context)
{
    must(op_adamw_segments(b->dev, context));
}

static void run_sumsq(struct bench *b, void *context) { must(op_sumsq_chunks(b->dev, context)); }

static void run_add(struct bench *b, void *context) { must(op_add(b->dev, context)); }

static void bench_optim(struct bench *b)
{
    b->arena_used = 0;
    const int64_t n = INT64_C(1) << 25;
    struct tensor weight = take_1d(b, n, "weight"), grad = take_1d(b, n, "grad");
    struct tensor m = take_1d(b, n, "exp_avg"), v = take_1d(b, n, "exp_avg_sq");
    struct tensor out = tensor_1d(take(b, 2 * n / SUMSQ_CHUNK), DTYPE_F64, n / SUMSQ_CHUNK, "out");
    memset(v.data, 0, (size_t)n * sizeof(float));
    const struct adamw_segment all = { .count = n, .decay = true };
    struct adamw_segments_args adamw = { .weight = &weight, .exp_avg = &m, .exp_avg_sq = &v,
                                         .grad = &grad, .segments = &all, .segment_count = 1,
                                         .lr = 1e-5, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8,
                                         .weight_decay = 0.1, .grad_scale = 1, .update = 1 };
    const struct sumsq_segment whole = { 0, n, 0 };
    struct sumsq_chunks_args sumsq = { .out = &out, .x = &grad, .segments = &whole,
                                       .segment_count = 1 };
    struct add_args add = { .y_acc = &weight, .x = &grad };
    const double floats = 4.0 * (double)n;
    bench_memory(b, "adamw", "32 Mi", run_adamw, &adamw, 7 * floats, false);
    bench_memory(b, "sumsq", "32 Mi", run_sumsq, &sumsq, floats, true);
    bench_memory(b, "add", "32 Mi", run_add, &add, 3 * floats, false);
}

static const struct {
    const char *name;
    void (*run)(struct bench *b);
} benches[] = {
    { "gemm", bench_gemm },        { "linear", bench_linear }, { "decode", bench_decode },
    { "attn", bench_attn },        { "decode_attn", bench_decode_attn }, { "loss", bench_loss },
    { "norm", bench_norm },        { "act", bench_act },       { "optim", bench_optim },
};

int main(int argc, char **argv)
{
    struct bench b = { .only = "" };
    int threads = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            threads = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            b.only = argv[++i];
        } else {
            printf("usage: bench_ops [--threads N] [--only PREFIX]\nprefixes:");
            for (int64_t k = 0; k < COUNT_OF(benches); k++) printf(" %s", benches[k].name);
            printf("\n");
            return strcmp(argv[i], "--help") == 0 ? 0 : 2;
        }
    }
    must(dev_open(&b.dev, "cpu", threads));
    void *arena, *copy_area;
    must(dev_alloc(b.dev, &arena, ARENA_FLOATS * (int64_t)sizeof(float), "arena"));
    must(dev_alloc(b.dev, &copy_area, 2 * COPY_FLOATS * (int64_t)sizeof(float), "copy area"));
    b.arena = arena;
    b.copy_area = copy_area;
#pragma omp parallel for num_threads(b.dev->threads)
    for (int64_t i = 0; i < ARENA_FLOATS; i++)
        b.arena[i] = (float)((i * 7919) % 2001 - 1000) * 1e-3f;

    printf("%d threads\n", b.dev->threads);
    for (int64_t k = 0; k < COUNT_OF(benches); k++)
        if (wanted(&b, benches[k].name)) benches[k].run(&b);
    dev_free(b.dev, arena);
    dev_free(b.dev, copy_area);
    dev_close(b.dev);
    return 0;
}
