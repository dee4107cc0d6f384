/* Reference: dense layers, activations, and the output layer with its loss. */
#include "ref_impl.h"

#include "kernels/ops_linear.h"
#include "kernels/ops_loss.h"

#include <math.h>
#include <string.h>

#define GELU_C 0.7978845608028654
#define GELU_A 0.044715

static double gelu(double u) { return 0.5 * u * (1.0 + tanh(GELU_C * u * (1.0 + GELU_A * u * u))); }

static double gelu_slope(double u)
{
    const double t = tanh(GELU_C * u * (1.0 + GELU_A * u * u));
    return 0.5 * (1.0 + t) + 0.5 * u * (1.0 - t * t) * GELU_C * (1.0 + 3.0 * GELU_A * u * u);
}

static double sigmoid(double u) { return 1.0 / (1.0 + exp(-u)); }
static double silu(double u) { return u * sigmoid(u); }
static double silu_slope(double u) { return sigmoid(u) * (1.0 + u * (1.0 - sigmoid(u))); }

/* y[N] = act(pre); pre has 2N columns for swiglu. y may be pre but for swiglu. */
static void act_row(double *y, const double *pre, int64_t N, enum act_kind act)
{
    for (int64_t n = 0; n < N; n++)
        y[n] = act == ACT_SWIGLU      ? silu(pre[n]) * pre[N + n]
               : act == ACT_GELU_TANH ? gelu(pre[n])
                                      : pre[n];
}

/* dpre = d * act'(pre) for d[K]; dpre may be pre. */
static void act_bwd_row(double *dpre, const double *d, const double *pre, int64_t K,
                        enum act_kind act)
{
    for (int64_t k = 0; k < K; k++) {
        if (act == ACT_SWIGLU) {
            const double u1 = pre[k], u2 = pre[K + k];
            dpre[k] = d[k] * u2 * silu_slope(u1);
            dpre[K + k] = d[k] * silu(u1);
        } else {
            dpre[k] = act == ACT_GELU_TANH ? d[k] * gelu_slope(pre[k]) : d[k];
        }
    }
}

err_t ref_linear_fwd(struct dev *dev, const struct linear_fwd_args *a)
{
    (void)dev;
    const int64_t N = a->y->dim[1], K = a->x->dim[1], wide = a->w->dim[0];
    double *pre = ref_temp(wide);
    for (int64_t r = 0; r < a->y->dim[0]; r++) {
        for (int64_t n = 0; n < wide; n++)
            pre[n] = ref_dot(ref_row(a->x, r), ref_row(a->w, n), K)
                     + (a->bias ? ref_get(a->bias, n) : 0.0);
        if (a->pre) memcpy(ref_row(a->pre, r), pre, (size_t)wide * sizeof *pre);
        act_row(ref_row(a->y, r), pre, N, a->act);
    }
    free(pre);
    return ERR_OK;
}

err_t ref_linear_bwd(struct dev *dev, const struct linear_bwd_args *a)
{
    (void)dev;
    const int64_t R = a->dy->dim[0], N = a->dy->dim[1];
    const int64_t K = a->w ? a->w->dim[1] : a->x ? a->x->dim[1] : 0;
    double *d = ref_temp(K);
    for (int64_t r = 0; r < R; r++) {
        const double *dy = ref_row(a->dy, r);
        for (int64_t n = 0; n < N; n++) {
            if (a->dw_acc) ref_axpy(ref_row(a->dw_acc, n), dy[n], ref_row(a->x, r), K);
            if (a->db_acc) ref_put(a->db_acc, n, ref_get(a->db_acc, n) + dy[n]);
        }
        if (a->dx == NULL) continue;
        memset(d, 0, (size_t)K * sizeof *d);
        for (int64_t n = 0; n < N; n++) ref_axpy(d, dy[n], ref_row(a->w, n), K);
        const double *pre = a->x_act == ACT_NONE ? NULL : ref_row(a->x_pre, r);
        act_bwd_row(ref_row(a->dx, r), d, pre, K, a->x_act);
    }
    free(d);
    return ERR_OK;
}

err_t ref_act_fwd(struct dev *dev, const struct act_fwd_args *a)
{
    (void)dev;
    for (int64_t r = 0; r < a->y->dim[0]; r++)
        act_row(ref_row(a->y, r), ref_row(a->pre, r), a->y->dim[1], a->act);
    return ERR_OK;
}

err_t ref_linear_ce(struct dev *dev, const struct linear_ce_args *a)
{
    (void)dev;
    const int32_t *rows = ref_i32(a->rows), *labels = ref_i32(a->labels);
    const float *weights = a->weights->data;
    const int64_t C = a->x->dim[1], Vv = a->vocab_valid;
    double *z = ref_temp(Vv);
    if (a->dx) ref_zero_rows(a->dx);

    for (int64_t i = 0; i < a->rows->dim[0]; i++) {
        ASSERT(rows[i] >= 0 && rows[i] < a->x->dim[0] && labels[i] >= 0 && labels[i] < Vv);
        const double *x = ref_row(a->x, rows[i]);
        double z_max = -INFINITY, sum = 0.0;
        for (int64_t v = 0; v < Vv; v++) {
            z[v] = ref_dot(x, ref_row(a->w, v), C);
            z_max = fmax(z_max, z[v]);
        }
        for (int64_t v = 0; v < Vv; v++) sum += exp(z[v] - z_max);
        const double lse = z_max + log(sum);
        ((double *)a->nll->data)[i] = lse - z[labels[i]];

        for (int64_t v = 0; v < Vv; v++) {
            const double dz = (double)weights[i] * (exp(z[v] - lse) - (v == labels[i] ? 1.0 : 0.0));
            if (a->dx) ref_axpy(ref_row(a->dx, rows[i]), dz, ref_row(a->w, v), C);
            if (a->dw_acc) ref_axpy(ref_row(a->dw_acc, v), dz, x, C);
        }
    }
    free(z);
    return ERR_OK;
}
