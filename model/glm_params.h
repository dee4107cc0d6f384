/*
 * glm_params.h - the table of parameters: every trained tensor once, with its names in files,
 * shape, unit, decay, initialisation; and the layout that places tensors in a flat arena.
 *
 * Gradients, optimizer states and the weights of a training model are flat arenas of one dtype
 * each. The table deals out tensors; a layout gives offsets. Tensors are grouped into units
 * (embedding, each layer, final) that are padded to ranks * 16,384 elements, so that any number of
 * ranks can own equal slices. Inside a unit every tensor begins at a multiple of 32 elements.
 * Padding holds zeros and takes part in nothing. Weights that are only read may have matrices
 * narrower than vectors: a storage places them, in bytes.
 */
#ifndef MODEL_GLM_PARAMS_H
#define MODEL_GLM_PARAMS_H

#include "base/err.h"
#include "kernels/tensor.h"
#include "model/glm_config.h"

#include <stdbool.h>
#include <stdint.h>

#define GLM_NAME_MAX  96
#define GLM_UNIT_STEP 16384

/* Which tensor of a layer, or which global one. */
enum glm_role {
    GLM_EMBED,
    GLM_LN1_GAMMA,
    GLM_LN1_BETA,
    GLM_QKV_WEIGHT,
    GLM_QKV_BIAS,
    GLM_DENSE_WEIGHT,
    GLM_DENSE_BIAS,
    GLM_LN2_GAMMA,
    GLM_LN2_BETA,
    GLM_FC1_WEIGHT,
    GLM_FC1_BIAS,
    GLM_FC2_WEIGHT,
    GLM_FC2_BIAS,
    GLM_FINAL_GAMMA,
    GLM_FINAL_BETA,
    GLM_HEAD, /* only where the output layer is not tied */
    GLM_ROLE_COUNT
};

enum glm_init {
    GLM_INIT_ZERO,
    GLM_INIT_ONE,
    GLM_INIT_NORMAL,   /* N(0, 0.02^2) */
    GLM_INIT_QKV,      /* N(0, 0.02^2), the v rows times (2*28)^-1/2 */
    GLM_INIT_RESIDUAL, /* N(0, 0.02^2) times (2*28)^-1/2: dense and both MLP matrices */
    GLM_INIT_OUTPUT,   /* N(0, 1/C^2), for the table that makes logits (the head, or a tied
                          embedding): their variance starts at 1/C, so the first loss is ln V */
};

struct glm_param {
    char name[GLM_NAME_MAX];      /* in Hugging Face files */
    char name_tied[GLM_NAME_MAX]; /* second name of a tied tensor ("lm_head.weight"), or "" */
    enum glm_role role;
    int64_t layer; /* -1 for global tensors */
    int64_t unit;  /* 0 = embedding, 1+l = layer l, last = final norm and head */
    int dims;
    int64_t dim[2];
    int64_t count; /* elements */
    bool decay;    /* weight decay applies: matrices only */
    enum glm_init init;
};

struct glm_params {
    struct glm_param *row;
    int64_t count, unit_count;
    int64_t element_count; /* of all rows: "parameters" as people count them */
};

/* Yours; glm_params_clear it. Row order is file order: embedding, layers, final norm, head. */
MUST_USE err_t glm_params_create(struct glm_params *out, const struct glm_config *config);
void glm_params_clear(struct glm_params *p);
/* Row index of a role in a layer (-1 for global roles); -1 when the model has none. */
int64_t glm_params_find(const struct glm_params *p, enum glm_role role, int64_t layer);
/* Row index by file name, either of the two; -1 when unknown. */
int64_t glm_params_find_name(const struct glm_params *p, const char *name);

#define GLM_GRAD_SLOTS 2 /* of layers, where they share places */

/* Offsets of every row in one flat arena. */
struct glm_layout {
    int64_t *offset;       /* [params.count] elements */
    int64_t *unit_offset;  /* [unit_count + 1], the last is element_count */
    int64_t element_count; /* with padding */
};
/* `vocab_multiple`: embedding and head get zero rows up to a multiple of this many; 0: none.
 * ERR_ARG: ranks < 1, a negative multiple, or an arena beyond 63 bits. */
MUST_USE err_t glm_layout_create(struct glm_layout *out, const struct glm_params *p, int64_t ranks,
                                 int64_t vocab_multiple);
void glm_layout_clear(struct glm_layout *l);
/* The layout of `whole` with the layers in two slots by turns, even and odd: embedding, slot 0,
 * slot 1, final. Units keep their sizes and their inner offsets, but layers share places, so that
 * unit_offset tells where a unit begins and not where it ends. */
MUST_USE err_t glm_layout_create_shared(struct glm_layout *out, const struct glm_params *p,
                                        const struct glm_layout *whole);

/* Row `index` as a tensor inside the arena at `base` (of dtype `dtype`). */
struct tensor glm_param_tensor(const struct glm_params *p, const struct glm_layout *l,
                               int64_t index, void *base, dtype_t dtype);

/*
 * Where the weights lie: each row, with the padding behind it, takes its elements of the layout at
 * the width of its own dtype. With one dtype for all, a storage is the layout counted in bytes.
 */
struct glm_storage {
    dtype_t matrix, vector; /* of rows with two dimensions, with one */
    int64_t *offset;        /* [params.count] bytes, multiples of 64 */
    int64_t bytes;
};
/* ERR_ARG: the bytes overflow. */
MUST_USE err_t glm_storage_create(struct glm_storage *out, const struct glm_params *p,
                                  const struct glm_layout *l, dtype_t matrix, dtype_t vector);
void glm_storage_clear(struct glm_storage *s);

/* Row `index` as a tensor inside the memory at `base`; NULL gives one without data. */
struct tensor glm_storage_tensor(const struct glm_params *p, const struct glm_storage *s,
                                 int64_t index, void *base);

/*
 * Initial values of one row, as float32, elements first .. first+count-1: a pure function of
 * (seed, row's name, logical element), whatever the layout.
 */
void glm_param_init(float *out, const struct glm_params *p, const struct glm_config *config,
                    int64_t index, uint64_t seed, int64_t first, int64_t count);

#endif
