/* Reference: rotary positions, attention over packed segments, key/value caches. */
#include "ref_impl.h"

#include "base/num.h"
#include "kernels/ops_attn.h"

#include <math.h>
#include <string.h>

/* q of head h, k and v of group g, within a row of W columns. */
static double *q_of(double *row, const struct qkv_layout *l, int64_t h)
{
    return row + l->q_offset + h * l->q_stride;
}

static double *k_of(double *row, const struct qkv_layout *l, int64_t g)
{
    return row + l->k_offset + g * l->k_stride;
}

static double *v_of(double *row, const struct qkv_layout *l, int64_t g)
{
    return row + l->v_offset + g * l->v_stride;
}

/* Rotate pairs (x[j*step], x[j*step + apart]), j < count. */
static void rotate(double *x, int64_t step, int64_t apart, const double *cosine,
                   const double *sine, double sign, int64_t count)
{
    for (int64_t j = 0; j < count; j++) {
        const double a = x[j * step], b = x[j * step + apart], s = sign * sine[j];
        x[j * step] = a * cosine[j] - b * s;
        x[j * step + apart] = b * cosine[j] + a * s;
    }
}

static void rotary_head(double *head, const struct rotary_args *a, int64_t pos, int64_t block)
{
    const int64_t D = a->layout.head_dim, quarter = D / 4;
    const double sign = a->inverse ? -1.0 : 1.0;
    if (a->kind == ROTARY_TWO_STREAM) {
        rotate(head, 1, quarter, ref_row(a->cos, pos), ref_row(a->sin, pos), sign, quarter);
        rotate(head + D / 2, 1, quarter, ref_row(a->cos, block), ref_row(a->sin, block), sign,
               quarter);
    } else {
        rotate(head, 2, 1, ref_row(a->cos, pos), ref_row(a->sin, pos), sign, quarter);
    }
}

err_t ref_rotary(struct dev *dev, const struct rotary_args *a)
{
    (void)dev;
    for (int64_t r = 0; r < a->qkv->dim[0]; r++) {
        const int64_t pos = ref_i32(a->pos)[r];
        const int64_t block = a->block ? ref_i32(a->block)[r] : 0;
        ASSERT(pos >= 0 && pos < a->cos->dim[0] && block >= 0 && block < a->cos->dim[0]);
        double *row = ref_row(a->qkv, r);
        for (int64_t h = 0; h < a->layout.heads; h++)
            rotary_head(q_of(row, &a->layout, h), a, pos, block);
        for (int64_t g = 0; g < a->layout.kv_heads; g++)
            rotary_head(k_of(row, &a->layout, g), a, pos, block);
    }
    return ERR_OK;
}

/* out = softmax(score) v over `count` keys, rows `stride` apart; returns the log-sum-exp. */
static double attend(double *out, double *score, const double *q, const double *k,
                     const double *v, int64_t stride, int64_t count, int64_t D, double scale)
{
    double top = -INFINITY, sum = 0.0;
    for (int64_t j = 0; j < count; j++) {
        score[j] = scale * ref_dot(q, k + j * stride, D);
        top = fmax(top, score[j]);
    }
    for (int64_t j = 0; j < count; j++) sum += exp(score[j] - top);
    memset(out, 0, (size_t)D * sizeof *out);
    for (int64_t j = 0; j < count; j++) ref_axpy(out, exp(score[j] - top) / sum, v + j * stride, D);
    return top + log(sum);
}

err_t ref_attn_fwd(struct dev *dev, const struct attn_fwd_args *a)
{
    (void)dev;
    const struct qkv_layout *l = &a->layout;
    double *score = ref_temp(a->qkv->dim[0]);
    ref_zero_rows(a->out);
    ref_zero_rows(a->lse);
    for (int64_t s = 0; s < a->segments->dim[0]; s++) {
        const struct attn_segment *segment = &a->segments_host[s];
        double *first = ref_row(a->qkv, segment->start);
        for (int64_t i = 0; i < segment->len; i++) {
            const int64_t r = segment->start + i, visible = max_i64(segment->ctx, i + 1);
            for (int64_t h = 0; h < l->heads; h++) {
                const int64_t g = h / (l->heads / l->kv_heads);
                ref_row(a->lse, r)[h] =
                    attend(ref_row(a->out, r) + h * l->head_dim, score,
                           q_of(ref_row(a->qkv, r), l, h), k_of(first, l, g), v_of(first, l, g),
                           a->qkv->row_stride, visible, l->head_dim, a->scale);
            }
        }
    }
    free(score);
    return ERR_OK;
}

