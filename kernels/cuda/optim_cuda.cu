/*
 * Flat arenas: sums of squares and AdamW. Segments travel as parameters of the launch, some at a
 * time, so that nothing is allocated, uploaded or waited for; a block finds its segment there.
 *
 * Which thread takes which elements depends on the element's place in its segment alone: where
 * arenas put a segment changes the accesses, not the bits.
 */
#include "kernels/adamw.h"
#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/ops_optim.h"

#include "base/rng.h"

#include <math.h>

#define OPTIM_THREADS 256
#define OPTIM_WIDTH   8 /* neighbours that a thread takes at a time */

/* The last of `count` segments whose first block is not beyond `block`: one that is not empty. */
template <class S>
__device__ __forceinline__ int segment_of_block(const S *segments, int count, int64_t block)
{
    int low = 0, beyond = count;
    while (beyond - low > 1) {
        const int middle = (low + beyond) / 2;
        if (segments[middle].first_block <= block)
            low = middle;
        else
            beyond = middle;
    }
    return low;
}

__device__ __forceinline__ bool is_aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

/* ---- sums of squares ---- */

#define SUMSQ_SEGMENTS 96
#define SUMSQ_RUNS     (SUMSQ_CHUNK / (OPTIM_THREADS * OPTIM_WIDTH)) /* of each thread */
#define SUMSQ_AHEAD    4                                             /* loads in flight */

struct sumsq_part {
    int64_t offset, count, out_index, first_block;
};

struct sumsq_batch {
    struct sumsq_part segment[SUMSQ_SEGMENTS];
    int count;
};

template <class T> __device__ __forceinline__ double get_double(const run<T, OPTIM_WIDTH> &x, int j)
{
    if constexpr (sizeof(T) == 8)
        return x.u[j];
    else
        return (double)x.get(j);
}

/* A thread's part of a chunk of which `left` elements exist: its runs in order, in float64. WHOLE:
 * all do, and 16 bytes can be accessed at once. */
template <bool WHOLE, class T>
__device__ __forceinline__ double sum_squares(const T *from, int64_t left)
{
    double sum = 0.0;
#pragma unroll 1
    for (int done = 0; done < SUMSQ_RUNS; done += SUMSQ_AHEAD) {
        run<T, OPTIM_WIDTH> in[SUMSQ_AHEAD];
#pragma unroll
        for (int k = 0; k < SUMSQ_AHEAD; k++) {
            const int i = ((done + k) * OPTIM_THREADS + (int)threadIdx.x) * OPTIM_WIDTH;
            in[k].template load_if<WHOLE>(from + i, left - i);
        }
#pragma unroll
        for (int k = 0; k < SUMSQ_AHEAD; k++)
#pragma unroll
            for (int j = 0; j < OPTIM_WIDTH; j++) {
                const double value = get_double(in[k], j);
                sum = fma(value, value, sum);
            }
    }
    return sum;
}

/* A block sums one chunk: its threads' parts, then the tree of block_sum. */
template <class T>
__global__ void __launch_bounds__(OPTIM_THREADS)
    sumsq_chunks(double *out, const T *x, const __grid_constant__ sumsq_batch batch)
{
    SHARED_ARRAY(double, sums, OPTIM_THREADS / WARP_SIZE);
    const sumsq_part &seg = batch.segment[segment_of_block(batch.segment, batch.count, blockIdx.x)];
    const int64_t chunk = blockIdx.x - seg.first_block, first = chunk * SUMSQ_CHUNK;
    const int64_t left = seg.count - first;
    const T *const from = x + seg.offset + first;
    const bool whole = left >= SUMSQ_CHUNK && is_aligned(from);
    const double sum =
        block_sum(whole ? sum_squares<true>(from, left) : sum_squares<false>(from, left), sums);
    if (threadIdx.x == 0) out[seg.out_index + chunk] = sum;
}

