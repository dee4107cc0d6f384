/* The table of parameters is made from one rule per role; everything else is derived from it. */
#include "model/glm_params.h"

#include "base/digest.h"
#include "base/num.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INIT_PARALLEL 65536 /* elements from which threads are worth their start */
#define MATRIX_STD 0.02
/* (2*28)^-1/2 at any depth, as residual_alpha is sqrt(2*28) at any depth. */
#define BRANCH_SCALE 0.13363062095621219

#define TENSOR_STEP 32 /* elements; keeps every tensor 64-byte aligned in any float dtype */

/* An extent of a shape, by letter. */
enum extent { EXTENT_NONE, EXTENT_V, EXTENT_C, EXTENT_QKV, EXTENT_F, EXTENT_COUNT };

struct role_rule {
    const char *name; /* in files; after "transformer.layers.N." for tensors of a layer */
    enum extent rows, cols;
    enum glm_init init;
};

static const struct role_rule rules[GLM_ROLE_COUNT] = {
    [GLM_EMBED] = { "transformer.word_embeddings.weight", EXTENT_V, EXTENT_C, GLM_INIT_NORMAL },
    [GLM_LN1_GAMMA] = { "input_layernorm.weight", EXTENT_C, EXTENT_NONE, GLM_INIT_ONE },
    [GLM_LN1_BETA] = { "input_layernorm.bias", EXTENT_C, EXTENT_NONE, GLM_INIT_ZERO },
    [GLM_QKV_WEIGHT] = { "attention.query_key_value.weight", EXTENT_QKV, EXTENT_C, GLM_INIT_QKV },
    [GLM_QKV_BIAS] = { "attention.query_key_value.bias", EXTENT_QKV, EXTENT_NONE, GLM_INIT_ZERO },
    [GLM_DENSE_WEIGHT] = { "attention.dense.weight", EXTENT_C, EXTENT_C, GLM_INIT_RESIDUAL },
    [GLM_DENSE_BIAS] = { "attention.dense.bias", EXTENT_C, EXTENT_NONE, GLM_INIT_ZERO },
    [GLM_LN2_GAMMA] = { "post_attention_layernorm.weight", EXTENT_C, EXTENT_NONE, GLM_INIT_ONE },
    [GLM_LN2_BETA] = { "post_attention_layernorm.bias", EXTENT_C, EXTENT_NONE, GLM_INIT_ZERO },
    [GLM_FC1_WEIGHT] = { "mlp.dense_h_to_4h.weight", EXTENT_F, EXTENT_C, GLM_INIT_RESIDUAL },
    [GLM_FC1_BIAS] = { "mlp.dense_h_to_4h.bias", EXTENT_F, EXTENT_NONE, GLM_INIT_ZERO },
    [GLM_FC2_WEIGHT] = { "mlp.dense_4h_to_h.weight", EXTENT_C, EXTENT_F, GLM_INIT_RESIDUAL },
    [GLM_FC2_BIAS] = { "mlp.dense_4h_to_h.bias", EXTENT_C, EXTENT_NONE, GLM_INIT_ZERO },
    [GLM_FINAL_GAMMA] = { "transformer.final_layernorm.weight", EXTENT_C, EXTENT_NONE,
                          GLM_INIT_ONE },
    [GLM_FINAL_BETA] = { "transformer.final_layernorm.bias", EXTENT_C, EXTENT_NONE, GLM_INIT_ZERO },
    [GLM_HEAD] = { "lm_head.weight", EXTENT_V, EXTENT_C, GLM_INIT_OUTPUT },
};

#define LAYER_ROLES (GLM_FC2_BIAS - GLM_LN1_GAMMA + 1)

STATIC_ASSERT(GLM_EMBED == 0 && GLM_LN1_GAMMA == 1, "the embedding comes first, then the layers");
STATIC_ASSERT(GLM_FINAL_GAMMA == GLM_FC2_BIAS + 1 && GLM_HEAD == GLM_FINAL_GAMMA + 2,
              "the final norm follows the layers, the head comes last");

static err_t check_config(const struct glm_config *c)
{
    if (c->family != GLM_CHATGLM)
        RAISE(UNSUPPORTED, "ChatGLM2-6B and later families cannot be run yet; ChatGLM-6B can");
    if (c->vocab_size < 1 || c->hidden_size < 1 || c->layer_count < 1 || c->head_count < 1 ||
        c->ffn_size < 1 || c->position_max < 1)
        RAISE(ARG,
              "model sizes must be positive: vocab %lld, hidden %lld, layers %lld, heads %lld, "
              "ffn %lld, positions %lld",
              (long long)c->vocab_size, (long long)c->hidden_size, (long long)c->layer_count,
              (long long)c->head_count, (long long)c->ffn_size, (long long)c->position_max);
    if (c->hidden_size % c->head_count != 0 || (c->hidden_size / c->head_count) % 4 != 0)
        RAISE(ARG, "hidden size %lld over %lld heads: the head width must be a multiple of 4",
              (long long)c->hidden_size, (long long)c->head_count);
    if (c->kv_head_count != c->head_count)
        RAISE(ARG, "ChatGLM-6B has as many key/value heads as heads: %lld, found %lld",
              (long long)c->head_count, (long long)c->kv_head_count);
    return ERR_OK;
}

