#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES 8 /* the u64 before the header */
#define DATA_ALIGN   64

static const char *const type_names[DTYPE_COUNT] = {
    [DTYPE_F32] = "F32", [DTYPE_BF16] = "BF16", [DTYPE_F16] = "F16", [DTYPE_F64] = "F64",
    [DTYPE_I32] = "I32", [DTYPE_I64] = "I64",   [DTYPE_U8] = "U8",
};

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static err_t check_names(const struct safetensors_entry *e, int64_t count)
{
    err_t rc = ERR_OK;
    const char **names = malloc((size_t)(count + 1) * sizeof *names);
    if (!names) RAISE(NOMEM, "names of %lld tensors", (long long)count);
    for (int64_t i = 0; i < count; i++) {
        names[i] = e[i].name;
        if (e[i].name[0] == '\0' || strcmp(e[i].name, "__metadata__") == 0)
            RAISE_DONE(ARG, "a tensor cannot be named \"%s\"", e[i].name);
    }
    qsort(names, (size_t)count, sizeof *names, compare_text);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            RAISE_DONE(ARG, "two tensors are named %s", names[i]);
done:
    free(names);
    return rc;
}

/* begin[i] = place of tensor i in the data; begin[count] = bytes of all. */
static err_t place(int64_t *begin, const struct safetensors_entry *e, int64_t count)
{
    TRY(check_names(e, count));
    begin[0] = 0;
    for (int64_t i = 0; i < count; i++) {
        ASSERT(e[i].dims >= 0 && e[i].dims <= WEIGHT_DIMS_MAX);
        ASSERT(e[i].dtype >= 0 && e[i].dtype < DTYPE_COUNT);
        const int64_t unit = dtype_bytes(e[i].dtype);
        int64_t bytes = unit;
        for (int d = 0; d < e[i].dims; d++)
            if (!checked_mul(&bytes, bytes, e[i].dim[d]))
                RAISE(ARG, "%s: its shape is negative or beyond 63 bits", e[i].name);
        if (begin[i] % unit != 0)
            RAISE(ARG,
                  "%s (%s) would begin at byte %lld, not a multiple of %lld; put wider types "
                  "first",
                  e[i].name, dtype_name(e[i].dtype), (long long)begin[i], (long long)unit);
        if (!checked_add(&begin[i + 1], begin[i], bytes))
            RAISE(ARG, "%s: the file would be beyond 63 bits", e[i].name);
    }
    return ERR_OK;
}

/* `text` as a JSON string, quoted. ERR_ARG when it is not UTF-8. */
static err_t append_string(struct buf *out, const char *text)
{
    const int64_t size = (int64_t)strlen(text);
    if (utf8_valid_prefix(text, size) < size) RAISE(ARG, "not valid UTF-8: %.80s", text);
    json_t *value = json_string(text);
    char *quoted = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    if (!quoted) RAISE(NOMEM, "JSON text of %.80s", text);
    const err_t rc = buf_puts(out, quoted);
    free(quoted);
    return rc;
}

static err_t append_entry(struct buf *out, const struct safetensors_entry *e, int64_t begin,
                          int64_t end)
{
    TRY(append_string(out, e->name));
    TRY(buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", type_names[e->dtype]));
    for (int d = 0; d < e->dims; d++)
        TRY(buf_printf(out, "%s%lld", d ? "," : "", (long long)e->dim[d]));
    TRY(buf_printf(out, "],\"data_offsets\":[%lld,%lld]}", (long long)begin, (long long)end));
    return ERR_OK;
}

/* The u64, the JSON and its padding. */
static err_t build_header(struct buf *out, const struct safetensors_entry *e, const int64_t *begin,
                          int64_t count, const char *const *metadata)
{
    const char zero[PREFIX_BYTES] = { 0 };
    bool first = true;
    TRY(buf_append(out, zero, sizeof zero));
    TRY(buf_puts(out, "{"));
    if (metadata && metadata[0]) {
        TRY(buf_puts(out, "\"__metadata__\":{"));
        for (int i = 0; metadata[i]; i += 2) {
            ASSERT(metadata[i + 1]);
            TRY(buf_puts(out, i ? "," : ""));
            TRY(append_string(out, metadata[i]));
            TRY(buf_puts(out, ":"));
            TRY(append_string(out, metadata[i + 1]));
        }
        TRY(buf_puts(out, "}"));
        first = false;
    }
    for (int64_t i = 0; i < count; i++, first = false) {
        TRY(buf_puts(out, first ? "" : ","));
        TRY(append_entry(out, &e[i], begin[i], begin[i + 1]));
    }
    TRY(buf_puts(out, "}"));
    while (out->size % DATA_ALIGN != 0) TRY(buf_puts(out, " "));
    const uint64_t header_bytes = out->size - PREFIX_BYTES;
    if (header_bytes > SAFETENSORS_HEADER_BYTES_MAX)
        RAISE(ARG, "the header takes %llu bytes, at most %d", (unsigned long long)header_bytes,
              SAFETENSORS_HEADER_BYTES_MAX);
    memcpy(out->data, &header_bytes, PREFIX_BYTES);
    return ERR_OK;
}

err_t safetensors_place(struct buf *header, int64_t **begin,
                        const struct safetensors_entry *entries, int64_t count,
                        const char *const *metadata)
{
    err_t rc = ERR_OK;
    int64_t *places = malloc((size_t)(count + 1) * sizeof *places);
    if (!places) RAISE(NOMEM, "places of %lld tensors", (long long)count);
    TRY_DONE(place(places, entries, count));
    TRY_DONE(build_header(header, entries, places, count, metadata));
    for (int64_t i = 0; i <= count; i++)
        if (!checked_add(&places[i], places[i], (int64_t)header->size))
            RAISE_DONE(ARG, "the file would be beyond 63 bits");
    *begin = places;
    return ERR_OK;
done:
    free(places);
    return rc;
}

err_t safetensors_writer_open(struct safetensors_writer *w, const char *path,
                              const struct safetensors_entry *entries, int64_t count,
                              const char *const *metadata)
{
    err_t rc = ERR_OK;
    struct buf header = { 0 };
    *w = (struct safetensors_writer){ .file = { .fd = -1 }, .count = count };
    TRY_DONE(safetensors_place(&header, &w->begin, entries, count, metadata));
    w->bytes = w->begin[count];
    w->unwritten = w->bytes - w->begin[0];
    TRY_DONE(file_writer_open(&w->file, path));
    TRY_DONE(file_writer_append(&w->file, header.data, (int64_t)header.size));
done:
    buf_clear(&header);
    if (rc != ERR_OK) safetensors_writer_close(w);
    return rc;
}

err_t safetensors_writer_write(struct safetensors_writer *w, int64_t index, const void *data,
                               int64_t bytes, int64_t offset)
{
    ASSERT(index >= 0 && index < w->count);
    ASSERT(offset >= 0 && bytes >= 0);
    ASSERT(bytes <= w->begin[index + 1] - w->begin[index] - offset);
    TRY(file_writer_pwrite(&w->file, data, bytes, w->begin[index] + offset));
    w->unwritten -= bytes;
    return ERR_OK;
}

err_t safetensors_writer_commit(struct safetensors_writer *w)
{
    if (w->unwritten > 0)
        RAISE(ARG, "%s: %lld bytes of its tensors were not given", w->file.path,
              (long long)w->unwritten);
    TRY(file_writer_commit(&w->file));
    return ERR_OK;
}

void safetensors_writer_close(struct safetensors_writer *w)
{
    file_writer_close(&w->file);
    free(w->begin);
    *w = (struct safetensors_writer){ .file = { .fd = -1 } };
}
