#include "golden.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

err_t golden_open(struct golden **out, const char *dir)
{
    char tensors[FILE_PATH_MAX], h5[FILE_PATH_MAX];
    *out = NULL;
    if (snprintf(tensors, sizeof tensors, "%s/golden.safetensors", dir) >= (int)sizeof tensors)
        RAISE(ARG, "%s: path too long", dir);
    snprintf(h5, sizeof h5, "%s/golden.h5", dir);
    if (access(tensors, R_OK) == 0) return golden_open_safetensors(out, tensors);
    if (access(h5, R_OK) == 0) return golden_open_h5(out, h5);
    RAISE(NOTFOUND, "%s: neither golden.safetensors nor golden.h5", dir);
}

void golden_close(struct golden *g)
{
    if (g != NULL) g->ops->close(g);
}

err_t golden_read(struct golden_array *out, struct golden *g, const char *name, int dims)
{
    int found = 0;
    *out = (struct golden_array){ 0 };
    TRY(g->ops->read(out, &found, g, name));
    if (found == dims) return ERR_OK;
    golden_array_clear(out);
    RAISE(FORMAT, "%s: %d dimensions; expected %d", name, found, dims);
}

void golden_array_clear(struct golden_array *a)
{
    free(a->value);
    *a = (struct golden_array){ 0 };
}

err_t golden_attribute(double *out, struct golden *g, const char *object, const char *name)
{
    return g->ops->attribute(out, g, object, name);
}

err_t golden_group_count(int64_t *out, struct golden *g, const char *group)
{
    return g->ops->group_count(out, g, group);
}
