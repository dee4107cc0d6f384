/* Which tensor lies in which file, and where: a function of the table and the formats alone. */
#include "train/ckpt_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const metadata[] = { "format", "pt", NULL };

int64_t ckpt_part_end(const struct glm_params *params, int64_t first)
{
    int64_t end = first, bytes = 0;
    while (end < params->count) {
        bytes += params->row[end].count * (int64_t)sizeof(float);
        if (end > first && bytes > CKPT_PART_BYTES_MAX) break;
        end++;
    }
    return end;
}

static void part_clear(struct ckpt_part *p)
{
    free(p->entry);
    free(p->tensor);
    free(p->begin);
    buf_clear(&p->header);
}

void ckpt_parts_clear(struct ckpt_parts *parts)
{
    for (int64_t i = 0; i < parts->count; i++) part_clear(&parts->part[i]);
    free(parts->part);
    optim_plan_clear(&parts->plan);
    memset(parts, 0, sizeof *parts);
}

static void add_tensor(struct ckpt_part *p, int part, int64_t row, dtype_t dtype,
                       const struct glm_param *param, int64_t count)
{
    struct ckpt_tensor *tensor = &p->tensor[p->count];
    struct safetensors_entry *entry = &p->entry[p->count++];
    const bool shaped = count == param->count;
    *tensor = (struct ckpt_tensor){ .part = part, .row = row, .count = count, .dtype = dtype };
    snprintf(tensor->name, sizeof tensor->name, "%s%s%s",
             part == CKPT_WEIGHT_PART ? "" : optim_part_name((enum optim_part)part),
             part == CKPT_WEIGHT_PART ? "" : ".", param->name);
    *entry = (struct safetensors_entry){ tensor->name, dtype, shaped ? param->dims : 1, { count } };
    for (int d = 0; d < param->dims && shaped; d++) entry->dim[d] = param->dim[d];
}

/* Rows first..end-1 of each part, part by part. */
static err_t list_tensors(struct ckpt_part *p, const struct optim_plan *plan,
                          const struct glm_params *params, bool weights, int64_t first, int64_t end)
{
    const size_t most = (size_t)((weights ? 1 : OPTIM_PARTS) * (end - first));
    p->entry = calloc(most, sizeof *p->entry);
    p->tensor = calloc(most, sizeof *p->tensor);
    if (p->entry == NULL || p->tensor == NULL)
        RAISE(NOMEM, "checkpoint: no memory for a list of %zu tensors", most);
    if (weights) {
        for (int64_t i = first; i < end; i++)
            add_tensor(p, CKPT_WEIGHT_PART, i, plan->format.weights, &params->row[i],
                       params->row[i].count);
        return ERR_OK;
    }
    for (int part = 0; part < OPTIM_PARTS; part++) {
        const dtype_t dtype = optim_part_dtype(&plan->format, (enum optim_part)part);
        for (int64_t i = first; i < end; i++) {
            const int64_t count = optim_part_count(plan, params, (enum optim_part)part, i);
            if (count > 0) add_tensor(p, part, i, dtype, &params->row[i], count);
        }
    }
    return ERR_OK;
}

/* Files of one kind, numbered from 0. */
static err_t list_parts(struct ckpt_parts *parts, const struct glm_params *params, bool weights)
{
    int64_t number = 0;
    for (int64_t first = 0, end; first < params->count; first = end, number++) {
        end = ckpt_part_end(params, first);
        struct ckpt_part *larger =
            realloc(parts->part, (size_t)(parts->count + 1) * sizeof *larger);
        if (larger == NULL) RAISE(NOMEM, "checkpoint: no memory for its list of files");
        parts->part = larger;
        struct ckpt_part *p = &larger[parts->count++];
        *p = (struct ckpt_part){ .count = 0 };
        snprintf(p->name, sizeof p->name, "%s.%04lld.safetensors", weights ? "model" : "optim",
                 (long long)number);
        TRY(list_tensors(p, &parts->plan, params, weights, first, end));
        TRY(safetensors_place(&p->header, &p->begin, p->entry, p->count, metadata));
        parts->bytes += p->begin[p->count];
    }
    return ERR_OK;
}

err_t ckpt_parts_create(struct ckpt_parts *out, const struct glm_params *params,
                        const struct stored_formats *formats)
{
    const struct optim_format format = { .weights = formats->precision,
                                         .master = formats->master,
                                         .moments = formats->moments };
    memset(out, 0, sizeof *out);
    TRY(optim_plan_create(&out->plan, params, &format));
    TRY(list_parts(out, params, true));
    return list_parts(out, params, false);
}
