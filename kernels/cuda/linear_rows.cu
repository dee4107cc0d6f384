/*
 * Row by row kernels. Elementwise ones: a block takes THREADS * PACKS packs of one row, so that a
 * thread has PACKS loads of each operand under way; column sums: see sum_columns.
 */
#include "kernels/cuda/linear_rows.h"

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/ops_cuda.h"

#define THREADS 256
#define PACKS   2

struct rows rows_of(const struct tensor *t, int64_t first)
{
    return { (char *)t->data + first * t->row_stride * dtype_bytes(t->dtype), t->row_stride };
}

/* Where a thread's packs begin: row, first column, and columns from pack to pack. */
struct place {
    int64_t row, col;
};

template <int W> __device__ __forceinline__ place place_of(unsigned row_blocks)
{
    const unsigned row = blockIdx.x / row_blocks, part = blockIdx.x % row_blocks;
    return { row, ((int64_t)part * PACKS * THREADS + threadIdx.x) * W };
}

static unsigned blocks_per_row(int64_t cols, int width)
{
    return (unsigned)div_ceil(cols, (int64_t)THREADS * PACKS * width);
}

/* Whether packs of `width` elements start at multiples of their size. Data do. */
static bool fits(int width, int64_t cols, int64_t ld0, int64_t ld1, int64_t ld2)
{
    return cols % width == 0 && ld0 % width == 0 && ld1 % width == 0 && ld2 % width == 0;
}

/* ---- activations ---- */

template <class T, int ACT> __device__ __forceinline__ float apply(float u)
{
    return ACT == ACT_GELU_TANH ? act_gelu<T>(u) : u;
}

template <class T, int ACT, int W>
__global__ void __launch_bounds__(THREADS)
    act_rows(T *y, int64_t ldy, const T *pre, int64_t ldpre, int64_t N, unsigned row_blocks)
{
    const place at = place_of<W>(row_blocks);
    pack<T, W> u[PACKS];
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS * W;
        if (c < N) u[p] = load_pack<W>(pre + at.row * ldpre + c);
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS * W;
        if (c >= N) break;
#pragma unroll
        for (int i = 0; i < W; i++) u[p].v[i] = from_float<T>(apply<T, ACT>(to_float(u[p].v[i])));
        store_pack(y + at.row * ldy + c, u[p]);
    }
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    swiglu_rows(T *y, int64_t ldy, const T *pre, int64_t ldpre, int64_t N, unsigned row_blocks)
{
    const place at = place_of<W>(row_blocks);
    pack<T, W> u1[PACKS], u2[PACKS];
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS * W;
        if (c >= N) break;
        u1[p] = load_pack<W>(pre + at.row * ldpre + c);
        u2[p] = load_pack<W>(pre + at.row * ldpre + N + c);
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS * W;
        if (c >= N) break;
#pragma unroll
        for (int i = 0; i < W; i++)
            u1[p].v[i] = from_float<T>(act_swiglu<T>(to_float(u1[p].v[i]), to_float(u2[p].v[i])));
        store_pack(y + at.row * ldy + c, u1[p]);
    }
}

template <class T, int W>
static err_t act_of(struct dev *dev, enum act_kind act, struct rows y, struct rows pre, int64_t R,
                    int64_t N)
{
    void (*kernel)(T *, int64_t, const T *, int64_t, int64_t, unsigned) =
        act == ACT_SWIGLU      ? swiglu_rows<T, W>
        : act == ACT_GELU_TANH ? act_rows<T, ACT_GELU_TANH, W>
                               : act_rows<T, ACT_NONE, W>;
    const unsigned row_blocks = blocks_per_row(N, W);
    return gpu_launch(dev, "act_rows", kernel, dim3((unsigned)R * row_blocks), dim3(THREADS), 0,
                      (T *)y.data, y.ld, (const T *)pre.data, pre.ld, N, row_blocks);
}

