/*
 * Attention without matrix units: f32 and bf16, any layout, sums in float. It is the check of the
 * faster ways and the way of f32.
 *
 * A block keeps a tile of ROWS rows, ROWS_OF_WARP to a warp, and lets tiles of COLS rows pass by,
 * one to a lane: a lane scores the warp's rows against its own, then owns columns of the sum.
 * Forward and dq keep queries and let keys pass; dk and dv keep keys and let queries pass. All
 * tiles lie in shared memory as float, rows 16 bytes wider than D so that lanes that read the same
 * column of their rows meet different banks.
 */
#include "kernels/cuda/attn.cuh"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/reduce.cuh"

#define WARPS         4
#define THREADS       (WARPS * WARP_SIZE)
#define ROWS_OF_WARP  4
#define ROWS          (WARPS * ROWS_OF_WARP)
#define COLS          WARP_SIZE
#define HEAD_DIM_MAX  256
#define ROW_FLOATS(D) ((D) + 4)

/* What all kernels here need to know of a call. */
struct plain_call {
    struct qkv_layout layout;
    int64_t R, W;
    float scale;
};

/* A tile of `count` rows, `rows` of them real and the others zero. */
template <class T>
__device__ void load_rows(float *tile, const T *from, int64_t stride, int rows, int count, int D)
{
    for (int i = (int)threadIdx.x; i < count * D; i += THREADS) {
        const int r = i / D, c = i % D;
        tile[r * ROW_FLOATS(D) + c] = r < rows ? to_float(from[r * stride + c]) : 0.0f;
    }
}

/* Products of the warp's rows with the lane's row. */
__device__ void multiply(float (&s)[ROWS_OF_WARP], const float *mine, const float *lanes, int D)
{
#pragma unroll
    for (int r = 0; r < ROWS_OF_WARP; r++) s[r] = 0.0f;
    for (int c = 0; c < D; c += 4) {
        const pack<float, 4> b = load_pack<4>(lanes + c);
#pragma unroll
        for (int r = 0; r < ROWS_OF_WARP; r++) {
            const pack<float, 4> a = load_pack<4>(mine + r * ROW_FLOATS(D) + c);
#pragma unroll
            for (int i = 0; i < 4; i++) s[r] = fmaf(a.v[i], b.v[i], s[r]);
        }
    }
}

/* Columns lane, lane+32, ... of sums over the rows that passed by. */
template <int N> struct sums {
    float of[ROWS_OF_WARP][N];
};

template <int N> __device__ void clear(sums<N> &sum)
{
#pragma unroll
    for (int r = 0; r < ROWS_OF_WARP; r++)
#pragma unroll
        for (int n = 0; n < N; n++) sum.of[r][n] = 0.0f;
}

/* sum[r] += sum_j weight[r][j] * tile[j] */
template <int N>
__device__ void add_rows(sums<N> &sum, const float *weight, const float *tile, int D)
{
    const int lane = (int)(threadIdx.x % WARP_SIZE);
    for (int j = 0; j < COLS; j++)
#pragma unroll
        for (int n = 0; n < N; n++) {
            const int c = n * WARP_SIZE + lane;
            const float x = c < D ? tile[j * ROW_FLOATS(D) + c] : 0.0f;
#pragma unroll
            for (int r = 0; r < ROWS_OF_WARP; r++)
                sum.of[r][n] = fmaf(weight[r * COLS + j], x, sum.of[r][n]);
        }
}

/* Row r of the warp's sums, times `factor`. */
template <class T, int N>
__device__ void store_row(T *to, const float (&sum)[N], float factor, int D)
{
    const int lane = (int)(threadIdx.x % WARP_SIZE);
#pragma unroll
    for (int n = 0; n < N; n++)
        if (n * WARP_SIZE + lane < D) to[n * WARP_SIZE + lane] = from_float<T>(sum[n] * factor);
}