static err_t fill_row(struct glm_param *row, const int64_t extent[EXTENT_COUNT], enum glm_role role,
                      int64_t layer, int64_t unit)
{
    const struct role_rule *rule = &rules[role];
    *row = (struct glm_param){ .role = role, .layer = layer, .unit = unit, .init = rule->init };
    if (layer < 0) {
        snprintf(row->name, sizeof row->name, "%s", rule->name);
    } else {
        snprintf(row->name, sizeof row->name, "transformer.layers.%lld.%s", (long long)layer,
                 rule->name);
    }
    row->dims = rule->cols == EXTENT_NONE ? 1 : 2;
    row->dim[0] = extent[rule->rows];
    row->dim[1] = extent[rule->cols];
    row->decay = row->dims == 2;
    if (!checked_mul(&row->count, row->dim[0], row->dim[1]))
        RAISE(ARG, "%s: %lld x %lld elements overflow", row->name, (long long)row->dim[0],
              (long long)row->dim[1]);
    return ERR_OK;
}

static err_t fill_table(struct glm_params *p, const struct glm_config *c)
{
    const int64_t extent[EXTENT_COUNT] = {
        [EXTENT_NONE] = 1, /* a factor that is not there */
        [EXTENT_V] = c->vocab_size, [EXTENT_C] = c->hidden_size, [EXTENT_QKV] = 3 * c->hidden_size,
        [EXTENT_F] = c->ffn_size,
    };
    struct glm_param *row = p->row;
    const int64_t last = p->unit_count - 1;

    TRY(fill_row(row, extent, GLM_EMBED, -1, 0));
    if (c->tied) {
        row->init = GLM_INIT_OUTPUT;
        snprintf(row->name_tied, sizeof row->name_tied, "%s", rules[GLM_HEAD].name);
    }
    row++;
    for (int64_t l = 0; l < c->layer_count; l++)
        for (int i = 0; i < LAYER_ROLES; i++)
            TRY(fill_row(row++, extent, (enum glm_role)(GLM_LN1_GAMMA + i), l, 1 + l));
    TRY(fill_row(row++, extent, GLM_FINAL_GAMMA, -1, last));
    TRY(fill_row(row++, extent, GLM_FINAL_BETA, -1, last));
    if (!c->tied) TRY(fill_row(row++, extent, GLM_HEAD, -1, last));
    ASSERT(row == p->row + p->count);

    for (int64_t i = 0; i < p->count; i++)
        if (!checked_add(&p->element_count, p->element_count, p->row[i].count))
            RAISE(ARG, "the number of parameters overflows at %s", p->row[i].name);
    return ERR_OK;
}

err_t glm_params_create(struct glm_params *out, const struct glm_config *config)
{
    err_t rc = ERR_OK;
    *out = (struct glm_params){ 0 };
    TRY(check_config(config));
    out->count = 1 + config->layer_count * LAYER_ROLES + 2 + (config->tied ? 0 : 1);
    out->unit_count = config->layer_count + 2;
    out->row = calloc((size_t)out->count, sizeof *out->row);
    if (out->row == NULL) RAISE(NOMEM, "table of %lld parameters", (long long)out->count);
    TRY_DONE(fill_table(out, config));
done:
    if (rc != ERR_OK) glm_params_clear(out);
    return rc;
}

void glm_params_clear(struct glm_params *p)
{
    free(p->row);
    *p = (struct glm_params){ 0 };
}

int64_t glm_params_find(const struct glm_params *p, enum glm_role role, int64_t layer)
{
    const int64_t layers = p->unit_count - 2;
    const int64_t tail = 1 + layers * LAYER_ROLES; /* where the final norm begins */
    if (role == GLM_EMBED) return 0;
    if (role >= GLM_FINAL_GAMMA) {
        const int64_t index = tail + (int64_t)role - GLM_FINAL_GAMMA;
        return index < p->count ? index : -1;
    }
    if (layer < 0 || layer >= layers) return -1;
    return 1 + layer * LAYER_ROLES + (int64_t)role - GLM_LN1_GAMMA;
}

