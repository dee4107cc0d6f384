#include "train/plan_open.h"

#include "base/check.h"
#include "base/file.h"
#include "base/num.h"
#include "base/progress.h"
#include "data/settings_batch.h"
#include "kernels/probe.h"
#include "train/feed.h"
#include "train/validate.h"
#include "train/zero.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROBE_N          1024
#define PROBE_S          0.2
#define PROBE_COPY_BYTES (INT64_C(64) << 20)
#define PROBE_COPIES     4
#define NODE_CARDS       8
/* A byte that goes through shared memory is written into it and read from it, each a copy that
 * reads and writes. */
#define SHM_COPIES 4.0

/* ---- the model ---- */

static err_t open_config(struct plan_setup *s, const struct cfg *cfg)
{
    const char *dir = cfg_str(cfg, "model.dir");
    struct glm_config *config = &s->plan.config;
    char path[FILE_PATH_MAX];
    TRY(path_join(path, dir[0] != '\0' ? dir : ".", "config.json"));
    if (dir[0] == '\0' || access(path, F_OK) != 0) {
        *config = glm_chatglm_6b;
        snprintf(s->model_source, sizeof s->model_source, "ChatGLM-6B as published%s%.128s",
                 dir[0] != '\0' ? ": no config.json in " : "", dir);
    } else {
        TRY(glm_config_read(config, dir));
        snprintf(s->model_source, sizeof s->model_source, "%.200s", dir);
    }
    return glm_config_apply(config, cfg);
}

/* ---- the corpus ---- */

/* Means over the training split, and the bounds that a run would allocate for. */
static void measure_samples(struct plan_text *t, struct sample_set *set)
{
    const int64_t count = sample_set_count(set);
    double pairs = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const struct sample *sample = sample_set_at(set, i);
        const double context = (double)sample->prompt_len + 1.0; /* [gMASK] */
        pairs += cost_pairs(context, (double)sample->len - context);
        t->longest = max_i64(t->longest, sample->len);
    }
    t->sample_rows = (double)sample_set_counts(set)->rows / (double)count;
    t->sample_targets = (double)sample_set_counts(set)->trained_tokens / (double)count;
    t->sample_pairs = pairs / (double)count;
    t->measured = true;
}

static err_t read_set(struct plan_setup *s, struct shards *shards, const struct cfg *cfg)
{
    err_t rc = ERR_OK;
    struct sample_set *set = NULL, *validation = NULL;
    struct batcher *batcher = NULL;
    struct plan_text *t = &s->plan.text;
    struct sample_limits limits;
    sample_limits_from_cfg(&limits, cfg);
    TRY_DONE(sample_set_open(&set, shards, SPLIT_TRAIN, &limits));
    if (sample_set_count(set) == 0)
        RAISE_DONE(USAGE, "%s: no training samples within batch.max_input and batch.max_target",
                   cfg_str(cfg, "data.dir"));
    measure_samples(t, set);
    TRY_DONE(batcher_open(&batcher, set, &s->plan.batch));
    if (s->plan.settings.update_in_backward)
        TRY_DONE(feed_check_one_micro(batcher, batcher_steps_per_epoch(batcher),
                                      s->plan.batch.micro_tokens));
    TRY_DONE(sample_set_open(&validation, shards, SPLIT_VALIDATION, &limits));
    t->bounds = batcher_bounds(batcher);
    validate_bounds(&t->bounds, validation); /* as a run does */
    t->micro_tokens = s->plan.batch.micro_tokens;
    if (s->plan.batch.unit == BATCH_TOKENS) t->fill = batcher_pack_fill(batcher);
    snprintf(s->text_source, sizeof s->text_source, "%lld samples of %.200s",
             (long long)sample_set_count(set), cfg_str(cfg, "data.dir"));
done:
    batcher_close(batcher);
    sample_set_close(validation);
    sample_set_close(set);
    return rc;
}

static void assume_text(struct plan_setup *s, const struct cfg *cfg)
{
    const double context = (double)cfg_int(cfg, "plan.context");
    const double target = (double)cfg_int(cfg, "plan.target");
    s->plan.text = (struct plan_text){
        .sample_rows = context + target,
        .sample_targets = target,
        .sample_pairs = cost_pairs(context, target),
        .longest = cfg_int(cfg, "batch.max_input") + cfg_int(cfg, "batch.max_target"),
        .fill = 1.0,
    };
    snprintf(s->text_source, sizeof s->text_source, "assumed: no corpus in \"%.200s\"",
             cfg_str(cfg, "data.dir"));
}

