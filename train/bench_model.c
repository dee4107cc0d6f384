/* What bench_step.h needs to know of a model: weights, FLOP; and of a device: its product's rate.
 */
#include "base/check.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/stop.h"
#include "kernels/ops_linear.h"
#include "kernels/probe.h"
#include "train/bench_step.h"

#include <stdlib.h>

#define BLOCK_ELEMENTS (INT64_C(1) << 20)
#define PROBE_SECONDS  1.0
#define PROBE_SAMPLES  15
#define PROBE_CALLS    10
#define PROBE_CALLS_S  0.02 /* a sample has as many calls as this takes, at most PROBE_CALLS */

/* ---- weights ---- */

static void to_dtype(void *out, dtype_t dtype, const float *from, int64_t count)
{
    if (dtype == DTYPE_F64)
        for (int64_t i = 0; i < count; i++) ((double *)out)[i] = (double)from[i];
    else
        ASSERT(weight_round(out, dtype, from, count) < 0);
}

/* `floats` over and over into the tensor. */
static err_t upload_block(struct dev *dev, const struct tensor *t, const float *floats, void *block)
{
    const int64_t count = tensor_count(t), width = dtype_bytes(t->dtype);
    to_dtype(block, t->dtype, floats, min_i64(count, BLOCK_ELEMENTS));
    for (int64_t at = 0; at < count; at += BLOCK_ELEMENTS)
        TRY(dev_upload(dev, (char *)t->data + at * width, block,
                       min_i64(BLOCK_ELEMENTS, count - at) * width));
    return ERR_OK;
}

static double scale_of(const struct glm_param *row, const struct glm_config *config)
{
    if (row->init == GLM_INIT_NORMAL || row->init == GLM_INIT_QKV) return 0.02;
    if (row->init == GLM_INIT_RESIDUAL) return 0.02 / 7.48;
    if (row->init == GLM_INIT_OUTPUT) return 1.0 / (double)config->hidden_size;
    return 0.0;
}

static void fill_block(float *out, const float *normal, const struct glm_param *row,
                       const struct glm_config *config)
{
    const float scale = (float)scale_of(row, config), mean = row->init == GLM_INIT_ONE;
    const int64_t count = min_i64(row->count, BLOCK_ELEMENTS);
    for (int64_t i = 0; i < count; i++) out[i] = mean + scale * normal[i];
}

/* The same values as the weights, before rounding. */
static err_t write_master(struct optim *optim, const float *floats, int64_t row, int64_t count)
{
    if (!optim_plan_of(optim)->format.master) return ERR_OK;
    for (int64_t at = 0; at < count; at += BLOCK_ELEMENTS)
        TRY(optim_write_state(optim, OPTIM_MASTER, row, at, floats,
                              min_i64(BLOCK_ELEMENTS, count - at)));
    return ERR_OK;
}

err_t bench_init_weights(struct glm *glm, struct optim *optim)
{
    err_t rc = ERR_OK;
    const struct glm_params *params = glm_params(glm);
    float *normal = malloc(3 * (size_t)BLOCK_ELEMENTS * sizeof *normal);
    if (normal == NULL) RAISE(NOMEM, "benchmark: no memory for random weights");
    float *scaled = normal + BLOCK_ELEMENTS;
    void *block = malloc((size_t)BLOCK_ELEMENTS * sizeof(double));
    if (block == NULL) RAISE_DONE(NOMEM, "benchmark: no memory for random weights");
#pragma omp parallel for num_threads(glm_dev(glm)->threads)
    for (int64_t i = 0; i < BLOCK_ELEMENTS; i++)
        normal[i] = (float)rng_normal(1, RNG_INIT, (uint64_t)i);
    for (int64_t i = 0; i < params->count; i++) {
        const struct tensor t = glm_weight(glm, i);
        fill_block(scaled, normal, &params->row[i], glm_config(glm));
        TRY_DONE(upload_block(glm_dev(glm), &t, scaled, block));
        TRY_DONE(write_master(optim, scaled, i, params->row[i].count));
    }
done:
    free(block);
    free(normal);
    return rc;
}

/* ---- the device ---- */

