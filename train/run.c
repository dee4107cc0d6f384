#include "train/run.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "model/hf_folder.h"
#include "train/base_loss.h"
#include "train/feed.h"
#include "train/record.h"
#include "train/resume.h"
#include "train/run_impl.h"
#include "train/settings_kind.h"
#include "train/snapshot.h"
#include "train/zero_memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

static err_t allocate(struct run *r)
{
    struct glm_options options = model_options(r);
    const struct optim_options optim = optim_options_from_cfg(r->cfg, &r->formats.state);
    TRY(zero_share_model(&r->zero, &options, r->dev, &r->state.model));
    TRY(glm_create(&r->glm, r->dev, &r->state.model, &options));
    TRY(lanes_init(&r->lanes, r->dev, r->batch.lanes, r->zero.lane_first, r->zero.lane_end,
                   glm_grad_layout(r->glm)->element_count, glm_grad_dtype(r->glm)));
    TRY(zero_attach(&r->zero, r->glm, &r->lanes));
    TRY(optim_create_on(&r->optim, &r->zero.target, &optim));
    return snapshot_open(&r->snapshot, r->optim,
                         strcmp(cfg_str(r->cfg, "train.save"), "background") == 0,
                         zero_ckpt(&r->zero));
}

/* What is said of the one buffer that was too large does not tell what to do. */
static err_t advise(err_t rc)
{
    if (rc != ERR_NOMEM) return rc;
    const struct err_record first = *err_last();
    RAISE(NOMEM, "%s; soulchat plan prints what the settings need, and which of them take less",
          first.text);
}

static err_t load_weights(struct run *r)
{
    struct weight_source *source;
    struct glm_sink master = optim_master_sink(r->optim);
    const uint64_t seed = (uint64_t)cfg_int(r->cfg, "model.init_seed");
    master.stops = true;
    if (run_starts_random(r))
        return zero_agree_to_stop(&r->zero, glm_init_exact(r->glm, seed, &master));
    TRY(hf_folder_open(&source, cfg_str(r->cfg, "model.dir")));
    const err_t rc = glm_load_exact(r->glm, source, &master);
    weight_source_close(source);
    return zero_agree_to_stop(&r->zero, rc);
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
    return settings_of_run(&s->settings, r->cfg);
}

/* All settings of this start. */
static err_t write_settings(const struct run *r)
{
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    err_t rc = path_join(path, cfg_str(r->cfg, "train.out"), "settings.yaml");
    if (rc == ERR_OK) rc = cfg_dump_yaml(r->cfg, &text, false);
    if (rc == ERR_OK) rc = file_replace(path, text.data, (int64_t)text.size);
    buf_clear(&text);
    return rc;
}

/* The files of this start: its settings, and its line in the metrics. */
static err_t open_records(struct run *r, bool resumed)
{
    TRY(dir_create(r->ckpt_root));
    TRY(ckpt_check_room(r->ckpt_root, r->optim));
    TRY(write_settings(r));
    TRY(record_start(r, resumed));
    return dir_sync(cfg_str(r->cfg, "train.out")); /* the record's name */
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
static err_t check_settings(const struct cfg *cfg)
{
    static const char *const keys[] = { "train.out", "data.dir", "model.dir" };
    for (int64_t i = 0; i < COUNT_OF(keys); i++)
        if (cfg_str(cfg, keys[i])[0] == '\0')
            RAISE(USAGE, "train: %s is not set; give it in --config FILE or as --%s=...", keys[i],
                  keys[i]);
    if (cfg_bool(cfg, "train.keep_best") && cfg_int(cfg, "train.validate_every") == 0)
        RAISE(USAGE, "train.keep_best is true and train.validate_every is 0: no checkpoint has a "
                     "validation loss; set train.validate_every, or train.keep_best: false");
    return ERR_OK;
}

/* ---- life cycle ---- */

static err_t open_checked(struct run *r, bool resume, int64_t ranks)
{
    TRY(check_settings(r->cfg));
    TRY(path_join(r->ckpt_root, cfg_str(r->cfg, "train.out"), "ckpt"));
    TRY(path_join(r->metrics_path, cfg_str(r->cfg, "train.out"), "metrics.jsonl"));
    TRY(run_settle_lanes(r, resume, ranks));
    TRY(formats_from_cfg(&r->formats, r->cfg));
    TRY(guard_rules_from_cfg(&r->guard, r->cfg));
    TRY(run_open_data(r));
    TRY(run_plan_steps(r));
    if (r->formats.grad_keep == GLM_GRADS_RELEASED)
        TRY(feed_check_one_micro(r->batcher, r->total_steps, r->batch.micro_tokens));
    TRY(run_read_config(r, &r->state.model));
    return describe_state(r);
}

err_t run_open(struct run *r, struct cfg *cfg, bool resume, const struct ranks_place *place)
{
    int64_t newest;
    memset(r, 0, sizeof *r);
    r->metrics.fd = r->lock_fd = -1;
    r->validation_loss = r->base_loss = NAN;
    r->cfg = cfg;
    TRY(open_checked(r, resume, place->size));
    TRY(advise(run_open_device(r, place)));
    TRY(run_join_ranks(r, place));
    TRY(share(r));
    if (r->zero.rank == 0) TRY(lock_folder(r));
    TRY(resume_find(&newest, r->ckpt_root, resume, zero_ckpt(&r->zero)));
    const bool resumed = newest >= 0;
    if (!resumed) TRY(base_loss_measure(&r->base_loss, r));
    TRY(advise(allocate(r)));
    zero_note(&r->zero, "load");
    if (resumed)
        TRY(resume_from(r, newest));
    else
        TRY(load_weights(r));
    if (run_is_done(r) || r->zero.rank != 0) return ERR_OK;
    return open_records(r, resumed);
}

bool run_validates(const struct run *r)
{
    return r->validation_set != NULL && cfg_int(r->cfg, "train.validate_every") > 0;
}

bool run_is_done(const struct run *r)
{
    return r->state.step >= r->total_steps && !r->state.validation_due;
}

void run_close(struct run *r)
{
    ASSERT(r->ranks == NULL); /* exchanges may use what is freed here */
    const err_t rc = r->dev != NULL ? dev_sync(r->dev) : ERR_OK;
    (void)rc; /* nothing may be freed under queued work; its failure has no one to tell any more */
    snapshot_close(r->snapshot); /* what is being written is finished first */
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
    zero_note(&r->zero, "save");
    buf_reset(&r->state.tuning);
    TRY(dev_tuning_write(&r->state.tuning, r->dev));
    TRY(snapshot_save(r->snapshot, r->ckpt_root, &r->state, &keep));
    r->step_saved = r->state.step;
    return ERR_OK;
}
