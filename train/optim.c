#include "train/optim.h"

#include "base/check.h"
#include "base/num.h"
#include "train/optim_stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct optim {
    struct optim_target target;
    struct optim_options options;
    struct optim_plan plan;
    char *state;                   /* all slices, on the device or the host, as plan.format.place */
    struct optim_stage stage;      /* state on the host: its way to the device and back */
    struct tensor chunk_sums;      /* [chunks] f64, on the device */
    double *chunk_sums_host;       /* [chunks] page-locked */
    struct adamw_segment *updates; /* [pieces] */
    struct sumsq_segment *norms;   /* [rows of the table] what is owned of them */
    struct comm_span *sums;        /* [ranks] each rank's part of chunk_sums, bytes */
    int64_t *unit_row;             /* [units + 1] first row of each unit */
};

struct optim_options optim_options_from_cfg(const struct cfg *cfg,
                                            const struct optim_format *format)
{
    static const enum adamw_rounding roundings[] = { ADAMW_ROUND_STOCHASTIC, ADAMW_ROUND_NEAREST };
    return (struct optim_options){
        .beta1 = cfg_float(cfg, "train.beta1"),
        .beta2 = cfg_float(cfg, "train.beta2"),
        .eps = cfg_float(cfg, "train.adam_eps"),
        .weight_decay = cfg_float(cfg, "train.weight_decay"),
        .max_grad_norm = cfg_float(cfg, "train.max_grad_norm"),
        .rounding = roundings[cfg_enum(cfg, "train.rounding")],
        .seed = (uint64_t)cfg_int(cfg, "train.rounding_seed"),
        .format = *format,
    };
}

/* ---- life cycle ---- */

/* With owners, chunk sums lie rank by rank, and then in the table's order: what a rank computes is
 * one piece of an exchange. */
static void place_sums(struct optim *o)
{
    const struct owner *owner = o->target.owner;
    int64_t end = 0;
    for (int64_t r = 0; r < owner->size; r++) {
        o->sums[r].offset = end * (int64_t)sizeof(double);
        for (int64_t unit = 0; unit < owner->unit_count; unit++) {
            const struct owner_share *share = owner_share(owner, unit, r);
            end += share->chunk_end - share->chunk_begin;
        }
        o->sums[r].bytes = end * (int64_t)sizeof(double) - o->sums[r].offset;
    }
    ASSERT(end == o->plan.chunk_count);
}

/* Where each piece lies in weights and gradients; where the chunk sums of each row go. */
static void deal_segments(struct optim *o)
{
    const struct glm_params *params = o->target.params;
    const struct glm_layout *weights = o->target.layout, *grads = o->target.grad_layout;
    const struct owner *owner = o->target.owner;
    int64_t chunk = 0;
    if (owner != NULL) {
        place_sums(o);
        chunk = o->sums[comm_rank(o->target.comm)].offset / (int64_t)sizeof(double);
    }
    for (int64_t i = 0; i < o->plan.row_piece[params->count]; i++) {
        const struct optim_piece *piece = &o->plan.piece[i];
        o->updates[i] = (struct adamw_segment){
            .weight_offset = weights->offset[piece->row] + piece->first,
            .grad_offset = grads->offset[piece->row] + piece->first,
            .state_offset = piece->offset,
            .count = piece->count,
            .decay = params->row[piece->row].decay,
            .state = piece->state,
            .tensor = (uint32_t)piece->row,
            .element = piece->first,
        };
    }
    for (int64_t i = params->count - 1; i >= 0; i--) o->unit_row[params->row[i].unit] = i;
    o->unit_row[params->unit_count] = params->count;
    for (int64_t i = 0; i < params->count; i++) {
        const struct optim_range *owned = &o->plan.owned[i];
        o->norms[i] =
            (struct sumsq_segment){ grads->offset[i] + owned->first, owned->count, chunk };
        chunk += div_ceil(owned->count, SUMSQ_CHUNK);
    }
    ASSERT(owner != NULL || chunk == o->plan.chunk_count);
}