static err_t open_text(struct plan_setup *s, const struct cfg *cfg)
{
    const char *dir = cfg_str(cfg, "data.dir");
    struct shards *shards = NULL;
    TRY(batch_spec_from_cfg(&s->plan.batch, cfg));
    assume_text(s, cfg);
    if (dir[0] == '\0' || access(dir, F_OK) != 0) return ERR_OK;
    TRY(shards_open(&shards, dir, false));
    const err_t rc = read_set(s, shards, cfg);
    shards_close(shards);
    return rc;
}

/* ---- the card ---- */

static err_t probe_copy(double *bytes_per_s)
{
    char *from = malloc((size_t)PROBE_COPY_BYTES), *to = malloc((size_t)PROBE_COPY_BYTES);
    double best_s = 1e30;
    err_t rc = ERR_OK;
    if (from == NULL || to == NULL)
        RAISE_DONE(NOMEM, "copy probe: %lld bytes", (long long)PROBE_COPY_BYTES);
    memset(from, 1, (size_t)PROBE_COPY_BYTES);
    for (int i = 0; i <= PROBE_COPIES; i++) { /* the first one touches the pages */
        const double begin_s = time_now_s();
        memcpy(to, from, (size_t)PROBE_COPY_BYTES);
        const double copy_s = time_now_s() - begin_s;
        if (i > 0 && copy_s < best_s) best_s = copy_s;
    }
    *bytes_per_s = 2.0 * (double)PROBE_COPY_BYTES / best_s;
done:
    free(from);
    free(to);
    return rc;
}

/* Shares of the largest product's rate, as kernels/PERF.md and docs/results.md measured them. */
static err_t measure_processor(struct card *card, struct dev *dev)
{
    struct card_rates *r = &card->rates;
    TRY(probe_gemm(&r->gemm_f32, dev, PROBE_N, PROBE_S));
    TRY(probe_copy(&r->copy));
    r->gemm_share = 0.8;
    r->attn_fwd = 0.6 * r->gemm_f32;
    r->attn_bwd = 0.7 * r->gemm_f32;
    card->measured = true;
    return ERR_OK;
}

static err_t open_processor(struct plan_setup *s, const struct cfg *cfg)
{
    struct card *card = &s->plan.card;
    strcpy(card->name, "cpu");
    strcpy(card->gpu, "processor");
    card->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    TRY(plan_dev_open(&s->device, card, (int)cfg_int(cfg, "train.threads")));
    return measure_processor(card, s->device.dev);
}

/* The GPU of this machine: its name, its memory and its operators answer for themselves. */
static err_t open_present(struct plan_setup *s, const struct cfg *cfg)
{
    struct dev *dev = NULL;
    const char *device = cfg_str(cfg, "train.device");
    if (dev_open(&dev, device, (int)cfg_int(cfg, "train.threads")) != ERR_OK) {
        char reason[ERR_TEXT_MAX / 2];
        snprintf(reason, sizeof reason, "%.200s", err_last()->text);
        RAISE(USAGE, "%s; to plan for a card that is not here: --plan.card=h200 (or another)",
              reason);
    }
    s->device = (struct plan_dev){ .dev = dev, .source = "the device" };
    card_guess(&s->plan.card, &dev->info);
    const char *rates = cfg_str(cfg, "plan.rates");
    if (card_is_known(dev->info.name) || rates[0] != '\0')
        TRY(card_find(&s->plan.card, dev->info.name, rates));
    s->plan.card.memory_bytes = dev->info.memory_bytes;
    return ERR_OK;
}

