#include "train/ckpt.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/num.h"
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES     (4 << 20) /* device to file in pieces of this size */
#define STATE_BYTES_MAX (16 << 20)

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
    return (struct part_kind){
        "optim", 2, { { "exp_avg.", optim_exp_avg(optim) }, { "exp_avg_sq.", optim_exp_avg_sq(optim) } }
    };
}

/* Rows first .. return-1 share a file: as many as keep its weights within 2 GiB, at least one. */
static int64_t part_end(const struct glm_params *params, int64_t first)
{
    int64_t end = first, bytes = 0;
    while (end < params->count) {
        bytes += params->row[end].count * (int64_t)sizeof(float);
        if (end > first && bytes > CKPT_PART_BYTES_MAX) break;
        end++;
    }
    return end;
}

static err_t part_path(char path[FILE_PATH_MAX], const char *dir, const char *file, int64_t part)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%04lld.safetensors", file, (long long)part);
    return path_join(path, dir, name);
}

/* ---- saving ---- */

static err_t write_tensor(struct safetensors_writer *w, int64_t entry, struct dev *dev,
                          const struct tensor *t, char *piece)
{
    const int64_t bytes = tensor_count(t) * dtype_bytes(t->dtype);
    for (int64_t at = 0; at < bytes; at += PIECE_BYTES) {
        const int64_t size = min_i64(PIECE_BYTES, bytes - at);
        TRY(dev_download(dev, piece, (const char *)t->data + at, size));
        TRY(dev_sync(dev));
        TRY(safetensors_writer_write(w, entry, piece, size, at));
    }
    return ERR_OK;
}

struct part_entries {
    struct safetensors_entry *entry;
    char (*name)[GLM_NAME_MAX + 16];
    struct tensor *tensor;
    int64_t count;
};

static void part_entries_clear(struct part_entries *e)
{
    free(e->entry);
    free(e->name);
    free(e->tensor);
}

/* Entries of rows first..end-1 for every arena of the kind, arena by arena. */
static err_t part_entries_build(struct part_entries *e, const struct part_kind *kind,
                                struct glm *glm, int64_t first, int64_t end)
{
    const struct glm_params *params = glm_params(glm);
    const size_t count = (size_t)(kind->arena_count * (end - first));
    *e = (struct part_entries){ calloc(count, sizeof *e->entry), calloc(count, sizeof *e->name),
                                calloc(count, sizeof *e->tensor), 0 };
    if (e->entry == NULL || e->name == NULL || e->tensor == NULL)
        RAISE(NOMEM, "checkpoint: no memory for %zu tensor entries", count);
    for (int64_t a = 0; a < kind->arena_count; a++) {
        for (int64_t i = first; i < end; i++, e->count++) {
            const struct tensor *flat = &kind->arena[a].flat;
            struct tensor *t = &e->tensor[e->count];
            *t = glm_param_tensor(params, glm_layout(glm), i, flat->data, flat->dtype);
            snprintf(e->name[e->count], sizeof e->name[0], "%s%s", kind->arena[a].prefix,
                     params->row[i].name);
            struct safetensors_entry *entry = &e->entry[e->count];
            *entry = (struct safetensors_entry){ e->name[e->count], t->dtype, t->dims, { 0 } };
            for (int d = 0; d < t->dims; d++) entry->dim[d] = t->dim[d];
        }
    }
    return ERR_OK;
}

static err_t write_part(const char *path, const struct part_entries *e, struct dev *dev)
{
    static const char *const metadata[] = { "format", "pt", NULL };
    err_t rc = ERR_OK;
    struct safetensors_writer w = { .file = { .fd = -1 } };
    char *piece = malloc(PIECE_BYTES);
    if (piece == NULL) RAISE(NOMEM, "%s: no memory for a piece of %d bytes", path, PIECE_BYTES);
    TRY_DONE(safetensors_writer_open(&w, path, e->entry, e->count, metadata));
    for (int64_t i = 0; i < e->count; i++)
        TRY_DONE(write_tensor(&w, i, dev, &e->tensor[i], piece));
    TRY_DONE(safetensors_writer_commit(&w));
done:
    safetensors_writer_close(&w);
    free(piece);
    return rc;
}

static err_t write_kind(const char *dir, const struct part_kind *kind, struct glm *glm)
{
    const int64_t rows = glm_params(glm)->count;
    char path[FILE_PATH_MAX];
    int64_t part = 0;
    for (int64_t first = 0, end; first < rows; first = end, part++) {
        struct part_entries entries;
        end = part_end(glm_params(glm), first);
        err_t rc = part_entries_build(&entries, kind, glm, first, end);
        if (rc == ERR_OK) rc = part_path(path, dir, kind->file, part);
        if (rc == ERR_OK) rc = write_part(path, &entries, glm_dev(glm));
        part_entries_clear(&entries);
        TRY(rc);
    }
    return ERR_OK;
}