static err_t allocate_lists(struct optim *o)
{
    const int64_t pieces = o->plan.row_piece[o->plan.row_count];
    o->updates = calloc((size_t)pieces + 1, sizeof *o->updates);
    o->norms = calloc((size_t)o->plan.row_count, sizeof *o->norms);
    o->unit_row = calloc((size_t)o->plan.unit_count + 1, sizeof *o->unit_row);
    o->sums = calloc(o->target.owner != NULL ? (size_t)o->target.owner->size : 1, sizeof *o->sums);
    if (o->updates == NULL || o->norms == NULL || o->unit_row == NULL || o->sums == NULL)
        RAISE(NOMEM, "optimizer: no memory for %lld segments", (long long)pieces);
    return ERR_OK;
}

static err_t create(struct optim *o)
{
    struct dev *dev = o->target.dev;
    void *data;
    const struct optim_format *format = &o->options.format;
    const struct owner *owner = o->target.owner;
    const int64_t rank = owner != NULL ? comm_rank(o->target.comm) : 0;
    ASSERT(format->weights == o->target.weights.dtype);
    TRY(optim_plan_create(&o->plan, o->target.params, format, owner, rank));
    TRY(allocate_lists(o));
    deal_segments(o);
    const int64_t chunks = o->plan.chunk_count, sums = chunks * (int64_t)sizeof(double);
    TRY(dev_alloc(dev, &data, sums, "partial sums of the gradient norm"));
    o->chunk_sums = tensor_1d(data, DTYPE_F64, chunks, "chunk sums");
    TRY(dev_host_alloc(dev, &data, sums, "partial sums of the gradient norm"));
    o->chunk_sums_host = data;
    if (format->place == OPTIM_ON_DEVICE) {
        TRY(dev_alloc(dev, &data, o->plan.state_bytes, "optimizer state"));
        o->state = data;
        return ERR_OK;
    }
    TRY(dev_host_alloc(dev, &data, o->plan.state_bytes, "optimizer state"));
    o->state = data;
    return optim_stage_open(&o->stage, dev, &o->plan, o->state);
}

err_t optim_create_on(struct optim **out, const struct optim_target *target,
                      const struct optim_options *options)
{
    struct optim *o = calloc(1, sizeof *o);
    *out = NULL;
    if (o == NULL) RAISE(NOMEM, "optimizer: no memory for %zu bytes", sizeof *o);
    o->target = *target;
    o->options = *options;
    const err_t rc = create(o);
    if (rc != ERR_OK) {
        optim_close(o);
        return rc;
    }
    *out = o;
    return ERR_OK;
}

struct optim_target optim_target_of(const struct glm *glm)
{
    return (struct optim_target){
        .dev = glm_dev(glm),
        .params = glm_params(glm),
        .layout = glm_weight_layout(glm),
        .grad_layout = glm_grad_layout(glm),
        .weights = glm_weights(glm),
    };
}

void *optim_target_weights(const struct optim_target *t, int64_t row, int64_t first)
{
    const int64_t at = t->layout->offset[row] + first;
    return (char *)t->weights.data + at * dtype_bytes(t->weights.dtype);
}

err_t optim_create(struct optim **out, struct glm *glm, const struct optim_options *options)
{
    const struct optim_target target = optim_target_of(glm);
    return optim_create_on(out, &target, options);
}

void optim_close(struct optim *o)
{
    if (o == NULL) return;
    struct dev *dev = o->target.dev;
    optim_stage_close(&o->stage);
    if (o->options.format.place == OPTIM_ON_DEVICE)
        dev_free(dev, o->state);
    else
        dev_host_free(dev, o->state);
    dev_free(dev, o->chunk_sums.data);
    dev_host_free(dev, o->chunk_sums_host);
    optim_plan_clear(&o->plan);
    free(o->updates);
    free(o->norms);
    free(o->sums);
    free(o->unit_row);
    free(o);
}

