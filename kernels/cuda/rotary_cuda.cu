/* Rotary positions, in place. */
#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/ops_attn.h"

#define ROTARY_THREADS 128
#define ROTARY_HEADS   4 /* of each thread at a time: loads in flight */

template <class T> struct rotary_params {
    T *qkv;
    const int32_t *pos, *block; /* block: nullptr: one stream, pairs of neighbours */
    const float *cosine, *sine;
    int64_t row_stride, q_offset, q_stride, k_offset, k_stride;
    int heads, heads_all; /* query heads, and key heads after them */
    int quarter;
    float sign;
};

/* Column of head h, of the queries and then of the keys. */
template <class T> __device__ __forceinline__ int64_t head_column(const rotary_params<T> &a, int h)
{
    return h < a.heads ? a.q_offset + h * a.q_stride : a.k_offset + (h - a.heads) * a.k_stride;
}

/* W pairs, one element in each of two runs. Where pairs are neighbours, the runs follow each other
 * in memory and the pairs lie inside them. */
template <bool NEIGHBOURS, class T, int W>
__device__ __forceinline__ void rotate(run<T, W> &low, run<T, W> &high, const float (&c)[W],
                                       const float (&s)[W])
{
    float x[2][W]; /* low, high */
#pragma unroll
    for (int i = 0; i < W; i++) {
        x[0][i] = low.get(i);
        x[1][i] = high.get(i);
    }
#pragma unroll
    for (int i = 0; i < W; i++) {
        float &first = NEIGHBOURS ? x[2 * i / W][2 * i % W] : x[0][i];
        float &second = NEIGHBOURS ? x[(2 * i + 1) / W][(2 * i + 1) % W] : x[1][i];
        const float a = first, b = second;
        first = fmaf(a, c[i], -(b * s[i]));
        second = fmaf(b, c[i], a * s[i]);
    }
    low.set(x[0]);
    high.set(x[1]);
}

/*
 * A block rotates one row. A thread keeps the cosines and sines of W pairs of a head and walks over
 * heads; `part` says which pairs.
 */
template <class T, int W, bool NEIGHBOURS>
__global__ void __launch_bounds__(ROTARY_THREADS) rotary_rows(rotary_params<T> a)
{
    const int per_stream = a.quarter / W, parts = NEIGHBOURS ? per_stream : 2 * per_stream;
    const int wide =
        parts < ROTARY_THREADS ? parts : ROTARY_THREADS; /* threads beside each other */
    const int groups = ROTARY_THREADS / wide, group = threadIdx.x / wide;
    T *const row = a.qkv + (int64_t)blockIdx.x * a.row_stride;
    if (group >= groups) return;
    for (int part = threadIdx.x % wide; part < parts; part += wide) {
        const int stream = part / per_stream, j = part % per_stream * W;
        const int64_t at = stream == 0 ? a.pos[blockIdx.x] : a.block[blockIdx.x];
        float c[W], s[W];
        load_floats<W>(c, a.cosine + at * a.quarter + j);
        load_floats<W>(s, a.sine + at * a.quarter + j);
#pragma unroll
        for (int i = 0; i < W; i++) s[i] *= a.sign;
        const int low_at = NEIGHBOURS ? 2 * j : 2 * stream * a.quarter + j;
        const int high_at = low_at + (NEIGHBOURS ? W : a.quarter);
        for (int h = group; h < a.heads_all; h += groups * ROTARY_HEADS) {
            run<T, W> low[ROTARY_HEADS], high[ROTARY_HEADS];
#pragma unroll
            for (int k = 0; k < ROTARY_HEADS; k++) {
                if (h + k * groups >= a.heads_all) continue;
                const T *head = row + head_column(a, h + k * groups);
                low[k].load(head + low_at);
                high[k].load(head + high_at);
            }
#pragma unroll
            for (int k = 0; k < ROTARY_HEADS; k++) {
                if (h + k * groups >= a.heads_all) continue;
                T *head = row + head_column(a, h + k * groups);
                rotate<NEIGHBOURS>(low[k], high[k], c, s);
                low[k].store(head + low_at);
                high[k].store(head + high_at);
            }
        }
    }
}

template <class T> static err_t rotary_of(struct dev *dev, const struct rotary_args *a)
{
    const struct qkv_layout *l = &a->layout;
    const bool neighbours = a->kind == ROTARY_HALF_INTERLEAVED;
    const rotary_params<T> params = {
        .qkv = (T *)a->qkv->data,
        .pos = (const int32_t *)a->pos->data,
        .block = neighbours ? nullptr : (const int32_t *)a->block->data,
        .cosine = (const float *)a->cos->data,
        .sine = (const float *)a->sin->data,
        .row_stride = a->qkv->row_stride,
        .q_offset = l->q_offset,
        .q_stride = l->q_stride,
        .k_offset = l->k_offset,
        .k_stride = l->k_stride,
        .heads = (int)l->heads,
        .heads_all = (int)(l->heads + l->kv_heads),
        .quarter = (int)(l->head_dim / 4),
        .sign = a->inverse ? -1.0f : 1.0f,
    };
    constexpr int W = pack_width<T>;
    const bool packs = params.quarter % W == 0 && params.row_stride % W == 0 &&
                       l->q_offset % W == 0 && l->q_stride % W == 0 && l->k_offset % W == 0 &&
                       l->k_stride % W == 0;
    void (*const kernel)(rotary_params<T>) =
        neighbours ? (packs ? rotary_rows<T, W, true> : rotary_rows<T, 1, true>)
                   : (packs ? rotary_rows<T, W, false> : rotary_rows<T, 1, false>);
    return gpu_launch(dev, "rotary", kernel, dim3((unsigned)a->qkv->dim[0]), dim3(ROTARY_THREADS),
                      0, params);
}

err_t rotary_cuda(struct dev *dev, const struct rotary_args *a)
{
    TRY(cuda_require_compute(a->qkv));
    return a->qkv->dtype == DTYPE_F32 ? rotary_of<float>(dev, a) : rotary_of<bf16>(dev, a);
}
