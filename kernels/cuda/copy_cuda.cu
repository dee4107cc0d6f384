/* Casts and sums of flat arrays. */
#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/ops_optim.h"

/* ---- cast ---- */

/* Element j of a run, as a float from which rounding to Y once gives the right bits. */
template <class Y, class X, int W>
__device__ __forceinline__ float cast_source(const run<X, W> &x, int j)
{
    return x.get(j);
}

/* A double as the float whose last bit stands for all that was cut off ("round to odd"): rounding
 * it to 16 bits is rounding the double at once. Doubles beyond f32 stay beyond f16. */
template <class Y, int W>
__device__ __forceinline__ float cast_source(const run<double, W> &x, int j)
{
    const double wide = x.u[j];
    const float nearest = (float)wide;
    if (sizeof(Y) > 2 || (double)nearest == wide || nearest != nearest) return nearest;
    const unsigned bits = __float_as_uint(nearest);
    const unsigned cut = fabs((double)nearest) > fabs(wide) ? bits - 1 : bits;
    return __uint_as_float(cut | 1u);
}

template <class Y, class X> struct cast_map {
    static constexpr int width = sizeof(X) == 8 || sizeof(Y) == 8 ? 4 : 8;
    typedef run<X, width> in;
    Y *y;
    const X *x;

    __device__ void load(in &to, int64_t i) const { to.load(x + i); }
    __device__ void load_some(in &to, int64_t i, int64_t left) const { to.load_some(x + i, left); }
    __device__ run<Y, width> compute(const in &from) const
    {
        run<Y, width> y_run;
        float out[width];
#pragma unroll
        for (int j = 0; j < width; j++) out[j] = cast_source<Y>(from, j);
        if constexpr (sizeof(Y) < 8) {
            y_run.set(out);
        } else {
#pragma unroll
            for (int j = 0; j < width; j++) y_run.u[j] = (double)out[j];
        }
        return y_run;
    }
};

template <class Y, class X> static err_t cast_of(struct dev *dev, const struct cast_args *a)
{
    if constexpr (std::is_same_v<Y, X>) {
        return gpu_copy(gpu_of(dev), DEV_COMPUTE, a->y->data, a->x->data,
                        tensor_count(a->x) * (int64_t)sizeof(X));
    } else {
        const cast_map<Y, X> map = { (Y *)a->y->data, (const X *)a->x->data };
        return flat_launch(dev, "cast", map, tensor_count(a->x));
    }
}

template <class Y> static err_t cast_to(struct dev *dev, const struct cast_args *a)
{
    switch (a->x->dtype) {
    case DTYPE_F32:
        return cast_of<Y, float>(dev, a);
    case DTYPE_BF16:
        return cast_of<Y, bf16>(dev, a);
    case DTYPE_F16:
        return cast_of<Y, f16>(dev, a);
    default:
        return cast_of<Y, double>(dev, a);
    }
}

err_t cast_cuda(struct dev *dev, const struct cast_args *a)
{
    switch (a->y->dtype) {
    case DTYPE_F32:
        return cast_to<float>(dev, a);
    case DTYPE_BF16:
        return cast_to<bf16>(dev, a);
    case DTYPE_F16:
        return cast_to<f16>(dev, a);
    default:
        return cast_to<double>(dev, a);
    }
}

/* ---- add ---- */

template <class T> struct add_map {
    static constexpr int width = pack_width<T>;
    struct in {
        run<T, width> y, x;
    };
    T *y;
    const T *x;

    __device__ void load(in &to, int64_t i) const
    {
        to.y.load(y + i);
        to.x.load(x + i);
    }
    __device__ void load_some(in &to, int64_t i, int64_t left) const
    {
        to.y.load_some(y + i, left);
        to.x.load_some(x + i, left);
    }
    __device__ run<T, width> compute(in both) const
    {
#pragma unroll
        for (int j = 0; j < width; j++) both.y.u[j] += both.x.u[j];
        return both.y;
    }
};

template <class T> static err_t add_of(struct dev *dev, const struct add_args *a)
{
    const add_map<T> map = { (T *)a->y_acc->data, (const T *)a->x->data };
    return flat_launch(dev, "add", map, tensor_count(a->x));
}

err_t add_cuda(struct dev *dev, const struct add_args *a)
{
    return a->y_acc->dtype == DTYPE_F32 ? add_of<float>(dev, a) : add_of<double>(dev, a);
}
