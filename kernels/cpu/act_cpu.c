/*
 * Activations. Both are a linear factor times the logistic function s(t) = 1/(1 + exp(-t)):
 *   gelu_tanh(u) = u * s(2w(u)) with w(u) = 0.797885*(u + 0.044715 u^3), as 1 + tanh(w) = 2 s(2w),
 *                  without the cancellation that 1 + tanh(w) has for negative u;
 *   silu(u)      = u * s(u).
 * In derivatives, 1 - s(t) is taken as exp(-t)*s(t) for the same reason.
 */
#include "kernels/cpu/act.h"

#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/vec_math.h"

#define GELU_A (2 * 0.7978845608028654f)
#define GELU_B 0.044715f

struct logistic {
    float s, one_minus_s;
};

static inline struct logistic logistic_of(float t)
{
    const float e = vec_expf(-t);
    const float s = 1.0f / (1.0f + e);
    return (struct logistic){ s, e * s };
}

static inline float gelu(float u)
{
    return u * logistic_of(GELU_A * u * (1.0f + GELU_B * (u * u))).s;
}

static inline float gelu_derivative(float u)
{
    const struct logistic l = logistic_of(GELU_A * u * (1.0f + GELU_B * (u * u)));
    return l.s + u * (l.s * l.one_minus_s) * (GELU_A * (1.0f + 3.0f * GELU_B * (u * u)));
}

void act_apply(enum act_kind act, float *y, int64_t ldy, const float *pre, int64_t ldpre,
               int64_t half, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++) {
        float *out = y + r * ldy;
        const float *u1 = pre + r * ldpre, *u2 = u1 + half;
        if (act == ACT_GELU_TANH) {
#pragma omp simd
            for (int64_t c = 0; c < cols; c++) out[c] = gelu(u1[c]);
        } else {
            ASSERT(act == ACT_SWIGLU);
#pragma omp simd
            for (int64_t c = 0; c < cols; c++) out[c] = u1[c] * logistic_of(u1[c]).s * u2[c];
        }
    }
}

void act_chain(enum act_kind act, float *dx, int64_t lddx, const float *g, int64_t ldg,
               const float *pre, int64_t ldpre, int64_t half, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++) {
        float *d1 = dx + r * lddx, *d2 = d1 + half;
        const float *gr = g + r * ldg, *u1 = pre + r * ldpre, *u2 = u1 + half;
        if (act == ACT_GELU_TANH) {
#pragma omp simd
            for (int64_t c = 0; c < cols; c++) d1[c] = gr[c] * gelu_derivative(u1[c]);
        } else {
            ASSERT(act == ACT_SWIGLU);
#pragma omp simd
            for (int64_t c = 0; c < cols; c++) {
                const float a = u1[c], b = u2[c];
                const struct logistic l = logistic_of(a);
                d1[c] = gr[c] * b * (l.s * (1.0f + a * l.one_minus_s));
                d2[c] = gr[c] * a * l.s;
            }
        }
    }
}

#define ACT_ROWS 8

err_t act_fwd_cpu(struct dev *dev, const struct act_fwd_args *a)
{
    TRY(cpu_require_f32(a->y));
    const int64_t R = a->y->dim[0], N = a->y->dim[1], blocks = div_ceil(R, ACT_ROWS);

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t r = b * ACT_ROWS;
        act_apply(a->act, f32_row(a->y, r), N, f32_row(a->pre, r), a->pre->row_stride, N,
                  min_i64(ACT_ROWS, R - r), N);
    }
    return ERR_OK;
}
