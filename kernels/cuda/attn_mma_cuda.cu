/*
 * Attention in bf16 on matrix units (mma.sync, compute capability 8.0 on), sums in float.
 *
 * Forward, after Dao 2023 (arXiv:2307.08691): a block keeps a tile of queries of one head; tiles of
 * keys and values pass by in a ring of shared memory, two on their way while one is used; maximum
 * and sum of each row are kept as they go and the output is divided once. Tiles that no row of the
 * block sees are never loaded, those that no row of a warp sees are not computed.
 * Probabilities are rounded to bf16 for their product with the values, their sum is not.
 *
 * Backward: one kernel keeps keys and lets queries pass (dk, dv), another keeps queries and lets
 * keys pass (dq). The scores are computed in both: seven products instead of five, and in return no
 * two blocks add to one number, so that results have the same bits every time.
 *
 * Exponentials are powers of two: scores and lse are used times log2(e).
 */
#include "kernels/cuda/attn.cuh"
#include "kernels/cuda/attn_tile.cuh"

#include <math.h>

#define LOG2_E 1.44269504088896341f
#define LN_2   0.69314718055994531f

/* Forward: 32 rows a warp, so that what is read of k and v serves two products. */
#define FWD_SLICES 2
#define FWD_ROWS   (TILE_WARPS * 16 * FWD_SLICES)
#define FWD_KEYS   64
#define FWD_RING   3 /* tiles of keys or values */
/* Backward: what a block keeps, and what passes by, in a ring of two pairs of tiles. */
#define BWD_ROWS    (TILE_WARPS * 16)
#define BWD_COLS(D) ((D) == 128 ? 32 : 64)
#define BWD_RING    2

struct mma_call {
    struct qkv_layout layout;
    int64_t R, W;
    float scale, scale_log2; /* the second times log2(e) */
};

/* Over the four lanes that share a row. */
__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(WARP_ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(WARP_ALL, x, 2));
}

__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(WARP_ALL, x, 1);
    return x + __shfl_xor_sync(WARP_ALL, x, 2);
}

/* s = -inf where a query, one of the piece's rows from `query` on, does not see a key, one of its
 * columns from `key` on. */
template <int M, int N>
__device__ __forceinline__ void hide(piece<M, N> &s, const attn_tile &tile, int query, int key)
{
    const int lane = (int)(threadIdx.x % 32);
    if (key + 8 * N <= visible_keys(tile, query)) return; /* all see all */
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int visible = visible_keys(tile, query + 16 * m + lane / 4 + i / 2 * 8);
            const int column = key + lane % 4 * 2 + i % 2;
#pragma unroll
            for (int n = 0; n < N; n++)
                if (column + 8 * n >= visible) s.of[m][n][i] = -INFINITY;
        }
}

/* The same with keys as rows and queries as columns. */
template <int N>
__device__ __forceinline__ void hide_keys(piece<1, N> &s, const attn_tile &tile, int key, int query)
{
    const int lane = (int)(threadIdx.x % 32);
    if (key + 16 <= visible_keys(tile, query)) return;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int visible = visible_keys(tile, query + 8 * n + lane % 4 * 2 + i % 2);
            if (key + lane / 4 + i / 2 * 8 >= visible) s.of[0][n][i] = -INFINITY;
        }
}

/* Of the rows of a warp in the forward pass, each times log2(e): the largest score so far; and the
 * lane's share of the sum of exponentials relative to it. */
template <int M> struct softmax_rows {
    float top[M][2], total[M][2];
};

/* Scores become exponentials relative to the new maximum; what was summed before shrinks. */
template <int D, int M, int N>
__device__ __forceinline__ void take_scores(softmax_rows<M> &rows, piece<M, D / 8> &sum,
                                            piece<M, N> &s, float scale_log2)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float largest = -INFINITY;
