#include "model/weight_file.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

static const struct weight_source_ops file_ops;

/* ---- bytes ---- */

static err_t refuse_lfs_pointer(struct weight_file *f)
{
    char head[64];
    const int64_t size = min_i64(f->size, (int64_t)sizeof head);
    TRY(weight_file_read(f, head, 0, size));
    if (weight_is_lfs_pointer(head, size)) RAISE(FORMAT, "%s " WEIGHT_LFS_ADVICE, f->name);
    return ERR_OK;
}

static err_t create(struct weight_file **out)
{
    struct weight_file *f = calloc(1, sizeof *f);
    if (!f) RAISE(NOMEM, "%zu bytes for a table of tensors", sizeof *f);
    f->source.ops = &file_ops;
    f->reader.fd = -1;
    f->span_row = -1;
    *out = f;
    return ERR_OK;
}

static void close_file(struct weight_file *f)
{
    if (!f) return;
    if (!f->memory) file_reader_close(&f->reader);
    arena_clear(&f->arena);
    free(f->row);
    name_index_clear(&f->index);
    free(f->span_bytes);
    free(f);
}

/* Parse an opened file; one that does not parse is closed. */
static err_t finish_open(struct weight_source **out, struct weight_file *f,
                         weight_file_parse parse)
{
    err_t rc = refuse_lfs_pointer(f);
    if (rc == ERR_OK) rc = parse(f);
    if (rc != ERR_OK) {
        close_file(f);
        return rc;
    }
    *out = &f->source;
    return ERR_OK;
}

err_t weight_file_open(struct weight_source **out, const char *path, weight_file_parse parse)
{
    struct weight_file *f = NULL;
    TRY(create(&f));
    const err_t rc = file_reader_open(&f->reader, path);
    if (rc != ERR_OK) {
        close_file(f);
        return rc;
    }
    f->name = f->reader.path;
    f->size = f->reader.size;
    return finish_open(out, f, parse);
}

err_t weight_file_open_memory(struct weight_source **out, const void *bytes, int64_t size,
                              const char *name, weight_file_parse parse)
{
    struct weight_file *f = NULL;
    ASSERT(size >= 0);
    TRY(create(&f));
    f->memory = bytes;
    f->name = name;
    f->size = size;
    return finish_open(out, f, parse);
}

err_t weight_file_read(struct weight_file *f, void *out, int64_t offset, int64_t size)
{
    ASSERT(offset >= 0 && size >= 0);
    if (!f->memory) {
        TRY(file_reader_pread(&f->reader, out, size, offset));
        return ERR_OK;
    }
    if (offset > f->size || size > f->size - offset)
        RAISE(FORMAT, "%s: %lld bytes wanted at offset %lld of %lld", f->name, (long long)size,
              (long long)offset, (long long)f->size);
    if (size > 0) memcpy(out, f->memory + offset, (size_t)size);
    return ERR_OK;
}

err_t weight_file_text(struct weight_file *f, const char **out, const char *text, int64_t size)
{
    if (size >= WEIGHT_NAME_MAX)
        RAISE(FORMAT, "%s: a name of %lld bytes (at most %d): %.40s...", f->name, (long long)size,
              WEIGHT_NAME_MAX - 1, text);
    if (memchr(text, '\0', (size_t)size))
        RAISE(FORMAT, "%s: a name contains a NUL byte: %.40s", f->name, text);
    void *copy;
    TRY(arena_push(&f->arena, &copy, size + 1, 1));
    memcpy(copy, text, (size_t)size);
    *out = copy;
    return ERR_OK;
}

/* ---- table ---- */

/* count = product of dim; span = 1 + sum (dim-1) * stride, 0 for an empty tensor. */
static bool measure(struct weight_row *row)
{
    row->count = 1;
    row->span = 1;
    row->contiguous = true;
    /* Dimensions of one element may carry any stride; an empty tensor touches nothing. */
    int64_t stride = 1;
    for (int i = row->dims - 1; i >= 0; i--) {
        int64_t reach;
        if (row->dim[i] < 0 || row->stride[i] < 0) return false;
        if (row->dim[i] > 1 && row->stride[i] != stride) row->contiguous = false;
        if (!checked_mul(&row->count, row->count, row->dim[i])) return false;
        if (row->dim[i] > 0 && (!checked_mul(&reach, row->dim[i] - 1, row->stride[i]) ||
                                !checked_add(&row->span, row->span, reach)))
            return false;
        stride = row->count;
    }
    if (row->count == 0) {
        row->span = 0;
        row->contiguous = true;
    }
    return true;
}

