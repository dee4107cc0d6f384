#include "bench/bench.h"

#include "base/num.h"
#include "base/progress.h"
#include "base/rng.h"
#include "kernels/cpu/sgemm.h"

#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES_MAX 201
#define SAMPLES_MIN 5
#define FILL_BYTES  (INT64_C(16) << 20)

/* Of each size class: memory, side of the square product, seconds of one sample at least, so that
 * launching and waiting do not count. */
static const struct {
    int64_t arena_bytes, copy_bytes, square;
    double sample_s;
} sizes[BENCH_SIZES] = {
    [BENCH_TINY] = { INT64_C(16) << 20, INT64_C(1) << 20, 32, 0.0 },
    [BENCH_HOST] = { INT64_C(1) << 30, INT64_C(256) << 20, 1024, 0.0 },
    [BENCH_GPU] = { INT64_C(16) << 30, INT64_C(2) << 30, 8192, 0.005 },
};

static const char *const ceiling_names[BENCH_CEILINGS] = { "copy", "read", "product" };

static void must(err_t rc)
{
    if (rc == ERR_OK) return;
    fprintf(stderr, "bench_ops: %s\n", err_last()->text);
    exit(1);
}

/* ---- memory ---- */

void bench_begin(struct bench *b) { b->arena_used = 0; }

bool bench_fits(const struct bench *b, int64_t bytes)
{
    return b->arena_used + bytes <= b->arena_bytes;
}

void *bench_take(struct bench *b, int64_t bytes)
{
    char *out = b->arena + b->arena_used;
    ASSERT(bench_fits(b, align_up(bytes, 4096)));
    b->arena_used += align_up(bytes, 4096);
    return out;
}

struct tensor bench_1d(struct bench *b, dtype_t dtype, int64_t count, const char *name)
{
    return tensor_1d(bench_take(b, count * dtype_bytes(dtype)), dtype, count, name);
}

struct tensor bench_2d(struct bench *b, dtype_t dtype, int64_t rows, int64_t cols, const char *name)
{
    return tensor_2d(bench_take(b, rows * cols * dtype_bytes(dtype)), dtype, rows, cols, name);
}

struct scratch bench_scratch(struct bench *b, int64_t bytes)
{
    return (struct scratch){ bench_take(b, bytes), bytes };
}

void *bench_upload(struct bench *b, const void *values, int64_t bytes)
{
    void *out = bench_take(b, bytes);
    must(dev_upload(b->dev, out, values, bytes));
    return out;
}

const char *bench_shape(struct bench *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(b->shape, sizeof b->shape, format, args);
    va_end(args);
    return b->shape;
}

/* Random bf16 numbers of magnitude 1/128 to 1: as f32 they are the same with more digits, as f16
 * numbers from 1 to 2. Matrix units draw less power, and run faster, on constant data. */
static void fill(struct bench *b)
{
    uint16_t *block = malloc((size_t)FILL_BYTES);
    if (block == NULL) exit(1);
    for (int64_t i = 0; i < FILL_BYTES / 2; i += 4) {
        const uint64_t bits = rng_u64(1, RNG_TEST, (uint64_t)i);
        for (int k = 0; k < 4; k++) {
            const uint32_t r = (uint32_t)(bits >> (16 * k)) & 0xffff;
            block[i + k] = (uint16_t)((r & 0x807f) | (120 + (r >> 7) % 7) << 7);
        }
    }
    for (int64_t at = 0; at < b->arena_bytes; at += FILL_BYTES)
        must(dev_upload(b->dev, b->arena + at, block, min_i64(FILL_BYTES, b->arena_bytes - at)));
    for (int64_t at = 0; at < 2 * b->copy_bytes; at += FILL_BYTES)
        must(dev_upload(b->dev, b->copy_area + at, block,
                        min_i64(FILL_BYTES, 2 * b->copy_bytes - at)));
    free(block);
}

/* ---- ceilings ---- */

static err_t run_copy(struct dev *dev, const void *context)
{
    const struct bench *b = context;
    return dev_copy(dev, DEV_COMPUTE, b->copy_area + b->copy_bytes, b->copy_area, b->copy_bytes);
}

static err_t run_host_copy(struct dev *dev, const void *context)
{
    const struct bench *b = context;
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < b->copy_bytes; i += 1 << 18)
        memcpy(b->copy_area + b->copy_bytes + i, b->copy_area + i, 1 << 18);
    return ERR_OK;
}

static err_t run_host_read(struct dev *dev, const void *context)
{
    const struct bench *b = context;
    const float *from = (const float *)(const void *)b->copy_area;
    float total = 0;
#pragma omp parallel for num_threads(dev->threads) schedule(static) reduction(+ : total)
    for (int64_t i = 0; i < b->copy_bytes / 4; i += 1 << 16) {
        float lanes[64] = { 0 };
        for (int64_t j = i; j < i + (1 << 16); j += 64)
            for (int l = 0; l < 64; l++) lanes[l] += from[j + l];
        for (int l = 0; l < 64; l++) total += lanes[l];
    }
    volatile float keep = total;
    (void)keep;
    return ERR_OK;
}