int64_t glm_params_find_name(const struct glm_params *p, const char *name)
{
    for (int64_t i = 0; i < p->count; i++) {
        const struct glm_param *row = &p->row[i];
        if (strcmp(row->name, name) == 0) return i;
        if (row->name_tied[0] != '\0' && strcmp(row->name_tied, name) == 0) return i;
    }
    return -1;
}

/* Elements of a row's place: its own, and the zero rows that follow a vocabulary. */
static bool stored_count(int64_t *out, const struct glm_param *row, int64_t vocab_multiple)
{
    const bool is_padded = (row->role == GLM_EMBED || row->role == GLM_HEAD) && vocab_multiple > 1;
    *out = row->count;
    if (!is_padded) return true;
    if (row->dim[0] > INT64_MAX - vocab_multiple) return false;
    return checked_mul(out, align_up(row->dim[0], vocab_multiple), row->dim[1]);
}

static err_t place_rows(struct glm_layout *l, const struct glm_params *p, int64_t unit_step,
                        int64_t vocab_multiple)
{
    int64_t end = 0;
    for (int64_t i = 0; i < p->count; i++) {
        const struct glm_param *row = &p->row[i];
        const bool opens_unit = i == 0 || row->unit != p->row[i - 1].unit;
        int64_t count;
        end = align_up(end, opens_unit ? unit_step : TENSOR_STEP);
        if (opens_unit) l->unit_offset[row->unit] = end;
        l->offset[i] = end;
        if (!stored_count(&count, row, vocab_multiple) || !checked_add(&end, end, count) ||
            end > INT64_MAX - unit_step)
            RAISE(ARG, "the arena of parameters overflows at %s", row->name);
    }
    l->element_count = align_up(end, unit_step);
    l->unit_offset[p->unit_count] = l->element_count;
    return ERR_OK;
}

/* Arrays of zeros; glm_layout_clear after a failure too. */
static err_t layout_allocate(struct glm_layout *out, const struct glm_params *p)
{
    *out = (struct glm_layout){ 0 };
    out->offset = calloc((size_t)p->count, sizeof *out->offset);
    out->unit_offset = calloc((size_t)p->unit_count + 1, sizeof *out->unit_offset);
    if (out->offset == NULL || out->unit_offset == NULL)
        RAISE(NOMEM, "layout of %lld parameters", (long long)p->count);
    return ERR_OK;
}

err_t glm_layout_create(struct glm_layout *out, const struct glm_params *p, int64_t ranks,
                        int64_t vocab_multiple)
{
    err_t rc = ERR_OK;
    *out = (struct glm_layout){ 0 };
    if (ranks < 1 || ranks > INT64_MAX / GLM_UNIT_STEP / 2)
        RAISE(ARG, "a layout is padded for at least one rank, found %lld", (long long)ranks);
    if (vocab_multiple < 0)
        RAISE(ARG, "rows of a vocabulary come in multiples of %lld; expected 0 or more",
              (long long)vocab_multiple);
    TRY_DONE(layout_allocate(out, p));
    TRY_DONE(place_rows(out, p, ranks * GLM_UNIT_STEP, vocab_multiple));
done:
    if (rc != ERR_OK) glm_layout_clear(out);
    return rc;
}

err_t glm_layout_create_shared(struct glm_layout *out, const struct glm_params *p,
                               const struct glm_layout *whole)
{
    err_t rc = ERR_OK;
    const int64_t *place = whole->unit_offset, last = p->unit_count - 1, layers = last - 1;
    const int64_t slots = min_i64(layers, GLM_GRAD_SLOTS), slot = place[2] - place[1];
    TRY_DONE(layout_allocate(out, p));
    for (int64_t l = 0; l < layers; l++) {
        ASSERT(place[l + 2] - place[l + 1] == slot); /* layers are alike */
        out->unit_offset[1 + l] = place[1] + l % GLM_GRAD_SLOTS * slot;
    }
    out->unit_offset[last] = place[1] + slots * slot;
    out->element_count = out->unit_offset[last] + place[last + 1] - place[last];
    out->unit_offset[p->unit_count] = out->element_count;
    for (int64_t i = 0; i < p->count; i++) {
        const int64_t unit = p->row[i].unit;
        out->offset[i] = out->unit_offset[unit] + whole->offset[i] - place[unit];
    }
done:
    if (rc != ERR_OK) glm_layout_clear(out);
    return rc;
}

void glm_layout_clear(struct glm_layout *l)
{
    free(l->offset);
    free(l->unit_offset);
    *l = (struct glm_layout){ 0 };
}

static struct tensor row_tensor(const struct glm_param *row, void *base, int64_t offset,
                                dtype_t dtype)
{
    void *data = base ? (char *)base + offset : NULL;
    if (row->dims == 1) return tensor_1d(data, dtype, row->dim[0], row->name);
    return tensor_2d(data, dtype, row->dim[0], row->dim[1], row->name);
}

