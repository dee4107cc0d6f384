/* Saving: weights and optimizer state to files, a piece at a time, and their publication. */
#include "train/ckpt_impl.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OTHER_BYTES (1 << 20) /* manifest, folder entries: what the free-space check adds */

/* ---- what is saved ---- */

static err_t describe(struct ckpt_saving *s, const char *root, const struct ckpt_state *state,
                      const struct optim *optim)
{
    TRY(path_copy(s->root, root));
    TRY(ckpt_path(s->dir, root, state->step));
    if (snprintf(s->tmp, sizeof s->tmp, "%s.tmp", s->dir) >= (int)sizeof s->tmp)
        RAISE(ARG, "path too long: %s", s->dir);
    TRY(ckpt_parts_create(&s->parts, optim_target(optim)->params, &state->formats));
    return ckpt_state_write(&s->state, state);
}

/* ---- files, in their full sizes ---- */

static err_t check_free_space(const struct ckpt_saving *s)
{
    int64_t free_bytes;
    TRY(file_free_space(&free_bytes, s->root));
    const int64_t needed = s->parts.bytes + (int64_t)s->state.size + OTHER_BYTES;
    if (free_bytes < needed)
        RAISE(IO,
              "%s: a checkpoint needs %.3f GB and the disk has %.3f GB free; make room, or "
              "lower train.keep_last, and continue with --resume",
              s->root, (double)needed / 1e9, (double)free_bytes / 1e9);
    return ERR_OK;
}

static err_t create_files(struct ckpt_saving *s)
{
    char path[FILE_PATH_MAX];
    TRY(dir_create(s->root));
    /* Names in the folder are durable before what had them goes: an exchange whose sync failed. */
    TRY(dir_sync(s->root));
    TRY(ckpt_remove_leftovers(s->root));
    TRY(check_free_space(s));
    s->is_ours = true;
    TRY(dir_create(s->tmp));
    for (int64_t i = 0; i < s->parts.count; i++) {
        const struct ckpt_part *p = &s->parts.part[i];
        TRY(path_join(path, s->tmp, p->name));
        TRY(file_part_create(path, p->header.data, (int64_t)p->header.size, p->begin[p->count]));
    }
    return ERR_OK;
}

err_t ckpt_saving_begin(struct ckpt_saving *s, const char *root, const struct ckpt_state *state,
                        struct optim *optim, const struct ckpt_keep *keep,
                        const struct ckpt_ranks *ranks)
{
    const struct stored_formats formats = formats_stored(&optim_plan_of(optim)->format);
    ASSERT(formats_same(&state->formats, &formats));
    ASSERT(keep->last >= 1);
    *s = (struct ckpt_saving){ .keep = *keep,
                               .step = state->step,
                               .rank = ckpt_rank(ranks),
                               .rank_count = ckpt_rank_count(ranks),
                               .manifest.step = state->step,
                               .begin_s = time_now_s() };
    TRY(ckpt_agree(ranks, describe(s, root, state, optim), NULL));
    return ckpt_agree(ranks, s->rank == 0 ? create_files(s) : ERR_OK, NULL);
}

/* ---- their contents ---- */

err_t ckpt_read_device(struct ckpt_source *source, const void **out,
                       const struct ckpt_tensor *tensor, int64_t first, int64_t count)
{
    const struct optim_target *target = optim_target(source->optim);
    *out = source->bytes;
    if (tensor->part != CKPT_WEIGHT_PART)
        return optim_read_state(source->optim, source->bytes, (enum optim_part)tensor->part,
                                tensor->row, first, count);
    return dev_download(target->dev, source->bytes,
                        optim_target_weights(target, tensor->row, first),
                        count * dtype_bytes(tensor->dtype));
}

/* Where a part is written to; `meter` NULL: by several ranks, so that nobody sees all of it. */
struct part_writer {
    struct file_part file;
    struct ckpt_meter *meter;
    struct ckpt_source *source;
};

static err_t write_tensor(struct part_writer *w, const struct ckpt_tensor *tensor, int64_t begin)
{
    const struct optim_range owned = ckpt_owned(w->source->ranks, tensor);
    const int64_t unit = dtype_bytes(tensor->dtype), per_piece = CKPT_PIECE_BYTES / unit;
    for (int64_t done = 0; done < owned.count; done += per_piece) {
        const int64_t first = owned.first + done, count = min_i64(per_piece, owned.count - done);
        const void *bytes;
        TRY(w->source->read(w->source, &bytes, tensor, first, count));
        if (w->meter != NULL) ckpt_meter_add(w->meter, bytes, count * unit);
        TRY(file_part_pwrite(&w->file, bytes, count * unit, begin + first * unit));
    }
    return ERR_OK;
}

static err_t write_part(struct ckpt_saving *s, struct ckpt_source *source,
                        const struct ckpt_part *p)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    struct ckpt_file *file;
    struct ckpt_meter meter;
    struct part_writer w = { .source = source, .file = { .fd = -1 } };
    TRY(path_join(path, s->tmp, p->name));
    if (s->rank_count == 1) {
        TRY(ckpt_manifest_add(&file, &s->manifest, p->name, s->tmp));
        TRY(ckpt_meter_begin(&meter, file, p->begin[p->count]));
        ckpt_meter_add(&meter, p->header.data, (int64_t)p->header.size);
        w.meter = &meter;
    }
    TRY_DONE(file_part_open(&w.file, path));
    for (int64_t i = 0; i < p->count; i++) {
        TRY_DONE(write_tensor(&w, &p->tensor[i], p->begin[i]));
        s->written +=
            ckpt_owned(source->ranks, &p->tensor[i]).count * dtype_bytes(p->tensor[i].dtype);
    }
    TRY_DONE(file_part_commit(&w.file));
    if (w.meter != NULL) ckpt_meter_end(w.meter);
