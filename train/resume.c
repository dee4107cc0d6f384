#include "train/resume.h"

#include "base/check.h"
#include "base/log.h"
#include "train/checksum_run.h"
#include "train/run.h"
#include "train/settings_kind.h"

#include <stdlib.h>
#include <string.h>

err_t resume_find(int64_t *step, const char *ckpt_root, bool resume, const struct ckpt_ranks *ranks)
{
    int64_t *steps, count;
    *step = -1;
    if (resume) {
        TRY(ckpt_newest(step, ckpt_root, ranks));
        if (*step < 0)
            LOG_I("train", "no checkpoint in %s: starting from the beginning", ckpt_root);
        return ERR_OK;
    }
    if (ranks != NULL && comm_rank(ranks->comm) != 0) return ERR_OK; /* rank 0's word is all's */
    TRY(ckpt_list(&steps, &count, ckpt_root));
    const int64_t newest = count > 0 ? steps[0] : 0;
    free(steps);
    if (count > 0)
        RAISE(USAGE,
              "%s already holds checkpoints (step %lld); continue with --resume, or choose "
              "another train.out",
              ckpt_root, (long long)newest);
    return ERR_OK;
}

err_t resume_lanes(int64_t *lanes, const char *ckpt_root)
{
    int64_t *steps, count;
    TRY(ckpt_list(&steps, &count, ckpt_root));
    for (int64_t i = 0; i < count; i++) {
        char dir[FILE_PATH_MAX];
        struct ckpt_state state;
        err_t rc = ckpt_path(dir, ckpt_root, steps[i]);
        if (rc == ERR_OK) {
            rc = ckpt_state_read(&state, dir);
            if (rc == ERR_OK) *lanes = state.lanes;
            ckpt_state_clear(&state);
        }
        if (rc == ERR_OK) break;
        LOG_D("train", "no lanes in %s: %s", dir, err_last()->text); /* said when it is chosen */
    }
    free(steps);
    return ERR_OK;
}

static err_t compare_settings(const struct cfg *now, const struct cfg *then, const char *dir)
{
    for (int64_t i = 0; i < cfg_row_count(now); i++) {
        const char *key = cfg_row_at(now, i)->key;
        const enum settings_kind kind = settings_kind(key);
        if (kind == SETTINGS_OF_START || settings_same_value(now, then, cfg_row_at(now, i)))
            continue;
        if (kind == SETTINGS_OF_NUMBERS)
            RAISE(USAGE,
                  "%s is %s; the run in %s was started with %s: continue with that, or start "
                  "a new run in another train.out",
                  key, cfg_text(now, key), dir, cfg_text(then, key));
        LOG_W("train", "%s was %s and is now %s", key, cfg_text(then, key), cfg_text(now, key));
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
    char difference[128];
    TRY(check_settings(r, state, dir));
    if (glm_config_difference(&state->model, &r->state.model, difference, sizeof difference))
        RAISE(USAGE, "%s holds another model than %s/config.json describes: %s", dir,
              cfg_str(r->cfg, "model.dir"), difference);
    if (strcmp(state->program, r->state.program) != 0)
        LOG_W("train",
              "%s was written by version %s, this is %s: the last bits of what follows "
              "may differ",
              dir, state->program, r->state.program);
    return ERR_OK;
}

/* The algorithms that the run began with: timed again, others could win, with other last bits. */
static err_t adopt_tuning(struct run *r, const struct ckpt_state *state, const char *dir)
{
    const struct buf *text = &state->tuning;
    if (text->size == 0) return ERR_OK;
    const err_t rc = dev_tuning_adopt(r->dev, text->data, (int64_t)text->size);
    if (rc != ERR_FORMAT) return rc;
    const struct err_record why = *err_last();
    RAISE(FORMAT, "%s: %s", dir, why.text);
}

static err_t load(struct run *r, int64_t step, bool check)
{
    err_t rc = ERR_OK;
    char dir[FILE_PATH_MAX];
    struct ckpt_state state = { .step = 0 };
    TRY_DONE(ckpt_path(dir, r->ckpt_root, step));
    TRY_DONE(ckpt_state_read(&state, dir));
    if (check) TRY_DONE(check_state(r, &state, dir));
    TRY_DONE(adopt_tuning(r, &state, dir));
    /* First: what is half loaded when a stop comes must not be saved. */
    r->state.step = r->step_saved = state.step;
    TRY_DONE(ckpt_load(dir, &state.formats, r->optim, zero_ckpt_loading(&r->zero)));
    TRY_DONE(zero_spread_weights(&r->zero));
    r->state.updates = state.updates;
    r->state.samples = state.samples;
    r->state.stream_index = state.stream_index;
    r->state.guard = state.guard;
    r->state.validation_due = state.validation_due && run_validates(r);
    /* Values in other formats than the files' have other bytes, and other checksums. */
    r->state.crc32c = formats_same(&state.formats, &r->state.formats) ? state.crc32c : 0;
    r->state.grad_norm = r->formats.clip_by_previous ? state.grad_norm : 0.0;
    TRY_DONE(checksum_run_loaded(r, dir));
    if (check) LOG_I("train", "continuing from %s", dir);
done:
    ckpt_state_clear(&state);
    return rc;
}

err_t resume_from(struct run *r, int64_t step) { return load(r, step, true); }

err_t resume_again(struct run *r, int64_t step) { return load(r, step, false); }
