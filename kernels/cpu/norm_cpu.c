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

/* h and residual, h and x may be one row. */
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
    const float *dy, *dresidual, *h, *gamma; /* dresidual NULL: none */
    float mean, rstd;
    float alpha_in, alpha_out; /* factors of dresidual inside g and on top of dh: one of them is 0 */
    int64_t C;
};

struct row_sums {
    double p, p_xhat; /* sum_c g*gamma, sum_c g*gamma*xhat */
};

static inline float row_g(const struct bwd_row *b, int64_t c)
{
    return b->dresidual == NULL ? b->dy[c] : b->dy[c] + b->alpha_in * b->dresidual[c];
}

static inline float row_xhat(const struct bwd_row *b, int64_t c)
{
    return (b->h[c] - b->mean) * b->rstd;
}

static struct row_sums sum_row(const struct bwd_row *b)
{
    double p_sum = 0, p_xhat_sum = 0;
#pragma omp simd reduction(+ : p_sum, p_xhat_sum)
    for (int64_t c = 0; c < b->C; c++) {
        const float p = row_g(b, c) * b->gamma[c];
        p_sum += (double)p;
        p_xhat_sum += (double)(p * row_xhat(b, c));
    }
    return (struct row_sums){ p_sum, p_xhat_sum };
}

/* Before write_row, which may overwrite dy. */
static void add_parameter_sums(const struct bwd_row *b, double *restrict dgamma,
                               double *restrict dbeta)
{
#pragma omp simd
    for (int64_t c = 0; c < b->C; c++) {
        const float g = row_g(b, c);
        dgamma[c] += (double)(g * row_xhat(b, c));
        dbeta[c] += (double)g;
    }
}

/* dh may be the row of dy or of dresidual: element c is written after its last read. */
static void write_row(float *dh, const struct bwd_row *b, enum norm_kind kind, struct row_sums sums)
{
    const float p_mean = kind == NORM_LAYER ? (float)(sums.p / (double)b->C) : 0.0f;
    const float p_xhat_mean = (float)(sums.p_xhat / (double)b->C);
#pragma omp simd
    for (int64_t c = 0; c < b->C; c++) {
        const float p = row_g(b, c) * b->gamma[c];
        const float d = b->rstd * (p - p_mean - row_xhat(b, c) * p_xhat_mean);
        dh[c] = b->dresidual == NULL ? d : d + b->alpha_out * b->dresidual[c];
    }
}

int64_t residual_norm_bwd_scratch_cpu(const struct dev *dev,
                                      const struct residual_norm_bwd_args *a)
{
    (void)dev;
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1];
    if (a->dgamma_acc == NULL && a->dbeta_acc == NULL) return 0;
    return sum_block_count(R) * 2 * C * (int64_t)sizeof(double);
}

err_t residual_norm_bwd_cpu(struct dev *dev, const struct residual_norm_bwd_args *a)
{
    TRY(cpu_require_f32(a->dy));
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1];
    const int64_t block_rows = sum_block_rows(R), blocks = sum_block_count(R);
    const bool sums = a->dgamma_acc != NULL || a->dbeta_acc != NULL;
    const bool from_output = a->residual_from == RESIDUAL_FROM_OUTPUT;
    double *partial = a->scratch.data; /* [blocks, 2, C]: dgamma, dbeta */

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        double *dgamma = sums ? partial + block * 2 * C : NULL;
        if (sums) memset(dgamma, 0, (size_t)(2 * C) * sizeof *dgamma);
        const int64_t end = min_i64(R, (block + 1) * block_rows);
        for (int64_t r = block * block_rows; r < end; r++) {
            const struct bwd_row row = {
                .dy = f32_row(a->dy, r),
                .dresidual = a->dresidual == NULL ? NULL : f32_row(a->dresidual, r),
                .h = f32_row(a->h, r),
                .gamma = a->gamma->data,
                .mean = a->kind == NORM_LAYER ? f32_row(a->mean, 0)[r] : 0.0f,
                .rstd = f32_row(a->rstd, 0)[r],
                .alpha_in = from_output ? (float)a->alpha : 0.0f,
                .alpha_out = from_output ? 0.0f : (float)a->alpha,
                .C = C,
            };
            if (sums) add_parameter_sums(&row, dgamma, dgamma + C);
            write_row(f32_row(a->dh, r), &row, a->kind, sum_row(&row));
        }
    }
    if (a->dgamma_acc != NULL)
        cpu_fold_blocks(dev, a->dgamma_acc->data, partial, blocks, 2 * C, C);
    if (a->dbeta_acc != NULL)
        cpu_fold_blocks(dev, a->dbeta_acc->data, partial + C, blocks, 2 * C, C);
    return ERR_OK;
}
