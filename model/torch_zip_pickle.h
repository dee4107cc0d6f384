/*
 * torch_zip_pickle.h - the tensors that data.pkl of a torch.save archive describes.
 *
 * The machine that reads it (torch_zip_machine.h) knows a fixed list of opcodes; this module gives
 * it a fixed list of globals: the storage classes, and the three calls that make dictionaries and
 * tensors. Nothing is imported, nothing else can be called. Stack, memo and size are bounded
 * (torch_zip.h). Internal to model/.
 */
#ifndef MODEL_TORCH_ZIP_PICKLE_H
#define MODEL_TORCH_ZIP_PICKLE_H

#include "base/arena.h"
#include "base/err.h"
#include "kernels/tensor.h"
#include "model/weights.h"

#include <stdint.h>

struct torch_tensor {
    const char *key; /* of its storage: the member data/<key> */
    dtype_t dtype;   /* DTYPE_COUNT for types without one of ours */
    int64_t element_bytes;
    int64_t storage_count; /* elements the storage says it has */
    int64_t offset;        /* elements from the storage's begin */
    int dims;
    int64_t dim[WEIGHT_DIMS_MAX], stride[WEIGHT_DIMS_MAX];
};

struct torch_pickle {
    struct arena arena;
    const char **name;                  /* [count], in the dictionary's order */
    const struct torch_tensor **tensor; /* [count]; two names may share one */
    int64_t count;
};

/* Yours; torch_pickle_clear it, also after failure. `file` is for messages. Everything is copied.
 * ERR_FORMAT names the opcode or global and its byte; ERR_UNSUPPORTED a tensor of too many
 * dimensions. */
MUST_USE err_t torch_pickle_read(struct torch_pickle *out, const void *bytes, int64_t size,
                                 const char *file);
void torch_pickle_clear(struct torch_pickle *p);

#endif