static err_t time_products(double *out, struct dev *dev, const struct linear_fwd_args *args,
                           int calls)
{
    const double begin_s = time_now_s();
    for (int i = 0; i < calls; i++) TRY(op_linear_fwd(dev, args));
    TRY(dev_sync(dev));
    *out = (time_now_s() - begin_s) / calls;
    return ERR_OK;
}

static err_t median_product_s(double *out, struct dev *dev, const struct linear_fwd_args *args)
{
    double sample_s[PROBE_SAMPLES], spent_s = 0.0;
    int count = 0;
    TRY(time_products(out, dev, args, 1)); /* chooses algorithms */
    TRY(time_products(out, dev, args, 1));
    const int calls = *out * PROBE_CALLS < PROBE_CALLS_S ? PROBE_CALLS : 1;
    while (count < PROBE_SAMPLES && (count < 3 || spent_s < PROBE_SECONDS)) {
        TRY(time_products(&sample_s[count], dev, args, calls));
        spent_s += calls * sample_s[count++];
    }
    *out = median_f64(sample_s, count);
    return ERR_OK;
}

/* The operator that the model itself uses, on random numbers: constant ones draw less power. */
static err_t linear_rate(double *flop_per_s, struct dev *dev, dtype_t dtype, int64_t n)
{
    err_t rc = ERR_OK;
    const int64_t bytes = n * n * dtype_bytes(dtype);
    void *memory = NULL, *scratch = NULL, *block = NULL;
    float *random = malloc((size_t)BLOCK_ELEMENTS * sizeof *random);
    double seconds = 1.0;
    TRY_DONE(dev_alloc(dev, &memory, 3 * bytes, "probe"));
    struct tensor x = tensor_2d(memory, dtype, n, n, "probe.x");
    struct tensor w = tensor_2d((char *)memory + bytes, dtype, n, n, "probe.w");
    struct tensor y = tensor_2d((char *)memory + 2 * bytes, dtype, n, n, "probe.y");
    struct linear_fwd_args args = { .y = &y, .x = &x, .w = &w };
    args.scratch.bytes = op_linear_fwd_scratch_bytes(dev, &args);
    if (args.scratch.bytes > 0)
        TRY_DONE(dev_alloc(dev, &scratch, args.scratch.bytes, "probe scratch"));
    args.scratch.data = scratch;
    block = malloc((size_t)BLOCK_ELEMENTS * sizeof(double));
    if (random == NULL || block == NULL) RAISE_DONE(NOMEM, "probe: no memory");
    for (int64_t i = 0; i < BLOCK_ELEMENTS; i++)
        random[i] = (float)rng_uniform(1, RNG_TEST, (uint64_t)i) - 0.5f;
    TRY_DONE(upload_block(dev, &x, random, block));
    TRY_DONE(upload_block(dev, &w, random, block));
    TRY_DONE(median_product_s(&seconds, dev, &args));
    *flop_per_s = 2.0 * (double)n * (double)n * (double)n / seconds;
done:
    free(block);
    free(random);
    dev_free(dev, scratch);
    dev_free(dev, memory);
    return rc;
}

err_t bench_product_rate(double *flop_per_s, struct dev *dev, dtype_t dtype, int64_t side)
{
    if (stop_requested()) RAISE(INTERRUPTED, "stopped before the device was measured");
    if (dev->info.capability == 0 && dev->ops->probe_gemm != NULL)
        return probe_gemm(flop_per_s, dev, side, PROBE_SECONDS);
    return linear_rate(flop_per_s, dev, dtype, side);
}

double bench_model_flop(const struct glm_config *c, const struct glm_batch *batch)
{
    const double C = (double)c->hidden_size, F = (double)c->ffn_size, V = (double)c->vocab_size;
    const double L = (double)c->layer_count, matrices = 4.0 * C * C + 2.0 * C * F;
    double rows = 0.0, pairs = 0.0;
    for (int64_t s = 0; s < batch->segment_count; s++) {
        const double ctx = batch->segments[s].ctx, len = batch->segments[s].len, t = len - ctx;
        rows += len;
        pairs += ctx * ctx + ctx * t + t * (t + 1.0) / 2.0;
    }
    return 6.0 * L * matrices * rows + 6.0 * V * C * (double)batch->target_count +
           12.0 * L * C * pairs;
}