template <class T>
static err_t act_in(struct dev *dev, enum act_kind act, struct rows y, struct rows pre, int64_t R,
                    int64_t N)
{
    return fits(pack_width<T>, N, y.ld, pre.ld, 0)
               ? act_of<T, pack_width<T>>(dev, act, y, pre, R, N)
               : act_of<T, 1>(dev, act, y, pre, R, N);
}

err_t rows_act(struct dev *dev, enum act_kind act, dtype_t dtype, struct rows y, struct rows pre,
               int64_t R, int64_t N)
{
    return dtype == DTYPE_F32 ? act_in<float>(dev, act, y, pre, R, N)
                              : act_in<bf16>(dev, act, y, pre, R, N);
}

/* ---- their derivatives ---- */

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    gelu_bwd_rows(T *dx, int64_t lddx, const T *g, int64_t ldg, const T *pre, int64_t ldpre,
                  int64_t K, unsigned row_blocks)
{
    const place at = place_of<W>(row_blocks);
    pack<T, W> d[PACKS], u[PACKS];
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS * W;
        if (c >= K) break;
        d[p] = load_pack<W>(g + at.row * ldg + c);
        u[p] = load_pack<W>(pre + at.row * ldpre + c);
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS * W;
        if (c >= K) break;
#pragma unroll
        for (int i = 0; i < W; i++)
            d[p].v[i] = from_float<T>(to_float(d[p].v[i]) * act_gelu_slope<T>(to_float(u[p].v[i])));
        store_pack(dx + at.row * lddx + c, d[p]);
    }
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    swiglu_bwd_rows(T *dx, int64_t lddx, const T *g, int64_t ldg, const T *pre, int64_t ldpre,
                    int64_t K, unsigned row_blocks)
{
    const place at = place_of<W>(row_blocks);
    pack<T, W> d[PACKS], u1[PACKS], u2[PACKS];
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS * W;
        if (c >= K) break;
        d[p] = load_pack<W>(g + at.row * ldg + c);
        u1[p] = load_pack<W>(pre + at.row * ldpre + c);
        u2[p] = load_pack<W>(pre + at.row * ldpre + K + c);
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS * W;
        if (c >= K) break;
#pragma unroll
        for (int i = 0; i < W; i++) {
            const float di = to_float(d[p].v[i]);
            const act_swiglu_slopes s =
                act_swiglu_slopes_of<T>(to_float(u1[p].v[i]), to_float(u2[p].v[i]));
            u1[p].v[i] = from_float<T>(di * s.u1);
            u2[p].v[i] = from_float<T>(di * s.u2);
        }
        store_pack(dx + at.row * lddx + c, u1[p]);
        store_pack(dx + at.row * lddx + K + c, u2[p]);
    }
}

template <class T, int W>
static err_t act_bwd_of(struct dev *dev, enum act_kind act, struct rows dx, struct rows g,
                        struct rows pre, int64_t R, int64_t K)
{
    const auto kernel = act == ACT_SWIGLU ? swiglu_bwd_rows<T, W> : gelu_bwd_rows<T, W>;
    const unsigned row_blocks = blocks_per_row(K, W);
    return gpu_launch(dev, "act_bwd_rows", kernel, dim3((unsigned)R * row_blocks), dim3(THREADS), 0,
                      (T *)dx.data, dx.ld, (const T *)g.data, g.ld, (const T *)pre.data, pre.ld, K,
                      row_blocks);
}

template <class T>
static err_t act_bwd_in(struct dev *dev, enum act_kind act, struct rows dx, struct rows g,
                        struct rows pre, int64_t R, int64_t K)
{
    return fits(pack_width<T>, K, dx.ld, g.ld, pre.ld)
               ? act_bwd_of<T, pack_width<T>>(dev, act, dx, g, pre, R, K)
               : act_bwd_of<T, 1>(dev, act, dx, g, pre, R, K);
}

