/* ckpt_impl.h - what saving, loading and snapshots share. Private to train/ckpt*.c and snapshot.c.
 */
#ifndef TRAIN_CKPT_IMPL_H
#define TRAIN_CKPT_IMPL_H

#include "model/safetensors.h"
#include "train/ckpt.h"

#define CKPT_PIECE_BYTES (4 << 20) /* device to file in pieces of this size */
#define CKPT_WEIGHT_PART (-1)      /* beside enum optim_part: the weights themselves */
#define CKPT_TENSOR_MAX  (24 + GLM_NAME_MAX)
#define CKPT_MANIFEST    "MANIFEST.json"
#define CKPT_BEST        "best.json"

/* ---- which tensor lies in which file ---- */

/* A tensor of a file: a row's weights or a part of its state. */
struct ckpt_tensor {
    char name[CKPT_TENSOR_MAX];
    int part;
    int64_t row, count; /* elements */
    int64_t per;        /* of the row for one of these: 1, or ADAMW_BLOCK */
    dtype_t dtype;
};

struct ckpt_part {
    char name[CKPT_NAME_MAX];
    struct safetensors_entry *entry; /* [count] in file order */
    struct ckpt_tensor *tensor;      /* [count] */
    int64_t *begin;                  /* [count + 1] in the file, in bytes */
    struct buf header;
    int64_t count;
};

/* All files of weights, then all of state. Depends on the table and the formats alone. */
struct ckpt_parts {
    struct optim_format format; /* of the files, which may be another than a run's */
    struct ckpt_part *part;
    int64_t count, bytes;
};
MUST_USE err_t ckpt_parts_create(struct ckpt_parts *out, const struct glm_params *params,
                                 const struct stored_formats *formats);
void ckpt_parts_clear(struct ckpt_parts *parts);
/* Rows first .. return-1 of the table share a file: as many as keep its weights within
 * CKPT_PART_BYTES_MAX, at least one. */
int64_t ckpt_part_end(const struct glm_params *params, int64_t first);

/* ---- ranks ---- */

int64_t ckpt_rank(const struct ckpt_ranks *ranks);
int64_t ckpt_rank_count(const struct ckpt_ranks *ranks);
/* Elements of the tensor that this rank keeps. */
struct optim_range ckpt_owned(const struct ckpt_ranks *ranks, const struct ckpt_tensor *tensor);

/* ---- the manifest, file by file ---- */

/* A new entry, its name set. ERR_FORMAT: not the name of a checkpoint's file; `where` is for
 * messages. */
MUST_USE err_t ckpt_manifest_add(struct ckpt_file **out, struct ckpt_manifest *m, const char *name,
                                 const char *where);
typedef err_t ckpt_file_work(struct ckpt_file *file, const char *dir);
/* `work` on every file, in several threads where they have `bytes` enough in all. The failure of
 * the first in the list that fails; those after it may be left. */
MUST_USE err_t ckpt_each_file(struct ckpt_manifest *m, const char *dir, int64_t bytes,
                              ckpt_file_work *work);
/* Size and digests of dir/file->name. */
MUST_USE err_t ckpt_file_measure(struct ckpt_file *file, const char *dir);

/* ---- digests of one file, from its bytes in order ---- */

struct ckpt_meter {
    struct ckpt_file *file; /* grows */
    struct sha256 sha;
    uint32_t crc; /* of the block that is not full */
};
/* ERR_NOMEM. `file` is borrowed until ckpt_meter_end; only its name is used. */
MUST_USE err_t ckpt_meter_begin(struct ckpt_meter *meter, struct ckpt_file *file, int64_t bytes);
void ckpt_meter_add(struct ckpt_meter *meter, const void *bytes, int64_t size);
void ckpt_meter_end(struct ckpt_meter *meter);

/* ---- a save, step by step ---- */

/* Where the bytes come from: the device, or a copy in host memory. */
struct ckpt_source {
    /* The next elements, in file order and in calls of at most CKPT_PIECE_BYTES; *out is borrowed
     * until the next call. */
    err_t (*read)(struct ckpt_source *source, const void **out, const struct ckpt_tensor *tensor,
                  int64_t first, int64_t count);
    struct optim *optim;
    const struct ckpt_ranks *ranks;
    char *bytes; /* device: [CKPT_PIECE_BYTES] page-locked; copy: all of it */
    int64_t at;  /* copy: bytes handed out */
};
MUST_USE err_t ckpt_read_device(struct ckpt_source *source, const void **out,
                                const struct ckpt_tensor *tensor, int64_t first, int64_t count);

struct ckpt_saving {
    char root[FILE_PATH_MAX], dir[FILE_PATH_MAX], tmp[FILE_PATH_MAX];
    struct ckpt_parts parts;
    struct ckpt_manifest manifest; /* one rank: measured while writing */
    struct buf state;              /* text of state.json */
    struct ckpt_keep keep;
    int64_t step, rank, rank_count, written; /* bytes of tensors, by this rank */
    double begin_s;
    bool is_ours; /* rank 0: what has the temporary name; from its creation to the renaming */
};
/* Describe it, and make its temporary folder with all files in their full sizes: rank 0, when it
 * has looked for room. Like the two below, it is called by every rank and returns the same on all;
 * one of the ends follows also after a failure. */
MUST_USE err_t ckpt_saving_begin(struct ckpt_saving *s, const char *root,
                                 const struct ckpt_state *state, struct optim *optim,
                                 const struct ckpt_keep *keep, const struct ckpt_ranks *ranks);
/* What every rank keeps, from the device, and publication. */
MUST_USE err_t ckpt_saving_finish(struct ckpt_saving *s, struct optim *optim,
                                  const struct ckpt_ranks *ranks);
/* `rc` is how it went, and returned: after a failure nothing is left of it when any rank goes on,
 * and perhaps ends the others. */
MUST_USE err_t ckpt_saving_end(struct ckpt_saving *s, const struct ckpt_ranks *ranks, err_t rc);
/* The same without asking the others. Keeps the record of the failure. */
void ckpt_saving_drop(struct ckpt_saving *s, err_t rc);

/* This rank's part of ckpt_saving_finish: what it keeps, and fsync of every file. */
MUST_USE err_t ckpt_saving_write(struct ckpt_saving *s, struct ckpt_source *source);
/* Rank 0, when all have written: digests, state, manifest, the folder's name, pruning. `written` is
 * the sum over ranks. */
MUST_USE err_t ckpt_saving_publish(struct ckpt_saving *s, int64_t written);

/* ---- which ones stay (ckpt_folder.c) ---- */

/* Remove temporary folders, such as a killed program leaves. */
MUST_USE err_t ckpt_remove_leftovers(const char *root);
/* Keep the newest `keep_last` up to `step`, and step `best` (-1: none), and remove the older ones.
 * Newer ones are damaged ones that were passed over: they neither count nor go; training replaces
 * them as it gets there. */
MUST_USE err_t ckpt_prune(const char *root, int64_t step, int64_t keep_last, int64_t best);

/* Note step as the best where its loss is the lowest so far; *best is the step then, -1: none. */
MUST_USE err_t ckpt_best_note(int64_t *best, const char *root, const struct ckpt_keep *keep,
                              int64_t step);

#endif
