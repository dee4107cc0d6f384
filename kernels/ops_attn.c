/* Argument checks for ops_attn.h, once for all backends. */
#include "kernels/ops_attn.h"

#include "kernels/ops_check.h"

#include <inttypes.h>

OP_SCRATCH_BYTES(rotary)
OP_SCRATCH_BYTES(attn_fwd)
OP_SCRATCH_BYTES(attn_bwd)
OP_SCRATCH_BYTES(kv_store)
OP_SCRATCH_BYTES(decode_attn)

/* Heads of one of q, k, v lie inside a row of W columns. */
static err_t check_heads(const char *role, int64_t offset, int64_t stride, int64_t heads,
                         int64_t head_dim, int64_t W)
{
    if (offset < 0 || (heads > 1 && stride < head_dim) ||
        offset + (heads - 1) * stride + head_dim > W)
        RAISE(SHAPE,
              "layout: %" PRId64 " %s heads of %" PRId64 " from column %" PRId64 " every %" PRId64
              "; expected them apart and inside a row of %" PRId64,
              heads, role, head_dim, offset, stride, W);
    return ERR_OK;
}

static err_t check_layout(const struct qkv_layout *l, int64_t W)
{
    if (l->heads < 1 || l->kv_heads < 1 || l->head_dim < 1 || l->heads % l->kv_heads != 0)
        RAISE(SHAPE,
              "layout: %" PRId64 " heads, %" PRId64 " kv_heads, head_dim %" PRId64
              "; expected heads a positive multiple of kv_heads",
              l->heads, l->kv_heads, l->head_dim);
    TRY(check_heads("q", l->q_offset, l->q_stride, l->heads, l->head_dim, W));
    TRY(check_heads("k", l->k_offset, l->k_stride, l->kv_heads, l->head_dim, W));
    return check_heads("v", l->v_offset, l->v_stride, l->kv_heads, l->head_dim, W);
}

/* Ordered, apart, inside R rows. */
static err_t check_segments(const struct tensor *segments, const struct attn_segment *host,
                            int64_t R)
{
    TRY(check_dims(segments, "segments", 2));
    const int64_t S = segments->dim[0];
    TRY(check_2d(segments, "segments", DTYPE_I32, S, 3, ROWS_DENSE));
    ASSERT(S == 0 || host != NULL);
    int64_t row_next = 0;
    for (int64_t s = 0; s < S; s++) {
        const struct attn_segment seg = host[s];
        if (seg.len < 1 || seg.ctx < 0 || seg.ctx > seg.len)
            RAISE(ARG, "segment %" PRId64 ": ctx %d, len %d; expected 0 <= ctx <= len, len > 0", s,
                  seg.ctx, seg.len);
        if (seg.start < row_next || (int64_t)seg.start + seg.len > R)
            RAISE(ARG,
                  "segment %" PRId64 ": rows %d .. %" PRId64 "; expected rows of %" PRId64
                  " .. %" PRId64,
                  s, seg.start, (int64_t)seg.start + seg.len - 1, row_next, R - 1);
        row_next = (int64_t)seg.start + seg.len;
    }
    return ERR_OK;
}

err_t op_rotary(struct dev *dev, const struct rotary_args *a)
{
    if (a->kind != ROTARY_TWO_STREAM && a->kind != ROTARY_HALF_INTERLEAVED)
        RAISE(ARG, "kind = %d; expected one of enum rotary_kind", (int)a->kind);
    TRY(check_dims(a->qkv, "qkv", 2));
    TRY(check_dims(a->cos, "cos", 2));
    TRY(check_float(a->qkv, "qkv"));
    const dtype_t T = a->qkv->dtype, acc = dtype_accumulator(T);
    const int64_t R = a->qkv->dim[0], W = a->qkv->dim[1], P = a->cos->dim[0];

    TRY(check_2d(a->qkv, "qkv", T, R, W, ROWS_DENSE));
    TRY(check_layout(&a->layout, W));
    if (a->layout.head_dim % 4 != 0)
        RAISE(SHAPE, "layout: head_dim %" PRId64 "; expected a multiple of 4", a->layout.head_dim);
    TRY(check_1d(a->pos, "pos", DTYPE_I32, R));
    if (a->kind == ROTARY_TWO_STREAM) TRY(check_1d(a->block, "block", DTYPE_I32, R));
    if (a->kind == ROTARY_HALF_INTERLEAVED && a->block != NULL)
        RAISE(ARG, "block given; ROTARY_HALF_INTERLEAVED has one position stream");
    TRY(check_2d(a->cos, "cos", acc, P, a->layout.head_dim / 4, ROWS_DENSE));
    TRY(check_2d(a->sin, "sin", acc, P, a->layout.head_dim / 4, ROWS_DENSE));
    if (R == 0) return ERR_OK;
    OP_DISPATCH(dev, rotary, a);
}

