/*
 * name_index.h - which row of a table has a name: the names of a weight source, sorted. Internal to
 * model/.
 *
 *     TRY(name_index_create(&index, count));
 *     for (int64_t i = 0; i < count; i++) index.entry[i] = (struct name_entry){ row[i].name, i };
 *     if (!name_index_sort(&index, twice)) RAISE(FORMAT, "%s twice", row[twice[0]].name);
 *     i = name_index_find(&index, "lm_head.weight");
 */
#ifndef MODEL_NAME_INDEX_H
#define MODEL_NAME_INDEX_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct name_entry {
    const char *name; /* borrowed */
    int64_t row;
};

/* A zeroed struct is empty. */
struct name_index {
    struct name_entry *entry; /* [count] */
    int64_t count;
};

/* Room for `count` entries, which the caller fills. ERR_NOMEM. */
MUST_USE err_t name_index_create(struct name_index *out, int64_t count);
/* false: two rows have one name, and `twice` says which, the lower first. */
bool name_index_sort(struct name_index *x, int64_t twice[2]);
/* The row of that name, -1 for none; after name_index_sort. */
int64_t name_index_find(const struct name_index *x, const char *name);
void name_index_clear(struct name_index *x);

#endif
