/* The file of bench_packs.h. */
#include "base/check.h"
#include "base/stop.h"
#include "model/safetensors.h"
#include "train/bench_batch.h"
#include "train/bench_packs.h"

#include <stdio.h>
#include <stdlib.h>

#define NAME_MAX_BYTES 32

/* The arrays of a micro-batch: which count they have, and where. */
enum count_of { COUNT_ROWS, COUNT_SEGMENTS, COUNT_TARGETS };

static const struct {
    const char *name;
    size_t field;
    dtype_t dtype;
    enum count_of count;
    int64_t cols; /* 1: one dimension */
} arrays[] = {
    { "ids", offsetof(struct glm_batch, ids), DTYPE_I32, COUNT_ROWS, 1 },
    { "pos", offsetof(struct glm_batch, pos), DTYPE_I32, COUNT_ROWS, 1 },
    { "block", offsetof(struct glm_batch, block), DTYPE_I32, COUNT_ROWS, 1 },
    { "order", offsetof(struct glm_batch, order), DTYPE_I32, COUNT_ROWS, 1 },
    { "segments", offsetof(struct glm_batch, segments), DTYPE_I32, COUNT_SEGMENTS, 3 },
    { "target_rows", offsetof(struct glm_batch, target_rows), DTYPE_I32, COUNT_TARGETS, 1 },
    { "labels", offsetof(struct glm_batch, labels), DTYPE_I32, COUNT_TARGETS, 1 },
    { "weights", offsetof(struct glm_batch, weights), DTYPE_F32, COUNT_TARGETS, 1 },
};

static int64_t *count_field(struct glm_batch *b, enum count_of which)
{
    return which == COUNT_ROWS       ? &b->rows
           : which == COUNT_SEGMENTS ? &b->segment_count
                                     : &b->target_count;
}

static void **array_field(struct glm_batch *b, int64_t i)
{
    return (void **)(void *)((char *)b + arrays[i].field);
}

static void array_name(char name[NAME_MAX_BYTES], int64_t micro, int64_t i)
{
    snprintf(name, NAME_MAX_BYTES, "%05lld/%s", (long long)micro, arrays[i].name);
}

/* ---- reading ---- */

/* Tensor `name` of these dimensions; dim[0] < 0: any, and then it says. *out: yours. */
static err_t read_tensor(void **out, struct weight_source *s, const char *path, const char *name,
                         dtype_t dtype, int64_t *rows, int64_t cols)
{
    const int64_t index = weight_source_find(s, name);
    if (index < 0) RAISE(FORMAT, "%s: no tensor %s; is it a file of packs?", path, name);
    const struct weight_info info = weight_source_info(s, index);
    const int dims = cols == 1 ? 1 : 2;
    if (info.dtype != dtype || info.dims != dims || (dims == 2 && info.dim[1] != cols) ||
        (*rows >= 0 && info.dim[0] != *rows))
        RAISE(FORMAT, "%s: %s does not have the type and shape of packs", path, name);
    *rows = info.dim[0];
    *out = malloc((size_t)(info.count > 0 ? info.count : 1) * 4);
    if (*out == NULL) RAISE(NOMEM, "%s: %s", path, name);
    return weight_source_read(s, *out, index, 0, info.count);
}

static err_t read_micro(struct glm_batch *b, struct weight_source *s, const char *path,
                        int64_t micro)
{
    char name[NAME_MAX_BYTES];
    b->rows = b->segment_count = b->target_count = -1;
    for (int64_t i = 0; i < COUNT_OF(arrays); i++) {
        array_name(name, micro, i);
        TRY(read_tensor(array_field(b, i), s, path, name, arrays[i].dtype,
                        count_field(b, arrays[i].count), arrays[i].cols));
    }
    return ERR_OK;
}

static err_t check_steps(const struct bench_packs *p, const char *path)
{
    bool ok = p->steps >= 1 && p->step_first[0] == 0;
    for (int64_t s = 0; ok && s < p->steps; s++) ok = p->step_first[s + 1] > p->step_first[s];
    if (!ok) RAISE(FORMAT, "%s: step_first does not increase from 0", path);
    return ERR_OK;
}

