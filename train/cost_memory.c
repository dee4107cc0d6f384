/* Bytes of every class of memory. */
#include "train/cost.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/cuda_sizes.h"
#include "train/formats.h"

#include <string.h>

/* What the libraries and the driver take; assumed until a GPU says otherwise. */
#define CONTEXT_BYTES (INT64_C(768) << 20) /* context, kernels, cuBLASLt's and cuDNN's modules */
#define NCCL_BYTES    (INT64_C(256) << 20) /* channels and their buffers */
#define NCCL_PEER     (INT64_C(4) << 20)   /* and towards each other rank */

err_t cost_settings_from_cfg(struct cost_settings *out, const struct cfg *cfg)
{
    struct train_formats f;
    TRY(formats_from_cfg(&f, cfg));
    *out = (struct cost_settings){
        .dtype = f.precision,
        .grad_dtype = f.grad_dtype,
        .master = f.state.master,
        .moments_8bit = f.state.moments == OPTIM_MOMENTS_8BIT,
        .state_on_host = f.state.place == OPTIM_ON_HOST,
        .update_in_backward = f.grad_keep == GLM_GRADS_RELEASED,
        .clip_by_previous = f.clip_by_previous,
        .activations = f.activations,
        .lanes = max_i64(cfg_int(cfg, "batch.lanes"), 1),
        .ranks = 1,
    };
    return ERR_OK;
}

const char *cost_activations_name(enum glm_activations activations)
{
    static const char *const names[] = {
        [GLM_KEEP_ALL] = "keep", [GLM_LEAN] = "lean", [GLM_RECOMPUTE] = "recompute"
    };
    ASSERT((int)activations >= 0 && activations < COUNT_OF(names));
    return names[activations];
}

static struct glm_options glm_options_of(const struct cost_settings *s,
                                         const struct batch_bounds *bounds)
{
    return (struct glm_options){
        .dtype = s->dtype,
        .grad_dtype = s->dtype == DTYPE_BF16 ? s->grad_dtype : DTYPE_F32,
        .grad_keep = s->update_in_backward ? GLM_GRADS_RELEASED : GLM_GRADS_ALL,
        .train = true,
        .activations = s->activations,
        .rows_max = bounds->rows,
        .segments_max = bounds->segments,
        .targets_max = bounds->targets,
        .ranks = 1,
    };
}

/* What cuDNN's backward attention wants beyond `scratch`, which it shares with the operators: a
 * bound, since it depends on lengths. It is used on compute capability 9.0 alone. */
static int64_t cudnn_bytes(const struct glm_config *c, const struct cost_settings *s, int64_t rows,
                           int capability, int64_t scratch)
{
    if (s->dtype != DTYPE_BF16 || capability != 90) return 0;
    const int64_t dkv = min_i64(rows, CUDNN_CONTEXT_ROWS_MAX) * 2 * c->hidden_size * 2;
    const int64_t sums = rows * c->head_count * (int64_t)sizeof(float);
    const int64_t bytes = CUDNN_WORKSPACE_BYTES + CUDNN_SCORE_BYTES_MAX + dkv + sums +
                          rows * CUDNN_BLOCK_BYTES_PER_ROW;
    return max_i64(bytes - scratch, 0);
}

/* What the stage is chosen by, and memory counted from: the same as in a run. */
struct need {
    struct glm_options options;
    struct optim_format state;
    struct zero_need zero;
};

static void need_of(struct need *n, const struct glm_config *config, const struct cost_settings *s,
                    const struct batch_bounds *bounds)
{
    n->options = glm_options_of(s, bounds);
    n->state = (struct optim_format){
        .weights = s->dtype,
        .master = s->master,
        .moments = s->moments_8bit ? OPTIM_MOMENTS_8BIT : OPTIM_MOMENTS_F32,
        .place = s->state_on_host ? OPTIM_ON_HOST : OPTIM_ON_DEVICE,
    };
    n->zero = (struct zero_need){ config, &n->options, &n->state, s->lanes };
}

static void fill(struct cost_memory *m, const struct cost_settings *s)
{
    const struct zero_memory *z = &m->zero;
    m->host_bytes = z->model.host_bytes + z->optim_host_bytes;
    m->bytes[COST_WEIGHTS] = z->model.class_bytes[GLM_BUF_WEIGHTS];
    m->bytes[COST_ACTIVATIONS] = z->model.class_bytes[GLM_BUF_ACTIVATIONS];
    m->bytes[COST_BATCH] = z->model.class_bytes[GLM_BUF_BATCH];
    m->bytes[COST_TABLES] = z->model.class_bytes[GLM_BUF_TABLES];
    m->bytes[COST_SCRATCH] = z->model.class_bytes[GLM_BUF_SCRATCH];
    m->bytes[COST_GRADIENTS] = z->grad_bytes;
    m->bytes[COST_STAGING] = z->staging_bytes;
    m->bytes[COST_NORM_SUMS] = z->sums_bytes;
    m->bytes[COST_EXCHANGE] = z->exchange_bytes;
    if (s->state_on_host) return;
    m->bytes[COST_MASTER] = z->master_bytes;
    m->bytes[COST_MOMENTS] = z->state_bytes - z->master_bytes; /* and what alignment adds */
}

/* With several ranks every one sends slices to every other. */
static int64_t nccl_bytes(int64_t ranks) { return ranks > 1 ? NCCL_BYTES + ranks * NCCL_PEER : 0; }

err_t cost_memory(struct cost_memory *out, struct dev *dev, const struct glm_config *config,
                  const struct cost_settings *s, const struct batch_bounds *bounds)
{
    struct need need;
    memset(out, 0, sizeof *out);
    need_of(&need, config, s, bounds);
    TRY(zero_memory(&out->zero, &need.zero, dev, s->zero, ZERO_WIDEST, s->ranks));
    fill(out, s);
    if (dev->info.capability > 0) {
        out->bytes[COST_LIBRARIES] =
            cudnn_bytes(config, s, bounds->rows, dev->info.capability, out->bytes[COST_SCRATCH]) +
            nccl_bytes(s->ranks);
        out->bytes[COST_CONTEXT] = CONTEXT_BYTES;
    }
    for (int i = 0; i < COST_CLASSES; i++) out->device_bytes += out->bytes[i];
    return ERR_OK;
}

err_t cost_lowest_zero(int *stage, struct dev *dev, const struct glm_config *config,
                       const struct cost_settings *s, const struct batch_bounds *bounds,
                       int64_t card_bytes)
{
    struct need need;
    need_of(&need, config, s, bounds);
    return zero_lowest(stage, &need.zero, dev, ZERO_WIDEST, s->ranks, card_bytes - CONTEXT_BYTES);
}

const char *cost_class_name(enum cost_class klass)
{
    static const char *const names[COST_CLASSES] = {
        [COST_WEIGHTS] = "weights",         [COST_GRADIENTS] = "gradients",
        [COST_MASTER] = "master",           [COST_MOMENTS] = "moments",
        [COST_ACTIVATIONS] = "activations", [COST_BATCH] = "batch",
        [COST_TABLES] = "tables",           [COST_SCRATCH] = "scratch",
        [COST_NORM_SUMS] = "norm_sums",     [COST_STAGING] = "staging",
        [COST_EXCHANGE] = "exchange",       [COST_LIBRARIES] = "libraries",
        [COST_CONTEXT] = "context",
    };
    ASSERT((int)klass >= 0 && klass < COST_CLASSES);
    return names[klass];
}
