#include "train/resume.h"

#include "base/log.h"
#include "train/run.h"

#include <stdlib.h>
#include <string.h>

err_t resume_find(char dir[FILE_PATH_MAX], bool *found, const char *ckpt_root, bool resume)
{
    int64_t *steps, count;
    *found = false;
    if (resume) {
        TRY(ckpt_newest(dir, found, ckpt_root));
        if (!*found) LOG_I("train", "no checkpoint in %s: starting from the beginning", ckpt_root);
        return ERR_OK;
    }
    TRY(ckpt_list(&steps, &count, ckpt_root));
    const int64_t newest = count > 0 ? steps[0] : 0;
    free(steps);
    if (count > 0)
        RAISE(USAGE, "%s already holds checkpoints (step %lld); continue with --resume, or choose "
              "another train.out",
              ckpt_root, (long long)newest);
    return ERR_OK;
}

static bool decides_the_numbers(const char *key)
{
    /* The same limits may be reached with other micro-batches, but not with the same bits. */
    return strncmp(key, "batch.", 6) == 0 || strncmp(key, "model.", 6) == 0;
}

static bool is_about_this_start(const char *key)
{
    return strncmp(key, "train.out", 9) == 0 || strncmp(key, "train.threads", 13) == 0;
}

static err_t compare_settings(const struct cfg *now, const struct cfg *then, const char *dir)
{
    for (int64_t i = 0; i < cfg_row_count(now); i++) {
        const char *key = cfg_row_at(now, i)->key;
        const char *a = cfg_text(now, key), *b = cfg_text(then, key);
        if (strcmp(a, b) == 0) continue;
        if (decides_the_numbers(key))
            RAISE(USAGE, "%s is %s; the run in %s was started with %s: continue with that, or start "
                  "a new run in another train.out",
                  key, a, dir, b);
        if (strncmp(key, "train.", 6) == 0 && !is_about_this_start(key))
            LOG_W("train", "%s was %s and is now %s", key, b, a);
    }
    return ERR_OK;
}

static err_t check_settings(struct run *r, const struct ckpt_state *state, const char *dir)
{
    struct cfg *then;
    TRY(cfg_create_like(&then, r->cfg));
    err_t rc = cfg_parse_yaml(then, state->settings.data, (int64_t)state->settings.size,
                              "settings of the checkpoint");
    if (rc == ERR_OK) rc = compare_settings(r->cfg, then, dir);
    cfg_close(then);
    return rc;
}

static err_t check_state(struct run *r, const struct ckpt_state *state, const char *dir)
{
    if (strcmp(state->corpus_sha256, shards_sha256(r->shards)) != 0)
        RAISE(USAGE, "%s was trained on another corpus (sha256 %.12s..., %s has %.12s...)", dir,
              state->corpus_sha256, cfg_str(r->cfg, "data.dir"), shards_sha256(r->shards));
    if (state->model_config.size != r->state.model_config.size ||
        memcmp(state->model_config.data, r->state.model_config.data, state->model_config.size) != 0)
        RAISE(USAGE, "%s holds another model than %s/config.json describes", dir,
              cfg_str(r->cfg, "model.dir"));
    return check_settings(r, state, dir);
}

err_t resume_from(struct run *r, const char *dir)
{
    err_t rc = ERR_OK;
    struct ckpt_state state;
    TRY(ckpt_read_state(&state, dir));
    TRY_DONE(check_state(r, &state, dir));
    TRY_DONE(ckpt_load(dir, r->glm, r->optim));
    r->state.step = r->step_first = state.step;
    r->state.updates = state.updates;
    r->state.samples = state.samples;
    LOG_I("train", "continuing from %s", dir);
done:
    ckpt_state_clear(&state);
    return rc;
}
