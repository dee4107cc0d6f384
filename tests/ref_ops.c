/* The table, number formats, embedding and what works on flat arenas. */
#include "ref_impl.h"

#include "base/num.h"
#include "base/rng.h"
#include "kernels/ops_embed.h"
#include "kernels/ops_optim.h"

#include <math.h>

const struct ops_table ops_ref = {
    .name = "ref",
#define X(op) .op = ref_##op,
    OPS_LIST(X)
#undef X
};

double ref_get(const struct tensor *t, int64_t i)
{
    switch (t->dtype) {
    case DTYPE_F64: return ((const double *)t->data)[i];
    case DTYPE_F32: return (double)((const float *)t->data)[i];
    case DTYPE_F16: return (double)f16_to_f32(((const uint16_t *)t->data)[i]);
    case DTYPE_BF16: return (double)bf16_to_f32(((const uint16_t *)t->data)[i]);
    default: ASSERT(!"a float dtype"); return 0.0;
    }
}

/* `x` cut to 24 bits, the last bit standing for all that was cut ("round to odd"): rounding this to
 * 16 bits gives what rounding x at once would, where going through a rounded f32 does not. */
static float f32_sticky(double x)
{
    const float nearest = (float)x;
    if (!isfinite(nearest) && isfinite(x)) return nearest;
    if ((double)nearest == x || isnan(x)) return nearest;
    const float cut = fabs((double)nearest) > fabs(x) ? nextafterf(nearest, 0.0f) : nearest;
    return bits_to_f32(f32_to_bits(cut) | 1u);
}

void ref_put(const struct tensor *t, int64_t i, double value)
{
    switch (t->dtype) {
    case DTYPE_F64: ((double *)t->data)[i] = value; break;
    case DTYPE_F32: ((float *)t->data)[i] = (float)value; break;
    case DTYPE_F16: ((uint16_t *)t->data)[i] = f32_to_f16(f32_sticky(value)); break;
    case DTYPE_BF16: ((uint16_t *)t->data)[i] = f32_to_bf16(f32_sticky(value)); break;
    default: ASSERT(!"a float dtype");
    }
}

double ref_rounded(dtype_t dtype, double value)
{
    double storage = 0.0;
    const struct tensor t = tensor_1d(&storage, dtype, 1, "value");
    ref_put(&t, 0, value);
    return ref_get(&t, 0);
}

err_t ref_embed_fwd(struct dev *dev, const struct embed_fwd_args *a)
{
    (void)dev;
    const int32_t *ids = ref_i32(a->ids);
    const int64_t C = a->y->dim[1];
    for (int64_t r = 0; r < a->y->dim[0]; r++) {
        ASSERT(ids[r] >= 0 && ids[r] < a->table->dim[0]);
        double *y = ref_row(a->y, r);
        for (int64_t c = 0; c < C; c++) y[c] = ref_get(a->table, ids[r] * C + c);
    }
    return ERR_OK;
}

err_t ref_embed_bwd(struct dev *dev, const struct embed_bwd_args *a)
{
    (void)dev;
    const int32_t *ids = ref_i32(a->ids), *order = ref_i32(a->order);
    for (int64_t i = 0; i < a->dy->dim[0]; i++) {
        const int64_t r = order[i];
        ASSERT(ids[r] >= 0 && ids[r] < a->dtable_acc->dim[0]);
        ref_axpy(ref_row(a->dtable_acc, ids[r]), 1.0, ref_row(a->dy, r), a->dy->dim[1]);
    }
    return ERR_OK;
}

err_t ref_sumsq_chunks(struct dev *dev, const struct sumsq_chunks_args *a)
{
    (void)dev;
    double *out = a->out->data;
    for (int64_t s = 0; s < a->segment_count; s++) {
        const struct sumsq_segment *segment = &a->segments[s];
        for (int64_t c = 0; c < div_ceil(segment->count, SUMSQ_CHUNK); c++)
            out[segment->out_index + c] = 0.0;
        for (int64_t e = 0; e < segment->count; e++) {
            const double x = ref_get(a->x, segment->offset + e);
            out[segment->out_index + e / SUMSQ_CHUNK] += x * x;
        }
    }
    return ERR_OK;
}

/* Moment e of a segment: an element, or a code times its block's scale. */
static double moment_get(const struct tensor *full, const struct tensor *codes,
                         const struct tensor *absmax, const float table[256],
                         const struct adamw_segment *segment, int64_t e)
{
    const int64_t i = segment->state_offset + e;
    if (segment->state == ADAMW_STATE_FULL) return ref_get(full, i);
    return (double)table[((const uint8_t *)codes->data)[i]] * ref_get(absmax, i / ADAMW_BLOCK);
}

/* The code nearest to x, the lower one where two are equally near, by looking at all. */
static int nearest_code(const float table[256], double x)
{
    int best = 0;
    for (int i = 1; i < 256; i++)
        if (fabs((double)table[i] - x) < fabs((double)table[best] - x)) best = i;
    return best;
}

