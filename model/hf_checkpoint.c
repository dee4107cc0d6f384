#include "model/hf_checkpoint.h"

#include "base/check.h"
#include "model/hf_join.h"
#include "model/json_in.h"
#include "model/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MANIFEST           "MANIFEST.json"
#define STATE              "state.json"
#define STATE_BYTES_MAX    (64 << 20)
#define MANIFEST_BYTES_MAX (64 << 20)
#define MASTER             "master."
#define VERSION            1 /* of the layout in the header */

/* ---- which folder ---- */

static bool is_step_name(const char *name)
{
    int64_t digits = 0;
    if (strncmp(name, "step-", 5) != 0) return false;
    for (const char *p = name + 5; *p; p++, digits++)
        if (*p < '0' || *p > '9') return false;
    return digits >= 1 && digits <= 18;
}

/* Numbers of different length compare as numbers: step-9 before step-00000010. */
static int compare_steps(const char *a, const char *b)
{
    const long long x = strtoll(a + 5, NULL, 10), y = strtoll(b + 5, NULL, 10);
    return x < y ? -1 : x > y;
}

/* What cannot be looked at may be there: taking it for absent would have an older one used. */
static err_t has_file(bool *out, const char *dir, const char *name)
{
    char path[FILE_PATH_MAX];
    struct stat st;
    TRY(path_join(path, dir, name));
    const bool there = stat(path, &st) == 0;
    if (!there && errno != ENOENT && errno != ENOTDIR)
        RAISE(IO, "stat %s: %s", path, strerror(errno));
    *out = there && !S_ISDIR(st.st_mode);
    return ERR_OK;
}

/* The newest complete step folder in `parent`; *found = false when there is none. */
static err_t newest(char dir[FILE_PATH_MAX], bool *found, const char *parent)
{
    err_t rc = ERR_OK;
    char best[256] = "";
    *found = false;
    DIR *folder = opendir(parent);
    if (!folder && (errno == ENOENT || errno == ENOTDIR)) return ERR_OK;
    if (!folder) RAISE(IO, "open folder %s: %s", parent, strerror(errno));
    for (const struct dirent *e; (e = readdir(folder));) {
        char step[FILE_PATH_MAX];
        bool complete = false;
        if (!is_step_name(e->d_name)) continue;
        TRY_DONE(path_join(step, parent, e->d_name));
        TRY_DONE(has_file(&complete, step, MANIFEST));
        if (!complete || (*found && compare_steps(e->d_name, best) <= 0)) continue;
        snprintf(best, sizeof best, "%s", e->d_name);
        *found = true;
    }
    if (*found) TRY_DONE(path_join(dir, parent, best));
done:
    closedir(folder);
    return rc;
}

err_t hf_checkpoint_find(char dir[FILE_PATH_MAX], const char *path)
{
    char inner[FILE_PATH_MAX];
    bool has_manifest = false, has_state = false, found = false;
    TRY(has_file(&has_manifest, path, MANIFEST));
    TRY(has_file(&has_state, path, STATE));
    if (has_manifest && has_state) {
        ASSERT(strlen(path) < FILE_PATH_MAX);
        memcpy(dir, path, strlen(path) + 1);
        return ERR_OK;
    }
    if (has_state)
        RAISE(FORMAT, "%s: a checkpoint without %s; it was not finished, take an older one", path,
              MANIFEST);
    TRY(path_join(inner, path, "ckpt"));
    TRY(newest(dir, &found, inner));
    if (!found) TRY(newest(dir, &found, path));
    if (!found) RAISE(NOTFOUND, "%s: no finished checkpoint in it", path);
    return ERR_OK;
}

/* ---- its files ---- */

/* "model" for model.0003.safetensors; NULL for names of another form. */
static const char *kind_of(const char *name)
{
    static const char *const kinds[] = { "model", "optim" };
    for (int64_t i = 0; i < COUNT_OF(kinds); i++) {
        const size_t bytes = strlen(kinds[i]);
        if (strncmp(name, kinds[i], bytes) != 0 || name[bytes] != '.') continue;
        const char *dot = strchr(name + bytes + 1, '.');
        if (dot && strcmp(dot, ".safetensors") == 0) return kinds[i];
    }
    return NULL;
}

static err_t check_size(const char *path, const char *name, const json_t *entry,
                        const char *manifest)
{
    struct file_reader reader;
    int64_t bytes = 0;
    if (!json_is_object(entry))
        RAISE(FORMAT, "%s: %s is %s; an object is wanted", manifest, name, json_in_type(entry));
    TRY(json_in_int(&bytes, entry, "bytes", 0, INT64_MAX, manifest));
    TRY(file_reader_open(&reader, path));
    const int64_t size = reader.size;
    file_reader_close(&reader);
    if (size != bytes)
        RAISE(FORMAT, "%s: %lld bytes; %s says %lld", path, (long long)size, MANIFEST,
              (long long)bytes);
    return ERR_OK;
}

/* Files of the manifest in its order; weights get rows, masters take the place of a weight's row.
 */
