/*
 * Residual addition and normalization. A row is read from memory once and from the first-level
 * cache after that; row sums are in double, which costs nothing beside the memory traffic.
 */
#include "kernels/cpu/ops_cpu.h"
#include "kernels/ops_norm.h"

#include <math.h>
#include <string.h>

static double sum_of(const float *x, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < count; c++) sum += (double)x[c];
    return sum;
}

static double squares_around(const float *x, float center, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < count; c++) {
        const double d = (double)x[c] - (double)center;
        sum += d * d;
    }
    return sum;
}

/* h may be the row of x or of residual. */
static void add_residual(float *h, const float *x, const float *residual, float alpha, int64_t C)
{
#pragma omp simd
    for (int64_t c = 0; c < C; c++) h[c] = alpha * residual[c] + x[c];
}

static void layer_row(float *restrict y, float *mean, float *rstd, const float *restrict h,
                      const struct residual_norm_fwd_args *a, int64_t C)
{
    const float *gamma = a->gamma->data, *beta = a->beta->data;
    *mean = (float)(sum_of(h, C) / (double)C);
    *rstd = (float)(1.0 / sqrt(squares_around(h, *mean, C) / (double)C + a->eps));
    const float m = *mean, s = *rstd;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) y[c] = (h[c] - m) * s * gamma[c] + beta[c];
}

static void rms_row(float *restrict y, float *rstd, const float *restrict h,
                    const struct residual_norm_fwd_args *a, int64_t C)
{
    const float *gamma = a->gamma->data;
    *rstd = (float)(1.0 / sqrt(squares_around(h, 0.0f, C) / (double)C + a->eps));
    const float s = *rstd;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) y[c] = h[c] * s * gamma[c];
}

err_t residual_norm_fwd_cpu(struct dev *dev, const struct residual_norm_fwd_args *a)
{
    TRY(cpu_require_f32(a->x));
    const int64_t R = a->x->dim[0], C = a->x->dim[1];

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const float *h = f32_row(a->x, r);
        if (a->residual != NULL) {
            add_residual(f32_row(a->h, r), h, f32_row(a->residual, r), (float)a->alpha, C);
            h = f32_row(a->h, r);
        } else if (a->h != NULL) {
            memmove(f32_row(a->h, r), h, (size_t)C * sizeof *h);
        }
        float *rstd = (float *)a->rstd->data + r;
        if (a->kind == NORM_LAYER)
            layer_row(f32_row(a->y, r), (float *)a->mean->data + r, rstd, h, a, C);
        else
            rms_row(f32_row(a->y, r), rstd, h, a, C);
    }
    return ERR_OK;
}

/* What one row of the backward pass reads. xhat = (h - mean)*rstd, mean = 0 for rms. */
struct bwd_row {
    const float *dy, *dresidual, *h, *gamma;
    float mean, rstd;
    float alpha_in, alpha_out; /* factors of dresidual inside g and on top of dh; one is 0 */
    int64_t C;
};

struct row_sums {
    double p, p_xhat; /* sum_c g*gamma, sum_c g*gamma*xhat */
};

/* One pass over the row for its own sums and for those over rows. */
static struct row_sums sum_row(const struct bwd_row *b, float *restrict dgamma,
                               float *restrict dbeta)
{
    const float *restrict dy = b->dy, *restrict dresidual = b->dresidual;
    const float *restrict h = b->h, *restrict gamma = b->gamma;
    const float mean = b->mean, rstd = b->rstd, alpha = b->alpha_in;
    const int64_t C = b->C;
    double p_sum = 0, p_xhat_sum = 0;
#pragma omp simd reduction(+ : p_sum, p_xhat_sum)
    for (int64_t c = 0; c < C; c++) {
        const float g = dy[c] + alpha * dresidual[c];
        const float xhat = (h[c] - mean) * rstd;
        const float p = g * gamma[c];
        p_sum += (double)p;
        p_xhat_sum += (double)(p * xhat);
        dgamma[c] += g * xhat;
        dbeta[c] += g;
    }
    return (struct row_sums){ p_sum, p_xhat_sum };
}