struct tensor glm_param_tensor(const struct glm_params *p, const struct glm_layout *l,
                               int64_t index, void *base, dtype_t dtype)
{
    ASSERT(index >= 0 && index < p->count);
    return row_tensor(&p->row[index], base, l->offset[index] * dtype_bytes(dtype), dtype);
}

static dtype_t stored_dtype(const struct glm_storage *s, const struct glm_param *row)
{
    return row->dims == 1 ? s->vector : s->matrix;
}

/* One dtype: whatever the order of the layout. */
static err_t count_bytes(struct glm_storage *out, const struct glm_params *p,
                         const struct glm_layout *l)
{
    const int64_t size = dtype_bytes(out->matrix);
    for (int64_t i = 0; i < p->count; i++) {
        /* What is behind the last row is the last row's. */
        const int64_t end = i + 1 < p->count ? l->offset[i] + p->row[i].count : l->element_count;
        if (!checked_mul(&out->bytes, end, size)) {
            glm_storage_clear(out);
            RAISE(ARG, "the bytes of the weights overflow at %s", p->row[i].name);
        }
        out->offset[i] = l->offset[i] * size;
    }
    out->bytes = l->element_count * size;
    return ERR_OK;
}

err_t glm_storage_create(struct glm_storage *out, const struct glm_params *p,
                         const struct glm_layout *l, dtype_t matrix, dtype_t vector)
{
    int64_t end = 0;
    *out = (struct glm_storage){ .matrix = matrix, .vector = vector };
    out->offset = calloc((size_t)p->count, sizeof *out->offset);
    if (out->offset == NULL) RAISE(NOMEM, "storage of %lld parameters", (long long)p->count);
    if (matrix == vector) return count_bytes(out, p, l);
    for (int64_t i = 0; i < p->count; i++) {
        const int64_t next = i + 1 < p->count ? l->offset[i + 1] : l->element_count;
        int64_t bytes;
        out->offset[i] = end;
        if (!checked_mul(&bytes, next - l->offset[i], dtype_bytes(stored_dtype(out, &p->row[i]))) ||
            !checked_add(&end, end, bytes)) {
            glm_storage_clear(out);
            RAISE(ARG, "the bytes of the weights overflow at %s", p->row[i].name);
        }
    }
    out->bytes = end;
    return ERR_OK;
}

void glm_storage_clear(struct glm_storage *s)
{
    free(s->offset);
    *s = (struct glm_storage){ 0 };
}

struct tensor glm_storage_tensor(const struct glm_params *p, const struct glm_storage *s,
                                 int64_t index, void *base)
{
    ASSERT(index >= 0 && index < p->count);
    const struct glm_param *row = &p->row[index];
    return row_tensor(row, base, s->offset[index], stored_dtype(s, row));
}

/* Is element e of a qkv matrix in a v row? Rows come per head as q, k, v of D each. */
static bool is_v_element(const struct glm_config *c, int64_t e)
{
    const int64_t D = c->hidden_size / c->head_count;
    return e / c->hidden_size % (3 * D) >= 2 * D;
}

void glm_param_init(float *out, const struct glm_params *p, const struct glm_config *config,
                    int64_t index, uint64_t seed, int64_t first, int64_t count)
{
    ASSERT(index >= 0 && index < p->count);
    const struct glm_param *row = &p->row[index];
    ASSERT(first >= 0 && count >= 0 && first <= row->count - count);
    /* The name, not the index: adding a tensor to the table must not change the others' values. */
    const uint64_t tensor = crc32c(0, row->name, strlen(row->name));
    const uint64_t stream = (uint64_t)RNG_INIT | tensor << 8;
    const double std[] = {
        [GLM_INIT_ZERO] = 0.0,
        [GLM_INIT_ONE] = 0.0,
        [GLM_INIT_NORMAL] = MATRIX_STD,
        [GLM_INIT_QKV] = MATRIX_STD,
        [GLM_INIT_RESIDUAL] = MATRIX_STD * BRANCH_SCALE,
        [GLM_INIT_OUTPUT] = 1.0 / (double)config->hidden_size,
    };

    if (std[row->init] == 0.0) {
        for (int64_t i = 0; i < count; i++) out[i] = row->init == GLM_INIT_ONE ? 1.0f : 0.0f;
        return;
    }
    /* Numbers by counter: any division among threads gives the same. */
#pragma omp parallel for if (count >= INIT_PARALLEL)
    for (int64_t i = 0; i < count; i++) {
        const int64_t e = first + i;
        const bool is_branch = row->init == GLM_INIT_QKV && is_v_element(config, e);
        const double scale = std[row->init] * (is_branch ? BRANCH_SCALE : 1.0);
        out[i] = (float)(scale * rng_normal(seed, stream, (uint64_t)e));
    }
}
