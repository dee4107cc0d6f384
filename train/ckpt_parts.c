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
    memset(parts, 0, sizeof *parts);
}

/* One that has an element per element of the row has its shape. */
static void add_tensor(struct ckpt_part *p, int part, const struct optim_format *format,
                       const struct glm_param *row, int64_t index)
{
    const bool weights = part == CKPT_WEIGHT_PART;
    const enum optim_part state = (enum optim_part)part;
    const struct ckpt_tensor tensor = {
        .part = part,
        .row = index,
        .count = weights ? row->count : optim_part_count(format, row, state),
        .per = weights ? 1 : optim_part_per(state),
        .dtype = weights ? format->weights : optim_part_dtype(format, state),
    };
    if (tensor.count == 0) return;
    struct ckpt_tensor *to = &p->tensor[p->count];
    struct safetensors_entry *entry = &p->entry[p->count++];
    *to = tensor;
    snprintf(to->name, sizeof to->name, "%s%s%s", weights ? "" : optim_part_name(state),
             weights ? "" : ".", row->name);
    *entry = (struct safetensors_entry){ to->name, tensor.dtype, 1, { tensor.count } };
    if (tensor.per > 1) return;
    entry->dims = row->dims;
    for (int d = 0; d < row->dims; d++) entry->dim[d] = row->dim[d];
}

/* Rows first..end-1 of each part, part by part. */
static err_t list_tensors(struct ckpt_part *p, const struct optim_format *format,
                          const struct glm_params *params, bool weights, int64_t first, int64_t end)
{
    const int part_first = weights ? CKPT_WEIGHT_PART : 0, part_end = weights ? 0 : OPTIM_PARTS;
    const size_t most = (size_t)((part_end - part_first) * (end - first));
    p->entry = calloc(most, sizeof *p->entry);
    p->tensor = calloc(most, sizeof *p->tensor);
    if (p->entry == NULL || p->tensor == NULL)
        RAISE(NOMEM, "checkpoint: no memory for a list of %zu tensors", most);
    for (int part = part_first; part < part_end; part++)
        for (int64_t i = first; i < end; i++) add_tensor(p, part, format, &params->row[i], i);
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
        TRY(list_tensors(p, &parts->format, params, weights, first, end));
        TRY(safetensors_place(&p->header, &p->begin, p->entry, p->count, metadata));
        parts->bytes += p->begin[p->count];
    }
    return ERR_OK;
}

err_t ckpt_parts_create(struct ckpt_parts *out, const struct glm_params *params,
                        const struct stored_formats *formats)
{
    *out = (struct ckpt_parts){ .format = { .weights = formats->precision,
                                            .master = formats->master,
                                            .moments = formats->moments } };
    TRY(list_parts(out, params, true));
    return list_parts(out, params, false);
}
