/* The table, number formats, embedding and what works on flat arenas. */
#include "ref_impl.h"

#include "base/num.h"
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

err_t ref_adamw_segments(struct dev *dev, const struct adamw_segments_args *a)
{
    (void)dev;
    const double step = a->lr / (1.0 - pow(a->beta1, (double)a->update));
    const double v_root = sqrt(1.0 - pow(a->beta2, (double)a->update));
    for (int64_t s = 0; s < a->segment_count; s++) {
        const struct adamw_segment *segment = &a->segments[s];
        const double keep = segment->decay ? 1.0 - a->lr * a->weight_decay : 1.0;
        for (int64_t e = 0; e < segment->count; e++) {
            const int64_t iw = segment->weight_offset + e, is = segment->state_offset + e;
            const double g = a->grad_scale * ref_get(a->grad, segment->grad_offset + e);
            const double m = a->beta1 * ref_get(a->exp_avg, is) + (1.0 - a->beta1) * g;
            const double v = a->beta2 * ref_get(a->exp_avg_sq, is) + (1.0 - a->beta2) * g * g;
            double w = a->master ? ref_get(a->master, is) : ref_get(a->weight, iw);
            w = w * keep - step * m / (sqrt(v) / v_root + a->eps);
            ref_put(a->exp_avg, is, m);
            ref_put(a->exp_avg_sq, is, v);
            if (a->master) {
                ref_put(a->master, is, w);
                w = ref_get(a->master, is);
            }
            ref_put(a->weight, iw, w);
        }
    }
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