#pragma unroll
            for (int n = 0; n < N; n++)
                largest = fmaxf(largest, fmaxf(s.of[m][n][2 * half], s.of[m][n][2 * half + 1]));
            /* Finite: the first tile has key 0, which all see. */
            const float top = fmaxf(rows.top[m][half], quad_max(largest) * scale_log2);
            const float shrink = exp2_fast(rows.top[m][half] - top);
            float total = rows.total[m][half] * shrink;
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    s.of[m][n][i] = exp2_fast(fmaf(s.of[m][n][i], scale_log2, -top));
                    total += s.of[m][n][i];
                }
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                sum.of[m][n][2 * half] *= shrink;
                sum.of[m][n][2 * half + 1] *= shrink;
            }
            rows.top[m][half] = top;
            rows.total[m][half] = total;
        }
}

/* Divide by the sums of exponentials, and store the log-sum-exp: `lse` of the tile's row 0. */
template <int D, int M>
__device__ __forceinline__ void finish_rows(piece<M, D / 8> &sum, const softmax_rows<M> &rows,
                                            float *lse, int64_t stride, int row, int count)
{
    const int lane = (int)(threadIdx.x % 32);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float total = quad_sum(rows.total[m][half]), inverse = 1.0f / total;
            const int r = row + 16 * m + 8 * half + lane / 4;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                sum.of[m][n][2 * half] *= inverse;
                sum.of[m][n][2 * half + 1] *= inverse;
            }
            if (lane % 4 == 0 && r < count)
                lse[r * stride] = fmaf(rows.top[m][half], LN_2, logf(total));
        }
}

template <int D>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    attn_fwd_mma(bf16 *out, float *lse, const bf16 *qkv, const attn_tile *tiles, mma_call call)
{
    constexpr int M = FWD_SLICES, N = FWD_KEYS / 8;
    const struct qkv_layout &l = call.layout;
    const int H = (int)l.heads, h = (int)blockIdx.x % H;
    const attn_tile tile = tiles[blockIdx.x / H];
    const int rows = least(FWD_ROWS, tile.len - tile.first);
    const int row = (int)threadIdx.x / 32 * 16 * M; /* the warp's first of the tile */
    const int keys = visible_keys(tile, tile.first + rows - 1);
    const int steps = (keys + FWD_KEYS - 1) / FWD_KEYS;
    const bf16 *base = qkv + tile.start * call.W;
    const bf16 *k = base + l.k_offset + h * l.k_stride, *v = base + l.v_offset + h * l.v_stride;

    DYNAMIC_SHARED(bf16, shared);
    bf16 *q = shared, *ring = q + FWD_ROWS * D;
    /* Tiles 0, 2, .. are keys, 1, 3, .. values. */
    const auto load = [&](int i) {
        const int first = i / 2 * FWD_KEYS;
        if (i < 2 * steps)
            load_tile<D, FWD_KEYS>(ring + i % FWD_RING * FWD_KEYS * D,
                                   (i % 2 ? v : k) + first * call.W, call.W, keys - first);
        async_commit();
    };
    load_tile<D, FWD_ROWS>(q, base + tile.first * call.W + l.q_offset + h * l.q_stride, call.W,
                           rows);
    load(0);
    load(1);

    piece<M, D / 8> sum;
    softmax_rows<M> state;
    clear(sum);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            state.top[m][half] = -INFINITY;
            state.total[m][half] = 0.0f;
        }
    const int warp_keys =
        row < rows ? visible_keys(tile, tile.first + least(rows, row + 16 * M) - 1) : 0;
    for (int step = 0; step < steps; step++) {
        const int key = step * FWD_KEYS;
        rounded<M, N> p;
        async_wait<1>();
        __syncthreads(); /* the keys are here, and the tile before them is read */
        load(2 * step + 2);
        if (key < warp_keys) {
            piece<M, N> s;
            multiply<D>(s, q, row, ring + 2 * step % FWD_RING * FWD_KEYS * D);
            hide(s, tile, tile.first + row, key);
            take_scores<D>(state, sum, s, call.scale_log2);
            round_piece(p, s);
        }
        async_wait<1>();
        __syncthreads(); /* the values are here, and the keys are read */
        load(2 * step + 3);
        if (key < warp_keys)
            add_product<D>(sum, p, ring + (2 * step + 1) % FWD_RING * FWD_KEYS * D);
    }
    if (row >= rows) return;
    const int64_t first = (int64_t)tile.start + tile.first;
    finish_rows<D>(sum, state, lse + first * H + h, H, row, rows);
    store_rows<D>(out + (first * H + h) * D, (int64_t)H * D, rows, q, row, sum);
}

