/* The plan: one rule per buffer gives its shape and its number of copies; scratch is measured by a
 * dry pass. */
#include "model/glm_plan.h"

#include "base/num.h"
#include "model/glm_impl.h"

#define BUFFER_STEP 64 /* bytes */

/* A dtype: the model's own, its accumulator, or a fixed one. */
enum number { NUM_T, NUM_A, NUM_I32, NUM_F32, NUM_U8, NUM_COUNT };

enum extent {
    X_NONE,
    X_ONE,
    X_THREE,
    X_R,
    X_S,
    X_N,
    X_C,
    X_QKV,
    X_H,
    X_F,
    X_V,
    X_P,
    X_PAIRS,
    X_STORAGE,
    X_COUNT
};

/* How many copies a buffer has: one, one per layer, or one per norm (the layers' first norms and
 * the final one). What the backward pass reads is kept per layer; the modes differ in what they
 * compute again instead. */
enum copies {
    ONE,            /* always one */
    TRAINED,        /* one when training, else none */
    INPUTS,         /* per norm when training, else one: what everything can be made of again */
    NORMS,          /* the same, but one when a whole layer is recomputed */
    NORMS_KEPT,     /* the same, but one also when lean */
    LAYERS,         /* per layer when training, one when recomputed or not training */
    LAYERS_KEPT,    /* the same, but one also when lean */
    LAYERS_TRAINED, /* as LAYERS, but none when not training */
    COPIES_COUNT
};

struct rule {
    const char *name;
    enum glm_buffer_class klass;
    enum number number;
    enum extent rows, cols;
    enum copies copies;
};

static const struct rule rules[GLM_B_COUNT] = {
    [GLM_B_WEIGHTS] = { "weights", GLM_BUF_WEIGHTS, NUM_U8, X_STORAGE, X_NONE, ONE },
    [GLM_B_HIDDEN] = { "hidden", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_C, INPUTS },
    [GLM_B_MEAN1] = { "mean1", GLM_BUF_ACTIVATIONS, NUM_A, X_R, X_NONE, NORMS },
    [GLM_B_RSTD1] = { "rstd1", GLM_BUF_ACTIVATIONS, NUM_A, X_R, X_NONE, NORMS },
    [GLM_B_A] = { "a", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_C, NORMS_KEPT },
    [GLM_B_QKV] = { "qkv", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_QKV, LAYERS },
    [GLM_B_ATTN] = { "attn", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_C, LAYERS },
    [GLM_B_LSE] = { "lse", GLM_BUF_ACTIVATIONS, NUM_A, X_R, X_H, LAYERS },
    [GLM_B_H1] = { "h1", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_C, LAYERS },
    [GLM_B_MEAN2] = { "mean2", GLM_BUF_ACTIVATIONS, NUM_A, X_R, X_NONE, LAYERS },
    [GLM_B_RSTD2] = { "rstd2", GLM_BUF_ACTIVATIONS, NUM_A, X_R, X_NONE, LAYERS },
    [GLM_B_M] = { "m", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_C, LAYERS_KEPT },
    [GLM_B_U] = { "u", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_F, LAYERS_TRAINED },
    [GLM_B_G] = { "g", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_F, LAYERS_KEPT },
    [GLM_B_DH] = { "dh", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_C, TRAINED },
    [GLM_B_DY] = { "dy", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_C, TRAINED },
    [GLM_B_DQKV] = { "dqkv", GLM_BUF_ACTIVATIONS, NUM_T, X_R, X_QKV, TRAINED },
    [GLM_B_LOGITS] = { "logits", GLM_BUF_ACTIVATIONS, NUM_T, X_ONE, X_V, ONE },
    [GLM_B_IDS] = { "ids", GLM_BUF_BATCH, NUM_I32, X_R, X_NONE, ONE },
    [GLM_B_POS] = { "pos", GLM_BUF_BATCH, NUM_I32, X_R, X_NONE, ONE },
    [GLM_B_BLOCK] = { "block", GLM_BUF_BATCH, NUM_I32, X_R, X_NONE, ONE },
    [GLM_B_ORDER] = { "order", GLM_BUF_BATCH, NUM_I32, X_R, X_NONE, TRAINED },
    [GLM_B_SEGMENTS] = { "segments", GLM_BUF_BATCH, NUM_I32, X_S, X_THREE, ONE },
    [GLM_B_TARGET_ROWS] = { "target_rows", GLM_BUF_BATCH, NUM_I32, X_N, X_NONE, ONE },
    [GLM_B_LABELS] = { "labels", GLM_BUF_BATCH, NUM_I32, X_N, X_NONE, ONE },
    [GLM_B_LOSS_WEIGHTS] = { "loss_weights", GLM_BUF_BATCH, NUM_F32, X_N, X_NONE, ONE },
    [GLM_B_NLL] = { "nll", GLM_BUF_BATCH, NUM_A, X_N, X_NONE, ONE },
    [GLM_B_COS] = { "cos", GLM_BUF_TABLES, NUM_A, X_P, X_PAIRS, ONE },
    [GLM_B_SIN] = { "sin", GLM_BUF_TABLES, NUM_A, X_P, X_PAIRS, ONE },
    [GLM_B_SCRATCH] = { "scratch", GLM_BUF_SCRATCH, NUM_U8, X_ONE, X_NONE, ONE },
};