/* ---- the norm ---- */

static err_t sum_rows(struct optim *o, const struct tensor *grads, int64_t first, int64_t end)
{
    const struct sumsq_chunks_args args = { .out = &o->chunk_sums,
                                            .x = grads,
                                            .segments = o->norms + first,
                                            .segment_count = end - first };
    return op_sumsq_chunks(o->target.dev, &args);
}

err_t optim_unit_norm(struct optim *o, const struct tensor *grads, int64_t unit)
{
    return sum_rows(o, grads, o->unit_row[unit], o->unit_row[unit + 1]);
}

/* Sums of rows first .. end-1, on the host. */
static err_t fetch_sums(struct optim *o, int64_t *begin, int64_t *count, int64_t first, int64_t end)
{
    const int64_t unit = (int64_t)sizeof(double);
    *begin = o->norms[first].out_index;
    *count = (end == o->plan.row_count ? o->plan.chunk_count : o->norms[end].out_index) - *begin;
    return dev_download(o->target.dev, o->chunk_sums_host + *begin,
                        (const double *)o->chunk_sums.data + *begin, *count * unit);
}

err_t optim_unit_is_finite(struct optim *o, bool *out, int64_t unit)
{
    int64_t begin, count;
    ASSERT(o->target.owner == NULL);
    TRY(fetch_sums(o, &begin, &count, o->unit_row[unit], o->unit_row[unit + 1]));
    *out = true;
    for (int64_t i = begin; i < begin + count; i++) *out = *out && isfinite(o->chunk_sums_host[i]);
    return ERR_OK;
}

/* Folded in the table's order, however they lie. */
static double fold_owned_sums(const struct optim *o)
{
    const struct owner *owner = o->target.owner;
    const double *sums = o->chunk_sums_host;
    double total = 0.0;
    for (int64_t unit = 0; unit < owner->unit_count; unit++) {
        for (int64_t r = 0; r < owner->size; r++) {
            const struct owner_share *share = owner_share(owner, unit, r);
            int64_t at = o->sums[r].offset / (int64_t)sizeof *sums;
            for (int64_t u = 0; u < unit; u++) {
                const struct owner_share *before = owner_share(owner, u, r);
                at += before->chunk_end - before->chunk_begin;
            }
            for (int64_t c = share->chunk_begin; c < share->chunk_end; c++) total += sums[at++];
        }
    }
    return total;
}

static err_t gather_sums(struct optim *o)
{
    const int64_t bytes = o->plan.chunk_count * (int64_t)sizeof(double);
    TRY(comm_allgatherv(o->target.comm, &(struct comm_allgatherv_args){ .data = o->chunk_sums.data,
                                                                        .spans = o->sums }));
    return dev_download(o->target.dev, o->chunk_sums_host, o->chunk_sums.data, bytes);
}

err_t optim_norm(struct optim *o, double *norm)
{
    int64_t begin, count;
    if (o->target.owner != NULL) {
        TRY(gather_sums(o));
        *norm = sqrt(fold_owned_sums(o));
        return ERR_OK;
    }
    TRY(fetch_sums(o, &begin, &count, 0, o->plan.row_count));
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += o->chunk_sums_host[i];
    *norm = sqrt(sum);
    return ERR_OK;
}

err_t optim_queue_norm(struct optim *o, const struct tensor *grads)
{
    return sum_rows(o, grads, 0, o->plan.row_count);
}

err_t optim_grad_norm(struct optim *o, double *norm, const struct tensor *grads)
{
    TRY(optim_queue_norm(o, grads));
    return optim_norm(o, norm);
}

double optim_clip_scale(const struct optim *o, double norm)
{
    if (o->options.max_grad_norm <= 0.0) return 1.0;
    return fmin(1.0, o->options.max_grad_norm / (norm + 1e-6));
}

