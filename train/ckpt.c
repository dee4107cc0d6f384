/* Saving and loading: arenas to files and back. */
#include "train/ckpt.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES     (4 << 20) /* device to file in pieces of this size */
#define OTHER_BYTES     (1 << 20) /* manifest, folder entries: what the free-space check adds */
#define PREFIX_MAX      16
#define TENSOR_NAME_MAX (PREFIX_MAX + GLM_NAME_MAX)

static const char *const metadata[] = { "format", "pt", NULL };

/* ---- which tensor lies in which file ---- */

/* What one kind of file holds: the arenas and the prefix of their tensors' names. */
struct part_kind {
    const char *file; /* "model" */
    int64_t arena_count;
    struct {
        const char *prefix; /* "exp_avg." */
        struct tensor flat;
    } arena[2];
};

static struct part_kind kind_model(struct glm *glm)
{
    return (struct part_kind){ "model", 1, { { "", glm_weights(glm) } } };
}

static struct part_kind kind_optim(struct optim *optim)
{
    return (struct part_kind){ "optim",
                               2,
                               { { "exp_avg.", optim_exp_avg(optim) },
                                 { "exp_avg_sq.", optim_exp_avg_sq(optim) } } };
}

int64_t ckpt_part_end(const struct glm_params *params, int64_t first)
{
    int64_t end = first, bytes = 0;
    while (end < params->count) {
        bytes += params->row[end].count * (int64_t)sizeof(float);
        if (end > first && bytes > CKPT_PART_BYTES_MAX) break;
        end++;
    }
    return end;
}

/* One file: its tensors in file order, and where each lies on the device. */
struct part {
    char path[FILE_PATH_MAX];
    struct safetensors_entry *entry;
    char (*name)[TENSOR_NAME_MAX];
    struct tensor *tensor;
    int64_t count;
};

static void part_clear(struct part *p)
{
    free(p->entry);
    free(p->name);
    free(p->tensor);
}

static void part_add(struct part *p, const struct tensor *t, const char *prefix, const char *name)
{
    struct safetensors_entry *entry = &p->entry[p->count];
    snprintf(p->name[p->count], sizeof p->name[0], "%s%s", prefix, name);
    *entry = (struct safetensors_entry){ p->name[p->count], t->dtype, t->dims, { 0 } };
    for (int d = 0; d < t->dims; d++) entry->dim[d] = t->dim[d];
    p->tensor[p->count++] = *t;
}

/* Rows first..end-1 of every arena of the kind, arena by arena. */
static err_t part_build(struct part *p, const struct part_kind *kind, struct glm *glm,
                        int64_t first, int64_t end)
{
    const struct glm_params *params = glm_params(glm);
    const size_t count = (size_t)(kind->arena_count * (end - first));
    p->entry = calloc(count, sizeof *p->entry);
    p->name = calloc(count, sizeof *p->name);
    p->tensor = calloc(count, sizeof *p->tensor);
    if (p->entry == NULL || p->name == NULL || p->tensor == NULL)
        RAISE(NOMEM, "checkpoint: no memory for a list of %zu tensors", count);
    for (int64_t a = 0; a < kind->arena_count; a++) {
        for (int64_t i = first; i < end; i++) {
            const struct tensor *flat = &kind->arena[a].flat;
            const struct tensor t =
                glm_param_tensor(params, glm_layout(glm), i, flat->data, flat->dtype);
            part_add(p, &t, kind->arena[a].prefix, params->row[i].name);
        }
    }
    return ERR_OK;
}

/* What is done with each file: written, read, or its bytes counted. */
struct part_visit {
    err_t (*part)(struct part_visit *visit, const struct part *p);
    struct dev *dev;
    char *piece;   /* [PIECE_BYTES] */
    int64_t bytes; /* of all files visited */
};

static err_t visit_kind(struct part_visit *visit, const char *dir, const struct part_kind *kind,
                        struct glm *glm)
{
    const struct glm_params *params = glm_params(glm);
    char name[CKPT_NAME_MAX];
    int64_t number = 0;
    for (int64_t first = 0, end; first < params->count; first = end, number++) {
        struct part p = { .count = 0 };
        end = ckpt_part_end(params, first);
        snprintf(name, sizeof name, "%s.%04lld.safetensors", kind->file, (long long)number);
        err_t rc = path_join(p.path, dir, name);
        if (rc == ERR_OK) rc = part_build(&p, kind, glm, first, end);
        if (rc == ERR_OK) rc = visit->part(visit, &p);
        part_clear(&p);
        TRY(rc);
    }
    return ERR_OK;
}

