/* Token embedding: copies of rows forward, sums over equal ids backward. */
#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/ops_embed.h"

#define EMBED_THREADS 128

/* ---- forward ---- */

#define COPY_RUNS 4 /* loads in flight */

/* Block (row, piece of the row). W is a pack of the narrower of table and y. */
template <class T, class S, int W>
__global__ void __launch_bounds__(EMBED_THREADS)
    embed_rows(T *y, const S *table, const int32_t *ids, int64_t y_stride, int64_t C)
{
    const int64_t row = blockIdx.x;
    const S *from = table + ids[row] * C;
    run<S, W> in[COPY_RUNS];
#pragma unroll
    for (int k = 0; k < COPY_RUNS; k++) {
        const int64_t c = ((int64_t)(blockIdx.y * COPY_RUNS + k) * EMBED_THREADS + threadIdx.x) * W;
        if (c < C) in[k].load(from + c);
    }
#pragma unroll
    for (int k = 0; k < COPY_RUNS; k++) {
        const int64_t c = ((int64_t)(blockIdx.y * COPY_RUNS + k) * EMBED_THREADS + threadIdx.x) * W;
        if (c >= C) continue;
        float out[W];
#pragma unroll
        for (int j = 0; j < W; j++) out[j] = in[k].get(j);
        store_floats<W>(y + row * y_stride + c, out);
    }
}

template <class T, class S, int W>
static err_t embed_fwd_launch(struct dev *dev, const struct embed_fwd_args *a)
{
    const int64_t R = a->y->dim[0], C = a->y->dim[1];
    const int64_t pieces = div_ceil(C, EMBED_THREADS * COPY_RUNS * W);
    return gpu_launch(dev, "embed_fwd", embed_rows<T, S, W>, dim3((unsigned)R, (unsigned)pieces),
                      dim3(EMBED_THREADS), 0, (T *)a->y->data, (const S *)a->table->data,
                      (const int32_t *)a->ids->data, a->y->row_stride, C);
}

template <class T, class S>
static err_t embed_fwd_of(struct dev *dev, const struct embed_fwd_args *a)
{
    constexpr int W = pack_width<S>;
    const bool packs = a->y->dim[1] % W == 0 && a->y->row_stride % W == 0;
    return packs ? embed_fwd_launch<T, S, W>(dev, a) : embed_fwd_launch<T, S, 1>(dev, a);
}

err_t embed_fwd_cuda(struct dev *dev, const struct embed_fwd_args *a)
{
    TRY(cuda_require_compute(a->y));
    if (a->y->dtype == DTYPE_BF16) return embed_fwd_of<bf16, bf16>(dev, a);
    switch (a->table->dtype) {
    case DTYPE_F16:
        return embed_fwd_of<float, f16>(dev, a);
    case DTYPE_BF16:
        return embed_fwd_of<float, bf16>(dev, a);
    default:
        return embed_fwd_of<float, float>(dev, a);
    }
}

/* ---- backward ----
 *
 * The places of `order` are cut into chunks of equal length, however the runs of equal ids lie. A
 * block adds up one chunk for its columns, run by run. A run that lies inside the chunk goes to the
 * table at once; what a run has in a chunk where it does not end, or did not begin, goes to
 * scratch: two rows for each chunk suffice. A second kernel adds up those pieces in order.
 */

#define CHUNKS_MAX     256
#define CHUNK_ROWS_MIN 64
#define SUM_ROWS       4 /* loads in flight */
#define PARTIAL_HEAD   0 /* of a run that began in an earlier chunk */
#define PARTIAL_TAIL   1 /* of one that begins here and goes on */

static int64_t chunk_rows(int64_t R) { return max_i64(CHUNK_ROWS_MIN, div_ceil(R, CHUNKS_MAX)); }

/* What both kernels know about the order. */
struct runs {
    const int32_t *ids, *order;
    int64_t R, chunk;

    /* The id at place i, -1 outside. */
    __device__ int32_t at(int64_t i) const { return i < 0 || i >= R ? -1 : ids[order[i]]; }
};

template <int W, class D> __device__ __forceinline__ void add_to(D *to, const float (&sum)[W])
{
    float old[W];
    load_floats<W>(old, to);
#pragma unroll
    for (int j = 0; j < W; j++) old[j] += sum[j];
    store_floats<W>(to, old);
}

template <class D> struct embed_bwd_params {
    D *dtable;
    float *partial; /* [chunks, 2, C] */
    struct runs runs;
    int64_t dy_stride, C;
};

/* The rows and ids of a chunk, with the ids before and after it. */
struct chunk_list {
    int32_t *rows, *ids; /* ids[i + 1] belongs to rows[i] */
    int count;
    bool goes_on; /* its last run does, in the next chunk */
};

__device__ __forceinline__ chunk_list list_chunk(const runs &runs, int32_t *shared)
{
    const int64_t first = blockIdx.x * runs.chunk;
    const int64_t left = runs.R - first;
    const int count = (int)(left < runs.chunk ? left : runs.chunk);
    const chunk_list list = { shared, shared + count, count, false };
    for (int i = threadIdx.x; i < count; i += EMBED_THREADS) list.rows[i] = runs.order[first + i];
    for (int i = threadIdx.x; i < count + 2; i += EMBED_THREADS)
        list.ids[i] = runs.at(first + i - 1);
    __syncthreads();
    return { list.rows, list.ids, count, list.ids[count] == list.ids[count + 1] };
}

