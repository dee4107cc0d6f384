#include "model/safetensors.h"

#include "base/check.h"
#include "base/num.h"
#include "model/json_in.h"
#include "model/weight_file.h"

#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES 8 /* the u64 before the header */

/* Every dtype of the format. Those without one of ours can be in a file and are not readable. */
static const struct {
    const char *name;
    int bits;
    dtype_t dtype;
} types[] = {
    { "F16", 16, DTYPE_F16 },
    { "BF16", 16, DTYPE_BF16 },
    { "F32", 32, DTYPE_F32 },
    { "F64", 64, DTYPE_F64 },
    { "I32", 32, DTYPE_I32 },
    { "I64", 64, DTYPE_I64 },
    { "U8", 8, DTYPE_U8 },
    { "I8", 8, DTYPE_COUNT },
    { "BOOL", 8, DTYPE_COUNT },
    { "I16", 16, DTYPE_COUNT },
    { "U16", 16, DTYPE_COUNT },
    { "U32", 32, DTYPE_COUNT },
    { "U64", 64, DTYPE_COUNT },
    { "C64", 64, DTYPE_COUNT },
    { "F4", 4, DTYPE_COUNT },
    { "F6_E2M3", 6, DTYPE_COUNT },
    { "F6_E3M2", 6, DTYPE_COUNT },
    { "F8_E5M2", 8, DTYPE_COUNT },
    { "F8_E4M3", 8, DTYPE_COUNT },
    { "F8_E8M0", 8, DTYPE_COUNT },
    { "F8_E4M3FNUZ", 8, DTYPE_COUNT },
    { "F8_E5M2FNUZ", 8, DTYPE_COUNT },
};

/* One header entry; begin and end are bytes from the start of the data. */
struct entry {
    const char *key; /* borrowed from the JSON */
    int64_t begin, end, count;
    int type; /* index into types */
    int dims;
    int64_t dim[WEIGHT_DIMS_MAX];
};

/* ---- reading ---- */

static err_t read_header(json_t **out, int64_t *data_begin, struct weight_file *f)
{
    uint64_t header_bytes;
    if (f->size < PREFIX_BYTES)
        RAISE(FORMAT, "%s: %lld bytes; a safetensors file has at least 8", f->name,
              (long long)f->size);
    TRY(weight_file_read(f, &header_bytes, 0, PREFIX_BYTES));
    if (header_bytes > SAFETENSORS_HEADER_BYTES_MAX)
        RAISE(FORMAT, "%s: header of %llu bytes, at most %d; is it a safetensors file?", f->name,
              (unsigned long long)header_bytes, SAFETENSORS_HEADER_BYTES_MAX);
    if ((int64_t)header_bytes > f->size - PREFIX_BYTES)
        RAISE(FORMAT, "%s: header of %llu bytes in a file of %lld", f->name,
              (unsigned long long)header_bytes, (long long)f->size);

    err_t rc = ERR_OK;
    char *text = malloc(header_bytes + 1);
    if (!text) RAISE(NOMEM, "%s: header of %llu bytes", f->name, (unsigned long long)header_bytes);
    TRY_DONE(weight_file_read(f, text, PREFIX_BYTES, (int64_t)header_bytes));
    if (header_bytes == 0 || text[0] != '{')
        RAISE_DONE(FORMAT, "%s: the header does not begin with {", f->name);
    TRY_DONE(json_in_parse(out, text, (int64_t)header_bytes, f->name));
    *data_begin = PREFIX_BYTES + (int64_t)header_bytes;
done:
    free(text);
    return rc;
}

static err_t read_metadata(json_t *metadata, const char *file)
{
    if (!json_is_object(metadata))
        RAISE(FORMAT, "%s: __metadata__ is %s; an object is wanted", file, json_in_type(metadata));
    const char *key;
    const json_t *value;
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            RAISE(FORMAT, "%s: __metadata__.%s is %s; a string is wanted", file, key,
                  json_in_type(value));
    }
    return ERR_OK;
}

static err_t read_type(struct entry *e, const json_t *value, const char *file)
{
    const json_t *dtype = json_object_get(value, "dtype");
    if (!json_is_string(dtype))
        RAISE(FORMAT, "%s: %s: dtype is %s; a string is wanted", file, e->key, json_in_type(dtype));
    for (e->type = 0; e->type < COUNT_OF(types); e->type++)
        if (strcmp(types[e->type].name, json_string_value(dtype)) == 0) return ERR_OK;
    RAISE(FORMAT, "%s: %s: unknown dtype %.32s", file, e->key, json_string_value(dtype));
}

static err_t read_shape(struct entry *e, const json_t *value, const char *file)
{
    const json_t *shape = json_object_get(value, "shape");
    if (!json_is_array(shape))
        RAISE(FORMAT, "%s: %s: shape is %s; an array is wanted", file, e->key, json_in_type(shape));
    const size_t dims = json_array_size(shape);
    if (dims > WEIGHT_DIMS_MAX)
        RAISE(UNSUPPORTED, "%s: %s has %zu dimensions, at most %d are read here", file, e->key,
              dims, WEIGHT_DIMS_MAX);
    e->dims = (int)dims;
    e->count = 1;
    for (int i = 0; i < e->dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            RAISE(FORMAT, "%s: %s: shape[%d] is not an integer from 0 up", file, e->key, i);
        e->dim[i] = json_integer_value(dim);
        if (!checked_mul(&e->count, e->count, e->dim[i]))
            RAISE(FORMAT, "%s: %s: its shape holds more than 2^63 elements", file, e->key);
    }
    return ERR_OK;
}

