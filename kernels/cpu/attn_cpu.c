/*
 * Attention over packed segments. The unit of work is a block of query rows of one head (forward)
 * or one key/value head of a segment (backward); each is computed by one thread from its own
 * segment's rows alone, so neither threads nor neighbouring segments can change a bit.
 *
 * Products of a block run through single-threaded calls of sgemm() on q, k and v where they lie.
 * Keys that no row of a block sees are never touched.
 */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/ops_attn.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define QUERY_ROWS 128 /* a block of queries: its scores against 2048 keys are 1 MiB */
#define KEY_COLS   512 /* backward: keys of one piece; scores and their gradient are 512 KiB */

/* Keys that row i of a segment sees: 0 .. visible-1. */
static int64_t visible_keys(struct attn_segment seg, int64_t i)
{
    return max_i64(seg.ctx, i + 1);
}

/* The segment's rows of the padding before it (after the last segment: s = count). */
struct row_range {
    int64_t begin, end;
};

static struct row_range padding_before(const struct attn_segment *segments, int64_t count,
                                       int64_t s, int64_t R)
{
    const int64_t begin = s == 0 ? 0 : (int64_t)segments[s - 1].start + segments[s - 1].len;
    return (struct row_range){ begin, s == count ? R : segments[s].start };
}

static void zero_rows(const struct tensor *t, struct row_range rows)
{
    if (rows.end > rows.begin)
        memset(f32_row(t, rows.begin), 0,
               (size_t)((rows.end - rows.begin) * t->row_stride) * sizeof(float));
}

static bool fwd_block(const struct attn_fwd_args *a, struct attn_segment seg, int64_t h,
                      int64_t row_first, float *score)
{
    const struct qkv_layout *l = &a->layout;
    const int64_t D = l->head_dim, W = a->qkv->row_stride, group = h / (l->heads / l->kv_heads);
    const int64_t rows = min_i64(QUERY_ROWS, seg.len - row_first);
    const int64_t keys = visible_keys(seg, row_first + rows - 1);
    const float *base = f32_row(a->qkv, seg.start);
    const float *q = base + row_first * W + l->q_offset + h * l->q_stride;
    const float *k = base + l->k_offset + group * l->k_stride;
    const float *v = base + l->v_offset + group * l->v_stride;
    const int64_t row_begin = seg.start + row_first;
    float inverse[QUERY_ROWS];

    if (!gemm_one_thread(false, true, rows, keys, D, (float)a->scale, q, W, k, W, 0.0f, score,
                         keys))
        return false;
    for (int64_t i = 0; i < rows; i++) {
        float *row = score + i * keys;
        const int64_t visible = visible_keys(seg, row_first + i);
        const float max = vec_max(row, visible);
        const double sum = vec_exp_minus(row, visible, max);
        memset(row + visible, 0, (size_t)(keys - visible) * sizeof *row);
        inverse[i] = (float)(1.0 / sum);
        f32_row(a->lse, row_begin + i)[h] = (float)((double)max + log(sum));
    }
    float *out = f32_row(a->out, row_begin) + h * D;
    const int64_t out_stride = a->out->row_stride;
    if (!gemm_one_thread(false, false, rows, D, keys, 1.0f, score, keys, v, W, 0.0f, out,
                         out_stride))
        return false;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < D; c++) out[i * out_stride + c] *= inverse[i];
    return true;
}

/* No segment is longer than R, so this bounds a block's scores. */
static int64_t fwd_thread_floats(const struct attn_fwd_args *a)
{
    return align_up(QUERY_ROWS * a->qkv->dim[0], 16);
}

int64_t attn_fwd_scratch_cpu(const struct dev *dev, const struct attn_fwd_args *a)
{
    return dev->threads * fwd_thread_floats(a) * (int64_t)sizeof(float);
}

