/*
 * Residual addition and normalization. A block works on one row at a time, whose elements its
 * threads keep in registers as they came from memory, NORM_KEPT each: a row is read once, and the
 * number of threads follows from the width.
 */
#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/ops_norm.h"

#define NORM_KEPT        16
#define NORM_THREADS_MAX 1024
#define NORM_WARPS_MAX   (NORM_THREADS_MAX / WARP_SIZE)
#define NORM_COLS_MAX    (NORM_THREADS_MAX * NORM_KEPT)

static int norm_threads(int64_t C) { return (int)align_up(div_ceil(C, NORM_KEPT), WARP_SIZE); }

static err_t norm_require(const struct tensor *x)
{
    TRY(cuda_require_compute(x));
    if (x->dim[1] > NORM_COLS_MAX)
        RAISE(UNSUPPORTED, "%s: rows of %lld; the cuda backend normalizes up to %d columns",
              x->name == NULL ? "unnamed" : x->name, (long long)x->dim[1], NORM_COLS_MAX);
    return ERR_OK;
}

/* Where run k of this thread begins in a row; W neighbours each. */
template <int W> __device__ __forceinline__ int norm_column(int k)
{
    return (k * (int)blockDim.x + (int)threadIdx.x) * W;
}

/* Rows that fill their block: every thread has NORM_KEPT elements. */
static bool norm_fills(int64_t C) { return C == norm_threads(C) * NORM_KEPT; }

/* A thread's part of a row. WHOLE: rows fill their block. */
template <class T, int W, bool WHOLE> struct row_part {
    static constexpr int RUNS = NORM_KEPT / W;
    run<T, W> r[RUNS];

    __device__ static bool has(int k, int C) { return WHOLE || norm_column<W>(k) < C; }
    __device__ void load(const T *row, int C)
    {
#pragma unroll
        for (int k = 0; k < RUNS; k++)
            if (has(k, C)) r[k].load(row + norm_column<W>(k));
    }
    __device__ void store(T *row, int C) const
    {
#pragma unroll
        for (int k = 0; k < RUNS; k++)
            if (has(k, C)) r[k].store(row + norm_column<W>(k));
    }
};

/* ---- forward ---- */

template <class T, class G> struct norm_fwd_params {
    T *y, *h;              /* h: nullptr: not stored */
    float *mean, *rstd;    /* mean: nullptr for rms */
    const T *x, *residual; /* residual: nullptr: none */
    const G *gamma, *beta; /* beta: nullptr for rms */
    float alpha, eps;
    int C;
};

template <class T, int W, bool WHOLE>
__device__ __forceinline__ float sum_of(const row_part<T, W, WHOLE> &h, int C)
{
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < h.RUNS; k++) {
        if (!h.has(k, C)) continue;
#pragma unroll
        for (int j = 0; j < W; j++) sum += h.r[k].get(j);
    }
    return sum;
}

template <class T, int W, bool WHOLE>
__device__ __forceinline__ float squares_around(const row_part<T, W, WHOLE> &h, float centre, int C)
{
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < h.RUNS; k++) {
        if (!h.has(k, C)) continue;
#pragma unroll
        for (int j = 0; j < W; j++) {
            const float d = h.r[k].get(j) - centre;
            sum = fmaf(d, d, sum);
        }
    }
    return sum;
}

/* h = alpha * residual + x, rounded to T. */
template <class T, int W, bool WHOLE>
__device__ __forceinline__ void add_residual(row_part<T, W, WHOLE> &x, const T *residual,
                                             float alpha, int C)
{
#pragma unroll
    for (int k = 0; k < x.RUNS; k++) {
        if (!x.has(k, C)) continue;
        float h[W];
        load_floats<W>(h, residual + norm_column<W>(k));
#pragma unroll
        for (int j = 0; j < W; j++) h[j] = fmaf(alpha, h[j], x.r[k].get(j));
        x.r[k].set(h);
    }
}

template <class T, class G, int W, bool WHOLE>
__device__ __forceinline__ void write_y(T *y, const row_part<T, W, WHOLE> &h, const G *gamma,
                                        const G *beta, float mean, float rstd, int C)
{
#pragma unroll
    for (int k = 0; k < h.RUNS; k++) {
        if (!h.has(k, C)) continue;
        const int c = norm_column<W>(k);
        run<G, W> g, b = {};
        float out[W];
        g.load(gamma + c);
        if (beta != nullptr) b.load(beta + c);
#pragma unroll
        for (int j = 0; j < W; j++)
            out[j] = fmaf((h.r[k].get(j) - mean) * rstd, g.get(j), b.get(j));
        store_floats<W>(y + c, out);
    }
}