static err_t visit_parts(struct part_visit *visit, const char *dir, struct glm *glm,
                         struct optim *optim)
{
    const struct part_kind kinds[] = { kind_model(glm), kind_optim(optim) };
    err_t rc = ERR_OK;
    visit->dev = glm_dev(glm);
    visit->piece = malloc(PIECE_BYTES);
    if (visit->piece == NULL) RAISE(NOMEM, "%s: no memory for pieces of its files", dir);
    for (int64_t k = 0; k < COUNT_OF(kinds) && rc == ERR_OK; k++)
        rc = visit_kind(visit, dir, &kinds[k], glm);
    free(visit->piece);
    return rc;
}

/* ---- saving ---- */

static err_t write_tensor(struct part_visit *visit, struct safetensors_writer *w, int64_t entry,
                          const struct tensor *t)
{
    const int64_t bytes = tensor_count(t) * dtype_bytes(t->dtype);
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        const int64_t size = min_i64(PIECE_BYTES, bytes - at);
        TRY(dev_download(visit->dev, visit->piece, (const char *)t->data + at, size));
        TRY(dev_sync(visit->dev));
        TRY(safetensors_writer_write(w, entry, visit->piece, size, at));
    }
    return ERR_OK;
}

static err_t write_part(struct part_visit *visit, const struct part *p)
{
    err_t rc = ERR_OK;
    struct safetensors_writer w = { .file = { .fd = -1 } };
    TRY_DONE(safetensors_writer_open(&w, p->path, p->entry, p->count, metadata));
    visit->bytes += w.bytes;
    for (int64_t i = 0; i < p->count; i++) TRY_DONE(write_tensor(visit, &w, i, &p->tensor[i]));
    TRY_DONE(safetensors_writer_commit(&w));
done:
    safetensors_writer_close(&w);
    return rc;
}

static err_t count_part(struct part_visit *visit, const struct part *p)
{
    int64_t bytes;
    TRY(safetensors_file_bytes(&bytes, p->entry, p->count, metadata));
    visit->bytes += bytes;
    return ERR_OK;
}

static err_t check_free_space(const char *root, const struct ckpt_state *state, struct glm *glm,
                              struct optim *optim)
{
    struct part_visit visit = { .part = count_part };
    int64_t free_bytes;
    TRY(visit_parts(&visit, root, glm, optim));
    TRY(file_free_space(&free_bytes, root));
    const int64_t needed = visit.bytes + (int64_t)state->settings.size + OTHER_BYTES;
    if (free_bytes < needed)
        RAISE(IO,
              "%s: a checkpoint needs %.3f GB and the disk has %.3f GB free; make room, or "
              "lower train.keep_last, and continue with --resume",
              root, (double)needed / 1e9, (double)free_bytes / 1e9);
    return ERR_OK;
}

static err_t write_text(const char *dir, const char *name, const struct buf *text)
{
    char path[FILE_PATH_MAX];
    TRY(path_join(path, dir, name));
    return file_replace(path, text->data, (int64_t)text->size);
}

static err_t write_state(const char *dir, const struct ckpt_state *state)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(ckpt_state_write(&text, state));
    TRY_DONE(write_text(dir, "state.json", &text));
done:
    buf_clear(&text);
    return rc;
}

static err_t write_manifest(const char *dir, int64_t step)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    struct ckpt_manifest manifest = { .step = 0 };
    TRY_DONE(ckpt_manifest_measure(&manifest, dir, step));
    TRY_DONE(ckpt_manifest_write(&text, &manifest));
    TRY_DONE(write_text(dir, "MANIFEST.json", &text));
done:
    ckpt_manifest_clear(&manifest);
    buf_clear(&text);
    return rc;
}

/* Every file is durable when its writer commits (base/file.h syncs it and the folder), so the
 * manifest never speaks of what a loss of power could take back. */
static err_t save_into(const char *dir, int64_t *bytes, const struct ckpt_state *state,
                       struct glm *glm, struct optim *optim)
{
    struct part_visit visit = { .part = write_part };
    TRY(dir_create(dir));
    TRY(visit_parts(&visit, dir, glm, optim));
    TRY(write_state(dir, state));
    TRY(write_manifest(dir, state->step));
    *bytes = visit.bytes;
    return ERR_OK;
}

/* Give the finished folder its name. Where there is one of that name (damaged, and passed over by
 * the resume), both exchange names in one call; pruning removes the old one. */
