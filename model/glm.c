/* Life cycle: plan, allocate, tables, initial weights. */
#include "model/glm.h"

#include "base/num.h"
#include "base/stop.h"
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
    glm->losses = calloc((size_t)glm->options.targets_max, sizeof(double)); /* the widest dtype */
    if (glm->losses == NULL)
        RAISE(NOMEM, "losses on the host: no memory for %lld", (long long)glm->options.targets_max);
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

/* Rows of a whole tile of a matrix product on tensor cores. */
#define GPU_TILE_ROWS 128

int64_t glm_vocab_multiple(int capability) { return capability > 0 ? GPU_TILE_ROWS : 1; }

err_t glm_place_weights(struct glm *glm)
{
    const struct glm_options *o = &glm->options;
    const dtype_t matrix = o->weight_dtype == DTYPE_F32 ? o->dtype : o->weight_dtype;
    const int64_t multiple =
        o->vocab_multiple != 0 ? o->vocab_multiple : glm_vocab_multiple(glm->dev->info.capability);
    TRY(glm_params_create(&glm->params, &glm->config));
    TRY(glm_layout_create(&glm->layout, &glm->params, o->ranks, multiple));
    glm->vocab_rows = align_up(glm->config.vocab_size, multiple);
    if (o->grad_keep == GLM_GRADS_RELEASED || o->weights_fetched)
        TRY(glm_layout_create_shared(&glm->shared_layout, &glm->params, &glm->layout));
    return glm_storage_create(&glm->storage, &glm->params, glm_weight_layout(glm), matrix,
                              o->dtype);
}

void glm_forget_weights(struct glm *glm)
{
    glm_storage_clear(&glm->storage);
    glm_layout_clear(&glm->shared_layout);
    glm_layout_clear(&glm->layout);
    glm_params_clear(&glm->params);
}

/* Rather here than at the first operator, when all weights have been read. */
static err_t check_device(const struct dev *dev, dtype_t dtype)
{
    if (dtype == DTYPE_BF16 && dev->ops == &ops_cpu)
        RAISE(UNSUPPORTED, "a model in bf16: the cpu backend computes in f32");
    return ERR_OK;
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
    TRY_DONE(check_device(dev, options->dtype));
    TRY_DONE(glm_plan_create(&glm->plan, dev, config, options));
    TRY_DONE(glm_place_weights(glm));
    TRY_DONE(allocate(glm));
    TRY_DONE(make_rotary(glm));
    if (options->train) TRY_DONE(glm_tickets_open(glm));
    *out = glm;
done:
    if (rc != ERR_OK) glm_close(glm);
    return rc;
}

void glm_close(struct glm *glm)
{
    if (glm == NULL) return;
    glm_tickets_close(glm);
    free(glm->losses);
    for (int klass = GLM_BUF_CLASSES - 1; klass >= 0; klass--)
        dev_free(glm->dev, glm->memory[klass]);
    glm_forget_weights(glm);
    free(glm);
}

/* Elements first .. of one parameter, given as float32, to where they lie. */
static err_t put_chunk(struct glm *glm, int64_t index, int64_t first, const float *values,
                       void *space, int64_t count)
{
    const struct tensor t = glm_weight(glm, index);
    if (t.dtype == DTYPE_F64) {
        double *wide = space;
        for (int64_t i = 0; i < count; i++) wide[i] = (double)values[i];
    } else {
        const int64_t out_of_range = weight_round(space, t.dtype, values, count);
        ASSERT(out_of_range < 0);
    }
    return glm_put(glm, index, first, space, count);
}

err_t glm_put(struct glm *glm, int64_t index, int64_t first, const void *values, int64_t count)
{
    const struct tensor t = glm_weight(glm, index);
    const int64_t size = dtype_bytes(t.dtype);
    if (glm->options.weights_fetched)
        return glm->fetch.put(glm->fetch.context, index, first, values, count);
    return dev_upload(glm->dev, (char *)t.data + first * size, values, count * size);
}

void glm_set_fetch(struct glm *glm, const struct glm_fetch *fetch)
{
    ASSERT(glm->options.weights_fetched);
    glm->fetch = *fetch;
}

err_t glm_init(struct glm *glm, uint64_t seed)
{
    return glm_init_exact(glm, seed, &(struct glm_sink){ 0 });
}

err_t glm_init_exact(struct glm *glm, uint64_t seed, const struct glm_sink *sink)
{
    err_t rc = ERR_OK;
    float *values = malloc(INIT_CHUNK * sizeof *values);
    void *space = malloc(INIT_CHUNK * sizeof(double)); /* the widest dtype */
    if (values == NULL || space == NULL) RAISE_DONE(NOMEM, "initial weights: host chunk");
    for (int64_t i = 0; i < glm->params.count; i++) {
        const int64_t total = glm->params.row[i].count;
        for (int64_t first = 0; first < total; first += INIT_CHUNK) {
            const int64_t count = min_i64(INIT_CHUNK, total - first);
            if (sink->stops && stop_requested())
                RAISE_DONE(INTERRUPTED, "stopped while random weights were made");
            glm_param_init(values, &glm->params, &glm->config, i, seed, first, count);
            if (sink->put != NULL) TRY_DONE(sink->put(sink->context, i, first, values, count));
            TRY_DONE(put_chunk(glm, i, first, values, space, count));
        }
    }
    TRY_DONE(dev_sync(glm->dev));
done:
    free(values);
    free(space);
    return rc;
}

const struct glm_config *glm_config(const struct glm *glm) { return &glm->config; }
const struct glm_params *glm_params(const struct glm *glm) { return &glm->params; }
const struct glm_layout *glm_layout(const struct glm *glm) { return &glm->layout; }
struct dev *glm_dev(const struct glm *glm) { return glm->dev; }

const struct glm_layout *glm_weight_layout(const struct glm *glm)
{
    return glm->options.weights_fetched ? &glm->shared_layout : &glm->layout;
}

const struct glm_layout *glm_grad_layout(const struct glm *glm)
{
    return glm->options.grad_keep == GLM_GRADS_RELEASED ? &glm->shared_layout : &glm->layout;
}

dtype_t glm_grad_dtype(const struct glm *glm)
{
    return glm->options.grad_dtype != DTYPE_F32 ? glm->options.grad_dtype
                                                : dtype_accumulator(glm->options.dtype);
}

struct tensor glm_weights(const struct glm *glm)
{
    ASSERT(glm->storage.matrix == glm->storage.vector);
    return tensor_1d(glm->memory[GLM_BUF_WEIGHTS], glm->options.dtype,
                     glm_weight_layout(glm)->element_count + glm->options.weight_extra, "weights");
}

struct tensor glm_weight(const struct glm *glm, int64_t index)
{
    return glm_storage_tensor(&glm->params, &glm->storage, index, glm->memory[GLM_BUF_WEIGHTS]);
}