/* ---- the update ---- */

/* One slice's parts as tensors, its memory beginning at `base`. */
static void view_parts(struct tensor out[OPTIM_PARTS], const struct optim *o,
                       const struct optim_slice *slice, char *base)
{
    for (int part = 0; part < OPTIM_PARTS; part++)
        out[part] = tensor_1d(base + slice->part_offset[part],
                              optim_part_dtype(&o->plan.format, (enum optim_part)part),
                              slice->part_count[part], optim_part_name((enum optim_part)part));
}

static struct tensor *unless_empty(struct tensor *t) { return t->dim[0] > 0 ? t : NULL; }

/* What is the same for all slices of an update. */
static struct adamw_segments_args update_args(const struct optim *o, double lr, double grad_scale,
                                              int64_t update)
{
    const bool rounds = o->plan.format.weights == DTYPE_BF16 && !o->plan.format.master;
    ASSERT(update >= 1);
    return (struct adamw_segments_args){
        .lr = lr,
        .beta1 = o->options.beta1,
        .beta2 = o->options.beta2,
        .eps = o->options.eps,
        .weight_decay = o->options.weight_decay,
        .grad_scale = grad_scale,
        .update = update,
        .rounding = rounds ? o->options.rounding : ADAMW_ROUND_NEAREST,
        .seed = o->options.seed,
    };
}

static err_t update_slice(struct optim *o, const struct tensor *grads, int64_t index,
                          struct adamw_segments_args *args)
{
    const struct optim_slice *slice = &o->plan.slice[index];
    const bool staged = o->plan.format.place == OPTIM_ON_HOST;
    struct tensor weight = o->target.weights, part[OPTIM_PARTS];
    char *base = o->state + slice->offset;
    if (staged) TRY(optim_stage_in(&o->stage, &base, index));
    view_parts(part, o, slice, base);
    args->weight = &weight;
    args->grad = grads;
    args->master = unless_empty(&part[OPTIM_MASTER]);
    args->exp_avg = unless_empty(&part[OPTIM_EXP_AVG]);
    args->exp_avg_sq = unless_empty(&part[OPTIM_EXP_AVG_SQ]);
    args->exp_avg_codes = unless_empty(&part[OPTIM_EXP_AVG_CODES]);
    args->exp_avg_sq_codes = unless_empty(&part[OPTIM_EXP_AVG_SQ_CODES]);
    args->exp_avg_absmax = unless_empty(&part[OPTIM_EXP_AVG_ABSMAX]);
    args->exp_avg_sq_absmax = unless_empty(&part[OPTIM_EXP_AVG_SQ_ABSMAX]);
    args->segments = o->updates + slice->piece_first;
    args->segment_count = slice->piece_end - slice->piece_first;
    TRY(op_adamw_segments(o->target.dev, args));
    return staged ? optim_stage_out(&o->stage, index) : ERR_OK;
}

static err_t update_slices(struct optim *o, const struct tensor *grads, int64_t first, int64_t end,
                           struct adamw_segments_args *args)
{
    for (int64_t i = first; i < end; i++) TRY(update_slice(o, grads, i, args));
    return ERR_OK;
}

err_t optim_prefetch(struct optim *o)
{
    return o->plan.format.place == OPTIM_ON_HOST ? optim_stage_prefetch(&o->stage) : ERR_OK;
}

err_t optim_step(struct optim *o, const struct tensor *grads, double lr, double grad_scale,
                 int64_t update)
{
    struct adamw_segments_args args = update_args(o, lr, grad_scale, update);
    return update_slices(o, grads, 0, o->plan.slice_count, &args);
}

err_t optim_unit_step(struct optim *o, const struct tensor *grads, int64_t unit, double lr,
                      double grad_scale, int64_t update)
{
    struct adamw_segments_args args = update_args(o, lr, grad_scale, update);
    return update_slices(o, grads, o->plan.unit_slice[unit], o->plan.unit_slice[unit + 1], &args);
}