static err_t publish(const char *tmp, const char *dir)
{
    TRY(fault_point("ckpt.rename"));
    const bool exchange = dir_exists(dir);
    if (renameat2(AT_FDCWD, tmp, AT_FDCWD, dir, exchange ? RENAME_EXCHANGE : 0) == 0) return ERR_OK;
    if (exchange && errno == EINVAL)
        RAISE(IO,
              "%s: there is an older one of this step, and this file system cannot exchange "
              "folders; move it away and continue with --resume",
              dir);
    RAISE(IO, "rename %s to %s: %s", tmp, dir, strerror(errno));
}

/* Write and publish; after a failure nothing of it is left, and the first failure's record stays
 * whatever the removal says. */
static err_t save_and_publish(const char *dir, int64_t *bytes, const struct ckpt_state *state,
                              struct glm *glm, struct optim *optim)
{
    char tmp[FILE_PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", dir) >= (int)sizeof tmp)
        RAISE(ARG, "path too long: %s", dir);
    err_t rc = save_into(tmp, bytes, state, glm, optim);
    if (rc == ERR_OK) rc = publish(tmp, dir);
    if (rc == ERR_OK) return ERR_OK;
    const struct err_record first = *err_last();
    if (dir_remove(tmp) != ERR_OK) LOG_W("ckpt", "left behind: %s", err_last()->text);
    return err_adopt(&first);
}

err_t ckpt_save(const char *root, const struct ckpt_state *state, struct glm *glm,
                struct optim *optim, int64_t keep_last)
{
    char dir[FILE_PATH_MAX];
    int64_t bytes = 0;
    const double begin_s = time_now_s();
    ASSERT(keep_last >= 1);
    TRY(dir_create(root));
    /* Names in the folder are durable before what had them goes: an exchange whose sync failed. */
    TRY(dir_sync(root));
    TRY(ckpt_remove_leftovers(root));
    TRY(check_free_space(root, state, glm, optim));
    TRY(ckpt_path(dir, root, state->step));
    TRY(save_and_publish(dir, &bytes, state, glm, optim));
    TRY(dir_sync(root));
    LOG_I("ckpt", "saved %s: %.1f MB in %.1f s", dir, (double)bytes / 1e6, time_now_s() - begin_s);
    if (ckpt_prune(root, state->step, keep_last) != ERR_OK)
        LOG_W("ckpt", "older checkpoints stay: %s", err_last()->text);
    return ERR_OK;
}

/* ---- loading ---- */

static bool same_shape(const struct weight_info *info, const struct tensor *t)
{
    if (info->dtype != t->dtype || info->dims != t->dims) return false;
    for (int d = 0; d < t->dims; d++)
        if (info->dim[d] != t->dim[d]) return false;
    return true;
}

static err_t read_tensor(struct part_visit *visit, struct tensor *t, struct weight_source *source,
                         const char *name, const char *path)
{
    const int64_t index = weight_source_find(source, name);
    if (index < 0) RAISE(FORMAT, "%s: has no tensor %s", path, name);
    const struct weight_info info = weight_source_info(source, index);
    if (!same_shape(&info, t)) {
        char found[WEIGHT_SHAPE_TEXT_MAX], want[WEIGHT_SHAPE_TEXT_MAX];
        RAISE(FORMAT, "%s: %s is %s %s; this model's is %s %s", path, name, dtype_name(info.dtype),
              weight_shape_text(found, info.dims, info.dim), dtype_name(t->dtype),
              weight_shape_text(want, t->dims, t->dim));
    }
    const int64_t unit = dtype_bytes(t->dtype), per_piece = PIECE_BYTES / unit;
    for (int64_t at = 0; at < info.count; at += per_piece) {
        const int64_t count = min_i64(per_piece, info.count - at);
        TRY(weight_source_read(source, visit->piece, index, at, count));
        TRY(dev_upload(visit->dev, (char *)t->data + at * unit, visit->piece, count * unit));
        TRY(dev_sync(visit->dev));
    }
    return ERR_OK;
}

static err_t read_part(struct part_visit *visit, const struct part *p)
{
    err_t rc = ERR_OK;
    struct weight_source *source = NULL;
    TRY_DONE(safetensors_source_open(&source, p->path));
    for (int64_t i = 0; i < p->count; i++)
        TRY_DONE(read_tensor(visit, &p->tensor[i], source, p->entry[i].name, p->path));
    if (weight_source_count(source) != p->count)
        RAISE_DONE(FORMAT, "%s: %lld tensors; this model has %lld there", p->path,
                   (long long)weight_source_count(source), (long long)p->count);
done:
    weight_source_close(source);
    return rc;
}

err_t ckpt_load(const char *dir, struct glm *glm, struct optim *optim)
{
    struct part_visit visit = { .part = read_part };
    return visit_parts(&visit, dir, glm, optim);
}
