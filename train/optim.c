#include "train/optim.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/ops_optim.h"

#include <math.h>
#include <stdlib.h>

struct optim {
    struct glm *glm;
    struct optim_options options;
    struct tensor exp_avg, exp_avg_sq; /* flat, on the device */
    struct tensor chunk_sums;          /* [chunks] f64, on the device */
    double *chunk_sums_host;
    struct adamw_segment *updates; /* [rows of the table] */
    struct sumsq_segment *norms;   /* [rows of the table] */
    int64_t row_count;
};

struct optim_options optim_options_from_cfg(const struct cfg *cfg)
{
    return (struct optim_options){
        .beta1 = cfg_float(cfg, "train.beta1"),
        .beta2 = cfg_float(cfg, "train.beta2"),
        .eps = cfg_float(cfg, "train.adam_eps"),
        .weight_decay = cfg_float(cfg, "train.weight_decay"),
        .max_grad_norm = cfg_float(cfg, "train.max_grad_norm"),
    };
}

static err_t alloc_flat(struct tensor *out, struct dev *dev, dtype_t dtype, int64_t count,
                        const char *name)
{
    void *data;
    TRY(dev_alloc(dev, &data, count * dtype_bytes(dtype), name));
    *out = tensor_1d(data, dtype, count, name);
    return ERR_OK;
}

/* One segment per row of the table: where it lies, whether it decays, where its chunk sums go.
 * Returns the number of chunks. */
static int64_t deal_segments(struct optim *o)
{
    const struct glm_params *params = glm_params(o->glm);
    const struct glm_layout *layout = glm_layout(o->glm);
    int64_t chunk = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const int64_t offset = layout->offset[i], count = params->row[i].count;
        o->updates[i] = (struct adamw_segment){ .weight_offset = offset,
                                                .grad_offset = offset,
                                                .state_offset = offset,
                                                .count = count,
                                                .decay = params->row[i].decay,
                                                .tensor = (uint32_t)i };
        o->norms[i] = (struct sumsq_segment){ offset, count, chunk };
        chunk += div_ceil(count, SUMSQ_CHUNK);
    }
    return chunk;
}

static err_t create(struct optim *o)
{
    struct dev *dev = glm_dev(o->glm);
    const int64_t elements = glm_layout(o->glm)->element_count;
    const dtype_t dtype = dtype_accumulator(glm_weights(o->glm).dtype);

    o->updates = calloc((size_t)o->row_count, sizeof *o->updates);
    o->norms = calloc((size_t)o->row_count, sizeof *o->norms);
    if (o->updates == NULL || o->norms == NULL)
        RAISE(NOMEM, "optimizer: no memory for %lld segments", (long long)o->row_count);
    const int64_t chunks = deal_segments(o);
    o->chunk_sums_host = calloc((size_t)chunks, sizeof *o->chunk_sums_host);
    if (o->chunk_sums_host == NULL)
        RAISE(NOMEM, "optimizer: no memory for %lld chunk sums", (long long)chunks);
    TRY(alloc_flat(&o->exp_avg, dev, dtype, elements, "exp_avg"));
    TRY(alloc_flat(&o->exp_avg_sq, dev, dtype, elements, "exp_avg_sq"));
    TRY(alloc_flat(&o->chunk_sums, dev, DTYPE_F64, chunks, "chunk sums"));
    return ERR_OK;
}

err_t optim_create(struct optim **out, struct glm *glm, const struct optim_options *options)
{
    struct optim *o = calloc(1, sizeof *o);
    *out = NULL;
    if (o == NULL) RAISE(NOMEM, "optimizer: no memory for %zu bytes", sizeof *o);
    o->glm = glm;
    o->options = *options;
    o->row_count = glm_params(glm)->count;
    const err_t rc = create(o);
    if (rc != ERR_OK) {
        optim_close(o);
        return rc;
    }
    *out = o;
    return ERR_OK;
}

void optim_close(struct optim *o)
{
    if (o == NULL) return;
    struct dev *dev = glm_dev(o->glm);
    dev_free(dev, o->exp_avg.data);
    dev_free(dev, o->exp_avg_sq.data);
    dev_free(dev, o->chunk_sums.data);
    free(o->chunk_sums_host);
    free(o->updates);
    free(o->norms);
    free(o);
}

err_t optim_grad_norm(struct optim *o, double *norm, const struct tensor *grads)
{
    struct dev *dev = glm_dev(o->glm);
    const int64_t chunks = o->chunk_sums.dim[0];
    const struct sumsq_chunks_args args = {
        .out = &o->chunk_sums, .x = grads, .segments = o->norms, .segment_count = o->row_count
    };
    TRY(op_sumsq_chunks(dev, &args));
    TRY(dev_download(dev, o->chunk_sums_host, o->chunk_sums.data,
                     chunks * (int64_t)sizeof(double)));
    TRY(dev_sync(dev));
    double sum = 0.0;
    for (int64_t i = 0; i < chunks; i++) sum += o->chunk_sums_host[i];
    *norm = sqrt(sum);
    return ERR_OK;
}

double optim_clip_scale(const struct optim *o, double norm)
{
    if (o->options.max_grad_norm <= 0.0) return 1.0;
    return fmin(1.0, o->options.max_grad_norm / (norm + 1e-6));
}

err_t optim_step(struct optim *o, const struct tensor *grads, double lr, double grad_scale,
                 int64_t update)
{
    struct tensor weight = glm_weights(o->glm);
    const struct adamw_segments_args args = {
        .weight = &weight,
        .exp_avg = &o->exp_avg,
        .exp_avg_sq = &o->exp_avg_sq,
        .grad = grads,
        .segments = o->updates,
        .segment_count = o->row_count,
        .lr = lr,
        .beta1 = o->options.beta1,
        .beta2 = o->options.beta2,
        .eps = o->options.eps,
        .weight_decay = o->options.weight_decay,
        .grad_scale = grad_scale,
        .update = update,
    };
    ASSERT(update >= 1);
    return op_adamw_segments(glm_dev(o->glm), &args);
}

struct tensor optim_exp_avg(const struct optim *o) { return o->exp_avg; }
struct tensor optim_exp_avg_sq(const struct optim *o) { return o->exp_avg_sq; }