static err_t run_host_product(struct dev *dev, const void *context)
{
    omp_set_num_threads(dev->threads);
    if (!sgemm(context)) RAISE(NOMEM, "product: no memory");
    return ERR_OK;
}

static err_t run_square(struct dev *dev, const void *context)
{
    return op_linear_fwd(dev, &((const struct bench *)context)->square);
}

/* What to run in turns with an operator, and how much that is in bytes or FLOP. */
struct ceiling {
    bench_work work;
    const void *context;
    double amount;
    struct sgemm_args product;
};

static void ceiling_of(struct ceiling *c, struct bench *b, enum bench_ceiling kind,
                       const struct bench_row *row)
{
    *c = (struct ceiling){ .context = b };
    if (kind == BENCH_PRODUCT && b->on_host) {
        const bool square = row == NULL || row->m == 0;
        const int64_t side = sizes[b->sizes].square;
        const int64_t m = square ? side : row->m, n = square ? side : row->n;
        const int64_t k = square ? side : row->k;
        float *area = (float *)(void *)b->copy_area;
        c->product = (struct sgemm_args){ .b_transposed = true,
                                          .m = m,
                                          .n = n,
                                          .k = k,
                                          .alpha = 1.0f,
                                          .a = area,
                                          .lda = k,
                                          .b = area + m * k,
                                          .ldb = k,
                                          .c = area + b->copy_bytes / 4,
                                          .ldc = n };
        c->work = run_host_product;
        c->context = &c->product;
        c->amount = 2.0 * (double)m * (double)n * (double)k;
    } else if (kind == BENCH_PRODUCT) {
        const double n = (double)b->square.y->dim[0];
        c->work = run_square;
        c->amount = 2.0 * n * n * n;
    } else if (kind == BENCH_READ && b->on_host) {
        c->work = run_host_read;
        c->amount = (double)b->copy_bytes;
    } else {
        c->work = b->on_host ? run_host_copy : run_copy;
        c->amount = 2.0 * (double)b->copy_bytes;
    }
}

/* ---- timing ---- */

/* Seconds of one call, as the mean of `calls`. */
static err_t time_calls(double *out, struct dev *dev, bench_work work, const void *context,
                        int calls)
{
    const double begin = omp_get_wtime();
    for (int i = 0; i < calls; i++) TRY(work(dev, context));
    TRY(dev_sync(dev));
    *out = (omp_get_wtime() - begin) / calls;
    return ERR_OK;
}

/* One call that does not count, one that tells how many make a sample. */
static err_t calls_per_sample(int *out, struct bench *b, bench_work work, const void *context)
{
    double seconds;
    TRY(time_calls(&seconds, b->dev, work, context, 1));
    *out = 1;
    if (sizes[b->sizes].sample_s == 0.0) return ERR_OK;
    TRY(time_calls(&seconds, b->dev, work, context, 1));
    const double calls = sizes[b->sizes].sample_s / seconds;
    *out = calls < 1.0 ? 1 : calls > 500.0 ? 500 : (int)calls;
    return ERR_OK;
}

/* Median seconds of `work` and of `other`, in turns. */
static err_t time_in_turns(double *mine_s, double *other_s, struct bench *b, bench_work work,
                           const void *context, const struct ceiling *other)
{
    double mine[SAMPLES_MAX], theirs[SAMPLES_MAX];
    int count = 0, my_calls, other_calls;
    TRY(calls_per_sample(&my_calls, b, work, context));
    TRY(calls_per_sample(&other_calls, b, other->work, other->context));
    const double begin = omp_get_wtime();
    do {
        TRY(time_calls(&mine[count], b->dev, work, context, my_calls));
        TRY(time_calls(&theirs[count], b->dev, other->work, other->context, other_calls));
        count++;
    } while (count < SAMPLES_MAX && (count < SAMPLES_MIN || omp_get_wtime() - begin < b->seconds));
    *mine_s = median_f64(mine, count);
    *other_s = median_f64(theirs, count);
    return ERR_OK;
}

/* ---- rows ---- */

static void print_row(struct bench *b, const struct bench_row *row, enum bench_ceiling kind,
                      double seconds, double rate)
{
    const bool product = kind == BENCH_PRODUCT;
    const double floor_s = (product ? row->flop : row->bytes) / rate;
    printf(
        "%-14s %-34s %8.1f MB %9.2f GFLOP  floor %8.3f ms  measured %8.3f ms %6.1f %%  %8.1f %s\n",
        row->name, row->shape, row->bytes * 1e-6, row->flop * 1e-9, floor_s * 1e3, seconds * 1e3,
        100 * floor_s / seconds, (product ? row->flop : row->bytes) / seconds * 1e-9,
        product ? "GFLOP/s" : "GB/s");
    fflush(stdout);
    if (b->json == NULL) return;
    fprintf(b->json,
            "{\"operator\":\"%s\",\"shape\":\"%s\",\"dtype\":\"%s\",\"bytes\":%.0f,\"flop\":%.0f,"
            "\"ceiling\":\"%s\",\"ceiling_rate\":%.4g,\"floor_ms\":%.5f,\"ms\":%.5f,"
            "\"of_floor\":%.4f}\n",
            row->name, row->shape, dtype_name(b->dtype), row->bytes, row->flop, ceiling_names[kind],
            rate, floor_s * 1e3, seconds * 1e3, floor_s / seconds);
    fflush(b->json);
}

