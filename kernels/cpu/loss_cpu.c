/*
 * Output layer and cross-entropy, a chunk of targets at a time: their logits lie in scratch, become
 * their own gradient in place, and are multiplied into dx and dw before the next chunk.
 */
#include "kernels/ops_loss.h"

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/vec_math.h"

#include <math.h>
#include <string.h>

/* The table is read three times per chunk and its gradient once more, so chunks should be long; a
 * chunk's logits should not be more than this many. 2^25: 257 targets at ChatGLM-6B's 130,528. */
#define CHUNK_LOGITS (INT64_C(1) << 25)
#define CHUNK_MAX    512
#define CHUNK_MIN    16

static int64_t chunk_targets(const struct linear_ce_args *a)
{
    const int64_t wanted = min_i64(CHUNK_MAX, max_i64(CHUNK_MIN, CHUNK_LOGITS / a->vocab_valid));
    return min_i64(wanted, a->rows->dim[0]);
}

/* Where one chunk's matrices lie in scratch. */
struct chunk {
    int64_t first, count;
    float *logits; /* [count, Vv], later dz */
    float *x;      /* [count, C], later dx */
    struct scratch left;
};

static struct gemm_args logits_product(const struct linear_ce_args *a, const struct chunk *chunk)
{
    return (struct gemm_args){
        .b_transposed = true,
        .m = chunk->count,
        .n = a->vocab_valid,
        .k = a->x->dim[1],
        .a = chunk->x,
        .lda = a->x->dim[1],
        .b = a->w->data,
        .b_dtype = a->w->dtype,
        .ldb = a->w->row_stride,
        .c = chunk->logits,
        .ldc = a->vocab_valid,
        .scratch = chunk->left,
    };
}

static struct gemm_args dx_product(const struct linear_ce_args *a, const struct chunk *chunk)
{
    return (struct gemm_args){
        .m = chunk->count,
        .n = a->x->dim[1],
        .k = a->vocab_valid,
        .a = chunk->logits,
        .lda = a->vocab_valid,
        .b = a->w->data,
        .b_dtype = a->w->dtype,
        .ldb = a->w->row_stride,
        .c = chunk->x,
        .ldc = a->x->dim[1],
        .scratch = chunk->left,
    };
}

static struct gemm_args dw_product(const struct linear_ce_args *a, const struct chunk *chunk)
{
    return (struct gemm_args){
        .a_transposed = true,
        .m = a->vocab_valid,
        .n = a->x->dim[1],
        .k = chunk->count,
        .a = chunk->logits,
        .lda = a->vocab_valid,
        .b = chunk->x,
        .b_dtype = DTYPE_F32,
        .ldb = a->x->dim[1],
        .c = a->dw_acc->data,
        .ldc = a->dw_acc->row_stride,
        .accumulate = true,
    };
}

static int64_t logits_bytes(const struct linear_ce_args *a)
{
    return align_up(chunk_targets(a) * a->vocab_valid * (int64_t)sizeof(float), 64);
}

static int64_t x_bytes(const struct linear_ce_args *a)
{
    return align_up(chunk_targets(a) * a->x->dim[1] * (int64_t)sizeof(float), 64);
}

int64_t linear_ce_scratch_cpu(const struct dev *dev, const struct linear_ce_args *a)
{
    if (a->rows->dim[0] == 0) return 0;
    const struct chunk longest = { .count = chunk_targets(a) };
    const struct gemm_args logits = logits_product(a, &longest), dx = dx_product(a, &longest);
    return logits_bytes(a) + x_bytes(a) +
           max_i64(gemm_scratch_bytes(dev, &logits), gemm_scratch_bytes(dev, &dx));
}

static void gather(struct dev *dev, const struct linear_ce_args *a, const struct chunk *chunk)
{
    const int64_t C = a->x->dim[1];
    const int32_t *rows = i32_data(a->rows);
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < chunk->count; i++) {
        const int64_t t = chunk->first + i, row = rows[t];
        ASSERT(row >= 0 && row < a->x->dim[0] && (t == 0 || row > rows[t - 1]));
        memcpy(chunk->x + i * C, f32_row(a->x, row), (size_t)C * sizeof(float));
    }
}

static void scatter(struct dev *dev, const struct linear_ce_args *a, const struct chunk *chunk)
{
    const int64_t C = a->x->dim[1];
    const int32_t *rows = i32_data(a->rows);
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < chunk->count; i++)
        memcpy(f32_row(a->dx, rows[chunk->first + i]), chunk->x + i * C, (size_t)C * sizeof(float));
}

/* nll of one row; with `gradient` its logits z become weight * (softmax(z) - onehot(label)). */
static float row_loss(float *z, int64_t count, int64_t label, float weight, bool gradient)
{
    const float max = vec_max(z, count);
    const double z_label = (double)z[label];
    const double sum = vec_exp_minus(z, count, max);
    if (gradient) {
        const double factor = (double)weight / sum;
        const float rounded = (float)factor;
        const double at_label = factor * (double)z[label] - (double)weight;
#pragma omp simd
        for (int64_t j = 0; j < count; j++) z[j] *= rounded;
        z[label] = (float)at_label;
    }
    return (float)(log(sum) + (double)max - z_label);
}

static void softmax_rows(struct dev *dev, const struct linear_ce_args *a,
                         const struct chunk *chunk)
{
    const int64_t Vv = a->vocab_valid;
    const bool gradient = a->dx != NULL || a->dw_acc != NULL;
    const int32_t *labels = i32_data(a->labels);
    const float *weights = a->weights->data;
    float *nll = a->nll->data;
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < chunk->count; i++) {
        const int64_t t = chunk->first + i;
        ASSERT(labels[t] >= 0 && labels[t] < Vv);
        nll[t] = row_loss(chunk->logits + i * Vv, Vv, labels[t], weights[t], gradient);
    }
}

err_t linear_ce_cpu(struct dev *dev, const struct linear_ce_args *a)
{
    TRY(cpu_require_f32(a->x));
    const int64_t N = a->rows->dim[0], R = a->x->dim[0], targets = chunk_targets(a);

    if (a->dx != NULL) TRY(dev_zero(dev, a->dx->data, R * a->x->dim[1] * (int64_t)sizeof(float)));
    for (int64_t first = 0; first < N; first += targets) {
        struct chunk chunk = { .first = first, .count = min_i64(targets, N - first),
                               .left = a->scratch };
        chunk.logits = scratch_take(&chunk.left, logits_bytes(a));
        chunk.x = scratch_take(&chunk.left, x_bytes(a));

        gather(dev, a, &chunk);
        const struct gemm_args logits = logits_product(a, &chunk);
        TRY(gemm_f32(dev, &logits));
        softmax_rows(dev, a, &chunk);
        if (a->dw_acc != NULL) { /* before dx, which takes the place of x */
            const struct gemm_args dw = dw_product(a, &chunk);
            TRY(gemm_f32(dev, &dw));
        }
        if (a->dx != NULL) {
            const struct gemm_args dx = dx_product(a, &chunk);
            TRY(gemm_f32(dev, &dx));
            scatter(dev, a, &chunk);
        }
    }
    return ERR_OK;
}
