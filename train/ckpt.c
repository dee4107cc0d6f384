/* Saving and loading: weights and optimizer state to files and back, a piece at a time. */
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
#define PREFIX_MAX      24
#define TENSOR_NAME_MAX (PREFIX_MAX + GLM_NAME_MAX)

static const char *const metadata[] = { "format", "pt", NULL };

/* ---- which tensor lies in which file ---- */

#define WEIGHT_PART (-1) /* beside enum optim_part: the weights themselves */

/* A tensor of a file: a row's weights or a part of its state. */
struct item {
    char name[TENSOR_NAME_MAX];
    int part;
    int64_t row;
};

/* One file: its tensors in file order. */
struct part_file {
    char path[FILE_PATH_MAX];
    struct safetensors_entry *entry;
    struct item *item;
    int64_t count;
};

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

static void file_clear(struct part_file *f)
{
    free(f->entry);
    free(f->item);
}

static void add_item(struct part_file *f, int part, int64_t row, dtype_t dtype,
                     const struct glm_param *param, int64_t count)
{
    struct item *item = &f->item[f->count];
    struct safetensors_entry *entry = &f->entry[f->count++];
    const bool shaped = count == param->count;
    *item = (struct item){ .part = part, .row = row };
    snprintf(item->name, sizeof item->name, "%s%s%s",
             part == WEIGHT_PART ? "" : optim_part_name((enum optim_part)part),
             part == WEIGHT_PART ? "" : ".", param->name);
    *entry = (struct safetensors_entry){ item->name, dtype, shaped ? param->dims : 1, { count } };
    for (int d = 0; d < param->dims && shaped; d++) entry->dim[d] = param->dim[d];
}

/* What is done with each file: written, read, or its bytes counted. */
struct part_visit {
    err_t (*file)(struct part_visit *visit, const struct part_file *f);
    struct optim *optim;
    struct optim_plan plan; /* of the state in the files, which may be another than optim's */
    char *piece;            /* [PIECE_BYTES] page-locked */
    char *widened;          /* [2 * PIECE_BYTES] loading: the same in another dtype */
    int64_t bytes;          /* of all files visited */
};

/* Rows first..end-1 of each part, part by part. */
static err_t list_items(struct part_file *f, const struct part_visit *visit, bool weights,
                        int64_t first, int64_t end)
{
    const struct glm_params *params = optim_target(visit->optim)->params;
    const struct optim_format *format = &visit->plan.format;
    const size_t most = (size_t)((weights ? 1 : OPTIM_PARTS) * (end - first));
    f->entry = calloc(most, sizeof *f->entry);
    f->item = calloc(most, sizeof *f->item);
    if (f->entry == NULL || f->item == NULL)
        RAISE(NOMEM, "checkpoint: no memory for a list of %zu tensors", most);
    for (int part = WEIGHT_PART; part < OPTIM_PARTS; part++) {
        if ((part == WEIGHT_PART) != weights) continue;
        for (int64_t i = first; i < end; i++) {
            const struct glm_param *row = &params->row[i];
            const enum optim_part p = (enum optim_part)part;
            if (weights)
                add_item(f, part, i, format->weights, row, row->count);
            else if (optim_part_count(&visit->plan, params, p, i) > 0)
                add_item(f, part, i, optim_part_dtype(format, p), row,
                         optim_part_count(&visit->plan, params, p, i));
        }
    }
    return ERR_OK;
}

static err_t visit_files_of(struct part_visit *visit, const char *dir, const char *kind)
{
    const struct glm_params *params = optim_target(visit->optim)->params;
    const bool weights = strcmp(kind, "model") == 0;
    char name[CKPT_NAME_MAX];
    int64_t number = 0;
    for (int64_t first = 0, end; first < params->count; first = end, number++) {
        struct part_file f = { .count = 0 };
        end = ckpt_part_end(params, first);
        snprintf(name, sizeof name, "%s.%04lld.safetensors", kind, (long long)number);
        err_t rc = path_join(f.path, dir, name);
        if (rc == ERR_OK) rc = list_items(&f, visit, weights, first, end);
        if (rc == ERR_OK) rc = visit->file(visit, &f);
        file_clear(&f);
        TRY(rc);
    }
    return ERR_OK;
}

/* Files of weights, then of state, in the formats that `stored` says. */
static err_t visit_files(struct part_visit *visit, const char *dir,
                         const struct stored_formats *stored)
{
    err_t rc = ERR_OK;
    struct dev *dev = optim_target(visit->optim)->dev;
    const struct optim_format format = { .weights = stored->precision,
                                         .master = stored->master,
                                         .moments = stored->moments };
    TRY_DONE(optim_plan_create(&visit->plan, optim_target(visit->optim)->params, &format));
    TRY_DONE(dev_host_alloc(dev, (void **)&visit->piece, PIECE_BYTES, "checkpoint"));
    visit->widened = malloc(2 * PIECE_BYTES);
    if (visit->widened == NULL) RAISE_DONE(NOMEM, "%s: no memory for pieces of its files", dir);
    TRY_DONE(visit_files_of(visit, dir, "model"));
    TRY_DONE(visit_files_of(visit, dir, "optim"));
done:
    dev_host_free(dev, visit->piece);
    free(visit->widened);
    optim_plan_clear(&visit->plan);
    return rc;
}

