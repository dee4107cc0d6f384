/*
 * Output layer and cross-entropy, a chunk of targets at a time: their logits lie in scratch in
 * float32, become their own gradient in place (in bf16 for a bf16 model: the first half of each
 * row), and are multiplied into dw and dx before the next chunk.
 *
 * Float32 logits are what the contract promises, and what training needs: a logit of 16 rounded to
 * bf16 is wrong by up to 0.03, so is its target's nll, and each probability by 3 %. The price is
 * 6 bytes more per logit written and read twice: 12.8 GB, 3 ms, in a step with 16k targets.
 */
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda_sizes.h"
#include "kernels/ops_loss.h"

#include <math.h>

#define COPY_THREADS 256  /* at most, of a row's packs */
#define CE_WIDTH     8    /* logits of a thread at a time: 32 bytes, 16 as bf16 */
#define CE_THREADS   1024 /* of a row of 8192 or more words */
#define LOG2_E       1.44269504088896341f

/* ---- rows of targets ---- */

/* to[to_rows[i]] = from[from_rows[i]]; NULL: row i. A row outside 0 .. rows-1 is read as NaN, so
 * that a wrong index shows in the loss, and not written. */
template <class T, int W>
__global__ void __launch_bounds__(COPY_THREADS)
    copy_rows(T *to, const int32_t *to_rows, const T *from, const int32_t *from_rows, int64_t C,
              int64_t rows)
{
    const int64_t i = blockIdx.x;
    const int64_t target = to_rows == nullptr ? i : to_rows[i];
    const int64_t source = from_rows == nullptr ? i : from_rows[i];
    const bool is_known = from_rows == nullptr || (source >= 0 && source < rows);
    if (to_rows != nullptr && (target < 0 || target >= rows)) return;
    for (int64_t c = (int64_t)threadIdx.x * W; c < C; c += blockDim.x * W) {
        pack<T, W> v;
#pragma unroll
        for (int k = 0; k < W; k++) v.v[k] = from_float<T>(NAN);
        if (is_known) v = load_pack<W>(from + source * C + c);
        store_pack(to + target * C + c, v);
    }
}

struct row_copy {
    void *to;
    const int32_t *to_rows;
    const void *from;
    const int32_t *from_rows;
    int64_t count, C, rows;
};

template <class T> static err_t copy_of(struct dev *dev, const struct row_copy *copy)
{
    const bool is_packed = copy->C % pack_width<T> == 0;
    const auto kernel = is_packed ? copy_rows<T, pack_width<T>> : copy_rows<T, 1>;
    const int64_t packs = copy->C / (is_packed ? pack_width<T> : 1);
    const unsigned threads = (unsigned)min_i64(COPY_THREADS, align_up(packs, WARP_SIZE));
    return gpu_launch(dev, "copy_rows", kernel, dim3((unsigned)copy->count), dim3(threads), 0,
                      (T *)copy->to, copy->to_rows, (const T *)copy->from, copy->from_rows, copy->C,
                      copy->rows);
}

static err_t copy(struct dev *dev, dtype_t T, const struct row_copy *copy)
{
    return T == DTYPE_F32 ? copy_of<float>(dev, copy) : copy_of<bf16>(dev, copy);
}

/* ---- softmax and its gradient ---- */

/* exp(x), x <= 0. For 16-bit models by the hardware's power of two, whose 4e-7 are nothing beside
 * the rounding of dz: in full precision the exponentials of a row take about as long as its bytes.
 */
template <class T> __device__ __forceinline__ float ce_exp(float x)
{
    return exp2_fast(x * LOG2_E);
}
template <> __device__ __forceinline__ float ce_exp<float>(float x) { return expf(x); }

/* The largest of a part of a row, and the sum of exp(z - max) over that part. */
struct softmax_part {
    float max, sum;
};

/* The next CE_WIDTH logits. */
template <class T>
__device__ __forceinline__ void take(softmax_part *part, const pack<float, CE_WIDTH> &z)
{
    float max = part->max;
#pragma unroll
    for (int i = 0; i < CE_WIDTH; i++) max = fmaxf(max, z.v[i]);
    float sum = part->sum * ce_exp<T>(part->max - max);
#pragma unroll
    for (int i = 0; i < CE_WIDTH; i++) sum += ce_exp<T>(z.v[i] - max);
    *part = { max, sum };
}

/* Of the whole row, in every thread. */
template <class T>
__device__ __forceinline__ softmax_part whole_row(const float *z, int count, float *shared)
{
    softmax_part part = { -3.4e38f, 0.0f }; /* finite: -inf - -inf would be NaN */
    for (int c = (int)threadIdx.x * CE_WIDTH; c < count; c += (int)blockDim.x * CE_WIDTH) {
        pack<float, CE_WIDTH> next = load_pack<CE_WIDTH>(z + c);
        if (c + CE_WIDTH > count) /* the last ones are not there */
#pragma unroll
            for (int i = 0; i < CE_WIDTH; i++)
                if (c + i >= count) next.v[i] = -INFINITY;
        take<T>(&part, next);
    }
    const float max = block_max(part.max, shared);
    return { max, block_sum(part.sum * ce_exp<T>(part.max - max), shared) };
}

