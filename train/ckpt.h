/*
 * ckpt.h - the full state of training on disk: published whole, checksummed, independent of how it
 * was computed.
 *
 *     run/ckpt/step-00001200/
 *         model.0000.safetensors ...   weights under their Hugging Face names
 *         optim.0000.safetensors ...   exp_avg.NAME and exp_avg_sq.NAME, master.NAME where there is
 *                                      one; of 8-bit moments exp_avg_codes.NAME (the tensor's
 *                                      shape) and exp_avg_absmax.NAME (one per ADAMW_BLOCK
 *                                      elements in row-major order), and the same of exp_avg_sq
 *         state.json                   struct ckpt_state (ckpt_state.c)
 *         MANIFEST.json                file -> bytes, sha256, crc32c of every 16 MiB; written last
 *     run/ckpt/best.json               which step had the lowest validation loss, if that is kept
 * File NNNN holds a fixed range of the parameter table: rows in order, a new file where the weights
 * of one would pass 2 GiB in f32. Tensors have their logical shapes, without padding. The bytes
 * depend on the state alone, and not on how weights and state are laid out or where they are kept.
 * Settings of a start alone (train.zero, train.out, ...) are in the run folder's settings.yaml.
 * Weights are in the precision that they are trained in; where there is a master, that is what the
 * model has learned (hf_checkpoint.h reads it).
 *
 * Saving: everything goes to step-....tmp, where rank 0 creates the files and every rank writes the
 * parts that it keeps; every file and the folder are fsynced; the manifest is written; the folder
 * is renamed and its parent fsynced. Only then are older checkpoints pruned.
 * After a failure before the rename the older ones are as they were and the temporary folder is
 * gone; a failure of the last fsync leaves the new one in place, whole, but perhaps not durable.
 * A folder on its way out is first renamed to step-....tmp too, so that whatever has the name
 * step-XXXXXXXX was once whole. Only one program at a time may save below one root (run.h locks).
 *
 * Fault points: ckpt.rename, and those of base/file.h.
 */
#ifndef TRAIN_CKPT_H
#define TRAIN_CKPT_H

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"
#include "base/file.h"
#include "model/glm.h"
#include "train/comm.h"
#include "train/formats.h"
#include "train/guard.h"
#include "train/optim.h"

#include <stdbool.h>
#include <stdint.h>

#define CKPT_VERSION        1
#define CKPT_PART_BYTES_MAX ((int64_t)2 << 30)
#define CKPT_BLOCK_BYTES    ((int64_t)16 << 20) /* of one crc32c in the manifest */
#define CKPT_NAME_MAX       64                  /* bytes of a file's name with the NUL */
#define CKPT_PROGRAM_MAX    32

/* The rule by which data/batch.h makes samples of step numbers. It rises when the same settings
 * would give other samples: a run that began under another rule cannot go on. */
#define CKPT_SAMPLER_VERSION 1

/* ---- state.json ---- */

/*
 * Beside these fields the file holds its version, the sampler's version, and the model's rotary
 * rounding and tie as plain fields (they repeat what the model's config.json says, and must agree).
 */
struct ckpt_state {
    int64_t step;         /* steps done: the next one to run */
    int64_t updates;      /* optimizer updates applied; == step unless some were skipped */
    int64_t samples;      /* samples consumed */
    int64_t stream_index; /* where the next step begins in the sample stream; tokens mode: -1 */
    int64_t lanes, seed;  /* batch.lanes and batch.seed of the run */
    struct stored_formats formats; /* f32 throughout where the file says nothing */
    double grad_norm;              /* of the last step, where the next is clipped by it; else 0 */
    struct guard_state guard;      /* what it remembers of the steps before */
    uint32_t crc32c;     /* of weights and state (checksum.h), where it was measured; else 0 */
    bool validation_due; /* a stop came before the validation of this step had ended */
    char program[CKPT_PROGRAM_MAX]; /* version of the program that wrote it */
    char corpus_sha256[SHA256_HEX_SIZE];
    char tokenizer_dir[FILE_PATH_MAX]; /* for export; may be "" */
    struct glm_config model;           /* stored as the text of a config.json */
    struct buf settings;               /* those that are the run's (settings_kind.h), as YAML */
    struct buf tuning; /* the device's measured choices (dev_tuning_write); may be empty */
};
void ckpt_state_clear(struct ckpt_state *state);

/* The text of state.json, appended. ERR_ARG: a path or setting that is not UTF-8. */
MUST_USE err_t ckpt_state_write(struct buf *out, const struct ckpt_state *state);
/* ERR_UNSUPPORTED: another version of format or sampler; ERR_FORMAT names the key. `name` is the
 * file, for messages. Clear *out also after a failure. */
MUST_USE err_t ckpt_state_parse(struct ckpt_state *out, const char *text, int64_t size,
                                const char *name);
MUST_USE err_t ckpt_state_read(struct ckpt_state *out, const char *dir);

/* ---- MANIFEST.json ---- */

struct ckpt_file {
    char name[CKPT_NAME_MAX]; /* letters, digits and ._- ; does not begin with a dot */
    int64_t bytes;
    char sha256[SHA256_HEX_SIZE];
    uint32_t *crc32c; /* [block_count] */
    int64_t block_count;
};

struct ckpt_manifest {
    int64_t step;
    struct ckpt_file *file; /* [file_count], by name */
    int64_t file_count;
};
void ckpt_manifest_clear(struct ckpt_manifest *m);