static err_t read_all(struct bench_packs *p, struct weight_source *s, const char *path)
{
    int64_t one = 1, steps = -1;
    int32_t *vocab = NULL;
    const err_t rc = read_tensor((void **)&vocab, s, path, "vocab_size", DTYPE_I32, &one, 1);
    if (rc == ERR_OK) p->vocab_size = *vocab;
    free(vocab);
    if (rc != ERR_OK) return rc;
    TRY(read_tensor((void **)&p->step_first, s, path, "step_first", DTYPE_I32, &steps, 1));
    p->steps = steps - 1;
    TRY(check_steps(p, path));
    const int64_t count = p->step_first[p->steps];
    if (count > weight_source_count(s))
        RAISE(FORMAT, "%s: %lld micro-batches in a file of %lld tensors", path, (long long)count,
              (long long)weight_source_count(s));
    p->micro = calloc((size_t)count, sizeof *p->micro);
    if (p->micro == NULL) RAISE(NOMEM, "%s: %lld micro-batches", path, (long long)count);
    p->micro_count = count;
    for (int64_t i = 0; i < count; i++) TRY(read_micro(&p->micro[i], s, path, i));
    return ERR_OK;
}

err_t bench_packs_read(struct bench_packs *out, const char *path)
{
    struct weight_source *source;
    *out = (struct bench_packs){ 0 };
    TRY(safetensors_source_open(&source, path));
    const err_t rc = read_all(out, source, path);
    weight_source_close(source);
    if (rc != ERR_OK) bench_packs_clear(out);
    return rc;
}

/* ---- writing ---- */

struct packs_file {
    struct safetensors_entry *entries;
    const void **data;
    char (*names)[NAME_MAX_BYTES];
    int64_t count;
};

static void add_entry(struct packs_file *f, const char *name, dtype_t dtype, int64_t rows,
                      int64_t cols, const void *data)
{
    char *kept = f->names[f->count];
    snprintf(kept, NAME_MAX_BYTES, "%s", name);
    f->data[f->count] = data;
    f->entries[f->count++] = (struct safetensors_entry){
        .name = kept, .dtype = dtype, .dims = cols == 1 ? 1 : 2, .dim = { rows, cols }
    };
}

static void add_all(struct packs_file *f, const struct bench_packs *p, const int32_t *vocab)
{
    char name[NAME_MAX_BYTES];
    add_entry(f, "vocab_size", DTYPE_I32, 1, 1, vocab);
    add_entry(f, "step_first", DTYPE_I32, p->steps + 1, 1, p->step_first);
    for (int64_t m = 0; m < p->micro_count; m++) {
        for (int64_t i = 0; i < COUNT_OF(arrays); i++) {
            array_name(name, m, i);
            add_entry(f, name, arrays[i].dtype, *count_field(&p->micro[m], arrays[i].count),
                      arrays[i].cols, *array_field(&p->micro[m], i));
        }
    }
}

static err_t write_file(const struct packs_file *f, const char *path)
{
    static const char *const metadata[] = { "format", "soulchat packs 1", NULL };
    err_t rc = ERR_OK;
    struct safetensors_writer w;
    TRY(safetensors_writer_open(&w, path, f->entries, f->count, metadata));
    for (int64_t i = 0; i < f->count; i++) {
        const int64_t cols = f->entries[i].dims == 1 ? 1 : f->entries[i].dim[1];
        if (stop_requested()) RAISE_DONE(INTERRUPTED, "stopped; %s is as it was", path);
        TRY_DONE(safetensors_writer_write(&w, i, f->data[i], f->entries[i].dim[0] * cols * 4, 0));
    }
    TRY_DONE(safetensors_writer_commit(&w));
done:
    safetensors_writer_close(&w);
    return rc;
}

err_t bench_packs_write(const struct bench_packs *p, const char *path)
{
    const size_t count = 2 + (size_t)p->micro_count * COUNT_OF(arrays);
    const int32_t vocab = (int32_t)p->vocab_size;
    struct packs_file f = { .entries = calloc(count, sizeof *f.entries),
                            .data = calloc(count, sizeof *f.data),
                            .names = calloc(count, sizeof *f.names) };
    err_t rc = ERR_OK;
    if (f.entries == NULL || f.data == NULL || f.names == NULL)
        RAISE_DONE(NOMEM, "%s: %zu tensors", path, count);
    add_all(&f, p, &vocab);
    rc = write_file(&f, path);
done:
    free(f.names);
    free(f.data);
    free(f.entries);
    return rc;
}
