/*
 * Attention of single new tokens over a cache: bound by reading the cache once.
 *
 * A block takes one query head of one row and SPLIT positions. A group of lanes reads a position
 * with 16 bytes a lane, UNROLL positions at a time so that many loads are on their way, and keeps a
 * running softmax of its own; groups, then warps, then splits are merged in a fixed order. Which
 * positions meet where depends on the cache's shape alone, so that a row has the same bits whoever
 * else is in the batch.
 */
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/ops_attn.h"

#include <inttypes.h>

#define SPLIT        256 /* positions of a block */
#define WARPS        4
#define THREADS      (WARPS * WARP_SIZE)
#define UNROLL       4
#define HEAD_DIM_MAX 256
#define SUMS         (WARPS * HEAD_DIM_MAX)

template <class T> struct decode_call {
    T *out, *k_cache, *v_cache;
    const T *qkv;
    const int *slots, *lens;
    float *partial; /* [B*H, splits, D+2]: sum over v, largest score, sum; NULL: one split */
    struct qkv_layout layout;
    int64_t W, T_room;
    float scale;
    int splits;
};

/* A softmax under way: sum of exponentials relative to `top`, and of values weighted by them. */
template <int N> struct running {
    float top, total, sum[N];
};

/* Bring `a` to a new maximum. -inf, where nothing was seen yet, stays without weight. */
template <int N> __device__ __forceinline__ void shrink_to(running<N> &a, float top)
{
    const float shrink = a.top == top ? 1.0f : expf(a.top - top);
    a.top = top;
    a.total *= shrink;
#pragma unroll
    for (int i = 0; i < N; i++) a.sum[i] *= shrink;
}

/* The new token's k and v to their place; all heads of a group store the same. */
template <class T>
__device__ void store_new(const decode_call<T> &c, int64_t b, int group, int64_t row)
{
    const struct qkv_layout &l = c.layout;
    const int64_t D = l.head_dim, at = row * l.kv_heads * D + group * D;
    for (int i = (int)threadIdx.x; i < D; i += THREADS) {
        c.k_cache[at + i] = c.qkv[b * c.W + l.k_offset + group * l.k_stride + i];
        c.v_cache[at + i] = c.qkv[b * c.W + l.v_offset + group * l.v_stride + i];
    }
}

/* A lane's elements of a row: N/E pieces of E, LANES*E apart. */
template <class T, int E, int LANES, int N>
__device__ __forceinline__ void load_lane(float (&x)[N], const T *row, int lane, int D)
{
#pragma unroll
    for (int i = 0; i < N / E; i++) {
        const int c = (i * LANES + lane) * E;
        pack<T, E> piece = {};
        if (c < D) piece = load_pack<E>(row + c);
#pragma unroll
        for (int e = 0; e < E; e++) x[i * E + e] = to_float(piece.v[e]);
    }
}

template <int LANES, int N>
__device__ __forceinline__ float dot(const float (&a)[N], const float (&b)[N])
{
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) sum = fmaf(a[i], b[i], sum);
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(WARP_ALL, sum, step);
    return sum;
}

/* UNROLL positions of each of the warp's groups of lanes, from `first` on; those >= end weigh
 * nothing. */
template <class T, int E, int LANES, int N>
__device__ __forceinline__ void take_positions(running<N> &state, const float (&q)[N],
                                               const decode_call<T> &c, int64_t base, int first,
                                               int end)
{
    constexpr int GROUPS = WARP_SIZE / LANES;
    const int lane = (int)threadIdx.x % LANES, own = (int)threadIdx.x % WARP_SIZE / LANES;
    const int D = (int)c.layout.head_dim;
    const int64_t stride = c.layout.kv_heads * c.layout.head_dim;
    float k[UNROLL][N], v[UNROLL][N], score[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) { /* past the end: the last row again */
        const int p = first + u * GROUPS + own;
        const int64_t at = base + (p < end ? p : end - 1) * stride;
        load_lane<T, E, LANES>(k[u], c.k_cache + at, lane, D);
        load_lane<T, E, LANES>(v[u], c.v_cache + at, lane, D);
    }
    float top = state.top;
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        const float s = dot<LANES>(q, k[u]) * c.scale;
        score[u] = first + u * GROUPS + own < end ? s : -INFINITY;
        top = fmaxf(top, score[u]);
    }
    shrink_to(state, top);
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
        const float p = score[u] == -INFINITY ? 0.0f : expf(score[u] - top);
        state.total += p;