/*
 * nll of one row of logits z; with `gradient` the row becomes weight * (softmax(z) - onehot) in T.
 * In bf16 the gradient of logits c .. c+7 lies where logits c/2 .. c/2+3 were: all threads have
 * read a tile of the row before any writes, and no tile reaches into one that is still to be read.
 */
template <class T>
__global__ void __launch_bounds__(CE_THREADS, 2)
    ce_rows(float *nll, float *logits, int64_t ld, const int32_t *labels, const float *weights,
            int count, bool gradient)
{
    SHARED_ARRAY(float, shared, CE_THREADS / WARP_SIZE);
    float *const z = logits + blockIdx.x * ld;
    T *const dz = reinterpret_cast<T *>(z);
    const int label = labels[blockIdx.x];
    const bool is_known = label >= 0 && label < count;
    const float z_label = is_known ? z[label] : NAN; /* a wrong label shows in the loss */
    const softmax_part all = whole_row<T>(z, count, shared);
    if (threadIdx.x == 0) nll[blockIdx.x] = (all.max - z_label) + logf(all.sum);
    if (!gradient) return;

    const float weight = weights[blockIdx.x], factor = weight / all.sum;
    for (int tile = 0; tile < count; tile += (int)blockDim.x * CE_WIDTH) {
        const int c = tile + (int)threadIdx.x * CE_WIDTH;
        pack<float, CE_WIDTH> in = {};
        pack<T, CE_WIDTH> out;
        if (c < count) in = load_pack<CE_WIDTH>(z + c);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < CE_WIDTH; i++) {
            const float p = ce_exp<T>(in.v[i] - all.max) * factor;
            out.v[i] = from_float<T>(c + i == label ? p - weight : p);
        }
        if (c < count) store_pack(dz + c, out);
    }
}

/* ---- the operator ---- */

/* One chunk of targets and where its matrices lie. */
struct ce {
    const struct linear_ce_args *a;
    struct scratch workspace;
    void *weights; /* a widened piece of w */
    float *logits; /* [count, ld], later dz of T with rows of ld floats */
    void *x;       /* [count, C] of T, later dx */
    int64_t ld;
    int64_t first, count;
};

/* Rows of whole 64 bytes, so that a thread's last pack is inside. */
static int64_t logits_ld(const struct linear_ce_args *a) { return align_up(a->vocab_valid, 16); }

static int64_t chunk_targets(const struct dev *dev, const struct linear_ce_args *a)
{
    const int64_t row_bytes = logits_ld(a) * (int64_t)sizeof(float);
    return cuda_logits_targets(a->rows->dim[0], row_bytes, gemm_piece_bytes(dev));
}

static int64_t logits_bytes(const struct dev *dev, const struct linear_ce_args *a)
{
    return chunk_targets(dev, a) * logits_ld(a) * (int64_t)sizeof(float);
}

static int64_t x_bytes(const struct dev *dev, const struct linear_ce_args *a)
{
    return chunk_targets(dev, a) * a->x->dim[1] * dtype_bytes(a->x->dtype);
}

int64_t linear_ce_scratch_cuda(const struct dev *dev, const struct linear_ce_args *a)
{
    return align_up(gemm_workspace_bytes(dev), 256) + align_up(logits_bytes(dev, a), 256) +
           align_up(x_bytes(dev, a), 256) +
           align_up(weight_piece_bytes(dev, a->w, a->x->dtype), 256);
}

static bool wants_gradient(const struct linear_ce_args *a)
{
    return a->dx != NULL || a->dw_acc != NULL;
}

/* Elements of T from row to row of dz. */
static int64_t dz_ld(const struct ce *f)
{
    return f->ld * (int64_t)sizeof(float) / dtype_bytes(f->a->x->dtype);
}

/* logits = x w^T over the valid words. */
static err_t logits_product(struct dev *dev, const struct ce *f)
{
    const struct linear_ce_args *a = f->a;
    const dtype_t T = a->x->dtype;
    const int64_t C = a->x->dim[1], Vv = a->vocab_valid, piece = weight_piece_rows(dev, a->w, T);
    for (int64_t v = 0; v < Vv; v += piece) {
        const int64_t words = min_i64(piece, Vv - v);
        struct rows w;
        TRY(weight_piece(&w, dev, a->w, T, v, words, f->weights));
        const struct gemm g = { .b_transposed = true,
                                .m = f->count,
                                .n = words,
                                .k = C,
                                .in_dtype = T,
                                .out_dtype = DTYPE_F32,
                                .a = { f->x, C },
                                .b = w,
                                .d = { f->logits + v, f->ld },
                                .workspace = f->workspace };
        TRY(gemm_run(dev, &g));
    }
    return ERR_OK;
}

