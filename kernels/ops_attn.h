/*
 * ops_attn.h - rotary positions and attention over packed sequences: forward, backward, decoding.
 *
 * A micro-batch is one run of R rows that holds several segments (samples) end to end. A segment
 * sees only itself. Its first `ctx` rows are a prefix that sees itself whole, in both directions;
 * every later row sees the prefix and what came before it: row i of the segment sees the keys
 * 0 .. max(ctx, i+1)-1. ctx = 0 is plain causal attention. Rows in no segment are padding: their
 * outputs and gradients are zero.
 *
 * q, k and v stay where the qkv product wrote them; the layout says where. Letters: R rows, H query
 * heads, G key/value heads (H is a multiple of G; query head h uses group h / (H/G)), D head width,
 * S segments, W width of a qkv row.
 */
#ifndef KERNELS_OPS_ATTN_H
#define KERNELS_OPS_ATTN_H

#include "kernels/dev.h"

#ifdef __cplusplus
extern "C" {
#endif

/* q of head h begins at column q_offset + h*q_stride of a row, k and v of group g likewise. */
struct qkv_layout {
    int64_t heads, kv_heads, head_dim;
    int64_t q_offset, q_stride;
    int64_t k_offset, k_stride;
    int64_t v_offset, v_stride;
};

/* ChatGLM-6B interleaves per head, (q|k|v)(q|k|v)...; ChatGLM2-6B has all q, all k, then all v. */
static inline struct qkv_layout qkv_layout_interleaved(int64_t heads, int64_t head_dim)
{
    const int64_t D = head_dim;
    return (struct qkv_layout){ heads, heads, D, 0, 3 * D, D, 3 * D, 2 * D, 3 * D };
}

static inline struct qkv_layout qkv_layout_grouped(int64_t heads, int64_t kv_heads,
                                                   int64_t head_dim)
{
    const int64_t D = head_dim;
    return (struct qkv_layout){ heads, kv_heads, D, 0, D, heads * D, D, (heads + kv_heads) * D, D };
}

/* One segment as three i32: row of its first token, prefix length, total length;
 * 0 <= ctx <= len, len > 0. Segments are ordered by `start` and do not overlap. */
struct attn_segment {
    int32_t start, ctx, len;
};

/*
 * Rotate q and k in place.
 * ROTARY_TWO_STREAM (ChatGLM-6B): each half of the head (D/2 wide) is rotated by its own position,
 *   the first half by pos[r], the second by block[r]; inside a half the pairs are (j, j + D/4):
 *     (a, b) -> (a*cos[p,j] - b*sin[p,j], b*cos[p,j] + a*sin[p,j])
 * ROTARY_HALF_INTERLEAVED (ChatGLM2-6B): the first D/2 columns are rotated by pos[r], with pairs
 *   (2j, 2j+1), j < D/4; the rest passes through; `block` is NULL.
 * inverse = rotate by the negative angle, which is the backward pass (on dqkv).
 *
 * Source:  Su et al. 2021, arXiv:2104.09864, eq. 34; two streams: modeling_chatglm.py of
 *          THUDM/chatglm-6b.
 * Cost:    2*R*(H+G)*D elements moved (half of it for HALF_INTERLEAVED).
 */
enum rotary_kind { ROTARY_TWO_STREAM, ROTARY_HALF_INTERLEAVED };

struct rotary_args {
    enum rotary_kind kind;
    struct tensor *qkv;         /* [R, W]    T, changed in place */
    struct qkv_layout layout;   /* head_dim a multiple of 4 */
    const struct tensor *pos;   /* [R]       i32, 0 .. P-1 */
    const struct tensor *block; /* [R]       i32, 0 .. P-1; NULL for HALF_INTERLEAVED */
    const struct tensor *cos;   /* [P, D/4]  accumulator dtype */
    const struct tensor *sin;   /* [P, D/4]  accumulator dtype */
    bool inverse;
};
MUST_USE err_t op_rotary(struct dev *dev, const struct rotary_args *args);
int64_t op_rotary_scratch_bytes(const struct dev *dev, const struct rotary_args *args);

/*
 * out[r,h,:] = sum_j p[r,h,j] v[j],  p = softmax_j(scale * q[r,h] . k[j]) over the visible keys
 * lse[r,h]   = log sum_j exp(scale * q . k)    (0 for padding rows)
 *
 * Source:   Vaswani et al. 2017, arXiv:1706.03762, eq. 1; the prefix mask: get_masks of
 *           THUDM/chatglm-6b. The reference divides scores by (layer+1) before the fp16 product and
 *           multiplies after it: in exact arithmetic the identity, so not repeated here.
 * Numerics: softmax with the row maximum subtracted. A segment's results depend on that segment's
 *           rows alone, to the bit.
 * Cost:     4*D*H*(visible pairs) FLOP.
 */
struct attn_fwd_args {
    struct tensor *out;            /* [R, H*D]  T */
    struct tensor *lse;            /* [R, H]    accumulator dtype */
    const struct tensor *qkv;      /* [R, W]    T, rotated */
    struct qkv_layout layout;
    const struct tensor *segments; /* [S, 3]    i32, rows of struct attn_segment, on the device */
    const struct attn_segment *segments_host; /* the same on the host: launch shapes */
    double scale;                  /* 1/sqrt(D) */
    struct scratch scratch;
};
MUST_USE err_t op_attn_fwd(struct dev *dev, const struct attn_fwd_args *args);
int64_t op_attn_fwd_scratch_bytes(const struct dev *dev, const struct attn_fwd_args *args);

/*
 * dqkv (every column of every row is written) from dout, recomputing p from q, k and lse:
 *   dv[j] = sum_r p dout;  dp = dout . v;  ds = p * (dp - sum_c dout*out);
 *   dq = scale * ds k;     dk = scale * ds^T q
 * Source: Dao et al. 2022, arXiv:2205.14135, algorithm 4. Cost: 10*D*H*(visible pairs) FLOP.
 */
struct attn_bwd_args {
    struct tensor *dqkv;           /* [R, W]    T */
    const struct tensor *dout;     /* [R, H*D]  T */
    const struct tensor *out;      /* [R, H*D]  T, from the forward pass */
    const struct tensor *lse;      /* [R, H]    from the forward pass */
    const struct tensor *qkv;      /* [R, W]    T, rotated */
    struct qkv_layout layout;
    const struct tensor *segments;
    const struct attn_segment *segments_host;
    double scale;
    struct scratch scratch;
};
MUST_USE err_t op_attn_bwd(struct dev *dev, const struct attn_bwd_args *args);
int64_t op_attn_bwd_scratch_bytes(const struct dev *dev, const struct attn_bwd_args *args);

/*
 * Copy rotated k and v of rows row_first .. row_first+row_count-1 into a cache: slot `slot`, from
 * `position` on.
 * A cache is [slots, T, G*D]: slot = one sequence, T = its room in tokens.
 */
struct kv_store_args {
    struct tensor *k_cache;   /* [slots, T, G*D]  T */
    struct tensor *v_cache;   /* [slots, T, G*D]  T */
    const struct tensor *qkv; /* [R, W]           T */
    struct qkv_layout layout;
    int64_t row_first, row_count, slot, position;
};
MUST_USE err_t op_kv_store(struct dev *dev, const struct kv_store_args *args);
int64_t op_kv_store_scratch_bytes(const struct dev *dev, const struct kv_store_args *args);

/*
 * One new token for each of B sequences: row b's k and v are put at position lens[b] of slot
 * slots[b]; its query then attends to positions 0 .. lens[b]. A row's result depends on that row
 * and its slot alone, to the bit.
 */
struct decode_attn_args {
    struct tensor *out;         /* [B, H*D]         T */
    struct tensor *k_cache;     /* [slots, T, G*D]  T */
    struct tensor *v_cache;     /* [slots, T, G*D]  T */
    const struct tensor *qkv;   /* [B, W]           T, rotated */
    struct qkv_layout layout;
    const struct tensor *slots; /* [B]  i32, all different */
    const struct tensor *lens;  /* [B]  i32, 0 .. T-1: tokens already in the cache */
    double scale;
    struct scratch scratch;
};
MUST_USE err_t op_decode_attn(struct dev *dev, const struct decode_attn_args *args);
int64_t op_decode_attn_scratch_bytes(const struct dev *dev, const struct decode_attn_args *args);

#ifdef __cplusplus
}
#endif
#endif
