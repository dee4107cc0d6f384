#include "train/bench_load.h"

#include "base/progress.h"
#include "base/stop.h"
#include "data/loader.h"
#include "data/settings_batch.h"
#include "train/feed.h"

#include <time.h>

/* What is opened for it. */
struct load {
    struct shards *shards;
    struct sample_set *set;
    struct batcher *batcher;
    struct loader *loader;
};

static double cpu_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static err_t open_load(struct load *l, const struct cfg *cfg)
{
    struct sample_limits limits;
    struct batch_spec spec;
    sample_limits_from_cfg(&limits, cfg);
    TRY(shards_open(&l->shards, cfg_str(cfg, "data.dir"), false));
    TRY(sample_set_open(&l->set, l->shards, SPLIT_TRAIN, &limits));
    TRY(batch_spec_from_cfg(&spec, cfg));
    TRY(batcher_open(&l->batcher, l->set, &spec));
    const struct batch_bounds bounds = batcher_bounds(l->batcher);
    const struct loader_spec loader = { .step_end = batcher_steps_per_epoch(l->batcher),
                                        .lane_end = spec.lanes,
                                        .ahead = feed_ahead(&bounds) };
    return loader_open(&l->loader, l->batcher, &loader);
}

static err_t take_step(struct bench_load *out, struct loader *loader)
{
    const struct step_plan *plan;
    const struct loaded *got;
    TRY(loader_plan(loader, &plan));
    int64_t left = loader_left(loader);
    out->rows += plan->rows;
    out->micro_batches += left;
    for (; left > 0; left--) {
        TRY(loader_take(loader, &got));
        loader_give_back(loader);
    }
    return ERR_OK;
}

err_t bench_load_measure(struct bench_load *out, const struct cfg *cfg)
{
    err_t rc = ERR_OK;
    struct load l = { 0 };
    const double open_s = time_now_s();
    *out = (struct bench_load){ 0 };
    TRY_DONE(open_load(&l, cfg));
    const double begin_s = time_now_s(), cpu_s = cpu_now_s();
    out->open_s = begin_s - open_s;
    out->steps_wanted = batcher_steps_per_epoch(l.batcher);
    for (; out->steps < out->steps_wanted && !stop_requested(); out->steps++)
        TRY_DONE(take_step(out, l.loader));
    if (out->steps == 0) RAISE_DONE(INTERRUPTED, "stopped before a step was loaded");
    out->wall_s = time_now_s() - begin_s;
    out->cpu_s = cpu_now_s() - cpu_s;
done:
    loader_close(l.loader);
    batcher_close(l.batcher);
    sample_set_close(l.set);
    shards_close(l.shards);
    return rc;
}