template <class T, int N>
__global__ void __launch_bounds__(THREADS, 3)
    attn_fwd_plain(T *out, float *lse, const T *qkv, const attn_tile *tiles, plain_call call)
{
    const struct qkv_layout l = call.layout;
    const int H = (int)l.heads, D = (int)l.head_dim, h = (int)blockIdx.x % H;
    const int group = h / (H / (int)l.kv_heads);
    const int warp = (int)threadIdx.x / WARP_SIZE, lane = (int)threadIdx.x % WARP_SIZE;
    const attn_tile tile = tiles[blockIdx.x / H];
    const int rows = least(ROWS, tile.len - tile.first);
    const T *base = qkv + tile.start * call.W;

    DYNAMIC_SHARED(float, shared);
    float *q = shared, *k = q + ROWS * ROW_FLOATS(D), *v = k + COLS * ROW_FLOATS(D);
    float *weight = v + COLS * ROW_FLOATS(D) + warp * ROWS_OF_WARP * COLS;
    const float *mine = q + warp * ROWS_OF_WARP * ROW_FLOATS(D);
    load_rows(q, base + tile.first * call.W + l.q_offset + h * l.q_stride, call.W, rows, ROWS, D);

    sums<N> sum;
    float top[ROWS_OF_WARP], total[ROWS_OF_WARP]; /* total: of the lane */
    clear(sum);
#pragma unroll
    for (int r = 0; r < ROWS_OF_WARP; r++) {
        top[r] = -INFINITY;
        total[r] = 0.0f;
    }
    const int keys = visible_keys(tile, tile.first + rows - 1);
    for (int key = 0; key < keys; key += COLS) {
        const T *at = base + key * call.W;
        __syncthreads(); /* the tile before is read */
        load_rows(k, at + l.k_offset + group * l.k_stride, call.W, keys - key, COLS, D);
        load_rows(v, at + l.v_offset + group * l.v_stride, call.W, keys - key, COLS, D);
        __syncthreads();
        float s[ROWS_OF_WARP];
        multiply(s, mine, k + lane * ROW_FLOATS(D), D);
#pragma unroll
        for (int r = 0; r < ROWS_OF_WARP; r++) {
            const int i = tile.first + warp * ROWS_OF_WARP + r;
            const bool sees = key + lane < least(visible_keys(tile, i), keys);
            const float score = sees ? s[r] * call.scale : -INFINITY;
            const float new_top = fmaxf(top[r], warp_max(score)); /* finite: all see key 0 */
            const float shrink = expf(top[r] - new_top), p = expf(score - new_top);
            top[r] = new_top;
            total[r] = total[r] * shrink + p;
            weight[r * COLS + lane] = p;
#pragma unroll
            for (int n = 0; n < N; n++) sum.of[r][n] *= shrink;
        }
        __syncwarp();
        add_rows(sum, weight, v, D);
    }
#pragma unroll
    for (int r = 0; r < ROWS_OF_WARP; r++) {
        const float whole = warp_sum(total[r]);
        const int i = warp * ROWS_OF_WARP + r;
        const int64_t row = (int64_t)tile.start + tile.first + i;
        if (i >= rows) continue;
        store_row(out + (row * H + h) * D, sum.of[r], 1.0f / whole, D);
        if (lane == 0) lse[row * H + h] = top[r] + logf(whole);
    }
}

template <class T, int N>
__global__ void __launch_bounds__(THREADS, 3)
    attn_dq_plain(T *dqkv, const T *dout, const T *qkv, const attn_stat *stats,
                  const attn_tile *tiles, plain_call call)
{
    const struct qkv_layout l = call.layout;
    const int H = (int)l.heads, D = (int)l.head_dim, h = (int)blockIdx.x % H;
    const int group = h / (H / (int)l.kv_heads);
    const int warp = (int)threadIdx.x / WARP_SIZE, lane = (int)threadIdx.x % WARP_SIZE;
    const attn_tile tile = tiles[blockIdx.x / H];
    const int rows = least(ROWS, tile.len - tile.first);
    const int64_t first = (int64_t)tile.start + tile.first;
    const int64_t q_column = l.q_offset + h * l.q_stride;

    DYNAMIC_SHARED(float, shared);
    float *q = shared, *d = q + ROWS * ROW_FLOATS(D);
    float *k = d + ROWS * ROW_FLOATS(D), *v = k + COLS * ROW_FLOATS(D);
    float *weight = v + COLS * ROW_FLOATS(D) + warp * ROWS_OF_WARP * COLS;
    const int own = warp * ROWS_OF_WARP;
    load_rows(q, qkv + first * call.W + q_column, call.W, rows, ROWS, D);
    load_rows(d, dout + (first * H + h) * D, (int64_t)H * D, rows, ROWS, D);

    sums<N> sum;
    clear(sum);
    const int keys = visible_keys(tile, tile.first + rows - 1);
    for (int key = 0; key < keys; key += COLS) {
        const T *at = qkv + (tile.start + key) * call.W;
        __syncthreads(); /* the tile before is read */
        load_rows(k, at + l.k_offset + group * l.k_stride, call.W, keys - key, COLS, D);
        load_rows(v, at + l.v_offset + group * l.v_stride, call.W, keys - key, COLS, D);
        __syncthreads();
        float s[ROWS_OF_WARP], dp[ROWS_OF_WARP];
        multiply(s, q + own * ROW_FLOATS(D), k + lane * ROW_FLOATS(D), D);
        multiply(dp, d + own * ROW_FLOATS(D), v + lane * ROW_FLOATS(D), D);
#pragma unroll
        for (int r = 0; r < ROWS_OF_WARP; r++) {
            const bool sees =
                own + r < rows && key + lane < visible_keys(tile, tile.first + own + r);
            const attn_stat row = sees ? stats[h * call.R + first + own + r] : attn_stat{ 0, 0 };
            const float p = sees ? expf(s[r] * call.scale - row.lse) : 0.0f;
            weight[r * COLS + lane] = p * (dp[r] - row.delta);
        }
        __syncwarp();
        add_rows(sum, weight, k, D);
    }
#pragma unroll
    for (int r = 0; r < ROWS_OF_WARP; r++)
        if (own + r < rows)
            store_row(dqkv + (first + own + r) * call.W + q_column, sum.of[r], call.scale, D);
}

