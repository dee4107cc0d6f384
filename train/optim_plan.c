#include "train/optim_plan.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

/* With state in host memory, a slice takes the time of two copies of at most 200 MB or so: long
 * against what starting a copy costs, short against the update of a model worth this trouble. */
#define SLICE_ELEMENTS ((int64_t)1 << 24)
#define PIECE_ALIGN    32 /* elements, as the weights' layout */
#define PART_ALIGN     64 /* bytes */

/* One row per part: what lies beside it in files and memory. */
static const struct {
    const char *name;
    enum adamw_state state;
    int64_t per; /* elements of the row for one of the part */
} parts[OPTIM_PARTS] = {
    [OPTIM_EXP_AVG] = { "exp_avg", ADAMW_STATE_FULL, 1 },
    [OPTIM_EXP_AVG_SQ] = { "exp_avg_sq", ADAMW_STATE_FULL, 1 },
    [OPTIM_MASTER] = { "master", ADAMW_STATE_FULL, 1 },
    [OPTIM_EXP_AVG_ABSMAX] = { "exp_avg_absmax", ADAMW_STATE_BLOCK8, ADAMW_BLOCK },
    [OPTIM_EXP_AVG_SQ_ABSMAX] = { "exp_avg_sq_absmax", ADAMW_STATE_BLOCK8, ADAMW_BLOCK },
    [OPTIM_EXP_AVG_CODES] = { "exp_avg_codes", ADAMW_STATE_BLOCK8, 1 },
    [OPTIM_EXP_AVG_SQ_CODES] = { "exp_avg_sq_codes", ADAMW_STATE_BLOCK8, 1 },
};

const char *optim_part_name(enum optim_part part) { return parts[part].name; }
int64_t optim_part_per(enum optim_part part) { return parts[part].per; }

dtype_t optim_part_dtype(const struct optim_format *format, enum optim_part part)
{
    if (part == OPTIM_EXP_AVG_CODES || part == OPTIM_EXP_AVG_SQ_CODES) return DTYPE_U8;
    if (part == OPTIM_EXP_AVG || part == OPTIM_EXP_AVG_SQ)
        return dtype_accumulator(format->weights);
    return DTYPE_F32;
}

static enum adamw_state state_of(const struct glm_param *row, const struct optim_format *format)
{
    const bool coded = format->moments == OPTIM_MOMENTS_8BIT && row->layer >= 0 && row->dims == 2;
    return coded ? ADAMW_STATE_BLOCK8 : ADAMW_STATE_FULL;
}

static bool has_part(const struct optim_format *format, enum optim_part part,
                     enum adamw_state state)
{
    return parts[part].state == state && (part != OPTIM_MASTER || format->master);
}

/* Of `elements` of a row. */
static int64_t count_part(const struct optim_format *format, const struct glm_param *row,
                          enum optim_part part, int64_t elements)
{
    return has_part(format, part, state_of(row, format)) ? div_ceil(elements, parts[part].per) : 0;
}

int64_t optim_part_count(const struct optim_format *format, const struct glm_param *row,
                         enum optim_part part)
{
    return count_part(format, row, part, row->count);
}

static err_t check_format(const struct optim_format *f)
{
    if (f->weights != DTYPE_F32 && f->weights != DTYPE_BF16 && f->weights != DTYPE_F64)
        RAISE(ARG, "optimizer state of %s weights; expected f32 or bf16", dtype_name(f->weights));
    if (f->master && f->weights != DTYPE_BF16)
        RAISE(ARG, "a master of %s weights; they are their own", dtype_name(f->weights));
    if (f->master && f->moments == OPTIM_MOMENTS_8BIT)
        RAISE(ARG, "a master beside 8-bit moments; expected one of them");
    if (f->slice_elements != 0 && f->slice_elements < 4 * ADAMW_BLOCK)
        RAISE(ARG, "slices of %lld elements; expected at least %d", (long long)f->slice_elements,
              4 * ADAMW_BLOCK);
    return ERR_OK;
}

/* ---- cutting ---- */

static int64_t slice_limit(const struct optim_format *f)
{
    if (f->place == OPTIM_ON_DEVICE) return INT64_MAX - ADAMW_BLOCK;
    return f->slice_elements > 0 ? f->slice_elements : SLICE_ELEMENTS;
}

static void slice_begin(struct optim_plan *p, int64_t unit, int64_t piece)
{
    struct optim_slice *s = &p->slice[p->slice_count++];
    *s = (struct optim_slice){ .unit = unit, .piece_first = piece, .piece_end = piece };
}

/* Elements of the slice's rows so far, with what alignment adds. */
static int64_t slice_elements(const struct optim_slice *s)
{
    return s->part_count[OPTIM_EXP_AVG] + s->part_count[OPTIM_EXP_AVG_CODES];
}

static void slice_add(struct optim_plan *p, int64_t row, int64_t first, int64_t count,
                      enum adamw_state state)
{
    struct optim_slice *s = &p->slice[p->slice_count - 1];
    const bool full = state == ADAMW_STATE_FULL;
    int64_t *end = &s->part_count[full ? OPTIM_EXP_AVG : OPTIM_EXP_AVG_CODES];
    p->piece[s->piece_end++] = (struct optim_piece){ row, first, count, state, *end };
    *end += align_up(count, full ? PIECE_ALIGN : ADAMW_BLOCK);
}