template <class T> static err_t sumsq_of(struct dev *dev, const struct sumsq_chunks_args *a)
{
    struct sumsq_batch batch = {};
    for (int64_t s = 0; s < a->segment_count; s += SUMSQ_SEGMENTS) {
        int64_t blocks = 0;
        batch.count = (int)min_i64(SUMSQ_SEGMENTS, a->segment_count - s);
        for (int i = 0; i < batch.count; i++) {
            const struct sumsq_segment *seg = &a->segments[s + i];
            batch.segment[i] = { seg->offset, seg->count, seg->out_index, blocks };
            blocks += div_ceil(seg->count, SUMSQ_CHUNK);
        }
        TRY(gpu_launch(dev, "sumsq_chunks", sumsq_chunks<T>, dim3((unsigned)blocks),
                       dim3(OPTIM_THREADS), 0, (double *)a->out->data, (const T *)a->x->data,
                       batch));
    }
    return ERR_OK;
}

err_t sumsq_chunks_cuda(struct dev *dev, const struct sumsq_chunks_args *a)
{
    switch (a->x->dtype) {
    case DTYPE_F32:
        return sumsq_of<float>(dev, a);
    case DTYPE_F64:
        return sumsq_of<double>(dev, a);
    default:
        TRY(cuda_require_compute(a->x));
        return sumsq_of<bf16>(dev, a);
    }
}

/* ---- AdamW ---- */

#define ADAMW_SEGMENTS 32 /* of one launch: parameters stay below 4 KiB */
#define ADAMW_TILE     (OPTIM_THREADS * OPTIM_WIDTH)

struct adamw_part {
    int64_t weight, grad, state, count, element, first_block;
    uint32_t tensor;
    bool decay;
};

struct adamw_batch {
    struct adamw_part segment[ADAMW_SEGMENTS];
    int count;
    struct adamw_scalars k;
    uint32_t key[2], update; /* of the random bits */
    bool stochastic;
};

template <class T, class G> struct adamw_arenas {
    T *weight;
    float *master; /* nullptr: none */
    const G *grad;
};

/* What a thread works on: neighbours, of which `left` exist. */
struct adamw_run {
    float w[OPTIM_WIDTH], m[OPTIM_WIDTH], v[OPTIM_WIDTH], g[OPTIM_WIDTH];
};

__device__ __forceinline__ void update_run(adamw_run &r, const adamw_scalars &k, float decay)
{
#pragma unroll
    for (int i = 0; i < OPTIM_WIDTH; i++) {
        const float g = k.grad_scale * r.g[i];
        r.m[i] = fmaf(k.beta1, r.m[i], k.rest1 * g);
        r.v[i] = fmaf(k.beta2, r.v[i], k.rest2 * g * g);
        const float denominator = fmaf(sqrtf(r.v[i]), k.root, k.eps);
        r.w[i] = fmaf(-k.step, r.m[i] / denominator, decay * r.w[i]);
    }
}

template <bool WHOLE, class A>
__device__ __forceinline__ void load_floats_if(float (&out)[OPTIM_WIDTH], const A *p, int64_t left)
{
    run<A, OPTIM_WIDTH> in;
    in.template load_if<WHOLE>(p, left);
#pragma unroll
    for (int i = 0; i < OPTIM_WIDTH; i++) out[i] = in.get(i);
}

template <bool WHOLE>
__device__ __forceinline__ void store_floats_if(float *p, const float (&x)[OPTIM_WIDTH],
                                                int64_t left)
{
    run<float, OPTIM_WIDTH> out;
    out.set(x);
    out.template store_if<WHOLE>(p, left);
}

/* Moments as they are: an element each. */
struct full_moments {
    static constexpr int tiles = 1; /* of a block */
    float *avg, *avg_sq;

    struct opened {
        __device__ opened(const full_moments &) {}
    };
    /* May element `at` be accessed in packs? */
    __device__ bool aligned(int64_t at) const
    {
        return is_aligned(avg + at) && is_aligned(avg_sq + at);
    }
    template <bool WHOLE>
    __device__ void load(adamw_run &r, const opened &, int64_t at, int64_t left) const
    {
        load_floats_if<WHOLE>(r.m, avg + at, left);
        load_floats_if<WHOLE>(r.v, avg_sq + at, left);
    }
    template <bool WHOLE>
    __device__ void store(const adamw_run &r, const opened &, int64_t at, int64_t left) const
    {
        store_floats_if<WHOLE>(avg + at, r.m, left);
        store_floats_if<WHOLE>(avg_sq + at, r.v, left);
    }
};