/* dh may be the row of dy or of dresidual: element c is written after its last read. */
static void write_row(float *dh, const struct bwd_row *b, enum norm_kind kind, struct row_sums sums)
{
    const float *dy = b->dy, *dresidual = b->dresidual, *h = b->h, *gamma = b->gamma;
    const float p_mean = kind == NORM_LAYER ? (float)(sums.p / (double)b->C) : 0.0f;
    const float p_xhat_mean = (float)(sums.p_xhat / (double)b->C);
    const float mean = b->mean, rstd = b->rstd, alpha_in = b->alpha_in, alpha_out = b->alpha_out;
    const int64_t C = b->C;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) {
        const float p = (dy[c] + alpha_in * dresidual[c]) * gamma[c];
        const float d = rstd * (p - p_mean - (h[c] - mean) * rstd * p_xhat_mean);
        dh[c] = d + alpha_out * dresidual[c];
    }
}

/* dgamma and dbeta of a block: f32 sums over SUM_ROWS_MIN rows, added to f64 ones. */
struct block_sums {
    double *total; /* [2, C] */
    float *recent; /* [2, C] */
};

static int64_t block_sums_bytes(int64_t C)
{
    return align_up(2 * C * (int64_t)(sizeof(double) + sizeof(float)), 64);
}

static struct block_sums block_sums_at(void *scratch, int64_t block, int64_t C)
{
    double *total = (double *)((char *)scratch + block * block_sums_bytes(C));
    return (struct block_sums){ total, (float *)(total + 2 * C) };
}

static void block_sums_flush(struct block_sums sums, int64_t C)
{
#pragma omp simd
    for (int64_t c = 0; c < 2 * C; c++) {
        sums.total[c] += (double)sums.recent[c];
        sums.recent[c] = 0.0f;
    }
}

int64_t residual_norm_bwd_scratch_cpu(const struct dev *dev,
                                      const struct residual_norm_bwd_args *a)
{
    (void)dev;
    return sum_block_bound(a->dy->dim[0]) * block_sums_bytes(a->dy->dim[1]);
}

/* Without a residual dy stands in for it, with factors of 0. */
static struct bwd_row bwd_row_at(const struct residual_norm_bwd_args *a, int64_t r)
{
    const bool from_output = a->residual_from == RESIDUAL_FROM_OUTPUT;
    const float alpha = a->dresidual == NULL ? 0.0f : (float)a->alpha;
    return (struct bwd_row){
        .dy = f32_row(a->dy, r),
        .dresidual = f32_row(a->dresidual == NULL ? a->dy : a->dresidual, r),
        .h = f32_row(a->h, r),
        .gamma = a->gamma->data,
        .mean = a->kind == NORM_LAYER ? f32_row(a->mean, 0)[r] : 0.0f,
        .rstd = f32_row(a->rstd, 0)[r],
        .alpha_in = from_output ? alpha : 0.0f,
        .alpha_out = from_output ? 0.0f : alpha,
        .C = a->dy->dim[1],
    };
}

err_t residual_norm_bwd_cpu(struct dev *dev, const struct residual_norm_bwd_args *a)
{
    TRY(cpu_require_f32(a->dy));
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1];
    const int64_t block_rows = sum_block_rows(R), blocks = sum_block_count(R);

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const struct block_sums sums = block_sums_at(a->scratch.data, block, C);
        const int64_t begin = block * block_rows, end = min_i64(R, begin + block_rows);
        memset(sums.total, 0, (size_t)block_sums_bytes(C));
        for (int64_t r = begin; r < end; r++) {
            const struct bwd_row row = bwd_row_at(a, r);
            const struct row_sums own = sum_row(&row, sums.recent, sums.recent + C);
            write_row(f32_row(a->dh, r), &row, a->kind, own);
            if ((r + 1 - begin) % SUM_ROWS_MIN == 0 || r + 1 == end) block_sums_flush(sums, C);
        }
    }
    const double *partial = a->scratch.data;
    const int64_t stride = block_sums_bytes(C) / (int64_t)sizeof(double);
    if (a->dgamma_acc != NULL)
        cpu_fold_blocks(dev, a->dgamma_acc->data, partial, blocks, stride, C);
    if (a->dbeta_acc != NULL)
        cpu_fold_blocks(dev, a->dbeta_acc->data, partial + C, blocks, stride, C);
    return ERR_OK;
}