/* ---- looking at state ---- */

const struct optim_target *optim_target(const struct optim *o) { return &o->target; }
const struct optim_plan *optim_plan_of(const struct optim *o) { return &o->plan; }

/* A run of a row's state in memory. */
struct run_of_state {
    char *data;
    int64_t at, bytes; /* where it lies in the caller's values */
};

/* The slice of a piece. */
static const struct optim_slice *slice_of(const struct optim *o, int64_t piece)
{
    const struct optim_plan *p = &o->plan;
    int64_t i = p->unit_slice[o->target.params->row[p->piece[piece].row].unit];
    while (p->slice[i].piece_end <= piece) i++;
    return &p->slice[i];
}

/* What of elements first .. end-1 of `part` lies in one piece; bytes = 0: nothing. */
static struct run_of_state find_run(const struct optim *o, enum optim_part part, int64_t index,
                                    int64_t first, int64_t end)
{
    const struct optim_piece *piece = &o->plan.piece[index];
    const struct optim_slice *slice = slice_of(o, index);
    const int64_t unit = dtype_bytes(optim_part_dtype(&o->plan.format, part));
    const int64_t per = optim_part_per(part), begin = piece->first / per;
    const int64_t from = max_i64(first, begin);
    const int64_t to = min_i64(end, begin + div_ceil(piece->count, per));
    char *data = o->state + slice->offset + slice->part_offset[part];
    return (struct run_of_state){ data + (piece->offset / per + from - begin) * unit,
                                  (from - first) * unit, max_i64(to - from, 0) * unit };
}

static void check_state_range(const struct optim *o, enum optim_part part, int64_t row,
                              int64_t first, int64_t count)
{
    const int64_t all = optim_part_count(&o->plan.format, &o->target.params->row[row], part);
    ASSERT(first >= 0 && count >= 0);
    ASSERT(first + count <= all);
}

err_t optim_read_state(struct optim *o, void *out, enum optim_part part, int64_t row, int64_t first,
                       int64_t count)
{
    check_state_range(o, part, row, first, count);
    TRY(dev_sync(o->target.dev)); /* slices may be on their way */
    for (int64_t i = o->plan.row_piece[row]; i < o->plan.row_piece[row + 1]; i++) {
        const struct run_of_state run = find_run(o, part, i, first, first + count);
        if (run.bytes == 0) continue;
        if (o->plan.format.place == OPTIM_ON_HOST)
            memcpy((char *)out + run.at, run.data, (size_t)run.bytes);
        else
            TRY(dev_download(o->target.dev, (char *)out + run.at, run.data, run.bytes));
    }
    return ERR_OK;
}

err_t optim_write_state(struct optim *o, enum optim_part part, int64_t row, int64_t first,
                        const void *values, int64_t count)
{
    const char *from = values;
    check_state_range(o, part, row, first, count);
    if (o->plan.format.place == OPTIM_ON_HOST) TRY(optim_stage_empty(&o->stage));
    for (int64_t i = o->plan.row_piece[row]; i < o->plan.row_piece[row + 1]; i++) {
        const struct run_of_state run = find_run(o, part, i, first, first + count);
        if (run.bytes == 0) continue;
        if (o->plan.format.place == OPTIM_ON_HOST)
            memcpy(run.data, from + run.at, (size_t)run.bytes);
        else
            TRY(dev_upload(o->target.dev, run.data, from + run.at, run.bytes));
    }
    return ERR_OK;
}

static err_t put_master(void *context, int64_t index, int64_t first, const float *values,
                        int64_t count)
{
    return optim_write_state(context, OPTIM_MASTER, index, first, values, count);
}

struct glm_sink optim_master_sink(struct optim *o)
{
    return (struct glm_sink){ .put = o->plan.format.master ? put_master : NULL, .context = o };
}
