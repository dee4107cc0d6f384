/*
 * weights.h - a source of named tensors, whatever file format they are in; and conversion while reading.
 * Formats (torch_zip.h, safetensors.h) implement the small interface; hf_folder.h joins the files of a folder into one source.
 */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "base/err.h"
#include "kernels/tensor.h"

#include <stdint.h>

#define WEIGHT_DIMS_MAX 4

struct weight_info {
    const char *name; /* borrowed from the source */
    dtype_t dtype;
    int dims;
    int64_t dim[WEIGHT_DIMS_MAX];
    int64_t count;
};

/* Opened by hf_folder_open, safetensors_source_open, torch_zip_source_open. */
struct weight_source {
    const struct weight_source_ops *ops;
};

struct weight_source_ops {
    int64_t (*count)(const struct weight_source *s);
    struct weight_info (*info)(const struct weight_source *s, int64_t index);
    /* Raw little-endian elements first .. first+count-1 in row-major order into `out`, in the tensor's own dtype. */
    err_t (*read)(struct weight_source *s, void *out, int64_t index, int64_t first, int64_t count);
    void (*close)(struct weight_source *s);
};

int64_t weight_source_count(const struct weight_source *s);
struct weight_info weight_source_info(const struct weight_source *s, int64_t index);
/* Index by name, -1 when there is none. */
int64_t weight_source_find(const struct weight_source *s, const char *name);
MUST_USE err_t weight_source_read(struct weight_source *s, void *out, int64_t index, int64_t first,
                                  int64_t count);
/* The same widened or rounded to f32 or f64 (`dtype`). ERR_DTYPE for integer tensors. */
MUST_USE err_t weight_source_read_as(struct weight_source *s, void *out, dtype_t dtype,
                                     int64_t index, int64_t first, int64_t count);
void weight_source_close(struct weight_source *s); /* NULL allowed */

#endif