template <class T, class G, int W, bool WHOLE>
__global__ void __launch_bounds__(NORM_THREADS_MAX) norm_fwd(norm_fwd_params<T, G> a)
{
    SHARED_ARRAY(float, sums, NORM_WARPS_MAX);
    const int C = a.C;
    const int64_t row = blockIdx.x, at = row * C;
    row_part<T, W, WHOLE> h;
    h.load(a.x + at, C);
    if (a.residual != nullptr) add_residual(h, a.residual + at, a.alpha, C);
    if (a.h != nullptr) h.store(a.h + at, C);

    const float mean = a.mean != nullptr ? block_sum(sum_of(h, C), sums) / (float)C : 0.0f;
    const float squares = block_sum(squares_around(h, mean, C), sums);
    const float rstd = 1.0f / sqrtf(squares / (float)C + a.eps);
    write_y(a.y + at, h, a.gamma, a.beta, mean, rstd, C);
    if (threadIdx.x == 0) {
        if (a.mean != nullptr) a.mean[row] = mean;
        a.rstd[row] = rstd;
    }
}

template <class D> static D *data_of(const struct tensor *t)
{
    return t == NULL ? nullptr : (D *)t->data;
}

template <class T, class G>
static err_t norm_fwd_of(struct dev *dev, const struct residual_norm_fwd_args *a)
{
    const int64_t R = a->x->dim[0], C = a->x->dim[1];
    const norm_fwd_params<T, G> params = {
        data_of<T>(a->y),
        data_of<T>(a->h),
        data_of<float>(a->mean),
        data_of<float>(a->rstd),
        data_of<T>(a->x),
        data_of<T>(a->residual),
        data_of<G>(a->gamma),
        data_of<G>(a->beta),
        (float)a->alpha,
        (float)a->eps,
        (int)C,
    };
    constexpr int W = pack_width<T>;
    return gpu_launch(dev, "residual_norm_fwd",
                      norm_fills(C) ? norm_fwd<T, G, W, true>
                      : C % W == 0  ? norm_fwd<T, G, W, false>
                                    : norm_fwd<T, G, 1, false>,
                      dim3((unsigned)R), dim3((unsigned)norm_threads(C)), 0, params);
}

err_t residual_norm_fwd_cuda(struct dev *dev, const struct residual_norm_fwd_args *a)
{
    TRY(norm_require(a->x));
    if (a->x->dtype == DTYPE_F32) return norm_fwd_of<float, float>(dev, a);
    return a->gamma->dtype == DTYPE_F32 ? norm_fwd_of<bf16, float>(dev, a)
                                        : norm_fwd_of<bf16, bf16>(dev, a);
}

/* ---- backward ---- */

/* Blocks of rows, each with its own sums for dgamma and dbeta: two for every multiprocessor of an
 * H200, which is what fits beside each other. */
#define BWD_BLOCKS_MAX 264
#define BWD_ROWS_MIN   4

/* Up to this many threads rows and sums over rows stay in registers. Wider rows, and those that do
 * not fill their block, are read a second time, and their sums are in shared memory. */
#define BWD_THREADS_KEPT 512

static int64_t bwd_block_rows(int64_t R)
{
    return max_i64(BWD_ROWS_MIN, div_ceil(R, BWD_BLOCKS_MAX));
}

template <class T, class G> struct norm_bwd_params {
    T *dh;
    float *partial;              /* [blocks, 2, C]  dgamma, dbeta */
    const T *dy, *dresidual, *h; /* dresidual: nullptr: none */
    const float *mean, *rstd;    /* mean: nullptr for rms */
    const G *gamma;
    float alpha;
    int64_t R, block_rows;
    int C;
};

/* Runs of a row that the compiler may have in flight: all that are kept. */
template <int W, bool KEEP> constexpr int bwd_at_once = KEEP ? NORM_KEPT / W : 2;

/* What the gradient of W neighbours needs from memory. */
template <class T, int W> struct bwd_piece {
    run<T, W> dy, dresidual, h;

    template <class G> __device__ void load(const norm_bwd_params<T, G> &a, int64_t row, int c)
    {
        dy.load(a.dy + row * a.C + c);
        h.load(a.h + row * a.C + c);
        if (a.dresidual != nullptr)
            dresidual.load(a.dresidual + row * a.C + c);
        else
            dresidual = {};
    }
};

