/*
 * A case is one call of an operator with fixed inputs. Inputs are bf16 numbers, so that every dtype
 * starts from the same values; what differs afterwards is the device's arithmetic.
 */
#include "kernels/self_test.h"

#include "base/check.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernels/ops_attn.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_loss.h"
#include "kernels/ops_norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 96, WIDTH = 128, WIDE = 160, HEADS = 2, OPERANDS_MAX = 12 };
enum { SEED = 1, STEP = 1000000 }; /* of the random numbers; more than a tensor's elements */

/* Tensors of one case, freed together. */
struct bench {
    struct dev *dev;
    dtype_t dtype; /* T */
    struct tensor tensor[OPERANDS_MAX];
    int count;
};

struct self_case {
    const char *op;
    err_t (*run)(struct bench *b, struct tensor **out); /* *out: what is compared */
};

/* ---- operands ---- */

static err_t take(struct bench *b, struct tensor **out, dtype_t dtype, int64_t rows, int64_t cols)
{
    ASSERT(b->count < OPERANDS_MAX);
    struct tensor *t = &b->tensor[b->count];
    void *data;
    TRY(dev_alloc(b->dev, &data, rows * max_i64(cols, 1) * dtype_bytes(dtype), "self-test"));
    *t = cols > 0 ? tensor_2d(data, dtype, rows, cols, "self-test")
                  : tensor_1d(data, dtype, rows, "self-test");
    b->count++;
    *out = t;
    return ERR_OK;
}

static err_t upload_floats(struct bench *b, struct tensor *t, const float *values)
{
    const int64_t count = tensor_count(t);
    if (t->dtype == DTYPE_F32) return dev_upload(b->dev, t->data, values, count * 4);
    uint16_t *narrow = malloc((size_t)count * sizeof *narrow);
    if (narrow == NULL) RAISE(NOMEM, "self-test: no memory for %lld numbers", (long long)count);
    for (int64_t i = 0; i < count; i++) narrow[i] = f32_to_bf16(values[i]);
    const err_t rc = dev_upload(b->dev, t->data, narrow, count * 2);
    free(narrow);
    return rc;
}

/* Random bf16 numbers of some `magnitude`, the same for every device. */
static err_t take_random(struct bench *b, struct tensor **out, int64_t rows, int64_t cols,
                         float magnitude)
{
    TRY(take(b, out, b->dtype, rows, cols));
    const int64_t count = tensor_count(*out);
    float *values = malloc((size_t)count * sizeof *values);
    if (values == NULL) RAISE(NOMEM, "self-test: no memory for %lld numbers", (long long)count);
    for (int64_t i = 0; i < count; i++)
        values[i] = bf16_to_f32(f32_to_bf16(
            magnitude * (float)rng_normal(SEED, RNG_SELF_TEST, (uint64_t)(b->count * STEP + i))));
    const err_t rc = upload_floats(b, *out, values);
    free(values);
    return rc;
}

static err_t take_indices(struct bench *b, struct tensor **out, const int32_t *values,
                          int64_t count)
{
    TRY(take(b, out, DTYPE_I32, count, 0));
    return dev_upload(b->dev, (*out)->data, values, count * 4);
}

static err_t take_scratch(struct bench *b, struct scratch *out, int64_t bytes)
{
    struct tensor *t;
    TRY(take(b, &t, DTYPE_U8, max_i64(bytes, 64), 0));
    *out = (struct scratch){ t->data, bytes };
    return ERR_OK;
}

static void clear(struct bench *b)
{
    for (int i = 0; i < b->count; i++) dev_free(b->dev, b->tensor[i].data);
    b->count = 0;
}

/* ---- cases ---- */

static err_t run_linear(struct bench *b, struct tensor **out)
{
    struct tensor *x, *w, *bias;
    TRY(take(b, out, b->dtype, ROWS, WIDE));
    TRY(take_random(b, &x, ROWS, WIDTH, 1.0f));
    TRY(take_random(b, &w, WIDE, WIDTH, 0.1f));
    TRY(take_random(b, &bias, WIDE, 0, 0.5f));
    struct linear_fwd_args args = { .y = *out, .x = x, .w = w, .bias = bias, .act = ACT_GELU_TANH };
    TRY(take_scratch(b, &args.scratch, op_linear_fwd_scratch_bytes(b->dev, &args)));
    return op_linear_fwd(b->dev, &args);
}