#pragma unroll
        for (int i = 0; i < N; i++) state.sum[i] = fmaf(p, v[u][i], state.sum[i]);
    }
}

/* Add the other groups of the warp: every lane ends with the sums of its columns. */
template <int LANES, int N> __device__ __forceinline__ void merge_groups(running<N> &a)
{
#pragma unroll
    for (int step = LANES; step < WARP_SIZE; step *= 2) {
        shrink_to(a, fmaxf(a.top, __shfl_xor_sync(WARP_ALL, a.top, step)));
        a.total += __shfl_xor_sync(WARP_ALL, a.total, step);
#pragma unroll
        for (int i = 0; i < N; i++) a.sum[i] += __shfl_xor_sync(WARP_ALL, a.sum[i], step);
    }
}

/* The warps of the block, one after the other, to the split's place. */
template <class T>
__device__ void store_split(const decode_call<T> &c, const float *sums, const float *tops,
                            const float *totals)
{
    const int D = (int)c.layout.head_dim;
    const float top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
    float total = 0.0f, share[WARPS];
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        share[w] = expf(tops[w] - top);
        total = fmaf(share[w], totals[w], total);
    }
    float *partial = c.partial == nullptr
                         ? nullptr
                         : c.partial + ((int64_t)blockIdx.x * c.splits + blockIdx.y) * (D + 2);
    for (int i = (int)threadIdx.x; i < D; i += THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum = fmaf(share[w], sums[w * HEAD_DIM_MAX + i], sum);
        if (partial == nullptr)
            c.out[(int64_t)blockIdx.x * D + i] = from_float<T>(sum / total);
        else
            partial[i] = sum;
    }
    if (partial != nullptr && threadIdx.x == 0) {
        partial[D] = top;
        partial[D + 1] = total;
    }
}

/* blockIdx.x: (row, head), blockIdx.y: split. */
template <class T, int E, int LANES, int N>
__global__ void __launch_bounds__(THREADS) decode_split(decode_call<T> c)
{
    SHARED_ARRAY(float, sums, SUMS);
    SHARED_ARRAY(float, tops, WARPS);
    SHARED_ARRAY(float, totals, WARPS);
    constexpr int AT_ONCE = UNROLL * WARP_SIZE / LANES; /* positions of a warp */
    const struct qkv_layout &l = c.layout;
    const int H = (int)l.heads, D = (int)l.head_dim, h = (int)blockIdx.x % H;
    const int group = h / (H / (int)l.kv_heads);
    const int64_t b = blockIdx.x / (unsigned)H, slot = c.slots[b], len = c.lens[b];
    const int begin = (int)blockIdx.y * SPLIT;
    const int end = (int)(len + 1 < begin + SPLIT ? len + 1 : begin + SPLIT);
    const int warp = (int)threadIdx.x / WARP_SIZE, lane = (int)threadIdx.x % LANES;
    if (begin > len) return; /* the whole block */
    if (end == len + 1) {
        store_new(c, b, group, slot * c.T_room + len);
        __syncthreads();
    }
    float q[N];
    running<N> state = { -INFINITY, 0.0f, {} };
#pragma unroll
    for (int i = 0; i < N; i++) { /* may lie anywhere in its row, so one by one */
        const int column = (i / E * LANES + lane) * E + i % E;
        q[i] = column < D ? to_float(c.qkv[b * c.W + l.q_offset + h * l.q_stride + column]) : 0.0f;
    }
    const int64_t base = (slot * c.T_room * l.kv_heads + group) * D;
    for (int p = begin + warp * AT_ONCE; p < end; p += WARPS * AT_ONCE)
        take_positions<T, E, LANES>(state, q, c, base, p, end);
    merge_groups<LANES>(state);

    if (threadIdx.x % WARP_SIZE < LANES)
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int column = (i / E * LANES + lane) * E + i % E;
            if (column < D) sums[warp * HEAD_DIM_MAX + column] = state.sum[i];
        }
    if (threadIdx.x % WARP_SIZE == 0) {
        tops[warp] = state.top;
        totals[warp] = state.total;
    }
    __syncthreads();
    store_split(c, sums, tops, totals);
}