/* A thread's part of a row. */
template <class T, class G, int W, bool KEEP> struct bwd_row {
    bwd_piece<T, W> pieces[KEEP ? NORM_KEPT / W : 1];
    float mean, rstd;

    __device__ void load(const norm_bwd_params<T, G> &a, int64_t row)
    {
#pragma unroll
        for (int k = 0; k < NORM_KEPT / W && KEEP; k++) pieces[k].load(a, row, norm_column<W>(k));
        mean = a.mean != nullptr ? a.mean[row] : 0.0f;
        rstd = a.rstd[row];
    }
    __device__ bwd_piece<T, W> piece(const norm_bwd_params<T, G> &a, int64_t row, int k) const
    {
        if (KEEP) return pieces[KEEP ? k : 0];
        bwd_piece<T, W> again;
        again.load(a, row, norm_column<W>(k));
        return again;
    }
};

/* One column: g, xhat and what is added to dh. */
struct bwd_column {
    float g, xhat, extra;
};

template <residual_from FROM, class T, int W>
__device__ __forceinline__ bwd_column column_of(const bwd_piece<T, W> &in, int j, float alpha,
                                                float mean, float rstd)
{
    const float dy = in.dy.get(j), residual = in.dresidual.get(j);
    const float xhat = (in.h.get(j) - mean) * rstd;
    if (FROM == RESIDUAL_FROM_OUTPUT) return { fmaf(alpha, residual, dy), xhat, 0.0f };
    return { dy, xhat, alpha * residual };
}

/* Sums over the block's rows, of this thread's columns: in registers, or in shared memory. */
template <int W, bool KEEP> struct column_sums;

template <int W> struct column_sums<W, true> {
    static constexpr int THREADS_MAX = BWD_THREADS_KEPT;
    float sum[2][NORM_KEPT / W][W];

    __device__ column_sums(int) : sum{} {}
    __device__ float &dgamma(int k, int j) { return sum[0][k][j]; }
    __device__ float &dbeta(int k, int j) { return sum[1][k][j]; }
};

template <int W> struct column_sums<W, false> {
    static constexpr int THREADS_MAX = NORM_THREADS_MAX;
    float *sum; /* [2, C] */
    int C;

    __device__ column_sums(int C_) : C(C_)
    {
        DYNAMIC_SHARED(float, all);
        sum = all;
        for (int c = threadIdx.x; c < 2 * C; c += blockDim.x) sum[c] = 0.0f;
        __syncthreads();
    }
    __device__ static int column(int k, int j) { return norm_column<W>(k) + j; }
    __device__ float &dgamma(int k, int j) { return sum[column(k, j)]; }
    __device__ float &dbeta(int k, int j) { return sum[C + column(k, j)]; }
};

/* sum_c p and sum_c p*xhat of a row. */
struct row_sums {
    float p, p_xhat;
};

/* Over the block, with one meeting of its threads: the slots of one row are free again when all
 * have met for the next. */
__device__ __forceinline__ row_sums meet(row_sums own, float *slots)
{
    const int warps = (int)blockDim.x / WARP_SIZE;
    own.p = warp_sum(own.p);
    own.p_xhat = warp_sum(own.p_xhat);
    if (threadIdx.x % WARP_SIZE == 0) {
        slots[threadIdx.x / WARP_SIZE] = own.p;
        slots[NORM_WARPS_MAX + threadIdx.x / WARP_SIZE] = own.p_xhat;
    }
    __syncthreads();
    row_sums all = { 0.0f, 0.0f };
    for (int w = 0; w < warps; w++) {
        all.p += slots[w];
        all.p_xhat += slots[NORM_WARPS_MAX + w];
    }
    return all;
}

