#include "base/buf.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/stop.h"
#include "model/glm_rotary.h"
#include "model/hf_folder.h"
#include "model/hf_folder_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_ELEMENTS     (1 << 20)
#define FILE_BYTES_DEFAULT 2000000000
#define SMALL_FILE_BYTES   ((int64_t)64 << 20) /* tokenizer models are some MB */
#define MARKER             "unfinished.export" /* in a temporary folder: it may be removed */

/* ---- values ---- */

/* What one export carries from tensor to tensor. */
struct job {
    const char *dir; /* the temporary folder */
    const struct hf_plan *plan;
    struct weight_source *source;
    float *values;             /* [BLOCK_ELEMENTS] */
    void *packed;              /* [BLOCK_ELEMENTS] of the file's dtype */
    int64_t *order;            /* [plan->count] */
    struct progress *progress; /* NULL: none */
    int64_t bytes_done;
};

/* `first` is the place of values[0] in the tensor, for messages. */
static err_t pack(void *out, const struct hf_item *item, const float *values, int64_t count,
                  int64_t first)
{
    const dtype_t dtype = item->entry.dtype;
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            RAISE(NUMERIC, "%s: element %lld is %g", item->name, (long long)(first + i),
                  (double)values[i]);
    const int64_t beyond = weight_round(out, dtype, values, count);
    if (beyond >= 0)
        RAISE(NUMERIC, "%s: element %lld is %g, beyond %s", item->name, (long long)(first + beyond),
              (double)values[beyond],
              dtype == DTYPE_F16 ? "float16's 65504; export as bf16 or f32"
                                 : "bfloat16; export as f32");
    return ERR_OK;
}

static err_t write_item(struct safetensors_writer *w, int64_t place, struct job *job,
                        const struct hf_item *item)
{
    const int64_t width = dtype_bytes(item->entry.dtype);
    for (int64_t first = 0; first < item->count; first += BLOCK_ELEMENTS) {
        const int64_t n = min_i64(BLOCK_ELEMENTS, item->count - first);
        if (stop_requested()) RAISE(INTERRUPTED, "the export was stopped; nothing is left of it");
        if (item->from == HF_FROM_ROTARY) {
            ASSERT(item->count <= BLOCK_ELEMENTS);
            for (int64_t j = 0; j < n; j++) job->values[j] = glm_rotary_frequency(j, n);
        } else {
            TRY(weight_source_read_as(job->source, job->values, DTYPE_F32, item->from, first, n));
        }
        TRY(pack(job->packed, item, job->values, n, first));
        TRY(safetensors_writer_write(w, place, job->packed, n * width, first * width));
        job->bytes_done += n * width;
        if (job->progress) progress_update(job->progress, job->bytes_done, "%s", item->name);
    }
    return ERR_OK;
}

static err_t write_file(struct job *job, int64_t file)
{
    static const char *const metadata[] = { "format", "pt", NULL };
    err_t rc = ERR_OK;
    char name[HF_FILE_NAME_MAX], path[FILE_PATH_MAX];
    struct safetensors_writer w = { .file = { .fd = -1 } };
    const int64_t count = hf_plan_file_order(job->order, job->plan, file);
    struct safetensors_entry *entries = malloc((size_t)count * sizeof *entries);
    if (!entries) RAISE(NOMEM, "a file of %lld tensors", (long long)count);
    for (int64_t i = 0; i < count; i++) entries[i] = job->plan->item[job->order[i]].entry;
    TRY_DONE(path_join(path, job->dir, hf_plan_file_name(name, job->plan, file)));
    TRY_DONE(safetensors_writer_open(&w, path, entries, count, metadata));
    for (int64_t i = 0; i < count; i++)
        TRY_DONE(write_item(&w, i, job, &job->plan->item[job->order[i]]));
    TRY_DONE(safetensors_writer_commit(&w));
done:
    safetensors_writer_close(&w);
    free(entries);
    return rc;
}

static err_t write_weights(const char *dir, const struct hf_plan *plan,
                           struct weight_source *source, bool show_progress)
{
    err_t rc = ERR_OK;
    struct progress progress;
    struct job job = { .dir = dir, .plan = plan, .source = source };
    job.values = malloc(BLOCK_ELEMENTS * sizeof *job.values);
    job.packed = malloc(BLOCK_ELEMENTS * sizeof(float));
    job.order = malloc((size_t)plan->count * sizeof *job.order);
    if (!job.values || !job.packed || !job.order)
        RAISE_DONE(NOMEM, "blocks of %d elements", BLOCK_ELEMENTS);
    if (show_progress) {
        job.progress = &progress;
        progress_begin(&progress, "export", "bytes", plan->bytes);
    }
    for (int64_t file = 0; file < plan->file_count; file++) TRY_DONE(write_file(&job, file));
done:
    if (job.progress) progress_end(job.progress);
    free(job.order);
    free(job.packed);
    free(job.values);
    return rc;
}