/* All moments of a segment, given as values. */
static void moments_put(const struct tensor *full, const struct tensor *codes,
                        const struct tensor *absmax, const float table[256],
                        const struct adamw_segment *segment, const double *values)
{
    for (int64_t e = 0; e < segment->count && segment->state == ADAMW_STATE_FULL; e++)
        ref_put(full, segment->state_offset + e, values[e]);
    if (segment->state == ADAMW_STATE_FULL) return;
    for (int64_t b = 0; b < segment->count; b += ADAMW_BLOCK) {
        const int64_t end = min_i64(b + ADAMW_BLOCK, segment->count);
        double largest = 0.0;
        for (int64_t e = b; e < end; e++) largest = fmax(largest, fabs(values[e]));
        const int64_t block = (segment->state_offset + b) / ADAMW_BLOCK;
        ref_put(absmax, block, largest);
        const double scale = ref_get(absmax, block) == 0.0 ? 1.0 : ref_get(absmax, block);
        uint8_t *code = (uint8_t *)codes->data + segment->state_offset;
        for (int64_t e = b; e < end; e++)
            code[e] = (uint8_t)nearest_code(table, values[e] / scale);
    }
}

/* The 16 random bits of kernels/ops_optim.h. */
static uint32_t rounding_bits(const struct adamw_segments_args *a, uint32_t tensor, int64_t element)
{
    const uint64_t block = (uint64_t)element / 8;
    const uint32_t key[2] = { (uint32_t)a->seed, (uint32_t)(a->seed >> 32) };
    const uint32_t counter[4] = { (uint32_t)block, (uint32_t)(block >> 32),
                                  RNG_ROUNDING | tensor << 8, (uint32_t)a->update };
    uint32_t out[4];
    rng_philox(out, counter, key);
    return out[element % 8 / 2] >> 16 * (element % 2) & 0xffffu;
}

static void weight_put(const struct adamw_segments_args *a, const struct adamw_segment *segment,
                       int64_t e, double w)
{
    const int64_t i = segment->weight_offset + e;
    if (a->master != NULL) {
        ref_put(a->master, segment->state_offset + e, w);
        w = ref_get(a->master, segment->state_offset + e);
    }
    ref_put(a->weight, i, w);
    if (a->rounding != ADAMW_ROUND_STOCHASTIC || !isfinite((float)w)) return;
    const uint32_t random = rounding_bits(a, segment->tensor, segment->element + e);
    ((uint16_t *)a->weight->data)[i] = (uint16_t)((f32_to_bits((float)w) + random) >> 16);
}

static void adamw_segment(const struct adamw_segments_args *a, const struct adamw_segment *segment)
{
    const double step = a->lr / (1.0 - pow(a->beta1, (double)a->update));
    const double v_root = sqrt(1.0 - pow(a->beta2, (double)a->update));
    const double keep = segment->decay ? 1.0 - a->lr * a->weight_decay : 1.0;
    double *m = ref_temp(segment->count), *v = ref_temp(segment->count);
    for (int64_t e = 0; e < segment->count; e++) {
        const double g = a->grad_scale * ref_get(a->grad, segment->grad_offset + e);
        const double m_old = moment_get(a->exp_avg, a->exp_avg_codes, a->exp_avg_absmax,
                                        adamw_code_signed, segment, e);
        const double v_old = moment_get(a->exp_avg_sq, a->exp_avg_sq_codes, a->exp_avg_sq_absmax,
                                        adamw_code_unsigned, segment, e);
        m[e] = a->beta1 * m_old + (1.0 - a->beta1) * g;
        v[e] = a->beta2 * v_old + (1.0 - a->beta2) * g * g;
        const double w = a->master ? ref_get(a->master, segment->state_offset + e)
                                   : ref_get(a->weight, segment->weight_offset + e);
        weight_put(a, segment, e, w * keep - step * m[e] / (sqrt(v[e]) / v_root + a->eps));
    }
    moments_put(a->exp_avg, a->exp_avg_codes, a->exp_avg_absmax, adamw_code_signed, segment, m);
    moments_put(a->exp_avg_sq, a->exp_avg_sq_codes, a->exp_avg_sq_absmax, adamw_code_unsigned,
                segment, v);
    free(m);
    free(v);
}

err_t ref_adamw_segments(struct dev *dev, const struct adamw_segments_args *a)
{
    (void)dev;
    for (int64_t s = 0; s < a->segment_count; s++) adamw_segment(a, &a->segments[s]);
    return ERR_OK;
}

err_t ref_cast(struct dev *dev, const struct cast_args *a)
{
    (void)dev;
    for (int64_t i = 0; i < tensor_count(a->x); i++) ref_put(a->y, i, ref_get(a->x, i));
    return ERR_OK;
}

err_t ref_add(struct dev *dev, const struct add_args *a)
{
    (void)dev;
    for (int64_t i = 0; i < tensor_count(a->x); i++)
        ref_put(a->y_acc, i, ref_get(a->y_acc, i) + ref_get(a->x, i));
    return ERR_OK;
}
