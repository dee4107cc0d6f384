#include "model/hf_folder.h"

#include "base/check.h"
#include "base/file.h"
#include "model/hf_join.h"
#include "model/json_in.h"
#include "model/safetensors.h"
#include "model/torch_zip.h"

#include <string.h>

#define INDEX_BYTES_MAX (256 << 20)

typedef err_t (*open_fn)(struct weight_source **out, const char *path);

/* Where weights may be, in the order in which transformers looks too. */
static const struct {
    const char *file;
    bool is_index;
    open_fn open; /* the file, or the files that the index names */
} places[] = {
    { "model.safetensors", false, safetensors_source_open },
    { "model.safetensors.index.json", true, safetensors_source_open },
    { "pytorch_model.bin", false, torch_zip_source_open },
    { "pytorch_model.bin.index.json", true, torch_zip_source_open },
};

/* ---- the index ---- */

/* Files are named inside the folder; an index does not lead us elsewhere. */
static err_t check_file_name(const json_t *value, const char *tensor, const char *index)
{
    if (!json_is_string(value))
        RAISE(FORMAT, "%s: weight_map: %s is %s; a file name is wanted", index, tensor,
              json_in_type(value));
    const char *name = json_string_value(value);
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/'))
        RAISE(FORMAT, "%s: weight_map: %s is in \"%.80s\"; a file of the same folder is wanted",
              index, tensor, name);
    return ERR_OK;
}

static int64_t find_part(const struct hf_join *j, const char *file)
{
    for (int64_t i = j->part_count - 1; i >= 0; i--) /* neighbours mostly share a file */
        if (strcmp(j->part[i].file, file) == 0) return i;
    return -1;
}

/* Open every file that the map names, in the order of first mention. */
static err_t open_parts(struct hf_join *j, json_t *map, const char *dir, const char *index,
                        open_fn open)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        char path[FILE_PATH_MAX];
        struct weight_source *source = NULL;
        TRY(check_file_name(value, tensor, index));
        const char *file = json_string_value(value);
        if (find_part(j, file) >= 0) continue;
        TRY(path_join(path, dir, file));
        if (!file_exists(path))
            RAISE(NOTFOUND, "%s names %s, which is not there; is the download complete?", index,
                  file);
        TRY(open(&source, path));
        TRY(hf_join_add_part(j, source, file));
    }
    return ERR_OK;
}

/* Every tensor listed is in the file that it is said to be in. */
static err_t check_map(const struct hf_join *j, json_t *map, const char *index)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *file = json_string_value(value);
        const int64_t row = weight_source_find(&j->source, tensor);
        if (row < 0) RAISE(FORMAT, "%s: tensor %s is not in %s", index, tensor, file);
        if (strcmp(hf_join_file(j, row), file) != 0)
            RAISE(FORMAT, "%s: tensor %s is said to be in %s and is in %s", index, tensor, file,
                  hf_join_file(j, row));
    }
    return ERR_OK;
}

static err_t read_index(struct hf_join *j, const char *dir, const char *index, open_fn open)
{
    err_t rc = ERR_OK;
    json_t *root = NULL;
    TRY(json_in_file(&root, index, INDEX_BYTES_MAX));
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map))
        RAISE_DONE(FORMAT, "%s: weight_map is %s; an object is wanted", index, json_in_type(map));
    TRY_DONE(open_parts(j, map, dir, index, open));
    TRY_DONE(hf_join_add_all(j));
    TRY_DONE(hf_join_finish(j, dir));
    TRY_DONE(check_map(j, map, index));
done:
    json_decref(root);
    return rc;
}

/* ---- the folder ---- */

static err_t open_single(struct hf_join *j, const char *dir, const char *path, const char *file,
                         open_fn open)
{
    struct weight_source *source = NULL;
    TRY(open(&source, path));
    TRY(hf_join_add_part(j, source, file));
    TRY(hf_join_add_all(j));
    TRY(hf_join_finish(j, dir));
    return ERR_OK;
}

err_t hf_folder_open(struct weight_source **out, const char *dir)
{
    err_t rc = ERR_OK;
    struct hf_join *j = NULL;
    if (!dir_exists(dir)) RAISE(NOTFOUND, "%s: no such folder", dir);
    TRY(hf_join_create(&j));
    for (int64_t i = 0; i < COUNT_OF(places); i++) {
        char path[FILE_PATH_MAX];
        TRY_DONE(path_join(path, dir, places[i].file));
        if (!file_exists(path)) continue;
        if (places[i].is_index)
            TRY_DONE(read_index(j, dir, path, places[i].open));
        else
            TRY_DONE(open_single(j, dir, path, places[i].file, places[i].open));
        *out = &j->source;
        return ERR_OK;
    }
    RAISE_DONE(NOTFOUND,
               "%s: no weights (model.safetensors, pytorch_model.bin, or an index of "
               "either)",
               dir);
done:
    weight_source_close(&j->source);
    return rc;
}
