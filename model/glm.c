/* Life cycle: plan, allocate, tables, initial weights. */
#include "model/glm.h"

#include "base/num.h"
#include "model/glm_impl.h"
#include "model/glm_rotary.h"

#include <stdlib.h>
#include <string.h>

#define INIT_CHUNK 65536 /* elements made on the host at a time */

/* One allocation per class of buffers. */
static err_t allocate(struct glm *glm)
{
    for (int klass = 0; klass < GLM_BUF_CLASSES; klass++) {
        const int64_t bytes = glm->plan.class_bytes[klass];
        if (bytes > 0)
            TRY(dev_alloc(glm->dev, &glm->memory[klass], bytes,
                          glm_buffer_class_name((enum glm_buffer_class)klass)));
    }
    /* The largest of what is looked at on the host: a row of logits, a hidden state, the losses. */
    const int64_t count =
        max_i64(glm->options.targets_max, max_i64(glm->config.vocab_size, glm->config.hidden_size));
    glm->staging = calloc((size_t)count, sizeof(double));
    if (glm->staging == NULL) RAISE(NOMEM, "host staging: %lld bytes wanted", (long long)count * 8);
    return ERR_OK;
}

static err_t upload_table(struct glm *glm, enum glm_buffer_id id, const float *values)
{
    const struct tensor t = glm_view(glm, id, 0, glm->plan.buffer[id].rows);
    const int64_t count = tensor_count(&t);
    if (t.dtype == DTYPE_F32) return dev_upload(glm->dev, t.data, values, count * 4);

    ASSERT(t.dtype == DTYPE_F64);
    double *wide = malloc((size_t)count * sizeof *wide);
    if (wide == NULL) RAISE(NOMEM, "rotary table: %lld values", (long long)count);
    for (int64_t i = 0; i < count; i++) wide[i] = (double)values[i];
    const err_t rc = dev_upload(glm->dev, t.data, wide, count * 8);
    free(wide);
    return rc;
}

static err_t make_rotary(struct glm *glm)
{
    err_t rc = ERR_OK;
    const struct glm_config *c = &glm->config;
    const struct glm_buffer *b = &glm->plan.buffer[GLM_B_COS];
    const int64_t count = b->rows * b->cols;
    float *cosine = malloc((size_t)count * sizeof *cosine);
    float *sine = malloc((size_t)count * sizeof *sine);
    if (cosine == NULL || sine == NULL)
        RAISE_DONE(NOMEM, "rotary table: %lld values", (long long)count);
    glm_rotary_table(cosine, sine, c->rotary, b->rows, c->hidden_size / c->head_count);
    TRY_DONE(upload_table(glm, GLM_B_COS, cosine));
    TRY_DONE(upload_table(glm, GLM_B_SIN, sine));
    TRY_DONE(dev_sync(glm->dev));
done:
    free(cosine);
    free(sine);
    return rc;
}

err_t glm_create(struct glm **out, struct dev *dev, const struct glm_config *config,
                 const struct glm_options *options)
{
    err_t rc = ERR_OK;
    *out = NULL;
    struct glm *glm = calloc(1, sizeof *glm);
    if (glm == NULL) RAISE(NOMEM, "model: %zu bytes wanted", sizeof *glm);
    glm->dev = dev;
    glm->config = *config;
    glm->options = *options;
    TRY_DONE(glm_plan_create(&glm->plan, dev, config, options));
    TRY_DONE(glm_params_create(&glm->params, config));
    TRY_DONE(glm_layout_create(&glm->layout, &glm->params, options->ranks));
    TRY_DONE(allocate(glm));
    TRY_DONE(make_rotary(glm));
    *out = glm;
done:
    if (rc != ERR_OK) glm_close(glm);
    return rc;
}

void glm_close(struct glm *glm)
{
    if (glm == NULL) return;
    free(glm->staging);
    for (int klass = GLM_BUF_CLASSES - 1; klass >= 0; klass--)
        dev_free(glm->dev, glm->memory[klass]);
    glm_layout_clear(&glm->layout);
    glm_params_clear(&glm->params);
    free(glm);
}

/* Elements first .. of one parameter, given as float32, into the arena. */
static err_t put_chunk(struct glm *glm, int64_t index, int64_t first, const float *values,
                       double *wide, int64_t count)
{
    const dtype_t T = glm->options.dtype;
    char *to =
        (char *)glm->memory[GLM_BUF_WEIGHTS] + (glm->layout.offset[index] + first) * dtype_bytes(T);
    if (T == DTYPE_F32) return dev_upload(glm->dev, to, values, count * 4);
    ASSERT(T == DTYPE_F64);
    for (int64_t i = 0; i < count; i++) wide[i] = (double)values[i];
    return dev_upload(glm->dev, to, wide, count * 8);
}

err_t glm_init(struct glm *glm, uint64_t seed)
{
    err_t rc = ERR_OK;
    float *values = malloc(INIT_CHUNK * sizeof *values);
    double *wide = malloc(INIT_CHUNK * sizeof *wide);
    if (values == NULL || wide == NULL) RAISE_DONE(NOMEM, "initial weights: host chunk");
    for (int64_t i = 0; i < glm->params.count; i++) {
        const int64_t total = glm->params.row[i].count;
        for (int64_t first = 0; first < total; first += INIT_CHUNK) {
            const int64_t count = min_i64(INIT_CHUNK, total - first);
            glm_param_init(values, &glm->params, &glm->config, i, seed, first, count);
            TRY_DONE(put_chunk(glm, i, first, values, wide, count));
            TRY_DONE(dev_sync(glm->dev)); /* before the host chunk is used again */
        }
    }
    glm->rows_ready = 0;
done:
    free(values);
    free(wide);
    return rc;
}

const struct glm_config *glm_config(const struct glm *glm) { return &glm->config; }
const struct glm_params *glm_params(const struct glm *glm) { return &glm->params; }
const struct glm_layout *glm_layout(const struct glm *glm) { return &glm->layout; }
struct dev *glm_dev(const struct glm *glm) { return glm->dev; }

struct tensor glm_weights(const struct glm *glm)
{
    return tensor_1d(glm->memory[GLM_BUF_WEIGHTS], glm->options.dtype, glm->layout.element_count,
                     "weights");
}
