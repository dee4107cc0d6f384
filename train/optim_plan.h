/*
 * optim_plan.h - where optimizer state lies and how many bytes of what it takes, computed from the
 * table of parameters alone: `soulchat plan` prints it, optim.h allocates exactly it.
 *
 *     struct optim_plan plan;
 *     TRY(optim_plan_create(&plan, params, &format, NULL, 0));
 *     plan.bytes[OPTIM_ON_DEVICE], plan.bytes[OPTIM_ON_HOST], plan.part_bytes[OPTIM_MASTER], ...
 *     optim_plan_clear(&plan);
 *
 * State is cut into slices, each a contiguous block of memory with all parts of the state of some
 * rows, or pieces of rows, of one unit. A slice is what one call of the operator updates, and what
 * travels when state is kept in host memory: two staging buffers of the largest slice's size lie on
 * the device then. On the device a unit is one slice.
 *
 * With an owner plan, a rank keeps the state of what it owns and of nothing else; a unit of which
 * it owns nothing has no slice.
 *
 * Padding of the weights' layout has no state. Pieces begin at multiples of ADAMW_BLOCK elements of
 * their row, and, inside a slice's part, at multiples of that for 8-bit moments, of 32 elements
 * else.
 */
#ifndef TRAIN_OPTIM_PLAN_H
#define TRAIN_OPTIM_PLAN_H

#include "base/err.h"
#include "kernels/ops_optim.h"
#include "model/glm_params.h"
#include "train/owner.h"

#include <stdbool.h>
#include <stdint.h>

/* In the order of the choices of train.moments. */
enum optim_moments {
    OPTIM_MOMENTS_F32,  /* the accumulator dtype of the weights' */
    OPTIM_MOMENTS_8BIT, /* block-wise codes for matrices of layers, f32 for all else */
};

/* In the order of the choices of train.moments_place. */
enum optim_place { OPTIM_ON_DEVICE, OPTIM_ON_HOST, OPTIM_PLACES };

struct optim_format {
    dtype_t weights; /* F32, BF16; F64 with the reference table */
    bool master;     /* f32 values beside bf16 weights; not with 8-bit moments */
    enum optim_moments moments;
    enum optim_place place; /* of the moments and the master */
    int64_t slice_elements; /* of a slice in host memory, at least 1024; 0: 2^24 */
};

/* What state consists of, in the order of checkpoint files: wide types first. */
enum optim_part {
    OPTIM_EXP_AVG,
    OPTIM_EXP_AVG_SQ,
    OPTIM_MASTER,
    OPTIM_EXP_AVG_ABSMAX, /* f32, one per ADAMW_BLOCK elements */
    OPTIM_EXP_AVG_SQ_ABSMAX,
    OPTIM_EXP_AVG_CODES, /* u8 */
    OPTIM_EXP_AVG_SQ_CODES,
    OPTIM_PARTS
};

/* Elements first .. first+count-1 of a row. */
struct optim_range {
    int64_t first, count;
};

/* The same, and where their state lies. */
struct optim_piece {
    int64_t row, first, count;
    enum adamw_state state;
    int64_t offset; /* elements, in each of the slice's parts of its state; see adamw_segment */
};

struct optim_slice {
    int64_t unit;
    int64_t piece_first, piece_end;   /* of plan.piece */
    int64_t offset, bytes;            /* of all its state */
    int64_t part_count[OPTIM_PARTS];  /* elements; 0: absent */
    int64_t part_offset[OPTIM_PARTS]; /* bytes from the slice's begin, multiples of 64 */
};

struct optim_plan {
    struct optim_format format;
    struct optim_slice *slice;
    int64_t slice_count;
    int64_t *unit_slice; /* [unit_count + 1] first slice of each unit */
    struct optim_piece *piece;
    int64_t *row_piece;        /* [params.count + 1] first piece of each row */
    struct optim_range *owned; /* [params.count] what of each row has its state here */
    int64_t unit_count, row_count;
    int64_t chunk_count; /* partial sums of the gradient norm, f64, on the device */

    int64_t part_bytes[OPTIM_PARTS]; /* of logical elements that are owned */
    int64_t state_bytes;             /* all slices, with what alignment adds */
    int64_t staging_bytes;           /* one staging buffer; 0: none */
    int64_t bytes[OPTIM_PLACES];     /* in all, page-locked on the host */
};

/* What rank `rank` keeps of it, or, with `owner` NULL, all. Yours; optim_plan_clear it, also after
 * a failure. ERR_ARG: a format that cannot be. ERR_NOMEM. */
MUST_USE err_t optim_plan_create(struct optim_plan *out, const struct glm_params *params,
                                 const struct optim_format *format, const struct owner *owner,
                                 int64_t rank);
void optim_plan_clear(struct optim_plan *plan);

/* "exp_avg", "exp_avg_sq", "master", ...: the prefix of a tensor's name in checkpoints. */
const char *optim_part_name(enum optim_part part);
dtype_t optim_part_dtype(const struct optim_format *format, enum optim_part part);
/* Elements of a row for one of the part: 1, or ADAMW_BLOCK. */
int64_t optim_part_per(enum optim_part part);
/* Elements of a part that belong to a row: its count, its number of blocks, or 0. */
int64_t optim_part_count(const struct optim_format *format, const struct glm_param *row,
                         enum optim_part part);

#endif
