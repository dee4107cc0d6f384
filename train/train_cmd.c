/* soulchat train: from a prepared corpus and a model folder to checkpoints. */
#include "train/commands.h"

#include "base/env.h"
#include "base/log.h"
#include "base/num.h"
#include "base/stop.h"
#include "train/loop.h"
#include "train/run.h"
#include "train/supervise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_option options[] = {
    { "resume", NULL, "continue from the newest valid checkpoint of train.out" },
    { "ranks", "N", "as N processes of this machine, a GPU each where train.device is cuda" },
    { "restarts", "N", "start again after a crash, until N in a row brought no new checkpoint" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "train",
    .purpose = "Fine-tune all parameters of a model on a prepared corpus.",
    .example = "soulchat train --config configs/tiny.yaml\n"
               "soulchat train --config configs/tiny.yaml --resume --train.steps=2000\n"
               "soulchat train --config configs/chatglm-6b-soulchat.yaml --ranks 8 --restarts 5",
    .options = options,
    .sections = "train|batch|model|data",
};

static void announce_formats(const struct run *run)
{
    const struct train_formats *f = &run->formats;
    const struct optim_plan *plan = optim_plan_of(run->optim);
    LOG_I("train", "formats: weights %s, gradients %s%s, moments %s%s%s", dtype_name(f->precision),
          dtype_name(f->grad_dtype),
          f->grad_keep == GLM_GRADS_RELEASED ? " of two layers at a time" : "",
          formats_moments_name(f->state.moments), f->state.master ? ", f32 master" : "",
          f->state.place == OPTIM_ON_HOST ? ", in host memory" : "");
    if (f->state.place == OPTIM_ON_HOST)
        LOG_I("train", "host memory: %.2f GB of optimizer state, page-locked",
              (double)plan->bytes[OPTIM_ON_HOST] / 1e9);
    if (f->precision == DTYPE_BF16 && !f->state.master &&
        strcmp(cfg_str(run->cfg, "train.rounding"), "nearest") == 0)
        LOG_W("train", "train.rounding is nearest and there is no master: updates below half a "
                       "unit in a weight's last place are lost");
}

static void announce_ranks(const struct run *run)
{
    const struct zero *zero = &run->zero;
    if (zero->comm == NULL) return;
    const bool chosen = strcmp(cfg_text(run->cfg, "train.zero"), "auto") == 0;
    LOG_I("train", "ranks: %lld over %s, %lld lanes, train.zero %d%s, gradient buffers %lld",
          (long long)zero->size, comm_kind(zero->comm), (long long)zero->lane_count, zero->stage,
          chosen ? " (auto)" : "", (long long)run->lanes.buffer_count);
    const int64_t most = div_ceil(zero->lane_count, zero->size);
    if (zero->lane_count % zero->size != 0)
        LOG_W("train",
              "%lld lanes on %lld ranks: some have %lld, some %lld, so about %.0f %% of their time "
              "goes in waiting; the bits are the same",
              (long long)zero->lane_count, (long long)zero->size, (long long)most,
              (long long)most - 1,
              100.0 - 100.0 * (double)zero->lane_count / (double)(most * zero->size));
}

static void announce(const struct run *run)
{
    announce_ranks(run);
    const struct glm_config *config = glm_config(run->glm);
    const struct sample_counts *counts = sample_set_counts(run->train_set);
    LOG_I("train", "model: %lld parameters, %lld layers, hidden %lld, %s, %s",
          (long long)glm_params(run->glm)->element_count, (long long)config->layer_count,
          (long long)config->hidden_size, config->tied ? "tied head" : "own head",
          glm_rotary_name(config->rotary));
    LOG_I("train", "data: %lld samples, %lld trained tokens, %lld rows an epoch; %s of %lld a step",
          (long long)counts->samples, (long long)counts->trained_tokens, (long long)counts->rows,
          run->batch.unit == BATCH_SAMPLES ? "samples" : "tokens", (long long)run->batch.size);
    LOG_I("train", "memory: %.2f GB on %s, %d threads; %lld steps, checkpoints in %s",
          (double)run->dev->stats.alloc_bytes / 1e9, run->dev->ops->name, run->dev->threads,
          (long long)run->total_steps, run->ckpt_root);
    announce_formats(run);
}