/* The splits of a row and head, one after the other. */
template <class T> __global__ void decode_merge(decode_call<T> c)
{
    const int H = (int)c.layout.heads, D = (int)c.layout.head_dim;
    const int used = c.lens[blockIdx.x / (unsigned)H] / SPLIT + 1;
    const float *partial = c.partial + (int64_t)blockIdx.x * c.splits * (D + 2);
    float top = partial[D], total = 0.0f;
    for (int s = 1; s < used; s++) top = fmaxf(top, partial[s * (D + 2) + D]);
    for (int s = 0; s < used; s++)
        total = fmaf(expf(partial[s * (D + 2) + D] - top), partial[s * (D + 2) + D + 1], total);
    for (int i = (int)threadIdx.x; i < D; i += THREADS) {
        float sum = 0.0f;
        for (int s = 0; s < used; s++)
            sum = fmaf(expf(partial[s * (D + 2) + D] - top), partial[s * (D + 2) + i], sum);
        c.out[(int64_t)blockIdx.x * D + i] = from_float<T>(sum / total);
    }
}

/* ---- the host's half ---- */

static int64_t split_count(const struct decode_attn_args *a)
{
    return div_ceil(a->k_cache->dim[1], SPLIT);
}

int64_t decode_attn_scratch_cuda(const struct dev *dev, const struct decode_attn_args *a)
{
    (void)dev;
    const struct qkv_layout *l = &a->layout;
    const int64_t splits = split_count(a);
    if (splits < 2) return 0;
    return align_up(a->qkv->dim[0] * l->heads * splits * (l->head_dim + 2) * (int64_t)sizeof(float),
                    256);
}

template <class T, int E, int LANES, int N>
static err_t decode_of(struct dev *dev, const struct decode_attn_args *a)
{
    const int64_t rows = a->qkv->dim[0] * a->layout.heads, splits = split_count(a);
    const decode_call<T> call = { (T *)a->out->data,
                                  (T *)a->k_cache->data,
                                  (T *)a->v_cache->data,
                                  (const T *)a->qkv->data,
                                  (const int *)a->slots->data,
                                  (const int *)a->lens->data,
                                  splits > 1 ? (float *)a->scratch.data : nullptr,
                                  a->layout,
                                  a->qkv->dim[1],
                                  a->k_cache->dim[1],
                                  (float)a->scale,
                                  (int)splits };
    TRY(gpu_launch(dev, "decode_split", decode_split<T, E, LANES, N>,
                   dim3((unsigned)rows, (unsigned)splits), dim3(THREADS), 0, call));
    if (splits == 1) return ERR_OK;
    return gpu_launch(dev, "decode_merge", decode_merge<T>, dim3((unsigned)rows), dim3(THREADS), 0,
                      call);
}

/* 16 bytes a lane where rows of the cache are made of such pieces; else one element. */
template <class T> static err_t decode_by_width(struct dev *dev, const struct decode_attn_args *a)
{
    constexpr int E = pack_width<T>;
    const int64_t D = a->layout.head_dim;
    if (D % E != 0) return decode_of<T, 1, 32, 8>(dev, a);
    return D <= 4 * E    ? decode_of<T, E, 4, E>(dev, a)
           : D <= 8 * E  ? decode_of<T, E, 8, E>(dev, a)
           : D <= 16 * E ? decode_of<T, E, 16, E>(dev, a)
           : D <= 32 * E ? decode_of<T, E, 32, E>(dev, a)
                         : decode_of<T, E, 32, HEAD_DIM_MAX / 32>(dev, a);
}

err_t decode_attn_cuda(struct dev *dev, const struct decode_attn_args *a)
{
    TRY(cuda_require_compute(a->qkv));
    if (a->layout.head_dim > HEAD_DIM_MAX)
        RAISE(UNSUPPORTED, "decode_attn: head_dim %" PRId64 "; the cuda backend takes up to %d",
              a->layout.head_dim, HEAD_DIM_MAX);
    return a->qkv->dtype == DTYPE_F32 ? decode_by_width<float>(dev, a)
                                      : decode_by_width<bf16>(dev, a);
}