err_t attn_fwd_cpu(struct dev *dev, const struct attn_fwd_args *a)
{
    TRY(cpu_require_f32(a->qkv));
    const int64_t R = a->qkv->dim[0], S = a->segments->dim[0], H = a->layout.heads;
    const int64_t thread_floats = fwd_thread_floats(a);
    bool failed = false;

#pragma omp parallel num_threads(dev->threads) reduction(|| : failed)
    {
        gemm_region_begin();
        float *score = (float *)a->scratch.data + omp_get_thread_num() * thread_floats;
        for (int64_t s = 0; s <= S; s++) {
            const struct row_range padding = padding_before(a->segments_host, S, s, R);
#pragma omp single nowait
            {
                zero_rows(a->out, padding);
                zero_rows(a->lse, padding);
            }
            if (s == S) break;
            const struct attn_segment seg = a->segments_host[s];
#pragma omp for schedule(dynamic) collapse(2) nowait
            for (int64_t h = 0; h < H; h++)
                for (int64_t row = 0; row < seg.len; row += QUERY_ROWS)
                    failed = !fwd_block(a, seg, h, row, score) || failed;
        }
    }
    if (failed) RAISE(NOMEM, "attn_fwd: no memory for packing operands");
    return ERR_OK;
}

/* A head of the segment in the backward pass; strides are those of dqkv, qkv (W) and out
 * (out_stride). */
struct bwd_head {
    const float *q, *k, *v, *out, *dout, *lse;
    float *dq, *dk, *dv;
    int64_t D, W, out_stride, lse_stride;
    float scale;
};

/* p[j] = exp(score[j] - lse) and dscore[j] = p*(dp - delta) for visible keys, 0 after them. */
static void bwd_row(float *restrict p, float *restrict dp, int64_t visible, int64_t keys, float lse,
                    float delta)
{
#pragma omp simd
    for (int64_t j = 0; j < visible; j++) {
        const float e = vec_expf(p[j] - lse);
        p[j] = e;
        dp[j] = e * (dp[j] - delta);
    }
    memset(p + visible, 0, (size_t)(keys - visible) * sizeof *p);
    memset(dp + visible, 0, (size_t)(keys - visible) * sizeof *dp);
}

/* Queries row_first .. +rows-1 against keys key_first .. +keys-1. dk and dv are added to, dq is
 * written by the first piece of keys and added to by the others. */
static bool bwd_piece(const struct bwd_head *b, struct attn_segment seg, int64_t row_first,
                      int64_t rows, int64_t key_first, int64_t keys, const float *delta,
                      float *p, float *dp)
{
    const int64_t W = b->W, D = b->D;
    const float *q = b->q + row_first * W, *k = b->k + key_first * W, *v = b->v + key_first * W;
    const float *dout = b->dout + row_first * b->out_stride;
    float *dq = b->dq + row_first * W, *dk = b->dk + key_first * W, *dv = b->dv + key_first * W;

    bool ok = gemm_one_thread(false, true, rows, keys, D, b->scale, q, W, k, W, 0.0f, p, keys) &&
              gemm_one_thread(false, true, rows, keys, D, 1.0f, dout, b->out_stride, v, W, 0.0f,
                              dp, keys);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t visible = visible_keys(seg, row_first + i) - key_first;
        bwd_row(p + i * keys, dp + i * keys, max_i64(0, min_i64(keys, visible)), keys,
                b->lse[(row_first + i) * b->lse_stride], delta[i]);
    }
    const float dq_beta = key_first == 0 ? 0.0f : 1.0f;
    return ok &&
           gemm_one_thread(true, false, keys, D, rows, 1.0f, p, keys, dout, b->out_stride, 1.0f,
                           dv, W) &&
           gemm_one_thread(true, false, keys, D, rows, b->scale, dp, keys, q, W, 1.0f, dk, W) &&
           gemm_one_thread(false, false, rows, D, keys, b->scale, dp, keys, k, W, dq_beta, dq, W);
}

