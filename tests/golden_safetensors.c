#include "golden.h"

#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct golden_tensors {
    struct golden golden;
    struct weight_source *source;
};

static struct weight_source *source_of(const struct golden *g)
{
    return ((const struct golden_tensors *)g)->source;
}

/* In place: element i of 4 bytes lies before element i of 8, so the last goes first. */
static void widen_i32(double *values, int64_t count)
{
    const char *bytes = (const char *)values;
    for (int64_t i = count - 1; i >= 0; i--) {
        int32_t value;
        memcpy(&value, bytes + i * (int64_t)sizeof value, sizeof value);
        values[i] = value;
    }
}

static err_t read_values(double *out, struct weight_source *s, int64_t index)
{
    const struct weight_info info = weight_source_info(s, index);
    if (info.dtype != DTYPE_I32)
        return weight_source_read_as(s, out, DTYPE_F64, index, 0, info.count);
    TRY(weight_source_read(s, out, index, 0, info.count));
    widen_i32(out, info.count);
    return ERR_OK;
}

static err_t tensors_read(struct golden_array *out, int *dims, struct golden *g, const char *name)
{
    struct weight_source *s = source_of(g);
    const int64_t index = weight_source_find(s, name);
    if (index < 0) RAISE(NOTFOUND, "golden.safetensors has no %s", name);
    const struct weight_info info = weight_source_info(s, index);
    if (info.count == 0) RAISE(FORMAT, "%s: no values", name);
    *dims = info.dims;
    out->count = info.count;
    memcpy(out->dim, info.dim, sizeof out->dim);
    out->value = malloc((size_t)info.count * sizeof *out->value);
    if (out->value == NULL) RAISE(NOMEM, "%s: %lld values", name, (long long)info.count);
    const err_t rc = read_values(out->value, s, index);
    if (rc != ERR_OK) golden_array_clear(out);
    return rc;
}

static err_t tensors_attribute(double *out, struct golden *g, const char *object, const char *name)
{
    char key[160];
    struct golden_array a;
    snprintf(key, sizeof key, "%s@%s", object, name);
    TRY(golden_read(&a, g, key, 0));
    *out = a.value[0];
    golden_array_clear(&a);
    return ERR_OK;
}

static err_t tensors_group_count(int64_t *out, struct golden *g, const char *group)
{
    const struct weight_source *s = source_of(g);
    const size_t length = strlen(group);
    *out = 0;
    for (int64_t i = 0; i < weight_source_count(s); i++) {
        const char *name = weight_source_info(s, i).name;
        if (strncmp(name, group, length) == 0 && name[length] == '/') (*out)++;
    }
    if (*out == 0) RAISE(NOTFOUND, "golden.safetensors has no group %s", group);
    return ERR_OK;
}

static void tensors_close(struct golden *g)
{
    weight_source_close(source_of(g));
    free(g);
}

static const struct golden_ops tensors_ops = { tensors_read, tensors_attribute, tensors_group_count,
                                               tensors_close };

err_t golden_open_safetensors(struct golden **out, const char *path)
{
    struct golden_tensors *g = calloc(1, sizeof *g);
    if (g == NULL) RAISE(NOMEM, "%s", path);
    g->golden.ops = &tensors_ops;
    const err_t rc = safetensors_source_open(&g->source, path);
    if (rc != ERR_OK) {
        free(g);
        return rc;
    }
    *out = &g->golden;
    return ERR_OK;
}
