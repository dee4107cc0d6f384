/*
 * hf_folder.h - a Hugging Face folder as a source and a target of weights.
 *
 *     TRY(glm_config_read(&config, "chatglm-6b"));
 *     TRY(hf_folder_open(&source, "chatglm-6b"));
 *     rc = hf_folder_write("out", &config, source, &(struct hf_export){ .dtype = DTYPE_F16 });
 *     weight_source_close(source);
 */
#ifndef MODEL_HF_FOLDER_H
#define MODEL_HF_FOLDER_H

#include "base/err.h"
#include "kernels/tensor.h"
#include "model/glm_config.h"
#include "model/weights.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * All tensors of a folder as one source; yours, weight_source_close it. Looked for in this order:
 * model.safetensors, its index (model.safetensors.index.json), pytorch_model.bin, its index.
 * ERR_NOTFOUND when there is none, or when a file that the index names is absent. The index's
 * weight_map must agree with the files: a tensor that is listed and absent, listed under another
 * file, or in two files, is ERR_FORMAT naming it; one that is in a file and not listed is read. Git
 * LFS pointer files are recognised. The index's total_size is not looked at (the hub's is stale).
 */
MUST_USE err_t hf_folder_open(struct weight_source **out, const char *dir);

struct hf_export_report {
    int64_t tensor_count, file_count;
    int64_t element_count; /* of the model: a tied tensor once, buffers not */
    int64_t bytes;         /* of tensors: the index's total_size */
};

struct hf_export {
    dtype_t dtype;           /* of matrices, embeddings and biases: F16, BF16, F32; norms are F32 */
    int64_t shard_bytes_max; /* about this much per file; 0 = 2 GB */
    const char *tokenizer_dir; /* tokenizer files and model code come from here; NULL: none */
    bool replace;              /* an existing folder that holds a model may be replaced */
    bool any_alpha;     /* allow a residual_alpha other than sqrt(56), which nobody else knows */
    bool show_progress; /* draw a progress line */
    struct hf_export_report *report; /* filled on success; may be NULL */
};

/* What hf_folder_write refuses before it begins: ERR_ARG as there. */
MUST_USE err_t hf_folder_check(const char *dir, const struct glm_config *config,
                               const struct hf_export *options);

/*
 * Write config.json, weights and tokenizer files into a folder that appears whole or not at all:
 * everything goes to dir.tmp (what an export that was killed left there is removed first), every
 * file is fsynced, then the folder is renamed. Weights are one model.safetensors, or
 * model-0000k-of-0000n.safetensors with an index. `source` holds them by file names; what else it
 * holds is ignored. A tied tensor is written under both names; the rotary buffers are written as in
 * the published files (float16).
 *
 * ERR_ARG      residual_alpha, a dtype not listed, dir exists and may not be replaced, or is the
 *              tokenizer_dir; dir.tmp exists, and no export began it
 * ERR_FORMAT   a tensor is missing or has another shape; tied tensors differ (names the first row)
 * ERR_NUMERIC  a value is not finite or, for F16, out of range; names tensor and element
 * ERR_IO       also when the disk has too little room, before anything is written
 * ERR_INTERRUPTED  stop_requested() between two blocks
 *
 * After a failure there is no dir.tmp, and an existing folder is as it was. Only when the very last
 * steps fail (syncing the parent; removing the replaced folder, which is dir.tmp by then) the new
 * folder is in place.
 */
MUST_USE err_t hf_folder_write(const char *dir, const struct glm_config *config,
                               struct weight_source *source, const struct hf_export *options);

#endif
