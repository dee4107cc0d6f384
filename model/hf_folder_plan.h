/*
 * hf_folder_plan.h - which tensors an exported folder holds, in which file, in which dtype; and
 * where their values come from. No value is read here. Internal to model/.
 */
#ifndef MODEL_HF_FOLDER_PLAN_H
#define MODEL_HF_FOLDER_PLAN_H

#include "base/err.h"
#include "model/glm_config.h"
#include "model/glm_params.h"
#include "model/safetensors.h"
#include "model/weights.h"

#include <stdint.h>

#define HF_FROM_ROTARY (-1) /* the values are the rotary frequencies, which no source need hold */

struct hf_item {
    struct safetensors_entry entry; /* name, dtype, shape */
    int64_t from;                   /* index in the source, or HF_FROM_ROTARY */
    int64_t count, bytes;
    int64_t file;
    char name[GLM_NAME_MAX]; /* what entry.name points to */
};

struct hf_plan {
    struct hf_item *item; /* in the order of the published index */
    int64_t count, file_count;
    int64_t bytes;         /* of all tensors */
    int64_t element_count; /* parameters of the model */
};

/*
 * Yours; hf_plan_clear it, also after failure. ERR_FORMAT when the source lacks a tensor or holds
 * it in another shape, or when tied tensors differ: this compares all of their bytes.
 */
MUST_USE err_t hf_plan_create(struct hf_plan *out, const struct glm_config *config,
                              struct weight_source *source, dtype_t dtype, int64_t file_bytes_max);
void hf_plan_clear(struct hf_plan *plan);

/* The name of file `index`: model.safetensors, or model-0000k-of-0000n.safetensors. */
#define HF_FILE_NAME_MAX 64
const char *hf_plan_file_name(char name[HF_FILE_NAME_MAX], const struct hf_plan *plan,
                              int64_t index);
/* Indices of the items of one file in the order in which they lie there; returns how many. `order`
 * has room for all. */
int64_t hf_plan_file_order(int64_t *order, const struct hf_plan *plan, int64_t file);

#endif