/* Row i of a segment and head h: adds to dq of the row and to dk, dv of every visible key. */
static void attn_bwd_row(const struct attn_bwd_args *a, const struct attn_segment *segment,
                         int64_t i, int64_t h)
{
    const struct qkv_layout *l = &a->layout;
    const int64_t D = l->head_dim, g = h / (l->heads / l->kv_heads), r = segment->start + i;
    const double *q = q_of(ref_row(a->qkv, r), l, h);
    const double *dout = ref_row(a->dout, r) + h * D;
    const double delta = ref_dot(dout, ref_row(a->out, r) + h * D, D);
    double *dq = q_of(ref_row(a->dqkv, r), l, h);

    for (int64_t j = 0; j < max_i64(segment->ctx, i + 1); j++) {
        double *row = ref_row(a->qkv, segment->start + j);
        double *drow = ref_row(a->dqkv, segment->start + j);
        const double *k = k_of(row, l, g);
        const double p = exp(a->scale * ref_dot(q, k, D) - ref_row(a->lse, r)[h]);
        const double ds = p * (ref_dot(dout, v_of(row, l, g), D) - delta);
        ref_axpy(dq, a->scale * ds, k, D);
        ref_axpy(k_of(drow, l, g), a->scale * ds, q, D);
        ref_axpy(v_of(drow, l, g), p, dout, D);
    }
}

err_t ref_attn_bwd(struct dev *dev, const struct attn_bwd_args *a)
{
    (void)dev;
    ref_zero_rows(a->dqkv);
    for (int64_t s = 0; s < a->segments->dim[0]; s++)
        for (int64_t i = 0; i < a->segments_host[s].len; i++)
            for (int64_t h = 0; h < a->layout.heads; h++)
                attn_bwd_row(a, &a->segments_host[s], i, h);
    return ERR_OK;
}

/* Position t of slot s in a [slots, T, G*D] cache. */
static double *cache_row(const struct tensor *cache, int64_t s, int64_t t)
{
    ASSERT(s >= 0 && s < cache->dim[0] && t >= 0 && t < cache->dim[1]);
    return (double *)cache->data + (s * cache->dim[1] + t) * cache->dim[2];
}

static void cache_put(const struct tensor *k_cache, const struct tensor *v_cache, double *row,
                      const struct qkv_layout *l, int64_t slot, int64_t position)
{
    const size_t bytes = (size_t)l->head_dim * sizeof(double);
    for (int64_t g = 0; g < l->kv_heads; g++) {
        memcpy(cache_row(k_cache, slot, position) + g * l->head_dim, k_of(row, l, g), bytes);
        memcpy(cache_row(v_cache, slot, position) + g * l->head_dim, v_of(row, l, g), bytes);
    }
}

err_t ref_kv_store(struct dev *dev, const struct kv_store_args *a)
{
    (void)dev;
    for (int64_t i = 0; i < a->row_count; i++)
        cache_put(a->k_cache, a->v_cache, ref_row(a->qkv, a->row_first + i), &a->layout, a->slot,
                  a->position + i);
    return ERR_OK;
}

err_t ref_decode_attn(struct dev *dev, const struct decode_attn_args *a)
{
    (void)dev;
    const struct qkv_layout *l = &a->layout;
    const int64_t D = l->head_dim;
    double *score = ref_temp(a->k_cache->dim[1]);
    for (int64_t b = 0; b < a->qkv->dim[0]; b++) {
        const int64_t slot = ref_i32(a->slots)[b], len = ref_i32(a->lens)[b];
        double *row = ref_row(a->qkv, b);
        cache_put(a->k_cache, a->v_cache, row, l, slot, len);
        for (int64_t h = 0; h < l->heads; h++) {
            const int64_t g = h / (l->heads / l->kv_heads);
            attend(ref_row(a->out, b) + h * D, score, q_of(row, l, h),
                   cache_row(a->k_cache, slot, 0) + g * D, cache_row(a->v_cache, slot, 0) + g * D,
                   a->k_cache->dim[2], len + 1, D, a->scale);
        }
    }
    free(score);
    return ERR_OK;
}
