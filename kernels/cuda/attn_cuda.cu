/*
 * Attention: which way a call goes, and the small kernels that the own ways share: lists of tiles,
 * row statistics of the backward pass, zeros for padding.
 */
#include "kernels/cuda/attn.h"
#include "kernels/cuda/dev_cuda.h"
#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/reduce.cuh"

#include "base/check.h"
#include "base/env.h"

#include <inttypes.h>
#include <string.h>

#define LIST_THREADS 256
#define STAT_WARPS   8
#define STAT_RUNS    4 /* of each warp: loads in flight */
#define ZERO_THREADS 256
#define ZERO_BLOCKS  16 /* a gap */

/* ---- choosing ---- */

err_t attn_read_switch(struct dev *dev)
{
    static const char *const names[] = { "plain", "mma", "cudnn" };
    const char *wanted = env_get("SOULCHAT_ATTENTION");
    dev_cuda_of(dev)->attn_forced = NULL;
    if (wanted == NULL) return ERR_OK;
    for (const char *name : names)
        if (strcmp(wanted, name) == 0) dev_cuda_of(dev)->attn_forced = name;
    if (dev_cuda_of(dev)->attn_forced == NULL)
        RAISE(USAGE, "SOULCHAT_ATTENTION=%s: expected plain, mma or cudnn", wanted);
    return ERR_OK;
}

const struct attn_path *attn_choose(const struct dev *dev, const struct tensor *qkv,
                                    const struct qkv_layout *layout)
{
    const struct dev_cuda *cuda = dev_cuda_of(dev);
    const struct attn_path *const fastest_first[] = { cuda->attn_library, &attn_mma, &attn_plain };
    for (const struct attn_path *path : fastest_first) {
        if (path == NULL || !path->takes(dev, qkv, layout)) continue;
        if (cuda->attn_forced == NULL || strcmp(cuda->attn_forced, path->name) == 0) return path;
    }
    return NULL;
}

static err_t refuse(const struct dev *dev, const struct tensor *qkv,
                    const struct qkv_layout *layout)
{
    const char *forced = dev_cuda_of(dev)->attn_forced;
    TRY(cuda_require_compute(qkv));
    if (forced != NULL)
        RAISE(UNSUPPORTED,
              "attention: SOULCHAT_ATTENTION=%s, which is not there or does not take %s with "
              "head_dim %" PRId64 ", %" PRId64 " heads and %" PRId64 " kv_heads (mma wants %s)",
              forced, dtype_name(qkv->dtype), layout->head_dim, layout->heads, layout->kv_heads,
              attn_mma.wants);
    RAISE(UNSUPPORTED, "attention: head_dim %" PRId64 "; the cuda backend wants %s",
          layout->head_dim, attn_plain.wants);
}

int64_t attn_fwd_scratch_cuda(const struct dev *dev, const struct attn_fwd_args *a)
{
    const struct attn_path *path = attn_choose(dev, a->qkv, &a->layout);
    return path == NULL ? 0 : path->fwd_scratch(dev, a);
}

int64_t attn_bwd_scratch_cuda(const struct dev *dev, const struct attn_bwd_args *a)
{
    const struct attn_path *path = attn_choose(dev, a->qkv, &a->layout);
    return path == NULL ? 0 : path->bwd_scratch(dev, a);
}

err_t attn_fwd_cuda(struct dev *dev, const struct attn_fwd_args *a)
{
    const struct attn_path *path = attn_choose(dev, a->qkv, &a->layout);
    return path == NULL ? refuse(dev, a->qkv, &a->layout) : path->fwd(dev, a);
}

err_t attn_bwd_cuda(struct dev *dev, const struct attn_bwd_args *a)
{
    const struct attn_path *path = attn_choose(dev, a->qkv, &a->layout);
    return path == NULL ? refuse(dev, a->qkv, &a->layout) : path->bwd(dev, a);
}

/* ---- tiles ---- */

/*
 * The place of a tile in the list is the number of tiles with more work, and of those with as much
 * that come before it. Inside a segment work is monotone, so that both counts are a formula for
 * each segment and no sorting is needed: a thread finds the place of its tile alone.
 */
