#include "train/settings_kind.h"

#include "base/check.h"

#include <string.h>

/* Of sections train and model. */
static const char *const of_start[] = {
    "model.dir",         "train.out",       "train.threads",       "train.keep_last",
    "train.keep_best",   "train.log_every", "train.save_every",    "train.validate_every",
    "train.activations", "train.zero",      "train.moments_place", "train.stop_after",
    "train.check_every", "train.silence",   "train.join_timeout",  "train.comm_timeout",
    "train.save",
};

static bool is_in(const char *key, const char *section)
{
    return strncmp(key, section, strlen(section)) == 0;
}

enum settings_kind settings_kind(const char *key)
{
    for (int64_t i = 0; i < COUNT_OF(of_start); i++)
        if (strcmp(key, of_start[i]) == 0) return SETTINGS_OF_START;
    /* Other micro-batches would train on the same samples, but not to the same bits. */
    if (is_in(key, "batch.") || is_in(key, "model.")) return SETTINGS_OF_NUMBERS;
    return is_in(key, "train.") ? SETTINGS_OF_COURSE : SETTINGS_OF_START;
}

bool settings_of_training(const char *key)
{
    return is_in(key, "train.") || is_in(key, "batch.") || is_in(key, "model.") ||
           is_in(key, "data.");
}

bool settings_same_value(const struct cfg *a, const struct cfg *b, const struct cfg_row *row)
{
    switch (row->type) {
    case CFG_INT:
        return cfg_int(a, row->key) == cfg_int(b, row->key);
    case CFG_FLOAT:
        return cfg_float(a, row->key) == cfg_float(b, row->key);
    default:
        return strcmp(cfg_text(a, row->key), cfg_text(b, row->key)) == 0;
    }
}

static bool is_of_run(const char *key) { return settings_kind(key) != SETTINGS_OF_START; }

err_t settings_of_run(struct buf *out, const struct cfg *cfg)
{
    return cfg_dump_yaml_part(cfg, out, is_of_run);
}