err_t rows_act_bwd(struct dev *dev, enum act_kind act, dtype_t dtype, struct rows dx, struct rows g,
                   struct rows pre, int64_t R, int64_t K)
{
    return dtype == DTYPE_F32 ? act_bwd_in<float>(dev, act, dx, g, pre, R, K)
                              : act_bwd_in<bf16>(dev, act, dx, g, pre, R, K);
}

/* ---- biases in f32 beside bf16 ---- */

__global__ void __launch_bounds__(THREADS)
    add_bias_rows(bf16 *y, int64_t ldy, const float *z, int64_t ldz, const float *bias, int64_t N,
                  unsigned row_blocks)
{
    const place at = place_of<1>(row_blocks);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int64_t c = at.col + (int64_t)p * THREADS;
        if (c < N) y[at.row * ldy + c] = to_bf16(z[at.row * ldz + c] + bias[c]);
    }
}

err_t rows_add_bias(struct dev *dev, struct rows y, struct rows z, const float *bias, int64_t R,
                    int64_t N)
{
    const unsigned row_blocks = blocks_per_row(N, 1);
    return gpu_launch(dev, "add_bias_rows", add_bias_rows, dim3((unsigned)R * row_blocks),
                      dim3(THREADS), 0, (bf16 *)y.data, y.ld, (const float *)z.data, z.ld, bias, N,
                      row_blocks);
}

/* ---- column sums ---- */

/*
 * Two stages. In the first a block sums SUM_BLOCK_ROWS or more rows of a stripe of columns: each of
 * its 8 warps takes every 8th row, a lane one pack of it, and the warps' sums are added in order.
 * The second adds the blocks' sums, in order, to what was accumulated. At R = 16384 that is 64
 * blocks of 256 rows a stripe: every multiprocessor has 8 blocks of N = 4096, and the partial sums
 * are 1.6 % of the bytes.
 */
#define SUM_BLOCKS_MAX 64
#define SUM_ROWS_MIN   32
#define LANES          32
#define WARPS          (THREADS / LANES)

static int64_t sum_block_rows(int64_t R)
{
    return max_i64(SUM_ROWS_MIN, div_ceil(R, SUM_BLOCKS_MAX));
}

/* R' > R rows never have fewer blocks of the bound than R rows have blocks. */
int64_t rows_sum_bytes(int64_t R, int64_t N)
{
    return min_i64(SUM_BLOCKS_MAX, div_ceil(R, SUM_ROWS_MIN)) * N * (int64_t)sizeof(float);
}

