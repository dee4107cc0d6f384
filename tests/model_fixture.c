#include "model_fixture.h"

#include "base/num.h"
#include "base/rng.h"
#include "ref_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct glm_config tiny_config(bool tied)
{
    return (struct glm_config){
        .family = GLM_CHATGLM,
        .vocab_size = 53,
        .hidden_size = 24,
        .layer_count = 2,
        .head_count = 3,
        .kv_head_count = 3,
        .ffn_size = 40,
        .position_max = 64,
        .norm_eps = 1e-5,
        .residual_alpha = sqrt(56.0),
        .tied = tied,
        .rotary = GLM_ROTARY_FP32_ANGLE,
        .pad_id = 3,
        .mask_id = 48,
        .gmask_id = 49,
        .bos_id = 50,
        .eos_id = 51,
    };
}

struct glm_options tiny_options(int64_t rows)
{
    return (struct glm_options){
        .train = true,
        .activations = GLM_KEEP_ALL,
        .rows_max = rows,
        .segments_max = rows,
        .targets_max = rows,
        .ranks = 1,
    };
}

static const struct {
    const char *name, *opens; /* by dev_open; NULL: of `ops` */
    dtype_t dtype;
    const struct ops_table *ops;
} devices[] = {
    { "cpu", "cpu", DTYPE_F32, NULL },    { "ref", NULL, DTYPE_F64, &ops_ref },
    { "emu", "emu", DTYPE_F32, NULL },    { "ref16", NULL, DTYPE_BF16, &ops_ref_rounded },
    { "emu16", "emu", DTYPE_BF16, NULL },
};

/* By dev_open. */
static const char *opens(int64_t i)
{
    return strcmp(devices[i].opens, "emu") == 0 ? testing_gpu() : devices[i].opens;
}

static int64_t find_device(const char *name)
{
    for (int64_t i = 0; i < COUNT_OF(devices); i++)
        if (strcmp(devices[i].name, name) == 0) return i;
    fail_msg("no device %s", name);
    return -1;
}

dtype_t rig_dtype(const char *device) { return devices[find_device(device)].dtype; }

bool rig_has(const char *device)
{
    const int64_t i = find_device(device);
    struct dev *dev = NULL;
    if (devices[i].ops != NULL) return true;
    const err_t rc = dev_open(&dev, opens(i), 1);
    if (rc == ERR_UNSUPPORTED) {
        print_message("%s: not here: %s\n", device, err_last()->text);
        return false;
    }
    assert_ok(rc);
    const char *missing = NULL;
#define X(op)                                                                                      \
    if (dev->ops->op == NULL) missing = #op;
    OPS_LIST(X)
#undef X
    dev_close(dev);
    if (missing != NULL) print_message("%s: has no operator %s\n", device, missing);
    return missing == NULL;
}

void rig_open(struct rig *rig, const char *device, int threads, const struct glm_config *config,
              const struct glm_options *options)
{
    const int64_t i = find_device(device);
    struct glm_options o = *options;
    void *grads = NULL;
    *rig = (struct rig){ 0 };
    if (devices[i].ops != NULL) {
        dev_init_host(&rig->storage, devices[i].ops, threads);
        rig->dev = &rig->storage;
    } else {
        assert_ok(dev_open(&rig->dev, opens(i), threads));
    }
    o.dtype = devices[i].dtype;
    assert_ok(glm_create(&rig->glm, rig->dev, config, &o));
    const int64_t count = glm_grad_layout(rig->glm)->element_count;
    const dtype_t dtype = glm_grad_dtype(rig->glm);
    assert_ok(dev_alloc(rig->dev, &grads, count * dtype_bytes(dtype), "gradients"));
    rig->grads = tensor_1d(grads, dtype, count, "gradients");
}

void rig_close(struct rig *rig)
{
    dev_free(rig->dev, rig->grads.data);
    glm_close(rig->glm);
    if (rig->dev != &rig->storage) dev_close(rig->dev);
}

/* Element e of parameter i: norms near 1, everything else near 0 with a spread that keeps GELU
 * curved. */
static double random_weight(const struct glm_param *row, int64_t i, int64_t e, uint64_t seed)
{
    const double x = rng_normal(seed, (uint64_t)RNG_TEST | (uint64_t)i << 8, (uint64_t)e);
    const bool is_gamma = row->init == GLM_INIT_ONE;
    if (is_gamma) return 1.0 + 0.2 * x;
    return row->dims == 2 ? x / sqrt((double)row->dim[1]) : 0.3 * x;
}

void rig_randomize(struct rig *rig, uint64_t seed)
{
    const struct glm_params *p = glm_params(rig->glm);
    for (int64_t i = 0; i < p->count; i++) {
        const int64_t count = p->row[i].count;
        const struct tensor t = glm_weight(rig->glm, i);
        double *f64 = malloc((size_t)count * sizeof *f64);
        float *f32 = malloc((size_t)count * sizeof *f32);
        void *rounded = malloc((size_t)count * sizeof *f32);
        for (int64_t e = 0; e < count; e++) {
            /* The same values in f32 and f64. */
            f32[e] = (float)random_weight(&p->row[i], i, e, seed);
            f64[e] = (double)f32[e];
        }
        if (t.dtype != DTYPE_F64) assert_true(weight_round(rounded, t.dtype, f32, count) < 0);
        const void *from = t.dtype == DTYPE_F64 ? f64 : rounded;
        assert_ok(dev_upload(rig->dev, t.data, from, count * dtype_bytes(t.dtype)));
        free(f64);
        free(f32);
        free(rounded);
    }
}