/* ---- small files ---- */

static err_t write_index(const char *dir, const struct hf_plan *plan)
{
    err_t rc = ERR_OK;
    struct buf json = { 0 };
    char path[FILE_PATH_MAX], name[HF_FILE_NAME_MAX];
    if (plan->file_count == 1) return ERR_OK; /* one file needs no index */
    TRY(path_join(path, dir, "model.safetensors.index.json"));
    TRY_DONE(buf_printf(&json,
                        "{\n  \"metadata\": {\n    \"total_size\": %lld\n  },\n"
                        "  \"weight_map\": {",
                        (long long)plan->bytes));
    for (int64_t i = 0; i < plan->count; i++)
        TRY_DONE(buf_printf(&json, "%s\n    \"%s\": \"%s\"", i ? "," : "", plan->item[i].name,
                            hf_plan_file_name(name, plan, plan->item[i].file)));
    TRY_DONE(buf_puts(&json, "\n  }\n}\n"));
    TRY_DONE(file_replace(path, json.data, (int64_t)json.size));
done:
    buf_clear(&json);
    return rc;
}

static err_t write_config(const char *dir, const struct glm_config *config, dtype_t dtype)
{
    static const char *const torch_names[DTYPE_COUNT] = {
        [DTYPE_F16] = "float16",
        [DTYPE_BF16] = "bfloat16",
        [DTYPE_F32] = "float32",
    };
    err_t rc = ERR_OK;
    struct buf json = { 0 };
    char path[FILE_PATH_MAX];
    TRY(path_join(path, dir, "config.json"));
    TRY_DONE(glm_config_write(&json, config, torch_names[dtype]));
    TRY_DONE(file_replace(path, json.data, (int64_t)json.size));
done:
    buf_clear(&json);
    return rc;
}

static err_t copy_if_there(const char *to_dir, const char *from_dir, const char *name)
{
    err_t rc = ERR_OK;
    struct buf bytes = { 0 };
    char from[FILE_PATH_MAX], to[FILE_PATH_MAX];
    TRY(path_join(from, from_dir, name));
    TRY(path_join(to, to_dir, name));
    if (!file_exists(from)) return ERR_OK;
    TRY_DONE(file_read_all(&bytes, from, SMALL_FILE_BYTES));
    if (weight_is_lfs_pointer(bytes.data, (int64_t)bytes.size))
        RAISE_DONE(FORMAT, "%s " WEIGHT_LFS_ADVICE, from);
    TRY_DONE(file_replace(to, bytes.data, (int64_t)bytes.size));
done:
    buf_clear(&bytes);
    return rc;
}

static err_t copy_companions(const char *dir, const char *from_dir)
{
    static const char *const names[] = {
        "ice_text.model",          "tokenizer.model",          "tokenizer_config.json",
        "tokenization_chatglm.py", "configuration_chatglm.py", "modeling_chatglm.py",
        "quantization.py",
    };
    for (int64_t i = 0; from_dir && i < COUNT_OF(names); i++)
        TRY(copy_if_there(dir, from_dir, names[i]));
    return ERR_OK;
}

/* ---- the folder ---- */

/* "out/" is "out", and "out.tmp" what becomes it. */
static err_t folder_names(char dir[FILE_PATH_MAX], char tmp[FILE_PATH_MAX], const char *given)
{
    const size_t room = FILE_PATH_MAX - sizeof ".tmp";
    size_t bytes = strlen(given);
    while (bytes > 1 && given[bytes - 1] == '/') bytes--;
    if (bytes == 0 || bytes > room)
        RAISE(ARG, "path of %zu bytes, from 1 to %zu are possible", bytes, room);
    memcpy(dir, given, bytes);
    memcpy(tmp, given, bytes);
    dir[bytes] = '\0';
    strcpy(tmp + bytes, ".tmp");
    return ERR_OK;
}

/* What an export that was killed has left is removed; a folder of somebody's own is not. */
static err_t check_leftover(const char *tmp)
{
    char marker[FILE_PATH_MAX];
    struct stat st;
    TRY(path_join(marker, tmp, MARKER));
    if (lstat(tmp, &st) == 0 && !file_exists(marker))
        RAISE(ARG, "%s exists and is no unfinished export; move it away, or choose another name",
              tmp);
    return ERR_OK;
}

