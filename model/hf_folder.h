/*
 * hf_folder.h - a Hugging Face folder as a source and a target of weights.
 */
#ifndef MODEL_HF_FOLDER_H
#define MODEL_HF_FOLDER_H

#include "base/err.h"
#include "base/progress.h"
#include "model/glm.h"
#include "model/weights.h"

#include <stdint.h>

/*
 * All tensors of a folder as one source: model.safetensors[.index.json] first, else pytorch_model.bin[.index.json].
 * The index's weight_map must agree with the files: a tensor that is listed and absent, or in two files, is ERR_FORMAT naming it.
 * Git LFS pointer files are recognised ("is a Git LFS pointer; run git lfs pull"). The index's total_size is not trusted (the hub's is stale).
 */
MUST_USE err_t hf_folder_open(struct weight_source **out, const char *dir);

struct hf_export {
    dtype_t dtype;              /* of matrices and embeddings in the files: F16, BF16 or F32; norms are F32 in published files and here */
    int64_t shard_bytes_max;    /* about this much per file; 0 = 2 GB */
    const char *tokenizer_dir;  /* tokenizer files (ice_text.model, tokenizer_config.json, *.py) are copied from here; NULL: none */
    bool replace;               /* an existing folder may be replaced */
};

/*
 * Write model-0000k-of-0000n.safetensors, the index, config.json and tokenizer files into a folder that appears whole or not at all.
 * A tied tensor is written under both names. Every value is checked to be finite and, for F16, in range (ERR_NUMERIC names tensor and element).
 * `source` holds the weights by file names.
 */
MUST_USE err_t hf_folder_write(const char *dir, const struct glm_config *config,
                               struct weight_source *source, const struct hf_export *options);

#endif