/* The heads of a group one after the other, so that their sum has one order. */
template <class T, int N>
__global__ void __launch_bounds__(THREADS, 2)
    attn_dkv_plain(T *dqkv, const T *dout, const T *qkv, const attn_stat *stats,
                   const attn_tile *tiles, plain_call call)
{
    const struct qkv_layout l = call.layout;
    const int H = (int)l.heads, G = (int)l.kv_heads, D = (int)l.head_dim;
    const int group = (int)blockIdx.x % G;
    const int warp = (int)threadIdx.x / WARP_SIZE, lane = (int)threadIdx.x % WARP_SIZE;
    const attn_tile tile = tiles[blockIdx.x / G];
    const int rows = least(ROWS, tile.len - tile.first);
    const int64_t first = (int64_t)tile.start + tile.first;
    const int64_t k_column = l.k_offset + group * l.k_stride;
    const int64_t v_column = l.v_offset + group * l.v_stride;

    DYNAMIC_SHARED(float, shared);
    float *k = shared, *v = k + ROWS * ROW_FLOATS(D);
    float *q = v + ROWS * ROW_FLOATS(D), *d = q + COLS * ROW_FLOATS(D);
    float *weight = d + COLS * ROW_FLOATS(D) + 2 * warp * ROWS_OF_WARP * COLS;
    float *weight_ds = weight + ROWS_OF_WARP * COLS;
    const int own = warp * ROWS_OF_WARP;
    load_rows(k, qkv + first * call.W + k_column, call.W, rows, ROWS, D);
    load_rows(v, qkv + first * call.W + v_column, call.W, rows, ROWS, D);

    sums<N> dk, dv;
    clear(dk);
    clear(dv);
    const int from = first_query(tile);
    for (int h = group * (H / G); h < (group + 1) * (H / G); h++)
        for (int query = from; query < tile.len; query += COLS) {
            const int64_t at = (int64_t)tile.start + query;
            const int count = tile.len - query;
            __syncthreads(); /* the tile before is read */
            load_rows(q, qkv + at * call.W + l.q_offset + h * l.q_stride, call.W, count, COLS, D);
            load_rows(d, dout + (at * H + h) * D, (int64_t)H * D, count, COLS, D);
            __syncthreads();
            float s[ROWS_OF_WARP], dp[ROWS_OF_WARP];
            multiply(s, k + own * ROW_FLOATS(D), q + lane * ROW_FLOATS(D), D);
            multiply(dp, v + own * ROW_FLOATS(D), d + lane * ROW_FLOATS(D), D);
            const attn_stat row = lane < count ? stats[h * call.R + at + lane] : attn_stat{ 0, 0 };
#pragma unroll
            for (int r = 0; r < ROWS_OF_WARP; r++) {
                const bool seen =
                    lane < count && tile.first + own + r < visible_keys(tile, query + lane);
                const float p = seen ? expf(s[r] * call.scale - row.lse) : 0.0f;
                weight[r * COLS + lane] = p;
                weight_ds[r * COLS + lane] = p * (dp[r] - row.delta);
            }
            __syncwarp();
            add_rows(dv, weight, d, D);
            add_rows(dk, weight_ds, q, D);
        }
#pragma unroll
    for (int r = 0; r < ROWS_OF_WARP; r++)
        if (own + r < rows) {
            store_row(dqkv + (first + own + r) * call.W + k_column, dk.of[r], call.scale, D);
            store_row(dqkv + (first + own + r) * call.W + v_column, dv.of[r], 1.0f, D);
        }
}

/* ---- the host's half ---- */

static int64_t shared_bytes(int64_t kept, int64_t passing, int64_t weights, int64_t D)
{
    return (int64_t)sizeof(float) *
           ((kept * ROWS + passing * COLS) * ROW_FLOATS(D) + weights * ROWS * COLS);
}

/* Of the kernel that wants most: 102 KiB at D = 256, where cards for games have 99. */
static int64_t shared_bytes_most(int64_t D) { return shared_bytes(2, 2, 2, D); }

