/*
 * safetensors.h - reader and writer of the safetensors format (huggingface/safetensors, README,
 * section "Format"):
 *
 *     u64 header_bytes | JSON { name: {dtype, shape, data_offsets}, __metadata__ } | data
 *
 * The reader validates everything before use: offsets contiguous from 0 without hole or overlap,
 * products checked for overflow, the file's size equal to the end of the data. The writer aligns
 * the data to 64 bytes and publishes whole files only (base/file.h).
 */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include "base/err.h"
#include "base/file.h"
#include "model/weights.h"

#include <stdint.h>

#define SAFETENSORS_HEADER_BYTES_MAX 100000000

/* Yours; weight_source_close it. ERR_NOTFOUND, ERR_FORMAT (names file, tensor, what was found and
 * expected). */
MUST_USE err_t safetensors_source_open(struct weight_source **out, const char *path);
/* From memory, for tests and fuzzing; bytes are borrowed. */
MUST_USE err_t safetensors_source_open_memory(struct weight_source **out, const void *bytes,
                                              int64_t size, const char *name);

/*
 * Writing: declare all tensors, then give their bytes in any order and any pieces. Places are fixed
 * by the declaration alone, so that several programs may write parts of one file
 * (safetensors_place).
 */
struct safetensors_entry {
    const char *name; /* borrowed until close */
    dtype_t dtype;
    int dims;
    int64_t dim[WEIGHT_DIMS_MAX];
};

struct safetensors_writer {
    struct file_writer file;
    int64_t *begin; /* [count + 1] file offset of each tensor's data; the last is the file's end */
    int64_t count;
    int64_t bytes;     /* size of the whole file */
    int64_t unwritten; /* bytes of data not given yet, if every byte is given once */
};

/*
 * `metadata`: pairs key, value, ..., NULL ("format", "pt", NULL is what transformers wants); may be
 * NULL. The header is padded with blanks so that the data begins at a multiple of 64; tensors
 * follow in the order given, without holes, as the format demands. ERR_ARG when a tensor would then
 * not begin at a multiple of its element size (readers take views: give wider types first) or a
 * name is empty, doubled or `__metadata__`; ERR_IO.
 */
MUST_USE err_t safetensors_writer_open(struct safetensors_writer *w, const char *path,
                                       const struct safetensors_entry *entries, int64_t count,
                                       const char *const *metadata);
/* `bytes` of tensor `index` from byte `offset` of its data; ASSERTs that they lie inside it. */
MUST_USE err_t safetensors_writer_write(struct safetensors_writer *w, int64_t index,
                                        const void *data, int64_t bytes, int64_t offset);
/* ERR_ARG when bytes are missing: nothing is published then. */
MUST_USE err_t safetensors_writer_commit(struct safetensors_writer *w);
void safetensors_writer_close(struct safetensors_writer *w); /* discards unless committed */
/* The bytes of the header, appended, and in *begin [count + 1] (free it) where each tensor's data
 * begins in the file; the last is the file's end. Errors as safetensors_writer_open. */
MUST_USE err_t safetensors_place(struct buf *header, int64_t **begin,
                                 const struct safetensors_entry *entries, int64_t count,
                                 const char *const *metadata);

#endif