static bool bwd_one_head(const struct bwd_head *b, struct attn_segment seg, float *space)
{
    float *p = space, *dp = space + QUERY_ROWS * KEY_COLS;
    float delta[QUERY_ROWS];
    bool ok = true;
    for (int64_t row = 0; row < seg.len; row += QUERY_ROWS) {
        const int64_t rows = min_i64(QUERY_ROWS, seg.len - row);
        for (int64_t i = 0; i < rows; i++) {
            const float *out = b->out + (row + i) * b->out_stride;
            const float *dout = b->dout + (row + i) * b->out_stride;
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < b->D; c++) sum += (double)(dout[c] * out[c]);
            delta[i] = (float)sum;
        }
        const int64_t keys_end = visible_keys(seg, row + rows - 1);
        for (int64_t key = 0; key < keys_end; key += KEY_COLS)
            ok = bwd_piece(b, seg, row, rows, key, min_i64(KEY_COLS, keys_end - key), delta, p,
                           dp) && ok;
    }
    return ok;
}

/* All query heads of one key/value head, in order, so that their sums into dk and dv have one. */
static bool bwd_group(const struct attn_bwd_args *a, struct attn_segment seg, int64_t group,
                      float *space)
{
    const struct qkv_layout *l = &a->layout;
    const int64_t D = l->head_dim, W = a->qkv->row_stride, heads = l->heads / l->kv_heads;
    const float *qkv = f32_row(a->qkv, seg.start);
    float *dqkv = f32_row(a->dqkv, seg.start);
    const int64_t k_col = l->k_offset + group * l->k_stride;
    const int64_t v_col = l->v_offset + group * l->v_stride;

    for (int64_t i = 0; i < seg.len; i++) {
        memset(dqkv + i * W + k_col, 0, (size_t)D * sizeof *dqkv);
        memset(dqkv + i * W + v_col, 0, (size_t)D * sizeof *dqkv);
    }
    bool ok = true;
    for (int64_t h = group * heads; h < (group + 1) * heads; h++) {
        const int64_t q_col = l->q_offset + h * l->q_stride;
        const struct bwd_head head = {
            .q = qkv + q_col,
            .k = qkv + k_col,
            .v = qkv + v_col,
            .out = f32_row(a->out, seg.start) + h * D,
            .dout = f32_row(a->dout, seg.start) + h * D,
            .lse = f32_row(a->lse, seg.start) + h,
            .dq = dqkv + q_col,
            .dk = dqkv + k_col,
            .dv = dqkv + v_col,
            .D = D,
            .W = W,
            .out_stride = a->out->row_stride,
            .lse_stride = a->lse->row_stride,
            .scale = (float)a->scale,
        };
        ok = bwd_one_head(&head, seg, space) && ok;
    }
    return ok;
}

#define BWD_THREAD_FLOATS (2 * QUERY_ROWS * KEY_COLS)

int64_t attn_bwd_scratch_cpu(const struct dev *dev, const struct attn_bwd_args *a)
{
    (void)a;
    return dev->threads * BWD_THREAD_FLOATS * (int64_t)sizeof(float);
}

err_t attn_bwd_cpu(struct dev *dev, const struct attn_bwd_args *a)
{
    TRY(cpu_require_f32(a->qkv));
    const struct qkv_layout *l = &a->layout;
    const int64_t R = a->qkv->dim[0], S = a->segments->dim[0];
    const bool gaps = a->qkv->dim[1] != (l->heads + 2 * l->kv_heads) * l->head_dim;
    bool failed = false;

    if (gaps) zero_rows(a->dqkv, (struct row_range){ 0, R }); /* columns of no head */
#pragma omp parallel num_threads(dev->threads) reduction(|| : failed)
    {
        gemm_region_begin();
        float *space = (float *)a->scratch.data + omp_get_thread_num() * BWD_THREAD_FLOATS;
        for (int64_t s = 0; s <= S; s++) {
#pragma omp single nowait
            zero_rows(a->dqkv, padding_before(a->segments_host, S, s, R));
            if (s == S) break;
#pragma omp for schedule(dynamic) nowait
            for (int64_t g = 0; g < l->kv_heads; g++)
                failed = !bwd_group(a, a->segments_host[s], g, space) || failed;
        }
    }
    if (failed) RAISE(NOMEM, "attn_bwd: no memory for packing operands");
    return ERR_OK;
}
