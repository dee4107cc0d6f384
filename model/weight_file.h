/*
 * weight_file.h - what the readers of one weight file share: the bytes (a file or memory), the
 * table of tensors found in them, and the weight_source interface on top. A reader (safetensors.c,
 * torch_zip.c) validates its format, adds one row per tensor and finishes the table:
 *
 *     static err_t parse(struct weight_file *f)
 *     {
 *         ... TRY(weight_file_add(f, &row)); ...
 *         return weight_file_finish(f);
 *     }
 *     return weight_file_open(out, path, parse);
 *
 * Internal to model/.
 */
#ifndef MODEL_WEIGHT_FILE_H
#define MODEL_WEIGHT_FILE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/file.h"
#include "model/name_index.h"
#include "model/weights.h"

#include <stdbool.h>
#include <stdint.h>

#define WEIGHT_NAME_MAX 1024 /* bytes of a tensor's name with the NUL */

struct weight_row {
    const char *name; /* in the arena */
    dtype_t dtype;    /* DTYPE_COUNT when not readable */
    int dims;
    int64_t dim[WEIGHT_DIMS_MAX];
    int64_t stride[WEIGHT_DIMS_MAX]; /* elements, >= 0 */
    int64_t begin;                   /* byte of element [0, 0, ...] */
    int64_t count;                   /* set by weight_file_add: product of dim */
    int64_t span;                    /* set by weight_file_add: elements from first to last */
    bool contiguous;                 /* set by weight_file_add */
};

struct weight_file {
    struct weight_source source; /* first: the interface's pointer is ours */
    struct file_reader reader;   /* when memory is NULL */
    const uint8_t *memory;       /* borrowed */
    const char *name;            /* for messages: path, or the name given */
    int64_t size;
    struct arena arena;
    struct weight_row *row;
    int64_t row_count, row_capacity;
    struct name_index index; /* after weight_file_finish */
    /* A tensor whose elements do not lie in row-major order: all it spans is read once and kept
     * until another such tensor is read. */
    uint8_t *span_bytes;
    int64_t span_row; /* -1: none */
};

/* Reads what is in the bytes: one row per tensor, then weight_file_finish. */
typedef err_t (*weight_file_parse)(struct weight_file *f);

/* Open and parse. *out is yours; weight_source_close it. ERR_NOTFOUND, ERR_IO; ERR_FORMAT for a Git
 * LFS pointer; what `parse` says. */
MUST_USE err_t weight_file_open(struct weight_source **out, const char *path,
                                weight_file_parse parse);
MUST_USE err_t weight_file_open_memory(struct weight_source **out, const void *bytes, int64_t size,
                                       const char *name, weight_file_parse parse);

/* Exactly these bytes, or ERR_FORMAT when they lie beyond the end. offset, size >= 0. */
MUST_USE err_t weight_file_read(struct weight_file *f, void *out, int64_t offset, int64_t size);
/* A NUL-terminated copy in the arena; ERR_FORMAT for a NUL inside or more than WEIGHT_NAME_MAX. */
MUST_USE err_t weight_file_text(struct weight_file *f, const char **out, const char *text,
                                int64_t size);

/*
 * Add a tensor. The name is already in the arena. Count and span are computed with overflow checks
 * and must fit into `available` elements from `begin`; what is wrong is ERR_FORMAT naming file and
 * tensor.
 */
MUST_USE err_t weight_file_add(struct weight_file *f, const struct weight_row *row,
                               int64_t available);
/* Sort the names; ERR_FORMAT when one appears twice. No row can be added after it. */
MUST_USE err_t weight_file_finish(struct weight_file *f);

#endif
