/*
 * attn.h - the ways in which the CUDA backend computes attention over packed segments, and what
 * they share. Private to kernels/cuda.
 *
 *     plain    f32 and bf16, any layout, head_dim a multiple of 4 up to 256: simple and exact, the
 *              check of the others
 *     mma      bf16 on matrix units, head_dim 64 or 128, a k and v of its own for every head
 *     library  cuDNN's, where it was found
 *
 * All are deterministic and give a segment the same bits wherever it lies and whatever lies beside
 * it: tiles are counted from the segment's first row, and no two blocks add to one number.
 */
#ifndef KERNELS_CUDA_ATTN_H
#define KERNELS_CUDA_ATTN_H

#include "kernels/cuda/ops_cuda.h"
#include "kernels/ops_attn.h"

struct buf;

/* One way. Arguments are checked when they come here; R > 0. */
struct attn_path {
    const char *name;  /* as SOULCHAT_ATTENTION says it */
    const char *wants; /* what `takes` asks for, for messages */
    bool (*takes)(const struct dev *dev, const struct tensor *qkv, const struct qkv_layout *layout);
    err_t (*fwd)(struct dev *dev, const struct attn_fwd_args *args);
    err_t (*bwd)(struct dev *dev, const struct attn_bwd_args *args);
    /* Depend on R alone among the sizes of a batch: any segments may come later. */
    int64_t (*fwd_scratch)(const struct dev *dev, const struct attn_fwd_args *args);
    int64_t (*bwd_scratch)(const struct dev *dev, const struct attn_bwd_args *args);
};

extern const struct attn_path attn_plain, attn_mma;

/* SOULCHAT_ATTENTION into dev_cuda_of(dev)->attn_forced. ERR_USAGE: no such way. */
MUST_USE err_t attn_read_switch(struct dev *dev);
/* cuDNN, where it is found and not excluded by the switch. ERR_UNSUPPORTED: it is the only way to
 * be taken, and not there. One that is there and does not start is a warning, and not taken. Close
 * it after all queued work. */
MUST_USE err_t attn_library_open(struct dev *dev);
void attn_library_close(struct dev *dev);
/* Append a line on cuDNN, found or not. */
MUST_USE err_t attn_library_describe(struct buf *out);
/* The one that is forced, or the fastest that takes these; NULL: none does. */
const struct attn_path *attn_choose(const struct dev *dev, const struct tensor *qkv,
                                    const struct qkv_layout *layout);

/* ---- shared by plain and mma ---- */

/* The work of a block: rows `first` .. of a segment, as queries or as keys. */
struct alignas(16) attn_tile {
    int32_t start, ctx, len, first;
};

enum attn_axis { ATTN_QUERIES, ATTN_KEYS };

/* Of the row of a query in the backward pass: its log-sum-exp in the unit asked for, and
 * sum_c dout*out. */
struct alignas(8) attn_stat {
    float lse, delta;
};

static inline int64_t attn_tiles_bytes(int64_t R)
{
    return align_up(R * (int64_t)sizeof(struct attn_tile), 256);
}

static inline int64_t attn_stats_bytes(int64_t R, int64_t H)
{
    return align_up(R * H * (int64_t)sizeof(struct attn_stat), 256);
}

/* Scratch of a path that lists tiles once forward, twice and statistics backward. */
static inline int64_t attn_lists_fwd_bytes(const struct dev *dev, const struct attn_fwd_args *a)
{
    (void)dev;
    return attn_tiles_bytes(a->qkv->dim[0]);
}

static inline int64_t attn_lists_bwd_bytes(const struct dev *dev, const struct attn_bwd_args *a)
{
    (void)dev;
    const int64_t R = a->qkv->dim[0];
    return 2 * attn_tiles_bytes(R) + attn_stats_bytes(R, a->layout.heads);
}

/* Queue the listing of all tiles of `size` rows, the longest work first, into a piece of `left` of
 * attn_tiles_bytes(R). */
MUST_USE err_t attn_list_tiles(struct attn_tile **out, int64_t *count, struct dev *dev,
                               const struct tensor *segments, const struct attn_segment *host,
                               int64_t R, int64_t size, enum attn_axis axis, struct scratch *left);
/* Queue stats[h*R + r] of all rows and heads: lse times lse_unit, and delta. */
MUST_USE err_t attn_list_stats(struct attn_stat **out, struct dev *dev,
                               const struct attn_bwd_args *args, float lse_unit,
                               struct scratch *left);
/* Queue zeros into the rows of t, f32 or bf16, that belong to no segment. */
MUST_USE err_t attn_zero_padding(struct dev *dev, const struct tensor *t,
                                 const struct tensor *segments, const struct attn_segment *host);
/* The same for dqkv, and into columns that belong to no head. Before anything else is written. */
MUST_USE err_t attn_zero_dqkv(struct dev *dev, const struct attn_bwd_args *args);

#endif