done:
    file_part_close(&w.file);
    return rc;
}

err_t ckpt_saving_write(struct ckpt_saving *s, struct ckpt_source *source)
{
    for (int64_t i = 0; i < s->parts.count; i++) TRY(write_part(s, source, &s->parts.part[i]));
    return ERR_OK;
}

/* ---- publishing ---- */

static err_t write_text(const char *dir, const char *name, const struct buf *text)
{
    char path[FILE_PATH_MAX];
    TRY(path_join(path, dir, name));
    return file_replace(path, text->data, (int64_t)text->size);
}

/* What several ranks have written, nobody has seen in whole. */
static err_t measure_parts(struct ckpt_saving *s)
{
    struct ckpt_file *file;
    for (int64_t i = 0; i < s->parts.count; i++)
        TRY(ckpt_manifest_add(&file, &s->manifest, s->parts.part[i].name, s->tmp));
    return ckpt_each_file(&s->manifest, s->tmp, s->parts.bytes, ckpt_file_measure);
}

static err_t write_manifest(struct ckpt_saving *s)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    if (s->rank_count > 1) TRY_DONE(measure_parts(s));
    TRY_DONE(ckpt_manifest_measure(&s->manifest, s->tmp, "state.json"));
    TRY_DONE(ckpt_manifest_write(&text, &s->manifest));
    TRY_DONE(write_text(s->tmp, CKPT_MANIFEST, &text));
done:
    buf_clear(&text);
    return rc;
}

/* Give the finished folder its name. Where there is one of that name (damaged, and passed over by
 * the resume), both exchange names in one call; pruning removes the old one. */
static err_t rename_folder(const char *tmp, const char *dir)
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

/* Older ones, except what is to be kept. The new one is durable; what fails here is a warning. */
static err_t prune(const struct ckpt_saving *s)
{
    int64_t best;
    TRY(ckpt_best_note(&best, s->root, &s->keep, s->step));
    return ckpt_prune(s->root, s->step, s->keep.last, best);
}

/* Every file is durable before the manifest speaks of it: ranks have synced what they wrote, and
 * writing state.json syncs the folder. */
err_t ckpt_saving_publish(struct ckpt_saving *s, int64_t written)
{
    int64_t data_bytes = s->parts.bytes;
    for (int64_t i = 0; i < s->parts.count; i++)
        data_bytes -= (int64_t)s->parts.part[i].header.size;
    if (written != data_bytes)
        RAISE(ARG, "%s: the ranks have written %lld bytes of %lld", s->dir, (long long)written,
              (long long)data_bytes);
    TRY(write_text(s->tmp, "state.json", &s->state));
    TRY(write_manifest(s));
    TRY(rename_folder(s->tmp, s->dir));
    s->is_ours = false;
    TRY(dir_sync(s->root));
    LOG_I("ckpt", "saved %s: %.1f MB in %.1f s", s->dir, (double)s->parts.bytes / 1e6,
          time_now_s() - s->begin_s);
    if (prune(s) != ERR_OK) LOG_W("ckpt", "older checkpoints stay: %s", err_last()->text);
    return ERR_OK;
}

/* ---- the end ---- */

void ckpt_saving_drop(struct ckpt_saving *s, err_t rc)
{
    const struct err_record first = *err_last();
    if (rc != ERR_OK && s->is_ours && dir_remove(s->tmp) != ERR_OK)
        LOG_W("ckpt", "left behind: %s", err_last()->text);
    ckpt_parts_clear(&s->parts);
    ckpt_manifest_clear(&s->manifest);
    buf_clear(&s->state);
    if (rc != ERR_OK) rc = err_adopt(&first);
    (void)rc; /* the caller has it */
}

err_t ckpt_saving_end(struct ckpt_saving *s, const struct ckpt_ranks *ranks, err_t rc)
{
    ckpt_saving_drop(s, rc);
    if (rc == ERR_OK || rc == ERR_COMM) return rc;
    const struct err_record first = *err_last();
    TRY(ckpt_agree(ranks, ERR_OK, NULL));
    return err_adopt(&first);
}

/* ---- all of it ---- */

static err_t write_from_device(struct ckpt_saving *s, struct optim *optim,
                               const struct ckpt_ranks *ranks)
{
    err_t rc = ERR_OK;
    struct dev *dev = optim_target(optim)->dev;
    struct ckpt_source source = { .read = ckpt_read_device, .optim = optim, .ranks = ranks };
    TRY_DONE(dev_sync(dev));
    TRY_DONE(dev_host_alloc(dev, (void **)&source.bytes, CKPT_PIECE_BYTES, "checkpoint"));
    TRY_DONE(ckpt_saving_write(s, &source));
done:
    dev_host_free(dev, source.bytes);
    return rc;
}

err_t ckpt_saving_finish(struct ckpt_saving *s, struct optim *optim, const struct ckpt_ranks *ranks)
{
    err_t rc = write_from_device(s, optim, ranks);
    int64_t written = s->written;
    TRY(ckpt_agree(ranks, rc, &written));
    if (s->rank == 0) rc = ckpt_saving_publish(s, written);
    return ckpt_agree(ranks, rc, NULL);
}

err_t ckpt_save(const char *root, const struct ckpt_state *state, struct optim *optim,
                const struct ckpt_keep *keep, const struct ckpt_ranks *ranks)
{
    struct ckpt_saving s;
    err_t rc = ckpt_saving_begin(&s, root, state, optim, keep, ranks);
    if (rc == ERR_OK) rc = ckpt_saving_finish(&s, optim, ranks);
    return ckpt_saving_end(&s, ranks, rc);
}