/* The sum of one run's part in this chunk. */
template <int W, class D>
__device__ __forceinline__ void put_run(const embed_bwd_params<D> &a, const chunk_list &list,
                                        int32_t id, bool is_last, int64_t c, const float (&sum)[W])
{
    float *const partial = a.partial + blockIdx.x * 2 * a.C + c;
    if (id == list.ids[0])
        store_floats<W>(partial + PARTIAL_HEAD * a.C, sum);
    else if (is_last && list.goes_on)
        store_floats<W>(partial + PARTIAL_TAIL * a.C, sum);
    else
        add_to<W>(a.dtable + id * a.C + c, sum);
}

template <class T, class D, int W>
__global__ void __launch_bounds__(EMBED_THREADS) embed_sum(embed_bwd_params<D> a, const T *dy)
{
    DYNAMIC_SHARED(int32_t, shared);
    const chunk_list list = list_chunk(a.runs, shared);
    const int64_t c = ((int64_t)blockIdx.y * EMBED_THREADS + threadIdx.x) * W;
    if (c >= a.C) return;
    float sum[W] = {};
    for (int i = 0; i < list.count; i += SUM_ROWS) {
        run<T, W> in[SUM_ROWS];
#pragma unroll
        for (int k = 0; k < SUM_ROWS; k++)
            if (i + k < list.count) in[k].load(dy + list.rows[i + k] * a.dy_stride + c);
#pragma unroll
        for (int k = 0; k < SUM_ROWS; k++) {
            if (i + k >= list.count) continue;
            const int32_t id = list.ids[i + k + 1];
#pragma unroll
            for (int j = 0; j < W; j++) sum[j] += in[k].get(j);
            const bool is_last = i + k + 1 == list.count;
            if (!is_last && list.ids[i + k + 2] == id) continue;
            put_run<W>(a, list, id, is_last, c, sum);
#pragma unroll
            for (int j = 0; j < W; j++) sum[j] = 0.0f;
        }
    }
}

/* Chunk blockIdx.x, where a run begins in it and goes on: its tail, and the heads of the chunks
 * that begin with the same id. */
template <class D, int W>
__global__ void __launch_bounds__(EMBED_THREADS) embed_fold(embed_bwd_params<D> a, int64_t chunks)
{
    SHARED_ARRAY(int, sums, EMBED_THREADS / WARP_SIZE);
    const int64_t chunk = blockIdx.x, first = chunk * a.runs.chunk, end = first + a.runs.chunk;
    const int32_t id = a.runs.at(end - 1);
    if (end >= a.runs.R || a.runs.at(end) != id || a.runs.at(first - 1) == id) return;
    int own = 0;
    for (int64_t i = chunk + 1 + threadIdx.x; i < chunks; i += EMBED_THREADS)
        own += a.runs.at(i * a.runs.chunk) == id;
    const int heads = block_sum(own, sums); /* ids are sorted: the next ones */

    const int64_t c = ((int64_t)blockIdx.y * EMBED_THREADS + threadIdx.x) * W;
    if (c >= a.C) return;
    const float *partial = a.partial + chunk * 2 * a.C + c;
    float sum[W];
    load_floats<W>(sum, partial + PARTIAL_TAIL * a.C);
#pragma unroll 8
    for (int h = 1; h <= heads; h++) {
        float head[W];
        load_floats<W>(head, partial + (2 * h + PARTIAL_HEAD) * a.C);
#pragma unroll
        for (int j = 0; j < W; j++) sum[j] += head[j];
    }
    add_to<W>(a.dtable + id * a.C + c, sum);
}

int64_t embed_bwd_scratch_cuda(const struct dev *dev, const struct embed_bwd_args *a)
{
    (void)dev;
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1];
    /* Not the count for R itself, which falls where chunks get longer. */
    return min_i64(div_ceil(R, CHUNK_ROWS_MIN), CHUNKS_MAX) * 2 * C * (int64_t)sizeof(float);
}

template <class T, class D, int W>
static err_t embed_bwd_launch(struct dev *dev, const struct embed_bwd_args *a)
{
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1], rows = chunk_rows(R);
    const int64_t chunks = div_ceil(R, rows);
    constexpr int FW = W < 4 ? W : 4; /* of the fold, whose rows are f32 */
    const struct embed_bwd_params<D> params = {
        (D *)a->dtable_acc->data, (float *)a->scratch.data,
            { (const int32_t *)a->ids->data, (const int32_t *)a->order->data, R, rows },
            a->dy->row_stride, C,
    };
    const dim3 grid((unsigned)chunks, (unsigned)div_ceil(C, EMBED_THREADS * W));
    TRY(gpu_launch(dev, "embed_bwd", embed_sum<T, D, W>, grid, dim3(EMBED_THREADS),
                   (2 * rows + 2) * (int64_t)sizeof(int32_t), params, (const T *)a->dy->data));
    if (chunks == 1) return ERR_OK;
    return gpu_launch(dev, "embed_bwd fold", embed_fold<D, FW>,
                      dim3((unsigned)chunks - 1, (unsigned)div_ceil(C, EMBED_THREADS * FW)),
                      dim3(EMBED_THREADS), 0, params, chunks);
}

template <class T, class D>
static err_t embed_bwd_of(struct dev *dev, const struct embed_bwd_args *a)
{
    constexpr int W = pack_width<T>;
    const bool packs = a->dy->dim[1] % W == 0 && a->dy->row_stride % W == 0;
    return packs ? embed_bwd_launch<T, D, W>(dev, a) : embed_bwd_launch<T, D, 1>(dev, a);
}

err_t embed_bwd_cuda(struct dev *dev, const struct embed_bwd_args *a)
{
    TRY(cuda_require_compute(a->dy));
    if (a->dy->dtype == DTYPE_F32) return embed_bwd_of<float, float>(dev, a);
    return a->dtable_acc->dtype == DTYPE_F32 ? embed_bwd_of<bf16, float>(dev, a)
                                             : embed_bwd_of<bf16, bf16>(dev, a);
}