static err_t run_linear_bwd(struct bench *b, struct tensor **out)
{
    struct tensor *dy, *x;
    TRY(take(b, out, b->dtype, WIDE, WIDTH)); /* zeroed: an accumulator */
    TRY(take_random(b, &dy, ROWS, WIDE, 1.0f));
    TRY(take_random(b, &x, ROWS, WIDTH, 1.0f));
    struct linear_bwd_args args = { .dw_acc = *out, .dy = dy, .x = x };
    TRY(take_scratch(b, &args.scratch, op_linear_bwd_scratch_bytes(b->dev, &args)));
    return op_linear_bwd(b->dev, &args);
}

static err_t run_norm(struct bench *b, struct tensor **out)
{
    struct tensor *h, *mean, *rstd, *x, *residual, *gamma, *beta;
    TRY(take(b, out, b->dtype, ROWS, WIDTH));
    TRY(take(b, &h, b->dtype, ROWS, WIDTH));
    TRY(take(b, &mean, DTYPE_F32, ROWS, 0));
    TRY(take(b, &rstd, DTYPE_F32, ROWS, 0));
    TRY(take_random(b, &x, ROWS, WIDTH, 1.0f));
    TRY(take_random(b, &residual, ROWS, WIDTH, 1.0f));
    TRY(take_random(b, &gamma, WIDTH, 0, 1.0f));
    TRY(take_random(b, &beta, WIDTH, 0, 1.0f));
    const struct residual_norm_fwd_args args = { .kind = NORM_LAYER,
                                                 .y = *out,
                                                 .h = h,
                                                 .mean = mean,
                                                 .rstd = rstd,
                                                 .x = x,
                                                 .residual = residual,
                                                 .gamma = gamma,
                                                 .beta = beta,
                                                 .alpha = sqrt(56.0),
                                                 .eps = 1e-5 };
    return op_residual_norm_fwd(b->dev, &args);
}

static err_t run_attention(struct bench *b, struct tensor **out)
{
    static const struct attn_segment segments[] = { { 0, 20, 50 }, { 50, 0, 1 }, { 51, 40, 45 } };
    struct tensor *lse, *qkv, *table;
    TRY(take(b, out, b->dtype, ROWS, WIDTH));
    TRY(take(b, &lse, DTYPE_F32, ROWS, HEADS));
    TRY(take_random(b, &qkv, ROWS, 3 * WIDTH, 1.0f));
    TRY(take(b, &table, DTYPE_I32, COUNT_OF(segments), 3));
    TRY(dev_upload(b->dev, table->data, segments, sizeof segments));
    struct attn_fwd_args args = { .out = *out,
                                  .lse = lse,
                                  .qkv = qkv,
                                  .segments = table,
                                  .segments_host = segments,
                                  .layout = qkv_layout_interleaved(HEADS, WIDTH / HEADS),
                                  .scale = 1.0 / sqrt(WIDTH / HEADS) };
    TRY(take_scratch(b, &args.scratch, op_attn_fwd_scratch_bytes(b->dev, &args)));
    return op_attn_fwd(b->dev, &args);
}

static err_t run_loss(struct bench *b, struct tensor **out)
{
    static const int32_t rows[] = { 0, 3, 4, 90 }, labels[] = { 7, 0, 150, 80 };
    struct tensor *x, *w, *row_table, *label_table, *nll, *weights;
    static const float weight[] = { 0.5f, 0.25f, 0.125f, 1.0f };
    TRY(take(b, out, b->dtype, ROWS, WIDTH)); /* dx */
    TRY(take_random(b, &x, ROWS, WIDTH, 1.0f));
    TRY(take_random(b, &w, WIDE, WIDTH, 0.1f));
    TRY(take_indices(b, &row_table, rows, COUNT_OF(rows)));
    TRY(take_indices(b, &label_table, labels, COUNT_OF(labels)));
    TRY(take(b, &nll, DTYPE_F32, COUNT_OF(rows), 0));
    TRY(take(b, &weights, DTYPE_F32, COUNT_OF(rows), 0));
    TRY(upload_floats(b, weights, weight));
    struct linear_ce_args args = { .nll = nll,
                                   .dx = *out,
                                   .x = x,
                                   .w = w,
                                   .rows = row_table,
                                   .labels = label_table,
                                   .weights = weights,
                                   .vocab_valid = WIDE - 3 };
    TRY(take_scratch(b, &args.scratch, op_linear_ce_scratch_bytes(b->dev, &args)));
    return op_linear_ce(b->dev, &args);
}

