/* Bytes of every class of memory. */
#include "train/cost.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/cuda_sizes.h"
#include "train/formats.h"
#include "train/optim_plan.h"

/* What the driver takes; assumed until a GPU says otherwise. */
#define CONTEXT_BYTES (INT64_C(768) << 20) /* context, kernels, cuBLASLt's and cuDNN's modules */

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

int64_t cost_lane_buffers(int64_t lanes)
{
    int64_t buffers = 0;
    for (; lanes > 0; lanes /= 2) buffers++;
    return buffers;
}

/* States, wherever they are, and the sums of the gradient's norm. */
static err_t count_optimizer(struct cost_memory *m, const struct cost_settings *s,
                             const struct glm_params *params)
{
    const struct optim_format format = {
        .weights = s->dtype,
        .master = s->master,
        .moments = s->moments_8bit ? OPTIM_MOMENTS_8BIT : OPTIM_MOMENTS_F32,
        .place = s->state_on_host ? OPTIM_ON_HOST : OPTIM_ON_DEVICE,
    };
    struct optim_plan plan;
    const err_t rc = optim_plan_create(&plan, params, &format);
    if (rc == ERR_OK) {
        m->state_bytes = plan.state_bytes;
        m->bytes[COST_STAGING] = 2 * plan.staging_bytes;
        m->bytes[COST_NORM_SUMS] = plan.chunk_count * (int64_t)sizeof(double);
        m->host_bytes += plan.bytes[OPTIM_ON_HOST];
        if (!s->state_on_host) { /* what alignment adds goes with the moments */
            m->bytes[COST_MASTER] = plan.part_bytes[OPTIM_MASTER];
            m->bytes[COST_MOMENTS] = plan.state_bytes - plan.part_bytes[OPTIM_MASTER];
        }
    }
    optim_plan_clear(&plan);
    return rc;
}

static err_t fill(struct cost_memory *m, struct dev *dev, const struct glm_config *config,
                  const struct cost_settings *s, const struct batch_bounds *bounds,
                  const struct glm_params *params)
{
    const struct glm_options options = glm_options_of(s, bounds);
    struct glm_plan plan;
    struct glm_layout layout;
    TRY(glm_plan_create(&plan, dev, config, &options));
    TRY(glm_layout_create(&layout, params, options.ranks,
                          glm_vocab_multiple(dev->info.capability)));
    m->parameters = params->element_count;
    m->elements = layout.element_count;
    m->forward_flop_per_row = plan.forward_flop_per_row;
    m->bytes[COST_WEIGHTS] = plan.class_bytes[GLM_BUF_WEIGHTS];
    m->bytes[COST_ACTIVATIONS] = plan.class_bytes[GLM_BUF_ACTIVATIONS];
    m->bytes[COST_BATCH] = plan.class_bytes[GLM_BUF_BATCH];
    m->bytes[COST_TABLES] = plan.class_bytes[GLM_BUF_TABLES];
    m->bytes[COST_SCRATCH] = plan.class_bytes[GLM_BUF_SCRATCH];
    m->bytes[COST_GRADIENTS] = cost_lane_buffers(s->lanes) * plan.grad_bytes;
    m->host_bytes = plan.host_bytes;
    glm_layout_clear(&layout);
    TRY(count_optimizer(m, s, params));
    if (dev->info.capability > 0) {
        m->bytes[COST_LIBRARIES] =
            cudnn_bytes(config, s, bounds->rows, dev->info.capability, m->bytes[COST_SCRATCH]);
        m->bytes[COST_CONTEXT] = CONTEXT_BYTES;
    }
    for (int i = 0; i < COST_CLASSES; i++) m->device_bytes += m->bytes[i];
    return ERR_OK;
}

err_t cost_memory(struct cost_memory *out, struct dev *dev, const struct glm_config *config,
                  const struct cost_settings *settings, const struct batch_bounds *bounds)
{
    struct glm_params params;
    *out = (struct cost_memory){ 0 };
    TRY(glm_params_create(&params, config));
    const err_t rc = fill(out, dev, config, settings, bounds, &params);
    glm_params_clear(&params);
    return rc;
}

const char *cost_class_name(enum cost_class klass)
{
    static const char *const names[COST_CLASSES] = {
        [COST_WEIGHTS] = "weights",         [COST_GRADIENTS] = "gradients",
        [COST_MASTER] = "master",           [COST_MOMENTS] = "moments",
        [COST_ACTIVATIONS] = "activations", [COST_BATCH] = "batch",
        [COST_TABLES] = "tables",           [COST_SCRATCH] = "scratch",
        [COST_NORM_SUMS] = "norm_sums",     [COST_STAGING] = "staging",
        [COST_LIBRARIES] = "libraries",     [COST_CONTEXT] = "context",
    };
    ASSERT((int)klass >= 0 && klass < COST_CLASSES);
    return names[klass];
}