static err_t read_offsets(struct entry *e, const json_t *value, const char *file)
{
    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        RAISE(FORMAT, "%s: %s: data_offsets is not an array of two integers", file, e->key);
    e->begin = json_integer_value(begin);
    e->end = json_integer_value(end);
    if (e->begin < 0 || e->end < e->begin)
        RAISE(FORMAT, "%s: %s: data_offsets [%lld, %lld) are not an interval", file, e->key,
              (long long)e->begin, (long long)e->end);

    int64_t bits;
    if (!checked_mul(&bits, e->count, types[e->type].bits))
        RAISE(FORMAT, "%s: %s: its size overflows 63 bits", file, e->key);
    if (bits % 8 != 0 || bits / 8 != e->end - e->begin)
        RAISE(FORMAT, "%s: %s: shape and dtype %s take %lld bits, data_offsets hold %lld bytes",
              file, e->key, types[e->type].name, (long long)bits, (long long)(e->end - e->begin));
    return ERR_OK;
}

static err_t read_entry(struct entry *e, const char *key, const json_t *value, const char *file)
{
    *e = (struct entry){ .key = key };
    if (!json_is_object(value))
        RAISE(FORMAT, "%s: %s is %s; an object is wanted", file, key, json_in_type(value));
    if (json_object_size(value) != 3)
        RAISE(FORMAT, "%s: %s has %zu keys; dtype, shape and data_offsets are wanted", file, key,
              json_object_size(value));
    TRY(read_type(e, value, file));
    TRY(read_shape(e, value, file));
    TRY(read_offsets(e, value, file));
    return ERR_OK;
}

static int compare_places(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1; /* empty tensors before their neighbour */
    return strcmp(x->key, y->key);
}

/* Entries sorted by place must cover the data from its first byte to the file's end, once. */
static err_t check_places(const struct entry *e, int64_t count, int64_t data_bytes,
                          const char *file)
{
    int64_t end = 0;
    for (int64_t i = 0; i < count; i++) {
        if (e[i].begin != end)
            RAISE(FORMAT,
                  "%s: %s begins at byte %lld of the data, the tensors before it end at "
                  "%lld (%s)",
                  file, e[i].key, (long long)e[i].begin, (long long)end,
                  e[i].begin < end ? "overlap" : "hole");
        end = e[i].end;
    }
    if (end != data_bytes)
        RAISE(FORMAT, "%s: the tensors end at byte %lld of the data, the file has %lld%s", file,
              (long long)end, (long long)data_bytes, end > data_bytes ? "; is it cut short?" : "");
    return ERR_OK;
}

static err_t add_entries(struct weight_file *f, const struct entry *e, int64_t count,
                         int64_t data_begin)
{
    for (int64_t i = 0; i < count; i++) {
        struct weight_row row = { .dtype = types[e[i].type].dtype, .dims = e[i].dims };
        TRY(weight_file_text(f, &row.name, e[i].key, (int64_t)strlen(e[i].key)));
        row.begin = data_begin + e[i].begin;
        int64_t stride = e[i].count > 0; /* an empty tensor's dimensions may overflow */
        for (int d = e[i].dims - 1; d >= 0; d--) {
            row.dim[d] = e[i].dim[d];
            row.stride[d] = stride;
            stride *= e[i].dim[d];
        }
        TRY(weight_file_add(f, &row, e[i].count));
    }
    TRY(weight_file_finish(f));
    return ERR_OK;
}

static err_t parse(struct weight_file *f)
{
    err_t rc = ERR_OK;
    json_t *header = NULL;
    struct entry *entries = NULL;
    int64_t data_begin = 0, count = 0;
    TRY(read_header(&header, &data_begin, f));
    const int64_t key_count = (int64_t)json_object_size(header);
    entries = malloc((size_t)(key_count + 1) * sizeof *entries);
    if (!entries) RAISE_DONE(NOMEM, "%s: %lld tensors", f->name, (long long)key_count);

    const char *key;
    json_t *value;
    json_object_foreach(header, key, value)
    {
        if (strcmp(key, "__metadata__") == 0)
            TRY_DONE(read_metadata(value, f->name));
        else
            TRY_DONE(read_entry(&entries[count++], key, value, f->name));
    }
    qsort(entries, (size_t)count, sizeof *entries, compare_places);
    TRY_DONE(check_places(entries, count, f->size - data_begin, f->name));
    TRY_DONE(add_entries(f, entries, count, data_begin));
done:
    free(entries);
    json_decref(header);
    return rc;
}

err_t safetensors_source_open(struct weight_source **out, const char *path)
{
    return weight_file_open(out, path, parse);
}

err_t safetensors_source_open_memory(struct weight_source **out, const void *bytes, int64_t size,
                                     const char *name)
{
    return weight_file_open_memory(out, bytes, size, name, parse);
}