/* The child has said how it went; this process ends as it did. */
static err_t supervise_run(const struct cfg *cfg, const char *restarts,
                           const struct ranks_place *place, int argc, char **argv)
{
    char ckpt_root[FILE_PATH_MAX], record[FILE_PATH_MAX], *end;
    int status;
    const long count = strtol(restarts, &end, 10);
    if (*restarts == '\0' || *end != '\0' || count < 1 || count > 1000000)
        RAISE(USAGE, "--restarts %s; expected a number from 1 to 1000000", restarts);
    if (place->launcher != NULL)
        RAISE(USAGE, "--restarts: %s started this rank, and must start all of them again",
              place->launcher);
    TRY(path_join(ckpt_root, cfg_str(cfg, "train.out"), "ckpt"));
    TRY(path_join(record, cfg_str(cfg, "train.out"), "metrics.jsonl"));
    const struct supervise_args args = {
        .failures_max = count, .ckpt_root = ckpt_root, .record = record, .argc = argc, .argv = argv
    };
    TRY(supervise(&status, &args));
    if (status != 0) exit(status);
    return ERR_OK;
}

static err_t train(struct cfg *cfg, bool resume, const struct ranks_place *place)
{
    struct run run;
    TRY(stop_catch());
    stop_after(cfg_int(cfg, "train.stop_after"));
    err_t rc = run_open(&run, cfg, resume, place);
    if (rc == ERR_OK && run_is_done(&run)) {
        LOG_I("train", "nothing to do: %s is at step %lld of %lld; a higher train.steps trains on",
              cfg_str(cfg, "train.out"), (long long)run.state.step, (long long)run.total_steps);
    } else if (rc == ERR_OK) {
        announce(&run);
        rc = loop_run(&run);
        if (rc == ERR_OK)
            LOG_I("train", "done: step %lld; export it with: soulchat export %s OUT_DIR",
                  (long long)run.state.step, cfg_str(cfg, "train.out"));
    }
    rc = run_leave(&run, rc);
    run_close(&run);
    return rc;
}

/* The processes of this machine, and how they ended; each has said itself what went wrong. */
static err_t launch(const struct cfg *cfg, int64_t ranks, int argc, char **argv)
{
    int status;
    char **words = calloc((size_t)argc + 2, sizeof *words);
    char program[] = "soulchat";
    if (words == NULL) RAISE(NOMEM, "%lld ranks: no memory", (long long)ranks);
    words[0] = program;
    memcpy(words + 1, argv, (size_t)argc * sizeof *words);
    const err_t rc = ranks_launch(&status, ranks, words, cfg_float(cfg, "train.silence"));
    free(words);
    if (rc == ERR_OK && status != 0) exit(status);
    return rc;
}

static err_t read_ranks(int64_t *out, const char *text)
{
    char *end;
    *out = 1;
    if (text == NULL) return ERR_OK;
    const long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 1 || value > COMM_SIZE_MAX)
        RAISE(USAGE, "--ranks %s: expected a number from 1 to %d", text, COMM_SIZE_MAX);
    *out = value;
    return ERR_OK;
}

/* Of several ranks the first speaks, and the others where something is wrong. */
static err_t log_as(const struct ranks_place *place)
{
    char name[LOG_NAME_MAX];
    if (place->size == 1) return ERR_OK;
    snprintf(name, sizeof name, "rank %lld", (long long)place->rank);
    log_set_name(place->rank > 0 ? name : "");
    return place->rank > 0 && env_get("SOULCHAT_LOG") == NULL ? log_init("warn") : ERR_OK;
}

err_t cmd_train(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    struct ranks_place place;
    int64_t ranks;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    const char *wanted = cli_option(&args, &spec, "ranks");
    TRY(read_ranks(&ranks, wanted));
    TRY(ranks_find(&place));
    const char *restarts = cli_option(&args, &spec, "restarts");
    if (restarts != NULL) return supervise_run(cfg, restarts, &place, argc, argv);
    if (place.launcher == NULL && ranks > 1) return launch(cfg, ranks, argc, argv);
    if (place.launcher != NULL && wanted != NULL && ranks != place.size)
        RAISE(USAGE, "--ranks is %lld, and %s has started %lld ranks; leave --ranks out",
              (long long)ranks, place.launcher, (long long)place.size);
    TRY(log_as(&place));
    return train(cfg, cli_option(&args, &spec, "resume") != NULL, &place);
}
