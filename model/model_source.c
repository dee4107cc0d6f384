#include "model/model_source.h"

#include "model/hf_checkpoint.h"
#include "model/hf_folder.h"

#include <string.h>

/* A run that has saved nothing yet lacks no config.json. */
static err_t check_is_model(const char *path)
{
    char config[FILE_PATH_MAX], settings[FILE_PATH_MAX], ckpt[FILE_PATH_MAX];
    TRY(path_join(config, path, "config.json"));
    TRY(path_join(settings, path, "settings.yaml"));
    TRY(path_join(ckpt, path, "ckpt"));
    if (file_exists(config)) return ERR_OK;
    if (file_exists(settings) || dir_exists(ckpt))
        RAISE(NOTFOUND,
              "%s: this run has no finished checkpoint yet; train on (--resume) until it has "
              "saved one, or name another run or the folder of a checkpoint",
              path);
    RAISE(NOTFOUND,
          "%s: neither a config.json nor a finished checkpoint in it; expected the folder of a "
          "model, a run or a checkpoint",
          path);
}

static err_t open_folder(struct model_source *s, const char *path)
{
    TRY(check_is_model(path));
    TRY(path_copy(s->dir, path));
    TRY(path_copy(s->tokenizer_dir, path));
    TRY(glm_config_read(&s->config, path));
    return hf_folder_open(&s->weights, path);
}

err_t model_source_open(struct model_source *s, const char *path)
{
    memset(s, 0, sizeof *s);
    if (!dir_exists(path)) RAISE(NOTFOUND, "%s: no such folder", path);
    const err_t rc = hf_checkpoint_find(s->dir, path);
    if (rc == ERR_NOTFOUND) return open_folder(s, path);
    TRY(rc);
    TRY(hf_checkpoint_config(&s->config, s->tokenizer_dir, s->dir));
    return hf_checkpoint_open(&s->weights, s->dir);
}

void model_source_close(struct model_source *s)
{
    weight_source_close(s->weights);
    memset(s, 0, sizeof *s);
}