/* The last slice is complete: place its parts. */
static void slice_end(struct optim_plan *p)
{
    struct optim_slice *s = &p->slice[p->slice_count - 1];
    const int64_t full = s->part_count[OPTIM_EXP_AVG], coded = s->part_count[OPTIM_EXP_AVG_CODES];
    s->offset = p->state_bytes;
    for (int part = 0; part < OPTIM_PARTS; part++) {
        const enum adamw_state state = parts[part].state;
        const int64_t elements = state == ADAMW_STATE_FULL ? full : coded;
        s->part_count[part] =
            has_part(&p->format, (enum optim_part)part, state) ? elements / parts[part].per : 0;
        s->part_offset[part] = s->bytes;
        s->bytes += align_up(s->part_count[part] *
                                 dtype_bytes(optim_part_dtype(&p->format, (enum optim_part)part)),
                             PART_ALIGN);
    }
    p->state_bytes += s->bytes;
    if (p->format.place == OPTIM_ON_HOST) p->staging_bytes = max_i64(p->staging_bytes, s->bytes);
}

/* A row's owned elements, in pieces, into slices of its unit. */
static void deal_row(struct optim_plan *p, const struct glm_param *row, int64_t index)
{
    const int64_t limit = slice_limit(&p->format);
    const enum adamw_state state = state_of(row, &p->format);
    const int64_t end = p->owned[index].first + p->owned[index].count;
    for (int64_t first = p->owned[index].first, count; first < end; first += count) {
        if (p->slice_count == p->unit_slice[row->unit]) {
            slice_begin(p, row->unit, p->row_piece[index]);
        } else if (slice_elements(&p->slice[p->slice_count - 1]) + ADAMW_BLOCK > limit) {
            slice_end(p);
            slice_begin(p, row->unit, p->slice[p->slice_count - 1].piece_end);
        }
        const int64_t room = limit - slice_elements(&p->slice[p->slice_count - 1]);
        count = min_i64(end - first, room / ADAMW_BLOCK * ADAMW_BLOCK);
        slice_add(p, index, first, count, state);
    }
}

static int64_t pieces_so_far(const struct optim_plan *p)
{
    return p->slice_count > 0 ? p->slice[p->slice_count - 1].piece_end : 0;
}

/* Rows lie unit by unit in the table. */
static void deal(struct optim_plan *p, const struct glm_params *params)
{
    int64_t unit = -1;
    for (int64_t i = 0; i < params->count; i++) {
        const struct glm_param *row = &params->row[i];
        ASSERT(row->unit == unit || row->unit == unit + 1);
        if (row->unit != unit) {
            if (unit >= 0 && p->slice_count > p->unit_slice[unit]) slice_end(p);
            unit = row->unit;
            p->unit_slice[unit] = p->slice_count;
        }
        p->row_piece[i] = pieces_so_far(p);
        deal_row(p, row, i);
        p->chunk_count += div_ceil(row->count, SUMSQ_CHUNK);
    }
    if (p->slice_count > p->unit_slice[unit]) slice_end(p);
    p->unit_slice[p->unit_count] = p->slice_count;
    p->row_piece[p->row_count] = pieces_so_far(p);
}

/* ---- life cycle ---- */

static err_t allocate(struct optim_plan *p, const struct glm_params *params)
{
    /* A slice that ends inside a unit has no room for another block. */
    int64_t elements = 0;
    for (int64_t i = 0; i < params->count; i++)
        elements += align_up(params->row[i].count, ADAMW_BLOCK);
    const int64_t cuts = elements / (slice_limit(&p->format) - ADAMW_BLOCK);
    const int64_t slices = params->unit_count + cuts, pieces = params->count + cuts;
    p->slice = calloc((size_t)slices, sizeof *p->slice);
    p->piece = calloc((size_t)pieces, sizeof *p->piece);
    p->unit_slice = calloc((size_t)params->unit_count + 1, sizeof *p->unit_slice);
    p->row_piece = calloc((size_t)params->count + 1, sizeof *p->row_piece);
    p->owned = calloc((size_t)params->count, sizeof *p->owned);
    if (p->slice == NULL || p->piece == NULL || p->unit_slice == NULL || p->row_piece == NULL ||
        p->owned == NULL)
        RAISE(NOMEM, "optimizer: no memory for %lld pieces", (long long)pieces);
    return ERR_OK;
}

static void sum_bytes(struct optim_plan *p, const struct glm_params *params)
{
    const int64_t sums = p->chunk_count * (int64_t)sizeof(double);
    for (int part = 0; part < OPTIM_PARTS; part++)
        for (int64_t i = 0; i < params->count; i++)
            p->part_bytes[part] +=
                count_part(&p->format, &params->row[i], (enum optim_part)part, p->owned[i].count) *
                dtype_bytes(optim_part_dtype(&p->format, (enum optim_part)part));
    p->bytes[p->format.place] = p->state_bytes;
    p->bytes[OPTIM_ON_DEVICE] += 2 * p->staging_bytes + sums;
    p->bytes[OPTIM_ON_HOST] += sums;
}

err_t optim_plan_create(struct optim_plan *out, const struct glm_params *params,
                        const struct optim_format *format, const struct owner *owner, int64_t rank)
{
    memset(out, 0, sizeof *out);
    out->format = *format;
    out->unit_count = params->unit_count;
    out->row_count = params->count;
    TRY(check_format(format));
    TRY(allocate(out, params));
    for (int64_t i = 0; i < params->count; i++) {
        struct optim_range *range = &out->owned[i];
        range->count = params->row[i].count;
        if (owner != NULL) owner_row(&range->first, &range->count, owner, params, i, rank);
    }
    deal(out, params);
    sum_bytes(out, params);
    return ERR_OK;
}

void optim_plan_clear(struct optim_plan *p)
{
    free(p->slice);
    free(p->piece);
    free(p->unit_slice);
    free(p->row_piece);
    free(p->owned);
    memset(p, 0, sizeof *p);
}