template <residual_from FROM, class T, class G, int W, bool KEEP>
__device__ __forceinline__ row_sums add_row(column_sums<W, KEEP> &sums,
                                            const bwd_row<T, G, W, KEEP> &in,
                                            const norm_bwd_params<T, G> &a, int64_t row)
{
    row_sums own = { 0.0f, 0.0f };
#pragma unroll(bwd_at_once <W, KEEP>)
    for (int k = 0; k < NORM_KEPT / W; k++) {
        const int c = norm_column<W>(k);
        if (!KEEP && c >= a.C) continue;
        const bwd_piece<T, W> piece = in.piece(a, row, k);
        run<G, W> gamma;
        gamma.load(a.gamma + c);
#pragma unroll
        for (int j = 0; j < W; j++) {
            const bwd_column col = column_of<FROM>(piece, j, a.alpha, in.mean, in.rstd);
            const float p = col.g * gamma.get(j);
            own.p += p;
            own.p_xhat = fmaf(p, col.xhat, own.p_xhat);
            sums.dgamma(k, j) = fmaf(col.g, col.xhat, sums.dgamma(k, j));
            sums.dbeta(k, j) += col.g;
        }
    }
    return own;
}

template <residual_from FROM, class T, class G, int W, bool KEEP>
__device__ __forceinline__ void write_dh(const bwd_row<T, G, W, KEEP> &in,
                                         const norm_bwd_params<T, G> &a, int64_t row,
                                         row_sums means)
{
#pragma unroll(bwd_at_once <W, KEEP>)
    for (int k = 0; k < NORM_KEPT / W; k++) {
        const int c = norm_column<W>(k);
        if (!KEEP && c >= a.C) continue;
        const bwd_piece<T, W> piece = in.piece(a, row, k);
        run<G, W> gamma;
        float out[W];
        gamma.load(a.gamma + c);
#pragma unroll
        for (int j = 0; j < W; j++) {
            const bwd_column col = column_of<FROM>(piece, j, a.alpha, in.mean, in.rstd);
            const float centred =
                fmaf(-col.xhat, means.p_xhat, fmaf(col.g, gamma.get(j), -means.p));
            out[j] = fmaf(in.rstd, centred, col.extra);
        }
        store_floats<W>(a.dh + row * a.C + c, out);
    }
}

template <int W, bool KEEP>
__device__ __forceinline__ void write_partial(float *partial, column_sums<W, KEEP> &sums, int C)
{
#pragma unroll
    for (int k = 0; k < NORM_KEPT / W; k++) {
        const int c = norm_column<W>(k);
        if (!KEEP && c >= C) continue;
        float dgamma[W], dbeta[W];
#pragma unroll
        for (int j = 0; j < W; j++) {
            dgamma[j] = sums.dgamma(k, j);
            dbeta[j] = sums.dbeta(k, j);
        }
        store_floats<W>(partial + c, dgamma);
        store_floats<W>(partial + C + c, dbeta);
    }
}

template <residual_from FROM, class T, class G, int W, bool KEEP>
__global__ void __launch_bounds__((column_sums<W, KEEP>::THREADS_MAX), 1)
    norm_bwd(norm_bwd_params<T, G> a)
{
    /* 16-bit rows are small enough to load the next one while the threads meet over this one. */
    constexpr bool AHEAD = KEEP && sizeof(T) == 2;
    SHARED_ARRAY(float, slots, 2 * 2 * NORM_WARPS_MAX);
    const int64_t first = blockIdx.x * a.block_rows;
    const int64_t end = first + a.block_rows < a.R ? first + a.block_rows : a.R;
    const float per_column = 1.0f / (float)a.C;
    column_sums<W, KEEP> sums(a.C);
    bwd_row<T, G, W, KEEP> in, next;
    in.load(a, first);
#pragma unroll 1
    for (int64_t row = first; row < end; row++) {
        if (AHEAD && row + 1 < end) next.load(a, row + 1);
        row_sums means =
            meet(add_row<FROM>(sums, in, a, row), slots + (row - first) % 2 * 2 * NORM_WARPS_MAX);
        means.p *= a.mean != nullptr ? per_column : 0.0f;
        means.p_xhat *= per_column;
        write_dh<FROM>(in, a, row, means);
        if (AHEAD)
            in = next;
        else if (row + 1 < end)
            in.load(a, row + 1);
    }
    write_partial(a.partial + blockIdx.x * (2 * (int64_t)a.C), sums, a.C);
}

/* out_acc[c] += sum_b partial[b, c]: each warp takes every FOLD_WARPS-th block, its lanes a column
 * each; then the warps' sums in order. */
#define FOLD_WARPS 16

