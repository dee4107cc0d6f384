/*
 * cudnn_pack.h - which samples of a packed micro-batch go into which cuDNN call, and the arrays of
 * offsets and lengths that such a call reads. Integers only; needs neither cuDNN nor CUDA.
 *
 * Prefix attention is two exact calls. CONTEXT: the prefix rows of a segment against the prefix,
 * no mask. TARGET: its later rows against the whole segment, the last row seeing all of it
 * (bottom-right diagonal). Segments without a prefix have no CONTEXT part, those that are all
 * prefix no TARGET part: nothing of length 0 enters a call except to fill it up.
 *
 *     for (int64_t s = 0; cudnn_pack_next(&group, &s, call, segments, S, &limits);) {
 *         struct cudnn_block b = cudnn_pack_block(group.batch);
 *         cudnn_pack_fill(bytes, &group, segments, &rows);       // b.bytes of them
 *     }
 *
 * A plan is made for a batch size and two maximum lengths. They are rounded up to few values, so
 * that some dozens of plans serve all micro-batches; a group is as many consecutive segments as
 * one plan may take. What the rounding adds has length 0.
 */
#ifndef KERNELS_CUDA_CUDNN_PACK_H
#define KERNELS_CUDA_CUDNN_PACK_H

#include "kernels/cuda_sizes.h"
#include "kernels/ops_attn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Longer segments are left to our own kernels. */
#define CUDNN_PACK_LEN_MAX   4096
#define CUDNN_PACK_BATCH_MAX 64
/* Prefix rows of one CONTEXT group of the backward pass: its dk and dv are set aside. */
#define CUDNN_PACK_ROWS_MAX CUDNN_CONTEXT_ROWS_MAX

enum cudnn_pack_call { CUDNN_PACK_CONTEXT, CUDNN_PACK_TARGET };

/* What a group may grow to. The deterministic backward pass keeps a bf16 number per head and
 * score of the padded batch: 2 * batch * H * queries * keys bytes. */
struct cudnn_pack_limits {
    int64_t score_bytes_max; /* of those; 0: no such limit */
    int64_t heads;           /* H, with score_bytes_max */
    int64_t rows_max;        /* query rows in a group; 0: no such limit */
};

struct cudnn_group {
    enum cudnn_pack_call call;
    int64_t segment_first;        /* of the micro-batch */
    int64_t segment_end;          /* those between without a part in this call are skipped */
    int64_t count;                /* samples, > 0 */
    int64_t rows;                 /* their queries in all */
    int64_t batch, queries, keys; /* of the plan: count and longest, rounded up */
};

/* 256, 512, 1024, 2048 or 4096: the first that is not below len; 0: none. */
int64_t cudnn_pack_len_bucket(int64_t len);

/* Samples that one call of these (rounded) lengths may take; 0: not even one. */
int64_t cudnn_pack_batch_max(const struct cudnn_pack_limits *limits, int64_t queries, int64_t keys);

/* 4, 16 or 64, at most batch_max: the first that is not below count. */
int64_t cudnn_pack_batch_bucket(int64_t count, int64_t batch_max);

/* Every segment fits a call of its own; `*longest` (NULL allowed) is the first that does not, or
 * S. Check it before cudnn_pack_next. */
bool cudnn_pack_fits(int64_t *longest, const struct attn_segment *segments, int64_t S,
                     const struct cudnn_pack_limits *limits);

/* The next group of segments *s .. S-1; *s moves behind it. False: none is left. */
bool cudnn_pack_next(struct cudnn_group *group, int64_t *s, enum cudnn_pack_call call,
                     const struct attn_segment *segments, int64_t S,
                     const struct cudnn_pack_limits *limits);

/* Where the arrays of a group lie in its block of bytes; each begins at a multiple of 64. Offsets
 * are i64 [batch+1] in elements of the tensor they belong to, counts and flags i32 [batch]. */
struct cudnn_block {
    int64_t at_q, at_kv, at_out, at_lse, at_dkv; /* bytes into the block */
    int64_t query_count, key_count;
    int64_t alone; /* 1: no TARGET part, nothing else writes its dk and dv */
    int64_t bytes;
};
struct cudnn_block cudnn_pack_block(int64_t batch);

/* Elements from row to row. dkv: of the dk and dv that the call writes; where dkv_compact, they
 * have the group's key rows alone, end to end, else they are placed like k and v. */
struct cudnn_pack_rows {
    int64_t qkv, out, lse, dkv;
    bool dkv_compact;
};

void cudnn_pack_fill(void *block, const struct cudnn_group *group,
                     const struct attn_segment *segments, const struct cudnn_pack_rows *rows);

/* Never fewer bytes than all blocks of a micro-batch of R rows, however it is cut. */
int64_t cudnn_pack_blocks_bytes_max(int64_t R);

/* Never fewer bytes than 2 * batch * H * queries * keys of any group of R rows. */
int64_t cudnn_pack_score_bytes_max(int64_t R, const struct cudnn_pack_limits *limits);

/* The next run of rows in no segment, as [*row, *end); begin with *s = *end = 0. False: none. */
bool cudnn_pack_next_padding(int64_t *row, int64_t *end, int64_t *s,
                             const struct attn_segment *segments, int64_t S, int64_t R);

#ifdef __cplusplus
}
#endif
#endif
