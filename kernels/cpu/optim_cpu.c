/* Flat arenas: sums of squares, AdamW, casts and sums. All of it is bound by memory bandwidth. */
#include "kernels/ops_optim.h"

#include "base/rng.h"
#include "kernels/adamw.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/vec_math.h"

#include <math.h>
#include <string.h>

#define BLOCK     16384 /* elements that one thread takes at a time */
#define WIDEN_RUN 512
#define RUN       ADAMW_BLOCK /* elements of AdamW in registers and stack at a time */

static double squares_f64(const double *x, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
    return sum;
}

static double squares_f32(const float *x, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
    return sum;
}

static double squares_16(const void *x, dtype_t dtype, int64_t first, int64_t count)
{
    float wide[WIDEN_RUN];
    double sum = 0;
    for (int64_t i = 0; i < count; i += WIDEN_RUN) {
        const int64_t run = min_i64(WIDEN_RUN, count - i);
        widen_run(wide, x, dtype, first + i, run);
        sum += squares_f32(wide, run);
    }
    return sum;
}

err_t sumsq_chunks_cpu(struct dev *dev, const struct sumsq_chunks_args *a)
{
    const dtype_t dtype = a->x->dtype;
    double *out = a->out->data;
#pragma omp parallel num_threads(dev->threads)
    for (int64_t s = 0; s < a->segment_count; s++) {
        const struct sumsq_segment seg = a->segments[s];
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < seg.count; i += SUMSQ_CHUNK) {
            const int64_t first = seg.offset + i, count = min_i64(SUMSQ_CHUNK, seg.count - i);
            double *sum = &out[seg.out_index + i / SUMSQ_CHUNK];
            if (dtype == DTYPE_F64)
                *sum = squares_f64((const double *)a->x->data + first, count);
            else if (dtype == DTYPE_F32)
                *sum = squares_f32((const float *)a->x->data + first, count);
            else
                *sum = squares_16(a->x->data, dtype, first, count);
        }
    }
    return ERR_OK;
}

/* `decay` is 1 for segments without decay. vec_fma, because ranks cut tensors in different places,
 * and an element's bits must not depend on whether it lies in a vectorised body or at a scalar end.
 * */
static void adamw_run(float *restrict w, float *restrict m, float *restrict v,
                      const float *restrict grad, int64_t count, struct adamw_scalars k)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        const float g = k.grad_scale * grad[i];
        const float m_new = vec_fma(k.beta1, m[i], k.rest1 * g);
        const float v_new = vec_fma(k.beta2, v[i], k.rest2 * g * g);
        const float denominator = vec_fma(sqrtf(v_new), k.root, k.eps);
        m[i] = m_new;
        v[i] = v_new;
        w[i] = vec_fma(-k.step, m_new / denominator, k.decay * w[i]);
    }
}

/* One call, and what is the same for all its segments. */
struct adamw_call {
    const struct adamw_segments_args *args;
    struct adamw_scalars scalars;
    struct adamw_bounds bounds;
};

/* What a run computes on: places in the arenas, or `space` where those hold another format. */
struct adamw_views {
    float *w, *m, *v;
    const float *g;
    float space[4][RUN];
};

static void decode_run(float *out, const struct tensor *codes, const struct tensor *absmax,
                       const float table[256], int64_t state, int64_t count)
{
    const uint8_t *code = (const uint8_t *)codes->data + state;
    const float scale = ((const float *)absmax->data)[state / ADAMW_BLOCK];
    for (int64_t i = 0; i < count; i++) out[i] = table[code[i]] * scale;
}

static void encode_run(const struct tensor *codes, const struct tensor *absmax, const float *values,
                       const float bounds[255], int64_t state, int64_t count)
{
    uint8_t *code = (uint8_t *)codes->data + state;
    float scale = 0.0f;
    for (int64_t i = 0; i < count; i++) scale = fmaxf(scale, fabsf(values[i]));
    ((float *)absmax->data)[state / ADAMW_BLOCK] = scale;
    const float divisor = scale == 0.0f ? 1.0f : scale;
    for (int64_t i = 0; i < count; i++)
        code[i] = (uint8_t)adamw_code_nearest(bounds, values[i] / divisor);
}