static err_t open_parts(struct hf_join *j, json_t *files, const char *dir, const char *manifest,
                        const char *kind)
{
    const char *name;
    json_t *entry;
    json_object_foreach(files, name, entry)
    {
        char path[FILE_PATH_MAX];
        struct weight_source *source = NULL;
        const char *found = kind_of(name);
        if (!found || strcmp(found, kind) != 0) continue;
        if (strchr(name, '/')) RAISE(FORMAT, "%s: file name %.80s", manifest, name);
        TRY(path_join(path, dir, name));
        TRY(check_size(path, name, entry, manifest));
        TRY(safetensors_source_open(&source, path));
        TRY(hf_join_add_part(j, source, name));
    }
    return ERR_OK;
}

static err_t use_master(struct hf_join *j, int64_t part, int64_t index)
{
    const struct weight_info master = weight_source_info(j->part[part].source, index);
    if (strncmp(master.name, MASTER, sizeof MASTER - 1) != 0) return ERR_OK;
    const int64_t row = weight_source_find(&j->source, master.name + sizeof MASTER - 1);
    if (row < 0) RAISE(FORMAT, "%s: %s has no weight beside it", j->part[part].file, master.name);
    const struct weight_info weight = weight_source_info(&j->source, row);
    if (weight.dims != master.dims || memcmp(weight.dim, master.dim, sizeof weight.dim) != 0) {
        char a[WEIGHT_SHAPE_TEXT_MAX], b[WEIGHT_SHAPE_TEXT_MAX];
        RAISE(FORMAT, "%s: %s is %s, the weight is %s", j->part[part].file, master.name,
              weight_shape_text(a, master.dims, master.dim),
              weight_shape_text(b, weight.dims, weight.dim));
    }
    j->row[row].part = part;
    j->row[row].index = index;
    return ERR_OK;
}

static err_t join_parts(struct hf_join *j, json_t *files, const char *dir, const char *manifest)
{
    TRY(open_parts(j, files, dir, manifest, "model"));
    TRY(hf_join_add_all(j));
    TRY(hf_join_finish(j, dir));
    if (j->row_count == 0) RAISE(FORMAT, "%s: no weights in this checkpoint", manifest);
    const int64_t first = j->part_count;
    TRY(open_parts(j, files, dir, manifest, "optim"));
    for (int64_t part = first; part < j->part_count; part++) {
        const int64_t count = weight_source_count(j->part[part].source);
        for (int64_t i = 0; i < count; i++) TRY(use_master(j, part, i));
    }
    return ERR_OK;
}

static err_t check_version(const json_t *root, const char *path)
{
    int64_t version = 0;
    TRY(json_in_int(&version, root, "version", 0, INT64_MAX, path));
    if (version != VERSION)
        RAISE(UNSUPPORTED, "%s: version %lld; this program reads %d", path, (long long)version,
              VERSION);
    return ERR_OK;
}

err_t hf_checkpoint_open(struct weight_source **out, const char *dir)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    struct hf_join *j = NULL;
    json_t *root = NULL;
    TRY(path_join(path, dir, MANIFEST));
    TRY(json_in_file(&root, path, MANIFEST_BYTES_MAX));
    TRY_DONE(check_version(root, path));
    json_t *files = json_object_get(root, "files");
    if (!json_is_object(files))
        RAISE_DONE(FORMAT, "%s: files is %s; an object is wanted", path, json_in_type(files));
    TRY_DONE(hf_join_create(&j));
    TRY_DONE(join_parts(j, files, dir, path));
    *out = &j->source;
done:
    json_decref(root);
    if (rc != ERR_OK && j) weight_source_close(&j->source);
    return rc;
}

/* ---- its state ---- */

static err_t read_state(struct glm_config *config, char tokenizer_dir[FILE_PATH_MAX],
                        const json_t *root, const char *path)
{
    const json_t *text = json_object_get(root, "model_config");
    const json_t *tokenizer = json_object_get(root, "tokenizer_dir");
    if (!json_is_string(text))
        RAISE(FORMAT, "%s: model_config is %s; a string is wanted", path, json_in_type(text));
    TRY(glm_config_parse(config, json_string_value(text), (int64_t)json_string_length(text), path));
    tokenizer_dir[0] = '\0';
    if (!tokenizer || json_is_null(tokenizer)) return ERR_OK;
    if (!json_is_string(tokenizer) || json_string_length(tokenizer) >= FILE_PATH_MAX)
        RAISE(FORMAT, "%s: tokenizer_dir is not a path of less than %d bytes", path, FILE_PATH_MAX);
    memcpy(tokenizer_dir, json_string_value(tokenizer), json_string_length(tokenizer) + 1);
    return ERR_OK;
}

err_t hf_checkpoint_config(struct glm_config *config, char tokenizer_dir[FILE_PATH_MAX],
                           const char *dir)
{
    char path[FILE_PATH_MAX];
    json_t *root = NULL;
    TRY(path_join(path, dir, STATE));
    TRY(json_in_file(&root, path, STATE_BYTES_MAX));
    const err_t rc = read_state(config, tokenizer_dir, root, path);
    json_decref(root);
    return rc;
}
