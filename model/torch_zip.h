/*
 * torch_zip.h - reader of PyTorch .bin files (zip of a pickle and raw storages, as torch.save
 * writes since 1.6). The pickle is parsed by a machine that can only build tensors: it knows a
 * fixed list of opcodes and a fixed list of globals, imports nothing, runs nothing, and bounds
 * stack, memo and size. Anything else is ERR_FORMAT naming the opcode or global and its byte
 * position. Only the zip's central directory is trusted for sizes; zip64 and mixed dtypes are read.
 */
#ifndef MODEL_TORCH_ZIP_H
#define MODEL_TORCH_ZIP_H

#include "base/err.h"
#include "model/weights.h"

#include <stdint.h>

#define TORCH_PICKLE_BYTES_MAX (64 << 20)
#define TORCH_MEMO_MAX         (1 << 20)
#define TORCH_STACK_MAX        (1 << 20)

/* Yours; weight_source_close it. ERR_NOTFOUND; ERR_FORMAT; legacy (before torch 1.6) files are
 * refused with the way to convert them. */
MUST_USE err_t torch_zip_source_open(struct weight_source **out, const char *path);
MUST_USE err_t torch_zip_source_open_memory(struct weight_source **out, const void *bytes,
                                            int64_t size, const char *name);

#endif