static uint16_t round_randomly(float value, uint32_t random)
{
    const uint32_t bits = f32_to_bits(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) return f32_to_bf16(value);
    return (uint16_t)((bits + random) >> 16);
}

/* As kernels/ops_optim.h defines the random bits; `element` is a multiple of 8. */
static void round_run(uint16_t *out, const float *values, int64_t count,
                      const struct adamw_segments_args *a, uint32_t tensor, int64_t element)
{
    const uint32_t key[2] = { (uint32_t)a->seed, (uint32_t)(a->seed >> 32) };
    for (int64_t i = 0; i < count; i += 8) {
        const uint64_t block = (uint64_t)(element + i) / 8;
        const uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32),
                                      RNG_ROUNDING | tensor << 8, (uint32_t)a->update };
        uint32_t random[4];
        rng_philox(random, counter, key);
        for (int64_t e = 0; e < min_i64(8, count - i); e++)
            out[i + e] = round_randomly(values[i + e], random[e / 2] >> 16 * (e % 2) & 0xffffu);
    }
}

static void load_run(struct adamw_views *r, const struct adamw_call *call,
                     const struct adamw_segment *seg, int64_t at, int64_t count)
{
    const struct adamw_segments_args *a = call->args;
    const int64_t state = seg->state_offset + at, weight = seg->weight_offset + at;
    const int64_t grad = seg->grad_offset + at;
    if (a->master != NULL) {
        r->w = (float *)a->master->data + state;
    } else if (a->weight->dtype == DTYPE_F32) {
        r->w = (float *)a->weight->data + weight;
    } else {
        r->w = r->space[0];
        widen_run(r->w, a->weight->data, a->weight->dtype, weight, count);
    }
    if (a->grad->dtype == DTYPE_F32) {
        r->g = (const float *)a->grad->data + grad;
    } else {
        widen_run(r->space[1], a->grad->data, a->grad->dtype, grad, count);
        r->g = r->space[1];
    }
    if (seg->state == ADAMW_STATE_FULL) {
        r->m = (float *)a->exp_avg->data + state;
        r->v = (float *)a->exp_avg_sq->data + state;
    } else {
        r->m = r->space[2];
        r->v = r->space[3];
        decode_run(r->m, a->exp_avg_codes, a->exp_avg_absmax, adamw_code_signed, state, count);
        decode_run(r->v, a->exp_avg_sq_codes, a->exp_avg_sq_absmax, adamw_code_unsigned, state,
                   count);
    }
}

static void store_run(const struct adamw_views *r, const struct adamw_call *call,
                      const struct adamw_segment *seg, int64_t at, int64_t count)
{
    const struct adamw_segments_args *a = call->args;
    const int64_t state = seg->state_offset + at, weight = seg->weight_offset + at;
    if (seg->state == ADAMW_STATE_BLOCK8) {
        encode_run(a->exp_avg_codes, a->exp_avg_absmax, r->m, call->bounds.signed_codes, state,
                   count);
        encode_run(a->exp_avg_sq_codes, a->exp_avg_sq_absmax, r->v, call->bounds.unsigned_codes,
                   state, count);
    }
    if (a->weight->dtype == DTYPE_F32) {
        float *w = (float *)a->weight->data + weight;
        if (w != r->w) memcpy(w, r->w, (size_t)count * sizeof *w);
        return;
    }
    uint16_t *w = (uint16_t *)a->weight->data + weight;
    if (a->rounding == ADAMW_ROUND_STOCHASTIC)
        round_run(w, r->w, count, a, seg->tensor, seg->element + at);
    else
        for (int64_t i = 0; i < count; i++) w[i] = f32_to_bf16(r->w[i]);
}

