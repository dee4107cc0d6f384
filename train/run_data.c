/* What a run trains on, which model, and for how many steps. */
#include "base/check.h"
#include "base/log.h"
#include "base/num.h"
#include "data/prepare.h"
#include "data/sample_mix.h"
#include "data/settings_batch.h"
#include "train/run_impl.h"
#include "train/validate.h"

#include <math.h>
#include <string.h>

err_t run_open_data(struct run *r)
{
    struct sample_limits limits;
    sample_limits_from_cfg(&limits, r->cfg);
    TRY(shards_open(&r->shards, cfg_str(r->cfg, "data.dir"), true));
    TRY(prepare_check_shards(r->shards, r->cfg));
    struct sample_mix mix;
    TRY(sample_mix_parse(&mix, cfg_str(r->cfg, "batch.source_weights"), r->shards));
    TRY(sample_set_open_mixed(&r->train_set, r->shards, SPLIT_TRAIN, &limits, &mix));
    if (sample_set_count(r->train_set) == 0)
        RAISE(USAGE,
              "%s: no training samples within batch.max_input = %lld and batch.max_target = %lld",
              cfg_str(r->cfg, "data.dir"), (long long)limits.max_input,
              (long long)limits.max_target);
    TRY(sample_set_open(&r->validation_set, r->shards, SPLIT_VALIDATION, &limits));
    if (sample_set_count(r->validation_set) == 0) {
        LOG_W("train", "the validation split of %s is empty: no validation loss",
              cfg_str(r->cfg, "data.dir"));
        sample_set_close(r->validation_set);
        r->validation_set = NULL;
    }
    TRY(batch_spec_from_cfg(&r->batch, r->cfg));
    TRY(batcher_open(&r->batcher, r->train_set, &r->batch));
    r->bounds = batcher_bounds(r->batcher);
    if (r->validation_set != NULL) validate_bounds(&r->bounds, r->validation_set);
    return ERR_OK;
}

/* The corpus was tokenized for a model; its special tokens must be this model's. */
static err_t check_tokens(const struct run *r, const struct glm_config *config)
{
    const struct shard_info *info = shards_info(r->shards);
    const struct {
        const char *name;
        int32_t corpus, model;
    } ids[] = {
        { "<sop> (bos_token_id)", info->specials.sop, config->bos_id },
        { "<eop> (eos_token_id)", info->specials.eop, config->eos_id },
        { "[gMASK] (gmask_token_id)", info->specials.gmask, config->gmask_id },
        { "<pad> (pad_token_id)", info->specials.pad, config->pad_id },
    };
    for (int64_t i = 0; i < COUNT_OF(ids); i++)
        if (ids[i].corpus != ids[i].model)
            RAISE(USAGE,
                  "%s: %s is %d in the corpus and %d in %s/config.json; prepare the corpus "
                  "with this model's tokenizer (data.tokenizer)",
                  cfg_str(r->cfg, "data.dir"), ids[i].name, ids[i].corpus, ids[i].model,
                  cfg_str(r->cfg, "model.dir"));
    if (info->vocab_size > config->vocab_size)
        RAISE(USAGE, "%s: token ids go up to %d; the model of %s has %lld rows",
              cfg_str(r->cfg, "data.dir"), info->vocab_size - 1, cfg_str(r->cfg, "model.dir"),
              (long long)config->vocab_size);
    return ERR_OK;
}

bool run_starts_random(const struct run *r)
{
    return strcmp(cfg_str(r->cfg, "model.init"), "random") == 0;
}

err_t run_read_config(struct run *r, struct glm_config *config)
{
    TRY(glm_config_read(config, cfg_str(r->cfg, "model.dir")));
    /* Models initialised here use exact angles; published weights want theirs (glm_config.h). */
    if (run_starts_random(r)) config->rotary = GLM_ROTARY_FP32_ANGLE;
    TRY(glm_config_apply(config, r->cfg));
    const int64_t longest =
        cfg_int(r->cfg, "batch.max_input") + cfg_int(r->cfg, "batch.max_target");
    if (longest > config->position_max)
        RAISE(USAGE,
              "batch.max_input + batch.max_target is %lld; the model has %lld positions "
              "(max_sequence_length)",
              (long long)longest, (long long)config->position_max);
    return check_tokens(r, config);
}

/* Steps that consume `epochs` passes. In samples mode epochs run into each other, so the samples
 * are counted, not the steps of one epoch; in tokens mode an epoch ends with a step of its own. */
static int64_t steps_of_epochs(const struct run *r, double epochs)
{
    if (r->batch.unit == BATCH_SAMPLES) {
        const int64_t samples = llround(epochs * (double)sample_set_count(r->train_set));
        return div_ceil(max_i64(samples, 1), r->batch.size);
    }
    /* 2.2 * 45 is above 99 in float64; no epoch has as many steps as this tolerance would need. */
    const double steps = epochs * (double)batcher_steps_per_epoch(r->batcher);
    return max_i64((int64_t)ceil(steps * (1.0 - 1e-12)), 1);
}

err_t run_plan_steps(struct run *r)
{
    const double epochs = cfg_float(r->cfg, "train.epochs");
    r->total_steps = cfg_int(r->cfg, "train.steps");
    if (r->total_steps == 0 && epochs == 0.0)
        RAISE(USAGE, "train.steps and train.epochs are both 0; expected one of them above 0");
    if (r->total_steps == 0) r->total_steps = steps_of_epochs(r, epochs);
    return sched_from_cfg(&r->sched, r->cfg, r->total_steps);
}
