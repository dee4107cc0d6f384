/*
 * hf_checkpoint.h - a training checkpoint as a source of weights, for export and for inference.
 *
 *     run/ckpt/step-00001200/
 *         model.0000.safetensors ...  weights under their Hugging Face names
 *         optim.0000.safetensors ...  states; "master.NAME" is NAME in more precision, if present
 *         state.json                  model_config (the text of a config.json), tokenizer_dir
 *         MANIFEST.json               written last: a folder without it is not a checkpoint
 *
 * Sizes are checked against the manifest; digests are the business of resuming (train/ckpt.h).
 */
#ifndef MODEL_HF_CHECKPOINT_H
#define MODEL_HF_CHECKPOINT_H

#include "base/err.h"
#include "base/file.h"
#include "model/glm_config.h"
#include "model/weights.h"

/*
 * The checkpoint folder that `path` means: itself, or the newest complete one of a run folder
 * (path/ckpt/step-*) or of a folder of checkpoints (path/step-*). ERR_NOTFOUND when there is none
 * (it may be a Hugging Face folder); ERR_FORMAT for a step folder without manifest.
 */
MUST_USE err_t hf_checkpoint_find(char dir[FILE_PATH_MAX], const char *path);

/* All weights of a checkpoint folder, the master of each where there is one. Yours;
 * weight_source_close it. */
MUST_USE err_t hf_checkpoint_open(struct weight_source **out, const char *dir);

/* Configuration of the model and folder of its tokenizer ("" when the run knew none), from
 * state.json. */
MUST_USE err_t hf_checkpoint_config(struct glm_config *config, char tokenizer_dir[FILE_PATH_MAX],
                                    const char *dir);

#endif