__device__ __forceinline__ int tiles_of(attn_segment s, int size)
{
    return (s.len + size - 1) / size;
}

/* Keys that rows of the tile see; or, of a tile of keys, rows that see it. */
__device__ __forceinline__ int work_of(attn_segment s, int tile, int size, attn_axis axis)
{
    const int first = tile * size;
    if (axis == ATTN_KEYS) return first < s.ctx ? s.len : s.len - first;
    const int end = first + size < s.len ? first + size : s.len;
    return end > s.ctx ? end : s.ctx;
}

/* Tiles of the segment with more work than that. */
__device__ __forceinline__ int count_above(attn_segment s, int work, int size, attn_axis axis)
{
    if (work >= s.len) return 0;
    if (axis == ATTN_QUERIES)
        return s.ctx > work ? tiles_of(s, size) : tiles_of(s, size) - work / size;
    const int whole = (s.ctx + size - 1) / size; /* seen by all rows */
    const int others = (s.len - work + size - 1) / size;
    return whole > others ? whole : others;
}

__global__ void list_tiles(attn_tile *tiles, int count, const attn_segment *segments, int S,
                           int size, attn_axis axis)
{
    const int n = (int)(blockIdx.x * LIST_THREADS + threadIdx.x);
    if (n >= count) return;
    int own = 0, before = 0;
    while (own < S - 1 && before + tiles_of(segments[own], size) <= n)
        before += tiles_of(segments[own++], size);
    const attn_segment segment = segments[own];
    const int tile = n - before, work = work_of(segment, tile, size, axis);

    int place = 0;
    for (int s = 0; s < S; s++) /* an earlier segment's go first where the work is the same */
        place += count_above(segments[s], s < own ? work - 1 : work, size, axis);
    place += axis == ATTN_KEYS
                 ? tile - count_above(segment, work, size, axis)
                 : tile - (tiles_of(segment, size) - count_above(segment, work - 1, size, axis));
    tiles[place] = { segment.start, segment.ctx, segment.len, tile * size };
}

err_t attn_list_tiles(struct attn_tile **out, int64_t *count, struct dev *dev,
                      const struct tensor *segments, const struct attn_segment *host, int64_t R,
                      int64_t size, enum attn_axis axis, struct scratch *left)
{
    const int64_t S = segments->dim[0];
    *out = (struct attn_tile *)cuda_scratch_take(left, attn_tiles_bytes(R));
    *count = 0;
    for (int64_t s = 0; s < S; s++) *count += div_ceil(host[s].len, size);
    if (*count == 0) return ERR_OK;
    return gpu_launch(dev, "attn_list_tiles", list_tiles,
                      dim3((unsigned)div_ceil(*count, LIST_THREADS)), dim3(LIST_THREADS), 0, *out,
                      (int)*count, (const struct attn_segment *)segments->data, (int)S, (int)size,
                      axis);
}

/* ---- statistics of the backward pass ---- */

/* A warp takes STAT_RUNS neighbours of all pairs of a row and a head, a lane 4 columns of each. */
template <class T>
__global__ void __launch_bounds__(STAT_WARPS *WARP_SIZE)
    list_stats(attn_stat *stats, const T *dout, const T *out, const float *lse, float lse_unit,
               unsigned R, unsigned H, int D)
{
    const int lane = (int)(threadIdx.x % WARP_SIZE);
    const unsigned count = R * H;
    const unsigned first = (blockIdx.x * STAT_WARPS + threadIdx.x / WARP_SIZE) * STAT_RUNS;
    float sum[STAT_RUNS] = {};
    if (first >= count) return; /* the whole warp */
    for (int c = 4 * lane; c < D; c += 4 * WARP_SIZE) {
        run<T, 4> a[STAT_RUNS], b[STAT_RUNS];
#pragma unroll
        for (unsigned k = 0; k < STAT_RUNS; k++) { /* past the end: the last one again */
            const int64_t at = (first + k < count ? first + k : count - 1) * (int64_t)D + c;
            a[k].load(dout + at);
            b[k].load(out + at);
        }
#pragma unroll
        for (int k = 0; k < STAT_RUNS; k++)
#pragma unroll
            for (int i = 0; i < 4; i++) sum[k] = fmaf(a[k].get(i), b[k].get(i), sum[k]);
    }
    float delta = 0.0f; /* lane k keeps that of pair k */
#pragma unroll
    for (int k = 0; k < STAT_RUNS; k++) {
        const float whole = warp_sum(sum[k]);
        if (lane == k) delta = whole;
    }
    const unsigned n = first + (unsigned)lane;
    if (lane >= STAT_RUNS || n >= count) return;
    stats[(int64_t)(n % H) * R + n / H] = { lse[n] * lse_unit, delta };
}