/* s becomes ds = p*(dp - delta) with p = 2^(s*scale - lse), rows of queries. */
template <int N>
__device__ __forceinline__ void score_gradients(piece<1, N> &s, const piece<1, N> &dp,
                                                const attn_stat (&row)[2], float scale_log2)
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float p = exp2_fast(fmaf(s.of[0][n][i], scale_log2, -row[i / 2].lse));
            s.of[0][n][i] = p * (dp.of[0][n][i] - row[i / 2].delta);
        }
}

template <int M, int N> __device__ __forceinline__ void scale_by(piece<M, N> &c, float factor)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) c.of[m][n][i] *= factor;
}

template <int D>
__global__ void __launch_bounds__(TILE_THREADS, 3)
    attn_dq_mma(bf16 *dqkv, const bf16 *dout, const bf16 *qkv, const attn_stat *stats,
                const attn_tile *tiles, mma_call call)
{
    constexpr int COLS = BWD_COLS(D), N = COLS / 8, PAIR = 2 * COLS * D;
    const struct qkv_layout &l = call.layout;
    const int H = (int)l.heads, h = (int)blockIdx.x % H, lane = (int)threadIdx.x % 32;
    const attn_tile tile = tiles[blockIdx.x / H];
    const int rows = least(BWD_ROWS, tile.len - tile.first);
    const int row = (int)threadIdx.x / 32 * 16;
    const int keys = visible_keys(tile, tile.first + rows - 1);
    const int steps = (keys + COLS - 1) / COLS;
    const int64_t first = (int64_t)tile.start + tile.first;
    const int64_t q_column = l.q_offset + h * l.q_stride;
    const bf16 *base = qkv + tile.start * call.W;
    const bf16 *k = base + l.k_offset + h * l.k_stride, *v = base + l.v_offset + h * l.v_stride;

    DYNAMIC_SHARED(bf16, shared);
    bf16 *q = shared, *d = q + BWD_ROWS * D, *ring = d + BWD_ROWS * D;
    const auto load = [&](int step) {
        bf16 *pair = ring + step % BWD_RING * PAIR;
        const int key = step * COLS;
        if (step < steps) {
            load_tile<D, COLS>(pair, k + key * call.W, call.W, keys - key);
            load_tile<D, COLS>(pair + COLS * D, v + key * call.W, call.W, keys - key);
        }
        async_commit();
    };
    load_tile<D, BWD_ROWS>(q, qkv + first * call.W + q_column, call.W, rows);
    load_tile<D, BWD_ROWS>(d, dout + (first * H + h) * D, (int64_t)H * D, rows);
    load(0);

    attn_stat stat[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int r = row + 8 * half + lane / 4;
        stat[half] = r < rows ? stats[h * call.R + first + r] : attn_stat{ 0.0f, 0.0f };
    }
    piece<1, D / 8> sum;
    clear(sum);
    const int warp_keys =
        row < rows ? visible_keys(tile, tile.first + least(rows, row + 16) - 1) : 0;
    for (int step = 0; step < steps; step++) {
        const bf16 *pair = ring + step % BWD_RING * PAIR;
        async_wait<0>();
        __syncthreads(); /* the pair is here, and the one before it is read */
        load(step + 1);
        if (step * COLS >= warp_keys) continue;
        piece<1, N> s, dp;
        rounded<1, N> ds;
        multiply<D>(s, q, row, pair);
        hide(s, tile, tile.first + row, step * COLS);
        multiply<D>(dp, d, row, pair + COLS * D);
        score_gradients(s, dp, stat, call.scale_log2);
        round_piece(ds, s);
        add_product<D>(sum, ds, pair);
    }
    if (row >= rows) return;
    scale_by(sum, call.scale);
    store_rows<D>(dqkv + first * call.W + q_column, call.W, rows, q, row, sum);
}