/* Where element `first` of a row's weights lies on the device. */
static char *weight_at(const struct optim_target *target, int64_t row, int64_t first)
{
    const int64_t at = target->layout->offset[row] + first;
    return (char *)target->weights.data + at * dtype_bytes(target->weights.dtype);
}

/* ---- saving ---- */

static int64_t entry_count(const struct safetensors_entry *entry)
{
    int64_t count = 1;
    for (int d = 0; d < entry->dims; d++) count *= entry->dim[d];
    return count;
}

static err_t write_tensor(struct part_visit *visit, struct safetensors_writer *w, int64_t index,
                          const struct part_file *f)
{
    const struct item *item = &f->item[index];
    const struct optim_target *target = optim_target(visit->optim);
    const int64_t unit = dtype_bytes(f->entry[index].dtype), per_piece = PIECE_BYTES / unit;
    const int64_t all = entry_count(&f->entry[index]);
    for (int64_t at = 0; at < all; at += per_piece) {
        const int64_t count = min_i64(per_piece, all - at);
        if (item->part == WEIGHT_PART)
            TRY(dev_download(target->dev, visit->piece, weight_at(target, item->row, at),
                             count * unit));
        else
            TRY(optim_read_state(visit->optim, visit->piece, (enum optim_part)item->part, item->row,
                                 at, count));
        TRY(safetensors_writer_write(w, index, visit->piece, count * unit, at * unit));
    }
    return ERR_OK;
}

static err_t write_file(struct part_visit *visit, const struct part_file *f)
{
    err_t rc = ERR_OK;
    struct safetensors_writer w = { .file = { .fd = -1 } };
    TRY_DONE(safetensors_writer_open(&w, f->path, f->entry, f->count, metadata));
    visit->bytes += w.bytes;
    for (int64_t i = 0; i < f->count; i++) TRY_DONE(write_tensor(visit, &w, i, f));
    TRY_DONE(safetensors_writer_commit(&w));
done:
    safetensors_writer_close(&w);
    return rc;
}

static err_t count_file(struct part_visit *visit, const struct part_file *f)
{
    int64_t bytes;
    TRY(safetensors_file_bytes(&bytes, f->entry, f->count, metadata));
    visit->bytes += bytes;
    return ERR_OK;
}

static err_t check_free_space(const char *root, const struct ckpt_state *state, struct optim *optim)
{
    struct part_visit visit = { .file = count_file, .optim = optim };
    int64_t free_bytes;
    TRY(visit_files(&visit, root, &state->formats));
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
                       struct optim *optim)
{
    struct part_visit visit = { .file = write_file, .optim = optim };
    TRY(dir_create(dir));
    TRY(dev_sync(optim_target(optim)->dev));
    TRY(visit_files(&visit, dir, &state->formats));
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
                              struct optim *optim)
{
    char tmp[FILE_PATH_MAX];
    if (snprintf(tmp, sizeof tmp, "%s.tmp", dir) >= (int)sizeof tmp)
        RAISE(ARG, "path too long: %s", dir);
    err_t rc = save_into(tmp, bytes, state, optim);
    if (rc == ERR_OK) rc = publish(tmp, dir);
    if (rc == ERR_OK) return ERR_OK;
    const struct err_record first = *err_last();
    if (dir_remove(tmp) != ERR_OK) LOG_W("ckpt", "left behind: %s", err_last()->text);
    return err_adopt(&first);
}

static bool same_formats(const struct stored_formats *a, const struct stored_formats *b)
{
    return a->precision == b->precision && a->master == b->master && a->moments == b->moments;
}

err_t ckpt_save(const char *root, const struct ckpt_state *state, struct optim *optim,
                int64_t keep_last)
{
    const struct stored_formats formats = formats_stored(&optim_plan_of(optim)->format);
    ASSERT(same_formats(&state->formats, &formats));
    char dir[FILE_PATH_MAX];
    int64_t bytes = 0;
    const double begin_s = time_now_s();
    ASSERT(keep_last >= 1);
    TRY(dir_create(root));
    /* Names in the folder are durable before what had them goes: an exchange whose sync failed. */
    TRY(dir_sync(root));
    TRY(ckpt_remove_leftovers(root));
    TRY(check_free_space(root, state, optim));
    TRY(ckpt_path(dir, root, state->step));
    TRY(save_and_publish(dir, &bytes, state, optim));
    TRY(dir_sync(root));
    LOG_I("ckpt", "saved %s: %.1f MB in %.1f s", dir, (double)bytes / 1e6, time_now_s() - begin_s);
    if (ckpt_prune(root, state->step, keep_last) != ERR_OK)
        LOG_W("ckpt", "older checkpoints stay: %s", err_last()->text);
    return ERR_OK;
}