err_t weight_file_add(struct weight_file *f, const struct weight_row *row, int64_t available)
{
    ASSERT(!f->index.entry);
    ASSERT(row->dims >= 0 && row->dims <= WEIGHT_DIMS_MAX);
    ARRAY_GROW(f->row, f->row_capacity, f->row_count + 1);
    struct weight_row *added = &f->row[f->row_count];
    *added = *row;
    char text[WEIGHT_SHAPE_TEXT_MAX];
    if (!measure(added))
        RAISE(FORMAT, "%s: %s: shape %s or its strides are negative or beyond 63 bits", f->name,
              row->name, weight_shape_text(text, row->dims, row->dim));
    if (added->span > available)
        RAISE(FORMAT, "%s: %s: shape %s reaches over %lld elements, but %lld are stored", f->name,
              row->name, weight_shape_text(text, row->dims, row->dim), (long long)added->span,
              (long long)available);
    f->row_count++;
    return ERR_OK;
}

err_t weight_file_finish(struct weight_file *f)
{
    int64_t twice[2];
    ASSERT(!f->index.entry);
    TRY(name_index_create(&f->index, f->row_count));
    for (int64_t i = 0; i < f->row_count; i++)
        f->index.entry[i] = (struct name_entry){ f->row[i].name, i };
    if (!name_index_sort(&f->index, twice))
        RAISE(FORMAT, "%s: tensor %s appears twice", f->name, f->row[twice[0]].name);
    return ERR_OK;
}

/* ---- the interface ---- */

static const struct weight_file *of(const struct weight_source *s)
{
    return (const struct weight_file *)s;
}

static int64_t file_count(const struct weight_source *s) { return of(s)->row_count; }

static struct weight_info file_info(const struct weight_source *s, int64_t index)
{
    const struct weight_row *row = &of(s)->row[index];
    struct weight_info info = { row->name, row->dtype, row->dims, { 1, 1, 1, 1 }, row->count };
    memcpy(info.dim, row->dim, (size_t)row->dims * sizeof row->dim[0]);
    return info;
}

static int64_t file_find(const struct weight_source *s, const char *name)
{
    return name_index_find(&of(s)->index, name);
}

/* Make span_bytes hold everything that `row` spans. */
static err_t load_span(struct weight_file *f, int64_t index)
{
    if (f->span_row == index) return ERR_OK;
    const struct weight_row *row = &f->row[index];
    const int64_t bytes = row->span * dtype_bytes(row->dtype);
    f->span_row = -1;
    free(f->span_bytes);
    f->span_bytes = malloc((size_t)bytes);
    if (!f->span_bytes)
        RAISE(NOMEM, "%s: %s: %lld bytes to put its elements in order", f->name, row->name,
              (long long)bytes);
    TRY(weight_file_read(f, f->span_bytes, row->begin, bytes));
    f->span_row = index;
    return ERR_OK;
}

static void gather(uint8_t *out, const uint8_t *span, const struct weight_row *row, int64_t first,
                   int64_t count)
{
    const int64_t bytes = dtype_bytes(row->dtype);
    int64_t at[WEIGHT_DIMS_MAX] = { 0 }, rest = first, offset = 0;
    for (int i = row->dims - 1; i >= 0; i--) {
        at[i] = rest % row->dim[i];
        rest /= row->dim[i];
        offset += at[i] * row->stride[i];
    }
    for (int64_t n = 0; n < count; n++) {
        memcpy(out + n * bytes, span + offset * bytes, (size_t)bytes);
        for (int i = row->dims - 1; i >= 0; i--) {
            offset += row->stride[i];
            if (++at[i] < row->dim[i]) break;
            offset -= row->dim[i] * row->stride[i];
            at[i] = 0;
        }
    }
}

static err_t file_read(struct weight_source *s, void *out, int64_t index, int64_t first,
                       int64_t count)
{
    struct weight_file *f = (struct weight_file *)s;
    const struct weight_row *row = &f->row[index];
    const int64_t bytes = dtype_bytes(row->dtype);
    if (row->contiguous) {
        TRY(weight_file_read(f, out, row->begin + first * bytes, count * bytes));
        return ERR_OK;
    }
    TRY(load_span(f, index));
    gather(out, f->span_bytes, row, first, count);
    return ERR_OK;
}

static void file_close(struct weight_source *s) { close_file((struct weight_file *)s); }

static const struct weight_source_ops file_ops = {
    .count = file_count,
    .info = file_info,
    .find = file_find,
    .read = file_read,
    .close = file_close,
};