static err_t check_matrices(const struct glm_options *o)
{
    const dtype_t W = o->weight_dtype;
    if (W == DTYPE_F32 || W == o->dtype) return ERR_OK;
    if ((W != DTYPE_F16 && W != DTYPE_BF16) || o->dtype != DTYPE_F32)
        RAISE(DTYPE, "matrices in %s for a model that computes in %s; with f32 go f32, f16, bf16",
              dtype_name(W), dtype_name(o->dtype));
    if (o->train)
        RAISE(DTYPE, "matrices in %s can be read but not trained; use f32", dtype_name(W));
    return ERR_OK;
}

static err_t check_options(const struct glm_options *o)
{
    if (o->dtype != DTYPE_F32 && o->dtype != DTYPE_BF16 && o->dtype != DTYPE_F64)
        RAISE(DTYPE, "a model computes in f32 or bf16 (or f64 in tests); found %s",
              dtype_name(o->dtype));
    TRY(check_matrices(o));
    if (o->grad_dtype != DTYPE_F32 && o->grad_dtype != o->dtype)
        RAISE(DTYPE, "gradients in %s of a model in %s; with bf16 go f32 and bf16",
              dtype_name(o->grad_dtype), dtype_name(o->dtype));
    if (o->rows_max < 1 || o->segments_max < 1 || o->targets_max < 1 || o->ranks < 1)
        RAISE(ARG,
              "model options must be positive: rows_max %lld, segments_max %lld, "
              "targets_max %lld, ranks %lld",
              (long long)o->rows_max, (long long)o->segments_max, (long long)o->targets_max,
              (long long)o->ranks);
    /* Rows, segments and positions are int32 on the device. */
    if (o->rows_max > INT32_MAX)
        RAISE(ARG, "rows_max %lld; at most %d", (long long)o->rows_max, INT32_MAX);
    return ERR_OK;
}

static void fill_extents(int64_t extent[X_COUNT], const struct glm_config *c,
                         const struct glm_options *o, const struct glm_storage *storage)
{
    extent[X_NONE] = 0;
    extent[X_ONE] = 1;
    extent[X_THREE] = 3;
    extent[X_R] = o->rows_max;
    extent[X_S] = o->segments_max;
    extent[X_N] = o->targets_max;
    extent[X_C] = c->hidden_size;
    extent[X_QKV] = 3 * c->hidden_size;
    extent[X_H] = c->head_count;
    extent[X_F] = c->ffn_size;
    extent[X_V] = c->vocab_size;
    extent[X_P] = max_i64(c->position_max, o->rows_max);
    extent[X_PAIRS] = c->hidden_size / c->head_count / 4;
    extent[X_STORAGE] = storage->bytes + o->weight_extra * dtype_bytes(o->dtype);
}

static int64_t copy_count(enum copies copies, const struct glm_config *c,
                          const struct glm_options *o)
{
    const int64_t L = c->layer_count;
    const bool lean = o->train && o->activations != GLM_RECOMPUTE;
    const bool keep = o->train && o->activations == GLM_KEEP_ALL;
    const int64_t trained = o->train ? 1 : 0;
    const int64_t count[COPIES_COUNT] = {
        [ONE] = 1,
        [TRAINED] = trained,
        [INPUTS] = o->train ? L + 1 : 1,
        [NORMS] = lean ? L + 1 : 1,
        [NORMS_KEPT] = keep ? L + 1 : 1,
        [LAYERS] = lean ? L : 1,
        [LAYERS_KEPT] = keep ? L : 1,
        [LAYERS_TRAINED] = lean ? L : trained,
    };
    return count[copies];
}

