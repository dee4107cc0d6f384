/*
 * bench.h - what the rows of bench_ops share: memory on the device, timing beside a ceiling, and
 * one line per operator.
 *
 *     bench_begin(b);
 *     struct tensor x = bench_2d(b, b->dtype, R, C, "x");
 *     ...
 *     bench_row(b, &(struct bench_row){ .name = "norm_fwd", .work = run, .context = &args,
 *                                       .bytes = 8.0 * R * C,
 *                                       .shape = bench_shape(b, "%lldx%lld", R, C) });
 *
 * The floor of an operator is the larger of bytes / copy rate and FLOP / product rate; which rates,
 * see enum bench_ceiling. They are measured in turns with the operator, so that a busy machine or a
 * warm card slows both.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include "kernels/ops_linear.h"

#include <stdio.h>

enum bench_sizes {
    BENCH_TINY, /* for devices that are emulated: does every row run? */
    BENCH_HOST, /* what a CPU does in milliseconds */
    BENCH_GPU,  /* a micro-batch of ChatGLM-6B */
    BENCH_SIZES
};

/* What an operator is judged by. */
enum bench_ceiling {
    BENCH_COPY,    /* a copy on the device, bytes read and written */
    BENCH_READ,    /* host: a parallel read; else as BENCH_COPY */
    BENCH_PRODUCT, /* host: the library's undivided product; else op_linear_fwd of large squares */
    BENCH_CEILINGS
};

typedef err_t (*bench_work)(struct dev *dev, const void *context);

struct bench_row {
    const char *name, *shape;
    bench_work work;
    const void *context;
    double bytes, flop;
    bool reads_only; /* BENCH_READ instead of BENCH_COPY */
    int64_t m, n, k; /* of the product it is compared with on the host; 0: a large square */
};

struct bench {
    struct dev *dev;
    dtype_t dtype;
    bool on_host;           /* the device is the CPU */
    enum bench_sizes sizes; /* BENCH_SIZES: what fits the device */
    const char *only;       /* prefix of the groups that run */
    FILE *json;             /* a JSON object per line; NULL: none */
    double seconds;         /* per row, about */
    char *arena;            /* on the device; every operand of a row is carved from it */
    int64_t arena_bytes, arena_used;
    char *copy_area; /* on the device, 2 * copy_bytes */
    int64_t copy_bytes;
    struct linear_fwd_args square;
    struct tensor square_x, square_w, square_y;
    double nominal[BENCH_CEILINGS]; /* bytes or FLOP per second, measured first */
    int failed;                     /* rows */
    char shape[96];
};

/* Memory is filled with random numbers that are plain in every dtype. Exits on errors. */
void bench_open(struct bench *b, const char *device, int threads);
void bench_close(struct bench *b);

/* Forget the operands of the row before. */
void bench_begin(struct bench *b);
bool bench_fits(const struct bench *b, int64_t bytes);
void *bench_take(struct bench *b, int64_t bytes);
struct tensor bench_1d(struct bench *b, dtype_t dtype, int64_t count, const char *name);
struct tensor bench_2d(struct bench *b, dtype_t dtype, int64_t rows, int64_t cols,
                       const char *name);
struct scratch bench_scratch(struct bench *b, int64_t bytes);
/* Device memory with these contents. */
void *bench_upload(struct bench *b, const void *values, int64_t bytes);
const char *bench_shape(struct bench *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void bench_row(struct bench *b, const struct bench_row *row);

/* The groups (bench_products.c, bench_memory.c). */
void bench_gemm(struct bench *b);
void bench_linear(struct bench *b);
void bench_decode(struct bench *b);
void bench_attn(struct bench *b);
void bench_loss(struct bench *b);
void bench_decode_attn(struct bench *b);
void bench_norm(struct bench *b);
void bench_act(struct bench *b);
void bench_rotary(struct bench *b);
void bench_embed(struct bench *b);
void bench_optim(struct bench *b);

#endif
