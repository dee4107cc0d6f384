/*
 * elem.cuh - what the memory-bound kernels share: neighbours in registers, and maps over flat
 * arrays.
 *
 * Where rows, strides and offsets are multiples of a pack, a kernel works in accesses of 16 bytes;
 * elsewhere the same kernel, instantiated for single elements, does the same arithmetic.
 */
#ifndef KERNELS_CUDA_ELEM_CUH
#define KERNELS_CUDA_ELEM_CUH

#include "kernels/cuda/num.cuh"

#include <type_traits>

/* Two 16-bit numbers, the first one in the low half. */
struct __attribute__((may_alias)) word {
    uint32_t bits;
};

template <class T> __device__ __forceinline__ float half_of(uint32_t bits, int which);
template <> __device__ __forceinline__ float half_of<bf16>(uint32_t bits, int which)
{
    return __uint_as_float(which == 0 ? bits << 16 : bits & 0xffff0000u);
}
template <> __device__ __forceinline__ float half_of<f16>(uint32_t bits, int which)
{
    return to_float(f16{ (uint16_t)(which == 0 ? bits : bits >> 16) });
}

/*
 * W neighbours in registers as they are in memory. 16-bit numbers stay two in a register: taken
 * apart they would need one each, and where loads are conditional the compiler takes a pack apart
 * right behind its load, which then waits for the memory before the next load is sent.
 */
template <class T, int W> struct run {
    static constexpr bool WORDS = sizeof(T) == 2 && W % 2 == 0;
    typedef std::conditional_t<WORDS, word, T> unit;
    static constexpr int UNITS = WORDS ? W / 2 : W;
    static constexpr int ONCE = UNITS < pack_width<unit> ? UNITS : pack_width<unit>;
    unit u[UNITS];

    /* In the widest accesses; p aligned to them. */
    __device__ void load(const T *p)
    {
#pragma unroll
        for (int i = 0; i < UNITS; i += ONCE) {
            const auto in = load_pack<ONCE>(reinterpret_cast<const unit *>(p) + i);
#pragma unroll
            for (int j = 0; j < ONCE; j++) u[i + j] = in.v[j];
        }
    }
    __device__ void store(T *p) const
    {
#pragma unroll
        for (int i = 0; i < UNITS; i += ONCE) {
            unit *const to = reinterpret_cast<unit *>(p) + i;
            if constexpr (ONCE * sizeof(unit) == sizeof(int4)) {
                /* An ordinary store, by name: one of 16 bytes that is only written as an assignment
                 * the compiler breaks into words here and there. */
                int4 out;
                memcpy(&out, u + i, sizeof out);
                __stwb(reinterpret_cast<int4 *>(to), out);
            } else {
                pack<unit, ONCE> out;
#pragma unroll
                for (int j = 0; j < ONCE; j++) out.v[j] = u[i + j];
                store_pack<ONCE>(to, out);
            }
        }
    }
    /* One by one, `left` of them; the others are 0. */
    __device__ void load_some(const T *p, int64_t left)
    {
#pragma unroll
        for (int j = 0; j < W; j++) {
            const T x = j < left ? p[j] : T{};
            if constexpr (!WORDS)
                u[j] = x;
            else if (j % 2 == 0)
                u[j / 2].bits = x.bits;
            else
                u[j / 2].bits |= (uint32_t)x.bits << 16;
        }
    }
    __device__ void store_some(T *p, int64_t left) const
    {
#pragma unroll
        for (int j = 0; j < W; j++) {
            if (j >= left) continue;
            if constexpr (WORDS)
                p[j] = { (uint16_t)(u[j / 2].bits >> 16 * (j % 2)) };
            else
                p[j] = u[j];
        }
    }
    __device__ float get(int j) const
    {
        if constexpr (WORDS)
            return half_of<T>(u[j / 2].bits, j % 2);
        else
            return to_float(u[j]);
    }
    /* In the widest accesses where all W exist and p allows, else one by one. */
    template <bool WHOLE> __device__ void load_if(const T *p, int64_t left)
    {
        if (WHOLE)
            load(p);
        else
            load_some(p, left);
    }
    template <bool WHOLE> __device__ void store_if(T *p, int64_t left) const
    {
        if (WHOLE)
            store(p);
        else
            store_some(p, left);
    }
    /* All of them, rounded to T. */
    __device__ void set(const float (&x)[W])
    {
#pragma unroll
        for (int i = 0; i < UNITS; i++) {
            if constexpr (WORDS)
                u[i].bits =
                    from_float<T>(x[2 * i]).bits | (uint32_t)from_float<T>(x[2 * i + 1]).bits << 16;
            else
                u[i] = from_float<T>(x[i]);
        }
    }
};

template <int W, class T> __device__ __forceinline__ void load_floats(float (&out)[W], const T *p)
{
    run<T, W> in;
    in.load(p);
#pragma unroll
    for (int j = 0; j < W; j++) out[j] = in.get(j);
}

template <int W, class T> __device__ __forceinline__ void store_floats(T *p, const float (&x)[W])
{
    run<T, W> out;
    out.set(x);
    out.store(p);
}

/* ---- flat arrays ---- */

#define FLAT_THREADS 256
#define FLAT_RUNS    4 /* of each thread: loads in flight */

/* Elements that a block of flat_map takes. */
template <class F> constexpr int flat_tile = FLAT_THREADS *FLAT_RUNS *F::width;

template <class F> __device__ __forceinline__ int64_t flat_place(int run)
{
    return (int64_t)blockIdx.x * flat_tile<F> + (run * FLAT_THREADS + (int)threadIdx.x) * F::width;
}

/*
 * y[i .. i+width-1] = f.compute(what f.load read there), for all n elements. F has `width`, `in`,
 * `y`, load(in &, i), load_some(in &, i, left), and compute, whose result is a run. An element is
 * read before it is written: y may be what f reads at the same place.
 */
template <class F> __global__ void __launch_bounds__(FLAT_THREADS) flat_map(F f, int64_t n)
{
    typename F::in in[FLAT_RUNS];
    if ((blockIdx.x + (int64_t)1) * flat_tile<F> <= n) {
#pragma unroll
        for (int k = 0; k < FLAT_RUNS; k++) f.load(in[k], flat_place<F>(k));
#pragma unroll
        for (int k = 0; k < FLAT_RUNS; k++) f.compute(in[k]).store(f.y + flat_place<F>(k));
        return;
    }
#pragma unroll 1
    for (int k = 0; k < FLAT_RUNS; k++) {
        const int64_t i = flat_place<F>(k);
        f.load_some(in[0], i, n - i);
        f.compute(in[0]).store_some(f.y + i, n - i);
    }
}

template <class F> err_t flat_launch(struct dev *dev, const char *name, F f, int64_t n)
{
    return gpu_launch(dev, name, flat_map<F>, dim3((unsigned)div_ceil(n, flat_tile<F>)),
                      dim3(FLAT_THREADS), 0, f, n);
}

#endif