void rig_zero_grads(struct rig *rig)
{
    const int64_t bytes = tensor_count(&rig->grads) * dtype_bytes(rig->grads.dtype);
    assert_ok(dev_zero(rig->dev, rig->grads.data, bytes));
}

static double element(const void *values, dtype_t dtype, int64_t i)
{
    double x = 0;
    float narrow = 0;
    uint16_t half = 0;
    if (dtype == DTYPE_F64) {
        memcpy(&x, (const char *)values + i * 8, 8);
        return x;
    }
    if (dtype == DTYPE_F32) {
        memcpy(&narrow, (const char *)values + i * 4, 4);
        return (double)narrow;
    }
    assert_true(dtype == DTYPE_F16 || dtype == DTYPE_BF16);
    memcpy(&half, (const char *)values + i * 2, 2);
    return (double)(dtype == DTYPE_F16 ? f16_to_f32(half) : bf16_to_f32(half));
}

double *rig_copy(const struct rig *rig, const struct tensor *arena)
{
    const int64_t count = tensor_count(arena);
    double *out = malloc((size_t)count * sizeof *out);
    assert_ok(dev_download(rig->dev, out, arena->data, count * dtype_bytes(arena->dtype)));
    for (int64_t i = count - 1; i >= 0; i--) /* backwards, so that nothing is overwritten unread */
        out[i] = element(out, arena->dtype, i);
    return out;
}

static double weighted_sum(const struct glm_batch *b, const double *nll)
{
    double sum = 0.0;
    for (int64_t i = 0; i < b->target_count; i++) sum += (double)b->weights[i] * nll[i];
    return sum;
}

double rig_eval(struct rig *rig, const struct glm_batch *batch)
{
    double *nll = calloc((size_t)batch->target_count + 1, sizeof *nll);
    assert_ok(glm_eval_micro(rig->glm, batch, nll));
    const double loss = weighted_sum(batch, nll);
    free(nll);
    return loss;
}

double rig_train(struct rig *rig, const struct glm_batch *batch)
{
    double *nll = calloc((size_t)batch->target_count + 1, sizeof *nll);
    assert_ok(glm_train_micro(rig->glm, batch, &(struct glm_grads){ .arena = rig->grads }, nll));
    const double loss = weighted_sum(batch, nll);
    free(nll);
    return loss;
}

/* Rows of one sample from row `at` on, as ChatGLM-6B numbers them. */
static void lay_sample(struct batch *b, const struct sample *s, int64_t at)
{
    const uint64_t stream = (uint64_t)RNG_TEST | (uint64_t)(1000 + s->id) << 8;
    for (int64_t i = 0; i < s->len; i++) {
        b->ids[at + i] = (int32_t)(rng_u64(7, stream, (uint64_t)i) % 48);
        b->pos[at + i] = (int32_t)(i < s->ctx ? i : s->ctx - 1);
        b->block[at + i] = (int32_t)(i < s->ctx ? 0 : i - s->ctx + 1);
    }
    for (int64_t i = s->ctx - 1; i + 1 < s->len; i++) {
        const int64_t n = b->glm.target_count++;
        b->target_rows[n] = (int32_t)(at + i);
        b->labels[n] = b->ids[at + i + 1];
        b->weights[n] = (float)(0.5 + rng_uniform(8, stream, (uint64_t)i));
    }
}

void batch_sort(struct batch *b)
{
    for (int64_t i = 0; i < b->glm.rows; i++) {
        int64_t at = i;
        while (at > 0 && b->ids[b->order[at - 1]] > b->ids[i]) {
            b->order[at] = b->order[at - 1];
            at--;
        }
        b->order[at] = (int32_t)i;
    }
}

void batch_make(struct batch *out, const struct sample *samples, int64_t count, int64_t padding)
{
    int64_t rows = padding, at = 0;
    for (int64_t s = 0; s < count; s++) rows += samples[s].len;
    *out = (struct batch){ 0 };
    int32_t **arrays[] = { &out->ids,   &out->pos,         &out->block,
                           &out->order, &out->target_rows, &out->labels };
    for (int64_t i = 0; i < COUNT_OF(arrays); i++)
        *arrays[i] = calloc((size_t)rows, sizeof **arrays[i]);
    out->weights = calloc((size_t)rows, sizeof *out->weights);
    out->segments = calloc((size_t)count + 1, sizeof *out->segments);

    for (int64_t s = 0; s < count; s++) {
        assert_true(samples[s].ctx >= 1 && samples[s].ctx < samples[s].len);
        lay_sample(out, &samples[s], at);
        out->segments[s] =
            (struct attn_segment){ (int32_t)at, (int32_t)samples[s].ctx, (int32_t)samples[s].len };
        at += samples[s].len;
    }
    for (; at < rows; at++) out->ids[at] = 3;
    out->glm.rows = rows;
    batch_sort(out);
    out->glm.ids = out->ids;
    out->glm.pos = out->pos;
    out->glm.block = out->block;
    out->glm.order = out->order;
    out->glm.segment_count = count;
    out->glm.segments = out->segments;
    out->glm.target_rows = out->target_rows;
    out->glm.labels = out->labels;
    out->glm.weights = out->weights;
}

void batch_clear(struct batch *b)
{
    free(b->ids);
    free(b->pos);
    free(b->block);
    free(b->order);
    free(b->target_rows);
    free(b->labels);
    free(b->weights);
    free(b->segments);
    *b = (struct batch){ 0 };
}

double largest_error(const double *a, const double *b, int64_t count)
{
    double error = 0.0, largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        error = fmax(error, fabs(a[i] - b[i]));
        largest = fmax(largest, fabs(b[i]));
        if (isnan(a[i]) || isnan(b[i])) return INFINITY;
    }
    return largest > 0.0 ? error / largest : error;
}