/* ---- loading ---- */

static bool same_shape(const struct weight_info *info, const struct safetensors_entry *want)
{
    if (info->dtype != want->dtype || info->dims != want->dims) return false;
    for (int d = 0; d < want->dims; d++)
        if (info->dim[d] != want->dim[d]) return false;
    return true;
}

static err_t put_weights(const struct optim_target *target, int64_t row, int64_t first,
                         const void *values, int64_t count)
{
    return dev_upload(target->dev, weight_at(target, row, first), values,
                      count * dtype_bytes(target->weights.dtype));
}

/* `count` weights as the file has them, in f32 or bf16, to where this run keeps weights. */
static err_t put_stored_weights(struct part_visit *visit, int64_t row, int64_t first, dtype_t dtype,
                                int64_t count)
{
    const struct optim_target *target = optim_target(visit->optim);
    const struct optim_format *now = &optim_plan_of(visit->optim)->format;
    float *wide = (float *)(void *)visit->widened;
    if (dtype == now->weights) TRY(put_weights(target, row, first, visit->piece, count));
    /* A master of the same file follows with the state. */
    const bool fills_master = now->master && !visit->plan.format.master;
    if (dtype == now->weights && !fills_master) return ERR_OK;

    ASSERT(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    const uint16_t *half = (const uint16_t *)(const void *)visit->piece;
    if (dtype == DTYPE_BF16)
        for (int64_t i = 0; i < count; i++) wide[i] = bf16_to_f32(half[i]);
    else
        memcpy(wide, visit->piece, (size_t)count * sizeof *wide);
    if (fills_master) TRY(optim_write_state(visit->optim, OPTIM_MASTER, row, first, wide, count));
    if (dtype == now->weights) return ERR_OK;
    if (now->weights == DTYPE_F32) return put_weights(target, row, first, wide, count);
    uint16_t *rounded = (uint16_t *)(void *)visit->piece;
    for (int64_t i = 0; i < count; i++) rounded[i] = f32_to_bf16(wide[i]);
    return put_weights(target, row, first, rounded, count);
}

/* A piece of a tensor from the file to its place; f32 weights take what a master holds. */
static err_t put_piece(struct part_visit *visit, const struct item *item, dtype_t dtype,
                       int64_t first, int64_t count)
{
    const struct optim_format *now = &optim_plan_of(visit->optim)->format;
    if (item->part == WEIGHT_PART) return put_stored_weights(visit, item->row, first, dtype, count);
    if (item->part == OPTIM_MASTER && !now->master)
        return put_weights(optim_target(visit->optim), item->row, first, visit->piece, count);
    return optim_write_state(visit->optim, (enum optim_part)item->part, item->row, first,
                             visit->piece, count);
}

static err_t read_tensor(struct part_visit *visit, const struct part_file *f, int64_t i,
                         struct weight_source *source)
{
    const struct safetensors_entry *entry = &f->entry[i];
    const int64_t index = weight_source_find(source, entry->name);
    if (index < 0) RAISE(FORMAT, "%s: has no tensor %s", f->path, entry->name);
    const struct weight_info info = weight_source_info(source, index);
    if (!same_shape(&info, entry)) {
        char found[WEIGHT_SHAPE_TEXT_MAX], want[WEIGHT_SHAPE_TEXT_MAX];
        RAISE(FORMAT, "%s: %s is %s %s; this model's is %s %s", f->path, entry->name,
              dtype_name(info.dtype), weight_shape_text(found, info.dims, info.dim),
              dtype_name(entry->dtype), weight_shape_text(want, entry->dims, entry->dim));
    }
    const int64_t per_piece = PIECE_BYTES / dtype_bytes(entry->dtype);
    for (int64_t at = 0; at < info.count; at += per_piece) {
        const int64_t count = min_i64(per_piece, info.count - at);
        TRY(weight_source_read(source, visit->piece, index, at, count));
        TRY(put_piece(visit, &f->item[i], entry->dtype, at, count));
    }
    return ERR_OK;
}

static err_t read_file(struct part_visit *visit, const struct part_file *f)
{
    err_t rc = ERR_OK;
    struct weight_source *source = NULL;
    TRY_DONE(safetensors_source_open(&source, f->path));
    for (int64_t i = 0; i < f->count; i++) TRY_DONE(read_tensor(visit, f, i, source));
    if (weight_source_count(source) != f->count)
        RAISE_DONE(FORMAT, "%s: %lld tensors; this model has %lld there", f->path,
                   (long long)weight_source_count(source), (long long)f->count);
done:
    weight_source_close(source);
    return rc;
}

err_t ckpt_load(const char *dir, const struct stored_formats *stored, struct optim *optim)
{
    const struct stored_formats now = formats_stored(&optim_plan_of(optim)->format);
    struct part_visit visit = { .file = read_file, .optim = optim };
    TRY(formats_check_resume(&now, stored, dir));
    return visit_files(&visit, dir, stored);
}