template <class O>
__global__ void __launch_bounds__(FOLD_WARPS *WARP_SIZE)
    norm_fold(O *out_acc, const float *partial, int64_t blocks, int64_t stride, int C)
{
    SHARED_ARRAY(float, sums, FOLD_WARPS *WARP_SIZE);
    const int lane = threadIdx.x % WARP_SIZE, warp = threadIdx.x / WARP_SIZE;
    const int c = blockIdx.x * WARP_SIZE + lane;
    float sum = 0.0f;
    if (c < C) {
#pragma unroll 8
        for (int64_t b = warp; b < blocks; b += FOLD_WARPS) sum += partial[b * stride + c];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp != 0 || c >= C) return;
    for (int w = 1; w < FOLD_WARPS; w++) sum += sums[w * WARP_SIZE + lane];
    out_acc[c] = from_float<O>(to_float(out_acc[c]) + sum);
}

static err_t fold(struct dev *dev, const struct tensor *out_acc, const float *partial,
                  int64_t blocks, int64_t C)
{
    if (out_acc == NULL) return ERR_OK;
    const dim3 grid((unsigned)div_ceil(C, WARP_SIZE)), block(FOLD_WARPS * WARP_SIZE);
    if (out_acc->dtype == DTYPE_F32)
        return gpu_launch(dev, "residual_norm_bwd fold", norm_fold<float>, grid, block, 0,
                          (float *)out_acc->data, partial, blocks, 2 * C, (int)C);
    return gpu_launch(dev, "residual_norm_bwd fold", norm_fold<bf16>, grid, block, 0,
                      (bf16 *)out_acc->data, partial, blocks, 2 * C, (int)C);
}

int64_t residual_norm_bwd_scratch_cuda(const struct dev *dev,
                                       const struct residual_norm_bwd_args *a)
{
    (void)dev;
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1];
    /* Not the count for R itself, which falls where blocks get longer. */
    const int64_t blocks = min_i64(div_ceil(R, BWD_ROWS_MIN), BWD_BLOCKS_MAX);
    return blocks * 2 * C * (int64_t)sizeof(float);
}

template <residual_from FROM, class T, class G>
static err_t norm_bwd_launch(struct dev *dev, const norm_bwd_params<T, G> &params)
{
    constexpr int W = pack_width<T>;
    const bool packs = params.C % W == 0;
    const int threads = norm_threads(params.C);
    const bool keep = norm_fills(params.C) && threads <= BWD_THREADS_KEPT;
    return gpu_launch(dev, "residual_norm_bwd",
                      keep    ? norm_bwd<FROM, T, G, W, true>
                      : packs ? norm_bwd<FROM, T, G, W, false>
                              : norm_bwd<FROM, T, G, 1, false>,
                      dim3((unsigned)div_ceil(params.R, params.block_rows)),
                      dim3((unsigned)threads), keep ? 0 : 2 * params.C * (int64_t)sizeof(float),
                      params);
}

template <class T, class G>
static err_t norm_bwd_of(struct dev *dev, const struct residual_norm_bwd_args *a)
{
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1];
    const norm_bwd_params<T, G> params = {
        .dh = data_of<T>(a->dh),
        .partial = (float *)a->scratch.data,
        .dy = data_of<T>(a->dy),
        .dresidual = data_of<T>(a->dresidual),
        .h = data_of<T>(a->h),
        .mean = data_of<float>(a->mean),
        .rstd = data_of<float>(a->rstd),
        .gamma = data_of<G>(a->gamma),
        .alpha = (float)a->alpha,
        .R = R,
        .block_rows = bwd_block_rows(R),
        .C = (int)C,
    };
    const int64_t blocks = div_ceil(R, params.block_rows);
    if (a->residual_from == RESIDUAL_FROM_OUTPUT)
        TRY((norm_bwd_launch<RESIDUAL_FROM_OUTPUT>(dev, params)));
    else
        TRY((norm_bwd_launch<RESIDUAL_FROM_INPUT>(dev, params)));
    TRY(fold(dev, a->dgamma_acc, params.partial, blocks, C));
    return fold(dev, a->dbeta_acc, params.partial + C, blocks, C);
}

err_t residual_norm_bwd_cuda(struct dev *dev, const struct residual_norm_bwd_args *a)
{
    TRY(norm_require(a->dy));
    if (a->dy->dtype == DTYPE_F32) return norm_bwd_of<float, float>(dev, a);
    return a->gamma->dtype == DTYPE_F32 ? norm_bwd_of<bf16, float>(dev, a)
                                        : norm_bwd_of<bf16, bf16>(dev, a);
}
