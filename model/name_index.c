#include "model/name_index.h"

#include <stdlib.h>
#include <string.h>

err_t name_index_create(struct name_index *out, int64_t count)
{
    *out = (struct name_index){ .count = count };
    out->entry = malloc((size_t)(count + 1) * sizeof *out->entry);
    if (!out->entry) RAISE(NOMEM, "an index of %lld names", (long long)count);
    return ERR_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const struct name_entry *x = a, *y = b;
    const int order = strcmp(x->name, y->name);
    return order != 0 ? order : (x->row > y->row) - (x->row < y->row);
}

bool name_index_sort(struct name_index *x, int64_t twice[2])
{
    qsort(x->entry, (size_t)x->count, sizeof *x->entry, compare_entries);
    for (int64_t i = 1; i < x->count; i++) {
        if (strcmp(x->entry[i - 1].name, x->entry[i].name) != 0) continue;
        twice[0] = x->entry[i - 1].row;
        twice[1] = x->entry[i].row;
        return false;
    }
    return true;
}

static int compare_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct name_entry *)entry)->name);
}

int64_t name_index_find(const struct name_index *x, const char *name)
{
    const struct name_entry *found =
        x->count == 0 ? NULL
                      : bsearch(name, x->entry, (size_t)x->count, sizeof *x->entry, compare_name);
    return found ? found->row : -1;
}

void name_index_clear(struct name_index *x)
{
    free(x->entry);
    *x = (struct name_index){ 0 };
}
