/* Reference: residual addition and normalization. */
#include "ref_impl.h"

#include "kernels/ops_norm.h"

#include <math.h>

static double mean_of(const double *x, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += x[i];
    return sum / (double)count;
}

err_t ref_residual_norm_fwd(struct dev *dev, const struct residual_norm_fwd_args *a)
{
    (void)dev;
    const bool layer = a->kind == NORM_LAYER;
    const int64_t C = a->y->dim[1];
    double *h = ref_temp(C);
    for (int64_t r = 0; r < a->y->dim[0]; r++) {
        const double *x = ref_row(a->x, r);
        for (int64_t c = 0; c < C; c++)
            h[c] = a->residual ? a->alpha * ref_row(a->residual, r)[c] + x[c] : x[c];

        const double mean = layer ? mean_of(h, C) : 0.0;
        double var = 0.0;
        for (int64_t c = 0; c < C; c++) var += (h[c] - mean) * (h[c] - mean);
        const double rstd = 1.0 / sqrt(var / (double)C + a->eps);

        for (int64_t c = 0; c < C; c++) {
            const double beta = layer ? ref_get(a->beta, c) : 0.0;
            ref_row(a->y, r)[c] = (h[c] - mean) * rstd * ref_get(a->gamma, c) + beta;
            if (a->h) ref_row(a->h, r)[c] = h[c];
        }
        if (layer) ((double *)a->mean->data)[r] = mean;
        ((double *)a->rstd->data)[r] = rstd;
    }
    free(h);
    return ERR_OK;
}

/* One row; g, xhat and p are temporary rows. */
static void norm_bwd_row(const struct residual_norm_bwd_args *a, int64_t r, double *g,
                         double *xhat, double *p)
{
    const bool layer = a->kind == NORM_LAYER;
    const bool from_output = a->residual_from == RESIDUAL_FROM_OUTPUT;
    const int64_t C = a->dh->dim[1];
    const double mean = layer ? ((const double *)a->mean->data)[r] : 0.0;
    const double rstd = ((const double *)a->rstd->data)[r];

    for (int64_t c = 0; c < C; c++) {
        g[c] = ref_row(a->dy, r)[c];
        if (a->dresidual && from_output) g[c] += a->alpha * ref_row(a->dresidual, r)[c];
        xhat[c] = (ref_row(a->h, r)[c] - mean) * rstd;
        p[c] = g[c] * ref_get(a->gamma, c);
        if (a->dgamma_acc) ref_put(a->dgamma_acc, c, ref_get(a->dgamma_acc, c) + g[c] * xhat[c]);
        if (a->dbeta_acc) ref_put(a->dbeta_acc, c, ref_get(a->dbeta_acc, c) + g[c]);
    }
    const double p_mean = layer ? mean_of(p, C) : 0.0;
    const double px_mean = ref_dot(p, xhat, C) / (double)C;
    for (int64_t c = 0; c < C; c++) {
        double dh = rstd * (p[c] - p_mean - xhat[c] * px_mean);
        if (a->dresidual && !from_output) dh += a->alpha * ref_row(a->dresidual, r)[c];
        ref_row(a->dh, r)[c] = dh;
    }
}

err_t ref_residual_norm_bwd(struct dev *dev, const struct residual_norm_bwd_args *a)
{
    (void)dev;
    const int64_t C = a->dh->dim[1];
    double *rows = ref_temp(3 * C);
    for (int64_t r = 0; r < a->dh->dim[0]; r++)
        norm_bwd_row(a, r, rows, rows + C, rows + 2 * C);
    free(rows);
    return ERR_OK;
}
