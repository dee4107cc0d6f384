#include "model/hf_folder_plan.h"

#include "base/check.h"
#include "model/glm_find.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Layer norms are float32 in the published files, everything else is float16. */
static bool is_norm(enum glm_role role)
{
    switch (role) {
    case GLM_LN1_GAMMA:
    case GLM_LN1_BETA:
    case GLM_LN2_GAMMA:
    case GLM_LN2_BETA:
    case GLM_FINAL_GAMMA:
    case GLM_FINAL_BETA:
        return true;
    default:
        return false;
    }
}

static struct hf_item *add(struct hf_plan *plan, const char *name, dtype_t dtype, int64_t from)
{
    struct hf_item *item = &plan->item[plan->count++];
    *item = (struct hf_item){ .from = from };
    snprintf(item->name, sizeof item->name, "%s", name);
    item->entry = (struct safetensors_entry){ .name = item->name, .dtype = dtype };
    return item;
}

static void set_shape(struct hf_item *item, int dims, const int64_t *dim)
{
    item->entry.dims = dims;
    item->count = 1;
    for (int i = 0; i < dims; i++) {
        item->entry.dim[i] = dim[i];
        item->count *= dim[i];
    }
    item->bytes = item->count * dtype_bytes(item->entry.dtype);
}

static err_t add_row(struct hf_plan *plan, const struct glm_param *row,
                     const struct glm_config *config, struct weight_source *source, dtype_t dtype)
{
    int64_t from = -1;
    if (row->role == GLM_QKV_WEIGHT) { /* the place of the buffer in published files */
        char name[GLM_NAME_MAX];
        const int64_t pairs = config->hidden_size / config->head_count / 4;
        snprintf(name, sizeof name, "transformer.layers.%lld.attention.rotary_emb.inv_freq",
                 (long long)row->layer);
        set_shape(add(plan, name, DTYPE_F16, HF_FROM_ROTARY), 1, &pairs);
    }
    TRY(glm_find(&from, row, source));
    set_shape(add(plan, row->name, is_norm(row->role) ? DTYPE_F32 : dtype, from), row->dims,
              row->dim);
    return ERR_OK;
}

/* Fill files in order; a file is closed by the tensor that would take it beyond its size. */
static void deal(struct hf_plan *plan, int64_t file_bytes_max)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < plan->count; i++) {
        struct hf_item *item = &plan->item[i];
        if (bytes > 0 && item->bytes > file_bytes_max - bytes) {
            plan->file_count++;
            bytes = 0;
        }
        item->file = plan->file_count;
        bytes += item->bytes;
        plan->bytes += item->bytes;
    }
    plan->file_count++;
}

err_t hf_plan_create(struct hf_plan *out, const struct glm_config *config,
                     struct weight_source *source, dtype_t dtype, int64_t file_bytes_max)
{
    err_t rc = ERR_OK;
    struct glm_params params;
    *out = (struct hf_plan){ 0 };
    TRY(glm_params_create(&params, config));
    const int64_t count_max = params.count + config->layer_count + 1;
    out->item = calloc((size_t)count_max, sizeof *out->item);
    if (!out->item) RAISE_DONE(NOMEM, "a plan of %lld tensors", (long long)count_max);
    for (int64_t i = 0; i < params.count; i++)
        TRY_DONE(add_row(out, &params.row[i], config, source, dtype));
    /* Second names come last, as the output layer does. */
    for (int64_t i = 0; i < params.count; i++) {
        const struct glm_param *row = &params.row[i];
        int64_t from = -1;
        if (row->name_tied[0] == '\0') continue;
        from = weight_source_find(source, row->name);
        if (from < 0) from = weight_source_find(source, row->name_tied);
        set_shape(add(out, row->name_tied, dtype, from), row->dims, row->dim);
    }
    out->element_count = params.element_count;
    deal(out, file_bytes_max);
    ASSERT(out->count <= count_max);
done:
    glm_params_clear(&params);
    return rc;
}

void hf_plan_clear(struct hf_plan *plan)
{
    free(plan->item);
    *plan = (struct hf_plan){ 0 };
}

const char *hf_plan_file_name(char name[HF_FILE_NAME_MAX], const struct hf_plan *plan,
                              int64_t index)
{
    if (plan->file_count == 1)
        snprintf(name, HF_FILE_NAME_MAX, "model.safetensors");
    else
        snprintf(name, HF_FILE_NAME_MAX, "model-%05lld-of-%05lld.safetensors", (long long)index + 1,
                 (long long)plan->file_count);
    return name;
}

int64_t hf_plan_file_order(int64_t *order, const struct hf_plan *plan, int64_t file)
{
    static const int64_t widths[] = { 4, 2 }; /* wider first, so that every tensor is aligned */
    int64_t count = 0;
    for (int64_t w = 0; w < COUNT_OF(widths); w++)
        for (int64_t i = 0; i < plan->count; i++)
            if (plan->item[i].file == file && dtype_bytes(plan->item[i].entry.dtype) == widths[w])
                order[count++] = i;
    return count;
}