static err_t open_card(struct plan_setup *s, const struct cfg *cfg)
{
    const char *name = cfg_str(cfg, "plan.card"), *device = cfg_str(cfg, "train.device");
    const char *rates = cfg_str(cfg, "plan.rates");
    const bool automatic = strcmp(name, "auto") == 0;
    struct card *card = &s->plan.card;
    if (strcmp(name, "cpu") == 0 || (automatic && strcmp(device, "cpu") == 0)) {
        TRY(open_processor(s, cfg));
        snprintf(s->rates_source, sizeof s->rates_source, "products and copies measured now");
    } else {
        if (automatic) {
            TRY(open_present(s, cfg));
        } else {
            TRY(card_find(card, name, rates));
            TRY(plan_dev_open(&s->device, card, (int)cfg_int(cfg, "train.threads")));
        }
        snprintf(s->rates_source, sizeof s->rates_source, "%s%.200s",
                 card->measured ? "measured: " : "assumed; measure with soulchat bench",
                 card->measured ? rates : "");
    }
    if (cfg_int(cfg, "plan.memory_bytes") > 0)
        card->memory_bytes = cfg_int(cfg, "plan.memory_bytes");
    s->plan.dev = s->device.dev;
    return ERR_OK;
}

/* Which settings go together depends on the device: a card that is planned for is one. */
static err_t choose_device(struct cfg *cfg)
{
    const char *name = cfg_str(cfg, "plan.card");
    if (strcmp(name, "auto") == 0) return ERR_OK;
    return cfg_set(cfg, "train.device", strcmp(name, "cpu") == 0 ? "cpu" : "cuda", "plan.card");
}

/* ---- ranks ---- */

/* As a run does: a lane for each rank, unless there are to be more. */
static err_t settle_lanes(struct cfg *cfg, int64_t ranks)
{
    char text[32];
    if (ranks == 1 || cfg_int(cfg, "batch.lanes") > 0)
        return zero_check_lanes(max_i64(cfg_int(cfg, "batch.lanes"), 1), ranks);
    snprintf(text, sizeof text, "%lld", (long long)ranks);
    return cfg_set(cfg, "batch.lanes", text, "plan.ranks");
}

static err_t open_links(struct plan_setup *s, const struct cfg *cfg)
{
    const char *intra = cfg_str(cfg, "plan.intra");
    const int64_t wanted = cfg_int(cfg, "plan.ranks_per_node");
    const int64_t links = cfg_int(cfg, "plan.inter_links");
    const struct card *card = &s->plan.card;
    struct fabric *f = &s->plan.fabric;
    f->ranks_per_node = wanted > 0 ? wanted : card->capability > 0 ? NODE_CARDS : COMM_SIZE_MAX;
    f->message_s = cfg_float(cfg, "plan.message_us") * 1e-6;
    const bool automatic = strcmp(intra, "auto") == 0;
    if (automatic) intra = card->link != NULL ? card->link : "pcie4";
    if (automatic && card->capability == 0) {
        f->intra = card->rates.copy / SHM_COPIES;
        intra = "shared memory";
    } else {
        TRY(fabric_link(&f->intra, intra, "plan.intra"));
    }
    TRY(fabric_link(&f->inter, cfg_str(cfg, "plan.inter"), "plan.inter"));
    if (links > 0 && links < f->ranks_per_node)
        f->inter *= (double)links / (double)f->ranks_per_node;
    snprintf(s->links_source, sizeof s->links_source, "%.60s inside a machine, %.60s between",
             intra, cfg_str(cfg, "plan.inter"));
    return ERR_OK;
}

err_t plan_setup_open(struct plan_setup *s, struct cfg *cfg)
{
    const int64_t ranks = cfg_int(cfg, "plan.ranks");
    memset(s, 0, sizeof *s);
    s->plan.spare = cfg_float(cfg, "plan.spare") / 100.0;
    s->plan.copies = strcmp(cfg_str(cfg, "train.save"), "background") == 0;
    TRY(choose_device(cfg));
    TRY(settle_lanes(cfg, ranks));
    TRY(cost_settings_from_cfg(&s->plan.settings, cfg));
    s->plan.settings.ranks = ranks;
    s->plan.settings.zero = (int)cfg_enum(cfg, "train.zero") - 1;
    s->plan.zero_auto = s->plan.settings.zero < 0;
    TRY(open_config(s, cfg));
    TRY(open_text(s, cfg));
    TRY(open_card(s, cfg));
    return open_links(s, cfg);
}

void plan_setup_close(struct plan_setup *s) { plan_dev_close(&s->device); }