/* Elements at .. at+count-1 of a segment, a run at a time. */
static void adamw_piece(const struct adamw_call *call, const struct adamw_segment *seg, int64_t at,
                        int64_t count)
{
    struct adamw_views views;
    struct adamw_scalars k = call->scalars;
    if (!seg->decay) k.decay = 1.0f;
    for (int64_t end = at + count; at < end; at += RUN) {
        const int64_t run = min_i64(RUN, end - at);
        load_run(&views, call, seg, at, run);
        adamw_run(views.w, views.m, views.v, views.g, run, k);
        store_run(&views, call, seg, at, run);
    }
}

err_t adamw_segments_cpu(struct dev *dev, const struct adamw_segments_args *a)
{
    if (a->weight->dtype != DTYPE_BF16) TRY(cpu_require_f32(a->weight));
    struct adamw_call call = { .args = a, .scalars = adamw_scalars_of(a) };
    adamw_bounds_fill(&call.bounds);
#pragma omp parallel num_threads(dev->threads)
    for (int64_t s = 0; s < a->segment_count; s++) {
        const struct adamw_segment *seg = &a->segments[s];
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < seg->count; i += BLOCK)
            adamw_piece(&call, seg, i, min_i64(BLOCK, seg->count - i));
    }
    return ERR_OK;
}

/* A double as the float whose last bit stands for all that was cut off ("round to odd"): rounding
 * that to 16 bits gives the same as rounding the double at once. Finite doubles beyond f32 stay
 * beyond f16. */
static float f64_to_odd_f32(double x)
{
    const float nearest = (float)x;
    if ((double)nearest == x || isnan(x)) return nearest;
    const float cut = fabs((double)nearest) > fabs(x) ? nextafterf(nearest, 0.0f) : nearest;
    return bits_to_f32(f32_to_bits(cut) | 1u);
}

/* 16-bit formats go through `wide`; f64 has its own paths, since f32 would round it twice. */
static void cast_run(const struct tensor *y, const struct tensor *x, int64_t first, int64_t count)
{
    float wide[WIDEN_RUN];
    double *y64 = (double *)y->data + first;
    if (x->dtype == DTYPE_F64 && y->dtype == DTYPE_F64) {
        memcpy(y64, (const double *)x->data + first, (size_t)count * sizeof *y64);
        return;
    }
    if (x->dtype == DTYPE_F64) {
        const double *x64 = (const double *)x->data + first;
        for (int64_t i = 0; i < count; i++)
            wide[i] = y->dtype == DTYPE_F32 ? (float)x64[i] : f64_to_odd_f32(x64[i]);
    } else {
        widen_run(wide, x->data, x->dtype, first, count);
    }
    if (y->dtype == DTYPE_F64) {
        for (int64_t i = 0; i < count; i++) y64[i] = (double)wide[i];
    } else if (y->dtype == DTYPE_F32) {
        memcpy((float *)y->data + first, wide, (size_t)count * sizeof *wide);
    } else {
        uint16_t *y16 = (uint16_t *)y->data + first;
        if (y->dtype == DTYPE_BF16)
            for (int64_t i = 0; i < count; i++) y16[i] = f32_to_bf16(wide[i]);
        else
            for (int64_t i = 0; i < count; i++) y16[i] = f32_to_f16(wide[i]);
    }
}

err_t cast_cpu(struct dev *dev, const struct cast_args *a)
{
    const int64_t n = tensor_count(a->x);
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < n; i += WIDEN_RUN) cast_run(a->y, a->x, i, min_i64(WIDEN_RUN, n - i));
    return ERR_OK;
}

static void add_f32(float *restrict y, const float *restrict x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) y[i] += x[i];
}

static void add_f64(double *restrict y, const double *restrict x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) y[i] += x[i];
}

err_t add_cpu(struct dev *dev, const struct add_args *a)
{
    const int64_t n = tensor_count(a->x);
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t count = min_i64(BLOCK, n - i);
        if (a->y_acc->dtype == DTYPE_F32)
            add_f32((float *)a->y_acc->data + i, (const float *)a->x->data + i, count);
        else
            add_f64((double *)a->y_acc->data + i, (const double *)a->x->data + i, count);
    }
    return ERR_OK;
}
