/* Residual addition and normalization: one block a row. */
#include "kernels/cuda/ops_cuda.h"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/ops_norm.h"

#define NORM_THREADS 256

template <class T>
__global__ void residual_norm_fwd_plain(T *y, T *h, float *mean, float *rstd, const T *x,
                                        const T *residual, const T *gamma, const T *beta,
                                        float alpha, float eps, int64_t C)
{
    SHARED_ARRAY(float, sums, NORM_THREADS / WARP_SIZE);
    const int64_t row = blockIdx.x;
    float sum = 0.0f;
    for (int64_t c = threadIdx.x; c < C; c += NORM_THREADS) {
        float v = to_float(x[row * C + c]);
        if (residual != nullptr) {
            const T stored = from_float<T>(fmaf(alpha, to_float(residual[row * C + c]), v));
            h[row * C + c] = stored;
            v = to_float(stored);
        } else if (h != nullptr) {
            h[row * C + c] = x[row * C + c];
        }
        sum += v;
    }
    const T *in = residual != nullptr ? h : x;
    const float m = block_sum(sum, sums) / (float)C;
    float squares = 0.0f;
    for (int64_t c = threadIdx.x; c < C; c += NORM_THREADS) {
        const float d = to_float(in[row * C + c]) - m;
        squares = fmaf(d, d, squares);
    }
    const float s = 1.0f / sqrtf(block_sum(squares, sums) / (float)C + eps);
    for (int64_t c = threadIdx.x; c < C; c += NORM_THREADS)
        y[row * C + c] = from_float<T>((to_float(in[row * C + c]) - m) * s * to_float(gamma[c]) +
                                       to_float(beta[c]));
    if (threadIdx.x == 0) {
        mean[row] = m;
        rstd[row] = s;
    }
}

template <class T>
static err_t residual_norm_fwd_of(struct dev *dev, const struct residual_norm_fwd_args *a)
{
    const int64_t R = a->x->dim[0], C = a->x->dim[1];
    return gpu_launch(dev, "residual_norm_fwd", residual_norm_fwd_plain<T>, dim3((unsigned)R),
                      dim3(NORM_THREADS), 0, (T *)a->y->data, a->h ? (T *)a->h->data : nullptr,
                      (float *)a->mean->data, (float *)a->rstd->data, (const T *)a->x->data,
                      a->residual ? (const T *)a->residual->data : nullptr,
                      (const T *)a->gamma->data, (const T *)a->beta->data, (float)a->alpha,
                      (float)a->eps, C);
}

err_t residual_norm_fwd_cuda(struct dev *dev, const struct residual_norm_fwd_args *a)
{
    TRY(cuda_require_compute(a->x));
    if (a->kind != NORM_LAYER || a->gamma->dtype != a->x->dtype) RAISE(UNSUPPORTED, "later");
    return a->x->dtype == DTYPE_F32 ? residual_norm_fwd_of<float>(dev, a)
                                    : residual_norm_fwd_of<bf16>(dev, a);
}
