#include "model/hf_join.h"

#include "base/buf.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

static const struct weight_source_ops join_ops;

err_t hf_join_create(struct hf_join **out)
{
    struct hf_join *j = calloc(1, sizeof *j);
    if (!j) RAISE(NOMEM, "%zu bytes for a table of files", sizeof *j);
    j->source.ops = &join_ops;
    *out = j;
    return ERR_OK;
}

static err_t reserve_part(struct hf_join *j)
{
    ARRAY_GROW(j->part, j->part_capacity, j->part_count + 1);
    return ERR_OK;
}

err_t hf_join_add_part(struct hf_join *j, struct weight_source *source, const char *file)
{
    err_t rc = ERR_OK;
    void *name = NULL;
    const int64_t bytes = (int64_t)strlen(file) + 1;
    TRY_DONE(reserve_part(j));
    TRY_DONE(arena_push(&j->arena, &name, bytes, 1));
    memcpy(name, file, (size_t)bytes);
    j->part[j->part_count++] = (struct hf_part){ name, source };
    return ERR_OK;
done:
    weight_source_close(source);
    return rc;
}

err_t hf_join_add_row(struct hf_join *j, const char *name, int64_t part, int64_t index)
{
    ASSERT(!j->index.entry);
    ARRAY_GROW(j->row, j->row_capacity, j->row_count + 1);
    j->row[j->row_count++] = (struct hf_row){ name, part, index };
    return ERR_OK;
}

err_t hf_join_add_all(struct hf_join *j)
{
    for (int64_t part = 0; part < j->part_count; part++) {
        const struct weight_source *source = j->part[part].source;
        const int64_t count = weight_source_count(source);
        for (int64_t i = 0; i < count; i++)
            TRY(hf_join_add_row(j, weight_source_info(source, i).name, part, i));
    }
    return ERR_OK;
}

err_t hf_join_finish(struct hf_join *j, const char *dir)
{
    int64_t twice[2];
    ASSERT(!j->index.entry);
    TRY(name_index_create(&j->index, j->row_count));
    for (int64_t i = 0; i < j->row_count; i++)
        j->index.entry[i] = (struct name_entry){ j->row[i].name, i };
    if (!name_index_sort(&j->index, twice))
        RAISE(FORMAT, "%s: tensor %s is both in %s and in %s", dir, j->row[twice[0]].name,
              hf_join_file(j, twice[0]), hf_join_file(j, twice[1]));
    return ERR_OK;
}

const char *hf_join_file(const struct hf_join *j, int64_t index)
{
    ASSERT(index >= 0 && index < j->row_count);
    return j->part[j->row[index].part].file;
}

/* ---- the interface ---- */

static const struct hf_join *of(const struct weight_source *s) { return (const struct hf_join *)s; }

static int64_t join_count(const struct weight_source *s) { return of(s)->row_count; }

static struct weight_info join_info(const struct weight_source *s, int64_t index)
{
    const struct hf_row *row = &of(s)->row[index];
    struct weight_info info = weight_source_info(of(s)->part[row->part].source, row->index);
    info.name = row->name;
    return info;
}

static int64_t join_find(const struct weight_source *s, const char *name)
{
    return name_index_find(&of(s)->index, name);
}

static err_t join_read(struct weight_source *s, void *out, int64_t index, int64_t first,
                       int64_t count)
{
    const struct hf_row *row = &of(s)->row[index];
    TRY(weight_source_read(of(s)->part[row->part].source, out, row->index, first, count));
    return ERR_OK;
}

static void join_close(struct weight_source *s)
{
    struct hf_join *j = (struct hf_join *)s;
    for (int64_t i = 0; i < j->part_count; i++) weight_source_close(j->part[i].source);
    arena_clear(&j->arena);
    free(j->part);
    free(j->row);
    name_index_clear(&j->index);
    free(j);
}

static const struct weight_source_ops join_ops = {
    .count = join_count,
    .info = join_info,
    .find = join_find,
    .read = join_read,
    .close = join_close,
};