template <class T, int W>
__global__ void __launch_bounds__(THREADS)
    sum_columns(float *partial, const T *x, int64_t ld, int64_t R, int64_t N, int64_t block_rows)
{
    SHARED_ARRAY(float, of_warp, WARPS *LANES *W);
    const int lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / LANES;
    const int64_t c = ((int64_t)blockIdx.x * LANES + lane) * W;
    const int64_t first = (int64_t)blockIdx.y * block_rows;
    const int64_t end = first + block_rows < R ? first + block_rows : R;
    float sum[W] = {};
    if (c < N) {
#pragma unroll 4
        for (int64_t r = first + warp; r < end; r += WARPS) {
            const pack<T, W> v = load_pack<W>(x + r * ld + c);
#pragma unroll
            for (int i = 0; i < W; i++) sum[i] += to_float(v.v[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < W; i++) of_warp[(warp * W + i) * LANES + lane] = sum[i];
    __syncthreads();
    if (warp > 0 || c >= N) return;
    for (int w = 1; w < WARPS; w++)
#pragma unroll
        for (int i = 0; i < W; i++) sum[i] += of_warp[(w * W + i) * LANES + lane];
#pragma unroll
    for (int i = 0; i < W; i++) partial[blockIdx.y * N + c + i] = sum[i];
}

template <class A>
__global__ void __launch_bounds__(THREADS)
    fold_sums(A *sum_acc, const float *partial, int64_t blocks, int64_t N)
{
    const int64_t c = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (c >= N) return;
    float sum = 0.0f;
#pragma unroll 16 /* loads in flight: a few blocks of threads are all there is */
    for (int64_t b = 0; b < blocks; b++) sum += partial[b * N + c];
    sum_acc[c] = from_float<A>(to_float(sum_acc[c]) + sum);
}

template <class T, int W>
static err_t sum_of(struct dev *dev, struct rows x, int64_t R, int64_t N, float *partial)
{
    const int64_t block_rows = sum_block_rows(R);
    const dim3 grid((unsigned)div_ceil(N, LANES * W), (unsigned)div_ceil(R, block_rows));
    return gpu_launch(dev, "sum_columns", sum_columns<T, W>, grid, dim3(THREADS), 0, partial,
                      (const T *)x.data, x.ld, R, N, block_rows);
}

template <class T>
static err_t sum_in(struct dev *dev, struct rows x, int64_t R, int64_t N, float *partial)
{
    return fits(pack_width<T>, N, x.ld, 0, 0) ? sum_of<T, pack_width<T>>(dev, x, R, N, partial)
                                              : sum_of<T, 1>(dev, x, R, N, partial);
}

template <class A>
static err_t fold(struct dev *dev, const struct tensor *sum_acc, const float *partial, int64_t R,
                  int64_t N)
{
    return gpu_launch(dev, "fold_sums", fold_sums<A>, dim3((unsigned)div_ceil(N, THREADS)),
                      dim3(THREADS), 0, (A *)sum_acc->data, partial, div_ceil(R, sum_block_rows(R)),
                      N);
}

err_t rows_sum(struct dev *dev, const struct tensor *sum_acc, dtype_t dtype, struct rows x,
               int64_t R, int64_t N, float *partial)
{
    TRY(dtype == DTYPE_F32 ? sum_in<float>(dev, x, R, N, partial)
                           : sum_in<bf16>(dev, x, R, N, partial));
    return sum_acc->dtype == DTYPE_F32 ? fold<float>(dev, sum_acc, partial, R, N)
                                       : fold<bf16>(dev, sum_acc, partial, R, N);
}

/* ---- weights in other formats: for checks in f32, not for speed ---- */

template <class S>
__global__ void __launch_bounds__(THREADS) widen_run(float *out, const S *in, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count) out[i] = to_float(in[i]);
}

template <class S> static err_t widen_of(struct dev *dev, float *out, const void *in, int64_t count)
{
    return gpu_launch(dev, "widen", widen_run<S>, dim3((unsigned)div_ceil(count, THREADS)),
                      dim3(THREADS), 0, out, (const S *)in, count);
}

err_t widen(struct dev *dev, float *out, const void *in, dtype_t dtype, int64_t count)
{
    ASSERT(dtype == DTYPE_F16 || dtype == DTYPE_BF16);
    return dtype == DTYPE_F16 ? widen_of<f16>(dev, out, in, count)
                              : widen_of<bf16>(dev, out, in, count);
}

int64_t weight_piece_rows(const struct dev *dev, const struct tensor *w, dtype_t T)
{
    const int64_t rows = w->dim[0], row_bytes = w->dim[1] * (int64_t)sizeof(float);
    if (w->dtype == T) return max_i64(rows, 1);
    return min_i64(rows, max_i64(128, gemm_piece_bytes(dev) / row_bytes / 128 * 128));
}

int64_t weight_piece_bytes(const struct dev *dev, const struct tensor *w, dtype_t T)
{
    if (w->dtype == T) return 0;
    return weight_piece_rows(dev, w, T) * w->dim[1] * (int64_t)sizeof(float);
}

err_t weight_piece(struct rows *out, struct dev *dev, const struct tensor *w, dtype_t T,
                   int64_t first, int64_t count, void *buffer)
{
    *out = rows_of(w, first);
    if (w->dtype == T) return ERR_OK;
    TRY(widen(dev, (float *)buffer, out->data, w->dtype, count * w->dim[1]));
    *out = { buffer, w->dim[1] };
    return ERR_OK;
}
