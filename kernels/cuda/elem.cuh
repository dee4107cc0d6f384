/*
 * elem.cuh - what the memory-bound kernels share: runs of neighbours as floats, and the launch of
 * kernels that map one flat run of elements.
 *
 * Where rows, strides and offsets are multiples of a pack, a kernel works in accesses of 16 bytes;
 * elsewhere the same kernel, instantiated for single elements, does the same arithmetic.
 */
#ifndef KERNELS_CUDA_ELEM_CUH
#define KERNELS_CUDA_ELEM_CUH

#include "kernels/cuda/num.cuh"

/* Elements of T in one access of at most 16 bytes when W are wanted. */
template <class T, int W> constexpr int piece_width = W < pack_width<T> ? W : pack_width<T>;

/* W neighbours in as many accesses as they need; p aligned to one access. */
template <int W, class T> __device__ __forceinline__ void load_floats(float (&out)[W], const T *p)
{
    constexpr int P = piece_width<T, W>;
#pragma unroll
    for (int i = 0; i < W; i += P) {
        const pack<T, P> in = load_pack<P>(p + i);
#pragma unroll
        for (int j = 0; j < P; j++) out[i + j] = to_float(in.v[j]);
    }
}

template <int W, class T> __device__ __forceinline__ void store_floats(T *p, const float (&x)[W])
{
    constexpr int P = piece_width<T, W>;
#pragma unroll
    for (int i = 0; i < W; i += P) {
        pack<T, P> out;
#pragma unroll
        for (int j = 0; j < P; j++) out.v[j] = from_float<T>(x[i + j]);
        store_pack<P>(p + i, out);
    }
}

/* ---- flat runs ---- */

#define FLAT_THREADS 256
#define FLAT_PACKS   4 /* of each thread: loads in flight */

/*
 * f.load(i, n) gives what element i .. i+W-1 need, f.store(i, n, in) writes them; elements from n
 * on are not touched. All loads of a thread come before its first store, so that an output may be
 * the memory of an input.
 */
template <class F> __global__ void __launch_bounds__(FLAT_THREADS) flat_map(F f, int64_t n)
{
    const int64_t tile = (int64_t)blockIdx.x * (FLAT_THREADS * FLAT_PACKS * F::width);
    typename F::in in[FLAT_PACKS];
#pragma unroll
    for (int k = 0; k < FLAT_PACKS; k++) {
        const int64_t i = tile + (k * FLAT_THREADS + (int)threadIdx.x) * F::width;
        if (i < n) in[k] = f.load(i, n);
    }
#pragma unroll
    for (int k = 0; k < FLAT_PACKS; k++) {
        const int64_t i = tile + (k * FLAT_THREADS + (int)threadIdx.x) * F::width;
        if (i < n) f.store(i, n, in[k]);
    }
}

template <class F> err_t flat_launch(struct dev *dev, const char *name, F f, int64_t n)
{
    const int64_t blocks = div_ceil(n, FLAT_THREADS * FLAT_PACKS * F::width);
    return gpu_launch(dev, name, flat_map<F>, dim3((unsigned)blocks), dim3(FLAT_THREADS), 0, f, n);
}

/* W elements at p + i as the array has them; the last ones of the array one by one. */
template <int W, class T>
__device__ __forceinline__ pack<T, W> load_some(const T *p, int64_t i, int64_t n)
{
    if (i + W <= n) {
        constexpr int P = piece_width<T, W>;
        pack<T, W> out;
#pragma unroll
        for (int j = 0; j < W; j += P) {
            const pack<T, P> in = load_pack<P>(p + i + j);
#pragma unroll
            for (int e = 0; e < P; e++) out.v[j + e] = in.v[e];
        }
        return out;
    }
    pack<T, W> out = {};
#pragma unroll
    for (int j = 0; j < W; j++)
        if (i + j < n) out.v[j] = p[i + j];
    return out;
}

template <int W, class T>
__device__ __forceinline__ void store_some(T *p, int64_t i, int64_t n, const pack<T, W> &x)
{
    if (i + W <= n) {
        constexpr int P = piece_width<T, W>;
#pragma unroll
        for (int j = 0; j < W; j += P) {
            pack<T, P> out;
#pragma unroll
            for (int e = 0; e < P; e++) out.v[e] = x.v[j + e];
            store_pack<P>(p + i + j, out);
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < W; j++)
        if (i + j < n) p[i + j] = x.v[j];
}

#endif