struct fmax_op {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/* Moments as codes: a warp's run of 256 elements is one block with one scale. */
static_assert(WARP_SIZE * OPTIM_WIDTH == ADAMW_BLOCK, "a warp takes a block of codes");

struct block8_moments {
    static constexpr int tiles = 4; /* preparing the tables is worth that many */
    uint8_t *codes[2];
    float *absmax[2];
    float code[2][256]; /* signed for exp_avg, unsigned for exp_avg_sq */

    /* The tables of ops_optim.h and the bounds of adamw.h, in shared memory. */
    struct opened {
        float *code, *bound; /* [2, 256] */

        __device__ opened(const block8_moments &a)
        {
            SHARED_ARRAY(float, code_table, 2 * 256);
            SHARED_ARRAY(float, bound_table, 2 * 256);
            code = code_table;
            bound = bound_table;
            for (int i = threadIdx.x; i < 2 * 256; i += OPTIM_THREADS) {
                const int kind = i / 256, c = i % 256, after = c < 255 ? c + 1 : c;
                code[i] = a.code[kind][c];
                const double middle =
                    ((double)a.code[kind][c] + (double)a.code[kind][after]) / 2; /* exact */
                const float nearest = (float)middle;
                bound[i] = (double)nearest > middle ? nextafterf(nearest, -2.0f) : nearest;
            }
            __syncthreads();
        }
        /* adamw_code_nearest of adamw.h. */
        __device__ uint8_t nearest(int kind, float x) const
        {
            int found = 0;
#pragma unroll
            for (int step = 128; step > 0; step /= 2)
                if (bound[kind * 256 + found + step - 1] < x) found += step;
            return (uint8_t)found;
        }
    };
    __device__ bool aligned(int64_t) const { return true; } /* blocks of codes begin at 256s */

