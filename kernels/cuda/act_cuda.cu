/* Activations alone: what lean activations recompute. */
#include "kernels/cuda/act.cuh"

#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/ops_linear.h"

template <class T> struct gelu_map {
    static constexpr int width = pack_width<T>;
    typedef run<T, width> in;
    T *y;
    const T *pre;

    __device__ void load(in &x, int64_t i) const { x.load(pre + i); }
    __device__ void load_some(in &x, int64_t i, int64_t left) const { x.load_some(pre + i, left); }
    __device__ run<T, width> compute(const in &x) const
    {
        float out[width];
#pragma unroll
        for (int j = 0; j < width; j++) out[j] = act_gelu<T>(x.get(j));
        run<T, width> y_run;
        y_run.set(out);
        return y_run;
    }
};

#define SWIGLU_THREADS 256
#define SWIGLU_RUNS    2

/* Row r of pre is u1 | u2; a block takes one piece of one row. */
template <class T, int W>
__global__ void __launch_bounds__(SWIGLU_THREADS)
    swiglu_rows(T *y, const T *pre, int64_t N, unsigned pieces)
{
    const int64_t row = blockIdx.x / pieces, piece = blockIdx.x % pieces;
    const T *u1 = pre + row * 2 * N, *u2 = u1 + N;
    run<T, W> a[SWIGLU_RUNS], b[SWIGLU_RUNS];
#pragma unroll
    for (int k = 0; k < SWIGLU_RUNS; k++) {
        const int64_t c = ((piece * SWIGLU_RUNS + k) * SWIGLU_THREADS + threadIdx.x) * W;
        if (c >= N) continue;
        a[k].load(u1 + c);
        b[k].load(u2 + c);
    }
#pragma unroll
    for (int k = 0; k < SWIGLU_RUNS; k++) {
        const int64_t c = ((piece * SWIGLU_RUNS + k) * SWIGLU_THREADS + threadIdx.x) * W;
        if (c >= N) continue;
        float out[W];
#pragma unroll
        for (int j = 0; j < W; j++) out[j] = act_swiglu<T>(a[k].get(j), b[k].get(j));
        a[k].set(out);
        a[k].store(y + row * N + c);
    }
}

template <class T, int W> static err_t swiglu_launch(struct dev *dev, const struct act_fwd_args *a)
{
    const int64_t R = a->y->dim[0], N = a->y->dim[1];
    const int64_t pieces = div_ceil(N, SWIGLU_THREADS * SWIGLU_RUNS * W);
    return gpu_launch(dev, "act_fwd swiglu", swiglu_rows<T, W>, dim3((unsigned)(R * pieces)),
                      dim3(SWIGLU_THREADS), 0, (T *)a->y->data, (const T *)a->pre->data, N,
                      (unsigned)pieces);
}

template <class T> static err_t act_fwd_of(struct dev *dev, const struct act_fwd_args *a)
{
    if (a->act == ACT_GELU_TANH) {
        const gelu_map<T> map = { (T *)a->y->data, (const T *)a->pre->data };
        return flat_launch(dev, "act_fwd gelu", map, tensor_count(a->y));
    }
    return a->y->dim[1] % pack_width<T> == 0 ? swiglu_launch<T, pack_width<T>>(dev, a)
                                             : swiglu_launch<T, 1>(dev, a);
}

err_t act_fwd_cuda(struct dev *dev, const struct act_fwd_args *a)
{
    TRY(cuda_require_compute(a->y));
    return a->y->dtype == DTYPE_F32 ? act_fwd_of<float>(dev, a) : act_fwd_of<bf16>(dev, a);
}