/* Size buffer `id` and put it at the end of its class. */
static err_t place_buffer(struct glm_plan *plan, enum glm_buffer_id id, int64_t rows, int64_t cols,
                          dtype_t dtype, int64_t copies)
{
    const struct rule *rule = &rules[id];
    int64_t *class_bytes = &plan->class_bytes[rule->klass];
    int64_t bytes = 0, all = 0;
    if (!checked_mul(&bytes, rows, max_i64(cols, 1)) ||
        !checked_mul(&bytes, bytes, dtype_bytes(dtype)) || bytes > INT64_MAX - BUFFER_STEP)
        RAISE(ARG, "buffer %s: %lld x %lld of %s overflow", rule->name, (long long)rows,
              (long long)cols, dtype_name(dtype));
    bytes = align_up(bytes, BUFFER_STEP);

    plan->buffer[id] = (struct glm_buffer){ rule->name, rule->klass, dtype,  rows,
                                            cols,       bytes,       copies, *class_bytes };
    if (!checked_mul(&all, bytes, copies) || !checked_add(class_bytes, *class_bytes, all) ||
        !checked_add(&plan->bytes, plan->bytes, all))
        RAISE(ARG, "buffer %s: %lld copies of %lld bytes overflow", rule->name, (long long)copies,
              (long long)bytes);
    return ERR_OK;
}

/* Everything but scratch, which depends on the shapes of all the rest. */
static err_t place_buffers(struct glm_plan *plan, const struct glm_config *c,
                           const struct glm_options *o, const struct glm_storage *storage)
{
    const dtype_t number[NUM_COUNT] = {
        [NUM_T] = o->dtype,    [NUM_A] = dtype_accumulator(o->dtype),
        [NUM_I32] = DTYPE_I32, [NUM_F32] = DTYPE_F32,
        [NUM_U8] = DTYPE_U8,
    };
    int64_t extent[X_COUNT];
    fill_extents(extent, c, o, storage);
    for (int id = 0; id < GLM_B_SCRATCH; id++) {
        const struct rule *rule = &rules[id];
        TRY(place_buffer(plan, (enum glm_buffer_id)id, extent[rule->rows], extent[rule->cols],
                         number[rule->number], copy_count(rule->copies, c, o)));
    }
    return ERR_OK;
}

/* What goes with the model and is not the model's device memory. */
static err_t plan_outside(struct glm_plan *plan, const struct glm *sketch)
{
    const struct glm_options *o = &sketch->options;
    plan->host_bytes = o->train ? GLM_TICKETS * plan->class_bytes[GLM_BUF_BATCH] : 0;
    plan->grad_elements = o->train ? glm_grad_layout(sketch)->element_count : 0;
    if (!checked_mul(&plan->grad_bytes, plan->grad_elements, dtype_bytes(glm_grad_dtype(sketch))))
        RAISE(ARG, "the gradients' %lld elements overflow", (long long)plan->grad_elements);
    return ERR_OK;
}

err_t glm_plan_create(struct glm_plan *out, struct dev *dev, const struct glm_config *config,
                      const struct glm_options *options)
{
    err_t rc = ERR_OK;
    int64_t scratch_bytes = 0;
    struct glm sketch = { .dev = dev, .config = *config, .options = *options };
    struct glm_plan *plan = &sketch.plan;
    const double C = (double)config->hidden_size, F = (double)config->ffn_size;

    TRY(check_options(options));
    TRY_DONE(glm_place_weights(&sketch));
    TRY_DONE(place_buffers(plan, config, options, &sketch.storage));
    TRY_DONE(glm_measure_scratch(&scratch_bytes, &sketch));
    TRY_DONE(place_buffer(plan, GLM_B_SCRATCH, scratch_bytes, 0, DTYPE_U8, 1));
    TRY_DONE(plan_outside(plan, &sketch));
    plan->forward_flop_per_row = 2.0 * (4.0 * C * C + 2.0 * C * F) * (double)config->layer_count;
    *out = *plan;
done:
    glm_forget_weights(&sketch);
    return rc;
}

const char *glm_buffer_class_name(enum glm_buffer_class klass)
{
    static const char *const names[GLM_BUF_CLASSES] = {
        [GLM_BUF_WEIGHTS] = "weights", [GLM_BUF_ACTIVATIONS] = "activations",
        [GLM_BUF_BATCH] = "batch",     [GLM_BUF_SCRATCH] = "scratch",
        [GLM_BUF_TABLES] = "tables",
    };
    ASSERT((int)klass >= 0 && klass < GLM_BUF_CLASSES);
    return names[klass];
}