static bool takes(const struct dev *dev, const struct tensor *qkv, const struct qkv_layout *layout)
{
    return (qkv->dtype == DTYPE_F32 || qkv->dtype == DTYPE_BF16) && layout->head_dim % 4 == 0 &&
           layout->head_dim <= HEAD_DIM_MAX &&
           shared_bytes_most(layout->head_dim) <= gpu_of(dev)->shared_bytes_max;
}

template <class T, int N> static err_t fwd_of(struct dev *dev, const struct attn_fwd_args *a)
{
    const int64_t R = a->qkv->dim[0], H = a->layout.heads, D = a->layout.head_dim;
    const struct plain_call call = { a->layout, R, a->qkv->dim[1], (float)a->scale };
    struct scratch left = a->scratch;
    struct attn_tile *tiles;
    int64_t count;
    TRY(attn_list_tiles(&tiles, &count, dev, a->segments, a->segments_host, R, ROWS, ATTN_QUERIES,
                        &left));
    TRY(attn_zero_padding(dev, a->out, a->segments, a->segments_host));
    TRY(attn_zero_padding(dev, a->lse, a->segments, a->segments_host));
    return gpu_launch(dev, "attn_fwd_plain", attn_fwd_plain<T, N>, dim3((unsigned)(count * H)),
                      dim3(THREADS), shared_bytes(1, 2, 1, D), (T *)a->out->data,
                      (float *)a->lse->data, (const T *)a->qkv->data, tiles, call);
}

template <class T, int N> static err_t bwd_of(struct dev *dev, const struct attn_bwd_args *a)
{
    const int64_t R = a->qkv->dim[0], D = a->layout.head_dim;
    const struct plain_call call = { a->layout, R, a->qkv->dim[1], (float)a->scale };
    struct scratch left = a->scratch;
    struct attn_tile *queries, *keys;
    struct attn_stat *stats;
    int64_t query_count, key_count;
    T *dqkv = (T *)a->dqkv->data;
    const T *dout = (const T *)a->dout->data, *qkv = (const T *)a->qkv->data;
    TRY(attn_list_tiles(&queries, &query_count, dev, a->segments, a->segments_host, R, ROWS,
                        ATTN_QUERIES, &left));
    TRY(attn_list_tiles(&keys, &key_count, dev, a->segments, a->segments_host, R, ROWS, ATTN_KEYS,
                        &left));
    TRY(attn_list_stats(&stats, dev, a, 1.0f, &left));
    TRY(attn_zero_dqkv(dev, a));
    TRY(gpu_launch(dev, "attn_dq_plain", attn_dq_plain<T, N>,
                   dim3((unsigned)(query_count * a->layout.heads)), dim3(THREADS),
                   shared_bytes(2, 2, 1, D), dqkv, dout, qkv, stats, queries, call));
    return gpu_launch(dev, "attn_dkv_plain", attn_dkv_plain<T, N>,
                      dim3((unsigned)(key_count * a->layout.kv_heads)), dim3(THREADS),
                      shared_bytes_most(D), dqkv, dout, qkv, stats, keys, call);
}

/* By the number of columns a lane owns. */
template <class T> static err_t fwd_by_width(struct dev *dev, const struct attn_fwd_args *a)
{
    const int64_t D = a->layout.head_dim;
    return D <= 32    ? fwd_of<T, 1>(dev, a)
           : D <= 64  ? fwd_of<T, 2>(dev, a)
           : D <= 128 ? fwd_of<T, 4>(dev, a)
                      : fwd_of<T, 8>(dev, a);
}

template <class T> static err_t bwd_by_width(struct dev *dev, const struct attn_bwd_args *a)
{
    const int64_t D = a->layout.head_dim;
    return D <= 32    ? bwd_of<T, 1>(dev, a)
           : D <= 64  ? bwd_of<T, 2>(dev, a)
           : D <= 128 ? bwd_of<T, 4>(dev, a)
                      : bwd_of<T, 8>(dev, a);
}

static err_t fwd(struct dev *dev, const struct attn_fwd_args *a)
{
    return a->qkv->dtype == DTYPE_F32 ? fwd_by_width<float>(dev, a) : fwd_by_width<bf16>(dev, a);
}

static err_t bwd(struct dev *dev, const struct attn_bwd_args *a)
{
    return a->qkv->dtype == DTYPE_F32 ? bwd_by_width<float>(dev, a) : bwd_by_width<bf16>(dev, a);
}

extern const struct attn_path attn_plain = {
    .name = "plain",
    .wants = "f32 or bf16 and a head_dim that is a multiple of 4, up to 256 (248 where a block has "
             "99 KiB of shared memory)",
    .takes = takes,
    .fwd = fwd,
    .bwd = bwd,
    .fwd_scratch = attn_lists_fwd_bytes,
    .bwd_scratch = attn_lists_bwd_bytes,
};