static err_t write_state(const char *dir, const struct ckpt_state *s)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    char *text = NULL;
    TRY(path_join(path, dir, "state.json"));
    json_t *root = json_pack(
        "{s:i, s:I, s:I, s:I, s:s, s:s, s:s%, s:s%}", "version", CKPT_VERSION, "step",
        (json_int_t)s->step, "updates", (json_int_t)s->updates, "samples", (json_int_t)s->samples,
        "corpus_sha256", s->corpus_sha256, "tokenizer_dir", s->tokenizer_dir, "model_config",
        s->model_config.data, s->model_config.size, "settings", s->settings.data, s->settings.size);
    text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(1));
    if (text == NULL) RAISE_DONE(FORMAT, "%s: a text of the state is not UTF-8", path);
    TRY_DONE(file_replace(path, text, (int64_t)strlen(text)));
done:
    free(text);
    json_decref(root);
    return rc;
}

static err_t check_free_space(const char *root, struct glm *glm)
{
    const int64_t needed = 3 * glm_params(glm)->element_count * dtype_bytes(glm_weights(glm).dtype);
    int64_t bytes;
    TRY(file_free_space(&bytes, root));
    if (bytes < needed + needed / 100)
        RAISE(IO, "%s: a checkpoint needs %.2f GB and the disk has %.2f GB free; make room, or set "
              "train.out to another disk or train.keep_last lower",
              root, (double)needed / 1e9, (double)bytes / 1e9);
    return ERR_OK;
}

static err_t save_into(const char *dir, const struct ckpt_state *state, struct glm *glm,
                       struct optim *optim)
{
    const struct part_kind model = kind_model(glm), states = kind_optim(optim);
    TRY(dir_remove(dir));
    TRY(dir_create(dir));
    TRY(write_kind(dir, &model, glm));
    TRY(write_kind(dir, &states, glm));
    TRY(write_state(dir, state));
    TRY(dir_sync(dir));
    TRY(ckpt_manifest_write(dir, state->step));
    TRY(dir_sync(dir));
    return ERR_OK;
}

/* Give the finished folder its name. Where the step was saved before (a run repeated after a resume),
 * both exchange names in one call, so that there is no moment without a valid one. */
static err_t publish(const char *tmp, const char *dir)
{
    TRY(fault_point("ckpt.rename"));
    const unsigned flags = dir_exists(dir) ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    int failed = renameat2(AT_FDCWD, tmp, AT_FDCWD, dir, flags);
    if (failed && errno == EINVAL && flags == RENAME_NOREPLACE) failed = rename(tmp, dir);
    if (failed) RAISE(IO, "rename %s to %s: %s", tmp, dir, strerror(errno));
    return ERR_OK;
}

err_t ckpt_save(const char *root, const struct ckpt_state *state, struct glm *glm,
                struct optim *optim, int64_t keep_last)
{
    err_t rc = ERR_OK;
    char dir[FILE_PATH_MAX], tmp[FILE_PATH_MAX];
    ASSERT(keep_last >= 1);
    TRY(dir_create(root));
    TRY(ckpt_path(dir, root, state->step));
    if (snprintf(tmp, sizeof tmp, "%s.tmp", dir) >= (int)sizeof tmp)
        RAISE(ARG, "path too long: %s", dir);
    TRY(check_free_space(root, glm));

    TRY_DONE(save_into(tmp, state, glm, optim));
    TRY_DONE(publish(tmp, dir));
    TRY_DONE(dir_sync(root));
    TRY_DONE(ckpt_prune(root, keep_last));
done:
    if (rc != ERR_OK) {
        /* Keep the first failure's record: removing may fail too. */
        const struct err_record first = *err_last();
        if (dir_remove(tmp) != ERR_OK) err_adopt(&first);
        err_adopt(&first);
    }
    return rc;
}

/* ---- loading ---- */