/* s becomes p and dp becomes ds, rows of keys; `stat` is of the columns' queries. */
template <int N>
__device__ __forceinline__ void key_gradients(piece<1, N> &s, piece<1, N> &dp,
                                              const attn_stat *stat, float scale_log2)
{
    const int lane = (int)(threadIdx.x % 32);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const attn_stat query = stat[8 * n + lane % 4 * 2 + i];
#pragma unroll
            for (int at = i; at < 4; at += 2) {
                const float p = exp2_fast(fmaf(s.of[0][n][at], scale_log2, -query.lse));
                s.of[0][n][at] = p;
                dp.of[0][n][at] = p * (dp.of[0][n][at] - query.delta);
            }
        }
}

template <int D>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    attn_dkv_mma(bf16 *dqkv, const bf16 *dout, const bf16 *qkv, const attn_stat *stats,
                 const attn_tile *tiles, mma_call call)
{
    constexpr int COLS = BWD_COLS(D), N = COLS / 8, PAIR = 2 * COLS * D;
    const struct qkv_layout &l = call.layout;
    const int H = (int)l.heads, h = (int)blockIdx.x % H;
    const attn_tile tile = tiles[blockIdx.x / H];
    const int rows = least(BWD_ROWS, tile.len - tile.first);
    const int row = (int)threadIdx.x / 32 * 16;
    const int from = first_query(tile);
    const int steps = (tile.len - from + COLS - 1) / COLS;
    const int64_t first = (int64_t)tile.start + tile.first;
    const int64_t k_column = l.k_offset + h * l.k_stride, v_column = l.v_offset + h * l.v_stride;
    const int64_t HD = (int64_t)H * D, at = (int64_t)tile.start + from;
    const bf16 *queries = qkv + at * call.W + l.q_offset + h * l.q_stride;
    const bf16 *douts = dout + (at * H + h) * D;
    const attn_stat *query_stats = stats + h * call.R + at;

    DYNAMIC_SHARED(bf16, shared);
    bf16 *k = shared, *v = k + BWD_ROWS * D, *ring = v + BWD_ROWS * D;
    attn_stat *stat_ring = reinterpret_cast<attn_stat *>(ring + BWD_RING * PAIR);
    const auto load = [&](int step) {
        bf16 *pair = ring + step % BWD_RING * PAIR;
        attn_stat *stat = stat_ring + step % BWD_RING * COLS;
        const int query = step * COLS, count = tile.len - from - query, t = (int)threadIdx.x;
        if (step < steps) {
            load_tile<D, COLS>(pair, queries + query * call.W, call.W, count);
            load_tile<D, COLS>(pair + COLS * D, douts + query * HD, HD, count);
            if (t < COLS) async_copy<8>(stat + t, query_stats + query + t, t < count);
        }
        async_commit();
    };
    load_tile<D, BWD_ROWS>(k, qkv + first * call.W + k_column, call.W, rows);
    load_tile<D, BWD_ROWS>(v, qkv + first * call.W + v_column, call.W, rows);
    load(0);

    piece<1, D / 8> dk, dv;
    clear(dk);
    clear(dv);
    for (int step = 0; step < steps; step++) {
        const bf16 *pair = ring + step % BWD_RING * PAIR;
        const int query = from + step * COLS, last = least(query + COLS, tile.len) - 1;
        async_wait<0>();
        __syncthreads(); /* the pair is here, and the one before it is read */
        load(step + 1);
        if (row >= rows || tile.first + row >= visible_keys(tile, last)) continue;
        piece<1, N> s, dp;
        rounded<1, N> p, ds;
        multiply<D>(s, k, row, pair);
        hide_keys(s, tile, tile.first + row, query);
        multiply<D>(dp, v, row, pair + COLS * D);
        key_gradients(s, dp, stat_ring + step % BWD_RING * COLS, call.scale_log2);
        round_piece(p, s);
        round_piece(ds, dp);
        add_product<D>(dv, p, pair + COLS * D);
        add_product<D>(dk, ds, pair);
    }
    if (row >= rows) return;
    scale_by(dk, call.scale);
    store_rows<D>(dqkv + first * call.W + k_column, call.W, rows, k, row, dk);
    store_rows<D>(dqkv + first * call.W + v_column, call.W, rows, v, row, dv);
}

/* ---- the host's half ---- */

