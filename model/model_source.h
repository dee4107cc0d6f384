/*
 * model_source.h - a model from whatever folder a user names: a Hugging Face folder, a run folder
 * of `soulchat train` (its newest checkpoint), or one checkpoint. What it is, its weights, and
 * where its tokenizer is.
 */
#ifndef MODEL_MODEL_SOURCE_H
#define MODEL_MODEL_SOURCE_H

#include "base/err.h"
#include "base/file.h"
#include "model/glm_config.h"
#include "model/weights.h"

struct model_source {
    char dir[FILE_PATH_MAX];           /* the folder that was meant */
    char tokenizer_dir[FILE_PATH_MAX]; /* "" where the checkpoint knows none */
    struct glm_config config;          /* as stored; settings are applied by the caller */
    struct weight_source *weights;
};

/* ERR_NOTFOUND: no such folder, or nothing of a model in it; else as hf_checkpoint.h and
 * hf_folder.h. Close it also after a failure. */
MUST_USE err_t model_source_open(struct model_source *out, const char *path);
void model_source_close(struct model_source *s);

#endif