    template <bool WHOLE>
    __device__ void load(adamw_run &r, const opened &t, int64_t at, int64_t left) const
    {
#pragma unroll
        for (int kind = 0; kind < 2; kind++) {
            float(&out)[OPTIM_WIDTH] = kind == 0 ? r.m : r.v;
            run<uint8_t, OPTIM_WIDTH> in;
            in.template load_if<WHOLE>(codes[kind] + at, left);
            const float scale = WHOLE || left > 0 ? absmax[kind][at / ADAMW_BLOCK] : 0.0f;
#pragma unroll
            for (int i = 0; i < OPTIM_WIDTH; i++)
                out[i] = WHOLE || i < left ? t.code[kind * 256 + in.u[i]] * scale : 0.0f;
        }
    }
    template <bool WHOLE>
    __device__ void store(const adamw_run &r, const opened &t, int64_t at, int64_t left) const
    {
        __syncwarp(); /* all lanes have read the scale; shuffles order no memory */
#pragma unroll
        for (int kind = 0; kind < 2; kind++) {
            const float(&from)[OPTIM_WIDTH] = kind == 0 ? r.m : r.v;
            float largest = 0.0f;
#pragma unroll
            for (int i = 0; i < OPTIM_WIDTH; i++)
                if (WHOLE || i < left) largest = fmaxf(largest, fabsf(from[i]));
            const float scale = warp_reduce<fmax_op>(largest);
            if (threadIdx.x % WARP_SIZE == 0) absmax[kind][at / ADAMW_BLOCK] = scale;
            const float divisor = scale == 0.0f ? 1.0f : scale;
            run<uint8_t, OPTIM_WIDTH> out;
#pragma unroll
            for (int i = 0; i < OPTIM_WIDTH; i++) out.u[i] = t.nearest(kind, from[i] / divisor);
            out.template store_if<WHOLE>(codes[kind] + at, left);
        }
    }
};

/* rng_philox of base/rng.h. */
__device__ __forceinline__ void philox(uint32_t (&c)[4], uint32_t k0, uint32_t k1)
{
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xd2511f53u * c[0], p1 = (uint64_t)0xcd9e8d57u * c[2];
        c[0] = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
        c[1] = (uint32_t)p1;
        c[2] = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[3] = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
}

__device__ __forceinline__ void round_weights(run<float, OPTIM_WIDTH> &out, const adamw_run &r,
                                              const adamw_batch &, const adamw_part &, int64_t)
{
    out.set(r.w);
}

/* As ops_optim.h defines the random bits; `at` is the run's place in the segment. */
__device__ __forceinline__ void round_weights(run<bf16, OPTIM_WIDTH> &out, const adamw_run &r,
                                              const adamw_batch &batch, const adamw_part &seg,
                                              int64_t at)
{
    out.set(r.w);
    if (!batch.stochastic) return;
    const uint64_t block = (uint64_t)(seg.element + at) / 8;
    uint32_t random[4] = { (uint32_t)block, (uint32_t)(block >> 32), RNG_ROUNDING | seg.tensor << 8,
                           batch.update };
    philox(random, batch.key[0], batch.key[1]);
#pragma unroll
    for (int i = 0; i < OPTIM_WIDTH; i++) {
        const uint32_t bits = __float_as_uint(r.w[i]), shift = 16 * (i % 2);
        const uint32_t rounded = (bits + (random[i / 2] >> shift & 0xffffu)) >> 16 << shift;
        const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
        uint32_t &both = out.u[i / 2].bits;
        if (finite) both = (both & ~(0xffffu << shift)) | rounded;
    }
}

/* One run: neighbours `at` .. of a segment, of which `left` exist. */
template <bool WHOLE, bool MASTER, class T, class G, class Moments>
__device__ __forceinline__ void adamw_step(const adamw_arenas<T, G> &a, const Moments &moments,
                                           const typename Moments::opened &opened,
                                           const adamw_batch &batch, const adamw_part &seg,
                                           int64_t at, int64_t left)
{
    T *const weight = a.weight + seg.weight + at;
    float *const master = a.master + seg.state + at;
    adamw_run r;
    if (MASTER)
        load_floats_if<WHOLE>(r.w, master, left);
    else
        load_floats_if<WHOLE>(r.w, weight, left);
    load_floats_if<WHOLE>(r.g, a.grad + seg.grad + at, left);
    moments.template load<WHOLE>(r, opened, seg.state + at, left);
    update_run(r, batch.k, seg.decay ? batch.k.decay : 1.0f);
    moments.template store<WHOLE>(r, opened, seg.state + at, left);
    if (MASTER) store_floats_if<WHOLE>(master, r.w, left);
    run<T, OPTIM_WIDTH> rounded;
    round_weights(rounded, r, batch, seg, at);
    rounded.template store_if<WHOLE>(weight, left);
}

template <class T, class G, bool MASTER, class Moments>
__global__ void __launch_bounds__(OPTIM_THREADS)
    adamw_runs(adamw_arenas<T, G> a, const __grid_constant__ Moments moments,
               const __grid_constant__ adamw_batch batch)
{
    const adamw_part &seg = batch.segment[segment_of_block(batch.segment, batch.count, blockIdx.x)];
    const int64_t first = (blockIdx.x - seg.first_block) * (Moments::tiles * ADAMW_TILE);
    const bool aligned = is_aligned(a.weight + seg.weight) && is_aligned(a.grad + seg.grad) &&
                         (!MASTER || is_aligned(a.master + seg.state)) &&
                         moments.aligned(seg.state);
    const typename Moments::opened opened(moments);
    for (int tile = 0; tile < Moments::tiles; tile++) {
        const int64_t begin = first + tile * ADAMW_TILE;
        const int64_t at = begin + (int)threadIdx.x * OPTIM_WIDTH, left = seg.count - at;
        /* A warp stays or goes as a whole: a block of codes is its common work. */
        if (left + (int)threadIdx.x % WARP_SIZE * OPTIM_WIDTH <= 0) return;
        if (aligned && begin + ADAMW_TILE <= seg.count)
            adamw_step<true, MASTER>(a, moments, opened, batch, seg, at, left);
        else
            adamw_step<false, MASTER>(a, moments, opened, batch, seg, at, left);
    }
}

static struct adamw_batch batch_of(const struct adamw_segments_args *a)
{
    struct adamw_batch batch = {};
    batch.k = adamw_scalars_of(a);
    batch.key[0] = (uint32_t)a->seed;
    batch.key[1] = (uint32_t)(a->seed >> 32);
    batch.update = (uint32_t)a->update;
    batch.stochastic = a->rounding == ADAMW_ROUND_STOCHASTIC;
    return batch;
}

/* All segments with moments of one form, in as few launches as their number allows. */
template <class T, class G, bool MASTER, class Moments>
static err_t adamw_launch(struct dev *dev, const struct adamw_segments_args *a,
                          const Moments &moments, enum adamw_state state)
{
    const adamw_arenas<T, G> arenas = { (T *)a->weight->data,
                                        MASTER ? (float *)a->master->data : nullptr,
                                        (const G *)a->grad->data };
    struct adamw_batch batch = batch_of(a);
    for (int64_t s = 0; s < a->segment_count;) {
        int64_t blocks = 0;
        for (batch.count = 0; s < a->segment_count && batch.count < ADAMW_SEGMENTS; s++) {
            const struct adamw_segment *seg = &a->segments[s];
            if (seg->state != state || seg->count == 0) continue;
            batch.segment[batch.count++] = { seg->weight_offset, seg->grad_offset,
                                             seg->state_offset,  seg->count,
                                             seg->element,       blocks,
                                             seg->tensor,        seg->decay };
            blocks += div_ceil(seg->count, Moments::tiles * ADAMW_TILE);
        }
        TRY(gpu_launch(dev, "adamw_segments", adamw_runs<T, G, MASTER, Moments>,
                       dim3((unsigned)blocks), dim3(OPTIM_THREADS), 0, arenas, moments, batch));
    }
    return ERR_OK;
}

static struct block8_moments block8_of(const struct adamw_segments_args *a)
{
    struct block8_moments moments = {
        { (uint8_t *)a->exp_avg_codes->data, (uint8_t *)a->exp_avg_sq_codes->data },
        { (float *)a->exp_avg_absmax->data, (float *)a->exp_avg_sq_absmax->data },
        {},
    };
    for (int i = 0; i < 256; i++) {
        moments.code[0][i] = adamw_code_signed[i];
        moments.code[1][i] = adamw_code_unsigned[i];
    }
    return moments;
}

template <class T, class G>
static err_t adamw_of(struct dev *dev, const struct adamw_segments_args *a)
{
    if (a->exp_avg_codes != NULL)
        TRY((adamw_launch<T, G, false>(dev, a, block8_of(a), ADAMW_STATE_BLOCK8)));
    if (a->exp_avg == NULL) return ERR_OK;
    const struct full_moments full = { (float *)a->exp_avg->data, (float *)a->exp_avg_sq->data };
    constexpr bool MASTERS = sizeof(T) == 2;
    return a->master == NULL ? adamw_launch<T, G, false>(dev, a, full, ADAMW_STATE_FULL)
                             : adamw_launch<T, G, MASTERS>(dev, a, full, ADAMW_STATE_FULL);
}

err_t adamw_segments_cuda(struct dev *dev, const struct adamw_segments_args *a)
{
    TRY(cuda_require_compute(a->weight));
    if (a->weight->dtype == DTYPE_F32 && a->master != NULL)
        RAISE(UNSUPPORTED, "adamw_segments: master beside float32 weights; the cuda backend takes "
                           "float32 weights as their own master");
    if (a->weight->dtype == DTYPE_F32) return adamw_of<float, float>(dev, a);
    return a->grad->dtype == DTYPE_F32 ? adamw_of<bf16, float>(dev, a)
                                       : adamw_of<bf16, bf16>(dev, a);
}
