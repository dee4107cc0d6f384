/*
 * ckpt.h - the full state of training on disk: published whole, checksummed, independent of how it
 * was computed.
 *
 *     run/ckpt/step-00001200/
 *         model.0000.safetensors ...   weights under their Hugging Face names
 *         optim.0000.safetensors ...   exp_avg.NAME and exp_avg_sq.NAME
 *         state.json                   struct ckpt_state
 *         MANIFEST.json                file -> bytes, sha256, crc32c of every 16 MiB; written last
 * File NNNN holds a fixed range of the parameter table: rows in order, a new file where the weights of
 * one would pass 2 GiB. Tensors have their logical shapes, without padding. The bytes depend on the
 * state alone.
 *
 * Saving: everything goes to step-....tmp; every file and the folder are fsynced; the manifest is
 * written; the folder is renamed and its parent fsynced. Only then are older checkpoints pruned.
 * After a failure the older ones are as they were and the temporary folder is gone.
 */
#ifndef TRAIN_CKPT_H
#define TRAIN_CKPT_H

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/file.h"
#include "model/glm.h"
#include "train/optim.h"

#include <stdbool.h>
#include <stdint.h>

#define CKPT_VERSION        1
#define CKPT_PART_BYTES_MAX ((int64_t)2 << 30)

struct ckpt_state {
    int64_t step;    /* steps done: the next one to run */
    int64_t updates; /* optimizer updates applied; == step unless some were skipped */
    int64_t samples; /* samples consumed */
    char corpus_sha256[SHA256_HEX_SIZE];
    char tokenizer_dir[FILE_PATH_MAX]; /* for export; may be "" */
    struct buf model_config;           /* config.json of the model, as text */
    struct buf settings;               /* resolved settings, as YAML */
};
void ckpt_state_clear(struct ckpt_state *state);

/*
 * Save into root/step-XXXXXXXX and prune all but the newest `keep_last`. Waits for the device.
 * ERR_IO: says how many bytes are free and needed when the disk is too small, else the OS's reason.
 */
MUST_USE err_t ckpt_save(const char *root, const struct ckpt_state *state, struct glm *glm,
                         struct optim *optim, int64_t keep_last);

/*
 * The newest checkpoint below `root` that passes ckpt_verify, or *found = false. A newer one that does not
 * pass is reported by a warning that says why.
 */
MUST_USE err_t ckpt_newest(char dir[FILE_PATH_MAX], bool *found, const char *root);

/* Check version, presence, sizes and digests of every file. ERR_FORMAT, ERR_CHECKSUM, ERR_NOTFOUND name the file. */
MUST_USE err_t ckpt_verify(const char *dir);

MUST_USE err_t ckpt_read_state(struct ckpt_state *out, const char *dir);
/* Weights and optimizer state of a verified checkpoint into a model of the same table. ERR_FORMAT names
 * the tensor that is missing or has another shape. */
MUST_USE err_t ckpt_load(const char *dir, struct glm *glm, struct optim *optim);

/* ---- parts of the above, each in a file of its own ---- */

/* Write dir/MANIFEST.json over all other files of the folder (ckpt_manifest.c). */
MUST_USE err_t ckpt_manifest_write(const char *dir, int64_t step);
/* Steps of the published checkpoints below root, newest first (ckpt_folder.c); *steps is yours (free). */
MUST_USE err_t ckpt_list(int64_t **steps, int64_t *count, const char *root);
MUST_USE err_t ckpt_path(char dir[FILE_PATH_MAX], const char *root, int64_t step);
/* Remove all but the newest `keep_last`, and temporary folders left by a killed process. */
MUST_USE err_t ckpt_prune(const char *root, int64_t keep_last);

#endif