/* Add what it must say of the file dir/name, which is read. */
MUST_USE err_t ckpt_manifest_measure(struct ckpt_manifest *m, const char *dir, const char *name);
/* The text, appended; files are put in order. */
MUST_USE err_t ckpt_manifest_write(struct buf *out, struct ckpt_manifest *m);
/* ERR_UNSUPPORTED: another version; ERR_FORMAT. Clear *out also after a failure. */
MUST_USE err_t ckpt_manifest_parse(struct ckpt_manifest *out, const char *text, int64_t size,
                                   const char *name);
/* The manifest of a folder. Clear *out also after a failure. */
MUST_USE err_t ckpt_manifest_read(struct ckpt_manifest *out, const char *dir);
/*
 * Check a folder against its manifest: presence, sizes, digests of every file, the step of
 * state.json. ERR_UNSUPPORTED: written by another version; ERR_FORMAT, ERR_CHECKSUM, ERR_NOTFOUND
 * name the file; ERR_INTERRUPTED: stop_requested() between two pieces; ERR_IO, ERR_NOMEM.
 */
MUST_USE err_t ckpt_verify(const char *dir);
/* The same without digests: what files there are and how large they are. */
MUST_USE err_t ckpt_verify_sizes(const char *dir);
/* Whether the verdict of one of the two is that the checkpoint is damaged. ERR_IO is not: no file
 * descriptors left, no right to read, a network that is away or a disk that cannot be read say
 * nothing about the bytes, and may pass. */
bool ckpt_is_damage(err_t verdict);

/* ---- folders ---- */

MUST_USE err_t ckpt_path(char dir[FILE_PATH_MAX], const char *root, int64_t step);
/* Steps of the published checkpoints below root, newest first; *steps is yours (free). */
MUST_USE err_t ckpt_list(int64_t **steps, int64_t *count, const char *root);
/* The step that root/best.json marks (struct ckpt_keep), where there still is its folder; else -1,
 * with an infinite loss. */
MUST_USE err_t ckpt_best(int64_t *step, double *loss, const char *root);

/* ---- several ranks ---- */

/*
 * What a rank of several has of the state. Of every row it keeps a contiguous range of elements,
 * and the ranges of all ranks cover the row once: that rank writes them, weights included. Ranges
 * of rows with block-wise codes begin at multiples of ADAMW_BLOCK. When loading, it reads all
 * weights, or, where its optimizer's target is scattered, those of its ranges. NULL instead of the
 * struct: one rank, which has everything.
 */
struct ckpt_ranks {
    struct comm *comm;
    void (*owned)(const void *context, int64_t row, int64_t *first, int64_t *count);
    const void *context;
};

/* The same on every rank: ERR_OK, or the failure of the first rank that failed. `sum`, where not
 * NULL, becomes the sum over ranks. */
MUST_USE err_t ckpt_agree(const struct ckpt_ranks *ranks, err_t rc, int64_t *sum);

/* ---- saving and loading ---- */

/* Which checkpoints stay when a new one is in place. */
struct ckpt_keep {
    int64_t last;           /* the newest so many, >= 1 */
    bool best;              /* and the one with the lowest validation loss among those saved */
    double validation_loss; /* of the state that is saved; NAN: not measured */
};

/*
 * Save optim's target and state into root/step-XXXXXXXX, a piece at a time, and prune what `keep`
 * does not hold. Waits for the device. All ranks call it with equal arguments; it returns the same
 * on all, and after a failure of any nothing is published.
 * ERR_IO: says how many bytes are free and needed when the disk is too small, else the OS's reason.
 * What cannot be pruned is a warning, no error.
 */
MUST_USE err_t ckpt_save(const char *root, const struct ckpt_state *state, struct optim *optim,
                         const struct ckpt_keep *keep, const struct ckpt_ranks *ranks);
/* Whether the disk has room for one more checkpoint now, and its paths are not too long: better
 * asked before training than after hours of it. ERR_IO as ckpt_save, ERR_ARG. */
MUST_USE err_t ckpt_check_room(const char *root, const struct optim *optim);
/*
 * The step of the newest checkpoint below `root` that passes ckpt_verify; -1 when there is no
 * checkpoint at all. One that does not pass is reported by a warning that says why. ERR_FORMAT when
 * there are some and none passes: starting afresh would throw a run away unasked. ERR_UNSUPPORTED
 * when the newest was written by another version: an older one would not do. ERR_IO, ERR_NOMEM when
 * the newest cannot be read at present: steps are not given up for that. Rank 0 looks; what it
 * finds, and its failure, are everyone's. ERR_INTERRUPTED: a rank was asked to stop.
 */
MUST_USE err_t ckpt_newest(int64_t *step, const char *root, const struct ckpt_ranks *ranks);
/* Weights and optimizer state of a verified checkpoint in formats `stored` into a model of the same
 * table, whose formats may be others that hold the same values. Every rank reads what it has.
 * ERR_FORMAT names the tensor that is missing or has another shape; ERR_USAGE as
 * formats_check_resume; ERR_INTERRUPTED on all ranks when one of them was asked to stop. After any
 * error model and state hold part of both. */
MUST_USE err_t ckpt_load(const char *dir, const struct stored_formats *stored, struct optim *optim,
                         const struct ckpt_ranks *ranks);

#endif