static bool takes(const struct dev *dev, const struct tensor *qkv, const struct qkv_layout *l)
{
    (void)dev;
    const int64_t columns = qkv->dim[1] | l->q_offset | l->q_stride | l->k_offset | l->k_stride |
                            l->v_offset | l->v_stride;
    return qkv->dtype == DTYPE_BF16 && l->heads == l->kv_heads &&
           (l->head_dim == 64 || l->head_dim == 128) && columns % 8 == 0;
}

static struct mma_call call_of(const struct tensor *qkv, const struct qkv_layout *layout,
                               double scale)
{
    return { *layout, qkv->dim[0], qkv->dim[1], (float)scale, (float)(scale * (double)LOG2_E) };
}

static err_t fwd(struct dev *dev, const struct attn_fwd_args *a)
{
    const int64_t R = a->qkv->dim[0], H = a->layout.heads, D = a->layout.head_dim;
    const int64_t shared = (FWD_ROWS + FWD_RING * FWD_KEYS) * D * (int64_t)sizeof(bf16);
    struct scratch left = a->scratch;
    struct attn_tile *tiles;
    int64_t count;
    TRY(attn_list_tiles(&tiles, &count, dev, a->segments, a->segments_host, R, FWD_ROWS,
                        ATTN_QUERIES, &left));
    TRY(attn_zero_padding(dev, a->out, a->segments, a->segments_host));
    TRY(attn_zero_padding(dev, a->lse, a->segments, a->segments_host));
    return gpu_launch(dev, "attn_fwd_mma", D == 64 ? attn_fwd_mma<64> : attn_fwd_mma<128>,
                      dim3((unsigned)(count * H)), dim3(TILE_THREADS), shared, (bf16 *)a->out->data,
                      (float *)a->lse->data, (const bf16 *)a->qkv->data, tiles,
                      call_of(a->qkv, &a->layout, a->scale));
}

static err_t bwd(struct dev *dev, const struct attn_bwd_args *a)
{
    const int64_t R = a->qkv->dim[0], H = a->layout.heads, D = a->layout.head_dim;
    const int64_t tiles = (2 * BWD_ROWS + BWD_RING * 2 * BWD_COLS(D)) * D * (int64_t)sizeof(bf16);
    const int64_t stat_ring = BWD_RING * BWD_COLS(D) * (int64_t)sizeof(struct attn_stat);
    const struct mma_call call = call_of(a->qkv, &a->layout, a->scale);
    struct scratch left = a->scratch;
    struct attn_tile *queries, *keys;
    struct attn_stat *stats;
    int64_t query_count, key_count;
    bf16 *dqkv = (bf16 *)a->dqkv->data;
    const bf16 *dout = (const bf16 *)a->dout->data, *qkv = (const bf16 *)a->qkv->data;
    TRY(attn_list_tiles(&queries, &query_count, dev, a->segments, a->segments_host, R, BWD_ROWS,
                        ATTN_QUERIES, &left));
    TRY(attn_list_tiles(&keys, &key_count, dev, a->segments, a->segments_host, R, BWD_ROWS,
                        ATTN_KEYS, &left));
    TRY(attn_list_stats(&stats, dev, a, LOG2_E, &left));
    TRY(attn_zero_dqkv(dev, a));
    TRY(gpu_launch(dev, "attn_dkv_mma", D == 64 ? attn_dkv_mma<64> : attn_dkv_mma<128>,
                   dim3((unsigned)(key_count * H)), dim3(TILE_THREADS), tiles + stat_ring, dqkv,
                   dout, qkv, stats, keys, call));
    return gpu_launch(dev, "attn_dq_mma", D == 64 ? attn_dq_mma<64> : attn_dq_mma<128>,
                      dim3((unsigned)(query_count * H)), dim3(TILE_THREADS), tiles, dqkv, dout, qkv,
                      stats, queries, call);
}

extern const struct attn_path attn_mma = {
    .name = "mma",
    .wants = "bf16, head_dim 64 or 128, as many kv_heads as heads, offsets and strides that are "
             "multiples of 8",
    .takes = takes,
    .fwd = fwd,
    .bwd = bwd,
    .fwd_scratch = attn_lists_fwd_bytes,
    .bwd_scratch = attn_lists_bwd_bytes,
};
