#include "eval/role_names.h"

#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "model/json_in.h"

#include <string.h>

#define STATE_BYTES_MAX (64 << 20)

/* The checkpoint's own settings into `kept`; untouched where it has none. */
static err_t read_kept(struct cfg *kept, const char *dir)
{
    char path[FILE_PATH_MAX];
    json_t *root = NULL;
    TRY(path_join(path, dir, "state.json"));
    if (!file_exists(path)) return ERR_OK;
    TRY(json_in_file(&root, path, STATE_BYTES_MAX));
    const json_t *text = json_object_get(root, "settings");
    const err_t rc = !json_is_string(text)
                         ? ERR_OK
                         : cfg_parse_yaml(kept, json_string_value(text),
                                          (int64_t)json_string_length(text), path);
    json_decref(root);
    return rc;
}

/* What the user set goes over what was kept. */
static err_t apply_set(struct cfg *kept, const struct cfg *cfg, const char *key)
{
    if (!cfg_is_set(cfg, key)) return ERR_OK;
    if (cfg_is_set(kept, key) && strcmp(cfg_str(kept, key), cfg_str(cfg, key)) != 0)
        LOG_W("generate", "%s is \"%s\"; the model was trained with \"%s\"", key, cfg_str(cfg, key),
              cfg_str(kept, key));
    return cfg_set(kept, key, cfg_str(cfg, key), key);
}

err_t role_names_find(struct chat_template *out, const struct cfg *cfg, const char *dir)
{
    static const char *const keys[] = { "data.client_name", "data.counsellor_name",
                                        "data.separator" };
    err_t rc = ERR_OK;
    struct cfg *kept;
    TRY(cfg_create_like(&kept, cfg));
    if (read_kept(kept, dir) != ERR_OK)
        LOG_W("generate", "settings of the run are passed over: %s", err_last()->text);
    for (int64_t i = 0; i < COUNT_OF(keys); i++) TRY_DONE(apply_set(kept, cfg, keys[i]));
    TRY_DONE(chat_template_from_cfg(out, kept));
done:
    cfg_close(kept);
    return rc;
}
