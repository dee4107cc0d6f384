/* soulchat train: from a prepared corpus and a model folder to checkpoints. */
#include "train/commands.h"

#include "base/log.h"
#include "base/stop.h"
#include "train/loop.h"
#include "train/run.h"
#include "train/supervise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_option options[] = {
    { "resume", NULL, "continue from the newest valid checkpoint of train.out" },
    { "restarts", "N", "start again after a crash, until N in a row brought no new checkpoint" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "train",
    .purpose = "Fine-tune all parameters of a model on a prepared corpus.",
    .example = "soulchat train --config configs/tiny.yaml\n"
               "soulchat train --config configs/tiny.yaml --resume --train.steps=2000",
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

static void announce(const struct run *run)
{
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
static err_t supervise_run(const struct cfg *cfg, const char *restarts, int argc, char **argv)
{
    char ckpt_root[FILE_PATH_MAX], *end;
    int status;
    const long count = strtol(restarts, &end, 10);
    if (*restarts == '\0' || *end != '\0' || count < 1 || count > 1000000)
        RAISE(USAGE, "--restarts %s; expected a number from 1 to 1000000", restarts);
    TRY(path_join(ckpt_root, cfg_str(cfg, "train.out"), "ckpt"));
    TRY(supervise(&status, count, ckpt_root, argc, argv));
    if (status != 0) exit(status);
    return ERR_OK;
}

err_t cmd_train(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    struct run run;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;

    if (cli_option(&args, &spec, "restarts") != NULL)
        return supervise_run(cfg, cli_option(&args, &spec, "restarts"), argc, argv);
    stop_catch();
    stop_after(cfg_int(cfg, "train.stop_after"));
    err_t rc = run_open(&run, cfg, cli_option(&args, &spec, "resume") != NULL);
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
    run_close(&run);
    return rc;
}
