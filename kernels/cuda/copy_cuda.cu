/* Casts and sums of flat arrays. */
#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/ops_optim.h"

/* ---- cast ---- */

/* A number of any format, as one from which rounding to Y once gives the right bits. */
template <class Y, class X> __device__ __forceinline__ float cast_source(X x)
{
    return to_float(x);
}

/* The float whose last bit stands for all that was cut off ("round to odd"): rounding it to 16 bits
 * is rounding the double at once. Doubles beyond f32 stay beyond f16. */
template <class Y> __device__ __forceinline__ float cast_source(double x)
{
    const float nearest = (float)x;
    if (sizeof(Y) > 2 || (double)nearest == x || nearest != nearest) return nearest;
    const unsigned bits = __float_as_uint(nearest);
    const unsigned cut = fabs((double)nearest) > fabs(x) ? bits - 1 : bits;
    return __uint_as_float(cut | 1u);
}

template <class Y> __device__ __forceinline__ Y cast_result(float x) { return from_float<Y>(x); }
template <> __device__ __forceinline__ double cast_result<double>(float x) { return (double)x; }

template <class Y, class X> struct cast_map {
    /* The narrower side has one access of 16 bytes, or the wider one two. */
    static constexpr int width = sizeof(X) == 8 || sizeof(Y) == 8 ? 4 : 8;
    typedef pack<X, width> in;
    Y *y;
    const X *x;

    __device__ in load(int64_t i, int64_t n) const { return load_some<width>(x, i, n); }
    __device__ void store(int64_t i, int64_t n, const in &from) const
    {
        pack<Y, width> out;
#pragma unroll
        for (int j = 0; j < width; j++) out.v[j] = cast_result<Y>(cast_source<Y>(from.v[j]));
        store_some<width>(y, i, n, out);
    }
};

template <class Y, class X> static err_t cast_of(struct dev *dev, const struct cast_args *a)
{
    const cast_map<Y, X> map = { (Y *)a->y->data, (const X *)a->x->data };
    return flat_launch(dev, "cast", map, tensor_count(a->x));
}

template <class Y> static err_t cast_to(struct dev *dev, const struct cast_args *a)
{
    switch (a->x->dtype) {
    case DTYPE_F32: return cast_of<Y, float>(dev, a);
    case DTYPE_BF16: return cast_of<Y, bf16>(dev, a);
    case DTYPE_F16: return cast_of<Y, f16>(dev, a);
    default: return cast_of<Y, double>(dev, a);
    }
}

err_t cast_cuda(struct dev *dev, const struct cast_args *a)
{
    if (a->x->dtype == a->y->dtype)
        return gpu_copy(gpu_of(dev), DEV_COMPUTE, a->y->data, a->x->data,
                        tensor_count(a->x) * dtype_bytes(a->x->dtype));
    switch (a->y->dtype) {
    case DTYPE_F32: return cast_to<float>(dev, a);
    case DTYPE_BF16: return cast_to<bf16>(dev, a);
    case DTYPE_F16: return cast_to<f16>(dev, a);
    default: return cast_to<double>(dev, a);
    }
}

/* ---- add ---- */

template <class T> struct add_map {
    static constexpr int width = pack_width<T>;
    struct in {
        pack<T, width> y, x;
    };
    T *y;
    const T *x;

    __device__ in load(int64_t i, int64_t n) const
    {
        return { load_some<width>(y, i, n), load_some<width>(x, i, n) };
    }
    __device__ void store(int64_t i, int64_t n, in both) const
    {
#pragma unroll
        for (int j = 0; j < width; j++) both.y.v[j] += both.x.v[j];
        store_some<width>(y, i, n, both.y);
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