template <class T>
static err_t queue_stats(struct dev *dev, struct attn_stat *stats, const struct attn_bwd_args *a,
                         float lse_unit)
{
    const int64_t R = a->qkv->dim[0], H = a->layout.heads;
    ASSERT(R * H <= INT32_MAX);
    return gpu_launch(dev, "attn_list_stats", list_stats<T>,
                      dim3((unsigned)div_ceil(R * H, STAT_WARPS * STAT_RUNS)),
                      dim3(STAT_WARPS * WARP_SIZE), 0, stats, (const T *)a->dout->data,
                      (const T *)a->out->data, (const float *)a->lse->data, lse_unit, (unsigned)R,
                      (unsigned)H, (int)a->layout.head_dim);
}

err_t attn_list_stats(struct attn_stat **out, struct dev *dev, const struct attn_bwd_args *a,
                      float lse_unit, struct scratch *left)
{
    *out = (struct attn_stat *)cuda_scratch_take(left,
                                                 attn_stats_bytes(a->qkv->dim[0], a->layout.heads));
    return a->qkv->dtype == DTYPE_F32 ? queue_stats<float>(dev, *out, a, lse_unit)
                                      : queue_stats<bf16>(dev, *out, a, lse_unit);
}

/* ---- padding ---- */

/* blockIdx.x: the gap before that segment, or after the last. */
template <class T>
__global__ void zero_gaps(T *data, int64_t row, const attn_segment *segments, int S, int64_t R)
{
    const int s = (int)blockIdx.x;
    const int64_t begin = s == 0 ? 0 : (int64_t)segments[s - 1].start + segments[s - 1].len;
    const int64_t end = s == S ? R : segments[s].start;
    const int64_t step = (int64_t)gridDim.y * ZERO_THREADS;
    for (int64_t i = begin * row + blockIdx.y * ZERO_THREADS + threadIdx.x; i < end * row;
         i += step)
        data[i] = from_float<T>(0.0f);
}

static int64_t rows_covered(const struct attn_segment *host, int64_t S)
{
    int64_t rows = 0;
    for (int64_t s = 0; s < S; s++) rows += host[s].len;
    return rows;
}

err_t attn_zero_padding(struct dev *dev, const struct tensor *t, const struct tensor *segments,
                        const struct attn_segment *host)
{
    const int64_t R = t->dim[0], row = t->dim[1], S = segments->dim[0];
    const struct attn_segment *on_device = (const struct attn_segment *)segments->data;
    const dim3 grid((unsigned)(S + 1), ZERO_BLOCKS), block(ZERO_THREADS);
    if (rows_covered(host, S) == R) return ERR_OK;
    return t->dtype == DTYPE_F32 ? gpu_launch(dev, "attn_zero_gaps", zero_gaps<float>, grid, block,
                                              0, (float *)t->data, row, on_device, (int)S, R)
                                 : gpu_launch(dev, "attn_zero_gaps", zero_gaps<bf16>, grid, block,
                                              0, (bf16 *)t->data, row, on_device, (int)S, R);
}

err_t attn_zero_dqkv(struct dev *dev, const struct attn_bwd_args *a)
{
    const struct qkv_layout *l = &a->layout;
    const struct tensor *dqkv = a->dqkv;
    const int64_t all = (l->heads + 2 * l->kv_heads) * l->head_dim;
    if (dqkv->dim[1] != all)
        return gpu_zero(gpu_of(dev), DEV_COMPUTE, dqkv->data,
                        tensor_count(dqkv) * dtype_bytes(dqkv->dtype));
    return attn_zero_padding(dev, dqkv, a->segments, a->segments_host);
}
