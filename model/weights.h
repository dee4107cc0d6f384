/*
 * weights.h - a source of named tensors, whatever file format they are in; and conversion while
 * reading. Formats (torch_zip.h, safetensors.h) implement the small interface; hf_folder.h joins
 * the files of a folder into one source.
 *
 *     struct weight_source *source;
 *     TRY(hf_folder_open(&source, "chatglm-6b"));
 *     index = weight_source_find(source, "lm_head.weight");
 *     TRY_DONE(weight_source_read_as(source, row, DTYPE_F32, index, 7 * columns, columns));
 *
 * One thread at a time per source. Files are read by offset in checked blocks, never mapped, so a
 * file that is cut short while we read is an error and not a signal.
 */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "base/err.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stdint.h>

#define WEIGHT_DIMS_MAX 4

struct weight_info {
    const char *name; /* borrowed from the source */
    dtype_t dtype; /* DTYPE_COUNT: a type we do not compute with (int8, bool, fp8); not readable */
    int dims;      /* 0 for a scalar */
    int64_t dim[WEIGHT_DIMS_MAX];
    int64_t count; /* elements; 0 when a dimension is 0 */
};

/* Opened by hf_folder_open, hf_checkpoint_open, safetensors_source_open, torch_zip_source_open. */
struct weight_source {
    const struct weight_source_ops *ops;
};

struct weight_source_ops {
    int64_t (*count)(const struct weight_source *s);
    struct weight_info (*info)(const struct weight_source *s, int64_t index);
    /* Index by name or -1. NULL: weight_source_find looks at every tensor's name. */
    int64_t (*find)(const struct weight_source *s, const char *name);
    /* Raw little-endian elements first .. first+count-1 in row-major order into `out`, in the
     * tensor's own dtype. The caller has checked index, range and dtype. */
    err_t (*read)(struct weight_source *s, void *out, int64_t index, int64_t first, int64_t count);
    void (*close)(struct weight_source *s);
};

int64_t weight_source_count(const struct weight_source *s);
struct weight_info weight_source_info(const struct weight_source *s, int64_t index);
/* Index by name, -1 when there is none. */
int64_t weight_source_find(const struct weight_source *s, const char *name);
/* ERR_DTYPE for a tensor that is not readable; ERR_FORMAT when the file ends early; ERR_IO.
 * ASSERTs that index and range exist. */
MUST_USE err_t weight_source_read(struct weight_source *s, void *out, int64_t index, int64_t first,
                                  int64_t count);
/* The same widened or rounded to f32, f64, f16 or bf16 (`dtype`); what is stored in `dtype` comes
 * bit by bit, f64 goes to 16 bits by way of f32. ERR_DTYPE for integer tensors too; ERR_NUMERIC for
 * a number beyond f16 or bf16, naming the tensor and the element. */
MUST_USE err_t weight_source_read_as(struct weight_source *s, void *out, dtype_t dtype,
                                     int64_t index, int64_t first, int64_t count);
/* Round f32 values to f16 or bf16, ties to even, or copy them to f32. Returns the first index at
 * which a finite value became infinite, -1 when none did. */
MUST_USE int64_t weight_round(void *out, dtype_t dtype, const float *values, int64_t count);
/* The way back: values of a float dtype as f32, f64 rounded. */
void weight_widen(float *out, dtype_t dtype, const void *values, int64_t count);
/* The 16-bit dtype that all tensors of two dimensions have, else F32: in which inference can keep
 * matrices without changing a value. */
dtype_t weight_source_matrix_dtype(const struct weight_source *s);
/*
 * Compare two tensors of a source block by block: *row = the first index of dim[0] at which they
 * differ, -1 when they are equal. Same dtype: by bytes; else by value (widened to f64; a NaN
 * differs from everything). ERR_SHAPE when the shapes differ.
 */
MUST_USE err_t weight_source_compare(int64_t *row, struct weight_source *s, int64_t index_a,
                                     int64_t index_b);
/* "[4096, 128]" into text, for messages. */
#define WEIGHT_SHAPE_TEXT_MAX 96
const char *weight_shape_text(char text[WEIGHT_SHAPE_TEXT_MAX], int dims, const int64_t *dim);
/* Whether these bytes begin a Git LFS pointer, which stands where a large file was not fetched. */
#define WEIGHT_LFS_ADVICE                                                                          \
    "is a Git LFS pointer, not the file itself; run git lfs pull in its folder"
bool weight_is_lfs_pointer(const void *bytes, int64_t size);
void weight_source_close(struct weight_source *s); /* NULL allowed */

#endif