static const struct self_case cases[] = {
    { "linear_fwd", run_linear },      { "linear_bwd", run_linear_bwd },
    { "residual_norm_fwd", run_norm }, { "attn_fwd", run_attention },
    { "linear_ce", run_loss },
};

/* ---- running and comparing ---- */

static err_t fetch(struct bench *b, const struct tensor *t, float *values)
{
    const int64_t count = tensor_count(t);
    TRY(dev_download(b->dev, values, t->data, count * dtype_bytes(t->dtype)));
    if (t->dtype == DTYPE_F32) return ERR_OK;
    for (int64_t i = count - 1; i >= 0; i--) { /* widened in place, from the end */
        uint16_t narrow;
        memcpy(&narrow, (const char *)values + 2 * i, sizeof narrow);
        values[i] = bf16_to_f32(narrow);
    }
    return ERR_OK;
}

/* Run a case; its result, `*count` numbers, is the caller's to free. */
static err_t run_case(float **values, int64_t *count, const struct self_case *c, struct dev *dev,
                      dtype_t dtype)
{
    err_t rc = ERR_OK;
    struct bench b = { .dev = dev, .dtype = dtype };
    struct tensor *out;
    *values = NULL;
    TRY_DONE(c->run(&b, &out));
    *count = tensor_count(out);
    *values = malloc((size_t)*count * sizeof **values);
    if (*values == NULL)
        RAISE_DONE(NOMEM, "self-test: no memory for %lld numbers", (long long)*count);
    TRY_DONE(fetch(&b, out, *values));
done:
    clear(&b);
    return rc;
}

static double largest_error(const float *got, const float *expected, int64_t count)
{
    double error = 0.0, scale = 0.0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(got[i])) return INFINITY;
        error = fmax(error, fabs((double)got[i] - (double)expected[i]));
        scale = fmax(scale, fabs((double)expected[i]));
    }
    return error / scale;
}

/*
 * Accepted: sums of at most 160 products in float32 differ by some 1e-6 of the largest value
 * between two orders; results and intermediates in bf16 by a few of its roundings of 2^-9.
 */
static err_t compare(struct self_test_result *r, const struct self_case *c, struct dev *dev,
                     struct dev *judge, dtype_t dtype)
{
    err_t rc = ERR_OK;
    float *got = NULL, *expected = NULL;
    int64_t count = 0;
    TRY_DONE(run_case(&expected, &count, c, judge, DTYPE_F32));
    TRY_DONE(run_case(&got, &count, c, dev, dtype));
    *r = (struct self_test_result){ .op = c->op,
                                    .dtype = dtype,
                                    .error = largest_error(got, expected, count),
                                    .accepted = dtype == DTYPE_F32 ? 1e-5 : 0x1p-6 };
    r->passed = r->error <= r->accepted;
done:
    free(got);
    free(expected);
    return rc;
}

err_t self_test_run(struct self_test_result results[SELF_TESTS_MAX], int *count, struct dev *dev)
{
    static const dtype_t dtypes[] = { DTYPE_F32, DTYPE_BF16 };
    const int dtype_count = dev->info.capability > 0 ? 2 : 1; /* the CPU computes in f32 */
    struct dev judge;
    dev_init_host(&judge, &ops_cpu, 1);
    *count = 0;
    for (int d = 0; d < dtype_count; d++)
        for (int64_t i = 0; i < COUNT_OF(cases); i++) {
            ASSERT(*count < SELF_TESTS_MAX);
            TRY(compare(&results[*count], &cases[i], dev, &judge, dtypes[d]));
            (*count)++;
        }
    return ERR_OK;
}