/* What the forward and the backward pass have alike; `out` is as wide as the query heads. */
static err_t check_attn(const struct tensor *qkv, const struct qkv_layout *layout,
                        const struct tensor *out, const struct tensor *lse,
                        const struct tensor *segments, const struct attn_segment *segments_host,
                        double scale)
{
    TRY(check_dims(qkv, "qkv", 2));
    TRY(check_float(qkv, "qkv"));
    const dtype_t T = qkv->dtype;
    const int64_t R = qkv->dim[0], W = qkv->dim[1], H = layout->heads;

    TRY(check_2d(qkv, "qkv", T, R, W, ROWS_DENSE));
    TRY(check_layout(layout, W));
    TRY(check_2d(out, "out", T, R, H * layout->head_dim, ROWS_DENSE));
    TRY(check_2d(lse, "lse", dtype_accumulator(T), R, H, ROWS_DENSE));
    TRY(check_segments(segments, segments_host, R));
    return check_positive(scale, "scale");
}

err_t op_attn_fwd(struct dev *dev, const struct attn_fwd_args *a)
{
    TRY(check_attn(a->qkv, &a->layout, a->out, a->lse, a->segments, a->segments_host, a->scale));
    TRY(check_scratch(&a->scratch, op_attn_fwd_scratch_bytes(dev, a)));
    if (a->qkv->dim[0] == 0) return ERR_OK;
    OP_DISPATCH(dev, attn_fwd, a);
}

err_t op_attn_bwd(struct dev *dev, const struct attn_bwd_args *a)
{
    TRY(check_attn(a->qkv, &a->layout, a->out, a->lse, a->segments, a->segments_host, a->scale));
    const int64_t R = a->qkv->dim[0], HD = a->layout.heads * a->layout.head_dim;
    TRY(check_2d(a->dqkv, "dqkv", a->qkv->dtype, R, a->qkv->dim[1], ROWS_DENSE));
    TRY(check_2d(a->dout, "dout", a->qkv->dtype, R, HD, ROWS_DENSE));
    TRY(check_scratch(&a->scratch, op_attn_bwd_scratch_bytes(dev, a)));
    if (R == 0) return ERR_OK;
    OP_DISPATCH(dev, attn_bwd, a);
}

/* Both caches are [slots, room, G*D] of the dtype of qkv. */
static err_t check_caches(const struct tensor *k_cache, const struct tensor *v_cache,
                          const struct tensor *qkv, const struct qkv_layout *layout)
{
    TRY(check_dims(k_cache, "k_cache", 3));
    const int64_t slots = k_cache->dim[0], room = k_cache->dim[1];
    const int64_t width = layout->kv_heads * layout->head_dim;
    TRY(check_3d(k_cache, "k_cache", qkv->dtype, slots, room, width));
    return check_3d(v_cache, "v_cache", qkv->dtype, slots, room, width);
}

err_t op_kv_store(struct dev *dev, const struct kv_store_args *a)
{
    TRY(check_dims(a->qkv, "qkv", 2));
    TRY(check_float(a->qkv, "qkv"));
    const int64_t R = a->qkv->dim[0], W = a->qkv->dim[1];

    TRY(check_2d(a->qkv, "qkv", a->qkv->dtype, R, W, ROWS_DENSE));
    TRY(check_layout(&a->layout, W));
    TRY(check_caches(a->k_cache, a->v_cache, a->qkv, &a->layout));
    const int64_t slots = a->k_cache->dim[0], room = a->k_cache->dim[1];
    if (a->row_first < 0 || a->row_count < 0 || a->row_first > R - a->row_count)
        RAISE(ARG, "rows %" PRId64 " + %" PRId64 "; expected rows inside 0 .. %" PRId64,
              a->row_first, a->row_count, R - 1);
    if (a->slot < 0 || a->slot >= slots)
        RAISE(ARG, "slot = %" PRId64 "; expected 0 .. %" PRId64, a->slot, slots - 1);
    if (a->position < 0 || a->position > room - a->row_count)
        RAISE(ARG, "positions %" PRId64 " + %" PRId64 "; expected positions inside 0 .. %" PRId64,
              a->position, a->row_count, room - 1);
    if (a->row_count == 0) return ERR_OK;
    OP_DISPATCH(dev, kv_store, a);
}

err_t op_decode_attn(struct dev *dev, const struct decode_attn_args *a)
{
    TRY(check_dims(a->qkv, "qkv", 2));
    TRY(check_float(a->qkv, "qkv"));
    const dtype_t T = a->qkv->dtype;
    const int64_t B = a->qkv->dim[0], W = a->qkv->dim[1];

    TRY(check_2d(a->qkv, "qkv", T, B, W, ROWS_DENSE));
    TRY(check_layout(&a->layout, W));
    TRY(check_2d(a->out, "out", T, B, a->layout.heads * a->layout.head_dim, ROWS_DENSE));
    TRY(check_caches(a->k_cache, a->v_cache, a->qkv, &a->layout));
    TRY(check_1d(a->slots, "slots", DTYPE_I32, B));
    TRY(check_1d(a->lens, "lens", DTYPE_I32, B));
    TRY(check_positive(a->scale, "scale"));
    TRY(check_scratch(&a->scratch, op_decode_attn_scratch_bytes(dev, a)));
    if (B == 0) return ERR_OK;
    OP_DISPATCH(dev, decode_attn, a);
}