static err_t read_tensor(struct tensor *t, struct weight_source *source, const char *name,
                         const char *path, struct dev *dev, char *piece)
{
    const int64_t index = weight_source_find(source, name);
    if (index < 0) RAISE(FORMAT, "%s: has no tensor %s", path, name);
    const struct weight_info info = weight_source_info(source, index);
    const int64_t per_piece = PIECE_BYTES / dtype_bytes(t->dtype);
    if (info.dtype != t->dtype || info.count != tensor_count(t))
        RAISE(FORMAT, "%s: %s has %lld elements of %s; this model has %lld of %s", path, name,
              (long long)info.count, dtype_name(info.dtype), (long long)tensor_count(t),
              dtype_name(t->dtype));
    for (int64_t at = 0; at < info.count; at += per_piece) {
        const int64_t count = min_i64(per_piece, info.count - at);
        TRY(weight_source_read(source, piece, index, at, count));
        TRY(dev_upload(dev, (char *)t->data + at * dtype_bytes(t->dtype), piece,
                       count * dtype_bytes(t->dtype)));
        TRY(dev_sync(dev));
    }
    return ERR_OK;
}

static err_t read_part(const char *path, struct part_entries *e, struct dev *dev)
{
    err_t rc = ERR_OK;
    struct weight_source *source = NULL;
    char *piece = malloc(PIECE_BYTES);
    if (piece == NULL) RAISE(NOMEM, "%s: no memory for a piece of %d bytes", path, PIECE_BYTES);
    TRY_DONE(safetensors_source_open(&source, path));
    for (int64_t i = 0; i < e->count; i++)
        TRY_DONE(read_tensor(&e->tensor[i], source, e->entry[i].name, path, dev, piece));
done:
    weight_source_close(source);
    free(piece);
    return rc;
}

static err_t read_kind(const char *dir, const struct part_kind *kind, struct glm *glm)
{
    const int64_t rows = glm_params(glm)->count;
    char path[FILE_PATH_MAX];
    int64_t part = 0;
    for (int64_t first = 0, end; first < rows; first = end, part++) {
        struct part_entries entries;
        end = part_end(glm_params(glm), first);
        err_t rc = part_entries_build(&entries, kind, glm, first, end);
        if (rc == ERR_OK) rc = part_path(path, dir, kind->file, part);
        if (rc == ERR_OK) rc = read_part(path, &entries, glm_dev(glm));
        part_entries_clear(&entries);
        TRY(rc);
    }
    return ERR_OK;
}

err_t ckpt_load(const char *dir, struct glm *glm, struct optim *optim)
{
    const struct part_kind model = kind_model(glm), states = kind_optim(optim);
    TRY(read_kind(dir, &model, glm));
    TRY(read_kind(dir, &states, glm));
    return ERR_OK;
}

void ckpt_state_clear(struct ckpt_state *s)
{
    buf_clear(&s->model_config);
    buf_clear(&s->settings);
}

static err_t parse_state(struct ckpt_state *out, json_t *root, const char *path)
{
    json_int_t version, step, updates, samples;
    const char *corpus, *tokenizer, *model_config, *settings;
    json_error_t error;
    if (json_unpack_ex(root, &error, 0, "{s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:s}", "version",
                       &version, "step", &step, "updates", &updates, "samples", &samples,
                       "corpus_sha256", &corpus, "tokenizer_dir", &tokenizer, "model_config",
                       &model_config, "settings", &settings) != 0)
        RAISE(FORMAT, "%s: %s", path, error.text);
    if (version != CKPT_VERSION)
        RAISE(FORMAT, "%s: version %lld; this program reads version %d", path, (long long)version,
              CKPT_VERSION);
    if (step < 0 || updates < 0 || updates > step || samples < 0 ||
        strlen(corpus) >= sizeof out->corpus_sha256 ||
        strlen(tokenizer) >= sizeof out->tokenizer_dir)
        RAISE(FORMAT, "%s: step %lld, updates %lld: out of range", path, (long long)step,
              (long long)updates);
    out->step = step;
    out->updates = updates;
    out->samples = samples;
    strcpy(out->corpus_sha256, corpus);
    strcpy(out->tokenizer_dir, tokenizer);
    TRY(buf_puts(&out->model_config, model_config));
    TRY(buf_puts(&out->settings, settings));
    return ERR_OK;
}

err_t ckpt_read_state(struct ckpt_state *out, const char *dir)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    json_error_t error;
    json_t *root = NULL;
    memset(out, 0, sizeof *out);
    TRY(path_join(path, dir, "state.json"));
    TRY_DONE(file_read_all(&text, path, STATE_BYTES_MAX));
    root = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) RAISE_DONE(FORMAT, "%s: line %d: %s", path, error.line, error.text);
    TRY_DONE(parse_state(out, root, path));
done:
    if (rc != ERR_OK) ckpt_state_clear(out);
    json_decref(root);
    buf_clear(&text);
    return rc;
}