err_t hf_folder_check(const char *dir_given, const struct glm_config *config,
                      const struct hf_export *options)
{
    char dir[FILE_PATH_MAX], tmp[FILE_PATH_MAX], config_path[FILE_PATH_MAX];
    TRY(folder_names(dir, tmp, dir_given));
    if (options->dtype != DTYPE_F16 && options->dtype != DTYPE_BF16 && options->dtype != DTYPE_F32)
        RAISE(ARG, "export as %s; f16, bf16 and f32 are possible", dtype_name(options->dtype));
    if (config->residual_alpha != GLM_RESIDUAL_ALPHA && !options->any_alpha)
        RAISE(ARG,
              "residual_alpha is %.17g; other programs compute with sqrt(56) whatever the file "
              "says (export.any_alpha: true writes it all the same)",
              config->residual_alpha);
    TRY(check_leftover(tmp));
    TRY(path_join(config_path, dir, "config.json"));
    if (file_exists(dir)) RAISE(ARG, "%s is a file; a folder is to be written there", dir);
    if (!dir_exists(dir)) return ERR_OK;
    if (!options->replace)
        RAISE(ARG, "%s exists; choose another name, or set export.replace: true", dir);
    if (!file_exists(config_path))
        RAISE(ARG, "%s exists and holds no config.json; only the folder of a model is replaced",
              dir);

    char real[PATH_MAX], tokenizer[PATH_MAX];
    if (options->tokenizer_dir && realpath(dir, real) &&
        realpath(options->tokenizer_dir, tokenizer) && strcmp(real, tokenizer) == 0)
        RAISE(ARG, "%s would be replaced by its own export; choose another name", dir);
    return ERR_OK;
}

static err_t check_room(const char *dir, int64_t bytes)
{
    int64_t room = 0;
    TRY(file_free_space(&room, dir));
    if (bytes > room)
        RAISE(IO, "%s: %.1f MB are to be written, %.1f MB are free", dir, (double)bytes / 1e6,
              (double)room / 1e6);
    return ERR_OK;
}

/* Make `tmp` the folder `dir`. Where dir exists, both change places in one step, then the old one
 * is removed; a file system that cannot do that removes the old one first. */
static err_t publish(const char *dir, const char *tmp)
{
    char parent[FILE_PATH_MAX], marker[FILE_PATH_MAX];
    snprintf(parent, sizeof parent, "%s", dir);
    char *slash = strrchr(parent, '/');
    if (slash) slash[slash == parent] = '\0';
    TRY(path_join(marker, tmp, MARKER));
    if (unlink(marker) != 0) RAISE(IO, "remove %s: %s", marker, strerror(errno));
    TRY(dir_sync(tmp));
    TRY(fault_point("export.rename"));
    if (dir_exists(dir)) {
        if (renameat2(AT_FDCWD, tmp, AT_FDCWD, dir, RENAME_EXCHANGE) == 0) {
            TRY(dir_sync(slash ? parent : "."));
            TRY(dir_remove(tmp));
            return ERR_OK;
        }
        if (errno != EINVAL && errno != ENOSYS)
            RAISE(IO, "rename %s to %s: %s", tmp, dir, strerror(errno));
        TRY(dir_remove(dir));
    }
    if (rename(tmp, dir) != 0) RAISE(IO, "rename %s to %s: %s", tmp, dir, strerror(errno));
    TRY(dir_sync(slash ? parent : "."));
    return ERR_OK;
}

static err_t write_all(const char *tmp, const struct glm_config *config, const struct hf_plan *plan,
                       struct weight_source *source, const struct hf_export *options)
{
    char marker[FILE_PATH_MAX];
    TRY(path_join(marker, tmp, MARKER));
    TRY(dir_remove(tmp)); /* hf_folder_check has seen that it may be */
    TRY(dir_create(tmp));
    TRY(file_replace(marker, "", 0));
    TRY(copy_companions(tmp, options->tokenizer_dir)); /* cheap, so its failures come first */
    TRY(write_config(tmp, config, options->dtype));
    TRY(write_index(tmp, plan));
    TRY(write_weights(tmp, plan, source, options->show_progress));
    return ERR_OK;
}

err_t hf_folder_write(const char *dir_given, const struct glm_config *config,
                      struct weight_source *source, const struct hf_export *options)
{
    err_t rc = ERR_OK;
    struct hf_plan plan = { 0 };
    char dir[FILE_PATH_MAX], tmp[FILE_PATH_MAX];
    TRY(hf_folder_check(dir_given, config, options));
    TRY(folder_names(dir, tmp, dir_given));
    const int64_t file_bytes =
        options->shard_bytes_max > 0 ? options->shard_bytes_max : FILE_BYTES_DEFAULT;
    TRY_DONE(hf_plan_create(&plan, config, source, options->dtype, file_bytes));
    TRY_DONE(check_room(dir, plan.bytes));
    rc = write_all(tmp, config, &plan, source, options);
    if (rc == ERR_OK) rc = publish(dir, tmp);
    if (rc != ERR_OK) {
        const struct err_record cause = *err_last(); /* the first failure is the one to tell */
        if (dir_remove(tmp) != ERR_OK) LOG_W("export", "left behind: %s", err_last()->text);
        err_adopt(&cause);
        goto done;
    }
    if (options->report)
        *options->report = (struct hf_export_report){ plan.count, plan.file_count,
                                                      plan.element_count, plan.bytes };
done:
    hf_plan_clear(&plan);
    return rc;
}