static err_t measure_row(struct bench *b, const struct bench_row *row)
{
    const enum bench_ceiling memory = row->reads_only ? BENCH_READ : BENCH_COPY;
    const bool product = row->flop / b->nominal[BENCH_PRODUCT] > row->bytes / b->nominal[memory];
    const enum bench_ceiling kind = product ? BENCH_PRODUCT : memory;
    struct ceiling ceiling;
    double seconds, other_s;
    ceiling_of(&ceiling, b, kind, row);
    TRY(time_in_turns(&seconds, &other_s, b, row->work, row->context, &ceiling));
    print_row(b, row, kind, seconds, ceiling.amount / other_s);
    return ERR_OK;
}

void bench_row(struct bench *b, const struct bench_row *row)
{
    const err_t rc = measure_row(b, row);
    if (rc == ERR_OK) return;
    const bool absent = rc == ERR_UNSUPPORTED;
    printf("%-14s %-34s %s: %s\n", row->name, row->shape, absent ? "not on this device" : "FAILED",
           err_last()->text);
    fflush(stdout);
    if (!absent) b->failed++;
    if (b->json != NULL)
        fprintf(b->json, "{\"operator\":\"%s\",\"shape\":\"%s\",\"dtype\":\"%s\",\"%s\":true}\n",
                row->name, row->shape, dtype_name(b->dtype), absent ? "absent" : "failed");
}

/* ---- opening ---- */

static void nominal_rates(struct bench *b)
{
    for (int kind = 0; kind < BENCH_CEILINGS; kind++) {
        struct ceiling c;
        double seconds, again;
        ceiling_of(&c, b, (enum bench_ceiling)kind, NULL);
        const err_t rc = time_in_turns(&seconds, &again, b, c.work, c.context, &c);
        b->nominal[kind] = HUGE_VAL; /* never the floor */
        if (rc == ERR_UNSUPPORTED) continue;
        must(rc);
        b->nominal[kind] = c.amount / (seconds < again ? seconds : again);
        printf("ceiling %-7s %10.1f %s\n", ceiling_names[kind], b->nominal[kind] * 1e-9,
               kind == BENCH_PRODUCT ? "GFLOP/s" : "GB/s");
        if (b->json != NULL)
            fprintf(b->json, "{\"ceiling\":\"%s\",\"dtype\":\"%s\",\"rate\":%.4g}\n",
                    ceiling_names[kind], dtype_name(b->dtype), b->nominal[kind]);
    }
}

static void open_square(struct bench *b)
{
    const int64_t n = sizes[b->sizes].square;
    const int64_t bytes = n * n * dtype_bytes(b->dtype);
    b->square_x = tensor_2d(b->copy_area, b->dtype, n, n, "x");
    b->square_w = tensor_2d(b->copy_area + bytes, b->dtype, n, n, "w");
    b->square_y = tensor_2d(b->copy_area + 2 * bytes, b->dtype, n, n, "y");
    b->square = (struct linear_fwd_args){ .y = &b->square_y, .x = &b->square_x, .w = &b->square_w };
    const int64_t scratch = op_linear_fwd_scratch_bytes(b->dev, &b->square);
    void *data = NULL;
    if (scratch > 0) must(dev_alloc(b->dev, &data, scratch, "scratch"));
    b->square.scratch = (struct scratch){ data, scratch };
}

void bench_open(struct bench *b, const char *device, int threads)
{
    void *arena, *copy_area;
    must(dev_open(&b->dev, device, threads));
    b->on_host = strcmp(device, "cpu") == 0;
    if (b->sizes == BENCH_SIZES)
        b->sizes = b->on_host                       ? BENCH_HOST
                   : strncmp(device, "emu", 3) == 0 ? BENCH_TINY
                                                    : BENCH_GPU;
    b->copy_bytes = sizes[b->sizes].copy_bytes;
    b->arena_bytes = sizes[b->sizes].arena_bytes;
    must(dev_alloc(b->dev, &arena, b->arena_bytes, "arena"));
    must(dev_alloc(b->dev, &copy_area, 2 * b->copy_bytes, "copy area"));
    b->arena = arena;
    b->copy_area = copy_area;
    fill(b);
    open_square(b);
    printf("device %s (%s), %s, %d threads, host products by %s\n", b->dev->ops->name,
           b->dev->info.name, dtype_name(b->dtype), b->dev->threads, sgemm_name());
    nominal_rates(b);
}

void bench_close(struct bench *b)
{
    dev_free(b->dev, b->square.scratch.data);
    dev_free(b->dev, b->arena);
    dev_free(b->dev, b->copy_area);
    dev_close(b->dev);
}
