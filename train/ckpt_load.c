/* Loading: weights and optimizer state from files, a piece at a time. */
#include "train/ckpt_impl.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

struct loading {
    const char *dir;
    struct optim *optim;
    const struct ckpt_ranks *ranks;
    struct ckpt_parts parts;
    char *piece;   /* [CKPT_PIECE_BYTES] page-locked */
    char *widened; /* [2 * CKPT_PIECE_BYTES] the same in another dtype */
};

static bool same_shape(const struct weight_info *info, const struct safetensors_entry *want)
{
    if (info->dtype != want->dtype || info->dims != want->dims) return false;
    for (int d = 0; d < want->dims; d++)
        if (info->dim[d] != want->dim[d]) return false;
    return true;
}

static err_t put_weights(const struct loading *l, int64_t row, int64_t first, const void *values,
                         int64_t count)
{
    const struct optim_target *target = optim_target(l->optim);
    return dev_upload(target->dev, optim_target_weights(target, row, first), values,
                      count * dtype_bytes(target->weights.dtype));
}

/* Of values first .. of a row those whose master this rank keeps. */
static err_t fill_master(const struct loading *l, const struct ckpt_tensor *tensor, int64_t first,
                         const float *values, int64_t count)
{
    const struct optim_range owned = ckpt_owned(l->ranks, tensor);
    const int64_t from = max_i64(first, owned.first);
    const int64_t end = min_i64(first + count, owned.first + owned.count);
    if (from >= end) return ERR_OK;
    return optim_write_state(l->optim, OPTIM_MASTER, tensor->row, from, values + (from - first),
                             end - from);
}

/* `count` weights as the file has them, in f32 or bf16, to where this run keeps weights. */
static err_t put_stored_weights(struct loading *l, const struct ckpt_tensor *tensor, int64_t first,
                                int64_t count)
{
    const struct optim_format *now = &optim_plan_of(l->optim)->format;
    const dtype_t dtype = tensor->dtype;
    float *wide = (float *)(void *)l->widened;
    if (dtype == now->weights) TRY(put_weights(l, tensor->row, first, l->piece, count));
    /* A master of the same file follows with the state. */
    const bool fills_master = now->master && !l->parts.format.master;
    if (dtype == now->weights && !fills_master) return ERR_OK;

    weight_widen(wide, dtype, l->piece, count);
    if (fills_master) TRY(fill_master(l, tensor, first, wide, count));
    if (dtype == now->weights) return ERR_OK;
    if (now->weights == DTYPE_F32) return put_weights(l, tensor->row, first, wide, count);
    const int64_t beyond = weight_round(l->piece, now->weights, wide, count);
    if (beyond >= 0)
        RAISE(NUMERIC, "%s: %s: element %lld is %g, beyond %s", l->dir, tensor->name,
              (long long)(first + beyond), (double)wide[beyond], dtype_name(now->weights));
    return put_weights(l, tensor->row, first, l->piece, count);
}

/* f32 weights take what a master holds. */
static bool becomes_weights(const struct loading *l, const struct ckpt_tensor *tensor)
{
    return tensor->part == CKPT_WEIGHT_PART ||
           (tensor->part == OPTIM_MASTER && !optim_plan_of(l->optim)->format.master);
}

/* A piece of a tensor from the file to its place. */
static err_t put_piece(struct loading *l, const struct ckpt_tensor *tensor, int64_t first,
                       int64_t count)
{
    if (tensor->part == CKPT_WEIGHT_PART) return put_stored_weights(l, tensor, first, count);
    if (becomes_weights(l, tensor)) return put_weights(l, tensor->row, first, l->piece, count);
    return optim_write_state(l->optim, (enum optim_part)tensor->part, tensor->row, first, l->piece,
                             count);
}

static err_t check_entry(int64_t *index, struct weight_source *source, const char *path,
                         const struct safetensors_entry *entry)
{
    *index = weight_source_find(source, entry->name);
    if (*index < 0) RAISE(FORMAT, "%s: has no tensor %s", path, entry->name);
    const struct weight_info info = weight_source_info(source, *index);
    if (same_shape(&info, entry)) return ERR_OK;
    char found[WEIGHT_SHAPE_TEXT_MAX], want[WEIGHT_SHAPE_TEXT_MAX];
    RAISE(FORMAT, "%s: %s is %s %s; this model's is %s %s", path, entry->name,
          dtype_name(info.dtype), weight_shape_text(found, info.dims, info.dim),
          dtype_name(entry->dtype), weight_shape_text(want, entry->dims, entry->dim));
}

static err_t read_tensor(struct loading *l, const struct ckpt_part *p, int64_t i, const char *path,
                         struct weight_source *source)
{
    const struct ckpt_tensor *tensor = &p->tensor[i];
    const bool whole = becomes_weights(l, tensor) && !optim_target(l->optim)->scattered;
    const struct optim_range range =
        whole ? (struct optim_range){ 0, tensor->count } : ckpt_owned(l->ranks, tensor);
    const int64_t per_piece = CKPT_PIECE_BYTES / dtype_bytes(tensor->dtype);
    int64_t index;
    TRY(check_entry(&index, source, path, &p->entry[i]));
    for (int64_t done = 0; done < range.count; done += per_piece) {
        const int64_t count = min_i64(per_piece, range.count - done);
        TRY(weight_source_read(source, l->piece, index, range.first + done, count));
        TRY(put_piece(l, tensor, range.first + done, count));
    }
    return ERR_OK;
}

static err_t read_part(struct loading *l, const struct ckpt_part *p)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    struct weight_source *source = NULL;
    TRY_DONE(path_join(path, l->dir, p->name));
    TRY_DONE(safetensors_source_open(&source, path));
    for (int64_t i = 0; i < p->count; i++) TRY_DONE(read_tensor(l, p, i, path, source));
    if (weight_source_count(source) != p->count)
        RAISE_DONE(FORMAT, "%s: %lld tensors; this model has %lld there", path,
                   (long long)weight_source_count(source), (long long)p->count);
done:
    weight_source_close(source);
    return rc;
}

static err_t load(struct loading *l, const struct stored_formats *stored)
{
    err_t rc = ERR_OK;
    const struct optim_target *target = optim_target(l->optim);
    TRY_DONE(ckpt_parts_create(&l->parts, target->params, stored));
    TRY_DONE(dev_host_alloc(target->dev, (void **)&l->piece, CKPT_PIECE_BYTES, "checkpoint"));
    l->widened = malloc(2 * CKPT_PIECE_BYTES);
    if (l->widened == NULL) RAISE_DONE(NOMEM, "%s: no memory for pieces of its files", l->dir);
    for (int64_t i = 0; i < l->parts.count; i++) TRY_DONE(read_part(l, &l->parts.part[i]));
done:
    dev_host_free(target->dev, l->piece);
    free(l->widened);
    ckpt_parts_clear(&l->parts);
    return rc;
}

err_t ckpt_load(const char *dir, const struct stored_formats *stored, struct optim *optim,
                const struct ckpt_ranks *ranks)
{
    const struct stored_formats now = formats_stored(&optim_plan_of(optim)->format);
    struct loading l = { .dir = dir, .optim = optim, .ranks = ranks };
    err_t rc = formats_check_resume(&now, stored, dir);
    if (rc == ERR_OK) rc = load(&l, stored);
    return ckpt_agree(ranks, rc, NULL);
}