template <class T> static err_t ce_of(struct dev *dev, const struct ce *f)
{
    const struct linear_ce_args *a = f->a;
    const int64_t threads = align_up(div_ceil(a->vocab_valid, CE_WIDTH), WARP_SIZE);
    ASSERT(a->vocab_valid < INT32_MAX / 2); /* labels are i32 */
    return gpu_launch(
        dev, "ce_rows", ce_rows<T>, dim3((unsigned)f->count),
        dim3((unsigned)min_i64(threads, CE_THREADS)), 0, (float *)a->nll->data + f->first,
        f->logits, f->ld, (const int32_t *)a->labels->data + f->first,
        (const float *)a->weights->data + f->first, a->vocab_valid, wants_gradient(a));
}

/* dw_acc += dz^T x */
static err_t dw_product(struct dev *dev, const struct ce *f)
{
    const struct linear_ce_args *a = f->a;
    const dtype_t T = a->x->dtype;
    const int64_t C = a->x->dim[1];
    const struct gemm g = { .a_transposed = true,
                            .m = a->vocab_valid,
                            .n = C,
                            .k = f->count,
                            .in_dtype = T,
                            .out_dtype = a->dw_acc->dtype,
                            .a = { f->logits, dz_ld(f) },
                            .b = { f->x, C },
                            .d = rows_of(a->dw_acc, 0),
                            .accumulate = true,
                            .workspace = f->workspace };
    return gemm_run(dev, &g);
}

/* dx = dz w, in x's place. */
static err_t dx_product(struct dev *dev, const struct ce *f)
{
    const struct linear_ce_args *a = f->a;
    const dtype_t T = a->x->dtype;
    const int64_t C = a->x->dim[1], Vv = a->vocab_valid, piece = weight_piece_rows(dev, a->w, T);
    for (int64_t v = 0; v < Vv; v += piece) {
        const int64_t words = min_i64(piece, Vv - v);
        struct rows w;
        TRY(weight_piece(&w, dev, a->w, T, v, words, f->weights));
        const struct gemm g = { .m = f->count,
                                .n = C,
                                .k = words,
                                .in_dtype = T,
                                .out_dtype = T,
                                .a = { (char *)f->logits + v * dtype_bytes(T), dz_ld(f) },
                                .b = w,
                                .d = { f->x, C },
                                .accumulate = v > 0,
                                .workspace = f->workspace };
        TRY(gemm_run(dev, &g));
    }
    return ERR_OK;
}

static err_t chunk(struct dev *dev, const struct ce *f)
{
    const struct linear_ce_args *a = f->a;
    const dtype_t T = a->x->dtype;
    const int32_t *const rows = (const int32_t *)a->rows->data + f->first;
    const int64_t C = a->x->dim[1], R = a->x->dim[0];
    const struct row_copy gather = {
        .to = f->x, .from = a->x->data, .from_rows = rows, .count = f->count, .C = C, .rows = R
    };
    TRY(copy(dev, T, &gather));
    TRY(logits_product(dev, f));
    TRY(T == DTYPE_F32 ? ce_of<float>(dev, f) : ce_of<bf16>(dev, f));
    if (a->dw_acc != NULL) TRY(dw_product(dev, f));
    if (a->dx == NULL) return ERR_OK;
    const struct row_copy scatter = {
        .to = a->dx->data, .to_rows = rows, .from = f->x, .count = f->count, .C = C, .rows = R
    };
    TRY(dx_product(dev, f));
    return copy(dev, T, &scatter);
}

err_t linear_ce_cuda(struct dev *dev, const struct linear_ce_args *a)
{
    TRY(cuda_require_compute(a->x));
    struct scratch left = a->scratch;
    struct ce f = { .a = a, .ld = logits_ld(a) };
    const int64_t N = a->rows->dim[0], C = a->x->dim[1], targets = chunk_targets(dev, a);
    f.workspace = { cuda_scratch_take(&left, gemm_workspace_bytes(dev)),
                    gemm_workspace_bytes(dev) };
    f.logits = (float *)cuda_scratch_take(&left, logits_bytes(dev, a));
    f.x = cuda_scratch_take(&left, x_bytes(dev, a));
    f.weights = cuda_scratch_take(&left, weight_piece_bytes(dev, a->w, a->x->dtype));

    if (a->dx != NULL) TRY(dev_zero(dev, a->dx->data, a->x->dim[0] * C * dtype_bytes(a->x->dtype)));
    for (f.first = 0; f.first < N; f.first += targets) {
        f.count = min_i64(targets, N - f.first);
        TRY(chunk(dev, &f));
    }
    return ERR_OK;
}
