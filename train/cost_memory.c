/* Bytes of every class of memory. */
#include "train/cost.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/ops_optim.h"

/* What the libraries and the driver take; assumed until a GPU says otherwise. */
#define CUBLASLT_BYTES (INT64_C(32) << 20)  /* NVIDIA's advice for compute capability 9.0 */
#define CONTEXT_BYTES  (INT64_C(768) << 20) /* context, kernels, cuBLASLt's and cuDNN's modules */

#define STAGING_SLOTS 2 /* one unit is updated while the next one arrives */

void cost_settings_from_cfg(struct cost_settings *out, const struct cfg *cfg)
{
    const bool half = cfg_enum(cfg, "train.precision") == 1;
    *out = (struct cost_settings){
        .dtype = half ? DTYPE_BF16 : DTYPE_F32,
        .grad_dtype = cfg_enum(cfg, "train.grad_dtype") == 1 ? DTYPE_BF16 : DTYPE_F32,
        .master = half && cfg_enum(cfg, "train.master") == 0,
        .moments_8bit = cfg_enum(cfg, "train.moments") == 1,
        .moments_on_host = cfg_enum(cfg, "train.moments_place") == 1,
        .update_in_backward = cfg_enum(cfg, "train.update") == 1,
        .activations = (enum glm_activations)cfg_enum(cfg, "train.activations"),
        .lanes = cfg_int(cfg, "batch.lanes"),
    };
}

err_t cost_settings_check(const struct cost_settings *s, int capability)
{
    const bool half = s->dtype == DTYPE_BF16, gpu = capability > 0;
    const struct {
        bool wrong;
        const char *text;
    } rules[] = {
        { half && !gpu, "train.precision is bf16, which needs a GPU; a processor takes f32" },
        { !half && s->grad_dtype == DTYPE_BF16,
          "train.grad_dtype is bf16 and train.precision f32; set train.precision=bf16" },
        { s->moments_8bit && s->master,
          "train.moments is 8bit, which takes no master weights; set train.master=off" },
        { s->moments_on_host && !gpu,
          "train.moments_place is host, and the processor has no other memory; set it to device" },
        { s->update_in_backward && s->lanes > 1,
          "train.update is backward, which keeps no gradients to add up; set batch.lanes=1" },
    };
    for (int64_t i = 0; i < COUNT_OF(rules); i++)
        if (rules[i].wrong) RAISE(USAGE, "%s", rules[i].text);
    return ERR_OK;
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

/* Moments in bytes of `count` elements at the width of one row's states. Layers' matrices may have
 * one byte an element and a scale per block; embeddings, norms and biases keep float32. */
static int64_t moments_of_row(const struct glm_param *row, const struct cost_settings *s)
{
    const bool narrow = s->moments_8bit && row->layer >= 0 && row->dims == 2;
    if (!narrow) return row->count * 2 * dtype_bytes(dtype_accumulator(s->dtype));
    const int64_t blocks = div_ceil(row->count, ADAMW_BLOCK);
    return 2 * blocks * (ADAMW_BLOCK + (int64_t)sizeof(float));
}

/* Moments of all rows, and of the layer with the most of them. */
static void count_moments(int64_t *all, int64_t *layer, const struct glm_params *params,
                          const struct cost_settings *s)
{
    int64_t unit_bytes = 0, unit = -1;
    *all = *layer = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const struct glm_param *row = &params->row[i];
        const int64_t bytes = moments_of_row(row, s);
        *all += bytes;
        if (row->unit != unit) unit_bytes = 0;
        unit = row->unit;
        unit_bytes += bytes;
        if (row->layer >= 0) *layer = max_i64(*layer, unit_bytes);
    }
}

static int64_t norm_chunks(const struct glm_params *params)
{
    int64_t chunks = 0;
    for (int64_t i = 0; i < params->count; i++)
        chunks += div_ceil(params->row[i].count, SUMSQ_CHUNK);
    return chunks;
}

/* cuDNN's backward pass keeps dq in float32 and one sum per row and head, for one layer at a time;
 * contexts and targets go in two calls, so the second one's dk and dv need a place of their own. */
static int64_t cudnn_bytes(const struct glm_config *c, const struct cost_settings *s, int64_t rows)
{
    if (s->dtype != DTYPE_BF16) return 0;
    return rows * (c->hidden_size * (4 + 2 * dtype_bytes(s->dtype)) + c->head_count * 4);
}

/* Buffers that the lanes' gradients are folded in: see lanes.c. */
static int64_t lane_buffers(int64_t lanes)
{
    int64_t buffers = 0;
    for (; lanes > 0; lanes /= 2) buffers++;
    return buffers;
}

static void count_optimizer(struct cost_memory *m, const struct cost_settings *s,
                            const struct glm_params *params, const struct glm_layout *layout)
{
    int64_t layer = 0;
    count_moments(&m->moment_bytes, &layer, params, s);
    if (!s->moments_8bit) /* arenas of the layout, padding included */
        m->moment_bytes = layout->element_count * 2 * dtype_bytes(dtype_accumulator(s->dtype));

    m->bytes[COST_MASTER] = s->master ? layout->element_count * 4 : 0;
    m->bytes[COST_NORM_SUMS] = norm_chunks(params) * (int64_t)sizeof(double);
    if (s->moments_on_host) {
        m->host_bytes += m->moment_bytes;
        m->bytes[COST_STAGING] = STAGING_SLOTS * layer;
    } else {
        m->bytes[COST_MOMENTS] = m->moment_bytes;
    }
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
    m->bytes[COST_GRADIENTS] = lane_buffers(s->lanes) * plan.grad_bytes;
    m->host_bytes = plan.host_bytes;
    count_optimizer(m, s, params, &layout);
    if (dev->info.capability > 0) {
        m->bytes[COST_LIBRARIES] = CUBLASLT_BYTES + cudnn_bytes(config, s, bounds->rows);
        m->bytes[COST_CONTEXT] = CONTEXT_BYTES;
    }
    for (int i = 0; i < COST_CLASSES; i++) m->device_bytes += m->bytes[i];
    glm_layout_clear(&layout);
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
