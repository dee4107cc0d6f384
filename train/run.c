#include "train/run.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/num.h"
#include "data/prepare.h"
#include "data/sample_mix.h"
#include "model/hf_folder.h"
#include "train/base_loss.h"
#include "train/record.h"
#include "train/resume.h"
#include "train/validate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static err_t open_data(struct run *r)
{
    const struct sample_limits limits = {
        .max_input = cfg_int(r->cfg, "batch.max_input"),
        .max_target = cfg_int(r->cfg, "batch.max_target"),
        .over_long_target = (enum over_long_target)cfg_enum(r->cfg, "batch.over_long_target"),
    };
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

static bool starts_random(const struct run *r)
{
    return strcmp(cfg_str(r->cfg, "model.init"), "random") == 0;
}

static err_t read_config(struct run *r, struct glm_config *config)
{
    TRY(glm_config_read(config, cfg_str(r->cfg, "model.dir")));
    /* Models initialised here use exact angles; published weights want theirs (glm_config.h). */
    if (starts_random(r)) config->rotary = GLM_ROTARY_FP32_ANGLE;
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

static struct glm_options model_options(const struct run *r)
{
    return (struct glm_options){
        .dtype = r->formats.precision,
        .grad_dtype = r->formats.grad_dtype,
        .grad_keep = r->formats.grad_keep,
        .train = true,
        .activations = r->formats.activations,
        .rows_max = r->bounds.rows,
        .segments_max = r->bounds.segments,
        .targets_max = r->bounds.targets,
        .ranks = 1,
    };
}

static err_t allocate(struct run *r)
{
    struct glm_options options = model_options(r);
    const struct optim_options optim = optim_options_from_cfg(r->cfg);
    TRY(zero_share_model(&r->zero, &options, r->dev, &r->state.model));
    TRY(glm_create(&r->glm, r->dev, &r->state.model, &options));
    TRY(lanes_init_part(&r->lanes, r->dev, r->batch.lanes, r->zero.lane_first, r->zero.lane_end,
                        glm_grad_layout(r->glm)->element_count, glm_grad_dtype(r->glm)));
    TRY(zero_attach(&r->zero, r->glm, &r->lanes, r->batch.lanes));
    return optim_create_on(&r->optim, &r->zero.target, &optim);
}

/* What is said of the one buffer that was too large does not tell what to do. */
static err_t advise(err_t rc)
{
    if (rc != ERR_NOMEM) return rc;
    const struct err_record first = *err_last();
    RAISE(NOMEM, "%s; soulchat plan prints what the settings need, and which of them take less",
          first.text);
}

/* A chunk of initial values, before they are rounded to bf16. */
static err_t put_master(void *context, int64_t index, int64_t first, const float *values,
                        int64_t count)
{
    struct run *r = context;
    return optim_write_state(r->optim, OPTIM_MASTER, index, first, values, count);
}

static err_t load_weights(struct run *r)
{
    struct weight_source *source;
    const struct glm_sink master = { put_master, r };
    const bool exact = r->formats.state.master;
    const uint64_t seed = (uint64_t)cfg_int(r->cfg, "model.init_seed");
    if (starts_random(r))
        return exact ? glm_init_exact(r->glm, seed, &master) : glm_init(r->glm, seed);
    TRY(hf_folder_open(&source, cfg_str(r->cfg, "model.dir")));
    const err_t rc = exact ? glm_load_exact(r->glm, source, &master) : glm_load(r->glm, source);
    weight_source_close(source);
    return rc;
}

/* Steps that consume `epochs` passes. In samples mode epochs run into each other, so the samples
 * are counted, not the steps of one epoch; in tokens mode an epoch ends with a step of its own. */
static int64_t steps_of_epochs(const struct run *r, double epochs)
{
    if (r->batch.unit == BATCH_SAMPLES) {
        const int64_t samples = llround(epochs * (double)sample_set_count(r->train_set));
        return div_ceil(max_i64(samples, 1), r->batch.size);
    }
    /* 1.1 * 10 is above 11 in float64; no epoch has as many steps as this tolerance would need. */
    const double steps = epochs * (double)batcher_steps_per_epoch(r->batcher);
    return max_i64((int64_t)ceil(steps * (1.0 - 1e-12)), 1);
}

static err_t plan_steps(struct run *r)
{
    const double epochs = cfg_float(r->cfg, "train.epochs");
    r->total_steps = cfg_int(r->cfg, "train.steps");
    if (r->total_steps == 0 && epochs == 0.0)
        RAISE(USAGE, "train.steps and train.epochs are both 0; expected one of them above 0");
    if (r->total_steps == 0) r->total_steps = steps_of_epochs(r, epochs);
    return sched_from_cfg(&r->sched, r->cfg, r->total_steps);
}

/* A gradient that is used at once has nothing to be added to: a step must be one micro-batch. What
 * cannot be looked at in a second or two is found at its step. */
static err_t check_one_micro(const struct run *r)
{
    struct step_plan plan;
    const int64_t steps = min_i64(r->total_steps, 1000000);
    for (int64_t step = 0; step < steps && r->formats.grad_keep == GLM_GRADS_RELEASED; step++) {
        TRY(batcher_plan(r->batcher, &plan, step));
        if (plan.micro_count[0] > 1)
            RAISE(USAGE,
                  "train.update is backward, and step %lld has %lld micro-batches of "
                  "batch.micro_tokens = %lld rows: it must be one; set a larger "
                  "batch.micro_tokens, a smaller batch.size, or train.update: step",
                  (long long)step + 1, (long long)plan.micro_count[0],
                  (long long)r->batch.micro_tokens);
    }
    return ERR_OK;
}

/* What checkpoints of this run will say, but for what advances and the model (read_config). */
static err_t describe_state(struct run *r)
{
    struct ckpt_state *s = &r->state;
    const char *model_dir = cfg_str(r->cfg, "model.dir");
    if (strlen(model_dir) >= sizeof s->tokenizer_dir)
        RAISE(USAGE, "model.dir has %zu bytes; at most %zu are possible", strlen(model_dir),
              sizeof s->tokenizer_dir - 1);
    strcpy(s->tokenizer_dir, model_dir);
    strcpy(s->corpus_sha256, shards_sha256(r->shards));
    snprintf(s->program, sizeof s->program, "%s", SOULCHAT_VERSION);
    s->formats = formats_stored(&r->formats.state);
    s->lanes = r->batch.lanes;
    s->seed = (int64_t)r->batch.seed;
    s->stream_index = r->batch.unit == BATCH_SAMPLES ? 0 : -1;
    return cfg_dump_yaml(r->cfg, &s->settings, false);
}

/* The files of this start: its settings, and its line in the metrics. */
static err_t open_records(struct run *r, bool resumed)
{
    char path[FILE_PATH_MAX];
    TRY(dir_create(r->ckpt_root));
    TRY(dir_sync(cfg_str(r->cfg, "train.out"))); /* checkpoints sync what lies below */
    TRY(path_join(path, cfg_str(r->cfg, "train.out"), "settings.yaml"));
    TRY(file_replace(path, r->state.settings.data, (int64_t)r->state.settings.size));
    return record_start(r, resumed);
}

/* Two programs in one run folder would prune each other's checkpoints. The lock goes with the
 * process. */
static err_t lock_folder(struct run *r)
{
    char path[FILE_PATH_MAX];
    const char *dir = cfg_str(r->cfg, "train.out");
    TRY(dir_create(dir));
    TRY(path_join(path, dir, "lock"));
    TRY(file_lock(&r->lock_fd, path, false));
    if (r->lock_fd >= 0) return ERR_OK;
    RAISE(IO, "%s: another program trains in this folder; wait for it, or choose another train.out",
          dir);
}

/* An empty path would silently mean the folder that one happens to be in. */
static err_t check_paths(const struct cfg *cfg)
{
    static const char *const keys[] = { "train.out", "data.dir", "model.dir" };
    for (int64_t i = 0; i < COUNT_OF(keys); i++)
        if (cfg_str(cfg, keys[i])[0] == '\0')
            RAISE(USAGE, "%s is empty; expected the path of a folder: %s", keys[i],
                  cfg_find(cfg, keys[i])->help);
    return ERR_OK;
}

/* ---- ranks ---- */

static err_t share(struct run *r)
{
    struct comm *comm = r->ranks != NULL ? r->ranks->comm : NULL;
    const struct glm_options options = model_options(r);
    const struct zero_need need = { .config = &r->state.model,
                                    .options = &options,
                                    .state = &r->formats.state,
                                    .lane_count = r->batch.lanes };
    int stage = (int)cfg_enum(r->cfg, "train.zero") - 1;
    if (stage < 0 && comm != NULL) TRY(zero_choose(&stage, &need, r->dev, comm));
    return zero_open(&r->zero, comm, comm != NULL ? stage : 0, r->batch.lanes);
}

/* batch.lanes: 0 becomes a number here: that of the run which is continued, or of the ranks. */
static err_t settle_lanes(struct run *r, bool resume, int64_t ranks)
{
    char text[32];
    int64_t lanes = cfg_int(r->cfg, "batch.lanes");
    if (lanes == 0 && resume) TRY(resume_lanes(&lanes, r->ckpt_root));
    if (lanes == 0) lanes = ranks;
    TRY(zero_check_lanes(lanes, ranks));
    snprintf(text, sizeof text, "%lld", (long long)lanes);
    return cfg_set(r->cfg, "batch.lanes", text, "batch.lanes");
}

/* "cuda" alone: of several cards the one with the rank's number on its machine. */
static err_t open_device(struct run *r, const struct ranks_place *place)
{
    const char *device = cfg_str(r->cfg, "train.device");
    char numbered[32];
    snprintf(numbered, sizeof numbered, "cuda:%lld", (long long)place->local_rank);
    if (place->size > 1 && strcmp(device, "cuda") == 0) device = numbered;
    return dev_open(&r->dev, device, (int)cfg_int(r->cfg, "train.threads"));
}

static err_t join_ranks(struct run *r, const struct ranks_place *place)
{
    struct rendezvous_part parts[] = { { .name = "settings" }, { .name = "corpus" } };
    const char *corpus = shards_sha256(r->shards);
    if (place->size == 1) return ERR_OK;
    sha256_of(parts[0].sha256, r->state.settings.data, r->state.settings.size);
    sha256_of(parts[1].sha256, corpus, strlen(corpus));
    return ranks_join(&r->ranks, &(struct ranks_args){ .place = place,
                                                       .dev = r->dev,
                                                       .parts = parts,
                                                       .part_count = COUNT_OF(parts) });
}

/* ---- life cycle ---- */

static err_t open_checked(struct run *r, bool resume, int64_t ranks)
{
    TRY(check_paths(r->cfg));
    TRY(path_join(r->ckpt_root, cfg_str(r->cfg, "train.out"), "ckpt"));
    TRY(path_join(r->metrics_path, cfg_str(r->cfg, "train.out"), "metrics.jsonl"));
    TRY(settle_lanes(r, resume, ranks));
    TRY(formats_from_cfg(&r->formats, r->cfg));
    TRY(guard_rules_from_cfg(&r->guard, r->cfg));
    TRY(open_data(r));
    TRY(plan_steps(r));
    TRY(check_one_micro(r));
    TRY(read_config(r, &r->state.model));
    return describe_state(r);
}

err_t run_open_ranked(struct run *r, struct cfg *cfg, bool resume, const struct ranks_place *place)
{
    char dir[FILE_PATH_MAX] = "";
    bool found = false;
    memset(r, 0, sizeof *r);
    r->metrics.fd = r->lock_fd = -1;
    r->validation_loss = r->base_loss = NAN;
    r->cfg = cfg;
    TRY(open_checked(r, resume, place->size));
    TRY(advise(open_device(r, place)));
    TRY(join_ranks(r, place));
    TRY(share(r));
    if (r->zero.rank == 0) TRY(lock_folder(r));
    TRY(resume_find(dir, &found, r->ckpt_root, resume, zero_ckpt(&r->zero)));
    if (!found) TRY(base_loss_measure(&r->base_loss, r));
    TRY(advise(allocate(r)));
    if (found)
        TRY(resume_from(r, dir));
    else
        TRY(load_weights(r));
    if (run_is_done(r) || r->zero.rank != 0) return ERR_OK;
    return open_records(r, found);
}

err_t run_open(struct run *r, struct cfg *cfg, bool resume)
{
    const struct ranks_place alone = { .size = 1, .listen_fd = -1 };
    return run_open_ranked(r, cfg, resume, &alone);
}

bool run_is_done(const struct run *r) { return r->step_first >= r->total_steps; }

/* A stop on request, and a loss that is not finite, are what all ranks have agreed on: each ends by
 * itself, and none is lost. */
err_t run_leave(struct run *r, err_t rc)
{
    struct ranks *ranks = r->ranks;
    r->ranks = NULL;
    if (rc != ERR_INTERRUPTED && rc != ERR_NUMERIC) return ranks_leave(ranks, rc);
    const struct err_record why = *err_last();
    TRY(ranks_leave(ranks, ERR_OK));
    return err_adopt(&why);
}

void run_close(struct run *r)
{
    ASSERT(r->ranks == NULL); /* exchanges may use what is freed here */
    const err_t rc = r->dev != NULL ? dev_sync(r->dev) : ERR_OK;
    (void)rc; /* nothing may be freed under queued work; its failure has no one to tell any more */
    metrics_close(&r->metrics);
    zero_close(&r->zero);
    if (r->dev != NULL) lanes_clear(&r->lanes);
    optim_close(r->optim);
    glm_close(r->glm);
    dev_close(r->dev);
    batcher_close(r->batcher);
    sample_set_close(r->validation_set);
    sample_set_close(r->train_set);
    shards_close(r->shards);
    ckpt_state_clear(&r->state);
    if (r->lock_fd >= 0) close(r->lock_fd);
}

err_t run_save(struct run *r)
{
    const struct ckpt_keep keep = { .last = cfg_int(r->cfg, "train.keep_last"),
                                    .best = cfg_bool(r->cfg, "train.keep_best"),
                                    .validation_loss = r->validation_loss };
    buf_reset(&r->state.tuning);
    TRY(dev_tuning_write(&r->state.tuning, r->dev));
    TRY(ckpt_save(r->ckpt_root, &r->state, r->optim, &keep, zero_ckpt(&r->zero)));
    r->step_saved = r->state.step;
    return ERR_OK;
}
